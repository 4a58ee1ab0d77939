//! The bytes between a PostgreSQL and its client, with a limit on all that the server sends (DESIGN.md 2.5).
//!
//! The client stores a message until it is complete, the rows of an answer until the last one has come, and every parameter that the
//! server reports. A server, or a program that poses as one, could fill the memory with each of these. So messages are measured
//! before the client sees them: what is too large ends the connection.
//!
//! Not here: what a message means. Only kind and length are read.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

/// Of one message. The largest that a server sends is a row, whose columns are cut in the statement.
const MESSAGE_BYTES_MAX: u32 = 1 << 20;
/// Of all messages between two requests, those that are not stored left out. The largest answer is that to a survey.
const ANSWER_BYTES_MAX: u64 = 64 << 20;
/// Of all parameters that the server reports in the life of a connection.
const PARAMETER_BYTES_MAX: u64 = 1 << 20;
/// Kind and length.
const HEADER_BYTES: usize = 5;

/// The part of the protocol in which the next byte is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opening {
    /// One byte answers whether there is TLS, and is followed by messages if there is none.
    TlsAnswer,
    Messages,
    /// TLS, whose content is measured on its other side.
    Encrypted,
}

/// Measures messages, however the bytes are cut.
#[derive(Debug)]
struct MessageMeter {
    opening: Opening,
    header: [u8; HEADER_BYTES],
    header_bytes: usize,
    /// Of the present message.
    left: u64,
    answered: u64,
    reported: u64,
}

impl MessageMeter {
    const fn new(opening: Opening) -> MessageMeter {
        MessageMeter { opening, header: [0; HEADER_BYTES], header_bytes: 0, left: 0, answered: 0, reported: 0 }
    }

    /// A request is sent: its answer has an account of its own.
    fn begin(&mut self) {
        self.answered = 0;
    }

    /// Takes in what was received.
    ///
    /// # Errors
    ///
    /// It is more than elect reads.
    fn measure(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while let Some(&first) = bytes.first() {
            match self.opening {
                Opening::Encrypted => return Ok(()),
                Opening::TlsAnswer => {
                    self.opening = if first == b'S' { Opening::Encrypted } else { Opening::Messages };
                    bytes = &bytes[1..];
                }
                Opening::Messages if self.left > 0 => {
                    let passed = bytes.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
                    self.left -= passed as u64;
                    bytes = &bytes[passed..];
                }
                Opening::Messages => {
                    self.header[self.header_bytes] = first;
                    self.header_bytes += 1;
                    bytes = &bytes[1..];
                    if self.header_bytes == HEADER_BYTES {
                        self.judge()?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Judges a message by its header.
    fn judge(&mut self) -> io::Result<()> {
        let [kind, length @ ..] = self.header;
        let length = u32::from_be_bytes(length);
        self.header_bytes = 0;
        // The length counts itself; the client refuses one that is smaller.
        self.left = u64::from(length.saturating_sub(4));
        match kind {
            // Notices and notifications leave only a flag.
            b'N' | b'A' => {}
            b'S' => self.reported += u64::from(length),
            _ => self.answered += u64::from(length),
        }
        let is_too_large =
            length > MESSAGE_BYTES_MAX || self.answered > ANSWER_BYTES_MAX || self.reported > PARAMETER_BYTES_MAX;
        if is_too_large {
            let said =
                "sends more than elect reads: another program may listen there, so check host and port of --store";
            return Err(io::Error::new(io::ErrorKind::InvalidData, said));
        }
        Ok(())
    }
}

/// A stream to a server.
pub struct MessageLimit<S> {
    stream: S,
    meter: MessageMeter,
}

impl<S> MessageLimit<S> {
    pub const fn new(stream: S, opening: Opening) -> MessageLimit<S> {
        MessageLimit { stream, meter: MessageMeter::new(opening) }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for MessageLimit<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = out.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, out))?;
        Poll::Ready(self.meter.measure(&out.filled()[before..]))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for MessageLimit<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.meter.begin();
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

impl<S: TlsStream + Unpin> TlsStream for MessageLimit<S> {
    fn channel_binding(&self) -> ChannelBinding {
        self.stream.channel_binding()
    }
}

/// TLS whose content is measured.
pub struct LimitedTls<C>(pub C);

impl<S, C: TlsConnect<S>> TlsConnect<S> for LimitedTls<C>
where
    C::Future: Send + 'static,
    C::Stream: 'static,
    C::Error: 'static,
{
    type Stream = MessageLimit<C::Stream>;
    type Error = C::Error;
    type Future = Pin<Box<dyn Future<Output = Result<MessageLimit<C::Stream>, C::Error>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        let connecting = self.0.connect(stream);
        Box::pin(async move { Ok(MessageLimit::new(connecting.await?, Opening::Messages)) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u8, length: u32) -> Vec<u8> {
        let body = vec![b'x'; usize::try_from(length).expect("small") - 4];
        [&[kind], &length.to_be_bytes()[..], &body[..]].concat()
    }

    /// Whether it reads all of it, in pieces of this size.
    fn reads(meter: &mut MessageMeter, bytes: &[u8], piece: usize) -> bool {
        bytes.chunks(piece).all(|piece| meter.measure(piece).is_ok())
    }

    #[test]
    fn messages_are_measured_however_the_bytes_are_cut() {
        let stream = [message(b'N', 70), message(b'D', 4), message(b'D', 1000), message(b'Z', 5)].concat();
        for piece in [1, 3, 5, 7, stream.len()] {
            let mut meter = MessageMeter::new(Opening::Messages);
            assert!(reads(&mut meter, &stream, piece));
            assert_eq!((meter.left, meter.header_bytes, meter.answered), (0, 0, 1009), "{piece}");
            assert!(!reads(&mut meter, &[b'D', 0x7f, 0xff, 0xff, 0xff], piece), "{piece}");
        }
    }

    #[test]
    fn all_that_the_client_stores_has_a_limit_and_notices_have_none() {
        let counts = |kind: u8, length: u32| {
            let (mut meter, message) = (MessageMeter::new(Opening::Messages), message(kind, length));
            (0..1000).take_while(|_| meter.measure(&message).is_ok()).count()
        };
        assert_eq!(counts(b'D', MESSAGE_BYTES_MAX), 64);
        assert_eq!(counts(b'S', 1 << 16), 16);
        assert_eq!(counts(b'N', 1 << 16), 1000);
        assert_eq!(counts(b'N', MESSAGE_BYTES_MAX + 1), 0);
        let (mut meter, row) = (MessageMeter::new(Opening::Messages), message(b'D', MESSAGE_BYTES_MAX));
        for _ in 0..100 {
            meter.begin();
            assert!(meter.measure(&row).is_ok(), "each request has an answer");
        }
    }

    #[test]
    fn tls_is_measured_on_its_other_side_alone() {
        let huge = [b'D', 0x7f, 0xff, 0xff, 0xff];
        let mut meter = MessageMeter::new(Opening::TlsAnswer);
        assert!(meter.measure(b"S").is_ok() && meter.measure(&huge).is_ok());
        let mut meter = MessageMeter::new(Opening::TlsAnswer);
        assert!(meter.measure(b"N").is_ok() && meter.measure(&huge).is_err());
    }
}
