//! Signals to the campaigner, as events.

use std::io;

use nix::sys::signal::SigSet;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// The meaning of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SignalEvent {
    /// TERM, INT or QUIT: stop; a second one: at once.
    Stop(i32),
    /// HUP, USR1, USR2, WINCH, and without a terminal TSTP, TTIN, TTOU: the main process's business.
    Forward(i32),
    /// A child has ended.
    Child,
    /// We were stopped and go on: look at the deadlines.
    Continued,
}

/// The signals that are listened to, from the moment of its making.
#[derive(Debug)]
pub struct Signals {
    streams: Vec<(SignalEvent, Stream)>,
}

impl Signals {
    /// Installs the handlers. A SIGHUP that was ignored when we started stays ignored (nohup). A terminal never stops
    /// us for what we log while others have it (SIGTTOU), and a Ctrl-Z that is meant for us does, by the kernel's own
    /// hand: only so is a job suspended, and continued, all at once. Without a controlling terminal these signals are
    /// the command's: some programs have other uses for them.
    ///
    /// # Errors
    ///
    /// The kernel refuses a handler.
    pub fn listen(has_terminal: bool) -> io::Result<Signals> {
        let stop = [libc::SIGTERM, libc::SIGINT, libc::SIGQUIT].map(|number| (number, SignalEvent::Stop(number)));
        let forward = [libc::SIGHUP, libc::SIGUSR1, libc::SIGUSR2, libc::SIGWINCH]
            .map(|number| (number, SignalEvent::Forward(number)));
        let own = [(libc::SIGCHLD, SignalEvent::Child), (libc::SIGCONT, SignalEvent::Continued)];
        let ignored = elect_keeper::is_ignored(libc::SIGHUP);
        let of_terminal = [libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
        if has_terminal {
            for number in [libc::SIGTTOU, libc::SIGTTIN] {
                elect_keeper::ignore(number);
            }
        }
        let of_terminal = of_terminal.into_iter().filter(|_| !has_terminal);
        let of_terminal = of_terminal.map(|number| (number, SignalEvent::Forward(number)));
        let listened = stop.into_iter().chain(forward).chain(of_terminal).chain(own);
        let mut streams = Vec::new();
        let mut heard = SigSet::empty();
        for (number, event) in listened.filter(|&(number, _)| !(number == libc::SIGHUP && ignored)) {
            streams.push((event, signal(SignalKind::from_raw(number))?));
            heard.add(number.try_into()?);
        }
        // The parent may have blocked them. The command gets the inherited mask back; elect needs the signals.
        heard.thread_unblock()?;
        Ok(Signals { streams })
    }

    /// The next signal. Cancel safe: what is not returned is kept.
    pub async fn next(&mut self) -> SignalEvent {
        std::future::poll_fn(|context| {
            for (event, stream) in &mut self.streams {
                if stream.poll_recv(context).is_ready() {
                    return std::task::Poll::Ready(*event);
                }
            }
            std::task::Poll::Pending
        })
        .await
    }
}

/// Whether this process has a controlling terminal.
#[must_use]
pub fn has_controlling_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}
