//! What is compared, and how each is started.
//!
//! The law: every peer runs as it would be set up for speed by someone who knows it, on the same
//! processors, one worker for each of them; its files live in a directory that goes when it goes.
//! The configurations stand beside this file in `config/`.

use std::{
    fmt, fs,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    str::FromStr,
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, anyhow, bail, ensure};

use crate::{
    clock, interrupt, measure,
    process::{self, Process},
    publish::{Api, Http, Publisher},
    upstream::{Backend, Upstream},
};

/// A peer answers within this time of its start. Pushpin starts four services.
const START_MAX: Duration = Duration::from_secs(15);
const START_STEP: Duration = Duration::from_millis(20);
const NCHAN_MODULES: [&str; 2] =
    ["/usr/lib/nginx/modules/ngx_nchan_module.so", "/usr/lib64/nginx/modules/ngx_nchan_module.so"];
const PUSHPIN_INTERNAL: [&str; 2] =
    ["/usr/lib/pushpin/internal.conf", "/usr/local/lib/pushpin/internal.conf"];

/// A way out that is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Transport {
    Sse,
    WebSocket,
}

/// Something that is measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    Floor,
    /// With so many shards; with 0 each stream has a task.
    Fanlight {
        shards: u32,
    },
    Nchan,
    Pushpin,
    Centrifugo,
    Mercure,
}

/// How a peer is to run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Setup {
    /// The `fanlight` command to measure.
    pub(crate) fanlight: PathBuf,
    /// The processors the peer is bound to; none if it is free.
    pub(crate) cpus: Vec<usize>,
    /// Flags for Fanlight beside those every run has.
    pub(crate) flags: Vec<&'static str>,
}

/// A running peer.
#[derive(Debug)]
pub(crate) struct Peer {
    kind: Kind,
    // Stopped before its directory goes: fields are dropped in this order.
    process: Process,
    publisher: Publisher,
    address: SocketAddr,
    _folder: Folder,
}

// === impl Transport ===

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Transport::Sse => "SSE",
            Transport::WebSocket => "WebSocket",
        })
    }
}

impl FromStr for Transport {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Transport> {
        match text {
            "sse" => Ok(Transport::Sse),
            "ws" => Ok(Transport::WebSocket),
            _ => bail!("{text} is neither sse nor ws"),
        }
    }
}

// === impl Kind ===

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Floor => f.write_str("floor"),
            Kind::Fanlight { shards: 0 } => f.write_str("Fanlight, tasks"),
            Kind::Fanlight { shards: 1 } => f.write_str("Fanlight"),
            Kind::Fanlight { shards } => write!(f, "Fanlight, {shards} shards"),
            Kind::Nchan => f.write_str("nchan"),
            Kind::Pushpin => f.write_str("Pushpin"),
            Kind::Centrifugo => f.write_str("Centrifugo"),
            Kind::Mercure => f.write_str("Mercure"),
        }
    }
}

impl FromStr for Kind {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Kind> {
        Ok(match text {
            "floor" => Kind::Floor,
            "fanlight" => Kind::Fanlight { shards: 1 },
            "nchan" => Kind::Nchan,
            "pushpin" => Kind::Pushpin,
            "centrifugo" => Kind::Centrifugo,
            "mercure" => Kind::Mercure,
            _ => {
                let shards = text.strip_prefix("fanlight:").map(str::parse);
                let shards = shards.with_context(|| format!("no peer is called {text}"))??;
                Kind::Fanlight { shards }
            }
        })
    }
}

impl Kind {
    /// Why it cannot be measured here, if so.
    pub(crate) fn missing(&self) -> Option<String> {
        let lacks = |program: &str| {
            in_path(program).is_none().then(|| format!("{program} is not installed"))
        };
        match self {
            Kind::Floor | Kind::Fanlight { .. } => None,
            Kind::Nchan => lacks("nginx").or_else(|| {
                first(&NCHAN_MODULES).is_none().then(|| "nginx has no nchan module".to_owned())
            }),
            Kind::Pushpin => lacks("pushpin").or_else(|| lacks("condure")).or_else(|| {
                first(&PUSHPIN_INTERNAL).is_none().then(|| "no internal.conf of Pushpin".to_owned())
            }),
            Kind::Centrifugo => lacks("centrifugo"),
            Kind::Mercure => lacks("mercure"),
        }
    }

    /// Mercure has no WebSocket, and that of Centrifugo wants a command before it sends.
    pub(crate) fn speaks(&self, transport: Transport) -> bool {
        transport == Transport::Sse || !matches!(self, Kind::Centrifugo | Kind::Mercure)
    }

    /// Most connections a second that are opened: Pushpin answers 500 to some of a faster rush.
    pub(crate) fn opens_per_second(&self) -> Option<f64> {
        (*self == Kind::Pushpin).then_some(300.0)
    }

    /// What a subscriber asks for.
    pub(crate) fn target(&self, transport: Transport) -> &'static str {
        match (self, transport) {
            (Kind::Floor | Kind::Fanlight { .. }, Transport::Sse) => "/events",
            (Kind::Nchan, Transport::Sse) => "/sse",
            (Kind::Pushpin, Transport::Sse) => "/sse",
            // {"subs":{"bench":{}}}
            (Kind::Centrifugo, _) => {
                "/connection/uni_sse?cf_connect=%7B%22subs%22%3A%7B%22bench%22%3A%7B%7D%7D%7D"
            }
            (Kind::Mercure, _) => "/.well-known/mercure?topic=bench",
            (Kind::Pushpin, Transport::WebSocket) => "/ws?channel=bench",
            (_, Transport::WebSocket) => "/ws",
        }
    }

    /// Starts it and waits until it serves. `transport` is what will be measured.
    pub(crate) fn start(&self, setup: &Setup, transport: Transport) -> Result<Peer> {
        let folder = Folder::create()?;
        let (address, publish) = (free_address()?, free_address()?);
        let at = Place { folder: &folder.0, address, publish, setup };
        let (process, publisher) = match self {
            Kind::Floor => at.floor(transport)?,
            Kind::Fanlight { shards } => at.fanlight(*shards)?,
            Kind::Nchan => at.nchan()?,
            Kind::Pushpin => at.pushpin()?,
            Kind::Centrifugo => at.centrifugo()?,
            Kind::Mercure => at.mercure()?,
        };
        Ok(Peer { kind: self.clone(), process, publisher, address, _folder: folder })
    }
}

// === impl Peer ===

impl Peer {
    pub(crate) fn kind(&self) -> &Kind {
        &self.kind
    }

    /// Where subscribers connect.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn publisher(&mut self) -> &mut Publisher {
        &mut self.publisher
    }

    /// Processor time so far of all its processes.
    pub(crate) fn cpu(&self) -> Duration {
        measure::cpu(&self.process.pids())
    }

    /// Its memory, once that has settled.
    pub(crate) fn memory_bytes(&self) -> u64 {
        measure::memory_settled_bytes(|| self.process.pids())
    }

    /// Fails if it has ended, with what it said.
    pub(crate) fn check(&mut self) -> Result<()> {
        self.process.check()
    }
}

/// Where a peer is put.
struct Place<'a> {
    folder: &'a Path,
    address: SocketAddr,
    publish: SocketAddr,
    setup: &'a Setup,
}

impl Place<'_> {
    fn floor(&self, transport: Transport) -> Result<(Process, Publisher)> {
        let program = std::env::current_exe()?;
        let arguments = ["floor".to_owned(), self.address.to_string(), self.publish.to_string()];
        let mut process = self.run("floor", &program, &arguments)?;
        until_serving(&mut process, || TcpStream::connect(self.address).is_ok())?;
        let stream = TcpStream::connect(self.publish)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(START_MAX))?;
        Ok((process, Publisher::Floor { stream, transport }))
    }

    fn fanlight(&self, shards: u32) -> Result<(Process, Publisher)> {
        let upstream = Upstream::start()?;
        let url = upstream.url();
        let (listen, state) = (self.address.to_string(), self.folder.display().to_string());
        let shards = shards.to_string();
        // Keep-alives are longer apart than any phase: the others send none.
        let mut arguments: Vec<String> = [
            ("--listen", listen.as_str()),
            ("--upstream-source", "sse"),
            ("--upstream-url", &url),
            ("--state-dir", &state),
            ("--delivery-shards", &shards),
            ("--stream-keepalive", "10m"),
            ("--websocket-ping-interval", "10m"),
            ("--limits-write-stall", "10m"),
            ("--server-drain-window", "0s"),
            ("--trace-level", "warn"),
        ]
        .into_iter()
        .flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()])
        .collect();
        arguments.insert(0, "serve".to_owned());
        arguments.extend(self.setup.flags.iter().map(|flag| (*flag).to_owned()));
        let mut process = self.run("fanlight", &self.setup.fanlight, &arguments)?;
        until_serving(&mut process, || upstream.is_connected() && self.answers("/readyz"))?;
        Ok((process, Publisher::Upstream(upstream)))
    }

    fn nchan(&self) -> Result<(Process, Publisher)> {
        let module = first(&NCHAN_MODULES).context("the nchan module")?;
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let workers = self.setup.cpus.len().max(1).to_string();
        let config = self
            .fill(include_str!("config/nchan.conf"))
            .replace("@MODULE@", module)
            .replace("@USER@", user)
            .replace("@WORKERS@", &workers);
        fs::write(self.folder.join("nchan.conf"), config)?;
        let prefix = format!("{}/", self.folder.display());
        let arguments = ["-p", &prefix, "-c", "nchan.conf", "-g", "daemon off;", "-e", "error.log"];
        let mut process = self.run("nginx", Path::new("nginx"), &arguments.map(str::to_owned))?;
        until_serving(&mut process, || TcpStream::connect(self.publish).is_ok())?;
        Ok((process, Publisher::Http(Http::new(self.publish, Api::Nchan))))
    }

    fn pushpin(&self) -> Result<(Process, Publisher)> {
        let packaged = first(&PUSHPIN_INTERNAL).context("Pushpin's internal.conf")?;
        // Its sockets lie in a directory of the system that only its own user may write.
        let internal = fs::read_to_string(packaged)?
            .replace("ipc:///var/run/zurl/", "ipc://{rundir}/{ipc_prefix}");
        // Under another name: a file called internal.conf is looked for in the package only.
        fs::write(self.folder.join("inner.conf"), internal)?;
        let config = self.fill(include_str!("config/pushpin.conf"));
        fs::write(self.folder.join("pushpin.conf"), config)?;
        // SSE comes from a backend that tells Pushpin to hold; WebSockets from its own test route.
        let backend = Backend::start()?;
        let routes = format!("*,path_beg=/sse {}\n* test\n", backend.address());
        fs::write(self.folder.join("routes"), routes)?;
        for name in ["run", "log"] {
            fs::create_dir(self.folder.join(name))?;
        }
        let config = self.folder.join("pushpin.conf").display().to_string();
        let arguments = ["--config".to_owned(), config];
        let mut process = self.run("pushpin", Path::new("pushpin"), &arguments)?;
        until_serving(&mut process, || {
            self.answers("/sse") && TcpStream::connect(self.publish).is_ok()
        })?;
        let api = Api::Pushpin { _backend: backend };
        Ok((process, Publisher::Http(Http::new(self.publish, api))))
    }

    fn centrifugo(&self) -> Result<(Process, Publisher)> {
        let config = self.fill(include_str!("config/centrifugo.json"));
        fs::write(self.folder.join("centrifugo.json"), config)?;
        let arguments = ["--config".to_owned(), "centrifugo.json".to_owned()];
        let mut process = self.run("centrifugo", Path::new("centrifugo"), &arguments)?;
        let target = Kind::Centrifugo.target(Transport::Sse);
        until_serving(&mut process, || self.answers(target))?;
        Ok((process, Publisher::Http(Http::new(self.address, Api::Centrifugo))))
    }

    fn mercure(&self) -> Result<(Process, Publisher)> {
        let config = self.fill(include_str!("config/Caddyfile"));
        fs::write(self.folder.join("Caddyfile"), config)?;
        let arguments = ["run", "--config", "Caddyfile"].map(str::to_owned);
        let mut process = self.run("mercure", Path::new("mercure"), &arguments)?;
        let target = Kind::Mercure.target(Transport::Sse);
        until_serving(&mut process, || self.answers(target))?;
        Ok((process, Publisher::Http(Http::new(self.address, Api::Mercure))))
    }

    fn run(&self, name: &str, program: &Path, arguments: &[String]) -> Result<Process> {
        process::start(name, program, arguments, self.folder, &self.setup.cpus)
    }

    fn fill(&self, template: &str) -> String {
        template
            .replace("@DIR@", &self.folder.display().to_string())
            .replace("@PORT@", &self.address.port().to_string())
            .replace("@PUBLISH_PORT@", &self.publish.port().to_string())
    }

    /// True if a request is answered 200.
    fn answers(&self, target: &str) -> bool {
        use std::io::{Read as _, Write as _};
        let asked = || -> std::io::Result<bool> {
            let mut stream = TcpStream::connect(self.address)?;
            stream.set_read_timeout(Some(Duration::from_secs(1)))?;
            let request = format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n");
            stream.write_all(request.as_bytes())?;
            let mut status = [0; 12];
            stream.read_exact(&mut status)?;
            Ok(status == *b"HTTP/1.1 200")
        };
        asked().unwrap_or(false)
    }
}

fn until_serving(process: &mut Process, mut serves: impl FnMut() -> bool) -> Result<()> {
    let deadline = clock::now() + START_MAX;
    while !serves() {
        interrupt::check()?;
        process.check()?;
        ensure!(clock::now() < deadline, "no answer in time; it said:\n{}", process.tail());
        thread::sleep(START_STEP);
    }
    Ok(())
}

/// An address that nobody listens on.
fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn in_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(program)).find(|file| file.is_file())
}

fn first<'a>(paths: &[&'a str]) -> Option<&'a str> {
    paths.iter().copied().find(|path| Path::new(path).is_file())
}

/// A directory of a peer's own, removed with all it holds.
#[derive(Debug)]
struct Folder(PathBuf);

impl Folder {
    fn create() -> Result<Folder> {
        let number = fastrand::u32(..);
        let name = format!("fanlight-peers-{}-{number:08x}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir(&path).map_err(|error| anyhow!("{}: {error}", path.display()))?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
