//! The `fanlight` command: environment → command → exit code.

use std::process::ExitCode;

use fanlight::{cli, config::Environment};

/// The system's allocator keeps what thousands of short-lived requests leave between the
/// subscribers that stay (docs/decisions/0012-allocator.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    // Usage errors end with 2 and help with 0, by clap itself.
    let matches = cli::command().get_matches();
    match cli::run(&matches, &Environment::read()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("fanlight: {failure}");
            failure.exit_code()
        }
    }
}
