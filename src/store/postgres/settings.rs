//! The settings of a connection to PostgreSQL, from URL, flags and libpq's variables, in this order.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::passfile::{self, PassfileLogin};
use super::url::{PostgresUrl, SslMode, read_hosts};
use crate::host_port::{ServerAddress, joined};
use crate::store::connection::credentials::non_empty;
use crate::store::connection::setup::TimeLimits;
use crate::store::connection::tls::TlsSettings;
use crate::store::url::StoreUrl;
use crate::store::{Access, Password, StoreError};

const DEFAULT_PORT: u16 = 5432;
/// The schema of elect's table: the search path may differ from one candidate to another, and is not used.
const DEFAULT_SCHEMA: &str = "public";

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HostPlace {
    Address(ServerAddress),
    /// A directory with a socket file, and the port that is in its name.
    Socket(PathBuf, u16),
}

impl std::fmt::Display for HostPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            HostPlace::Address(address) => address.fmt(f),
            HostPlace::Socket(directory, port) => write!(f, "{}/.s.PGSQL.{port}", directory.display()),
        }
    }
}

/// When and how TLS is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Encryption {
    Never,
    IfOffered,
    Always,
}

/// One of the servers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Host {
    pub place: HostPlace,
    pub password: Option<Password>,
}

/// Everything that is needed to reach a PostgreSQL; it also travels in claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::struct_excessive_bools, reason = "each is true or false by itself")]
pub struct Settings {
    pub hosts: Vec<Host>,
    pub username: String,
    pub database: String,
    pub schema: String,
    pub encryption: Encryption,
    pub tls: TlsSettings,
    /// Whether the certificate has to name the host.
    pub verifies_name: bool,
    pub requires_channel_binding: bool,
    /// Whether a lease is credited only while a synchronous standby is configured.
    pub is_synchronous_required: bool,
    /// Whether hints are asked for; otherwise only leaders keep a connection.
    pub listens: bool,
    pub limits: TimeLimits,
    /// How often the other hosts are read.
    pub renew_interval: Duration,
    /// As people read it.
    pub shown: String,
}

/// The user of this process, as libpq guesses it.
fn system_user() -> Option<String> {
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten();
    user.map(|user| user.name)
}

impl Settings {
    /// The error for a host that takes longer than an attempt.
    pub fn silent(&self, host: &Host) -> StoreError {
        let said = self.limits.too_slow_for_attempt(self.limits.attempt);
        StoreError::Unavailable(format!("{} {said}", host.place))
    }

    /// Puts together what URL, flags and variables say.
    ///
    /// # Errors
    ///
    /// They do not fit together.
    pub fn new(
        url: &StoreUrl<'_>,
        access: &Access,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Settings, StoreError> {
        let variable = |name: &str| variable(name).and_then(non_empty);
        let target = PostgresUrl::parse(url).map_err(StoreError::Misused)?;
        let port_error = |_| StoreError::Misused("PGPORT is no port: set it to a number of at most 65535".to_owned());
        let port = match (target.port, variable("PGPORT")) {
            (Some(port), _) => port,
            (None, Some(port)) => port.parse().map_err(port_error)?,
            (None, None) => DEFAULT_PORT,
        };
        let mut hosts = target.hosts.clone();
        if hosts.is_empty() {
            let named = variable("PGHOST").unwrap_or_default();
            hosts = read_hosts(&named).map_err(|why| StoreError::Misused(format!("PGHOST: {why}")))?;
        }
        if hosts.is_empty() {
            hosts.push(("127.0.0.1".to_owned(), None));
        }
        let username = access.username.clone().or_else(|| target.username.clone()).or_else(|| variable("PGUSER"));
        let username = username.or_else(system_user).ok_or_else(|| {
            StoreError::Misused("this process has no user name: give one with --username or in the URL".to_owned())
        })?;
        let database = target.database.clone().or_else(|| variable("PGDATABASE")).unwrap_or_else(|| username.clone());
        let password = access.password.clone().or_else(|| target.password.clone());
        let password = password.or_else(|| variable("PGPASSWORD").map(Password));
        let passfile = target.passfile.clone().or_else(|| variable("PGPASSFILE").map(PathBuf::from));
        let passfile = passfile.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".pgpass")));
        let hosts: Vec<Host> = hosts
            .into_iter()
            .map(|(name, own_port)| {
                let port = own_port.unwrap_or(port);
                let place = match ServerAddress::parse(&name, port) {
                    Some(address) if !name.starts_with('/') => HostPlace::Address(address),
                    Some(_) | None => HostPlace::Socket(PathBuf::from(&name), port),
                };
                let host = match &place {
                    HostPlace::Address(address) => address.host.as_str(),
                    HostPlace::Socket(..) => "localhost",
                };
                let login = PassfileLogin { host, port, database: &database, user: &username };
                let found = || passfile.as_ref().and_then(|file| passfile::password(file, login));
                Host { password: password.clone().or_else(found), place }
            })
            .collect();
        let (encryption, tls, verifies_name) = encryption(&target, access, &variable)?;
        target.foreign.log_ignored();
        let shown = |host: &Host| match &host.place {
            HostPlace::Address(address) => joined(&address.host, Some(address.port)).unwrap_or_default(),
            HostPlace::Socket(directory, _) => directory.display().to_string(),
        };
        Ok(Settings {
            shown: format!("postgres://{}/{database}", hosts.iter().map(shown).collect::<Vec<_>>().join(",")),
            hosts,
            username,
            database,
            schema: target.schema.unwrap_or_else(|| DEFAULT_SCHEMA.to_owned()),
            encryption,
            tls,
            verifies_name,
            requires_channel_binding: target.requires_channel_binding,
            is_synchronous_required: target.is_synchronous_required,
            listens: target.listens.unwrap_or(true),
            limits: TimeLimits::new(access),
            renew_interval: access.renew_interval,
        })
    }
}

/// Whether there is TLS, with which files, and whether the certificate has to name the host.
fn encryption(
    target: &PostgresUrl,
    access: &Access,
    variable: &impl Fn(&str) -> Option<String>,
) -> Result<(Encryption, TlsSettings, bool), StoreError> {
    let file = |flag: &Option<PathBuf>, option: &Option<PathBuf>, name: &str| {
        flag.clone().or_else(|| option.clone()).or_else(|| variable(name).map(PathBuf::from))
    };
    let mode = match (target.ssl_mode, variable("PGSSLMODE")) {
        (Some(mode), _) => Some(mode),
        (None, Some(mode)) => {
            Some(SslMode::parse(&mode).map_err(|why| StoreError::Misused(format!("PGSSLMODE: {why}")))?)
        }
        (None, None) => None,
    };
    let ca = file(&access.tls_ca, &target.ca, "PGSSLROOTCERT");
    // libpq's name for the authorities of the system.
    let is_system = ca.as_ref().is_some_and(|ca| ca.as_os_str() == "system");
    let ca = ca.filter(|_| !is_system);
    let tls = TlsSettings::new(
        ca,
        file(&access.tls_cert, &target.cert, "PGSSLCERT"),
        file(&access.tls_key, &target.key, "PGSSLKEY"),
    )?;
    if let (Some(SslMode::Disable), Some(flag)) = (mode, access.first_tls_flag()) {
        return Err(StoreError::Misused(format!("{flag} needs an encrypted connection, and sslmode is disable")));
    }
    if access.tls_skip_verify {
        let tls = tls.skipping_verification(Some("--tls-skip-verify"), "--tls-ca or sslrootcert")?;
        return Ok((Encryption::Always, tls, false));
    }
    let unverified = |tls: TlsSettings| TlsSettings { skip_verify: true, ca: None, ..tls };
    let mode = match mode {
        // A flag that names an authority asks for all that it can say.
        Some(SslMode::Prefer | SslMode::Require) | None if access.tls_ca.is_some() || is_system => SslMode::VerifyFull,
        None | Some(SslMode::Prefer) if access.first_tls_flag().is_some() => SslMode::Require,
        None => SslMode::Prefer,
        Some(mode) => mode,
    };
    Ok(match mode {
        SslMode::Disable => (Encryption::Never, TlsSettings::default(), false),
        SslMode::Prefer => (Encryption::IfOffered, unverified(tls), false),
        SslMode::Require if tls.ca.is_none() => (Encryption::Always, unverified(tls), false),
        // As for libpq: with a certificate of any public authority, any server would pass.
        SslMode::VerifyCa if tls.ca.is_none() => {
            return Err(StoreError::Misused(
                "sslmode=verify-ca needs the authority: name its file with --tls-ca or sslrootcert, or use verify-full"
                    .to_owned(),
            ));
        }
        SslMode::Require | SslMode::VerifyCa => (Encryption::Always, tls, false),
        SslMode::VerifyFull => (Encryption::Always, tls, true),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(url: &str, access: &Access, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let url = StoreUrl::parse(url).map_err(|error| error.to_string())?;
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::new(&url, access, value).map_err(|error| error.to_string())
    }

    #[test]
    fn variables_fill_in_what_url_and_flags_leave_open() {
        let variables = [
            ("PGHOST", "h1,h2:7"),
            ("PGPORT", "6"),
            ("PGUSER", "var"),
            ("PGPASSWORD", "secret"),
            ("PGDATABASE", "data"),
            ("PGSSLMODE", "require"),
        ];
        let read = settings("postgres:", &Access::default(), &variables).expect("complete");
        assert_eq!(read.shown, "postgres://h1:6,h2:7/data");
        assert_eq!((read.username.as_str(), read.encryption), ("var", Encryption::Always));
        assert!(read.hosts.iter().all(|host| host.password == Some(Password("secret".to_owned()))));
        let flags = Access { username: Some("flag".to_owned()), ..Access::default() };
        let read = settings("postgres://url@h/db?sslmode=disable", &flags, &variables).expect("complete");
        assert_eq!(read.shown, "postgres://h:6/db");
        assert_eq!((read.username.as_str(), read.encryption), ("flag", Encryption::Never));
        assert!(settings("postgres:", &flags, &[("PGPORT", "x")]).expect_err("no port").contains("PGPORT"));
    }

    #[test]
    fn sslmode_means_what_it_means_in_libpq() {
        let ca = Access { tls_ca: Some("/ca".into()), ..Access::default() };
        let none = Access::default();
        for (options, access, encryption, skips, verifies_name) in [
            ("", &none, Encryption::IfOffered, true, false),
            ("?sslmode=disable", &none, Encryption::Never, false, false),
            ("?sslmode=prefer", &none, Encryption::IfOffered, true, false),
            ("?sslmode=require", &none, Encryption::Always, true, false),
            ("?sslmode=require&sslrootcert=/ca", &none, Encryption::Always, false, false),
            ("?sslmode=verify-ca&sslrootcert=/ca", &none, Encryption::Always, false, false),
            ("?sslmode=verify-full", &none, Encryption::Always, false, true),
            ("?sslrootcert=system", &none, Encryption::Always, false, true),
            ("", &ca, Encryption::Always, false, true),
            ("?sslmode=verify-ca", &ca, Encryption::Always, false, false),
        ] {
            let read = settings(&format!("postgres://u@h/db{options}"), access, &[]).expect(options);
            assert_eq!(
                (read.encryption, read.tls.skip_verify, read.verifies_name),
                (encryption, skips, verifies_name),
                "{options}"
            );
        }
        assert!(settings("postgres://h/?sslmode=disable", &ca, &[]).expect_err("in the clear").contains("--tls-ca"));
        // Any name with a certificate of any public authority would do.
        for options in ["?sslmode=verify-ca", "?sslmode=verify-ca&sslrootcert=system"] {
            let error = settings(&format!("postgres://u@h/db{options}"), &none, &[]).expect_err(options);
            assert!(error.contains("verify-full"), "{error}");
        }
    }

    #[test]
    fn a_password_comes_from_the_file_of_the_host() {
        use std::os::unix::fs::PermissionsExt;
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), "h1:*:*:*:one\nlocalhost:*:db:*:two\n").expect("written");
        std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).expect("our file");
        let path = file.path().display().to_string();
        let url = "postgres://u@h1,h2,%2Frun/db";
        let read = settings(url, &Access::default(), &[("PGPASSFILE", &path)]).expect("complete");
        let passwords: Vec<_> = read.hosts.into_iter().map(|host| host.password.map(|Password(text)| text)).collect();
        assert_eq!(passwords, [Some("one".to_owned()), None, Some("two".to_owned())]);
    }
}
