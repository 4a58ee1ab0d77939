//! A TCP proxy between one candidate and its server that can catch a single request: hold it back until it is late, or let it
//! pass and keep its answer. A request is recognized by some bytes in it.
//!
//! It runs in the same runtime as the candidate, so nothing here depends on the speed of the machine: tests wait until the
//! request has been caught.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, watch};

use elect_core::Time;
use elect_keeper::clock;

/// The treatment of the request that is caught.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trap {
    /// It is held back, with everything that follows on its connection, until [`Gate::deliver`].
    Hold,
    /// It passes. From its answer on, nothing comes back on its connection. It counts as caught once the server has answered.
    Mute,
    /// It passes; only the time is noted.
    Note,
}

/// The proxy; connections end with it.
pub struct Gate {
    address: String,
    orders: watch::Sender<Orders>,
    book: Rc<Book>,
}

/// Counts, so that no connection misses an order.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Orders {
    deliveries: u64,
    cuts: u64,
}

/// The state that the connections and the test share.
#[derive(Default)]
struct Book {
    trap: RefCell<Option<(Trap, Vec<u8>)>>,
    caught: Cell<Option<Time>>,
    is_served: Cell<bool>,
    is_closed: Cell<bool>,
    news: Notify,
}

impl Book {
    /// The trap, if this is what it waits for; there is one request for each trap.
    fn meets(&self, sent: &[u8]) -> Option<Trap> {
        let mut trap = self.trap.borrow_mut();
        let (kind, _) =
            trap.take_if(|(_, bytes)| bytes.is_empty() || sent.windows(bytes.len()).any(|part| part == bytes))?;
        if kind != Trap::Mute {
            self.catch();
        }
        Some(kind)
    }

    fn catch(&self) {
        self.caught.set(Some(clock::now()));
        self.news.notify_waiters();
    }

    fn serve(&self) {
        self.is_served.set(true);
        self.news.notify_waiters();
    }
}

impl Gate {
    /// To a server. Must be called inside a [`tokio::task::LocalSet`].
    pub async fn to(server: &str) -> Gate {
        let door = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = door.local_addr().expect("a bound socket has an address").to_string();
        let (orders, received) = watch::channel(Orders::default());
        let (book, server) = (Rc::new(Book::default()), server.to_owned());
        let shared = Rc::clone(&book);
        // It ends with the sender of orders.
        tokio::task::spawn_local(async move {
            let mut ends = received.clone();
            loop {
                let client = tokio::select! {
                    accepted = door.accept() => accepted.expect("a client").0,
                    order = ends.changed() => if order.is_ok() { continue } else { return },
                };
                if shared.is_closed.get() {
                    continue;
                }
                let (book, orders, server) = (Rc::clone(&shared), received.clone(), server.clone());
                tokio::task::spawn_local(async move {
                    if let Ok(server) = TcpStream::connect(server).await {
                        GateConnection::new(book, orders).carry(client, server).await;
                    }
                });
            }
        });
        Gate { address, orders, book }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// Catches the next request that contains these bytes; the very next one if there are none.
    pub fn set(&self, trap: Trap, bytes: &str) {
        self.book.caught.set(None);
        self.book.is_served.set(false);
        *self.book.trap.borrow_mut() = Some((trap, bytes.as_bytes().to_vec()));
    }

    /// Returns when a request has been caught, with the time at which it was.
    pub async fn caught(&self) -> Time {
        loop {
            let news = self.book.news.notified();
            if let Some(time) = self.book.caught.get() {
                return time;
            }
            news.await;
        }
    }

    /// Gives the server what was held. Returns when it has answered, or ended the connection.
    pub async fn deliver(&self) {
        self.orders.send_modify(|orders| orders.deliveries += 1);
        loop {
            let news = self.book.news.notified();
            if self.book.is_served.get() {
                return;
            }
            news.await;
        }
    }

    /// Ends every connection; new ones are possible.
    pub fn cut(&self) {
        self.orders.send_modify(|orders| orders.cuts += 1);
    }

    /// Ends every connection, and each new one at once.
    pub fn close(&self) {
        self.book.is_closed.set(true);
        self.cut();
    }

    pub fn open(&self) {
        self.book.is_closed.set(false);
    }
}

/// One connection.
struct GateConnection {
    book: Rc<Book>,
    orders: watch::Receiver<Orders>,
    known: Orders,
    trap: Option<Trap>,
    held: Vec<u8>,
    /// The end of the last part, for bytes that come in two parts.
    tail: Vec<u8>,
    client_is_there: bool,
    /// Whether the next answer is the one to the request that was caught.
    awaits_answer: bool,
}

impl GateConnection {
    fn new(book: Rc<Book>, mut orders: watch::Receiver<Orders>) -> GateConnection {
        let known = *orders.borrow_and_update();
        GateConnection {
            book,
            orders,
            known,
            trap: None,
            held: Vec::new(),
            tail: Vec::new(),
            client_is_there: true,
            awaits_answer: false,
        }
    }

    async fn carry(mut self, client: TcpStream, server: TcpStream) {
        let (mut from_client, mut to_client) = client.into_split();
        let (mut from_server, mut to_server) = server.into_split();
        let (mut request, mut answer) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
        loop {
            tokio::select! {
                read = from_client.read(&mut request), if self.client_is_there => {
                    let length = read.unwrap_or(0);
                    if length == 0 {
                        self.client_is_there = false;
                        if !self.is_needed() {
                            return;
                        }
                    } else if let Some(passes) = self.request(&request[..length])
                        && to_server.write_all(&passes).await.is_err()
                    {
                        return;
                    }
                }
                read = from_server.read(&mut answer) => {
                    let length = read.unwrap_or(0);
                    self.answered();
                    if length == 0 || !self.client_is_there && !self.is_needed() {
                        return;
                    }
                    if self.trap != Some(Trap::Mute) && to_client.write_all(&answer[..length]).await.is_err() {
                        self.client_is_there = false;
                    }
                }
                order = self.orders.changed() => {
                    let orders = *self.orders.borrow_and_update();
                    if order.is_err() || orders.cuts != self.known.cuts {
                        return;
                    }
                    self.known = orders;
                    if self.trap == Some(Trap::Hold) {
                        self.trap = None;
                        self.awaits_answer = true;
                        let held = std::mem::take(&mut self.held);
                        if to_server.write_all(&held).await.is_err() {
                            self.answered();
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Whether the server has yet to get, or to answer, what was caught.
    fn is_needed(&self) -> bool {
        self.trap == Some(Trap::Hold) || self.awaits_answer
    }

    /// The part of a request that passes.
    fn request(&mut self, sent: &[u8]) -> Option<Vec<u8>> {
        if self.trap.is_none() {
            self.tail.extend(sent);
            self.trap = self.book.meets(&self.tail).filter(|trap| *trap != Trap::Note);
            self.awaits_answer |= self.trap == Some(Trap::Mute);
            let kept = self.tail.len().saturating_sub(256);
            self.tail.drain(..kept);
        }
        if self.trap == Some(Trap::Hold) {
            self.held.extend(sent);
            return None;
        }
        Some(sent.to_vec())
    }

    fn answered(&mut self) {
        if std::mem::take(&mut self.awaits_answer) {
            match self.trap {
                Some(Trap::Mute) => self.book.catch(),
                Some(Trap::Hold | Trap::Note) | None => self.book.serve(),
            }
        }
    }
}
