//! The facts about a PostgreSQL that the conformance suite needs, and its edits of records there.

use async_trait::async_trait;
use tokio_postgres::{Client, NoTls};

use crate::store::conformance::StoreUnderTest;
use crate::store::conformance::tools::{ConformanceSupport, Edit, Plant};

#[derive(Debug)]
pub struct PostgresSupport;

async fn client(site: &StoreUnderTest) -> Client {
    let (host, port) = site.address().split_once(':').expect("an address");
    let config = format!("host={host} port={port} user=elect dbname=postgres");
    let (client, connection) = tokio_postgres::connect(&config, NoTls).await.expect("a PostgreSQL");
    tokio::task::spawn_local(connection);
    client
}

fn table(site: &StoreUnderTest) -> String {
    let schema = site.url.split_once("schema=").map_or("public", |(_, schema)| schema);
    format!("\"{schema}\".elect_boundaries")
}

#[async_trait(?Send)]
impl ConformanceSupport for PostgresSupport {
    /// Its largest whole number has 63 bits.
    fn can_hold(&self, plant: Plant) -> bool {
        plant != Plant::LargestTerm
    }

    async fn plant(&self, site: &StoreUnderTest, boundary: &str, plant: Plant) {
        let change = match plant.edit() {
            Some(Edit::Text(name, text)) => {
                format!("{} = '{text}'", if name == "id" { "holder" } else { name })
            }
            Some(Edit::Number(name, number)) => {
                format!("{} = {number}", if name == "ttl" { "ttl_ms" } else { name })
            }
            None => "state = 'of another program'".to_owned(),
        };
        let statement = format!("UPDATE {} SET {change} WHERE boundary = $1", table(site));
        let edited = client(site).await.execute(&statement, &[&boundary]).await.expect("edited");
        assert_eq!(edited, 1, "it was led");
    }

    async fn delete(&self, site: &StoreUnderTest, boundary: &str) {
        let statement = format!("DELETE FROM {} WHERE boundary = $1", table(site));
        client(site).await.execute(&statement, &[&boundary]).await.expect("deleted");
    }

    fn part(&self, url: &str, name: &str) -> String {
        format!("{url}&schema={name}")
    }
}
