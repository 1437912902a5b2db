//! What a proxy does to a stream, from what was watched directly and through it. Pure.
//!
//! Law: only what was seen is said. What comes late through the proxy counts against the same
//! thing seen directly, so a slow machine or a quiet broker accuses nobody.

use std::time::Duration;

use super::{
    directives::{BUFFERING, COMPRESSION, CUT, HEADERS, HOST, INSIDE, REACH, RESUME, UPGRADE},
    finding::Finding,
    watch::Watched,
};

/// What comes so much later through the proxy was held back: far above any network, far below
/// what a buffer does.
const LATE: Duration = Duration::from_secs(2);

/// How a WebSocket fared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Upgraded {
    /// It opened and the hello came.
    Open,
    /// It opened, and nothing came.
    Mute,
    /// Refused as a page of another origin, by the broker.
    ForeignOrigin,
    /// Answered with a status that is no upgrade.
    Refused(u16),
    /// No answer.
    Failed(String),
}

/// Everything that was watched.
#[derive(Debug)]
pub(super) struct Seen {
    pub(super) direct: Watched,
    /// Through the proxy, as a program asks.
    pub(super) plain: Watched,
    /// Through the proxy, as a browser asks: compressed, if it likes.
    pub(super) browser: Watched,
    /// Through the proxy, with a `Last-Event-ID` before everything.
    pub(super) resumed: Watched,
    /// Through the proxy, as a browser asks, and over after an event.
    pub(super) short: Watched,
    /// Through the proxy, from a page of the proxy's own origin.
    pub(super) websocket: Upgraded,
    /// The same without an origin, where that one was refused.
    pub(super) websocket_of_program: Option<Upgraded>,
    /// Status of `/metrics` through the proxy.
    pub(super) metrics_status: Option<u16>,
    /// How long the streams were watched.
    pub(super) watched_for: Duration,
}

/// What is to be said about the proxy.
pub(super) fn judge(seen: &Seen) -> Vec<Finding> {
    let head = head(seen);
    let name = proxy(head);
    if let Some(finding) = unusable(head) {
        return vec![finding.of_proxy(name)];
    }
    let mut findings = vec![Finding::ok(
        "answer",
        match name {
            Some(name) => format!("a stream is there; the proxy says it is {name}"),
            None => "a stream is there".to_owned(),
        },
    )];
    findings.extend(same_broker(seen));
    findings.extend(headers(seen));
    findings.push(http(head));
    findings.push(compression(seen));
    findings.push(hello(seen));
    // Of a stream that did not begin there is nothing further to say.
    if seen.plain.hello.is_some() {
        findings.push(events(seen));
        findings.push(keepalives(seen));
    }
    if seen.plain.hello.is_some() || seen.plain.ended.is_some() {
        findings.push(cut(seen));
    }
    findings.push(resume(seen));
    findings.extend(websocket(seen));
    findings.push(inside(seen));
    findings.into_iter().map(|finding| finding.of_proxy(name)).collect()
}

/// The answer whose head is looked at. One that is held back has none, until its stream is over.
fn head(seen: &Seen) -> &Watched {
    match seen.plain.is_held {
        true if seen.resumed.head_at.is_some() => &seen.resumed,
        _ => &seen.plain,
    }
}

/// What the proxy calls itself.
fn proxy(plain: &Watched) -> Option<&'static str> {
    let server = format!("{} {}", plain.header("server"), plain.header("via")).to_lowercase();
    [("nginx", "nginx"), ("caddy", "Caddy"), ("haproxy", "HAProxy")]
        .into_iter()
        .find(|(word, _)| server.contains(word))
        .map(|(_, name)| name)
}

/// An answer that is no stream to compare with.
fn unusable(plain: &Watched) -> Option<Finding> {
    if plain.is_held {
        return Some(
            Finding::failed(
                "answer",
                "the proxy takes the request, and not even a head comes back in time: it holds the whole \
                 answer back, or does not reach the broker",
                "switch buffering off for streams, and see the proxy's log",
            )
            .with(&BUFFERING),
        );
    }
    if let Some(failure) = &plain.failure {
        return Some(Finding::failed(
            "answer",
            format!("the proxy does not answer ({failure})"),
            "check the address, its port and certificate, and that the proxy runs",
        ));
    }
    let status = plain.status;
    let page =
        if plain.header("content-type").starts_with("text/html") { " with a page" } else { "" };
    let text = format!("the proxy answered {status}{page}");
    if plain.is_stream() {
        return (plain.hello.is_none() && plain.bye_at.is_some()).then(|| {
            Finding::failed(
                "answer",
                "the stream is a goodbye and nothing else: the proxy speaks in the place of a broker it does \
                 not reach, or the broker is full",
                "check the broker's address in the proxy, and /status of the broker",
            )
            .with(&REACH)
        });
    }
    Some(match status {
        502..=504 => Finding::failed(
            "answer",
            format!("{text}: it does not reach the broker"),
            "check the broker's address in the proxy; browsers give up for good on this page, see the \
             settings for it in docs/operations.md",
        )
        .with(&REACH),
        401 | 403 | 407 => {
            Finding::failed("answer", format!("{text}: it lets nobody in unasked"), "give what it asks for with --header")
        }
        421 => Finding::failed(
            "answer",
            format!("{text}: the broker does not answer to the name that the proxy asks it by"),
            "list that name in server.hosts of the broker, and let the proxy pass the Host header on as it came",
        )
        .with(&HOST),
        404 => Finding::failed(
            "answer",
            format!("{text}: /events is not there"),
            "give the address below which the proxy serves the broker, path included",
        ),
        300..=399 => Finding::failed(
            "answer",
            format!("{text} and points at {}", plain.header("location")),
            "give that address, if it is the right one; EventSource follows, WebSockets do not",
        ),
        200 => Finding::failed(
            "content-type",
            format!(
                "the stream is declared as `{}` in place of text/event-stream: browsers refuse it",
                plain.header("content-type")
            ),
            "pass the header on as it comes",
        )
        .with(&HEADERS),
        _ => Finding::failed("answer", text, "the stream begins with 200; see the proxy's log"),
    })
}

fn same_broker(seen: &Seen) -> Option<Finding> {
    let (_, direct) = seen.direct.hello?;
    let (_, plain) = seen.plain.hello?;
    (direct.epoch != plain.epoch).then(|| {
        Finding::failed(
            "broker",
            "another broker than the one asked directly answers through the proxy (its epoch is another)",
            "give the address of the right one with --direct; events cannot be compared",
        )
    })
}

fn headers(seen: &Seen) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut changed = |name: &'static str, harm: &str| {
        let (direct, plain) = (seen.direct.header(name), head(seen).header(name));
        if direct == plain {
            return;
        }
        let what = match plain {
            "" => format!("{name}: {direct} is dropped"),
            plain => format!("{name} is `{plain}` in place of `{direct}`"),
        };
        let finding =
            Finding::warning("headers", format!("{what}: {harm}"), "pass it on as it comes");
        findings.push(finding.with(&HEADERS));
    };
    changed("content-type", "some clients look closely");
    changed("cache-control", "caches and further proxies may store or change the stream");
    // nginx takes it as meant for itself and passes it to nobody.
    if proxy(head(seen)) != Some("nginx") || !head(seen).header("x-accel-buffering").is_empty() {
        changed("x-accel-buffering", "an nginx further out would buffer");
    }
    if findings.is_empty() {
        findings
            .push(Finding::ok("headers", "content type and cache control come as they were sent"));
    }
    findings
}

fn http(plain: &Watched) -> Finding {
    if plain.is_http_1_0 {
        return Finding::warning(
            "http",
            "the proxy answers in HTTP/1.0: no WebSockets, and an end that cannot be told from a cut",
            "let it speak HTTP/1.1 or newer to clients",
        );
    }
    Finding::ok("http", "HTTP/1.1 or newer")
}

fn compression(seen: &Seen) -> Finding {
    let plain = head(seen).encoding();
    let browser = match seen.browser.encoding() {
        "" => seen.short.encoding(),
        encoding => encoding,
    };
    if !plain.is_empty() {
        let text = format!("the stream comes as `{plain}`, though nobody asked for it");
        return Finding::failed("compression", text, "switch it off for event streams")
            .with(&COMPRESSION);
    }
    if browser.is_empty() && seen.browser.is_held && seen.plain.head_at.is_some() {
        let text = format!(
            "asked as browsers ask, with Accept-Encoding, not even the head came in {:.0} s; without it, it \
             did: the proxy compresses the stream and holds all of it back",
            seen.watched_for.as_secs_f64()
        );
        return Finding::failed("compression", text, "switch it off for event streams")
            .with(&COMPRESSION);
    }
    if browser.is_empty() {
        return Finding::ok("compression", "none, as a browser asks too");
    }
    let harm = match (seen.browser.first_at, seen.plain.first_at) {
        (None, _) => format!(
            ", and nothing of it came in {:.0} s unless the stream ended",
            seen.watched_for.as_secs_f64()
        ),
        _ => ", which holds events back until a block is full".to_owned(),
    };
    let text = format!("browsers get the stream as `{browser}`{harm}");
    Finding::failed("compression", text, "switch it off for event streams").with(&COMPRESSION)
}

fn hello(seen: &Seen) -> Finding {
    let Some((direct, _)) = seen.direct.hello else {
        return Finding::failed("hello", "none came directly either", "check --direct");
    };
    let remedy = "switch buffering off for streams";
    match seen.plain.hello {
        None => Finding::failed(
            "hello",
            format!(
                "the first event did not come through in {:.0} s; directly it was there after {} ms: the \
                 proxy holds the stream back",
                seen.watched_for.as_secs_f64(),
                direct.as_millis()
            ),
            remedy,
        )
        .with(&BUFFERING),
        Some((plain, _)) if plain > direct + LATE => Finding::failed(
            "hello",
            format!(
                "the first event came through after {:.1} s, directly after {} ms: the proxy holds the \
                 stream back",
                plain.as_secs_f64(),
                direct.as_millis()
            ),
            remedy,
        )
        .with(&BUFFERING),
        Some((plain, _)) => Finding::ok("hello", format!("after {} ms", plain.as_millis())),
    }
}

fn events(seen: &Seen) -> Finding {
    // What came directly only at the end may still be on its way, and what came before the
    // proxy's stream began is not owed by it.
    let begun = seen.plain.hello.map(|(_, id)| id.seq.0);
    let end = seen.watched_for.saturating_sub(LATE);
    let owed = |seq: u64, at: Duration| begun.is_some_and(|begun| seq > begun) && at < end;
    let cut = seen.plain.ended.as_ref().map_or(Duration::MAX, |(at, _)| *at);
    let (mut count, mut missing, mut latest) = (0_u64, 0_u64, Duration::ZERO);
    let mut late = 0_u64;
    let mut arrivals: Vec<(Duration, Duration)> = Vec::new();
    for (seq, direct) in &seen.direct.events {
        if !owed(*seq, *direct) || *direct >= cut {
            continue;
        }
        count += 1;
        match seen.plain.events.get(seq) {
            None => missing += 1,
            Some(plain) => {
                let delay = plain.saturating_sub(*direct);
                latest = latest.max(delay);
                late += u64::from(delay > LATE);
                arrivals.push((*direct, *plain));
            }
        }
    }
    if count == 0 {
        return Finding::ok(
            "events",
            "none came meanwhile; judged by hello and keep-alives (fanlight demo has events)",
        );
    }
    if missing == 0 && late == 0 {
        return Finding::ok(
            "events",
            format!(
                "{count} came through, the slowest {} ms later than directly",
                latest.as_millis()
            ),
        );
    }
    let clump = largest_clump(&arrivals);
    let clumps = if clump > 1 { format!(", in clumps of up to {clump}") } else { String::new() };
    let text = format!(
        "of {count} events {late} came late, up to {:.1} s{clumps}, and {missing} not at all: the proxy \
         holds the stream back",
        latest.as_secs_f64()
    );
    Finding::failed("events", text, "switch buffering off for streams").with(&BUFFERING)
}

/// Most events that came through together though they had been apart.
fn largest_clump(arrivals: &[(Duration, Duration)]) -> usize {
    const TOGETHER: Duration = Duration::from_millis(50);
    let (mut largest, mut size) = (0, 1);
    for pair in arrivals.windows(2) {
        let apart = pair[1].0.saturating_sub(pair[0].0) > TOGETHER;
        let together = pair[1].1.saturating_sub(pair[0].1) <= TOGETHER;
        size = if apart && together { size + 1 } else { 1 };
        largest = largest.max(size);
    }
    largest
}

fn keepalives(seen: &Seen) -> Finding {
    let (direct, plain) = (seen.direct.keepalives, seen.plain.keepalives);
    if plain > 0 {
        return Finding::ok("keep-alive", "comes through");
    }
    let last = seen.plain.last_at.unwrap_or_default();
    let silence = seen.watched_for.saturating_sub(last);
    let is_over = seen.plain.ended.is_some();
    // Each stream draws its own times, 20 % either way: so one that came directly after 0.8 of
    // the setting may be due through the proxy after 1.2 of it.
    if direct > 0 && !is_over && silence > seen.direct.silence_max.mul_f64(1.5) + LATE {
        return Finding::failed(
            "keep-alive",
            format!(
                "none came through for {:.0} s, and {direct} did directly: the proxy holds back what is small",
                silence.as_secs_f64()
            ),
            "switch buffering off for streams",
        )
        .with(&BUFFERING);
    }
    let watched = seen.watched_for.as_secs_f64();
    if seen.plain.events.is_empty() {
        Finding::ok(
            "keep-alive",
            format!("none was due in {watched:.0} s; a longer --for shows one"),
        )
    } else {
        Finding::ok("keep-alive", "none was due: events came in time")
    }
}

fn cut(seen: &Seen) -> Finding {
    match (&seen.plain.ended, &seen.direct.ended) {
        (None, _) => Finding::ok(
            "cut",
            format!("the stream was open for all of {:.0} s", seen.watched_for.as_secs_f64()),
        ),
        (Some((at, how)), None) => Finding::failed(
            "cut",
            format!(
                "the proxy ended the stream after {:.1} s ({how}); directly it stayed open",
                at.as_secs_f64()
            ),
            "raise its timeouts well above stream.keepalive",
        )
        .with(&CUT),
        (Some((at, _)), Some(_)) => Finding::warning(
            "cut",
            format!("the broker itself ended the streams, after {:.1} s", at.as_secs_f64()),
            "ask again when it stays up",
        ),
    }
}

fn resume(seen: &Seen) -> Finding {
    match seen.resumed.hello {
        Some((_, id)) if id.seq.0 == 0 => Finding::ok("resume", "Last-Event-ID comes through"),
        Some((_, id)) => Finding::failed(
            "resume",
            format!("Last-Event-ID does not come through: the stream began at {id} and not where it was asked to"),
            "pass the request header on, or browsers lose what they missed and are not told",
        )
        .with(&RESUME),
        None => Finding::warning("resume", "not judged: the stream for it brought no hello", "see above"),
    }
}

fn websocket(seen: &Seen) -> Vec<Finding> {
    let blocked = |text: String| {
        let remedy = "pass Upgrade and Connection on, over HTTP/1.1; browsers have SSE besides";
        Finding::failed("websocket", text, remedy).with(&UPGRADE)
    };
    let told = |upgraded: &Upgraded| match upgraded {
        Upgraded::Open => Finding::ok("websocket", "opens, and its hello comes"),
        Upgraded::Mute => blocked("it opens, and nothing comes through".to_owned()),
        Upgraded::ForeignOrigin => {
            Finding::warning("websocket", "refused as a page of another origin", "see origin")
        }
        Upgraded::Refused(426) => {
            blocked("the proxy does not pass the upgrade on (the broker answered 426)".to_owned())
        }
        Upgraded::Refused(status) => blocked(format!("answered {status} in place of 101")),
        Upgraded::Failed(why) => blocked(format!("no answer ({why})")),
    };
    if seen.websocket != Upgraded::ForeignOrigin {
        let origin = (seen.websocket == Upgraded::Open)
            .then(|| Finding::ok("origin", "pages of the proxy's own origin may open /ws"));
        return [Some(told(&seen.websocket)), origin].into_iter().flatten().collect();
    }
    let origin = Finding::failed(
        "origin",
        "the proxy changes Host, so the broker refuses /ws to its own pages (403 foreign_origin)",
        "pass the Host header on as it came",
    );
    let program = seen.websocket_of_program.as_ref().map(told);
    [program, Some(origin.with(&HOST))].into_iter().flatten().collect()
}

fn inside(seen: &Seen) -> Finding {
    match seen.metrics_status {
        Some(200) => Finding::warning(
            "inside",
            "/metrics, and so most likely /status, is open to whoever reaches the proxy",
            "keep them for the inside",
        )
        .with(&INSIDE),
        _ => Finding::ok("inside", "/metrics is not shown through the proxy"),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::{
        cli::check::finding::State,
        model::{Epoch, Position, Seq},
    };

    fn secs(secs: f64) -> Duration {
        Duration::from_secs_f64(secs)
    }

    fn at(seq: u64) -> Position {
        Position { epoch: Epoch::from_bits(1), seq: Seq(seq) }
    }

    /// A stream without fault: an event each second, a keep-alive.
    fn good() -> Watched {
        let headers = [
            ("content-type", "text/event-stream"),
            ("cache-control", "no-store, no-transform"),
            ("x-accel-buffering", "no"),
        ];
        Watched {
            status: 200,
            headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
            head_at: Some(secs(0.01)),
            first_at: Some(secs(0.01)),
            last_at: Some(secs(28.0)),
            hello: Some((secs(0.01), at(4))),
            events: (5..30).map(|seq| (seq, secs(seq as f64 - 4.0))).collect(),
            keepalives: 1,
            ..Watched::default()
        }
    }

    fn seen() -> Seen {
        Seen {
            direct: good(),
            plain: good(),
            browser: good(),
            resumed: Watched { hello: Some((secs(0.02), at(0))), ..good() },
            short: good(),
            websocket: Upgraded::Open,
            websocket_of_program: None,
            metrics_status: Some(403),
            watched_for: secs(30.0),
        }
    }

    /// What is not ok, by its word.
    fn bad(seen: &Seen) -> Vec<(&'static str, State)> {
        let findings = judge(seen);
        for finding in findings.iter().filter(|finding| finding.state != State::Ok) {
            assert!(!finding.remedy.is_empty(), "{finding:?}");
        }
        let bad = findings.iter().filter(|finding| finding.state != State::Ok);
        bad.map(|finding| (finding.what, finding.state)).collect()
    }

    #[test]
    fn a_good_proxy_is_clean() {
        assert_eq!(bad(&seen()), []);
        let mut nginx = seen();
        nginx.plain.headers.insert("server".to_owned(), "nginx/1.22.1".to_owned());
        nginx.plain.headers.remove("x-accel-buffering");
        assert_eq!(bad(&nginx), []);
        // A broker without events, watched for less than a keep-alive takes.
        let mut quiet = seen();
        for one in [&mut quiet.direct, &mut quiet.plain, &mut quiet.browser] {
            (one.events, one.keepalives, one.last_at) = (BTreeMap::new(), 0, one.first_at);
        }
        quiet.direct.keepalives = 1;
        quiet.direct.silence_max = secs(25.0);
        assert_eq!(bad(&quiet), []);
    }

    #[test]
    fn what_is_held_back_is_named() {
        let mut never = seen();
        never.plain = Watched {
            hello: None,
            events: BTreeMap::new(),
            keepalives: 0,
            first_at: None,
            last_at: None,
            ..good()
        };
        assert_eq!(bad(&never), [("hello", State::Failed)]);
        let mut headless = seen();
        headless.plain = Watched { is_held: true, ..Watched::default() };
        assert_eq!(bad(&headless), [("hello", State::Failed)]);
        let mut clumps = seen();
        clumps.plain.events =
            (5..30).map(|seq| (seq, secs(((seq - 4) / 10 * 10 + 10) as f64))).collect();
        let mut unheard = seen();
        unheard.browser = Watched { is_held: true, ..Watched::default() };
        assert_eq!(bad(&unheard), [("compression", State::Failed)]);
        let finding = judge(&clumps).into_iter().find(|finding| finding.what == "events").unwrap();
        assert_eq!(finding.state, State::Failed);
        assert!(finding.text.contains("in clumps of up to 10"), "{}", finding.text);
        assert_eq!(finding.directives.len(), 3, "each proxy, since none is known");
        let mut deaf = seen();
        (deaf.plain.events, deaf.plain.keepalives) = (BTreeMap::new(), 0);
        deaf.plain.last_at = deaf.plain.first_at;
        deaf.direct.events = BTreeMap::new();
        deaf.direct.silence_max = secs(15.0);
        assert_eq!(bad(&deaf), [("keep-alive", State::Failed)]);
    }

    #[test]
    fn what_is_changed_is_named() {
        let mut changed = seen();
        changed.plain.headers.insert("cache-control".to_owned(), "max-age=60".to_owned());
        changed.plain.headers.remove("x-accel-buffering");
        changed.plain.is_http_1_0 = true;
        changed.browser.headers.insert("content-encoding".to_owned(), "gzip".to_owned());
        changed.plain.ended = Some((secs(29.0), "in good order".to_owned()));
        changed.resumed.hello = Some((secs(0.1), at(4)));
        changed.websocket = Upgraded::ForeignOrigin;
        changed.websocket_of_program = Some(Upgraded::Refused(426));
        changed.metrics_status = Some(200);
        let expected = [
            ("headers", State::Warning),
            ("headers", State::Warning),
            ("http", State::Warning),
            ("compression", State::Failed),
            ("cut", State::Failed),
            ("resume", State::Failed),
            ("websocket", State::Failed),
            ("origin", State::Failed),
            ("inside", State::Warning),
        ];
        assert_eq!(bad(&changed), expected);
    }

    #[test]
    fn an_answer_that_is_no_stream_is_named_alone() {
        let html = || [("content-type".to_owned(), "text/html".to_owned())].into();
        for (status, part) in [
            (502, "502 with a page: it does not reach the broker"),
            (403, "lets nobody in"),
            (404, "/events is not there"),
            (421, "does not answer to the name"),
            (301, "points at"),
            (200, "declared as `text/html`"),
            (500, "500"),
        ] {
            let plain = Watched { status, headers: html(), ..Watched::default() };
            let findings = judge(&Seen { plain, ..seen() });
            assert!(findings.len() == 1 && findings[0].text.contains(part), "{findings:?}");
        }
        let plain = Watched { failure: Some("refused".to_owned()), ..Watched::default() };
        assert!(judge(&Seen { plain, ..seen() })[0].text.contains("does not answer (refused)"));
        let plain = Watched { is_held: true, ..Watched::default() };
        let resumed = Watched::default();
        let findings = judge(&Seen { plain, resumed, ..seen() });
        assert!(
            findings.len() == 1 && findings[0].text.contains("not even a head"),
            "{findings:?}"
        );
        let plain = Watched { hello: None, bye_at: Some(secs(0.1)), ..good() };
        assert!(judge(&Seen { plain, ..seen() })[0].text.contains("a goodbye and nothing else"));
    }
}
