//! The `fanlight` command as a user meets it: what it prints, what it ends with, and that each
//! mistake is told with what to do about it.

use std::{net::SocketAddr, path::Path, process::Stdio};

use fanlight::cli;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
};

use crate::harness::{Process, Stream, folder, get, quiet_cloud, raw_until_closed, within};

/// What a command left behind.
#[derive(Debug)]
struct Done {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

impl Done {
    /// It ended with 2, and said all of this on standard error alone.
    fn refuses(&self, parts: &[&str]) {
        assert_eq!((self.code, self.stdout.as_str()), (Some(2), ""), "{self:?}");
        for part in parts {
            assert!(self.stderr.contains(part), "{part:?} is not in\n{}", self.stderr);
        }
    }

    fn succeeds(&self) -> &str {
        assert_eq!((self.code, self.stderr.as_str()), (Some(0), ""), "{self:?}");
        &self.stdout
    }
}

/// Runs a command to its end.
async fn done(mut command: Command) -> Done {
    let output = within("the command ends", command.stdin(Stdio::null()).output()).await.unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    Done { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

async fn run(arguments: &[&str]) -> Done {
    done(Process::command(arguments)).await
}

/// `fanlight check` with these variables, in a folder with this `fanlight.toml`.
fn check(flags: &[&str], variables: &[(&str, &str)], folder: &Path, file: &str) -> Command {
    std::fs::write(folder.join("fanlight.toml"), file).unwrap();
    let mut command = Process::command(&[&["check"], flags].concat());
    command.envs(variables.iter().copied()).current_dir(folder);
    command
}

const TOKEN: (&str, &str) = ("PARTICLE_ACCESS_TOKEN", "canary-not-a-real-token");
/// What the simulated cloud is served from: no token needed.
const LOCAL: &str = "--upstream-url=http://127.0.0.1:1";

// === help and documents ===

#[tokio::test]
async fn help_names_every_flag_of_every_command() {
    let definition = cli::command();
    for command in definition.get_subcommands() {
        let name = command.get_name();
        let help = run(&[name, "--help"]).await;
        let text = help.succeeds();
        let flags = command.get_arguments().filter_map(|argument| argument.get_long());
        for flag in flags {
            assert!(text.contains(&format!("--{flag}")), "{name} --help has no --{flag}");
        }
        assert!(run(&[name, "-h"]).await.succeeds().contains("--help"), "{name} -h");
        assert!(run(&["--help"]).await.succeeds().contains(name), "{name} in --help");
    }
    let version = run(&["--version"]).await;
    assert_eq!(version.succeeds(), concat!("fanlight ", env!("CARGO_PKG_VERSION"), "\n"));
}

#[tokio::test]
async fn completions_and_the_man_page_are_made() {
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = run(&["completions", shell]).await;
        assert!(text.succeeds().contains("upstream-token-file"), "{shell}");
    }
    run(&["completions", "nonsense"]).await.refuses(&["nonsense", "bash"]);
    let man = run(&["man"]).await;
    for part in [".TH fanlight 1", "\\-\\-upstream\\-token\\-file", "simulate"] {
        assert!(man.succeeds().contains(part), "{part}");
    }
}

#[tokio::test]
async fn a_reader_that_leaves_is_no_failure() {
    for arguments in [&["man"][..], &["completions", "bash"]] {
        let mut command = Process::command(arguments);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // Both print more than a pipe holds.
        within("a byte", child.stdout.take().unwrap().read_u8()).await.unwrap();
        let output = within("its end", child.wait_with_output()).await.unwrap();
        assert_eq!((output.status.code(), output.stderr), (Some(0), Vec::new()), "{arguments:?}");
    }
    let mut command = Process::command(&["demo", "--listen=127.0.0.1:0", "--rate=50"]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let mut trace = BufReader::new(child.stderr.take().unwrap()).lines();
    let addr: SocketAddr = loop {
        let line = within("listening", trace.next_line()).await.unwrap().unwrap();
        let line: Value = serde_json::from_str(&line).unwrap();
        if line["message"] == "listening" {
            break line["address"].as_str().unwrap().parse().unwrap();
        }
    };
    let (mut stream, _) = Stream::live(addr, "/events").await;
    stream.take(3).await;
    within("it is killed", child.kill()).await.unwrap();
}

// === wrong usage ===

#[tokio::test]
async fn wrong_usage_ends_with_2() {
    run(&[]).await.refuses(&["Usage: fanlight <COMMAND>", "serve", "demo"]);
    run(&["nonsense"]).await.refuses(&["unrecognized subcommand", "nonsense", "--help"]);
    run(&["serve", "--nonsense"]).await.refuses(&["--nonsense", "--help"]);
    run(&["serve", "--listne=x"]).await.refuses(&["a similar argument exists", "--listen"]);
    run(&["serve", "--listen"]).await.refuses(&["a value is required", "--listen"]);
    run(&["simulate", "--devices=0"]).await.refuses(&["--devices", "0 is not in 1..=10000"]);
    run(&["simulate", "--fault=nonsense"]).await.refuses(&["unknown fault", "stall, cut, reset"]);
    run(&["demo", "--devices=-1"]).await.refuses(&["demo.devices", "flag --devices", "1 to 10000"]);
    for command in ["serve", "check", "demo"] {
        let refused = run(&[command, LOCAL, "--ring-events-max=5", "--listen=nowhere"]).await;
        let parts = [
            "has 2 problems",
            "ring.events_max = \"5\" (flag --ring-events-max) is less than 16",
            "listen = \"nowhere\" (flag --listen) is not an IP address and a port",
            "allowed: ",
            "remedy: ",
        ];
        refused.refuses(&parts);
    }
}

#[tokio::test]
async fn a_mistake_in_the_configuration_ends_with_2() {
    let folder = folder("cli-mistakes");
    let refused = async |flags: &[&str], variables: &[(&str, &str)], file: &str| {
        done(check(flags, variables, &folder, file)).await
    };
    refused(&[LOCAL], &[], "[ring]\n\nevent_max = 5\n").await.refuses(&[
        "ring.event_max (fanlight.toml:3) is not a setting",
        "did you mean events_max?",
    ]);
    refused(&[LOCAL], &[("FANLIGHT_STREAM_KEEPALIVE", "1h")], "").await.refuses(&[
        "stream.keepalive = \"1h\" (environment variable FANLIGHT_STREAM_KEEPALIVE)",
        "allowed: 1s to 10m",
        "15s",
    ]);
    let both = [("FANLIGHT_UPSTREAM_TOKEN", "canary"), ("FANLIGHT_UPSTREAM_TOKEN_FILE", "/t")];
    let done = refused(&[], &both, "").await;
    done.refuses(&[
        "exclude each other",
        "FANLIGHT_UPSTREAM_TOKEN)",
        "FANLIGHT_UPSTREAM_TOKEN_FILE)",
    ]);
    assert!(!done.stderr.contains("canary"), "{done:?}");
    refused(&[], &[], "")
        .await
        .refuses(&["needs upstream.token_file", "set PARTICLE_ACCESS_TOKEN"]);
    refused(&[], &[("PARTICLE_ACCESS_TOKEN", "")], "")
        .await
        .refuses(&["set PARTICLE_ACCESS_TOKEN"]);
    let absent = folder.join("absent");
    let flag = format!("--upstream-token-file={}", absent.display());
    let parts = [
        "upstream.token_file (flag --upstream-token-file)",
        "create it",
        flag.split_once('=').unwrap().1,
    ];
    refused(&[&flag], &[], "").await.refuses(&parts);
    let config = format!("--config={}", absent.display());
    refused(&[LOCAL, &config], &[], "").await.refuses(&[
        "cannot be read",
        "(flag --config)",
        "remedy",
    ]);
    refused(&[LOCAL], &[], "listen = nowhere\n")
        .await
        .refuses(&["fanlight.toml:1 is not valid TOML"]);
    refused(&["--print", LOCAL, "--upstream-scope=org"], &[], "")
        .await
        .refuses(&["needs upstream.org"]);
}

#[tokio::test]
async fn variables_that_are_no_setting() {
    let folder = folder("cli-variables");
    let checked = |name, value| done(check(&[LOCAL], &[(name, value)], &folder, ""));
    for (name, part) in [
        ("FANLIGHT_UPSTREAM_NONSENSE", "unset it"),
        ("FANLIGHT_LISTN", "did you mean FANLIGHT_LISTEN?"),
        ("FANLIGHT_TOKEN_FILE", "did you mean FANLIGHT_UPSTREAM_TOKEN_FILE?"),
        ("FANLIGHT_LOG", "FANLIGHT_SECTION_KEY"),
    ] {
        let done = checked(name, "canary").await;
        done.refuses(&[&format!("environment variable {name} is not a setting"), part]);
        assert!(!done.stderr.contains("canary"), "{done:?}");
    }
    let done = checked("FANLIGHT_BIN", "canary").await;
    assert_eq!(done.code, Some(0), "{done:?}");
    assert_eq!(
        done.stderr,
        "fanlight: warning: environment variable FANLIGHT_BIN is not a setting; it changes nothing\n"
    );
    for (name, value) in [("FANLIGHT_TEST_SEED", "1"), ("FANLIGHT_PORT", "tcp://10.0.0.1:80")] {
        checked(name, value).await.succeeds();
    }
    // The broker says so too, and starts.
    let mut command = Process::command(&["serve", "--listen=127.0.0.1:0", LOCAL]);
    command.env("FANLIGHT_BIN", "canary");
    let mut process = Process::start(command);
    let warning = "environment variable FANLIGHT_BIN is not a setting; it changes nothing";
    assert_eq!(process.traced(warning).await["level"], "WARN");
    process.traced("listening").await;
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
}

// === check ===

#[tokio::test]
async fn check_prints_what_is_in_force() {
    let folder = folder("cli-print");
    let file = "listen = \"127.0.0.1:1111\"\n[stream]\nkeepalive = \"11s\"\n[poll]\ntimeout_max = \"11s\"\n\
                [ring]\nevents_max = 1_111\n";
    let variables = [
        TOKEN,
        ("FANLIGHT_STREAM_KEEPALIVE", "12s"),
        ("FANLIGHT_POLL_TIMEOUT_MAX", "12s"),
        ("HOME", "/home/someone"),
    ];
    let flags = ["--print", "--poll-timeout-max=13s"];
    let printed = done(check(&flags, &variables, &folder, file)).await;
    let text = printed.succeeds();
    // Flag over environment over file over default, each with its origin.
    for line in [
        "listen = \"127.0.0.1:1111\"  # fanlight.toml:1",
        "events_max = 1111  # fanlight.toml:7",
        "keepalive = \"12s\"  # environment variable FANLIGHT_STREAM_KEEPALIVE",
        "timeout_max = \"13s\"  # flag --poll-timeout-max",
        "stale_after = \"20s\"  # default",
        "# token = \"***\"  # environment variable PARTICLE_ACCESS_TOKEN",
        "dir = \"/home/someone/.local/state/fanlight\"  # default, from $HOME",
    ] {
        assert!(text.lines().any(|printed| printed == line), "{line}\n{text}");
    }
    assert!(!text.contains(TOKEN.1), "{text}");
    let (table, errors) = toml::de::DeTable::parse_recoverable(text);
    assert!(errors.is_empty() && table.get_ref().len() > 10, "{errors:?}");
    // What is printed is a configuration, the same one.
    let again = done(check(&["--print"], &[TOKEN], &folder, text)).await;
    let values = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| Some(line.split_once("  # ")?.0.to_owned())).collect()
    };
    assert_eq!(values(again.succeeds()), values(text));
    let plain = done(check(&[], &[TOKEN], &folder, file)).await;
    for part in
        ["The configuration is usable", "fanlight.toml", "127.0.0.1:1111", "api.particle.io"]
    {
        assert!(plain.succeeds().contains(part), "{plain:?}");
    }
}

// === serve, demo, simulate ===

#[tokio::test]
async fn a_port_in_use_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = taken.local_addr().unwrap().to_string();
    for command in [&["serve", LOCAL][..], &["demo"], &["simulate"]] {
        let listen = format!("--listen={addr}");
        let done = run(&[command, &[listen.as_str()]].concat()).await;
        assert_eq!((done.code, done.stdout.as_str()), (Some(1), ""), "{done:?}");
        assert!(done.stderr.contains(&format!("cannot listen on {addr}")), "{done:?}");
        assert!(done.stderr.contains("another program has it"), "{done:?}");
    }
}

#[tokio::test]
async fn the_trace_is_for_machines_or_for_people() {
    let cloud = quiet_cloud().await;
    let (mut process, _) = Process::serve(&cloud.url(), &[]).await;
    process.upstream(&["live"]).await;
    process.signal("INT");
    assert_eq!(process.ended().await, Some(0));
    for line in &process.trace {
        let line: Value = serde_json::from_str(line).unwrap();
        let has = |field: &str| line[field].is_string();
        assert!(has("timestamp") && has("level") && has("message") && has("target"), "{line}");
    }
    let url = cloud.url();
    let arguments =
        ["serve", "--listen=127.0.0.1:0", "--upstream-url", &url, "--trace-format=text"];
    let mut process = Process::start(Process::command(&arguments));
    process.wrote("state=\"live\"").await;
    process.signal("TERM");
    assert_eq!(process.ended().await, Some(0));
    let text = process.trace.join("\n");
    for part in ["INFO listening address=127.0.0.1:", "signal=\"SIGTERM\"", "state=\"live\""] {
        assert!(text.contains(part), "{part}\n{text}");
    }
    assert!(!text.contains('{') && !text.contains('\u{1b}'), "{text}");
    let (mut quiet, _) = Process::serve(&url, &["--trace-level=info,fanlight::upstream=off"]).await;
    cloud.streams(1).await;
    quiet.signal("TERM");
    assert_eq!(quiet.ended().await, Some(0));
    assert!(!quiet.trace.join("\n").contains("\"upstream\""), "{:?}", quiet.trace);
}

#[tokio::test]
async fn a_demo_is_there_at_once() {
    let mut process = Process::start(Process::command(&[
        "demo",
        "--listen=127.0.0.1:0",
        "--rate=20",
        "--seed=1",
    ]));
    let line = process.printed("In a browser").await;
    let url = line.split_whitespace().last().unwrap().trim_end_matches('/').to_owned();
    let addr: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
    // Each address it prints can be used as it stands.
    let mut paths = vec!["/".to_owned()];
    for label in ["As SSE", "One name prefix", "As JSON lines", "Newest values", "Status"] {
        let line = process.printed(label).await;
        let (_, path) = line.split_once(&url).unwrap_or_else(|| panic!("{line}"));
        paths.push(path.trim_end_matches('\'').to_owned());
    }
    for path in &paths {
        match path.starts_with("/events") {
            true => drop(Stream::live(addr, path).await),
            false => assert_eq!(get(addr, path, &[]).await.status, 200, "{path}"),
        }
    }
    let faults = process.printed("/sim/faults").await;
    let (mut stream, _) = Stream::live(addr, "/events?since=earliest").await;
    let mut events = Vec::new();
    while events.len() < 5 {
        let event = stream.next().await;
        if event.kind == "message" {
            events.push(event.json());
        }
    }
    assert!(events.iter().all(|event| event["coreid"].is_string()), "{events:?}");
    // Breaking it on purpose works too.
    let (_, cloud) = faults.split_once("http://").unwrap();
    let cloud: SocketAddr = cloud.split_once('/').unwrap().0.parse().unwrap();
    fault(cloud, "cut").await;
    while stream.next().await.kind != "fanlight.hole" {}
    process.signal("INT");
    assert_eq!(process.ended().await, Some(0));
}

/// Asks a simulated cloud for a fault, as `curl -d` does.
async fn fault(cloud: SocketAddr, text: &str) {
    let answer = control(cloud, "POST", text).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("\"ok\":true"), "{answer}");
}

async fn control(cloud: SocketAddr, method: &str, body: &str) -> String {
    let head = format!("{method} /sim/faults HTTP/1.1\r\nHost: x\r\nConnection: close\r\n");
    let request = format!("{head}Content-Length: {}\r\n\r\n{body}", body.len());
    raw_until_closed(cloud, request.as_bytes()).await
}

#[tokio::test]
async fn a_simulated_cloud_takes_faults_and_a_broker_serves_from_it() {
    let arguments =
        ["simulate", "--listen=127.0.0.1:0", "--rate=0", "--no-limits", "--token=not-a-real-token"];
    let mut simulation = Process::start(Process::command(&arguments));
    let line = simulation.printed("listens on http://").await;
    let url = line.split_whitespace().last().unwrap().to_owned();
    let cloud: SocketAddr = url.strip_prefix("http://").unwrap().parse().unwrap();
    let (mut broker, addr) = Process::serve(
        &url,
        &["--upstream-token=not-a-real-token", "--upstream-backoff-min=100ms"],
    )
    .await;
    broker.upstream(&["live"]).await;
    let (mut stream, _) = Stream::live(addr, "/events").await;
    fault(cloud, "burst count=3").await;
    assert!(stream.take(3).await.iter().all(|event| event.kind == "message"));
    fault(cloud, r#"{"kind":"cut"}"#).await;
    let kinds: Vec<String> = stream.take(4).await.into_iter().map(|event| event.kind).collect();
    assert_eq!(
        kinds,
        ["fanlight.upstream", "fanlight.upstream", "fanlight.hole", "fanlight.upstream"]
    );
    assert!(control(cloud, "DELETE", "").await.contains("\"ok\":true"));
    assert!(control(cloud, "POST", "nonsense").await.starts_with("HTTP/1.1 400"));
    let state = get(cloud, "/sim", &[]).await.json();
    assert_eq!((&state["streams_open"], &state["opens_total"]), (&1.into(), &2.into()));
    assert!(!state.to_string().contains("not-a-real-token"));
    for (mut process, signal) in [(broker, "INT"), (simulation, "TERM")] {
        process.signal(signal);
        assert_eq!(process.ended().await, Some(0));
    }
}
