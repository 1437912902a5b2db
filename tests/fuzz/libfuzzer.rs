//! One program for all targets: FANLIGHT_FUZZ_TARGET says which.
#![no_main]

use std::{env, process, sync::LazyLock};

use libfuzzer_sys::fuzz_target;

#[allow(clippy::unwrap_used, clippy::expect_used)]
mod targets;

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(|| {
    let name = env::var("FANLIGHT_FUZZ_TARGET").unwrap_or_default();
    let Some((_, target)) = targets::TARGETS.iter().find(|(known, _)| *known == name) else {
        let known: Vec<&str> = targets::TARGETS.iter().map(|(name, _)| *name).collect();
        eprintln!("FANLIGHT_FUZZ_TARGET is `{name}`; targets are {}", known.join(", "));
        process::exit(2);
    };
    *target
});

fuzz_target!(|input: &[u8]| TARGET(input));
