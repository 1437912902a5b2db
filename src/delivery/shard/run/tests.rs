use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream as Client},
    sync::{Mutex, atomic::AtomicBool, atomic::AtomicUsize},
};

use http::HeaderMap;

use super::{super::Shards, *};
use crate::{
    access::Principal,
    clock::Clock,
    delivery::{Framing, Offer, conversation},
    hub::{self, Hub, Publisher},
    log::Log,
    model::{Epoch, Filter, Format, Moment, Transport, resume::Start, ring},
    telemetry::Telemetry,
    transport::{
        self, Account, Peer, Session, Wire,
        request::{Request, Route},
    },
};

/// A shard's surroundings, without a thread.
struct World {
    hub: Hub,
    publisher: Publisher,
    ledger: Arc<Ledger>,
    poll: Poll,
    inbox: Inbox<()>,
    doorbell: Doorbell,
    config: Config,
}

fn world() -> World {
    let telemetry = Arc::new(Telemetry::new());
    let limits = ring::Limits { events_max: 64, bytes_max: 1 << 20 };
    let config = hub::Config { ring: limits, latest_entries_max: 8, latest_bytes_max: 1 << 20 };
    let log = Log::memory(Epoch::from_bits(1));
    let (hub, publisher) = Hub::new(config, log, telemetry.clone(), Moment::default());
    let secs = Duration::from_secs;
    let websocket = conversation::Config {
        ping_interval: secs(25),
        pong_timeout: secs(10),
        message_bytes_max: 1 << 14,
        close_timeout: secs(2),
    };
    World {
        doorbell: hub.doorbell(|| ()),
        hub,
        publisher,
        ledger: Arc::new(Ledger { telemetry, clock: Clock::anchored(0) }),
        poll: Poll::new().unwrap(),
        inbox: Inbox {
            arrivals: Mutex::default(),
            connections: AtomicUsize::new(0),
            blocked: AtomicUsize::new(0),
            surplus: AtomicUsize::new(0),
            is_stopped: AtomicBool::new(false),
        },
        config: Config { count: 1, write_stall: secs(20), websocket },
    }
}

/// A WebSocket whose handshake is done, for events of one name, on its way into a shard.
fn arrival<P>(
    hub: &Hub,
    ledger: &Arc<Ledger>,
    name: &str,
    place: P,
) -> (Client, GroupId, Arrival<P>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let client = Client::connect(listener.local_addr().unwrap()).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    let (socket, addr) = listener.accept().unwrap();
    socket.set_nonblocking(true).unwrap();
    let filter = Filter::new(vec![], vec![name.into()], vec![]).unwrap();
    let (subscription, gap) =
        hub.subscribe(filter, &Start::Live, Transport::WebSocket, Moment::default());
    let group = subscription.group();
    let peer = Arc::new(Peer::new(addr));
    let account = Account::open(ledger.clone(), peer, Transport::WebSocket, Format::Json);
    let config = transport::Config {
        keepalive: Duration::from_secs(15),
        retry_min: Duration::from_secs(1),
        retry_max: Duration::from_secs(1),
        batch_bytes_max: 1 << 14,
        checkpoint_after: Duration::from_secs(300),
        age_max: None,
    };
    let request = Request::parse(Route::WebSocket, None, &HeaderMap::new()).unwrap();
    let (config, wire) = (Arc::new(config), Wire::WebSocket);
    let session = Session::new(
        (subscription, gap),
        account,
        config,
        wire,
        &request,
        Principal::anyone(),
        now(),
    );
    let offer = Offer { session, framing: Framing::WebSocket, head: Vec::new() };
    let arrival = Arrival { socket, offer, read_ahead: Default::default(), place };
    (client, group, arrival)
}

fn publish(publisher: &mut Publisher, name: &str) {
    publisher.event(name, r#"{"data":"0"}"#, Moment::default());
    publisher.commit();
}

/// The next message of the broker, which is below 64 KiB.
fn message(client: &mut Client) -> String {
    let mut head = [0; 2];
    client.read_exact(&mut head).unwrap();
    let mut length = usize::from(head[1]);
    if length == 126 {
        let mut longer = [0; 2];
        client.read_exact(&mut longer).unwrap();
        length = usize::from(u16::from_be_bytes(longer));
    }
    let mut text = vec![0; length];
    client.read_exact(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

/// A short message to the broker, masked with zeros.
fn say(client: &mut Client, text: &str) {
    let mut frame = vec![0x81, 0x80 | u8::try_from(text.len()).unwrap(), 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    client.write_all(&frame).unwrap();
}

/// The number of a group that ends in the middle of a turn may be another's at once.
#[test]
fn what_was_prepared_for_a_group_that_has_ended_is_nobodys() {
    let World { hub, mut publisher, ledger, mut poll, inbox, doorbell, config } = world();
    let (mut leaving, ending, first) = arrival(&hub, &ledger, "x", ());
    let (mut staying, _, second) = arrival(&hub, &ledger, "y", ());
    inbox.connections.fetch_add(2, Ordering::Relaxed);
    inbox.arrivals().extend([first, second]);
    let mut run = Run::new(&mut poll, &inbox, &doorbell, &config, &ledger);
    run.admit();
    run.catch_up();
    run.turn.finish();
    assert!(message(&mut leaving).contains("hello") && message(&mut staying).contains("hello"));

    // All in one turn: an event is prepared for one, who leaves; the other has a new filter.
    publish(&mut publisher, "x");
    let mut news = News::default();
    run.doorbell.take(&mut news);
    run.deliver(&news);
    drop(leaving);
    while run.connections.contains(0) {
        run.read(0);
    }
    say(&mut staying, r#"{"subscribe":{"name":["z"]}}"#);
    while run.connections[1].session().subscription().filter().names().ne(["z"]) {
        run.read(1);
    }
    assert_eq!(run.connections[1].session().subscription().group(), ending, "the same number");
    run.catch_up();
    run.turn.finish();
    publish(&mut publisher, "z");
    run.doorbell.take(&mut news);
    run.deliver(&news);
    assert!(message(&mut staying).contains("hello"), "the new filter is confirmed");
    let event = message(&mut staying);
    assert!(event.contains(r#""name":"z""#), "{event}");
}

#[test]
fn ticks_go_on_for_years() {
    let origin = now();
    for count in [0, 1, 1000, u64::from(u32::MAX) + 5] {
        assert_eq!(ticks(origin + span(count), origin), count);
    }
}

/// Those who come go where fewest are, also after some have left; the end cuts them all.
#[tokio::test]
async fn arrivals_are_shared_evenly_and_give_everything_back() {
    let World { hub, ledger, config, .. } = world();
    let config = Config { count: 2, ..config };
    let shards = Shards::start(&config, &hub, &ledger).unwrap();
    let place = Arc::new(());
    let numbers = || {
        let number =
            |shard: &super::super::Shard<_>| shard.inbox.connections.load(Ordering::Relaxed);
        shards.shards.iter().map(number).collect::<Vec<_>>()
    };
    let mut clients = Vec::new();
    for count in 0..20 {
        let (client, _, arrival) = arrival(&hub, &ledger, &format!("{count}"), place.clone());
        shards.adopt(arrival).await;
        clients.push(client);
    }
    assert_eq!(numbers(), [10, 10]);
    for client in &mut clients {
        assert!(message(client).contains("hello"));
    }
    // They were given in turn: all of one shard leave.
    let mut nth = 0;
    clients.retain(|_| {
        nth += 1;
        nth % 2 == 0
    });
    while numbers() != [0, 10] {
        tokio::task::yield_now().await;
    }
    for _ in 0..10 {
        let (client, _, arrival) = arrival(&hub, &ledger, "again", place.clone());
        shards.adopt(arrival).await;
        clients.push(client);
    }
    assert_eq!(numbers(), [10, 10]);
    drop(shards);
    assert_eq!((Arc::strong_count(&place), hub.subscribers(), hub.status().groups), (1, 0, 0));
}
