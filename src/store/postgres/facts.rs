//! The facts about a PostgreSQL that a person should know.

use super::server::{PostgresServer, value};
use super::settings::Settings;
use super::statements::LifeSource;
use crate::store::connection::errors::excerpt;
use crate::store::{Finding, StoreError};

const QUESTION: &str = "SELECT current_setting('server_version') AS version, \
     current_setting('synchronous_standby_names') AS standbys, \
     (SELECT count(*) FROM pg_stat_replication) AS replicas";

pub async fn facts(server: &mut PostgresServer, settings: &Settings) -> Result<Vec<Finding>, StoreError> {
    let row = server.ask_one(QUESTION, &[]).await?;
    let version: String = value(&row, "version")?;
    let mut facts = vec![Finding::ok("version", excerpt(&version))];
    let (standbys, replicas): (String, i64) = (value(&row, "standbys")?, value(&row, "replicas")?);
    facts.push(replication(&standbys, replicas, settings.is_synchronous_required));
    facts.push(durability(server.is_durable));
    facts.push(timeline(server.life_source));
    Ok(facts)
}

fn replication(standbys: &str, replicas: i64, is_required: bool) -> Finding {
    const NAME: &str = "replication";
    if !standbys.is_empty() {
        return Finding::ok(NAME, format!("synchronous_standby_names: {}", excerpt(standbys)));
    }
    if is_required {
        let advice = "set synchronous_standby_names, or leave ?synchronous=required out";
        return Finding::fail(NAME, "no synchronous standby is configured, so that nobody can lead", advice);
    }
    if replicas > 0 {
        let detail = format!("{replicas} replicas, none of them synchronous: a failover may forget who leads");
        return Finding::warn(NAME, detail, "set synchronous_standby_names, and use ?synchronous=required");
    }
    Finding::ok(NAME, "none: if this server is lost, nobody leads until it is back")
}

fn durability(is_durable: bool) -> Finding {
    const NAME: &str = "durability";
    if is_durable {
        return Finding::ok(NAME, "fsync and full_page_writes are on");
    }
    let detail = "fsync or full_page_writes is off: a crash may forget who leads, and every restart costs a ttl";
    Finding::warn(NAME, detail, "set both to on")
}

fn timeline(source: LifeSource) -> Finding {
    const NAME: &str = "timeline";
    match source {
        LifeSource::Timeline => Finding::ok(NAME, "told, so that a promotion is noticed"),
        LifeSource::Start => {
            let detail = "not told, as by an Aurora: each restart of the server costs a ttl";
            Finding::warn(NAME, detail, "give this user EXECUTE on pg_current_wal_insert_lsn, or accept it")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FindingResult;

    #[test]
    fn replicas_that_confirm_nothing_are_a_warning_and_a_missing_required_one_a_failure() {
        for (standbys, replicas, is_required, result) in [
            ("", 0, false, FindingResult::Ok),
            ("ANY 1 (*)", 2, true, FindingResult::Ok),
            ("", 1, false, FindingResult::Warn),
            ("", 1, true, FindingResult::Fail),
        ] {
            assert_eq!(replication(standbys, replicas, is_required).result, result, "{standbys} {replicas}");
        }
        assert_eq!(durability(false).result, FindingResult::Warn);
        assert_eq!(timeline(LifeSource::Start).result, FindingResult::Warn);
    }
}
