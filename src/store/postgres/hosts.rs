//! The servers of the URL that the connection does not lead to: each is read once per renewal interval, since a server that was
//! promoted elsewhere makes ours stale (DESIGN.md 5.6).
//!
//! ```text
//! never asked --> asked --> answered or failed --> asked again, a renewal interval after it was asked last
//! ```
//!
//! A host that takes longer than one attempt counts as failed from then on; its connection goes on being set up (T6), and a
//! later answer counts. Renewals wait for none of this. A take and the first credit of a term do, see [`OtherHosts::settled`].
//! A name may have several addresses: each is a server of its own, except those that lead to the server we are connected to. Another
//! host that leads there gets a new connection each time, since it may be a load balancer's.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::connection::{ServerPlace, places};
use super::server::{PostgresServer, ServerLife};
use super::settings::{Host, Settings};
use crate::store::connection::setup::Accepted;
use crate::store::{Notifier, StoreError};
use elect_core::{Term, Time};
use elect_keeper::clock;

/// A host is not read more often, however short the renewal interval.
const INTERVAL_MIN: Duration = Duration::from_millis(50);

/// The readers of the other hosts. They end when it is dropped.
#[derive(Default)]
pub struct OtherHosts {
    board: Arc<HostBoard>,
    /// Connections that the search for the primary has left, for the readers.
    kept: Vec<PostgresServer>,
    readers: JoinSet<()>,
}

/// The news that the readers have brought.
#[derive(Default)]
pub struct HostBoard {
    state: Mutex<BoardState>,
    bell: Notify,
}

#[derive(Default)]
struct BoardState {
    readings: Vec<HostReading>,
    limit: Duration,
    interval: Duration,
    verdict: Option<HostVerdict>,
    /// The leader that is told at once.
    leader: Option<(Notifier, Term)>,
}

/// The finding that speaks against the server which the connection leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostVerdict {
    /// This one was promoted after ours, and is on this timeline.
    Newer { address: String, timeline: String },
    /// This one is the primary of another cluster.
    Foreign(String),
    /// This one is another primary of our cluster on the same timeline, as of a snapshot, or promoted at the same time.
    Twin(String),
}

/// The times of one host.
#[derive(Debug, Default, Clone, Copy)]
struct HostReading {
    /// When the question was asked that is under way.
    asked: Option<Time>,
    /// When the last one was answered, or failed.
    ended: Option<Time>,
}

impl HostReading {
    /// Whether it has answered or failed, at most an interval ago.
    fn is_settled(self, now: Time, limit: Duration, interval: Duration) -> bool {
        self.ended.is_some_and(|ended| now.since(ended) <= interval)
            || self.asked.is_some_and(|asked| now.since(asked) >= limit)
    }
}

impl HostVerdict {
    /// The meaning of an answer at this address for a connection to `ours`.
    pub fn of(ours: &ServerLife, other: &ServerLife, address: &str) -> Option<HostVerdict> {
        let timeline = other.timeline.as_ref()?;
        if other.system != ours.system {
            return Some(HostVerdict::Foreign(address.to_owned()));
        }
        if Some(timeline) == ours.timeline.as_ref() && !other.is_same_server(ours) {
            return Some(HostVerdict::Twin(address.to_owned()));
        }
        (Some(timeline) > ours.timeline.as_ref())
            .then(|| HostVerdict::Newer { address: address.to_owned(), timeline: timeline.clone() })
    }
}

impl HostBoard {
    fn state(&self) -> MutexGuard<'_, BoardState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The finding against our server, if there is one.
    pub fn verdict(&self) -> Option<HostVerdict> {
        self.state().verdict.clone()
    }

    fn ask(&self, index: usize) {
        if let Some(reading) = self.state().readings.get_mut(index) {
            reading.asked = Some(clock::now());
        }
    }

    fn end(&self, index: usize) {
        if let Some(reading) = self.state().readings.get_mut(index) {
            *reading = HostReading { asked: None, ended: Some(clock::now()) };
        }
        self.bell.notify_waiters();
    }

    fn judge(&self, verdict: HostVerdict) {
        let leader = {
            let mut state = self.state();
            if matches!(state.verdict, Some(HostVerdict::Newer { .. })) {
                return;
            }
            let leader = state.leader.take_if(|_| matches!(verdict, HostVerdict::Newer { .. }));
            state.verdict = Some(verdict.clone());
            leader
        };
        if let (Some((hints, term)), HostVerdict::Newer { address, .. }) = (leader, verdict) {
            warn!("{address} was promoted, so that the server on which this candidate was elected counts no more");
            hints.lost(term);
        }
        self.bell.notify_waiters();
    }
}

impl OtherHosts {
    /// Hands over what the search for the primary has left.
    pub fn keep(&mut self, kept: Vec<PostgresServer>) {
        self.kept = kept;
    }

    /// Begins to read the hosts beside `own`, unless that was begun. Must be called inside a runtime.
    pub fn start(&mut self, settings: &Settings, own_host: &Host, own: &ServerPlace, life: &ServerLife) {
        if !self.readers.is_empty() {
            return;
        }
        {
            let mut state = self.board.state();
            let asked = HostReading { asked: Some(clock::now()), ended: None };
            state.readings = vec![asked; settings.hosts.len()];
            state.limit = settings.limits.attempt;
            state.interval = settings.renew_interval.max(INTERVAL_MIN);
        }
        for (index, host) in settings.hosts.iter().enumerate() {
            let (kept, others) = std::mem::take(&mut self.kept).into_iter().partition(|server| server.host == *host);
            self.kept = others;
            let reader = HostReader {
                settings: settings.clone(),
                host: host.clone(),
                index,
                is_own: host == own_host,
                own: own.clone(),
                life: life.clone(),
                same: Vec::new(),
                kept,
                board: Arc::clone(&self.board),
            };
            self.readers.spawn(reader.run());
        }
    }

    /// From now on this leader is told at once when another server was promoted (K11).
    pub fn tell(&self, hints: &Notifier, term: Term) {
        if !self.readers.is_empty() {
            self.board.state().leader = Some((hints.clone(), term));
        }
    }

    /// The finding against our server, if there is one.
    pub fn verdict(&self) -> Option<HostVerdict> {
        self.board.verdict()
    }

    /// Where the readers report; it outlasts them.
    pub fn board(&self) -> Arc<HostBoard> {
        Arc::clone(&self.board)
    }

    /// Returns once each host has answered or failed, at most a renewal interval ago. Cancel safe.
    pub async fn settled(&self) {
        loop {
            let bell = self.board.bell.notified();
            let limit = {
                let (state, now) = (self.board.state(), clock::now());
                let is_settled = |reading: &HostReading| reading.is_settled(now, state.limit, state.interval);
                if state.verdict.is_some() || state.readings.iter().all(is_settled) {
                    return;
                }
                state.limit
            };
            // Whichever host is silent counts as failed within that time.
            let _ = timeout(limit / 4, bell).await;
        }
    }
}

/// Reads one host of the URL, all addresses of its name.
struct HostReader {
    settings: Settings,
    host: Host,
    index: usize,
    /// Whether it is the host that has led to our server.
    is_own: bool,
    own: ServerPlace,
    life: ServerLife,
    /// Further addresses of its name that lead there.
    same: Vec<ServerPlace>,
    kept: Vec<PostgresServer>,
    board: Arc<HostBoard>,
}

impl HostReader {
    async fn run(mut self) {
        let interval = self.board.state().interval;
        loop {
            let asked = clock::now();
            self.board.ask(self.index);
            self.read().await;
            self.board.end(self.index);
            sleep(interval.saturating_sub(clock::now().since(asked))).await;
        }
    }

    async fn read(&mut self) {
        let found = match timeout(self.settings.limits.setup, places(&self.host.place)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => return debug!("postgres: {}: {error}", self.host.place),
            Err(_) => return debug!("postgres: {}: the name is not found in time", self.host.place),
        };
        self.kept.retain(|server| found.contains(&server.place));
        let mut questions = JoinSet::new();
        for place in found.into_iter().filter(|place| *place != self.own && !self.same.contains(place)) {
            let position = self.kept.iter().position(|server| server.place == place);
            let kept = position.map(|position| self.kept.swap_remove(position));
            questions.spawn(ask(self.settings.clone(), self.host.clone(), place, kept));
        }
        while let Some(answered) = questions.join_next().await {
            match answered {
                Ok(Ok(server)) => self.take(server),
                Ok(Err(error)) => debug!("postgres: {error}"),
                // A question that panicked has reported it.
                Err(_) => {}
            }
        }
    }

    fn take(&mut self, server: PostgresServer) {
        if server.life.is_same_server(&self.life) {
            // The address of a load balancer, beside that of a server, may lead to another one next time: a connection of its own
            // shows that each time, and is not kept.
            if self.is_own {
                self.same.push(server.place);
            }
            return;
        }
        if let Some(verdict) = HostVerdict::of(&self.life, &server.life, server.address()) {
            self.board.judge(verdict);
        }
        self.kept.push(server);
    }
}

/// Asks over the kept connection, and over a new one if there is none or it has broken.
async fn ask(
    settings: Settings,
    host: Host,
    place: ServerPlace,
    kept: Option<PostgresServer>,
) -> Result<PostgresServer, StoreError> {
    let limits = settings.limits;
    if let Some(mut server) = kept {
        match timeout(limits.attempt, server.read_life()).await {
            Ok(Ok(())) => return Ok(server),
            Ok(Err(_)) => {}
            Err(_) => return Err(settings.silent(&host)),
        }
    }
    let accepted = Accepted::default();
    let login = PostgresServer::login(&settings, &host, &place, &accepted);
    timeout(limits.setup, login).await.unwrap_or_else(|_| Err(settings.silent(&host)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(1);
    const INTERVAL: Duration = Duration::from_secs(2);

    fn newer(address: &str, timeline: &str) -> HostVerdict {
        HostVerdict::Newer { address: address.to_owned(), timeline: timeline.to_owned() }
    }

    fn life(system: &str, timeline: Option<&str>) -> ServerLife {
        ServerLife { system: system.to_owned(), timeline: timeline.map(str::to_owned), ..ServerLife::default() }
    }

    #[test]
    fn a_host_is_settled_by_an_answer_for_an_interval_and_by_silence_from_the_limit_on() {
        let at = |seconds| Time::BOOT + Duration::from_secs(seconds);
        let is_settled = |asked, ended, now| {
            let reading = HostReading { asked, ended };
            reading.is_settled(now, LIMIT, INTERVAL)
        };
        assert!(!is_settled(None, None, at(9)), "it was never asked");
        assert!(!is_settled(Some(at(10)), None, at(10)));
        assert!(is_settled(Some(at(10)), None, at(11)), "a silent host delays nothing beyond the limit");
        assert!(is_settled(None, Some(at(10)), at(12)));
        assert!(!is_settled(None, Some(at(10)), at(13)), "the answer is too old");
        assert!(is_settled(Some(at(12)), Some(at(10)), at(12)), "the answer before counts while it is asked again");
    }

    #[test]
    fn only_a_primary_of_our_cluster_with_a_higher_timeline_is_newer() {
        let ours = life("7", Some("0000000A"));
        for (other, verdict) in [
            (life("7", Some("0000000B")), Some(newer("h", "0000000B"))),
            (life("7", Some("0000000A")), None),
            (life("7", Some("00000009")), None),
            (life("7", None), None),
            (life("8", None), None),
            (life("8", Some("00000001")), Some(HostVerdict::Foreign("h".to_owned()))),
        ] {
            assert_eq!(HostVerdict::of(&ours, &other, "h"), verdict, "{other:?}");
        }
    }

    #[test]
    fn a_leader_is_told_once_and_a_foreign_primary_ends_no_lease() {
        let board = HostBoard::default();
        let (hints, mut events) = crate::store::worker::channel();
        board.state().leader = Some((hints, 7));
        board.judge(HostVerdict::Foreign("f".to_owned()));
        board.judge(newer("n", "00000002"));
        board.judge(newer("m", "00000003"));
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let event = runtime.block_on(events.recv()).expect("an event");
        assert!(matches!(event, crate::store::worker::StoreEvent::Ousted { term: 7 }), "{event:?}");
        assert!(runtime.block_on(events.recv()).is_none(), "no other event, and no other sender");
        assert_eq!(board.state().verdict, Some(newer("n", "00000002")));
    }
}
