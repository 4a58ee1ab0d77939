//! The settings of an etcd connection, from URL, flags and `ETCD3_*`.
//!
//! The URL comes first, then the flags, then the variables that other etcd clients read too; the variables fill in what is
//! left open and never choose the store.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use serde::{Deserialize, Serialize};

use super::layout::{self, DEFAULT_PREFIX, Keys, Layout};
use crate::duration::parse_duration;
use crate::host_port::ServerAddress;
use crate::store::connection::credentials::missing_password;
use crate::store::connection::setup::TimeLimits;
use crate::store::connection::tls::TlsSettings;
use crate::store::url::StoreUrl;
use crate::store::{Access, Password, StoreError};
use elect_core::boundary::{Boundary, BoundaryError};

const DEFAULT_PORT: u16 = 2379;
const NO_USER: &str = "a user belongs in --username, the password in --password-file or ELECT_PASSWORD";
const OPTIONS: &str = "?term=revision, layout=exact, layout=holster, value=name and others=ignore";

/// Everything that is needed to reach an etcd; it also travels in claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    /// `host:port`, IPv6 in brackets; at least one.
    pub endpoints: Vec<String>,
    /// Where elections are.
    #[serde(flatten)]
    pub keys: Keys,
    /// `None`: in the clear.
    pub tls: Option<TlsSettings>,
    /// Name and password.
    pub user: Option<(String, Password)>,
    /// An attempt is one over all endpoints.
    pub limits: TimeLimits,
    /// How long reaching one endpoint may take; at most the attempt.
    pub dial_timeout: Option<Duration>,
}

/// The settings in a URL.
#[derive(Debug, PartialEq, Eq)]
pub struct EtcdUrl {
    endpoints: Vec<String>,
    keys: Keys,
    /// `None`: left open, as in `etcd:`.
    tls: Option<bool>,
}

impl EtcdUrl {
    /// Reads `//h1:2379,h2:2379/prefix?option&option`, or less, which leaves the rest open.
    ///
    /// # Errors
    ///
    /// Says what is not understood; never repeats what may be a password.
    pub fn parse(url: &StoreUrl<'_>) -> Result<EtcdUrl, String> {
        let encrypted = url.scheme == "etcds";
        // Wherever it is: a password may hold the character that seems to begin the prefix, which is shown.
        if url.rest.starts_with("//") && url.rest.contains('@') {
            return Err(NO_USER.to_owned());
        }
        let (place, options) = url.rest.split_once('?').map_or((url.rest, None), |(place, rest)| (place, Some(rest)));
        let mut keys = Keys::below(DEFAULT_PREFIX.to_owned());
        let mut given = BTreeSet::new();
        for option in options.into_iter().flat_map(|options| options.split('&')) {
            // Not repeated: it may be a password.
            if !keys.take(option) {
                return Err(format!("the options in the URL of an etcd are {OPTIONS}"));
            }
            let name = option.split_once('=').map_or(option, |(name, _)| name);
            if !given.insert(name) {
                return Err(format!("{name}= is in the URL twice: leave one of them out"));
            }
        }
        if place.is_empty() {
            let tls = encrypted.then_some(true);
            return Ok(EtcdUrl { endpoints: Vec::new(), keys, tls });
        }
        let rest = place.strip_prefix("//").ok_or_else(form)?;
        if rest.contains('#') {
            return Err(format!("nothing but {OPTIONS} follows the prefix in the URL of an etcd"));
        }
        let (hosts, path) = rest.split_once('/').map_or((rest, ""), |(hosts, path)| (hosts, path));
        let endpoints =
            hosts.split(',').filter(|host| !host.is_empty()).map(endpoint).collect::<Result<Vec<_>, _>>()?;
        let tls = if endpoints.is_empty() { encrypted.then_some(true) } else { Some(encrypted) };
        match keys.layout {
            Layout::Elect => keys.prefix = prefix(path)?,
            Layout::Exact if !path.is_empty() => {
                return Err("with ?layout=exact the boundary is the whole name of the election: write what follows the hosts into \
                            --boundary, and leave it out of the URL"
                    .to_owned());
            }
            Layout::Holster if !path.is_empty() => {
                return Err("with ?layout=holster all elections are below /elections/: name one with --boundary, and leave out of \
                            the URL what follows the hosts"
                    .to_owned());
            }
            Layout::Exact | Layout::Holster => {}
        }
        Ok(EtcdUrl { endpoints, keys, tls })
    }
}

/// A boundary's name, as the layout that the URL names takes it.
///
/// # Errors
///
/// It is none.
pub fn boundary(url: &StoreUrl<'_>, name: &str) -> Result<Boundary, BoundaryError> {
    let layout = EtcdUrl::parse(url).map(|target| target.keys.layout).unwrap_or_default();
    layout::named(layout, name)
}

fn form() -> String {
    "write it as etcd://HOST:PORT,HOST:PORT/PREFIX, or etcd: for the one at 127.0.0.1:2379".to_owned()
}

fn prefix(path: &str) -> Result<String, String> {
    let path = percent_decode_str(path).decode_utf8().map_err(|_| "its prefix is not UTF-8".to_owned())?;
    let path = path.trim_end_matches('/');
    Ok(if path.is_empty() { DEFAULT_PREFIX.to_owned() } else { format!("/{path}/") })
}

/// `host`, `host:port` or `[v6]:port` with the port that is usual if there is none.
fn endpoint(text: &str) -> Result<String, String> {
    // Not repeated: it may be a password.
    let wrong = || "one of the hosts is no HOST:PORT with a port of at most 65535".to_owned();
    if text.contains('@') {
        return Err(NO_USER.to_owned());
    }
    ServerAddress::parse(text, DEFAULT_PORT).map(|address| address.to_string()).ok_or_else(wrong)
}

impl Settings {
    /// Puts together what URL, flags and environment say.
    ///
    /// # Errors
    ///
    /// They do not fit together.
    pub fn new(
        url: &StoreUrl<'_>,
        access: &Access,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Settings, StoreError> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        let target = EtcdUrl::parse(url).map_err(StoreError::Misused)?;
        let (endpoints, encrypted_endpoints) = match target.endpoints {
            named if !named.is_empty() => (named, None),
            _ => endpoints_from(variable("ETCD3_ENDPOINT"))?,
        };
        let enabled = flag("ETCD3_ENABLE_TLS", variable("ETCD3_ENABLE_TLS").as_deref())?;
        let tls = tls(access, &variable)?;
        let encrypted = target.tls.or(encrypted_endpoints).or(enabled).unwrap_or(tls.is_some());
        // A flag is never ignored silently. A variable is: it may be meant for another program.
        if !encrypted && let Some(flag) = access.first_tls_flag() {
            return Err(StoreError::Misused(format!("{flag} needs an encrypted connection: write --store etcds://…")));
        }
        Ok(Settings {
            endpoints,
            keys: target.keys,
            tls: encrypted.then(|| tls.unwrap_or_default()),
            user: user(access, &variable)?,
            limits: TimeLimits::new(access),
            dial_timeout: variable("ETCD3_DIAL_TIMEOUT")
                .map(|text| parse_duration(&text).map_err(|error| misused("ETCD3_DIAL_TIMEOUT", &error)))
                .transpose()?,
        })
    }

    /// For display.
    pub fn address(&self) -> String {
        let scheme = if self.tls.is_some() { "etcds" } else { "etcd" };
        format!("{scheme}://{}", self.endpoints.join(","))
    }
}

fn misused(name: &str, error: &str) -> StoreError {
    StoreError::Misused(format!("{name}: {error}"))
}

/// With a scheme before them or without; a scheme says whether they are encrypted.
fn endpoints_from(variable: Option<String>) -> Result<(Vec<String>, Option<bool>), StoreError> {
    let Some(text) = variable else { return Ok((vec![format!("127.0.0.1:{DEFAULT_PORT}")], None)) };
    let (mut endpoints, mut encrypted) = (Vec::new(), None);
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let (scheme, host) = match part.split_once("://") {
            Some(("https", host)) => (Some(true), host),
            Some(("http", host)) => (Some(false), host),
            // Not repeated: it may be a password.
            Some(_) => return Err(misused("ETCD3_ENDPOINT", "what stands before :// is neither http nor https")),
            None => (None, part),
        };
        if encrypted.is_some() && scheme != encrypted {
            return Err(misused("ETCD3_ENDPOINT", "either all of them are https or none is"));
        }
        encrypted = scheme;
        endpoints.push(endpoint(host.trim_end_matches('/')).map_err(|error| misused("ETCD3_ENDPOINT", &error))?);
    }
    if endpoints.is_empty() { Err(misused("ETCD3_ENDPOINT", "names no host")) } else { Ok((endpoints, encrypted)) }
}

fn flag(name: &str, value: Option<&str>) -> Result<Option<bool>, StoreError> {
    match value.map(str::to_ascii_lowercase).as_deref() {
        None => Ok(None),
        Some("1" | "true" | "yes" | "on") => Ok(Some(true)),
        Some("0" | "false" | "no" | "off") => Ok(Some(false)),
        Some(_) => Err(misused(name, "say 1 or 0")),
    }
}

fn tls(access: &Access, variable: &impl Fn(&str) -> Option<String>) -> Result<Option<TlsSettings>, StoreError> {
    let path = |given: &Option<PathBuf>, name| given.clone().or_else(|| variable(name).map(PathBuf::from));
    let ca = path(&access.tls_ca, "ETCD3_CA");
    let tls = TlsSettings::new(ca, path(&access.tls_cert, "ETCD3_TLS_CERT"), path(&access.tls_key, "ETCD3_TLS_KEY"))?;
    let skips = flag("ETCD3_SKIP_VERIFY", variable("ETCD3_SKIP_VERIFY").as_deref())?.unwrap_or(false);
    let skip = if access.tls_skip_verify { Some("--tls-skip-verify") } else { skips.then_some("ETCD3_SKIP_VERIFY") };
    let ca = if access.tls_ca.is_some() { "--tls-ca" } else { "ETCD3_CA" };
    let tls = tls.skipping_verification(skip, ca)?;
    Ok(Some(tls).filter(TlsSettings::is_given))
}

fn user(access: &Access, variable: &impl Fn(&str) -> Option<String>) -> Result<Option<(String, Password)>, StoreError> {
    let password = access.password.clone().or_else(|| variable("ETCD3_PASSWORD").map(Password));
    let name = match (&access.username, variable("ETCD3_USER")) {
        (Some(name), _) if name.contains(':') && password.is_none() => {
            return Err(StoreError::Misused(
                "--username takes the name alone; the password is for --password-file or ELECT_PASSWORD".to_owned(),
            ));
        }
        (Some(name), _) => Some(name.clone()),
        // As etcdctl takes them: user:password.
        (None, Some(both)) if both.contains(':') && password.is_none() => {
            return Ok(both.split_once(':').map(|(name, password)| (name.to_owned(), Password(password.to_owned()))));
        }
        (None, variable) => variable,
    };
    match (name, password) {
        (Some(name), Some(password)) => Ok(Some((name, password))),
        (Some(name), None) => {
            Err(missing_password(&format!("user {name:?}"), "--password-file, ELECT_PASSWORD or ETCD3_PASSWORD"))
        }
        // A password without a user is not used.
        (None, _) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::super::terms::Scheme;
    use super::*;
    use crate::store::registry::tests::careless;
    use elect_core::proptest_support;

    fn settings(url: &str, access: &Access, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let url = StoreUrl::parse(url).map_err(|error| error.to_string())?;
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::new(&url, access, variable).map_err(|error| error.to_string())
    }

    fn plain(url: &str) -> Settings {
        settings(url, &Access::default(), &[]).expect("it makes sense")
    }

    #[test]
    fn a_url_names_hosts_and_prefix_and_what_is_left_out_is_usual() {
        assert_eq!(plain("etcd:").endpoints, ["127.0.0.1:2379"]);
        assert_eq!(plain("etcd:").keys.prefix, "/elect/");
        assert_eq!(plain("etcd:").tls, None);
        let two = plain("etcd://h1,h2:2380/team/a/");
        assert_eq!(
            (two.endpoints, two.keys.prefix),
            (vec!["h1:2379".to_owned(), "h2:2380".to_owned()], "/team/a/".to_owned())
        );
        assert_eq!(plain("etcd://[::1]").endpoints, ["[::1]:2379"]);
        assert_eq!(plain("etcd://[::1]:5").endpoints, ["[::1]:5"]);
        assert_eq!(plain("etcd:///p%20q").keys.prefix, "/p q/");
        assert_eq!(plain("etcds://h").tls, Some(TlsSettings::default()));
        assert_eq!(plain("etcds:").tls, Some(TlsSettings::default()));
        assert_eq!(plain("etcds://h").address(), "etcds://h:2379");
        assert_eq!(plain("etcd://h/p").keys.terms, Scheme::Stored);
        for url in ["etcd:?term=revision", "etcd://h?term=revision", "etcd://h/p?term=revision"] {
            assert_eq!(plain(url).keys.terms, Scheme::Revision, "{url}");
        }
        assert_eq!(plain("etcd://h/p?term=revision").keys.prefix, "/p/");
    }

    #[test]
    fn a_url_names_the_layout_of_other_programs() {
        for url in
            ["etcd:?layout=exact&value=name", "etcd://h?value=name&layout=exact", "etcd://h/?layout=exact&value=name"]
        {
            assert_eq!(plain(url).keys.options(), "?layout=exact&value=name", "{url}");
        }
        assert_eq!(plain("etcd://h/p?value=name&others=ignore").keys.options(), "?value=name&others=ignore");
        let claimed = serde_json::to_string(&plain("etcd://h?layout=holster")).expect("JSON");
        assert_eq!(serde_json::from_str::<Settings>(&claimed).expect("settings"), plain("etcd://h?layout=holster"));
        let before = claimed.replace(r#""layout":"holster","value":"name","ignores_others":false,"#, "");
        assert_eq!(serde_json::from_str::<Settings>(&before).expect(&before).keys.layout, Layout::Elect);
        let url = |text| StoreUrl::parse(text).expect("a URL");
        assert!(boundary(&url("etcd:"), &"x".repeat(200)).is_err());
        assert!(boundary(&url("etcd:?layout=exact"), &"x".repeat(200)).is_ok());
        assert!(boundary(&url("etcd:?layout=holster"), "a/").is_err());
    }

    #[test]
    fn a_url_that_is_none_is_told_apart_without_repeating_a_password() {
        for (url, said) in [
            ("etcd:h1", "etcd://HOST:PORT"),
            ("etcd://h:port", "no HOST:PORT"),
            ("etcd://h:99999", "no HOST:PORT"),
            ("etcd://::1", "no HOST:PORT"),
            ("etcd://root:hunter2@h", "--password-file"),
            ("etcd://root:hunter2", "no HOST:PORT"),
            ("etcd://h/p?x=1", "?term=revision"),
            ("etcd://h/p?term=hunter2", "?term=revision"),
            ("etcd://h/p#x", "?term=revision"),
            ("etcd:?", "?term=revision"),
            ("etcd:?layout=elect", "layout=holster"),
            ("etcd:?layout=exact&value=json", "value=name"),
            ("etcd://h/p?layout=exact", "--boundary"),
            ("etcd://h/elections?layout=holster", "--boundary"),
            ("etcd:?layout=exact&layout=holster", "layout= is in the URL twice"),
            ("etcd://h?value=name&layout=exact&value=name", "value= is in the URL twice"),
            ("etcd://h/%ff", "UTF-8"),
        ] {
            let message = settings(url, &Access::default(), &[]).expect_err(url);
            assert!(message.contains(said) && !message.contains("hunter2"), "{message}");
        }
    }

    #[test]
    fn variables_fill_in_what_url_and_flags_leave_open() {
        let all = [
            ("ETCD3_ENDPOINT", "https://e1:1, https://e2"),
            ("ETCD3_USER", "u"),
            ("ETCD3_PASSWORD", "p"),
            ("ETCD3_CA", "/ca"),
            ("ETCD3_TLS_CERT", "/cert"),
            ("ETCD3_TLS_KEY", "/key"),
            ("ETCD3_SKIP_VERIFY", "false"),
            ("ETCD3_DIAL_TIMEOUT", "2s"),
        ];
        let filled = settings("etcd:", &Access::default(), &all).expect("it makes sense");
        let tls =
            TlsSettings { ca: Some("/ca".into()), identity: Some(("/cert".into(), "/key".into())), skip_verify: false };
        assert_eq!(filled.endpoints, ["e1:1", "e2:2379"]);
        assert_eq!(filled.tls, Some(tls));
        assert_eq!(filled.user, Some(("u".to_owned(), Password("p".to_owned()))));
        assert_eq!(filled.dial_timeout, Some(Duration::from_secs(2)));

        let access = Access {
            username: Some("me".to_owned()),
            password: Some(Password("mine".to_owned())),
            tls_ca: Some("/my-ca".into()),
            ..Access::default()
        };
        let chosen = settings("etcds://h/p", &access, &all).expect("it makes sense");
        assert_eq!((chosen.endpoints, chosen.keys.prefix), (vec!["h:2379".to_owned()], "/p/".to_owned()));
        assert_eq!(chosen.user, Some(("me".to_owned(), Password("mine".to_owned()))));
        assert_eq!(chosen.tls.expect("encrypted").ca, Some("/my-ca".into()));
        assert_eq!(
            settings("etcd://h", &Access::default(), &all).expect("it makes sense").tls,
            None,
            "the URL says so"
        );
    }

    #[test]
    fn verification_is_not_skipped_beside_an_authority_whoever_names_either() {
        let skip = ("ETCD3_SKIP_VERIFY", "1");
        let by_flag = Access { tls_ca: Some("/ca".into()), ..Access::default() };
        let error = settings("etcds://h", &by_flag, &[skip]).expect_err("both");
        assert!(error.contains("ETCD3_SKIP_VERIFY") && error.contains("--tls-ca"), "{error}");
        let error = settings("etcds://h", &Access::default(), &[skip, ("ETCD3_CA", "/ca")]).expect_err("both");
        assert!(error.contains("ETCD3_SKIP_VERIFY") && error.contains("ETCD3_CA"), "{error}");
        let flags = Access { tls_skip_verify: true, ..by_flag };
        assert!(settings("etcds://h", &flags, &[]).expect_err("both").contains("--tls-skip-verify"));
        let alone = Access { tls_skip_verify: true, ..Access::default() };
        for (access, variables) in [(&alone, &[][..]), (&Access::default(), &[skip])] {
            assert!(settings("etcds://h", access, variables).expect("one").tls.expect("encrypted").skip_verify);
        }
        assert!(settings("etcd://h", &alone, &[]).expect_err("in the clear").contains("--tls-skip-verify"));
    }

    #[test]
    fn tls_can_be_turned_on_by_a_variable_alone() {
        let on = |value| settings("etcd:", &Access::default(), &[("ETCD3_ENABLE_TLS", value)]);
        assert_eq!(on("1").expect("on").tls, Some(TlsSettings::default()));
        assert_eq!(on("").expect("empty is unset").tls, None);
        assert!(on("perhaps").expect_err("neither").contains("1 or 0"));
    }

    #[test]
    fn what_does_not_fit_together_is_said() {
        let ca = Access { tls_ca: Some("/ca".into()), ..Access::default() };
        assert!(settings("etcd://h", &ca, &[]).expect_err("in the clear").contains("etcds://"));
        let cert = Access { tls_cert: Some("/cert".into()), ..Access::default() };
        assert!(settings("etcds://h", &cert, &[]).expect_err("half").contains("--tls-key"));
        let key = Access { tls_key: Some("/key".into()), ..Access::default() };
        assert!(settings("etcds://h", &key, &[]).expect_err("half").contains("--tls-cert"));
        let user = Access { username: Some("me".to_owned()), ..Access::default() };
        assert!(settings("etcd://h", &user, &[]).expect_err("half").contains("--password-file"));
        let both = Access { username: Some("me:hunter2".to_owned()), ..Access::default() };
        let message = settings("etcd://h", &both, &[]).expect_err("in argv");
        assert!(message.contains("--password-file") && !message.contains("hunter2"), "{message}");
        let message = settings("etcd:", &Access::default(), &[("ETCD3_ENDPOINT", "http://me:hunter2@h")]);
        let message = message.expect_err("a password");
        assert!(message.contains("--password-file") && !message.contains("hunter2"), "{message}");
        let split = settings("etcd:", &Access::default(), &[("ETCD3_USER", "me:mine")]).expect("it makes sense");
        assert_eq!(split.user, Some(("me".to_owned(), Password("mine".to_owned()))));
        for (name, value) in [
            ("ETCD3_ENDPOINT", "ftp://h"),
            ("ETCD3_ENDPOINT", "https://h,http://h"),
            ("ETCD3_ENDPOINT", ","),
            ("ETCD3_DIAL_TIMEOUT", "soon"),
        ] {
            assert!(settings("etcd:", &Access::default(), &[(name, value)]).expect_err(value).contains(name));
        }
    }

    #[test]
    fn no_password_in_a_variable_is_ever_repeated() {
        proptest_support::check(proptest_support::FAST, &careless(), |(text, password)| {
            for name in ["ETCD3_ENDPOINT", "ETCD3_USER"] {
                if let Err(error) = settings("etcd:", &Access::default(), &[(name, &text)]) {
                    assert!(!error.contains(password) && error.lines().count() == 1, "{name}: {error}");
                }
            }
        });
    }
}
