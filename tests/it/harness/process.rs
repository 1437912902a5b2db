//! The `fanlight` command as a process of its own.

use std::{net::SocketAddr, process::Stdio};

use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{Child, Command},
    sync::mpsc,
};

use super::{eventually, get, within};

/// A running command. It is killed when the test drops it.
pub struct Process {
    child: Child,
    stdout: mpsc::Receiver<String>,
    stderr: mpsc::Receiver<String>,
    /// Everything it has traced so far, a line each.
    pub trace: Vec<String>,
}

impl Process {
    /// The command with `arguments`, in an empty environment.
    pub fn command(arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fanlight"));
        command
            .args(arguments)
            .env_clear()
            .current_dir(env!("CARGO_TARGET_TMPDIR"))
            .kill_on_drop(true);
        command
    }

    /// Starts it; its trace is JSON since standard error is no terminal.
    pub fn start(mut command: Command) -> Process {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = lines(child.stdout.take().unwrap());
        let stderr = lines(child.stderr.take().unwrap());
        Process { child, stdout, stderr, trace: Vec::new() }
    }

    /// `fanlight serve` on a free port against `upstream`, with further flags.
    pub async fn serve(upstream: &str, flags: &[&str]) -> (Process, SocketAddr) {
        let mut arguments = vec!["serve", "--listen=127.0.0.1:0", "--upstream-url", upstream];
        arguments.extend(flags);
        let mut process = Process::start(Process::command(&arguments));
        let listening = process.traced("listening").await;
        let addr = listening["address"].as_str().unwrap().parse().unwrap();
        (process, addr)
    }

    /// The same, once its upstream is live.
    pub async fn serve_live(upstream: &str, flags: &[&str]) -> (Process, SocketAddr) {
        let (process, addr) = Process::serve(upstream, flags).await;
        eventually("the upstream is live", async || {
            let status = get(addr, "/status", &[]).await.json();
            (status["upstream"]["state"] == "live").then_some(())
        })
        .await;
        (process, addr)
    }

    /// The next line of the trace with this message.
    pub async fn traced(&mut self, message: &str) -> Value {
        loop {
            let line = within(message, self.stderr.recv()).await;
            let Some(line) = line else { panic!("ended without {message:?}: {:#?}", self.trace) };
            let value: Value = serde_json::from_str(&line).unwrap_or_default();
            self.trace.push(line);
            if value["message"] == message {
                return value;
            }
        }
    }

    /// Sends a signal by name, such as `TERM`.
    pub fn signal(&self, name: &str) {
        let pid = self.child.id().expect("still running").to_string();
        let sent = std::process::Command::new("kill").args(["-s", name, &pid]).status().unwrap();
        assert!(sent.success());
    }

    /// Waits for its end, reading the trace meanwhile; gives the exit code.
    pub async fn ended(&mut self) -> Option<i32> {
        within("the process ends", async {
            while let Some(line) = self.stderr.recv().await {
                self.trace.push(line);
            }
            self.child.wait().await.unwrap().code()
        })
        .await
    }

    /// True until it has ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("still running")
    }
}

impl Process {
    /// Waits until the upstream has been in one of these states.
    pub async fn upstream(&mut self, states: &[&str]) {
        let is_one = |line: &Value| {
            line["message"] == "upstream" && states.iter().any(|state| line["state"] == *state)
        };
        let read = |line: &String| serde_json::from_str(line).unwrap_or_default();
        // It may have come to it before it listened.
        if self.trace.iter().map(read).any(|line| is_one(&line)) {
            return;
        }
        while !is_one(&self.traced("upstream").await) {}
    }

    /// Waits for a line of the trace that holds `text`, in whatever format.
    pub async fn wrote(&mut self, text: &str) {
        while !self.trace.iter().any(|line| line.contains(text)) {
            let line = within(text, self.stderr.recv()).await;
            self.trace
                .push(line.unwrap_or_else(|| panic!("ended without {text:?}: {:#?}", self.trace)));
        }
    }

    /// The next line on standard output that holds `text`.
    pub async fn printed(&mut self, text: &str) -> String {
        loop {
            let line = within(text, self.stdout.recv()).await;
            let Some(line) = line else { panic!("ended without printing {text:?}") };
            if line.contains(text) {
                return line;
            }
        }
    }

    /// Ends it as `kill -9` does, and waits until it is gone.
    pub async fn kill(&mut self) {
        within("the process is killed", self.child.kill()).await.unwrap();
    }
}

/// More lines than any test makes a process write.
const LINES_MAX: usize = 1 << 18;

/// Reads lines as they come, so that a test that looks elsewhere does not hold the process up.
fn lines(from: impl AsyncRead + Send + Unpin + 'static) -> mpsc::Receiver<String> {
    let (sender, receiver) = mpsc::channel(LINES_MAX);
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if sender.send(line).await.is_err() {
                return;
            }
        }
    });
    receiver
}
