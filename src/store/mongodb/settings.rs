//! The settings of a MongoDB client, from URL and flags.
//!
//! The connection string is parsed by the driver and passed on as hosting providers write it into `$MONGODB_URI`. This
//! module adds user and password of the flags to it, and keeps everything that may be a password out of what is shown.

use std::time::Duration;

use ::mongodb::error::{Error, ErrorKind};
use ::mongodb::options::{ConnectionString, Tls as DriversTls};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde::{Deserialize, Serialize};

use crate::host_port::split_port;
use crate::store::connection::credentials::{missing_password, non_empty, split_password, split_user};
use crate::store::connection::setup::TimeLimits;
use crate::store::connection::tls::TlsSettings;
use crate::store::connection::url_options::ForeignOptions;
use crate::store::url::StoreUrl;
use crate::store::{Access, Password, StoreError};

const DEFAULT_DATABASE: &str = "elect";
const FORM: &str = "write it as mongodb://HOST:PORT,HOST:PORT/DATABASE?replicaSet=NAME or mongodb+srv://NAME/DATABASE";
const ENCODE: &str = "what is special in a user or a password has to be %-encoded";
/// Options that are of no consequence here, and that not every driver takes as others do.
const OVERRIDDEN: [&str; 6] =
    ["compressors", "heartbeatFrequencyMS", "maxPoolSize", "minPoolSize", "socketTimeoutMS", "zlibCompressionLevel"];
/// Options with secret values.
const SECRET_OPTIONS: [&str; 3] = ["password", "properties", "proxy"];

/// Everything that is needed to reach a MongoDB; it also travels in claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// As the driver reads it, with user and password.
    pub url: Password,
    /// As people do.
    pub shown: String,
    pub database: String,
    /// With any of them there is encryption.
    pub tls: TlsSettings,
    pub limits: TimeLimits,
    /// From one look of a waiting candidate to the next, at most.
    pub renew_interval: Duration,
    pub login: Login,
}

/// What messages about a login and a replica set need.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    /// `None`: nobody logs in.
    pub user: Option<String>,
    /// The database in which the server looks for the user.
    pub auth_source: String,
    /// Whether the URL names that database as such.
    pub is_source_given: bool,
    pub replica_set: Option<String>,
}

/// The settings in a URL.
#[derive(Debug)]
pub struct MongoUrl {
    scheme: &'static str,
    /// As in the URL, encoded.
    username: Option<String>,
    /// The same.
    password: Option<Password>,
    hosts: String,
    /// Database and options.
    tail: String,
    database: String,
    /// The database in the URL, whatever elect makes of it.
    named_database: Option<String>,
    foreign: ForeignOptions,
    is_in_the_clear: bool,
}

impl MongoUrl {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Says what is not understood; never repeats what may be a password.
    pub fn parse(url: &StoreUrl<'_>) -> Result<MongoUrl, String> {
        let rest = match url.rest {
            "" if url.scheme == "mongodb" => "127.0.0.1",
            rest => rest.strip_prefix("//").ok_or(FORM)?,
        };
        // The driver does not stand everything that may follow a percent sign.
        let is_encoded = |after: &str| after.bytes().take(2).filter(u8::is_ascii_hexdigit).count() == 2;
        if !rest.split('%').skip(1).all(is_encoded) {
            return Err(format!("a % is followed by two hexadecimal digits, and is itself written %25 ({ENCODE})"));
        }
        let (authority, tail) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
        if tail.contains('@') {
            return Err(ENCODE.to_owned());
        }
        let (user, hosts) = split_user(authority);
        if hosts.is_empty() {
            return Err(FORM.to_owned());
        }
        // Not repeated: it may be a password.
        if !hosts.split(',').all(|host| is_address(host, url.scheme)) {
            return Err(format!("one of the hosts is no HOST:PORT with a port of at most 65535 ({ENCODE})"));
        }
        let (username, password) = match user.map(split_password) {
            Some((name, password)) => {
                (non_empty(name.to_owned()), password.map(str::to_owned).and_then(non_empty).map(Password))
            }
            None => (None, None),
        };
        let is_direct = tail.to_lowercase().contains("directconnection=true");
        let mut foreign = ForeignOptions::default();
        let tail = without_overridden(tail, &mut foreign)?;
        if is_direct && hosts.contains(',') {
            return Err("directConnection is for one host, and there are several".to_owned());
        }
        let mut target = MongoUrl {
            scheme: url.scheme,
            username,
            password,
            hosts: hosts.to_owned(),
            tail,
            database: String::new(),
            named_database: None,
            foreign,
            is_in_the_clear: false,
        };
        let Ok(read) = ConnectionString::parse(target.url()) else { return Err(target.complaint()) };
        target.named_database.clone_from(&read.default_database);
        target.database = match read.default_database.as_deref() {
            // A place for users, and not for records: many users may write nothing there.
            None | Some("admin") => DEFAULT_DATABASE.to_owned(),
            // Not replicated: every member would have an election of its own.
            Some(own @ ("local" | "config")) => {
                return Err(format!("the database {own} is the server's own: name another one"));
            }
            Some(database) => database.to_owned(),
        };
        target.is_in_the_clear = matches!(read.tls, Some(DriversTls::Disabled));
        Ok(target)
    }

    /// For display: without credentials, and without options.
    pub fn address(&self) -> String {
        format!("{}://{}/{}", self.scheme, self.hosts, self.database)
    }

    fn url(&self) -> String {
        let user = match (&self.username, &self.password) {
            (None, None) => String::new(),
            (name, password) => {
                let password = password.as_ref().map(|Password(password)| format!(":{password}"));
                format!("{}{}@", name.as_deref().unwrap_or_default(), password.unwrap_or_default())
            }
        };
        format!("{}://{user}{}{}", self.scheme, self.hosts, self.tail)
    }

    /// The value of an option that the driver knows.
    fn option(&self, name: &str) -> Option<String> {
        let (_, options) = self.tail.split_once('?')?;
        let mut options = options.split('&').filter_map(|option| option.split_once('='));
        let (_, value) = options.find(|(known, _)| known.eq_ignore_ascii_case(name))?;
        Some(percent_decode_str(value).decode_utf8_lossy().into_owned()).filter(|value| !value.is_empty())
    }

    fn tls(&self, access: &Access) -> Result<TlsSettings, StoreError> {
        let tls = self.foreign.tls(access)?;
        let is_on = |name: &&str| self.option(name).is_some_and(|value| value == "true");
        let skip = ["tlsInsecure", "tlsAllowInvalidCertificates"].into_iter().find(is_on);
        if tls.skip_verify {
            return Ok(tls);
        }
        let ca = if access.tls_ca.is_some() { "--tls-ca" } else { "ssl_ca_certs" };
        tls.skipping_verification(skip, ca)
    }

    fn login(&self) -> Login {
        let given = self.option("authSource");
        let decoded = |text: &String| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Login {
            user: self.username.as_ref().map(decoded),
            is_source_given: given.is_some(),
            // The rule of the driver.
            auth_source: given.or_else(|| self.named_database.clone()).unwrap_or_else(|| "admin".to_owned()),
            replica_set: self.option("replicaSet"),
        }
    }

    /// The driver's objection, asked for without secrets.
    fn complaint(&self) -> String {
        let is_secret = |option: &&str| {
            let name = option.split('=').next().unwrap_or_default().to_lowercase();
            SECRET_OPTIONS.iter().any(|secret| name.contains(secret))
        };
        let tail = match self.tail.split_once('?') {
            Some((path, options)) => {
                let told: Vec<&str> = options.split('&').filter(|option| !is_secret(option)).collect();
                format!("{path}?{}", told.join("&"))
            }
            None => self.tail.clone(),
        };
        let innocent = MongoUrl {
            username: self.username.as_ref().map(|_| "user".to_owned()),
            password: self.password.as_ref().map(|_| Password("password".to_owned())),
            hosts: self.hosts.clone(),
            tail,
            database: String::new(),
            named_database: None,
            foreign: ForeignOptions::default(),
            ..*self
        };
        match ConnectionString::parse(innocent.url()) {
            Ok(_) => format!("its user, its password or an option that goes with them is not right: {ENCODE}"),
            Err(error) => said(&error),
        }
    }
}

/// The part after the hosts, without options that the driver rejects, that elect sets itself, or that are other programs'.
fn without_overridden(tail: &str, foreign: &mut ForeignOptions) -> Result<String, String> {
    let Some((path, options)) = tail.split_once('?') else { return Ok(tail.to_owned()) };
    let mut kept: Vec<&str> = Vec::new();
    for option in options.split('&') {
        let (name, value) = option.split_once('=').unwrap_or((option, ""));
        let is_overridden = OVERRIDDEN.iter().any(|overridden| name.eq_ignore_ascii_case(overridden));
        if !is_overridden && !foreign.take(name, value)? {
            kept.push(option);
        }
    }
    Ok(if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) })
}

/// The driver's words, in one line.
fn said(error: &Error) -> String {
    let message = if let ErrorKind::InvalidArgument { message, .. } = error.kind.as_ref() {
        message.clone()
    } else {
        error.kind.to_string()
    };
    message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

/// Whether what follows the colon is a port, if anything does. The rest is for the driver to judge.
fn is_address(host: &str, scheme: &str) -> bool {
    match split_port(host) {
        Some((_, Some(_))) => scheme == "mongodb",
        Some((host, None)) => !host.is_empty(),
        None => false,
    }
}

impl Settings {
    /// Puts together what URL and flags say.
    ///
    /// # Errors
    ///
    /// They do not fit together.
    pub fn new(url: &StoreUrl<'_>, access: &Access) -> Result<Settings, StoreError> {
        let misused = |reason: String| Err(StoreError::Misused(reason));
        let mut target = MongoUrl::parse(url).map_err(StoreError::Misused)?;
        if target.is_in_the_clear
            && let Some(flag) = access.first_tls_flag().or(target.foreign.first_about_tls())
        {
            return misused(format!("{flag} needs an encrypted connection, and the URL says tls=false"));
        }
        let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
        if let Some(name) = &access.username {
            target.username = Some(encoded(name));
        }
        if let Some(Password(password)) = &access.password {
            target.password = Some(Password(encoded(password)));
        }
        // Others than the usual ones have proofs of other kinds: the driver knows.
        let is_usual = !target.tail.to_lowercase().contains("authmechanism=");
        match (&target.username, &target.password) {
            (Some(_), None) if is_usual => {
                return Err(missing_password("its user", "--password-file or ELECT_PASSWORD"));
            }
            (None, Some(_)) => {
                return misused("a password needs a user: give it with --username, or in the URL".to_owned());
            }
            _ => {}
        }
        if ConnectionString::parse(target.url()).is_err() {
            return misused(target.complaint());
        }
        target.foreign.log_ignored();
        Ok(Settings {
            login: target.login(),
            url: Password(target.url()),
            shown: target.address(),
            tls: target.tls(access)?,
            database: target.database,
            limits: TimeLimits::new(access),
            renew_interval: access.renew_interval,
        })
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

    fn login(name: Option<&str>, password: Option<&str>) -> Access {
        Access {
            username: name.map(str::to_owned),
            password: password.map(|password| Password(password.to_owned())),
            ..Access::default()
        }
    }

    #[test]
    fn a_url_names_hosts_and_a_database() {
        assert_eq!(plain("mongodb:").url.0, "mongodb://127.0.0.1");
        assert_eq!(plain("mongodb://h").database, "elect");
        assert_eq!(plain("mongodb://h:5,h2/").database, "elect");
        assert_eq!(plain("mongodb://h/team").database, "team");
        assert_eq!(plain("mongodb+srv://cluster.example/team?retryWrites=true").database, "team");
        assert_eq!(plain("mongodb://[::1]:5,[::2]/x").shown, "mongodb://[::1]:5,[::2]/x");
    }

    #[test]
    fn a_url_is_taken_as_hosting_providers_write_it() {
        for url in [
            "mongodb+srv://me:p%40ss@cluster0.abcde.mongodb.example/?retryWrites=true&w=majority&appName=Cluster0",
            "mongodb://me:pw@h1.example:27017,h2.example:27018/db?ssl=true&replicaSet=atlas-x-shard-0&authSource=admin&retryWrites=true&w=majority",
            "mongodb://doadmin:x@db.example/admin?tls=true&authSource=admin&replicaSet=rs",
            "mongodb://acc:key%3D%3D@acc.mongo.cosmos.example:10255/?ssl=true&replicaSet=globaldb&retrywrites=false&maxIdleTimeMS=120000&appName=@acc@".trim_end_matches("&appName=@acc@"),
            "mongodb://mongo:pw@mongodb.railway.internal:27017",
            "mongodb://h/db?authMechanism=MONGODB-X509&tls=true",
        ] {
            assert_eq!(plain(url).url.0, url);
        }
    }

    #[test]
    fn options_of_other_programs_are_mapped_or_ignored() {
        let read = plain("mongodb://h/x?useNewUrlParser=true&ssl_cert_reqs=CERT_NONE&replicaSet=rs");
        assert_eq!((read.url.0.as_str(), read.tls.skip_verify), ("mongodb://h/x?replicaSet=rs", true));
        assert!(plain("mongodb://h/?tls=true&tlsInsecure=true").tls.skip_verify);
        let ca = Access { tls_ca: Some("/ca".into()), ..Access::default() };
        for url in ["mongodb://h/?tls=true&tlsInsecure=true", "mongodb://h/?ssl_cert_reqs=none"] {
            assert!(settings(url, &ca).expect_err("both").contains("leave one of the two out"), "{url}");
        }
    }

    #[test]
    fn the_database_of_the_user_is_that_of_the_driver() {
        for (url, source, is_given) in [
            ("mongodb://u:p@h", "admin", false),
            ("mongodb://u:p@h/elect", "elect", false),
            ("mongodb://u:p@h/elect?authSource=users", "users", true),
        ] {
            let login = plain(url).login;
            assert_eq!((login.auth_source.as_str(), login.is_source_given), (source, is_given), "{url}");
            assert_eq!(login.user.as_deref(), Some("u"));
        }
    }

    #[test]
    fn what_people_see_has_no_password_and_no_options() {
        for (url, shown) in [
            ("mongodb://u:hunter2@h/x?tls=true&appName=y", "mongodb://h/x"),
            ("mongodb://u:hunter2@h1:1,h2:2", "mongodb://h1:1,h2:2/elect"),
            ("mongodb+srv://u:hunter2@c.example", "mongodb+srv://c.example/elect"),
        ] {
            assert_eq!(StoreUrl::parse(url).expect(url).to_string(), shown);
            assert!(!format!("{:?}", plain(url)).contains("hunter2"));
        }
    }

    #[test]
    fn a_url_that_is_none_is_told_apart_without_repeating_a_password() {
        for (url, said) in [
            ("mongodb:h1", "mongodb://HOST:PORT"),
            ("mongodb+srv:", "mongodb+srv://NAME"),
            ("mongodb://", "mongodb://HOST:PORT"),
            ("mongodb://h:port", "no HOST:PORT"),
            ("mongodb://u:hunter2", "no HOST:PORT"),
            ("mongodb://u:hun/ter2@h", "%-encoded"),
            ("mongodb://u:hunter2@x@h", "%-encoded"),
            ("mongodb://u:31415/@h", "%-encoded"),
            ("mongodb://u:hunter2%@h", "%25"),
            ("mongodb://%\u{800}@h", "%25"),
            ("mongodb+srv://c.example:27017", "no HOST:PORT"),
            ("mongodb://u:hunter2@h/?retryWritse=true", "retrywrites"),
            ("mongodb://u:hunter2@h/?tlsCertificateKeyFilePassword=hunter2&w=-1", "w"),
            ("mongodb://h/?authMechanism=SCRAM-SHA-256", "username"),
        ] {
            let message = settings(url, &Access::default()).expect_err(url);
            assert!(
                message.to_lowercase().contains(&said.to_lowercase()) && !message.contains("hunter2"),
                "{url}: {message}"
            );
            assert_eq!(message.lines().count(), 1, "{url}: {message}");
        }
    }

    #[test]
    fn flags_count_before_the_url() {
        let given = |url: &str, access: &Access| settings(url, access).map(|settings| settings.url.0);
        let both = login(Some("me@home"), Some("p:w"));
        let url = Ok("mongodb://me%40home:p%3Aw@h/x?tls=true".to_owned());
        assert_eq!(given("mongodb://u:p@h/x?tls=true", &both), url);
        assert_eq!(given("mongodb://h/x?tls=true", &both), url);
        assert_eq!(given("mongodb://u@h", &login(None, Some("pw"))), Ok("mongodb://u:pw@h".to_owned()));
        assert_eq!(given("mongodb://u:pw@h", &login(Some("me"), None)), Ok("mongodb://me:pw@h".to_owned()));
        assert!(given("mongodb://h", &login(Some("me"), None)).expect_err("half").contains("--password-file"));
        assert!(given("mongodb://h", &login(None, Some("pw"))).expect_err("half").contains("--username"));
        let ca = Access { tls_ca: Some("/ca".into()), ..Access::default() };
        assert!(settings("mongodb://h", &ca).expect("it makes sense").tls.is_given());
        assert!(settings("mongodb://h/?tls=false", &ca).expect_err("in the clear").contains("--tls-ca"));
        let cert = Access { tls_cert: Some("/cert".into()), ..Access::default() };
        assert!(settings("mongodb://h", &cert).expect_err("half").contains("--tls-key"));
    }
}
