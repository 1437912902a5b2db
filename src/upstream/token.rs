//! The token of the upstream: read where it is kept, sent, and shown nowhere.
//!
//! The law: no `Debug`, `Display`, log line or error carries the token or anything
//! computed from it.

use std::{
    fmt, fs, io,
    io::Read,
    path::{Path, PathBuf},
};

use thiserror::Error;

/// Longest token accepted, in bytes. Particle's have 40; some gateways use JWTs of 1–2 KiB.
pub const TOKEN_BYTES_MAX: usize = 4096;

/// A secret that is a legal value of an `Authorization: Bearer` header.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

/// Where the token comes from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum TokenSource {
    /// No token is sent.
    #[default]
    None,
    /// Given in the configuration; it never changes.
    Fixed(Token),
    /// A file that holds the token alone. Read at each open and watched between.
    File(PathBuf),
}

/// Why there is no token.
#[derive(Debug, Error)]
pub enum TokenError {
    /// Nothing but white space.
    #[error("the token is empty; put the access token there, alone")]
    Empty,
    /// More than [`TOKEN_BYTES_MAX`].
    #[error("the token is longer than {TOKEN_BYTES_MAX} bytes; is it the right file?")]
    TooLong,
    /// Not visible ASCII.
    #[error(
        "the token has a character at byte {at} that no token has (a space, a line break, a letter \
         outside ASCII); it must be the access token alone"
    )]
    Illegal {
        /// Offset after trimming.
        at: usize,
    },
    /// The file's content is no token.
    #[error("token file {}: {source}", path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: Box<TokenError>,
    },
    /// The file could not be read.
    #[error("cannot read the token file {}: {source}; {}", path.display(), advice(source))]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

// === impl Token ===

impl Token {
    /// Trims white space at both ends and checks the rest: visible ASCII, 1 to
    /// [`TOKEN_BYTES_MAX`] bytes.
    pub fn new(text: &str) -> Result<Token, TokenError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(TokenError::Empty);
        }
        if text.len() > TOKEN_BYTES_MAX {
            return Err(TokenError::TooLong);
        }
        match text.bytes().position(|byte| !byte.is_ascii_graphic()) {
            Some(at) => Err(TokenError::Illegal { at }),
            None => Ok(Token(text.to_owned())),
        }
    }

    /// The token itself, for the one header that carries it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// `text` with the token, should it occur, replaced by `***`.
    pub fn mask(&self, text: &str) -> String {
        text.replace(&self.0, "***")
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(***)")
    }
}

impl fmt::Display for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

// === impl TokenSource ===

impl TokenSource {
    /// The token as of now. Blocks on the file system where the source is a file.
    pub fn read(&self) -> Result<Option<Token>, TokenError> {
        match self {
            TokenSource::None => Ok(None),
            TokenSource::Fixed(token) => Ok(Some(token.clone())),
            TokenSource::File(path) => read_file(path).map(Some),
        }
    }

    /// True if [`read`](TokenSource::read) may say something else later.
    pub fn can_change(&self) -> bool {
        matches!(self, TokenSource::File(_))
    }

    /// Where to put a valid token, for messages.
    pub fn advice(&self) -> String {
        match self {
            TokenSource::None => "no token is configured: set upstream.token_file".into(),
            TokenSource::Fixed(_) => "set another upstream.token and restart, or use \
                                      upstream.token_file, which is read again when it changes"
                .into(),
            TokenSource::File(path) => {
                format!(
                    "put a valid token into {}; it is read again when it changes",
                    path.display()
                )
            }
        }
    }

    /// A text about the token without the path of its file, for those who may know that
    /// there is a fault but not where things are kept.
    pub fn hidden(&self, text: &str) -> String {
        match self {
            TokenSource::File(path) => {
                text.replace(&path.display().to_string(), "upstream.token_file")
            }
            TokenSource::None | TokenSource::Fixed(_) => text.to_owned(),
        }
    }
}

fn read_file(path: &Path) -> Result<Token, TokenError> {
    let failed = |source| TokenError::Read { path: path.to_owned(), source };
    // Opening a pipe would block until someone writes to it.
    if !fs::metadata(path).map_err(failed)?.is_file() {
        return Err(failed(io::Error::other("not a regular file")));
    }
    let mut bytes = Vec::new();
    let bytes_max = TOKEN_BYTES_MAX as u64 + 64; // and some white space around it
    let file = fs::File::open(path).map_err(failed)?;
    file.take(bytes_max).read_to_end(&mut bytes).map_err(failed)?;
    let illegal = |source| TokenError::Content { path: path.to_owned(), source: Box::new(source) };
    match std::str::from_utf8(&bytes) {
        Ok(text) => Token::new(text).map_err(illegal),
        Err(error) => Err(illegal(TokenError::Illegal { at: error.valid_up_to() })),
    }
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "create it with the access token as its only line",
        io::ErrorKind::PermissionDenied => "let the user the broker runs as read it",
        _ => "upstream.token_file must name a readable file with the access token alone",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef-not-a-real-token";

    #[test]
    fn a_token_is_trimmed_and_checked() {
        assert_eq!(Token::new(" \tabc\r\n").unwrap().expose(), "abc");
        assert!(matches!(Token::new("\n"), Err(TokenError::Empty)));
        assert!(matches!(Token::new("a b"), Err(TokenError::Illegal { at: 1 })));
        assert!(matches!(Token::new("ab\ncd"), Err(TokenError::Illegal { at: 2 })));
        assert!(matches!(Token::new("tökén"), Err(TokenError::Illegal { at: 1 })));
        assert!(matches!(Token::new(&"x".repeat(4097)), Err(TokenError::TooLong)));
    }

    #[test]
    fn nothing_shows_it() {
        let token = Token::new(SECRET).unwrap();
        assert!(
            !format!("{token} {token:?} {:?}", TokenSource::Fixed(token.clone())).contains("0123")
        );
        assert_eq!(token.mask(&format!("bad token {SECRET}!")), "bad token ***!");
        let error = Token::new(&format!("{SECRET} {SECRET}")).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("0123"));
    }

    #[test]
    fn a_file_is_read_anew_and_errors_name_it() {
        let dir = std::env::temp_dir().join(format!("fanlight-token-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let path = dir.join("token");
        let source = TokenSource::File(path.clone());
        let missing = source.read().unwrap_err().to_string();
        assert!(
            missing.contains(path.to_str().unwrap()) && missing.contains("create it"),
            "{missing}"
        );
        fs::write(&path, "one\n").unwrap();
        assert_eq!(source.read().unwrap(), Some(Token::new("one").unwrap()));
        fs::write(&path, b"\xff").unwrap();
        assert!(source.read().unwrap_err().to_string().contains("byte 0"));
        fs::write(&path, "x".repeat(100_000)).unwrap();
        assert!(matches!(source.read(), Err(TokenError::Content { .. })));
        let folder = TokenSource::File(dir.clone()).read().unwrap_err().to_string();
        assert!(folder.contains("not a regular file"), "{folder}");
        fs::remove_dir_all(&dir).unwrap();
    }
}
