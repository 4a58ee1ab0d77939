//! The elections of mongoelector, which elect recognizes and takes no part in.
//!
//! Its records are documents of the collection `Elector` in a database of the program's own: `_id` the boundary, `ttlExpire` a date
//! by the leader's wall clock, `leaderUUID` an object id, `leaderHostname` and `leaderPort`. Each of its candidates deletes a record
//! that has expired by *its own* wall clock, so that no leader can rely on one; elect could neither prevent that nor notice it in
//! time. It reads the record, says whose it is, and waits until it is gone.

use std::time::Duration;

use ::mongodb::Collection;
use ::mongodb::bson::{Bson, Document, doc};
use ::mongodb::error::Error;

use super::stored_record::number;
use crate::text::escaped;
use elect_core::limits::{NAME_BYTES_MAX, cut_visibly};

const COLLECTION: &str = "Elector";
/// Far more than the names in a record need.
const DOCUMENT_BYTES_MAX: i32 = 65_536;

/// Whether a document has the shape of its records, in whatever collection it is.
pub fn is_record(document: &Document) -> bool {
    matches!(document.get("leaderUUID"), Some(Bson::ObjectId(_))) && document.contains_key("leaderHostname")
}

/// A record of it, in words. `place`: where it is.
pub fn describe(document: &Document, place: &str) -> String {
    let host = document.get_str("leaderHostname").unwrap_or_default();
    let host = escaped(&cut_visibly(host, NAME_BYTES_MAX)).into_owned();
    let port = document.get("leaderPort").and_then(number).map_or_else(String::new, |port| format!(":{port}"));
    format!(
        "{place} is mongoelector's, in which {host}{port} leads: elect takes no part in its elections, because they depend on all \
         hosts' wall clocks; move that program to elect, or name another boundary or database"
    )
}

/// The election of this name beside elect's own, in words, if there is one.
///
/// # Errors
///
/// The server cannot be asked, or the user may not read that.
pub async fn find(
    boundaries: &Collection<Document>,
    boundary: &str,
    request_timeout: Duration,
) -> Result<Option<String>, Error> {
    let namespace = boundaries.namespace();
    let elector: Collection<Document> = boundaries.client().database(&namespace.db).collection(COLLECTION);
    // Another program's document may be large: elect receives the fields that it shows, and nothing of a document that is no record.
    let is_short = doc! { "$lte": [{ "$bsonSize": "$$ROOT" }, DOCUMENT_BYTES_MAX] };
    let fields = doc! { "leaderUUID": 1, "leaderHostname": 1, "leaderPort": 1 };
    let found = elector.find_one(doc! { "_id": boundary, "$expr": is_short }).projection(fields);
    let record = found.max_time(request_timeout).await?;
    let name = escaped(boundary);
    Ok(record
        .filter(is_record)
        .map(|record| describe(&record, &format!("the document with the _id {name:?} in the collection {COLLECTION}"))))
}

#[cfg(test)]
mod tests {
    use ::mongodb::bson::{DateTime, oid::ObjectId};

    use super::*;

    #[test]
    fn a_record_is_recognized_by_its_id_and_shown_with_its_leader() {
        let record = doc! {
            "_id": "cron", "ttlExpire": DateTime::from_millis(1), "leaderUUID": ObjectId::from_bytes([7; 12]),
            "leaderHostname": "web\u{1b}-1", "leaderPort": 8080_i64,
        };
        assert!(is_record(&record));
        let shown = describe(&record, "the document");
        assert!(
            shown.contains("mongoelector") && shown.contains("-1:8080 leads") && !shown.contains('\u{1b}'),
            "{shown}"
        );
        assert!(!is_record(&doc! { "leaderUUID": "a text", "leaderHostname": "h" }), "elect's");
    }
}
