//! The file that keeps the position from one run to the next.
//!
//! Law: it holds a position whose events have all been written, or nothing. It is replaced in one
//! step, so a run that is killed leaves the one before.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::{cli::Failure, model::Position};

/// A position, and room for white space that an editor adds.
const FILE_BYTES_MAX: u64 = 256;

/// Where the position is kept.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file and the position in it; none if it is not there yet or empty.
    pub(super) fn open(path: &Path) -> Result<(StateFile, Option<Position>), Failure> {
        let file = StateFile { path: path.to_owned() };
        let failed = |what: String| Failure::Usage(format!("--state {}: {what}", path.display()));
        let text = match fs::metadata(path) {
            Ok(metadata) if !metadata.is_file() => return Err(failed("not a file".to_owned())),
            Ok(metadata) if metadata.len() > FILE_BYTES_MAX => String::from("?"),
            _ => match fs::read_to_string(path) {
                Ok(text) => text,
                Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
                Err(error) => return Err(failed(error.to_string())),
            },
        };
        match text.trim() {
            "" => Ok((file, None)),
            text => match text.parse() {
                Ok(position) => Ok((file, Some(position))),
                Err(_) => Err(failed(
                    "what is in it is no position; name another file, or remove it to begin anew"
                        .to_owned(),
                )),
            },
        }
    }

    /// Replaces the position.
    pub(super) fn write(&self, position: Position) -> anyhow::Result<()> {
        let mut beside = self.path.clone().into_os_string();
        beside.push(".new");
        let beside = PathBuf::from(beside);
        fs::write(&beside, format!("{position}\n"))
            .and_then(|()| fs::rename(&beside, &self.path))
            .with_context(|| format!("cannot keep the position in {}", self.path.display()))
    }
}
