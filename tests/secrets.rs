//! A password is nowhere but where it was given: not in logs, answers, pages or errors, and in nobody's command line.

use std::fs;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::harness::server::PASSWORD;
use crate::harness::{ElectCmd, Sandbox, until};

/// All logs, outputs and files of a sandbox.
fn written(sandbox: &Sandbox) -> Vec<(String, String)> {
    let files = fs::read_dir(sandbox.path()).expect("a place").filter_map(|entry| {
        let path = entry.ok()?.path();
        let is_the_given_one = path.ends_with("password");
        let text = fs::read(&path).ok().filter(|_| !is_the_given_one)?;
        Some((path.display().to_string(), String::from_utf8_lossy(&text).into_owned()))
    });
    files.collect()
}

#[track_caller]
pub fn is_nowhere_in(sandbox: &Sandbox) {
    for (path, text) in written(sandbox) {
        assert!(!text.contains(PASSWORD), "{path}: {text}");
    }
}

/// Looks at the command lines of everybody who works in a place, over and over, for as long as something goes on there.
pub fn under_watch<T>(sandbox: &Sandbox, act: impl FnOnce() -> T) -> T {
    while_watched(sandbox, |_| act())
}

/// The same with an act that can wait until the watcher has looked at everybody once more.
fn while_watched<T>(sandbox: &Sandbox, act: impl FnOnce(&dyn Fn()) -> T) -> T {
    let (is_over, seen, looks) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                for process in sandbox.running() {
                    let Ok(words) = fs::read(format!("/proc/{}/cmdline", process.pid)) else { continue };
                    let words = String::from_utf8_lossy(&words).into_owned();
                    assert!(!words.contains(PASSWORD), "{process:?}: {words}");
                    seen.fetch_add(1, Ordering::SeqCst);
                }
                looks.fetch_add(1, Ordering::SeqCst);
            }
        });
        let once_more = || {
            // The look that goes on now may have begun before.
            let enough = looks.load(Ordering::SeqCst) + 2;
            until("the watcher has looked", || watcher.is_finished() || looks.load(Ordering::SeqCst) >= enough);
        };
        // After a panic in here the watcher must end, too.
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&once_more)));
        until("the watcher has seen somebody", || watcher.is_finished() || seen.load(Ordering::SeqCst) > 0);
        is_over.store(true, Ordering::SeqCst);
        let watched = watcher.join();
        let outcome = outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        watched.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        outcome
    })
}

/// The ways to name a store to those who ask it, each with the flag or the variable that an error has to name.
pub fn ways_to_name(sandbox: &Sandbox, store: &str) -> [(&'static str, ElectCmd); 4] {
    [
        ("--store", ElectCmd::new(sandbox).store(store.to_owned()).switch("-vv").command(["true"])),
        // As systemd and containers give it.
        ("ELECT_STORE", ElectCmd::new(sandbox).store(None).variable("ELECT_STORE", store).command(["true"])),
        ("--store", ElectCmd::new(sandbox).store(store.to_owned()).status(&["cron"])),
        ("--store", ElectCmd::new(sandbox).store(store.to_owned()).query("watch", &["cron"])),
    ]
}

#[test]
fn a_password_in_a_url_that_has_no_use_for_it_is_refused_without_repeating_it() {
    let sandbox = Sandbox::new();
    for (source, elect) in ways_to_name(&sandbox, &format!("always://elect:{PASSWORD}@127.0.0.1:1")) {
        elect.run().fails_with(2, &[&format!("{source} always:… is not understood")]);
    }
    is_nowhere_in(&sandbox);
}

/// Or no test of secrets shows anything.
#[test]
fn a_password_that_is_told_would_be_found() {
    let sandbox = Sandbox::new();
    let told = format!("echo '{PASSWORD}'; sleep 600");
    let watched = std::panic::catch_unwind(|| {
        while_watched(&sandbox, |once_more| {
            let leader = ElectCmd::new(&sandbox).shell(&told).start();
            until("it runs", || leader.output().contains(PASSWORD));
            until("it is seen", || leader.tree().iter().any(|process| process.name == "sleep"));
            once_more();
            leader.terminate();
        });
    });
    assert!(watched.is_err(), "in a command line");
    assert!(
        written(&sandbox).iter().any(|(path, text)| path.contains("log-") && text.contains(PASSWORD)),
        "in an output"
    );
}
