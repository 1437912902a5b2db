//! What a check has found, and how it is told.
//!
//! Law: each finding is one line, and what is not well says what to do about it. Nothing in it
//! moves a cursor: what others wrote has been made visible before.

use serde_json::{Value, json};

use super::directives::Directives;

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum State {
    Ok,
    /// It works, and may not stay so.
    Warning,
    Failed,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Warning => "warning",
            State::Failed => "failed",
        }
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Finding {
    /// A word for it, the same in each run.
    pub(super) what: &'static str,
    pub(super) state: State,
    pub(super) text: String,
    /// What to do; empty if there is nothing to do.
    pub(super) remedy: String,
    /// Lines of configuration that mend it, each for the program it names.
    pub(super) directives: Vec<(&'static str, &'static str)>,
}

impl Finding {
    pub(super) fn ok(what: &'static str, text: impl Into<String>) -> Finding {
        Finding::new(what, State::Ok, text, "")
    }

    pub(super) fn warning(
        what: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(what, State::Warning, text, remedy)
    }

    pub(super) fn failed(
        what: &'static str,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        Finding::new(what, State::Failed, text, remedy)
    }

    fn new(
        what: &'static str,
        state: State,
        text: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Finding {
        let (text, remedy) = (text.into(), remedy.into());
        Finding { what, state, text, remedy, directives: Vec::new() }
    }

    pub(super) fn with(mut self, directives: &Directives) -> Finding {
        self.directives = directives.to_vec();
        self
    }

    /// With the lines of this program alone, if it is known.
    pub(super) fn of_proxy(mut self, name: Option<&str>) -> Finding {
        self.directives.retain(|(program, _)| name.is_none_or(|name| name == *program));
        self
    }

    fn line(&self) -> String {
        let end = if self.remedy.is_empty() { String::new() } else { format!(": {}", self.remedy) };
        let mut line = format!("{:<8} {:<12} {}{end}\n", self.state.as_str(), self.what, self.text);
        for (program, directive) in &self.directives {
            line.push_str(&format!("{:<22}{program}: {directive}\n", ""));
        }
        line
    }

    fn json(&self) -> Value {
        let mut object = json!({
            "check": self.what,
            "state": self.state.as_str(),
            "text": self.text,
        });
        if !self.remedy.is_empty() {
            object["remedy"] = self.remedy.as_str().into();
        }
        for (program, directive) in &self.directives {
            object["directives"][*program] = (*directive).into();
        }
        object
    }
}

/// The worst of them.
pub(super) fn worst(findings: &[Finding]) -> State {
    findings.iter().map(|finding| finding.state).max().unwrap_or(State::Ok)
}

/// All of them as text, or as one JSON object in a line.
pub(super) fn report(findings: &[Finding], is_json: bool) -> String {
    if !is_json {
        return findings.iter().map(Finding::line).collect();
    }
    let all: Vec<Value> = findings.iter().map(Finding::json).collect();
    let report = json!({"state": worst(findings).as_str(), "findings": all});
    format!("{report}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_is_a_line_and_its_directives() {
        let findings = [
            Finding::ok("dns", "a is b"),
            Finding::failed("token", "refused", "make another"),
            Finding::warning("head", "changed", "pass it on")
                .with(&[("nginx", "x on;"), ("Caddy", "x"), ("HAProxy", "x")])
                .of_proxy(Some("nginx")),
        ];
        assert_eq!(
            report(&findings, false),
            "ok       dns          a is b\n\
             failed   token        refused: make another\n\
             warning  head         changed: pass it on\n                      nginx: x on;\n"
        );
        assert_eq!(worst(&findings), State::Failed);
        let json = report(&findings[2..], true);
        assert_eq!(
            json,
            "{\"state\":\"warning\",\"findings\":[{\"check\":\"head\",\"state\":\"warning\",\"text\":\"changed\",\
             \"remedy\":\"pass it on\",\"directives\":{\"nginx\":\"x on;\"}}]}\n"
        );
    }
}
