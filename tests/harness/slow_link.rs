//! A relay that stands for a long way to a server: every byte takes half a round trip, and a new connection one round trip more, as
//! the handshake of TCP does. It needs no queueing discipline, which not every kernel has.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use elect_core::Time;
use elect_keeper::clock;

#[derive(Debug)]
pub struct SlowLink {
    address: String,
    is_over: Arc<AtomicBool>,
    connections: Arc<AtomicU64>,
}

impl SlowLink {
    /// To a server, by round trips of this length.
    pub fn to(target: &str, round_trip: Duration) -> SlowLink {
        let door = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = door.local_addr().expect("a bound socket has an address").to_string();
        let (is_over, connections) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (target, over, count) = (target.to_owned(), Arc::clone(&is_over), Arc::clone(&connections));
        thread::spawn(move || {
            for client in door.incoming() {
                if over.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(client) = client else { continue };
                count.fetch_add(1, Ordering::SeqCst);
                let target = target.clone();
                thread::spawn(move || carry(client, &target, round_trip));
            }
        });
        SlowLink { address, is_over, connections }
    }

    pub fn address(&self) -> String {
        self.address.clone()
    }

    /// Made through it so far.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for SlowLink {
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::SeqCst);
        // Wakes the thread that accepts.
        drop(TcpStream::connect(&self.address));
    }
}

fn carry(client: TcpStream, target: &str, round_trip: Duration) {
    let Ok(server) = TcpStream::connect(target) else { return };
    // The client believes itself connected at once, so that its first bytes are late by the handshake.
    let handshake = clock::now() + round_trip;
    for stream in [&client, &server] {
        stream.set_nodelay(true).expect("an open socket");
    }
    let one_way = round_trip / 2;
    let other = |stream: &TcpStream| stream.try_clone().expect("one more descriptor");
    let (requests, answers) = ((other(&client), other(&server)), (server, client));
    let back = thread::spawn(move || pass(answers.0, answers.1, clock::now(), one_way));
    pass(requests.0, requests.1, handshake, one_way);
    // A panic would have been reported.
    let _ = back.join();
}

/// From one end to the other, each piece late by this much, and none before that moment.
fn pass(mut from: TcpStream, to: TcpStream, not_before: Time, late: Duration) {
    let (pieces, inbox) = channel();
    let writer = thread::spawn(move || deliver(to, &inbox));
    send(&mut from, &pieces, not_before, late);
    drop(pieces);
    let _ = writer.join();
}

fn send(from: &mut TcpStream, pieces: &Sender<(Time, Vec<u8>)>, not_before: Time, late: Duration) {
    let mut piece = [0; 16 << 10];
    while let Ok(size @ 1..) = from.read(&mut piece) {
        let due = clock::now().max(not_before) + late;
        if pieces.send((due, piece[..size].to_vec())).is_err() {
            return;
        }
    }
}

fn deliver(mut to: TcpStream, inbox: &Receiver<(Time, Vec<u8>)>) {
    while let Ok((due, piece)) = inbox.recv() {
        thread::sleep(due.since(clock::now()));
        if to.write_all(&piece).is_err() {
            break;
        }
    }
    // The other end may have closed it already.
    let _ = to.shutdown(Shutdown::Both);
}
