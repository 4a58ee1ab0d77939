//! One request at a time, each with a number and a time limit.

use super::time::Time;
use super::timing::Timing;
use crate::{Answer, Attempt, Campaigned, Renewed};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreRequestKind {
    Campaign,
    Renew,
    Release,
    Observe,
}

impl StoreRequestKind {
    fn is_answered_by(self, answer: Answer) -> bool {
        match answer {
            Answer::Campaign(_) => self == StoreRequestKind::Campaign,
            Answer::Renew(_) => self == StoreRequestKind::Renew,
            Answer::Release(_) => self == StoreRequestKind::Release,
            Answer::Observe(_) => self == StoreRequestKind::Observe,
        }
    }

    /// The failure that stands for the answer of a request that timed out.
    fn failure(self) -> Answer {
        match self {
            StoreRequestKind::Campaign => Answer::Campaign(Campaigned::Failed),
            StoreRequestKind::Renew => Answer::Renew(Renewed::Failed),
            StoreRequestKind::Release => Answer::Release(false),
            StoreRequestKind::Observe => Answer::Observe(false),
        }
    }
}

#[derive(Debug)]
struct Outstanding {
    attempt: Attempt,
    kind: StoreRequestKind,
    until: Time,
}

/// Numbers the requests and tells the current one's reply from all others.
#[derive(Debug, Default)]
pub(super) struct StoreRequests {
    last: u64,
    outstanding: Option<Outstanding>,
}

impl StoreRequests {
    /// Opens a new attempt; a reply to an earlier one is ignored from now on.
    pub(super) fn open(&mut self, kind: StoreRequestKind, now: Time, timing: &Timing) -> Attempt {
        self.last += 1;
        let attempt = Attempt(self.last);
        self.outstanding = Some(Outstanding { attempt, kind, until: now + timing.request_timeout() });
        attempt
    }

    pub(super) fn latest(&self) -> Attempt {
        Attempt(self.last)
    }

    pub(super) fn is_idle(&self) -> bool {
        self.outstanding.is_none()
    }

    pub(super) fn abandon(&mut self) {
        self.outstanding = None;
    }

    /// The answer, if it is the one we are waiting for; a doubled or late one is not.
    pub(super) fn accept(&mut self, attempt: Attempt, answer: Answer) -> Option<Answer> {
        let open = self.outstanding.as_ref()?;
        if open.attempt != attempt || !open.kind.is_answered_by(answer) {
            return None;
        }
        self.outstanding = None;
        Some(answer)
    }

    /// A failure in place of the answer that did not come in time.
    pub(super) fn expire(&mut self, now: Time) -> Option<Answer> {
        self.outstanding.take_if(|open| now >= open.until).map(|open| open.kind.failure())
    }

    pub(super) fn wake_at(&self) -> Time {
        self.outstanding.as_ref().map_or(Time::NEVER, |open| open.until)
    }
}
