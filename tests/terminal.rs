//! elect at a terminal with a shell's job control: whichever key is pressed, no process is left and no commands overlap.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::harness::syscall_gate::{GatePoint, SyscallGate};
use crate::harness::terminal::{PseudoTerminal, typed};
use crate::harness::wait::{throughout, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness, processes};

/// A shell with two children: one who knows nothing, and one who bears witness.
fn a_shell_with_children(sandbox: &Sandbox) -> ElectCmd {
    let witness = Witness::new().command().remove(0).into_string().expect("plain text");
    ElectCmd::new(sandbox).command(["sh", "-c", &format!("sleep 600 & '{witness}' & wait")])
}

/// A terminal whose elect leads, and a candidate elsewhere that waits.
fn a_leader_in_a_terminal(sandbox: &Sandbox, after: &str) -> (PseudoTerminal, CandidateProcess) {
    let mut terminal = PseudoTerminal::open(sandbox);
    terminal.runs(&a_shell_with_children(sandbox), after);
    sandbox.starts(1);
    let next = ElectCmd::new(sandbox).witness(&Witness::new()).start();
    next.wait_until_waiting();
    (terminal, next)
}

#[track_caller]
fn is_handed_over(sandbox: &Sandbox, terminal: &PseudoTerminal, next: CandidateProcess) {
    sandbox.starts(2);
    let left: Vec<_> =
        terminal.jobs().into_iter().filter(|process| !matches!(process.name.as_str(), "elect" | "keeper")).collect();
    assert_eq!(left, [], "left running in the terminal");
    until("elect is gone", || terminal.jobs().is_empty());
    next.terminate();
    sandbox.history().is_safe();
}

#[test]
fn kill_9_of_the_job_takes_the_command_along() {
    let sandbox = Sandbox::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&sandbox, " &");
    terminal.types("kill -9 %1\n");
    is_handed_over(&sandbox, &terminal, next);
}

#[test]
fn control_c_stops_the_command_and_hands_over() {
    let sandbox = Sandbox::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&sandbox, "; echo status=$?.");
    terminal.presses_control('c');
    is_handed_over(&sandbox, &terminal, next);
}

#[test]
fn control_backslash_stops_the_command_and_hands_over() {
    let sandbox = Sandbox::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&sandbox, "; echo status=$?.");
    terminal.presses_control('\\');
    is_handed_over(&sandbox, &terminal, next);
}

#[test]
fn control_z_suspends_the_leader_with_its_command_and_fg_goes_on() {
    let sandbox = Sandbox::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&sandbox, "");
    let (elect, main) = (terminal.elect(), terminal.process("sh"));
    let led = sandbox.history().latest();
    terminal.is_given_to(main);
    for _ in 0..2 {
        terminal.presses_control('z');
        until("the campaigner stands still", || processes::state(elect) == Some('T'));
        until("the command stands still", || processes::state(led.pid) == Some('T'));
        terminal.is_back_with_the_shell();
        terminal.shows("still leading");
        throughout(Duration::from_secs(1), "it leads, alone", || {
            sandbox.history().starts.len() == 1 && processes::is_alive(led.pid)
        });
        terminal.types("fg\n");
        until("the campaigner goes on", || processes::state(elect) != Some('T'));
        until("the command goes on", || processes::state(led.pid) != Some('T'));
        terminal.is_given_to(main);
    }
    throughout(Duration::from_secs(1), "it leads, alone", || {
        sandbox.history().starts.len() == 1 && processes::is_alive(led.pid)
    });
    terminal.presses_control('c');
    is_handed_over(&sandbox, &terminal, next);
}

/// A terminal in which the leader command has been forked, and held at the gate before its exec.
fn a_command_before_exec(sandbox: &Sandbox, gate: &SyscallGate, tier: &str) -> (PseudoTerminal, i32) {
    gate.close();
    let mut terminal = PseudoTerminal::open(sandbox);
    let variables = gate.variables().map(|(name, value)| format!("{name}='{value}'")).join(" ");
    let elect = ElectCmd::new(sandbox).flag("--ttl", "60s").flag("--containment", tier).witness(&Witness::new());
    terminal.types(&format!("{variables} {}; echo status=$?.\n", typed(&elect)));
    gate.is_reached();
    let elect = terminal.elect();
    (terminal, elect)
}

#[test]
fn control_z_before_exec_suspends_the_job_and_fg_starts_the_command() {
    for (tier, times) in [("tree", 1), ("tree", 3), ("auto", 1)] {
        let sandbox = Sandbox::new();
        let gate = SyscallGate::new(GatePoint::Terminal);
        let (mut terminal, elect) = a_command_before_exec(&sandbox, &gate, tier);
        for _ in 0..times {
            terminal.presses_control('z');
        }
        terminal.shows("^Z");
        gate.open();
        until("the campaigner stands still", || processes::state(elect) == Some('T'));
        terminal.is_back_with_the_shell();
        assert_eq!(sandbox.history().starts.len(), 0, "it stands still before its exec");
        terminal.types("fg\n");
        let main = sandbox.starts(1).latest().pid;
        terminal.is_given_to(main);
        until("the campaigner goes on", || processes::state(elect) != Some('T'));
        terminal.presses_control('c');
        terminal.shows("status=");
        terminal.is_back_with_the_shell();
        until("elect is gone", || terminal.jobs().is_empty());
    }
}

#[test]
fn control_z_between_the_order_and_the_fork_suspends_the_campaigner_and_fg_gives_the_command_the_terminal() {
    let sandbox = Sandbox::new();
    let gate = SyscallGate::new(GatePoint::Exec);
    let (mut terminal, elect) = a_command_before_exec(&sandbox, &gate, "tree");
    // The command has no terminal yet, so this is for the campaigner.
    terminal.presses_control('z');
    until("the campaigner stands still", || processes::state(elect) == Some('T'));
    terminal.is_back_with_the_shell();
    gate.open();
    let main = sandbox.starts(1).latest().pid;
    terminal.types("fg\n");
    terminal.is_given_to(main);
    until("the campaigner goes on", || processes::state(elect) != Some('T'));
    terminal.presses_control('z');
    until("the campaigner stands still with its command", || processes::state(elect) == Some('T'));
    until("the command stands still", || processes::state(main) == Some('T'));
    terminal.types("fg\n");
    terminal.is_given_to(main);
    terminal.presses_control('c');
    terminal.is_back_with_the_shell();
    until("elect is gone", || terminal.jobs().is_empty());
}

#[test]
fn kill_9_after_control_z_before_exec_takes_the_command_along() {
    let sandbox = Sandbox::new();
    let gate = SyscallGate::new(GatePoint::Terminal);
    let (mut terminal, elect) = a_command_before_exec(&sandbox, &gate, "tree");
    terminal.presses_control('z');
    terminal.shows("^Z");
    gate.open();
    until("the campaigner stands still", || processes::state(elect) == Some('T'));
    terminal.types("kill -9 %1\n");
    until("elect is gone", || terminal.jobs().is_empty());
    assert_eq!(sandbox.history().starts.len(), 0);
}

#[test]
fn control_z_and_bg_go_on_in_the_background_until_the_command_reads_and_fg_comes() {
    let sandbox = Sandbox::new();
    let mut terminal = PseudoTerminal::open(&sandbox);
    terminal.runs(&ElectCmd::new(&sandbox).command(["cat"]), "; echo status=$?.");
    let cat = terminal.process("cat");
    terminal.is_given_to(cat);
    terminal.presses_control('z');
    terminal.shows("Stopped");
    // It tries to go on with its reading.
    terminal.types("bg\n");
    terminal.shows("the leader command waits for the terminal");
    terminal.is_back_with_the_shell();
    assert_ne!(processes::state(terminal.elect()), Some('T'));
    terminal.types("fg\n");
    terminal.is_given_to(cat);
    terminal.types("one line\n");
    until("the line was read and shown", || terminal.screen().matches("one line").count() == 2);
    terminal.presses_control('d');
    terminal.is_back_with_the_shell();
    until("elect is gone", || terminal.jobs().is_empty());
}

/// Counts the signals that it gets, and ends by none of them but QUIT.
const COUNTS: &str = "for s in INT TERM HUP; do trap \"echo $s >> $WITNESS_PLACE/heard\" $s; done; \
    echo runs; while :; do sleep 0.05; done";

#[test]
fn control_c_reaches_the_command_once_and_elect_not_at_all() {
    let sandbox = Sandbox::new();
    let heard = || fs::read_to_string(sandbox.path().join("heard")).unwrap_or_default();
    let mut terminal = PseudoTerminal::open(&sandbox);
    terminal.runs(&ElectCmd::new(&sandbox).shell(COUNTS), "; echo status=$?.");
    terminal.shows("\nruns");
    let main = terminal.process("sh");
    for count in 1..=3 {
        terminal.presses_control('c');
        until("it has arrived", || heard().lines().count() >= count);
        throughout(Duration::from_millis(300), "it has arrived once", || heard() == "INT\n".repeat(count));
    }
    assert!(processes::is_alive(main) && !terminal.screen().contains("asked to stop"));
    terminal.presses_control('\\');
    terminal.shows("status=131.");
    assert_eq!(heard(), "INT\n".repeat(3));
}

#[test]
fn what_control_c_ends_is_not_started_again_and_its_script_ends_too() {
    let sandbox = Sandbox::new();
    let mut terminal = PseudoTerminal::open(&sandbox);
    let job = ElectCmd::new(&sandbox).flag("--restart", "always").flag("--min-hold", "1h");
    let job = job.shell("echo one >> $WITNESS_PLACE/starts; exec sleep 600");
    // bash goes on after a child that handled the interrupt, and ends after one that died of it.
    fs::write(sandbox.path().join("script.sh"), format!("{}\necho went on\n", typed(&job))).expect("written");
    terminal.types(&format!("bash {}\n", sandbox.path().join("script.sh").display()));
    let sleep = terminal.process("sleep");
    terminal.is_given_to(sleep);
    terminal.presses_control('c');
    terminal.is_back_with_the_shell();
    terminal.types("echo status=$?.\n");
    terminal.shows("status=130.");
    assert!(!terminal.screen().contains("went on"), "{}", terminal.screen());
    assert_eq!(fs::read_to_string(sandbox.path().join("starts")).expect("it has run"), "one\n");
    until("elect is gone", || terminal.jobs().is_empty());
}

#[test]
fn an_interactive_shell_as_the_command_has_job_control() {
    let sandbox = Sandbox::new();
    let mut terminal = PseudoTerminal::open(&sandbox);
    let shell = ["bash", "--norc", "--noprofile", "-i"];
    terminal.runs(&ElectCmd::new(&sandbox).variable("PS1", "inner ").command(shell), "; echo status=$?.");
    terminal.types("echo role=$ELECT_ROLE.\n");
    terminal.shows("role=leader.");
    let elect = terminal.elect();
    let inner = terminal.foreground();
    assert_ne!(inner, terminal.shell(), "the terminal is the inner shell's");
    terminal.types("sleep 600\n");
    let sleep = terminal.process("sleep");
    terminal.is_given_to(sleep);
    terminal.presses_control('z');
    until("its job stands still", || processes::state(sleep) == Some('T'));
    terminal.is_given_to(inner);
    terminal.types("jobs\n");
    terminal.shows("Stopped");
    terminal.types("fg\n");
    terminal.is_given_to(sleep);
    terminal.presses_control('c');
    terminal.is_given_to(inner);
    terminal.types("echo still=$?.\n");
    terminal.shows("still=130.");
    assert_ne!(processes::state(elect), Some('T'));
    terminal.types("exit 3\n");
    terminal.shows("status=3.");
    terminal.is_back_with_the_shell();
    assert!(!terminal.screen().contains("suspended"), "{}", terminal.screen());
}

#[test]
fn the_terminal_is_as_it_was_after_a_command_that_was_killed() {
    const SPOILS: &str = "stty raw -echo; touch $WITNESS_PLACE/spoiled";
    for (victim, script, status) in [
        (KillTarget::Itself, format!("{SPOILS}; kill -9 $$"), "137"),
        // With the terminal in the hands of a job of its own.
        (KillTarget::Itself, format!("set -m; sh -c '{SPOILS}; kill -9 '$$; :"), "137"),
        (KillTarget::Keeper, format!("{SPOILS}; exec sleep 600"), "125"),
        // As in every shell: a program that ends by itself is meant to leave what it leaves.
        (KillTarget::Nobody, "stty -echo; exit 0".to_owned(), "0"),
    ] {
        let sandbox = Sandbox::new();
        let job = ElectCmd::new(&sandbox).switch("-q").shell(&script);
        // Interactive shells repair the terminal themselves; this one does not.
        let note = |name: &str| format!("stty -g > {}", sandbox.path().join(name).display());
        let script =
            format!("{}\n{}\necho status=$?.\n{}\necho over\nread line\n", note("before"), typed(&job), note("after"));
        let terminal = PseudoTerminal::script(&sandbox, &script);
        if victim == KillTarget::Keeper {
            until("the terminal is spoiled", || sandbox.path().join("spoiled").exists());
            processes::signal(terminal.process("keeper"), Signal::SIGKILL);
        }
        terminal.shows("over");
        terminal.shows(&format!("status={status}."));
        terminal.is_back_with_the_shell();
        let modes = ["before", "after"].map(|name| fs::read_to_string(sandbox.path().join(name)).expect("noted"));
        assert_eq!(modes[0] == modes[1], victim != KillTarget::Nobody, "{modes:?} after {victim:?}");
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KillTarget {
    Itself,
    Keeper,
    Nobody,
}

#[test]
fn a_pipeline_shares_the_terminal() {
    let sandbox = Sandbox::new();
    let mut terminal = PseudoTerminal::open(&sandbox);
    let job = |words: &[&str]| typed(&ElectCmd::new(&sandbox).switch("-q").command(words.iter().copied()));
    let cat = job(&["cat"]);
    terminal.types(&format!("seq 3 | {cat} | tr '\\n' ,; echo \" ${{PIPESTATUS[@]}}\".\n"));
    terminal.shows("1,2,3, 0 0 0.");
    // The producer reads from the terminal.
    terminal.types(&format!("cat | {} | sed 's/^/bytes=/'\n", job(&["wc", "-c"])));
    terminal.process("wc");
    terminal.types("12345\n");
    terminal.presses_control('d');
    terminal.shows("bytes=6");
    // The command does.
    terminal.types(&format!("true | {} | cat\n", job(&["sh", "-c", "read word </dev/tty; echo got=$word."])));
    terminal.process("sh");
    terminal.types("this\n");
    terminal.shows("got=this.");
    // Ctrl-C is for all of them.
    terminal.types(&format!("sleep 600 | {}\n", job(&["tail", "-f", "/dev/null"])));
    let all = ["sleep", "tail"].map(|name| terminal.process(name));
    terminal.presses_control('c');
    until("nobody is left", || !all.into_iter().any(processes::is_alive));
    terminal.is_back_with_the_shell();
    terminal.types("echo \"over ${PIPESTATUS[@]}\".\n");
    terminal.shows("over 130 143.");
    until("elect is gone", || terminal.jobs().is_empty());
}

#[test]
fn a_background_job_leaves_the_terminal_alone_and_is_not_stopped_by_it() {
    let sandbox = Sandbox::new();
    let mut terminal = PseudoTerminal::open(&sandbox);
    // This terminal stops a background process that writes, unless the process ignores the signal.
    terminal.types("stty tostop\n");
    terminal.runs(&ElectCmd::new(&sandbox).shell("sleep 0.1; read word; echo got=$word. > $WITNESS_PLACE/got"), " &");
    let elect = terminal.elect();
    terminal.shows("the leader command waits for the terminal");
    throughout(Duration::from_millis(500), "elect runs, and the shell has the terminal", || {
        processes::state(elect) != Some('T') && terminal.foreground() == terminal.shell()
    });
    terminal.types("echo shell=alive.$((6*7))\n");
    terminal.shows("shell=alive.42");
    let main = terminal.process("sh");
    terminal.types("fg\n");
    terminal.is_given_to(main);
    terminal.types("this\n");
    until("it was read", || fs::read_to_string(sandbox.path().join("got")).is_ok_and(|got| got == "got=this.\n"));
    until("elect is gone", || terminal.jobs().is_empty());
    terminal.is_back_with_the_shell();
}

#[test]
fn control_z_stops_nobody_where_nobody_could_go_on() {
    let sandbox = Sandbox::new();
    let job = ElectCmd::new(&sandbox).shell("echo ready; read word; echo got=$word.; exit 4");
    // The leader of its session, as with ssh -t: no shell is there to continue it.
    let mut terminal = PseudoTerminal::script(&sandbox, &format!("exec {}\n", typed(&job)));
    terminal.shows("\nready");
    let main = terminal.process("sh");
    terminal.is_given_to(main);
    terminal.presses_control('z');
    terminal.shows("going on");
    terminal.is_given_to(main);
    terminal.types("this\n");
    terminal.shows("got=this.");
    until("elect is gone", || terminal.jobs().is_empty());
}

#[test]
fn a_waiter_can_be_suspended_and_goes_on_waiting() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    let mut terminal = PseudoTerminal::open(&sandbox);
    terminal.runs(&a_shell_with_children(&sandbox), "");
    terminal.shows("waiting: ");
    let elect = terminal.elect();
    terminal.presses_control('z');
    until("the campaigner stands still", || processes::state(elect) == Some('T'));
    terminal.is_back_with_the_shell();
    terminal.types("fg\n");
    until("the campaigner goes on", || processes::state(elect) != Some('T'));
    leader.terminate();
    sandbox.starts(2);
    // Elected while it was in the foreground.
    let main = terminal.process("sh");
    terminal.is_given_to(main);
    terminal.presses_control('c');
    terminal.is_back_with_the_shell();
    terminal.types("echo status=$?.\n");
    terminal.shows("status=130.");
    sandbox.history().is_safe();
}

#[test]
fn a_wait_in_a_terminal_names_what_it_waits_for_and_elsewhere_is_silent() {
    let sandbox = Sandbox::new();
    let waiting =
        ["any boundary has a leader", "boundary cron has a leader", "a candidate named \"x\" leads any boundary"];
    for (words, waiting) in [&[][..], &["cron"], &["--for", "name=x"]].into_iter().zip(waiting) {
        let wait = || ElectCmd::new(&sandbox).query("wait", words);
        let mut terminal = PseudoTerminal::open(&sandbox);
        terminal.runs(&wait(), "");
        terminal.shows(&format!("elect: waiting until {waiting} in {}", sandbox.store()));
        let leader = ElectCmd::new(&sandbox).flag("--name", "x").command(["sleep", "600"]).start();
        terminal.shows("x leads");
        assert_eq!(terminal.screen().matches("waiting until").count(), 1, "{}", terminal.screen());
        leader.terminate();
        wait().flag("--timeout", "200ms").run().fails_with(75, &["within 200ms"]);
    }
}

/// HUP means the end of the terminal, where there is one and no command that it could be for (6).
#[test]
fn a_hangup_ends_a_waiter_in_a_terminal_unless_it_was_ignored_at_the_start() {
    let sandbox = Sandbox::new();
    let leader = ElectCmd::new(&sandbox).witness(&Witness::new()).start();
    sandbox.starts(1);
    for ignores in [false, true] {
        let mut terminal = PseudoTerminal::open(&sandbox);
        let waiter = ElectCmd::new(&sandbox).witness(&Witness::new());
        let waiter = if ignores { waiter.wrapped_by(["sh", "-c", "trap '' HUP; exec \"$@\"", "sh"]) } else { waiter };
        terminal.runs(&waiter, "; echo status=$?.");
        terminal.shows("leads");
        let elect = terminal.elect();
        processes::signal(elect, Signal::SIGHUP);
        if ignores {
            throughout(Duration::from_millis(500), "it goes on", || processes::is_alive(elect));
            processes::signal(elect, Signal::SIGTERM);
        }
        terminal.shows(if ignores { "status=143." } else { "status=129." });
        until("nothing is left", || terminal.jobs().is_empty());
    }
    leader.terminate();
    assert_eq!(sandbox.history().starts.len(), 1);
}

/// To a daemon HUP means to read its configuration again, and the command that it is for is about to be started again.
#[test]
fn a_hangup_between_two_runs_ends_nothing_in_a_terminal_either() {
    let sandbox = Sandbox::new();
    let mut terminal = PseudoTerminal::open(&sandbox);
    let again = ElectCmd::new(&sandbox).flag("--restart", "always").flag("--restart-delay", "1h");
    terminal.runs(&again.command(["sh", "-c", "exit 3"]), "; echo status=$?.");
    terminal.shows("leader command ended");
    let elect = terminal.elect();
    processes::signal(elect, Signal::SIGHUP);
    throughout(Duration::from_millis(500), "it goes on", || processes::is_alive(elect));
    processes::signal(elect, Signal::SIGTERM);
    terminal.shows("status=143.");
    until("nothing is left", || terminal.jobs().is_empty());
}

#[test]
fn fg_after_a_stop_of_elect_alone_gives_the_terminal_to_the_command_again() {
    let sandbox = Sandbox::new();
    let mut terminal = PseudoTerminal::open(&sandbox);
    terminal.runs(&ElectCmd::new(&sandbox).witness(&Witness::new()), "");
    let main = sandbox.starts(1).latest().pid;
    terminal.is_given_to(main);
    processes::signal(terminal.elect(), Signal::SIGSTOP);
    // The shell sees its job stopped, and takes what is the command's.
    terminal.is_back_with_the_shell();
    assert_ne!(processes::state(main), Some('T'));
    terminal.types("fg\n");
    terminal.is_given_to(main);
    terminal.presses_control('c');
    until("elect is gone", || terminal.jobs().is_empty());
}

#[test]
fn control_z_suspends_the_script_that_elect_runs_in() {
    let sandbox = Sandbox::new();
    let mut terminal = PseudoTerminal::open(&sandbox);
    let script = sandbox.path().join("script.sh");
    fs::write(&script, format!("{}\necho went on\n", typed(&ElectCmd::new(&sandbox).command(["cat"]))))
        .expect("written");
    terminal.types(&format!("sh {}\n", script.display()));
    let cat = terminal.process("cat");
    terminal.is_given_to(cat);
    terminal.presses_control('z');
    terminal.is_back_with_the_shell();
    assert_eq!(processes::state(terminal.process("sh")), Some('T'));
    terminal.types("fg\n");
    terminal.is_given_to(cat);
    terminal.presses_control('d');
    terminal.shows("\nwent on");
    until("elect is gone", || terminal.jobs().is_empty());
}

#[test]
fn control_z_does_not_put_off_a_command_that_is_being_stopped() {
    const SLOW: &str =
        "trap 'echo asked' TERM; echo ready; until [ -e $WITNESS_PLACE/go ]; do sleep 0.02; done; exit 4";
    let sandbox = Sandbox::new();
    let mut terminal = PseudoTerminal::open(&sandbox);
    terminal.runs(&ElectCmd::new(&sandbox).flag("--stop-timeout", "1h").shell(SLOW), "; echo status=$?.");
    terminal.shows("\nready");
    let main = terminal.process("sh");
    processes::signal(terminal.elect(), Signal::SIGTERM);
    terminal.shows("\nasked");
    terminal.presses_control('z');
    terminal.shows("^Z");
    fs::write(sandbox.path().join("go"), "").expect("written");
    terminal.shows("status=4.");
    assert!(!processes::is_alive(main));
    until("elect is gone", || terminal.jobs().is_empty());
}

#[test]
fn kill_9_after_control_z_takes_the_command_along() {
    let sandbox = Sandbox::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&sandbox, "");
    let elect = terminal.elect();
    terminal.presses_control('z');
    until("the campaigner stands still", || processes::state(elect) == Some('T'));
    terminal.types("kill -9 %1\n");
    is_handed_over(&sandbox, &terminal, next);
}

#[test]
fn usr1_to_the_group_ends_the_shell_and_with_it_its_children() {
    let sandbox = Sandbox::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&sandbox, " &");
    terminal.types("kill -USR1 %1\n");
    is_handed_over(&sandbox, &terminal, next);
}

#[test]
fn a_closed_terminal_takes_the_command_along() {
    let sandbox = Sandbox::new();
    let (mut terminal, next) = a_leader_in_a_terminal(&sandbox, "");
    terminal.close();
    is_handed_over(&sandbox, &terminal, next);
}

#[test]
fn a_signal_to_every_process_of_the_terminals_session_is_survived_by_the_keeper_alone() {
    let sandbox = Sandbox::new();
    let (terminal, next) = a_leader_in_a_terminal(&sandbox, " &");
    // As a session's end or `pkill` does it: to everybody at once, the keeper too.
    for process in terminal.jobs() {
        processes::signal(process.pid, Signal::SIGTERM);
    }
    is_handed_over(&sandbox, &terminal, next);
}
