//! The dashboard and the browser client: the files of `web/`, compiled in.
//!
//! Law: only what is in the list is served, each file with a strong validator; nothing is
//! read from disk unless `server.web_dir` says so.

use std::path::{Path, PathBuf};

use axum::{
    extract::{Path as UrlPath, State, rejection::PathRejection},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Uri, header};
use rust_embed::RustEmbed;

use super::{App, error::Error, validator};

/// The page: it loads nothing from elsewhere, runs only what came with it, and no text can
/// become markup (Trusted Types without a policy). Images are those that events carry.
const PAGE_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
                           img-src 'self' data:; connect-src 'self'; base-uri 'none'; \
                           form-action 'none'; frame-ancestors 'none'; \
                           require-trusted-types-for 'script'; trusted-types 'none'";

/// What of the machine the page has no use for. What is not listed, it asks for: the clipboard.
const PAGE_FEATURES: &str = "accelerometer=(), camera=(), display-capture=(), geolocation=(), \
                             gyroscope=(), hid=(), magnetometer=(), microphone=(), midi=(), \
                             payment=(), serial=(), usb=()";

/// One file of the page from disk: more is a mistake.
const FILE_BYTES_MAX: u64 = 4 << 20;

#[derive(RustEmbed)]
#[folder = "web/"]
struct Files;

/// Where the page's files come from.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// A folder in place of what is compiled in, for working on the page.
    pub dir: Option<PathBuf>,
}

/// `GET /`: the dashboard.
pub(super) async fn index(State(app): State<App>, headers: HeaderMap) -> Result<Response, Error> {
    let found = file(&app.web, "index.html", &headers).await;
    found.ok_or_else(|| {
        tracing::error!(web_dir = ?app.web.dir, "cannot read index.html (setting server.web_dir)");
        Error::Internal
    })
}

/// `GET /fanlight.js`: the browser client.
pub(super) async fn client(
    State(app): State<App>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Error> {
    file(&app.web, "fanlight.js", &headers).await.ok_or_else(|| Error::not_found(&uri))
}

/// `GET /app/…`: what the dashboard is made of.
pub(super) async fn app_file(
    State(app): State<App>,
    name: Result<UrlPath<String>, PathRejection>,
    uri: Uri,
    headers: HeaderMap,
) -> Result<Response, Error> {
    // What is no text names no file.
    let UrlPath(name) = name.map_err(|_| Error::not_found(&uri))?;
    let found = file(&app.web, &format!("app/{name}"), &headers).await;
    found.ok_or_else(|| Error::not_found(&uri))
}

async fn file(config: &Config, name: &str, asked: &HeaderMap) -> Option<Response> {
    let kind = media_type(name)?;
    let mut headers = HeaderMap::new();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    set(header::CONTENT_TYPE, kind);
    // Kept, but asked about each time: the page is as new as the broker.
    set(header::CACHE_CONTROL, "no-cache");
    set(header::REFERRER_POLICY, "no-referrer");
    if name.ends_with(".html") {
        set(header::CONTENT_SECURITY_POLICY, PAGE_POLICY);
        set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
        set(HeaderName::from_static("permissions-policy"), PAGE_FEATURES);
    }
    if let Some(dir) = &config.dir {
        let bytes = from_disk(dir, name).await?;
        return Some((headers, bytes).into_response());
    }
    let file = Files::get(name)?;
    let tag = validator::tag(&file.metadata.sha256_hash()[..16]);
    Some(validator::answer(asked, tag, headers, file.data))
}

/// The same names as those compiled in could have, and nothing above the folder.
async fn from_disk(dir: &Path, name: &str) -> Option<Vec<u8>> {
    let is_plain = name.split('/').all(|part| {
        let is_letter = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        !part.starts_with('.') && !part.is_empty() && part.chars().all(is_letter)
    });
    if !is_plain {
        return None;
    }
    let path = dir.join(name);
    let metadata = tokio::fs::metadata(&path).await.ok()?;
    if !metadata.is_file() || metadata.len() > FILE_BYTES_MAX {
        return None;
    }
    tokio::fs::read(path).await.ok()
}

/// By the end of the name; none for what the page has no use for.
fn media_type(name: &str) -> Option<&'static str> {
    Some(match name.rsplit_once('.')?.1 {
        "html" => "text/html; charset=utf-8",
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "txt" => "text/plain; charset=utf-8",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_has_a_media_type() {
        for name in Files::iter() {
            assert!(media_type(&name).is_some(), "{name} cannot be served");
        }
    }

    #[tokio::test]
    async fn nothing_above_the_folder_is_read() {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("web");
        assert!(from_disk(&dir, "index.html").await.is_some());
        for name in ["../Cargo.toml", "app/../../Cargo.toml", "/etc/passwd", "app", ".", "a\\b", ""]
        {
            assert!(from_disk(&dir, name).await.is_none(), "{name}");
        }
    }
}
