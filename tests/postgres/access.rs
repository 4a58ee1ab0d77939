//! Getting in: certificates, passwords of every kind, files of passwords; and what is said when it does not work.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::signal::Signal;

use super::server::{PostgresOptions, PostgresServer};
use crate::harness::certificates::Certificates;
use crate::harness::server::{PASSWORD, StoreServer};
use crate::harness::wait::{now, since, until};
use crate::harness::{ElectCmd, Ended, Sandbox, Witness};
use crate::leases::{candidate, candidate_for};

/// One user for each method of login.
const RULES: &str =
    "hostssl all certified all cert map=names\nhost all old all md5\nhost all modern all scram-sha-256\n";

/// At start, by one line of the log.
#[track_caller]
pub fn is_refused(ended: &Ended, said: &[&str]) {
    assert_eq!(ended.status.code(), Some(77), "{ended:?}");
    ended.stderr_contains(said);
    let errors = ended.stderr.lines().filter(|line| line.contains("error")).count();
    assert_eq!(errors, 1, "one line: {ended:?}");
    assert!(!ended.stderr.contains(PASSWORD), "{ended:?}");
}

fn with_users(certificates: &Arc<Certificates>) -> PostgresServer {
    let postgres = PostgresServer::with(&PostgresOptions::new().rules(RULES).tls(certificates));
    postgres.sql(&format!(
        "CREATE ROLE certified SUPERUSER LOGIN; CREATE ROLE modern SUPERUSER LOGIN PASSWORD '{PASSWORD}'; \
         SET password_encryption = 'md5'; CREATE ROLE old SUPERUSER LOGIN PASSWORD '{PASSWORD}'"
    ));
    postgres
}

/// A password file of this mode.
fn passfile(sandbox: &Sandbox, mode: u32) -> String {
    let path = sandbox.path().join(format!("pgpass-{mode:o}"));
    fs::write(&path, format!("*:*:postgres:modern:{PASSWORD}\n")).expect("a file");
    fs::set_permissions(&path, Permissions::from_mode(mode)).expect("a file of ours");
    path.display().to_string()
}

/// The keeper gives back what a killed campaigner held: the claim has all that logging in takes.
#[test]
fn each_way_in_leads_and_hands_over() {
    let certificates = Arc::new(Certificates::new());
    let postgres = with_users(&certificates);
    let (client, ca) = (certificates.client(), certificates.ca());
    let place = |name: &str| format!("{}/postgres?schema={name}", postgres.address());
    let encoded = PASSWORD.replace(' ', "%20");
    let hands_over = |name: &str, with: &(dyn Fn(&Sandbox, String, &str) -> ElectCmd + Sync)| {
        let sandbox = Sandbox::new();
        // The first record is waited for, not with the ttl of a minute.
        let first = with(&sandbox, place(name), "2200ms").command(["true"]).run();
        assert_eq!(first.status.code(), Some(0), "{first:?}");
        let elect = || with(&sandbox, place(name), "60s").witness(&Witness::new());
        let mut leader = elect().start();
        sandbox.starts(1);
        let next = elect().start();
        next.wait_until_waiting();
        let killed = now();
        leader.signal(Signal::SIGKILL);
        leader.wait();
        sandbox.starts(2);
        assert!(
            since(killed) < Duration::from_secs(30),
            "{name}: by its keeper, not by the lease: {:?}",
            since(killed)
        );
        next.terminate();
        sandbox.history().is_safe();
    };
    let hands_over = &hands_over;
    let (client, ca, encoded) = (&client, &ca, &encoded);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            hands_over("flags", &|sandbox, place, ttl| {
                let elect = candidate_for(sandbox, format!("postgres://certified@{place}"), ttl).flag("--tls-ca", ca);
                elect.flag("--tls-cert", &client.certificate).flag("--tls-key", &client.key)
            });
        });
        scope.spawn(move || {
            hands_over("options", &|sandbox, place, ttl| {
                let files = format!("sslrootcert={ca}&sslcert={}&sslkey={}", client.certificate, client.key);
                candidate_for(sandbox, format!("postgres://certified@{place}&sslmode=verify-full&{files}"), ttl)
            });
        });
        scope.spawn(move || {
            hands_over("bound", &|sandbox, place, ttl| {
                let elect = candidate_for(sandbox, format!("postgres://modern@{place}&channel_binding=require"), ttl);
                elect.flag("--tls-ca", ca).variable("ELECT_PASSWORD", PASSWORD)
            });
        });
    });
    std::thread::scope(|scope| {
        scope.spawn(move || {
            hands_over("md5", &|sandbox, place, ttl| {
                candidate_for(sandbox, format!("postgres://old:{encoded}@{place}"), ttl)
            });
        });
        scope.spawn(move || {
            hands_over("file", &|sandbox, place, ttl| {
                let file = passfile(sandbox, 0o600);
                candidate_for(sandbox, format!("postgresql://modern@{place}"), ttl).variable("PGPASSFILE", &file)
            });
        });
    });
}

#[test]
fn who_may_not_is_told_so_in_one_sentence_and_ends() {
    let certificates = Arc::new(Certificates::new());
    let postgres = with_users(&certificates);
    let sandbox = Sandbox::new();
    let address = postgres.address();
    let elect = |user: &str, rest: &str| {
        ElectCmd::new(&sandbox).store(format!("postgres://{user}@{address}/{rest}")).command(["true"])
    };
    let modern = |rest: &str| elect("modern", rest).variable("ELECT_PASSWORD", PASSWORD);
    is_refused(&elect("modern", "postgres").variable("ELECT_PASSWORD", "wrong").run(), &["password", "pg_hba.conf"]);
    is_refused(&elect("old", "postgres").variable("ELECT_PASSWORD", "wrong").run(), &["password", "pg_hba.conf"]);
    is_refused(
        &elect("nobody", "postgres").variable("ELECT_PASSWORD", PASSWORD).run(),
        &["does not let \"nobody\" in"],
    );
    is_refused(&elect("modern", "postgres").run(), &["asks for the password", "--password-file"]);
    is_refused(&modern("nowhere").run(), &["has no database \"nowhere\""]);
    is_refused(&modern("postgres").flag("--tls-ca", &certificates.other_ca()).run(), &["--tls-ca"]);
    is_refused(&elect("certified", "postgres?sslmode=require").run(), &["certificate"]);
    let (other, ca) = (certificates.other_client(), certificates.ca());
    let stranger = elect("certified", "postgres").flag("--tls-ca", &ca).flag("--tls-cert", &other.certificate);
    is_refused(&stranger.flag("--tls-key", &other.key).run(), &["certificate"]);
    let open = modern("postgres").variable("ELECT_PASSWORD", "").variable("PGPASSFILE", &passfile(&sandbox, 0o644));
    is_refused(&open.run(), &["has the mode 0644, and is ignored", "asks for the password"]);
}

/// The certificate is of the right authority, and for `db.example`.
#[test]
fn a_server_with_the_certificate_of_another_name_is_refused() {
    let certificates = Arc::new(Certificates::new());
    let (postgres, sandbox) = (with_users(&certificates), Sandbox::new());
    let elect = |mode: &str| {
        let store = format!("postgres://modern@{}/postgres?sslmode={mode}", postgres.address());
        let elect = ElectCmd::new(&sandbox).store(store).flag("--tls-ca", &certificates.ca());
        elect.variable("ELECT_PASSWORD", PASSWORD).command(["true"]).run()
    };
    let before = elect("verify-full");
    assert_eq!(before.status.code(), Some(0), "{before:?}");
    postgres.show_certificate(&certificates.elsewhere());
    // The server reads its files again a moment later.
    until("elect is refused", || elect("verify-full").status.code() == Some(77));
    is_refused(&elect("verify-full"), &["not issued for \"127.0.0.1\", but for \"db.example\"", "--store"]);
    let unnamed = elect("verify-ca");
    assert_eq!(unnamed.status.code(), Some(0), "it looks at no name: {unnamed:?}");
}

/// No server is no reason to end.
#[test]
fn a_candidate_waits_for_a_server_that_is_not_there() {
    let postgres = PostgresServer::start();
    postgres.kill();
    let sandbox = Sandbox::new();
    let elect = candidate(&sandbox, postgres.url()).witness(&Witness::new()).start();
    elect.wait_for_log("cannot be reached");
    postgres.restart();
    sandbox.starts(1);
    elect.terminate();
    sandbox.history().is_safe();
}
