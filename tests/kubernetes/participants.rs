//! Programs of others in one election with elect, on the genuine API server: client-go's leader election, the Python client's, and
//! kubectl. With `--long`, as `genuine_runs`.

use std::process::Command;
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use super::genuine::{GenuineServer, folder};
use super::genuine_runs::is_wanted;
use super::namespace;
use crate::harness::docs_under_test::root;
use crate::harness::server::StoreServer;
use crate::harness::wait::{now, since, until};
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness};

/// Of all participants: the Python client waits for its own duration.
const SECONDS: &str = "6";
const TTL: &str = "6s";
/// How long faults are made.
const STORM: Duration = Duration::from_secs(60);

struct Participants {
    server: GenuineServer,
    sandbox: Sandbox,
}

impl Participants {
    fn new() -> Participants {
        Participants { server: GenuineServer::start(), sandbox: Sandbox::new() }
    }

    fn namespace(&self) -> String {
        namespace(&self.sandbox.database())
    }

    fn elect(&self, name: &str) -> CandidateProcess {
        let elect = ElectCmd::new(&self.sandbox).store(self.server.url_for(&self.sandbox));
        elect.flag("--ttl", TTL).flag("--name", name).switch("-v").witness(&Witness::new()).start()
    }

    fn other(&self, program: &[String], name: &str) -> CandidateProcess {
        let url = format!("http://{}", self.server.address());
        let words = [&url, &self.namespace(), "cron", name, SECONDS, "--"].map(str::to_owned);
        let words = program.iter().cloned().chain(words);
        ElectCmd::new(&self.sandbox).program(words).witness(&Witness::new()).start()
    }

    fn go(&self, name: &str) -> CandidateProcess {
        self.other(&[folder().join("bin/participant").display().to_string()], name)
    }

    fn python(&self, name: &str) -> CandidateProcess {
        let script = root().join("tests/kubernetes/participant/participant.py");
        self.other(&[folder().join("python/bin/python3"), script].map(|path| path.display().to_string()), name)
    }

    /// `kubectl`, from the same packages as the server.
    fn kubectl(&self, words: &[&str], editor: &str) -> String {
        let mut kubectl = Command::new(folder().join("bin/kubectl"));
        kubectl.arg("--server").arg(format!("http://{}", self.server.address()));
        kubectl.arg("--namespace").arg(self.namespace()).args(words);
        kubectl.env("KUBECONFIG", "/dev/null").env("HOME", self.sandbox.path()).env("KUBE_EDITOR", editor);
        let output = kubectl.output().expect("kubectl is there");
        assert!(output.status.success(), "{words:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    fn holder(&self) -> String {
        self.kubectl(&["get", "lease", "cron", "-o", "jsonpath={.spec.holderIdentity}"], "")
    }

    /// Whom elect shows as the leader.
    fn leader(&self) -> String {
        let elect = ElectCmd::new(&self.sandbox).store(self.server.url_for(&self.sandbox));
        let shown: Value =
            serde_json::from_str(&elect.query("status", &["cron", "--json"]).run().stdout).unwrap_or_default();
        let shown = shown.get(0).unwrap_or(&shown);
        shown["leader"]["name"].as_str().unwrap_or_default().to_owned()
    }

    /// Overlaps: none, on either side. The witness of another program has no term.
    fn ends(&self, kind: &str) {
        let history = self.sandbox.history();
        let (ours, theirs): (Vec<_>, Vec<_>) =
            history.starts.iter().map(|start| start.term).partition(|&term| term > 0);
        println!(
            "figures: kubernetes: {kind}: elect led {} times, the others {} times, {} overlaps",
            ours.len(),
            theirs.len(),
            history.overlaps.len()
        );
        assert_eq!(history.overlaps.len(), 0, "{history:?}");
        assert!(ours.is_sorted_by(|one, next| one < next), "{ours:?}");
        assert!(!ours.is_empty() && !theirs.is_empty(), "{history:?}");
    }
}

fn is_let_go(mut participant: CandidateProcess) {
    participant.signal(Signal::SIGTERM);
    participant.wait();
}

#[test]
fn elect_client_go_and_python_wait_for_each_other_and_see_who_leads() {
    if !is_wanted() {
        return;
    }
    let all = Participants::new();
    let go = all.go("go-1");
    all.sandbox.starts(1);
    let elect = all.elect("elect-1");
    elect.wait_until_waiting();
    until("elect shows client-go's leader", || all.leader() == "go-1");
    assert_eq!(all.holder(), "go-1");
    is_let_go(go);
    all.sandbox.starts(2);
    until("kubectl shows elect's leader", || all.holder().starts_with("elect-1_"));
    let go = all.go("go-2");
    go.wait_for_log("\"elect-1_");
    let python = all.python("python-1");
    python.wait_for_log("held by elect-1_");
    // A label of a hand's: the leader goes on.
    all.kubectl(&["edit", "lease", "cron"], "sed -i 's/^  labels:/  labels:\\n    by: hand/'");
    assert!(all.kubectl(&["get", "lease", "cron", "-o", "jsonpath={.metadata.labels}"], "").contains("hand"));
    let before = all.server.revision();
    until("the leader renews", || all.server.revision() >= before + 3);
    assert!(!elect.log().contains("leader command ended"), "{}", elect.log());
    // And another holder: it leads no more, and who follows waits for the one that there is not.
    all.kubectl(&["edit", "lease", "cron"], "sed -i 's/holderIdentity: .*/holderIdentity: somebody/'");
    elect.wait_for_log("leader command ended");
    all.sandbox.starts(3);
    is_let_go(go);
    elect.terminate();
    // It may have been the first of the three, too.
    until("the last one leads", || all.holder() == "python-1");
    let elect = all.elect("elect-2");
    elect.wait_until_waiting();
    until("elect shows the Python client's leader", || all.leader() == "python-1");
    let led = all.sandbox.history().starts.len();
    is_let_go(python);
    all.sandbox.starts(led + 1);
    elect.terminate();
    all.ends("three kinds of participants in turn");
}

#[test]
fn elect_client_go_and_python_take_turns_through_resignations_and_kills() {
    if !is_wanted() {
        return;
    }
    let all = Participants::new();
    let mut elects: Vec<_> = ["1", "2"].iter().map(|name| all.elect(&format!("elect-{name}"))).collect();
    let mut programs: Vec<_> = ["1", "2"].iter().map(|name| all.go(&format!("go-{name}"))).collect();
    programs.push(all.python("python-1"));
    let start = |which: usize, number: usize| match which {
        2 => all.python(&format!("python-{number}")),
        _ => all.go(&format!("go-{number}")),
    };
    // The same choices each time.
    let (began, mut choices) = (now(), fastrand::Rng::with_seed(20));
    let (mut faults, mut resigned) = (10, 0);
    while since(began) < STORM {
        std::thread::sleep(Duration::from_millis(choices.u64(300..3000)));
        faults += 1;
        let (which, other) = (choices.usize(..elects.len()), choices.usize(..programs.len()));
        match choices.u8(..5) {
            0 => {
                resigned += u32::from(elects.iter().any(|elect| elect.resigns("cron")));
            }
            1 => programs[choices.usize(..2)].signal(Signal::SIGUSR1),
            2 | 3 => {
                programs[other].signal(if faults % 2 == 0 { Signal::SIGTERM } else { Signal::SIGKILL });
                programs[other].wait();
                programs[other] = start(other, faults);
            }
            _ => {
                elects[which].signal(Signal::SIGKILL);
                elects[which].wait();
                elects[which] = all.elect(&format!("elect-{faults}"));
            }
        }
    }
    programs.into_iter().for_each(is_let_go);
    let led = all.sandbox.history().starts.len();
    elects.into_iter().for_each(CandidateProcess::terminate);
    println!("figures: kubernetes: {} faults, {resigned} resignations of elect among them, {led} terms", faults - 10);
    all.ends("a storm");
}
