//! Classifies the errors of the client and of the servers.

use std::io;

use tokio_postgres::Error;
use tokio_postgres::error::{DbError, SqlState};

use super::settings::{HostPlace, Settings};
use super::statements::{LifeSource, Statements, first_row, quoted};
use crate::store::StoreError;
use crate::store::connection::errors::{one_line, root_cause, with_network_advice};
use crate::store::connection::tls::TlsSettings;
use crate::store::connection::tls_errors::tls_fault;

const PLAIN_FORM: &str = "?sslmode=disable";

/// The other side, as messages need it.
#[derive(Debug, Clone)]
pub struct PostgresPeer {
    pub address: String,
    username: String,
    database: String,
    tls: TlsSettings,
    schema: String,
    /// The life of the server, once it has told it.
    pub incarnation: String,
}

/// Whether the row, or what is to be made, is being written by another candidate. Nothing was done.
pub fn is_contention(error: &Error) -> bool {
    let contention = [
        SqlState::LOCK_NOT_AVAILABLE,
        SqlState::T_R_SERIALIZATION_FAILURE,
        SqlState::T_R_DEADLOCK_DETECTED,
        SqlState::UNIQUE_VIOLATION,
        SqlState::DUPLICATE_TABLE,
        SqlState::DUPLICATE_OBJECT,
        SqlState::DUPLICATE_SCHEMA,
    ];
    error.code().is_some_and(|code| contention.contains(code))
}

/// Whether there is no table, or no schema, yet.
pub fn is_missing_table(error: &Error) -> bool {
    error.code().is_some_and(|code| [SqlState::UNDEFINED_TABLE, SqlState::INVALID_SCHEMA_NAME].contains(code))
}

/// Whether the server does not tell its WAL, as an Aurora.
pub fn is_wal_refused(error: &Error) -> bool {
    let refused = [
        SqlState::FEATURE_NOT_SUPPORTED,
        SqlState::INSUFFICIENT_PRIVILEGE,
        SqlState::UNDEFINED_FUNCTION,
        SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
    ];
    error.code().is_some_and(|code| refused.contains(code))
}

/// Whether the server has refused a statement, and the connection is as good as before.
pub fn is_denial(error: &Error) -> bool {
    error.code().is_some_and(|code| *code == SqlState::INSUFFICIENT_PRIVILEGE)
}

impl PostgresPeer {
    pub fn new(settings: &Settings, place: &HostPlace) -> PostgresPeer {
        PostgresPeer {
            address: place.to_string(),
            username: settings.username.clone(),
            database: settings.database.clone(),
            tls: settings.tls.clone(),
            schema: settings.schema.clone(),
            incarnation: String::new(),
        }
    }

    /// The statements that make the table, for a person to run.
    fn ddl(&self) -> String {
        // The definitions are the same whatever the server tells of its life.
        let statements = Statements::new(&self.schema, LifeSource::Timeline);
        let (table, schema, user) = (&statements.table, quoted(&self.schema), quoted(&self.username));
        let mark = uuid::Uuid::new_v4().to_string();
        [
            statements.create_schema.clone(),
            statements.create_table.clone(),
            first_row(table, &mark, &self.incarnation),
            format!("GRANT USAGE ON SCHEMA {schema} TO {user}"),
            format!("GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {user}"),
        ]
        .join("; ")
    }

    fn unavailable(&self, what: &str) -> StoreError {
        StoreError::Unavailable(one_line(&format!("{} {what}", self.address)))
    }

    pub fn refused(&self, what: &str) -> StoreError {
        StoreError::Refused(one_line(&format!("{} {what}", self.address)))
    }

    /// Classifies a failure to connect.
    pub fn classify_io(&self, error: &io::Error) -> StoreError {
        let reason = root_cause(error);
        match tls_fault(&reason, self.tls.side(PLAIN_FORM)) {
            Some(fault) => self.refused(&fault),
            None => self.unavailable(&format!("cannot be reached: {}", with_network_advice(&reason))),
        }
    }

    /// The error for a missing right, with the statements that an administrator has to run.
    pub fn not_permitted(&self, message: &str) -> StoreError {
        // Not cut: a statement is of use as a whole.
        let (address, said) = (&self.address, one_line(message));
        StoreError::Refused(format!(
            "{address} says {said}: ask an administrator of the database to run: {}",
            self.ddl()
        ))
    }

    /// Classifies a failure.
    pub fn classify(&self, error: &Error) -> StoreError {
        if let Some(error) = error.as_db_error() {
            return self.classify_answer(error);
        }
        let (text, cause) = (error.to_string(), root_cause(error));
        if let Some(fault) = tls_fault(&cause, self.tls.side(PLAIN_FORM)) {
            return self.refused(&fault);
        }
        if text.contains("TLS handshake") && cause.contains("does not support TLS") {
            return self.refused(&format!(
                "answers without TLS, and sslmode asks for it: switch on ssl at the server, or use {PLAIN_FORM}"
            ));
        }
        if cause.contains("password missing") {
            return self.refused(&format!(
                "asks for the password of {:?}: give --password-file, ELECT_PASSWORD, the URL, PGPASSWORD or .pgpass",
                self.username
            ));
        }
        if text.contains("authentication") || cause.contains("authentication") || cause.contains("channel binding") {
            return self.refused(&format!("and elect have no method of login in common: {cause}: check pg_hba.conf"));
        }
        if error.is_closed() {
            return self.unavailable("has ended the connection");
        }
        self.unavailable(&format!("failed: {cause}"))
    }

    fn classify_answer(&self, error: &DbError) -> StoreError {
        let (code, message) = (error.code(), error.message());
        let text = code.code();
        match code {
            _ if *code == SqlState::INSUFFICIENT_PRIVILEGE => self.not_permitted(message),
            _ if text.starts_with("28") => self.refused(&format!(
                "does not let {:?} in: {message}: check user and password, and pg_hba.conf of the server",
                self.username
            )),
            _ if *code == SqlState::INVALID_CATALOG_NAME => self.refused(&format!(
                "has no database {:?}: name another one in --store, or have it created",
                self.database
            )),
            _ if *code == SqlState::READ_ONLY_SQL_TRANSACTION => self.unavailable(
                "is read-only, so that nobody can be elected there: name the primary in --store, and check \
                 default_transaction_read_only",
            ),
            _ if *code == SqlState::UNDEFINED_FUNCTION || *code == SqlState::FEATURE_NOT_SUPPORTED => {
                self.refused(&format!(
                    "lacks a feature without which no election can be held: {message}: use PostgreSQL 12 or newer"
                ))
            }
            _ if *code == SqlState::UNDEFINED_COLUMN || *code == SqlState::DATATYPE_MISMATCH => self.refused(&format!(
                "has a table elect_boundaries that is not elect's: {message}: name another ?schema="
            )),
            _ if *code == SqlState::TOO_MANY_CONNECTIONS => {
                self.unavailable(&format!("has no connection left: {message}: raise max_connections, or use ?listen=0"))
            }
            _ => self.unavailable(&format!("says {message} ({text})")),
        }
    }
}
