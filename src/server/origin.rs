//! Which pages may use the broker: the one place that decides for all routes, by the `Origin` that
//! browsers send.
//!
//! A browser lets any page open a WebSocket to any address and read what comes, and post a form to
//! any address: the same-origin rule does not reach there (RFC 6455, section 10.2). Where it does,
//! it keeps a page from reading, and not from holding streams open. So a request of a foreign page
//! is refused before any route sees it. Where a page asks for what it cannot read, as for an image or
//! a frame, browsers send no `Origin`, and say in `Sec-Fetch-Site` that it is another's. Programs send
//! neither.
//!
//! Law: an origin is good if it is the broker's own, or stands in `server.origins` byte for byte.
//! `null` is never good. What is answered to a listed page names that very page; `*` is answered
//! where `particle.cors` says so alone, and never with credentials.

use axum::{
    body::Body,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, StatusCode, header};

use super::{error::Error, particle};

/// Characters of a refused origin that the answer repeats.
const SHOWN_CHARS_MAX: usize = 100;
/// Headers that pages may send: what particle-api-js and the `EventSource` of a browser do.
const HEADERS: HeaderValue = HeaderValue::from_static(
    "authorization, cache-control, content-type, last-event-id, user-agent, x-particle-project, \
     x-particle-tool",
);
/// Headers of answers that pages may read, beside those that they always may.
const EXPOSED: HeaderValue = HeaderValue::from_static("etag, retry-after");
/// Methods of listed pages, and of all.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, POST");
const METHODS_OF_ALL: HeaderValue = HeaderValue::from_static("GET, HEAD");
/// How long a browser may remember the answer to a preflight, in seconds.
const MAX_AGE: HeaderValue = HeaderValue::from_static("600");
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The pages that may use the broker, beside its own.
#[derive(Clone, Debug, Default)]
pub struct Origins {
    listed: Vec<Box<str>>,
    /// Pages of every origin may read the streams below `/v1`.
    particle_cors: bool,
}

/// The page a request comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// The broker's own, or none at all.
    Own,
    /// One that is listed.
    Listed(HeaderValue),
    /// Any, for what is open to every page.
    Any,
}

impl Origins {
    /// Origins as `server.origins` has them, which is as browsers send them; and `particle.cors`.
    pub fn new<'a>(listed: impl IntoIterator<Item = &'a str>, particle_cors: bool) -> Origins {
        Origins { listed: listed.into_iter().map(Into::into).collect(), particle_cors }
    }

    /// The page that a request comes from.
    ///
    /// # Errors
    /// If that page may not use the broker.
    pub(super) fn admit(&self, request: &Request<Body>) -> Result<Page, Error> {
        let mut fields = request.headers().get_all(header::ORIGIN).iter();
        let Some(field) = fields.next() else {
            return match is_of_another_site(request) {
                true => Err(Error::ForeignOrigin { origin: "another site".to_owned() }),
                false => Ok(Page::Own),
            };
        };
        let origin = field.to_str().ok().filter(|_| fields.next().is_none());
        let host = match request.uri().authority() {
            Some(authority) => Some(authority.as_str()),
            None => request.headers().get(header::HOST).and_then(|host| host.to_str().ok()),
        };
        match origin {
            Some(origin) if self.listed.iter().any(|listed| **listed == *origin) => {
                Ok(Page::Listed(field.clone()))
            }
            Some(origin) if is_own(origin, host) => Ok(Page::Own),
            _ if self.particle_cors && is_particle_read(request) => Ok(Page::Any),
            _ => {
                let origin = String::from_utf8_lossy(field.as_bytes());
                let origin = origin.chars().take(SHOWN_CHARS_MAX).collect();
                Err(Error::ForeignOrigin { origin })
            }
        }
    }

    /// Says in the answer to a request of `page` what that page may do with it.
    pub(super) fn mark(&self, page: Page, headers: &mut HeaderMap) {
        // A cache in between must not hand one page's answer to another.
        if !self.listed.is_empty() {
            headers.append(header::VARY, HeaderValue::from_static("origin"));
        }
        match page {
            Page::Own => {}
            Page::Any => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
                headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
            Page::Listed(origin) => {
                headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
                headers.insert(
                    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
                    HeaderValue::from_static("true"),
                );
                headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
            }
        }
    }
}

impl Page {
    /// The answer to a preflight, if the request is one of a page of another origin.
    pub(super) fn preflight(&self, request: &Request<Body>) -> Option<Response> {
        let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
        let methods = match self {
            Page::Listed(_) => METHODS,
            Page::Any => METHODS_OF_ALL,
            Page::Own => return None,
        };
        (*request.method() == Method::OPTIONS && asks).then(|| {
            let headers = [
                (header::ACCESS_CONTROL_ALLOW_METHODS, methods),
                (header::ACCESS_CONTROL_ALLOW_HEADERS, HEADERS),
                (header::ACCESS_CONTROL_MAX_AGE, MAX_AGE),
            ];
            (StatusCode::NO_CONTENT, headers).into_response()
        })
    }
}

/// The origin's host and port are those that the request was made for. The scheme does not count:
/// TLS may end at a proxy.
fn is_own(origin: &str, host: Option<&str>) -> bool {
    let page = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    matches!((page, host), (Some(page), Some(host)) if page.eq_ignore_ascii_case(host))
}

/// Browsers say so themselves, where they do not say from which origin. A link that someone follows
/// is no page's doing; an image, a script, a frame or a `no-cors` fetch is.
fn is_of_another_site(request: &Request<Body>) -> bool {
    let value = |name: &HeaderName| request.headers().get(name).map(HeaderValue::as_bytes);
    let is_safe = matches!(*request.method(), Method::GET | Method::HEAD);
    let is_link = is_safe && value(&SEC_FETCH_DEST) == Some(b"document");
    !is_link && !matches!(value(&SEC_FETCH_SITE), None | Some(b"same-origin" | b"none"))
}

/// What `particle.cors` opens: all below `/v1`, also with slashes in front, but to publish.
fn is_particle_read(request: &Request<Body>) -> bool {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    is_read && particle::is_for(request.uri().path())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTED: [&str; 5] = [
        "https://app.example",
        "http://app.example:3000",
        "http://localhost:5173",
        "https://xn--bcher-kva.example",
        "https://[2001:db8::1]:8443",
    ];

    fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Request<Body> {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in headers {
            request = request.header(*name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        request.body(Body::empty()).unwrap()
    }

    fn page(origins: &Origins, method: &str, path: &str, origin: &str) -> Option<Page> {
        let headers = [("host", "broker.example:8080"), ("origin", origin)];
        origins.admit(&request(method, path, &headers)).ok()
    }

    #[test]
    fn an_origin_is_listed_byte_for_byte() {
        let origins = Origins::new(LISTED, false);
        for origin in LISTED {
            let listed = Page::Listed(HeaderValue::from_static(origin));
            assert_eq!(page(&origins, "GET", "/events", origin), Some(listed), "{origin}");
        }
        // The broker's own, with TLS at a proxy as well.
        for origin in [
            "http://broker.example:8080",
            "https://broker.example:8080",
            "http://Broker.EXAMPLE:8080",
        ] {
            assert_eq!(page(&origins, "GET", "/events", origin), Some(Page::Own), "{origin}");
        }
        let foreign = [
            // Nobody's.
            "null",
            "NULL",
            "",
            " ",
            "*",
            "https://*",
            "https://*.example",
            "undefined",
            "file://",
            "about:blank",
            "data:",
            // More or less than the whole of it.
            "https://app.example.evil.example",
            "https://app.example.",
            "https://app.example/",
            "https://app.example/x",
            "https://app.example?x",
            "https://app.example#x",
            "https://app.exampl",
            "https://app.example2",
            "https://xapp.example",
            "https://evilapp.example",
            "https://x.app.example",
            "https://example",
            "https://app",
            "app.example",
            "//app.example",
            "https:/app.example",
            "https//app.example",
            "https://",
            // Another scheme.
            "http://app.example",
            "https://app.example:3000",
            "ws://app.example",
            "wss://app.example",
            "ftp://app.example",
            "chrome-extension://app.example",
            // Another port.
            "https://app.example:443",
            "https://app.example:",
            "https://app.example:0",
            "https://app.example:8443",
            "http://app.example:300",
            "http://app.example:30000",
            "http://app.example:03000",
            "http://localhost",
            "http://localhost:5174",
            "http://127.0.0.1:5173",
            "http://[::1]:5173",
            // Another letter.
            "HTTPS://app.example",
            "https://App.example",
            "https://APP.EXAMPLE",
            "https://app\u{2024}example",
            "https://аpp.example",
            "https://bücher.example",
            "https://xn--bcher-kva.example.",
            "https://XN--BCHER-KVA.example",
            "https://b%C3%BCcher.example",
            "https://app%2Eexample",
            "https://app_example",
            "https://[2001:db8::1]",
            "https://[2001:0db8::1]:8443",
            "https://2001:db8::1:8443",
            // Someone in front, something behind.
            "https://user@app.example",
            "https://user:pass@app.example",
            "https://app.example@evil.example",
            "https://app.example:3000@evil.example",
            "https://evil.example/https://app.example",
            "https://evil.example?https://app.example",
            "https://evil.example, https://app.example",
            "https://app.example, https://evil.example",
            "https://app.example https://evil.example",
            "https://app.example\t",
            " https://app.example",
            // Not quite the broker.
            "http://broker.example",
            "http://broker.example:80",
            "http://broker.example:8080.evil.example",
            "http://broker.example:8080/",
            "http://evil.example/broker.example:8080",
            "ftp://broker.example:8080",
            "broker.example:8080",
        ];
        assert!(foreign.len() > 60);
        for origin in foreign {
            assert_eq!(page(&origins, "GET", "/events", origin), None, "{origin:?}");
            assert_eq!(page(&origins, "GET", "/ws", origin), None, "{origin:?}");
            assert_eq!(page(&origins, "POST", "/v1/devices/events", origin), None, "{origin:?}");
            assert_eq!(page(&origins, "OPTIONS", "/events", origin), None, "{origin:?}");
        }
    }

    #[test]
    fn programs_have_no_origin_and_two_are_none() {
        let origins = Origins::new(LISTED, false);
        let admits = |method, headers: &[(&str, &str)]| {
            origins.admit(&request(method, "/events", headers)).is_ok()
        };
        assert!(admits("GET", &[]) && admits("POST", &[]));
        assert!(!admits("GET", &[("origin", LISTED[0]), ("origin", LISTED[0])]));
        assert!(!admits("GET", &[("origin", "http://a")]), "without a host nothing is its own");
        // A form of another site, where the browser says no more.
        for (site, is_good) in
            [("same-origin", true), ("none", true), ("same-site", false), ("cross-site", false)]
        {
            assert_eq!(admits("POST", &[("sec-fetch-site", site)]), is_good, "{site}");
            for dest in ["image", "script", "iframe", "object", "empty", "prefetch", ""] {
                let asks = [("sec-fetch-site", site), ("sec-fetch-dest", dest)];
                assert_eq!(admits("GET", &asks), is_good, "{site}: {dest}");
                assert_eq!(admits("OPTIONS", &asks), is_good, "{site}: {dest}");
            }
            let link = [("sec-fetch-site", site), ("sec-fetch-dest", "document")];
            assert!(admits("GET", &link) && admits("HEAD", &link), "{site}: a link");
            assert_eq!(admits("POST", &link), is_good, "{site}: a form");
        }
        assert!(admits("POST", &[("origin", LISTED[0]), ("sec-fetch-site", "cross-site")]));
        let http2 = request("GET", "http://broker/events", &[("origin", "http://broker")]);
        assert_eq!(origins.admit(&http2).ok(), Some(Page::Own));
    }

    #[test]
    fn what_the_particle_routes_open_to_all_is_reading() {
        let origins = Origins::new(LISTED, true);
        for path in ["/v1/devices/events", "//v1/devices/events", "/v1/nothing"] {
            for origin in ["https://evil.example", "null"] {
                for method in ["GET", "HEAD", "OPTIONS"] {
                    assert_eq!(page(&origins, method, path, origin), Some(Page::Any));
                }
                assert_eq!(page(&origins, "POST", path, origin), None);
            }
            let listed = page(&origins, "GET", path, LISTED[0]);
            assert!(matches!(listed, Some(Page::Listed(_))), "with credentials all the same");
        }
        for path in ["/events", "/ws", "/v1", "/v10/", "/x/v1/", "/", "/metrics"] {
            assert_eq!(page(&origins, "GET", path, "https://evil.example"), None, "{path}");
        }
    }

    #[test]
    fn an_answer_names_the_very_page() {
        let marked = |origins: &Origins, page| {
            let mut headers = HeaderMap::new();
            origins.mark(page, &mut headers);
            headers
        };
        let origins = Origins::new(LISTED, true);
        let listed = marked(&origins, Page::Listed(HeaderValue::from_static(LISTED[0])));
        assert_eq!(listed["access-control-allow-origin"], LISTED[0]);
        assert_eq!(listed["access-control-allow-credentials"], "true");
        assert_eq!(listed["vary"], "origin");
        let any = marked(&origins, Page::Any);
        assert_eq!(any["access-control-allow-origin"], "*");
        assert!(!any.contains_key("access-control-allow-credentials"));
        assert_eq!(any["vary"], "origin");
        let own = marked(&origins, Page::Own);
        assert!(own.len() == 1 && own.contains_key("vary"), "{own:?}");
        assert!(marked(&Origins::default(), Page::Own).is_empty());
    }

    #[test]
    fn a_preflight_is_of_another_page_and_asks_for_a_method() {
        let asks = [("access-control-request-method", "GET")];
        let listed = Page::Listed(HeaderValue::from_static(LISTED[0]));
        let answers = |page: &Page, method, headers: &[(&str, &str)]| {
            page.preflight(&request(method, "/events", headers))
        };
        let answer = answers(&listed, "OPTIONS", &asks).unwrap();
        assert_eq!(answer.status(), 204);
        assert_eq!(answer.headers()["access-control-allow-methods"], "GET, HEAD, POST");
        assert_eq!(answer.headers()["access-control-max-age"], "600");
        let answer = answers(&Page::Any, "OPTIONS", &asks).unwrap();
        assert_eq!(answer.headers()["access-control-allow-methods"], "GET, HEAD");
        assert!(answers(&Page::Own, "OPTIONS", &asks).is_none());
        assert!(answers(&listed, "GET", &asks).is_none());
        assert!(answers(&listed, "OPTIONS", &[]).is_none());
    }
}
