//! The facts about a MongoDB that the conformance suite needs, and its edits of records there.

use ::mongodb::bson::{Document, doc};
use ::mongodb::{Client, Collection, Database};
use async_trait::async_trait;

use crate::store::conformance::StoreUnderTest;
use crate::store::conformance::tools::{ConformanceSupport, Edit, Plant};

#[derive(Debug)]
pub struct MongodbSupport;

async fn database(site: &StoreUnderTest) -> Database {
    let url = format!("mongodb://{}/?directConnection=true&w=majority", site.address());
    let (_, path) = site.url.rsplit_once('/').expect("a database");
    let name = path.split('?').next().unwrap_or_default();
    Client::with_uri_str(url).await.expect("a MongoDB").database(name)
}

async fn boundaries(site: &StoreUnderTest) -> Collection<Document> {
    database(site).await.collection("boundaries")
}

#[async_trait(?Send)]
impl ConformanceSupport for MongodbSupport {
    /// BSON has no number that large.
    fn can_hold(&self, plant: Plant) -> bool {
        plant != Plant::LargestTerm
    }

    async fn plant(&self, site: &StoreUnderTest, boundary: &str, plant: Plant) {
        let change = match plant.edit() {
            Some(Edit::Text("id", text)) => doc! { "$set": { "leaderUUID": text } },
            Some(Edit::Text(_, text)) => doc! { "$set": { "leaderName": text } },
            Some(Edit::Number(name, number)) => {
                doc! { "$set": { name: i64::try_from(number).expect("a number of BSON") } }
            }
            None => doc! { "$unset": { "version": 1, "state": 1, "term": 1 } },
        };
        let done = boundaries(site).await.update_one(doc! { "_id": boundary }, change).await.expect("edited");
        assert_eq!(done.matched_count, 1, "it was led");
    }

    async fn delete(&self, site: &StoreUnderTest, boundary: &str) {
        boundaries(site).await.delete_one(doc! { "_id": boundary }).await.expect("deleted");
    }

    fn part(&self, url: &str, name: &str) -> String {
        format!("{url}-{name}")
    }

    /// A replica set tells its members' own addresses.
    fn behind_gate(&self, url: String) -> String {
        format!("{url}?directConnection=true")
    }
}
