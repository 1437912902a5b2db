//! `fanlight check --online` and `--through`: each fault is named, with what to do about it, and
//! a good way is clean. Real proxies are in tests/proxies.

use std::{net::SocketAddr, process::Stdio, sync::Arc, time::Duration};

use fanlight::simulator::{self, Fault, Simulator};
use rcgen::{CertificateParams, KeyPair, date_time_ymd};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    process::Command,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, pki_types::PrivateKeyDer},
};

use crate::harness::{Process, Stub, broker, cloud, folder, publish_many, quiet_cloud, within};

const TOKEN: &str = "canary-not-a-real-token";

/// What a check said.
#[derive(Debug)]
struct Checked {
    code: Option<i32>,
    stdout: String,
    stderr: String,
    report: Value,
}

impl Checked {
    /// The finding of this name.
    fn finding(&self, what: &str) -> &Value {
        let findings = self.report["findings"].as_array().unwrap_or_else(|| panic!("{self:?}"));
        let found = findings.iter().find(|finding| finding["check"] == what);
        found.unwrap_or_else(|| panic!("no {what}: {self:#?}"))
    }

    /// What is not ok, by name.
    fn bad(&self) -> Vec<&str> {
        let findings = self.report["findings"].as_array().unwrap_or_else(|| panic!("{self:?}"));
        let bad = findings.iter().filter(|finding| finding["state"] != "ok");
        bad.map(|finding| finding["check"].as_str().unwrap()).collect()
    }

    /// This alone has failed, and is told so.
    fn fails(&self, what: &str, parts: &[&str]) {
        assert_eq!((self.code, self.bad()), (Some(1), vec![what]), "{self:#?}");
        let finding = self.finding(what);
        assert_eq!(finding["state"], "failed", "{finding}");
        assert!(finding["remedy"].is_string(), "{finding}");
        for part in parts {
            assert!(finding.to_string().contains(part), "{part:?} is not in {finding}");
        }
    }
}

async fn checked(mut command: Command) -> Checked {
    let output = within("its end", command.stdin(Stdio::null()).output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    let (stdout, stderr) = (text(output.stdout), text(output.stderr));
    assert!(!format!("{stdout}{stderr}").contains("canary"), "{stdout}\n{stderr}");
    let report = serde_json::from_str(&stdout).unwrap_or_default();
    Checked { code: output.status.code(), stdout, stderr, report }
}

// === online ===

fn online(url: &str, flags: &[&str]) -> Command {
    let arguments = ["check", "--online", "--json", "--upstream-url", url];
    let mut command = Process::command(&[&arguments, flags].concat());
    command.env("PARTICLE_ACCESS_TOKEN", TOKEN);
    command
}

async fn lively_cloud() -> Simulator {
    let keepalive = Duration::from_millis(50);
    cloud(simulator::Config { token: Some(TOKEN.to_owned()), keepalive, ..Default::default() })
        .await
}

#[tokio::test]
async fn a_good_cloud_is_clean_and_one_open() {
    let cloud = lively_cloud().await;
    let state = folder("check-online");
    let state_dir = format!("--state-dir={}", state.display());
    let done = checked(online(&cloud.url(), &[&state_dir])).await;
    assert_eq!((done.code, done.bad()), (Some(0), vec![]), "{done:#?}");
    for what in
        ["dns", "tcp", "opens", "tls", "clock", "token", "scope", "first-bytes", "keep-alive"]
    {
        done.finding(what);
    }
    assert!(done.finding("opens")["text"].as_str().unwrap().starts_with("1 of 40 opens"));
    assert_eq!(cloud.state().opens_total, 1);
    // The broker and the next check know of it.
    let again = checked(online(&cloud.url(), &[&state_dir])).await;
    assert!(again.finding("opens")["text"].as_str().unwrap().starts_with("2 of 40 opens"));
    // None is made where none is left.
    let used = checked(online(&cloud.url(), &[&state_dir, "--upstream-opens-max=2"])).await;
    used.fails("opens", &["nothing was asked", "one is free in"]);
    assert_eq!(cloud.state().opens_total, 2);
    // As text it is a line each.
    let mut command = Process::command(&["check", "--online", "--upstream-url", &cloud.url()]);
    command.env("PARTICLE_ACCESS_TOKEN", TOKEN);
    let done = checked(command).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.lines().all(|line| line.starts_with("ok ")), "{}", done.stdout);
}

#[tokio::test]
async fn each_refusal_is_told_in_plain_words() {
    let cloud = lively_cloud().await;
    let file = folder("check-token").join("token");
    std::fs::write(&file, "canary-of-another").unwrap();
    let mut command = online(&cloud.url(), &["--upstream-token-file", file.to_str().unwrap()]);
    command.env_remove("PARTICLE_ACCESS_TOKEN");
    checked(command).await.fails("token", &["401", "expired", "make a new one", "/token"]);
    let product = ["--upstream-scope=product", "--upstream-product=nonsense"];
    checked(online(&cloud.url(), &product))
        .await
        .fails("scope", &["404", "nonsense", "there is nothing"]);
    let device = ["--upstream-scope=device", "--upstream-device=000000000000000000000000"];
    checked(online(&cloud.url(), &device)).await.fails("scope", &["403", "the token is good"]);
    for (fault, what, parts) in [
        ("status=429 retry-after=30", "limit", &["limits this address (Retry-After: 30)"][..]),
        ("status=500", "request", &["500", "status page"]),
        ("html", "stream", &["text/html", "login page"]),
        (
            "redirect=https://elsewhere.example/x",
            "request",
            &["elsewhere.example", "the token stays here"],
        ),
    ] {
        cloud.fault(fault.parse::<Fault>().unwrap());
        checked(online(&cloud.url(), &[])).await.fails(what, parts);
    }
}

#[tokio::test]
async fn what_is_below_http_is_told_step_by_step() {
    let done = checked(online("http://nonsense.invalid:1", &[])).await;
    assert_eq!((done.code, done.bad()), (Some(1), vec!["dns", "request"]), "{done:#?}");
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let done = checked(online(&format!("http://{free}"), &[])).await;
    assert_eq!((done.code, done.bad()), (Some(1), vec!["tcp", "request"]), "{done:#?}");
}

#[tokio::test]
async fn a_stream_that_is_deaf_is_noticed() {
    let stub = Stub::listen().await;
    let url = stub.url("");
    let deaf = async {
        // The first connection is only looked at.
        let mut asked = stub.next_request().await;
        asked.stream().await;
        asked.send(":ok\n\n").await;
        asked
    };
    let command = online(&url, &["--upstream-stale-after=5s"]);
    let (done, asked) = tokio::join!(checked(command), deaf);
    drop(asked);
    done.fails("keep-alive", &["nothing more came for 5 s"]);
}

#[tokio::test]
async fn a_clock_that_is_off_is_told() {
    let stub = Stub::listen().await;
    let url = stub.url("");
    let answers = async {
        let mut asked = stub.next_request().await;
        let date = "Date: Mon, 01 Jan 2001 00:00:00 GMT\r\n";
        let head = format!("HTTP/1.1 200 OK\r\n{date}Content-Type: text/event-stream\r\n\r\n");
        asked.send(&head).await;
        // And that is the end of it.
        asked.send(":ok\n\n").await;
    };
    let (done, ()) = tokio::join!(checked(online(&url, &[])), answers);
    assert_eq!(done.bad(), ["clock", "keep-alive"], "{done:#?}");
    let finding = done.finding("clock");
    assert_eq!((done.code, &finding["state"]), (Some(0), &"warning".into()), "{finding}");
    assert!(finding["text"].as_str().unwrap().contains("ahead of the server's"), "{finding}");
}

/// A port with a certificate of nobody this machine trusts, or with one that is trusted.
async fn tls_port(
    params: CertificateParams,
    is_trusted: bool,
) -> (u16, Option<std::path::PathBuf>) {
    let key = KeyPair::generate().unwrap();
    let cert = params.self_signed(&key).unwrap();
    let roots = folder(&format!("check-roots-{}", fastrand::u64(..))).join("roots.pem");
    std::fs::write(&roots, cert.pem()).unwrap();
    let der = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], der);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move { acceptor.accept(socket).await.map(drop) });
        }
    });
    (port, is_trusted.then_some(roots))
}

#[tokio::test]
async fn certificate_trouble_is_named() {
    let params = |name: &str| CertificateParams::new([name.to_owned()]).unwrap();
    let mut expired = params("localhost");
    (expired.not_before, expired.not_after) =
        (date_time_ymd(2001, 1, 1), date_time_ymd(2002, 1, 1));
    for (params, is_trusted, part) in [
        (params("localhost"), false, "nobody this machine trusts vouches for it"),
        (params("elsewhere.example"), true, "for another name"),
        (expired, true, "has expired"),
    ] {
        let (port, roots) = tls_port(params, is_trusted).await;
        let mut command = online(&format!("https://localhost:{port}"), &[]);
        if let Some(roots) = roots {
            command.env("SSL_CERT_FILE", roots);
        }
        let done = checked(command).await;
        let finding = done.finding("tls");
        assert_eq!((done.code, &finding["state"]), (Some(1), &"failed".into()), "{done:#?}");
        let text = finding["text"].as_str().unwrap();
        assert!(text.contains(part) || part.starts_with("nobody"), "{finding}");
    }
}

// === through ===

/// What a proxy does wrong.
#[derive(Clone, Copy, Default)]
struct Faults {
    /// Holds the body back until it has so many bytes.
    held_bytes: usize,
    /// Ends the stream after this.
    cut_after: Option<&'static str>,
    /// Request headers that are left out.
    dropped: &'static [&'static str],
    /// `Host` is this.
    host: Option<&'static str>,
    /// In the answer's head, this text becomes that one.
    replaced: &'static [(&'static str, &'static str)],
    /// Paths that are refused, as the documents advise.
    denies_inside: bool,
}

/// A proxy that is good but for its faults.
async fn proxy(addr: SocketAddr, faults: Faults) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let proxy = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(pass(near, addr, faults));
        }
    });
    proxy
}

async fn pass(mut near: TcpStream, addr: SocketAddr, faults: Faults) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if near.read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let head = String::from_utf8(head).unwrap();
    if faults.denies_inside && head.starts_with("GET /metrics") {
        return near.write_all(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n").await;
    }
    let mut lines: Vec<String> = Vec::new();
    for line in head.trim_end().lines() {
        let name = line.split(':').next().unwrap().to_lowercase();
        match faults.host {
            _ if faults.dropped.contains(&name.as_str()) => {}
            Some(host) if name == "host" => lines.push(format!("Host: {host}")),
            _ => lines.push(line.to_owned()),
        }
    }
    let mut far = TcpStream::connect(addr).await?;
    far.write_all(format!("{}\r\n\r\n", lines.join("\r\n")).as_bytes()).await?;
    let mut answer = Vec::new();
    while !answer.windows(4).any(|window| window == b"\r\n\r\n") {
        if far.read_buf(&mut answer).await? == 0 {
            return Ok(());
        }
    }
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut body = answer.split_off(end);
    let mut head = String::from_utf8(answer).unwrap();
    for (old, new) in faults.replaced {
        head = head.replace(old, new);
    }
    near.write_all(head.as_bytes()).await?;
    loop {
        let part = String::from_utf8_lossy(&body);
        let is_cut = faults.cut_after.is_some_and(|text| part.contains(text));
        if body.len() >= faults.held_bytes {
            near.write_all(&body).await?;
            body.clear();
        }
        if is_cut {
            return Ok(());
        }
        if far.read_buf(&mut body).await? == 0 {
            return near.write_all(&body).await;
        }
    }
}

async fn compared(direct: SocketAddr, proxy: SocketAddr, watch: &'static str) -> Checked {
    let (direct, proxy) = (format!("http://{direct}"), format!("http://{proxy}"));
    let arguments = ["check", "--json", "--for", watch, "--direct", &direct, "--through", &proxy];
    checked(Process::command(&arguments)).await
}

#[tokio::test]
async fn a_proxy_that_passes_everything_on_is_clean() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--stream-keepalive=1s"]).await;
    let good = proxy(broker.addr(), Faults { denies_inside: true, ..Faults::default() }).await;
    let done = compared(broker.addr(), good, "3s").await;
    assert_eq!((done.code, done.bad()), (Some(0), vec![]), "{done:#?}");
    // Where the settings say that the broker listens.
    let (listen, proxy) = (format!("--listen={}", broker.addr()), format!("http://{good}"));
    let arguments = ["check", &listen, "--for=500ms", "--through", &proxy];
    let done = checked(Process::command(&arguments)).await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert!(done.stdout.lines().all(|line| line.starts_with("ok ")), "{}", done.stdout);
}

#[tokio::test]
async fn each_fault_of_a_proxy_is_named() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--stream-keepalive=1s"]).await;
    publish_many(&cloud, &broker, "count", 2).await;
    let inside = Faults { denies_inside: true, ..Faults::default() };
    let cases = [
        // The small hello and all that follows; the short streams come when they end.
        (Faults { held_bytes: 1 << 20, ..inside }, &["hello", "websocket"][..]),
        (Faults { cut_after: Some("\r\n:\n"), ..inside }, &["cut"]),
        (Faults { dropped: &["last-event-id"], ..inside }, &["resume"]),
        (Faults { dropped: &["upgrade"], ..inside }, &["websocket"]),
        (Faults { host: Some("inside"), ..inside }, &["origin"]),
        (Faults { host: Some("inside.example"), ..inside }, &["answer"]),
        (
            Faults { replaced: &[("cache-control: no-store, no-transform\r\n", "")], ..inside },
            &["headers"],
        ),
        (
            Faults {
                replaced: &[
                    ("HTTP/1.1 200", "HTTP/1.0 200"),
                    ("transfer-encoding: chunked\r\n", ""),
                ],
                ..inside
            },
            &["http"],
        ),
        (Faults { replaced: &[("text/event-stream", "text/plain")], ..inside }, &["content-type"]),
        (
            Faults {
                replaced: &[("no-transform\r\n", "no-transform\r\ncontent-encoding: gzip\r\n")],
                ..inside
            },
            &["compression"],
        ),
        (Faults::default(), &["inside"]),
    ];
    let mut checks = Vec::new();
    for (faults, expected) in cases {
        let (direct, proxy) = (broker.addr(), proxy(broker.addr(), faults).await);
        checks.push((expected, tokio::spawn(compared(direct, proxy, "3s"))));
    }
    for (expected, check) in checks {
        let done = within("the check ends", check).await.unwrap();
        let bad = done.bad();
        for what in expected {
            assert!(bad.contains(what), "{what} is not named: {done:#?}");
            let finding = done.finding(what);
            assert!(finding["remedy"].is_string(), "{finding}");
            // No line of any proxy alone makes it speak HTTP/1.0 to clients.
            assert_eq!(finding["directives"].is_object(), *what != "http", "{finding}");
        }
    }
}

#[tokio::test]
async fn answers_that_are_no_stream() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let stub = Stub::listen().await;
    let refuses = async {
        loop {
            let headers = "Content-Type: text/html\r\n";
            stub.next_request().await.answer("502 Bad Gateway", headers, "<h1>502</h1>").await;
        }
    };
    let done = tokio::select! {
        done = compared(broker.addr(), stub.addr(), "500ms") => done,
        () = refuses => unreachable!(),
    };
    done.fails("answer", &["502 with a page: it does not reach the broker", "give up for good"]);
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    compared(broker.addr(), free, "500ms").await.fails("answer", &["does not answer"]);
    let done = compared(free, broker.addr(), "500ms").await;
    assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{done:?}");
    assert!(done.stderr.contains("no broker to compare with"), "{done:?}");
}

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    for (arguments, part) in [
        (&["--through=ftp://x"][..], "http or https"),
        (&["--direct=http://127.0.0.1:1"], "--through"),
        (&["--through=http://127.0.0.1:1", "--online"], "cannot be used with"),
        (&["--through=http://127.0.0.1:1", "--listen=127.0.0.1:0"], "--direct"),
        (&["--through=http://127.0.0.1:1", "--for=1ms"], "500ms to 1h"),
        (&["--through=http://a:canary@127.0.0.1:1"], "without user name"),
        (&["--json", "--upstream-url=http://127.0.0.1:1"], "--json is for"),
        (&["--online", "--upstream-source=demo"], "no cloud to ask"),
        (&["--online"], "needs upstream.token_file"),
    ] {
        let done = checked(Process::command(&[&["check"], arguments].concat())).await;
        assert_eq!(done.code, Some(2), "{done:?}");
        assert!(done.stderr.contains(part), "{done:?}");
    }
}
