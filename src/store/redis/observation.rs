//! Observations of records: the answers of the script that reads them.

use std::time::Duration;

use redis::Value;

use super::server::RedisServer;
use super::session::{LuaScripts, number, unexpected_reply};
use super::stored_record::{Snapshot, StoredRecord, count, epoch, foreign, foreign_lock};
use crate::store::{Observation, StoreError};
use crate::text::escaped;
use elect_core::limits::{NAME_BYTES_MAX, RECORD_BYTES_MAX, cut};

async fn look(server: &mut RedisServer, scripts: &LuaScripts, key: &str) -> Result<Snapshot, StoreError> {
    read(key, server.run(&scripts.look, key, &[]).await?)
}

/// The snapshot of a key that a script returned.
pub fn read(key: &str, answer: Vec<Value>) -> Result<Snapshot, StoreError> {
    let bytes = |value: Value| redis::from_redis_value::<Vec<u8>>(value).map_err(|_| unexpected_reply());
    let text = |value: Value| Ok(String::from_utf8_lossy(&bytes(value)?).into_owned());
    let mut parts = answer.into_iter();
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(incarnation), Some(now), Some(at), Some(replicas), Some(fields)) => {
            // elect writes nothing but text.
            let fields = redis::from_redis_value(fields).map_err(|_| StoreError::Obstacle(foreign(key)))?;
            Ok(Snapshot {
                incarnation: text(incarnation)?,
                now: number(&text(now)?)?,
                epoch: epoch(&text(at)?).ok_or_else(unexpected_reply)?,
                replicas: count(&text(replicas)?).ok_or_else(unexpected_reply)?,
                stored: StoredRecord::read(key, &fields)?,
            })
        }
        (Some(_), Some(name), None, None, None) => {
            let name = cut(text(name)?, NAME_BYTES_MAX);
            Err(StoreError::Obstacle(format!(
                "the record of {:?} in {key:?} has more than {RECORD_BYTES_MAX} bytes or 256 fields: delete the key",
                escaped(&name)
            )))
        }
        (Some(_), Some(holder), Some(left), None, None) => {
            let left = text(left)?.parse().map_err(|_| unexpected_reply())?;
            Err(StoreError::Obstacle(foreign_lock(key, &text(holder)?, Duration::from_millis(left))))
        }
        _ => Err(StoreError::Obstacle(foreign(key))),
    }
}

/// The observation for observers, to whom an abandoned record is no leader.
pub async fn observe(server: &mut RedisServer, scripts: &LuaScripts, key: &str) -> Result<Observation, StoreError> {
    Ok(from_outside(&look(server, scripts, key).await?))
}

/// The same of many keys; `None` for one without a record.
pub async fn observe_all(
    server: &mut RedisServer,
    scripts: &LuaScripts,
    keys: &[String],
) -> Result<Vec<Result<Option<Observation>, StoreError>>, StoreError> {
    let answers = server.run_on_each(&scripts.look, keys).await?;
    let observation = |(key, answer): (&String, Result<_, _>)| {
        let snapshot = read(key, answer?)?;
        Ok(snapshot.stored.is_some().then(|| from_outside(&snapshot)))
    };
    Ok(keys.iter().zip(answers).map(observation).collect())
}

fn from_outside(snapshot: &Snapshot) -> Observation {
    Observation { obstacle: None, ..observed(snapshot) }
}

pub fn observed(snapshot: &Snapshot) -> Observation {
    let previous_term = snapshot.previous_term();
    match snapshot.leader() {
        Ok(leader) => {
            let free_since = snapshot.stored.as_ref().map(|stored| stored.renewed).filter(|_| leader.is_none());
            Observation { leader, previous_term, free_since, ..Observation::default() }
        }
        Err(abandoned) => {
            Observation { obstacle: Some(abandoned.to_string()), previous_term, ..Observation::default() }
        }
    }
}
