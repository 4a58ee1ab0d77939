//! What campaigner and keeper say to each other, as datagrams on one `SOCK_SEQPACKET` socket.
//!
//! A message is a tag, then its numbers in native order, then bytes, where a message has some.
//! Both ends are the same program in the same version on the same host, so there is no version to negotiate; a message
//! that cannot be read is dropped all the same, and changes nothing.

use std::ffi::OsString;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use nix::errno::Errno;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

use super::sys;
use elect_core::limits;
use elect_core::{
    BackgroundHook, BackgroundHookEnd, CommandEnd, FromKeeper, HookContext, NotStarted, Program, RunId, Signal, Term,
    TerminalEvent, Time,
};

/// Longer messages are refused by their sender.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Longest value of a variable in a message that was too large as it was.
pub const VALUE_BYTES_MAX: usize = 1024;
/// How many descriptors may come with a claim.
const DESCRIPTORS_MAX: usize = 3;

/// What the store gave us, or will, in a form that lets the keeper give it back alone (K2).
#[derive(Debug)]
pub struct Claim {
    /// The store's own words to itself.
    pub payload: Vec<u8>,
    /// Descriptors that are part of it. The first one is passed on to the command (K9).
    pub descriptors: Vec<OwnedFd>,
}

/// From campaigner to keeper.
#[derive(Debug)]
pub enum ToKeeper {
    /// Replaces the claim. Sent before the first request that can create one.
    Claim(Claim),
    /// Opens a term with its deadline, or moves the deadline of the present one forward (K1).
    Arm {
        /// The term whose deadline it is.
        term: Term,
        /// When the tree is killed.
        kill_by: Time,
    },
    /// Start one of the programs, over an empty tree.
    Start {
        /// Which program.
        program: Program,
        /// The number of this run.
        run: RunId,
        /// Environment variables that name the leader.
        identity: Vec<(OsString, OsString)>,
    },
    /// Start a hook beside that run, or beside nothing; if it is otherwise by now, not at all.
    BackgroundHook {
        /// Which hook.
        background_hook: BackgroundHook,
        /// The run beside which it is started.
        context: HookContext,
        /// Environment variables that name the leader.
        identity: Vec<(OsString, OsString)>,
    },
    /// The stop signal now, SIGKILL at the given time.
    Stop {
        /// When SIGKILL follows.
        kill_at: Time,
    },
    /// SIGKILL now.
    Kill,
    /// A signal for the main process.
    Forward {
        /// Its number.
        signal: i32,
    },
    /// A sign of life, please.
    Ping,
    /// The job that elect belongs to goes on.
    Resume,
    /// A hold that still runs is over: whoever dies now, what is claimed is released at once.
    EndHold,
    /// The campaigner ends in good order: nothing is left to release.
    Dismiss,
}

impl ToKeeper {
    fn encode(&self) -> Vec<u8> {
        let mut message = Encoder::default();
        match self {
            ToKeeper::Claim(claim) => message.tag(1).bytes(&claim.payload),
            ToKeeper::Arm { term, kill_by } => message.tag(2).number(*term).number(kill_by.as_nanos()),
            ToKeeper::Start { program, run, identity } => {
                message.tag(3).program(*program).number(*run).identity(identity)
            }
            ToKeeper::BackgroundHook { background_hook, context, identity } => {
                let tag = match background_hook {
                    BackgroundHook::OnChange => 10,
                    BackgroundHook::OnError => 11,
                };
                message.tag(tag).hook_context(*context).identity(identity)
            }
            ToKeeper::Stop { kill_at } => message.tag(4).number(kill_at.as_nanos()),
            ToKeeper::Kill => message.tag(5),
            ToKeeper::Forward { signal } => message.tag(6).signed(*signal),
            ToKeeper::Ping => message.tag(7),
            ToKeeper::Dismiss => message.tag(8),
            ToKeeper::EndHold => message.tag(9),
            ToKeeper::Resume => message.tag(12),
        };
        message.0
    }

    /// Cuts each value of the environment that the message carries to [`VALUE_BYTES_MAX`], at the boundary of a character.
    /// Returns whether anything has become smaller.
    pub(super) fn shrink(&mut self) -> bool {
        let identity = match self {
            ToKeeper::Start { identity, .. } | ToKeeper::BackgroundHook { identity, .. } => identity,
            ToKeeper::Claim(_)
            | ToKeeper::Arm { .. }
            | ToKeeper::Stop { .. }
            | ToKeeper::Kill
            | ToKeeper::Forward { .. }
            | ToKeeper::Ping
            | ToKeeper::Resume
            | ToKeeper::EndHold
            | ToKeeper::Dismiss => return false,
        };
        let mut is_smaller = false;
        for (name, value) in identity {
            // ELECT_INSIDE is complete or wrong, and its size is checked at the start.
            if value.len() > VALUE_BYTES_MAX && name != "ELECT_INSIDE" {
                *value = limits::cut(value.to_string_lossy().into_owned(), VALUE_BYTES_MAX).into();
                is_smaller = true;
            }
        }
        is_smaller
    }

    /// `None`: not a message.
    fn decode(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Option<ToKeeper> {
        let mut message = Decoder(bytes);
        let decoded = match message.tag()? {
            1 => ToKeeper::Claim(Claim { payload: message.bytes()?.to_vec(), descriptors }),
            2 => ToKeeper::Arm { term: message.number()?, kill_by: Time::from_nanos(message.number()?) },
            3 => ToKeeper::Start { program: message.program()?, run: message.number()?, identity: message.identity()? },
            tag @ (10 | 11) => ToKeeper::BackgroundHook {
                background_hook: if tag == 10 { BackgroundHook::OnChange } else { BackgroundHook::OnError },
                context: message.hook_context()?,
                identity: message.identity()?,
            },
            4 => ToKeeper::Stop { kill_at: Time::from_nanos(message.number()?) },
            5 => ToKeeper::Kill,
            6 => ToKeeper::Forward { signal: message.signed()? },
            7 => ToKeeper::Ping,
            8 => ToKeeper::Dismiss,
            9 => ToKeeper::EndHold,
            12 => ToKeeper::Resume,
            _ => return None,
        };
        message.0.is_empty().then_some(decoded)
    }
}

/// The tag of [`FromKeeper::Progress`], which is all of its message.
const PROGRESS: u8 = 18;

fn encode_answer(answer: &FromKeeper) -> Vec<u8> {
    let mut message = Encoder::default();
    match *answer {
        FromKeeper::Armed { term, kill_by } => message.tag(1).number(term).number(kill_by.as_nanos()),
        FromKeeper::Pong => message.tag(2),
        FromKeeper::Started { run, pid } => message.tag(3).number(run).signed(pid),
        FromKeeper::NotStarted { run, why: NotStarted::TooLate } => message.tag(4).number(run),
        FromKeeper::NotStarted { run, why: NotStarted::Failed(errno) } => message.tag(5).number(run).signed(errno),
        FromKeeper::Exited { run, end: CommandEnd::Exited(status) } => {
            message.tag(6).number(run).signed(i32::from(status))
        }
        FromKeeper::Exited { run, end: CommandEnd::Killed { signal, escalated } } => {
            message.tag(7).number(run).signed(signal.0).signed(i32::from(escalated))
        }
        FromKeeper::Expired { term } => message.tag(8).number(term),
        FromKeeper::Empty { run } => message.tag(9).number(run),
        FromKeeper::Terminal(TerminalEvent::Suspended(signal)) => message.tag(15).signed(signal.0),
        FromKeeper::Terminal(TerminalEvent::Stopped(signal)) => message.tag(16).signed(signal.0),
        FromKeeper::Terminal(TerminalEvent::Interrupted(signal)) => message.tag(17).signed(signal.0),
        FromKeeper::NoCommand { run } => message.tag(10).number(run),
        FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(CommandEnd::Exited(status))) => {
            message.tag(11).signed(i32::from(status))
        }
        FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(CommandEnd::Killed { signal, escalated })) => {
            message.tag(12).signed(signal.0).signed(i32::from(escalated))
        }
        FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(errno)) => message.tag(13).signed(errno),
        FromKeeper::BackgroundHookEnded(BackgroundHookEnd::NotNow) => message.tag(14),
        FromKeeper::Progress => message.tag(PROGRESS),
        FromKeeper::Cleared { run } => message.tag(19).number(run),
    };
    message.0
}

fn decode_answer(bytes: &[u8]) -> Option<FromKeeper> {
    let mut message = Decoder(bytes);
    let decoded = match message.tag()? {
        1 => FromKeeper::Armed { term: message.number()?, kill_by: Time::from_nanos(message.number()?) },
        2 => FromKeeper::Pong,
        3 => FromKeeper::Started { run: message.number()?, pid: message.signed()? },
        4 => FromKeeper::NotStarted { run: message.number()?, why: NotStarted::TooLate },
        5 => FromKeeper::NotStarted { run: message.number()?, why: NotStarted::Failed(message.signed()?) },
        6 => FromKeeper::Exited { run: message.number()?, end: message.exited()? },
        7 => FromKeeper::Exited { run: message.number()?, end: message.killed()? },
        8 => FromKeeper::Expired { term: message.number()? },
        9 => FromKeeper::Empty { run: message.number()? },
        15 => FromKeeper::Terminal(TerminalEvent::Suspended(Signal(message.signed()?))),
        16 => FromKeeper::Terminal(TerminalEvent::Stopped(Signal(message.signed()?))),
        17 => FromKeeper::Terminal(TerminalEvent::Interrupted(Signal(message.signed()?))),
        10 => FromKeeper::NoCommand { run: message.number()? },
        11 => FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(message.exited()?)),
        12 => FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(message.killed()?)),
        13 => FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(message.signed()?)),
        14 => FromKeeper::BackgroundHookEnded(BackgroundHookEnd::NotNow),
        PROGRESS => FromKeeper::Progress,
        19 => FromKeeper::Cleared { run: message.number()? },
        _ => return None,
    };
    message.0.is_empty().then_some(decoded)
}

#[derive(Default)]
struct Encoder(Vec<u8>);

impl Encoder {
    fn tag(&mut self, tag: u8) -> &mut Encoder {
        self.0.push(tag);
        self
    }

    fn number(&mut self, number: u64) -> &mut Encoder {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn signed(&mut self, number: i32) -> &mut Encoder {
        self.0.extend(number.to_ne_bytes());
        self
    }

    fn bytes(&mut self, bytes: &[u8]) -> &mut Encoder {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
        self
    }

    fn program(&mut self, program: Program) -> &mut Encoder {
        match program {
            Program::Command { term } => self.tag(1).number(term),
            Program::OnElected { term } => self.tag(2).number(term),
            Program::OnOusted { term } => self.tag(3).number(term),
            Program::Follower => self.tag(4).number(0),
        }
    }

    /// Runs are counted from one.
    fn hook_context(&mut self, context: HookContext) -> &mut Encoder {
        match context {
            HookContext::WithRun(run) => self.number(run),
            HookContext::Alone => self.number(0),
        }
    }

    /// The last of a message.
    fn identity(&mut self, identity: &[(OsString, OsString)]) -> &mut Encoder {
        for (name, value) in identity {
            self.bytes(name.as_bytes()).bytes(value.as_bytes());
        }
        self
    }
}

struct Decoder<'a>(&'a [u8]);

impl<'a> Decoder<'a> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*taken)
    }

    fn tag(&mut self) -> Option<u8> {
        self.take::<1>().map(|[tag]| tag)
    }

    fn number(&mut self) -> Option<u64> {
        self.take().map(u64::from_ne_bytes)
    }

    fn signed(&mut self) -> Option<i32> {
        self.take().map(i32::from_ne_bytes)
    }

    fn exited(&mut self) -> Option<CommandEnd> {
        Some(CommandEnd::Exited(u8::try_from(self.signed()?).ok()?))
    }

    fn killed(&mut self) -> Option<CommandEnd> {
        Some(CommandEnd::Killed { signal: Signal(self.signed()?), escalated: self.signed()? != 0 })
    }

    fn program(&mut self) -> Option<Program> {
        let (tag, term) = (self.tag()?, self.number()?);
        Some(match tag {
            1 => Program::Command { term },
            2 => Program::OnElected { term },
            3 => Program::OnOusted { term },
            4 => Program::Follower,
            _ => return None,
        })
    }

    fn hook_context(&mut self) -> Option<HookContext> {
        self.number().map(|run| if run == 0 { HookContext::Alone } else { HookContext::WithRun(run) })
    }

    /// All that is left.
    fn identity(&mut self) -> Option<Vec<(OsString, OsString)>> {
        let mut identity = Vec::new();
        while !self.0.is_empty() {
            let (name, value) = (self.bytes()?.to_vec(), self.bytes()?.to_vec());
            identity.push((OsString::from_vec(name), OsString::from_vec(value)));
        }
        Some(identity)
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.number()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }
}

/// One end of the socket. Nothing here ever waits.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// What there was to receive.
#[derive(Debug)]
pub enum Received<T> {
    /// A message.
    Message(T),
    /// Nothing now.
    Nothing,
    /// The other end is gone for good.
    End,
}

impl Channel {
    pub fn new(socket: OwnedFd) -> Channel {
        Channel(socket)
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.0
    }

    /// Sends to the keeper.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the keeper has stopped reading, `BrokenPipe` if it is dead, `EMSGSIZE` if the message is too long.
    pub fn send(&self, message: &ToKeeper) -> io::Result<()> {
        let mut descriptors: Vec<RawFd> = Vec::new();
        if let ToKeeper::Claim(claim) = message {
            descriptors.extend(claim.descriptors.iter().map(AsRawFd::as_raw_fd));
        }
        self.transmit(&message.encode(), &descriptors)
    }

    /// Sends to the campaigner.
    ///
    /// # Errors
    ///
    /// As [`Channel::send`].
    pub fn answer(&self, answer: &FromKeeper) -> io::Result<()> {
        self.transmit(&encode_answer(answer), &[])
    }

    /// Tells the campaigner that the keeper lives. Allocates nothing (K3), and is not said where there is no room.
    pub fn report_progress(&self) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = nix::sys::socket::send(self.0.as_raw_fd(), &[PROGRESS], flags);
    }

    fn transmit(&self, bytes: &[u8], descriptors: &[RawFd]) -> io::Result<()> {
        if bytes.len() > MESSAGE_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        let rights = [ControlMessage::ScmRights(descriptors)];
        let rights = if descriptors.is_empty() { &[] } else { &rights[..] };
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        sendmsg::<UnixAddr>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], rights, flags, None)?;
        Ok(())
    }

    /// What the campaigner said; a message that cannot be read counts as none.
    pub fn receive(&self, buffer: &mut [u8]) -> Received<Option<ToKeeper>> {
        self.receive_with(buffer, ToKeeper::decode)
    }

    /// What the keeper answered.
    pub fn receive_answer(&self) -> Received<Option<FromKeeper>> {
        self.receive_with(&mut [0; 64], |bytes, _| decode_answer(bytes))
    }

    fn receive_with<T>(&self, buffer: &mut [u8], decode: impl FnOnce(&[u8], Vec<OwnedFd>) -> T) -> Received<T> {
        let mut rights = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_CMSG_CLOEXEC;
        let mut slices = [IoSliceMut::new(buffer)];
        let (length, whole, descriptors) = loop {
            match recvmsg::<UnixAddr>(self.0.as_raw_fd(), &mut slices, Some(&mut rights), flags) {
                Ok(message) => {
                    let mut descriptors = Vec::new();
                    for control in message.cmsgs().into_iter().flatten() {
                        if let ControlMessageOwned::ScmRights(fds) = control {
                            // SAFETY: the kernel has just opened these for us, close-on-exec.
                            descriptors.extend(fds.into_iter().map(|fd| unsafe { sys::own(fd) }));
                        }
                    }
                    let whole = !message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
                    break (message.bytes, whole, descriptors);
                }
                // The other end is gone and had not read everything. Said once, and before what it sent last.
                Err(Errno::ECONNRESET) => {}
                Err(Errno::EAGAIN | Errno::EINTR) => return Received::Nothing,
                Err(_) => return Received::End,
            }
        };
        // No message is empty: this is the end of file.
        if length == 0 {
            return Received::End;
        }
        // Half a message is none, even where the half could be read.
        let bytes = if whole { &buffer[..length] } else { &[] };
        Received::Message(decode(bytes, descriptors))
    }
}

#[cfg(test)]
mod tests {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;
    use elect_core::proptest_support;

    fn every_message() -> Vec<ToKeeper> {
        let start = |program| ToKeeper::Start { program, run: 1, identity: Vec::new() };
        vec![
            start(Program::OnElected { term: 7 }),
            start(Program::OnOusted { term: 7 }),
            start(Program::Follower),
            ToKeeper::BackgroundHook {
                background_hook: BackgroundHook::OnChange,
                context: HookContext::Alone,
                identity: Vec::new(),
            },
            ToKeeper::BackgroundHook {
                background_hook: BackgroundHook::OnError,
                context: HookContext::WithRun(7),
                identity: vec![("ELECT_ERROR".into(), "down".into())],
            },
            ToKeeper::Claim(Claim { payload: b"{}".to_vec(), descriptors: Vec::new() }),
            ToKeeper::Arm { term: 7, kill_by: Time::NEVER },
            ToKeeper::Start {
                program: Program::Command { term: 7 },
                run: 1,
                identity: vec![("ELECT_TERM".into(), "7".into()), ("A".into(), "".into())],
            },
            ToKeeper::Stop { kill_at: Time::from_nanos(9) },
            ToKeeper::Kill,
            ToKeeper::Forward { signal: 34 },
            ToKeeper::Ping,
            ToKeeper::Dismiss,
            ToKeeper::EndHold,
            ToKeeper::Resume,
        ]
    }

    fn every_answer() -> Vec<FromKeeper> {
        let killed = CommandEnd::Killed { signal: Signal(9), escalated: true };
        vec![
            FromKeeper::NoCommand { run: 1 },
            FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(CommandEnd::Exited(3))),
            FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(killed)),
            FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(11)),
            FromKeeper::BackgroundHookEnded(BackgroundHookEnd::NotNow),
            FromKeeper::Armed { term: 7, kill_by: Time::NEVER },
            FromKeeper::Pong,
            FromKeeper::Progress,
            FromKeeper::Cleared { run: 1 },
            FromKeeper::Started { run: 1, pid: 4711 },
            FromKeeper::NotStarted { run: 1, why: NotStarted::TooLate },
            FromKeeper::NotStarted { run: 1, why: NotStarted::Failed(13) },
            FromKeeper::Exited { run: 1, end: CommandEnd::Exited(255) },
            FromKeeper::Exited { run: 1, end: CommandEnd::Killed { signal: Signal(9), escalated: true } },
            FromKeeper::Exited { run: 1, end: CommandEnd::Killed { signal: Signal(34), escalated: false } },
            FromKeeper::Expired { term: 7 },
            FromKeeper::Empty { run: 1 },
            FromKeeper::Terminal(TerminalEvent::Suspended(Signal(20))),
            FromKeeper::Terminal(TerminalEvent::Stopped(Signal(21))),
            FromKeeper::Terminal(TerminalEvent::Interrupted(Signal(2))),
        ]
    }

    #[test]
    fn what_is_sent_is_what_is_received() {
        for message in every_message() {
            let decoded = ToKeeper::decode(&message.encode(), Vec::new()).expect("readable");
            assert_eq!(format!("{decoded:?}"), format!("{message:?}"));
        }
        for answer in every_answer() {
            assert_eq!(decode_answer(&encode_answer(&answer)), Some(answer));
        }
    }

    #[test]
    fn a_message_cut_short_or_drawn_out_is_none() {
        for bytes in every_message().into_iter().map(|message| message.encode()) {
            // A start may lose whole pairs of its environment and still be one; nothing else may.
            let shortest = if [3, 10, 11].contains(&bytes[0]) { bytes.len() } else { 0 };
            for length in shortest..bytes.len() {
                assert!(ToKeeper::decode(&bytes[..length], Vec::new()).is_none(), "{bytes:?} cut to {length}");
            }
            assert!(ToKeeper::decode(&[&bytes[..], b"!"].concat(), Vec::new()).is_none());
        }
        for bytes in every_answer().iter().map(encode_answer) {
            for length in 0..bytes.len() {
                assert!(decode_answer(&bytes[..length]).is_none(), "{bytes:?} cut to {length}");
            }
            assert!(decode_answer(&[&bytes[..], b"!"].concat()).is_none());
        }
    }

    fn messages() -> impl Strategy<Value = ToKeeper> {
        let text = || vec(any::<u8>(), 0..20).prop_map(OsString::from_vec);
        let identity = vec((text(), text()), 0..4).boxed();
        let program = prop_oneof![
            any::<Term>().prop_map(|term| Program::Command { term }),
            any::<Term>().prop_map(|term| Program::OnElected { term }),
            any::<Term>().prop_map(|term| Program::OnOusted { term }),
            Just(Program::Follower),
        ];
        let background_hook = prop_oneof![Just(BackgroundHook::OnChange), Just(BackgroundHook::OnError)];
        prop_oneof![
            vec(any::<u8>(), 0..60).prop_map(|payload| ToKeeper::Claim(Claim { payload, descriptors: Vec::new() })),
            any::<[u64; 2]>().prop_map(|[term, at]| ToKeeper::Arm { term, kill_by: Time::from_nanos(at) }),
            (program, any::<u64>(), identity.clone()).prop_map(|(program, run, identity)| ToKeeper::Start {
                program,
                run,
                identity
            }),
            (background_hook, 0..3_u64, identity).prop_map(|(background_hook, run, identity)| {
                ToKeeper::BackgroundHook {
                    background_hook,
                    context: if run == 0 { HookContext::Alone } else { HookContext::WithRun(run) },
                    identity,
                }
            }),
            any::<u64>().prop_map(|at| ToKeeper::Stop { kill_at: Time::from_nanos(at) }),
            any::<i32>().prop_map(|signal| ToKeeper::Forward { signal }),
        ]
    }

    fn answers() -> impl Strategy<Value = FromKeeper> {
        let end = prop_oneof![
            any::<u8>().prop_map(CommandEnd::Exited),
            any::<(i32, bool)>()
                .prop_map(|(signal, escalated)| CommandEnd::Killed { signal: Signal(signal), escalated }),
        ];
        prop_oneof![
            any::<[u64; 2]>().prop_map(|[term, at]| FromKeeper::Armed { term, kill_by: Time::from_nanos(at) }),
            any::<(u64, i32)>().prop_map(|(run, pid)| FromKeeper::Started { run, pid }),
            any::<(u64, i32)>().prop_map(|(run, errno)| FromKeeper::NotStarted { run, why: NotStarted::Failed(errno) }),
            (any::<u64>(), end.clone()).prop_map(|(run, end)| FromKeeper::Exited { run, end }),
            end.prop_map(|end| FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(end))),
            any::<i32>().prop_map(|signal| FromKeeper::Terminal(TerminalEvent::Stopped(Signal(signal)))),
        ]
    }

    /// Tags that exist, with whatever follows them.
    fn babble() -> impl Strategy<Value = Vec<u8>> {
        (0..20_u8, vec(any::<u8>(), 0..60)).prop_map(|(tag, rest)| [vec![tag], rest].concat())
    }

    #[test]
    fn whatever_is_sent_is_what_is_received() {
        proptest_support::check(proptest_support::FAST, &messages(), |message| {
            let decoded = ToKeeper::decode(&message.encode(), Vec::new()).expect("readable");
            assert_eq!(format!("{decoded:?}"), format!("{message:?}"));
        });
        proptest_support::check(proptest_support::FAST, &answers(), |answer| {
            assert_eq!(decode_answer(&encode_answer(&answer)), Some(answer));
        });
    }

    #[test]
    fn whatever_arrives_is_a_message_or_none() {
        // Neither asks for memory by the length that the noise names.
        let said = prop_oneof![
            proptest_support::random_bytes(),
            babble(),
            proptest_support::corrupted(messages().prop_map(|message| message.encode()))
        ];
        proptest_support::check(proptest_support::FAST, &said, |bytes| {
            if let Some(message) = ToKeeper::decode(&bytes, Vec::new()) {
                let again = ToKeeper::decode(&message.encode(), Vec::new()).expect("readable");
                assert_eq!(format!("{again:?}"), format!("{message:?}"));
            }
        });
        let said = prop_oneof![
            proptest_support::random_bytes(),
            babble(),
            proptest_support::corrupted(answers().prop_map(|answer| encode_answer(&answer)))
        ];
        proptest_support::check(proptest_support::FAST, &said, |bytes| {
            if let Some(answer) = decode_answer(&bytes) {
                assert_eq!(decode_answer(&encode_answer(&answer)), Some(answer));
            }
        });
    }

    #[test]
    fn what_cannot_be_read_leaves_the_socket_as_it_was() {
        let kind = (AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC);
        let (one, other) = socketpair(kind.0, kind.1, None, kind.2).expect("a pair");
        let (one, other) = (Channel::new(one), Channel::new(other));
        let mut buffer = vec![0; MESSAGE_BYTES_MAX];
        let buffer = std::cell::RefCell::new(&mut buffer);
        // No message is empty.
        let said = (0..20_u8, vec(any::<u8>(), 0..200)).prop_map(|(tag, rest)| [vec![tag], rest].concat());
        proptest_support::check(proptest_support::SLOW, &said, |bytes| {
            one.transmit(&bytes, &[]).expect("room");
            one.send(&ToKeeper::Ping).expect("room");
            assert!(matches!(other.receive(*buffer.borrow_mut()), Received::Message(_)), "read, or known to be none");
            assert!(matches!(other.receive(*buffer.borrow_mut()), Received::Message(Some(ToKeeper::Ping))));
            other.transmit(&bytes, &[]).expect("room");
            other.answer(&FromKeeper::Pong).expect("room");
            assert!(matches!(one.receive_answer(), Received::Message(_)), "read, or known to be none");
            assert!(matches!(one.receive_answer(), Received::Message(Some(FromKeeper::Pong))));
            assert!(matches!(one.receive_answer(), Received::Nothing));
        });
    }
}
