//! `fanlight healthcheck` as a container and cron meet it: its exit code, and its one line.

use std::net::SocketAddr;

use fanlight::simulator::Fault;
use tokio::{net::TcpListener, process::Command};

use crate::harness::{
    Process, Stub, broker, broker_with, eventually, folder, get, quiet_cloud, within,
};

/// What it left behind.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    /// It ended with 0, and printed exactly this line.
    fn says_yes(&self, line: &str) {
        let printed = (self.code, self.stdout.as_str(), self.stderr.as_str());
        assert_eq!(printed, (Some(0), format!("{line}\n").as_str(), ""));
    }

    /// It ended with 1, and said this in one line on standard error.
    fn says_no(&self, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(1), ""), "{self:?}");
        assert_eq!(self.stderr.lines().count(), 1, "{self:?}");
        self.names(parts);
    }

    /// It ended with 2, and said this on standard error.
    fn refuses(&self, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{self:?}");
        self.names(parts);
    }

    fn names(&self, parts: &[&str]) {
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in\n{}", self.stderr);
        }
    }
}

fn command(arguments: &[&str]) -> Command {
    Process::command(&[&["healthcheck"], arguments].concat())
}

async fn done(mut command: Command) -> Done {
    let output = within("its end", command.output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

async fn check(arguments: &[&str]) -> Done {
    done(command(arguments)).await
}

/// The same with its argument `url`, while `stub` answers with this.
async fn check_stub(stub: &Stub, status: &str, headers: &str, body: &str) -> Done {
    let url = stub.url("");
    let answer = async { stub.asked().await.answer(status, headers, body).await };
    let arguments = [url.as_str()];
    tokio::join!(check(&arguments), answer).0
}

#[tokio::test]
async fn where_the_settings_say() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let addr = broker.addr();
    let yes = format!("healthy: http://{addr}/healthz says so");
    let listen = format!("--listen={addr}");
    check(&[&listen]).await.says_yes(&yes);
    check(&[&listen, "--ready", "--timeout=30s"])
        .await
        .says_yes(&format!("ready: http://{addr}/readyz says so"));
    // What means "all addresses" is asked on loopback.
    let mut all = command(&[]);
    all.env("FANLIGHT_LISTEN", format!("0.0.0.0:{}", addr.port()));
    done(all).await.says_yes(&yes);
    // The file counts too, and neither a token nor the parts of a scope need be there.
    let folder = folder("healthcheck");
    let file = format!("listen = \"{addr}\"\n[upstream]\nscope = \"org\"\n");
    std::fs::write(folder.join("fanlight.toml"), file).unwrap();
    let mut at_work = command(&[]);
    at_work.current_dir(&folder);
    done(at_work).await.says_yes(&yes);
    let path = folder.join("fanlight.toml");
    check(&["--config", path.to_str().unwrap()]).await.says_yes(&yes);
}

#[tokio::test]
async fn on_ipv6() {
    if let Err(error) = TcpListener::bind("[::1]:0").await {
        println!("not tested, this machine has no IPv6: {error}");
        return;
    }
    let adjust = |config: &mut fanlight::server::Config| {
        config.listen = SocketAddr::from(([0; 8], 0));
    };
    let broker = broker_with(&["--upstream-url=http://127.0.0.1:1"], adjust).await;
    let port = broker.addr().port();
    check(&["--listen", &format!("[::]:{port}")])
        .await
        .says_yes(&format!("healthy: http://[::1]:{port}/healthz says so"));
}

#[tokio::test]
async fn a_broker_without_its_upstream_is_healthy_and_not_ready() {
    let cloud = quiet_cloud().await;
    cloud.fault("status=401 count=1000".parse::<Fault>().unwrap());
    let (_broker, addr) = Process::serve(&cloud.url(), &["--server-ready-after=1s"]).await;
    eventually("it is not ready", async || {
        (get(addr, "/readyz", &[]).await.status == 503).then_some(())
    })
    .await;
    let url = format!("http://{addr}");
    check(&[&url]).await.says_yes(&format!("healthy: {url}/healthz says so"));
    let parts =
        ["not ready: ", "/readyz answered 503: the upstream has not been live", "allows 1 s"];
    check(&["--ready", &url]).await.says_no(&parts);
}

#[tokio::test]
async fn nobody_and_somebody_else() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let parts = ["not healthy: ", &free.to_string(), "cannot be asked: ", "refused"];
    check(&["--listen", &free.to_string()]).await.says_no(&parts);

    let stub = Stub::listen().await;
    let stranger = ["answered 200, but not as Fanlight does"];
    check_stub(&stub, "200 OK", "", "<h1>Welcome</h1>").await.says_no(&stranger);
    check_stub(&stub, "200 OK", "", "{\"status\":\"ready\"}").await.says_no(&stranger);
    // No more of it is read than of use.
    check_stub(&stub, "200 OK", "", &"x".repeat(1 << 16)).await.says_no(&stranger);
    // A redirect is an answer, and not followed.
    let headers = format!("Location: {}\r\n", stub.url("/elsewhere"));
    check_stub(&stub, "302 Found", &headers, "").await.says_no(&["answered 302"]);
    // What is quoted moves no cursor and stays one line.
    let body = r#"{"error":"x","error_description":"first\nsecond\u001b[2J"}"#;
    let done = check_stub(&stub, "503 Service Unavailable", "", body).await;
    done.says_no(&["answered 503: first second [2J"]);
}

#[tokio::test]
async fn it_waits_no_longer_than_it_may() {
    let stub = Stub::listen().await;
    let url = stub.url("");
    // The head alone, and then nothing: the time holds for the whole answer.
    let hangs = async {
        let mut asked = stub.asked().await;
        assert_eq!(asked.path(), "/healthz");
        asked.send("HTTP/1.1 200 OK\r\nContent-Length: 15\r\n\r\n").await;
        asked
    };
    let arguments = [url.as_str(), "--timeout=100ms"];
    let (done, _asked) = tokio::join!(check(&arguments), hangs);
    done.says_no(&["gave no answer within 100ms"]);
}

#[tokio::test]
async fn a_url_may_have_a_prefix() {
    let stub = Stub::listen().await;
    let url = stub.url("/broker/");
    let answers = async {
        let asked = stub.asked().await;
        assert_eq!(asked.path(), "/broker/readyz");
        asked.answer("200 OK", "", "{\"status\":\"ready\",\"upstream\":\"connecting\"}").await;
    };
    let arguments = [url.as_str(), "--ready"];
    let (done, ()) = tokio::join!(check(&arguments), answers);
    done.says_yes(&format!("ready: {url}readyz says so"));
}

#[tokio::test]
async fn a_proxy_of_the_environment_is_not_asked() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    let url = format!("http://{}", broker.addr());
    let mut command = command(&[&url]);
    command.env("http_proxy", "http://127.0.0.1:1").env("HTTP_PROXY", "http://127.0.0.1:1");
    done(command).await.says_yes(&format!("healthy: {url}/healthz says so"));
}

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    check(&["--nonsense"]).await.refuses(&["--nonsense", "--help"]);
    check(&["nonsense"]).await.refuses(&["such as http://127.0.0.1:8080"]);
    check(&["ftp://x"]).await.refuses(&["http or https"]);
    let done = check(&["http://name:canary@127.0.0.1/"]).await;
    done.refuses(&["without user name and password"]);
    assert!(!done.stderr.contains("canary"), "{done:?}");
    check(&["http://127.0.0.1:8080/readyz"]).await.refuses(&["--ready asks /readyz"]);
    check(&["http://127.0.0.1:8080?x=1"]).await.refuses(&["the broker's address alone"]);
    check(&["--timeout=1h"]).await.refuses(&["--timeout", "100ms to 1m"]);
    check(&["--timeout=5"]).await.refuses(&["--timeout", "unit"]);
    check(&["http://127.0.0.1:1", "--listen=127.0.0.1:1"]).await.refuses(&["cannot be used with"]);
    check(&["--listen=127.0.0.1:0"])
        .await
        .refuses(&["lets the system choose", "give the broker's URL"]);
    let parts = ["listen = \"nowhere\" (flag --listen)", "allowed: ", "remedy: "];
    check(&["--listen=nowhere"]).await.refuses(&parts);
}
