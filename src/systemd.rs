//! Notifications to systemd: readiness, the status line, the watchdog, and a stop with the time that it may take.
//!
//! Messages go to the datagram socket that `NOTIFY_SOCKET` names, without ever waiting for it: a message that finds no
//! room is replaced a little later by the state at that time. The crate `sd_notify` encodes the protocol; its own function
//! for sending blocks when the socket is full and supports no abstract names.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

use elect_core::Time;

/// How soon a message that found no room is tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);
/// While stopping, systemd is asked for so much more time…
const STOP_EXTENSION: Duration = Duration::from_secs(15);
/// …this often: a loop that stalls is waited for no longer than that.
const EXTEND_INTERVAL: Duration = Duration::from_secs(5);

/// The connection to the service manager, if there is one.
#[derive(Debug)]
pub struct SystemdNotifier {
    socket: Option<NotifySocket>,
    /// Half of what the watchdog allows; `None`: there is no watchdog.
    interval: Option<Duration>,
    sent: Sent,
    watchdog_at: Time,
    extend_at: Time,
    /// After a message that found no room.
    retry_at: Time,
}

/// The state that systemd has received.
#[derive(Debug, Default)]
struct Sent {
    is_ready: bool,
    is_stopping: bool,
    text: String,
}

/// The state of the service that systemd is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceStatus {
    /// The line that `systemctl status` shows.
    pub text: String,
    /// Whether the service is on its way out.
    pub is_stopping: bool,
    /// Whether the loop and the store's worker still turn: otherwise the watchdog must bite.
    pub is_alive: bool,
}

impl SystemdNotifier {
    /// As the variables say that systemd has set for us.
    #[must_use]
    pub fn from_environment() -> SystemdNotifier {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| {
            NotifySocket::open(&name)
                .inspect_err(|error| debug!("NOTIFY_SOCKET {} cannot be used: {error}", name.display()))
                .ok()
        });
        // Only if the watchdog is for this process, not for one that has started it.
        SystemdNotifier::new(socket, sd_notify::watchdog_enabled())
    }

    fn new(socket: Option<NotifySocket>, watchdog: Option<Duration>) -> SystemdNotifier {
        let interval = watchdog.map(|allowed| allowed / 2).filter(|half| !half.is_zero());
        SystemdNotifier {
            interval: interval.filter(|_| socket.is_some()),
            socket,
            sent: Sent::default(),
            watchdog_at: Time::BOOT,
            extend_at: Time::NEVER,
            retry_at: Time::NEVER,
        }
    }

    /// Says what is new or due, in one message. To be called after every event, and at [`SystemdNotifier::wake_at`] at
    /// the latest.
    pub fn notify(&mut self, now: Time, ServiceStatus { text, is_stopping, is_alive }: ServiceStatus) {
        let Some(socket) = &self.socket else { return };
        let extends = is_stopping && (!self.sent.is_stopping || now >= self.extend_at);
        let mut pings = self.interval.is_some() && now >= self.watchdog_at;
        if pings && !is_alive {
            // This loop turns, and the store's worker does not.
            pings = false;
            self.watchdog_at = now + RETRY_INTERVAL;
        }
        let extension = u32::try_from(STOP_EXTENSION.as_micros()).unwrap_or(u32::MAX);
        let words = [
            (!self.sent.is_ready).then_some(NotifyState::Ready),
            (is_stopping && !self.sent.is_stopping).then_some(NotifyState::Stopping),
            (text != self.sent.text).then_some(NotifyState::Status(&text)),
            extends.then_some(NotifyState::ExtendTimeoutUsec(extension)),
            pings.then_some(NotifyState::Watchdog),
        ];
        let mut message = String::new();
        for word in words.iter().flatten() {
            // Into a string: never fails.
            let _ = writeln!(message, "{word}");
        }
        if message.is_empty() {
            return;
        }
        if let Err(error) = socket.send(&message) {
            if self.retry_at == Time::NEVER {
                debug!("systemd was not told: {error}");
            }
            self.retry_at = now + RETRY_INTERVAL;
            return;
        }
        self.retry_at = Time::NEVER;
        self.sent = Sent { is_ready: true, is_stopping, text };
        if extends {
            self.extend_at = now + EXTEND_INTERVAL;
        }
        if let Some(interval) = self.interval.filter(|_| pings) {
            self.watchdog_at = now + interval;
        }
    }

    /// When something has to be said even if nothing happens.
    #[must_use]
    pub fn wake_at(&self) -> Time {
        if self.retry_at != Time::NEVER {
            return self.retry_at;
        }
        let watchdog_at = if self.interval.is_some() { self.watchdog_at } else { Time::NEVER };
        watchdog_at.min(self.extend_at)
    }
}

/// A datagram socket, and where to. Not connected: a manager that was restarted listens at the same place.
#[derive(Debug)]
struct NotifySocket {
    socket: UnixDatagram,
    manager: SocketAddr,
}

impl NotifySocket {
    fn open(name: &OsStr) -> io::Result<NotifySocket> {
        let manager = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(NotifySocket { socket, manager })
    }

    fn send(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.manager).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const NOW: Time = Time::from_nanos(1_000_000_000_000);

    fn campaigning() -> ServiceStatus {
        ServiceStatus { text: "campaigning".to_owned(), is_stopping: false, is_alive: true }
    }

    fn following() -> ServiceStatus {
        ServiceStatus { text: "following web-1 (term 42)".to_owned(), ..campaigning() }
    }

    fn stopping() -> ServiceStatus {
        ServiceStatus { text: "stopping".to_owned(), is_stopping: true, ..campaigning() }
    }

    struct ManagerFixture {
        _directory: tempfile::TempDir,
        manager: UnixDatagram,
        systemd: SystemdNotifier,
    }

    fn fixture(watchdog: Option<Duration>) -> ManagerFixture {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        manager.set_nonblocking(true).expect("set");
        let socket = NotifySocket::open(path.as_os_str()).expect("opened");
        ManagerFixture { _directory: directory, manager, systemd: SystemdNotifier::new(Some(socket), watchdog) }
    }

    impl ManagerFixture {
        fn received(&self) -> Option<String> {
            let mut bytes = [0; 1024];
            let length = self.manager.recv(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
        }
    }

    #[test]
    fn each_thing_is_said_once() {
        let mut fixture = fixture(None);
        fixture.systemd.notify(NOW, campaigning());
        fixture.systemd.notify(NOW, campaigning());
        assert_eq!(fixture.received().as_deref(), Some("READY=1\nSTATUS=campaigning\n"));
        fixture.systemd.notify(NOW, following());
        assert_eq!(fixture.received().as_deref(), Some("STATUS=following web-1 (term 42)\n"));
        assert_eq!((fixture.received(), fixture.systemd.wake_at()), (None, Time::NEVER));
    }

    #[test]
    fn a_stop_asks_for_more_time_for_as_long_as_it_takes() {
        let mut fixture = fixture(None);
        fixture.systemd.notify(NOW, campaigning());
        fixture.received();
        fixture.systemd.notify(NOW, stopping());
        let more = "EXTEND_TIMEOUT_USEC=15000000\n";
        assert_eq!(fixture.received(), Some(format!("STOPPING=1\nSTATUS=stopping\n{more}")));
        let mut now = NOW;
        for _ in 0..3 {
            fixture.systemd.notify(now + SECOND, stopping());
            assert_eq!(fixture.received(), None);
            let next = fixture.systemd.wake_at();
            assert!(next.since(now) < STOP_EXTENSION, "in time");
            now = next;
            fixture.systemd.notify(now, stopping());
            assert_eq!(fixture.received().as_deref(), Some(more));
        }
    }

    #[test]
    fn a_watchdog_is_petted_twice_as_often_as_it_wants() {
        let mut fixture = fixture(Some(4 * SECOND));
        fixture.systemd.notify(NOW, campaigning());
        assert!(fixture.received().is_some_and(|message| message.ends_with("WATCHDOG=1\n")));
        fixture.systemd.notify(NOW + SECOND, campaigning());
        assert_eq!((fixture.received(), fixture.systemd.wake_at()), (None, NOW + 2 * SECOND));
        fixture.systemd.notify(NOW + 2 * SECOND, campaigning());
        assert_eq!(fixture.received().as_deref(), Some("WATCHDOG=1\n"));
    }

    #[test]
    fn a_worker_that_has_stalled_lets_the_watchdog_bark() {
        let mut fixture = fixture(Some(4 * SECOND));
        fixture.systemd.notify(NOW, campaigning());
        fixture.received();
        let late = NOW + 60 * SECOND;
        fixture.systemd.notify(late, ServiceStatus { is_alive: false, ..campaigning() });
        assert_eq!(fixture.received(), None);
        assert!(fixture.systemd.wake_at() > late, "looked at again, and not all the time");
        fixture.systemd.notify(late + SECOND, campaigning());
        assert_eq!(fixture.received().as_deref(), Some("WATCHDOG=1\n"));
    }

    #[test]
    fn what_finds_no_room_is_said_later_as_it_is_by_then() {
        let mut fixture = fixture(None);
        let manager = fixture.manager.local_addr().expect("bound");
        let send = |sender: &UnixDatagram| sender.send_to_addr(b"FULL", &manager).is_ok();
        // A sender has a limit of its own, which may be reached first.
        loop {
            let sender = UnixDatagram::unbound().expect("a socket");
            sender.set_nonblocking(true).expect("set");
            if !send(&sender) {
                break;
            }
            while send(&sender) {}
        }
        fixture.systemd.notify(NOW, campaigning());
        assert_eq!(fixture.systemd.wake_at(), NOW + RETRY_INTERVAL);
        while fixture.received().is_some() {}
        fixture.systemd.notify(NOW + RETRY_INTERVAL, following());
        assert_eq!(fixture.received().as_deref(), Some("READY=1\nSTATUS=following web-1 (term 42)\n"));
        assert_eq!(fixture.systemd.wake_at(), Time::NEVER);
    }

    #[test]
    fn a_name_that_is_neither_a_path_nor_abstract_is_no_channel() {
        for name in ["notify", "vsock:2:1234", "./notify"] {
            assert!(NotifySocket::open(OsStr::new(name)).is_err(), "{name}");
        }
    }
}
