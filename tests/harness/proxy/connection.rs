//! One connection through a proxy: two ends, and what is on its way between them.

use std::io::{ErrorKind, Read, Write};
use std::net::{self, TcpStream};

use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};

use super::{Carried, Origin, ProxyMode};

pub struct ProxiedConnection {
    pub number: u64,
    /// Once it has been found.
    pub origin: Option<usize>,
    /// Whether something may have to be done for it.
    pub is_due: bool,
    client: ConnectionEnd,
    server: ServerSide,
    requests: Flow,
    answers: Flow,
}

/// Until requests may pass it has not heard of the client.
enum ServerSide {
    Unaware,
    Dialled,
    Refused,
    There(ConnectionEnd),
}

impl ServerSide {
    fn end(&self) -> Option<&ConnectionEnd> {
        match self {
            ServerSide::There(end) => Some(end),
            ServerSide::Unaware | ServerSide::Dialled | ServerSide::Refused => None,
        }
    }
}

impl ProxiedConnection {
    pub fn new(number: u64, client: TcpStream) -> ProxiedConnection {
        ProxiedConnection {
            number,
            origin: None,
            is_due: true,
            client: ConnectionEnd::new(client),
            server: ServerSide::Unaware,
            requests: Flow::default(),
            answers: Flow::default(),
        }
    }

    pub fn find_origin(&mut self, origin: &Origin) {
        self.origin = self.origin.or_else(|| origin(&self.client.stream));
    }

    /// Whether the server must be dialled now; then [`ProxiedConnection::reach`] tells how that went.
    pub fn dials(&mut self, mode: ProxyMode) -> bool {
        let is_time = matches!(self.server, ServerSide::Unaware) && mode.passes_requests();
        if is_time {
            self.server = ServerSide::Dialled;
        }
        is_time
    }

    pub fn reach(&mut self, server: Option<TcpStream>) {
        self.server = server.map_or(ServerSide::Refused, |stream| ServerSide::There(ConnectionEnd::new(stream)));
        self.is_due = true;
    }

    /// Reads once and writes once in each direction, never waiting. False when the connection has come to its end.
    pub fn carry(&mut self, mode: ProxyMode, carried: &mut Carried) -> bool {
        self.requests.take_from(&mut self.client);
        if let ServerSide::There(server) = &mut self.server {
            self.answers.take_from(server);
            if mode.passes_requests() {
                self.requests.hand_to(server, &mut carried.requests);
            }
        }
        if mode.passes_answers() {
            self.answers.hand_to(&mut self.client, &mut carried.answers);
        }
        // A broken connection is noticed by the other end only where bytes would have passed, too.
        let server_is_broken = match &self.server {
            ServerSide::There(server) => server.is_broken,
            ServerSide::Refused => true,
            ServerSide::Unaware | ServerSide::Dialled => false,
        };
        let breaks = self.client.is_broken && mode.passes_requests() || server_is_broken && mode.passes_answers();
        if breaks || mode == ProxyMode::Closed {
            self.reset();
            return false;
        }
        !(self.requests.is_finished && self.answers.is_finished)
    }

    /// The sockets and the events to poll for.
    pub fn wants(&self, mode: ProxyMode) -> impl Iterator<Item = (&TcpStream, PollFlags)> {
        let client = wanted(&self.requests, &self.answers, mode.passes_answers());
        let server = wanted(&self.answers, &self.requests, mode.passes_requests());
        let ends = [(Some(&self.client), client), (self.server.end(), server)];
        ends.into_iter()
            .filter_map(|(end, events)| end.map(|end| (end, events)))
            .filter(|(end, events)| !end.is_broken && !events.is_empty())
            .map(|(end, events)| (&end.stream, events))
    }

    /// So that both ends hear of it as an error.
    fn reset(&self) {
        for end in [Some(&self.client), self.server.end()].into_iter().flatten() {
            let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
            setsockopt(&end.stream, sockopt::Linger, &at_once).expect("an option of an open socket");
        }
    }
}

fn wanted(from_it: &Flow, to_it: &Flow, may_pass: bool) -> PollFlags {
    let mut events = PollFlags::empty();
    events.set(PollFlags::POLLIN, from_it.has_room());
    events.set(PollFlags::POLLOUT, may_pass && to_it.has_work());
    events
}

struct ConnectionEnd {
    stream: TcpStream,
    /// Reset by the other side.
    is_broken: bool,
}

impl ConnectionEnd {
    fn new(stream: TcpStream) -> ConnectionEnd {
        stream.set_nonblocking(true).expect("a flag of an open socket");
        stream.set_nodelay(true).expect("an option of an open socket");
        ConnectionEnd { stream, is_broken: false }
    }
}

/// The bytes of one direction.
#[derive(Default)]
struct Flow {
    held: Vec<u8>,
    /// The sender has said its last.
    is_over: bool,
    /// And the receiver knows.
    is_finished: bool,
}

impl Flow {
    fn has_room(&self) -> bool {
        self.held.is_empty() && !self.is_over
    }

    fn has_work(&self) -> bool {
        !self.held.is_empty() || self.is_over && !self.is_finished
    }

    fn take_from(&mut self, end: &mut ConnectionEnd) {
        if !self.has_room() || end.is_broken {
            return;
        }
        let mut chunk = [0; 16 * 1024];
        match end.stream.read(&mut chunk) {
            Ok(0) => self.is_over = true,
            Ok(length) => self.held.extend(&chunk[..length]),
            Err(error) => end.is_broken |= !is_for_later(&error),
        }
    }

    fn hand_to(&mut self, end: &mut ConnectionEnd, count: &mut u64) {
        if end.is_broken {
            return;
        }
        if !self.held.is_empty() {
            match end.stream.write(&self.held) {
                Ok(length) => {
                    self.held.drain(..length);
                    *count += length as u64;
                }
                Err(error) => end.is_broken |= !is_for_later(&error),
            }
        }
        if self.held.is_empty() && self.is_over && !self.is_finished {
            // It may have gone first.
            let _ = end.stream.shutdown(net::Shutdown::Write);
            self.is_finished = true;
        }
    }
}

fn is_for_later(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
