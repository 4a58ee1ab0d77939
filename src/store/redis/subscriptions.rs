//! The channels that a candidate's connection listens on, and what becomes of the announcements: the boundary's channel, and that of
//! one of the boundary's groups of candidates.
//!
//! Among many candidates a release is told to a few groups, so that not all of them ask at once (`release.lua`). A group counts its
//! listeners as candidates that would take a free record at once: a spare, or a candidate that only observes, is in none. The user may
//! lack a right: without that to a group's channel, or to know how many listen, all are told as one.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::Cmd;
use tokio::time::{Instant, sleep, sleep_until};

use super::hint_flags::{HintFlags, HintKind};

/// So many groups has each boundary: fewer would be large ones among a thousand candidates.
const GROUPS: u32 = 64;
/// Between two hints, however many announcements there are.
const HINT_INTERVAL: Duration = Duration::from_millis(10);
/// Between the looks of two of many that are told at once, on average; a look costs the server a fifth of that.
const LOOK_INTERVAL: Duration = Duration::from_micros(500);
/// All of them have looked by then.
const LOOK_DELAY_MAX: Duration = Duration::from_secs(1);

/// The channel of a random group of the candidates in a database. It begins like the boundary's, for the sake of the user's rights; no
/// boundary has a tab in its name.
pub fn group_channel(channel: &str, db: i64) -> String {
    format!("{channel}\t{db}\t{}", fastrand::u32(..GROUPS))
}

/// The channels of one connection: what was asked for, and what is to be asked for together with the next script.
#[derive(Debug, Default)]
pub struct Subscriptions {
    changes: Vec<SubscriptionChange>,
    group: Option<String>,
    is_group_refused: bool,
    may_not_leave: bool,
}

/// One command. One for each channel: the server refuses a command because of one of its channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SubscriptionChange {
    /// The boundary's channel.
    Subscribe(String),
    /// A group's.
    Join(String),
    /// A group is left.
    Leave(String),
    /// The same, if the user may.
    TryToLeave(String),
}

/// The state of the connection after the answer to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Subscribed {
    /// It serves.
    Yes,
    /// The boundary's channel is not heard: an error.
    No,
    /// It is to be replaced by another one after this attempt.
    Unusable,
}

impl SubscriptionChange {
    pub fn command(&self) -> Cmd {
        let (command, channel) = match self {
            SubscriptionChange::Subscribe(channel) | SubscriptionChange::Join(channel) => ("SUBSCRIBE", channel),
            SubscriptionChange::Leave(channel) | SubscriptionChange::TryToLeave(channel) => ("UNSUBSCRIBE", channel),
        };
        let mut command = redis::cmd(command);
        command.arg(channel);
        command
    }
}

impl Subscriptions {
    /// The boundary's channel is listened on.
    pub fn subscribe(&mut self, channel: &str) {
        self.changes.push(SubscriptionChange::Subscribe(channel.to_owned()));
    }

    /// A group is joined, unless that was refused before. Asking twice is asking once.
    pub fn join(&mut self, group: &str) {
        if self.group.is_none() && !self.is_group_refused {
            self.group = Some(group.to_owned());
            self.changes.push(SubscriptionChange::Join(group.to_owned()));
        }
    }

    /// The group is left, if there is one. A connection that may not leave it is replaced.
    pub fn leave(&mut self) {
        self.changes.extend(self.group.take().map(SubscriptionChange::Leave));
    }

    /// The group is left, if there is one and the user may.
    pub fn try_to_leave(&mut self) {
        if !self.may_not_leave {
            self.changes.extend(self.group.take().map(SubscriptionChange::TryToLeave));
        }
    }

    pub fn take_changes(&mut self) -> Vec<SubscriptionChange> {
        std::mem::take(&mut self.changes)
    }

    /// The server has answered to a change.
    pub fn answered(&mut self, change: &SubscriptionChange, is_refused: bool) -> Subscribed {
        match change {
            SubscriptionChange::Subscribe(_) if is_refused => Subscribed::No,
            SubscriptionChange::Join(_) if is_refused => {
                (self.group, self.is_group_refused) = (None, true);
                Subscribed::Yes
            }
            // The group would go on counting it. An end of the connection needs no right.
            SubscriptionChange::Leave(_) if is_refused => Subscribed::Unusable,
            SubscriptionChange::TryToLeave(group) if is_refused => {
                (self.group, self.may_not_leave) = (Some(group.clone()), true);
                Subscribed::Yes
            }
            SubscriptionChange::Subscribe(_)
            | SubscriptionChange::Join(_)
            | SubscriptionChange::Leave(_)
            | SubscriptionChange::TryToLeave(_) => Subscribed::Yes,
        }
    }
}

/// Tells the candidate of announcements, until the connection ends.
pub async fn pass_on(ear: Arc<HintFlags>, undecided: Rc<Cell<bool>>, tell: impl Fn()) {
    let mut look_at = None;
    loop {
        let heard = match look_at {
            None => ear.next().await,
            Some(at) => tokio::select! {
                biased;
                () = sleep_until(at) => HintKind::Change,
                heard = ear.next() => heard,
            },
        };
        match heard {
            HintKind::Renewal if !undecided.get() => {}
            HintKind::Renewal | HintKind::Change => {
                look_at = None;
                tell();
                // A flood of announcements must not become a flood of questions.
                sleep(HINT_INTERVAL).await;
            }
            HintKind::ChangeForMany(listeners) => {
                look_at = look_at.or_else(|| Some(Instant::now() + look_delay(listeners)));
            }
            HintKind::End => {
                // The next question begins another connection.
                if look_at.is_some() {
                    tell();
                }
                return;
            }
        }
    }
}

/// A random time, so that the looks of so many do not come at once.
fn look_delay(listeners: u32) -> Duration {
    LOOK_INTERVAL.saturating_mul(listeners).min(LOOK_DELAY_MAX).mul_f64(fastrand::f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When a listener passes on what it hears at the beginning and after 5 ms, as long as it hears nothing else for 2 s.
    async fn passed_on(first: &[u8], then: Option<&[u8]>) -> Vec<Duration> {
        let (ear, told, start) =
            (Arc::<HintFlags>::default(), Rc::<std::cell::RefCell<Vec<Duration>>>::default(), Instant::now());
        let tell = || told.borrow_mut().push(start.elapsed());
        let talk = async {
            ear.hears(first);
            sleep(Duration::from_millis(5)).await;
            if let Some(word) = then {
                ear.hears(word);
            }
            sleep(Duration::from_secs(2)).await;
            ear.ends();
        };
        tokio::join!(pass_on(Arc::clone(&ear), Rc::default(), tell), talk);
        told.take()
    }

    #[test]
    fn the_looks_of_many_are_spread_and_a_release_is_passed_on_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let soon = Duration::from_millis(5);
            assert!(passed_on(b"taken", None).await[0] < soon);
            assert!(passed_on(b"renewed", None).await.is_empty());
            let mut looks = Vec::new();
            for _ in 0..100 {
                let told = passed_on(b"taken 500", Some(b"renewed")).await;
                assert_eq!(told.len(), 1, "{told:?}");
                looks.push(told[0]);
                assert!(!passed_on(b"taken 4000000000", None).await.is_empty(), "within two seconds");
            }
            looks.sort_unstable();
            assert!(looks[99] <= Duration::from_millis(251), "{looks:?}");
            assert!(looks[75].saturating_sub(looks[25]) > Duration::from_millis(50), "{looks:?}");
            assert_eq!(
                passed_on(b"taken 4000000000", Some(b"taken 17")).await.len(),
                1,
                "once, and within two seconds"
            );
            let told = passed_on(b"taken 4000000000", Some(b"freed")).await;
            assert!(told[0] <= Duration::from_millis(6), "{told:?}");
        });
    }

    #[test]
    fn a_look_that_waits_is_made_when_the_connection_ends() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            for ends_at_once in [true, false] {
                let (ear, told) = (Arc::<HintFlags>::default(), Cell::new(0));
                ear.hears(b"taken 4000000000");
                if ends_at_once {
                    ear.ends();
                }
                let end = async {
                    sleep(Duration::from_micros(1)).await;
                    ear.ends();
                };
                tokio::join!(pass_on(Arc::clone(&ear), Rc::default(), || told.set(told.get() + 1)), end);
                assert_eq!(told.get(), 1);
            }
        });
    }

    #[test]
    fn groups_are_those_that_a_release_tells() {
        let groups: std::collections::BTreeSet<String> = (0..10_000).map(|_| group_channel("elect:x", 3)).collect();
        let known: std::collections::BTreeSet<String> = (0..64).map(|group| format!("elect:x\t3\t{group}")).collect();
        assert_eq!(groups, known);
    }
}
