//! `elect check` on a MongoDB: what is left, roles, a server alone and a set.

use ::mongodb::bson::doc;

use crate::check::{Checked, check};
use crate::harness::Sandbox;
use crate::harness::server::{PASSWORD, StoreServer};
use crate::mongodb::server::{Mongod, SingleNodeReplicaSet, has};

#[test]
fn nothing_but_the_free_record_is_left_and_a_server_alone_is_warned_of() {
    let mongod = Mongod::start();
    let sandbox = Sandbox::new();
    let checked = Checked::by(check(&sandbox, mongod.url_for(&sandbox)));
    checked.exits_with(0).says("topology", "warn", &["replica set"]).says("hints", "ok", &[]);
    let left = mongod.records(&sandbox);
    assert_eq!(left.len(), 1, "{left:?}");
    assert!(has(&left[0], "_id", "elect-check") && has(&left[0], "state", "free"), "{left:?}");
}

#[test]
fn a_set_is_in_order() {
    let set = SingleNodeReplicaSet::start();
    let sandbox = Sandbox::new();
    Checked::by(check(&sandbox, set.url_for(&sandbox))).exits_with(0).says("topology", "ok", &[]).says(
        "hints",
        "ok",
        &[],
    );
}

#[test]
fn a_user_that_may_only_read_is_refused() {
    let mongod = Mongod::start();
    let sandbox = Sandbox::new();
    mongod.enable_auth();
    mongod.admin(doc! { "createUser": "reader", "pwd": PASSWORD, "roles": ["readAnyDatabase"] });
    let as_reader = check(&sandbox, format!("{}?authSource=admin", mongod.url_for(&sandbox)));
    let as_reader = as_reader.flag("--username", "reader").variable("ELECT_PASSWORD", PASSWORD);
    Checked::by(as_reader.boundary("cron")).exits_with(77).says("takes", "fail", &["not authorized"]);
}

#[test]
fn a_collection_that_is_in_the_way_of_hints_is_named() {
    let mongod = Mongod::start();
    let sandbox = Sandbox::new();
    mongod.command(&sandbox.database(), doc! { "create": "changes" });
    let checked = Checked::by(check(&sandbox, mongod.url_for(&sandbox)));
    checked.exits_with(0).says("changes", "warn", &["not elect's"]).says("hints", "warn", &["no hint"]);
}
