//! A connection to an etcd of which a test sees each request, and which holds some of them or answers for the server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::{Channel, Client};
use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tonic::codegen::http::{Request, Response};
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tower::util::BoxCloneSyncService;
use tower::{BoxError, ServiceExt, service_fn};

use super::EtcdProcess;

/// The fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// It is never answered.
    Held,
    Failed(Code),
}

/// A request that a client has begun. Of a stream it is not known what it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeenRequest {
    pub method: String,
    body: Vec<u8>,
}

impl SeenRequest {
    /// Whether a text, such as a key, is in it.
    pub fn has(&self, text: &str) -> bool {
        self.body.windows(text.len()).any(|window| window == text.as_bytes())
    }

    /// Whether it reads the keys of other elections of this name: the range of each ends behind the last digit of a lease.
    pub fn is_look(&self, name: &str) -> bool {
        ["/", "//"].iter().any(|end| self.has(&format!("{name}{end}g"))) || self.has(&format!("/elections/{name}g"))
    }
}

type Rule = Box<dyn FnMut(&SeenRequest) -> Outcome + Send>;

#[derive(Default)]
struct State {
    rule: Option<Rule>,
    seen: Vec<SeenRequest>,
    delay: Duration,
}

/// One connection.
pub struct Interception {
    pub client: Client,
    state: Arc<Mutex<State>>,
}

impl Interception {
    pub async fn of(server: &EtcdProcess) -> Interception {
        let channel = Endpoint::from_shared(format!("http://{}", server.address)).expect("an address");
        let channel = Mutex::new(channel.connect().await.expect("a server that is up"));
        let (channel, state) = (Arc::new(channel), Arc::<Mutex<State>>::default());
        let known = Arc::clone(&state);
        let service = service_fn(move |request: Request<Body>| {
            let channel = channel.lock().expect("no test has panicked").clone();
            let known = Arc::clone(&known);
            async move {
                let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                let is_stream = ["LeaseKeepAlive", "Watch"].contains(&method.as_str());
                let (head, body) = request.into_parts();
                let (bytes, body) = if is_stream {
                    (Vec::new(), body)
                } else {
                    let bytes = body.collect().await?.to_bytes();
                    (bytes.to_vec(), Body::new(Full::new(bytes)))
                };
                let decide = |state: &mut State| (state.delay, state.decide(SeenRequest { method, body: bytes }));
                let (delay, outcome) = decide(&mut known.lock().expect("no test has panicked"));
                tokio::time::sleep(delay).await;
                match outcome {
                    Outcome::Passed => {}
                    Outcome::Held => std::future::pending().await,
                    Outcome::Failed(code) => return Ok(Status::new(code, "etcdserver: by the test").into_http()),
                }
                Ok::<Response<Body>, BoxError>(channel.oneshot(Request::from_parts(head, body)).await?)
            }
        });
        let channel = Channel::Custom(BoxCloneSyncService::new(service));
        let client = Client::from_channel(channel, None).await.expect("a client");
        Interception { client, state }
    }

    /// From now on; what was seen so far is forgotten.
    pub fn rule(&self, rule: impl FnMut(&SeenRequest) -> Outcome + Send + 'static) {
        *self.state.lock().expect("no test has panicked") = State { rule: Some(Box::new(rule)), ..State::default() };
    }

    /// From now on each request takes this much longer.
    pub fn slow(&self, delay: Duration) {
        self.state.lock().expect("no test has panicked").delay = delay;
    }

    /// The requests since this was asked last.
    pub fn seen(&self) -> Vec<SeenRequest> {
        std::mem::take(&mut self.state.lock().expect("no test has panicked").seen)
    }

    /// How many such requests there were since.
    pub fn count(&self, is_one: impl Fn(&SeenRequest) -> bool) -> usize {
        self.seen().iter().filter(|seen| is_one(seen)).count()
    }
}

impl State {
    fn decide(&mut self, request: SeenRequest) -> Outcome {
        let outcome = self.rule.as_mut().map_or(Outcome::Passed, |rule| rule(&request));
        self.seen.push(request);
        outcome
    }
}
