//! The tiers of containment, end to end: the faults of a hand-over, the storms, and what each tier leaves.
//!
//! Where a tier is not available, the test asserts instead that elect refuses it by name.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::containment_support::{is_to_be_had, leaves, own_cgroup, tiers};
use crate::harness::executables;
use crate::harness::faults::{self, LeaderFault};
use crate::harness::journal::median;
use crate::harness::timing_verdict::{assert_in_time, retry_if_machine_slow};
use crate::harness::wait::throughout;
use crate::harness::{
    CandidateProcess, ElectCmd, HandoverRuns, Measurements, Sandbox, Witness, eventually, few, millis, processes, runs,
    until, wait,
};

// ---- the faults of a hand-over, in each tier

fn strikes_in_each(fault: &LeaderFault) {
    for tier in tiers() {
        strikes(fault, tier);
    }
}

fn strikes(fault: &LeaderFault, tier: &str) -> Measurements {
    fault.run(HandoverRuns::of(few()).flag("--containment", tier), &format!("{tier}: "))
}

#[test]
fn a_leader_that_is_asked_to_stop_hands_over_in_each_tier() {
    strikes_in_each(&faults::STOPPED);
}

#[test]
fn a_killed_campaigner_hands_over_in_each_tier() {
    strikes_in_each(&faults::CAMPAIGNER_KILLED);
}

#[test]
fn a_killed_keeper_hands_over_in_each_tier() {
    strikes_in_each(&faults::KEEPER_KILLED);
}

#[test]
fn a_stopped_keeper_is_found_silent_in_each_tier() {
    // Ten seconds in each.
    std::thread::scope(|scope| {
        for tier in tiers() {
            scope.spawn(move || strikes(&faults::KEEPER_FROZEN_THEN_STOPPED, tier));
        }
    });
}

#[test]
fn a_stubborn_tree_is_killed_in_each_tier() {
    strikes_in_each(&faults::STUBBORN_STOPPED);
}

#[test]
fn a_killed_campaigner_hands_over_although_its_tree_is_stubborn_in_each_tier() {
    strikes_in_each(&faults::STUBBORN_CAMPAIGNER_KILLED);
}

#[test]
fn both_killed_at_once_hand_over_in_each_tier() {
    strikes_in_each(&faults::BOTH_KILLED);
}

#[test]
fn with_a_namespace_both_killed_at_once_leave_no_survivor() {
    if is_to_be_had("pidns") {
        strikes(&faults::BOTH_KILLED_WITH_A_DAEMON, "pidns");
    }
}

// ---- storms

/// Forks, forks twice and makes sessions as fast as it can, up to a number that a machine survives.
const STORM: &str = r#"
    trap '' TERM HUP INT
    export STORM='
        trap "" TERM HUP INT
        while n=$(ls -U "$PLACE/tokens" 2>/dev/null | head -n 1) && [ -n "$n" ]; do
            rmdir "$PLACE/tokens/$n" 2>/dev/null || continue
            case $n in
                *0|*3|*6) sh -c "$STORM" & ;;
                *1|*4|*7) setsid sh -c "$STORM" & ;;
                *) setsid --fork sh -c "$STORM" ;;
            esac
        done
        sleep 600'
    eval "$STORM"
"#;

#[test]
fn a_fork_storm_is_over_within_the_kill_allowance_in_each_tier() {
    // K of DESIGN.md section 4.
    let allowance = Duration::from_millis(500);
    for tier in tiers() {
        let storm = |limit: Duration| storm_is_over(tier, limit);
        retry_if_machine_slow(&format!("{tier}: fork storm"), allowance, storm);
    }
}

/// Storms in this tier, each of which ends within the limit.
fn storm_is_over(tier: &str, limit: Duration) {
    let mut measurements = Measurements::default();
    for _ in 0..runs() {
        let sandbox = Sandbox::new();
        let tokens = sandbox.path().join("tokens");
        fs::create_dir(&tokens).expect("made");
        for number in 0..250 {
            fs::create_dir(tokens.join(number.to_string())).expect("made");
        }
        let mut leader = ElectCmd::new(&sandbox)
            .flag("--containment", tier)
            .flag("--stop-timeout", "1h")
            .variable("PLACE", &sandbox.path().display().to_string())
            .shell(STORM)
            .start();
        until("it is in full swing", || leader.tree().len() >= 50);
        leader.signal(Signal::SIGTERM);
        leader.wait_for_log("asked to stop");
        // A second one kills at once.
        let struck = wait::now();
        leader.signal(Signal::SIGTERM);
        leader.ends_with(137);
        measurements.endings.push(wait::since(struck));
        sandbox.is_left_empty();
    }
    measurements.print(&format!("{tier}: fork storm, from the second SIGTERM to the end of elect"));
    let in_time = measurements.endings.iter().all(|&time| time <= limit);
    assert_in_time(in_time, || format!("{tier}: {measurements}"));
}

// ---- what elect says, and what it leaves

#[test]
fn the_tier_is_said_in_the_first_line() {
    let sandbox = Sandbox::new();
    let best = if is_to_be_had("cgroup") { "cgroup" } else { "tree" };
    for (asked, had) in tiers().into_iter().map(|tier| (tier, tier)).chain([("auto", best)]) {
        let ended = ElectCmd::new(&sandbox).flag("--containment", asked).command(["true"]).run();
        let first = ended.stderr.lines().next().expect("a line");
        assert!(first.ends_with(&format!(", {had}")), "{first}");
    }
    let ended = ElectCmd::new(&sandbox).variable("ELECT_CONTAINMENT", "tree").command(["true"]).run();
    ended.stderr_contains(&["tree"]);
    ElectCmd::new(&sandbox).flag("--containment", "jail").command(["true"]).run().fails_with(2, &["jail", "pidns"]);
}

#[test]
fn an_end_comes_through_in_each_tier() {
    use std::os::unix::process::ExitStatusExt;
    let sandbox = Sandbox::new();
    for tier in tiers() {
        for status in [0, 7, 255] {
            let ended = ElectCmd::new(&sandbox).flag("--containment", tier).shell(&format!("exit {status}")).run();
            assert_eq!(ended.status.code(), Some(status), "{tier}: {ended:?}");
        }
        for signal in [Signal::SIGTERM, Signal::SIGKILL, Signal::SIGUSR1, Signal::SIGSEGV] {
            let ended =
                ElectCmd::new(&sandbox).flag("--containment", tier).shell(&format!("kill -{} $$", signal as i32)).run();
            assert_eq!(ended.status.signal(), Some(signal as i32), "{tier}: {ended:?}");
            assert!(!ended.status.core_dumped(), "{tier}: {ended:?}");
        }
    }
    sandbox.is_left_empty();
}

#[test]
fn signals_are_passed_on_in_each_tier() {
    let sandbox = Sandbox::new();
    for tier in tiers() {
        let mut leader = ElectCmd::new(&sandbox)
            .flag("--containment", tier)
            .flag("--stop-signal", "USR2")
            .shell(
                "for s in HUP USR1 WINCH; do trap \"echo $s\" $s; done; trap 'echo USR2; exit 3' USR2; echo ready; \
                while :; do sleep 0.05; done",
            )
            .start();
        until("the command is ready", || leader.output().contains("ready"));
        for (signal, name) in [(Signal::SIGHUP, "HUP"), (Signal::SIGUSR1, "USR1"), (Signal::SIGWINCH, "WINCH")] {
            leader.signal(signal);
            until(&format!("{name} has arrived"), || leader.output().contains(name));
        }
        leader.signal(Signal::SIGTERM);
        leader.ends_with(3);
        assert!(leader.output().ends_with("USR2\n"), "{tier}: {}", leader.output());
    }
    sandbox.is_left_empty();
}

#[test]
fn a_command_has_the_lock_and_its_identity_in_each_tier() {
    let sandbox = Sandbox::new();
    for tier in tiers() {
        let ended = ElectCmd::new(&sandbox)
            .flag("--containment", tier)
            .shell("readlink /proc/self/fd/100; echo $ELECT_BOUNDARY $ELECT_ROLE")
            .run();
        let lock = sandbox.lock_file().display().to_string();
        assert_eq!(ended.stdout, format!("{lock}\ncron leader\n"), "{tier}: {ended:?}");
    }
}

#[test]
fn no_leaf_is_left_however_elect_ends() {
    if !is_to_be_had("cgroup") {
        return;
    }
    let sandbox = Sandbox::new();
    for (run, end) in (1..).zip(["stopped", "campaigner killed", "keeper killed"]) {
        let mut leader =
            ElectCmd::new(&sandbox).flag("--containment", "cgroup").witness(&Witness::new().daemon()).start();
        sandbox.history_when("the grandchild", |history| history.grandchildren.len() == run);
        leader.wait_for_log("leader command started");
        assert_eq!(leaves(leader.pid()).len(), 1, "{end}");
        match end {
            "stopped" => leader.signal(Signal::SIGTERM),
            "campaigner killed" => leader.signal(Signal::SIGKILL),
            _ => processes::signal(leader.keeper(), Signal::SIGKILL),
        }
        leader.wait();
        until("elect is gone", || leader.all().is_empty());
        let left = leaves(leader.pid());
        assert!(left.is_empty(), "{end}: {left:?}");
    }
}

#[test]
fn the_leaf_of_two_that_were_killed_is_removed_by_the_next() {
    if !is_to_be_had("cgroup") {
        return;
    }
    let sandbox = Sandbox::new();
    let mut leader = ElectCmd::new(&sandbox).flag("--containment", "cgroup").witness(&Witness::new()).start();
    let led = sandbox.starts(1).latest();
    leader.kill_with_keeper();
    leader.wait();
    until("the main process has died with its keeper", || !processes::is_alive(led.pid));
    eventually("the leaf that nobody could remove", || leaves(leader.pid()).pop());
    let ended = ElectCmd::new(&sandbox).flag("--containment", "cgroup").command(["true"]).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    let left = leaves(leader.pid());
    assert!(left.is_empty(), "{left:?}");
}

/// In the leaf until it is told to end by the file `go`.
const UNTIL_TOLD: &str = r#"
    touch "$WITNESS_PLACE/leads"
    until [ -e "$WITNESS_PLACE/go" ]; do sleep 0.05; done"#;

#[test]
fn one_who_is_no_descendant_and_in_the_leaf_keeps_the_next_leader_out() {
    if !is_to_be_had("cgroup") {
        return;
    }
    let sandbox = Sandbox::new();
    let leader =
        ElectCmd::new(&sandbox).flag("--containment", "cgroup").flag("--stop-timeout", "1h").shell(UNTIL_TOLD).start();
    until("it leads", || sandbox.path().join("leads").exists());
    let inmate = ForeignProcess::in_cgroup(&leaves(leader.pid()).pop().expect("a leaf"));
    keeps_the_next_leader_out(&sandbox, &leader, inmate.pid());
}

#[test]
fn one_who_has_moved_to_another_cgroup_keeps_the_next_leader_out() {
    if !is_to_be_had("cgroup") {
        return;
    }
    let sandbox = Sandbox::new();
    let elsewhere = Cgroup::make("elsewhere");
    let leaves = r#"trap '' TERM; echo $$ > "$ELSEWHERE/cgroup.procs" && echo $$; sleep 600; :"#;
    let leader = ElectCmd::new(&sandbox)
        .flag("--containment", "cgroup")
        .flag("--stop-timeout", "1h")
        .variable("ELSEWHERE", &elsewhere.0.display().to_string())
        .variable("LEAVES", leaves)
        .shell(&format!("setsid sh -c \"$LEAVES\" & {UNTIL_TOLD}"))
        .start();
    let escaped = eventually("it has moved", || leader.output().lines().next()?.parse().ok());
    keeps_the_next_leader_out(&sandbox, &leader, escaped);
}

/// The main process ends, and until a second stop signal comes that is all.
#[track_caller]
fn keeps_the_next_leader_out(sandbox: &Sandbox, leader: &CandidateProcess, other: i32) {
    let next = ElectCmd::new(sandbox).flag("--containment", "cgroup").witness(&Witness::new()).start();
    next.wait_until_waiting();
    fs::write(sandbox.path().join("go"), "").expect("written");
    leader.wait_for_log("leader command ended");
    throughout(Duration::from_secs(1), "the other is alive, and nobody leads", || {
        processes::is_alive(other) && sandbox.history().starts.is_empty()
    });
    // A signal that is still pending swallows the next one.
    until("a second signal has killed it, and the next one leads", || {
        leader.signal(Signal::SIGTERM);
        !sandbox.history().starts.is_empty()
    });
    assert!(!processes::is_alive(other), "killed before the next one leads");
    next.terminate();
    sandbox.is_left_empty();
}

const CLIMB: &str = r#""$0" --reuid 0 --regid 0 --clear-groups sh -c 'echo up; sleep 600; :'"#;

#[test]
fn one_who_has_become_another_user_is_killed_in_the_leaf() {
    if !is_to_be_had("cgroup") {
        return;
    }
    let sandbox = Sandbox::new().open_to_all();
    let (delegated, elect) = (Cgroup::delegated_to(NOBODY), copy_of_elect(&sandbox));
    // A program that anybody may become root by.
    let ladder = sandbox.path().join("ladder");
    executables::copy("/usr/bin/setpriv", &ladder);
    fs::set_permissions(&ladder, fs::Permissions::from_mode(0o4755)).expect("a file of ours");
    let mut leader = ElectCmd::new(&sandbox)
        .binary(&elect)
        .store("always:".to_owned())
        .flag("--containment", "cgroup")
        .flag("--stop-timeout", "300ms")
        .wrapped_by(delegated.entering())
        .wrapped_by(become_user(NOBODY))
        .command(["sh", "-c", CLIMB, &ladder.display().to_string()])
        .start();
    until("it is up", || leader.output().contains("up"));
    let climber = leader.tree().into_iter().find(|process| processes::user(process.pid) == Some(0));
    assert!(climber.is_some(), "it has become root: {:?}", leader.tree());
    leader.signal(Signal::SIGTERM);
    leader.wait();
    sandbox.is_left_empty();
}

// ---- figures

#[test]
fn a_tier_costs_little() {
    for tier in tiers() {
        let (mut started, mut stopped) = (Vec::new(), Vec::new());
        for _ in 0..runs() {
            let sandbox = Sandbox::new();
            let begun = wait::now();
            let leader = ElectCmd::new(&sandbox).flag("--containment", tier).witness(&Witness::new()).start();
            let led = sandbox.starts(1).latest();
            started.push(led.at.saturating_sub(begun));
            let struck = wait::now();
            leader.terminate();
            stopped.push(wait::since(struck));
        }
        let of = |times: &[Duration]| median(times).map(millis).unwrap_or_default();
        println!("figures: {tier}: the command up after {} (median), stopped within {}", of(&started), of(&stopped));
    }
}

// ---- where the tier is not available

const NOBODY: u32 = 65533;

#[test]
fn a_tier_that_is_named_and_not_to_be_had_is_refused_in_one_line_and_auto_makes_do() {
    let sandbox = Sandbox::new().open_to_all();
    let elect = copy_of_elect(&sandbox);
    let nobody = |sandbox: &Sandbox| {
        ElectCmd::new(sandbox).binary(&elect).store("always:".to_owned()).wrapped_by(become_user(NOBODY))
    };
    for tier in ["cgroup", "pidns"] {
        let ended = nobody(&sandbox).flag("--containment", tier).command(["true"]).run();
        // Where there is no unified hierarchy, no permission is lacking.
        let status = if tier == "pidns" || own_cgroup().is_some() { 77 } else { 125 };
        ended.fails_with(status, &[&format!("--containment {tier}"), "--containment auto"]);
    }
    let ended = nobody(&sandbox).command(["true"]).run();
    assert_eq!(ended.status.code(), Some(0), "{ended:?}");
    ended.stderr_contains(&[", tree\n", "no cgroup for the command: "]);
    let quiet = nobody(&sandbox).switch("-q").command(["true"]).run();
    assert_eq!((quiet.status.code(), quiet.stderr.as_str()), (Some(0), ""), "it is no trouble");
}

#[test]
fn a_machine_without_a_unified_hierarchy_has_the_tree() {
    let sandbox = Sandbox::new();
    if Command::new("unshare").args(["--mount", "true"]).status().is_ok_and(|status| status.success()) {
        let hidden = ["unshare", "--mount", "sh", "-c", r#"umount -a -l -t cgroup2; exec "$@""#, "sh"];
        let ended = ElectCmd::new(&sandbox).wrapped_by(hidden).flag("--containment", "cgroup").command(["true"]).run();
        ended.fails_with(125, &["--containment cgroup", "cgroup hierarchy (v2)"]);
        let ended = ElectCmd::new(&sandbox).wrapped_by(hidden).command(["true"]).run();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        ended.stderr_contains(&[", tree\n"]);
    } else {
        // Nothing can be hidden from elect here, and nothing can be made for it.
        assert_eq!(tiers(), ["tree"]);
    }
}

// ---- helpers of these tests

fn copy_of_elect(sandbox: &Sandbox) -> PathBuf {
    assert!(nix::unistd::geteuid().is_root(), "this test becomes another user: run it as root");
    let elect = sandbox.path().join("elect");
    executables::copy(crate::harness::candidate::elect(), &elect);
    elect
}

fn become_user(user: u32) -> [String; 6] {
    let user = user.to_string();
    ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"].map(str::to_owned)
}

/// A process that descends from no elect, and ends with this handle.
struct ForeignProcess(Child);

impl ForeignProcess {
    fn in_cgroup(cgroup: &Path) -> ForeignProcess {
        let child = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().expect("sleep is there");
        let stranger = ForeignProcess(child);
        fs::write(cgroup.join("cgroup.procs"), stranger.pid().to_string()).expect("moved");
        stranger
    }

    fn pid(&self) -> i32 {
        i32::try_from(self.0.id()).expect("process ids are small")
    }
}

impl Drop for ForeignProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A cgroup beside those of elect's. Nothing is left of it with this handle.
struct Cgroup(PathBuf);

impl Cgroup {
    fn make(kind: &str) -> Cgroup {
        let directory = own_cgroup().expect("a cgroup").join(format!("{kind}-{}", std::process::id()));
        fs::create_dir(&directory).expect("made");
        Cgroup(directory)
    }

    /// One that another user may do with as it likes, as with `Delegate=yes` in a unit.
    fn delegated_to(user: u32) -> Cgroup {
        let made = Cgroup::make("delegated");
        for path in [made.0.clone(), made.0.join("cgroup.procs"), made.0.join("cgroup.subtree_control")] {
            chown(path, Some(user), Some(user)).expect("given away");
        }
        made
    }

    /// The wrapper that starts a process in this cgroup.
    fn entering(&self) -> Vec<String> {
        let enter = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", self.0.display());
        ["sh", "-c", &enter, "sh"].map(str::to_owned).to_vec()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        let _ = fs::write(self.0.join("cgroup.kill"), "1");
        // Its processes may not have ended yet.
        for _ in 0..1000 {
            for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
                let _ = fs::remove_dir(entry.path());
            }
            if fs::remove_dir(&self.0).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
