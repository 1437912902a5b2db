//! `fanlight token`: makes, lists and revokes the keys that the broker asks for.
//!
//! Law: a key is shown once, on standard output, and nowhere else; what is kept is its digest.
//! The broker need not run, and one that does sees the change by itself.

use std::{fmt::Write as _, path::Path, time::Duration};

use anyhow::anyhow;
use aws_lc_rs::rand;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use crate::{
    access::{Grants, Key, KeysError, Secret, VALUES_MAX, key},
    clock,
    config::{self, Environment, Loaded, Origin, Override, parse_duration},
    model::{Filter, moment::WallTime},
    server::keys_file::{self, KeysFileError},
};

use super::{Failure, settings};

/// Settings that say where the keys are kept; the others are of no use here.
const FLAGS: [&str; 3] = ["config", "access.keys_file", "state.dir"];
/// The longest life that can be asked for: 10 years.
const EXPIRES_MAX: Duration = Duration::from_secs(3_650 * 86_400);

pub(super) fn command() -> Command {
    let list = |name: &'static str, value: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name(value).action(ArgAction::Append).help(help)
    };
    let new = Command::new("new")
        .about("Make a key and show it, once")
        .long_about(
            "Make a key and print it. It is shown this once: the file keeps its digest alone.\n\n\
             Without any of the options a key may do nothing, and is not made. Of --read-prefix and \
             --read-name an event has to pass one, and --device besides.\n\n\
             Example: fanlight token new wall --read --expires 90d\n\
             Example: fanlight token new greenhouse --read-prefix greenhouse/ --read-name door\n\
             Example: fanlight token new robot --read --publish-prefix cmd/\n\
             Example: fanlight token new prometheus --admin >/etc/prometheus/fanlight-key",
        )
        .args([
            Arg::new("name").value_name("NAME").required(true).help("What to call it, such as who gets it"),
            Arg::new("read")
                .long("read")
                .action(ArgAction::SetTrue)
                .conflicts_with_all(["read-prefix", "read-name"])
                .help("May read every event (with --device: every event of those)"),
            list("read-prefix", "PREFIX", "May read events whose names begin with this; may be repeated"),
            list("read-name", "NAME", "May read events of this very name; may be repeated"),
            list("device", "ID", "Of these devices (coreid) alone; may be repeated"),
            Arg::new("publish")
                .long("publish")
                .action(ArgAction::SetTrue)
                .conflicts_with("publish-prefix")
                .help("May publish every event, where the broker publishes at all"),
            list("publish-prefix", "PREFIX", "May publish names that begin with this; may be repeated"),
            Arg::new("admin")
                .long("admin")
                .action(ArgAction::SetTrue)
                .help("May see /status and /metrics, and call functions of devices"),
            Arg::new("expires")
                .long("expires")
                .value_name("DURATION")
                .value_parser(parse_expires)
                .help("How long it is good, such as 12h or 90d; for ever if not given"),
        ]);
    let list = Command::new("list").about("List the keys").arg(
        Arg::new("json").long("json").action(ArgAction::SetTrue).help("As JSON, a key a line"),
    );
    let revoke = Command::new("revoke")
        .about("Revoke a key; what is served under it ends within two seconds")
        .arg(Arg::new("key").value_name("NAME|ID").required(true).help("Its name or its id"));
    let place = || {
        let all = config::flags(Command::new("all"));
        let of_use = all.get_arguments().filter(|flag| FLAGS.contains(&flag.get_id().as_str()));
        of_use.map(|flag| flag.clone().help_heading("Where the keys are kept")).collect::<Vec<_>>()
    };
    Command::new("token")
        .about("Make, list and revoke API keys of the broker")
        .long_about(
            "Make, list and revoke the keys that the broker asks for where access is on. They are kept in \
             the file access.keys_file, by default keys.json in state.dir: run this as the user the broker \
             runs as, with the same configuration file or environment. A running broker sees a change \
             within two seconds.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommands([new.args(place()), list.args(place()), revoke.args(place())])
}

pub(super) fn run(matches: &ArgMatches, environment: &Environment) -> Result<(), Failure> {
    let Some((name, matches)) = matches.subcommand() else {
        return Err(Failure::Usage("no such command; see fanlight token --help".to_owned()));
    };
    // The upstream is the broker's business: who makes a key need not have its token.
    let overrides = [Override {
        name: "upstream.source",
        text: "demo".to_owned(),
        origin: Origin::Command("fanlight token"),
    }];
    let loaded = config::load_with(matches, environment, &overrides)?;
    let path = settings::keys_path(&loaded).ok_or_else(|| {
        let text = "there is no place for the keys: set access.keys_file (--access-keys-file PATH), or \
                    state.dir";
        Failure::Usage(text.to_owned())
    })?;
    match name {
        "new" => make(matches, &loaded, &path),
        "list" => show(matches, &path),
        _ => revoke(matches, &path),
    }
}

fn make(matches: &ArgMatches, loaded: &Loaded, path: &Path) -> Result<(), Failure> {
    let name: &String = matches.get_one("name").expect("the definition requires it");
    let grants = grants(matches)?;
    let now_ms = clock::wall_ms();
    let expires = matches.get_one::<Duration>("expires");
    let expires_ms = expires
        .map(|life| now_ms.saturating_add(u64::try_from(life.as_millis()).unwrap_or(u64::MAX)));
    let (mut secret_bytes, mut id) = ([0; key::KEY_BYTES], [0; key::ID_BYTES]);
    for bytes in [&mut secret_bytes[..], &mut id[..]] {
        rand::fill(bytes).map_err(|_| anyhow!("the system gives no random bytes"))?;
    }
    let secret = Secret::key(&secret_bytes);
    let made = keys_file::change(path, |keys| {
        let made = Key::new(id, name, &secret, grants, now_ms, expires_ms)?;
        keys.add(made.clone(), now_ms)?;
        Ok(made)
    });
    let made = made.map_err(failure)?;
    super::print(&format!("{}\n", secret.expose()))?;
    let mode = loaded.choice("access.mode");
    let hint = match mode {
        "off" => "; access.mode is off, so that the broker does not ask for it",
        _ => "; a broker that was started without any key has to be restarted to ask for it",
    };
    eprintln!(
        "fanlight: this is key {} ({name}), shown this once; its digest is in {}{hint}",
        made.id,
        path.display()
    );
    Ok(())
}

/// What the options grant.
fn grants(matches: &ArgMatches) -> Result<Grants, Failure> {
    let values = |name: &str| -> Vec<String> {
        matches.get_many::<String>(name).into_iter().flatten().cloned().collect()
    };
    let [prefixes, names, devices, publish] =
        ["read-prefix", "read-name", "device", "publish-prefix"].map(values);
    let all = [&prefixes, &names, &devices, &publish];
    if all.iter().any(|values| values.iter().any(String::is_empty)) {
        let text = "an empty value: use --read and --publish for everything";
        return Err(Failure::Usage(text.to_owned()));
    }
    let count: usize = all.iter().map(|values| values.len()).sum();
    if count > VALUES_MAX {
        return Err(Failure::Usage(format!("{count} values, at most {VALUES_MAX} are allowed")));
    }
    let filter = |prefixes, names, devices| {
        Filter::new(prefixes, names, devices).map_err(|error| Failure::Usage(error.to_string()))
    };
    let reads = matches.get_flag("read")
        || !(prefixes.is_empty() && names.is_empty() && devices.is_empty());
    let publishes = matches.get_flag("publish") || !publish.is_empty();
    let grants = Grants {
        read: reads.then(|| filter(prefixes, names, devices)).transpose()?,
        publish: publishes.then(|| filter(publish, vec![], vec![])).transpose()?,
        admin: matches.get_flag("admin"),
    };
    if grants == Grants::default() {
        let text = "this key may do nothing: add --read, --read-prefix, --read-name, --device, --publish, \
                    --publish-prefix or --admin";
        return Err(Failure::Usage(text.to_owned()));
    }
    Ok(grants)
}

fn show(matches: &ArgMatches, path: &Path) -> Result<(), Failure> {
    let keys = keys_file::read(path).map_err(failure)?.unwrap_or_default();
    let now_ms = clock::wall_ms();
    let mut text = String::new();
    if matches.get_flag("json") {
        for key in keys.iter() {
            let time = |ms: u64| WallTime(ms).to_string();
            let line = json!({
                "id": key.id,
                "name": key.name,
                "state": state(key, now_ms),
                "grants": key.grants.to_json(),
                "created": time(key.created_ms),
                "expires": key.expires_ms.map(time),
                "revoked": key.revoked_ms.map(time),
            });
            let _ = writeln!(text, "{line}");
        }
        return super::print(&text);
    }
    if keys.is_empty() {
        return super::print(&format!("no keys in {}\n", path.display()));
    }
    let day = |ms: u64| WallTime(ms).to_string()[..10].to_owned();
    let mut rows = vec![["ID", "NAME", "STATE", "CREATED", "EXPIRES", "MAY"].map(str::to_owned)];
    rows.extend(keys.iter().map(|key| {
        [
            key.id.clone(),
            key.name.clone(),
            state(key, now_ms).to_owned(),
            day(key.created_ms),
            key.expires_ms.map_or_else(|| "never".to_owned(), day),
            in_words(&key.grants),
        ]
    }));
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0))
        .collect();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        let _ = writeln!(text, "{}", line.trim_end());
    }
    super::print(&text)
}

fn state(key: &Key, now_ms: u64) -> &'static str {
    match key.revoked_ms {
        Some(_) => "revoked",
        None if key.is_good(now_ms) => "good",
        None => "expired",
    }
}

/// Grants as the options that make them.
fn in_words(grants: &Grants) -> String {
    let mut words = Vec::new();
    let all = Filter::all();
    if let Some(read) = &grants.read {
        if read.passes_any_name() {
            words.push("--read".to_owned());
        }
        words.extend(read.prefixes().map(|prefix| format!("--read-prefix {prefix}")));
        words.extend(read.names().map(|name| format!("--read-name {name}")));
        words.extend(read.devices().map(|device| format!("--device {device}")));
    }
    if let Some(publish) = &grants.publish {
        if *publish == all {
            words.push("--publish".to_owned());
        }
        words.extend(publish.prefixes().map(|prefix| format!("--publish-prefix {prefix}")));
    }
    if grants.admin {
        words.push("--admin".to_owned());
    }
    // Names of events come from the file: nothing in them is to reach the terminal as it is.
    words.join(" ").chars().flat_map(char::escape_debug).collect()
}

fn revoke(matches: &ArgMatches, path: &Path) -> Result<(), Failure> {
    let called: &String = matches.get_one("key").expect("the definition requires it");
    let now_ms = clock::wall_ms();
    let revoked = keys_file::change(path, |keys| keys.revoke(called, now_ms)).map_err(failure)?;
    let mut text = String::new();
    for key in revoked {
        let _ = writeln!(text, "revoked {} ({})", key.id, key.name);
    }
    super::print(&text)
}

/// What the caller can mend by calling otherwise is wrong usage; the rest is not.
fn failure(error: KeysFileError) -> Failure {
    match error {
        KeysFileError::Change(KeysError::Taken(_) | KeysError::Name | KeysError::Unknown(_)) => {
            Failure::Usage(error.to_string())
        }
        error => Failure::Failed(error.into()),
    }
}

fn parse_expires(text: &str) -> Result<Duration, String> {
    let life = parse_duration(text).map_err(|error| error.to_string())?;
    match life {
        Duration::ZERO => Err("a key that is good for no time".to_owned()),
        life if life > EXPIRES_MAX => Err("at most 3650d".to_owned()),
        life => Ok(life),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn granted(arguments: &[&str]) -> Result<Grants, Failure> {
        let arguments = ["token", "new", "a"].iter().chain(arguments);
        let matches = command().try_get_matches_from(arguments).unwrap();
        grants(matches.subcommand().unwrap().1)
    }

    #[test]
    fn options_are_grants_and_grants_are_shown_as_options() {
        for options in [
            "--read",
            "--read --device d1",
            "--read-prefix a/ --read-prefix b/ --read-name c --device d1 --device d2",
            "--read --publish --admin",
            "--publish-prefix cmd/",
            "--admin",
        ] {
            let words: Vec<&str> = options.split(' ').collect();
            assert_eq!(in_words(&granted(&words).unwrap()), options);
        }
        assert_eq!(in_words(&granted(&["--device", "d1"]).unwrap()), "--read --device d1");
    }

    #[test]
    fn a_key_that_may_do_nothing_is_not_made() {
        assert!(matches!(granted(&[]), Err(Failure::Usage(_))));
        assert!(matches!(granted(&["--read-prefix", ""]), Err(Failure::Usage(_))));
        let many: Vec<String> = (0..33).map(|n| format!("--read-name=n{n}")).collect();
        let many: Vec<&str> = many.iter().map(String::as_str).collect();
        assert!(matches!(granted(&many), Err(Failure::Usage(_))));
    }

    #[test]
    fn lives_have_bounds() {
        assert_eq!(parse_expires("90d"), Ok(Duration::from_secs(90 * 86_400)));
        assert!(parse_expires("0s").is_err() && parse_expires("3651d").is_err());
    }
}
