//! The conformance suite on an API server, and what is particular to this one.

mod conformance;
#[path = "../../../tests/kubernetes/double/mod.rs"]
mod double;
mod faults;
#[path = "../../../tests/kubernetes/genuine/mod.rs"]
mod genuine;
mod other_programs;
mod past;
#[path = "../../../tests/harness/ports.rs"]
mod ports;

use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::LocalSet;

use super::stored_record::ANNOTATION;
use crate::store::conformance::{StoreUnderTest, conforms};
use crate::store::url::StoreUrl;
use crate::store::worker::{Events, channel};
use crate::store::{
    Access, CampaignResult, Candidacy, Identity, Observation, Password, RenewResult, Store, StoreError,
};
use conformance::KubernetesSupport;
use double::ApiServer;
use elect_core::{Term, Time};
use elect_keeper::clock;
use genuine::GenuineServer;
use ports::free_port;

/// Longer than anything takes; only a test that fails waits so long.
const LIMIT: Duration = Duration::from_secs(60);
const TTL: Duration = Duration::from_secs(2);
const NAMESPACE: &str = "default";

fn access() -> Access {
    Access {
        request_timeout: Duration::from_secs(5),
        renew_interval: Duration::from_secs(1),
        password: Some(Password("secret".to_owned())),
        ..Access::default()
    }
}

#[test]
fn it_conforms() {
    let server = ApiServer::start();
    server.accept_tokens(&[("secret", double::USER)]);
    all_conform(url_of(&server), KubernetesSupport { server });
}

/// With `--long`, or with `ELECT_GENUINE=1` once `fetch.sh` has made the server.
#[test]
fn it_conforms_on_the_genuine_server() {
    if ["ELECT_LONG", "ELECT_GENUINE"].iter().any(|name| std::env::var_os(name).is_some()) {
        let server = GenuineServer::at("127.0.0.1", "secret");
        all_conform(format!("kubernetes+http://{}/{NAMESPACE}", server.address()), KubernetesSupport { server });
    }
}

fn all_conform<S: conformance::LeaseEditor + 'static>(url: String, support: KubernetesSupport<S>) {
    // A genuine server ends with this thread.
    let support = Box::leak(Box::new(support));
    conforms(&StoreUnderTest { url, access: access(), ttl: Duration::from_secs(6), support });
}

fn url_of(server: &ApiServer) -> String {
    format!("kubernetes+http://{}/{NAMESPACE}", server.address())
}

/// A candidate's end of the store, without anything around it.
struct LeaseCandidate {
    store: Box<dyn Store>,
    candidacy: Candidacy,
    events: Events,
}

impl LeaseCandidate {
    fn new(server: &ApiServer, name: &str) -> LeaseCandidate {
        LeaseCandidate::at(&url_of(server), name, &access())
    }

    fn at(url: &str, name: &str, access: &Access) -> LeaseCandidate {
        let (hints, events) = channel();
        let store = StoreUrl::parse(url).expect("a URL").open(access, hints).expect("opened");
        let id = uuid::Uuid::new_v4().to_string();
        let identity = Identity { id, name: name.to_owned(), host: "h".to_owned(), port: None };
        let boundary = "cron".parse().expect("a boundary");
        LeaseCandidate { store, candidacy: Candidacy { boundary, identity, ttl: TTL }, events }
    }

    async fn campaign(&mut self) -> Result<CampaignResult, StoreError> {
        self.store.claim(&self.candidacy)?;
        self.store.campaign(&self.candidacy).await
    }

    async fn renew(&mut self) -> Result<RenewResult, StoreError> {
        self.store.renew(&self.candidacy).await
    }

    /// When it was sent.
    async fn renews(&mut self) -> Time {
        let renewal = self.renew().await;
        let Ok(RenewResult::Credited { sent, .. }) = renewal else { panic!("not credited: {renewal:?}") };
        sent
    }

    async fn release(&mut self) {
        self.store.release(&self.candidacy).await.expect("released");
    }

    async fn waits(&mut self) -> Observation {
        match self.campaign().await {
            Ok(CampaignResult::Waiting { observation, .. }) => observation,
            other => panic!("it does not wait: {other:?}"),
        }
    }

    async fn win(&mut self) -> Term {
        let limit = clock::now() + LIMIT;
        loop {
            if let Ok(CampaignResult::Won { term }) = self.campaign().await {
                return term;
            }
            assert!(clock::now() < limit, "it does not win");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn with_server(test: impl AsyncFnOnce(&ApiServer)) {
    let server = ApiServer::start();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    LocalSet::new().block_on(&runtime, test(&server));
}

fn lease(server: &ApiServer) -> Value {
    server.lease(NAMESPACE, "cron").expect("a Lease")
}

fn edit(server: &ApiServer, change: impl FnOnce(&mut Value)) {
    server.edit_lease(NAMESPACE, "cron", change);
}

/// The same with a Lease that is free.
fn edit_new(server: &ApiServer, change: impl FnOnce(&mut Value)) {
    server.with_objects(|objects| objects.add(double::Kind::Lease, NAMESPACE, "cron", json!({ "spec": {} })));
    edit(server, change);
}

fn record(lease: &Value) -> Value {
    serde_json::from_str(lease["metadata"]["annotations"][ANNOTATION].as_str().expect("an annotation")).expect("JSON")
}

/// A Lease as client-go writes it.
fn held_by_go(lease: &mut Value, renew_time: &str) {
    let transitions = lease["spec"]["leaseTransitions"].as_i64().unwrap_or(0) + 1;
    lease["spec"] = json!({
        "holderIdentity": "go_1", "leaseDurationSeconds": 2, "leaseTransitions": transitions,
        "acquireTime": renew_time, "renewTime": renew_time,
    });
}
