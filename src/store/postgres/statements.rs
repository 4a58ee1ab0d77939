//! The statements, each of which is one round trip without a name and commits by itself, so that any pooler will do.
//!
//! Every write begins with `life`, a subquery that is executed once and first: it states where and when the write is executed,
//! sets `synchronous_commit`, and `client_min_messages` to a level at which the server tells of a commit that
//! did not wait for its standby (S5). Rows are locked without waiting: a candidate that finds a lock reads the record again.

use elect_core::boundary;
use elect_core::limits::{BOUNDARIES_MAX, NAME_BYTES_MAX, RECORD_BYTES_MAX};

/// The part of its life that a server tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LifeSource {
    /// Its timeline, from the name of the WAL file: the control file tells it only after the next checkpoint. A server that does
    /// not wait for its disk may forget something at every start, so that its start joins in.
    Timeline,
    /// Only its start, as an Aurora, which keeps its WAL to itself.
    Start,
}

const START: &str = "extract(epoch FROM pg_postmaster_start_time())::text";

/// The life of this server: it is another one whenever the server may have forgotten something. Of a standby it is empty.
pub fn incarnation(source: LifeSource) -> String {
    let life = match source {
        LifeSource::Timeline => format!(
            "substr(pg_walfile_name(pg_current_wal_insert_lsn()), 1, 8) \
             || CASE WHEN {IS_DURABLE} THEN '' ELSE '/' || {START} END"
        ),
        LifeSource::Start => format!("'-/' || {START}"),
    };
    format!(
        "CASE WHEN pg_is_in_recovery() THEN '' ELSE \
         (SELECT system_identifier::text FROM pg_control_system()) || '/' || {life} END"
    )
}

/// Whether a crash of the server's host loses nothing that was confirmed.
pub const IS_DURABLE: &str = "(current_setting('fsync') = 'on' AND current_setting('full_page_writes') = 'on')";

/// The wall clock, not the beginning of the transaction.
const NOW: &str = "floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint";

/// Commits that must not be lost: `remote_apply` stays.
const CONFIRMED: &str =
    "CASE WHEN current_setting('synchronous_commit') = 'remote_apply' THEN 'remote_apply' ELSE 'on' END";

/// Commits that no decision counts on wait for no standby.
const UNCONFIRMED: &str = "'local'";

/// The commit of a take of a free or missing record waits for neither disk nor standby: it starts no lease. The first renewal, which
/// does, comes after it in the WAL, so that whatever confirms the renewal has the take.
const UNFLUSHED: &str = "'off'";

/// All statements on one table.
#[derive(Debug, Clone)]
pub struct Statements {
    pub look: String,
    pub look_at_all: String,
    /// Waits for a confirmation if the record was not free (5.6).
    pub take: String,
    /// Makes the record, and takes it (S2).
    pub take_missing: String,
    pub renew: String,
    pub vacate: String,
    pub release: String,
    /// The schema, if the table cannot be made without it.
    pub create_schema: String,
    pub create_table: String,
    /// Removes the records that were not used for long.
    pub tidy: String,
    /// As people write it.
    pub table: String,
}

/// A name as an identifier.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn life(source: LifeSource, commit: &str) -> String {
    let incarnation = incarnation(source);
    format!(
        "life AS MATERIALIZED (SELECT {incarnation} AS incarnation, clock_timestamp() AS at, {NOW} AS ms, \
         current_setting('synchronous_standby_names') <> '' AS is_synchronous, \
         set_config('client_min_messages', 'warning', true) AS messages, \
         set_config('synchronous_commit', {commit}, true) AS synchronous)"
    )
}

/// The columns of a record, within their limits.
fn columns() -> String {
    // One more than is kept, so that what is cut can be told.
    let text = NAME_BYTES_MAX + 1;
    // An infinite time would end the whole statement.
    let millis = |time: &str| {
        format!("CASE WHEN isfinite({time}) THEN floor(extract(epoch FROM {time}) * 1000)::bigint ELSE 0 END")
    };
    let (since, renewed) = (millis("b.since"), millis("b.renewed"));
    format!(
        "octet_length(b.name) + octet_length(b.host) + octet_length(b.holder) + octet_length(b.incarnation) > {RECORD_BYTES_MAX} \
         AS is_too_large, b.version, left(b.state, 16) AS state, left(b.holder, {text}) AS holder, left(b.name, {text}) AS name, \
         left(b.host, {text}) AS host, b.port, b.term, b.\"former\", b.nonce, b.ttl_ms, left(b.incarnation, {text}) AS incarnation, \
         {since} AS since_ms, {renewed} AS renewed_ms, \
         left(b.successor, {text}) AS successor, b.within_ms, b.reserved_term"
    )
}

/// Where and when a look was made.
fn place(source: LifeSource) -> String {
    let incarnation = incarnation(source);
    format!("{incarnation} AS present, pg_is_in_recovery() AS is_standby, {NOW} AS now_ms")
}

/// The first row of a table: it is there from the beginning of the table on, and says in which life of the server that was (S2).
/// `mark` is new with each.
pub fn first_row(table: &str, mark: &str, incarnation: &str) -> String {
    let incarnation = incarnation.replace('\'', "''");
    format!(
        "INSERT INTO {table} (boundary, version, state, holder, name, host, term, nonce, ttl_ms, incarnation, since, renewed) \
         VALUES ('', 2, 'vacant', '{mark}', '', '', 0, 0, 0, '{incarnation}', now(), now()) ON CONFLICT DO NOTHING"
    )
}

impl Statements {
    pub fn new(schema: &str, source: LifeSource) -> Statements {
        let table = format!("{}.elect_boundaries", quoted(schema));
        let (life, columns, place) = (life(source, CONFIRMED), columns(), place(source));
        let [unconfirmed, unflushed] = [UNCONFIRMED, UNFLUSHED].map(|commit| self::life(source, commit));
        let taking = self::life(source, &format!("CASE WHEN $5::text = 'free' THEN {UNFLUSHED} ELSE {CONFIRMED} END"));
        Statements {
            look: format!(
                "SELECT {place}, b.boundary, {columns}, left(f.holder, 64) AS first_holder, \
                 left(f.incarnation, 128) AS first_incarnation FROM (SELECT 1) one \
                 LEFT JOIN {table} b ON b.boundary = $1::text LEFT JOIN {table} f ON f.boundary = ''"
            ),
            look_at_all: format!(
                "SELECT {place}, b.boundary, {columns} FROM {table} b WHERE octet_length(b.boundary) <= {} \
                 ORDER BY b.boundary LIMIT {BOUNDARIES_MAX}",
                boundary::LONGEST
            ),
            take: format!(
                "WITH {taking}, seen AS MATERIALIZED (SELECT b.boundary, b.term, b.state FROM {table} b, life \
                 WHERE b.boundary = $1::text AND b.holder = $2::text AND b.term = $3::bigint AND b.nonce = $4::bigint \
                 AND b.state = $5::text AND b.incarnation = $6::text AND life.incarnation = $7::text FOR UPDATE OF b NOWAIT), \
                 written AS (UPDATE {table} b SET version = $8::int, state = 'held', holder = $9::text, name = $10::text, \
                 host = $11::text, port = $12::int, term = greatest(seen.term + 1, life.ms, $13::bigint), \
                 former = CASE WHEN seen.state = 'vacant' THEN NULL ELSE seen.term END, nonce = $14::bigint, \
                 ttl_ms = $15::bigint, incarnation = life.incarnation, since = life.at, renewed = life.at, successor = NULL, \
                 within_ms = NULL, reserved_term = NULL FROM seen, life WHERE b.boundary = seen.boundary RETURNING b.term) \
                 SELECT written.term, life.incarnation, life.is_synchronous, pg_notify('elect', $1::text)::text \
                 FROM written, life"
            ),
            take_missing: format!(
                "WITH {unflushed}, written AS (INSERT INTO {table} (boundary, version, state, holder, name, host, port, term, nonce, \
                 ttl_ms, incarnation, since, renewed) SELECT $1::text, $2::int, 'held', $3::text, $4::text, $5::text, $6::int, \
                 greatest(life.ms, $7::bigint), $8::bigint, $9::bigint, life.incarnation, life.at, life.at FROM life \
                 WHERE life.incarnation = $10::text AND EXISTS (SELECT FROM {table} f WHERE f.boundary = '' \
                 AND f.holder = $11::text AND f.incarnation = life.incarnation) ON CONFLICT DO NOTHING RETURNING term) \
                 SELECT life.incarnation, written.term, life.is_synchronous, pg_notify('elect', $1::text)::text \
                 FROM written, life"
            ),
            renew: format!(
                "WITH {life}, seen AS MATERIALIZED (SELECT b.boundary, b.name, b.host, b.port FROM {table} b, life \
                 WHERE b.boundary = $1::text AND b.holder = $2::text AND b.term = $3::bigint AND b.state = 'held' \
                 AND b.nonce < $4::bigint FOR UPDATE OF b NOWAIT), \
                 written AS (UPDATE {table} b SET nonce = $4::bigint, name = $5::text, host = $6::text, port = $7::int, \
                 renewed = life.at, incarnation = coalesce($8::text, b.incarnation) FROM seen, life \
                 WHERE b.boundary = seen.boundary RETURNING b.ttl_ms, \
                 (seen.name, seen.host, seen.port) IS DISTINCT FROM ($5::text, $6::text, $7::int) AS is_renamed) \
                 SELECT written.ttl_ms, life.incarnation, life.is_synchronous, \
                 CASE WHEN written.is_renamed THEN pg_notify('elect', $1::text)::text END FROM written, life"
            ),
            vacate: format!(
                "WITH {unconfirmed} INSERT INTO {table} (boundary, version, state, holder, name, host, term, nonce, ttl_ms, incarnation, \
                 since, renewed) SELECT $1::text, $2::int, 'vacant', $3::text, '', '', $4::bigint, $5::bigint, $6::bigint, \
                 life.incarnation, life.at, life.at FROM life ON CONFLICT DO NOTHING"
            ),
            release: format!(
                "WITH {life}, seen AS MATERIALIZED (SELECT b.boundary FROM {table} b, life \
                 WHERE b.boundary = $1::text AND b.holder = $2::text AND b.state = 'held' \
                 AND ($3::bigint IS NULL OR b.term = $3::bigint) AND ($4::bigint IS NULL OR b.nonce = $4::bigint) \
                 FOR UPDATE OF b NOWAIT), \
                 written AS (UPDATE {table} b SET state = 'free', nonce = $5::bigint, renewed = life.at, \
                 incarnation = coalesce($6::text, b.incarnation), successor = $7::text, within_ms = $8::bigint, \
                 reserved_term = b.term FROM seen, life WHERE b.boundary = seen.boundary RETURNING b.term) \
                 SELECT written.term, pg_notify('elect', $1::text)::text FROM written"
            ),
            create_schema: format!("CREATE SCHEMA IF NOT EXISTS {}", quoted(schema)),
            create_table: format!(
                "CREATE TABLE IF NOT EXISTS {table} (boundary text COLLATE \"C\" PRIMARY KEY, version int NOT NULL, \
                 state text NOT NULL, holder text NOT NULL, name text NOT NULL, host text NOT NULL, port int, \
                 term bigint NOT NULL, former bigint, nonce bigint NOT NULL, ttl_ms bigint NOT NULL, incarnation text NOT NULL, \
                 since timestamptz NOT NULL, renewed timestamptz NOT NULL, successor text, within_ms bigint, \
                 reserved_term bigint) WITH (fillfactor = 20)"
            ),
            tidy: format!(
                "WITH {unconfirmed}, old AS MATERIALIZED (SELECT b.boundary FROM {table} b, life \
                 WHERE b.boundary NOT IN ('', $1::text) AND b.state IN ('free', 'vacant') AND b.term < life.ms \
                 AND b.renewed < life.at - interval '7 days' FOR UPDATE OF b SKIP LOCKED) \
                 DELETE FROM {table} b USING old WHERE b.boundary = old.boundary"
            ),
            table,
        }
    }
}
