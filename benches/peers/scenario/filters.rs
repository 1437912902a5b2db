//! Many filters that an event does not concern, and one filter that it concerns for all.

use std::{
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use fanlight::load::Ended;

use super::{About, Bench, session, spaced_figures};
use crate::{
    event, interrupt,
    report::{Faults, Scenario},
};

/// Enough that no filter's position has to be moved along within a run, which would be a write
/// to every subscriber.
const FLAGS: [&str; 4] = ["--ring-events-max", "1000000", "--ring-bytes-max", "1GiB"];
/// The filter of the one that is concerned.
const ITS_QUERY: &str = "?prefix=f00000/";
const ITS_NAME: &str = "f00000/x";
const OTHER_NAME: &str = "nobody/x";
/// Events in one write of the upstream.
const BATCH: usize = 100;
const LAST_MAX: Duration = Duration::from_secs(60);
const HEAD_BYTES_MAX: usize = 16 << 10;

/// Processor time of an event past few filters and past many.
pub(super) fn filters(bench: &mut Bench, about: About<'_>) -> Result<()> {
    let sizes = bench.options.sizes.clone();
    for count in sizes.filters {
        let mut peer = bench.start(about, &FLAGS)?;
        let mut events = bench.events();
        let mut one = session::open(&mut peer, about.transport, ITS_QUERY, 1, 0)?;
        let others = silent(peer.address(), count - 1)?;
        session::publish(&mut peer, &mut one, &mut events, ITS_NAME, 5, 1)?;
        for concerned in [0, 1] {
            one.reset();
            let before = peer.cpu();
            for _ in 0..sizes.filter_events / BATCH {
                let batch: Vec<_> = (0..BATCH)
                    .map(|_| match concerned {
                        0 => events.unnumbered(OTHER_NAME),
                        _ => events.next(ITS_NAME),
                    })
                    .collect();
                peer.publisher().publish(&batch)?;
                interrupt::check()?;
            }
            // All before it are through once this one is.
            peer.publisher().publish(&events.take(ITS_NAME, 1))?;
            let ended = session::wait(&mut one, events.last(), LAST_MAX)?;
            let cpu = peer.cpu() - before;
            peer.check()?;
            let mut faults: Faults = session::faults(one.tally());
            if ended != Ended::Done {
                faults.late += one.missing(events.last()).deliveries;
            }
            let cpu_us = session::us_each(cpu, sizes.filter_events as u64 + 1);
            let case = format!("{count} filters, {concerned} concerned");
            bench.add(about, Scenario::Filters, &case, &[("cpu_us", cpu_us)], faults);
        }
        drop(others);
    }
    Ok(())
}

/// An event that all of one filter get.
pub(super) fn reach(bench: &mut Bench, about: About<'_>) -> Result<()> {
    let sizes = bench.options.sizes.clone();
    let count = sizes.filters[1];
    let mut peer = bench.start(about, &[])?;
    let mut events = bench.events();
    let mut crowd = session::open(&mut peer, about.transport, "?prefix=bench/", count, 0)?;
    let mut run =
        |batches| session::publish(&mut peer, &mut crowd, &mut events, event::NAME, batches, 1);
    run(5)?;
    let phase = run(sizes.spaced)?;
    let case = format!("{count} of one filter");
    bench.add(about, Scenario::Reach, &case, &spaced_figures(&phase), phase.faults);
    Ok(())
}

/// Subscribers with a filter of their own each, that get nothing and are not looked at.
fn silent(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>> {
    (1..=count)
        .map(|number| {
            interrupt::check()?;
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            let request = format!(
                "GET /events?prefix=f{number:05}/ HTTP/1.1\r\nHost: localhost\r\n\
                 Accept: text/event-stream\r\n\r\n"
            );
            stream.write_all(request.as_bytes())?;
            let (mut head, mut bytes) = (Vec::new(), [0; 2048]);
            while !head.windows(4).any(|end| end == b"\r\n\r\n") {
                let read = stream.read(&mut bytes)?;
                ensure!(read > 0 && head.len() < HEAD_BYTES_MAX, "no answer");
                head.extend_from_slice(&bytes[..read]);
            }
            let status = head.get(..12).context("a status")?;
            ensure!(status == b"HTTP/1.1 200", "answered {}", String::from_utf8_lossy(status));
            Ok(stream)
        })
        .collect()
}
