//! The ladders, the header, and the budget against restarts and clock jumps.

use proptest::prelude::*;

use super::*;

const WALL_MS: u64 = 1_790_000_000_000;

fn rng(seed: u64) -> fastrand::Rng {
    fastrand::Rng::with_seed(seed)
}

#[test]
fn retry_after_reads_seconds_and_the_three_dates() {
    let secs = |text| retry_after(text, None, WALL_MS).map(|wait| wait.as_secs());
    assert_eq!(secs("120"), Some(120));
    assert_eq!(secs(" 7 "), Some(7));
    assert_eq!(secs("0"), Some(1));
    assert_eq!(secs("86400"), Some(900));
    assert_eq!(secs("99999999999999999999999"), Some(900));
    for wrong in ["", "-1", "+5", "1.5", "soon", "5 s", "Sun, 99 Nov 1994 08:49:37 GMT"] {
        assert_eq!(secs(wrong), None, "{wrong}");
    }
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for later in [
        "Sun, 06 Nov 1994 08:51:37 GMT",
        "Sunday, 06-Nov-94 08:51:37 GMT",
        "Sun Nov  6 08:51:37 1994",
    ] {
        let wait = retry_after(later, Some(date), WALL_MS);
        assert_eq!(wait, Some(Duration::from_secs(120)), "{later}");
    }
    assert_eq!(retry_after(date, None, WALL_MS), Some(RETRY_AFTER_MIN), "long past");
    assert_eq!(retry_after(date, Some("nonsense"), 784_111_777_000 - 5_000).unwrap().as_secs(), 5);
}

#[test]
fn full_jitter_fills_the_rung_and_not_more() {
    let mut rng = rng(7);
    for rung in [1_u64, 2, 4, 8, 16, 32, 60, 60, 60] {
        let draws: Vec<_> = (0..500)
            .map(|_| {
                let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
                backoff.attempts = rung.ilog2() + u32::from(rung == 60);
                backoff.delay(Trouble::Network, &mut rng)
            })
            .collect();
        let ceiling = Duration::from_secs(rung);
        assert!(draws.iter().all(|wait| *wait <= ceiling));
        assert!(draws.iter().any(|wait| *wait < ceiling / 10));
        assert!(draws.iter().any(|wait| *wait > ceiling * 9 / 10));
    }
}

#[test]
fn only_a_healthy_stream_restarts_the_ladder() {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    for _ in 0..100 {
        backoff.delay(Trouble::Network, &mut rng(1));
    }
    backoff.stream_over(HEALTHY_AFTER - Duration::from_millis(1));
    assert_eq!(backoff.attempts, 100);
    backoff.stream_over(HEALTHY_AFTER);
    assert_eq!(backoff.attempts, 0);
}

#[test]
fn a_limit_without_a_time_waits_60_to_300_s() {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    for rung in [60, 120, 240, 250, 250, 250] {
        let wait = backoff.delay(Trouble::RateLimited { retry_after: None }, &mut rng(3));
        assert!(wait >= Duration::from_secs(rung) && wait <= RATE_LIMIT_MAX, "{wait:?}");
    }
}

#[test]
fn server_errors_start_at_five_seconds_and_heed_a_time() {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    let drawn = backoff.delay(Trouble::ServerError { retry_after: None }, &mut rng(3));
    assert!(drawn <= SERVER_ERROR_MIN);
    let told = Some(Duration::from_secs(100));
    let drawn = backoff.delay(Trouble::ServerError { retry_after: told }, &mut rng(3));
    assert!(drawn >= Duration::from_secs(100));
}

#[test]
fn a_retry_line_is_a_floor() {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
    backoff.floor(Duration::from_secs(30));
    let drawn = backoff.delay(Trouble::Network, &mut rng(3));
    assert!(drawn >= Duration::from_secs(30) && drawn <= Duration::from_secs(36));
    backoff.floor(Duration::MAX);
    assert!(backoff.delay(Trouble::Network, &mut rng(3)) <= RETRY_AFTER_MAX * 6 / 5);
}

#[test]
fn a_stamp_in_the_future_counts_as_now() {
    let now = Moment { wall_ms: WALL_MS, mono_us: 0 };
    let mut budget = Budget::new(2, Duration::from_secs(300));
    budget.merge(&[WALL_MS + 10_000_000_000, u64::MAX], now);
    assert_eq!(budget.used(now), 2);
    let wait = budget.take(now).unwrap_err();
    assert_eq!(wait, Duration::from_secs(301));
    let later = Moment { wall_ms: WALL_MS, mono_us: 301_000_000 };
    assert_eq!(budget.take(later), Ok(()));
}

#[derive(Debug, Clone)]
enum Step {
    Pass(u64),
    Jump(i64),
    Try,
    Restart,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0_u64..4_000_000).prop_map(Step::Pass),
        1 => (0_u64..400_000_000).prop_map(Step::Pass),
        1 => (-400_000_000_000_i64..400_000_000_000).prop_map(Step::Jump),
        1 => (-1_000_i64..1_000).prop_map(Step::Jump),
        12 => Just(Step::Try),
        2 => Just(Step::Restart),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Real time is what the cloud sees. The wall clock may jump at will while a process
    /// runs (which then writes its labels anew), and backwards while none does.
    #[test]
    fn no_window_holds_more_opens_than_allowed(
        opens_max in 1_usize..12,
        steps in prop::collection::vec(step(), 1..300),
        down in prop::collection::vec((0_u64..50_000_000, 0_u64..1_000_000_000), 60),
    ) {
        let window = Duration::from_secs(300);
        let mut real_us: u64 = 1;
        let mut wall_ms = WALL_MS;
        let mut started_us = 0;
        let mut budget = Budget::new(opens_max, window);
        let mut record = Vec::new();
        let mut opens: Vec<u64> = Vec::new();
        let mut restarted = false;
        let mut down = down.into_iter().cycle();
        for step in steps {
            let now = Moment { wall_ms, mono_us: real_us - started_us };
            match step {
                Step::Pass(us) => {
                    wall_ms = wall_ms + (real_us + us) / 1000 - real_us / 1000;
                    real_us += us;
                }
                Step::Jump(ms) => {
                    wall_ms = wall_ms.saturating_add_signed(ms);
                    record = budget.stamps(Moment { wall_ms, ..now });
                }
                Step::Try => {
                    budget.merge(&record, now);
                    let full = opens.iter().filter(|o| **o + 301_000_000 > real_us).count();
                    match budget.take(now) {
                        Ok(()) => opens.push(real_us),
                        Err(wait) => {
                            // Without a restart the window is exact, whatever the wall clock did.
                            prop_assert!(restarted || full >= opens_max);
                            prop_assert!(wait <= window + Duration::from_secs(2));
                        }
                    }
                    record = budget.stamps(now);
                }
                Step::Restart => {
                    restarted = true;
                    let (us, back_ms) = down.next().expect("a cycle");
                    wall_ms = wall_ms + (real_us + us) / 1000 - real_us / 1000;
                    real_us += us;
                    if back_ms % 3 == 0 {
                        wall_ms = wall_ms.saturating_sub(back_ms);
                    }
                    started_us = real_us;
                    budget = Budget::new(opens_max, window);
                    // Read at the start, as the ledger does: from here on ages are monotonic.
                    budget.merge(&record, Moment { wall_ms, mono_us: 0 });
                }
            }
        }
        for pair in opens.windows(opens_max + 1) {
            prop_assert!(pair[opens_max] - pair[0] >= 300_000_000);
        }
    }

    #[test]
    fn what_was_told_is_never_undercut(told_secs in 0_u64..5000, seed: u64) {
        let told = retry_after(&told_secs.to_string(), None, WALL_MS).unwrap();
        prop_assert_eq!(told.as_secs(), told_secs.clamp(1, 900));
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));
        let trouble = Trouble::RateLimited { retry_after: Some(told) };
        let wait = backoff.delay(trouble, &mut rng(seed));
        prop_assert!(wait >= told && wait <= told * 6 / 5);
    }

    #[test]
    fn a_date_is_its_distance(ahead_secs in -2000_i64..2000, now_secs in 0_i64..4_000_000_000) {
        let date = |secs: i64| {
            let at = Timestamp::from_second(secs).unwrap();
            rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&at).unwrap()
        };
        let until = date((now_secs + ahead_secs).max(0));
        let distance = ((now_secs + ahead_secs).max(0) - now_secs).clamp(1, 900) as u64;
        let told = retry_after(&until, None, now_secs as u64 * 1000);
        prop_assert_eq!(told, Some(Duration::from_secs(distance)));
        let told = retry_after(&until, Some(&date(now_secs)), 0);
        prop_assert_eq!(told, Some(Duration::from_secs(distance)));
    }

    #[test]
    fn any_text_is_read_without_a_panic(text: String, date: Option<String>, wall_ms: u64) {
        if let Some(wait) = retry_after(&text, date.as_deref(), wall_ms) {
            prop_assert!((RETRY_AFTER_MIN..=RETRY_AFTER_MAX).contains(&wait));
        }
    }
}
