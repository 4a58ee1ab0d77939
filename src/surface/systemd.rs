//! What systemd is told: that we are ready, what we are doing, that we are alive, that we stop and how long that may take.
//!
//! Messages go to the datagram socket that `NOTIFY_SOCKET` names, without ever waiting for it: what finds no room is sent
//! with what is true by then, a little later. `sd_notify` has the words of the protocol; its own sending blocks when the
//! socket is full and knows no abstract names.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use sd_notify::NotifyState;
use tracing::debug;

use super::view::View;
use crate::election::Time;

/// How soon a message that found no room is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// While stopping, systemd is asked for so much more time…
const EXTENSION: Duration = Duration::from_secs(15);
/// …this often: a loop that stalls is waited for no longer than that.
const EXTEND_EVERY: Duration = Duration::from_secs(5);

/// The service manager's ear, if there is one.
#[derive(Debug)]
pub struct Systemd {
    channel: Option<Channel>,
    /// Half of what the watchdog allows; `None`: nobody watches.
    interval: Option<Duration>,
    said: Said,
    pet_at: Time,
    extend_at: Time,
    /// After a message that found no room.
    again_at: Time,
}

/// What has arrived.
#[derive(Debug, Default)]
struct Said {
    ready: bool,
    stopping: bool,
    status: String,
}

impl Systemd {
    /// As the variables say that systemd has set for us.
    #[must_use]
    pub fn from_environment() -> Systemd {
        let channel = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).and_then(|name| {
            Channel::open(&name)
                .inspect_err(|error| debug!("NOTIFY_SOCKET {} cannot be used: {error}", name.display()))
                .ok()
        });
        // Only if it is us who is watched, not somebody who started us.
        Systemd::new(channel, sd_notify::watchdog_enabled())
    }

    fn new(channel: Option<Channel>, watchdog: Option<Duration>) -> Systemd {
        let interval = watchdog.map(|allowed| allowed / 2).filter(|half| !half.is_zero());
        Systemd {
            interval: interval.filter(|_| channel.is_some()),
            channel,
            said: Said::default(),
            pet_at: Time::BOOT,
            extend_at: Time::NEVER,
            again_at: Time::NEVER,
        }
    }

    /// Says what is new or due, in one message. To be called after every event, and at [`Systemd::wake_at`] at the latest.
    pub fn tell(&mut self, now: Time, view: &View) {
        let Some(channel) = &self.channel else { return };
        let status = view.to_string();
        let stopping = view.is_leaving();
        let extends = stopping && (!self.said.stopping || now >= self.extend_at);
        let mut pets = self.interval.is_some() && now >= self.pet_at;
        if pets && !view.is_alive(now) {
            // This loop turns, and the store's worker does not.
            pets = false;
            self.pet_at = now + AGAIN;
        }
        let extension = u32::try_from(EXTENSION.as_micros()).unwrap_or(u32::MAX);
        let words = [
            (!self.said.ready).then_some(NotifyState::Ready),
            (stopping && !self.said.stopping).then_some(NotifyState::Stopping),
            (status != self.said.status).then_some(NotifyState::Status(&status)),
            extends.then_some(NotifyState::ExtendTimeoutUsec(extension)),
            pets.then_some(NotifyState::Watchdog),
        ];
        let mut message = String::new();
        for word in words.iter().flatten() {
            // Into a string: never fails.
            let _ = writeln!(message, "{word}");
        }
        if message.is_empty() {
            return;
        }
        if let Err(error) = channel.send(&message) {
            if self.again_at == Time::NEVER {
                debug!("systemd was not told: {error}");
            }
            self.again_at = now + AGAIN;
            return;
        }
        self.again_at = Time::NEVER;
        self.said = Said { ready: true, stopping, status };
        if extends {
            self.extend_at = now + EXTEND_EVERY;
        }
        if let Some(interval) = self.interval.filter(|_| pets) {
            self.pet_at = now + interval;
        }
    }

    /// When something has to be said even if nothing happens.
    #[must_use]
    pub fn wake_at(&self) -> Time {
        if self.again_at != Time::NEVER {
            return self.again_at;
        }
        let pet_at = if self.interval.is_some() { self.pet_at } else { Time::NEVER };
        pet_at.min(self.extend_at)
    }
}

/// A datagram socket, and where to. Not connected: a manager that was restarted listens at the same place.
#[derive(Debug)]
struct Channel {
    socket: UnixDatagram,
    manager: SocketAddr,
}

impl Channel {
    fn open(name: &OsStr) -> io::Result<Channel> {
        let manager = match name.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(name)?,
            _ => return Err(io::Error::new(io::ErrorKind::Unsupported, "neither a path nor an abstract name")),
        };
        let socket = UnixDatagram::unbound()?;
        socket.set_nonblocking(true)?;
        Ok(Channel { socket, manager })
    }

    fn send(&self, message: &str) -> io::Result<()> {
        self.socket.send_to_addr(message.as_bytes(), &self.manager).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::super::view::tests::{NOW, SECOND, seen, view};
    use super::*;

    struct Scene {
        _directory: tempfile::TempDir,
        manager: UnixDatagram,
        systemd: Systemd,
    }

    fn scene(watchdog: Option<Duration>) -> Scene {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("notify");
        let manager = UnixDatagram::bind(&path).expect("bound");
        manager.set_nonblocking(true).expect("set");
        let channel = Channel::open(path.as_os_str()).expect("opened");
        Scene { _directory: directory, manager, systemd: Systemd::new(Some(channel), watchdog) }
    }

    impl Scene {
        fn hears(&self) -> Option<String> {
            let mut bytes = [0; 1024];
            let length = self.manager.recv(&mut bytes).ok()?;
            Some(String::from_utf8_lossy(&bytes[..length]).into_owned())
        }
    }

    #[test]
    fn each_thing_is_said_once() {
        let mut scene = scene(None);
        let mut view = view();
        scene.systemd.tell(NOW, &view);
        scene.systemd.tell(NOW, &view);
        assert_eq!(scene.hears().as_deref(), Some("READY=1\nSTATUS=campaigning\n"));
        view.sighted(NOW, &seen("web-1"));
        scene.systemd.tell(NOW, &view);
        assert_eq!(scene.hears().as_deref(), Some("STATUS=following web-1 (term 42)\n"));
        assert_eq!((scene.hears(), scene.systemd.wake_at()), (None, Time::NEVER));
    }

    #[test]
    fn a_stop_asks_for_more_time_for_as_long_as_it_takes() {
        let mut scene = scene(None);
        let mut view = view();
        scene.systemd.tell(NOW, &view);
        scene.hears();
        view.leave();
        scene.systemd.tell(NOW, &view);
        let more = "EXTEND_TIMEOUT_USEC=15000000\n";
        assert_eq!(scene.hears(), Some(format!("STOPPING=1\nSTATUS=stopping\n{more}")));
        let mut now = NOW;
        for _ in 0..3 {
            scene.systemd.tell(now + SECOND, &view);
            assert_eq!(scene.hears(), None);
            let next = scene.systemd.wake_at();
            assert!(next.since(now) < EXTENSION, "in time");
            now = next;
            scene.systemd.tell(now, &view);
            assert_eq!(scene.hears().as_deref(), Some(more));
        }
    }

    #[test]
    fn a_watchdog_is_petted_twice_as_often_as_it_wants() {
        let mut scene = scene(Some(4 * SECOND));
        scene.systemd.tell(NOW, &view());
        assert!(scene.hears().is_some_and(|message| message.ends_with("WATCHDOG=1\n")));
        scene.systemd.tell(NOW + SECOND, &view());
        assert_eq!((scene.hears(), scene.systemd.wake_at()), (None, NOW + 2 * SECOND));
        scene.systemd.tell(NOW + 2 * SECOND, &view());
        assert_eq!(scene.hears().as_deref(), Some("WATCHDOG=1\n"));
    }

    #[test]
    fn a_worker_that_has_stalled_lets_the_watchdog_bark() {
        let mut scene = scene(Some(4 * SECOND));
        let mut view = view();
        view.asked(NOW);
        scene.systemd.tell(NOW, &view);
        scene.hears();
        let late = NOW + 60 * SECOND;
        scene.systemd.tell(late, &view);
        assert_eq!(scene.hears(), None);
        assert!(scene.systemd.wake_at() > late, "looked at again, and not all the time");
        view.answered();
        scene.systemd.tell(late + SECOND, &view);
        assert_eq!(scene.hears().as_deref(), Some("WATCHDOG=1\n"));
    }

    #[test]
    fn what_finds_no_room_is_said_later_as_it_is_by_then() {
        let mut scene = scene(None);
        let manager = scene.manager.local_addr().expect("bound");
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
        let mut view = view();
        scene.systemd.tell(NOW, &view);
        assert_eq!(scene.systemd.wake_at(), NOW + AGAIN);
        view.sighted(NOW, &seen("web-1"));
        while scene.hears().is_some() {}
        scene.systemd.tell(NOW + AGAIN, &view);
        assert_eq!(scene.hears().as_deref(), Some("READY=1\nSTATUS=following web-1 (term 42)\n"));
        assert_eq!(scene.systemd.wake_at(), Time::NEVER);
    }

    #[test]
    fn a_name_that_is_neither_a_path_nor_abstract_is_no_channel() {
        for name in ["notify", "vsock:2:1234", "./notify"] {
            assert!(Channel::open(OsStr::new(name)).is_err(), "{name}");
        }
    }
}
