//! Debian's cron with the recipe: several hosts, two nights, and the mail that they send.
//!
//! A host is a mount, PID and UTS namespace with a cron, a mailer and a wall clock of its own. All of them reach one server.

use std::fs;
use std::path::{Path, PathBuf};

use nix::sys::signal::Signal;

use crate::QueueServer;
use crate::harness::candidate::elect;
use crate::harness::wallclock::WallClock;
use crate::harness::{
    CandidateProcess, ElectCmd, Sandbox, docs_under_test, eventually, executables, host_tools, processes, until,
};

const DAY: i64 = 24 * 60 * 60;
/// A few seconds before the recipe's hour.
const BEFORE_THREE: i64 = 3 * 60 * 60 - 4;

/// Notes the end of each candidate, and of which host it was.
const LOGGED_ELECT: &str =
    "#!/bin/sh\n\"$0.real\" \"$@\"; status=$?; echo \"$(hostname) $status\" >>\"$0.ends\"; exit $status\n";

struct Host {
    cron: CandidateProcess,
    clock: WallClock,
    folder: PathBuf,
    /// Seconds that its clock is behind.
    late: i64,
}

impl Host {
    /// Begins in the afternoon before the first night, so that its start takes nothing from the seconds before three.
    fn boot(sandbox: &Sandbox, name: &str, crontab: &str, late: i64) -> Host {
        let folder = sandbox.path().join(name);
        fs::create_dir_all(folder.join("mail")).expect("created");
        fs::write(folder.join("crontab"), crontab).expect("written");
        executables::script(folder.join("mailer"), &format!("#!/bin/sh\ncat >{}/mail/$$\n", folder.display()));
        let clock = WallClock::new();
        set(&clock, 0, late + DAY / 2);
        let words = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "sh", "-c"].map(str::to_owned);
        let script = [include_str!("cron/host.sh").to_owned(), "sh".to_owned(), name.to_owned()];
        let program = words.into_iter().chain(script).chain([folder.display().to_string()]);
        // Without the env in front.
        let program = program.chain(clock.words().into_iter().skip(1));
        let cron = ElectCmd::new(sandbox).program(program).start();
        let host = Host { cron, clock, folder, late };
        let cron = host.cron();
        until("cron handles the signal to look at the clock", || handles_hangup(cron));
        host
    }

    /// The process of cron, which is the first one of its namespace.
    fn cron(&self) -> i32 {
        let is_cron = |pid: &i32| processes::name(*pid).as_deref() == Some("cron");
        eventually("cron runs", || processes::children(self.cron.pid()).into_iter().find(is_cron))
    }

    /// Shortly before the recipe's hour of some day: cron looks at the clock when it gets a signal.
    fn night_comes(&self, night: i64) {
        set(&self.clock, night, self.late);
        processes::signal(self.cron(), Signal::SIGHUP);
    }

    /// What it has mailed once each job and its mailer have ended.
    fn mails(&self) -> Vec<String> {
        let cron = self.cron();
        until("cron has nothing to do", || processes::children(cron).is_empty());
        let mails = fs::read_dir(self.folder.join("mail")).expect("a directory").flatten();
        mails.map(|mail| fs::read_to_string(mail.path()).expect("readable")).collect()
    }
}

fn handles_hangup(pid: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"));
    // The first bit is the signal of number 1.
    caught.is_some_and(|mask| u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & 1 == 1))
}

/// So many days after today, shortly before three.
fn set(clock: &WallClock, night: i64, late: i64) {
    let now: i64 = host_tools::attempt(["date", "+%s"]).expect("date").trim().parse().expect("seconds");
    clock.step_to(now.div_euclid(DAY) * DAY + night * DAY + BEFORE_THREE - late - now);
}

/// The hosts' common things: elect, the job, and what both have noted.
struct Site {
    sandbox: Sandbox,
}

impl Site {
    fn new() -> Site {
        let sandbox = Sandbox::new();
        fs::create_dir(sandbox.path().join("bin")).expect("created");
        executables::copy(elect(), sandbox.path().join("bin/elect.real"));
        executables::script(sandbox.path().join("bin/elect"), LOGGED_ELECT);
        executables::script(sandbox.path().join("nightly.sh"), "#!/bin/sh\necho \"$ELECT_NAME\" >>runs\n");
        Site { sandbox }
    }

    /// The recipe with this store, in the place of the job.
    fn crontab(&self, store: &str) -> String {
        let (bin, home) = (self.sandbox.path().join("bin"), self.sandbox.path());
        let recipe = docs_under_test::read("recipes/crontab");
        let line = |line: &str| match line.split_once('=') {
            Some(("ELECT_STORE", _)) => format!("ELECT_STORE={store}\n"),
            Some(("PATH", path)) => format!("PATH={}:{path}\n", bin.display()),
            _ => format!("{line}\n"),
        };
        let text: String = recipe.lines().map(line).collect();
        assert!(text.contains("\nPATH=") && text.contains("\nELECT_STORE="), "{text}");
        format!("HOME={}\n{text}", home.display())
    }

    fn lines(&self, path: impl AsRef<Path>) -> Vec<String> {
        let text = fs::read_to_string(self.sandbox.path().join(path)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The ends of candidates, as host and exit status.
    fn ends(&self) -> Vec<String> {
        self.lines("bin/elect.ends")
    }
}

#[test]
fn in_two_nights_the_job_of_the_recipe_runs_twice_and_no_host_sends_mail() {
    let server = QueueServer::start();
    let site = Site::new();
    let crontab = site.crontab(&server.url());
    let hosts: Vec<Host> = [("one", 0), ("two", 0), ("late", 3)]
        .map(|(name, late)| Host::boot(&site.sandbox, name, &crontab, late))
        .into_iter()
        .collect();
    for night in 1..=2 {
        for host in &hosts {
            host.night_comes(night);
        }
        let nights = usize::try_from(night).expect("a small number");
        until("the hosts that are not elected have ended", || site.ends().len() >= nights * hosts.len() - 1);
        until("the leader has ended", || site.ends().len() == nights * hosts.len());
        let (led, others): (Vec<String>, Vec<String>) = site.ends().into_iter().partition(|end| end.ends_with(" 0"));
        assert_eq!((led.len(), others.len()), (nights, nights * 2), "{led:?} {others:?}");
        assert!(others.iter().all(|end| end.ends_with(" 75")), "{others:?}");
        // By the name of the host that has led.
        let leaders: Vec<&str> = led.iter().filter_map(|end| end.split(' ').next()).collect();
        assert_eq!(site.lines("runs"), leaders);
        for host in &hosts {
            assert_eq!(host.mails(), [""; 0], "of {}", host.folder.display());
        }
    }
}

#[test]
fn a_misspelled_variable_in_a_crontab_causes_a_mail_that_names_it() {
    let server = QueueServer::start();
    let site = Site::new();
    // Each host has an election of its own then: that is what the mail is for.
    let crontab = site.crontab(&server.url()).replace("ELECT_STORE=", "ELECT_STOR=").replace("--min-hold 1m ", "");
    let host = Host::boot(&site.sandbox, "misspelled", &crontab, 0);
    host.night_comes(1);
    until("the candidate has ended", || site.ends().len() == 1);
    let mails = host.mails();
    assert_eq!(mails.len(), 1, "{mails:?}");
    let (_, body) = mails[0].split_once("\n\n").expect("a head and a body");
    assert_eq!(body.trim_end().lines().count(), 1, "{body}");
    assert!(body.contains("ELECT_STOR is not read by elect: did you mean ELECT_STORE?"), "{body}");
}

#[test]
fn a_server_that_cannot_be_reached_causes_a_mail() {
    let site = Site::new();
    let url = QueueServer::start().url();
    let host = Host::boot(&site.sandbox, "alone", &site.crontab(&url), 0);
    host.night_comes(1);
    until("the candidate has ended", || site.ends() == ["alone 69"]);
    let mails = host.mails();
    assert_eq!((mails.len(), site.lines("runs").len()), (1, 0), "{mails:?}");
    assert!(mails[0].contains("cannot be reached"), "{mails:?}");
}
