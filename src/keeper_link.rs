//! The campaigner's side of the connection to its keeper: messages in both directions, and the keeper's death.
//!
//! Sending never waits. A message that finds no room stays in the outbox, in order, until the socket is writable. A
//! closed socket is not yet a death: [`KeeperLink::check_death`] reports that, once the keeper is reaped (K4).

use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tracing::error;

use crate::async_fd;
use elect_core::{BackgroundHookEnd, CheckEnd, FromKeeper, Time};
use elect_keeper::{Claim, Keeper, Outbox, Received, ToKeeper};

/// The time within which a dismissed keeper must exit before it is killed.
const KEEPER_EXIT_TIMEOUT: Duration = Duration::from_secs(2);
/// The pause between two sweeps over the processes of a killed keeper.
const SWEEP_INTERVAL: Duration = Duration::from_millis(5);
/// The shortest pause between two readings of the list of inherited children.
const REFRESH_PAUSE: Duration = Duration::from_millis(250);

/// The operations of a keeper that the link needs. They are those of [`Keeper`]; tests have a keeper of their own.
pub trait KeeperProcess: AsRawFd {
    /// Sends without waiting.
    fn send(&self, message: &ToKeeper) -> io::Result<()>;
    /// Takes the next message of the keeper.
    fn receive(&self) -> Received<Option<FromKeeper>>;
    /// Kills the keeper itself.
    fn kill(&self);
    /// Begins to kill everything below the keeper. Returns whether there may be more.
    fn kill_tree(&mut self) -> bool;
    /// Kills the next batch.
    fn kill_more(&mut self) -> bool;
    /// Reaps children. Returns whether the keeper has exited.
    fn reap(&mut self) -> bool;
    /// Kills the processes that a dead keeper left, a batch at a time. Returns whether none is left.
    fn sweep(&mut self) -> bool;
    /// Whether a sweep has more than one batch to kill.
    fn is_sweeping(&self) -> bool;
    /// Saves the state of the terminal before a start.
    fn note_terminal(&mut self);
    /// Restores the terminal after the keeper's death.
    fn take_terminal_back(&mut self);
    /// Updates the list of children that elect inherited, while the keeper lives.
    fn refresh_preexisting_children(&mut self);
}

impl KeeperProcess for Keeper {
    fn send(&self, message: &ToKeeper) -> io::Result<()> {
        Keeper::send(self, message)
    }
    fn receive(&self) -> Received<Option<FromKeeper>> {
        Keeper::receive(self)
    }
    fn kill(&self) {
        Keeper::kill(self);
    }
    fn kill_tree(&mut self) -> bool {
        Keeper::kill_tree(self)
    }
    fn kill_more(&mut self) -> bool {
        Keeper::kill_more(self)
    }
    fn reap(&mut self) -> bool {
        Keeper::reap(self)
    }
    fn sweep(&mut self) -> bool {
        Keeper::sweep(self)
    }
    fn is_sweeping(&self) -> bool {
        Keeper::is_sweeping(self)
    }
    fn note_terminal(&mut self) {
        Keeper::note_terminal(self);
    }
    fn take_terminal_back(&mut self) {
        Keeper::take_terminal_back(self);
    }
    fn refresh_preexisting_children(&mut self) {
        Keeper::refresh_preexisting_children(self);
    }
}

/// An event of the connection.
#[derive(Debug)]
pub enum KeeperWakeup {
    /// The keeper has sent this.
    Message(FromKeeper),
    /// The keeper has closed its end.
    Eof,
    /// The socket has room again for the outbox.
    Writable,
}

/// The connection to the keeper, and the state of the keeper as a process.
pub struct KeeperLink<K: KeeperProcess = Keeper> {
    keeper: AsyncFd<K>,
    is_connected: bool,
    has_died: bool,
    /// The tree is being killed from the campaigner, and there may be more of it than the last batch.
    is_killing: bool,
    /// When the list of inherited children was read last.
    refreshed_at: Option<Time>,
    /// The messages that the socket had no room for, in order.
    outbox: Outbox,
}

impl<K: KeeperProcess> KeeperLink<K> {
    /// Watches the keeper's socket. Must be called inside a runtime.
    ///
    /// # Errors
    ///
    /// The socket cannot be watched.
    pub fn new(keeper: K) -> io::Result<KeeperLink<K>> {
        let keeper = async_fd::watch(keeper, Interest::READABLE | Interest::WRITABLE)?;
        Ok(KeeperLink {
            keeper,
            is_connected: true,
            has_died: false,
            is_killing: false,
            refreshed_at: None,
            outbox: Outbox::default(),
        })
    }

    // ---- messages

    /// The next event of the connection; pending forever once it is closed. Cancel safe.
    ///
    /// # Errors
    ///
    /// The runtime no longer watches the socket.
    pub async fn next(&mut self) -> io::Result<KeeperWakeup> {
        if !self.is_connected {
            return std::future::pending().await;
        }
        loop {
            tokio::select! {
                biased;
                ready = self.keeper.readable() => {
                    let mut ready = ready?;
                    match ready.get_inner().receive() {
                        Received::Message(Some(message)) => return Ok(KeeperWakeup::Message(message)),
                        Received::Message(None) | Received::Incomplete => {}
                        Received::Nothing => ready.clear_ready(),
                        Received::End => {
                            self.is_connected = false;
                            return Ok(KeeperWakeup::Eof);
                        }
                    }
                }
                ready = self.keeper.writable(), if !self.outbox.is_empty() => {
                    ready?.clear_ready();
                    return Ok(KeeperWakeup::Writable);
                }
            }
        }
    }

    /// The next message, if it has arrived already. Unreadable messages are skipped.
    pub fn try_receive(&self) -> Option<FromKeeper> {
        loop {
            match self.keeper.get_ref().receive() {
                Received::Message(Some(message)) => return Some(message),
                Received::Message(None) | Received::Incomplete => {}
                Received::Nothing | Received::End => return None,
            }
        }
    }

    /// Sends a message behind all earlier ones. Returns like [`KeeperLink::flush`].
    #[must_use]
    pub fn send(&mut self, message: ToKeeper) -> Vec<FromKeeper> {
        // A program starts over an empty tree: a kill of the previous tree must not reach it.
        if matches!(message, ToKeeper::Start { .. }) {
            self.is_killing = false;
        }
        self.outbox.push(message);
        self.flush()
    }

    /// Sends as much of the outbox as there is room for. Returns the answers to messages that can never be sent: a hook
    /// beside the command fails, and so does a health check. Without any other message the keeper is of no use, and is killed (K4).
    #[must_use]
    pub fn flush(&mut self) -> Vec<FromKeeper> {
        let keeper = self.keeper.get_ref();
        let mut answers = Vec::new();
        for message in self.outbox.flush(|message| keeper.send(message)) {
            if let ToKeeper::BackgroundHook { .. } = message {
                answers.push(FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(libc::E2BIG)));
            } else if let ToKeeper::StartCheck { check, .. } = message {
                answers.push(FromKeeper::CheckEnded { check, end: CheckEnd::Failed(libc::E2BIG) });
            } else {
                error!("the keeper cannot be told what to do, and is killed");
                keeper.kill();
            }
        }
        answers
    }

    /// Gives the keeper a claim. Returns whether it was sent: the store may not go on before (K2), so that a claim
    /// never waits in the outbox.
    pub fn send_claim(&mut self, claim: Claim) -> bool {
        self.outbox.is_empty() && self.keeper.get_ref().send(&ToKeeper::Claim(claim)).is_ok()
    }

    // ---- the keeper's death

    /// Reaps children. Returns whether the keeper's death was found out just now: then its processes have become
    /// children of this process, the terminal is restored, and the first batch of the processes is killed.
    pub fn check_death(&mut self) -> bool {
        let keeper = self.keeper.get_mut();
        let died = keeper.reap() && !std::mem::replace(&mut self.has_died, true);
        if died {
            keeper.take_terminal_back();
            // A hook that ran without a command may have left processes: the tree is swept until it is empty.
            let _ = keeper.sweep();
        }
        died
    }

    /// Kills the keeper itself.
    pub fn kill(&self) {
        self.keeper.get_ref().kill();
    }

    // ---- the tree

    /// Kills the tree without the keeper's help, beginning with the first batch.
    pub fn kill_tree(&mut self) {
        self.is_killing = self.keeper.get_mut().kill_tree();
    }

    /// Kills the next batch of the tree, so that nothing else waits for all of it. `may_hold_tree` is false once the
    /// keeper has confirmed that its tree is empty. Returns whether there may be more.
    pub fn kill_more(&mut self, may_hold_tree: bool) -> bool {
        let keeper = self.keeper.get_mut();
        if self.has_died {
            if keeper.is_sweeping() && !may_hold_tree {
                let _ = keeper.sweep();
            }
            return keeper.is_sweeping();
        }
        self.is_killing = self.is_killing && may_hold_tree && keeper.kill_more();
        self.is_killing
    }

    /// Kills the next batch of the processes that a dead keeper left. Returns whether none is left.
    pub fn sweep(&mut self) -> bool {
        self.keeper.get_mut().sweep()
    }

    /// Saves the state of the terminal before a command is started.
    pub fn note_terminal(&mut self) {
        self.keeper.get_mut().note_terminal();
    }

    /// Updates the list of children that elect inherited, which are never killed. It takes two walks over them: requests
    /// that make a leader renew in a loop do not lead to more than four a second, nor to one between the batches of a kill.
    pub fn refresh_preexisting_children(&mut self, now: Time) {
        let is_recent = self.refreshed_at.is_some_and(|at| now.since(at) < REFRESH_PAUSE);
        if !is_recent && !self.is_killing {
            self.refreshed_at = Some(now);
            self.keeper.get_mut().refresh_preexisting_children();
        }
    }

    // ---- the end

    /// Kills all that a dead keeper left.
    pub fn finish_sweep(&mut self) {
        while self.has_died && self.keeper.get_ref().is_sweeping() {
            let _ = self.keeper.get_mut().sweep();
        }
    }

    /// Dismisses the keeper and waits for its exit, which closes its copies of the store's descriptors. A keeper that
    /// does not exit in time is killed with its tree: none of its processes may outlive this one. `child_exited`
    /// returns at each SIGCHLD.
    pub async fn dismiss(&mut self, mut child_exited: impl AsyncFnMut()) {
        // A dismissal that cannot be sent leaves the time-out below.
        let _ = self.send(ToKeeper::Dismiss);
        let exit = async {
            while !self.keeper.get_mut().reap() {
                child_exited().await;
            }
        };
        if tokio::time::timeout(KEEPER_EXIT_TIMEOUT, exit).await.is_ok() {
            return;
        }
        let keeper = self.keeper.get_mut();
        let _ = keeper.kill_tree();
        keeper.kill();
        let swept = async {
            while !(keeper.reap() && keeper.sweep()) {
                tokio::time::sleep(SWEEP_INTERVAL).await;
            }
        };
        let _ = tokio::time::timeout(KEEPER_EXIT_TIMEOUT, swept).await;
    }
}

#[cfg(test)]
mod tests;
