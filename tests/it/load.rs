//! The load client against a broker in this process: its counts must be exact.

use std::{
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
    time::Duration,
};

use fanlight::load::{self, Crowd, Ended, Missing, Plan, Protocol, Stamp, Tick, Watch};
use tokio::task::block_in_place;

use crate::harness::{PATIENCE, broker, publish_many, quiet_cloud, subscribers, until};

/// A crowd whose subscribers are all open.
fn opened(plan: Plan) -> Crowd {
    let count = plan.subscribers;
    let mut crowd = Crowd::new(plan).unwrap();
    assert_eq!(block_in_place(|| crowd.open(&mut load::go_on)).unwrap(), Ended::Done);
    assert_eq!(crowd.opened().open, count, "{:?}", crowd.opened().reasons);
    crowd
}

/// Waits until all have seen `seq`.
fn all_see(crowd: &mut Crowd, seq: u64) {
    let ended =
        block_in_place(|| crowd.wait_for(seq, load::now() + PATIENCE, &mut load::go_on)).unwrap();
    assert_eq!((ended, crowd.missing(seq).deliveries), (Ended::Done, 0), "{:?}", crowd.tally());
}

fn stamp(seq: u64) -> String {
    Stamp { seq, nanos: load::wall_nanos() }.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_counts_every_stamp_of_every_phase() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    for (path, protocol) in [("/events", Protocol::Sse), ("/ws", Protocol::WebSocket)] {
        let sources = [[127, 0, 0, 1], [127, 0, 0, 2]].map(IpAddr::from).to_vec();
        let plan = Plan::new(broker.addr(), path, 60);
        let mut crowd = opened(Plan { protocol, sources, stalled: 10, ..plan });
        subscribers(&broker, 60).await;
        assert_eq!((crowd.reading(), crowd.stalled()), (50, 10));
        assert_eq!(crowd.opened().time.len(), 60);
        for seqs in [1..=300, 301..=350] {
            let (count, last) = (seqs.clone().count() as u64, *seqs.end());
            crowd.reset();
            seqs.for_each(|seq| cloud.publish("load", Some(&stamp(seq))));
            all_see(&mut crowd, last);
            let tally = crowd.tally();
            assert_eq!(tally.deliveries, 50 * count, "{tally:?}");
            assert_eq!((tally.lost, tally.out_of_order, tally.repeated), (0, 0, 0));
            assert_eq!((tally.gaps, tally.told, tally.closed), (0, 0, 0));
            assert_eq!(tally.latency.len(), 50 * count);
            assert!(tally.bytes > 50 * count * 48);
        }
        assert_eq!(crowd.missing(352), Missing { subscribers: 50, deliveries: 100 });
        let late = block_in_place(|| crowd.wait_for(351, load::now(), &mut load::go_on)).unwrap();
        assert_eq!(late, Ended::TimedOut);
        // A skipped number, one that comes late, and one that comes again.
        crowd.reset();
        for seq in [353, 351, 353, 354] {
            cloud.publish("load", Some(&stamp(seq)));
        }
        all_see(&mut crowd, 354);
        let tally = crowd.tally();
        assert_eq!((tally.lost, tally.out_of_order, tally.repeated), (50, 50, 50));
        drop(crowd);
        subscribers(&broker, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_crowd_watches_positions_where_nobody_stamps() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &[]).await;
    for (path, protocol) in [("/events", Protocol::Sse), ("/ws", Protocol::WebSocket)] {
        let plan = Plan::new(broker.addr(), path, 20);
        let mut crowd = opened(Plan { protocol, watch: Watch::Positions, ..plan });
        subscribers(&broker, 20).await;
        publish_many(&cloud, &broker, "greenhouse/temp", 200).await;
        all_see(&mut crowd, broker.hub().status().tail.0 - 1);
        let tally = crowd.tally();
        assert_eq!((tally.events, tally.deliveries, tally.latency.len()), (200, 4_000, 4_000));
        assert_eq!((tally.lost, tally.out_of_order, tally.repeated), (0, 0, 0));
        drop(crowd);
        subscribers(&broker, 0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gaps_told_are_no_losses_and_goodbyes_are_counted() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--ring-events-max=16", "--server-drain-window=1s"]).await;
    // A position that has been evicted: the stream begins with a gap.
    let position = format!("{}-0", broker.hub().epoch());
    let before = broker.hub().status().tail.0;
    for seq in 1..=100 {
        cloud.publish("load", Some(&stamp(seq)));
    }
    until("all are taken in", || (broker.hub().status().tail.0 >= before + 100).then_some(()))
        .await;
    publish_many(&cloud, &broker, "other", 8).await;
    let mut crowds =
        [("/events", Protocol::Sse), ("/ws", Protocol::WebSocket)].map(|(path, protocol)| {
            let path = format!("{path}?last_event_id={position}");
            let mut crowd = opened(Plan { protocol, ..Plan::new(broker.addr(), &path, 5) });
            all_see(&mut crowd, 100);
            let tally = crowd.tally();
            assert_eq!((tally.gaps, tally.lost), (5, 0));
            assert!(tally.told > 5 * 80);
            crowd.reset();
            crowd
        });
    let shutdown = tokio::spawn(broker.shutdown());
    let until = load::now() + PATIENCE;
    let gone: Tick<'_> = &mut |crowd| match crowd.reading() {
        0 => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    };
    for crowd in &mut crowds {
        assert_eq!(block_in_place(|| crowd.run(until, gone)).unwrap(), Ended::Stopped);
        assert_eq!((crowd.tally().byes, crowd.tally().closed), (5, 5));
    }
    shutdown.await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_open_is_told_with_its_reason() {
    let cloud = quiet_cloud().await;
    let broker = broker(&cloud, &["--limits-connections-max=1"]).await;
    let failed = |target: SocketAddr, path: &str, protocol| {
        let mut crowd = Crowd::new(Plan { protocol, ..Plan::new(target, path, 4) }).unwrap();
        block_in_place(|| crowd.open(&mut load::go_on)).unwrap();
        crowd.opened().clone()
    };
    let wrong = failed(broker.addr(), "/healthz", Protocol::Sse);
    assert_eq!(wrong.failed, 4);
    assert!(wrong.reasons.keys().any(|reason| reason.contains("HTTP/1.1 ")), "{wrong:?}");
    let nobody: SocketAddr = ([127, 0, 0, 1], 1).into();
    let refused = failed(nobody, "/events", Protocol::WebSocket);
    assert_eq!((refused.open, refused.failed), (0, 4));
    assert!(refused.reasons.keys().all(|reason| reason.contains("refused")), "{refused:?}");
    let mut plan = Plan::new(cloud.addr(), "/v1/devices/events", 1);
    plan.open_timeout = Duration::ZERO;
    let mut crowd = Crowd::new(plan).unwrap();
    block_in_place(|| crowd.open(&mut load::go_on)).unwrap();
    assert_eq!(crowd.opened().reasons["no answer within 0ns"], 1);
}
