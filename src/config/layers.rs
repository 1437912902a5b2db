//! The layers put together: flag over environment over file over default.
//!
//! A value that a higher layer replaces is checked all the same: a mistake that is hidden today
//! shows on the day the flag is gone.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    io,
    path::{Path, PathBuf},
};

use clap::ArgMatches;

use super::{
    environment::{self, Environment},
    file, flags,
    loaded::{Entry, Loaded, Origin, path_text},
    parse::{Fault, parse},
    problems::{Problem, Problems},
    rules,
    settings::{DefaultValue, Setting, Settings},
    value::{Shape, shown},
};

/// Pairs of which each is another way to say the same. Within one layer they exclude each other;
/// across layers the higher one replaces the other.
const EXCLUSIVE: &[(&str, &str)] =
    &[("upstream.token", "upstream.token_file"), ("ingest.secret", "ingest.secret_file")];

/// A value that a command sets by itself, above all layers: `fanlight demo` sets
/// `upstream.source`, and its `--devices` is a short form of `--demo-devices`.
#[derive(Debug, Clone)]
pub struct Override {
    /// The setting's name, such as `demo.devices`.
    pub name: &'static str,
    /// The value as a user would write it; checked like any other.
    pub text: String,
    /// What to name as the origin: the command, or its short flag.
    pub origin: Origin,
}

/// A value as a layer gave it, not yet checked. No `Debug`: the text may be a secret.
pub(super) struct Given {
    pub(super) setting: &'static Setting,
    pub(super) shape: Shape,
    pub(super) text: String,
    pub(super) origin: Origin,
}

/// The layers so far.
pub(super) struct Draft {
    pub(super) entries: BTreeMap<&'static str, Entry>,
    /// Settings with a problem of their own; what depends on them is not judged.
    unsure: BTreeSet<&'static str>,
}

/// How to read a file; tests put their own in.
type Read<'a> = &'a dyn Fn(&Path) -> io::Result<Vec<u8>>;

/// Puts the configuration together from the flags of a command made with
/// [`flags`](super::flags()), the environment, and the file they name.
///
/// # Errors
///
/// All problems found: those of each layer, the lowest first, then those between settings.
pub fn load(matches: &ArgMatches, environment: &Environment) -> Result<Loaded, Problems> {
    load_with(matches, environment, &[])
}

/// [`load`], with values that the command sets by itself, above all layers.
///
/// # Errors
///
/// As [`load`].
pub fn load_with(
    matches: &ArgMatches,
    environment: &Environment,
    overrides: &[Override],
) -> Result<Loaded, Problems> {
    assemble(matches, environment, overrides, &file::read)
}

/// [`load_with`], with what reads a file: tests put their own in.
///
/// # Errors
///
/// As [`load`].
pub fn assemble(
    matches: &ArgMatches,
    environment: &Environment,
    overrides: &[Override],
    read: &dyn Fn(&Path) -> io::Result<Vec<u8>>,
) -> Result<Loaded, Problems> {
    let (mut problems, mut warnings) = (Vec::new(), Vec::new());
    let flags_layer = flags::layer(matches, &mut problems);
    let (file, file_bytes) = find_file(matches, environment, read, &mut problems);
    let file_layer = match &file_bytes {
        Found::Bytes(path, bytes) => file::layer(path, bytes, &mut problems),
        Found::Nothing => Some(file::FileLayer::default()),
        Found::Unreadable => None,
    };
    let is_file_known = file_layer.is_some();
    let file_layer = file_layer.unwrap_or_default();

    let mut draft = Draft::defaults(environment);
    draft.unsure.extend(file_layer.suspected);
    draft.apply(file_layer.given, &mut problems);
    draft.apply(environment.particle_layer(&mut problems), &mut problems);
    draft.apply(environment.layer(&mut problems, &mut warnings), &mut problems);
    draft.apply(flags_layer, &mut problems);
    draft.apply(overrides.iter().map(Override::given).collect(), &mut problems);
    // Without the file, "this is missing" would be a guess.
    if is_file_known {
        problems.extend(rules::check(&draft));
    }
    Problems::none_or(problems)?;
    Ok(Loaded { entries: draft.entries, file, warnings })
}

enum Found {
    Bytes(PathBuf, Vec<u8>),
    Nothing,
    Unreadable,
}

fn find_file(
    matches: &ArgMatches,
    environment: &Environment,
    read: Read<'_>,
    problems: &mut Vec<Problem>,
) -> (Option<PathBuf>, Found) {
    let by_flag =
        flags::config_path(matches).map(|path| (path, Origin::Flag("--config".to_owned())));
    let by_environment = || {
        let path = environment.value(environment::CONFIG)?;
        Some((PathBuf::from(path), Origin::Environment(environment::CONFIG.to_owned())))
    };
    let named = by_flag.or_else(by_environment);
    let is_named = named.is_some();
    let (path, origin) = named.unwrap_or_else(|| (file::FILE_NAME.into(), Origin::Default));
    match read(&path) {
        Ok(bytes) => (Some(path.clone()), Found::Bytes(path, bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_named => {
            (None, Found::Nothing)
        }
        Err(error) => {
            let shown = path_text(&path);
            let fault =
                format!("the configuration file {shown} ({origin}) cannot be read: {error}");
            let remedy = "name a file that exists and that this user may read";
            problems.push(Problem::new(fault, remedy));
            (None, Found::Unreadable)
        }
    }
}

impl Draft {
    fn defaults(environment: &Environment) -> Self {
        let entry = |setting: &'static Setting| {
            let (text, origin) = match setting.default {
                DefaultValue::Text(text) => (Some(text.to_owned()), Origin::Default),
                DefaultValue::Unset => (None, Origin::Default),
                DefaultValue::Derived(_) => match state_dir(environment) {
                    Some((dir, origin)) => (Some(dir), origin),
                    None => (None, Origin::Default),
                },
            };
            let parsed = text.and_then(|text| parse(&setting.kind, Shape::Text, &text).ok());
            (setting.name.as_str(), Entry { parsed, origin })
        };
        Self { entries: Settings::table().iter().map(entry).collect(), unsure: BTreeSet::new() }
    }

    /// Puts a layer on top of those so far.
    fn apply(&mut self, layer: Vec<Given>, problems: &mut Vec<Problem>) {
        let find = |name: &str| layer.iter().find(|given| given.setting.name == name);
        for (one, other) in EXCLUSIVE {
            let (Some(one), Some(other)) = (find(one), find(other)) else { continue };
            let fault = format!(
                "{} ({}) and {} ({}) exclude each other",
                one.setting.name, one.origin, other.setting.name, other.origin
            );
            problems.push(Problem::new(fault, "remove one of them").allowed("one of the two"));
            self.unsure.extend([one.setting.name.as_str(), other.setting.name.as_str()]);
        }
        for given in layer {
            match parse(&given.setting.kind, given.shape, &given.text) {
                Ok(parsed) => {
                    let name = given.setting.name.as_str();
                    let replaced = EXCLUSIVE.iter().find_map(|(one, other)| match name {
                        _ if name == *one => Some(*other),
                        _ if name == *other => Some(*one),
                        _ => None,
                    });
                    if let Some(replaced) = replaced {
                        let nothing = Entry { parsed: None, origin: Origin::Default };
                        self.entries.insert(replaced, nothing);
                    }
                    self.entries.insert(name, Entry { parsed: Some(parsed), origin: given.origin });
                }
                Err(fault) => {
                    self.unsure.insert(&given.setting.name);
                    problems.push(given.problem(&fault));
                }
            }
        }
    }

    /// Whether none of these settings has a problem of its own.
    pub(super) fn is_sure(&self, names: &[&str]) -> bool {
        names.iter().all(|name| !self.unsure.contains(name))
    }
}

impl Given {
    /// A value from the environment or a flag; not UTF-8 is a problem.
    pub(super) fn from_os(
        setting: &'static Setting,
        value: &OsStr,
        origin: Origin,
        problems: &mut Vec<Problem>,
    ) -> Option<Self> {
        match value.to_str() {
            Some(text) => Some(Self { setting, shape: Shape::Text, text: text.to_owned(), origin }),
            None => {
                let fault = format!("{} ({origin}) is not UTF-8", setting.name);
                problems.push(
                    Problem::new(fault, "write it as UTF-8 text").allowed(setting.kind.allowed()),
                );
                None
            }
        }
    }

    fn problem(&self, fault: &Fault) -> Problem {
        let Self { setting, shape, text, origin } = self;
        let shown = shown(&setting.kind, *shape, text);
        let remedy = fault.remedy.clone().unwrap_or_else(|| match setting.default {
            DefaultValue::Unset => "give it such a value, or leave it out".to_owned(),
            default => format!("give it such a value, or leave it out for the default, {default}"),
        });
        Problem::new(format!("{} = {shown} ({origin}) {}", setting.name, fault.what), remedy)
            .allowed(setting.kind.allowed())
    }
}

impl Override {
    fn given(&self) -> Given {
        let Some(setting) = Settings::find(self.name) else {
            panic!("{} is not in the table of settings", self.name);
        };
        Given { setting, shape: Shape::Text, text: self.text.clone(), origin: self.origin.clone() }
    }
}

/// Where state is kept when nothing is said: what systemd gives the service, else the user's own.
/// `None` where none of the variables is usable; relative ones are not, as the XDG rules say.
fn state_dir(environment: &Environment) -> Option<(String, Origin)> {
    let from = |variable: &'static str, below: &str| {
        let mut base = environment.text(variable)?;
        if variable == "STATE_DIRECTORY" {
            // systemd lists several directories with colons; the first is ours.
            base = base.split(':').next().unwrap_or_default();
        }
        base.starts_with('/').then(|| (format!("{base}{below}"), Origin::Derived(variable)))
    };
    from("STATE_DIRECTORY", "")
        .or_else(|| from("XDG_STATE_HOME", "/fanlight"))
        .or_else(|| from("HOME", "/.local/state/fanlight"))
}
