use http::HeaderMap;

use super::*;
use crate::{
    access::{Grants, Lease},
    clock::Clock,
    hub::{self, Hub, Publisher},
    log::Log,
    model::{Epoch, Moment, UpstreamState, ring},
    telemetry::{Readings, Telemetry},
    transport::{Ledger, Peer, request::Route},
};

/// A hub, its writer and a time that only moves when told.
struct World {
    hub: Hub,
    publisher: Publisher,
    telemetry: Arc<Telemetry>,
    clock: Clock,
    config: Arc<Config>,
    now: Instant,
}

impl World {
    fn new(events_max: usize) -> World {
        let telemetry = Arc::new(Telemetry::new());
        let config = hub::Config {
            ring: ring::Limits { events_max, bytes_max: 1 << 24 },
            latest_entries_max: 100,
            latest_bytes_max: 1 << 20,
        };
        let log = Log::memory(Epoch::from_bits(1));
        let (hub, publisher) = Hub::new(config, log, telemetry.clone(), Moment::default());
        let config = Config {
            keepalive: Duration::from_secs(15),
            retry_min: Duration::from_millis(2500),
            retry_max: Duration::from_millis(2500),
            batch_bytes_max: 16 << 10,
            checkpoint_after: Duration::from_secs(300),
            age_max: None,
        };
        let clock = Clock::anchored(0);
        let now = clock.instant(0).into_std();
        World { hub, publisher, telemetry, clock, config: Arc::new(config), now }
    }

    fn publish(&mut self, names: &[&str]) {
        for name in names {
            self.publisher.event(name, r#"{"data":"1","coreid":"d"}"#, Moment::default());
        }
        self.publisher.commit();
    }

    fn session(&self, wire: Wire, query: &str) -> Session {
        self.session_of(Principal::anyone(), wire, query)
    }

    fn session_of(&self, principal: Arc<Principal>, wire: Wire, query: &str) -> Session {
        let request = Request::parse(Route::Events, Some(query), &HeaderMap::new()).unwrap();
        let (subscription, gap) = self.hub.subscribe(
            principal.narrow(&request.filter).unwrap(),
            &request.start,
            Transport::Sse,
            Moment::default(),
        );
        let peer = Arc::new(Peer::new(([127, 0, 0, 1], 1).into()));
        let ledger = Ledger { telemetry: self.telemetry.clone(), clock: self.clock.clone() };
        let account = Account::open(Arc::new(ledger), peer, Transport::Sse, Format::Message);
        Session::new(
            (subscription, gap),
            account,
            self.config.clone(),
            wire,
            &request,
            principal,
            self.now,
        )
    }

    /// Everything the session writes until it waits or ends.
    fn written(&self, session: &mut Session) -> String {
        let mut text = String::new();
        loop {
            match session.step(self.now, &mut session.turn()) {
                Step::Write(write) => text.push_str(std::str::from_utf8(&write.bytes).unwrap()),
                Step::Yield => {}
                Step::Wait { until } => {
                    assert!(until > self.now, "waiting for the past");
                    return text;
                }
                Step::End(reason) => return text + &format!("END {reason}"),
            }
        }
    }

    fn pass(&mut self, seconds: u64) {
        self.now += Duration::from_secs(seconds);
    }
}

use crate::model::Transport;

const SSE: Wire = Wire::Sse(Format::Message);

fn event(seq: u64, name: &str) -> String {
    format!("id: 00000001-{seq}\ndata: {{\"name\":\"{name}\",\"data\":\"1\",\"coreid\":\"d\"}}\n\n")
}

#[test]
fn hello_then_live_events() {
    let mut world = World::new(100);
    world.publish(&["before"]);
    world.publisher.upstream(UpstreamState::Live, "", Moment::default());
    world.publisher.commit();
    let mut session = world.session(SSE, "prefix=b&prefix=a&device=d");
    let hello = format!(
        "retry: 2500\nid: 00000001-2\nevent: fanlight.hello\ndata: {{\"id\":\"00000001-2\",\"version\":\"{}\",\
         \"upstream\":\"live\",\"filter\":{{\"prefix\":[\"a\",\"b\"],\"name\":[],\"device\":[\"d\"]}}}}\n\n",
        env!("CARGO_PKG_VERSION")
    );
    assert_eq!(world.written(&mut session), hello);
    world.publish(&["a", "x", "b"]);
    assert_eq!(world.written(&mut session), event(3, "a") + &event(5, "b"));
    assert_eq!(world.written(&mut session), "");
}

#[test]
fn one_event_is_the_shared_bytes() {
    let mut world = World::new(100);
    let mut sessions = [world.session(SSE, ""), world.session(SSE, "")];
    sessions.iter_mut().for_each(|session| drop(world.written(session)));
    world.publish(&["a"]);
    let addresses =
        sessions.each_mut().map(|session| match session.step(world.now, &mut session.turn()) {
            Step::Write(write) => write.bytes.as_ptr(),
            step => panic!("{step:?}"),
        });
    assert_eq!(addresses[0], addresses[1]);
}

#[test]
fn other_wires() {
    let mut world = World::new(100);
    let mut particle = world.session(Wire::Sse(Format::Particle), "control=off");
    let mut ndjson = world.session(Wire::Ndjson, "control=off");
    assert_eq!(world.written(&mut particle), "retry: 2500\n");
    assert_eq!(world.written(&mut ndjson), "");
    world.publish(&["a"]);
    let data = r#"{"data":"1","coreid":"d"}"#;
    assert_eq!(world.written(&mut particle), format!("id: 00000001-1\nevent: a\ndata: {data}\n\n"));
    let json = "{\"id\":\"00000001-1\",\"name\":\"a\",\"data\":\"1\",\"coreid\":\"d\"}\n";
    assert_eq!(world.written(&mut ndjson), json);
    let hello = world.written(&mut world.session(Wire::WebSocket, ""));
    assert!(
        hello.starts_with("{\"fanlight\":\"hello\",\"id\":\"00000001-1\",\"version\":"),
        "{hello}"
    );
}

#[test]
fn a_gap_comes_after_hello_and_before_the_replay() {
    let mut world = World::new(2);
    world.publish(&["a", "b", "c", "d"]);
    let mut session = world.session(SSE, "last_event_id=00000001-1");
    let text = world.written(&mut session);
    let (hello, rest) = text.split_once("\n\n").unwrap();
    assert!(hello.contains("\nid: 00000001-1\n"), "cut off here, it must be told again: {hello}");
    let gap = "id: 00000001-2\nevent: fanlight.gap\ndata: {\"reason\":\"evicted\",\"requested\":\"00000001-1\",\
               \"from\":2,\"to\":3,\"count\":1,\"oldest\":3,\"next\":3}\n\n";
    assert_eq!(rest, gap.to_owned() + &event(3, "c") + &event(4, "d"));

    let mut session = world.session(SSE, "last_event_id=nonsense");
    let text = world.written(&mut session);
    assert!(text.starts_with("retry: 2500\nid: 00000001-0\n"), "{text}");
    assert!(text.contains(
        "\"reason\":\"malformed\",\"requested\":\"nonsense\",\"from\":1,\"to\":3,\"count\":null"
    ));
}

#[test]
fn overtaken_in_place() {
    let mut world = World::new(3);
    let mut session = world.session(SSE, "");
    world.written(&mut session);
    world.publish(&["a", "b", "c", "d", "e"]);
    let gap = "id: 00000001-2\nevent: fanlight.gap\ndata: {\"reason\":\"overtaken\",\"requested\":\"00000001-0\",\
               \"from\":1,\"to\":3,\"count\":2,\"oldest\":3,\"next\":3}\n\n";
    let expected = gap.to_owned() + &event(3, "c") + &event(4, "d") + &event(5, "e");
    assert_eq!(world.written(&mut session), expected);
    let mut quiet = world.session(SSE, "control=off&since=earliest");
    assert_eq!(
        world.written(&mut quiet),
        "retry: 2500\n".to_owned() + &event(3, "c") + &event(4, "d") + &event(5, "e")
    );
}

#[test]
fn keep_alive_is_a_comment_line_alone() {
    let mut world = World::new(100);
    let mut session = world.session(SSE, "");
    let mut ndjson = world.session(Wire::Ndjson, "");
    world.written(&mut session);
    world.written(&mut ndjson);
    world.pass(11);
    assert_eq!(world.written(&mut session), "");
    world.pass(8);
    assert_eq!(world.written(&mut session), ":\n");
    assert_eq!(world.written(&mut ndjson), "\n");
    assert_eq!(world.written(&mut session), "");
    world.pass(19);
    assert_eq!(world.written(&mut session), ":\n");
}

#[test]
fn a_narrow_filter_is_told_how_far_it_is() {
    let mut world = World::new(8);
    let mut session = world.session(SSE, "name=z");
    world.written(&mut session);
    world.publish(&["a"]);
    assert_eq!(world.written(&mut session), "", "not yet a quarter of the ring");
    world.publish(&["a"]);
    let checkpoint =
        |seq| format!("id: 00000001-{seq}\nevent: fanlight.checkpoint\ndata: {{}}\n\n");
    assert_eq!(world.written(&mut session), checkpoint(2));
    assert_eq!(world.written(&mut session), "", "once");
    world.publish(&["a"]);
    world.pass(301);
    assert_eq!(world.written(&mut session), checkpoint(3));
    world.pass(301);
    assert_eq!(world.written(&mut session), ":\n", "there is nothing new to tell");
    world.publish(&["z"]);
    assert_eq!(world.written(&mut session), event(4, "z"));
}

#[test]
fn the_limit_counts_events() {
    let mut world = World::new(100);
    world.publish(&["a", "b"]);
    world.publisher.upstream(UpstreamState::Live, "", Moment::default());
    world.publish(&["c", "d"]);
    let mut session = world.session(SSE, "control=off&since=earliest&limit=3");
    let expected =
        "retry: 2500\n".to_owned() + &event(1, "a") + &event(2, "b") + &event(4, "c") + "END limit";
    assert_eq!(world.written(&mut session), expected);
}

#[test]
fn a_snapshot_ends_with_the_position() {
    let mut world = World::new(100);
    world.publish(&["a", "b", "a"]);
    let mut session = world.session(SSE, "snapshot=true");
    let text = world.written(&mut session);
    let (hello, rest) = text.split_once("\n\n").unwrap();
    assert!(hello.contains("\nid: 00000001-1\n"), "cut off here, it must get all of it: {hello}");
    let checkpoint = "id: 00000001-3\nevent: fanlight.checkpoint\ndata: {}\n\n";
    assert_eq!(rest, event(2, "b") + &event(3, "a") + checkpoint);
    world.publish(&["b"]);
    assert_eq!(world.written(&mut session), event(4, "b"));

    let mut limited = world.session(SSE, "snapshot=true&limit=1");
    let text = world.written(&mut limited);
    assert_eq!(text.split_once("\n\n").unwrap().1, event(3, "a") + "END limit");

    let mut resuming = world.session(SSE, "snapshot=true&last_event_id=00000001-3");
    let text = world.written(&mut resuming);
    assert_eq!(text.split_once("\n\n").unwrap().1, event(4, "b"), "it has the older ones");
}

#[test]
fn a_batch_is_bounded_and_a_large_record_goes_alone() {
    let mut world = World::new(1000);
    let mut session = world.session(SSE, "");
    world.written(&mut session);
    for _ in 0..10 {
        world.publisher.event("big", &"x".repeat(9_000), Moment::default());
    }
    world.publisher.event("huge", &"x".repeat(100_000), Moment::default());
    world.publisher.commit();
    let mut sizes = Vec::new();
    while let Step::Write(write) = session.step(world.now, &mut session.turn()) {
        sizes.push(write.events);
    }
    assert_eq!(sizes, [2, 2, 2, 2, 2, 1]);
}

#[test]
fn goodbyes_are_spread_over_the_window() {
    let mut world = World::new(100);
    let mut sessions: Vec<Session> = (0..200).map(|_| world.session(SSE, "")).collect();
    sessions.iter_mut().for_each(|session| drop(world.written(session)));
    world.hub.close(Moment::default(), Duration::from_secs(10));
    // Each draws its time once, however often it is asked meanwhile.
    for _ in 0..50 {
        sessions.iter_mut().for_each(|session| drop(session.step(world.now, &mut session.turn())));
    }
    let mut said = [0; 11];
    for count in &mut said {
        for session in &mut sessions {
            let text = world.written(session);
            if text.contains("retry: ") {
                assert!(
                    text.contains(
                        "event: fanlight.bye\ndata: {\"reason\":\"shutdown\",\"retry_ms\":"
                    ),
                    "{text}"
                );
                assert!(text.ends_with("END shutdown"), "{text}");
                *count += 1;
            }
        }
        world.pass(1);
    }
    assert_eq!(said.iter().sum::<i32>(), 200, "{said:?}");
    assert_eq!(said[9] + said[10], 0, "all within four fifths of the window: {said:?}");
    assert!(said[1..8].iter().all(|count| *count > 0), "{said:?}");
}

#[test]
fn an_old_stream_expires() {
    let mut world = World::new(100);
    let config = Config { age_max: Some(Duration::from_secs(60)), ..(*world.config).clone() };
    world.config = Arc::new(config);
    let mut session = world.session(Wire::Ndjson, "");
    world.written(&mut session);
    world.pass(47);
    assert_eq!(world.written(&mut session).trim(), "");
    let text = (0..26).find_map(|_| {
        world.pass(1);
        world.publish(&["a"]);
        Some(world.written(&mut session)).filter(|text| text.contains("bye"))
    });
    let lines: Vec<String> = text.unwrap().lines().map(str::to_owned).collect();
    assert!(lines[0].contains("\"name\":\"a\""), "what is there goes first: {lines:?}");
    assert!(
        lines[1].contains("\"fanlight\":\"bye\"") && lines[1].contains("\"reason\":\"expired\"")
    );
    assert_eq!(lines[2], "END expired");
}

#[test]
fn a_new_filter_is_confirmed_and_the_stream_goes_on() {
    let mut world = World::new(100);
    let mut session = world.session(Wire::WebSocket, "name=a");
    world.written(&mut session);
    world.publish(&["a", "b"]);
    session.refilter(&Filter::new(vec![], vec!["b".into()], vec![]).unwrap()).unwrap();
    let text = world.written(&mut session);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines[0].contains("\"hello\"") && lines[0].contains("\"name\":[\"b\"]"), "{text}");
    assert_eq!(lines[1], "{\"id\":\"00000001-2\",\"name\":\"b\",\"data\":\"1\",\"coreid\":\"d\"}");
    assert_eq!(lines.len(), 2);
}

#[test]
fn a_new_filter_right_after_the_hello_is_confirmed_too() {
    let mut world = World::new(2);
    world.publish(&["b", "b", "b"]);
    for query in ["name=a", "name=a&last_event_id=00000001-0"] {
        let mut session = world.session(Wire::WebSocket, query);
        assert!(
            matches!(session.step(world.now, &mut session.turn()), Step::Write(_)),
            "the first hello"
        );
        session.refilter(&Filter::new(vec![], vec!["b".into()], vec![]).unwrap()).unwrap();
        let text = world.written(&mut session);
        assert!(
            text.starts_with("{\"fanlight\":\"hello\"") && text.contains("\"name\":[\"b\"]"),
            "{text}"
        );
        let has_gap = query.contains("last_event_id");
        assert_eq!(text.contains("\"fanlight\":\"gap\""), has_gap, "{text}");
    }
}

#[test]
fn a_large_record_behind_others_is_shared_not_copied() {
    let mut world = World::new(100);
    let mut sessions = [world.session(SSE, "limit=2"), world.session(Wire::WebSocket, "")];
    sessions.iter_mut().for_each(|session| drop(world.written(session)));
    world.publisher.event("small", "x", Moment::default());
    world.publisher.event("huge", &"x".repeat(100_000), Moment::default());
    world.publisher.event("small", "y", Moment::default());
    world.publisher.commit();
    let mut reader = world.session(SSE, "since=earliest");
    assert!(matches!(reader.step(world.now, &mut reader.turn()), Step::Write(_)), "the hello");
    let written = |session: &mut Session| match session.step(world.now, &mut session.turn()) {
        Step::Write(write) => (write.bytes, write.events),
        step => panic!("{step:?}"),
    };
    let all: Vec<(Bytes, u64)> = (0..3).map(|_| written(&mut reader)).collect();
    assert!(all.iter().all(|(_, events)| *events == 1), "{all:?}");
    let [limited, websocket] = &mut sessions;
    let (small, huge) = (written(limited).0, written(limited).0);
    assert_eq!((small.as_ptr(), huge.as_ptr()), (all[0].0.as_ptr(), all[1].0.as_ptr()));
    assert!(matches!(limited.step(world.now, &mut limited.turn()), Step::End(CloseReason::Limit)));
    assert!(written(websocket).0.len() < 100 && written(websocket).0.len() > 100_000);
}

#[test]
fn what_is_delivered_counts_as_told() {
    let mut world = World::new(400);
    let mut session = world.session(SSE, "name=z");
    world.written(&mut session);
    world.pass(200);
    world.publish(&["z", "a"]);
    assert_eq!(world.written(&mut session), event(1, "z"));
    world.pass(200);
    assert_eq!(world.written(&mut session), ":\n", "200 s after the last id");
    world.pass(101);
    assert!(world.written(&mut session).contains("fanlight.checkpoint"));

    let mut world = World::new(8);
    let mut session = world.session(SSE, "name=z");
    world.written(&mut session);
    for state in [UpstreamState::Live, UpstreamState::BackingOff] {
        world.publisher.upstream(state, "", Moment::default());
    }
    world.publisher.commit();
    let text = world.written(&mut session);
    assert_eq!(text.matches("fanlight.upstream").count(), 2, "{text}");
    assert!(!text.contains("checkpoint"), "control events have ids too: {text}");
}

#[test]
fn a_write_knows_its_oldest_live_event() {
    let mut world = World::new(100);
    world.publish(&["old"]);
    let mut session = world.session(SSE, "control=off&since=earliest");
    let mut publish = |world: &mut World, monos_us: &[u64]| {
        for mono_us in monos_us {
            world.publisher.event("a", "{}", Moment { wall_ms: 0, mono_us: *mono_us });
        }
        world.publisher.commit();
        let Step::Write(write) = session.step(world.now, &mut session.turn()) else {
            panic!("there are events")
        };
        (write.events, write.ingested.map(|at| at.mono_us))
    };
    assert_eq!(publish(&mut world, &[3]), (0, None), "the reconnection time");
    assert_eq!(publish(&mut world, &[4]), (3, None), "it begins with what is replayed");
    assert_eq!(publish(&mut world, &[5, 6]), (2, Some(5)));
}

#[test]
fn sessions_at_the_same_place_share_a_prepared_write() {
    let mut world = World::new(1000);
    let mut sessions =
        ["", "", "", "control=off", "limit=9", "prefix=a"].map(|query| world.session(SSE, query));
    let mut turn = sessions[0].turn();
    for session in &mut sessions {
        assert!(matches!(session.step(world.now, &mut turn), Step::Write(_)), "a hello");
        let waits = matches!(session.step(world.now, &mut turn), Step::Wait { .. });
        assert!(waits, "nothing has come");
    }
    turn.finish();
    world.publish(&["a", "a"]);
    let writes = sessions.each_mut().map(|session| match session.step(world.now, &mut turn) {
        Step::Write(write) => write.bytes,
        step => panic!("{step:?}"),
    });
    assert_eq!(writes[0].as_ptr(), writes[1].as_ptr(), "prepared once");
    assert_eq!(writes[1].as_ptr(), writes[2].as_ptr(), "prepared once");
    for (number, write) in writes.iter().enumerate().skip(3) {
        assert_ne!(writes[0].as_ptr(), write.as_ptr(), "session {number} stands elsewhere");
        assert_eq!(writes[0], *write, "session {number}");
    }
    // What comes within the turn is for the next one, which the hub asks for.
    world.publish(&["a"]);
    assert!(matches!(sessions[0].step(world.now, &mut turn), Step::Write(_)), "looked first");
    assert!(matches!(sessions[1].step(world.now, &mut turn), Step::Write(_)), "and so does this");
    turn.finish();
    let positions = sessions.each_ref().map(|session| session.subscription().cursor().0);
    assert_eq!(positions, [4, 4, 3, 3, 3, 3]);
}

#[test]
fn control_events_do_not_count_towards_the_limit() {
    let mut world = World::new(100);
    world.publish(&["a"]);
    world.publisher.upstream(UpstreamState::Live, "", Moment::default());
    world.publish(&["b", "c"]);
    let mut session = world.session(SSE, "since=earliest&limit=2");
    let text = world.written(&mut session);
    assert!(text.contains("fanlight.upstream") && text.contains(&event(3, "b")), "{text}");
    assert!(!text.contains(&event(4, "c")) && text.ends_with("END limit"), "{text}");
}

#[test]
fn a_stream_that_expires_before_its_shutdown_goodbye_expires() {
    fastrand::seed(7);
    let mut world = World::new(100);
    world.config =
        Arc::new(Config { age_max: Some(Duration::from_secs(1)), ..(*world.config).clone() });
    let mut session = world.session(Wire::Ndjson, "");
    world.written(&mut session);
    world.hub.close(Moment::default(), Duration::from_secs(100_000));
    world.written(&mut session);
    world.pass(2);
    assert!(world.written(&mut session).ends_with("END expired"));
}

#[test]
fn a_goodbye_does_not_wait_for_ever_for_a_busy_stream() {
    let mut world = World::new(100);
    world.config =
        Arc::new(Config { age_max: Some(Duration::from_secs(10)), ..(*world.config).clone() });
    let mut session = world.session(Wire::Ndjson, "");
    world.written(&mut session);
    world.publish(&["a"]);
    world.pass(14);
    let text = world.written(&mut session);
    assert!(text.starts_with("{\"fanlight\":\"bye\",\"id\":\"00000001-0\""), "{text}");
}

#[test]
fn a_new_filter_ends_a_snapshot_on_its_way() {
    let mut world = World::new(100);
    world.config = Arc::new(Config { batch_bytes_max: 1, ..(*world.config).clone() });
    world.publish(&["a", "b", "c"]);
    let mut session = world.session(Wire::WebSocket, "snapshot=true");
    session.step(world.now, &mut session.turn());
    let Step::Write(first) = session.step(world.now, &mut session.turn()) else {
        panic!("there is a snapshot")
    };
    assert_eq!(first.events, 1);
    session.refilter(&Filter::all()).unwrap();
    let text = world.written(&mut session);
    assert_eq!(text.lines().count(), 1, "the hello alone: {text}");
}

#[test]
fn a_client_with_a_gap_gets_the_newest_values_of_what_it_missed() {
    let mut world = World::new(2);
    world.publish(&["a", "b", "c", "c", "c"]);
    let mut session = world.session(SSE, "snapshot=true&last_event_id=00000001-1");
    let text = world.written(&mut session);
    let gap = text.find("id: 00000001-1\nevent: fanlight.gap").unwrap();
    assert!(gap < text.find(&event(2, "b")).unwrap(), "{text}");
    assert!(!text.contains(&event(1, "a")), "it had this one: {text}");
    let checkpoint = text.find("id: 00000001-3\nevent: fanlight.checkpoint").unwrap();
    assert!(checkpoint < text.find(&event(4, "c")).unwrap(), "{text}");
}

const PARTICLE: Wire = Wire::Particle { ids: false };

/// One of the Particle routes, past the time for which its first event is held.
fn particle(world: &mut World, wire: Wire) -> Session {
    let mut session = world.session(wire, "control=off");
    assert_eq!(world.written(&mut session), ":ok\n\n");
    world.now += crate::transport::particle::FIRST_EVENT_HOLD;
    session
}

fn block(name: &str) -> String {
    format!("event: {name}\ndata: {{\"data\":\"1\",\"coreid\":\"d\"}}\n\n")
}

#[test]
fn the_first_event_of_a_particle_stream_is_held() {
    let mut world = World::new(100);
    let mut session = world.session(PARTICLE, "control=off");
    assert_eq!(world.written(&mut session), ":ok\n\n");
    world.publish(&["a"]);
    let until = world.now + Duration::from_millis(100);
    let step = session.step(world.now, &mut session.turn());
    assert!(matches!(step, Step::Wait { until: told } if told == until), "{step:?}");
    world.now = until;
    assert_eq!(world.written(&mut session), block("a"));
}

#[test]
fn a_particle_stream_has_one_event_a_write_and_no_control_events() {
    let mut world = World::new(100);
    let mut bare = particle(&mut world, PARTICLE);
    let mut with_ids = particle(&mut world, Wire::Particle { ids: true });
    world.publish(&["a", "b", "c"]);
    world.publisher.upstream(UpstreamState::Stalled, "", Moment::default());
    world.publisher.commit();
    for (session, ids) in [(&mut bare, false), (&mut with_ids, true)] {
        let mut turn = session.turn();
        for (seq, name) in [(1, "a"), (2, "b"), (3, "c")] {
            let id = if ids { format!("id: 00000001-{seq}\n") } else { String::new() };
            match session.step(world.now, &mut turn) {
                Step::Write(write) => {
                    assert_eq!(write.bytes, id + &block(name));
                    assert_eq!(write.events, 1);
                }
                step => panic!("{step:?}"),
            }
        }
        assert!(matches!(session.step(world.now, &mut turn), Step::Wait { .. }));
    }
}

#[test]
fn a_particle_stream_is_kept_alive_as_the_cloud_does_it() {
    for (wire, expected) in [(PARTICLE, "\n"), (Wire::Particle { ids: true }, ":\n")] {
        let mut world = World::new(100);
        let mut session = particle(&mut world, wire);
        for _ in 0..20 {
            let written_at = world.now;
            world.publish(&["a"]);
            assert!(world.written(&mut session).ends_with("\n\n"));
            world.now = written_at + Duration::from_millis(8_999);
            assert_eq!(world.written(&mut session), "");
            world.now = written_at + Duration::from_secs(10);
            assert_eq!(world.written(&mut session), expected);
        }
    }
}

#[test]
fn a_particle_stream_goes_on_after_what_it_missed_and_just_ends() {
    let mut world = World::new(2);
    let mut session = particle(&mut world, PARTICLE);
    world.publish(&["a", "b", "c", "d"]);
    assert_eq!(world.written(&mut session), block("c") + &block("d"));
    let text = world.telemetry.render(&Readings::default());
    assert!(text.contains("fanlight_gaps_total{reason=\"overtaken\"} 1"), "{text}");
    world.hub.close(Moment::default(), Duration::ZERO);
    assert_eq!(world.written(&mut session), "END shutdown");
}

fn reader(prefix: &str, expires_ms: Option<u64>) -> (Arc<Principal>, Lease) {
    let read = Some(Filter::new(vec![prefix.into()], vec![], vec![]).unwrap());
    let (grants, lease) = (Grants { read, ..Grants::default() }, Lease::default());
    (Arc::new(Principal::new("reader", grants, expires_ms, lease.clone())), lease)
}

const WIRES: [Wire; 4] =
    [Wire::Sse(Format::Message), Wire::Ndjson, Wire::WebSocket, Wire::Particle { ids: true }];

#[test]
fn nothing_goes_out_once_the_lease_has_ended() {
    for wire in WIRES {
        let mut world = World::new(100);
        let (principal, lease) = reader("a", None);
        let is_told = !matches!(wire, Wire::Particle { .. });
        let query = if is_told { "" } else { "control=off" };
        let mut session = world.session_of(principal, wire, query);
        world.publish(&["a1", "b1"]);
        let mut text = world.written(&mut session);
        world.now += particle::FIRST_EVENT_HOLD;
        text += &world.written(&mut session);
        assert!(text.contains("a1") && !text.contains("b1"), "{text}");
        world.publish(&["a2"]);
        lease.end();
        let text = world.written(&mut session);
        assert!(!text.contains("a2"), "{text}");
        assert_eq!(text.contains("\"reason\":\"expired\""), is_told, "{text}");
        assert_eq!(session.phase, Phase::Ended(CloseReason::Revoked));
    }
}

#[test]
fn nothing_goes_out_once_the_time_of_the_credential_is_over() {
    for wire in WIRES {
        let mut world = World::new(100);
        let (principal, _) = reader("a", Some(60_000));
        let mut session = world.session_of(principal, wire, "");
        world.publish(&["a1"]);
        let mut text = world.written(&mut session);
        world.now += Duration::from_millis(59_999);
        text += &world.written(&mut session);
        assert!(text.contains("a1"), "{text}");
        world.publish(&["a2"]);
        world.now += Duration::from_millis(1);
        assert!(!world.written(&mut session).contains("a2"));
        assert_eq!(session.phase, Phase::Ended(CloseReason::Expired));
    }
}

#[test]
fn a_goodbye_before_the_gap_is_told_does_not_move_the_client_past_it() {
    let mut world = World::new(2);
    world.publish(&["a1", "a2", "a3", "a4"]);
    let (principal, lease) = reader("a", None);
    let mut session = world.session_of(
        principal,
        Wire::Sse(Format::Message),
        "since=earliest&last_event_id=00000001-1",
    );
    lease.end();
    let text = world.written(&mut session);
    assert!(text.contains("fanlight.bye") && !text.contains("id: "), "{text}");
}

#[test]
fn a_new_filter_is_narrowed_as_the_first_was() {
    let mut world = World::new(100);
    let mut session = world.session_of(reader("a", None).0, Wire::WebSocket, "");
    let hello = world.written(&mut session);
    assert!(hello.contains(r#""filter":{"prefix":["a"]"#), "{hello}");
    session.refilter(&Filter::all()).unwrap();
    world.publish(&["a1", "b1"]);
    let text = world.written(&mut session);
    assert!(text.contains("\"a1\"") && !text.contains("\"b1\""), "{text}");
    let other = Filter::new(vec!["b".into()], vec![], vec![]).unwrap();
    assert_eq!(session.refilter(&other), Err(Denied::ReadThis));
    world.publish(&["a2", "b2"]);
    let text = world.written(&mut session);
    assert!(text.contains("\"a2\"") && !text.contains("\"b2\""), "{text}");
}
