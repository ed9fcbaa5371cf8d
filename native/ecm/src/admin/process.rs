//! What Linux says of this process. `None`: it does not say.

use std::fs;

/// Bytes of resident memory.
pub(super) fn resident() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1_024)
}

/// Open descriptors. Linux 6.2 and later tell the number; on older ones they are counted, which takes 0.2 s for a
/// million of them, in the admin thread.
pub(super) fn open_descriptors() -> Option<u64> {
    match fs::metadata("/proc/self/fd").ok()?.len() {
        // With the one that reads the directory.
        0 => u64::try_from(fs::read_dir("/proc/self/fd").ok()?.count()).ok()?.checked_sub(1),
        count => Some(count),
    }
}

/// Most descriptors that may be open.
pub(super) fn max_descriptors() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    /// One descriptor more is told as one more, give or take what other tests open meanwhile.
    #[test]
    fn the_process_is_measured() {
        assert!(resident().unwrap() > 100_000);
        let before = open_descriptors().unwrap();
        let files: Vec<_> = (0..500).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        assert!(open_descriptors().unwrap() >= before + 400);
        assert!(max_descriptors().unwrap() >= before);
        drop(files);
    }
}
