//! The values of a list: what each may be.
//!
//! Law: a list is one text in every layer, its values separated by commas, so that the flag, the
//! variable and the file say the same; an array in the file is that text in another dress. Hence no
//! value holds a comma.

use std::net::IpAddr;

use url::{Host, Url};

use crate::edge::network::Network;

use super::{
    parse::Fault,
    value::{cut, toml_string},
};

/// What the values of a list are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Text without control characters and commas, not empty.
    Text {
        /// Longest allowed, in bytes of UTF-8.
        bytes_max: usize,
    },
    /// The name of a host, without port. `*.` in front stands for one label; `*` alone for any name.
    Host,
    /// The origin of a web page: scheme, host, and port unless it is the scheme's own.
    Origin,
    /// IP addresses that begin alike, or one.
    Network,
}

impl Element {
    /// What the values are, in a few words, after their number.
    pub(super) fn bounds(self) -> String {
        match self {
            Element::Host => "names".to_owned(),
            Element::Origin => "origins".to_owned(),
            Element::Network => "networks".to_owned(),
            Element::Text { bytes_max } => format!("texts of 1 to {bytes_max} bytes"),
        }
    }

    /// One of them in full, for a message.
    pub(super) fn allowed(self) -> String {
        match self {
            Element::Host => {
                "a name without port, such as events.example.org or *.example.org; or * alone, for any"
                    .to_owned()
            }
            Element::Origin => {
                "scheme and host, and port where it is not the scheme's own, such as \
                 https://app.example.org or http://localhost:3000"
                    .to_owned()
            }
            Element::Network => {
                "a network, such as 10.0.0.0/8 or 2001:db8::/32, or one address".to_owned()
            }
            Element::Text { bytes_max } => {
                format!("1 to {bytes_max} bytes without control characters and commas")
            }
        }
    }

    /// The value in its canonical form, or what is wrong with it, to be read after the value.
    fn parse(self, text: &str) -> Result<String, Fault> {
        match self {
            Element::Host => host(text),
            Element::Origin => origin(text),
            Element::Network => text
                .parse::<Network>()
                .map(|network| network.to_string())
                .map_err(|fault| Fault::new(fault.to_string())),
            Element::Text { bytes_max } if text.len() > bytes_max => {
                Err(Fault::new(format!("which is {} bytes long", text.len())))
            }
            Element::Text { .. } if text.chars().any(char::is_control) => {
                Err(Fault::new("which contains a control character"))
            }
            Element::Text { .. } => Ok(text.to_owned()),
        }
    }
}

/// Takes a list apart. Nothing at all is a list without values; spaces around values do not count.
pub(super) fn parse_list(
    element: Element,
    count_max: usize,
    text: &str,
) -> Result<Vec<String>, Fault> {
    if text.trim().is_empty() {
        return Ok(Vec::new());
    }
    let values = text.split(',').map(str::trim);
    let count = values.clone().count();
    if count > count_max {
        return Err(Fault::new(format!("has {count} values")));
    }
    let parse = |value: &str| match value {
        "" => Err(Fault::with_remedy("has a value of no characters", "take out a comma")),
        _ => element.parse(value).map_err(|fault| Fault {
            what: format!("has {}, {}", toml_string(&cut(value)), fault.what),
            remedy: fault.remedy,
        }),
    };
    let values: Vec<String> = values.map(parse).collect::<Result<_, _>>()?;
    if element == Element::Host && values.len() > 1 && values.iter().any(|value| value == "*") {
        return Err(Fault::with_remedy(
            "has \"*\" and other values",
            "write \"*\" alone for any name, or take it out",
        ));
    }
    Ok(values)
}

/// The name as browsers send it: lower case, and international ones in their ASCII form.
fn host(text: &str) -> Result<String, Fault> {
    if text == "*" {
        return Ok(text.to_owned());
    }
    let (star, name) = match text.strip_prefix("*.") {
        Some(name) => ("*.", name),
        None => ("", text),
    };
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.contains('/') {
        return Err(Fault::with_remedy("which is no name", "write the name alone"));
    }
    if name.parse::<IpAddr>().is_ok() || name.starts_with('[') {
        let remedy = "take it out: by an address the broker can be asked in any case";
        return Err(Fault::with_remedy("which is an address", remedy));
    }
    if name.contains(':') {
        return Err(Fault::with_remedy("which has a port", "take the port out: all are meant"));
    }
    if name.contains('*') {
        let remedy = "write * for the first label alone, as in *.example.org";
        return Err(Fault::with_remedy("which has a star inside", remedy));
    }
    match Host::parse(name) {
        Ok(Host::Domain(name)) if name.len() <= 253 => Ok(format!("{star}{name}")),
        Ok(_) | Err(_) => Err(Fault::new("which is no name of a host")),
    }
}

/// The origin as browsers send it: lower case, international names in their ASCII form, and
/// without a port that is the scheme's own.
fn origin(text: &str) -> Result<String, Fault> {
    let no_origin = || Fault::new("which is no origin");
    match text {
        "null" => {
            let what = "which is the origin of every page that has none of its own";
            return Err(Fault::with_remedy(what, "serve the page from somewhere"));
        }
        _ if text.contains('*') => {
            let remedy = "name each origin; particle.cors opens the streams below /v1 to all";
            return Err(Fault::with_remedy("which has a star", remedy));
        }
        _ => {}
    }
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(Fault::with_remedy("which has no scheme", format!("write https://{text}")));
    };
    if rest.contains(['/', '?', '#']) {
        return Err(Fault::with_remedy("which has a path", "end it with the host or its port"));
    }
    if rest.contains(['@', '\\']) {
        return Err(no_origin());
    }
    let scheme = scheme.to_ascii_lowercase();
    if matches!(scheme.as_str(), "http" | "https") {
        let url = Url::parse(&format!("{scheme}://{rest}/")).map_err(|_| no_origin())?;
        return Ok(url.origin().ascii_serialization());
    }
    // Those of apps and of extensions, which browsers send as they are.
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c))
        && !matches!(scheme.as_str(), "about" | "blob" | "data" | "file" | "javascript");
    let is_host =
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_alphanumeric() || "-._:".contains(c));
    if is_scheme && is_host { Ok(format!("{scheme}://{rest}")) } else { Err(no_origin()) }
}

/// The list as an array of a configuration file.
pub(super) fn toml_array(values: &[String]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| toml_string(value)).collect();
    format!("[{}]", quoted.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: Element = Element::Text { bytes_max: 4 };

    fn fault(text: &str) -> String {
        match parse_list(TEXT, 3, text) {
            Ok(values) => panic!("{text:?} was read as {values:?}"),
            Err(Fault { what, remedy: Some(remedy) }) => format!("{what}; {remedy}"),
            Err(Fault { what, remedy: None }) => what,
        }
    }

    #[test]
    fn values_are_separated_by_commas() {
        let list = |text| parse_list(TEXT, 3, text).unwrap();
        assert_eq!(list("a"), ["a"]);
        assert_eq!(list(" a, b ,c\t"), ["a", "b", "c"]);
        assert!(list("").is_empty() && list("  ").is_empty());
    }

    #[test]
    fn hosts_are_read_as_browsers_send_them() {
        let list = |text| parse_list(Element::Host, 9, text).unwrap();
        assert_eq!(
            list("Events.Example.ORG., *.Lan.example"),
            ["events.example.org", "*.lan.example"]
        );
        assert_eq!(list("bücher.example"), ["xn--bcher-kva.example"]);
        assert_eq!(list("fanlight,*.local"), ["fanlight", "*.local"]);
        assert_eq!(list("*"), ["*"]);
        for (text, part) in [
            ("https://a.example", "no name; write the name alone"),
            ("127.0.0.1", "an address; take it out"),
            ("::1", "an address"),
            ("[::1]:80", "an address"),
            ("a.example:80", "has a port; take the port out"),
            ("a.*.example", "a star inside"),
            ("a*.example", "a star inside"),
            ("*.", "no name of a host"),
            ("a b", "no name of a host"),
            ("2130706433", "no name of a host"),
            ("*,a.example", "and other values; write \"*\" alone"),
        ] {
            let Err(Fault { what, remedy }) = parse_list(Element::Host, 9, text) else {
                panic!("{text}");
            };
            let fault = format!("{what}; {}", remedy.unwrap_or_default());
            assert!(fault.contains(part), "{fault}");
        }
    }

    #[test]
    fn origins_are_read_as_browsers_send_them() {
        let list = |text| parse_list(Element::Origin, 9, text).unwrap();
        for (text, origin) in [
            ("https://app.example.org", "https://app.example.org"),
            ("HTTPS://App.Example.org:443", "https://app.example.org"),
            ("http://localhost:3000", "http://localhost:3000"),
            ("http://a.example:80", "http://a.example"),
            ("https://bücher.example", "https://xn--bcher-kva.example"),
            ("http://[2001:0DB8::1]:8080", "http://[2001:db8::1]:8080"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ] {
            assert_eq!(list(text), [origin], "{text}");
        }
        for (text, part) in [
            ("null", "every page that has none"),
            ("*", "has a star; name each origin"),
            ("https://*.example.org", "has a star"),
            ("app.example.org", "no scheme; write https://app.example.org"),
            ("https://a.example/", "has a path"),
            ("https://a.example?x", "has a path"),
            ("https://u@a.example", "no origin"),
            ("https://", "no origin"),
            ("https://a.example:99999", "no origin"),
            ("file://", "no origin"),
            ("file://x", "no origin"),
            ("1a://x", "no origin"),
        ] {
            let Err(Fault { what, remedy }) = parse_list(Element::Origin, 9, text) else {
                panic!("{text}");
            };
            let fault = format!("{what}; {}", remedy.unwrap_or_default());
            assert!(fault.contains(part), "{fault}");
        }
    }

    #[test]
    fn a_fault_names_the_value() {
        assert_eq!(fault("a,,b"), "has a value of no characters; take out a comma");
        assert_eq!(fault("a,"), "has a value of no characters; take out a comma");
        assert_eq!(fault("a,bcdef"), "has \"bcdef\", which is 5 bytes long");
        assert_eq!(fault("\u{1b}"), "has \"\\u001B\", which contains a control character");
        assert_eq!(fault("a,b,c,d"), "has 4 values");
    }
}
