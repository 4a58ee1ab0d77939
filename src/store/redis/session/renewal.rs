//! The renewals of one candidacy, and the first one, which may be sent together with the take.

use std::rc::Rc;
use std::time::Duration;

use super::super::quorum::Quorum;
use super::super::server::RedisServer;
use super::super::stored_record::{basis, count, epoch};
use super::{
    FreeFields, HeldRecord, Session, as_strs, free, identity_fields, in_record, lost, number, unexpected_reply,
};
use crate::store::{Candidacy, Identity, RenewResult, StoreError};
use crate::text::escaped;
use elect_core::limits::believed_ttl;
use elect_core::takeover::{Credit, Write};
use elect_core::{Term, Time};
use elect_keeper::clock;

/// The answer to the renewal that was sent together with the take: nothing is made of it before a renewal is asked for.
pub(super) struct FirstRenewal {
    pub(super) answer: Vec<String>,
    pub(super) renewal: Renewal,
    /// The name and address that it has written.
    pub(super) identity: Identity,
}

/// How a renewal names the take that it renews.
#[derive(Debug, Clone, Copy)]
pub(super) enum TakeName {
    Term(Term),
    /// By its nonce: it is sent with it.
    Nonce(u64),
}

/// A renewal that was answered.
#[derive(Debug, Clone, Copy)]
pub(super) struct Renewal {
    pub(super) term: Term,
    pub(super) nonce: u64,
    pub(super) sent: Time,
    pub(super) received: Time,
    pub(super) confirmed: u64,
}

impl FirstRenewal {
    /// Whether it is the answer to a request to renew that comes now: as early as the answer to a request of its own would have
    /// come, and with the same name and address.
    fn answers(&self, now: Time, attempt_limit: Duration, identity: &Identity) -> bool {
        now.since(self.renewal.sent) < attempt_limit && self.identity == *identity
    }
}

impl Session {
    /// Renews, and verifies that the record is ours.
    pub async fn renew(&mut self, server: &mut RedisServer, candidacy: &Candidacy) -> Result<RenewResult, StoreError> {
        let first = self.first_renewal.take();
        // A leader would be told in vain, and so would one that rests when it has led. It leaves with the next script.
        server.subscriptions.try_to_leave();
        let (Some(term), Some(quorum)) = (self.term, self.quorum) else {
            return Ok(lost("nothing was won".to_owned()));
        };
        if let Some(first) = first.filter(|first| first.answers(clock::now(), self.attempt_limit, &candidacy.identity))
        {
            return self.renewed(server, &first.answer, &first.renewal, quorum, candidacy).await;
        }
        let scripts = Rc::clone(&self.scripts);
        let nonce = self.rule.nonce();
        let sent: Time = clock::now(); // T1
        let arguments = self.renewal(TakeName::Term(term), nonce, quorum, candidacy);
        let (answer, confirmed) = self.write(server, &scripts.renew, &arguments, quorum).await?;
        let renewal = Renewal { term, nonce, sent, received: clock::now(), confirmed };
        self.renewed(server, &answer, &renewal, quorum, candidacy).await
    }

    /// The arguments of a renewal.
    pub(super) fn renewal(&self, take: TakeName, nonce: u64, quorum: Quorum, candidacy: &Candidacy) -> [String; 13] {
        let [name, host, port] = identity_fields(&candidacy.identity);
        let [incarnation, settled_epoch] = in_record(self.rule.settled());
        let [grown, grown_required] = quorum.growth_in_record();
        let (term, take) = match take {
            TakeName::Term(term) => (term.to_string(), String::new()),
            TakeName::Nonce(nonce) => (String::new(), nonce.to_string()),
        };
        [
            self.id.clone(),
            term,
            nonce.to_string(),
            self.key.clone(),
            name,
            host,
            port,
            incarnation,
            settled_epoch,
            quorum.required_in_record(),
            grown,
            grown_required,
            take,
        ]
    }

    /// The result of a renewal.
    pub(super) async fn renewed(
        &mut self,
        server: &mut RedisServer,
        answer: &[String],
        renewal: &Renewal,
        mut quorum: Quorum,
        candidacy: &Candidacy,
    ) -> Result<RenewResult, StoreError> {
        let &Renewal { term, nonce, sent, received, confirmed } = renewal;
        match as_strs(answer)[..] {
            ["renewed", ttl, found, incarnation, at, replicas, all, _] => {
                let ttl = believed_ttl(number(ttl)?).min(candidacy.ttl);
                self.replicas = count(replicas).ok_or_else(unexpected_reply)?;
                // A growth that this write brings governs the next one.
                let governing = quorum.required;
                quorum.adopt(all.parse().ok());
                quorum.learn(confirmed, self.replicas);
                (self.quorum, self.all) = (Some(quorum), quorum.all);
                let at = epoch(at).ok_or_else(unexpected_reply)?;
                let write = Write {
                    sent,
                    received,
                    ttl,
                    nonce,
                    found: number(found)?,
                    is_confirmed: quorum.is_confirmed(confirmed, self.replicas),
                    basis: basis(incarnation.to_owned(), at, governing),
                };
                self.judge(server, term, confirmed, &write).await
            }
            ["lost", id, state, name] => Ok(lost(match (id, state) {
                // A candidate that has found none has written a vacant one since.
                ("", _) | (_, "vacant") => "the record is gone".to_owned(),
                (id, "held") if id != self.id => format!("{} leads", escaped(name)),
                (_, "held") => "it is of another term".to_owned(),
                _ => "it was released".to_owned(),
            })),
            ["resized", required] => {
                Ok(lost(format!("the record asks for {:?} replicas instead of {}", escaped(required), quorum.required)))
            }
            ["foreign", ..] => Ok(lost("the record was overwritten with something else".to_owned())),
            _ => Err(unexpected_reply()),
        }
    }

    /// The worth of a renewal that has reached the record.
    async fn judge(
        &mut self,
        server: &mut RedisServer,
        term: Term,
        confirmed: u64,
        write: &Write<String>,
    ) -> Result<RenewResult, StoreError> {
        let scripts = Rc::clone(&self.scripts);
        match self.rule.credit(write) {
            Credit::Counts => Ok(RenewResult::Credited { sent: write.sent, ttl: Some(write.ttl) }),
            Credit::Stale => Err(StoreError::Unavailable(format!(
                "{}: the nonce in {:?} is {}, and a renewal with {} changes nothing: another program has written to the record",
                server.address, self.key, write.found, write.nonce
            ))),
            Credit::Unconfirmed => {
                if let Some(quorum) = self.quorum {
                    self.confirm(server, confirmed, quorum)?;
                }
                Err(StoreError::Unavailable(format!(
                    "{}: the first write that enough replicas have confirmed is followed by another one before it counts",
                    server.address
                )))
            }
            Credit::GiveBack => {
                let nonce = self.rule.nonce();
                free(server, &scripts, &self.key, &self.id, HeldRecord::Term(term), FreeFields::of(nonce)).await?;
                self.rule.discard_outstanding();
                self.term = None;
                Ok(lost("the server or its replicas have changed since the take, which is given back".to_owned()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_that_came_with_the_take_is_one_for_as_long_as_an_attempt_lasts_and_under_its_name() {
        let limit = Duration::from_millis(500);
        let sent = Time::BOOT + Duration::from_secs(7);
        let identity = Identity { id: "i".to_owned(), name: "n".to_owned(), host: "h".to_owned(), port: Some(1) };
        let renewal = Renewal { term: 7, nonce: 2, sent, received: sent, confirmed: 0 };
        let first = FirstRenewal { answer: Vec::new(), renewal, identity: identity.clone() };
        assert!(first.answers(sent, limit, &identity));
        assert!(first.answers(sent + Duration::from_millis(499), limit, &identity));
        assert!(!first.answers(sent + limit, limit, &identity), "its time is up");
        assert!(!first.answers(sent, limit, &Identity { host: "proclaimed".to_owned(), ..identity.clone() }));
        assert!(!first.answers(sent, limit, &Identity { port: None, ..identity }));
    }
}
