//! The URLs of libpq, as hosting providers write them into `$DATABASE_URL`.

use std::path::PathBuf;

use percent_encoding::percent_decode_str;

use crate::host_port::{ServerAddress, split_port};
use crate::store::Password;
use crate::store::connection::credentials::{non_empty, split_password, split_user};
use crate::store::connection::url_options::ForeignOptions;
use crate::store::url::StoreUrl;

const FORM: &str = "write it as postgres://USER@HOST:PORT,HOST:PORT/DATABASE";
const ENCODE: &str = "what is special in a user or a password has to be %-encoded";
const OPTIONS: &str = "elect knows sslmode, sslrootcert, sslcert, sslkey, schema, synchronous, listen, channel_binding, \
                       target_session_attrs, host, port, user, password, dbname and passfile";
/// Options of libpq that are of no consequence here.
const WITHOUT_CONSEQUENCE: [&str; 18] = [
    "application_name",
    "client_encoding",
    "fallback_application_name",
    "gssencmode",
    "gsslib",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "krbsrvname",
    "load_balance_hosts",
    "options",
    "schema_search_path",
    "sslcompression",
    "sslsni",
    "ssl_min_protocol_version",
    "ssl_max_protocol_version",
    "tcp_user_timeout",
];

/// The modes of libpq.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SslMode {
    Disable,
    /// TLS if the server has it, without verification.
    Prefer,
    /// TLS without verification, unless an authority is named.
    Require,
    /// The certificate comes from the authority, whatever its name.
    VerifyCa,
    VerifyFull,
}

impl SslMode {
    /// Reads a value of `sslmode`.
    pub fn parse(text: &str) -> Result<SslMode, String> {
        Ok(match text {
            "disable" => SslMode::Disable,
            "allow" | "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return Err("sslmode= takes disable, allow, prefer, require, verify-ca or verify-full".to_owned()),
        })
    }
}

/// The settings in a URL. `None`: left to flags, variables and defaults.
#[derive(Debug, Default)]
pub struct PostgresUrl {
    /// Each with its port, if it has one.
    pub hosts: Vec<(String, Option<u16>)>,
    pub port: Option<u16>,
    pub username: Option<String>,
    pub password: Option<Password>,
    pub database: Option<String>,
    pub ssl_mode: Option<SslMode>,
    pub ca: Option<PathBuf>,
    pub cert: Option<PathBuf>,
    pub key: Option<PathBuf>,
    pub passfile: Option<PathBuf>,
    pub schema: Option<String>,
    pub is_synchronous_required: bool,
    pub listens: Option<bool>,
    pub requires_channel_binding: bool,
    pub foreign: ForeignOptions,
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8().map_err(|_| "a part of it is not UTF-8".to_owned())?;
    if text.contains('\0') { Err("a part of it contains a zero byte".to_owned()) } else { Ok(text.into_owned()) }
}

impl PostgresUrl {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Says what is not understood; never repeats what may be a password.
    pub fn parse(url: &StoreUrl<'_>) -> Result<PostgresUrl, String> {
        let mut target = PostgresUrl::default();
        let rest = match url.rest {
            "" => "",
            rest => rest.strip_prefix("//").ok_or(FORM)?,
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        if path.contains(['@', '/']) || query.contains('@') {
            return Err(format!("{FORM} ({ENCODE})"));
        }
        let (user, hosts) = split_user(authority);
        if let Some((name, password)) = user.map(split_password) {
            target.username = non_empty(decoded(name)?);
            target.password = password.map(decoded).transpose()?.and_then(non_empty).map(Password);
        }
        target.hosts = read_hosts(hosts)?;
        target.database = non_empty(decoded(path)?);
        for option in query.split('&').filter(|option| !option.is_empty()) {
            let (name, value) = option.split_once('=').unwrap_or((option, ""));
            target.take(name, value)?;
        }
        Ok(target)
    }

    fn take(&mut self, name: &str, value: &str) -> Result<(), String> {
        let text = || decoded(value).map(non_empty);
        let path = || Ok::<_, String>(text()?.map(PathBuf::from));
        match name {
            "sslmode" => self.ssl_mode = Some(SslMode::parse(value)?),
            "sslrootcert" => self.ca = path()?,
            "sslcert" => self.cert = path()?,
            "sslkey" => self.key = path()?,
            "passfile" => self.passfile = path()?,
            "user" => self.username = text()?,
            "password" => self.password = text()?.map(Password),
            "dbname" => self.database = text()?,
            "host" => self.hosts = read_hosts(value)?,
            "port" => {
                self.port = Some(value.parse().map_err(|_| "port= takes one number of at most 65535".to_owned())?);
            }
            "schema" => {
                self.schema = text()?;
                if self.schema.as_ref().is_some_and(|name| name.len() > 63 || name.chars().any(char::is_control)) {
                    return Err("schema= takes a name of at most 63 bytes, without control characters".to_owned());
                }
            }
            "synchronous" => {
                self.is_synchronous_required = match value {
                    "required" => true,
                    "" | "any" => false,
                    _ => return Err("synchronous= takes required".to_owned()),
                }
            }
            "listen" => {
                self.listens = match value {
                    "0" => Some(false),
                    "1" => Some(true),
                    _ => return Err("listen= takes 0 or 1".to_owned()),
                }
            }
            "channel_binding" => {
                self.requires_channel_binding = match value {
                    "require" => true,
                    "prefer" | "disable" => false,
                    _ => return Err("channel_binding= takes disable, prefer or require".to_owned()),
                }
            }
            // Elections need a primary, whatever a program in between may want.
            "target_session_attrs" => match value {
                "any" | "primary" | "read-write" | "prefer-standby" => {}
                "standby" | "read-only" => {
                    return Err(format!(
                        "target_session_attrs={value} asks for a standby, where nobody can be elected: leave it out"
                    ));
                }
                _ => return Err("target_session_attrs= takes read-write, primary or any".to_owned()),
            },
            _ if WITHOUT_CONSEQUENCE.contains(&name) || self.foreign.take(name, value)? => {}
            // Dropped in silence, a misspelt one would be missed when it is needed.
            _ => return Err(format!("an option after the ? is not known: {OPTIONS}")),
        }
        Ok(())
    }

    /// For display: without credentials, and without options.
    pub fn address(&self) -> String {
        let host = |(host, port): &(String, Option<u16>)| {
            port.or(self.port).map_or_else(|| host.clone(), |port| format!("{host}:{port}"))
        };
        let hosts: Vec<String> = self.hosts.iter().map(host).collect();
        let database = self.database.as_ref().map(|name| format!("/{name}")).unwrap_or_default();
        format!("postgres://{}{database}", hosts.join(","))
    }
}

/// Hosts with their ports, each encoded; one that begins with a slash is the directory of a socket file.
pub fn read_hosts(text: &str) -> Result<Vec<(String, Option<u16>)>, String> {
    // Not repeated: it may be a password.
    let wrong = || format!("one of the hosts is no HOST:PORT with a port of at most 65535 ({ENCODE})");
    let mut hosts = Vec::new();
    for host in text.split(',').filter(|host| !host.is_empty()) {
        let (name, port) = split_port(host).ok_or_else(wrong)?;
        let name = decoded(name)?;
        if !name.starts_with('/') && ServerAddress::parse(&name, 1).is_none() {
            return Err(wrong());
        }
        hosts.push((name, port));
    }
    Ok(hosts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(url: &str) -> Result<PostgresUrl, String> {
        StoreUrl::parse(url).map_err(|error| error.to_string()).map(|url| PostgresUrl::parse(&url).expect("checked"))
    }

    #[test]
    fn a_url_is_read_as_libpq_reads_it() {
        let url =
            parsed("postgresql://me:p%40ss@h1:1,h2,[::1]:3/db?sslmode=require&port=4&connect_timeout=5").expect("one");
        let host = |name: &str, port| (name.to_owned(), port);
        assert_eq!(url.hosts, [host("h1", Some(1)), host("h2", None), host("[::1]", Some(3))]);
        assert_eq!((url.username.as_deref(), url.database.as_deref()), (Some("me"), Some("db")));
        assert_eq!(url.password, Some(Password("p@ss".to_owned())));
        assert_eq!((url.ssl_mode, url.port), (Some(SslMode::Require), Some(4)));
        let url = parsed("postgres:///db?host=/run/postgresql&user=me").expect("one");
        assert_eq!((url.hosts, url.username.as_deref()), (vec![host("/run/postgresql", None)], Some("me")));
        assert_eq!(parsed("postgres://%2Frun%2Fpostgresql/db").expect("one").hosts, [host("/run/postgresql", None)]);
        assert!(parsed("postgres:").expect("all by default").hosts.is_empty());
    }

    #[test]
    fn urls_of_hosting_providers_are_taken_as_they_are() {
        for url in [
            "postgresql://user:pw@ep-cool-1.eu.aws.neon.example/db?sslmode=require&channel_binding=require",
            "postgres://postgres.abc:pw@aws-0.pooler.supabase.example:6543/postgres?pgbouncer=true&connection_limit=1",
            "postgres://u:pw@ec2-1.compute.example:5432/d1",
            "postgresql://doadmin:pw@db.ondigitalocean.example:25060/defaultdb?sslmode=require",
        ] {
            assert!(parsed(url).is_ok(), "{url}: {:?}", parsed(url));
        }
    }

    #[test]
    fn what_is_not_understood_is_said_without_a_password() {
        for (url, said) in [
            ("postgres:h", "postgres://USER@HOST"),
            ("postgres://u:hunter2@h:port", "no HOST:PORT"),
            ("postgres://u:hun/ter2@h", "%-encoded"),
            ("postgres://u:hunter2@h/?sslmodus=hunter2", "not known"),
            ("postgres://u:hunter2@h/?sslmode=hunter2", "verify-full"),
            ("postgres://h/?target_session_attrs=standby", "asks for a standby"),
            ("postgres://h/?listen=yes", "0 or 1"),
        ] {
            let error = parsed(url).expect_err(url);
            assert!(error.contains(said) && !error.contains("hunter2"), "{url}: {error}");
            assert_eq!(error.lines().count(), 1);
        }
    }

    #[test]
    fn what_people_see_has_no_password_and_no_options() {
        let shown = |url: &str| StoreUrl::parse(url).expect(url).to_string();
        assert_eq!(shown("postgres://u:hunter2@h:5/x?password=hunter2"), "postgres://h:5/x");
        assert_eq!(shown("postgresql://u:hunter2@h1,h2:6/x"), "postgres://h1,h2:6/x");
    }
}
