//! One connection through a proxy: two ends, and what is on its way between them.

use std::io::{ErrorKind, Read, Write};
use std::net::{self, TcpStream};

use nix::poll::PollFlags;
use nix::sys::socket::{setsockopt, sockopt};

use super::{Carried, Mode, Origin};

pub struct Line {
    pub number: u64,
    /// Once it has been found.
    pub origin: Option<usize>,
    /// Whether something may have to be done for it.
    pub is_due: bool,
    client: End,
    server: Server,
    requests: Flow,
    answers: Flow,
}

/// Until requests may pass it has not heard of the client.
enum Server {
    Unaware,
    Dialled,
    Refused,
    There(End),
}

impl Server {
    fn end(&self) -> Option<&End> {
        match self {
            Server::There(end) => Some(end),
            Server::Unaware | Server::Dialled | Server::Refused => None,
        }
    }
}

impl Line {
    pub fn new(number: u64, client: TcpStream) -> Line {
        Line {
            number,
            origin: None,
            is_due: true,
            client: End::new(client),
            server: Server::Unaware,
            requests: Flow::default(),
            answers: Flow::default(),
        }
    }

    pub fn find_origin(&mut self, origin: &Origin) {
        self.origin = self.origin.or_else(|| origin(&self.client.stream));
    }

    /// Whether the server must be dialled now; then [`Line::reach`] tells how that went.
    pub fn dials(&mut self, mode: Mode) -> bool {
        let is_time = matches!(self.server, Server::Unaware) && mode.passes_requests();
        if is_time {
            self.server = Server::Dialled;
        }
        is_time
    }

    pub fn reach(&mut self, server: Option<TcpStream>) {
        self.server = server.map_or(Server::Refused, |stream| Server::There(End::new(stream)));
        self.is_due = true;
    }

    /// Reads once and writes once in each direction, never waiting. False when the connection has come to its end.
    pub fn carry(&mut self, mode: Mode, carried: &mut Carried) -> bool {
        self.requests.take_from(&mut self.client);
        if let Server::There(server) = &mut self.server {
            self.answers.take_from(server);
            if mode.passes_requests() {
                self.requests.hand_to(server, &mut carried.requests);
            }
        }
        if mode.passes_answers() {
            self.answers.hand_to(&mut self.client, &mut carried.answers);
        }
        // Who breaks off is noticed by the other end where bytes would have come through, too.
        let server_is_broken = match &self.server {
            Server::There(server) => server.is_broken,
            Server::Refused => true,
            Server::Unaware | Server::Dialled => false,
        };
        let breaks = self.client.is_broken && mode.passes_requests() || server_is_broken && mode.passes_answers();
        if breaks || mode == Mode::Closed {
            self.reset();
            return false;
        }
        !(self.requests.is_finished && self.answers.is_finished)
    }

    /// What to wait for.
    pub fn wants(&self, mode: Mode) -> impl Iterator<Item = (&TcpStream, PollFlags)> {
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

struct End {
    stream: TcpStream,
    /// Reset by the other side.
    is_broken: bool,
}

impl End {
    fn new(stream: TcpStream) -> End {
        stream.set_nonblocking(true).expect("a flag of an open socket");
        stream.set_nodelay(true).expect("an option of an open socket");
        End { stream, is_broken: false }
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

    fn take_from(&mut self, end: &mut End) {
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

    fn hand_to(&mut self, end: &mut End, count: &mut u64) {
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
