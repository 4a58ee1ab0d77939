//! The facts about an etcd that the conformance suite needs, and its edits of records there.

use async_trait::async_trait;
use etcd_client::{Client, DeleteOptions, LeaseGrantOptions, PutOptions};

use crate::store::conformance::StoreUnderTest;
use crate::store::conformance::tools::{ConformanceSupport, Plant};

#[derive(Debug)]
pub struct EtcdSupport;

async fn client(site: &StoreUnderTest) -> (Client, String) {
    let client = Client::connect([site.address()], None).await.expect("an etcd");
    let rest = site.url.split_once("//").map_or("", |(_, rest)| rest);
    (client, rest.split_once('/').map_or_else(|| "/elect/".to_owned(), |(_, prefix)| format!("/{prefix}/")))
}

#[async_trait(?Send)]
impl ConformanceSupport for EtcdSupport {
    /// A value that is not elect's is another program's candidate.
    fn knows_waiters(&self) -> bool {
        true
    }

    fn can_hold(&self, plant: Plant) -> bool {
        plant != Plant::Foreign
    }

    /// Nothing is there any more: the record is that of one more candidate.
    async fn plant(&self, site: &StoreUnderTest, boundary: &str, plant: Plant) {
        let (mut client, prefix) = client(site).await;
        let mut value = serde_json::json!({
            "version": 2, "id": "planted", "name": "planted", "host": "host", "port": null, "ttl": 10_000, "term": 1,
        });
        plant.edit().expect("what can be held").apply(&mut value);
        // It may be there.
        let _ = client.lease_grant(3600, Some(LeaseGrantOptions::new().with_id(0x1f))).await;
        let hung = PutOptions::new().with_lease(0x1f);
        client.put(format!("{prefix}{boundary}/1f"), value.to_string(), Some(hung)).await.expect("put");
    }

    async fn delete(&self, site: &StoreUnderTest, boundary: &str) {
        let (mut client, prefix) = client(site).await;
        let below = DeleteOptions::new().with_prefix();
        client.delete(format!("{prefix}{boundary}/"), Some(below)).await.expect("deleted");
    }

    fn renews_with_take(&self) -> bool {
        true
    }

    /// The age of keys does.
    fn record_decides(&self) -> bool {
        false
    }

    /// They say a lease, as a number.
    fn ids_in_requests(&self) -> bool {
        false
    }
}
