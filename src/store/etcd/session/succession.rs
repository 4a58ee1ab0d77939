//! Which candidate follows: a successor that the leader names, and a spare only after a delay.
//!
//! The queue of etcd is a fact: the oldest key leads, and candidates of other programs know no other rule. So the leader makes its
//! successor's key the oldest one of elect, by deleting the older ones together with its own, in one transaction. Their owners
//! find that out and queue again.

use etcd_client::{Client, Compare, CompareOp, GetOptions, KeyValue, PutOptions, SortOrder, SortTarget, Txn, TxnOp};
use tracing::warn;

use super::super::keys;
use super::super::layout::{ValueForm, is_candidate};
use super::{Session, Terms, classify};
use crate::store::{CampaignResult, Observation, ReserveResult, StoreError};
use crate::text::escaped;
use elect_core::limits::CANDIDATES_MAX;
use elect_core::takeover::Reservation;

/// The most keys that one hand-over deletes: etcd limits the operations of a transaction to 128.
const DELETED_MAX: usize = 100;

/// The state of the queue for a candidate that does not stand in it.
pub enum QueueView {
    /// It stands, or is to stand: it is the oldest, or the leader's named successor.
    MayStand,
    /// Another candidate stands.
    Taken(CampaignResult),
    /// No candidate stands; the last term was stored at this revision.
    Empty(i64),
}

/// A hand-over that is possible: the successor, and the keys that stand in its way.
#[derive(Debug, PartialEq, Eq)]
struct HandOver {
    successor: (Vec<u8>, i64),
    older: Vec<(Vec<u8>, i64)>,
}

/// Why a hand-over is not possible.
#[derive(Debug, PartialEq, Eq)]
enum NoHandOver {
    NotSeen,
    Impossible(String),
}

impl Session {
    /// Looks at the queue without standing in it.
    pub async fn look(&mut self, client: &mut Client, terms: &mut Terms) -> Result<QueueView, StoreError> {
        let [oldest, last_term] = self.look_first(client, terms).await?;
        let Some(oldest) = oldest else {
            return Ok(QueueView::Empty(last_term.map_or(0, |stored| stored.mod_revision())));
        };
        if Some(oldest.create_revision()) == self.created || self.value.is_named_by(&self.election, &oldest) {
            return Ok(QueueView::MayStand);
        }
        let observation = Observation { leader: self.leader.clone(), ..Observation::default() };
        Ok(QueueView::Taken(CampaignResult::Waiting { observation, again: None, decided: true }))
    }

    /// Names the successor in our value, or no one, and looks whether it stands in the queue.
    pub async fn reserve(
        &mut self,
        client: &mut Client,
        reservation: Option<&Reservation<String>>,
    ) -> Result<ReserveResult, StoreError> {
        self.hand_over_to = None;
        let (Some(created), Some(win)) = (self.created, self.win.filter(|win| win.verified)) else {
            return Ok(ReserveResult::Impossible("it has not verified yet that it leads: try again".to_owned()));
        };
        if self.form == ValueForm::Name {
            return Ok(match reservation {
                Some(_) => ReserveResult::Impossible(
                    "with ?value=name and ?layout=holster a candidate's key holds its name alone, and cannot name a successor: use \
                     resign without --to, after which the oldest candidate leads"
                        .to_owned(),
                ),
                None => ReserveResult::Reserved,
            });
        }
        let successor = reservation.map(|reservation| reservation.successor.clone());
        if self.value.successor != successor {
            (self.value.successor, self.value_written) = (successor, false);
            let hung = PutOptions::new().with_lease(self.lease);
            let put = TxnOp::put(self.key.as_str(), self.leading_value(win), Some(hung));
            let answer = client.txn(Txn::new().when(self.is_ours(created)).and_then([put])).await.map_err(classify)?;
            self.value_written = answer.succeeded();
        }
        let Some(Reservation { successor, .. }) = reservation else { return Ok(ReserveResult::Reserved) };
        Ok(match hand_over(&self.election, &self.queue(client).await?, created, successor) {
            Ok(hand_over) => {
                self.hand_over_to = Some(hand_over.successor);
                ReserveResult::Reserved
            }
            Err(NoHandOver::NotSeen) => ReserveResult::NotSeen,
            Err(NoHandOver::Impossible(why)) => ReserveResult::Impossible(why),
        })
    }

    /// Whether the release has to name a successor.
    pub fn hands_over(&self) -> bool {
        self.created.is_some() && self.hand_over_to.is_some()
    }

    /// With an empty tree: makes the successor's key the oldest one. If that is refused, a plain release follows.
    pub async fn hand_over(&mut self, client: &mut Client) -> Result<(), StoreError> {
        let (Some(created), Some((key, since))) = (self.created, self.hand_over_to.take()) else { return Ok(()) };
        let queue = self.queue(client).await?;
        let at = queue.iter().position(|pair| pair.key() == key && pair.create_revision() == since);
        let Some(older) = at
            .map(|at| older_of_elect(&self.election, &queue[..at], created))
            .filter(|older| older.len() <= DELETED_MAX)
        else {
            warn!("the successor has left the queue, or too many stand before it: the oldest candidate follows");
            return Ok(());
        };
        let is_same = |key: &[u8], since: i64| Compare::create_revision(key, CompareOp::Equal, since);
        let compares = [is_same(self.key.as_bytes(), created), is_same(&key, since)];
        let deletions = older.into_iter().map(|(key, _)| key).chain([self.key.clone().into_bytes()]);
        let deletions: Vec<TxnOp> = deletions.map(|key| TxnOp::delete(key, None)).collect();
        let answer = client.txn(Txn::new().when(compares).and_then(deletions)).await.map_err(classify)?;
        if !answer.succeeded() {
            warn!("the successor has left the queue: the oldest candidate follows");
        }
        Ok(())
    }

    /// The keys that count in the election, the oldest first. Not all of them need be its candidates'.
    async fn queue(&self, client: &mut Client) -> Result<Vec<KeyValue>, StoreError> {
        let limit = i64::try_from(CANDIDATES_MAX).unwrap_or(i64::MAX);
        let options =
            GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend).with_limit(limit);
        let mut answer = client.get(self.election.as_str(), Some(options)).await.map_err(classify)?;
        Ok(answer.take_kvs())
    }
}

/// The hand-over from the leader, whose key has that create revision, to the candidate with that id or, if there is none, that name.
///
/// Only a candidate of this election can be the successor, and only its candidates' keys are deleted: below `jobs/` there are also the
/// keys of the election `jobs/nightly`, whose leader must not be stopped.
fn hand_over(election: &str, queue: &[KeyValue], leader: i64, successor: &str) -> Result<HandOver, NoHandOver> {
    let others: Vec<(usize, (String, String))> = queue
        .iter()
        .enumerate()
        .filter(|(_, pair)| pair.create_revision() != leader && is_candidate(election, pair.key(), pair.lease()))
        .map(|(at, pair)| (at, keys::waiting(election, pair)))
        .collect();
    let with_id = others.iter().find(|(_, (id, _))| id == successor);
    let mut named =
        with_id.into_iter().chain(others.iter().filter(|(_, (_, name))| with_id.is_none() && name == successor));
    let Some((at, _)) = named.next() else { return Err(NoHandOver::NotSeen) };
    if named.next().is_some() {
        let ids: Vec<String> = others
            .iter()
            .filter(|(_, (_, name))| name == successor)
            .map(|(_, (id, _))| escaped(id).into_owned())
            .collect();
        let (name, ids) = (escaped(successor), ids.join(", "));
        return Err(NoHandOver::Impossible(format!("several candidates are called {name}: name one by its id: {ids}")));
    }
    let before = &queue[..*at];
    let is_foreign = |pair: &&KeyValue| pair.create_revision() != leader && !keys::is_of_elect(election, pair);
    if let Some(foreign) = before.iter().find(is_foreign) {
        let whose = if is_candidate(election, foreign.key(), foreign.lease()) { "program" } else { "election" };
        let (_, name) = keys::waiting(election, foreign);
        let (name, successor) = (escaped(&name), escaped(successor));
        return Err(NoHandOver::Impossible(format!(
            "{name} of another {whose} waits before {successor}, and would lead: nothing was done"
        )));
    }
    let older = older_of_elect(election, before, leader);
    if older.len() > DELETED_MAX {
        let (count, successor) = (older.len(), escaped(successor));
        return Err(NoHandOver::Impossible(format!(
            "{count} candidates wait before {successor}, and at most {DELETED_MAX} can be sent back: nothing was done"
        )));
    }
    let successor = &queue[*at];
    Ok(HandOver { successor: (successor.key().to_vec(), successor.create_revision()), older })
}

/// Those keys of elect before the successor that are not the leader's own.
fn older_of_elect(election: &str, before: &[KeyValue], leader: i64) -> Vec<(Vec<u8>, i64)> {
    let is_in_the_way = |pair: &&KeyValue| pair.create_revision() != leader && keys::is_of_elect(election, pair);
    before.iter().filter(is_in_the_way).map(|pair| (pair.key().to_vec(), pair.create_revision())).collect()
}
