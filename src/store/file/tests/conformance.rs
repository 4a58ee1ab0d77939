//! The facts about the file store that the conformance suite needs, and its edits of records there.

use std::fs;
use std::path::PathBuf;

use async_trait::async_trait;

use crate::store::conformance::StoreUnderTest;
use crate::store::conformance::tools::{ConformanceSupport, Plant};

#[derive(Debug)]
pub struct FileSupport;

fn file(site: &StoreUnderTest, boundary: &str, extension: &str) -> PathBuf {
    let directory = site.url.strip_prefix("file:").expect("a directory");
    PathBuf::from(directory).join(format!("{boundary}.{extension}"))
}

#[async_trait(?Send)]
impl ConformanceSupport for FileSupport {
    /// The lock excludes the writer of a file that is not a record.
    fn can_hold(&self, plant: Plant) -> bool {
        plant != Plant::Foreign
    }

    async fn plant(&self, site: &StoreUnderTest, boundary: &str, plant: Plant) {
        let path = file(site, boundary, "json");
        let text = fs::read(&path).expect("it was led");
        let mut record: serde_json::Value = serde_json::from_slice(&text).expect("a record");
        plant.edit().expect("what can be held").apply(&mut record);
        fs::write(&path, record.to_string()).expect("written");
    }

    /// The lock file, too.
    async fn delete(&self, site: &StoreUnderTest, boundary: &str) {
        for file in [file(site, boundary, "lock"), file(site, boundary, "json")] {
            fs::remove_file(&file).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        }
    }

    fn refused(&self, site: &StoreUnderTest) -> StoreUnderTest {
        let site = site.apart("not-a-directory");
        fs::write(site.url.strip_prefix("file:").expect("a path"), "").expect("a file");
        site
    }

    fn record_decides(&self) -> bool {
        false
    }
}
