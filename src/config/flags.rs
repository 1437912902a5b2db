//! The command line: one flag for each setting, made from the table.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use super::{
    layers::Given,
    loaded::Origin,
    problems::Problem,
    settings::{DefaultValue, Kind, Setting, Settings},
};

/// The flag that names the configuration file.
const CONFIG: &str = "config";
/// Sections shown by `-h`; `--help` shows all.
const SECTIONS_SHORT: &[&str] = &["", "upstream", "demo"];

/// Adds a flag for each setting, under a heading for each section, and `--config PATH`.
///
/// Defaults and environment variables are named in the help text but not told to clap: the layers
/// are put together in [`load`](super::load), which keeps the origin of each value.
pub fn flags(command: Command) -> Command {
    let config = Arg::new(CONFIG)
        .long(CONFIG)
        .value_name("PATH")
        .value_parser(value_parser!(PathBuf))
        .help_heading(Settings::sections()[0].help)
        .help("Configuration file [default: fanlight.toml, if it exists] [env: FANLIGHT_CONFIG]");
    let settings = Settings::sections().iter().flat_map(|section| {
        Settings::of_section(section.name).map(|setting| flag(setting).help_heading(section.help))
    });
    command.arg(config).args(settings)
}

/// The path given by `--config`.
pub(super) fn config_path(matches: &ArgMatches) -> Option<PathBuf> {
    matches.try_get_one::<PathBuf>(CONFIG).ok().flatten().cloned()
}

/// The settings given by flags.
pub(super) fn layer(matches: &ArgMatches, problems: &mut Vec<Problem>) -> Vec<Given> {
    let mut layer = Vec::new();
    for setting in Settings::table() {
        // A command may have left some flags out; then they were not given.
        if let Ok(Some(values)) = matches.try_get_many::<OsString>(&setting.name) {
            let origin = Origin::Flag(format!("--{}", setting.flag));
            // Only a list's flag may be repeated.
            let value = values.map(OsString::as_os_str).collect::<Vec<_>>().join(OsStr::new(","));
            layer.extend(Given::from_os(setting, &value, origin, problems));
        }
    }
    layer
}

fn flag(setting: &'static Setting) -> Arg {
    let bounds = match setting.kind {
        Kind::Address | Kind::Path | Kind::Url | Kind::Secret { .. } | Kind::TraceFilter => {
            String::new()
        }
        kind => format!(" [{}]", kind.bounds()),
    };
    let default = match setting.default {
        DefaultValue::Unset => String::new(),
        default => format!(" [default: {default}]"),
    };
    let help = format!("{}{bounds}{default} [env: {}]", setting.help, setting.environment);
    Arg::new(setting.name.as_str())
        .long(setting.flag.as_str())
        .value_name(value_name(&setting.kind))
        .action(match setting.kind {
            Kind::List { .. } => ArgAction::Append,
            _ => ArgAction::Set,
        })
        .value_parser(value_parser!(OsString))
        .allow_negative_numbers(true)
        .hide_short_help(!SECTIONS_SHORT.contains(&setting.section))
        .help(help)
}

fn value_name(kind: &Kind) -> &'static str {
    match kind {
        Kind::Address => "ADDRESS",
        Kind::Duration { .. } => "DURATION",
        Kind::Size { .. } | Kind::SizeOrAuto { .. } => "SIZE",
        Kind::Count { .. } | Kind::CountOrAuto { .. } => "COUNT",
        Kind::Number { .. } => "NUMBER",
        Kind::Text { .. } => "TEXT",
        Kind::Path => "PATH",
        Kind::Url => "URL",
        Kind::Choice(_) => "CHOICE",
        Kind::Switch => "BOOL",
        Kind::Secret { .. } => "SECRET",
        Kind::TraceFilter => "FILTER",
        Kind::List { .. } => "LIST",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        flags(Command::new("fanlight")).debug_assert();
    }

    #[test]
    fn help_names_flag_default_bounds_and_variable() {
        let help = flags(Command::new("fanlight").term_width(0)).render_long_help().to_string();
        for setting in Settings::table() {
            assert!(help.contains(&format!("--{} <", setting.flag)), "{}", setting.flag);
            assert!(help.contains(&format!("[env: {}]", setting.environment)), "{}", setting.name);
        }
        assert!(help.contains("[1s to 10m] [default: 20s] [env: FANLIGHT_UPSTREAM_STALE_AFTER]"));
        assert!(help.contains("Ring (the newest events, kept for those who return):"));
    }
}
