//! The messages between campaigner and keeper: datagrams on one `SOCK_SEQPACKET` socket.
//!
//! A message consists of a tag, numbers in native byte order, and byte strings. Both ends are the same program in the
//! same version on the same host, so no version is negotiated; a message that cannot be decoded is dropped and changes
//! nothing.

mod decoder;
mod encoder;
#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, sendmsg, socketpair};

use super::datagram::{self, DESCRIPTORS_MAX};
use decoder::Decoder;
use elect_core::limits;
use elect_core::{
    BackgroundHook, BackgroundHookEnd, CheckEnd, CheckNumber, CommandEnd, FromKeeper, HookContext, NotStarted, Program,
    RunId, Signal, Term, TerminalEvent, Time,
};
use encoder::Encoder;

/// The maximum length of a message, enforced by the sender.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// The maximum length of a message of the keeper, which has no text but the names of a few processes.
const ANSWER_BYTES_MAX: usize = 256;
/// The maximum length of a variable's value in a message that had to be shrunk.
pub const VALUE_BYTES_MAX: usize = 1024;

/// The claim at the store, present or requested, in a form that lets the keeper release it alone (K2).
#[derive(Debug)]
pub struct Claim {
    /// The data that the store's release function needs.
    pub payload: Vec<u8>,
    /// Descriptors that are part of the claim. The command inherits the first one (K9).
    pub descriptors: Vec<OwnedFd>,
}

/// From campaigner to keeper.
#[derive(Debug)]
pub enum ToKeeper {
    /// Replaces the claim. Sent before the first request that can create one.
    Claim(Claim),
    /// Opens a term with its deadline, or moves the deadline of the present one forward (K1).
    Arm {
        /// The term of the deadline.
        term: Term,
        /// The time of SIGKILL.
        kill_by: Time,
    },
    /// Starts a program; the tree must be empty.
    Start {
        /// The program.
        program: Program,
        /// The number of this run.
        run: RunId,
        /// Environment variables that name the leader.
        identity: Vec<(OsString, OsString)>,
    },
    /// Starts a background hook beside the given run, or without a tree; if the context has changed, the hook is not
    /// started.
    BackgroundHook {
        /// The hook.
        background_hook: BackgroundHook,
        /// The expected context of the hook.
        context: HookContext,
        /// Environment variables that name the leader.
        identity: Vec<(OsString, OsString)>,
    },
    /// Starts a health check.
    StartCheck {
        /// Its number.
        check: CheckNumber,
        /// Environment variables that name the candidate and its role.
        identity: Vec<(OsString, OsString)>,
    },
    /// Sends the stop signal now, SIGKILL at the given time.
    Stop {
        /// The time of SIGKILL.
        kill_at: Time,
    },
    /// SIGKILL now.
    Kill,
    /// A signal for the main process.
    Forward {
        /// Its number.
        signal: i32,
    },
    /// Requests a [`FromKeeper::Pong`].
    Ping,
    /// The job that elect belongs to has been continued.
    Resume,
    /// Ends a hold that still runs: if the campaigner dies after this, the claim is released at once.
    EndHold,
    /// The campaigner exits in an orderly way: no claim is left to release.
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
            ToKeeper::StartCheck { check, identity } => message.tag(13).number(check.0).identity(identity),
            ToKeeper::Stop { kill_at } => message.tag(4).number(kill_at.as_nanos()),
            ToKeeper::Kill => message.tag(5),
            ToKeeper::Forward { signal } => message.tag(6).signed(*signal),
            ToKeeper::Ping => message.tag(7),
            ToKeeper::Dismiss => message.tag(8),
            ToKeeper::EndHold => message.tag(9),
            ToKeeper::Resume => message.tag(12),
        };
        message.finish()
    }

    /// Cuts each value in the message's environment to [`VALUE_BYTES_MAX`], at a character boundary. Returns whether a
    /// value was cut.
    pub(super) fn shrink(&mut self) -> bool {
        let identity = match self {
            ToKeeper::Start { identity, .. }
            | ToKeeper::BackgroundHook { identity, .. }
            | ToKeeper::StartCheck { identity, .. } => identity,
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
            // ELECT_INSIDE must not be cut, and its size is checked at the start.
            if value.len() > VALUE_BYTES_MAX && name != "ELECT_INSIDE" {
                *value = limits::cut(value.to_string_lossy().into_owned(), VALUE_BYTES_MAX).into();
                is_smaller = true;
            }
        }
        is_smaller
    }

    /// Decodes a message; `None` if the bytes are not one.
    fn decode(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Option<ToKeeper> {
        let mut message = Decoder::new(bytes);
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
            13 => ToKeeper::StartCheck { check: CheckNumber(message.number()?), identity: message.identity()? },
            _ => return None,
        };
        message.is_finished().then_some(decoded)
    }
}

/// The tags of messages without further fields that are sent during a kill.
const PROGRESS: u8 = 18;
const ALL_KILLED: u8 = 20;

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
        FromKeeper::CheckEnded { check, end: CheckEnd::Ended(CommandEnd::Exited(status)) } => {
            message.tag(23).number(check.0).signed(i32::from(status))
        }
        FromKeeper::CheckEnded { check, end: CheckEnd::Ended(CommandEnd::Killed { signal, escalated }) } => {
            message.tag(24).number(check.0).signed(signal.0).signed(i32::from(escalated))
        }
        FromKeeper::CheckEnded { check, end: CheckEnd::TimedOut } => message.tag(25).number(check.0),
        FromKeeper::CheckEnded { check, end: CheckEnd::Failed(errno) } => message.tag(26).number(check.0).signed(errno),
        FromKeeper::CheckEnded { check, end: CheckEnd::Interrupted } => message.tag(27).number(check.0),
        FromKeeper::Progress => message.tag(PROGRESS),
        FromKeeper::AllKilled => message.tag(ALL_KILLED),
        FromKeeper::Cleared { run } => message.tag(19).number(run),
        FromKeeper::LeftBehind { run, processes } => message.tag(21).number(run).processes(&processes),
        FromKeeper::StopTimedOut { run, processes } => message.tag(22).number(run).processes(&processes),
    };
    message.finish()
}

fn decode_answer(bytes: &[u8]) -> Option<FromKeeper> {
    let mut message = Decoder::new(bytes);
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
        ALL_KILLED => FromKeeper::AllKilled,
        19 => FromKeeper::Cleared { run: message.number()? },
        21 => FromKeeper::LeftBehind { run: message.number()?, processes: message.processes()? },
        22 => FromKeeper::StopTimedOut { run: message.number()?, processes: message.processes()? },
        tag @ 23..=27 => FromKeeper::CheckEnded {
            check: CheckNumber(message.number()?),
            end: match tag {
                23 => CheckEnd::Ended(message.exited()?),
                24 => CheckEnd::Ended(message.killed()?),
                25 => CheckEnd::TimedOut,
                26 => CheckEnd::Failed(message.signed()?),
                _ => CheckEnd::Interrupted,
            },
        },
        _ => return None,
    };
    message.is_finished().then_some(decoded)
}

/// One end of the socket. No function of it waits.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// The result of receiving.
#[derive(Debug)]
pub enum Received<T> {
    /// A message.
    Message(T),
    /// A message without some of its descriptors: a limit of this process leaves no room for them.
    Incomplete,
    /// No message is available now.
    Nothing,
    /// The other end is closed.
    End,
}

impl Channel {
    pub fn new(socket: OwnedFd) -> Channel {
        Channel(socket)
    }

    /// Both ends.
    ///
    /// # Errors
    ///
    /// No descriptor, no memory.
    pub fn pair() -> nix::Result<(Channel, Channel)> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let (one, other) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        Ok((Channel::new(one), Channel::new(other)))
    }

    pub fn socket(&self) -> &OwnedFd {
        &self.0
    }

    /// Sends a message to the keeper.
    ///
    /// # Errors
    ///
    /// `WouldBlock` if the keeper has stopped reading, `BrokenPipe` if it is dead, `EMSGSIZE` if the message is too
    /// long.
    pub fn send(&self, message: &ToKeeper) -> io::Result<()> {
        let mut descriptors: Vec<RawFd> = Vec::new();
        if let ToKeeper::Claim(claim) = message {
            descriptors.extend(claim.descriptors.iter().map(AsRawFd::as_raw_fd));
        }
        self.transmit(&message.encode(), &descriptors)
    }

    /// Sends a message to the campaigner.
    ///
    /// # Errors
    ///
    /// As [`Channel::send`].
    pub fn answer(&self, answer: &FromKeeper) -> io::Result<()> {
        self.transmit(&encode_answer(answer), &[])
    }

    /// Sends [`FromKeeper::Progress`]. Allocates nothing (K3), and drops the report if there is no room.
    #[inline(never)] // There is one copy of it, the rehearsed one.
    pub fn report_progress(&self) {
        self.report(PROGRESS);
    }

    /// Sends [`FromKeeper::AllKilled`] in the same way.
    pub fn report_all_killed(&self) {
        self.report(ALL_KILLED);
    }

    fn report(&self, tag: u8) {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let _ = nix::sys::socket::send(self.0.as_raw_fd(), &[tag], flags);
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

    /// Receives a message from the campaigner; `None` inside stands for a message that cannot be decoded.
    pub fn receive(&self, buffer: &mut [u8]) -> Received<Option<ToKeeper>> {
        self.receive_with(buffer, ToKeeper::decode)
    }

    /// Receives a message from the keeper.
    pub fn receive_answer(&self) -> Received<Option<FromKeeper>> {
        self.receive_with(&mut [0; ANSWER_BYTES_MAX], |bytes, _| decode_answer(bytes))
    }

    fn receive_with<T>(
        &self,
        buffer: &mut [u8],
        decode: impl FnOnce(&[u8], Vec<OwnedFd>) -> Option<T>,
    ) -> Received<Option<T>> {
        let message = loop {
            match datagram::receive(self.0.as_fd(), buffer) {
                Ok(message) => break message,
                // The other end was closed with unread data. The error is reported once, and before the messages that
                // it sent last.
                Err(Errno::ECONNRESET) => {}
                Err(Errno::EAGAIN | Errno::EINTR) => return Received::Nothing,
                Err(_) => return Received::End,
            }
        };
        // Messages are never empty, so this is the end of file.
        if message.length == 0 {
            return Received::End;
        }
        if message.lacks_descriptors {
            return Received::Incomplete;
        }
        // A message that was cut is dropped, even if the rest could be decoded.
        Received::Message(if message.is_cut { None } else { decode(&buffer[..message.length], message.descriptors) })
    }
}
