//! The budget of opens on disk, so that a crash loop cannot use up the address's rate limit.
//!
//! `upstream-opens.json` in the state directory maps `host:port` to the times of recent
//! opens, in unix milliseconds:
//!
//! ```json
//! {"api.particle.io:443":[1790000000123,1790000004567]}
//! ```
//!
//! The law: an open is on disk before it is made. The file is read, decided upon and replaced
//! (written beside, then renamed) under the lock of `upstream-opens.lock`, so that several
//! brokers with one state directory share one budget. A missing file is an empty window. A file
//! that cannot be understood counts as three quarters of a window used just now: enough is left
//! to come up, not enough to reach the cloud's limit again and again. Without a directory, or
//! with one that cannot be written, the budget is kept in memory and a warning says so, once.

use std::{
    collections::BTreeMap,
    fs::{self, File, TryLockError},
    io::{self, Read},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use thiserror::Error;
use tracing::warn;

use crate::{
    model::Moment,
    upstream::schedule::{Budget, LABEL_OFF_MS, STAMPS_MAX},
};

/// Name of the record in the state directory.
pub const FILE_NAME: &str = "upstream-opens.json";
const LOCK_NAME: &str = "upstream-opens.lock";
/// Stamps of other authorities are kept this long: longer than any sensible window.
const KEPT_MS: u64 = 3_600_000;
/// A record is some hundred stamps; more than this is no record of ours.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// The lock is held for one small read and write; 1 s means its holder is stopped.
const LOCK_TRIES_MAX: u32 = 100;
const LOCK_PAUSE: Duration = Duration::from_millis(10);

/// The budget of one authority and its record.
#[derive(Debug)]
pub struct Ledger {
    dir: Option<PathBuf>,
    authority: String,
    budget: Budget,
    warned: bool,
    presumed: bool,
    /// Wall minus monotonic milliseconds when the labels were last written.
    labelled_by_ms: i64,
}

#[derive(Debug, Error)]
enum RecordError {
    #[error("{}: {source}", path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{} is locked by another process for more than a second", path.display())]
    Locked { path: PathBuf },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    Read,
    Take,
    TakeSpare,
}

impl Ledger {
    /// Reads what was opened before this process. `None` keeps the budget in memory alone.
    pub async fn open(
        dir: Option<PathBuf>,
        authority: String,
        opens_max: usize,
        window: Duration,
        now: Moment,
    ) -> Ledger {
        let budget = Budget::new(opens_max, window);
        let mut ledger = Ledger {
            dir,
            authority,
            budget,
            warned: false,
            presumed: false,
            labelled_by_ms: offset_ms(now),
        };
        // Refusal is impossible: nothing is taken.
        let _ = ledger.exchange(Wish::Read, now).await;
        ledger
    }

    /// Takes one open and records it, or says how long until one is free.
    pub async fn take(&mut self, now: Moment) -> Result<(), Duration> {
        self.exchange(Wish::Take, now).await
    }

    /// The same for an open that can wait: a quarter of the budget stays free.
    pub async fn take_spare(&mut self, now: Moment) -> Result<(), Duration> {
        self.exchange(Wish::TakeSpare, now).await
    }

    /// True if there is an open for [`take_spare`](Ledger::take_spare), as far as is known here.
    pub fn to_spare(&self, now: Moment) -> bool {
        self.budget.to_spare(now)
    }

    /// Writes the labels anew if the wall clock jumped since they were written: a restart
    /// would otherwise read them wrongly. Cheap if it did not.
    pub async fn relabel(&mut self, now: Moment) {
        if offset_ms(now).abs_diff(self.labelled_by_ms) > LABEL_OFF_MS {
            let _ = self.exchange(Wish::Read, now).await;
        }
    }

    /// Opens in the window that ends now.
    pub fn used(&self, now: Moment) -> usize {
        self.budget.used(now)
    }

    async fn exchange(&mut self, wish: Wish, now: Moment) -> Result<(), Duration> {
        self.labelled_by_ms = offset_ms(now);
        let Some(dir) = self.dir.clone() else {
            return decide(&mut self.budget, wish, now);
        };
        let (authority, mut budget) = (self.authority.clone(), self.budget.clone());
        let presumed = self.presumed;
        let work = move || {
            let outcome = exchange(&dir, &authority, &mut budget, presumed, wish, now);
            (budget, outcome)
        };
        let Ok((budget, outcome)) = tokio::task::spawn_blocking(work).await else {
            return decide(&mut self.budget, wish, now); // the runtime is going down
        };
        self.budget = budget;
        match outcome {
            Ok(exchanged) => {
                self.presumed |= exchanged.unreadable;
                self.warned = false;
                exchanged.decision
            }
            Err((decision, error)) => {
                if !self.warned {
                    warn!(%error, "cannot record connection attempts; a restart forgets them");
                }
                self.warned = true;
                decision
            }
        }
    }
}

type Decision = Result<(), Duration>;

struct Exchanged {
    decision: Decision,
    unreadable: bool,
}

/// Authority to the times of its opens.
type Record = BTreeMap<String, Vec<u64>>;

fn decide(budget: &mut Budget, wish: Wish, now: Moment) -> Decision {
    match wish {
        Wish::Read => Ok(()),
        Wish::Take => budget.take(now),
        Wish::TakeSpare => budget.take_spare(now),
    }
}

/// Lock, read, decide, write. The decision stands even where the record cannot be kept.
fn exchange(
    dir: &Path,
    authority: &str,
    budget: &mut Budget,
    presumed: bool,
    wish: Wish,
    now: Moment,
) -> Result<Exchanged, (Decision, RecordError)> {
    let lock = match lock(dir) {
        Ok(lock) => lock,
        Err(error) => return Err((decide(budget, wish, now), error)),
    };
    let path = dir.join(FILE_NAME);
    let (mut record, unreadable) = match read(&path) {
        Ok(Some(record)) => (record, false),
        Ok(None) => (Record::new(), true),
        Err(error) => return Err((decide(budget, wish, now), error)),
    };
    if unreadable && !presumed {
        let opens = budget.opens_max() * 3 / 4;
        warn!(
            path = %path.display(), opens,
            "the record of connection attempts cannot be understood; counting so many as made"
        );
        budget.presume(opens, now);
    }
    let stamps = record.get(authority).map(Vec::as_slice).unwrap_or_default();
    budget.merge(&stamps[stamps.len().saturating_sub(STAMPS_MAX)..], now);
    let decision = decide(budget, wish, now);
    record.retain(|_, stamps| {
        stamps.retain(|stamp| stamp.saturating_add(KEPT_MS) > now.wall_ms);
        !stamps.is_empty()
    });
    let stamps = budget.stamps(now);
    if !stamps.is_empty() {
        record.insert(authority.to_owned(), stamps);
    }
    let written = write(dir, &path, &record);
    drop(lock);
    match written {
        Ok(()) => Ok(Exchanged { decision, unreadable }),
        Err(error) => Err((decision, error)),
    }
}

fn lock(dir: &Path) -> Result<File, RecordError> {
    let path = dir.join(LOCK_NAME);
    let failed = |source| RecordError::Io { path: path.clone(), source };
    fs::create_dir_all(dir).map_err(failed)?;
    let file =
        File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    for _ in 0..LOCK_TRIES_MAX {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
    }
    Err(RecordError::Locked { path })
}

/// `None`: there is a file, but it is no record.
fn read(path: &Path) -> Result<Option<Record>, RecordError> {
    let failed = |source| RecordError::Io { path: path.to_owned(), source };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(Record::new())),
        Err(source) => return Err(failed(source)),
    };
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX).read_to_end(&mut bytes).map_err(failed)?;
    Ok(serde_json::from_slice(&bytes).ok())
}

fn write(dir: &Path, path: &Path, record: &Record) -> Result<(), RecordError> {
    // One name suffices: the lock is held.
    let beside = dir.join(format!("{FILE_NAME}.new"));
    let failed = |source| RecordError::Io { path: beside.clone(), source };
    let bytes = serde_json::to_vec(record).map_err(|error| failed(error.into()))?;
    fs::write(&beside, bytes).map_err(failed)?;
    // No fsync: a power cut may empty the file, which then counts as three quarters used.
    fs::rename(&beside, path).map_err(|source| RecordError::Io { path: path.to_owned(), source })
}

fn offset_ms(now: Moment) -> i64 {
    let mono_ms = i64::try_from(now.mono_us / 1000).unwrap_or(i64::MAX);
    i64::try_from(now.wall_ms).unwrap_or(i64::MAX).saturating_sub(mono_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(300);
    const WALL_MS: u64 = 1_790_000_000_000;

    fn at(secs: u64) -> Moment {
        Moment { wall_ms: WALL_MS + secs * 1000, mono_us: secs * 1_000_000 }
    }

    /// The same instant, for a process that starts at it.
    fn started_at(secs: u64) -> Moment {
        Moment { mono_us: 0, ..at(secs) }
    }

    fn dir(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("fanlight-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    async fn ledger(dir: &Path, now: Moment) -> Ledger {
        Ledger::open(Some(dir.to_owned()), "cloud:443".into(), 4, WINDOW, now).await
    }

    #[tokio::test]
    async fn a_crash_loop_shares_one_window() {
        let dir = dir("crash-loop");
        for start in 0..4 {
            let now = started_at(start);
            assert_eq!(ledger(&dir, now).await.take(now).await, Ok(()), "{start}");
        }
        let mut fifth = ledger(&dir, started_at(4)).await;
        let wait = fifth.take(started_at(4)).await.unwrap_err();
        assert!(wait > Duration::from_secs(296) && wait < Duration::from_secs(298), "{wait:?}");
        let other = Ledger::open(Some(dir.clone()), "b:1".into(), 4, WINDOW, started_at(4)).await;
        assert_eq!(other.used(started_at(4)), 0, "another authority has its own");
        fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn two_brokers_count_together() {
        let dir = dir("together");
        let (mut a, mut b) = (ledger(&dir, at(0)).await, ledger(&dir, at(0)).await);
        for secs in 0..2 {
            assert!(a.take(at(secs * 2)).await.is_ok() && b.take(at(secs * 2 + 1)).await.is_ok());
        }
        assert!(a.take(at(4)).await.is_err() && b.take(at(4)).await.is_err());
        assert_eq!((a.used(at(4)), b.used(at(4))), (4, 4));
        fs::remove_dir_all(&dir).unwrap();
    }

    #[tokio::test]
    async fn a_corrupt_record_counts_as_three_quarters_once() {
        for corrupt in ["", "{", "[1,2]", r#"{"cloud:443":["x"]}"#] {
            let dir = dir("corrupt");
            fs::create_dir_all(&dir).unwrap();
            fs::write(dir.join(FILE_NAME), corrupt).unwrap();
            let mut ledger = ledger(&dir, at(0)).await;
            assert_eq!(ledger.used(at(0)), 3, "{corrupt}");
            assert!(ledger.take(at(1)).await.is_ok() && ledger.take(at(2)).await.is_err());
            fs::remove_dir_all(&dir).unwrap();
        }
    }

    #[tokio::test]
    async fn a_directory_that_cannot_be_is_memory() {
        let dir = dir("not-a-dir");
        fs::write(&dir, "a file").unwrap();
        let mut ledger = ledger(&dir, at(0)).await;
        for secs in 0..4 {
            assert!(ledger.take(at(secs)).await.is_ok());
        }
        assert!(ledger.take(at(5)).await.is_err() && ledger.warned);
        fs::remove_file(&dir).unwrap();
    }

    #[tokio::test]
    async fn labels_follow_a_clock_jump() {
        let dir = dir("jump");
        let mut before = ledger(&dir, at(0)).await;
        assert!(before.take(at(0)).await.is_ok());
        let jumped = Moment { wall_ms: at(9_000).wall_ms, mono_us: 10_000_000 };
        before.relabel(jumped).await;
        let after = ledger(&dir, Moment { mono_us: 0, ..jumped }).await;
        assert_eq!(after.used(Moment { mono_us: 0, ..jumped }), 1);
        fs::remove_dir_all(&dir).unwrap();
    }
}
