//! Options that other programs put into the URL of a server: some say what a flag of elect says, some are of no consequence
//! here, and hosting providers write both into the URLs that they hand out.
//!
//! An option that neither the store nor this list knows is a usage error, since a misspelled one would be missed when it is needed.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;
use tracing::debug;

use super::tls::TlsSettings;
use crate::store::{Access, StoreError};

/// Options without any consequence for an election: sizes and times of pools, encodings, protocol versions, address families, and
/// marks for programs in between.
const WITHOUT_CONSEQUENCE: [&str; 43] = [
    "client_name",
    "connect_timeout",
    "connection_limit",
    "connection_pool",
    "conn_max_idle_time",
    "conn_max_lifetime",
    "decode_responses",
    "dial_timeout",
    "encoding",
    "encoding_errors",
    "family",
    "health_check_interval",
    "idle_timeout",
    "keepAlive",
    "lib_name",
    "max_active_conns",
    "max_connections",
    "max_idle_conns",
    "max_retries",
    "max_retry_backoff",
    "min_idle_conns",
    "min_retry_backoff",
    "pgbouncer",
    "pool_fifo",
    "pool_size",
    "pool_timeout",
    "protocol",
    "read_timeout",
    "retry_on_error",
    "retry_on_timeout",
    "single_connection_client",
    "socket_connect_timeout",
    "socket_keepalive",
    "socket_read_size",
    "socket_timeout",
    "ssl_check_hostname",
    "timeout",
    "useNewUrlParser",
    "useUnifiedTopology",
    "uuidRepresentation",
    "virtual_host",
    "write_timeout",
    "gssapiServiceName",
];

/// The options of other programs in one URL.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ForeignOptions {
    /// The option by which nothing is verified.
    skip_verify: Option<&'static str>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    ignored: Vec<&'static str>,
}

impl ForeignOptions {
    /// Takes in one option; false: it is not known.
    ///
    /// # Errors
    ///
    /// Its value makes no sense. The value is not repeated.
    pub fn take(&mut self, name: &str, value: &str) -> Result<bool, String> {
        let path = || {
            let path = percent_decode_str(value).decode_utf8().map_err(|_| format!("{name}= is not UTF-8"))?;
            Ok::<_, String>(Some(PathBuf::from(path.into_owned())).filter(|path| !path.as_os_str().is_empty()))
        };
        match name {
            "ssl_cert_reqs" => match value.trim_start_matches("CERT_").to_ascii_lowercase().as_str() {
                "none" => self.skip_verify = Some("ssl_cert_reqs=none"),
                "required" | "optional" | "" => self.ignored.push("ssl_cert_reqs"),
                _ => return Err("ssl_cert_reqs= takes none or required".to_owned()),
            },
            "skip_verify" => match value {
                "true" | "1" => self.skip_verify = Some("skip_verify=true"),
                "false" | "0" | "" => self.ignored.push("skip_verify"),
                _ => return Err("skip_verify= takes true or false".to_owned()),
            },
            "ssl_ca_certs" => self.ca = path()?,
            "ssl_certfile" => self.cert = path()?,
            "ssl_keyfile" => self.key = path()?,
            _ => match WITHOUT_CONSEQUENCE.iter().find(|known| **known == name) {
                Some(known) => self.ignored.push(known),
                None => return Ok(false),
            },
        }
        Ok(true)
    }

    /// The first one that is about TLS.
    pub fn first_about_tls(&self) -> Option<&'static str> {
        let files = [("ssl_ca_certs", &self.ca), ("ssl_certfile", &self.cert), ("ssl_keyfile", &self.key)];
        let file = files.into_iter().find_map(|(name, path)| path.as_ref().map(|_| name));
        file.or(self.skip_verify)
    }

    /// The settings that the flags name, and these options where a flag leaves something open.
    ///
    /// # Errors
    ///
    /// They do not fit together.
    pub fn tls(&self, access: &Access) -> Result<TlsSettings, StoreError> {
        let given = |flag: &Option<PathBuf>, option: &Option<PathBuf>| flag.clone().or_else(|| option.clone());
        let tls = TlsSettings::new(
            given(&access.tls_ca, &self.ca),
            given(&access.tls_cert, &self.cert),
            given(&access.tls_key, &self.key),
        )?;
        let skip = if access.tls_skip_verify { Some("--tls-skip-verify") } else { self.skip_verify };
        let ca = if access.tls_ca.is_some() { "--tls-ca" } else { "ssl_ca_certs" };
        tls.skipping_verification(skip, ca)
    }

    /// Logs the options that are ignored.
    pub fn log_ignored(&self) {
        for option in &self.ignored {
            debug!(option, "an option of the store's URL is of no consequence here");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_option_is_mapped_or_ignored_or_not_known() {
        let mut options = ForeignOptions::default();
        for (name, value) in [("ssl_cert_reqs", "CERT_NONE"), ("pgbouncer", "true"), ("socket_timeout", "5")] {
            assert_eq!(options.take(name, value), Ok(true), "{name}");
        }
        assert_eq!(options.first_about_tls(), Some("ssl_cert_reqs=none"));
        assert_eq!(options.ignored, ["pgbouncer", "socket_timeout"]);
        assert_eq!(options.take("replica", "hunter2"), Ok(false));
        assert!(options.take("ssl_cert_reqs", "hunter2").is_err_and(|error| !error.contains("hunter2")));
        assert!(options.tls(&Access::default()).expect("it makes sense").skip_verify);
    }

    #[test]
    fn flags_count_before_options_and_an_authority_excludes_that_nothing_is_verified() {
        let mut options = ForeignOptions::default();
        options.take("ssl_ca_certs", "/a%20b").expect("a path");
        let by_flag = Access { tls_ca: Some("/flag".into()), ..Access::default() };
        assert_eq!(options.tls(&Access::default()).expect("it makes sense").ca, Some("/a b".into()));
        assert_eq!(options.tls(&by_flag).expect("it makes sense").ca, Some("/flag".into()));
        let skip = Access { tls_skip_verify: true, ..Access::default() };
        let error = options.tls(&skip).expect_err("both").to_string();
        assert!(error.contains("--tls-skip-verify") && error.contains("ssl_ca_certs"), "{error}");
        options.take("ssl_cert_reqs", "none").expect("known");
        let error = options.tls(&by_flag).expect_err("both").to_string();
        assert!(error.contains("ssl_cert_reqs=none") && error.contains("--tls-ca"), "{error}");
    }
}
