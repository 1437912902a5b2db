//! Any `Host`: what is answered is an address, a name that nobody can own, or one that was listed.

use std::net::{Ipv4Addr, Ipv6Addr};

use fanlight::server::Hosts;
use http::StatusCode;

use super::numbers;

/// What an operator lists.
const LISTED: [&str; 3] = ["events.example.org", "*.lan.example", "ai"];

pub(super) fn host(input: &[u8]) {
    let Some(([lists], host)) = numbers(input) else { return };
    let listed: &[&str] = if lists % 2 == 0 { &[] } else { &LISTED };
    let status = Hosts::new(listed.iter().copied()).judge_status(host);
    assert_eq!(status, naive(listed, host), "{:?}", String::from_utf8_lossy(host));
    // A star is for names, not for what is none.
    let of_any = Hosts::new(["*"]).judge_status(host);
    assert_eq!(of_any == StatusCode::BAD_REQUEST, status == StatusCode::BAD_REQUEST);
    assert_ne!(of_any, StatusCode::MISDIRECTED_REQUEST);
}

/// The rule of docs/configuration.md, put in terms of text alone.
fn naive(listed: &[&str], host: &[u8]) -> StatusCode {
    let Ok(text) = std::str::from_utf8(host) else { return StatusCode::BAD_REQUEST };
    let text = text.to_ascii_lowercase();
    // The port goes: digits after the last colon that no bracket follows.
    let (name, port) = match text.rfind(':') {
        Some(at) if !text[at..].contains(']') => (&text[..at], &text[at + 1..]),
        _ => (&text[..], ""),
    };
    if port.len() > 5 || port.chars().any(|c| !c.is_ascii_digit()) {
        return StatusCode::BAD_REQUEST;
    }
    if name.starts_with('[') && name.ends_with(']') {
        let is_address = name[1..name.len() - 1].parse::<Ipv6Addr>().is_ok();
        return if is_address { StatusCode::OK } else { StatusCode::BAD_REQUEST };
    }
    if name.parse::<Ipv4Addr>().is_ok() {
        return StatusCode::OK;
    }
    let labels: Vec<&str> = name.strip_suffix('.').unwrap_or(name).split('.').collect();
    let letters = "abcdefghijklmnopqrstuvwxyz0123456789-_";
    let is_label = |label: &&str| !label.is_empty() && label.chars().all(|c| letters.contains(c));
    if !labels.iter().all(is_label) || labels.join(".").len() > 253 {
        return StatusCode::BAD_REQUEST;
    }
    let is_listed = listed.iter().any(|listed| match listed.strip_prefix("*.") {
        Some(parent) => labels.len() > 1 && labels[1..].join(".") == parent,
        None => labels.join(".") == *listed,
    });
    let is_nobodys =
        labels.last() == Some(&"localhost") || (labels.len() == 1 && !name.ends_with('.'));
    if is_listed || is_nobodys { StatusCode::OK } else { StatusCode::MISDIRECTED_REQUEST }
}
