//! One candidacy: what was seen of the record, what was written to it, and what that is worth.
//!
//! The rules that make it safe:
//!
//! - What is written is compared first, in one script: a take insists on the very version that was observed, in the life of
//!   the server in which it was; renewal and release on id, term and *held*.
//! - A write counts only once the replicas have it too: all that the record has ever seen, unless the URL says how many.
//!   A primary that was cut off from them sees none, and whoever still leads there is not credited any more.
//! - A write whose answer did not come is unknown. A take is recognized by its nonce, and starts no lease: a renewal follows.
//! - The channel is a hint. Whoever misses it asks at the usual pace.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::ear::Heard;
use super::entry::{Entry, Glance, MOST, foreign};
use super::server::{Script, Server};
use super::settings::{Replicas, Route, Settings};
use crate::clock;
use crate::election::{Term, Time};
use crate::store::record::VERSION;
use crate::store::takeover::{Basis, Bid, Decision, Memory, RecordState, Takeover, Vacancy};
use crate::store::{Candidacy, Hints, Identity, Renewal, Sighting, Standing, StoreError};

/// How often a record that changes under our hands is looked at again within an attempt.
const LOOKS: usize = 4;
/// Between two hints, however many announcements there are.
const HINT_INTERVAL: Duration = Duration::from_millis(10);
/// Of a release that a keeper makes: larger than any that its campaigner came to.
const LAST_NONCE: u64 = MOST;

/// The scripts, by their hashes.
pub struct Scripts {
    look: Script,
    take: Script,
    vacate: Script,
    renew: Script,
    release: Script,
}

impl Scripts {
    pub fn new() -> Scripts {
        let script = |text: &str| Script::new(&format!("{}\n{text}", include_str!("life.lua")));
        Scripts {
            look: script(include_str!("look.lua")),
            take: script(include_str!("take.lua")),
            vacate: script(include_str!("vacate.lua")),
            renew: script(include_str!("renew.lua")),
            release: script(include_str!("release.lua")),
        }
    }
}

/// One candidate for one boundary.
pub struct Seat {
    key: String,
    id: String,
    rule: Takeover<String>,
    /// What we won, until it is lost.
    term: Option<Term>,
    /// Its release has been asked for: whatever becomes of that, it is over.
    let_go: bool,
    required: Replicas,
    /// As many as the record has ever seen, as far as we know.
    replicas: u64,
    /// Whether another server may be the primary by now.
    may_move: bool,
    /// Whether a renewal of whoever leads would be news.
    undecided: Rc<Cell<bool>>,
}

impl Seat {
    pub fn new(settings: &Settings, candidacy: &Candidacy) -> Seat {
        let id = candidacy.identity.id.clone();
        Seat {
            key: settings.key(&candidacy.boundary),
            rule: Takeover::new(id.clone(), candidacy.ttl, Memory::Fleeting),
            id,
            term: None,
            let_go: false,
            required: settings.replicas,
            replicas: 0,
            may_move: matches!(settings.route, Route::Sentinels { .. }),
            undecided: Rc::new(Cell::new(false)),
        }
    }

    /// Whether there is anything that could be given back.
    pub fn may_hold(&self) -> bool {
        self.term.is_some() || self.rule.outstanding().is_some()
    }

    /// Has changes announced, on a connection where that has not been asked for yet. Must be called inside a
    /// [`tokio::task::LocalSet`].
    pub async fn listen(&mut self, server: &mut Server, hints: &Hints) -> Result<(), StoreError> {
        if server.is_heard {
            return Ok(());
        }
        // The channel is named like the key. Channels know no databases: what is said of another one's is idle.
        server.subscribe(&self.key, false).await?;
        server.is_heard = true;
        let (hints, undecided, ear) = (hints.clone(), Rc::clone(&self.undecided), Arc::clone(&server.ear));
        // Not watched: it ends with the connection, and then the next question begins another.
        tokio::task::spawn_local(async move {
            loop {
                match ear.next().await {
                    Heard::Renewal if !undecided.get() => {}
                    Heard::Renewal | Heard::Change => {
                        hints.changed();
                        // A flood of announcements must not become a flood of questions.
                        tokio::time::sleep(HINT_INTERVAL).await;
                    }
                    Heard::End => return,
                }
            }
        });
        Ok(())
    }

    /// Looks at the record, and takes it if that is allowed.
    pub async fn stand(
        &mut self,
        server: &mut Server,
        scripts: &Scripts,
        candidacy: &Candidacy,
    ) -> Result<Standing, StoreError> {
        if std::mem::take(&mut self.let_go) {
            // What was released is not ours any more, even if the release has not arrived: it may yet.
            self.rule.forget();
            self.term = None;
        }
        let mut last = Sighting::default();
        for _ in 0..LOOKS {
            let glance = look(server, scripts, &self.key).await?;
            let received = clock::now(); // T1
            self.replicas = glance.replicas;
            let decision = self.rule.decide(received, &glance.view());
            match decision {
                Decision::Vacate => self.vacate(server, scripts).await?,
                Decision::Mine(term) => {
                    self.rule.took(glance.view().basis, true);
                    self.term = Some(term);
                    return Ok(Standing::Won { term });
                }
                Decision::GiveBack(term) => {
                    free(server, scripts, &self.key, &self.id, ("term", term), self.rule.nonce()).await?;
                    self.rule.forget();
                }
                Decision::Take => {
                    if let Some(term) = self.take(server, scripts, candidacy, &glance).await? {
                        self.undecided.set(false);
                        return Ok(Standing::Won { term });
                    }
                }
                Decision::Wait { left, decided } => {
                    self.undecided.set(!decided);
                    let sighting = self.told(&glance);
                    return Ok(Standing::Waiting { sighting, again: Some(left), decided });
                }
            }
            last = self.told(&glance);
        }
        // It goes from hand to hand.
        let again = Some(Duration::from_millis(fastrand::u64(1..100)));
        Ok(Standing::Waiting { sighting: last, again, decided: false })
    }

    /// Writes a record on which every candidate can wait (S2), unless there is one.
    async fn vacate(&mut self, server: &mut Server, scripts: &Scripts) -> Result<(), StoreError> {
        let Vacancy { nonce, ttl, term } = self.rule.vacancy();
        let ttl = u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX);
        let id = uuid::Uuid::new_v4().to_string();
        let arguments = [VERSION.to_string(), id, ttl.to_string(), term.to_string(), nonce.to_string()];
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        server.run::<Vec<String>>(&scripts.vacate, &self.key, &arguments).await.map(drop)
    }

    /// `None`: it is not any more what we have seen.
    async fn take(
        &mut self,
        server: &mut Server,
        scripts: &Scripts,
        candidacy: &Candidacy,
        glance: &Glance,
    ) -> Result<Option<Term>, StoreError> {
        let Bid { nonce, floor } = self.rule.bid();
        self.term = None;
        let seen = glance.entry.as_ref().map(expected).unwrap_or_default();
        let [name, host, port] = told_of(&candidacy.identity);
        let ttl = u64::try_from(candidacy.ttl.as_millis()).unwrap_or(u64::MAX);
        let arguments = [
            glance.life.clone(),
            seen[0].clone(),
            seen[1].clone(),
            seen[2].clone(),
            seen[3].clone(),
            self.key.clone(),
            floor.to_string(),
            VERSION.to_string(),
            self.id.clone(),
            name,
            host,
            port,
            ttl.to_string(),
            nonce.to_string(),
        ];
        let (answer, confirmed) = self.write(server, &scripts.take, &arguments).await?;
        match words(&answer)[..] {
            ["taken", term, replicas] => {
                let term = number(term)?;
                self.confirm(server, confirmed, replicas)?;
                self.rule.took(Basis::of(glance.life.clone()), true);
                self.term = Some(term);
                Ok(Some(term))
            }
            ["changed" | "foreign"] => {
                self.rule.forget();
                Ok(None)
            }
            ["overflow"] => Err(StoreError::Refused(format!("the term in {:?} is too large to be followed", self.key))),
            _ => Err(nonsense()),
        }
    }

    /// Renews, and verifies that the record is ours.
    pub async fn renew(
        &mut self,
        server: &mut Server,
        scripts: &Scripts,
        candidacy: &Candidacy,
    ) -> Result<Renewal, StoreError> {
        let Some(term) = self.term else { return Ok(lost("nothing was won".to_owned())) };
        let nonce = self.rule.nonce();
        let sent: Time = clock::now(); // T1
        let [name, host, port] = told_of(&candidacy.identity);
        let arguments = [self.id.clone(), term.to_string(), nonce.to_string(), self.key.clone(), name, host, port];
        let (answer, confirmed) = self.write(server, &scripts.renew, &arguments).await?;
        match words(&answer)[..] {
            ["renewed", ttl, replicas] => {
                let ttl = Duration::from_millis(number(ttl)?);
                self.confirm(server, confirmed, replicas)?;
                // The take is no longer unanswered: found again as it was, it would be an old state of the record.
                self.rule.forget();
                Ok(Renewal::Credited { sent, ttl: Some(ttl) })
            }
            ["lost", id, state, name] => Ok(lost(match (id, state) {
                ("", _) => "the record is gone".to_owned(),
                (id, "held") if id != self.id => format!("{name} leads"),
                (_, "held") => "it is of another term".to_owned(),
                _ => "it was released".to_owned(),
            })),
            ["foreign"] => Ok(lost("the record was overwritten with something else".to_owned())),
            _ => Err(nonsense()),
        }
    }

    /// Frees the record, if it is ours.
    pub async fn release(&mut self, server: &mut Server, scripts: &Scripts) -> Result<(), StoreError> {
        self.let_go = true;
        let claim = match (self.term, self.rule.outstanding()) {
            (Some(term), _) => ("term", term),
            (None, Some(nonce)) => ("nonce", nonce),
            (None, None) => return Ok(()),
        };
        free(server, scripts, &self.key, &self.id, claim, self.rule.nonce()).await
    }

    async fn write(
        &self,
        server: &mut Server,
        script: &Script,
        arguments: &[String],
    ) -> Result<(Vec<String>, u64), StoreError> {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let replicas = match self.required {
            Replicas::Number(number) => number,
            Replicas::All => self.replicas,
        };
        server.run_confirmed(script, &self.key, &arguments, Some(replicas).filter(|&replicas| replicas > 0)).await
    }

    /// What the replicas do not have is worth nothing: a failover would forget it.
    fn confirm(&mut self, server: &mut Server, confirmed: u64, ever_seen: &str) -> Result<(), StoreError> {
        self.replicas = number(ever_seen)?;
        let required = match self.required {
            Replicas::Number(number) => number,
            Replicas::All => self.replicas,
        };
        if confirmed >= required {
            return Ok(());
        }
        if self.may_move {
            server.is_sound = false;
        }
        Err(StoreError::Unavailable(format!(
            "{}: {confirmed} of {required} replicas have confirmed the write; if one is gone for good, say ?replicas=N",
            server.address
        )))
    }

    /// For people.
    fn told(&self, glance: &Glance) -> Sighting {
        let wait = humantime::format_duration(self.rule.longest_wait());
        let known = observed(glance);
        if known.leader.is_some() || known.obstacle.is_some() {
            return known;
        }
        let obstacle = if glance.entry.is_none() {
            format!(
                "there is no record of this boundary yet, or it was lost: to be taken when there is none for {wait}"
            )
        } else if glance.is_fresh() {
            return known;
        } else {
            format!(
                "the server has been started again or replaced, and may have forgotten a leader: to be taken after {wait}"
            )
        };
        Sighting { obstacle: Some(obstacle), ..known }
    }
}

/// What the record says of its leader, and may be proclaimed anew: name, host and port.
fn told_of(identity: &Identity) -> [String; 3] {
    let port = identity.port.map(|port| port.to_string()).unwrap_or_default();
    [identity.name.clone(), identity.host.clone(), port]
}

/// What the version that was seen is recognized by.
fn expected(entry: &Entry) -> [String; 4] {
    let state = match entry.record.state {
        RecordState::Held => "held",
        RecordState::Free => "free",
        RecordState::Vacant => "vacant",
    };
    [entry.record.id.clone(), entry.record.term.to_string(), entry.nonce.to_string(), state.to_owned()]
}

async fn look(server: &mut Server, scripts: &Scripts, key: &str) -> Result<Glance, StoreError> {
    read(key, server.run(&scripts.look, key, &[]).await?)
}

/// What a script saw of a key.
fn read(key: &str, answer: Vec<Value>) -> Result<Glance, StoreError> {
    let foreign = || StoreError::Refused(foreign(key));
    let mut parts = answer.into_iter();
    let (Some(life), Some(now), Some(replicas), Some(fields)) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(foreign());
    };
    let text = |value: Value| redis::from_redis_value::<String>(value).map_err(|_| nonsense());
    // Whatever is not text was not written by elect.
    let fields = redis::from_redis_value(fields).map_err(|_| foreign())?;
    Ok(Glance {
        life: text(life)?,
        now: number(&text(now)?)?,
        replicas: number(&text(replicas)?)?,
        entry: Entry::read(key, &fields)?,
    })
}

/// Who leads, for those who look on: to them an abandoned record is no leader, and nothing more.
pub async fn sighting(server: &mut Server, scripts: &Scripts, key: &str) -> Result<Sighting, StoreError> {
    Ok(from_outside(&look(server, scripts, key).await?))
}

/// The same of many keys.
pub async fn sightings(
    server: &mut Server,
    scripts: &Scripts,
    keys: &[String],
) -> Result<Vec<Result<Sighting, StoreError>>, StoreError> {
    let answers = server.run_on_each(&scripts.look, keys).await?;
    let sighting = |(key, answer): (&String, Result<_, _>)| Ok(from_outside(&read(key, answer?)?));
    Ok(keys.iter().zip(answers).map(sighting).collect())
}

fn from_outside(glance: &Glance) -> Sighting {
    Sighting { obstacle: None, ..observed(glance) }
}

fn observed(glance: &Glance) -> Sighting {
    let former = glance.former();
    match glance.leader() {
        Ok(leader) => Sighting { leader, former, ..Sighting::default() },
        Err(abandoned) => Sighting { obstacle: Some(abandoned.to_string()), former, ..Sighting::default() },
    }
}

/// The keeper's release: whatever this candidate holds, which is dead.
pub async fn bequeath(server: &mut Server, scripts: &Scripts, key: &str, id: &str) -> Result<(), StoreError> {
    free(server, scripts, key, id, ("id", 0), LAST_NONCE).await
}

async fn free(
    server: &mut Server,
    scripts: &Scripts,
    key: &str,
    id: &str,
    (by, which): (&str, u64),
    nonce: u64,
) -> Result<(), StoreError> {
    let (which, nonce) = (which.to_string(), nonce.to_string());
    // Not ours, or not a record any more: there is nothing to be given back.
    server.run::<Vec<String>>(&scripts.release, key, &[id, by, &which, &nonce, key]).await.map(drop)
}

fn words(answer: &[String]) -> Vec<&str> {
    answer.iter().map(String::as_str).collect()
}

fn number(text: &str) -> Result<u64, StoreError> {
    text.parse().map_err(|_| nonsense())
}

fn lost(why: String) -> Renewal {
    Renewal::Lost { why }
}

fn nonsense() -> StoreError {
    StoreError::Unavailable("the answer of a script is not what it should be".to_owned())
}
