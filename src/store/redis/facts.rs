//! The facts about a Redis that a person should know, from its answer to `INFO`.

use super::quorum::Replicas;
use super::server::info_field;
use crate::store::Finding;
use crate::store::connection::errors::excerpt;

/// Of the memory that it may use, in percent: beyond that writes may soon be refused.
const MEMORY_PERCENT_MAX: u64 = 90;

pub fn facts(info: &str, option: Replicas) -> Vec<Finding> {
    let version = excerpt(info_field(info, "redis_version"));
    vec![Finding::ok("version", version), replicas(info, option), eviction(info), persistence(info)]
}

fn number(info: &str, name: &str) -> u64 {
    info_field(info, name).parse().unwrap_or_default()
}

fn replicas(info: &str, option: Replicas) -> Finding {
    const NAME: &str = "replicas";
    let attached = number(info, "connected_slaves");
    let required = option.of(attached);
    if attached == 0 && required == 0 {
        return Finding::ok(NAME, "none: if this server is lost, nobody leads until it is back");
    }
    let detail = format!("{attached} attached, {required} confirm each write (?replicas={option})");
    if required > attached {
        return Finding::fail(NAME, detail, "attach the replicas, or ask for fewer with ?replicas=N");
    }
    if required < attached.div_ceil(2) {
        let advice = format!("a failover may forget who leads: ?replicas={}", attached.div_ceil(2));
        return Finding::warn(NAME, detail, advice);
    }
    Finding::ok(NAME, detail)
}

/// A server that may evict any key was refused when it was connected to.
fn eviction(info: &str) -> Finding {
    const NAME: &str = "eviction";
    let policy = excerpt(info_field(info, "maxmemory_policy"));
    let (used, most) = (number(info, "used_memory"), number(info, "maxmemory"));
    if most > 0 && used.saturating_mul(100) > most.saturating_mul(MEMORY_PERCENT_MAX) {
        let detail = format!("{policy}, and more than {MEMORY_PERCENT_MAX} % of maxmemory is used");
        return Finding::warn(NAME, detail, "raise maxmemory: a leader that cannot write is stopped");
    }
    Finding::ok(NAME, format!("{policy}: records are not evicted"))
}

fn persistence(info: &str) -> Finding {
    const NAME: &str = "persistence";
    if info_field(info, "aof_enabled") == "1" {
        return Finding::ok(NAME, "appendonly");
    }
    Finding::ok(NAME, "no appendonly: after a restart a candidate waits for a ttl")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::FindingResult;

    const INFO: &str = "# Server\r\nredis_version:7.0.15\r\nconnected_slaves:2\r\nmaxmemory:1000\r\nused_memory:500\r\n\
        maxmemory_policy:noeviction\r\naof_enabled:1\r\n";

    fn results(info: &str, option: Replicas) -> Vec<FindingResult> {
        facts(info, option).into_iter().map(|fact| fact.result).collect()
    }

    #[test]
    fn a_server_in_order_has_no_warning() {
        for option in [Replicas::All, Replicas::Majority, Replicas::Number(2)] {
            assert_eq!(results(INFO, option), [FindingResult::Ok; 4], "{option}");
        }
        assert_eq!(results(&INFO.replace("slaves:2", "slaves:0"), Replicas::All), [FindingResult::Ok; 4]);
    }

    #[test]
    fn too_few_replicas_and_a_full_memory_are_reported() {
        assert_eq!(results(INFO, Replicas::Number(3))[1], FindingResult::Fail);
        assert_eq!(results(INFO, Replicas::Number(0))[1], FindingResult::Warn);
        assert_eq!(results(&INFO.replace("used_memory:500", "used_memory:950"), Replicas::All)[2], FindingResult::Warn);
    }
}
