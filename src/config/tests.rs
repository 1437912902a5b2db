//! The configuration as a whole: layers, origins, and the words of every mistake.

use std::{collections::BTreeSet, io, path::Path, time::Duration};

use clap::Command;

use super::{layers::assemble, *};

const TOKEN: &str = "hunter2-obviously-fake";

/// What one start was given.
#[derive(Default)]
struct Start<'a> {
    flags: &'a [&'a str],
    environment: &'a [(&'a str, &'a str)],
    /// The content of `fanlight.toml` in the working directory.
    file: Option<&'a [u8]>,
    overrides: &'a [Override],
}

impl Start<'_> {
    fn load(&self) -> Result<Loaded, Problems> {
        let arguments = ["fanlight"].iter().chain(self.flags);
        let matches = flags(Command::new("fanlight")).try_get_matches_from(arguments).unwrap();
        let environment: Environment = self.environment.iter().copied().collect();
        assemble(&matches, &environment, self.overrides, &|path: &Path| match self.file {
            Some(bytes) if path == Path::new("fanlight.toml") => Ok(bytes.to_vec()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
        })
    }

    fn error(&self) -> String {
        match self.load() {
            Ok(loaded) => panic!("this was accepted:\n{}", loaded.print()),
            Err(problems) => problems.to_string(),
        }
    }
}

/// The problems of a file, where a token is given.
fn file_error(text: &str) -> String {
    let environment = &[("PARTICLE_ACCESS_TOKEN", TOKEN)];
    Start { file: Some(text.as_bytes()), environment, ..Start::default() }.error()
}

fn environment_error(name: &str, value: &str) -> String {
    let environment = &[("PARTICLE_ACCESS_TOKEN", TOKEN), (name, value)];
    Start { environment, ..Start::default() }.error()
}

fn with_token() -> Loaded {
    let environment = &[("PARTICLE_ACCESS_TOKEN", TOKEN)];
    Start { environment, ..Start::default() }.load().unwrap()
}

// === mistakes, word for word ===

#[test]
fn a_misspelled_key() {
    assert_eq!(
        file_error("listen = \"127.0.0.1:1\"\n\n[ring]\nevent_max = 5\n"),
        "the configuration has a problem\n  \
         ring.event_max (fanlight.toml:4) is not a setting\n    \
         allowed: in [ring]: events_max, bytes_max\n    \
         remedy: did you mean events_max?"
    );
}

#[test]
fn a_key_in_the_wrong_place() {
    assert!(
        file_error("stale_after = \"20s\"")
            .ends_with("remedy: did you mean stale_after under [upstream]?")
    );
    assert!(
        file_error("[ring]\nlisten = \"a\"")
            .ends_with("remedy: listen stands before the first [section]")
    );
    assert!(
        file_error("ring_events_max = 5")
            .ends_with("remedy: did you mean events_max under [ring]?")
    );
    assert!(file_error("nonsense = 5").ends_with(
        "nonsense (fanlight.toml:1) is not a setting\n    \
         allowed: before the first [section]: listen, sections\n    \
         remedy: take it out"
    ));
}

#[test]
fn a_misspelled_section() {
    assert_eq!(
        file_error("[upsteam]\ntoken = \"hunter2\""),
        "the configuration has a problem\n  \
         [upsteam] (fanlight.toml:1) is not a section\n    \
         allowed: sections upstream, ring, latest, stream, websocket, poll, particle, publish, access, ingest, limits, delivery, \
         server, state, log, trace, demo\n    \
         remedy: did you mean [upstream]?"
    );
    assert!(file_error("ring = 5").contains(
        "ring (fanlight.toml:1) is a section, not a setting\n    \
         remedy: write [ring] on a line of its own"
    ));
    assert!(file_error("[ring.events_max]\na = 1").contains(
        "ring.events_max = a section (fanlight.toml:1) is a section\n    \
         allowed: a whole number from 16 to 10000000\n    \
         remedy: give it a single value"
    ));
}

#[test]
fn a_missing_unit() {
    assert_eq!(
        file_error("[upstream]\nstale_after = 20\n"),
        "the configuration has a problem\n  \
         upstream.stale_after = 20 (fanlight.toml:2) needs a unit\n    \
         allowed: 1s to 10m, in d, h, m, s or ms, such as 1m30s\n    \
         remedy: write the unit with it, for example 20s"
    );
    assert!(file_error("[ring]\nbytes_max = 67108864").ends_with("for example 64MiB"));
    assert!(file_error("[ring]\nbytes_max = 64").ends_with("for example 64MiB"));
    assert!(file_error("[stream]\nbatch_bytes_max = 16").ends_with("for example 16KiB"));
    assert!(file_error("[stream]\nkeepalive = 15000").ends_with("for example 15000ms"));
}

#[test]
fn a_wrong_unit() {
    assert_eq!(
        file_error("[ring]\nbytes_max = \"64mb\""),
        "the configuration has a problem\n  \
         ring.bytes_max = \"64mb\" (fanlight.toml:2) has the unknown unit \"mb\"\n    \
         allowed: 64KiB to 64GiB, in B, KiB, MiB, GiB, KB, MB or GB\n    \
         remedy: did you mean MB?"
    );
}

#[test]
fn out_of_bounds_from_the_environment() {
    assert_eq!(
        environment_error("FANLIGHT_RING_EVENTS_MAX", "5"),
        "the configuration has a problem\n  \
         ring.events_max = \"5\" (environment variable FANLIGHT_RING_EVENTS_MAX) is less than 16\n    \
         allowed: a whole number from 16 to 10000000\n    \
         remedy: give it such a value, or leave it out for the default, 100000"
    );
}

#[test]
fn a_wrong_choice_from_a_flag() {
    let start = Start { flags: &["--upstream-source", "partcle"], ..Start::default() };
    assert_eq!(
        start.error(),
        "the configuration has a problem\n  \
         upstream.source = \"partcle\" (flag --upstream-source) is not one of the choices\n    \
         allowed: particle, sse or demo\n    \
         remedy: did you mean particle?"
    );
}

#[test]
fn an_unknown_variable() {
    assert_eq!(
        environment_error("FANLIGHT_UPSTREAM_STALE_AFTR", "20s"),
        "the configuration has a problem\n  \
         environment variable FANLIGHT_UPSTREAM_STALE_AFTR is not a setting\n    \
         allowed: FANLIGHT_SECTION_KEY for each key of the configuration file; --help lists them\n    \
         remedy: did you mean FANLIGHT_UPSTREAM_STALE_AFTER? if not, unset it"
    );
}

#[test]
fn two_that_exclude_each_other() {
    let text = "[upstream]\ntoken = \"hunter2\"\ntoken_file = \"t\"";
    assert_eq!(
        Start { file: Some(text.as_bytes()), ..Start::default() }.error(),
        "the configuration has a problem\n  \
         upstream.token (fanlight.toml:2) and upstream.token_file (fanlight.toml:3) exclude each other\n    \
         allowed: one of the two\n    \
         remedy: remove one of them"
    );
}

#[test]
fn a_missing_part_of_the_scope() {
    let flags = &["--upstream-scope", "product-device", "--upstream-product", "12345"];
    let environment = &[("PARTICLE_ACCESS_TOKEN", TOKEN)];
    assert_eq!(
        Start { flags, environment, ..Start::default() }.error(),
        "the configuration has a problem\n  \
         upstream.scope = \"product-device\" (flag --upstream-scope) needs upstream.device\n    \
         allowed: mine alone; device with device; product with product; \
         product-device with product and device; org with org; public with prefix\n    \
         remedy: set device under [upstream] in the file, FANLIGHT_UPSTREAM_DEVICE or --upstream-device"
    );
}

#[test]
fn a_part_the_scope_does_not_use() {
    let error = file_error("[upstream]\nscope = \"product\"\nproduct = 12345\ndevice = \"gate\"\n");
    assert_eq!(
        error,
        "the configuration has a problem\n  \
         upstream.device = \"gate\" (fanlight.toml:4) is of no use to \
         upstream.scope = \"product\" (fanlight.toml:2)\n    \
         allowed: mine alone; device with device; product with product; \
         product-device with product and device; org with org; public with prefix\n    \
         remedy: remove upstream.device, or set upstream.scope to device or product-device"
    );
}

#[test]
fn no_token() {
    assert_eq!(
        Start::default().error(),
        "the configuration has a problem\n  \
         upstream.source = \"particle\" (default) needs upstream.token_file or upstream.token\n    \
         allowed: one of the two; none where upstream.url is http on this machine, \
         as with `fanlight simulate`\n    \
         remedy: set PARTICLE_ACCESS_TOKEN, or put the token into a file and name it in \
         upstream.token_file; `particle token create` makes a token, and `fanlight demo` needs none"
    );
}

#[test]
fn a_stream_without_its_address() {
    assert_eq!(
        Start { flags: &["--upstream-source", "sse"], ..Start::default() }.error(),
        "the configuration has a problem\n  \
         upstream.source = \"sse\" (flag --upstream-source) needs upstream.url\n    \
         allowed: the address of the event stream to read\n    \
         remedy: set url under [upstream] in the file, FANLIGHT_UPSTREAM_URL or --upstream-url"
    );
}

#[test]
fn a_least_above_its_most() {
    assert_eq!(
        environment_error("FANLIGHT_STREAM_RETRY_MIN", "10s"),
        "the configuration has a problem\n  \
         stream.retry_min = \"10s\" (environment variable FANLIGHT_STREAM_RETRY_MIN) \
         is more than stream.retry_max = \"5s\" (default)\n    \
         allowed: stream.retry_min up to stream.retry_max\n    \
         remedy: lower the first or raise the second"
    );
    assert!(
        environment_error("FANLIGHT_UPSTREAM_BACKOFF_MIN", "2m")
            .contains("is more than upstream.backoff_max")
    );
}

#[test]
fn a_named_file_that_cannot_be_read() {
    let by_flag = Start { flags: &["--config", "absent.toml"], ..Start::default() };
    assert_eq!(
        by_flag.error(),
        "the configuration has a problem\n  \
         the configuration file absent.toml (flag --config) cannot be read: no such file\n    \
         remedy: name a file that exists and that this user may read"
    );
    assert!(
        environment_error("FANLIGHT_CONFIG", "absent.toml")
            .contains("absent.toml (environment variable FANLIGHT_CONFIG) cannot be read")
    );
}

#[test]
fn invalid_toml() {
    // The words between are the parser's own.
    let error = file_error("[upstream]\ntoken = hunter2\n");
    assert!(
        error.contains("\n  fanlight.toml:2 is not valid TOML: string values must be quoted"),
        "{error}"
    );
    assert!(error.ends_with("    remedy: put text in quotes, as in key = \"value\""), "{error}");
    assert_eq!(error.lines().count(), 3, "{error}");
    assert!(
        file_error("listen = \"a\"\nlisten = \"b\"\n")
            .contains("fanlight.toml:2 is not valid TOML: duplicate key")
    );
}

#[test]
fn each_wrong_line_is_named_once() {
    let error = file_error("listen = a\n[upstream\nx= = 4\n");
    let lines: Vec<&str> = error.lines().filter(|line| line.contains("fanlight.toml:")).collect();
    assert_eq!(lines.len(), 3, "{error}");
    for (line, number) in lines.iter().zip(1..) {
        assert!(
            line.starts_with(&format!("  fanlight.toml:{number} is not valid TOML")),
            "{error}"
        );
    }
}

#[test]
fn not_utf8() {
    let start = Start { file: Some(b"# a\n# \xff\n"), ..Start::default() };
    assert_eq!(
        start.error(),
        "the configuration has a problem\n  \
         fanlight.toml:2 is not UTF-8 text\n    \
         remedy: save the file as UTF-8"
    );
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let value = std::ffi::OsStr::from_bytes(b"a\xff");
    let environment: Environment = [("FANLIGHT_UPSTREAM_PREFIX", value)].into_iter().collect();
    let matches = flags(Command::new("fanlight")).try_get_matches_from(["fanlight"]).unwrap();
    let absent = |_: &Path| Err(io::Error::from(io::ErrorKind::NotFound));
    let error = assemble(&matches, &environment, &[], &absent).unwrap_err().to_string();
    assert!(
        error.contains(
            "upstream.prefix (environment variable FANLIGHT_UPSTREAM_PREFIX) is not UTF-8"
        )
    );
}

#[test]
fn all_problems_come_at_once_and_none_twice() {
    let start = Start {
        flags: &["--limits-send-buffer=1B", "--demo-devices", "-3"],
        environment: &[("FANLIGHT_LISTEN", "localhost:80"), ("FANLIGHT_UPSTREAM_SCOPE", "devise")],
        file: Some(
            b"[upstream]\ntoken_fiel = \"t\"\n[ring]\nevents_max = 1\n[trace]\nlevel = \"inof\"",
        ),
        ..Start::default()
    };
    let problems = start.load().unwrap_err();
    // The misspelled token_file stands for the missing token, the wrong scope for its parts.
    let firsts: Vec<String> = problems
        .iter()
        .map(|p| p.to_string().lines().next().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(
        firsts,
        [
            "upstream.token_fiel (fanlight.toml:2) is not a setting",
            "ring.events_max = 1 (fanlight.toml:4) is less than 16",
            "trace.level = \"inof\" (fanlight.toml:6) has \"inof\", which is no level",
            "listen = \"localhost:80\" (environment variable FANLIGHT_LISTEN) is not an IP address and a port",
            "upstream.scope = \"devise\" (environment variable FANLIGHT_UPSTREAM_SCOPE) is not one of the choices",
            "limits.send_buffer = \"1B\" (flag --limits-send-buffer) is less than 4KiB",
            "demo.devices = \"-3\" (flag --demo-devices) is not a whole number",
        ]
    );
    assert!(problems.to_string().starts_with("the configuration has 7 problems\n"));
}

#[test]
fn terminal_sequences_are_not_passed_on() {
    let error = environment_error("FANLIGHT_UPSTREAM_PREFIX", "a\u{1b}[31m\nb");
    assert!(error.contains("upstream.prefix = \"a\\u001B[31m\\nb\""), "{error}");
    assert!(!file_error("\"a\\u001b[31m\" = 1").contains('\u{1b}'));
    assert!(!file_error("[\"a\\u001b[31m\"]").contains('\u{1b}'));
    assert!(!environment_error("FANLIGHT_DEMO_\u{1b}[31m", "1").contains('\u{1b}'));
}

// === layers and origins ===

#[test]
fn the_higher_layer_wins() {
    let file = Some(&b"[stream]\nkeepalive = \"11s\"\n"[..]);
    let environment = &[("PARTICLE_ACCESS_TOKEN", TOKEN), ("FANLIGHT_STREAM_KEEPALIVE", "12s")];
    let flags = &["--stream-keepalive", "13s"];
    let seen = |start: Start| {
        let loaded = start.load().unwrap();
        let seconds = loaded.duration("stream.keepalive").as_secs();
        (seconds, loaded.origin("stream.keepalive").to_string())
    };
    let token = &environment[..1];
    assert_eq!(seen(Start { environment: token, ..Start::default() }), (15, "default".to_owned()));
    assert_eq!(
        seen(Start { environment: token, file, ..Start::default() }),
        (11, "fanlight.toml:2".to_owned())
    );
    assert_eq!(
        seen(Start { environment, file, ..Start::default() }),
        (12, "environment variable FANLIGHT_STREAM_KEEPALIVE".to_owned())
    );
    assert_eq!(
        seen(Start { environment, file, flags, ..Start::default() }),
        (13, "flag --stream-keepalive".to_owned())
    );
}

#[test]
fn a_command_stands_above_all_layers() {
    let overrides = [
        Override {
            name: "upstream.source",
            text: "demo".to_owned(),
            origin: Origin::Command("fanlight demo"),
        },
        Override {
            name: "demo.devices",
            text: "3".to_owned(),
            origin: Origin::Flag("--devices".to_owned()),
        },
    ];
    let start = Start {
        file: Some(b"upstream.source = \"particle\"\nupstream.scope = \"device\""),
        overrides: &overrides,
        ..Start::default()
    };
    let loaded = start.load().unwrap();
    assert_eq!(loaded.choice("upstream.source"), "demo");
    assert_eq!(loaded.origin("upstream.source").to_string(), "command fanlight demo");
    assert_eq!(loaded.count::<usize>("demo.devices"), 3);
}

#[test]
fn tokens_are_ranked() {
    let token = |start: Start| {
        let loaded = start.load().unwrap();
        let token = loaded.secret_opt("upstream.token").map(|secret| secret.expose().to_owned());
        (token, loaded.path_opt("upstream.token_file").map(Path::to_owned))
    };
    let particle = ("PARTICLE_ACCESS_TOKEN", "p");
    let file = Some(&b"[upstream]\ntoken_file = \"/t\""[..]);
    assert_eq!(token(Start { file, ..Start::default() }), (None, Some("/t".into())));
    let environment = &[particle];
    assert_eq!(
        token(Start { environment, file, ..Start::default() }),
        (Some("p".to_owned()), None)
    );
    let environment = &[particle, ("FANLIGHT_UPSTREAM_TOKEN", "f")];
    assert_eq!(
        token(Start { environment, file, ..Start::default() }),
        (Some("f".to_owned()), None)
    );
    let environment = &[particle, ("FANLIGHT_UPSTREAM_TOKEN_FILE", "/e")];
    assert_eq!(token(Start { environment, file, ..Start::default() }), (None, Some("/e".into())));
    let flags = &["--upstream-token-file", "/f"];
    assert_eq!(
        token(Start { environment, file, flags, ..Start::default() }),
        (None, Some("/f".into()))
    );
}

#[test]
fn a_token_is_optional_for_the_simulator_alone() {
    for url in ["http://127.0.0.1:9090", "http://localhost:9090", "http://[::1]:9090"] {
        let flags = &["--upstream-url", url];
        assert!(Start { flags, ..Start::default() }.load().is_ok(), "{url}");
    }
    for url in ["https://127.0.0.1:9090", "http://localhost.example.org", "http://10.0.0.1"] {
        let flags = &["--upstream-url", url];
        assert!(Start { flags, ..Start::default() }.error().contains("needs upstream.token_file"));
    }
    let flags = &["--upstream-source", "sse", "--upstream-url", "https://example.org/stream"];
    assert!(Start { flags, ..Start::default() }.load().is_ok());
}

#[test]
fn each_scope_takes_its_parts() {
    let load = |flags: &[&str]| {
        Start { flags, environment: &[("PARTICLE_ACCESS_TOKEN", TOKEN)], ..Start::default() }.load()
    };
    let (device, product) = (["--upstream-device", "d"], ["--upstream-product", "p"]);
    assert!(load(&["--upstream-prefix", "p"]).is_ok());
    assert!(load(&["--upstream-scope", "device", device[0], device[1]]).is_ok());
    assert!(load(&["--upstream-scope", "product", product[0], product[1]]).is_ok());
    let both = ["--upstream-scope", "product-device", device[0], device[1], product[0], product[1]];
    assert!(load(&both).is_ok());
    assert!(load(&["--upstream-scope", "org", "--upstream-org", "o"]).is_ok());
    assert!(load(&["--upstream-scope", "public", "--upstream-prefix", "p"]).is_ok());
    assert!(load(&["--upstream-scope", "public"]).is_err());
    assert!(load(&["--upstream-org", "o"]).is_err());
}

#[test]
fn the_state_directory_follows_the_environment() {
    let dir = |variables: &[(&str, &str)]| {
        let environment: Vec<_> =
            variables.iter().copied().chain([("PARTICLE_ACCESS_TOKEN", TOKEN)]).collect();
        let loaded = Start { environment: &environment, ..Start::default() }.load().unwrap();
        assert!(!loaded.is_given("state.dir"));
        let dir = loaded.path_opt("state.dir").map(|path| path.display().to_string());
        (dir.unwrap_or_default(), loaded.origin("state.dir").to_string())
    };
    let home = ("HOME", "/home/a:b");
    assert_eq!(dir(&[]), (String::new(), "default".to_owned()));
    assert_eq!(
        dir(&[home]),
        ("/home/a:b/.local/state/fanlight".to_owned(), "default, from $HOME".to_owned())
    );
    assert_eq!(dir(&[home, ("XDG_STATE_HOME", "/x")]).0, "/x/fanlight");
    assert_eq!(dir(&[home, ("XDG_STATE_HOME", "relative")]).0, "/home/a:b/.local/state/fanlight");
    assert_eq!(dir(&[home, ("STATE_DIRECTORY", "/s:/t")]).0, "/s");
}

// === secrets ===

#[test]
fn a_secret_is_shown_nowhere() {
    let text = format!("[upstream]\ntoken = \"{TOKEN}\"");
    let loaded = Start { file: Some(text.as_bytes()), ..Start::default() }.load().unwrap();
    let seen = format!("{loaded:?} {loaded:#?} {}", loaded.print());
    assert!(!seen.contains("hunter2"), "{seen}");
    assert!(loaded.print().contains("# token = \"***\"  # fanlight.toml:2\n"));
    assert_eq!(loaded.secret_opt("upstream.token").map(Secret::expose), Some(TOKEN));
}

#[test]
fn nor_is_a_secret_with_a_mistake_in_it() {
    for text in [
        "[upstream]\ntoken = \"hunter2 \"",
        "[upstream]\ntoken = \"hunter2",
        "[upstream]\ntoken = hunter2",
        "[upstream]\ntoken = [\"hunter2\"]",
        "[upstream]\ntoken = { hunter2 = 1 }",
        "[upstream]\ntokne = \"hunter2\"",
        "token = \"hunter2\"",
        "[upsteam]\ntoken = \"hunter2\"",
        "[upstream]\nurl = \"https://a:hunter2@example.org\"",
        "[upstream]\nurl = \"https://example.org/?access_token=hunter2\"",
        "[upstream]\ntoken = \"hunter2\"\nbackoff_min = \"2m\"",
    ] {
        let problems =
            Start { file: Some(text.as_bytes()), ..Start::default() }.load().unwrap_err();
        let seen = format!("{problems} {problems:?}");
        assert!(!seen.contains("hunter2"), "{text}: {seen}");
    }
    assert_eq!(
        environment_error("FANLIGHT_UPSTREAM_TOKEN", "hunter2\n"),
        "the configuration has a problem\n  \
         upstream.token = *** (environment variable FANLIGHT_UPSTREAM_TOKEN) contains a space or line break\n    \
         allowed: 1 to 4096 bytes of visible ASCII characters, no spaces\n    \
         remedy: take it out"
    );
    let long = "hunter2".repeat(1000);
    assert!(!environment_error("FANLIGHT_UPSTREAM_TOKEN", &long).contains("hunter2"));
    assert!(!environment_error("FANLIGHT_UPSTREAM_TOKNE", "hunter2").contains("hunter2"));
}

// === print ===

#[test]
fn print_names_each_origin() {
    let start = Start {
        flags: &["--ring-bytes-max", "128MiB"],
        environment: &[("PARTICLE_ACCESS_TOKEN", TOKEN), ("HOME", "/home/a")],
        file: Some(b"listen = \"0.0.0.0:80\"\n"),
        ..Start::default()
    };
    let print = start.load().unwrap().print();
    for line in [
        "listen = \"0.0.0.0:80\"  # fanlight.toml:1",
        "# token = \"***\"  # environment variable PARTICLE_ACCESS_TOKEN",
        "# token_file is not set",
        "events_max = 100000  # default",
        "bytes_max = \"128MiB\"  # flag --ring-bytes-max",
        "dir = \"/home/a/.local/state/fanlight\"  # default, from $HOME",
        "shards = \"auto\"  # default",
    ] {
        assert!(print.lines().any(|printed| printed == line), "{line}\n{print}");
    }
}

#[test]
fn what_is_printed_reads_back_the_same() {
    let start = Start {
        flags: &["--demo-seed", "18446744073709551615", "--delivery-shards", "007"],
        environment: &[("FANLIGHT_UPSTREAM_PREFIX", "a\"\\é"), ("HOME", "/home/a")],
        file: Some(b"[upstream]\ntoken_file = 'C:\\t'\n[stream]\nage_max = \"1h30m\"\n[demo]\nevents_per_second = 0.5"),
        ..Start::default()
    };
    let first = start.load().unwrap();
    let text = first.print();
    let second = Start { file: Some(text.as_bytes()), ..Start::default() }.load().unwrap();
    let without_origins = |text: &str| -> Vec<String> {
        text.lines().map(|line| line.split("  # ").next().unwrap_or_default().to_owned()).collect()
    };
    assert_eq!(without_origins(&text), without_origins(&second.print()));
    assert_eq!(second.duration("stream.age_max"), Duration::from_secs(5400));
    assert_eq!(second.count::<u64>("demo.seed"), u64::MAX);
    assert_eq!(second.count::<usize>("delivery.shards"), 7);
    assert_eq!(second.text("upstream.prefix"), "a\"\\é");
}

// === readers ===

#[test]
fn every_setting_has_a_reader() {
    let loaded = with_token();
    for Setting { name, kind, default, .. } in Settings::table() {
        match (kind, default) {
            (Kind::Address, DefaultValue::Unset) => assert_eq!(loaded.address_opt(name), None),
            (Kind::Address, _) => drop(loaded.address(name)),
            (Kind::Duration { .. }, _) => drop(loaded.duration(name)),
            (Kind::SizeOrAuto { .. }, _) => assert_eq!(loaded.size_opt::<u64>(name), None),
            (Kind::Size { .. }, _) => drop(loaded.size::<usize>(name)),
            (Kind::Count { .. }, DefaultValue::Text(_)) => drop(loaded.count::<usize>(name)),
            (Kind::Count { .. } | Kind::CountOrAuto { .. }, _) => {
                assert_eq!(loaded.count_opt::<u64>(name), None, "{name}");
            }
            (Kind::Number { .. }, _) => drop(loaded.number(name)),
            (Kind::Text { .. }, _) => assert_eq!(loaded.text_opt(name), None, "{name}"),
            (Kind::TraceFilter, _) => assert_eq!(loaded.text(name), "info"),
            (Kind::Path, _) => assert_eq!(loaded.path_opt(name), None, "{name}"),
            (Kind::Url, DefaultValue::Unset) => assert_eq!(loaded.url_opt(name), None),
            (Kind::Url, _) => assert_eq!(loaded.url(name).as_str(), "https://api.particle.io/"),
            (Kind::Choice(words), _) => assert!(words.contains(&loaded.choice(name))),
            (Kind::Switch, _) => drop(loaded.switch(name)),
            (Kind::List { .. }, _) => assert!(loaded.list(name).is_empty(), "{name}"),
            (Kind::Secret { .. }, _) => {
                assert_eq!(loaded.secret_opt(name).is_some(), name == "upstream.token");
            }
        }
        assert_eq!(loaded.is_given(name), name == "upstream.token", "{name}");
    }
    assert_eq!(loaded.file(), None);
}

#[test]
#[should_panic(expected = "upstream.nonsense is not in the table of settings")]
fn an_unknown_name_is_a_mistake_in_the_program() {
    with_token().text_opt("upstream.nonsense");
}

#[test]
#[should_panic(expected = "demo.seed is a count, not a text or trace filter")]
fn so_is_a_reader_of_another_kind() {
    with_token().text_opt("demo.seed");
}

#[test]
#[should_panic(expected = "upstream.device may be without a value")]
fn so_is_to_rely_on_what_is_optional() {
    with_token().text("upstream.device");
}

// === docs/configuration.md ===

const DOCS: &str = include_str!("../../docs/configuration.md");

/// Section and cells of each row that begins with a key.
fn documented() -> Vec<(String, Vec<String>)> {
    let mut section = None;
    let mut rows = Vec::new();
    for line in DOCS.lines() {
        if let Some(heading) = line.strip_prefix("### ") {
            section = Some(heading.trim_matches(['`', '[', ']']).replace("Top level", ""));
        } else if line.starts_with("## ") {
            section = None;
        }
        if let (Some(section), true) = (&section, line.starts_with("| `")) {
            let cells = line.trim_matches('|').split('|').map(|cell| cell.trim().replace('`', ""));
            rows.push((section.clone(), cells.collect()));
        }
    }
    rows
}

#[test]
fn the_documentation_has_every_setting_and_no_other() {
    let rows = documented();
    let name = |section: &str, key: &str| match section {
        "" => key.to_owned(),
        section => format!("{section}.{key}"),
    };
    let documented: Vec<String> =
        rows.iter().map(|(section, cells)| name(section, &cells[0])).collect();
    let settings: Vec<&str> =
        Settings::table().iter().map(|setting| setting.name.as_str()).collect();
    assert_eq!(documented, settings);
    for ((_, cells), setting) in rows.iter().zip(Settings::table()) {
        let [_, meaning, unit, default, bounds, cost] = &cells[..] else {
            panic!("{}: six columns", setting.name);
        };
        assert_eq!(unit, setting.kind.noun(), "{}", setting.name);
        assert_eq!(*default, setting.default.to_string(), "{}", setting.name);
        assert_eq!(*bounds, setting.kind.bounds(), "{}", setting.name);
        assert!(!meaning.is_empty() && !cost.is_empty(), "{}", setting.name);
    }
}

#[test]
fn the_examples_of_the_documentation_are_read() {
    let blocks: BTreeSet<&str> =
        DOCS.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!blocks.is_empty());
    for block in blocks {
        let loaded = Start { file: Some(block.as_bytes()), ..Start::default() }.load();
        assert!(loaded.is_ok(), "{block}\n{loaded:?}");
    }
}
