//! How much memory all connections together may take.
//!
//! Law: a sum of what is known, looked at once a second, and never less than what is held: the bytes
//! of the ring and of the newest values; for each connection what one takes that keeps up; and for each
//! that does not (its socket is full) the write that waits and the kernel's buffer. Near the bound new
//! connections are turned away. Nearer still those are ended that have taken nothing for longest: they
//! are what holds memory for nobody's use.

use std::{fs, path::Path};

/// A stream that keeps up: its session, its filter, and what the kernel has of a socket.
const STREAM_BYTES: usize = 4 << 10;
/// What HTTP takes for a connection, beside its head.
const HTTP_BYTES: usize = 15 << 10;
/// From here on new connections are turned away, in percent.
const REFUSE_FROM: usize = 85;
/// From here on those are ended that take nothing.
const RELIEVE_FROM: usize = 95;
/// As far as that is done.
const RELIEVE_TO: usize = 90;

/// What the sum is made with.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// The bound.
    pub bytes_max: usize,
    /// What the kernel holds for a connection whose socket is full.
    pub kernel_bytes: usize,
    /// What waits to be written to one.
    pub unsent_bytes: usize,
    /// A request's head.
    pub head_bytes: usize,
}

/// What there is.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// Bytes of the ring and the newest values.
    pub(super) shared_bytes: usize,
    /// Streams that have left HTTP.
    pub(super) streams: usize,
    /// Those of them whose socket is full.
    pub(super) blocked: usize,
    /// Other connections.
    pub(super) in_http: usize,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The sum.
    pub(super) bytes: usize,
    /// There is no room for new connections.
    pub(super) is_full: bool,
    /// As many streams are to be ended, of those whose socket is full.
    pub(super) surplus: usize,
}

impl Config {
    /// What one holds that takes nothing, beside what one does that keeps up.
    fn blocked_bytes(&self) -> usize {
        (self.kernel_bytes + self.unsent_bytes).max(1)
    }

    pub(super) fn judge(&self, load: Load) -> Verdict {
        let parts = [
            load.shared_bytes,
            load.streams.saturating_mul(STREAM_BYTES),
            load.blocked.saturating_mul(self.blocked_bytes()),
            load.in_http.saturating_mul(HTTP_BYTES + self.head_bytes),
        ];
        let bytes = parts.into_iter().fold(0, usize::saturating_add);
        // Divided first: the product of a bound of a terabyte would do, but nobody should wonder.
        let share = |percent: usize| self.bytes_max / 100 * percent;
        let surplus = match bytes >= share(RELIEVE_FROM) {
            true => (bytes - share(RELIEVE_TO)).div_ceil(self.blocked_bytes()).min(load.blocked),
            false => 0,
        };
        Verdict { bytes, is_full: bytes >= share(REFUSE_FROM), surplus }
    }
}

/// The bound where none is configured: half of what this process may have, by its control groups or
/// the machine. The other half is for what the sum does not know: the program, the upstream, answers
/// under way, and what an allocator keeps.
pub fn memory_max_auto() -> usize {
    let groups = fs::read_to_string("/proc/self/cgroup").ok();
    let of_group = groups.as_deref().and_then(|groups| {
        limit_of_group(groups, |path| fs::read_to_string(path.join("memory.max")).ok())
    });
    let of_machine = fs::read_to_string("/proc/meminfo").ok().as_deref().and_then(total_of_machine);
    let all = [of_group, of_machine].into_iter().flatten().min();
    // Where neither is known: a small machine.
    usize::try_from(all.unwrap_or(1 << 30) / 2).unwrap_or(usize::MAX)
}

/// The least limit of the group and of those that it is in (cgroup v2, `memory.max`).
fn limit_of_group(groups: &str, read: impl Fn(&Path) -> Option<String>) -> Option<u64> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let folder = Path::new("/sys/fs/cgroup").join(group);
    let inside = folder.ancestors().take_while(|path| path.starts_with("/sys/fs/cgroup"));
    // `max` is no limit.
    inside.filter_map(|path| read(path)?.trim().parse().ok()).min()
}

/// `MemTotal` of `/proc/meminfo`, in bytes.
fn total_of_machine(text: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;
    const CONFIG: Config = Config {
        bytes_max: 100 * MIB,
        kernel_bytes: 64 << 10,
        unsent_bytes: 32 << 10,
        head_bytes: 16 << 10,
    };

    #[test]
    fn the_sum_is_that_of_the_documents() {
        let load = Load { shared_bytes: 7, streams: 10, blocked: 3, in_http: 2 };
        let bytes = 7 + 10 * (4 << 10) + 3 * (96 << 10) + 2 * (31 << 10);
        assert_eq!(CONFIG.judge(load), Verdict { bytes, is_full: false, surplus: 0 });
        let much = Load { streams: usize::MAX, blocked: usize::MAX, ..load };
        assert_eq!(CONFIG.judge(much).bytes, usize::MAX);
    }

    #[test]
    fn first_new_ones_are_refused_then_those_ended_that_take_nothing() {
        let shared = |percent: usize| Load { shared_bytes: percent * MIB, ..Load::default() };
        assert!(!CONFIG.judge(shared(84)).is_full);
        assert!(CONFIG.judge(shared(85)).is_full);
        assert_eq!(CONFIG.judge(shared(99)).surplus, 0, "nobody's ending would help");
        // 64 MiB shared and 500 × 96 KiB blocked are some 111 MiB: 21 MiB too much.
        let load = Load { shared_bytes: 64 * MIB, streams: 0, blocked: 500, in_http: 0 };
        let Verdict { bytes, is_full, surplus } = CONFIG.judge(load);
        assert!(is_full);
        let left = CONFIG.judge(Load { blocked: 500 - surplus, ..load });
        assert!(left.bytes <= 90 * MIB && left.bytes + (96 << 10) > 89 * MIB, "{bytes} {left:?}");
        let most = Load { shared_bytes: 99 * MIB, blocked: 3, ..Load::default() };
        assert_eq!(CONFIG.judge(most).surplus, 3);
    }

    #[test]
    fn the_least_limit_of_all_groups_counts() {
        let read = |path: &Path| {
            Some(match path.to_str()? {
                "/sys/fs/cgroup/system.slice/fanlight.service" => "max\n".to_owned(),
                "/sys/fs/cgroup/system.slice" => "1073741824\n".to_owned(),
                "/sys/fs/cgroup" => return None,
                other => panic!("{other}"),
            })
        };
        let groups = "1:name=systemd:/x\n0::/system.slice/fanlight.service\n";
        assert_eq!(limit_of_group(groups, read), Some(1 << 30));
        assert_eq!(limit_of_group("0::/\n", |_| Some("4096\n".to_owned())), Some(4096));
        assert_eq!(limit_of_group("4:memory:/x\n", |_| panic!()), None);
        let text = "MemTotal:        8000000 kB\nMemFree:          123 kB\n";
        assert_eq!(total_of_machine(text), Some(8_192_000_000));
        assert!(memory_max_auto() > 1 << 20);
    }
}
