//! The facts about a MongoDB that a person should know.

use ::mongodb::bson::doc;

use super::server::MongoServer;
use super::ttl_index;
use crate::store::Finding;
use crate::store::connection::errors::excerpt;

pub async fn facts(server: &MongoServer) -> Vec<Finding> {
    let database = server.boundaries.client().database("admin");
    let version = database.run_command(doc! { "buildInfo": 1 }).await.ok();
    let version = version.as_ref().and_then(|info| info.get_str("version").ok()).map(excerpt);
    let version = version.map(|version| Finding::ok("version", version));
    let topology = if server.is_replicated {
        Finding::ok("topology", "a replica set, or a cluster: nobody leads by what a majority has not confirmed")
    } else {
        let detail = "one server alone, without a replica set: nobody leads while it is down";
        Finding::warn("topology", detail, "a replica set of three members survives the loss of one")
    };
    let index = match ttl_index::find_unsafe_index(&server.boundaries).await {
        Ok(Some(index)) => {
            let detail = format!("the index {index} may remove the record of a leader");
            Some(Finding::warn("index", detail, "drop it"))
        }
        Ok(None) | Err(_) => None,
    };
    let changes = match server.changes().find_obstacle().await {
        Some(why) => {
            let advice =
                "grant listCollections, or drop a collection of that name that is not needed: see elect-stores(7)";
            Some(Finding::warn("changes", format!("no hand-over is told at once: {why}"), advice))
        }
        None => None,
    };
    version.into_iter().chain([topology]).chain(index).chain(changes).collect()
}
