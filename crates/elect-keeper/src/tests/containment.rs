//! K7: guarantees of every tier, and the additions of each tier.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::harness::*;
use super::storm::{dies_in_time, time_after};
use crate::clock;
use crate::containment::Tier;
use crate::preexisting_children::PreexistingChild;
use crate::sys::{self, Forked};
use crate::{Containment, Keeper, ToKeeper};
use elect_core::{CommandEnd, FromKeeper, NotStarted, StopTo, Time};

/// Runs a test in each tier, each time in its own process and directory.
fn in_each(body: impl Fn(&Path, Containment)) {
    for tier in [Containment::Cgroup, Containment::Pidns, Containment::Tree] {
        println!("in the tier {tier:?}");
        within(tier, |directory| body(directory, tier));
    }
}

pub fn leaf(fixture: &KeeperFixture) -> PathBuf {
    let Tier::Cgroup { leaf, .. } = &fixture.keeper.tier else { panic!("no leaf: {:?}", fixture.keeper.tier) };
    leaf.path().to_owned()
}

/// The path of a process in the unified hierarchy.
pub fn cgroup_of(pid: i32) -> String {
    let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    cgroups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or_default().to_owned()
}

fn namespace_of(pid: i32) -> PathBuf {
    fs::read_link(format!("/proc/{pid}/ns/pid")).expect("a namespace")
}

fn children_of(pid: i32) -> Vec<i32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    children.split_whitespace().map(|child| child.parse().expect("a number")).collect()
}

/// A process that is not a descendant of the keeper.
fn stranger() -> Child {
    Command::new("sleep").arg("100").stdin(Stdio::null()).stdout(Stdio::null()).spawn().expect("started")
}

fn enter(cgroup: &Path, pid: u32) {
    fs::write(cgroup.join("cgroup.procs"), pid.to_string()).expect("moved");
}

fn own() -> i32 {
    std::process::id().cast_signed()
}

// ---- in each tier

#[test]
fn a_stubborn_tree_is_dead_within_the_allowance_in_each_tier() {
    let dies = |directory: &Path, tier| {
        let mut fixture = script(directory, STUBBORN).contained(tier).fork();
        let (_, kill_by) = fixture.start_under_deadline(&["main", "grandchild"]);
        let died = fixture.witness.gone();
        let late = time_after(kill_by, died);
        fixture.hears(FromKeeper::Expired { term: TERM });
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
        note(&format!(
            "figures: deadline in the tier {}: dead after {:?}, confirmed after {:?}",
            fixture.keeper.containment(),
            late,
            clock::now().since(kill_by)
        ));
        late
    };
    for tier in [Containment::Cgroup, Containment::Pidns, Containment::Tree] {
        println!("in the tier {tier:?}");
        dies_in_time(tier, dies);
    }
}

#[test]
fn an_end_comes_through_unchanged_in_each_tier() {
    in_each(|directory, tier| {
        let ends = [
            ("exit 0", CommandEnd::Exited(0)),
            ("exit 77", CommandEnd::Exited(77)),
            ("kill -KILL $$", killed(libc::SIGKILL, false)),
            ("kill -USR1 $$", killed(libc::SIGUSR1, false)),
            ("kill -TERM $$", killed(libc::SIGTERM, false)),
            ("kill -SEGV $$", killed(libc::SIGSEGV, false)),
            ("kill -40 $$", killed(40, false)),
            ("exec sleep 0", CommandEnd::Exited(0)),
        ];
        for (number, (text, end)) in ends.into_iter().enumerate() {
            let place = directory.join(number.to_string());
            fs::create_dir(&place).expect("created");
            let mut fixture = script(&place, text).contained(tier).fork();
            fixture.arm(TERM, Time::NEVER);
            fixture.start();
            fixture.exited(end);
            fixture.empty();
            fixture.hears_no_more();
        }
    });
}

#[test]
fn signals_reach_the_main_process_and_the_stop_signal_its_whole_group_in_each_tier() {
    in_each(|directory, tier| {
        let text = "
            sh -c \"trap 'echo other stopped >&9; exit' TERM; echo other >&9; while :; do sleep 0.01; done\" &
            for s in HUP USR1 USR2 WINCH; do trap \"echo $s >&9\" $s; done
            trap 'echo stopped >&9; exit 3' TERM
            echo main >&9
            while :; do sleep 0.01; done";
        let mut fixture = script(directory, text).stop_to(StopTo::Group).contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "other"]);
        for (signal, name) in
            [(libc::SIGHUP, "HUP"), (libc::SIGUSR1, "USR1"), (libc::SIGUSR2, "USR2"), (libc::SIGWINCH, "WINCH")]
        {
            fixture.send(&ToKeeper::Forward { signal });
            fixture.witness.hears(&[name]);
        }
        fixture.send(&ToKeeper::Stop { kill_at: Time::NEVER });
        fixture.witness.hears(&["stopped", "other stopped"]);
        fixture.exited(CommandEnd::Exited(3));
        fixture.empty();
    });
}

#[test]
fn what_the_main_process_leaves_behind_is_asked_first_in_each_tier() {
    in_each(|directory, tier| {
        let text = "
            (setsid sh -c 'trap \"echo asked >&9; exit\" TERM; touch \"$WITNESS.up\"; while :; do sleep 0.01; done' &)
            until [ -e \"$WITNESS.up\" ]; do sleep 0.01; done
            exit 7";
        let mut fixture = script(directory, text).contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start();
        fixture.exited(CommandEnd::Exited(7));
        fixture.empty();
        fixture.witness.hears(&["asked"]);
    });
}

#[test]
fn what_it_leaves_behind_and_does_not_go_is_killed_in_each_tier() {
    in_each(|directory, tier| {
        let mut fixture = script(directory, LEAVES_ONE_BEHIND).stop_timeout(ms(300)).contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["grandchild"]);
        fixture.exited(CommandEnd::Exited(7));
        fixture.empty();
    });
}

#[test]
fn one_run_follows_another_in_each_tier() {
    in_each(|directory, tier| {
        let mut fixture = script(directory, "echo run >&9; (setsid sleep 100 &); exit 4").contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        for _ in 0..20 {
            fixture.start_until(&["run"]);
            fixture.exited(CommandEnd::Exited(4));
            fixture.empty();
        }
        assert_eq!(children_of(fixture.keeper.pid()), [0; 0]);
    });
}

#[test]
fn what_cannot_be_executed_leaves_nothing_in_each_tier() {
    in_each(|directory, tier| {
        let mut fixture = program(directory, directory.join("nothing"), &["job"]).contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        for _ in 0..3 {
            let run = fixture.order_start(TERM, &[]);
            fixture.hears(FromKeeper::NotStarted { run, why: NotStarted::Failed(libc::ENOENT) });
            fixture.empty();
            fixture.hears_no_more();
        }
        assert_eq!(children_of(fixture.keeper.pid()), [0; 0]);
    });
}

#[test]
fn a_kill_right_after_the_order_to_start_leaves_nothing_in_each_tier() {
    in_each(|directory, tier| {
        let mut fixture = program(directory, "/bin/sleep", &["sleep", "100"]).contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        for _ in 0..20 {
            let run = fixture.order_start(TERM, &[]);
            fixture.send(&ToKeeper::Kill);
            #[expect(clippy::wildcard_enum_match_arm, reason = "every other answer fails the test")]
            match fixture.answer() {
                FromKeeper::Started { run: started, .. } if started == run => {
                    fixture.exited(killed(libc::SIGKILL, true));
                }
                // Before exec.
                FromKeeper::NotStarted { run: refused, why: NotStarted::Failed(libc::ECANCELED) } if refused == run => {
                }
                other => panic!("{other:?}"),
            }
            fixture.empty();
            fixture.hears_no_more();
        }
    });
}

#[test]
fn the_campaigners_end_is_the_trees_in_each_tier() {
    in_each(|directory, tier| {
        let mut fixture = script(directory, STUBBORN).stop_timeout(ms(300)).contained(tier).fork();
        fixture.claim("one");
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        fixture.bereave().releases_once("one");
    });
}

#[test]
fn what_a_dead_keeper_leaves_is_swept_up_in_each_tier() {
    in_each(|directory, tier| {
        let mut fixture = script(directory, STUBBORN).contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        fixture.keeper.kill();
        until("its end", || fixture.keeper.reap());
        until("an empty tree", || fixture.keeper.sweep());
        assert!(fixture.witness.is_gone(), "swept, and somebody lives");
        assert_eq!(children_of(own()), [0; 0]);
    });
}

#[test]
fn the_campaigner_kills_below_a_stopped_keeper_in_each_tier() {
    in_each(|directory, tier| {
        let mut fixture = script(directory, STUBBORN).contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        signal(fixture.keeper.pid(), libc::SIGSTOP);
        until("the end of the tree", || {
            fixture.keeper.kill_tree();
            fixture.witness.is_gone()
        });
        signal(fixture.keeper.pid(), libc::SIGCONT);
        fixture.exited(killed(libc::SIGKILL, false));
        fixture.empty();
    });
}

#[test]
fn it_sleeps_while_there_is_nothing_to_do_in_each_tier() {
    in_each(|directory, tier| {
        let mut fixture = script(directory, LEAVES_ONE_BEHIND).contained(tier).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["grandchild"]);
        fixture.exited(CommandEnd::Exited(7));
        fixture.hears_no_more();
        until("it sleeps", || status_of(fixture.keeper.pid(), "State").starts_with('S'));
        let switches = || status_of(fixture.keeper.pid(), "voluntary_ctxt_switches");
        let before = switches();
        let go_on_at = clock::now() + ms(300);
        until("a while", || clock::now() >= go_on_at);
        assert_eq!(switches(), before, "it woke for nothing");
        // Without this kill the sleeping processes would outlive the test.
        fixture.send(&ToKeeper::Kill);
        fixture.empty();
    });
}

// ---- cgroup

#[test]
fn a_command_is_in_its_leaf_from_the_start_and_elect_is_not_in_it() {
    within(Containment::Cgroup, |directory| {
        let mut fixture =
            script(directory, "echo main >&9; (setsid sh -c 'echo grandchild >&9; sleep 100' &); sleep 100")
                .contained(Containment::Cgroup)
                .fork();
        fixture.arm(TERM, Time::NEVER);
        let main = fixture.start_until(&["main", "grandchild"]);
        let name = leaf(&fixture).file_name().expect("a name").to_string_lossy().into_owned();
        assert!(cgroup_of(main).ends_with(&name), "{}", cgroup_of(main));
        assert!(name.starts_with(&format!("elect-{}-", own())), "{name}");
        for elect in [own(), fixture.keeper.pid()] {
            assert!(!cgroup_of(elect).contains(&name), "{}", cgroup_of(elect));
        }
        let inside = || fs::read_to_string(leaf(&fixture).join("cgroup.procs")).expect("read");
        until("the main process, its descendant and what they started", || inside().lines().count() >= 3);
    });
}

#[test]
fn one_who_moves_to_another_cgroup_is_killed_all_the_same() {
    within(Containment::Cgroup, |directory| {
        let mut fixture = script(directory, "").contained(Containment::Cgroup).fork();
        let elsewhere = leaf(&fixture).parent().expect("elect's own").join(format!("elsewhere-{}", own()));
        fs::create_dir(&elsewhere).expect("made");
        let text = format!(
            "trap '' TERM
            (setsid sh -c 'echo $$ > {0}/cgroup.procs && echo escaped >&9; sleep 100; :' &)
            echo main >&9; sleep 100; :",
            elsewhere.display()
        );
        let place = directory.join("escape");
        fs::create_dir(&place).expect("created");
        drop(fixture);
        fixture = script(&place, &text).contained(Containment::Cgroup).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "escaped"]);
        assert!(!fs::read_to_string(elsewhere.join("cgroup.procs")).expect("read").is_empty());
        fixture.send(&ToKeeper::Kill);
        fixture.exited(killed(libc::SIGKILL, true));
        fixture.empty();
        fs::remove_dir(&elsewhere).expect("nobody is in it");
    });
}

#[test]
fn a_leaf_with_anybody_in_it_is_not_called_empty() {
    within(Containment::Cgroup, |directory| {
        let with_an_inmate = |place: &str, set: fn(Setting) -> Setting| {
            let place = directory.join(place);
            fs::create_dir(&place).expect("created");
            let setting = script(&place, "echo main >&9; read -r line < \"$WITNESS.go\"; exit 5");
            nix::unistd::mkfifo(&place.join("witness.go"), nix::sys::stat::Mode::S_IRWXU).expect("a pipe");
            let mut fixture = set(setting.contained(Containment::Cgroup)).fork();
            fixture.arm(TERM, Time::NEVER);
            fixture.start_until(&["main"]);
            let inmate = stranger();
            enter(&leaf(&fixture), inmate.id());
            fs::write(place.join("witness.go"), "go\n").expect("written");
            fixture.exited(CommandEnd::Exited(5));
            (fixture, inmate)
        };
        let (fixture, mut inmate) = with_an_inmate("ended", |setting| setting);
        fixture.hears_no_more();
        assert_eq!(children_of(fixture.keeper.pid()), [0; 0], "there is no child left to wait for");
        // The process ends by itself, and the keeper notices at once, long before the stop time-out.
        inmate.kill().expect("killed");
        let killed_at = clock::now();
        fixture.empty();
        note(&format!("figures: an empty leaf is noticed after {:?}", clock::now().since(killed_at)));
        inmate.wait().expect("reaped");
        drop(fixture);

        // The process does not end, and is killed.
        let (fixture, mut inmate) = with_an_inmate("killed", |setting| setting.stop_timeout(ms(300)));
        fixture.empty();
        assert!(inmate.wait().expect("reaped").code().is_none());
    });
}

#[test]
fn a_sweep_waits_for_an_empty_leaf_too() {
    within(Containment::Cgroup, |directory| {
        let mut fixture = script(directory, STUBBORN).contained(Containment::Cgroup).fork();
        fixture.arm(TERM, Time::NEVER);
        fixture.start_until(&["main", "grandchild"]);
        let mut inmate = stranger();
        enter(&leaf(&fixture), inmate.id());
        fixture.keeper.preexisting_children = PreexistingChild::of(inmate.id().cast_signed()).into_iter().collect();
        let leaf = leaf(&fixture);
        fixture.keeper.kill();
        until("its end", || fixture.keeper.reap());
        until("an empty tree", || fixture.keeper.sweep());
        assert!(fixture.witness.is_gone(), "swept, and somebody lives");
        assert!(!leaf.exists(), "removed by whoever found it empty");
        let _ = inmate.wait();
    });
}

#[test]
fn the_leaf_is_removed_with_what_the_command_made_below_it() {
    within(Containment::Cgroup, |directory| {
        let text = "
            leaf=$(sed -n s/^0:://p /proc/self/cgroup); root=$(grep -o ' [^ ]* [^ ]* - cgroup2 ' /proc/self/mountinfo)
            set -- $root
            mkdir -p \"$1$leaf/one/two\" && echo $$ > \"$1$leaf/one/two/cgroup.procs\" && echo main >&9
            trap '' TERM; sleep 100; :";
        for dismissed in [false, true] {
            let place = directory.join(dismissed.to_string());
            fs::create_dir(&place).expect("created");
            let mut fixture = script(&place, text).stop_timeout(ms(100)).contained(Containment::Cgroup).fork();
            fixture.claim("one");
            fixture.arm(TERM, Time::NEVER);
            fixture.start_until(&["main"]);
            let leaf = leaf(&fixture);
            assert!(leaf.join("one/two").exists());
            if dismissed {
                fixture.send(&ToKeeper::Dismiss);
            }
            let released = fixture.bereave().releases();
            assert_eq!(released.len(), usize::from(!dismissed));
            assert!(!leaf.exists(), "left behind");
        }
    });
}

#[test]
fn a_leaf_is_left_by_nobody_who_never_started_anything() {
    within(Containment::Cgroup, |directory| {
        let fixture = script(directory, SLEEPER).contained(Containment::Cgroup).fork();
        let leaf = leaf(&fixture);
        assert!(leaf.exists());
        assert_eq!(fixture.bereave().releases(), []);
        assert!(!leaf.exists());
    });
}

#[test]
fn an_abandoned_leaf_is_removed_by_the_next_once_it_is_empty_and_no_other_is() {
    within(Containment::Cgroup, |directory| {
        let in_use = script(directory, SLEEPER).contained(Containment::Cgroup).fork();
        let parent = leaf(&in_use).parent().expect("elect's own").to_owned();
        let named = |number| parent.join(format!("elect-{}-{number:016x}", own()));
        let (abandoned, inhabited, foreign) = (named(1), named(2), parent.join(format!("elect-{}.scope", own())));
        let mut orphan = stranger();
        for path in [&abandoned, &inhabited, &foreign] {
            fs::create_dir(path).expect("made");
        }
        // A candidate of another test may remove what is empty and not locked.
        let lock = fs::File::open(&inhabited).expect("opened");
        lock.lock().expect("locked");
        enter(&inhabited, orphan.id());
        drop(lock);
        let next = || {
            Keeper::fork(None, |_| (), Containment::Cgroup).expect("a keeper");
        };
        next();
        assert!(!abandoned.exists(), "nobody's, and empty");
        fs::remove_dir(&foreign).expect("not of our making");
        assert!(inhabited.exists() && leaf(&in_use).exists());
        assert!(orphan.try_wait().expect("ours").is_none(), "it is not for us to kill");
        orphan.kill().expect("killed");
        orphan.wait().expect("reaped");
        next();
        assert!(!inhabited.exists(), "empty now");
        assert!(leaf(&in_use).exists(), "somebody holds it");
    });
}

#[test]
fn a_leaf_that_somebody_cleared_away_costs_the_tier_where_that_was_left_to_us_and_the_start_where_not() {
    within(Containment::Cgroup, |directory| {
        for tier in [Containment::Auto, Containment::Cgroup] {
            let place = directory.join(format!("{tier:?}"));
            fs::create_dir(&place).expect("created");
            let mut fixture = script(&place, SLEEPER).contained(tier).fork();
            fs::remove_dir(leaf(&fixture)).expect("it is empty");
            fixture.arm(TERM, Time::NEVER);
            if tier == Containment::Auto {
                fixture.start_until(&["main"]);
                fixture.send(&ToKeeper::Kill);
                fixture.exited(killed(libc::SIGKILL, true));
            } else {
                let run = fixture.order_start(TERM, &[]);
                fixture.hears(FromKeeper::NotStarted { run, why: NotStarted::Failed(libc::ENODEV) });
            }
            fixture.empty();
        }
    });
}

// ---- pidns

#[test]
fn a_namespace_dies_with_the_keeper_and_needs_nobody_to_sweep_it() {
    within(Containment::Pidns, |directory| {
        let mut fixture = script(directory, STUBBORN).contained(Containment::Pidns).fork();
        fixture.arm(TERM, Time::NEVER);
        let main = fixture.start_until(&["main", "grandchild"]);
        assert_ne!(namespace_of(main), namespace_of(own()));
        assert_eq!(namespace_of(fixture.keeper.pid()), namespace_of(own()));
        fixture.keeper.kill();
        fixture.witness.gone();
    });
}

#[test]
fn both_killed_at_once_leave_nobody_in_a_namespace() {
    within(Containment::Pidns, |directory| {
        nix::sys::prctl::set_child_subreaper(true).expect("a subreaper");
        let mut witness = Witness::new(directory);
        // SAFETY: this process has one thread.
        match unsafe { sys::fork() }.expect("forked") {
            Forked::Child => {
                let mut fixture = script(directory, STUBBORN).contained(Containment::Pidns).fork_watched_by(witness);
                fixture.arm(TERM, Time::NEVER);
                fs::write(directory.join("keeper"), fixture.keeper.pid().to_string()).expect("written");
                fixture.start();
                loop {
                    std::thread::park();
                }
            }
            Forked::Parent(campaigner) => {
                witness.hears(&["main", "grandchild"]);
                let keeper = fs::read_to_string(directory.join("keeper")).expect("read").parse().expect("a number");
                // Neither process can react to the other's end.
                signal(campaigner, libc::SIGSTOP);
                signal(keeper, libc::SIGKILL);
                signal(campaigner, libc::SIGKILL);
                witness.gone();
            }
        }
    });
}

#[test]
fn the_init_of_a_namespace_holds_on_to_nothing_and_hears_no_signal() {
    within(Containment::Pidns, |directory| {
        let mut fixture = script(directory, SLEEPER).contained(Containment::Pidns).fork();
        fixture.arm(TERM, Time::NEVER);
        let main = fixture.start_until(&["main"]);
        let children = children_of(fixture.keeper.pid());
        let [init] = children.iter().copied().filter(|&child| child != main).collect::<Vec<_>>()[..] else {
            panic!("{children:?}")
        };
        assert_eq!(status_of(init, "NSpid").split_whitespace().last(), Some("1"));
        assert_eq!(status_of(main, "NSpid").split_whitespace().last(), Some("2"));
        until("it is called what it is", || status_of(init, "Name") == "keeper-init");
        until("it has let go", || fs::read_dir(format!("/proc/{init}/fd")).expect("listed").count() == 1);
        for number in (1..=64).filter(|number| ![libc::SIGKILL, libc::SIGSTOP].contains(number)) {
            signal(init, number);
        }
        assert!(!goes_first(init), "the right to go first is the keeper's");
        fixture.hears_no_more();
        // No process inside can kill the init; its death by a process outside kills every process inside.
        signal(init, libc::SIGKILL);
        fixture.exited(killed(libc::SIGKILL, false));
        fixture.empty();
    });
}

#[test]
fn orphans_in_a_namespace_leave_no_zombies() {
    within(Containment::Pidns, |directory| {
        let text = "
            for i in $(seq 300); do (setsid true &) ; done
            echo main >&9; sleep 100; :";
        let mut fixture = script(directory, text).contained(Containment::Pidns).fork();
        fixture.arm(TERM, Time::NEVER);
        let main = fixture.start_until(&["main"]);
        let init = children_of(fixture.keeper.pid()).into_iter().find(|&child| child != main).expect("an init");
        until("all are reaped", || children_of(init).is_empty());
    });
}
