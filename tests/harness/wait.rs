//! Waiting for a condition, and the clock that everybody here stamps with.

use std::time::Duration;

use nix::time::{ClockId, clock_gettime};

/// A condition that does not hold by then never will, however slow the machine is. The longest wait that is not a fault
/// is Sentinel's: when its own timer is two seconds late, it does nothing for 30 s (TILT), and a busy machine may
/// delay it twice in a row.
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks, and after a look that itself took long.
const PAUSE: Duration = Duration::from_millis(3);
const PAUSE_MAX: Duration = Duration::from_millis(50);

/// Since boot, suspension included: the clock of elect's deadlines.
pub fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_BOOTTIME).expect("the boot clock exists").into()
}

pub fn since(start: Duration) -> Duration {
    now().saturating_sub(start)
}

/// Returns once `holds` does.
#[track_caller]
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    eventually(what, || holds().then_some(()));
}

/// Returns what `found` finds, once it does.
#[track_caller]
pub fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    let start = now();
    loop {
        let look = now();
        if let Some(found) = found() {
            return found;
        }
        assert!(since(start) < LIMIT, "waited {} s in vain: {what}", LIMIT.as_secs());
        // A look that starts a program must not leave elect without a processor.
        std::thread::sleep((since(look) * 2).clamp(PAUSE, PAUSE_MAX));
    }
}

/// Watches that `holds` goes on doing so: that something does *not* happen can only be seen by looking for a while.
#[track_caller]
pub fn throughout(window: Duration, what: &str, mut holds: impl FnMut() -> bool) {
    let start = now();
    while since(start) < window {
        assert!(holds(), "not any more after {} ms: {what}", since(start).as_millis());
        std::thread::sleep(PAUSE * 5);
    }
}
