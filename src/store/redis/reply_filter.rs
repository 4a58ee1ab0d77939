//! The bytes between a Redis and its client, with a limit on all that the server sends (DESIGN.md 2.5).
//!
//! The client stores a reply until it is complete, and passes every announcement on. A server, or any program that may publish
//! on a channel of ours, could fill the memory with either. So the bytes are counted before the client sees them: a reply that
//! is too large ends the connection, and announcements are taken out of the stream, whatever their size and number; only a flag
//! of them remains ([`HintFlags`]).
//!
//! Not here: what a reply means. Only as much of the protocol (RESP, versions 2 and 3) is read as is needed to find its ends.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::hint_flags::HintFlags;

/// Most that a server may send between two requests, its announcements not counted. The largest answer that elect asks for is that to
/// a survey: two hundred records.
pub const REPLY_BYTES_MAX: usize = 4 << 20;
/// The same of one reply: the client stores it twice.
const SINGLE_REPLY_BYTES_MAX: usize = 1 << 20;
/// Values in these replies: in memory, the smallest one takes twenty times as many bytes as on the wire.
const REPLY_VALUES_MAX: usize = 1 << 16;
/// Levels of nesting.
const DEPTH_MAX: usize = 16;
/// Of the beginning of a push message, until its kind is known.
const HELD_BYTES_MAX: usize = 64;
/// Of an announcement that is remembered, to find the next one that is the same without reading it.
const REPEATED_BYTES_MAX: usize = 256;
/// Of a line or a string, as far as it is looked at: a number, the kind of a push message, an announced word.
const TEXT_BYTES_MAX: usize = 24;
/// Size of one read.
const CHUNK_BYTES: usize = 16 << 10;
/// How many chunks without anything for the client are read before other tasks have their turn.
const CHUNKS_MAX: usize = 16;

/// Why a connection is ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Excess {
    /// Too many bytes, values or levels.
    #[error("sends a larger answer than elect reads")]
    Size,
    /// Not the protocol.
    #[error("does not speak the protocol of Redis: another program listens there, so check host and port of --store")]
    Form,
    /// An alert of TLS.
    #[error("answers with TLS: write --store rediss://… for it")]
    Tls,
    /// An answer of HTTP.
    #[error("is a web server (HTTP) and no Redis: check host and port of --store")]
    Http,
}

impl Excess {
    /// The protocol that begins with this byte, where it is none of Redis'.
    fn of_first_byte(byte: u8) -> Excess {
        match byte {
            0x15 => Excess::Tls,
            b'H' => Excess::Http,
            _ => Excess::Form,
        }
    }
}

impl From<Excess> for io::Error {
    fn from(excess: Excess) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, excess)
    }
}

/// A stream to a server.
pub struct ReplyFilter<S> {
    stream: S,
    scanner: ReplyScanner,
    ear: Arc<HintFlags>,
    chunk: Box<[u8]>,
    /// For the client.
    passed: Vec<u8>,
    /// How much of that it has.
    given: usize,
}

impl<S> ReplyFilter<S> {
    pub fn new(stream: S, ear: Arc<HintFlags>) -> ReplyFilter<S> {
        let chunk = vec![0; CHUNK_BYTES].into_boxed_slice();
        ReplyFilter { stream, scanner: ReplyScanner::default(), ear, chunk, passed: Vec::new(), given: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ReplyFilter<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let wire = self.get_mut();
        for _ in 0..CHUNKS_MAX {
            let left = &wire.passed[wire.given..];
            if !left.is_empty() {
                let size = left.len().min(out.remaining());
                out.put_slice(&left[..size]);
                wire.given += size;
                return Poll::Ready(Ok(()));
            }
            wire.passed.clear();
            wire.given = 0;
            let mut chunk = ReadBuf::new(&mut wire.chunk);
            ready!(Pin::new(&mut wire.stream).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                return Poll::Ready(Ok(()));
            }
            let scanned = wire.scanner.scan(chunk.filled(), &mut wire.passed, &wire.ear);
            scanned.inspect_err(|&excess| wire.ear.exceeds(excess))?;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for ReplyFilter<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let wire = self.get_mut();
        wire.scanner.spent = Spent::default();
        Pin::new(&mut wire.stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// The amount that was passed on since the last request.
#[derive(Debug, Clone, Copy, Default)]
struct Spent {
    bytes: usize,
    values: usize,
}

/// Where in a value the next byte belongs.
#[derive(Debug, Clone, Copy, Default)]
enum Part {
    /// Its first one.
    #[default]
    Type,
    /// After a type, up to the line's end.
    Line(u8),
    /// Of a string of known length: so many, with the line's end behind it.
    String(u64),
}

/// The treatment of the bytes of the present value.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Fate {
    #[default]
    Passed,
    /// A push message, the kind of which is not known yet.
    Held,
    /// An announcement.
    Dropped,
}

/// Finds the ends of values in a stream, across the limits of what is read at once.
#[derive(Debug, Default)]
struct ReplyScanner {
    spent: Spent,
    /// Bytes passed on of the present value.
    single: usize,
    part: Part,
    fate: Fate,
    /// How many values are still to come, at each level.
    open: Vec<u64>,
    /// The beginning of the last line or string.
    text: Vec<u8>,
    /// Whether the last byte of a line was a carriage return.
    is_ending: bool,
    /// The present push message, as far as it is remembered.
    held: Vec<u8>,
    is_long: bool,
    /// The last announcement, if it was short, and its word: in a flood, most are the same.
    repeated: Vec<u8>,
    word: Vec<u8>,
}

impl ReplyScanner {
    /// Hands on the replies, and tells of the announcements.
    fn scan(&mut self, mut bytes: &[u8], passed: &mut Vec<u8>, ear: &HintFlags) -> Result<(), Excess> {
        while let Some(&first) = bytes.first() {
            if self.is_between() && !self.repeated.is_empty() && bytes.starts_with(&self.repeated) {
                ear.hears(&self.word);
                bytes = &bytes[self.repeated.len()..];
                continue;
            }
            let (run, is_whole) = match self.part {
                Part::Type => {
                    self.begin(first)?;
                    (1, false)
                }
                Part::Line(_) => self.line(bytes),
                Part::String(left) => self.string(left, bytes),
            };
            let (present, later) = bytes.split_at(run);
            self.hand_on(present, passed)?;
            if is_whole {
                self.advance(passed, ear)?;
            }
            bytes = later;
        }
        Ok(())
    }

    /// Whether the next byte is the first one of a reply or a push message.
    fn is_between(&self) -> bool {
        matches!(self.part, Part::Type) && self.open.is_empty()
    }

    /// The first byte of a value.
    fn begin(&mut self, kind: u8) -> Result<(), Excess> {
        if !b"+-:_#,($!=*~%|>".contains(&kind) {
            return Err(Excess::of_first_byte(kind));
        }
        if self.open.is_empty() {
            self.single = 0;
            self.is_long = false;
            self.held.clear();
            self.fate = if kind == b'>' { Fate::Held } else { Fate::Passed };
        }
        if self.fate == Fate::Passed {
            self.spent.values += 1;
            if self.spent.values > REPLY_VALUES_MAX {
                return Err(Excess::Size);
            }
        }
        self.text.clear();
        self.part = Part::Line(kind);
        Ok(())
    }

    /// How many bytes belong to the present line, and whether it ends with them.
    fn line(&mut self, bytes: &[u8]) -> (usize, bool) {
        let mut is_ending = self.is_ending;
        for (index, &byte) in bytes.iter().enumerate() {
            if byte == b'\n' && is_ending {
                self.note(&bytes[..index]);
                self.is_ending = false;
                return (index + 1, true);
            }
            is_ending = byte == b'\r';
        }
        self.is_ending = is_ending;
        self.note(bytes);
        (bytes.len(), false)
    }

    /// The same of a string.
    fn string(&mut self, left: u64, bytes: &[u8]) -> (usize, bool) {
        let within = |left: u64| usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        let run = within(left);
        self.note(&bytes[..within(left.saturating_sub(2))]);
        let left = left - run as u64;
        self.part = Part::String(left);
        (run, left == 0)
    }

    fn note(&mut self, text: &[u8]) {
        let room = TEXT_BYTES_MAX - self.text.len();
        self.text.extend_from_slice(&text[..room.min(text.len())]);
    }

    fn hand_on(&mut self, bytes: &[u8], passed: &mut Vec<u8>) -> Result<(), Excess> {
        match self.fate {
            Fate::Dropped => {
                self.is_long |= self.held.len() + bytes.len() > REPEATED_BYTES_MAX;
                if !self.is_long {
                    self.held.extend_from_slice(bytes);
                }
                Ok(())
            }
            Fate::Held if self.held.len() + bytes.len() <= HELD_BYTES_MAX => {
                self.held.extend_from_slice(bytes);
                Ok(())
            }
            Fate::Held => {
                self.pass_held(passed)?;
                self.pass(bytes, passed)
            }
            Fate::Passed => self.pass(bytes, passed),
        }
    }

    fn pass_held(&mut self, passed: &mut Vec<u8>) -> Result<(), Excess> {
        self.fate = Fate::Passed;
        let held = std::mem::take(&mut self.held);
        self.pass(&held, passed)
    }

    fn pass(&mut self, bytes: &[u8], passed: &mut Vec<u8>) -> Result<(), Excess> {
        self.single += bytes.len();
        self.spent.bytes += bytes.len();
        if self.single > SINGLE_REPLY_BYTES_MAX || self.spent.bytes > REPLY_BYTES_MAX {
            return Err(Excess::Size);
        }
        passed.extend_from_slice(bytes);
        Ok(())
    }

    /// A line or a string is complete.
    fn advance(&mut self, passed: &mut Vec<u8>, ear: &HintFlags) -> Result<(), Excess> {
        let Part::Line(kind) = self.part else { return self.end(passed, ear) };
        match kind {
            b'$' | b'!' | b'=' => {
                let Some(size) = self.number()? else { return self.end(passed, ear) };
                if self.fate == Fate::Passed && size > SINGLE_REPLY_BYTES_MAX as u64 {
                    return Err(Excess::Size);
                }
                self.text.clear();
                self.part = Part::String(size + 2);
                Ok(())
            }
            b'*' | b'~' | b'>' | b'%' | b'|' => {
                let count = self.number()?.unwrap_or(0);
                let values = match kind {
                    b'%' => count * 2,
                    // The value that they describe is behind them.
                    b'|' => count * 2 + 1,
                    _ => count,
                };
                match values {
                    0 => self.end(passed, ear),
                    _ if self.open.len() == DEPTH_MAX => Err(Excess::Size),
                    values => {
                        self.open.push(values);
                        self.part = Part::Type;
                        Ok(())
                    }
                }
            }
            _ => self.end(passed, ear),
        }
    }

    /// The number in the present line; `None` if it is negative, which stands for no value at all.
    fn number(&self) -> Result<Option<u64>, Excess> {
        let text = self.text.strip_suffix(b"\r").unwrap_or(&self.text);
        let number = str::from_utf8(text).ok().and_then(|text| text.trim().parse::<i64>().ok()).ok_or(Excess::Form)?;
        if number > i64::from(u32::MAX) {
            return Err(Excess::Size);
        }
        Ok(u64::try_from(number).ok())
    }

    /// A value is complete, and with it perhaps those that it belongs to.
    fn end(&mut self, passed: &mut Vec<u8>, ear: &HintFlags) -> Result<(), Excess> {
        self.part = Part::Type;
        loop {
            if self.fate == Fate::Held && self.open.len() < 2 {
                self.judge(passed)?;
            }
            let Some(left) = self.open.last_mut() else { break };
            *left -= 1;
            if *left > 0 {
                return Ok(());
            }
            self.open.pop();
        }
        if self.fate == Fate::Dropped {
            self.word = self.text.strip_suffix(b"\r").unwrap_or(&self.text).to_vec();
            ear.hears(&self.word);
            if !self.is_long {
                std::mem::swap(&mut self.repeated, &mut self.held);
            }
        }
        Ok(())
    }

    /// The kind of a push message is known: it is its first value.
    fn judge(&mut self, passed: &mut Vec<u8>) -> Result<(), Excess> {
        let kind = self.text.strip_suffix(b"\r").unwrap_or(&self.text);
        if !self.open.is_empty() && matches!(kind, b"message" | b"pmessage" | b"smessage") {
            self.fate = Fate::Dropped;
            return Ok(());
        }
        self.pass_held(passed)
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::super::hint_flags::HintKind;
    use super::*;
    use elect_core::proptest_support;

    /// The bytes that the client gets, when the stream arrives in pieces of this size.
    fn passed(stream: &[u8], piece: usize, ear: &HintFlags) -> Result<Vec<u8>, Excess> {
        let (mut scanner, mut passed) = (ReplyScanner::default(), Vec::new());
        for piece in stream.chunks(piece.max(1)) {
            scanner.scan(piece, &mut passed, ear)?;
        }
        Ok(passed)
    }

    fn announcement(kind: &str, parts: &[&str]) -> Vec<u8> {
        let mut bytes = format!(">{}\r\n${}\r\n{kind}\r\n", parts.len() + 1, kind.len());
        for part in parts {
            let _ = write!(bytes, "${}\r\n{part}\r\n", part.len());
        }
        bytes.into_bytes()
    }

    const REPLIES: [&[u8]; 12] = [
        b"+OK\r\n",
        b"-ERR no\r\n",
        b":-7\r\n",
        b"$0\r\n\r\n",
        b"$-1\r\n",
        b"$7\r\na\r\nb\r\n>\r\n",
        b"*3\r\n$1\r\na\r\n*0\r\n*2\r\n:1\r\n_\r\n",
        b"*-1\r\n",
        b"%2\r\n+a\r\n:1\r\n+b\r\n#t\r\n",
        b"|1\r\n+ttl\r\n:3\r\n$2\r\nok\r\n",
        b"=8\r\ntxt:some\r\n",
        b">3\r\n$9\r\nsubscribe\r\n$7\r\nmessage\r\n:1\r\n",
    ];

    #[test]
    fn replies_pass_as_they_are_and_announcements_do_not_however_the_bytes_are_cut() {
        for piece in [1, 2, 3, 7, 1000] {
            let (mut stream, mut expected) = (Vec::new(), Vec::new());
            for reply in REPLIES {
                stream.extend(announcement("message", &["elect:cron", "taken"]));
                stream.extend(announcement("message", &["elect:cron", "taken"]));
                stream.extend(reply);
                stream.extend(announcement("message", &["elect:cron", "taken"]));
                stream.extend(announcement("message", &["elect:cron", &"x".repeat(300)]));
                stream.extend(announcement("pmessage", &["elect:*", "elect:cron", "\r\n>3\r\n$7"]));
                expected.extend(reply);
            }
            assert_eq!(passed(&stream, piece, &HintFlags::default()), Ok(expected), "in pieces of {piece}");
        }
    }

    #[test]
    fn an_announcement_is_told_by_its_word() {
        for piece in [1, 1000] {
            for (word, heard) in
                [("renewed", HintKind::Renewal), ("freed", HintKind::Change), ("renewed?", HintKind::Change)]
            {
                let ear = HintFlags::default();
                assert_eq!(ear.take(), None);
                let stream = announcement("message", &["elect:cron", word]);
                assert_eq!(passed(&stream, piece, &ear), Ok(Vec::new()));
                assert_eq!((ear.take(), ear.take()), (Some(heard), None), "{word}");
                // The second is found to be the same as the first.
                let stream = [announcement("message", &["elect:cron", "renewed"]), stream.clone(), stream].concat();
                assert_eq!(passed(&stream, piece, &ear), Ok(Vec::new()));
                assert_eq!(ear.take(), Some(heard), "{word}");
            }
        }
    }

    #[test]
    fn an_announcement_of_any_size_costs_nothing() {
        let ear = HintFlags::default();
        let (mut scanner, mut kept) = (ReplyScanner::default(), Vec::new());
        let size = 100 << 20;
        let header = format!(">3\r\n+message\r\n$1\r\nc\r\n${size}\r\n");
        scanner.scan(header.as_bytes(), &mut kept, &ear).expect("one of many");
        let much = vec![b'x'; 1 << 20];
        for _ in 0..100 {
            scanner.scan(&much, &mut kept, &ear).expect("more of it");
        }
        assert_eq!(ear.take(), None, "it is not complete");
        scanner.scan(b"\r\n+OK\r\n", &mut kept, &ear).expect("its end");
        assert_eq!((kept.as_slice(), ear.take()), (b"+OK\r\n".as_slice(), Some(HintKind::Change)));
        assert!(scanner.text.capacity() + scanner.held.capacity() < 1024);
    }

    #[test]
    fn a_reply_that_is_too_large_is_refused_before_it_is_stored() {
        let endless =
            [&b"$2000000000\r\n"[..], b"$9223372036854775807\r\n", b"*9223372036854775807\r\n", b"%5000000000\r\n"];
        for header in endless {
            assert_eq!(passed(header, 5, &HintFlags::default()), Err(Excess::Size), "{header:?}");
        }
        let large = |unit: &[u8], size: usize| unit.repeat(size.div_ceil(unit.len()));
        let prefixed = |header: &[u8], unit: &[u8], size| [header, &large(unit, size)].concat();
        for (stream, what) in [
            (prefixed(b"+", b"x", SINGLE_REPLY_BYTES_MAX + 1), "a line"),
            (prefixed(b"-ERR ", b"x", SINGLE_REPLY_BYTES_MAX + 1), "an error"),
            (prefixed(b"*4000000000\r\n", b"$4\r\nabcd\r\n", SINGLE_REPLY_BYTES_MAX + 1), "an array"),
            (prefixed(b">4000000000\r\n$9\r\nsubscribe\r\n", b"$4\r\nabcd\r\n", SINGLE_REPLY_BYTES_MAX + 1), "a push"),
            (prefixed(b"*4000000000\r\n", b"_\r\n", 3 * (REPLY_VALUES_MAX + 1)), "values"),
            (large(b"+OK\r\n", REPLY_BYTES_MAX + 1), "replies without a question"),
            (large(b"*1\r\n", 4 * (DEPTH_MAX + 1)), "levels"),
        ] {
            assert_eq!(passed(&stream, 1 << 14, &HintFlags::default()), Err(Excess::Size), "{what}");
        }
    }

    #[test]
    fn another_protocol_is_told_by_its_first_byte() {
        for (stream, excess) in [
            (&b"HTTP/1.1 400 Bad Request\r\n"[..], Excess::Http),
            (b"\x15\x03\x01", Excess::Tls),
            (b"\x00\x00\x06\x04", Excess::Form),
            (b"$x\r\n", Excess::Form),
            (b"*\r\n", Excess::Form),
        ] {
            assert_eq!(passed(stream, 1 << 14, &HintFlags::default()), Err(excess));
        }
    }

    #[test]
    fn a_request_begins_a_new_account() {
        let (mut scanner, mut kept) = (ReplyScanner::default(), Vec::new());
        for _ in 0..20 {
            scanner.spent = Spent::default();
            kept.clear();
            let reply = b"+OK\r\n".repeat(REPLY_VALUES_MAX / 2);
            scanner.scan(&reply, &mut kept, &HintFlags::default()).expect("within the limits");
            assert_eq!(kept, reply);
        }
    }

    #[test]
    fn no_stream_makes_it_keep_more_than_it_may() {
        let fragments = proptest::sample::select(vec![
            &b">"[..],
            b"$",
            b"*",
            b"%",
            b"|",
            b"3",
            b"7",
            b"-1",
            b"\r",
            b"\n",
            b"\r\n",
            b"message",
            b"+",
            b"\xff",
            b"999999999",
        ]);
        let streams = (proptest::collection::vec(fragments, 0..200), 1..40_usize);
        proptest_support::check(proptest_support::FAST, &streams, |(fragments, piece)| {
            let stream = fragments.concat();
            let (mut scanner, mut kept) = (ReplyScanner::default(), Vec::new());
            for piece in stream.chunks(piece) {
                let fine = scanner.scan(piece, &mut kept, &HintFlags::default());
                assert!(
                    scanner.held.len().max(scanner.repeated.len()) <= REPEATED_BYTES_MAX
                        && scanner.text.len() <= TEXT_BYTES_MAX
                );
                assert!(scanner.open.len() <= DEPTH_MAX && kept.len() <= stream.len());
                if fine.is_err() {
                    return;
                }
            }
        });
    }
}
