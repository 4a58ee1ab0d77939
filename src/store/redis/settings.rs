//! The settings of a Redis connection, from URL and flags.
//!
//! `redis://[USER[:PASSWORD]@]HOST[:PORT][/DB]` as hosting providers write it into `$REDIS_URL`; with Sentinel
//! `redis+sentinel://HOST[:PORT],…/PRIMARY[/DB]`, and at a socket file `redis+unix://[USER[:PASSWORD]@]/PATH[?db=DB]`. User and password
//! of the flags come before those of the URL.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::quorum::Replicas;
use crate::host_port::{ServerAddress, split_port};
use crate::store::connection::credentials::{missing_password, non_empty, split_password, split_user};
use crate::store::connection::setup::TimeLimits;
use crate::store::connection::tls::TlsSettings;
use crate::store::connection::url_options::ForeignOptions;
use crate::store::url::StoreUrl;
use crate::store::{Access, Password, StoreError};
use elect_core::boundary::Boundary;

const DEFAULT_PORT: u16 = 6379;
const DEFAULT_SENTINEL_PORT: u16 = 26379;
/// Largest number of replicas that may be required.
const REPLICAS_MAX: u64 = 1000;
const DEFAULT_PREFIX: &str = "elect:";
const OPTIONS: &str = "the options are replicas=all, replicas=majority, replicas=N, replicas-was=M, prefix=TEXT, db=N and sentinel-auth=1";

/// Everything that is needed to reach a Redis; it also travels in claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub route: Route,
    /// Of the database.
    pub db: i64,
    /// Before every key of ours, and every channel.
    pub prefix: String,
    pub replicas: Replicas,
    /// Another required number that a record may have, which this one is to replace.
    pub replicas_was: Option<u64>,
    /// `None`: in the clear.
    pub tls: Option<TlsSettings>,
    pub username: Option<String>,
    pub password: Option<Password>,
    pub limits: TimeLimits,
    /// How long a Sentinel's answer that was of no use stays behind the others.
    pub renew_interval: Duration,
}

/// How the primary is found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Route {
    /// It is the one at this place.
    Direct(Place),
    /// These know.
    Sentinels {
        /// At least one.
        sentinels: Vec<ServerAddress>,
        /// The name by which they know it.
        primary: String,
        /// Whether they are to be told user and password too.
        auth: bool,
    },
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Route::Direct(place) => place.fmt(f),
            Route::Sentinels { primary, .. } => write!(f, "the primary {primary:?} of the Sentinels"),
        }
    }
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    Address(ServerAddress),
    /// A socket file of this host.
    Socket(PathBuf),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Address(address) => address.fmt(f),
            Place::Socket(path) => path.display().fmt(f),
        }
    }
}

/// The settings in a URL.
#[derive(Debug, PartialEq, Eq)]
pub struct RedisUrl {
    route: Route,
    db: i64,
    prefix: String,
    replicas: Replicas,
    replicas_was: Option<u64>,
    encrypted: bool,
    foreign: ForeignOptions,
    username: Option<String>,
    password: Option<Password>,
}

/// The kind of route that a scheme asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum RouteKind {
    Direct,
    Sentinels,
    Socket,
}

impl RouteKind {
    fn of(scheme: &str) -> RouteKind {
        match scheme.split_once('+') {
            Some((_, "sentinel")) => RouteKind::Sentinels,
            Some(_) => RouteKind::Socket,
            None => RouteKind::Direct,
        }
    }

    fn form(self) -> String {
        match self {
            RouteKind::Sentinels => {
                "write it as redis+sentinel://HOST:PORT,HOST:PORT/NAME, where NAME is how the Sentinels call the primary"
            }
            RouteKind::Socket => "write it as redis+unix:///PATH, with the absolute path of the socket file",
            RouteKind::Direct => "write it as redis://HOST:PORT/DB, or redis: for the one at 127.0.0.1:6379",
        }
        .to_owned()
    }
}

impl RedisUrl {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Says what is not understood; never repeats what may be a password.
    pub fn parse(url: &StoreUrl<'_>) -> Result<RedisUrl, String> {
        let (encrypted, kind) = (url.scheme.starts_with("rediss"), RouteKind::of(url.scheme));
        let rest = match url.rest {
            "" => "",
            rest => rest.strip_prefix("//").ok_or_else(|| kind.form())?,
        };
        if rest.contains('#') {
            return Err("a # in a password is written %23".to_owned());
        }
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        let (user, hosts) = split_user(authority);
        let (username, password) = user.map_or(Ok((None, None)), credentials)?;
        let options = options(query, kind)?;
        let (route, db) = match kind {
            RouteKind::Sentinels => sentinels(hosts, path, options.sentinel_auth)?,
            RouteKind::Socket => (socket(hosts, path)?, ""),
            RouteKind::Direct => {
                let host = if hosts.is_empty() { "127.0.0.1" } else { hosts };
                (Route::Direct(Place::Address(address(host, DEFAULT_PORT)?)), path)
            }
        };
        let db = match db.trim_end_matches('/') {
            "" => options.db,
            number => database(number).map_err(|what| format!("what follows the host is {what}"))?,
        };
        Ok(RedisUrl {
            route,
            db: db.into(),
            prefix: options.prefix,
            replicas: options.replicas,
            replicas_was: options.replicas_was,
            encrypted,
            foreign: options.foreign,
            username,
            password,
        })
    }

    /// For display: without credentials.
    pub fn address(&self) -> String {
        let scheme = if self.encrypted { "rediss" } else { "redis" };
        let db = if self.db == 0 { String::new() } else { format!("/{}", self.db) };
        match &self.route {
            Route::Direct(Place::Address(address)) => format!("{scheme}://{address}{db}"),
            Route::Direct(Place::Socket(path)) if self.db == 0 => format!("{scheme}+unix://{}", path.display()),
            Route::Direct(Place::Socket(path)) => format!("{scheme}+unix://{}?db={}", path.display(), self.db),
            Route::Sentinels { sentinels, primary, .. } => {
                let sentinels: Vec<String> = sentinels.iter().map(ServerAddress::to_string).collect();
                format!("{scheme}+sentinel://{}/{primary}{db}", sentinels.join(","))
            }
        }
    }
}

fn sentinels<'a>(hosts: &str, path: &'a str, auth: bool) -> Result<(Route, &'a str), String> {
    let hosts = hosts.split(',').filter(|host| !host.is_empty());
    let sentinels =
        hosts.map(|host| address(host, DEFAULT_SENTINEL_PORT)).collect::<Result<Vec<ServerAddress>, String>>()?;
    let (primary, db) = path.split_once('/').unwrap_or((path, ""));
    let primary = decoded(primary)?;
    // No primary has such a name, but misplaced credentials look like one, and the name is shown.
    if sentinels.is_empty() || primary.is_empty() || primary.contains('@') {
        return Err(RouteKind::Sentinels.form());
    }
    Ok((Route::Sentinels { sentinels, primary, auth }, db))
}

fn socket(host: &str, path: &str) -> Result<Route, String> {
    // A path with an @ may be a password with a slash, and paths are shown.
    let path = decoded(path)?;
    if !host.is_empty() || path.trim_matches('/').is_empty() || path.contains(['@', '\0']) {
        return Err(RouteKind::Socket.form());
    }
    Ok(Route::Direct(Place::Socket(PathBuf::from(format!("/{path}")))))
}

fn database(number: &str) -> Result<u16, &'static str> {
    number.parse::<u16>().map_err(|_| "the number of a database")
}

fn decoded(text: &str) -> Result<String, String> {
    let text = percent_decode_str(text).decode_utf8();
    text.map(std::borrow::Cow::into_owned).map_err(|_| "a part of it is not UTF-8".to_owned())
}

fn credentials(text: &str) -> Result<(Option<String>, Option<Password>), String> {
    let (name, password) = split_password(text);
    let password = password.map(decoded).transpose()?.and_then(non_empty);
    Ok((non_empty(decoded(name)?), password.map(Password)))
}

/// `host`, `host:port` or `[v6]:port` with the port that is usual if there is none.
fn address(text: &str, usual_port: u16) -> Result<ServerAddress, String> {
    // Not repeated: it may be a password.
    let wrong = || {
        "one of the hosts is no HOST:PORT with a port of at most 65535 (what is special in a password has to be %-encoded)"
            .to_owned()
    };
    if split_port(text).ok_or_else(wrong)?.0.contains(',') {
        return Err("of hosts there is one, but for redis+sentinel://".to_owned());
    }
    ServerAddress::parse(text, usual_port).ok_or_else(wrong)
}

struct Options {
    replicas: Replicas,
    replicas_was: Option<u64>,
    prefix: String,
    db: u16,
    sentinel_auth: bool,
    foreign: ForeignOptions,
}

fn options(query: &str, kind: RouteKind) -> Result<Options, String> {
    let mut options = Options {
        replicas: Replicas::All,
        replicas_was: None,
        prefix: DEFAULT_PREFIX.to_owned(),
        db: 0,
        sentinel_auth: false,
        foreign: ForeignOptions::default(),
    };
    let number = |name: &str, value: &str| match value.parse::<u64>() {
        Ok(number) if number <= REPLICAS_MAX => Ok(number),
        Ok(_) => Err(format!("{name}= takes a number of at most {REPLICAS_MAX}")),
        Err(_) if name == "replicas" => Err("replicas= takes a number, all or majority".to_owned()),
        Err(_) => Err(format!("{name}= takes a number")),
    };
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name {
            "replicas" if value == "all" => options.replicas = Replicas::All,
            "replicas" if value == "majority" => options.replicas = Replicas::Majority,
            "replicas" => options.replicas = Replicas::Number(number(name, value)?),
            "replicas-was" => options.replicas_was = Some(number(name, value)?),
            "prefix" => {
                options.prefix = decoded(value)?;
                if options.prefix.is_empty() || options.prefix.chars().any(char::is_control) {
                    return Err("prefix= takes a text without control characters".to_owned());
                }
            }
            "db" => options.db = database(value).map_err(|what| format!("db= takes {what}"))?,
            "sentinel-auth" if kind == RouteKind::Sentinels && matches!(value, "1" | "0") => {
                options.sentinel_auth = value == "1";
            }
            _ if options.foreign.take(name, value)? => {}
            // Dropped in silence, a misspelt one would be missed when it is needed.
            _ => return Err(format!("an option after the ? is not known: {OPTIONS}")),
        }
    }
    Ok(options)
}

impl Settings {
    /// Puts together what URL and flags say.
    ///
    /// # Errors
    ///
    /// They do not fit together.
    pub fn new(url: &StoreUrl<'_>, access: &Access) -> Result<Settings, StoreError> {
        let target = RedisUrl::parse(url).map_err(StoreError::Misused)?;
        if !target.encrypted
            && let Some(flag) = access.first_tls_flag().or(target.foreign.first_about_tls())
        {
            let way_out = match &target.route {
                Route::Direct(Place::Socket(_)) => "a socket file has none: leave it out",
                Route::Direct(Place::Address(_)) | Route::Sentinels { .. } => "write --store rediss://…",
            };
            return Err(StoreError::Misused(format!("{flag} needs an encrypted connection: {way_out}")));
        }
        target.foreign.log_ignored();
        let username = access.username.clone().or(target.username);
        let password = access.password.clone().or(target.password);
        if let (Some(name), None) = (&username, &password) {
            return Err(missing_password(&format!("user {name:?}"), "--password-file or ELECT_PASSWORD"));
        }
        Ok(Settings {
            route: target.route,
            db: target.db,
            prefix: target.prefix,
            replicas: target.replicas,
            replicas_was: target.replicas_was,
            tls: if target.encrypted { Some(target.foreign.tls(access)?) } else { None },
            username,
            password,
            limits: TimeLimits::new(access),
            renew_interval: access.renew_interval,
        })
    }

    /// Redis takes the name as it is.
    pub fn key(&self, boundary: &Boundary) -> String {
        format!("{}{boundary}", self.prefix)
    }

    /// The key of the index of boundaries. Neither a prefix nor a boundary has a control character, so no record of any prefix is
    /// at this key.
    pub fn index_key(&self) -> String {
        format!("{}\tindex", self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, access: &Access) -> Result<Settings, String> {
        let url = StoreUrl::parse(url).map_err(|error| error.to_string())?;
        Settings::new(&url, access).map_err(|error| error.to_string())
    }

    fn plain(url: &str) -> Settings {
        settings(url, &Access::default()).expect(url)
    }

    fn direct(url: &str) -> String {
        match plain(url).route {
            Route::Direct(address) => address.to_string(),
            Route::Sentinels { .. } => panic!("{url} names no Sentinels"),
        }
    }

    #[test]
    fn a_url_names_a_host_and_a_database_and_what_is_left_out_is_usual() {
        assert_eq!(direct("redis:"), "127.0.0.1:6379");
        assert_eq!(direct("redis://h"), "h:6379");
        assert_eq!(direct("redis://[::1]:5"), "[::1]:5");
        assert_eq!((plain("redis://h").db, plain("redis://h/3").db, plain("redis://h:1/3/").db), (0, 3, 3));
        assert_eq!(plain("redis://h").prefix, "elect:");
        assert_eq!(plain("redis://h").replicas, Replicas::All);
        assert_eq!(plain("redis://h?replicas=2&prefix=team%3Aa%3A").replicas, Replicas::Number(2));
        assert_eq!(plain("redis://h?replicas=2&prefix=team%3Aa%3A").prefix, "team:a:");
        let changed = plain("redis://h?replicas=majority&replicas-was=2");
        assert_eq!((changed.replicas, changed.replicas_was), (Replicas::Majority, Some(2)));
        assert_eq!(plain("redis://h").tls, None);
        assert_eq!(plain("rediss://h").tls, Some(TlsSettings::default()));
        assert_eq!(plain("redis://h").key(&"billing/nightly".parse().expect("a name")), "elect:billing/nightly");
    }

    #[test]
    fn a_url_is_taken_as_hosting_providers_write_it() {
        for (url, host, user, password) in [
            ("redis://red-abc:6379", "red-abc:6379", None, None),
            ("redis://default:p%40ss@db.example:25061/0", "db.example:25061", Some("default"), Some("p@ss")),
            ("rediss://:key=@x.redis.cache.windows.net:6380", "x.redis.cache.windows.net:6380", None, Some("key=")),
            ("redis://h:pa55@ec2-1-2-3-4.example:12345", "ec2-1-2-3-4.example:12345", Some("h"), Some("pa55")),
            ("rediss://default:a:b@fly-x.upstash.io:6379", "fly-x.upstash.io:6379", Some("default"), Some("a:b")),
        ] {
            let read = plain(url);
            assert_eq!(direct(url), host);
            assert_eq!(
                (read.username.as_deref(), read.password),
                (user, password.map(|text| Password(text.to_owned())))
            );
        }
    }

    #[test]
    fn options_of_other_programs_are_mapped_or_ignored() {
        let read = plain("rediss://:key@h:1?ssl_cert_reqs=CERT_NONE&socket_timeout=5&protocol=3&db=2");
        assert!(read.tls.expect("encrypted").skip_verify);
        assert_eq!(read.db, 2);
        assert_eq!(plain("redis://h/3?db=2&family=0").db, 3, "as redis-py takes it");
        let files = plain("rediss://h?ssl_ca_certs=/ca&ssl_certfile=/cert&ssl_keyfile=/key").tls.expect("encrypted");
        assert_eq!((files.ca, files.identity), (Some("/ca".into()), Some(("/cert".into(), "/key".into()))));
        let skip = Access { tls_skip_verify: true, ..Access::default() };
        assert!(settings("rediss://h", &skip).expect("it makes sense").tls.expect("encrypted").skip_verify);
        assert!(settings("redis://h", &skip).expect_err("in the clear").contains("--tls-skip-verify"));
    }

    #[test]
    fn a_socket_file_is_named_by_its_path() {
        let read = plain("redis+unix://u:p%40ss@/run/redis%20a.sock?db=4");
        assert_eq!(read.route, Route::Direct(Place::Socket("/run/redis a.sock".into())));
        assert_eq!((read.db, read.username.as_deref(), read.tls), (4, Some("u"), None));
        assert_eq!(StoreUrl::parse("redis+unix:///s?db=4").expect("known").to_string(), "redis+unix:///s?db=4");
        assert_eq!(StoreUrl::parse("redis+unix://u:pw@/s").expect("known").to_string(), "redis+unix:///s");
        let ca = Access { tls_ca: Some("/ca".into()), ..Access::default() };
        assert!(settings("redis+unix:///s", &ca).expect_err("in the clear").contains("socket file"));
    }

    #[test]
    fn sentinels_are_named_with_their_primary() {
        let read = plain("redis+sentinel://me:pw@h1,h2:5/mymaster/3?sentinel-auth=1");
        let Route::Sentinels { sentinels, primary, auth } = read.route else { panic!("they are named") };
        let sentinels: Vec<String> = sentinels.iter().map(ServerAddress::to_string).collect();
        assert_eq!((sentinels.join(","), primary.as_str(), auth), ("h1:26379,h2:5".to_owned(), "mymaster", true));
        assert_eq!((read.db, read.username.as_deref()), (3, Some("me")));
        assert_eq!(plain("rediss+sentinel://h1/mymaster").tls, Some(TlsSettings::default()));
    }

    #[test]
    fn what_people_see_has_no_password() {
        for (url, shown) in [
            ("redis://u:hunter2@h/2?replicas=1", "redis://h:6379/2"),
            ("rediss://:hunter2@h", "rediss://h:6379"),
            ("redis+sentinel://u:hunter2@h1,h2/m", "redis+sentinel://h1:26379,h2:26379/m"),
            ("redis:", "redis://127.0.0.1:6379"),
        ] {
            assert_eq!(StoreUrl::parse(url).expect(url).to_string(), shown);
        }
    }

    #[test]
    fn a_url_that_is_none_is_told_apart_without_repeating_a_password() {
        for (url, said) in [
            ("redis:h1", "redis://HOST:PORT"),
            ("redis://h:port", "no HOST:PORT"),
            ("redis://u:hunter2", "no HOST:PORT"),
            ("redis://u:hun/ter2@h", "no HOST:PORT"),
            ("redis://u:hunter2#@h", "%23"),
            ("redis://h1,h2", "redis+sentinel://"),
            ("redis://h/db", "number of a database"),
            ("redis://h/99999", "number of a database"),
            ("redis://h?replica=1", "replicas=all"),
            ("redis://h:99999", "at most 65535"),
            ("redis://h?db=x", "db= takes the number of a database"),
            ("redis://h?ssl_cert_reqs=none", "ssl_cert_reqs=none needs an encrypted connection"),
            ("redis+unix://run/redis.sock", "absolute path"),
            ("redis+unix:", "absolute path"),
            ("redis+unix://u:hun/ter2@/run/redis.sock", "absolute path"),
            ("redis://h?replicas=some", "takes a number, all or majority"),
            ("redis://h?replicas=1001", "at most 1000"),
            ("redis://h?replicas-was=all", "replicas-was= takes a number"),
            ("redis://h?replicas-was=", "replicas-was= takes a number"),
            ("redis+sentinel://h1", "NAME"),
            ("redis+sentinel://h1/elect:hunter2@h2", "NAME"),
            ("redis+sentinel:", "NAME"),
            ("redis://h?sentinel-auth=1", "not known"),
        ] {
            let message = settings(url, &Access::default()).expect_err(url);
            assert!(message.contains(said) && !message.contains("hunter2"), "{url}: {message}");
        }
    }

    #[test]
    fn flags_count_before_the_url() {
        let access = Access {
            username: Some("me".to_owned()),
            password: Some(Password("mine".to_owned())),
            ..Access::default()
        };
        let read = settings("redis://u:p@h", &access).expect("it makes sense");
        assert_eq!((read.username.as_deref(), read.password), (Some("me"), Some(Password("mine".to_owned()))));
        let name = Access { username: Some("me".to_owned()), ..Access::default() };
        assert_eq!(settings("redis://:p@h", &name).expect("it makes sense").username.as_deref(), Some("me"));
        assert!(settings("redis://h", &name).expect_err("half").contains("--password-file"));
        let ca = Access { tls_ca: Some("/ca".into()), ..Access::default() };
        assert!(settings("redis://h", &ca).expect_err("in the clear").contains("rediss://"));
        let cert = Access { tls_cert: Some("/cert".into()), ..Access::default() };
        assert!(settings("rediss://h", &cert).expect_err("half").contains("--tls-key"));
    }
}
