//! The tiers that this machine has.

use std::path::Path;
use std::process::{Command, Stdio};

use super::harness::{alone, note, one_fork_at_a_time};
use crate::Containment;

/// Runs a test in a tier if the tier is available here; otherwise asserts that the tier is refused.
pub fn within(tier: Containment, body: impl FnOnce(&Path)) {
    if is_to_be_had(tier) {
        alone(body);
    } else {
        alone(|_| {
            let refused = tier.establish(false).expect_err("it is not to be had");
            note(&format!("figures: {refused}"));
        });
    }
}

/// Whether the tier is available, determined without the tested code.
fn is_to_be_had(tier: Containment) -> bool {
    let _forking = one_fork_at_a_time();
    let can =
        |script| Command::new("sh").args(["-c", script]).stderr(Stdio::null()).status().expect("a shell").success();
    match tier {
        Containment::Cgroup => can("
            set -e
            own=$(sed -n s/^0:://p /proc/self/cgroup)
            set -- $(sed -n 's/^[0-9]* [0-9]* [0-9:]* \\([^ ]*\\) \\([^ ]*\\) .* - cgroup2 .*/\\1 \\2/p' /proc/self/mountinfo)
            trial=$2/${own#\"$1\"}/trial-$$
            mkdir \"$trial\"
            sleep 100 & echo $! > \"$trial/cgroup.procs\" && moved=y
            test -e \"$trial/cgroup.kill\" && killable=y
            kill $!; wait $! || :
            rmdir \"$trial\"
            test \"$moved$killable\" = yy"),
        Containment::Pidns => can("unshare --pid --fork true"),
        Containment::Tree | Containment::Auto => true,
    }
}
