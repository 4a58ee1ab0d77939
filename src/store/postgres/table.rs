//! The table: made by the first candidate that may, and refused where it cannot keep a record (DESIGN.md 5.6).

use std::sync::Arc;

use tokio_postgres::types::Type;
use tracing::debug;

use super::server::{PostgresServer, value};
use super::settings::Settings;
use super::statements::first_row;
use crate::store::StoreError;

const LOOK: &str = "SELECT c.relkind::text AS kind, c.relpersistence::text AS persistence, c.relrowsecurity AS has_row_security, \
     EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND NOT t.tgisinternal) AS has_triggers, \
     EXISTS (SELECT FROM pg_rewrite r WHERE r.ev_class = c.oid) AS has_rules, \
     EXISTS (SELECT FROM pg_inherits h WHERE h.inhparent = c.oid) AS has_children, \
     EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum = i.indkey[0] \
     WHERE i.indrelid = c.oid AND a.attname = 'boundary' AND i.indnkeyatts = 1 AND i.indisunique AND i.indimmediate \
     AND i.indisvalid AND i.indpred IS NULL) AS is_unique \
     FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE n.nspname = $1::text AND c.relname = 'elect_boundaries'";

/// A table that is made by others is looked for so often.
const LOOKS_MAX: usize = 3;

/// Looks at the table, and makes it if there is none.
///
/// # Errors
///
/// It is missing and may not be made, or is such that records in it would not be safe.
pub async fn ensure(server: &mut PostgresServer, settings: &Settings) -> Result<(), StoreError> {
    for _ in 0..LOOKS_MAX {
        if is_there(server, settings).await? {
            return Ok(());
        }
        make(server, settings).await?;
    }
    Err(StoreError::Unavailable(format!("{}: the table of elect is being made by another program", server.address())))
}

async fn make(server: &mut PostgresServer, settings: &Settings) -> Result<(), StoreError> {
    let statements = Arc::clone(&server.statements);
    let question = "SELECT count(*) AS count FROM pg_namespace WHERE nspname = $1::text";
    let schemas: i64 = value(&server.ask_one(question, &[(&settings.schema, Type::TEXT)]).await?, "count")?;
    if schemas == 0 {
        server.create(&statements.create_schema).await?;
    }
    let mark = uuid::Uuid::new_v4().to_string();
    let first = first_row(&statements.table, &mark, &server.life.incarnation);
    server.create(&format!("{}; {first}", statements.create_table)).await?;
    Ok(())
}

/// Removes the records of other boundaries that were not used for seven days, not before their term has passed. Nothing depends on
/// it, and a user who may not delete leaves that to others.
pub async fn tidy(server: &mut PostgresServer, boundary: &str) -> Result<(), StoreError> {
    let statements = Arc::clone(&server.statements);
    if !server.attempt_optional(&statements.tidy, &[(&boundary, Type::TEXT)]).await? {
        debug!("records that are not used for seven days stay: the right to DELETE on {} is missing", statements.table);
    }
    Ok(())
}

/// Whether there is a table in which records are safe.
async fn is_there(server: &mut PostgresServer, settings: &Settings) -> Result<bool, StoreError> {
    let rows = server.ask(LOOK, &[(&settings.schema, Type::TEXT)]).await?;
    let Some(row) = rows.first() else { return Ok(false) };
    let (kind, persistence): (String, String) = (value(row, "kind")?, value(row, "persistence")?);
    let is = |name| value::<bool>(row, name);
    let fault = match kind.as_str() {
        "r" if persistence == "u" => "is unlogged, so that a crash empties it",
        "r" if persistence != "p" => "is temporary, so that other candidates do not see it",
        "r" if is("has_row_security")? => "has row-level security, which may hide a record",
        "r" if is("has_triggers")? => "has triggers, which may change a write",
        "r" if is("has_rules")? => "has rules, which may change a write",
        "r" if is("has_children")? => "has child tables, which may hold another record of a boundary",
        "r" if !is("is_unique")? => "has no unique index on boundary alone, so that two candidates may lead",
        "r" => return Ok(true),
        "p" => "is partitioned",
        "f" => "is a foreign table, whose writes are another server's",
        "v" | "m" => "is a view",
        _ => "is no table",
    };
    let table = &server.statements.table;
    Err(server.refused(&format!(
        "cannot hold elections in {table}, which {fault}: make it a plain table, or name another schema with ?schema="
    )))
}
