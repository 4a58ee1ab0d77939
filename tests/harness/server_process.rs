//! The process of a server that a test starts: stopped, continued, ended and started again, from any thread.

use std::process::{Child, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::signal::Signal;

use super::{processes, until};

/// Empty before the first start, and after an end that was waited for.
pub struct ServerProcess {
    /// In messages.
    name: &'static str,
    child: Mutex<Option<Child>>,
}

impl ServerProcess {
    pub const fn new(name: &'static str) -> ServerProcess {
        ServerProcess { name, child: Mutex::new(None) }
    }

    pub fn set(&self, child: Child) {
        *self.child() = Some(child);
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child().as_ref().expect("it runs").id()).expect("process ids are small")
    }

    /// Whether it was started, and its end was not waited for.
    pub fn is_started(&self) -> bool {
        self.child().is_some()
    }

    pub fn has_ended(&self) -> Option<ExitStatus> {
        self.child().as_mut().expect("it was started").try_wait().expect("a child of ours")
    }

    /// SIGSTOP: it stands still, and its connections stay.
    #[track_caller]
    pub fn stop(&self) {
        processes::signal(self.pid(), Signal::SIGSTOP);
        until(&format!("{} stands still", self.name), || self.stands_still());
    }

    pub fn stands_still(&self) -> bool {
        processes::state(self.pid()) == Some('T')
    }

    pub fn cont(&self) {
        processes::signal(self.pid(), Signal::SIGCONT);
    }

    /// It is gone when this returns. Nothing happens if it has gone before. On a disk that is frozen it cannot end.
    #[track_caller]
    pub fn end(&self, signal: Signal) {
        if self.child().is_none() {
            return;
        }
        if self.has_ended().is_none() {
            processes::signal(self.pid(), signal);
        }
        until(&format!("{} ends", self.name), || self.has_ended().is_some());
        *self.child() = None;
    }

    /// For the server's own `drop`, which decides what comes before and after.
    pub fn kill(&self) {
        if let Some(mut child) = self.child().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// A test that panicked may have done so while it held it.
    fn child(&self) -> MutexGuard<'_, Option<Child>> {
        self.child.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
