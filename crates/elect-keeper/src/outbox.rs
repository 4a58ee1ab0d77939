//! The campaigner's messages to the keeper that its socket had no room for, in order.
//!
//! No message may block those behind it: a stop or a kill must arrive whatever a record has put into the environment of
//! a program. A message that is too large for the socket is shrunk; one that does not fit even then leaves the queue
//! and is returned to the caller (DESIGN.md 2.5).

use std::collections::VecDeque;
use std::io::{self, ErrorKind};

use tracing::warn;

use super::protocol::ToKeeper;

/// Messages that wait for room.
#[derive(Debug, Default)]
pub struct Outbox {
    waiting: VecDeque<ToKeeper>,
    has_warned: bool,
}

impl Outbox {
    /// Whether everything was sent.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Appends a message. [`Outbox::flush`] sends it.
    pub fn push(&mut self, message: ToKeeper) {
        self.waiting.push_back(message);
    }

    /// Sends as much as there is room for, in order. Returns the messages that can never be sent.
    pub fn flush(&mut self, mut send: impl FnMut(&ToKeeper) -> io::Result<()>) -> Vec<ToKeeper> {
        let mut undeliverable = Vec::new();
        while let Some(message) = self.waiting.front_mut() {
            let Err(error) = send(message) else {
                self.waiting.pop_front();
                continue;
            };
            #[expect(clippy::wildcard_enum_match_arm, reason = "every other error is final for this message")]
            match error.kind() {
                // The keeper is dead, which comes as an event of its own.
                ErrorKind::BrokenPipe | ErrorKind::ConnectionReset => self.waiting.clear(),
                ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::OutOfMemory => break,
                _ if error.raw_os_error() == Some(libc::ENOBUFS) => break,
                _ if message.shrink() => self.warn("a message to the keeper is too large: its texts are cut"),
                _ => {
                    self.warn(&format!("a message to the keeper is not sent: {error}"));
                    undeliverable.extend(self.waiting.pop_front());
                }
            }
        }
        undeliverable
    }

    /// Warns once: texts that are too large usually recur.
    fn warn(&mut self, what: &str) {
        if !std::mem::replace(&mut self.has_warned, true) {
            warn!("{what}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::fd::OwnedFd;

    use nix::sys::socket::{AddressFamily, SockFlag, SockType, setsockopt, socketpair, sockopt};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::protocol::{Channel, MESSAGE_BYTES_MAX, Received, VALUE_BYTES_MAX};
    use super::*;
    use elect_core::proptest_support;
    use elect_core::{BackgroundHook, CheckNumber, HookContext, Program, Time};

    fn pair() -> (OwnedFd, OwnedFd) {
        let kind = (AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        socketpair(kind.0, kind.1, None, kind.2).expect("a pair")
    }

    fn start(value: &str) -> ToKeeper {
        let identity = vec![("ELECT_LEADER_NAME".into(), value.into()), ("ELECT_ID".into(), "me".into())];
        ToKeeper::Start { program: Program::Follower, run: 1, identity }
    }

    fn background_hook(value: &str) -> ToKeeper {
        let identity = vec![("ELECT_ERROR".into(), value.into())];
        ToKeeper::BackgroundHook { background_hook: BackgroundHook::OnError, context: HookContext::Alone, identity }
    }

    fn health_check(value: &str) -> ToKeeper {
        ToKeeper::StartCheck { check: CheckNumber(9), identity: vec![("ELECT_LEADER_NAME".into(), value.into())] }
    }

    fn received(keeper: &Channel, buffer: &mut [u8]) -> Vec<String> {
        let mut all = Vec::new();
        while let Received::Message(message) = keeper.receive(buffer) {
            all.push(format!("{:?}", message.expect("readable")));
        }
        all
    }

    #[test]
    fn a_message_that_is_too_large_is_cut_and_what_is_behind_it_arrives_in_order() {
        let (ours, theirs) = pair();
        let (ours, theirs) = (Channel::new(ours), Channel::new(theirs));
        let mut outbox = Outbox::default();
        let huge = "ü".repeat(MESSAGE_BYTES_MAX);
        let stop = || ToKeeper::Stop { kill_at: Time::BOOT };
        for message in [start(&huge), stop(), background_hook(&huge), health_check(&huge), ToKeeper::Kill] {
            outbox.push(message);
        }
        assert!(outbox.flush(|message| ours.send(message)).is_empty());
        assert!(outbox.is_empty());
        let cut = "ü".repeat(VALUE_BYTES_MAX / 2);
        let sent = [start(&cut), stop(), background_hook(&cut), health_check(&cut), ToKeeper::Kill];
        assert_eq!(received(&theirs, &mut vec![0; MESSAGE_BYTES_MAX]), sent.map(|message| format!("{message:?}")));
    }

    #[test]
    fn a_message_that_never_fits_leaves_the_queue_and_is_reported() {
        let (ours, theirs) = pair();
        // The kernel's minimum: 4608 bytes.
        setsockopt(&ours, sockopt::SndBuf, &1).expect("set");
        let (ours, theirs) = (Channel::new(ours), Channel::new(theirs));
        let mut outbox = Outbox::default();
        let many: Vec<(OsString, OsString)> = (0..50).map(|_| ("A".into(), "x".repeat(500).into())).collect();
        outbox.push(ToKeeper::Start { program: Program::Follower, run: 3, identity: many });
        outbox.push(ToKeeper::Kill);
        let undeliverable = outbox.flush(|message| ours.send(message));
        assert!(matches!(undeliverable[..], [ToKeeper::Start { run: 3, .. }]), "{undeliverable:?}");
        assert_eq!(received(&theirs, &mut vec![0; MESSAGE_BYTES_MAX]), ["Kill"]);
    }

    #[test]
    fn messages_wait_in_order_while_there_is_no_room() {
        let (ours, theirs) = pair();
        setsockopt(&ours, sockopt::SndBuf, &1).expect("set");
        let (ours, theirs) = (Channel::new(ours), Channel::new(theirs));
        let (mut outbox, mut buffer) = (Outbox::default(), vec![0; MESSAGE_BYTES_MAX]);
        let all: Vec<String> = (0..100).map(|signal| format!("{:?}", ToKeeper::Forward { signal })).collect();
        (0..100).for_each(|signal| outbox.push(ToKeeper::Forward { signal }));
        let mut arrived = Vec::new();
        while !outbox.is_empty() {
            assert!(outbox.flush(|message| ours.send(message)).is_empty());
            arrived.extend(received(&theirs, &mut buffer));
        }
        assert_eq!(arrived, all);
    }

    #[test]
    fn a_message_that_the_kernel_has_no_memory_for_is_sent_later() {
        for errno in [libc::ENOBUFS, libc::ENOMEM, libc::EAGAIN, libc::EINTR] {
            let (mut outbox, mut sent) = (Outbox::default(), Vec::new());
            outbox.push(ToKeeper::Stop { kill_at: Time::BOOT });
            outbox.push(ToKeeper::Kill);
            assert!(outbox.flush(|_| Err(io::Error::from_raw_os_error(errno))).is_empty(), "errno {errno}");
            let mut record = |message: &ToKeeper| {
                sent.push(format!("{message:?}"));
                Ok(())
            };
            assert!(outbox.flush(&mut record).is_empty() && outbox.is_empty());
            assert_eq!(sent, [format!("{:?}", ToKeeper::Stop { kill_at: Time::BOOT }), "Kill".to_owned()]);
        }
    }

    #[test]
    fn whatever_is_in_an_environment_the_keeper_reads_it_and_the_kill_behind_it() {
        let (ours, theirs) = pair();
        let (ours, theirs) = (Channel::new(ours), Channel::new(theirs));
        let buffer = std::cell::RefCell::new(vec![0; MESSAGE_BYTES_MAX]);
        let size = prop_oneof![Just(0_usize), 1..2_000_usize, 60_000..70_000_usize, 100_000..200_000_usize];
        let character = prop_oneof![Just('x'), Just('\0'), Just('ü'), Just('\u{1f600}')];
        let identities = vec((size, character), 0..14).prop_map(|values| {
            let value = |(size, character): (usize, char)| character.to_string().repeat(size / character.len_utf8());
            values.into_iter().map(|one| ("NAME".into(), value(one).into())).collect::<Vec<(OsString, OsString)>>()
        });
        proptest_support::check(proptest_support::SLOW, &identities, |identity| {
            let mut outbox = Outbox::default();
            outbox.push(ToKeeper::Start { program: Program::Follower, run: 1, identity });
            outbox.push(ToKeeper::Kill);
            assert!(outbox.flush(|message| ours.send(message)).is_empty(), "each fits when it is cut");
            assert_eq!(received(&theirs, &mut buffer.borrow_mut()).len(), 2);
        });
    }
}
