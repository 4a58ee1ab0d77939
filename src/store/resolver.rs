//! Addresses of servers, looked up so that a reconnect needs no new thread (DESIGN.md K13).
//!
//! The system's resolver blocks, so that each lookup needs a thread. The thread is made at start ([`prepare`]) and kept: at a full
//! process table no other one can be made, and a runtime whose pool has no thread panics. One lookup per name is under way at a
//! time, however many attempts ask for it, so that a resolver that hangs occupies one thread and not one more with each attempt.
//! While a lookup is under way or fails, the addresses are used that the last one found.
//!
//! A client library that resolves names by itself, in the same pool, has the thread, but not the remembered addresses.

#![cfg_attr(
    not(feature = "all-stores"),
    allow(dead_code, reason = "a client that looks names up by itself needs the prepared thread alone")
)]

use std::io;
use std::net::{IpAddr, SocketAddr, ToSocketAddrs};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::memfd::{MFdFlags, memfd_create};
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::debug;

/// How long a lookup may take before the addresses are used that the last one found.
const REMEMBERED_DELAY: Duration = Duration::from_millis(100);
/// Names that are remembered. The next one replaces the one that was asked for least recently.
const NAMES_MAX: usize = 64;
/// Addresses that are remembered for each name, and tried.
const ADDRESSES_MAX: usize = 32;
/// Threads that the pool may have. One is made at start; the others, if they can be made, when the first one hangs.
pub const THREADS_MAX: usize = 4;
/// How long a thread of the pool is kept without work: longer than elect runs.
pub const THREAD_KEEP_ALIVE: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Whether the present runtime's pool has its thread.
static PREPARED: AtomicBool = AtomicBool::new(false);

/// Makes the first thread of the present runtime's pool, which is kept until the runtime ends.
///
/// # Errors
///
/// No thread can be made.
pub async fn prepare() -> io::Result<()> {
    let write = async {
        // Of all that runs in the pool, a file's writes are what the runtime does not panic for if there is no thread.
        let file = memfd_create(c"resolver", MFdFlags::MFD_CLOEXEC)?;
        let mut file = tokio::fs::File::from_std(file.into());
        file.write_all(b"\0").await?;
        file.flush().await
    };
    write.await.map_err(|error| {
        // The runtime does not pass on what the kernel said; the kernel says it again.
        let error = std::thread::Builder::new().spawn(|| ()).err().unwrap_or(error);
        io::Error::new(error.kind(), format!("no thread can be made to look up names ({error})"))
    })?;
    PREPARED.store(true, Ordering::Relaxed);
    Ok(())
}

/// [`prepare`], unless that has been done: for a client that looks up names in the pool by itself.
///
/// # Errors
///
/// No thread can be made.
pub async fn ensure_prepared() -> io::Result<()> {
    if PREPARED.load(Ordering::Relaxed) { Ok(()) } else { prepare().await }
}

/// The addresses of a host, at this port.
///
/// Cancellation: may be dropped at any time; the lookup goes on, and the next call takes its answer.
///
/// # Errors
///
/// The host is unknown or cannot be looked up, and no earlier lookup has found it.
pub async fn lookup(host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    static NAMES: LazyLock<Resolver> = LazyLock::new(|| Resolver::new(ask_the_system));
    NAMES.lookup(host, port).await
}

fn ask_the_system(host: &str) -> io::Result<Vec<SocketAddr>> {
    Ok((host, 0).to_socket_addrs()?.collect())
}

/// The result of a lookup. An error is kept as its kind and its text.
type Found = Result<Vec<SocketAddr>, (io::ErrorKind, String)>;

/// Names, and how one is looked up.
struct Resolver {
    ask: fn(&str) -> io::Result<Vec<SocketAddr>>,
    /// The one that was asked for most recently comes last.
    names: Mutex<Vec<Name>>,
}

struct Name {
    host: String,
    /// Found by the last lookup that found any.
    addresses: Vec<SocketAddr>,
    under_way: Option<watch::Receiver<Option<Found>>>,
}

impl Resolver {
    const fn new(ask: fn(&str) -> io::Result<Vec<SocketAddr>>) -> Resolver {
        Resolver { ask, names: Mutex::new(Vec::new()) }
    }

    async fn lookup(&'static self, host: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return Ok(vec![SocketAddr::new(ip, port)]);
        }
        let at_port = |mut addresses: Vec<SocketAddr>| {
            for address in &mut addresses {
                address.set_port(port);
            }
            addresses
        };
        let (answer, remembered) = self.begin(host);
        if remembered.is_empty() {
            return answer_of(answer).await.map(at_port).map_err(|(kind, text)| io::Error::new(kind, text));
        }
        match timeout(REMEMBERED_DELAY, answer_of(answer)).await {
            Ok(Ok(addresses)) => return Ok(at_port(addresses)),
            Ok(Err((_, why))) => debug!("{host:?} cannot be looked up, the last known addresses are used: {why}"),
            Err(_) => debug!("{host:?} is still being looked up, the last known addresses are used"),
        }
        Ok(at_port(remembered))
    }

    /// The lookup that is under way, or a new one; and what is remembered.
    fn begin(&'static self, host: &str) -> (watch::Receiver<Option<Found>>, Vec<SocketAddr>) {
        let mut names = self.names();
        let mut name = match names.iter().position(|name| name.host == host) {
            Some(place) => names.remove(place),
            None => Name { host: host.to_owned(), addresses: Vec::new(), under_way: None },
        };
        // One whose thread is gone, or was never made, is over.
        let under_way = name.under_way.take().filter(|answer| answer.has_changed().is_ok());
        let answer = under_way.unwrap_or_else(|| self.ask_beside(host));
        let remembered = name.addresses.clone();
        name.under_way = Some(answer.clone());
        if names.len() == NAMES_MAX {
            names.remove(0);
        }
        names.push(name);
        (answer, remembered)
    }

    /// Asks in the pool, or in a thread of its own where the pool may have none.
    fn ask_beside(&'static self, host: &str) -> watch::Receiver<Option<Found>> {
        let (sender, answer) = watch::channel(None);
        let sender = Arc::new(sender);
        let job = {
            let (host, sender) = (host.to_owned(), Arc::clone(&sender));
            move || {
                let found = (self.ask)(&host).map_err(|error| (error.kind(), error.to_string()));
                sender.send_replace(Some(self.note(&host, found)));
            }
        };
        if PREPARED.load(Ordering::Relaxed) {
            // Not waited for: the answer comes through the channel.
            drop(tokio::task::spawn_blocking(job));
        } else if let Err(error) = std::thread::Builder::new().name("resolver".to_owned()).spawn(job) {
            let why = format!("no thread can be made to look up {host:?} ({error})");
            sender.send_replace(Some(Err((error.kind(), why))));
        }
        answer
    }

    /// Remembers what was found.
    fn note(&self, host: &str, mut found: Found) -> Found {
        match &mut found {
            Ok(addresses) if addresses.is_empty() => {
                found = Err((io::ErrorKind::NotFound, "the host has no address".to_owned()));
            }
            Ok(addresses) => addresses.truncate(ADDRESSES_MAX),
            Err(_) => {}
        }
        if let Some(name) = self.names().iter_mut().find(|name| name.host == host) {
            name.under_way = None;
            if let Ok(addresses) = &found {
                name.addresses.clone_from(addresses);
            }
        }
        found
    }

    fn names(&self) -> MutexGuard<'_, Vec<Name>> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer_of(mut answer: watch::Receiver<Option<Found>>) -> Found {
    let ended = || Err((io::ErrorKind::Interrupted, "the lookup was given up".to_owned()));
    match answer.wait_for(Option::is_some).await {
        Ok(found) => found.clone().unwrap_or_else(ended),
        // The runtime ends.
        Err(_) => ended(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use elect_keeper::clock;

    fn runtime(threads_max: usize) -> tokio::runtime::Runtime {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        builder.enable_all().max_blocking_threads(threads_max).build().expect("a runtime")
    }

    #[test]
    fn an_address_is_no_name() {
        static NONE: Resolver = Resolver::new(|_| panic!("asked"));
        let found = runtime(1).block_on(async { (NONE.lookup("::1", 7).await, NONE.lookup("127.0.0.1", 8).await) });
        assert_eq!(found.0.expect("an address"), ["[::1]:7".parse().expect("an address")]);
        assert_eq!(found.1.expect("an address"), ["127.0.0.1:8".parse().expect("an address")]);
    }

    #[test]
    fn a_resolver_that_hangs_occupies_one_thread_and_what_it_found_before_is_used() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static HUNG: Mutex<()> = Mutex::new(());
        static NAMES: Resolver = Resolver::new(|_| {
            if ASKED.fetch_add(1, Ordering::SeqCst) > 0 {
                drop(HUNG.lock().expect("not poisoned"));
                return Ok(vec!["10.0.0.2:0".parse().expect("an address")]);
            }
            Ok(vec!["10.0.0.1:0".parse().expect("an address")])
        });
        let hung = HUNG.lock().expect("not poisoned");
        runtime(2).block_on(async {
            let [first, second] = ["10.0.0.1:80", "10.0.0.2:80"].map(|address| [address.parse().expect("an address")]);
            assert_eq!(NAMES.lookup("store", 80).await.expect("found"), first);
            for _ in 0..3 {
                assert_eq!(NAMES.lookup("store", 80).await.expect("remembered"), first);
            }
            // The second thread may be late.
            let limit = clock::now() + Duration::from_secs(60);
            while ASKED.load(Ordering::SeqCst) < 2 && clock::now() < limit {
                std::thread::yield_now();
            }
            assert_eq!(ASKED.load(Ordering::SeqCst), 2);
            drop(hung);
            // Its answer comes, and is the one that counts then.
            while NAMES.lookup("store", 80).await.expect("found") != second {}
        });
    }

    #[test]
    fn a_name_that_is_lost_keeps_its_addresses_and_one_never_found_is_an_error() {
        static LOST: AtomicUsize = AtomicUsize::new(0);
        static NAMES: Resolver = Resolver::new(|host| {
            if host == "nowhere" || LOST.load(Ordering::SeqCst) > 0 {
                return Err(io::Error::other(format!("{host} is unknown")));
            }
            Ok(vec!["10.0.0.1:0".parse().expect("an address")])
        });
        runtime(1).block_on(async {
            let error = NAMES.lookup("nowhere", 80).await.expect_err("unknown");
            assert_eq!(error.to_string(), "nowhere is unknown");
            NAMES.lookup("store", 80).await.expect("found");
            LOST.store(1, Ordering::SeqCst);
            assert_eq!(NAMES.lookup("store", 81).await.expect("remembered"), ["10.0.0.1:81".parse().expect("one")]);
            // Names without end, as hostile Sentinels might give.
            for number in 0..3 * NAMES_MAX {
                NAMES.lookup(&format!("host-{number}"), 80).await.expect_err("unknown");
            }
            assert_eq!(NAMES.names().len(), NAMES_MAX);
        });
    }

    #[test]
    fn too_many_addresses_are_cut_and_none_is_an_error() {
        static NAMES: Resolver = Resolver::new(|host| {
            let count = if host == "many" { 1000 } else { 0 };
            Ok(vec!["10.0.0.1:0".parse().expect("an address"); count])
        });
        runtime(1).block_on(async {
            assert_eq!(NAMES.lookup("many", 80).await.expect("found").len(), ADDRESSES_MAX);
            assert_eq!(NAMES.lookup("none", 80).await.expect_err("none").kind(), io::ErrorKind::NotFound);
        });
    }

    #[test]
    fn a_lookup_that_was_given_up_is_not_started_twice() {
        static ASKED: AtomicUsize = AtomicUsize::new(0);
        static HUNG: Mutex<()> = Mutex::new(());
        static NAMES: Resolver = Resolver::new(|_| {
            ASKED.fetch_add(1, Ordering::SeqCst);
            drop(HUNG.lock().expect("not poisoned"));
            Ok(vec!["10.0.0.1:0".parse().expect("an address")])
        });
        let hung = HUNG.lock().expect("not poisoned");
        runtime(4).block_on(async {
            while ASKED.load(Ordering::SeqCst) == 0 {
                timeout(Duration::from_millis(1), NAMES.lookup("store", 80)).await.expect_err("it hangs");
            }
            for _ in 0..3 {
                timeout(Duration::from_millis(1), NAMES.lookup("store", 80)).await.expect_err("it hangs");
            }
            assert_eq!(ASKED.load(Ordering::SeqCst), 1);
            drop(hung);
            NAMES.lookup("store", 80).await.expect("found");
        });
    }
}
