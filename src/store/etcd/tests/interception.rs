//! A connection to an etcd of which a test sees each request, and which holds some of them or answers for the server.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use etcd_client::Client;
use http_body_util::{BodyExt, Full};
use tonic::body::Body;
use tonic::codegen::Bytes;
use tonic::codegen::http::{Request, Response};
use tonic::transport::Endpoint;
use tonic::{Code, Status};
use tower::{BoxError, ServiceExt, service_fn};

use super::super::first_answer;
use super::EtcdProcess;

/// The fate of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    Passed,
    /// It is never answered.
    Held,
    Failed(Code),
    /// The server executes it, and the answer is lost.
    Unanswered,
    /// Its client hears of no answer, and the server gets it when the test says so.
    Late,
}

type Connection = tonic::transport::Channel;

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
    /// The round trips in series that were answered, and that were begun. Watches do not count: no request waits for one.
    answered: u32,
    begun: u32,
    late: Vec<Request<Body>>,
    /// The server gets the first keep-alive of each stream alone.
    one_keep_alive: bool,
}

/// One connection.
pub struct Interception {
    pub client: Client,
    state: Arc<Mutex<State>>,
    connection: Connection,
}

impl Interception {
    pub async fn of(server: &EtcdProcess) -> Interception {
        let channel = Endpoint::from_shared(format!("http://{}", server.address)).expect("an address");
        let channel = channel.connect().await.expect("a server that is up");
        let state = Arc::<Mutex<State>>::default();
        let known = Arc::clone(&state);
        let connection = channel.clone();
        let service = service_fn(move |request: Request<Body>| carry(request, channel.clone(), Arc::clone(&known)));
        let client = Client::from_channel(first_answer::channel(service), None).await.expect("a client");
        Interception { client, state, connection }
    }

    /// From now on; what was seen so far is forgotten.
    pub fn rule(&self, rule: impl FnMut(&SeenRequest) -> Outcome + Send + 'static) {
        *self.state.lock().expect("no test has panicked") = State { rule: Some(Box::new(rule)), ..State::default() };
    }

    /// From now on each request takes this much longer.
    pub fn slow(&self, delay: Duration) {
        self.state.lock().expect("no test has panicked").delay = delay;
    }

    /// From now on the server gets of each stream only the first keep-alive.
    pub fn one_keep_alive_passes(&self) {
        self.state.lock().expect("no test has panicked").one_keep_alive = true;
    }

    /// The round trips in series since this was asked last: a request is one more than what was answered before it.
    pub fn trips(&self) -> u32 {
        let mut state = self.state.lock().expect("no test has panicked");
        state.answered = 0;
        std::mem::take(&mut state.begun)
    }

    /// The server gets what is late, and executes it.
    pub async fn deliver(&self) -> usize {
        let late = std::mem::take(&mut self.state.lock().expect("no test has panicked").late);
        let count = late.len();
        for request in late {
            let answer = self.connection.clone().oneshot(request).await.expect("the server is up");
            let _ = answer.into_body().frame().await;
        }
        count
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

    /// A request is sent. Returns in which round trip.
    fn begin(&mut self) -> u32 {
        self.begun = self.begun.max(self.answered + 1);
        self.answered + 1
    }

    fn answer(&mut self, trip: u32) {
        self.answered = self.answered.max(trip);
    }
}

async fn carry(
    request: Request<Body>,
    channel: Connection,
    known: Arc<Mutex<State>>,
) -> Result<Response<Body>, BoxError> {
    let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let (is_watch, is_pulse) = (method == "Watch", method == "LeaseKeepAlive");
    let (head, body) = request.into_parts();
    let (bytes, body) = if is_watch || is_pulse {
        (Vec::new(), body)
    } else {
        let bytes = body.collect().await?.to_bytes();
        (bytes.to_vec(), Body::new(Full::new(bytes)))
    };
    let decide = |state: &mut State| {
        let trip = if is_watch { 0 } else { state.begin() };
        (trip, state.delay, state.decide(SeenRequest { method, body: bytes }))
    };
    let (trip, delay, outcome) = decide(&mut known.lock().expect("no test has panicked"));
    tokio::time::sleep(delay).await;
    let body = if is_pulse { counted_requests(body, Arc::clone(&known)) } else { body };
    let request = Request::from_parts(head, body);
    let failed = |code| Ok(Status::new(code, "etcdserver: by the test").into_http());
    match outcome {
        Outcome::Passed => {}
        Outcome::Held => std::future::pending().await,
        Outcome::Failed(code) => return failed(code),
        Outcome::Unanswered => {
            let _ = channel.oneshot(request).await?.into_body().frame().await;
            return failed(Code::Unavailable);
        }
        Outcome::Late => {
            known.lock().expect("no test has panicked").late.push(request);
            return failed(Code::Unavailable);
        }
    }
    let answer = channel.oneshot(request).await?;
    if is_pulse {
        return Ok(answer.map(|body| counted_answers(body, known)));
    }
    known.lock().expect("no test has panicked").answer(trip);
    Ok(answer)
}

/// Of a stream of keep-alives: the first one was counted when it was opened.
fn counted_requests(body: Body, known: Arc<Mutex<State>>) -> Body {
    let mut is_first = true;
    Body::new(body.map_frame(move |frame| {
        if std::mem::take(&mut is_first) {
            return frame;
        }
        let mut state = known.lock().expect("no test has panicked");
        state.begin();
        if state.one_keep_alive { frame.map_data(|_| Bytes::new()) } else { frame }
    }))
}

/// The answer to the keep-alive that was sent last: there is never more than one under way.
fn counted_answers(body: Body, known: Arc<Mutex<State>>) -> Body {
    Body::new(body.map_frame(move |frame| {
        let mut state = known.lock().expect("no test has panicked");
        let trip = state.begun;
        state.answer(trip);
        drop(state);
        frame
    }))
}
