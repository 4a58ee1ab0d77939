//! One candidacy: what was seen of the record, what was written to it, and what that is worth.
//!
//! The rules that make it safe:
//!
//! - What is written is compared first, in one script: a take insists on the very version that was observed, in the incarnation of
//!   the server and the epoch of its replicas in which it was; renewal and release on id, term and *held*, or, as long as the take is
//!   unanswered, on its nonce instead of the term.
//! - A write counts only once the replicas have it too, as many as the [`quorum`](super::quorum) says.
//!   A primary that was cut off from them sees none, and a leader that stays with it is not credited any more.
//! - A write whose answer did not come is unknown. A take is recognized by its nonce, or by that of the renewal that was sent with it,
//!   and starts no lease: a renewal follows.
//! - Which renewals are credited is decided by [`takeover`](elect_core::takeover) alone.
//! - The channel is a hint. A candidate that misses it asks at the usual pace.

mod renewal;

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use tracing::warn;

use renewal::{FirstRenewal, Renewal, TakeName};

use super::index::IndexScripts;
use super::observation::{observed, read};
use super::quorum::{Count, Quorum, Replicas};
use super::server::{LuaScript, RedisServer, ScriptCall};
use super::settings::{Route, Settings};
use super::stored_record::{NONCE_MAX, Snapshot, StoredRecord, basis, count, epoch, epoch_text};
use super::subscriptions::{group_channel, pass_on};
use crate::store::record::VERSION;
use crate::store::record_store::{KEEPER_RELEASE_NONCE, ObservedSession, TakeResult};
use crate::store::{Candidacy, Identity, Notifier, Observation, RenewResult, StoreError};
use elect_core::limits::TERM_MAX;
use elect_core::takeover::{
    Basis, Durability, OutstandingTake, RecordState, Reservation, StoreState, TakeRequest, Takeover, Vacancy,
};
use elect_core::{Term, Time};
use elect_keeper::clock;

/// A crowd that listens is told of a take after this: it would be awake just when the command starts, on the same host perhaps.
const CROWD_DELAY: Duration = Duration::from_millis(30);
// A script takes the nonce of a keeper for a number.
const _: () = assert!(KEEPER_RELEASE_NONCE <= NONCE_MAX);
/// So many restarts of one wait by replicas that attach are reported.
const RESTARTS_REPORTED: u32 = 3;

/// The scripts, by their hashes.
pub struct LuaScripts {
    pub look: LuaScript,
    pub index: IndexScripts,
    take: LuaScript,
    renew: LuaScript,
    release: LuaScript,
}

impl LuaScripts {
    pub fn new() -> LuaScripts {
        let script = |text: &str| LuaScript::new(&format!("{}\n{text}", include_str!("server.lua")));
        LuaScripts {
            look: script(include_str!("observe.lua")),
            index: IndexScripts::new(script),
            take: script(include_str!("take.lua")),
            renew: script(include_str!("renew.lua")),
            release: script(include_str!("release.lua")),
        }
    }
}

/// One candidate for one boundary.
#[expect(clippy::struct_excessive_bools, reason = "each is true or false by itself")]
pub struct Session {
    scripts: Rc<LuaScripts>,
    key: String,
    /// The channel of its group.
    group: String,
    /// The key of the index, and the name of the boundary in it.
    index_entry: [String; 2],
    id: String,
    rule: Takeover<String>,
    /// The term that was won, until it is lost.
    term: Option<Term>,
    /// Its release has been asked for: whatever becomes of that, it is over.
    let_go: bool,
    option: Replicas,
    was: Option<u64>,
    /// By the record that was seen last, or by our own.
    quorum: Option<Quorum>,
    /// The replicas of the server as they were last.
    replicas: Count,
    /// The number of all replicas in the last record that had one.
    all: Option<u64>,
    /// Whether a number of replicas that is too small has been reported.
    is_warned: bool,
    /// The same of a wait that is restarted again and again.
    is_restart_reported: bool,
    /// Whether another server may be the primary by now.
    may_move: bool,
    /// Whether a renewal of the leader would be news.
    undecided: Rc<Cell<bool>>,
    /// The first renewal of this term, if it was sent together with the take and was not asked for yet.
    first_renewal: Option<FirstRenewal>,
    /// The longest time of an attempt.
    attempt_limit: Duration,
}

impl Session {
    pub fn new(settings: &Settings, scripts: Rc<LuaScripts>, candidacy: &Candidacy) -> Session {
        let id = candidacy.identity.id.clone();
        Session {
            scripts,
            key: settings.key(&candidacy.boundary),
            group: group_channel(&settings.key(&candidacy.boundary), settings.db),
            index_entry: [settings.index_key(), candidacy.boundary.to_string()],
            rule: Takeover::new(id.clone(), candidacy.ttl, Durability::Volatile),
            id,
            term: None,
            let_go: false,
            option: settings.replicas,
            was: settings.replicas_was,
            quorum: None,
            replicas: Count::default(),
            all: None,
            is_warned: false,
            is_restart_reported: false,
            may_move: matches!(settings.route, Route::Sentinels { .. }),
            undecided: Rc::new(Cell::new(false)),
            first_renewal: None,
            attempt_limit: settings.limits.attempt,
        }
    }

    /// Whether there is anything that could be given back.
    pub fn may_hold(&self) -> bool {
        self.term.is_some() || self.rule.outstanding().is_some()
    }

    /// Where the last credited renewal was executed.
    pub fn settled(&self) -> Option<&Basis<String>> {
        self.rule.settled()
    }

    /// Has changes announced from the next script on, on a connection where that has not been asked for yet. Must be called inside
    /// a [`tokio::task::LocalSet`].
    pub fn listen(&mut self, server: &mut RedisServer, hints: &Notifier) {
        if !server.is_heard {
            // The channel is named like the key. Channels know no databases: what is said of another one's is idle.
            server.subscriptions.subscribe(&self.key);
            server.is_heard = true;
            let hints = hints.clone();
            // Not watched: it ends with the connection, and then the next question begins another.
            tokio::task::spawn_local(pass_on(server.ear.clone(), Rc::clone(&self.undecided), move || hints.changed()));
        }
        // A spare would leave the free record alone, and is no reason to tell nobody else.
        if self.rule.takeover_delay().is_zero() {
            server.subscriptions.join(&self.group);
        }
    }

    /// By how many replicas we campaign beside what was seen.
    fn agree(&mut self, server: &RedisServer, snapshot: &Snapshot) -> Result<Quorum, StoreError> {
        self.replicas = snapshot.replicas;
        let quorum = Quorum::of(self.option, self.was, snapshot.stored.as_ref(), self.all, snapshot.replicas)?;
        self.all = quorum.all.or(self.all.filter(|_| !quorum.replaces));
        self.quorum = Some(quorum);
        if quorum.is_minority(snapshot.replicas) && !std::mem::replace(&mut self.is_warned, true) {
            let all = quorum.all.unwrap_or_default().max(snapshot.replicas.attached);
            warn!(
                "replicas={}: only {} of {all} replicas of {} confirm a write, so a failover may forget a leader, and two may lead; \
                 majority is the least that is safe",
                self.option, quorum.required, server.address
            );
        }
        Ok(quorum)
    }

    fn report_restarts(&mut self, server: &RedisServer) {
        let restarts = self.rule.epoch_restarts();
        let is_reported = std::mem::replace(&mut self.is_restart_reported, restarts >= RESTARTS_REPORTED);
        if restarts >= RESTARTS_REPORTED && !is_reported {
            warn!(
                "the wait for {:?} has started again {restarts} times, because sync_full + sync_partial_ok of {} has changed or was \
                 reset: find the replica or dump that connects again and again",
                self.key, server.address
            );
        }
    }

    /// The boundary is to be released.
    pub fn let_go(&mut self) {
        (self.let_go, self.first_renewal) = (true, None);
    }

    /// Frees the record, if it is ours.
    pub async fn release(
        &mut self,
        server: &mut RedisServer,
        reservation: Option<&Reservation<String>>,
    ) -> Result<(), StoreError> {
        let own = match (self.term, self.rule.outstanding_take()) {
            (Some(term), _) => HeldRecord::Term(term),
            (None, Some(take)) => HeldRecord::Take(take),
            (None, None) => return Ok(()),
        };
        let nonce = self.rule.nonce();
        let written = FreeFields { nonce, settled: self.rule.settled(), reservation };
        free(server, &self.scripts, &self.key, &self.id, own, written).await
    }

    /// The arguments of a take.
    fn take_arguments(
        &self,
        snapshot: &Snapshot,
        candidacy: &Candidacy,
        nonce: u64,
        floor: Term,
        quorum: Quorum,
    ) -> [String; 22] {
        let [id, term, seen_nonce, state, required] = snapshot.stored.as_ref().map(expected).unwrap_or_default();
        let [attachments, commands] = match quorum.required {
            0 => [String::new(), String::new()],
            _ => [snapshot.epoch.attachments.to_string(), snapshot.epoch.commands.to_string()],
        };
        let [name, host, port] = identity_fields(&candidacy.identity);
        let [index, name_in_index] = self.index_entry.clone();
        [
            id,
            term,
            seen_nonce,
            state,
            required,
            snapshot.incarnation.clone(),
            attachments,
            commands,
            self.key.clone(),
            floor.to_string(),
            TERM_MAX.to_string(),
            VERSION.to_string(),
            self.id.clone(),
            name,
            host,
            port,
            millis(candidacy.ttl),
            nonce.to_string(),
            quorum.all_in_record(),
            quorum.required_in_record(),
            index,
            name_in_index,
        ]
    }

    /// The result of a take.
    fn taken(
        &mut self,
        server: &mut RedisServer,
        answer: &[String],
        confirmed: u64,
        mut quorum: Quorum,
    ) -> Result<TakeResult, StoreError> {
        match as_strs(answer)[..] {
            ["taken", term, incarnation, at, replicas, untold] => {
                let (term, at) = (number(term)?, epoch(at).ok_or_else(unexpected_reply)?);
                if number(untold)? > 0 {
                    server.announce_later(&self.key, &format!("taken {untold}"), CROWD_DELAY);
                }
                self.replicas = count(replicas).ok_or_else(unexpected_reply)?;
                if quorum.all.is_none() {
                    // As many as there were when it was written.
                    quorum.required = self.option.of(self.replicas.attached);
                }
                quorum.learn(confirmed, self.replicas);
                self.quorum = Some(quorum);
                self.confirm(server, confirmed, quorum)?;
                self.rule.took(basis(incarnation.to_owned(), at, quorum.required), true);
                self.term = Some(term);
                self.undecided.set(false);
                Ok(TakeResult::Taken(term))
            }
            ["changed" | "foreign", ..] => {
                self.rule.discard_outstanding();
                Ok(TakeResult::Changed)
            }
            ["overflow"] => {
                self.rule.discard_outstanding();
                let key = &self.key;
                Err(StoreError::Obstacle(format!(
                    "the term in {key:?}, or the server's clock, is too large: delete the key once nobody leads"
                )))
            }
            _ => Err(unexpected_reply()),
        }
    }

    async fn write(
        &self,
        server: &mut RedisServer,
        script: &LuaScript,
        arguments: &[String],
        quorum: Quorum,
    ) -> Result<(Vec<String>, u64), StoreError> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let wanted = Some(quorum.wanted(self.replicas)).filter(|&wanted| wanted > 0);
        let (answer, confirmed) = server.run_confirmed::<Vec<Vec<u8>>>(script, &self.key, &arguments, wanted).await?;
        Ok((texts(&answer), confirmed))
    }

    /// A write that the replicas lack does not count: a failover would forget it.
    fn confirm(&self, server: &mut RedisServer, confirmed: u64, quorum: Quorum) -> Result<(), StoreError> {
        if quorum.is_confirmed(confirmed, self.replicas) {
            return Ok(());
        }
        if self.may_move {
            server.is_sound = false;
        }
        Err(StoreError::Unavailable(format!(
            "{}: {confirmed} of {} replicas have confirmed the write{}",
            server.address,
            quorum.required + self.replicas.strangers,
            self.way_out(quorum)
        )))
    }

    /// How to go on without a replica that is gone for good.
    fn way_out(&self, quorum: Quorum) -> String {
        let was = quorum.required;
        let option = match self.option {
            Replicas::Number(_) => "N".to_owned(),
            Replicas::All | Replicas::Majority => self.option.to_string(),
        };
        format!("; if one is gone for good, start all candidates with ?replicas={option}&replicas-was={was}")
    }

    /// For display.
    fn describe(&self, snapshot: &Snapshot) -> Observation {
        let wait = humantime::format_duration(self.rule.longest_wait());
        let known = observed(snapshot);
        if known.leader.is_some() {
            return known;
        }
        if let Some(quorum) = self.quorum.filter(|quorum| snapshot.replicas.attached < quorum.required) {
            let attached = snapshot.replicas.attached;
            let obstacle = format!(
                "{attached} of {} replicas are attached, so nobody can be elected{}",
                quorum.required,
                self.way_out(quorum)
            );
            return Observation { obstacle: Some(obstacle), ..known };
        }
        if known.obstacle.is_some() {
            return known;
        }
        let state = snapshot.stored.as_ref().map(|stored| stored.record.state);
        let obstacle = if matches!(state, None | Some(RecordState::Vacant)) {
            format!(
                "no record of this boundary: it is taken after {wait}, because a leader whose record was lost may still run"
            )
        } else if !snapshot.is_fresh() {
            format!(
                "the server has been started again or replaced, and may have forgotten a leader: to be taken after {wait}"
            )
        } else if snapshot.is_continuous() || self.quorum.is_none_or(|quorum| quorum.required == 0) {
            return known;
        } else {
            format!("a replica has attached since the last leader: to be taken after {wait}")
        };
        Observation { obstacle: Some(obstacle), ..known }
    }
}

impl ObservedSession for Session {
    type Server = RedisServer;
    type Snapshot = Snapshot;

    fn takeover(&mut self) -> &mut Takeover<String> {
        &mut self.rule
    }

    fn take_released(&mut self) -> bool {
        std::mem::take(&mut self.let_go)
    }

    fn clear_term(&mut self) {
        self.term = None;
    }

    /// Where there is no record, one is written in the same moment on which every candidate can wait (S2).
    async fn observe(&mut self, server: &mut RedisServer) -> Result<Snapshot, StoreError> {
        // Another take follows, or a recognized one, after which a renewal is sent.
        self.first_renewal = None;
        let Vacancy { nonce, ttl, term } = self.rule.vacancy();
        let vacant = [
            VERSION.to_string(),
            uuid::Uuid::new_v4().to_string(),
            millis(ttl),
            term.to_string(),
            nonce.to_string(),
            self.all.map(|all| all.to_string()).unwrap_or_default(),
            self.index_entry[0].clone(),
            self.index_entry[1].clone(),
        ];
        let vacant: Vec<&str> = vacant.iter().map(String::as_str).collect();
        read(&self.key, server.run(&self.scripts.look, &self.key, &vacant).await?)
    }

    fn state(&mut self, server: &RedisServer, snapshot: &Snapshot) -> Result<StoreState<String>, StoreError> {
        let quorum = self.agree(server, snapshot)?;
        Ok(snapshot.view(quorum.required, quorum.replaces))
    }

    fn recognize(&mut self, state: StoreState<String>, term: Term) {
        let taken = state.record.map_or(state.basis, |record| record.basis);
        self.rule.took(taken, self.quorum.is_some_and(|quorum| quorum.required == 0));
        self.term = Some(term);
    }

    async fn free_stale(&mut self, server: &mut RedisServer, term: Term) -> Result<(), StoreError> {
        let nonce = self.rule.nonce();
        free(server, &self.scripts, &self.key, &self.id, HeldRecord::Term(term), FreeFields::of(nonce)).await
    }

    /// The record that the observation has written was deleted at once.
    async fn vacate(&mut self, _: &mut RedisServer) -> Result<(), StoreError> {
        Ok(())
    }

    async fn take(
        &mut self,
        server: &mut RedisServer,
        candidacy: &Candidacy,
        snapshot: &Snapshot,
        _: Time,
    ) -> Result<TakeResult, StoreError> {
        let Some(quorum) = self.quorum else { return Ok(TakeResult::Changed) };
        let scripts = Rc::clone(&self.scripts);
        let TakeRequest { nonce, floor } = self.rule.take_request();
        self.term = None;
        let arguments = self.take_arguments(snapshot, candidacy, nonce, floor, quorum);
        if !quorum.takes_and_renews_at_once(self.replicas) {
            let (answer, confirmed) = self.write(server, &scripts.take, &arguments, quorum).await?;
            return self.taken(server, &answer, confirmed, quorum);
        }
        let renewal_nonce = self.rule.renewal_with_take();
        let renewal = self.renewal(TakeName::Nonce(nonce), renewal_nonce, quorum, candidacy);
        let [arguments, renewal] = [&arguments[..], &renewal].map(|texts| texts.iter().map(String::as_str).collect());
        let (arguments, renewal): (Vec<&str>, Vec<&str>) = (arguments, renewal);
        let take = ScriptCall { script: &scripts.take, key: &self.key, arguments: &arguments };
        let renew = ScriptCall { script: &scripts.renew, key: &self.key, arguments: &renewal };
        let sent: Time = clock::now(); // T1
        let (taken, renewed) = server.run_both::<Vec<Vec<u8>>>([take, renew]).await?;
        let received = clock::now();
        let result = self.taken(server, &texts(&taken), 0, quorum)?;
        // One that has failed is followed by another one: a renewal is asked for at once.
        if let (TakeResult::Taken(term), Ok(answer)) = (result, renewed) {
            let renewal = Renewal { term, nonce: renewal_nonce, sent, received, confirmed: 0 };
            self.first_renewal =
                Some(FirstRenewal { answer: texts(&answer), renewal, identity: candidacy.identity.clone() });
        }
        Ok(result)
    }

    fn wait(&mut self, server: &RedisServer, left: Duration, decided: bool) -> Duration {
        self.undecided.set(!decided);
        self.report_restarts(server);
        left
    }

    fn observation(&self, snapshot: &Snapshot) -> Observation {
        self.describe(snapshot)
    }
}

/// The fields of the record that describe the leader and may be proclaimed again: name, host and port.
fn identity_fields(identity: &Identity) -> [String; 3] {
    let port = identity.port.map(|port| port.to_string()).unwrap_or_default();
    [identity.name.clone(), identity.host.clone(), port]
}

/// The values that identify the version that was seen.
fn expected(stored: &StoredRecord) -> [String; 5] {
    let state = match stored.record.state {
        RecordState::Held => "held",
        RecordState::Free => "free",
        RecordState::Vacant => "vacant",
    };
    let required = stored.required.map(|required| required.to_string()).unwrap_or_default();
    [stored.record.id.clone(), stored.record.term.to_string(), stored.nonce.to_string(), state.to_owned(), required]
}

/// Where something was executed, as a record has it; nothing leaves the record as it is.
fn in_record(settled: Option<&Basis<String>>) -> [String; 2] {
    settled.map(|basis| [basis.incarnation.clone(), epoch_text(basis.epoch)]).unwrap_or_default()
}

fn millis(duration: Duration) -> String {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).to_string()
}

/// The fields that a release writes into the free record.
#[derive(Debug, Clone, Copy)]
struct FreeFields<'a> {
    nonce: u64,
    /// Where the last credited renewal was executed; `None` leaves the basis in the record.
    settled: Option<&'a Basis<String>>,
    reservation: Option<&'a Reservation<String>>,
}

impl FreeFields<'_> {
    const fn of(nonce: u64) -> Self {
        FreeFields { nonce, settled: None, reservation: None }
    }
}

/// By what a record is known to be ours.
#[derive(Debug, Clone, Copy)]
enum HeldRecord {
    Term(Term),
    /// Of a take whose answer was lost. A renewal that was sent with it may have been executed as well, or not yet, or never.
    Take(OutstandingTake),
    /// Any record of this candidate, which is dead.
    AnyOfTheDead,
}

impl HeldRecord {
    /// As the script has it: of a nonce, two that are possible.
    fn in_script(self) -> (&'static str, [String; 2]) {
        match self {
            HeldRecord::Term(term) => ("term", [term.to_string(), String::new()]),
            HeldRecord::Take(OutstandingTake { take, renewal }) => {
                ("nonce", [take.to_string(), renewal.map(|nonce| nonce.to_string()).unwrap_or_default()])
            }
            HeldRecord::AnyOfTheDead => ("id", [String::new(), String::new()]),
        }
    }
}

/// The keeper's release: whatever this candidate holds, which is dead.
pub async fn release_for_dead(
    server: &mut RedisServer,
    scripts: &LuaScripts,
    key: &str,
    id: &str,
    settled: Option<&Basis<String>>,
) -> Result<(), StoreError> {
    let written = FreeFields { settled, ..FreeFields::of(KEEPER_RELEASE_NONCE) };
    free(server, scripts, key, id, HeldRecord::AnyOfTheDead, written).await
}

async fn free(
    server: &mut RedisServer,
    scripts: &LuaScripts,
    key: &str,
    id: &str,
    own: HeldRecord,
    FreeFields { nonce, settled, reservation }: FreeFields<'_>,
) -> Result<(), StoreError> {
    let (by, [which, or_which]) = own.in_script();
    let (nonce, [incarnation, epoch]) = (nonce.to_string(), in_record(settled));
    let successor = reservation.map(|reservation| reservation.successor.as_str()).unwrap_or_default();
    let within = reservation.map(|reservation| millis(reservation.within)).unwrap_or_default();
    // Not ours, or not a record any more: there is nothing to be given back.
    let db = server.db.to_string();
    let arguments = [id, by, &which, &nonce, key, &incarnation, &epoch, successor, &within, &or_which, &db];
    server.run::<Vec<String>>(&scripts.release, key, &arguments).await.map(drop)
}

/// A name that another program has written need not be text.
fn texts(answer: &[Vec<u8>]) -> Vec<String> {
    answer.iter().map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn as_strs(answer: &[String]) -> Vec<&str> {
    answer.iter().map(String::as_str).collect()
}

pub fn number(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| unexpected_reply())
}

fn lost(why: String) -> RenewResult {
    RenewResult::Lost { why }
}

pub fn unexpected_reply() -> StoreError {
    StoreError::Unavailable("the answer of a script is not what it should be".to_owned())
}
