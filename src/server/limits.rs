//! How many connections there may be.
//!
//! Law: a connection over a limit is still answered, so that a browser learns when to
//! come back; only what is over the reserve for such answers is closed unheard.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use dashmap::DashMap;

use crate::telemetry::{Limit, Telemetry};

/// How many connections there may be.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Connections that are served.
    pub connections_max: usize,
    /// Connections of one address that are served (IPv6: of one /64); none for no
    /// limit of its own.
    pub connections_per_ip_max: Option<usize>,
}

/// Connections over the limit that are answered at the same time: a twentieth, and
/// enough for health checks and metrics on small brokers.
fn reserve(connections_max: usize) -> usize {
    (connections_max / 20).max(64)
}

/// Counts connections.
#[derive(Debug)]
pub(super) struct Connections {
    config: Config,
    open: AtomicUsize,
    is_memory_short: AtomicBool,
    per_address: DashMap<IpAddr, usize>,
    telemetry: Arc<Telemetry>,
}

/// What a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admission {
    /// Everything.
    Admitted,
    /// Be told that the broker is full.
    Full,
    /// Be told that its address has too many.
    TooMany,
    /// Be told that there is no memory for it.
    MemoryShort,
}

/// A place taken; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Permit {
    connections: Arc<Connections>,
    address: IpAddr,
}

impl Connections {
    /// No connection yet.
    pub(super) fn new(config: Config, telemetry: Arc<Telemetry>) -> Connections {
        Connections {
            config,
            open: AtomicUsize::new(0),
            is_memory_short: AtomicBool::new(false),
            per_address: DashMap::new(),
            telemetry,
        }
    }

    /// A place for a connection of `address`; none if even the reserve is used up.
    pub(super) fn admit(self: &Arc<Self>, address: IpAddr) -> Option<(Admission, Permit)> {
        let address = counted_as(address);
        let max = self.config.connections_max;
        let open = self.open.fetch_add(1, Ordering::Relaxed) + 1;
        let of_address = {
            let mut count = self.per_address.entry(address).or_insert(0);
            *count += 1;
            *count
        };
        let permit = Permit { connections: self.clone(), address };
        self.telemetry.connections.increment(1);
        self.telemetry.connections_accepted.increment(1);
        let of_address_max = self.config.connections_per_ip_max;
        // Without this bound the refusals of one address would use up everyone's places.
        let is_flood = of_address_max.is_some_and(|max| of_address > max + reserve(max));
        if open > max + reserve(max) || is_flood {
            self.telemetry.limit_reached(Limit::Accept);
            return None;
        }
        if open > max {
            self.telemetry.limit_reached(Limit::Connections);
            return Some((Admission::Full, permit));
        }
        if of_address_max.is_some_and(|max| of_address > max) {
            self.telemetry.limit_reached(Limit::ConnectionsPerIp);
            return Some((Admission::TooMany, permit));
        }
        if self.is_memory_short.load(Ordering::Relaxed) {
            self.telemetry.limit_reached(Limit::Memory);
            return Some((Admission::MemoryShort, permit));
        }
        Some((Admission::Admitted, permit))
    }

    /// Whether there is memory for new connections.
    pub(super) fn memory_is_short(&self, is_short: bool) {
        self.is_memory_short.store(is_short, Ordering::Relaxed);
    }

    /// Connections open now.
    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Where limits that are reached are counted.
    pub(super) fn telemetry(&self) -> &Arc<Telemetry> {
        &self.telemetry
    }

    /// The limits.
    pub(super) fn config(&self) -> Config {
        self.config
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let Permit { connections, address } = self;
        connections.open.fetch_sub(1, Ordering::Relaxed);
        connections.telemetry.connections.decrement(1);
        if let Some(mut count) = connections.per_address.get_mut(address) {
            *count -= 1;
        }
        connections.per_address.remove_if(address, |_, count| *count == 0);
    }
}

/// An IPv4 address in IPv6 clothes counts as itself; an IPv6 subscriber usually owns a
/// whole /64, so that counts as one.
pub(super) fn counted_as(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let network = u128::from(address) & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from(network))
        }
        v4 => v4,
    }
}

/// Connections to allow where none are configured: nine tenths of the open files
/// allowed, less 256 for everything else, so that the upstream always finds one.
pub fn connections_max_auto() -> usize {
    (open_files_max() / 10 * 9).saturating_sub(256).max(16)
}

/// The open files this process may have, after raising the soft limit to the hard one.
pub fn open_files_max() -> usize {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    // The soft limit is a default of 1980; the hard one is what the operator allows.
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let files = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    files.and_then(|files| usize::try_from(files).ok()).unwrap_or(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connections(
        connections_max: usize,
        connections_per_ip_max: Option<usize>,
    ) -> Arc<Connections> {
        let config = Config { connections_max, connections_per_ip_max };
        Arc::new(Connections::new(config, Arc::new(Telemetry::new())))
    }

    #[test]
    fn over_the_limit_there_is_a_reserve_for_answers() {
        let connections = connections(2, None);
        let address = IpAddr::from([127, 0, 0, 1]);
        let mut permits = Vec::new();
        for number in 1..=66 {
            let (admission, permit) = connections.admit(address).unwrap();
            assert_eq!(admission == Admission::Admitted, number <= 2);
            permits.push(permit);
        }
        assert!(connections.admit(address).is_none());
        assert_eq!(connections.open(), 66);
        permits.clear();
        assert_eq!(connections.open(), 0);
        assert!(connections.per_address.is_empty());
        assert_eq!(connections.admit(address).unwrap().0, Admission::Admitted);
    }

    #[test]
    fn one_address() {
        let connections = connections(100, Some(1));
        let admit = |text: &str| connections.admit(text.parse().unwrap()).unwrap();
        let (first, _kept) = admit("2001:db8::1");
        assert_eq!(first, Admission::Admitted);
        assert_eq!(admit("2001:db8::2").0, Admission::TooMany, "the same /64");
        assert_eq!(admit("2001:db8:0:1::1").0, Admission::Admitted);
        let (v4, _kept) = admit("192.0.2.1");
        assert_eq!(v4, Admission::Admitted);
        assert_eq!(admit("::ffff:192.0.2.1").0, Admission::TooMany);
        assert_eq!(admit("::ffff:192.0.2.2").0, Admission::Admitted);
    }

    #[test]
    fn one_address_cannot_use_up_the_places_of_all() {
        let connections = connections(100, Some(1));
        let hostile = IpAddr::from([192, 0, 2, 1]);
        let permits: Vec<_> = (0..1000).filter_map(|_| connections.admit(hostile)).collect();
        assert_eq!(permits.len(), 1 + 64);
        let other = connections.admit(IpAddr::from([192, 0, 2, 2])).unwrap();
        assert_eq!(other.0, Admission::Admitted);
    }
}
