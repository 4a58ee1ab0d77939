//! The facts about an API server that the conformance suite needs, and its edits of Leases there.

use std::fmt;

use async_trait::async_trait;
use serde_json::Value;

use super::super::name::lease_name;
use super::double::ApiServer;
use super::genuine::GenuineServer;
use crate::store::Password;
use crate::store::conformance::StoreUnderTest;
use crate::store::conformance::tools::{ConformanceSupport, Plant};

/// A server whose Leases a test edits.
pub trait LeaseEditor {
    fn address(&self) -> String;
    fn edit_lease(&self, namespace: &str, name: &str, change: &dyn Fn(&mut Value));
    fn delete_lease(&self, namespace: &str, name: &str);
}

impl LeaseEditor for ApiServer {
    fn address(&self) -> String {
        ApiServer::address(self)
    }

    fn edit_lease(&self, namespace: &str, name: &str, change: &dyn Fn(&mut Value)) {
        ApiServer::edit_lease(self, namespace, name, change);
    }

    fn delete_lease(&self, namespace: &str, name: &str) {
        ApiServer::delete_lease(self, namespace, name);
    }
}

impl LeaseEditor for GenuineServer {
    fn address(&self) -> String {
        GenuineServer::address(self)
    }

    fn edit_lease(&self, namespace: &str, name: &str, change: &dyn Fn(&mut Value)) {
        GenuineServer::edit_lease(self, namespace, name, change);
    }

    fn delete_lease(&self, namespace: &str, name: &str) {
        GenuineServer::delete_lease(self, namespace, name);
    }
}

pub struct KubernetesSupport<S> {
    pub server: S,
}

impl<S: LeaseEditor> fmt::Debug for KubernetesSupport<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.server.address())
    }
}

fn namespace(site: &StoreUnderTest) -> &str {
    site.url.rsplit('/').next().expect("a namespace")
}

fn name(boundary: &str) -> String {
    lease_name(&boundary.parse().expect("a boundary"))
}

#[async_trait(?Send)]
impl<S: LeaseEditor> ConformanceSupport for KubernetesSupport<S> {
    fn can_hold(&self, _: Plant) -> bool {
        true
    }

    async fn plant(&self, site: &StoreUnderTest, boundary: &str, plant: Plant) {
        self.server.edit_lease(namespace(site), &name(boundary), &|lease| {
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
