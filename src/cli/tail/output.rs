//! What goes to standard output, by a thread of its own: a reader that does not read must not
//! keep a signal or the cloud waiting.
//!
//! Law: at most [`BATCHES_MAX`] batches wait; who brings more waits too. The position counts once
//! what it stands for has been written.

use std::{
    io::{self, IsTerminal as _, Write as _},
    thread,
};

use anyhow::{Context as _, anyhow};
use tokio::sync::{mpsc, oneshot};

use super::{
    reader::Line,
    show::{Look, Show},
    state::StateFile,
};

/// Each is what one read of the stream brought.
const BATCHES_MAX: usize = 4;

/// How lines are written.
#[derive(Debug, Clone, Copy)]
pub(super) enum Form {
    /// One JSON object a line.
    Json,
    /// For people.
    Text(Look),
}

/// Why nothing more is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Over {
    /// As many events as were asked for are written.
    Limit,
    /// The writer has ended: nobody reads, or it failed.
    Closed,
}

/// The way to the writer.
#[derive(Debug)]
pub(super) struct Output {
    batches: mpsc::Sender<Vec<Line>>,
    done: oneshot::Receiver<anyhow::Result<()>>,
    events_left: Option<u64>,
}

impl Output {
    /// Starts the writer. `events_max` ends it; without `has_control` control objects are left out.
    pub(super) fn start(
        form: Form,
        has_control: bool,
        events_max: Option<u64>,
        state: Option<StateFile>,
    ) -> anyhow::Result<Output> {
        let (batches, queue) = mpsc::channel(BATCHES_MAX);
        let (told, done) = oneshot::channel();
        let writer = Writer { form: Writing::of(form), has_control, state };
        thread::Builder::new()
            .name("output".to_owned())
            .spawn(move || {
                let _ = told.send(writer.run(queue));
            })
            .context("cannot start a thread")?;
        Ok(Output { batches, done, events_left: events_max })
    }

    /// Events that are still to come, where there is a limit.
    pub(super) fn events_left(&self) -> Option<u64> {
        self.events_left
    }

    /// Hands lines over, as soon as there is room. Cancel-safe: either all or none.
    pub(super) async fn write(&mut self, mut lines: Vec<Line>) -> Result<(), Over> {
        let mut is_last = false;
        let mut left = self.events_left;
        if let Some(left) = &mut left {
            let mut kept = 0;
            for line in &lines {
                if *left == 0 {
                    break;
                }
                kept += 1;
                *left -= u64::from(line.control.is_none());
            }
            is_last = *left == 0;
            lines.truncate(kept);
        }
        if !lines.is_empty() {
            self.batches.send(lines).await.map_err(|_| Over::Closed)?;
        }
        self.events_left = left;
        if is_last { Err(Over::Limit) } else { Ok(()) }
    }

    /// Ends the writer once all is written, and says how it went. As long as nobody reads, it
    /// does not complete.
    pub(super) async fn finish(self) -> anyhow::Result<()> {
        let Output { batches, done, events_left: _ } = self;
        drop(batches);
        done.await.unwrap_or_else(|_| Err(anyhow!("the thread that writes has died")))
    }
}

struct Writer {
    form: Writing,
    has_control: bool,
    state: Option<StateFile>,
}

enum Writing {
    Json,
    Text { show: Box<Show>, is_terminal: bool },
}

impl Writing {
    fn of(form: Form) -> Writing {
        match form {
            Form::Json => Writing::Json,
            Form::Text(look) => Writing::Text {
                show: Box::new(Show::new(look)),
                is_terminal: io::stdout().is_terminal(),
            },
        }
    }
}

impl Writer {
    fn run(mut self, mut queue: mpsc::Receiver<Vec<Line>>) -> anyhow::Result<()> {
        let mut text = String::new();
        while let Some(lines) = queue.blocking_recv() {
            text.clear();
            let position = lines.iter().rev().find_map(|line| line.position);
            self.render(&lines, &mut text);
            drop(lines);
            let mut out = io::stdout().lock();
            match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
                // Nobody reads any more, as with `head`: that is an end like any other.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                written => written.context("cannot print")?,
            }
            if let (Some(state), Some(position)) = (&self.state, position) {
                state.write(position)?;
            }
        }
        Ok(())
    }

    fn render(&mut self, lines: &[Line], text: &mut String) {
        let width = match &self.form {
            Writing::Text { is_terminal: true, .. } => terminal_width(),
            _ => None,
        };
        for line in lines {
            if line.control.is_some() && !self.has_control {
                continue;
            }
            match &mut self.form {
                // A line without JSON is a place that was reached.
                _ if line.json.is_empty() => {}
                Writing::Json => {
                    text.push_str(&line.json);
                    text.push('\n');
                }
                Writing::Text { show, .. } => show.line(line, width, text),
            }
        }
    }
}

/// Asked anew each time: windows change.
fn terminal_width() -> Option<usize> {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok()?;
    Some(usize::from(size.ws_col)).filter(|columns| *columns > 0)
}
