//! `elect plan`: the derived timings, computed and shown (T5).

use std::fmt::Write as _;
use std::io::{self, Write};
use std::process::ExitCode;
use std::time::Duration;

use super::fail;
use crate::config::{self, RunFlags};
use crate::exit::Exit;
use elect_core::{HumanDuration, KILL_ALLOWANCE, Time, Timing, TimingFlags, margin};

pub fn plan(flags: &RunFlags) -> ExitCode {
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
    // Into a closed pipe: its reader has ended.
    let _ = io::stdout().write_all(table(&timing, flags.stop_timeout).as_bytes());
    Exit::Success.into()
}

fn table(timing: &Timing, stop_timeout: Duration) -> String {
    let ttl = timing.ttl().unwrap_or_default();
    let lease = timing.lease(Time::BOOT);
    let (stop, kill) = (lease.stop_by.since(lease.sent), lease.kill_by.since(lease.sent));
    let (shortest, longest) = (timing.shortest_backoff(), timing.longest_backoff());
    let outage = timing.longest_outage().unwrap_or_default();
    // The keeper stops the tree within the stop time-out or the deadline in force, whichever is first.
    let killed = stop_timeout.min(kill);
    let rows = [
        ("lease", HumanDuration(ttl).to_string(), "granted by the store, counted from the sending of each renewal"),
        ("renewal", HumanDuration(timing.renew()).to_string(), "from one to the next"),
        ("attempt", HumanDuration(timing.request_timeout()).to_string(), "the longest that one may take"),
        (
            "backoff",
            format!("{} to {}", HumanDuration(shortest), HumanDuration(longest)),
            "after an attempt that failed",
        ),
        ("SIGTERM", HumanDuration(stop).to_string(), "after the last renewal that succeeded: the term is over"),
        ("fence grace", HumanDuration(timing.fence_grace()).to_string(), "from SIGTERM to SIGKILL"),
        ("SIGKILL", HumanDuration(kill).to_string(), "after it, by campaigner and keeper independently"),
        (
            "margin",
            HumanDuration(margin(ttl) + KILL_ALLOWANCE).to_string(),
            "for the kernel to kill, and for clocks of different rate",
        ),
        ("outage", HumanDuration(outage).to_string(), "of the store, at the worst moment, that demotes nobody"),
    ];
    let handovers = [
        ("clean stop", stop_timeout + KILL_ALLOWANCE, "the stop time-out, for a command that ignores the stop signal"),
        ("campaigner killed", killed + KILL_ALLOWANCE, "the same, within the deadline in force"),
        ("host lost", ttl + Duration::from_secs(1), "the lease, and the store's own rounding"),
    ];
    let mut table = String::new();
    for (name, value, about) in rows {
        let _ = writeln!(table, "{name:<18}{value:>16}  {about}");
    }
    let _ = writeln!(table, "\nworst hand-over (a command that stops when asked is replaced within milliseconds)");
    for (name, value, about) in handovers {
        let _ = writeln!(table, "{name:<18}{:>16}  {about}", HumanDuration(value).to_string());
    }
    let _ = writeln!(table, "\nThe stores file and always grant no lease: nothing but the clean stop applies to them.");
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_design() {
        let timing = Timing::validate(TimingFlags::default()).expect("defaults hold");
        let table = table(&timing, Duration::from_secs(8));
        for (name, value) in [("SIGTERM", "6.5s"), ("SIGKILL", "8.5s"), ("outage", "3s"), ("host lost", "11s")] {
            let row = table.lines().find(|line| line.starts_with(name)).expect(name);
            assert!(row.contains(&format!(" {value} ")), "{row}");
        }
        assert!(table.lines().all(|line| line.chars().count() <= 100), "{table}");
    }
}
