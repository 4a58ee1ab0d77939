//! A TCP proxy that stands for the network between a client and a server: open, cut, or cut one way.
//!
//! One thread serves all connections of a proxy. It alone moves bytes, and it takes an order between two moves: once
//! [`Proxy::mode`] has returned, not a byte passes that may not.

use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{self, Backlog, Shutdown};

use self::connection::ProxiedConnection;
use super::ports::free_port;

mod connection;

/// For a server that is dialled.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How the bytes are treated. Held bytes are delivered once the way is open again, as TCP does after an outage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyMode {
    Open,
    /// Existing connections are reset, new ones refused.
    Closed,
    /// Connections are kept, and new ones accepted; nothing passes.
    BlackHole,
    /// The client's bytes are held.
    RequestsHeld,
    /// The server's bytes are held.
    AnswersHeld,
}

impl ProxyMode {
    pub fn passes_requests(self) -> bool {
        matches!(self, ProxyMode::Open | ProxyMode::AnswersHeld)
    }

    pub fn passes_answers(self) -> bool {
        matches!(self, ProxyMode::Open | ProxyMode::RequestsHeld)
    }
}

/// The traffic of a proxy so far: connections accepted, bytes handed on.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Carried {
    pub connections: u64,
    pub requests: u64,
    pub answers: u64,
}

#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    outside: OrderSender,
    thread: Option<JoinHandle<()>>,
}

/// Identifies the client of a connection, for a proxy that treats clients differently. Called only when needed: it may be slow.
pub type Origin = Box<dyn Fn(&TcpStream) -> Option<usize> + Send>;

impl Proxy {
    /// To a server that need not be there yet.
    pub fn to(target: &str) -> Proxy {
        Proxy::telling_apart(target, Box::new(|_| None))
    }

    /// With a mode of its own for each origin: see [`Proxy::mode_for`].
    pub fn telling_apart(target: &str, origin: Origin) -> Proxy {
        let door = std::iter::repeat_with(|| TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())))
            .take(100)
            .find_map(Result::ok)
            .expect("one of so many ports is free");
        door.set_nonblocking(true).expect("a flag of an open socket");
        let (bell, receiver) = UnixStream::pair().expect("a pair of sockets");
        receiver.set_nonblocking(true).expect("a flag of an open socket");
        let (orders, inbox) = channel();
        let outside = OrderSender { orders, bell };
        let address = door.local_addr().expect("a bound socket has an address");
        let exchange = ProxyLoop {
            door,
            receiver,
            inbox,
            outside: outside.another(),
            target: target.parse().expect("an address and a port"),
            origin,
            mode: ProxyMode::Open,
            modes: HashMap::new(),
            lines: Vec::new(),
            number: 0,
            carried: Carried::default(),
        };
        let thread = Some(thread::spawn(|| exchange.run()));
        Proxy { address, outside, thread }
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// For all connections, existing and new. In force when this returns.
    pub fn mode(&self, mode: ProxyMode) {
        self.order(None, mode);
    }

    /// For the connections from one origin only. Unless it is [`ProxyMode::Open`], it counts there instead of the mode for all.
    pub fn mode_for(&self, origin: usize, mode: ProxyMode) {
        self.order(Some(origin), mode);
    }

    pub fn carried(&self) -> Carried {
        self.ask(Order::Count)
    }

    fn order(&self, origin: Option<usize>, mode: ProxyMode) {
        self.ask(|done| Order::Set { origin, mode, done });
    }

    fn ask<T>(&self, order: impl FnOnce(SyncSender<T>) -> Order) -> T {
        let (reply, replied) = sync_channel(1);
        self.outside.send(order(reply));
        replied.recv().expect("the proxy runs")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.outside.send(Order::End);
        // If it has panicked, the test has failed already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// The way to the thread of a proxy.
#[derive(Debug)]
struct OrderSender {
    orders: Sender<Order>,
    bell: UnixStream,
}

impl OrderSender {
    /// Into the void, when the proxy has ended.
    fn send(&self, order: Order) {
        let _ = self.orders.send(order);
        let _ = (&self.bell).write_all(b"!");
    }

    fn another(&self) -> OrderSender {
        OrderSender { orders: self.orders.clone(), bell: self.bell.try_clone().expect("one more descriptor") }
    }
}

enum Order {
    Set {
        origin: Option<usize>,
        mode: ProxyMode,
        done: SyncSender<()>,
    },
    Count(SyncSender<Carried>),
    /// A server was dialled for a line, and this came of it.
    Reach {
        line: u64,
        server: Option<TcpStream>,
    },
    End,
}

/// The state of a proxy's thread.
struct ProxyLoop {
    door: TcpListener,
    receiver: UnixStream,
    inbox: Receiver<Order>,
    outside: OrderSender,
    target: SocketAddr,
    origin: Origin,
    mode: ProxyMode,
    modes: HashMap<usize, ProxyMode>,
    lines: Vec<ProxiedConnection>,
    /// Of the next line.
    number: u64,
    carried: Carried,
}

impl ProxyLoop {
    fn run(mut self) {
        while self.obey() {
            self.accept();
            self.carry();
            self.wait();
        }
    }

    /// Carries out what was ordered; false at the end.
    fn obey(&mut self) -> bool {
        // However often it rang.
        let _ = (&self.receiver).read(&mut [0; 64]);
        while let Ok(order) = self.inbox.try_recv() {
            // If the test has panicked, no thread waits for an answer any more.
            match order {
                Order::Set { origin, mode, done } => {
                    self.set(origin, mode);
                    self.carry();
                    let _ = done.send(());
                }
                Order::Count(reply) => drop(reply.send(self.carried)),
                Order::Reach { line, server } => {
                    // It may have been reset meanwhile.
                    if let Some(line) = self.lines.iter_mut().find(|one| one.number == line) {
                        line.reach(server);
                    }
                }
                Order::End => return false,
            }
        }
        true
    }

    fn set(&mut self, origin: Option<usize>, mode: ProxyMode) {
        match origin {
            Some(origin) => drop(self.modes.insert(origin, mode)),
            None => self.set_for_all(mode),
        }
        let matters = self.origin_matters();
        for line in &mut self.lines {
            line.is_due = true;
            if matters {
                line.find_origin(&self.origin);
            }
        }
    }

    /// A socket that no longer listens refuses, and keeps its port.
    fn set_for_all(&mut self, mode: ProxyMode) {
        let was = std::mem::replace(&mut self.mode, mode);
        match (was == ProxyMode::Closed, mode == ProxyMode::Closed) {
            (false, true) => socket::shutdown(self.door.as_raw_fd(), Shutdown::Read).expect("a listening socket"),
            (true, false) => socket::listen(&self.door, Backlog::MAXCONN).expect("a bound socket"),
            _ => (),
        }
    }

    fn origin_matters(&self) -> bool {
        self.modes.values().any(|&mode| mode != ProxyMode::Open)
    }

    fn mode_of(&self, line: &ProxiedConnection) -> ProxyMode {
        let own = line.origin.and_then(|origin| self.modes.get(&origin).copied());
        own.filter(|&own| own != ProxyMode::Open).unwrap_or(self.mode)
    }

    fn accept(&mut self) {
        while self.mode != ProxyMode::Closed {
            match self.door.accept() {
                Ok((client, _)) => {
                    self.carried.connections += 1;
                    self.number += 1;
                    let mut line = ProxiedConnection::new(self.number, client);
                    if self.origin_matters() {
                        line.find_origin(&self.origin);
                    }
                    self.lines.push(line);
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Gone before it was accepted.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => (),
                Err(error) => panic!("the proxy cannot accept: {error}"),
            }
        }
    }

    /// Moves what can be moved, and forgets who is done.
    fn carry(&mut self) {
        let mut lines = std::mem::take(&mut self.lines);
        lines.retain_mut(|line| {
            let mode = self.mode_of(line);
            if !std::mem::take(&mut line.is_due) {
                return true;
            }
            if line.dials(mode) {
                self.dial(line.number);
            }
            line.carry(mode, &mut self.carried)
        });
        self.lines = lines;
    }

    /// In a thread of its own: a server that is stopped, or has much to do, may take its time.
    fn dial(&self, line: u64) {
        let (target, outside) = (self.target, self.outside.another());
        thread::spawn(move || {
            let server = TcpStream::connect_timeout(&target, CONNECT_TIMEOUT).ok();
            outside.send(Order::Reach { line, server });
        });
    }

    /// Until there is an order, a client, or something to be moved.
    fn wait(&mut self) {
        let mut sockets = vec![PollFd::new(self.receiver.as_fd(), PollFlags::POLLIN)];
        let mut lines = vec![None];
        if self.mode != ProxyMode::Closed {
            sockets.push(PollFd::new(self.door.as_fd(), PollFlags::POLLIN));
            lines.push(None);
        }
        for (index, line) in self.lines.iter().enumerate() {
            for (stream, events) in line.wants(self.mode_of(line)) {
                sockets.push(PollFd::new(stream.as_fd(), events));
                lines.push(Some(index));
            }
        }
        match poll(&mut sockets, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => (),
            Err(error) => panic!("the proxy cannot wait: {error}"),
        }
        let stirred = |socket: &PollFd| socket.revents().is_some_and(|events| !events.is_empty());
        let due: Vec<usize> =
            std::iter::zip(&sockets, lines).filter_map(|(socket, line)| line.filter(|_| stirred(socket))).collect();
        for index in due {
            self.lines[index].is_due = true;
        }
    }
}
