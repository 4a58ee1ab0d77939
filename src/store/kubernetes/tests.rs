//! The conformance suite on an API server, and what is particular to this one.

mod conformance;
#[path = "../../../tests/kubernetes/double/mod.rs"]
mod double;

use std::time::Duration;

use crate::store::{Access, Password};
use crate::store::conformance::{StoreUnderTest, conforms};
use conformance::KubernetesSupport;
use double::ApiServer;

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
    let support = KubernetesSupport::of(server);
    let (url, ttl) = (format!("kubernetes+http://{}/default", support.server.address()), Duration::from_secs(6));
    conforms(&StoreUnderTest { url, access: access(), ttl, support: Box::leak(Box::new(support)) });
}
