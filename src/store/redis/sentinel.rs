//! The primary as the Sentinels know it.
//!
//! All of them are asked at once. The answer with the highest configuration epoch comes first: each failover that a majority
//! agreed on raises it, so that a Sentinel which was cut off names the old primary with a lower one. An epoch is a claim like any
//! other: an answer whose server turns out not to be a working primary stays behind all others for a renewal interval, or until
//! it changes. No answer is ever discarded, because there may be no better one.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use redis::{FromRedisValue, RedisError, Value};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};
use tracing::debug;
use url::Host;

use super::connection::open;
use super::server::login;
use super::settings::{Place, Settings};
use crate::host_port::ServerAddress;
use crate::store::StoreError;
use crate::store::connection::setup::Accepted;
use elect_core::Time;

/// The longest host that a Sentinel may name: that of a DNS name.
const HOST_BYTES_MAX: usize = 253;

/// One Sentinel's answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SentinelReply {
    /// The primary.
    pub server: ServerAddress,
    /// 0 if the Sentinel does not tell it.
    pub epoch: u64,
}

/// The answers that were of no use, and when that was seen.
#[derive(Debug, Default)]
pub struct Setbacks(HashMap<SentinelReply, Time>);

impl Setbacks {
    /// The answers, each once, in the order in which their servers are tried.
    pub fn order(&mut self, now: Time, interval: Duration, answers: &[SentinelReply]) -> Vec<SentinelReply> {
        // An answer that no Sentinel gives any more has changed.
        self.0.retain(|answer, &mut since| now.since(since) < interval && answers.contains(answer));
        let votes = |answer: &SentinelReply| answers.iter().filter(|other| *other == answer).count();
        let mut order: Vec<SentinelReply> = Vec::new();
        for answer in answers {
            if !order.contains(answer) {
                order.push(answer.clone());
            }
        }
        // Stable: at last, the order in the URL decides.
        order.sort_by_key(|answer| (self.0.get(answer).copied(), Reverse(answer.epoch), Reverse(votes(answer))));
        order
    }

    /// The server of this answer is about to be tried. Noted before, because an attempt that runs out of time is dropped.
    pub fn begin(&mut self, answer: &SentinelReply, now: Time) {
        self.0.insert(answer.clone(), now);
    }

    /// It is a working primary.
    pub fn succeed(&mut self, answer: &SentinelReply) {
        self.0.remove(answer);
    }
}

/// Asks all Sentinels at once, and returns when all have answered, or at `soon` if one of them has, or at `deadline`.
///
/// # Errors
///
/// None has answered in time with an address. If asking again may help with one of them, so the error says.
pub async fn ask_all(
    settings: &Settings,
    sentinels: &[ServerAddress],
    primary: &str,
    with_user: bool,
    soon: Instant,
    deadline: Instant,
) -> Result<Vec<SentinelReply>, StoreError> {
    let mut questions = JoinSet::new();
    for (number, sentinel) in sentinels.iter().enumerate() {
        let (settings, sentinel, primary) = (settings.clone(), sentinel.clone(), primary.to_owned());
        questions.spawn(async move { (number, ask(&settings, &sentinel, &primary, with_user).await) });
    }
    let mut answers = Vec::new();
    let mut failure = None;
    loop {
        let limit = if answers.is_empty() { deadline } else { soon };
        let Ok(Some(asked)) = timeout_at(limit, questions.join_next()).await else { break };
        match asked {
            Ok((number, Ok(answer))) => answers.push((number, answer)),
            Ok((number, Err(error))) => {
                debug!(sentinel = %sentinels[number], "redis: {error}");
                if !matches!(failure, Some(StoreError::Unavailable(_))) {
                    failure = Some(error);
                }
            }
            // A task that panicked has reported it.
            Err(_) => {}
        }
    }
    if answers.is_empty() {
        return Err(match failure {
            // One that has not answered yet may know better.
            Some(error) if questions.is_empty() || matches!(error, StoreError::Unavailable(_)) => error,
            Some(_) | None => StoreError::Unavailable(format!(
                "{} did not answer in time",
                if sentinels.len() == 1 {
                    format!("the Sentinel {}", sentinels[0])
                } else {
                    "the Sentinels".to_owned()
                }
            )),
        });
    }
    answers.sort_by_key(|(number, _)| *number);
    Ok(answers.into_iter().map(|(_, answer)| answer).collect())
}

async fn ask(
    settings: &Settings,
    sentinel: &ServerAddress,
    primary: &str,
    with_user: bool,
) -> Result<SentinelReply, StoreError> {
    let who = format!("the Sentinel {sentinel}");
    let (place, login, ear) = (Place::Address(sentinel.clone()), login(settings, with_user), Arc::default());
    let mut connection = open(settings, &place, who.clone(), login, &ear, &Accepted::default()).await?;
    let mut questions = redis::Pipeline::new();
    questions.cmd("SENTINEL").arg("get-master-addr-by-name").arg(primary);
    questions.cmd("SENTINEL").arg("master").arg(primary);
    let answers = connection.client.send_packed_commands(&questions, 0, 2).await;
    let failed = |error: RedisError| match connection.classify(&error).error {
        StoreError::Refused(message) if message.contains("lacks the command SENTINEL") => StoreError::Refused(format!(
            "{sentinel} is a Redis and no Sentinel: write --store redis://HOST:PORT/DB, or the address of a Sentinel"
        )),
        other @ (StoreError::Refused(_)
        | StoreError::Unavailable(_)
        | StoreError::Connecting(_)
        | StoreError::Obstacle(_)
        | StoreError::Misused(_)) => other,
    };
    let answers = answers.map_err(failed)?;
    let mut answers = answers.into_iter();
    let known: Option<(String, u16)> = match answers.next() {
        Some(Value::ServerError(error)) => return Err(failed(error.into())),
        Some(value) => redis::from_redis_value(value).map_err(|error| failed(error.into()))?,
        None => None,
    };
    let Some((host, port)) = known else {
        return Err(StoreError::Refused(format!(
            "{who} knows no primary named {primary:?}: give the name that SENTINEL masters lists, in --store redis+sentinel://HOST:PORT/NAME"
        )));
    };
    let server = address(&host, port)
        .ok_or_else(|| StoreError::Unavailable(format!("{who} names a primary whose address cannot be used")))?;
    // Sentinels may forbid the second question to a user, or not know it; then the first one counts.
    let epoch = answers.next().and_then(|details| epoch(&details)).unwrap_or(0);
    Ok(SentinelReply { server, epoch })
}

/// An address from outside: a host name or an IP address, and nothing else.
fn address(host: &str, port: u16) -> Option<ServerAddress> {
    if host.len() > HOST_BYTES_MAX || port == 0 {
        return None;
    }
    let bracketed = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let host = match Host::parse(&bracketed).ok()? {
        Host::Domain(name) => name,
        Host::Ipv4(address) => address.to_string(),
        Host::Ipv6(address) => address.to_string(),
    };
    Some(ServerAddress { host, port })
}

fn epoch(details: &Value) -> Option<u64> {
    let fields = HashMap::<String, String>::from_redis_value_ref(details).ok()?;
    fields.get("config-epoch")?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(2);

    fn answer(host: &str, epoch: u64) -> SentinelReply {
        SentinelReply { server: ServerAddress { host: host.to_owned(), port: 6379 }, epoch }
    }

    fn at(millis: u64) -> Time {
        Time::BOOT + Duration::from_millis(millis)
    }

    fn hosts(order: &[SentinelReply]) -> Vec<&str> {
        order.iter().map(|answer| answer.server.host.as_str()).collect()
    }

    #[test]
    fn the_highest_epoch_comes_first_then_the_most_votes_then_the_url() {
        let answers = [answer("old", 3), answer("rare", 4), answer("new", 4), answer("new", 4), answer("none", 0)];
        let order = Setbacks::default().order(at(0), INTERVAL, &answers);
        assert_eq!(hosts(&order), ["new", "rare", "old", "none"]);
        let tie = [answer("b", 1), answer("a", 1)];
        assert_eq!(hosts(&Setbacks::default().order(at(0), INTERVAL, &tie)), ["b", "a"]);
    }

    #[test]
    fn an_answer_of_no_use_is_last_for_an_interval_or_until_it_changes() {
        let answers = [answer("hostile", u64::MAX), answer("good", 2)];
        let mut setbacks = Setbacks::default();
        assert_eq!(hosts(&setbacks.order(at(0), INTERVAL, &answers)), ["hostile", "good"]);
        setbacks.begin(&answers[0], at(0));
        assert_eq!(hosts(&setbacks.order(at(1999), INTERVAL, &answers)), ["good", "hostile"]);
        assert_eq!(hosts(&setbacks.order(at(2000), INTERVAL, &answers)), ["hostile", "good"]);
        setbacks.begin(&answers[0], at(2000));
        let changed = [answer("hostile", 7), answer("good", 2)];
        assert_eq!(hosts(&setbacks.order(at(2001), INTERVAL, &changed)), ["hostile", "good"]);
        setbacks.begin(&changed[0], at(2001));
        setbacks.succeed(&changed[0]);
        assert_eq!(hosts(&setbacks.order(at(2002), INTERVAL, &changed)), ["hostile", "good"]);
    }

    #[test]
    fn with_nothing_else_an_answer_of_no_use_is_tried_again_the_one_that_failed_first_first() {
        let answers = [answer("a", 2), answer("b", 1)];
        let mut setbacks = Setbacks::default();
        setbacks.begin(&answers[0], at(0));
        assert_eq!(hosts(&setbacks.order(at(1), INTERVAL, &answers[..1])), ["a"]);
        setbacks.begin(&answers[0], at(0));
        setbacks.begin(&answers[1], at(500));
        assert_eq!(hosts(&setbacks.order(at(501), INTERVAL, &answers)), ["a", "b"]);
        setbacks.begin(&answers[0], at(1000));
        assert_eq!(hosts(&setbacks.order(at(1001), INTERVAL, &answers)), ["b", "a"]);
    }

    #[test]
    fn what_is_remembered_is_no_more_than_what_was_answered() {
        let mut setbacks = Setbacks::default();
        for epoch in 0..1000 {
            let answers = [answer("hostile", epoch)];
            for answer in setbacks.order(at(epoch), INTERVAL, &answers) {
                setbacks.begin(&answer, at(epoch));
            }
            assert_eq!(setbacks.0.len(), 1);
        }
    }

    #[test]
    fn only_hosts_and_ip_addresses_are_addresses() {
        for (host, read) in [("10.0.0.1", "10.0.0.1"), ("fe80::1", "fe80::1"), ("Redis-1.example", "redis-1.example")] {
            assert_eq!(address(host, 1).expect(host).host, read);
        }
        let long = "a".repeat(HOST_BYTES_MAX + 1);
        for host in ["", "a b", "h\r\nX", "\u{1b}[2J", "user@host", "h/p", "[::1]", "::1]:5", &long] {
            assert_eq!(address(host, 1), None, "{host:?}");
        }
        assert_eq!(address("h", 0), None);
    }
}
