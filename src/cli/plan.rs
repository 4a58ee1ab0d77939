//! `elect plan`: the derived timings, computed and shown (T5).

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::fail;
use super::stdout::print;
use crate::config::{self, RunFlags};
use crate::exit::Exit;
use crate::store::url::StoreUrl;
use elect_core::{HumanDuration, KILL_ALLOWANCE, Time, Timing, TimingFlags, margin};

/// Flags of `elect plan`.
#[derive(Debug, Args)]
pub struct PlanFlags {
    /// The timings as a JSON object
    ///
    /// `{"ttl_ms", "renew_ms", "request_timeout_ms", "stop_by_ms", "kill_by_ms", "tolerated_outage_ms",
    /// "handover_ms": {"clean", "campaigner_killed", "host_lost"}}`
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    run: RunFlags,
}

pub fn plan(PlanFlags { json, run: flags }: &PlanFlags) -> ExitCode {
    if let Err(error) = config::is_believed(flags.ttl) {
        return fail(Exit::Usage, &error.to_string());
    }
    let asked = TimingFlags {
        ttl: flags.ttl,
        renew: flags.renew,
        request_timeout: flags.request_timeout,
        fence_grace: flags.fence_grace,
    };
    let timing = match Timing::validate(asked) {
        Ok(timing) => timing,
        Err(error) => return fail(Exit::Usage, &error.to_string()),
    };
    // A URL that is not understood says nothing about times.
    let store = StoreUrl::parse(&flags.store.url).ok();
    if let Some(Err(error)) = store.map(|store| config::check_shortest(&timing, &store)) {
        return fail(Exit::Usage, &error.to_string());
    }
    let is_observed = store.is_some_and(|store| store.kind().is_observed);
    let plan = TimingPlan::new(&timing, flags.stop_timeout, is_observed);
    let text = if *json { plan.to_json(&timing) } else { plan.table(&timing, flags.stop_timeout) };
    print(text, Exit::Success.into())
}

/// The timings that follow from others.
struct TimingPlan {
    ttl: Duration,
    /// After the sending of the last renewal that succeeded.
    stop: Duration,
    kill: Duration,
    outage: Duration,
    clean: Duration,
    campaigner_killed: Duration,
    host_lost: Duration,
    /// Whether candidates observe the record by their own clocks; otherwise the store ends the lease.
    is_observed: bool,
}

impl TimingPlan {
    fn new(timing: &Timing, stop_timeout: Duration, is_observed: bool) -> TimingPlan {
        let ttl = timing.ttl().unwrap_or_default();
        let lease = timing.lease(Time::BOOT);
        let (stop, kill) = (lease.stop_by.since(lease.sent), lease.kill_by.since(lease.sent));
        TimingPlan {
            ttl,
            stop,
            kill,
            outage: timing.longest_outage().unwrap_or_default(),
            clean: stop_timeout + KILL_ALLOWANCE,
            // The keeper stops the tree within the stop time-out or the deadline in force, whichever is first.
            campaigner_killed: stop_timeout.min(kill) + KILL_ALLOWANCE,
            host_lost: ttl + if is_observed { timing.renew() } else { Duration::ZERO } + Duration::from_secs(1),
            is_observed,
        }
    }

    fn table(&self, timing: &Timing, stop_timeout: Duration) -> String {
        let human = |duration| HumanDuration(duration).to_string();
        let (shortest, longest) = (timing.shortest_backoff(), timing.longest_backoff());
        let rows = [
            ("lease", human(self.ttl), "from the sending of each renewal"),
            ("renewal", human(timing.renew()), "from one to the next"),
            ("attempt", human(timing.request_timeout()), "the longest that a renewal may take"),
            ("backoff", format!("{} to {}", human(shortest), human(longest)), "after an attempt that failed"),
            ("SIGTERM", human(self.stop), "after the last success: the term is over"),
            ("fence grace", human(timing.fence_grace()), "from SIGTERM to SIGKILL"),
            ("SIGKILL", human(self.kill), "after it, by campaigner and keeper each"),
            ("margin", human(margin(self.ttl) + KILL_ALLOWANCE), "for the kill, and for clocks that differ"),
            ("outage", human(self.outage), "of the store that demotes no leader"),
        ];
        let stop = format!("{} to stop, for a command that ignores it", human(stop_timeout));
        let lost = if self.is_observed {
            "the lease, a look at the record, and a second"
        } else {
            "the lease, and the store's rounding"
        };
        let handovers = [
            ("clean stop", human(self.clean), stop.as_str()),
            ("campaigner killed", human(self.campaigner_killed), "the same, before the lease runs out"),
            ("host lost", human(self.host_lost), lost),
        ];
        let mut table = String::new();
        for (name, value, about) in rows {
            let _ = writeln!(table, "{name:<17} {value:>14}  {about}");
        }
        let _ = writeln!(table, "\nWorst hand-over (at once, if the command stops when it is asked to):");
        for (name, value, about) in handovers {
            let _ = writeln!(table, "{name:<17} {value:>14}  {about}");
        }
        let _ = writeln!(table, "\nfile: and always: grant no lease. Only the clean stop applies to them.");
        table
    }

    fn to_json(&self, timing: &Timing) -> String {
        #[derive(Serialize)]
        struct HandoverDocument {
            clean: u64,
            campaigner_killed: u64,
            host_lost: u64,
        }
        #[derive(Serialize)]
        #[expect(clippy::struct_field_names, reason = "the unit is part of each key of the object")]
        struct PlanDocument {
            ttl_ms: u64,
            renew_ms: u64,
            request_timeout_ms: u64,
            stop_by_ms: u64,
            kill_by_ms: u64,
            tolerated_outage_ms: u64,
            handover_ms: HandoverDocument,
        }
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let document = PlanDocument {
            ttl_ms: millis(self.ttl),
            renew_ms: millis(timing.renew()),
            request_timeout_ms: millis(timing.request_timeout()),
            stop_by_ms: millis(self.stop),
            kill_by_ms: millis(self.kill),
            tolerated_outage_ms: millis(self.outage),
            handover_ms: HandoverDocument {
                clean: millis(self.clean),
                campaigner_killed: millis(self.campaigner_killed),
                host_lost: millis(self.host_lost),
            },
        };
        serde_json::to_string(&document).expect("numbers become JSON") + "\n"
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let timing = Timing::validate(TimingFlags::default()).expect("defaults hold");
        let stop_timeout = Duration::from_secs(8);
        for (is_observed, host_lost) in [(false, "11s"), (true, "13s")] {
            let plan = TimingPlan::new(&timing, stop_timeout, is_observed);
            let table = plan.table(&timing, stop_timeout);
            for (name, value) in [("SIGTERM", "6.5s"), ("SIGKILL", "8.5s"), ("outage", "3s"), ("host lost", host_lost)]
            {
                let row = table.lines().find(|line| line.starts_with(name)).expect(name);
                assert!(row.contains(&format!(" {value} ")), "{row}");
            }
            assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        }
    }

    #[test]
    fn the_json_has_the_same_numbers() {
        let timing = Timing::validate(TimingFlags::default()).expect("defaults hold");
        let expected = concat!(
            r#"{"ttl_ms":10000,"renew_ms":2000,"request_timeout_ms":1000,"stop_by_ms":6500,"kill_by_ms":8500,"#,
            r#""tolerated_outage_ms":3000,"#,
            r#""handover_ms":{"clean":8500,"campaigner_killed":8500,"host_lost":11000}}"#,
            "\n"
        );
        assert_eq!(TimingPlan::new(&timing, Duration::from_secs(8), false).to_json(&timing), expected);
    }
}
