//! Addresses that `fanlight bench` is given, and whether what is asked for fits this machine.
//!
//! Law: what cannot work is refused before anything is opened, with what to do instead.

use std::{
    net::{IpAddr, SocketAddr, TcpStream, ToSocketAddrs as _},
    time::Duration,
};

use url::Url;

use crate::{cli::Failure, server::open_files_max};

/// For one connection to see whether anybody is there.
const PROBE_TIMEOUT: Duration = Duration::from_secs(5);
/// Open files beside the subscribers.
const OTHER_FILES: usize = 64;
/// Linux's default range, where the system does not say.
const PORTS_DEFAULT: usize = 28_232;

/// An `http` address.
pub(super) fn parse_http(text: &str) -> Result<Url, String> {
    let url =
        Url::parse(text).map_err(|error| format!("{error}; such as http://127.0.0.1:8080"))?;
    match url.scheme() {
        "http" if url.has_host() => Ok(url),
        "https" | "wss" => {
            Err("https is not spoken here: name the broker's own http address, behind the proxy"
                .to_owned())
        }
        _ => Err("an http address is needed, such as http://127.0.0.1:8080".to_owned()),
    }
}

/// The `Host` header for an address.
pub(super) fn host(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Where an address leads: the first of its socket addresses at which somebody listens.
/// `family` is that of the sources, where they are given.
pub(super) fn reach(url: &Url, family: Option<IpAddr>) -> Result<SocketAddr, Failure> {
    let port = url.port_or_known_default().unwrap_or(80);
    let name = url.host_str().unwrap_or_default();
    let failed = |reason: &str| {
        let shown = host(url);
        Failure::Failed(anyhow::anyhow!("cannot connect to {shown}: {reason}; does it run there?"))
    };
    // An IPv6 address stands in brackets.
    let found = (name.trim_matches(['[', ']']), port).to_socket_addrs();
    let found = found.map_err(|error| failed(&error.to_string()))?;
    let mut reason = "no address of the same kind as --source".to_owned();
    for target in found.filter(|target| family.is_none_or(|ip| ip.is_ipv4() == target.is_ipv4())) {
        match TcpStream::connect_timeout(&target, PROBE_TIMEOUT) {
            Ok(_) => return Ok(target),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(failed(&reason))
}

/// Refuses more subscribers than this process can have files, or its addresses ports.
pub(super) fn fits(subscribers: usize, sources: usize) -> Result<(), Failure> {
    let (needed, allowed) = (subscribers + OTHER_FILES, open_files_max());
    if needed > allowed {
        return Err(Failure::Usage(format!(
            "--subscribers {subscribers} needs {needed} open files, and this process may have {allowed}: raise \
             its hard limit (ulimit -Hn {needed} as root; LimitNOFILE={needed} in systemd), or ask for at \
             most {}",
            allowed.saturating_sub(OTHER_FILES)
        )));
    }
    let ports = ports();
    let enough = subscribers.div_ceil(ports.max(1));
    if enough > sources.max(1) {
        return Err(Failure::Usage(format!(
            "--subscribers {subscribers} is more than one source address has ports ({ports}): give {enough} \
             addresses of this machine, each with --source; on loopback 127.0.0.1, 127.0.0.2 and so on"
        )));
    }
    Ok(())
}

/// The ports that the system gives to connections of one source address.
fn ports() -> usize {
    let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range");
    let range = text.ok().and_then(|text| {
        let mut bounds = text.split_whitespace().map(str::parse::<usize>);
        let (first, last) = (bounds.next()?.ok()?, bounds.next()?.ok()?);
        Some((last + 1).saturating_sub(first))
    });
    range.unwrap_or(PORTS_DEFAULT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_http() {
        assert_eq!(host(&parse_http("http://localhost:8080/x").unwrap()), "localhost:8080");
        assert_eq!(host(&parse_http("http://[::1]").unwrap()), "[::1]");
        assert!(parse_http("https://example.org").unwrap_err().contains("https is not spoken"));
        for wrong in ["", "localhost:8080", "ftp://x", "127.0.0.1:8080"] {
            assert!(parse_http(wrong).unwrap_err().contains("http://127.0.0.1:8080"), "{wrong}");
        }
    }

    #[test]
    fn what_does_not_fit_is_told_with_the_remedy() {
        let refused = |subscribers, sources| fits(subscribers, sources).unwrap_err().to_string();
        assert!(fits(1, 0).is_ok());
        let files = refused(1 << 40, 0);
        assert!(files.contains("open files") && files.contains("ulimit -Hn"), "{files}");
    }
}
