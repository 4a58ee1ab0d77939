//! Whether a lock file that this candidate has locked excludes the last leader, which may have locked an earlier file of the
//! same path.
//!
//! The path may have been emptied, renamed, mounted over or replaced by a link. A live leader notices that within a second,
//! and kills its command; a leader whose campaigner is dead or stopped is found by the lock that its tree holds.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::lock_holders::{Earlier, Search};
use super::lock_label::LockLabel;
use super::record_file::FileRecord;
use super::session::Session;
use crate::store::Notifier;
use crate::store::record::RecordState;
use elect_core::Time;
use elect_keeper::clock;

/// A leader looks after its lock once a second; a lock file other than the one that a living leader holds is therefore
/// noticed, and the command killed, well within this time.
pub const NEWCOMER_WAIT: Duration = Duration::from_secs(3);
/// How long a question waits for the search. A later result is announced by a hint.
const SEARCH_WAIT_MAX: Duration = Duration::from_millis(50);
/// Between two searches while an earlier lock file is held; longer where a search takes long.
const SEARCH_INTERVAL_MIN: Duration = Duration::from_millis(100);

/// The knowledge about earlier lock files of the path.
#[derive(Debug, Default)]
pub struct NewcomerWait {
    since: Option<Time>,
    search: Option<(Time, oneshot::Receiver<Search>)>,
    /// No process was seen to hold one.
    is_clean: bool,
    /// The reason why a holder may still have been overlooked.
    blind: Option<&'static str>,
}

/// Not yet.
#[derive(Debug)]
pub struct NewcomerMustWait {
    /// `None`: it is being found out.
    pub obstacle: Option<String>,
    pub again: Duration,
}

impl NewcomerWait {
    /// Asked under both locks of the session.
    ///
    /// Cancel safe.
    pub async fn settled(
        &mut self,
        session: &Session,
        label: &LockLabel,
        recorded: Option<&FileRecord>,
        hints: &Notifier,
    ) -> io::Result<Result<(), NewcomerMustWait>> {
        let present = session.file();
        let said = session.label()?;
        let is_recorded = recorded.is_some_and(|found| found.lock == present);
        let led = recorded.filter(|found| found.lock != present && found.record.state == RecordState::Held);
        let lost = led.map(|found| found.lock);
        // The process that wrote that, or led here, had found out already. Of another path and this file a look is enough.
        if lost.is_none() && (said.as_ref() == Some(label) || said.is_none() && is_recorded) {
            return Ok(Ok(()));
        }
        let now = clock::now();
        let due = *self.since.get_or_insert(now) + NEWCOMER_WAIT;
        let unsettled =
            |obstacle: String, again: Duration| Ok(Err(NewcomerMustWait { obstacle: Some(obstacle), again }));
        if lost.is_some() && now < due {
            let obstacle = "the lock file is a new one: waiting for the last leader to notice";
            return unsettled(obstacle.to_owned(), due.since(now).max(SEARCH_INTERVAL_MIN));
        }
        if !self.is_clean {
            let earlier = Earlier { present, label: label.clone(), recorded: lost };
            let Some((took, found)) = self.search(earlier, hints).await? else {
                return Ok(Err(NewcomerMustWait { obstacle: None, again: SEARCH_INTERVAL_MIN }));
            };
            if found.holders.any() {
                let obstacle = format!("the lock file is a new one; on the old one {}", found.holders.describe());
                return unsettled(obstacle, SEARCH_INTERVAL_MIN.max(took * 10));
            }
            (self.is_clean, self.blind) = (true, found.blind);
        }
        match self.blind {
            Some(blind) if said.is_none() && clock::now() < due => {
                let obstacle = format!("the lock file is a new one: a leader has 3 s to notice, because {blind}");
                unsettled(obstacle, due.since(clock::now()).max(Duration::from_millis(1)))
            }
            _ => Ok(Ok(())),
        }
    }

    /// The result of a search in a thread of its own, and how long it took; `None`: it goes on.
    async fn search(&mut self, earlier: Earlier, hints: &Notifier) -> io::Result<Option<(Duration, Search)>> {
        if self.search.is_none() {
            let (sender, receiver) = oneshot::channel();
            let (began, hints, earlier) = (clock::now(), hints.clone(), Arc::new(earlier));
            let beside = Arc::clone(&earlier);
            let job = move || {
                if sender.send(beside.search()).is_ok() {
                    hints.changed();
                }
            };
            if std::thread::Builder::new().name("search".to_owned()).stack_size(256 * 1024).spawn(job).is_err() {
                // At a full process table the search is made here: nothing is held yet that it could delay.
                let found = earlier.search();
                return Ok(Some((clock::now().since(began), found)));
            }
            self.search = Some((began, receiver));
        }
        let Some((began, receiver)) = &mut self.search else { return Ok(None) };
        let began = *began;
        let Ok(answer) = timeout(SEARCH_WAIT_MAX, receiver).await else { return Ok(None) };
        self.search = None;
        let found = answer.map_err(|_| io::Error::other("the search for earlier locks has ended"))?;
        Ok(Some((clock::now().since(began), found)))
    }
}
