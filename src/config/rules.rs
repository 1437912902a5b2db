//! What settings ask of each other. Each rule names both sides, with values and origins.
//!
//! A rule that touches a setting with a problem of its own is left out: its answer would be a
//! guess, and a second message about the first mistake.

use url::{Host, Url};

use super::{
    layers::Draft,
    loaded::{Entry, Origin},
    problems::Problem,
    settings::{Settings, listed},
    value::{Parsed, Value},
};

/// The settings that say which of Particle's streams is meant.
const PARTS: &[&str] = &["upstream.device", "upstream.product", "upstream.org"];

/// What each scope needs. What is in [`PARTS`] and not needed is not allowed either.
const SCOPES: &[(&str, &[&str])] = &[
    ("mine", &[]),
    ("device", &["upstream.device"]),
    ("product", &["upstream.product"]),
    ("product-device", &["upstream.product", "upstream.device"]),
    ("org", &["upstream.org"]),
    ("public", &["upstream.prefix"]),
];

/// Pairs of which the first may not be greater than the second.
const ORDERED: &[(&str, &str)] =
    &[("upstream.backoff_min", "upstream.backoff_max"), ("stream.retry_min", "stream.retry_max")];

/// What needs the Particle cloud to pass things on to.
const PASSED_ON: &[&str] = &["publish.enabled", "publish.functions"];

/// All rules that are broken.
pub(super) fn check(draft: &Draft) -> Vec<Problem> {
    let mut problems = Vec::new();
    if draft.is_sure(&["upstream.source"]) {
        match draft.word("upstream.source") {
            "particle" => {
                scope(draft, &mut problems);
                problems.extend(token(draft));
            }
            "sse" => {
                problems.extend(address(draft));
                problems.extend(PASSED_ON.iter().filter_map(|name| nowhere(draft, name)));
            }
            _ => {}
        }
    }
    tokens(draft, &mut problems);
    problems.extend(nobody_trusted(draft));
    problems.extend(ORDERED.iter().filter_map(|(low, high)| order(draft, low, high)));
    problems
}

fn scope(draft: &Draft, problems: &mut Vec<Problem>) {
    const NAME: &str = "upstream.scope";
    if !draft.is_sure(&[NAME]) {
        return;
    }
    let scope = draft.word(NAME);
    let needs = SCOPES.iter().find(|(word, _)| *word == scope).map_or(&[][..], |(_, needs)| needs);
    for need in needs.iter().filter(|need| draft.is_sure(&[need]) && !draft.has(need)) {
        let fault = format!("{} needs {need}", draft.shown(NAME));
        problems.push(Problem::new(fault, set(need)).allowed(scopes_in_words()));
    }
    let surplus = |part: &&&str| draft.is_sure(&[part]) && draft.has(part) && !needs.contains(part);
    for part in PARTS.iter().filter(surplus) {
        let scopes: Vec<&str> = SCOPES
            .iter()
            .filter(|(_, needs)| needs.contains(part))
            .map(|(word, _)| *word)
            .collect();
        let fault = format!("{} is of no use to {}", draft.shown(part), draft.shown(NAME));
        let remedy = format!("remove {part}, or set {NAME} to {}", listed(&scopes));
        problems.push(Problem::new(fault, remedy).allowed(scopes_in_words()));
    }
}

/// With nobody to be believed, no connection would be served.
fn nobody_trusted(draft: &Draft) -> Option<Problem> {
    const PROXY_PROTOCOL: &str = "server.proxy_protocol";
    const TRUSTED: &str = "server.trusted_proxies";
    if !draft.is_sure(&[PROXY_PROTOCOL, TRUSTED])
        || draft.word(PROXY_PROTOCOL) != "on"
        || matches!(draft.value(TRUSTED), Some(Value::List(networks)) if !networks.is_empty())
    {
        return None;
    }
    let fault = format!("{} needs {TRUSTED}", draft.shown(PROXY_PROTOCOL));
    let allowed = format!("the networks that the proxy connects from, in {TRUSTED}");
    Some(Problem::new(fault, set(TRUSTED)).allowed(allowed))
}

fn token(draft: &Draft) -> Option<Problem> {
    let names = ["upstream.token", "upstream.token_file", "upstream.url"];
    let is_simulator =
        matches!(draft.value("upstream.url"), Some(Value::Url(url)) if is_local(url));
    if !draft.is_sure(&names) || draft.has(names[0]) || draft.has(names[1]) || is_simulator {
        return None;
    }
    let fault = format!("{} needs {} or {}", draft.shown("upstream.source"), names[1], names[0]);
    let remedy = "set PARTICLE_ACCESS_TOKEN, or put the token into a file and name it in \
                  upstream.token_file; `particle token create` makes a token, and `fanlight demo` \
                  needs none";
    let allowed = "one of the two; none where upstream.url is http on this machine, as with \
                   `fanlight simulate`";
    Some(Problem::new(fault, remedy).allowed(allowed))
}

fn address(draft: &Draft) -> Option<Problem> {
    const NAME: &str = "upstream.url";
    if !draft.is_sure(&[NAME]) || draft.entries.get(NAME).is_some_and(Entry::is_given) {
        return None;
    }
    let fault = format!("{} needs {NAME}", draft.shown("upstream.source"));
    Some(Problem::new(fault, set(NAME)).allowed("the address of the event stream to read"))
}

fn nowhere(draft: &Draft, name: &str) -> Option<Problem> {
    if !draft.is_sure(&[name]) || !matches!(draft.value(name), Some(Value::Switch(true))) {
        return None;
    }
    let source = "upstream.source";
    let fault = format!("{} is of no use to {}", draft.shown(name), draft.shown(source));
    let remedy = format!("remove {name}, or set {source} to particle");
    let allowed = "with source particle or demo: an event stream has nowhere to publish to";
    Some(Problem::new(fault, remedy).allowed(allowed))
}

/// Tokens of others: keys from one place, an audience with them, and nothing else without keys.
fn tokens(draft: &Draft, problems: &mut Vec<Problem>) {
    let [file, url] = ["access.jwt_keys_file", "access.jwt_jwks_url"];
    let [audience, issuer] = ["access.jwt_audience", "access.jwt_issuer"];
    if !draft.is_sure(&[file, url, audience, issuer]) {
        return;
    }
    match (draft.has(file), draft.has(url)) {
        (true, true) => {
            let fault = format!("{} excludes {}", draft.shown(file), draft.shown(url));
            let problem = Problem::new(fault, "remove one of them".to_owned());
            problems.push(problem.allowed("one place where the keys are".to_owned()));
        }
        (false, false) => {
            for name in [audience, issuer].into_iter().filter(|name| draft.has(name)) {
                let fault = format!("{} is of no use without keys", draft.shown(name));
                let remedy = format!("remove it, or {} or {url}", set(file));
                let allowed = "with access.jwt_keys_file or access.jwt_jwks_url";
                problems.push(Problem::new(fault, remedy).allowed(allowed));
            }
        }
        (has_file, _) if !draft.has(audience) => {
            let keys = draft.shown(if has_file { file } else { url });
            let allowed = "the name of this broker among those that the tokens are for";
            problems.push(
                Problem::new(format!("{keys} needs {audience}"), set(audience)).allowed(allowed),
            );
        }
        _ => {}
    }
    if let Some(Value::Url(address)) = draft.value(url)
        && address.scheme() != "https"
        && !is_local(address)
    {
        let fault = format!("{} is not safe from those in between", draft.shown(url));
        let remedy = "use https".to_owned();
        let allowed = "https, or http on this machine";
        problems.push(Problem::new(fault, remedy).allowed(allowed));
    }
}

fn order(draft: &Draft, low: &str, high: &str) -> Option<Problem> {
    let (Some(Value::Duration(low_value)), Some(Value::Duration(high_value))) =
        (draft.value(low), draft.value(high))
    else {
        return None;
    };
    if !draft.is_sure(&[low, high]) || low_value <= high_value {
        return None;
    }
    let fault = format!("{} is more than {}", draft.shown(low), draft.shown(high));
    let remedy = "lower the first or raise the second".to_owned();
    Some(Problem::new(fault, remedy).allowed(format!("{low} up to {high}")))
}

impl Draft {
    fn value(&self, name: &str) -> Option<&Value> {
        self.entries.get(name)?.parsed.as_ref().map(|parsed| &parsed.value)
    }

    fn has(&self, name: &str) -> bool {
        self.value(name).is_some()
    }

    fn word(&self, name: &str) -> &'static str {
        match self.value(name) {
            Some(Value::Choice(word)) => word,
            _ => "",
        }
    }

    /// `upstream.scope = "device" (flag --upstream-scope)`.
    fn shown(&self, name: &str) -> String {
        match self.entries.get(name) {
            Some(Entry { parsed: Some(Parsed { literal, .. }), origin }) => {
                format!("{name} = {literal} ({origin})")
            }
            _ => name.to_owned(),
        }
    }
}

impl Entry {
    fn is_given(&self) -> bool {
        !matches!(self.origin, Origin::Default | Origin::Derived(_))
    }
}

/// Plain http that stays on this machine: the simulator, which wants no token.
fn is_local(url: &Url) -> bool {
    let is_loopback = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    url.scheme() == "http" && is_loopback
}

fn set(name: &str) -> String {
    match Settings::find(name) {
        Some(setting) => format!("set {}", setting.forms()),
        None => format!("set {name}"),
    }
}

fn scopes_in_words() -> String {
    let words: Vec<String> = SCOPES
        .iter()
        .map(|(scope, needs)| match needs {
            [] => format!("{scope} alone"),
            _ => {
                let keys: Vec<&str> =
                    needs.iter().map(|need| need.trim_start_matches("upstream.")).collect();
                format!("{scope} with {}", keys.join(" and "))
            }
        })
        .collect();
    words.join("; ")
}
