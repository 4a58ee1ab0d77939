//! The thread that writes log lines: a full pipe holds up the thread, and nothing else.

use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Lines that wait while stderr takes none; later ones are dropped.
const LINES_MAX: usize = 512;
/// How long the last lines may take when elect ends.
const LAST_LINES_TIMEOUT: Duration = Duration::from_secs(1);

enum Message {
    Line(Vec<u8>),
    /// Everything before has been written when the sender is dropped.
    End(Sender<()>),
}

/// Starts the thread.
///
/// # Errors
///
/// No thread can be made.
pub fn start(output: impl Write + Send + 'static) -> io::Result<(Lines, Guard)> {
    let (sender, receiver) = mpsc::sync_channel(LINES_MAX);
    std::thread::Builder::new().name("log".to_owned()).spawn(move || write_all(&receiver, output))?;
    Ok((Lines(sender.clone()), Guard(sender)))
}

/// A line that cannot be written is lost: a closed pipe, a full disk, a limit on the size of files (EFBIG) may pass,
/// and there is nowhere else to report it.
fn write_all(lines: &Receiver<Message>, mut output: impl Write) {
    while let Ok(message) = lines.recv() {
        match message {
            Message::Line(line) => drop(output.write_all(&line).and_then(|()| output.flush())),
            Message::End(written) => drop(written),
        }
    }
}

/// Where lines go. Never waits.
#[derive(Debug, Clone)]
pub struct Lines(SyncSender<Message>);

/// Waits for the last lines when it is dropped, but not for long.
#[derive(Debug)]
pub struct Guard(SyncSender<Message>);

impl Drop for Guard {
    fn drop(&mut self) {
        let (written, end) = mpsc::channel::<()>();
        // With no room left in the channel, stderr has taken nothing for a while: it is not waited for.
        if self.0.try_send(Message::End(written)).is_ok() {
            let ended = end.recv_timeout(LAST_LINES_TIMEOUT);
            debug_assert!(matches!(ended, Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout)));
        }
    }
}

/// One event at a time: what has been written when it is dropped is one line.
#[derive(Debug)]
pub struct Line<'a> {
    text: Vec<u8>,
    lines: &'a SyncSender<Message>,
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { text: Vec::new(), lines: &self.0 }
    }
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let text = std::mem::take(&mut self.text);
        if !text.is_empty() {
            // A line for which there is no room is lost.
            let _ = self.lines.try_send(Message::Line(text));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Takes nothing while it is locked, and fails as often as it is told to.
    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<(Vec<u8>, usize)>>);

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut state = self.0.lock().expect("not poisoned");
            if state.1 > 0 {
                state.1 -= 1;
                return Err(io::Error::from_raw_os_error(libc::EFBIG));
            }
            state.0.extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn say(lines: &Lines, text: &str) {
        lines.make_writer().write_all(text.as_bytes()).expect("taken");
    }

    #[test]
    fn lines_are_written_in_order_and_the_last_ones_are_waited_for() {
        let output = Output::default();
        let (lines, guard) = start(output.clone()).expect("a thread");
        for number in 0..100 {
            say(&lines, &format!("{number}\n"));
        }
        drop(guard);
        let text = String::from_utf8(output.0.lock().expect("not poisoned").0.clone()).expect("text");
        let numbers: Vec<u32> = text.lines().map(|line| line.parse().expect("a number")).collect();
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
    }

    #[test]
    fn a_stuck_output_costs_lines_and_no_time() {
        let output = Output::default();
        let stuck = output.0.lock().expect("not poisoned");
        let (lines, guard) = start(output.clone()).expect("a thread");
        for _ in 0..3 * LINES_MAX {
            say(&lines, "line\n");
        }
        drop((stuck, guard));
        // The last lines are waited for only if there is room to say so; the thread ends with the last sender.
        drop(lines);
        while Arc::strong_count(&output.0) > 1 {
            std::thread::yield_now();
        }
        let written = output.0.lock().expect("not poisoned").0.len() / "line\n".len();
        // One more than wait may have been on its way.
        assert!((LINES_MAX..=LINES_MAX + 1).contains(&written), "{written}");
    }

    #[test]
    fn a_line_that_cannot_be_written_is_lost_and_the_next_one_is_not() {
        let output = Output::default();
        output.0.lock().expect("not poisoned").1 = 2;
        let (lines, guard) = start(output.clone()).expect("a thread");
        for line in ["a\n", "b\n", "c\n"] {
            say(&lines, line);
        }
        drop(guard);
        assert_eq!(output.0.lock().expect("not poisoned").0, b"c\n");
    }
}
