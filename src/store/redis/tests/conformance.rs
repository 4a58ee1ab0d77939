//! The facts about a Redis that the conformance suite needs, and its edits of records there.

use ::redis::aio::MultiplexedConnection;
use ::redis::{Client, cmd};
use async_trait::async_trait;

use crate::store::conformance::StoreUnderTest;
use crate::store::conformance::tools::{ConformanceSupport, Edit, Plant};

#[derive(Debug)]
pub struct RedisSupport;

async fn connection(site: &StoreUnderTest) -> (MultiplexedConnection, String) {
    let (url, prefix) = site.url.split_once("?prefix=").unwrap_or((&site.url, "elect:"));
    let client = Client::open(url).expect("a URL");
    (client.get_multiplexed_async_connection().await.expect("a Redis"), prefix.to_owned())
}

#[async_trait(?Send)]
impl ConformanceSupport for RedisSupport {
    fn can_hold(&self, _: Plant) -> bool {
        true
    }

    async fn plant(&self, site: &StoreUnderTest, boundary: &str, plant: Plant) {
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

    async fn delete(&self, site: &StoreUnderTest, boundary: &str) {
        let (mut connection, prefix) = connection(site).await;
        cmd("DEL").arg(format!("{prefix}{boundary}")).exec_async(&mut connection).await.expect("deleted");
    }

    fn renews_with_take(&self) -> bool {
        true
    }

    fn part(&self, url: &str, name: &str) -> String {
        format!("{url}?prefix={name}:")
    }
}
