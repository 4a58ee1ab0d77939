//! Job control: elect and its command are one job to the shell, although the command has a process group of its own.

use std::time::Duration;

use crate::event_log;
use elect_core::{Signal, TerminalEvent};

/// The time that the log thread has to write the last line before a suspension.
const LOG_FLUSH_DELAY: Duration = Duration::from_millis(20);

/// The consequence of a terminal event for the driver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobEvent {
    /// The candidate must stop.
    Stop(Signal),
    /// The job was suspended, and continues now.
    Resumed,
}

/// The job that elect and the command belong to.
#[derive(Debug)]
pub struct JobControl {
    /// Whether leadership is a lease, which runs out during a suspension.
    has_lease: bool,
    /// A stop signal that elect has sent to its own group, and that reaches elect as well.
    self_signal: Option<i32>,
    signal_own_group: fn(i32),
}

impl JobControl {
    /// Job control of a candidate that leads by a lease, or by a lock.
    #[must_use]
    pub fn new(has_lease: bool) -> JobControl {
        JobControl { has_lease, self_signal: None, signal_own_group: elect_keeper::signal_own_group }
    }

    /// Whether a stop signal is the one that elect has sent to its own group. Each is recognized once.
    pub fn take_self_signal(&mut self, number: i32) -> bool {
        self.self_signal.take_if(|self_signal| *self_signal == number).is_some()
    }

    /// Handles an event of the terminal. `leads`: the leader command runs; a follower that is stopped is continued by
    /// the keeper, and nothing else stops for it. Returns after the suspension, if there was one.
    pub fn handle(&mut self, event: TerminalEvent, leads: bool) -> Option<JobEvent> {
        match event {
            TerminalEvent::Suspended(_) | TerminalEvent::Stopped(_) if !leads => None,
            TerminalEvent::Stopped(signal) => {
                event_log::command_stopped(signal);
                None
            }
            TerminalEvent::Suspended(_) => {
                self.suspend();
                Some(JobEvent::Resumed)
            }
            // Ctrl-C reached the command alone. It is meant for the whole job, and must not lead to a restart.
            TerminalEvent::Interrupted(signal) => {
                self.self_signal = Some(signal.0);
                (self.signal_own_group)(signal.0);
                Some(JobEvent::Stop(signal))
            }
        }
    }

    /// Ctrl-Z has stopped the command. The shell asks for the next command line only once the whole job is stopped. The
    /// keeper goes on: it kills by the deadline (K1).
    fn suspend(&self) {
        event_log::suspended(self.has_lease);
        // The suspension may last for any time: the log thread gets 20 ms to write this line.
        std::thread::sleep(LOG_FLUSH_DELAY);
        (self.signal_own_group)(libc::SIGTSTP);
        // Either the job was continued, or the kernel did not stop it: no shell could continue an orphaned group or PID
        // 1.
        event_log::resumed();
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    thread_local! {
        static SENT: RefCell<Vec<i32>> = const { RefCell::new(Vec::new()) };
    }

    fn job_control() -> JobControl {
        let signal_own_group = |signal| SENT.with_borrow_mut(|sent| sent.push(signal));
        JobControl { has_lease: true, self_signal: None, signal_own_group }
    }

    #[test]
    fn an_interrupt_of_the_command_stops_the_whole_job_and_its_own_signal_counts_once() {
        let mut job_control = job_control();
        let interrupt = Signal(libc::SIGINT);
        assert_eq!(job_control.handle(TerminalEvent::Interrupted(interrupt), true), Some(JobEvent::Stop(interrupt)));
        assert_eq!(SENT.take(), [libc::SIGINT]);
        assert!(!job_control.take_self_signal(libc::SIGTERM), "another signal");
        assert!(job_control.take_self_signal(libc::SIGINT));
        assert!(!job_control.take_self_signal(libc::SIGINT), "a second Ctrl-C is a second stop");
    }

    #[test]
    fn the_job_is_suspended_with_a_leader_command_alone() {
        let mut job_control = job_control();
        let suspended = TerminalEvent::Suspended(Signal(libc::SIGTSTP));
        assert_eq!(job_control.handle(suspended, false), None);
        assert!(SENT.take().is_empty());
        assert_eq!(job_control.handle(suspended, true), Some(JobEvent::Resumed));
        assert_eq!(SENT.take(), [libc::SIGTSTP]);
        for leads in [false, true] {
            assert_eq!(job_control.handle(TerminalEvent::Stopped(Signal(libc::SIGTTIN)), leads), None);
        }
        assert!(SENT.take().is_empty());
    }
}
