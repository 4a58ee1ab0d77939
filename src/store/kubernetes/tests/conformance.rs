//! The facts about an API server that the conformance suite needs, and its edits of Leases there.

use std::fmt;

use async_trait::async_trait;
use serde_json::Value;

use super::super::name::lease_name;
use super::double::ApiServer;
use crate::store::Password;
use crate::store::conformance::StoreUnderTest;
use crate::store::conformance::tools::{ConformanceSupport, Plant};

pub struct KubernetesSupport {
    pub server: ApiServer,
}

impl fmt::Debug for KubernetesSupport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server.address())
    }
}

impl KubernetesSupport {
    pub fn of(server: ApiServer) -> KubernetesSupport {
        server.accept_tokens(&[("secret", super::double::USER)]);
        KubernetesSupport { server }
    }
}

fn namespace(site: &StoreUnderTest) -> &str {
    site.url.rsplit('/').next().expect("a namespace")
}

fn name(boundary: &str) -> String {
    lease_name(&boundary.parse().expect("a boundary"))
}

#[async_trait(?Send)]
impl ConformanceSupport for KubernetesSupport {
    fn can_hold(&self, _: Plant) -> bool {
        true
    }

    async fn plant(&self, site: &StoreUnderTest, boundary: &str, plant: Plant) {
        self.server.edit_lease(namespace(site), &name(boundary), |lease| {
            let annotation = &mut lease["metadata"]["annotations"]["elect/record"];
            let mut record: Value = serde_json::from_str(annotation.as_str().expect("a record")).expect("JSON");
            let text = match plant.edit() {
                Some(edit) => {
                    edit.apply(&mut record);
                    record.to_string()
                }
                None => "written by hand".to_owned(),
            };
            *annotation = text.into();
        });
    }

    async fn delete(&self, site: &StoreUnderTest, boundary: &str) {
        self.server.delete_lease(namespace(site), &name(boundary));
    }

    fn part(&self, url: &str, name: &str) -> String {
        let (server, _) = url.rsplit_once('/').expect("a namespace");
        format!("{server}/{name}")
    }

    fn refused(&self, site: &StoreUnderTest) -> StoreUnderTest {
        let mut site = site.clone();
        site.access.password = Some(Password("hunter2".to_owned()));
        site
    }
}
