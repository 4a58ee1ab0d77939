//! The first answer of a stream of keep-alives, which the client library takes for itself when it opens the stream.
//!
//! Of that answer the library tells only whether there is such a lease. The raft term in it decides whether it counts, so the library gets it
//! twice: one for itself, and one as the first message of the stream. Without it, opening a stream would cost one more round trip.
//! If the library did not take the first answer, an answer too many would be there before the next keep-alive, which refuses the stream then.

use etcd_client::Channel;
use http_body_util::BodyExt;
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::codegen::{Bytes, Service};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt, service_fn};

/// The bytes before each message of gRPC: whether it is compressed, and its length.
const PREFIX: usize = 5;
/// A longer message is no answer to a keep-alive, and stays as it is.
const ANSWER_MAX: usize = 4096;

/// A channel for the client library, on which the first answer of each stream of keep-alives comes twice.
pub fn channel<S>(service: S) -> Channel
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + Sync + 'static,
    S::Error: Into<BoxError>,
    S::Future: Send,
{
    Channel::Custom(BoxCloneSyncService::new(service_fn(move |request: Request<Body>| {
        let service = service.clone();
        async move {
            let opens_stream = request.uri().path().ends_with("/LeaseKeepAlive");
            let response = service.oneshot(request).await.map_err(Into::into)?;
            Ok(if opens_stream { response.map(twice) } else { response })
        }
    })))
}

fn twice(body: Body) -> Body {
    let mut first = FirstMessage::default();
    Body::new(body.map_frame(move |frame| frame.map_data(|data| first.repeat(data))))
}

/// The part of the first message of a stream that has come; `None` as soon as all of it has.
struct FirstMessage(Option<Vec<u8>>);

impl Default for FirstMessage {
    fn default() -> FirstMessage {
        FirstMessage(Some(Vec::new()))
    }
}

impl FirstMessage {
    /// The bytes that come next, with the message once more behind its last byte.
    fn repeat(&mut self, data: Bytes) -> Bytes {
        let Some(seen) = &mut self.0 else { return data };
        let before = seen.len();
        seen.extend_from_slice(&data);
        let length = seen.get(1..PREFIX).and_then(|length| length.try_into().ok()).map(u32::from_be_bytes);
        let Some(length) = length.and_then(|length| usize::try_from(length).ok()) else { return data };
        let end = PREFIX.saturating_add(length);
        if end > ANSWER_MAX {
            self.0 = None;
            return data;
        }
        let Some(message) = seen.get(..end) else { return data };
        let (now, later) = data.split_at(end - before);
        let repeated = [now, message, later].concat();
        self.0 = None;
        repeated.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_message_comes_twice_and_what_follows_once_however_they_are_cut() {
        let (first, second) = (b"\0\0\0\0\x03one", b"\0\0\0\0\x05other");
        let (sent, expected) = ([&first[..], second].concat(), [&first[..], first, second].concat());
        for cut in 0..=sent.len() {
            for again in cut..=sent.len() {
                let mut message = FirstMessage::default();
                let parts = [&sent[..cut], &sent[cut..again], &sent[again..]];
                let got: Vec<u8> = parts.iter().flat_map(|part| message.repeat(Bytes::copy_from_slice(part))).collect();
                assert_eq!(got, expected, "cut at {cut} and {again}");
            }
        }
    }

    #[test]
    fn no_more_is_kept_of_a_long_message_than_came_at_once() {
        let mut message = FirstMessage::default();
        let long = Bytes::from_static(b"\0\xff\xff\xff\xfflong");
        assert_eq!(message.repeat(long.clone()), long);
        assert!(message.0.is_none());
    }
}
