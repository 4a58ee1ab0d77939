//! The announcements on a connection as flags, because a thousand of them say no more than one, and the reason of its end.
//!
//! The stream of a connection sets the flags ([`reply_filter`](super::reply_filter)), one listener waits for them. Nothing is
//! queued, so that no flood of announcements can fill the memory.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use tokio::sync::Notify;

use super::reply_filter::Excess;

/// The kinds of announcements that came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HintKind {
    /// The record may be another one.
    Change,
    /// The same, told to so many at once: all of them together must not look.
    ChangeForMany(u32),
    /// The lease was renewed, and nothing else has changed.
    Renewal,
    /// The connection has ended; nothing more will come.
    End,
}

/// The word that announces a renewal.
const RENEWAL: &[u8] = b"renewed";

/// The ear of one connection.
#[derive(Debug, Default)]
pub struct HintFlags {
    has_change: AtomicBool,
    /// Of a change that many are told; 0: none.
    listeners: AtomicU32,
    has_renewal: AtomicBool,
    has_end: AtomicBool,
    excess: OnceLock<Excess>,
    bell: Notify,
}

impl HintFlags {
    /// A message has come on a channel.
    pub fn hears(&self, word: &[u8]) {
        let is_news = match listeners(word) {
            0 if word == RENEWAL => !self.has_renewal.swap(true, Ordering::Relaxed),
            0 => !self.has_change.swap(true, Ordering::Relaxed),
            many => self.listeners.fetch_max(many, Ordering::Relaxed) == 0,
        };
        if is_news {
            self.bell.notify_one();
        }
    }

    /// The connection has ended.
    pub fn ends(&self) {
        self.has_end.store(true, Ordering::Relaxed);
        self.bell.notify_one();
    }

    /// The connection is ended because of this. The client loses the cause of an end when it awaits more than one reply.
    pub fn exceeds(&self, excess: Excess) {
        // The first one is the cause.
        let _ = self.excess.set(excess);
    }

    /// Whether, and by what, the limits on what a server may send were exceeded.
    pub fn excess(&self) -> Option<Excess> {
        self.excess.get().copied()
    }

    /// The announcements since the last call, the most important first.
    pub fn take(&self) -> Option<HintKind> {
        if self.has_change.swap(false, Ordering::Relaxed) {
            // A change is told, and who reads the record sees the renewal too.
            self.has_renewal.store(false, Ordering::Relaxed);
            self.listeners.store(0, Ordering::Relaxed);
            return Some(HintKind::Change);
        }
        match self.listeners.swap(0, Ordering::Relaxed) {
            0 => {}
            many => return Some(HintKind::ChangeForMany(many)),
        }
        if self.has_end.load(Ordering::Relaxed) {
            return Some(HintKind::End);
        }
        self.has_renewal.swap(false, Ordering::Relaxed).then_some(HintKind::Renewal)
    }

    /// Waits for the next. Cancel safe.
    pub async fn next(&self) -> HintKind {
        loop {
            if let Some(heard) = self.take() {
                return heard;
            }
            self.bell.notified().await;
        }
    }
}

/// The number behind the word, with which a change is announced to many; 0 if there is none.
fn listeners(word: &[u8]) -> u32 {
    let number = str::from_utf8(word).ok().and_then(|word| word.split_once(' ')?.1.parse().ok());
    number.unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_number_of_announcements_is_one() {
        let ear = HintFlags::default();
        for word in [&b"renewed"[..], b"taken", b"renewed", b"freed"] {
            (0..1000).for_each(|_| ear.hears(word));
        }
        assert_eq!([ear.take(), ear.take()], [Some(HintKind::Change), None]);
        for word in [&b"taken 17"[..], b"renamed 500", b"renewed", b"taken 30"] {
            ear.hears(word);
        }
        let told = [ear.take(), ear.take(), ear.take()];
        assert_eq!(told, [Some(HintKind::ChangeForMany(500)), Some(HintKind::Renewal), None]);
        for word in [&b"taken 500"[..], b"freed"] {
            ear.hears(word);
        }
        assert_eq!([ear.take(), ear.take()], [Some(HintKind::Change), None], "a look sees both");
        for word in [&b"taken 0"[..], b"taken many", b"taken -1", b"taken 99999999999", b"\xff 7"] {
            ear.hears(word);
            assert_eq!([ear.take(), ear.take()], [Some(HintKind::Change), None], "{word:?}");
        }
        ear.hears(b"renewed");
        ear.ends();
        assert_eq!([ear.take(), ear.take()], [Some(HintKind::End), Some(HintKind::End)]);
    }

    #[tokio::test]
    async fn who_waits_is_woken() {
        let ear = HintFlags::default();
        let announces = async {
            tokio::task::yield_now().await;
            ear.hears(b"freed");
        };
        assert_eq!(tokio::join!(ear.next(), announces).0, HintKind::Change);
    }
}
