//! The process environment: read once, then passed in.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fmt,
};

use super::{
    layers::Given,
    loaded::Origin,
    problems::Problem,
    settings::{Setting, Settings},
    suggest,
};

/// Every variable of ours begins with this.
const PREFIX: &str = "FANLIGHT_";
/// Names the configuration file.
pub(super) const CONFIG: &str = "FANLIGHT_CONFIG";
/// For the test-suite's own use; never a setting.
const TEST_PREFIX: &str = "FANLIGHT_TEST_";
/// What the client commands say to a broker that asks who comes; never a setting.
const BROKER_TOKEN: &str = "FANLIGHT_TOKEN";
/// The name other Particle tools use for `upstream.token`.
const PARTICLE_TOKEN: &str = "PARTICLE_ACCESS_TOKEN";
/// Says, by being there, that no program is to print in colour (<https://no-color.org>).
const NO_COLOR: &str = "NO_COLOR";
/// What `state.dir` is worked out from.
const STATE_VARIABLES: &[&str] = &["STATE_DIRECTORY", "XDG_STATE_HOME", "HOME"];

/// The environment variables the configuration looks at. An empty variable counts as not set, so
/// that a wrapper may pass one on without knowing whether it has a value.
#[derive(Clone, Default)]
pub struct Environment {
    variables: BTreeMap<OsString, OsString>,
}

impl Environment {
    /// Reads the environment of this process. Nothing else in the crate does.
    pub fn read() -> Self {
        std::env::vars_os().collect()
    }

    /// A variable as text; `None` where it is not set, empty, or not UTF-8.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.value(name).and_then(OsStr::to_str)
    }

    /// A variable; `None` where it is not set or empty.
    pub(super) fn value(&self, name: &str) -> Option<&OsStr> {
        self.variables.get(OsStr::new(name)).map(OsString::as_os_str)
    }

    /// Whether the user wants no colours anywhere.
    pub fn refuses_colour(&self) -> bool {
        self.value(NO_COLOR).is_some()
    }

    /// The key or token for a broker; `None` where it is not set, empty, or not UTF-8.
    pub fn broker_token(&self) -> Option<&str> {
        self.text(BROKER_TOKEN)
    }

    /// The token under the name other tools give it.
    pub(super) fn particle_layer(&self, problems: &mut Vec<Problem>) -> Vec<Given> {
        let (Some(value), Some(setting)) =
            (self.value(PARTICLE_TOKEN), Settings::find("upstream.token"))
        else {
            return Vec::new();
        };
        let origin = Origin::Environment(PARTICLE_TOKEN.to_owned());
        Given::from_os(setting, value, origin, problems).into_iter().collect()
    }

    /// The settings given by `FANLIGHT_…`. A variable that seems meant as one and is none is a
    /// problem; any other may be of someone's tooling, and is worth a warning.
    pub(super) fn layer(
        &self,
        problems: &mut Vec<Problem>,
        warnings: &mut Vec<String>,
    ) -> Vec<Given> {
        let mut layer = Vec::new();
        for (name, value) in &self.variables {
            let name = name.to_string_lossy();
            let is_known = name == CONFIG || name == BROKER_TOKEN || name.starts_with(TEST_PREFIX);
            if !name.starts_with(PREFIX) || is_known {
                continue;
            }
            match Settings::table().iter().find(|setting| setting.environment == name) {
                Some(setting) => {
                    let origin = Origin::Environment(name.into_owned());
                    layer.extend(Given::from_os(setting, value, origin, problems));
                }
                None if is_service_link(&name, value) => {}
                None => match unknown(&name) {
                    Unknown::Mistake(problem) => problems.push(problem),
                    Unknown::Foreign(warning) => warnings.push(warning),
                },
            }
        }
        layer
    }
}

impl<N: Into<OsString>, V: Into<OsString>> FromIterator<(N, V)> for Environment {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables
            .into_iter()
            .map(|(name, value)| (name.into(), value.into()))
            .filter(|(name, value)| is_ours(name) && !value.is_empty())
            .collect();
        Self { variables }
    }
}

/// Names alone: values may be secret.
impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.variables.keys()).finish()
    }
}

fn is_ours(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(PREFIX)
        || [PARTICLE_TOKEN, NO_COLOR].contains(&name.as_ref())
        || STATE_VARIABLES.contains(&name.as_ref())
}

/// Kubernetes sets variables such as `FANLIGHT_SERVICE_HOST` and `FANLIGHT_PORT_80_TCP` in every
/// container once a service is called `fanlight` or `fanlight-…`. They are no mistake of the user.
fn is_service_link(name: &str, value: &OsStr) -> bool {
    let value_is_link = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| value.to_str().is_some_and(|value| value.starts_with(scheme)));
    let names_a_port = name.match_indices("_PORT_").any(|(at, found)| {
        let mut parts = name[at + found.len()..].split('_');
        parts.next().is_some_and(|port| port.parse::<u16>().is_ok())
            && parts.next().is_some_and(|protocol| matches!(protocol, "TCP" | "UDP" | "SCTP"))
    });
    name.ends_with("_SERVICE_HOST")
        || name.ends_with("_SERVICE_PORT")
        || name.contains("_SERVICE_PORT_")
        || (name.ends_with("_PORT") && value_is_link)
        || names_a_port
}

/// A variable of our prefix that is no setting.
enum Unknown {
    /// It names a section or is near a setting's name: a setting that would silently not count.
    Mistake(Problem),
    /// It is neither, as `FANLIGHT_BIN` in someone's script.
    Foreign(String),
}

// The value is not repeated: it may be a secret under a misspelled name.
fn unknown(name: &str) -> Unknown {
    let bare = name.strip_prefix(PREFIX).unwrap_or(name);
    let near = suggest::nearest(bare, Settings::table().iter().map(bare_name));
    // `FANLIGHT_TOKEN_FILE`: the section was left out.
    let without_section = || {
        Settings::table()
            .iter()
            .find(|setting| setting.key.eq_ignore_ascii_case(bare))
            .map(bare_name)
    };
    let fault = format!("environment variable {} is not a setting", name.escape_debug());
    let remedy = match near.or_else(without_section) {
        Some(meant) => format!("did you mean {PREFIX}{meant}? if not, unset it"),
        None if names_a_section(bare) => "unset it".to_owned(),
        None => return Unknown::Foreign(format!("{fault}; it changes nothing")),
    };
    Unknown::Mistake(Problem::new(fault, remedy).allowed(format!(
        "{PREFIX}SECTION_KEY for each key of the configuration file; --help lists them"
    )))
}

/// `UPSTREAM_…`, and `LOG` alone, as other programs call what is `trace.level` here.
fn names_a_section(bare: &str) -> bool {
    Settings::sections().iter().filter(|section| !section.name.is_empty()).any(|section| {
        let name = section.name.len();
        let head = bare.get(..name).unwrap_or_default();
        head.eq_ignore_ascii_case(section.name)
            && matches!(bare[name..].chars().next(), None | Some('_'))
    })
}

fn bare_name(setting: &Setting) -> &str {
    setting.environment.trim_start_matches(PREFIX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Problems and warnings.
    fn found(variables: &[(&str, &str)]) -> (Vec<String>, Vec<String>) {
        let (mut problems, mut warnings) = (Vec::new(), Vec::new());
        let environment: Environment = variables.iter().copied().collect();
        environment.layer(&mut problems, &mut warnings);
        (problems.iter().map(ToString::to_string).collect(), warnings)
    }

    #[test]
    fn unknown_names_get_the_nearest() {
        for (name, meant) in [
            ("FANLIGHT_UPSTREAM_TOKNE", "FANLIGHT_UPSTREAM_TOKEN?"),
            ("FANLIGHT_UPSTREAM__TOKEN_FILE", "FANLIGHT_UPSTREAM_TOKEN_FILE?"),
            ("FANLIGHT_TOKEN_FILE", "FANLIGHT_UPSTREAM_TOKEN_FILE?"),
            ("FANLIGHT_LISTEN_", "FANLIGHT_LISTEN?"),
        ] {
            let (problems, warnings) = found(&[(name, "hunter2")]);
            assert!(problems[0].contains(meant), "{}", problems[0]);
            assert!(!problems[0].contains("hunter2") && warnings.is_empty());
        }
    }

    #[test]
    fn what_names_a_section_is_a_mistake_and_what_is_foreign_a_warning() {
        for name in ["FANLIGHT_UPSTREAM_NONSENSE", "FANLIGHT_LOG", "FANLIGHT_demo_x"] {
            let (problems, warnings) = found(&[(name, "hunter2")]);
            assert!(
                problems.len() == 1 && warnings.is_empty(),
                "{name}: {problems:?} {warnings:?}"
            );
        }
        for name in ["FANLIGHT_BIN", "FANLIGHT_PORT", "FANLIGHT_LOGS", "FANLIGHT_", "FANLIGHT_é"] {
            let (problems, warnings) = found(&[(name, "hunter2")]);
            assert!(
                problems.is_empty() && warnings.len() == 1,
                "{name}: {problems:?} {warnings:?}"
            );
            assert!(
                warnings[0].contains(name) && !warnings[0].contains("hunter2"),
                "{}",
                warnings[0]
            );
        }
        assert!(!found(&[("FANLIGHT_\u{1b}[31m", "1")]).1[0].contains('\u{1b}'));
    }

    #[test]
    fn what_is_no_setting_is_left_alone() {
        let found = found(&[
            ("FANLIGHT_CONFIG", "a.toml"),
            ("FANLIGHT_TOKEN", "fl_x"),
            ("FANLIGHT_TEST_SEED", "7"),
            ("FANLIGHT_EMPTY", ""),
            ("OTHER", "x"),
            ("FANLIGHT_SERVICE_HOST", "10.0.0.1"),
            ("FANLIGHT_SERVICE_PORT", "80"),
            ("FANLIGHT_SERVICE_PORT_HTTP", "80"),
            ("FANLIGHT_PORT", "tcp://10.0.0.1:80"),
            ("FANLIGHT_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("FANLIGHT_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("FANLIGHT_WEB_PORT_80_TCP_PROTO", "tcp"),
        ]);
        assert_eq!(found, Default::default());
    }

    #[test]
    fn debug_names_no_values() {
        let environment: Environment =
            [("PARTICLE_ACCESS_TOKEN", "hunter2"), ("PATH", "/bin")].into_iter().collect();
        assert_eq!(format!("{environment:?}"), "{\"PARTICLE_ACCESS_TOKEN\"}");
    }
}
