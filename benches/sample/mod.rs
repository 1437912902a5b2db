//! What the benchmarks, the gates and the tests of memory have in common: a stream as the cloud
//! sends it, filters, and a small world of a hub, its writer and a subscriber's session.
//!
//! Law: the same call gives the same every time. No clock but one that stands still, no chance.
#![allow(dead_code, reason = "each of those that name this file uses a part of it")]
#![allow(unreachable_pub, missing_debug_implementations, reason = "nobody outside sees it")]

use std::{sync::Arc, time::Duration};

use fanlight::{
    access::Principal,
    clock::Clock,
    hub::{Config, Hub, Publisher, Subscription},
    log::Log,
    model::{Epoch, Filter, Format, Moment, Transport, resume::Start, ring},
    telemetry::Telemetry,
    transport::{
        self, Account, Ledger, Peer, Session, Step, Turn, Wire,
        request::{Request, Route},
    },
};

/// What one read of a socket usually brings.
pub const CHUNK_BYTES: usize = 16 << 10;

/// An event as it comes from the cloud.
pub struct Sample {
    pub name: String,
    pub data: String,
}

/// The event that [`filters`] are or are not concerned by.
pub const TARGET: u64 = 10;

/// The event of a number, as a product's devices publish: 100 devices, five names in seven bays,
/// about 190 bytes on the wire.
pub fn event(number: u64) -> Sample {
    let names = ["temperature", "humidity", "battery", "soil", "light"];
    let name = names[(number % 5) as usize];
    Sample {
        name: format!("greenhouse/bay-{}/{name}", number % 7),
        data: format!(
            "{{\"data\":\"{}.{:02}\",\"ttl\":60,\"published_at\":\"2026-11-22T01:02:{:02}.004Z\",\
             \"coreid\":\"{}\",\"version\":7,\"public\":false,\"productID\":20799}}",
            number % 40,
            number % 100,
            number % 60,
            device(number),
        ),
    }
}

/// The device of an event.
pub fn device(number: u64) -> String {
    format!("e00fce68{:016x}", number % 100)
}

/// The first events in the bytes of an event stream, whose lines end in `line_end`.
pub fn stream(events: u64, line_end: &str) -> Vec<u8> {
    let mut text = format!(":ok{line_end}{line_end}");
    for number in 0..events {
        let Sample { name, data } = event(number);
        text.push_str(&format!("event: {name}{line_end}data: {data}{line_end}{line_end}"));
    }
    text.into_bytes()
}

/// What a filter asks for.
#[derive(Clone, Copy, Debug)]
pub enum By {
    Name,
    Prefix,
    Device,
}

/// How many of the filters the event of [`TARGET`] concerns.
#[derive(Clone, Copy, Debug)]
pub enum Concerned {
    None,
    One,
    All,
}

/// So many filters, no two of them equal.
pub fn filters(by: By, count: usize, concerned: Concerned) -> Vec<Filter> {
    let target = match by {
        By::Name => event(TARGET).name,
        By::Prefix => "greenhouse/bay-3/".to_owned(),
        By::Device => device(TARGET),
    };
    (0..count)
        .map(|index| {
            let other = match by {
                By::Name => format!("other/{index}/temperature"),
                By::Prefix => format!("other/{index}/"),
                By::Device => format!("{index:024x}"),
            };
            let values = match concerned {
                Concerned::One if index == 0 => vec![target.clone()],
                Concerned::None | Concerned::One => vec![other],
                Concerned::All => vec![target.clone(), other],
            };
            let filter = match by {
                By::Name => Filter::new(vec![], values, vec![]),
                By::Prefix => Filter::new(values, vec![], vec![]),
                By::Device => Filter::new(vec![], vec![], values),
            };
            filter.expect("two short values")
        })
        .collect()
}

/// A hub, its writer, and a time that stands still.
pub struct World {
    pub hub: Hub,
    pub publisher: Publisher,
    ledger: Arc<Ledger>,
    turn: Turn,
    config: Arc<transport::Config>,
}

impl World {
    /// An empty hub with a ring of so many events.
    pub fn new(events_max: usize) -> World {
        let config = Config {
            ring: ring::Limits { events_max, bytes_max: 64 << 20 },
            latest_entries_max: 10_000,
            latest_bytes_max: 16 << 20,
        };
        let telemetry = Arc::new(Telemetry::new());
        let log = Log::memory(Epoch::from_bits(1));
        let (hub, publisher) = Hub::new(config, log, telemetry.clone(), Moment::default());
        let config = transport::Config {
            keepalive: Duration::from_secs(15),
            retry_min: Duration::from_millis(2500),
            retry_max: Duration::from_millis(2500),
            batch_bytes_max: 16 << 10,
            checkpoint_after: Duration::from_secs(300),
            age_max: None,
        };
        let ledger = Arc::new(Ledger { telemetry, clock: Clock::anchored(0) });
        let turn = Turn::new(ledger.clone());
        World { hub, publisher, ledger, turn, config: Arc::new(config) }
    }

    /// The same with a full ring, which evicts one record for each that comes. Every quarter of
    /// a ring all groups are woken; here that was just now.
    pub fn full(events_max: usize) -> World {
        let mut world = World::new(events_max);
        for number in 0..events_max as u64 {
            if number % (events_max as u64 / 4) == 0 {
                world.publisher.commit();
            }
            let Sample { name, data } = event(number);
            world.publisher.event(&name, &data, Moment::default());
        }
        world.publisher.commit();
        world
    }

    /// Takes one event in, as a batch of its own.
    pub fn append(&mut self, event: &Sample) {
        self.publisher.event(&event.name, &event.data, Moment::default());
        self.publisher.commit();
    }

    /// A subscriber from now on.
    pub fn subscribe(&self, filter: Filter) -> Subscription {
        self.hub.subscribe(filter, &Start::Live, Transport::Sse, Moment::default()).0
    }

    /// A subscriber with a stream, which has written its hello.
    pub fn session(&mut self, query: &str) -> Session {
        let headers = http::HeaderMap::new();
        let request =
            Request::parse(Route::Events, Some(query), &headers).expect("a query that is right");
        let subscription = self.subscribe(request.filter.clone());
        let account = Account::open(
            self.ledger.clone(),
            Arc::new(Peer::new(([127, 0, 0, 1], 1).into())),
            Transport::Sse,
            Format::Message,
        );
        let wire = Wire::Sse(Format::Message);
        let config = self.config.clone();
        let now = self.ledger.clock.instant(0).into_std();
        let mut session = Session::new(
            (subscription, None),
            account,
            config,
            wire,
            &request,
            Principal::anyone(),
            now,
        );
        self.rest(&mut session);
        session
    }

    /// Asks a session what to do, in a turn that goes on until [`World::rest`]. All that measures
    /// a session steps it here.
    #[inline]
    pub fn step(&mut self, session: &mut Session) -> Step {
        session.step(self.ledger.clock.instant(0).into_std(), &mut self.turn)
    }

    /// Steps a session until it waits, and ends the turn.
    pub fn rest(&mut self, session: &mut Session) {
        loop {
            match self.step(session) {
                Step::Write(_) | Step::Yield => {}
                Step::Wait { .. } => return self.turn.finish(),
                Step::End(reason) => unreachable!("nothing ends this stream: {reason}"),
            }
        }
    }
}
