//! Records edited behind the candidates' backs: what another program, a newer elect or a person may leave in a store.

use std::fs;
use std::path::PathBuf;

use super::StoreUnderTest;
use elect_core::limits;

/// A record beside which no candidate of this elect campaigns (S1, S6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plant {
    /// Of a format that this elect does not know.
    NewerFormat,
    /// With an id longer than any that elect makes.
    LongId,
    /// With a term that is not believed.
    HugeTerm,
    /// With the largest number that eight bytes hold as its term.
    LargestTerm,
    /// Larger than any record of elect.
    TooLarge,
    /// Written by another program.
    Foreign,
}

pub const PLANTS: [Plant; 6] =
    [Plant::NewerFormat, Plant::LongId, Plant::HugeTerm, Plant::LargestTerm, Plant::TooLarge, Plant::Foreign];

/// A field of a record, and what it is to say.
enum Edit {
    Text(&'static str, String),
    Number(&'static str, u64),
}

impl Plant {
    /// Not every store can hold each: in an etcd a value that is not elect's is another program's candidate, and the lock
    /// excludes the writer of a file that is not a record.
    pub fn is_possible(self, site: &StoreUnderTest) -> bool {
        match self {
            Plant::Foreign => !matches!(site.kind(), "etcd" | "file"),
            // BSON has no such number.
            Plant::LargestTerm => site.kind() != "mongodb",
            Plant::NewerFormat | Plant::LongId | Plant::HugeTerm | Plant::TooLarge => true,
        }
    }

    fn edit(self) -> Option<Edit> {
        match self {
            Plant::NewerFormat => Some(Edit::Number("version", 1000)),
            Plant::LongId => Some(Edit::Text("id", "i".repeat(limits::ID_BYTES_MAX + 1))),
            Plant::HugeTerm => Some(Edit::Number("term", limits::TERM_MAX + 1)),
            Plant::LargestTerm => Some(Edit::Number("term", u64::MAX)),
            Plant::TooLarge => Some(Edit::Text("name", "n".repeat(limits::RECORD_BYTES_MAX + 1))),
            Plant::Foreign => None,
        }
    }
}

impl StoreUnderTest {
    /// Changes a record that is there: of a boundary that was led, and has a plain name. (In an etcd nothing is there then: the
    /// record is that of one more candidate.)
    pub async fn plant(&self, boundary: &str, plant: Plant) {
        match self.kind() {
            "file" => self.plant_in_file(boundary, plant),
            #[cfg(feature = "etcd")]
            "etcd" => etcd::plant(self, boundary, plant).await,
            #[cfg(feature = "redis")]
            "redis" => redis::plant(self, boundary, plant).await,
            #[cfg(feature = "mongodb")]
            "mongodb" => mongodb::plant(self, boundary, plant).await,
            other => panic!("no records of {other} are edited"),
        }
    }

    /// Deletes what there is of a boundary; in a directory the lock file, too.
    pub async fn delete(&self, boundary: &str) {
        match self.kind() {
            "file" => {
                for file in [self.file(boundary, "lock"), self.file(boundary, "json")] {
                    fs::remove_file(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
                }
            }
            #[cfg(feature = "etcd")]
            "etcd" => etcd::delete(self, boundary).await,
            #[cfg(feature = "redis")]
            "redis" => redis::delete(self, boundary).await,
            #[cfg(feature = "mongodb")]
            "mongodb" => mongodb::delete(self, boundary).await,
            other => panic!("no records of {other} are deleted"),
        }
    }

    /// Whether the store tells of changes: all do but a MongoDB that is not a member of a set.
    pub async fn has_hints(&self) -> bool {
        match self.kind() {
            #[cfg(feature = "mongodb")]
            "mongodb" => mongodb::is_replicated(self).await,
            _ => true,
        }
    }

    fn file(&self, boundary: &str, extension: &str) -> PathBuf {
        let directory = self.url.strip_prefix("file:").expect("a directory");
        PathBuf::from(directory).join(format!("{boundary}.{extension}"))
    }

    fn plant_in_file(&self, boundary: &str, plant: Plant) {
        let path = self.file(boundary, "json");
        let text = fs::read(&path).expect("it was led");
        let mut record: serde_json::Value = serde_json::from_slice(&text).expect("a record");
        match plant.edit() {
            Some(Edit::Text(name, value)) => record[name] = value.into(),
            Some(Edit::Number(name, value)) => record[name] = value.into(),
            None => panic!("{plant:?} is replaced in a directory"),
        }
        fs::write(&path, record.to_string()).expect("written");
    }
}

#[cfg(feature = "etcd")]
mod etcd {
    use etcd_client::{Client, DeleteOptions};

    use super::{Edit, Plant, StoreUnderTest};

    async fn client(site: &StoreUnderTest) -> (Client, String) {
        let client = Client::connect([site.address()], None).await.expect("an etcd");
        let rest = site.url.split_once("//").map_or("", |(_, rest)| rest);
        (client, rest.split_once('/').map_or_else(|| "/elect/".to_owned(), |(_, prefix)| format!("/{prefix}/")))
    }

    pub async fn plant(site: &StoreUnderTest, boundary: &str, plant: Plant) {
        let (mut client, prefix) = client(site).await;
        let mut value = serde_json::json!({
            "version": 2, "id": "planted", "name": "planted", "host": "host", "port": null, "ttl": 10_000, "term": 1,
        });
        match plant.edit() {
            Some(Edit::Text(name, text)) => value[name] = text.into(),
            Some(Edit::Number(name, number)) => value[name] = number.into(),
            None => panic!("{plant:?} is another candidate in an etcd"),
        }
        client.put(format!("{prefix}{boundary}/1f"), value.to_string(), None).await.expect("put");
    }

    pub async fn delete(site: &StoreUnderTest, boundary: &str) {
        let (mut client, prefix) = client(site).await;
        let below = DeleteOptions::new().with_prefix();
        client.delete(format!("{prefix}{boundary}/"), Some(below)).await.expect("deleted");
    }
}

#[cfg(feature = "redis")]
mod redis {
    use ::redis::aio::MultiplexedConnection;
    use ::redis::{Client, cmd};

    use super::{Edit, Plant, StoreUnderTest};

    async fn connection(site: &StoreUnderTest) -> (MultiplexedConnection, String) {
        let (url, prefix) = site.url.split_once("?prefix=").unwrap_or((&site.url, "elect:"));
        let client = Client::open(url).expect("a URL");
        (client.get_multiplexed_async_connection().await.expect("a Redis"), prefix.to_owned())
    }

    pub async fn plant(site: &StoreUnderTest, boundary: &str, plant: Plant) {
        let (mut connection, prefix) = connection(site).await;
        let key = format!("{prefix}{boundary}");
        let mut command = cmd("HSET");
        command.arg(&key);
        match plant.edit() {
            Some(Edit::Text(name, text)) => command.arg(name).arg(text),
            Some(Edit::Number(name, number)) => command.arg(name).arg(number),
            None => {
                command = cmd("SET");
                command.arg(&key).arg("of another program")
            }
        };
        command.exec_async(&mut connection).await.expect("edited");
    }

    pub async fn delete(site: &StoreUnderTest, boundary: &str) {
        let (mut connection, prefix) = connection(site).await;
        cmd("DEL").arg(format!("{prefix}{boundary}")).exec_async(&mut connection).await.expect("deleted");
    }
}

#[cfg(feature = "mongodb")]
mod mongodb {
    use ::mongodb::bson::{Document, doc};
    use ::mongodb::{Client, Collection, Database};

    use super::{Edit, Plant, StoreUnderTest};

    async fn database(site: &StoreUnderTest) -> Database {
        let url = format!("mongodb://{}/?directConnection=true&w=majority", site.address());
        Client::with_uri_str(url).await.expect("a MongoDB").database(site.database())
    }

    async fn boundaries(site: &StoreUnderTest) -> Collection<Document> {
        database(site).await.collection("boundaries")
    }

    pub async fn is_replicated(site: &StoreUnderTest) -> bool {
        let hello = database(site).await.run_command(doc! { "hello": 1 }).await.expect("an answer");
        hello.contains_key("setName")
    }

    pub async fn plant(site: &StoreUnderTest, boundary: &str, plant: Plant) {
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

    pub async fn delete(site: &StoreUnderTest, boundary: &str) {
        boundaries(site).await.delete_one(doc! { "_id": boundary }).await.expect("deleted");
    }
}
