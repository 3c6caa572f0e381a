//! What the system says of this process: processor time, memory, descriptors. Nothing is known where there is no `/proc`.

use std::fs;
use std::time::Duration;

use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// What is known of this process.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Process {
    /// Its processor time.
    pub(super) cpu: Option<Duration>,
    /// File descriptors that are open.
    pub(super) open_fds: Option<u64>,
    /// File descriptors that may be.
    pub(super) max_fds: Option<u64>,
    /// Bytes of virtual memory.
    pub(super) virtual_bytes: Option<u64>,
    /// Bytes that are in use.
    pub(super) resident_bytes: Option<u64>,
    /// Threads.
    pub(super) threads: Option<u64>,
}

impl Process {
    /// Reads it now.
    pub(super) fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let field = |name: &str| -> Option<u64> {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_whitespace().next()?.parse().ok()
        };
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let open = fs::read_dir("/proc/self/fd").ok();
        Self {
            cpu: Duration::try_from(cpu).ok(),
            // The directory itself is open meanwhile.
            open_fds: open.map(|all| (all.count() as u64).saturating_sub(1)),
            max_fds: getrlimit(Resource::Nofile).current,
            virtual_bytes: field("VmSize:").map(|kibi| kibi * 1024),
            resident_bytes: field("VmRSS:").map(|kibi| kibi * 1024),
            threads: field("Threads:"),
        }
    }
}
