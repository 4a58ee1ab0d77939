use std::io::{Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream as Stream;
use std::thread;

use tokio::task::LocalSet;

use super::protocol::tests::malformed_requests;
use super::socket_path::socket_name;
use super::*;
use elect_core::proptest_support;

fn info() -> CandidateInfo {
    CandidateInfo { boundary: "billing/nightly".to_owned(), id: "0b5e".to_owned(), name: "web-1".to_owned() }
}

/// A candidate that answers each request with the outcome of `judge`; `None` is no answer at all.
fn with_control_socket<T: Send + 'static>(
    judge: impl Fn(&ControlRequest) -> Option<ControlOutcome> + 'static,
    visit: impl FnOnce(PathBuf) -> T + Send + 'static,
) -> T {
    let directory = tempfile::tempdir().expect("a directory");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    LocalSet::new().block_on(&runtime.expect("a runtime"), async {
        let (socket, mut server) =
            ControlSocket::open(&SocketDirectory::new(Some(directory.path())).expect("absolute"), info())
                .expect("a socket");
        let path = socket.path().to_owned();
        let (done, mut finished) = oneshot::channel();
        thread::spawn(move || drop(done.send(visit(path))));
        // A request without an answer stays open.
        let mut unanswered = Vec::new();
        loop {
            tokio::select! {
                Some(visit) = server.recv() => match judge(&visit.request) {
                    Some(outcome) => drop(visit.outcome.send(outcome)),
                    None => unanswered.push(visit),
                },
                result = &mut finished => return result.expect("the visit went well"),
            }
        }
    })
}

fn say(path: &Path, words: &[u8]) -> Option<ControlResponse> {
    let mut stream = Stream::connect(path).expect("somebody listens");
    // It may have heard enough before everything was said.
    let _ = stream.write_all(words);
    let mut line = Vec::new();
    let _ = stream.read_to_end(&mut line);
    ControlResponse::from_line(&line)
}

fn yes(term: u64) -> ControlOutcome {
    ControlOutcome::Yes { term: Some(term), lease_left_ms: Some(1500) }
}

#[test]
fn a_wish_is_answered_with_the_candidates_name_on_it() {
    let answer = with_control_socket(
        |request| {
            Some(if *request == (ControlRequest::Assert { term: Some(7) }) {
                yes(7)
            } else {
                ControlOutcome::no("another wish")
            })
        },
        |path| say(&path, ControlRequest::Assert { term: Some(7) }.to_line(None).as_bytes()),
    );
    let CandidateInfo { boundary, id, name } = info();
    assert_eq!(answer, Some(ControlResponse { boundary, id, name, outcome: yes(7) }));
}

#[test]
fn who_listens_is_told_without_the_election() {
    let answer = with_control_socket(|_| None, |path| say(&path, ControlRequest::Hello.to_line(None).as_bytes()))
        .expect("an answer");
    assert_eq!((answer.boundary.as_str(), answer.id.as_str()), ("billing/nightly", "0b5e"));
}

#[test]
fn the_socket_is_its_owners_alone_and_goes_with_the_candidate() {
    let path = with_control_socket(
        |_| None,
        |path| {
            assert_eq!(std::fs::metadata(&path).expect("a socket").mode() & 0o777, 0o600);
            path
        },
    );
    assert!(!path.exists());
}

#[test]
fn nonsense_is_refused_and_the_next_visitor_is_heard() {
    let answers = with_control_socket(
        |_| Some(yes(1)),
        |path| {
            let long = vec![b'x'; REQUEST_BYTES_MAX * 3];
            let deep = [b"[".repeat(3000), b"\n".to_vec()].concat();
            let nonsense: [&[u8]; 6] =
                [b"\n", b"{}\n", b"{\"wish\":\"rule\"}\n", b"\xff\xfe\n", long.as_slice(), deep.as_slice()];
            let refused: Vec<_> = nonsense.iter().map(|words| say(&path, words)).collect();
            (refused, say(&path, ControlRequest::Resign.to_line(None).as_bytes()))
        },
    );
    for answer in answers.0 {
        // A client that goes on sending may lose the answer with the connection.
        assert!(answer.is_none_or(|answer| answer.outcome == ControlOutcome::not_understood()));
    }
    assert_eq!(answers.1.expect("an answer").outcome, yes(1));
}

/// The file of this candidate's socket may have been moved to where another one's was.
#[test]
fn a_request_that_is_meant_for_another_candidate_is_denied() {
    let ask = |id: &'static str| {
        let client = move |path: PathBuf| say(&path, ControlRequest::Resign.to_line(Some(id)).as_bytes());
        with_control_socket(|_| Some(yes(1)), client).expect("an answer").outcome
    };
    assert_eq!(ask("0b5e"), yes(1));
    assert!(matches!(ask("0b5f"), ControlOutcome::No { why } if why.contains("another candidate")));
}

#[test]
fn whatever_is_said_at_the_door_nothing_but_a_wish_comes_in() {
    let client = |path: PathBuf| {
        proptest_support::check(proptest_support::SLOW, &malformed_requests(), |words| {
            let request = ControlRequest::from_line(&words);
            let outcome = say(&path, &words).map(|answer| answer.outcome);
            match request {
                Some((_, Some(id))) if id != info().id => {
                    assert!(matches!(outcome, Some(ControlOutcome::No { why }) if why.contains("another candidate")));
                }
                // Not told apart here from what the election says.
                Some((ControlRequest::Hello, _)) => {}
                // `judge` has received just that request.
                Some((request, _)) => assert_eq!(outcome, Some(ControlOutcome::no(format!("{request:?}")))),
                None => assert_eq!(outcome, Some(ControlOutcome::not_understood())),
            }
        });
        say(&path, ControlRequest::Resign.to_line(None).as_bytes())
    };
    let answer =
        with_control_socket(|request| Some(ControlOutcome::no(format!("{request:?}"))), client).expect("an answer");
    assert_eq!(answer.outcome, ControlOutcome::no("Resign"));
}

#[test]
fn visitors_that_say_nothing_or_wait_for_ever_cost_their_places_only_for_a_while() {
    let answer = with_control_socket(
        |request| (*request == ControlRequest::Resign).then(|| yes(1)),
        |path| {
            // They wait for an answer that never comes, until they leave.
            let waiting: Vec<Stream> = (0..CONCURRENT_READS_MAX)
                .map(|_| {
                    let mut stream = Stream::connect(&path).expect("room in the queue");
                    stream.write_all(ControlRequest::Assert { term: None }.to_line(None).as_bytes()).expect("sent");
                    stream
                })
                .collect();
            drop(waiting);
            // These clients never send anything.
            let _silent: Vec<Stream> =
                (0..CONCURRENT_READS_MAX - 1).map(|_| Stream::connect(&path).expect("room in the queue")).collect();
            say(&path, ControlRequest::Resign.to_line(None).as_bytes())
        },
    );
    assert_eq!(answer.expect("an answer").outcome, yes(1));
}

#[test]
fn visitors_that_wait_for_an_answer_keep_nobody_from_being_heard() {
    let answer = with_control_socket(
        |request| (*request != ControlRequest::Resign).then(|| yes(1)),
        |path| {
            // Their answer never comes, and they stay.
            let _waiting: Vec<Stream> = (0..2 * CONCURRENT_READS_MAX)
                .map(|_| {
                    let mut stream = Stream::connect(&path).expect("room in the queue");
                    stream.write_all(ControlRequest::Resign.to_line(None).as_bytes()).expect("sent");
                    stream
                })
                .collect();
            say(&path, ControlRequest::Assert { term: None }.to_line(None).as_bytes())
        },
    );
    assert_eq!(answer.expect("an answer").outcome, yes(1));
}

#[test]
fn a_request_of_any_length_is_answered_or_ended() {
    let answer = with_control_socket(
        |_| Some(yes(1)),
        |path| {
            for length in [REQUEST_BYTES_MAX - 1, REQUEST_BYTES_MAX, REQUEST_BYTES_MAX + 1, 100_000, 5_000_000] {
                let mut stream = Stream::connect(&path).expect("room in the queue");
                // It may be closed before all is sent.
                let _ = stream.write_all("x".repeat(length).as_bytes()).and_then(|()| stream.write_all(b"\n"));
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer);
                assert!(answer.is_empty() || answer.contains("refused"), "{answer}");
            }
            say(&path, ControlRequest::Assert { term: None }.to_line(None).as_bytes())
        },
    );
    assert_eq!(answer.expect("an answer").outcome, yes(1));
}

#[test]
fn a_candidate_is_found_by_its_boundary_however_long_that_is() {
    let directory = tempfile::tempdir().expect("a directory");
    let id = "0b5e3f4c-0000-4000-8000-000000000000";
    let long = "é/".repeat(26);
    for boundary in ["a", "a/b", "a2", &long] {
        let path = directory.path().join(socket_name(boundary, id));
        assert!(path.file_name().expect("a name").len() <= 66, "{path:?}");
        std::fs::write(&path, "").expect("written");
    }
    let here = SocketDirectory::new(Some(directory.path())).expect("absolute");
    for boundary in ["a", "a/b", "a2", &long] {
        let path = directory.path().join(socket_name(boundary, id));
        assert_eq!(here.sockets(Some(boundary)).expect("readable"), std::slice::from_ref(&path));
        let whole = (boundary.len() < 24).then(|| boundary.to_owned());
        assert_eq!(parse_socket_name(&path), (whole, Some(id.to_owned())));
    }
    assert_eq!(here.sockets(None).expect("readable").len(), 4);
    assert!(here.sockets(Some("b")).expect("readable").is_empty());
    let missing = SocketDirectory::new(Some(&directory.path().join("missing"))).expect("absolute");
    assert!(missing.sockets(Some("a")).expect("no such directory").is_empty());
    let relative = SocketDirectory::new(Some(Path::new("here"))).expect_err("relative");
    assert!(
        relative.contains(&std::env::current_dir().expect("here").join("here").display().to_string()),
        "{relative}"
    );
}
