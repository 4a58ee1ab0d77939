//! The store in a command's environment: always the same store, and its password only where that is asked for.

use std::fs;

use crate::harness::processes::CONFESS;
use crate::harness::server::PASSWORD;
use crate::harness::store_fixtures::for_each_store;
use crate::harness::{ElectCmd, Sandbox, docs_under_test};
use crate::secrets::{is_nowhere_in, under_watch};

/// Asks the store in all ways from inside a command, and campaigns for another boundary there.
fn inside() -> String {
    let elect = docs_under_test::elect();
    format!(
        "{elect} status cron && {elect} wait cron --timeout 60s && \
         {elect} run -b inner --wait 60s --ttl 5s -- sh -c 'echo inner led, password=$ELECT_PASSWORD.'"
    )
}

#[test]
fn a_query_inside_a_command_looks_at_the_store_of_the_command() {
    for_each_store(|fixture| {
        for pass in [false, true] {
            let elect = fixture.candidate("outer");
            let elect = if pass { elect.switch("--pass-credentials") } else { elect };
            let ended = elect.shell(&inside()).run();
            assert_eq!(ended.status.code(), Some(0), "{}: {ended:?}", fixture.name());
            for said in ["outer", "inner led, password=."] {
                assert!(ended.stdout.contains(said), "{}: {ended:?}", fixture.name());
            }
        }
    });
}

/// The ways to give a password.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PasswordSource {
    Variable,
    File,
    /// In the value of `ELECT_STORE`.
    Url,
}

/// A store with users.
pub struct StoreWithUsers {
    pub scheme: &'static str,
    /// Host and port, and what follows.
    pub place: String,
    pub user: &'static str,
    pub flags: Vec<[String; 2]>,
    pub sources: &'static [PasswordSource],
}

impl StoreWithUsers {
    /// A candidate for `cron` that has the password from there.
    fn elect(&self, sandbox: &Sandbox, source: PasswordSource) -> ElectCmd {
        let StoreWithUsers { scheme, place, user, .. } = self;
        let elect = ElectCmd::new(sandbox).store(None).flag("--ttl", "3s").flag("--name", "outer");
        let elect = self.flags.iter().fold(elect, |elect, [name, value]| elect.flag(name, value));
        let named =
            |elect: ElectCmd| elect.variable("ELECT_STORE", &format!("{scheme}://{place}")).flag("--username", user);
        match source {
            PasswordSource::Variable => named(elect).variable("ELECT_PASSWORD", PASSWORD),
            PasswordSource::File => {
                let file = sandbox.path().join("password");
                fs::write(&file, PASSWORD).expect("a file");
                named(elect).flag("--password-file", &file.display().to_string())
            }
            PasswordSource::Url => {
                let password = PASSWORD.replace(' ', "%20");
                elect.variable("ELECT_STORE", &format!("{scheme}://{user}:{password}@{place}"))
            }
        }
    }

    /// A command gets the password if that is asked for, and not otherwise; it is in no command line and no log.
    pub fn passes_credentials_only_if_asked(&self) {
        for &source in self.sources {
            let context = format!("{} {source:?}", self.scheme);
            let sandbox = Sandbox::new();
            let run = |elect: ElectCmd, script: &str| {
                let ended = under_watch(&sandbox, || elect.switch("-vv").shell(script).run());
                is_nowhere_in(&sandbox);
                // As it is written in a URL, too.
                assert!(!format!("{ended:?}").contains("horse"), "{context}: {ended:?}");
                ended
            };
            let passed = self.elect(&sandbox, source).switch("--pass-credentials");
            let ended = run(passed, &format!("{} && ({CONFESS})", inside()));
            assert_eq!(ended.status.code(), Some(0), "{context}: {ended:?}");
            for said in ["outer", "inner led, password=.", " run "] {
                assert!(ended.stdout.contains(said), "{context}: {ended:?}");
            }
            let elect = docs_under_test::elect();
            let found = "grep -qz horse /proc/self/environ && echo has a secret";
            // Certificates and user are about this store: another one is asked without them.
            let other = format!("status cron --store {}://127.0.0.1:1", self.scheme);
            let script = format!(
                "{found}; echo \"file=$ELECT_PASSWORD_FILE.\"; {elect} {other}; echo other=$?; {elect} status cron || echo status=$?"
            );
            let ended = run(self.elect(&sandbox, source), &script);
            assert!(
                !ended.stdout.contains("has a secret") && ended.stdout.contains("file=.\n"),
                "{context}: {ended:?}"
            );
            assert!(ended.stdout.contains("other=69"), "{context}: {ended:?}");
            assert!(ended.stdout.contains("status=77") || ended.stdout.contains("status=2"), "{context}: {ended:?}");
        }
    }
}

pub const EVERY_SOURCE: &[PasswordSource] = &[PasswordSource::Variable, PasswordSource::File, PasswordSource::Url];

/// The variables of a command, of its hooks and of a follower are the same in this.
const SHOWN: &str = "echo \"store=$ELECT_STORE password=$ELECT_PASSWORD file=$ELECT_PASSWORD_FILE\"";

#[test]
fn a_command_and_its_hooks_do_not_get_a_password_unless_that_is_asked_for() {
    let sandbox = Sandbox::new();
    let elect = || ElectCmd::new(&sandbox).store("always:".to_owned()).variable("OTHER_SECRET", "kept");
    let hook = format!("({SHOWN}) >\"$WITNESS_PLACE/hook\"");
    let shown = format!("{SHOWN} other=$OTHER_SECRET");
    // always: takes no password, but a command inside another one inherits those of the outer store.
    let inside = || elect().variable("ELECT_ROLE", "leader").variable("ELECT_PASSWORD", PASSWORD);
    let inside = || inside().variable("ELECT_PASSWORD_FILE", "/outer");
    let file = sandbox.path().join("password");
    fs::write(&file, PASSWORD).expect("a file");
    let ended = inside().variable("ELECT_PASSWORD_FILE", &file.display().to_string());
    let ended = ended.flag("--on-elected", &hook).shell(&shown).run();
    assert_eq!(ended.stdout, "store=always: password= file= other=kept\n", "{ended:?}");
    let of_hook = fs::read_to_string(sandbox.path().join("hook")).expect("it ran");
    assert_eq!(of_hook, "store=always: password= file=\n");
    let asked = inside().variable("ELECT_PASSWORD_FILE", &file.display().to_string()).switch("--pass-credentials");
    let ended = asked.shell(&shown).run();
    assert!(ended.stdout.contains(&format!("password={PASSWORD} file={}", file.display())), "{ended:?}");
}

#[test]
fn relative_paths_of_files_are_resolved_for_a_command_that_works_elsewhere() {
    let sandbox = Sandbox::new();
    let place = sandbox.path().display().to_string();
    fs::write(sandbox.path().join("password"), PASSWORD).expect("a file");
    // always: reads none of them, and takes them inside a command.
    let elect = ElectCmd::new(&sandbox).store("always:".to_owned()).variable("ELECT_ROLE", "leader");
    let elect = elect.variable("ELECT_TLS_CA", "ca.pem").flag("--tls-cert", "client.pem").flag("--tls-key", "/etc/key");
    let elect = elect.flag("--password-file", "password").switch("--pass-credentials");
    let shown = "cd / && echo $ELECT_TLS_CA $ELECT_TLS_CERT $ELECT_TLS_KEY $ELECT_PASSWORD_FILE: $ELECT_INHERITED";
    let ended = elect.wrapped_by(["env", "-C", &place]).shell(shown).run();
    // The variable is the user's, for whichever store.
    let set = "ELECT_TLS_CERT ELECT_TLS_KEY ELECT_PASSWORD_FILE";
    let expected = format!("{place}/ca.pem {place}/client.pem /etc/key {place}/password: {set}\n");
    assert_eq!(ended.stdout, expected, "{ended:?}");
}
