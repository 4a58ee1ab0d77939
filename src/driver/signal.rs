//! What signals to the campaigner mean.

use tracing::debug;

use super::Driver;
use crate::signals::SignalEvent;
use elect_core::{Event, Signal};
use elect_keeper::ToKeeper;

impl Driver {
    pub(super) fn on_signal(&mut self, signal: SignalEvent) {
        match signal {
            SignalEvent::Stop(number) if self.job_control.take_self_signal(number) => {}
            SignalEvent::Stop(number) => self.handle(Event::Stop(Signal(number))),
            SignalEvent::Forward(libc::SIGHUP) if !self.has_command() => self.on_hangup(),
            SignalEvent::Forward(number) => self.handle(Event::Forward(Signal(number))),
            SignalEvent::Child => {
                self.drain_keeper();
                let died = self.keeper.check_death();
                self.handle(if died { Event::KeeperDied } else { Event::Tick });
            }
            SignalEvent::Continued => {
                self.resume();
                if !self.has_terminal {
                    self.handle(Event::Forward(Signal(libc::SIGCONT)));
                }
            }
        }
    }

    /// SIGHUP while no command runs. A terminal that is gone ends the job; to a daemon it means "read your
    /// configuration again", and is for a command that is not there just now.
    fn on_hangup(&mut self) {
        if self.has_terminal && !self.candidate.is_between_runs() {
            self.handle(Event::Stop(Signal(libc::SIGHUP)));
        } else {
            debug!("SIGHUP ignored: no command runs that it could be for");
        }
    }

    /// After a suspension of any length: the deadlines first. A command that is still to run is continued with elect.
    pub(super) fn resume(&mut self) {
        self.pass_time();
        self.send(ToKeeper::Resume);
    }

    fn has_command(&self) -> bool {
        (self.candidate.phase().may_have_command() && self.has_command) || self.candidate.has_a_follower()
    }
}
