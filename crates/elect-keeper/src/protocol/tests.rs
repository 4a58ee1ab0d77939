//! Every message survives encoding and decoding, and no sequence of bytes breaks the decoder.

use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use proptest::collection::vec;
use proptest::prelude::*;
use std::os::unix::ffi::OsStringExt;

use super::*;
use elect_core::{ProcessList, proptest_support};

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
        ToKeeper::StartCheck { check: CheckNumber(7), identity: vec![("ELECT_ROLE".into(), "leader".into())] },
        ToKeeper::StartCheck { check: CheckNumber(u64::MAX), identity: Vec::new() },
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
    let mut processes = ProcessList::default();
    (1..=9).for_each(|pid| processes.add(pid, || [b'x'; 16]));
    // Some that were counted may have become zombies before they were named.
    let mut fewer = ProcessList::default();
    fewer.add(4711, || [b'y'; 16]);
    fewer.count = 4;
    let mut unnamed = ProcessList::default();
    unnamed.count = 3;
    vec![
        FromKeeper::LeftBehind { run: 1, processes },
        FromKeeper::LeftBehind { run: 1, processes: fewer },
        FromKeeper::StopTimedOut { run: 1, processes: unnamed },
        FromKeeper::StopTimedOut { run: 1, processes: ProcessList::default() },
        FromKeeper::NoCommand { run: 1 },
        FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(CommandEnd::Exited(3))),
        FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(killed)),
        FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Failed(11)),
        FromKeeper::BackgroundHookEnded(BackgroundHookEnd::NotNow),
        FromKeeper::CheckEnded { check: CheckNumber(7), end: CheckEnd::Ended(CommandEnd::Exited(3)) },
        FromKeeper::CheckEnded { check: CheckNumber(7), end: CheckEnd::Ended(killed) },
        FromKeeper::CheckEnded { check: CheckNumber(7), end: CheckEnd::TimedOut },
        FromKeeper::CheckEnded { check: CheckNumber(7), end: CheckEnd::Failed(16) },
        FromKeeper::CheckEnded { check: CheckNumber(u64::MAX), end: CheckEnd::Interrupted },
        FromKeeper::Armed { term: 7, kill_by: Time::NEVER },
        FromKeeper::Pong,
        FromKeeper::Progress,
        FromKeeper::AllKilled,
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
        // A start may lose whole pairs of its environment and still be valid; other messages may not.
        let shortest = if [3, 10, 11, 13].contains(&bytes[0]) { bytes.len() } else { 0 };
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
        (any::<u64>(), identity.clone())
            .prop_map(|(check, identity)| ToKeeper::StartCheck { check: CheckNumber(check), identity }),
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
        any::<(i32, bool)>().prop_map(|(signal, escalated)| CommandEnd::Killed { signal: Signal(signal), escalated }),
    ];
    let check_end = prop_oneof![
        end.clone().prop_map(CheckEnd::Ended),
        Just(CheckEnd::TimedOut),
        any::<i32>().prop_map(CheckEnd::Failed),
        Just(CheckEnd::Interrupted),
    ];
    prop_oneof![
        any::<[u64; 2]>().prop_map(|[term, at]| FromKeeper::Armed { term, kill_by: Time::from_nanos(at) }),
        any::<(u64, i32)>().prop_map(|(run, pid)| FromKeeper::Started { run, pid }),
        any::<(u64, i32)>().prop_map(|(run, errno)| FromKeeper::NotStarted { run, why: NotStarted::Failed(errno) }),
        (any::<u64>(), end.clone()).prop_map(|(run, end)| FromKeeper::Exited { run, end }),
        end.clone().prop_map(|end| FromKeeper::BackgroundHookEnded(BackgroundHookEnd::Ended(end))),
        (any::<u64>(), check_end).prop_map(|(check, end)| FromKeeper::CheckEnded { check: CheckNumber(check), end }),
        any::<i32>().prop_map(|signal| FromKeeper::Terminal(TerminalEvent::Stopped(Signal(signal)))),
    ]
}

/// Existing tags followed by random bytes.
fn babble() -> impl Strategy<Value = Vec<u8>> {
    (0..30_u8, vec(any::<u8>(), 0..60)).prop_map(|(tag, rest)| [vec![tag], rest].concat())
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
    // The decoder must not allocate by a length in random bytes.
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
    // Messages are never empty.
    let said = (0..30_u8, vec(any::<u8>(), 0..200)).prop_map(|(tag, rest)| [vec![tag], rest].concat());
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
