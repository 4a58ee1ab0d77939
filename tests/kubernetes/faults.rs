//! Faults of an API server and of its Leases in a cluster, with two candidates under the witness: two commands never run at once.

use std::fs;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::{Value, json};

use super::double::{ApiServer, Fault, Kind, USER};
use super::{end_safely, namespace};
use crate::harness::certificates::{CertificateFiles, Certificates};
use crate::harness::server::StoreServer;
use crate::harness::wait::until;
use crate::harness::{CandidateProcess, ElectCmd, Sandbox, Witness};

const LEASE: &str = "cron";

/// A leader, and a candidate that waits for it.
struct Scene<'a> {
    server: &'a ApiServer,
    sandbox: Sandbox,
    leader: CandidateProcess,
    next: CandidateProcess,
}

impl<'a> Scene<'a> {
    fn new(server: &'a ApiServer) -> Scene<'a> {
        Scene::for_ttl(server, ApiServer::TTL)
    }

    fn for_ttl(server: &'a ApiServer, ttl: &str) -> Scene<'a> {
        Scene::with(server, ttl, |elect, sandbox| elect.store(server.url_for(sandbox)))
    }

    fn with(server: &'a ApiServer, ttl: &str, at: impl Fn(ElectCmd, &Sandbox) -> ElectCmd) -> Scene<'a> {
        let sandbox = Sandbox::new();
        let start = |name: &str| {
            let elect = ElectCmd::new(&sandbox).flag("--ttl", ttl).flag("--name", name).switch("-v");
            at(elect, &sandbox).witness(&Witness::new()).start()
        };
        let leader = start("one");
        sandbox.starts(1);
        let next = start("two");
        next.wait_until_waiting();
        Scene { server, sandbox, leader, next }
    }

    fn namespace(&self) -> String {
        namespace(&self.sandbox.database())
    }

    fn edit(&self, change: impl FnOnce(&mut Value)) {
        self.server.edit_lease(&self.namespace(), LEASE, change);
    }

    /// So often the leader renews, and it never stops leading.
    fn goes_on(&self, renewals: u64) {
        let before = self.server.writes();
        until("the leader renews", || self.server.writes() >= before + renewals);
        // The next start may be yet to come.
        let log = self.leader.log();
        assert!(!log.contains("leader command ended") && self.sandbox.history().starts.len() == 1, "{log}");
    }

    fn ends(self, kind: &str) {
        end_safely(&format!("kubernetes: {kind}"), &self.sandbox, self.leader, self.next);
    }
}

/// A fault that a lease outlasts: the leader goes on.
fn outlasts(kind: &str, strike: impl FnOnce(&Scene<'_>)) {
    let server = ApiServer::start();
    // However much a busy machine adds to it.
    let scene = Scene::with(&server, "60s", |elect, sandbox| {
        elect.flag("--renew", "1s").flag("--request-timeout", "1s").store(server.url_for(sandbox))
    });
    strike(&scene);
    until("every fault has struck", || server.faults_left() == 0);
    scene.goes_on(2);
    scene.ends(kind);
}

/// A fault that ends the term: the command ends first, and then another starts, of either candidate.
fn is_followed(kind: &str, strike: impl FnOnce(&Scene<'_>)) {
    let server = ApiServer::start();
    let scene = Scene::new(&server);
    strike(&scene);
    scene.leader.wait_for_log("leader command ended");
    scene.sandbox.starts(2);
    scene.ends(kind);
}

#[test]
fn a_leader_outlasts_an_overloaded_server() {
    let server = ApiServer::start();
    let scene = Scene::for_ttl(&server, "20s");
    // Obeyed as often as it is asked for, it would cost the term.
    server.fault("update", 2, Fault::TooMany(10));
    until("every fault has struck", || server.faults_left() == 0);
    scene.goes_on(2);
    scene.ends("429 with Retry-After");
}

#[test]
fn a_leader_outlasts_an_answer_that_does_not_come() {
    outlasts("a stalled answer", |scene| scene.server.fault("update", 1, Fault::Stall));
}

#[test]
fn a_leader_outlasts_a_reset_after_the_commit() {
    outlasts("reset after the commit", |scene| scene.server.fault("update", 2, Fault::ResetAfterCommit));
}

#[test]
fn a_leader_outlasts_a_restart_of_the_server_and_a_watch_that_is_too_old() {
    outlasts("a restart, and 410 on the watch", |scene| {
        scene.server.fault("watch", 2, Fault::Status(410));
        scene.server.with_objects(super::double::Objects::compact);
        scene.server.restart();
    });
}

#[test]
fn a_leader_outlasts_labels_and_annotations_of_others() {
    outlasts("kubectl annotate", |scene| {
        for number in 0..5 {
            let patch =
                json!({ "metadata": { "annotations": { "team": number.to_string() }, "labels": { "team": "a" } } });
            let namespace = scene.namespace();
            let patched = scene.server.with_objects(|objects| objects.patch(Kind::Lease, &namespace, LEASE, &patch));
            patched.expect("patched");
            scene.goes_on(1);
        }
        let lease = scene.server.lease(&scene.namespace(), LEASE).expect("a Lease");
        assert_eq!(lease["metadata"]["annotations"]["team"], "4");
    });
}

#[test]
fn a_leader_outlasts_steps_of_its_renew_time() {
    outlasts("steps of renewTime", |scene| {
        for time in ["1970-01-01T00:00:00.000000Z", "2099-01-01T00:00:00.000000Z", "2001-01-01T00:00:00.000000Z"] {
            scene.edit(|lease| lease["spec"]["renewTime"] = time.into());
            scene.goes_on(1);
        }
    });
}

#[test]
fn a_server_that_is_away_for_longer_than_the_lease_costs_the_term_and_nothing_else() {
    is_followed("a server that is away", |scene| {
        scene.server.kill();
        scene.leader.wait_for_log("leader command ended");
        scene.server.restart();
    });
}

#[test]
fn a_server_that_is_set_back_to_a_backup_has_one_leader_at_a_time() {
    for lets_go in [true, false] {
        let server = ApiServer::start();
        let scene = Scene::new(&server);
        let backup = server.backup();
        // In the backup the first one leads, and now the second one does; or the Lease is held as it was.
        if lets_go {
            scene.leader.signal(nix::sys::signal::Signal::SIGTERM);
            scene.sandbox.starts(2);
            scene.server.restore(backup);
            scene.next.wait_for_log("leader command ended");
            scene.sandbox.starts(3);
        } else {
            scene.goes_on(2);
            scene.server.restore(backup);
            scene.goes_on(2);
        }
        let Scene { sandbox, next, leader, .. } = scene;
        if !lets_go {
            leader.terminate();
        }
        next.terminate();
        sandbox.history().is_safe();
        sandbox.is_left_empty();
    }
}

#[test]
fn a_lease_that_is_deleted_is_followed_when_the_old_command_is_gone() {
    is_followed("kubectl delete lease", |scene| scene.server.delete_lease(&scene.namespace(), LEASE));
}

#[test]
fn a_lease_that_is_deleted_and_made_again_is_followed_when_the_old_command_is_gone() {
    is_followed("deleted and made again, free", |scene| {
        let namespace = scene.namespace();
        scene.server.delete_lease(&namespace, LEASE);
        scene.server.with_objects(|objects| objects.add(Kind::Lease, &namespace, LEASE, json!({ "spec": {} })));
    });
}

#[test]
fn a_lease_that_a_hand_frees_or_gives_to_another_is_followed_when_the_old_command_is_gone() {
    is_followed("another holder, by hand", |scene| {
        scene.edit(|lease| {
            lease["spec"]["holderIdentity"] = "somebody".into();
            lease["spec"]["leaseDurationSeconds"] = 2.into();
        });
    });
    is_followed("an annotation that is garbage", |scene| {
        scene.edit(|lease| lease["metadata"]["annotations"]["elect/record"] = "{".into());
        scene.leader.wait_for_log("leader command ended");
        scene.server.delete_lease(&scene.namespace(), LEASE);
    });
}

#[test]
fn an_expired_token_costs_the_term_and_a_fresh_one_brings_the_next() {
    let server = ApiServer::start();
    server.accept_tokens(&[("t1", USER)]);
    let folder = Sandbox::new();
    let file = folder.path().join("token");
    fs::write(&file, "t1\n").expect("written");
    let scene = Scene::with(&server, ApiServer::TTL, |elect, sandbox| {
        elect.store(server.url_for(sandbox)).flag("--password-file", &file.display().to_string())
    });
    // Rotated in time.
    fs::write(&file, "t2\n").expect("written");
    server.accept_tokens(&[("t2", USER)]);
    scene.goes_on(2);
    // Not rotated.
    server.accept_tokens(&[("t3", USER)]);
    scene.leader.wait_for_log("leader command ended");
    fs::write(&file, "t3\n").expect("written");
    scene.sandbox.starts(2);
    scene.ends("an expired token");
}

pub fn tls(files: &CertificateFiles) -> Arc<ServerConfig> {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let chain = CertificateDer::pem_file_iter(&files.certificate).expect("a file").collect::<Result<_, _>>();
    let key = PrivateKeyDer::from_pem_file(&files.key).expect("a key");
    let config = ServerConfig::builder().with_no_client_auth();
    Arc::new(config.with_single_cert(chain.expect("certificates"), key).expect("a pair"))
}

#[test]
fn a_replaced_authority_is_read_with_the_next_connection() {
    let (old, new) = (Certificates::new(), Certificates::new());
    let server = ApiServer::at("127.0.0.1", Some(tls(&old.server())));
    let folder = Sandbox::new();
    let ca = folder.path().join("ca.crt");
    fs::copy(old.ca(), &ca).expect("copied");
    let scene = Scene::with(&server, ApiServer::TTL, |elect, sandbox| {
        let url = format!("kubernetes://{}/{}", server.address(), namespace(&sandbox.database()));
        elect.store(url).flag("--tls-ca", &ca.display().to_string())
    });
    fs::copy(new.ca(), &ca).expect("copied");
    server.set_tls(tls(&new.server()));
    server.restart();
    scene.goes_on(2);
    let stranger = ElectCmd::new(&folder).store(format!("kubernetes://{}/default", server.address()));
    let refused = stranger.flag("--tls-ca", &old.ca()).command(["true"]).run();
    assert_eq!(refused.status.code(), Some(77), "{refused:?}");
    refused.stderr_contains(&["certificate", "--tls-ca"]);
    scene.ends("a rotated authority");
}
