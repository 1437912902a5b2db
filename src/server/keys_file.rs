//! The files of keys: read whole, and that of API keys replaced whole.
//!
//! Law: a reader never sees half a file, two writers never lose each other's work, and nobody
//! but its owner can read it.

use std::{
    fs,
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use crate::access::{
    Keys, KeysError, TokenKeys, TokenKeysError, jwt::KEYS_BYTES_MAX, key::FILE_BYTES_MAX,
};

/// The file cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum KeysFileError {
    /// The system refuses.
    #[error("cannot {doing} {}: {error}", path.display())]
    System {
        /// What was tried.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        error: io::Error,
    },
    /// Its content cannot be used.
    #[error("the file of keys {} cannot be used: {error}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: KeysError,
    },
    /// Its content cannot be used to check tokens with.
    #[error("the file of keys for tokens {} cannot be used: {error}", path.display())]
    TokenKeys {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        error: TokenKeysError,
    },
    /// What was to be changed cannot be.
    #[error(transparent)]
    Change(KeysError),
    /// Someone else is changing it.
    #[error(
        "{} is there: another `fanlight token` is at work, or one was interrupted; if none is at work, \
         remove that file",
        path.display()
    )]
    Busy {
        /// The file that is in the way.
        path: PathBuf,
    },
}

/// The keys in a file; none if there is no such file.
///
/// # Errors
/// If it cannot be read or used.
pub fn read(path: &Path) -> Result<Option<Keys>, KeysFileError> {
    match read_text(path, FILE_BYTES_MAX)? {
        Some(text) => parse(path, &text).map(Some),
        None => Ok(None),
    }
}

/// The keys to check tokens with in a file.
///
/// # Errors
/// If there is none, or it cannot be read or used.
pub fn read_token_keys(path: &Path) -> Result<TokenKeys, KeysFileError> {
    match read_text(path, KEYS_BYTES_MAX)? {
        Some(text) => parse_token_keys(path, &text),
        None => {
            let (path, error) = (path.to_owned(), io::ErrorKind::NotFound.into());
            Err(KeysFileError::System { doing: "read", path, error })
        }
    }
}

/// The keys to check tokens with in what was read of a file.
pub(super) fn parse_token_keys(path: &Path, text: &[u8]) -> Result<TokenKeys, KeysFileError> {
    TokenKeys::parse(text)
        .map_err(|error| KeysFileError::TokenKeys { path: path.to_owned(), error })
}

/// The keys in what was read of a file.
pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Keys, KeysFileError> {
    Keys::parse(text).map_err(|error| KeysFileError::Content { path: path.to_owned(), error })
}

/// A file as it is, at most `bytes_max` of it; none if there is none.
pub(super) fn read_text(path: &Path, bytes_max: usize) -> Result<Option<Vec<u8>>, KeysFileError> {
    let failed = |error| KeysFileError::System { doing: "read", path: path.to_owned(), error };
    // Opening a pipe would block until someone writes to it.
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return Err(failed(io::Error::other("not a regular file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    }
    let mut text = Vec::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(bytes_max as u64 + 1).read_to_end(&mut text).map_err(failed)?;
    if text.len() > bytes_max {
        let error = format!("longer than {bytes_max} bytes; is it the right file?");
        return Err(failed(io::Error::other(error)));
    }
    Ok(Some(text))
}

/// Changes the keys in a file, which is made with its folder if there is none. Nothing is
/// written if `change` fails.
///
/// # Errors
/// If it cannot be read, used, changed or written.
pub fn change<T>(
    path: &Path,
    change: impl FnOnce(&mut Keys) -> Result<T, KeysError>,
) -> Result<T, KeysFileError> {
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        fs::create_dir_all(folder).map_err(|error| KeysFileError::System {
            doing: "make the folder",
            path: folder.to_owned(),
            error,
        })?;
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let new = path.with_file_name(name);
    // Only one can make it, so it is the lock as well.
    let opened = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new);
    let file = opened.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => KeysFileError::Busy { path: new.clone() },
        _ => KeysFileError::System { doing: "write", path: new.clone(), error },
    })?;
    let changed = change_in(path, &new, file, change);
    if changed.is_err() {
        let _ = fs::remove_file(&new);
    }
    changed
}

fn change_in<T>(
    path: &Path,
    new: &Path,
    mut file: fs::File,
    change: impl FnOnce(&mut Keys) -> Result<T, KeysError>,
) -> Result<T, KeysFileError> {
    let failed = |error| KeysFileError::System { doing: "write", path: new.to_owned(), error };
    let mut keys = read(path)?.unwrap_or_default();
    let changed = change(&mut keys).map_err(KeysFileError::Change)?;
    file.write_all(keys.print().as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)?;
    fs::rename(new, path).map_err(failed)?;
    Ok(changed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::{Grants, Key, Secret, key};
    use std::os::unix::fs::PermissionsExt as _;

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("fanlight-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn add(path: &Path, number: u8) -> Result<(), KeysFileError> {
        change(path, |keys| {
            let secret = Secret::key(&[number; key::KEY_BYTES]);
            let name = format!("key {number}");
            let key = Key::new([number; key::ID_BYTES], &name, &secret, Grants::all(), 1, None)?;
            keys.add(key, 2)
        })
    }

    #[test]
    fn a_file_is_made_for_its_owner_alone_and_replaced_whole() {
        let folder = folder("keys-file");
        let path = folder.join("deep/keys.json");
        assert!(read(&path).unwrap().is_none());
        add(&path, 1).unwrap();
        add(&path, 2).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().iter().count(), 2);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // What fails changes nothing, and leaves nothing behind.
        assert!(matches!(add(&path, 2), Err(KeysFileError::Change(KeysError::Taken(_)))));
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        fs::write(path.with_file_name("keys.json.new"), "").unwrap();
        assert!(matches!(add(&path, 3), Err(KeysFileError::Busy { .. })));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_and_left_as_it_is() {
        let folder = folder("keys-broken");
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join("keys.json");
        fs::write(&path, "{\"version\":1,\"keys\":[{}]}").unwrap();
        let error = add(&path, 1).unwrap_err().to_string();
        assert!(error.contains(path.to_str().unwrap()) && error.contains("key 1: `id`"), "{error}");
        assert_eq!(fs::read(&path).unwrap(), b"{\"version\":1,\"keys\":[{}]}");
        assert!(read(&folder).unwrap_err().to_string().contains("not a regular file"));
        fs::remove_dir_all(&folder).unwrap();
    }
}
