//! A program that answers like a Redis or a Sentinel, and worse: the answer to each command is up to the test.

use std::io::{BufRead, BufReader, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::harness::eventually;
use crate::harness::ports::free_port;

/// The reply to a command.
#[derive(Debug, Clone)]
pub enum FakeReply {
    Bytes(Vec<u8>),
    /// The first, and then the second again and again until the connection ends.
    Flood(Vec<u8>, Vec<u8>),
    /// Nothing, and the connection stays.
    Silence,
}

impl FakeReply {
    pub fn text(text: &str) -> FakeReply {
        FakeReply::Bytes(text.as_bytes().to_vec())
    }

    pub fn bulk(text: &str) -> FakeReply {
        FakeReply::Bytes(bulk(text))
    }

    pub fn list(words: &[&str]) -> FakeReply {
        let strings: Vec<u8> = words.iter().flat_map(|word| bulk(word)).collect();
        FakeReply::Bytes([format!("*{}\r\n", words.len()).into_bytes(), strings].concat())
    }

    /// The second is repeated in large pieces: one write per piece must not be the limit.
    pub fn flood(first: &str, then: &str) -> FakeReply {
        FakeReply::Flood(first.as_bytes().to_vec(), then.as_bytes().repeat(65_536 / then.len()))
    }
}

fn bulk(text: &str) -> Vec<u8> {
    format!("${}\r\n{text}\r\n", text.len()).into_bytes()
}

/// Words of one command, in lower case but for its arguments.
pub type CommandWords = Vec<String>;
type ReplyScript = dyn Fn(&[String]) -> FakeReply + Send + Sync;

pub struct FakeRedis {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<CommandWords>>>,
    is_over: Arc<AtomicBool>,
}

impl FakeRedis {
    pub fn start(script: impl Fn(&[String]) -> FakeReply + Send + Sync + 'static) -> FakeRedis {
        let door = eventually("a free port", || TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).ok());
        let address = door.local_addr().expect("a bound socket has an address");
        let (seen, is_over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let (script, notes, ends): (Arc<ReplyScript>, _, _) =
            (Arc::new(script), Arc::clone(&seen), Arc::clone(&is_over));
        thread::spawn(move || {
            for stream in door.incoming() {
                if ends.load(Ordering::Relaxed) {
                    return;
                }
                let (script, notes): (Arc<ReplyScript>, Arc<Mutex<Vec<CommandWords>>>) =
                    (Arc::clone(&script), Arc::clone(&notes));
                let Ok(stream) = stream else { continue };
                thread::spawn(move || serve(stream, script.as_ref(), &notes));
            }
        });
        FakeRedis { address, seen, is_over }
    }

    /// A Sentinel that names this port of this host as the primary `main`, with this epoch.
    pub fn sentinel(primary: u16, epoch: u64) -> FakeRedis {
        FakeRedis::start(move |words| names(words, "127.0.0.1", primary, epoch))
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// All commands so far.
    pub fn seen(&self) -> Vec<CommandWords> {
        self.seen.lock().expect("nobody panics with it").clone()
    }

    pub fn has_seen(&self, word: &str) -> bool {
        self.seen().iter().flatten().any(|seen| seen == word)
    }
}

impl Drop for FakeRedis {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        // The door is waited at.
        let _ = TcpStream::connect(self.address);
    }
}

/// The answer of a Sentinel about the primary.
pub fn names(words: &[String], host: &str, port: u16, epoch: u64) -> FakeReply {
    let (port, epoch) = (port.to_string(), epoch.to_string());
    match words.get(1).map(String::as_str) {
        Some("get-master-addr-by-name") => FakeReply::list(&[host, &port]),
        Some("master") => FakeReply::list(&["name", "main", "ip", host, "port", &port, "config-epoch", &epoch]),
        _ => FakeReply::text("+OK\r\n"),
    }
}

/// How a Redis answers until it is asked for `INFO` of a primary that elect accepts.
pub fn as_redis(words: &[String]) -> FakeReply {
    match words[0].as_str() {
        "hello" => FakeReply::text("%1\r\n$5\r\nproto\r\n:3\r\n"),
        "info" => {
            let lines = [
                "redis_mode:standalone",
                "role:master",
                "run_id:aa",
                "master_replid:bb",
                "maxmemory_policy:noeviction",
            ];
            FakeReply::bulk(&lines.join("\r\n"))
        }
        "subscribe" | "psubscribe" => {
            let channel = &words[1];
            FakeReply::text(&format!(
                ">3\r\n${}\r\n{}\r\n${}\r\n{channel}\r\n:1\r\n",
                words[0].len(),
                words[0],
                channel.len()
            ))
        }
        _ => FakeReply::text("+OK\r\n"),
    }
}

fn serve(stream: TcpStream, script: &ReplyScript, seen: &Mutex<Vec<CommandWords>>) {
    let Ok(mut out) = stream.try_clone() else { return };
    let mut input = BufReader::new(stream);
    while let Some(mut words) = command(&mut input) {
        words[0].make_ascii_lowercase();
        seen.lock().expect("nobody panics with it").push(words.clone());
        let sent = match script(&words) {
            FakeReply::Bytes(bytes) => out.write_all(&bytes),
            FakeReply::Silence => Ok(()),
            FakeReply::Flood(first, then) => {
                let mut sent = out.write_all(&first);
                while sent.is_ok() {
                    sent = out.write_all(&then);
                }
                sent
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The next command: an array of strings.
fn command(input: &mut impl BufRead) -> Option<CommandWords> {
    let count = number(input, '*')?;
    let words: Option<CommandWords> = (0..count)
        .map(|_| {
            let mut word = vec![0; number(input, '$')? + 2];
            input.read_exact(&mut word).ok()?;
            word.truncate(word.len() - 2);
            Some(String::from_utf8_lossy(&word).into_owned())
        })
        .collect();
    words.filter(|words| !words.is_empty())
}

fn number(input: &mut impl BufRead, kind: char) -> Option<usize> {
    let mut line = String::new();
    input.read_line(&mut line).ok()?;
    line.trim().strip_prefix(kind)?.parse().ok()
}
