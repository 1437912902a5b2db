//! `fanlight check --online`: does the cloud let this machine read its stream, step by step?
//!
//! Law: it opens one stream, counted in the same budget as the broker's opens, and none if the
//! budget has none left. The token goes to the configured address alone and is shown nowhere.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use anyhow::anyhow;
use jiff::fmt::rfc2822;
use reqwest::{Client, Response, StatusCode, header, redirect};
use serde_json::Value;
use tokio::{
    net::{TcpStream, lookup_host},
    time::{Instant, timeout, timeout_at},
};
use url::Url;

use crate::{
    cli::{
        Failure,
        tail::{chain, is_loopback, quoted},
    },
    clock::Clock,
    model::Moment,
    upstream::{
        Config, Source,
        budget::Ledger,
        particle,
        token::{Token, TokenSource},
    },
};

use super::{finding::Finding, progress::Progress};

const DNS_TIMEOUT: Duration = Duration::from_secs(5);
const TCP_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 8;
/// From the head of the answer; the cloud sends its first bytes with it.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(15);
/// The `Date` of an answer is in whole seconds and as old as the way back.
const CLOCK_OFF_MAX_MS: u64 = 5_000;
/// How much of a refusal is read for its reason, and how long.
const REFUSAL_BYTES_MAX: usize = 4096;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(2);

/// What is checked.
pub(super) struct Online {
    pub(super) config: Config,
    pub(super) url: Url,
    pub(super) token: Option<Token>,
}

/// Checks from the ground up. What cannot be told any more after a failure is left out.
pub(super) async fn check(online: &Online, clock: &Clock) -> Result<Vec<Finding>, Failure> {
    let mut findings = Vec::new();
    let progress = Progress::new();
    progress.tell("looking up and connecting");
    let way = way(&online.url, &mut findings).await;
    let opened = open(online, clock, &progress, &mut findings).await?;
    if let (Err(at), true) = (way, opened.is_answered) {
        // The way is another one than ours: that of a proxy.
        let finding = &mut findings[at];
        finding.state = super::finding::State::Warning;
        finding.remedy =
            "the request was answered all the same, by way of a proxy of the environment"
                .to_owned();
    }
    if let Some(response) = opened.stream {
        listen(online, response, &progress, &mut findings).await;
    }
    Ok(findings)
}

/// The name and its addresses. `Err` has the place of the finding that failed.
async fn way(url: &Url, findings: &mut Vec<Finding>) -> Result<(), usize> {
    let name = url.host_str().unwrap_or_default();
    let port = url.port_or_known_default().unwrap_or_default();
    // An IPv6 address stands in brackets.
    let bare = name.trim_matches(['[', ']']);
    let looked_up = timeout(DNS_TIMEOUT, lookup_host((bare, port))).await;
    let remedy = "check upstream.url, and the name resolution of this machine (/etc/resolv.conf)";
    let mut addresses: Vec<SocketAddr> = match looked_up {
        Ok(Ok(found)) => found.take(ADDRESSES_MAX).collect(),
        Ok(Err(error)) => {
            let text = format!("{name} cannot be resolved ({})", quoted(&error.to_string()));
            findings.push(Finding::failed("dns", text, remedy));
            return Err(findings.len() - 1);
        }
        Err(_) => {
            let text = format!("{name} was not resolved within {} s", DNS_TIMEOUT.as_secs());
            findings.push(Finding::failed("dns", text, remedy));
            return Err(findings.len() - 1);
        }
    };
    addresses.dedup();
    if bare.parse::<IpAddr>().is_ok() {
        findings.push(Finding::ok("dns", format!("{name} is an address already")));
    } else {
        let shown: Vec<String> = addresses.iter().map(|one| one.ip().to_string()).collect();
        findings.push(Finding::ok("dns", format!("{name} is {}", shown.join(", "))));
    }
    let mut failed = Vec::new();
    let mut reached = None;
    for address in &addresses {
        let since = Instant::now();
        match timeout(TCP_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                reached.get_or_insert((address, since.elapsed()));
            }
            Ok(Err(error)) => failed.push((address, error)),
            Err(_) => failed.push((address, io::ErrorKind::TimedOut.into())),
        }
    }
    let shown = |failed: &[(&SocketAddr, io::Error)]| {
        let all: Vec<String> =
            failed.iter().map(|(address, error)| format!("{address}: {error}")).collect();
        all.join(", ")
    };
    let remedy = "check upstream.url's port, the network, and firewalls in between";
    match reached {
        Some((address, took)) if failed.is_empty() => {
            let text = format!("{address} takes connections, after {} ms", took.as_millis());
            findings.push(Finding::ok("tcp", text));
            Ok(())
        }
        Some((address, _)) => {
            let text = format!("{address} takes connections, but not {}", shown(&failed));
            let remedy = "each connection may lose time there; if it is IPv6, mend its routing or switch it off";
            findings.push(Finding::warning("tcp", text, remedy));
            Ok(())
        }
        None => {
            findings.push(Finding::failed(
                "tcp",
                format!("no connection ({})", shown(&failed)),
                remedy,
            ));
            Err(findings.len() - 1)
        }
    }
}

/// What opening came to.
struct Opened {
    is_answered: bool,
    stream: Option<Response>,
}

/// One open: the budget, TLS, the clock, token and scope.
async fn open(
    online: &Online,
    clock: &Clock,
    progress: &Progress,
    findings: &mut Vec<Finding>,
) -> Result<Opened, Failure> {
    let nothing = Opened { is_answered: false, stream: None };
    let (config, url) = (&online.config, &online.url);
    if !budget(config, url, clock, findings).await {
        return Ok(nothing);
    }
    let mut builder = Client::builder()
        .redirect(redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(config.connect_timeout);
    if is_loopback(url) {
        builder = builder.no_proxy();
        if url.scheme() == "http" {
            builder = builder.tls_certs_only([]);
        }
    }
    let client = builder.build().map_err(|error| {
        Failure::Failed(anyhow!("cannot set up the HTTP client: {}", chain(&error)))
    })?;
    progress.tell("asking for the stream");
    let asked_at = clock.now();
    let request = client.get(url.clone()).headers(particle::headers(online.token.as_ref(), ""));
    let host = particle::authority(url);
    let response = match timeout(config.connect_timeout, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => {
            findings.push(refused_below(online, &error.without_url()));
            return Ok(nothing);
        }
        Err(_) => {
            let text =
                format!("{host} sent no answer within {} s", config.connect_timeout.as_secs_f64());
            let remedy =
                "check proxies and firewalls in between, or raise upstream.connect_timeout";
            findings.push(Finding::failed("request", text, remedy));
            return Ok(nothing);
        }
    };
    match (url.scheme(), &online.token) {
        ("https", _) => {
            findings.push(Finding::ok("tls", format!("the certificate of {host} holds")));
        }
        (_, Some(_)) if !is_loopback(url) => findings.push(Finding::warning(
            "tls",
            "upstream.url is plain http: the token travels unencrypted",
            "use https",
        )),
        _ => findings.push(Finding::ok("tls", "none: upstream.url is plain http")),
    }
    findings.push(clock_off(&response, asked_at, clock.now()));
    let is_stream = judge(online, &mut Some(response), findings).await;
    Ok(Opened { is_answered: true, stream: is_stream })
}

/// Takes one open, and says what is left. False if there is none.
async fn budget(config: &Config, url: &Url, clock: &Clock, findings: &mut Vec<Finding>) -> bool {
    let now = clock.now();
    let (authority, window) = (particle::authority(url), config.opens_window);
    let (opens_max, dir) = (config.opens_max, config.state_dir.clone());
    let mut ledger = Ledger::open(dir, authority, opens_max, window, now).await;
    let taken = ledger.take(now).await;
    let used = ledger.used(now);
    let place = match &config.state_dir {
        Some(dir) => format!("counted in {}", dir.display()),
        None => "not counted beyond this run, since state.dir is not set".to_owned(),
    };
    let text = format!("{used} of {opens_max} opens in {} s are used, {place}", window.as_secs());
    match taken {
        Err(wait) => {
            let remedy = format!(
                "one is free in {} s; the broker waits too. Find out what opened so often \
                 (docs/operations.md, The budget of opens)",
                wait.as_secs() + 1
            );
            findings.push(Finding::failed("opens", format!("{text}: nothing was asked"), remedy));
            false
        }
        Ok(()) if used * 4 > opens_max * 3 => {
            let remedy = "something opens again and again: a broker that cannot stay connected?";
            findings.push(Finding::warning("opens", text, remedy));
            true
        }
        Ok(()) => {
            findings.push(Finding::ok("opens", format!("{text}; this check was one of them")));
            true
        }
    }
}

/// An error below HTTP.
fn refused_below(online: &Online, error: &reqwest::Error) -> Finding {
    let chain = masked(online, &chain(error));
    let host = particle::authority(&online.url);
    // The TLS library is not among our dependencies, so its errors are known by their words.
    let lower = chain.to_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| lower.contains(word));
    if online.url.scheme() != "https"
        || !has(&["certificate", "tls", "handshake", "corrupt", "alert"])
    {
        let remedy = "check upstream.url, and proxies and firewalls in between";
        return Finding::failed("request", format!("{host} did not answer ({chain})"), remedy);
    }
    let (why, remedy) = if has(&["notvalidyet", "not valid yet", "not yet valid"]) {
        ("its certificate is not valid yet", "check the clock of this machine first")
    } else if has(&["expired"]) {
        (
            "its certificate has expired",
            "check the clock of this machine first, then tell its owner",
        )
    } else if has(&["notvalidforname", "not valid for name", "name mismatch"]) {
        (
            "its certificate is for another name",
            "check upstream.url; a proxy or a login page may be in between",
        )
    } else if has(&["unknownissuer", "unknown issuer", "self-signed", "selfsigned", "untrusted"]) {
        (
            "nobody this machine trusts vouches for its certificate",
            "install the root certificates (ca-certificates); behind a proxy that reads TLS, add its root",
        )
    } else if has(&["revoked"]) {
        ("its certificate is revoked", "check upstream.url, and tell its owner")
    } else {
        ("there is no TLS with it", "check that this port speaks https, and proxies in between")
    };
    Finding::failed("tls", format!("{host}: {why} ({chain})"), remedy)
}

/// Compares the clocks by the answer's `Date`.
fn clock_off(response: &Response, asked_at: Moment, answered_at: Moment) -> Finding {
    let date = response.headers().get(header::DATE).and_then(|value| value.to_str().ok());
    let parser = rfc2822::DateTimeParser::new().relaxed_weekday(true);
    let theirs = date.and_then(|text| parser.parse_timestamp(text.trim()).ok());
    let Some(theirs_ms) = theirs.and_then(|time| u64::try_from(time.as_millisecond()).ok()) else {
        return Finding::ok("clock", "not compared: the answer has no Date");
    };
    // It was made at some time between the two, and cut to the second.
    let ahead_ms = asked_at.wall_ms.saturating_sub(theirs_ms.saturating_add(1000));
    let behind_ms = theirs_ms.saturating_sub(answered_at.wall_ms);
    let off_ms = ahead_ms.max(behind_ms);
    if off_ms <= CLOCK_OFF_MAX_MS {
        return Finding::ok("clock", "agrees with the server's");
    }
    let side = if ahead_ms > behind_ms { "ahead of" } else { "behind" };
    let secs = off_ms / 1000;
    Finding::warning(
        "clock",
        format!("this machine's clock is {secs} s {side} the server's"),
        "let it be set by the network (timedatectl set-ntp true); certificates, the times of holes and \
         since= depend on it",
    )
}

/// Token and scope, by the status. Gives the stream back if it is one.
async fn judge(
    online: &Online,
    response: &mut Option<Response>,
    findings: &mut Vec<Finding>,
) -> Option<Response> {
    let answer = response.take()?;
    let status = answer.status();
    let host = particle::authority(&online.url);
    let is_particle = matches!(online.config.source, Source::Particle { .. });
    let path = online.url.path().to_owned();
    let header = |name: header::HeaderName| {
        let value = answer.headers().get(name).and_then(|value| value.to_str().ok());
        masked(online, value.unwrap_or_default())
    };
    if status == StatusCode::OK {
        let kind = header(header::CONTENT_TYPE);
        let essence = kind.split(';').next().unwrap_or_default().trim();
        let encoding = header(header::CONTENT_ENCODING);
        if !essence.eq_ignore_ascii_case("text/event-stream") {
            let text = format!("{host} answered with `{kind}` in place of text/event-stream");
            let remedy = "a login page or a proxy is in between, or upstream.url is no stream";
            findings.push(Finding::failed("stream", text, remedy));
            return None;
        }
        if !encoding.is_empty() && !encoding.eq_ignore_ascii_case("identity") {
            let text =
                format!("{host} sends the stream as `{encoding}`, though nobody asked for it");
            let remedy = "switch compression off in the proxy in between, for text/event-stream";
            findings.push(Finding::failed("stream", text, remedy));
            return None;
        }
        let token = match online.token {
            Some(_) => "is accepted",
            None => "none is sent, and none is asked for",
        };
        findings.push(Finding::ok("token", token));
        findings.push(Finding::ok("scope", format!("{path} may be read")));
        return Some(answer);
    }
    let retry_after = header(header::RETRY_AFTER);
    let location = header(header::LOCATION);
    let words = words(answer).await;
    let words = masked(online, &words);
    let said = if words.is_empty() { String::new() } else { format!(" ({words})") };
    let text = format!("{host} answered {}{said}", status.as_u16());
    let accepted = || Finding::ok("token", "is accepted");
    match status.as_u16() {
        401 => {
            let text = format!("{text}: it does not know this token; it has expired, was revoked, or is mistyped");
            findings.push(Finding::failed("token", text, token_remedy(online, is_particle)));
        }
        400 if online.token.is_none() => {
            findings.push(Finding::failed("token", text, token_remedy(online, is_particle)));
        }
        400 => findings.push(Finding::failed(
            "scope",
            format!("{text} to {path}"),
            "check upstream.scope and upstream.prefix; public events need a prefix",
        )),
        403 => {
            findings.push(accepted());
            findings.push(Finding::failed(
                "scope",
                format!("{text}: the token is good, but may not read {path}"),
                "check upstream.device, .product and .org, and whose token it is; for a product take a \
                 token of its team or an API user",
            ));
        }
        404 => {
            findings.push(accepted());
            findings.push(Finding::failed(
                "scope",
                format!("{text}: there is nothing at {path}"),
                "check upstream.scope, .product and .org, and upstream.url",
            ));
        }
        429 | 503 | 529 => {
            let wait = match retry_after.as_str() {
                "" => String::new(),
                told => format!(" (Retry-After: {told})"),
            };
            findings.push(Finding::failed(
                "limit",
                format!("{text}: it limits this address{wait}"),
                "wait, and find out what else behind this address opens streams; 100 in 5 minutes are allowed \
                 to all of it together",
            ));
        }
        300..=399 => findings.push(Finding::failed(
            "request",
            format!("{text} and points at {location}"),
            "redirects to other servers are not followed, so that the token stays here; if that is the \
             right address, set upstream.url to it",
        )),
        500..=599 => findings.push(Finding::failed(
            "request",
            text,
            "the server has trouble: see the cloud's status page, and try again later",
        )),
        _ => findings.push(Finding::failed("request", text, "a stream begins with 200; check upstream.url")),
    }
    None
}

fn token_remedy(online: &Online, is_particle: bool) -> String {
    let place = match &online.config.token {
        TokenSource::File(path) => format!("put it into {}", path.display()),
        TokenSource::Fixed(_) | TokenSource::None => {
            "set it as upstream.token_file, or as PARTICLE_ACCESS_TOKEN".to_owned()
        }
    };
    match is_particle {
        true => format!("make a new one (particle token create, or an API user), and {place}"),
        false => format!("get a valid one, and {place}"),
    }
}

/// The error text of a JSON body: Particle's fields.
async fn words(mut response: Response) -> String {
    let mut body = Vec::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.extend_from_slice(&chunk[..chunk.len().min(REFUSAL_BYTES_MAX - body.len())]);
            if body.len() == REFUSAL_BYTES_MAX {
                break;
            }
        }
    };
    // A body that does not come in time is used as far as it came.
    let _ = timeout(REFUSAL_TIMEOUT, read).await;
    let body: Value = serde_json::from_slice(&body).unwrap_or_default();
    let field = |name: &str| body[name].as_str().map(str::to_owned);
    let all = [field("error_description").or_else(|| field("error")), field("info")];
    let all: Vec<String> = all.into_iter().flatten().filter(|words| !words.is_empty()).collect();
    all.join(": ")
}

/// First bytes, and life.
async fn listen(
    online: &Online,
    mut response: Response,
    progress: &Progress,
    findings: &mut Vec<Finding>,
) {
    let host = particle::authority(&online.url);
    let since = Instant::now();
    progress.tell("waiting for the first bytes");
    let first = match timeout(FIRST_BYTES_TIMEOUT, response.chunk()).await {
        Ok(Ok(Some(_))) => since.elapsed(),
        Ok(ended) => {
            let why = match ended {
                Err(error) => chain(&error.without_url()),
                Ok(_) => "in good order".to_owned(),
            };
            let text = format!("{host} ended the stream before it said anything ({why})");
            let remedy = "try again; if it stays so, a proxy in between cuts streams";
            findings.push(Finding::failed("first-bytes", text, remedy));
            return;
        }
        Err(_) => {
            let text =
                format!("nothing came within {} s of the answer", FIRST_BYTES_TIMEOUT.as_secs());
            let remedy = "a proxy or firewall in between holds the stream back: go around it, or switch its \
                          buffering off";
            findings.push(Finding::failed("first-bytes", text, remedy));
            return;
        }
    };
    findings.push(Finding::ok("first-bytes", format!("after {} ms", first.as_millis())));
    let stale_after = online.config.stale_after;
    let quiet_since = Instant::now();
    let deadline = quiet_since + stale_after;
    let mut tick = tokio::time::interval(Duration::from_secs(1));
    let next = async {
        loop {
            tokio::select! {
                biased;
                chunk = response.chunk() => return chunk,
                _ = tick.tick() => progress.tell(&format!(
                    "waiting for a sign of life: {} of {} s",
                    quiet_since.elapsed().as_secs(),
                    stale_after.as_secs()
                )),
            }
        }
    };
    let finding = match timeout_at(deadline, next).await {
        Ok(Ok(Some(_))) => Finding::ok(
            "keep-alive",
            format!(
                "the stream lives: more came after {:.1} s, and upstream.stale_after allows {} s",
                quiet_since.elapsed().as_secs_f64(),
                stale_after.as_secs_f64()
            ),
        ),
        Ok(ended) => {
            let why = match ended {
                Err(error) => chain(&error.without_url()),
                Ok(_) => "in good order".to_owned(),
            };
            Finding::warning(
                "keep-alive",
                format!(
                    "the stream ended after {:.1} s ({why})",
                    quiet_since.elapsed().as_secs_f64()
                ),
                "once is the internet; if it happens each time, a proxy or firewall in between cuts it",
            )
        }
        Err(_) => Finding::failed(
            "keep-alive",
            format!("nothing more came for {} s", stale_after.as_secs_f64()),
            "the cloud sends a byte at least every 13 s: something in between holds bytes back, or \
             upstream.stale_after is too low",
        ),
    };
    findings.push(finding);
}

/// Somebody else's words: short, visible, and without the token.
fn masked(online: &Online, words: &str) -> String {
    let plain: String = words.chars().filter(|c| !c.is_control()).collect();
    // Masked after stripping, else a stripped character could join the token's halves.
    quoted(&online.token.as_ref().map_or_else(|| plain.clone(), |token| token.mask(&plain)))
}
