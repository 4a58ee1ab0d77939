//! A service manager's ear: the socket that `NOTIFY_SOCKET` names.

use std::ffi::OsString;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

use super::{Sandbox, eventually};

#[derive(Debug)]
pub struct NotifyReceiver {
    socket: UnixDatagram,
    address: SocketAddr,
    name: OsString,
}

impl NotifyReceiver {
    /// At a path, as systemd has it.
    pub fn at_a_path(sandbox: &Sandbox) -> NotifyReceiver {
        let path = sandbox.path().join("notify");
        NotifyReceiver::at(SocketAddr::from_pathname(&path).expect("a short path"), path.into())
    }

    /// At a name that no file has, as containers like it.
    pub fn at_an_abstract_name(sandbox: &Sandbox) -> NotifyReceiver {
        let name = format!("{}/notify", sandbox.path().display());
        NotifyReceiver::at(SocketAddr::from_abstract_name(&name).expect("a short name"), format!("@{name}").into())
    }

    fn at(address: SocketAddr, name: OsString) -> NotifyReceiver {
        let socket = UnixDatagram::bind_addr(&address).expect("nobody else is there");
        socket.set_nonblocking(true).expect("it can be looked at");
        NotifyReceiver { socket, address, name }
    }

    /// The value of `NOTIFY_SOCKET`.
    pub fn name(&self) -> &str {
        self.name.to_str().expect("plain text")
    }

    /// The next message, without waiting.
    pub fn next(&self) -> Option<String> {
        let mut bytes = [0; 4096];
        match self.socket.recv(&mut bytes) {
            Ok(length) => Some(String::from_utf8_lossy(&bytes[..length]).into_owned()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("the socket is broken: {error}"),
        }
    }

    /// Every message up to the first that says `word`, that one last.
    #[track_caller]
    pub fn hears(&self, word: &str) -> Vec<String> {
        let mut heard = Vec::new();
        eventually(&format!("{word:?} after {heard:?}"), || {
            while let Some(message) = self.next() {
                heard.push(message);
                if heard.last().is_some_and(|last| last.contains(word)) {
                    return Some(());
                }
            }
            None
        });
        heard
    }

    /// Messages of our own, until there is no room for more. (A sender has a limit of its own, which may be reached first.)
    pub fn fill(&self) {
        while !self.is_full() {
            let sender = sender();
            while sender.send_to_addr(b"FULL", &self.address).is_ok() {}
        }
    }

    pub fn is_full(&self) -> bool {
        sender().send_to_addr(b"FULL", &self.address).is_err()
    }
}

fn sender() -> UnixDatagram {
    let sender = UnixDatagram::unbound().expect("a socket");
    sender.set_nonblocking(true).expect("it need not wait");
    sender
}
