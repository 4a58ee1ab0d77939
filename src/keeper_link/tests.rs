//! The link with a keeper that is a queue: its socket is one end of a datagram pair, for readiness alone.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::os::unix::net::UnixDatagram;
use std::rc::Rc;

use super::*;
use elect_core::{BackgroundHook, CheckNumber, HookContext, Program};

const EMPTY: FromKeeper = FromKeeper::Empty { run: 1 };

/// The state of the fake keeper, shared with the test.
#[derive(Default)]
struct KeeperState {
    sent: RefCell<Vec<String>>,
    /// The error of the next sends, each used once.
    send_errors: RefCell<VecDeque<i32>>,
    inbox: RefCell<VecDeque<Received<Option<FromKeeper>>>>,
    exited: Cell<bool>,
    killed: Cell<u32>,
    terminal_taken_back: Cell<u32>,
    /// The batches that a kill of the tree, or a sweep, takes.
    batches: Cell<u32>,
    sweeps: Cell<u32>,
    /// How often the list of inherited children was read.
    refreshes: Cell<u32>,
}

struct FakeKeeper {
    socket: UnixDatagram,
    state: Rc<KeeperState>,
}

impl AsRawFd for FakeKeeper {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

impl FakeKeeper {
    fn next_batch(&self) -> bool {
        let left = self.state.batches.get();
        self.state.batches.set(left.saturating_sub(1));
        left > 1
    }
}

impl KeeperProcess for FakeKeeper {
    fn send(&self, message: &ToKeeper) -> io::Result<()> {
        if let Some(errno) = self.state.send_errors.borrow_mut().pop_front() {
            return Err(io::Error::from_raw_os_error(errno));
        }
        self.state.sent.borrow_mut().push(format!("{message:?}"));
        if matches!(message, ToKeeper::Dismiss) {
            self.state.exited.set(self.state.batches.get() == 0);
        }
        Ok(())
    }
    fn receive(&self) -> Received<Option<FromKeeper>> {
        self.state.inbox.borrow_mut().pop_front().unwrap_or(Received::Nothing)
    }
    fn kill(&self) {
        self.state.killed.set(self.state.killed.get() + 1);
        self.state.exited.set(true);
    }
    fn kill_tree(&mut self) -> bool {
        self.next_batch()
    }
    fn kill_more(&mut self) -> bool {
        self.next_batch()
    }
    fn reap(&mut self) -> bool {
        self.state.exited.get()
    }
    fn sweep(&mut self) -> bool {
        self.state.sweeps.set(self.state.sweeps.get() + 1);
        !self.next_batch()
    }
    fn is_sweeping(&self) -> bool {
        self.state.batches.get() > 0
    }
    fn note_terminal(&mut self) {}
    fn take_terminal_back(&mut self) {
        self.state.terminal_taken_back.set(self.state.terminal_taken_back.get() + 1);
    }
    fn refresh_preexisting_children(&mut self) {
        self.state.refreshes.set(self.state.refreshes.get() + 1);
    }
}

/// Runs `test` with a link, the keeper's state and the other end of its socket.
fn with_link(test: impl AsyncFnOnce(KeeperLink<FakeKeeper>, Rc<KeeperState>, UnixDatagram)) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let (socket, other) = UnixDatagram::pair().expect("a pair");
        let state = Rc::new(KeeperState::default());
        let link = KeeperLink::new(FakeKeeper { socket, state: Rc::clone(&state) }).expect("a link");
        test(link, state, other).await;
    });
}

fn background_hook() -> ToKeeper {
    let (background_hook, identity) = (BackgroundHook::OnError, Vec::new());
    ToKeeper::BackgroundHook { background_hook, context: HookContext::Alone, identity }
}

#[test]
fn a_message_that_finds_no_room_is_sent_first_when_there_is_some() {
    with_link(async |mut link, state, _other| {
        state.send_errors.borrow_mut().extend([libc::EAGAIN, libc::EAGAIN]);
        assert!(link.send(ToKeeper::Stop { kill_at: Time::BOOT }).is_empty());
        assert!(link.send(ToKeeper::Kill).is_empty());
        assert!(state.sent.borrow().is_empty());
        assert!(matches!(link.next().await, Ok(KeeperWakeup::Writable)));
        assert!(link.flush().is_empty());
        let stop = format!("{:?}", ToKeeper::Stop { kill_at: Time::BOOT });
        assert_eq!(*state.sent.borrow(), [stop, "Kill".to_owned()]);
    });
}

#[test]
fn a_claim_never_waits_behind_other_messages() {
    with_link(async |mut link, state, _other| {
        let claim = || Claim { payload: Vec::new(), descriptors: Vec::new() };
        assert!(link.send_claim(claim()));
        state.send_errors.borrow_mut().push_back(libc::EAGAIN);
        assert!(!link.send_claim(claim()), "no room");
        state.send_errors.borrow_mut().push_back(libc::EAGAIN);
        assert!(link.send(ToKeeper::Kill).is_empty());
        assert!(!link.send_claim(claim()), "a message waits");
        assert!(link.flush().is_empty());
        assert!(link.send_claim(claim()));
    });
}

#[test]
fn a_hook_that_cannot_be_sent_has_failed_and_any_other_message_ends_the_keeper() {
    with_link(async |mut link, state, _other| {
        state.send_errors.borrow_mut().push_back(libc::EINVAL);
        let failed = BackgroundHookEnd::Failed(libc::E2BIG);
        assert_eq!(link.send(background_hook()), [FromKeeper::BackgroundHookEnded(failed)]);
        state.send_errors.borrow_mut().push_back(libc::EINVAL);
        let (check, end) = (CheckNumber(7), CheckEnd::Failed(libc::E2BIG));
        let ended = FromKeeper::CheckEnded { check, end };
        assert_eq!(link.send(ToKeeper::StartCheck { check, identity: Vec::new() }), [ended], "and so has a check");
        assert_eq!(state.killed.get(), 0);
        state.send_errors.borrow_mut().push_back(libc::EINVAL);
        assert!(link.send(ToKeeper::Kill).is_empty());
        assert_eq!(state.killed.get(), 1);
    });
}

#[test]
fn messages_are_received_in_order_until_the_end_is_reported_once() {
    with_link(async |mut link, state, other| {
        let messages = [Some(FromKeeper::Pong), None, Some(EMPTY)];
        state.inbox.borrow_mut().extend(messages.map(Received::Message));
        state.inbox.borrow_mut().push_back(Received::End);
        other.send(b"ready").expect("sent");
        assert!(matches!(link.next().await, Ok(KeeperWakeup::Message(FromKeeper::Pong))));
        assert!(matches!(link.next().await, Ok(KeeperWakeup::Message(EMPTY))));
        assert!(matches!(link.next().await, Ok(KeeperWakeup::Eof)));
        let silence = tokio::time::timeout(Duration::from_secs(60), link.next()).await;
        assert!(silence.is_err(), "a closed connection has no more events");
        state.inbox.borrow_mut().extend([Received::Message(None), Received::Message(Some(FromKeeper::Pong))]);
        assert_eq!(link.try_receive(), Some(FromKeeper::Pong));
        assert_eq!(link.try_receive(), None);
    });
}

#[test]
fn the_list_of_inherited_children_is_read_four_times_a_second_at_most_and_not_during_a_kill() {
    with_link(async |mut link, state, _other| {
        for millis in [1_000, 1_001, 1_249, 1_250, 1_400] {
            link.refresh_preexisting_children(Time::from_nanos(millis * 1_000_000));
        }
        assert_eq!(state.refreshes.get(), 2);
        state.batches.set(2);
        link.kill_tree();
        link.refresh_preexisting_children(Time::from_nanos(9_000_000_000));
        assert_eq!(state.refreshes.get(), 2, "between two batches");
        assert!(!link.kill_more(true));
        link.refresh_preexisting_children(Time::from_nanos(9_000_000_000));
        assert_eq!(state.refreshes.get(), 3);
    });
}

#[test]
fn a_death_is_reported_once_and_what_the_keeper_left_is_swept() {
    with_link(async |mut link, state, _other| {
        assert!(!link.check_death());
        state.exited.set(true);
        state.batches.set(4);
        assert!(link.check_death());
        assert!(!link.check_death());
        assert_eq!((state.terminal_taken_back.get(), state.sweeps.get()), (1, 1));
        assert!(link.kill_more(true), "the election sweeps by itself");
        assert_eq!(state.sweeps.get(), 1);
        assert!(link.kill_more(false));
        assert_eq!(state.sweeps.get(), 2);
        link.finish_sweep();
        assert_eq!((state.sweeps.get(), state.batches.get()), (4, 0));
    });
}

#[test]
fn the_tree_is_killed_batch_by_batch_until_the_keeper_confirms_that_it_is_empty() {
    with_link(async |mut link, state, _other| {
        assert!(!link.kill_more(true), "nothing is to be killed");
        state.batches.set(3);
        link.kill_tree();
        assert!(link.kill_more(true));
        assert!(!link.kill_more(true), "the last batch");
        state.batches.set(9);
        link.kill_tree();
        assert!(!link.kill_more(false), "confirmed");
        assert!(!link.kill_more(true), "and not begun again");
        assert_eq!(state.batches.get(), 8);
    });
}

#[test]
fn a_dismissed_keeper_exits_by_itself_or_is_killed_with_its_tree() {
    with_link(async |mut link, state, _other| {
        link.dismiss(async || panic!("it has exited")).await;
        assert_eq!((state.sent.borrow().as_slice(), state.killed.get()), (&["Dismiss".to_owned()][..], 0));
    });
    with_link(async |mut link, state, _other| {
        state.batches.set(3);
        link.dismiss(std::future::pending::<()>).await;
        assert_eq!((state.killed.get(), state.batches.get()), (1, 0));
    });
}

#[test]
fn a_kill_of_the_former_tree_does_not_reach_the_next_program() {
    with_link(async |mut link, state, _other| {
        state.batches.set(3);
        link.kill_tree();
        assert!(link.kill_more(true), "the first tree has more");
        let start = ToKeeper::Start { program: Program::OnOusted { term: 7 }, run: 2, identity: Vec::new() };
        assert!(link.send(start).is_empty());
        let left = state.batches.get();
        assert!(!link.kill_more(true));
        assert_eq!(state.batches.get(), left, "no batch is taken");
    });
}
