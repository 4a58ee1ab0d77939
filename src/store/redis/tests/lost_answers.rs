//! Take and first renewal in one round trip, whose answers are lost: the server has executed both, the take alone, or neither, and
//! the rest later or never.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::round_trips::{patient, settled_before, through};
use super::*;

/// The requests that have reached the server when the connection is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reached {
    Neither,
    TakeAlone,
    Both,
}

const ALL: [Reached; 3] = [Reached::Neither, Reached::TakeAlone, Reached::Both];

/// A proxy that cuts a connection in the round trip of a take.
struct Cutter {
    address: String,
    state: Arc<Mutex<CutterState>>,
}

#[derive(Default)]
struct CutterState {
    /// The treatment of the next take.
    armed: Option<Reached>,
    /// The rest of the round trip that was cut, on its connection to the server.
    held_back: Option<(TcpStream, Vec<u8>)>,
    /// The answers to that round trip.
    answers: Vec<u8>,
}

impl Cutter {
    fn to(server: &RedisProcess) -> Cutter {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        let (state, server) = (Arc::new(Mutex::new(CutterState::default())), server.address.clone());
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&server)) else { return };
                let (is_cut, shared) = (Arc::new(AtomicBool::new(false)), Arc::clone(&shared));
                pass_answers([&server, &client], Arc::clone(&is_cut), Arc::clone(&shared));
                std::thread::spawn(move || pass_requests([client, server], &is_cut, &shared));
            }
        });
        Cutter { address, state }
    }

    fn state(&self) -> MutexGuard<'_, CutterState> {
        self.state.lock().expect("no panic")
    }

    /// Waits until the server has given this answer to the round trip that was cut.
    fn is_answered(&self, word: &str) {
        let limit = clock::now() + Duration::from_secs(60);
        while !self.state().answers.windows(word.len()).any(|part| part == word.as_bytes()) {
            assert!(clock::now() < limit, "no {word:?}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// The server gets what was held back, and answers like this.
    fn deliver(&self, word: &str) {
        let (mut server, late) = self.state().held_back.take().expect("something was held back");
        self.state().answers.clear();
        server.write_all(&late).expect("the server is there");
        self.is_answered(word);
    }

    /// The next take of this candidate is cut. Returns when the server has executed what has reached it.
    async fn cuts(&self, one: &mut RedisCandidate, reached: Reached) {
        {
            let mut state = self.state();
            state.armed = Some(reached);
            state.answers.clear();
        }
        let answer = one.ask().await;
        assert!(matches!(answer, Err(StoreError::Unavailable(_))), "{answer:?}");
        assert_eq!(self.state().armed, None, "{answer:?}");
        match reached {
            Reached::Neither => {}
            Reached::TakeAlone => self.is_answered("taken"),
            Reached::Both => self.is_answered("renewed"),
        }
    }
}

/// In the one round trip with two scripts.
fn second_script(requests: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"$7\r\nEVALSHA\r\n";
    let mut names = (0..requests.len()).filter(|&at| requests[at..].starts_with(NAME)).skip(1);
    let name = names.next()?;
    requests[..name].iter().rposition(|&byte| byte == b'*')
}

fn pass_requests([mut client, mut server]: [TcpStream; 2], is_cut: &AtomicBool, shared: &Mutex<CutterState>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(size @ 1..) = client.read(&mut bytes) {
        let requests = &bytes[..size];
        let mut state = shared.lock().expect("no panic");
        if let Some(second) = second_script(requests)
            && let Some(reached) = state.armed.take()
        {
            is_cut.store(true, Ordering::SeqCst);
            let (now, late) = requests.split_at(match reached {
                Reached::Neither => 0,
                Reached::TakeAlone => second,
                Reached::Both => size,
            });
            server.write_all(now).expect("the server is there");
            state.held_back = Some((server, late.to_vec()));
            let _ = client.shutdown(Shutdown::Both);
            return;
        }
        drop(state);
        if server.write_all(requests).is_err() {
            break;
        }
    }
    let _ = server.shutdown(Shutdown::Both);
}

fn pass_answers([server, client]: [&TcpStream; 2], is_cut: Arc<AtomicBool>, shared: Arc<Mutex<CutterState>>) {
    let mut server = server.try_clone().expect("a descriptor");
    let mut client = client.try_clone().expect("a descriptor");
    std::thread::spawn(move || {
        let mut bytes = vec![0; 1 << 16];
        while let Ok(size @ 1..) = server.read(&mut bytes) {
            if is_cut.load(Ordering::SeqCst) {
                shared.lock().expect("no panic").answers.extend_from_slice(&bytes[..size]);
            } else if client.write_all(&bytes[..size]).is_err() {
                break;
            }
        }
        let _ = client.shutdown(Shutdown::Both);
    });
}

/// The time at which what was held back reaches the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Late {
    Never,
    BeforeTheNextRequest,
    AfterIt,
}

#[test]
fn a_take_whose_answer_is_lost_is_found_whatever_was_executed_of_it_and_led_from_a_renewal_that_follows() {
    with_server(async |server| {
        settled_before(server, "").await;
        let cutter = Cutter::to(server);
        for reached in ALL {
            for late in [Late::Never, Late::BeforeTheNextRequest, Late::AfterIt] {
                let (mut one, mut two) = (through(&cutter.address, "", "one"), patient(server, "", "two"));
                cutter.cuts(&mut one, reached).await;
                if late == Late::BeforeTheNextRequest && reached != Reached::Both {
                    cutter.deliver("renewed");
                }
                let written = (server.field("state") == "held").then(|| server.field("term"));
                assert_eq!(written.is_some(), reached != Reached::Neither || late == Late::BeforeTheNextRequest);
                let term = one.wins().await;
                let won = clock::now();
                let is_found = written.is_some();
                assert!(written.is_none_or(|written| written == term.to_string()), "{reached:?}, {late:?}");
                if late == Late::AfterIt && reached == Reached::TakeAlone {
                    cutter.deliver("renewed");
                }
                let sent = one.is_credited().await;
                assert!(sent >= won || !is_found, "{reached:?}, {late:?}");
                let nonce = server.field("nonce");
                if late == Late::AfterIt && reached == Reached::Neither {
                    cutter.deliver("lost");
                    assert_eq!(server.field("nonce"), nonce);
                }
                assert!(matches!(two.ask().await, Ok(CampaignResult::Waiting { .. })));
                one.is_credited().await;
                assert_eq!(server.field("term"), term.to_string());
                one.store.release(&one.candidacy).await.expect("released");
                assert_eq!(server.field("state"), "free");
            }
        }
    });
}

/// It must not change the version, nor the name, that a later renewal has written.
#[test]
fn a_renewal_that_was_sent_with_a_take_and_comes_after_the_next_one_changes_nothing() {
    with_server(async |server| {
        settled_before(server, "").await;
        let cutter = Cutter::to(server);
        let mut one = through(&cutter.address, "", "one");
        cutter.cuts(&mut one, Reached::TakeAlone).await;
        let term = one.wins().await;
        "proclaimed".clone_into(&mut one.candidacy.identity.name);
        one.is_credited().await;
        let nonce = server.field("nonce");
        cutter.deliver("lost");
        assert_eq!([server.field("nonce"), server.field("name")], [nonce, "proclaimed".to_owned()]);
        one.is_credited().await;
        assert_eq!(server.field("term"), term.to_string());
    });
}

#[test]
fn a_take_whose_answer_is_lost_is_released_whatever_was_executed_of_it() {
    with_server(async |server| {
        settled_before(server, "").await;
        let cutter = Cutter::to(server);
        for reached in ALL {
            for late in [Late::Never, Late::BeforeTheNextRequest, Late::AfterIt] {
                let (mut one, mut two) = (through(&cutter.address, "", "one"), patient(server, "", "two"));
                cutter.cuts(&mut one, reached).await;
                if late == Late::BeforeTheNextRequest && reached != Reached::Both {
                    cutter.deliver("renewed");
                }
                one.store.release(&one.candidacy).await.expect("released");
                assert_eq!(server.field("state"), "free", "{reached:?}, {late:?}");
                let nonce = server.field("nonce");
                if late == Late::AfterIt && reached == Reached::TakeAlone {
                    cutter.deliver("lost");
                    assert_eq!([server.field("state"), server.field("nonce")], ["free".to_owned(), nonce]);
                }
                let won = two.ask().await;
                assert!(matches!(won, Ok(CampaignResult::Won { .. })), "{reached:?}, {late:?}: {won:?}");
                if late == Late::AfterIt && reached == Reached::Neither {
                    cutter.deliver("lost");
                }
                two.is_credited().await;
                assert!(matches!(one.renews().await, Ok(RenewResult::Lost { .. })));
                assert_eq!(server.field("name"), "two");
                two.store.release(&two.candidacy).await.expect("released");
            }
        }
    });
}
