//! Lines of proxies' configurations, each against one fault.
//!
//! Law: a line here agrees with the settings in docs/operations.md, which tests/proxies runs.

/// For each proxy that is known, its name and its line.
pub(super) type Directives = [(&'static str, &'static str); 3];

/// What is held back.
pub(super) const BUFFERING: Directives = [
    ("nginx", "proxy_buffering off;   # and no proxy_ignore_headers X-Accel-Buffering"),
    ("Caddy", "reverse_proxy … { flush_interval -1 }"),
    ("HAProxy", "no option http-buffer-request; no compression for text/event-stream"),
];
/// Streams that are compressed.
pub(super) const COMPRESSION: Directives = [
    ("nginx", "gzip off;   # in the location of /events, or text/event-stream out of gzip_types"),
    (
        "Caddy",
        "encode { match { header Content-Type text/html* } }   # whatever is no event stream",
    ),
    (
        "HAProxy",
        "compression type text/html text/css application/javascript   # no text/event-stream",
    ),
];
/// Streams that are ended.
pub(super) const CUT: Directives = [
    ("nginx", "proxy_read_timeout 90s;"),
    (
        "Caddy",
        "reverse_proxy … { stream_timeout 0 }   # and no read or write timeout of the server",
    ),
    ("HAProxy", "timeout server 90s, timeout client 90s, timeout tunnel 90s"),
];
/// Headers of the answer that are changed.
pub(super) const HEADERS: Directives = [
    ("nginx", "no proxy_hide_header, add_header or expires for it in this location"),
    ("Caddy", "no header directive for it"),
    ("HAProxy", "no http-response set-header or del-header for it"),
];
/// WebSockets that do not open.
pub(super) const UPGRADE: Directives = [
    (
        "nginx",
        "proxy_http_version 1.1; proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection $fanlight_connection;",
    ),
    ("Caddy", "reverse_proxy passes upgrades by itself: no header_up for Upgrade or Connection"),
    ("HAProxy", "timeout tunnel 90s, and no http-request del-header upgrade"),
];
/// A `Host` that is not the one the client gave.
pub(super) const HOST: Directives = [
    ("nginx", "proxy_set_header Host $http_host;"),
    ("Caddy", "reverse_proxy … without header_up Host"),
    ("HAProxy", "no http-request set-header Host"),
];
/// A `Last-Event-ID` that does not arrive.
pub(super) const RESUME: Directives = [
    ("nginx", "proxy_pass_request_headers on;   # and no proxy_set_header Last-Event-ID"),
    ("Caddy", "reverse_proxy … without header_up -Last-Event-ID"),
    ("HAProxy", "no http-request del-header last-event-id"),
];
/// Pages that are for the inside.
pub(super) const INSIDE: Directives = [
    ("nginx", "location ~ ^/(metrics|status|healthz|readyz)$ { deny all; }"),
    ("Caddy", "@inside path /metrics /status /healthz /readyz, and respond @inside 404"),
    ("HAProxy", "http-request deny if { path /metrics /status /healthz /readyz }"),
];
/// A broker that is not reached.
pub(super) const REACH: Directives = [
    ("nginx", "upstream fanlight { server 127.0.0.1:8080; }"),
    ("Caddy", "reverse_proxy 127.0.0.1:8080"),
    ("HAProxy", "server one 127.0.0.1:8080 check"),
];
