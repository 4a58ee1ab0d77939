//! How an API server is reached: from the URL and the flags, or from what every pod has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::bounded_file;
use crate::host_port::ServerAddress;
use crate::store::connection::setup::TimeLimits;
use crate::store::connection::tls::TlsSettings;
use crate::store::url::StoreUrl;
use crate::store::{Access, Password, StoreError};
use elect_core::limits::CREDENTIAL_BYTES_MAX;

/// Where a pod finds its token, the cluster's authority, and its namespace.
pub const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Of API servers.
pub const DEFAULT_PORT: u16 = 6443;
/// Of `kubectl proxy`.
const DEFAULT_PLAIN_PORT: u16 = 8001;
/// The namespace of a URL without one.
const DEFAULT_NAMESPACE: &str = "default";
/// Longest name of a namespace, which is one part of a domain name.
const NAMESPACE_BYTES_MAX: usize = 63;
/// The scheme of a server without TLS: `kubectl proxy`, on this host or in this pod.
pub const PLAIN_SCHEME: &str = "kubernetes+http";
const FORM: &str = "write it as kubernetes: or kubernetes:NAMESPACE in a pod, or as kubernetes://HOST:PORT/NAMESPACE";

/// The URL, read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KubernetesUrl {
    /// `None`: the server of the cluster that this pod is in.
    pub address: Option<ServerAddress>,
    /// `None`: that of this pod.
    pub namespace: Option<String>,
    pub is_encrypted: bool,
}

impl KubernetesUrl {
    /// Reads it.
    ///
    /// # Errors
    ///
    /// Says what is not understood. Nothing is repeated that may be a password.
    pub fn parse(url: &StoreUrl<'_>) -> Result<KubernetesUrl, String> {
        let is_encrypted = url.scheme != PLAIN_SCHEME;
        let Some(rest) = url.rest.strip_prefix("//") else {
            if !is_encrypted {
                return Err(format!("{FORM}; {PLAIN_SCHEME}://HOST:PORT/NAMESPACE is a server without TLS"));
            }
            let namespace = (!url.rest.is_empty()).then(|| namespace(url.rest)).transpose()?;
            return Ok(KubernetesUrl { address: None, namespace, is_encrypted });
        };
        if rest.contains('@') {
            return Err(
                "it takes no user: give a token with --password-file, or a certificate with --tls-cert".to_owned()
            );
        }
        if rest.contains('?') {
            return Err("it takes no options".to_owned());
        }
        let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
        let port = if is_encrypted { DEFAULT_PORT } else { DEFAULT_PLAIN_PORT };
        let address = ServerAddress::parse(host, port).filter(|address| !address.host.is_empty()).ok_or(FORM)?;
        let name = if path.is_empty() { DEFAULT_NAMESPACE.to_owned() } else { namespace(path)? };
        Ok(KubernetesUrl { address: Some(address), namespace: Some(name), is_encrypted })
    }

    /// As it is shown.
    pub fn shown(&self, scheme: &str) -> String {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        match &self.address {
            Some(address) => format!("{scheme}://{address}/{namespace}"),
            None => format!("{scheme}:{namespace}"),
        }
    }
}

fn namespace(text: &str) -> Result<String, String> {
    let is_inside = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    let bytes = text.as_bytes();
    let is_one = bytes.len() <= NAMESPACE_BYTES_MAX
        && bytes.iter().all(is_inside)
        && ![bytes.first(), bytes.last()].contains(&Some(&b'-'));
    if !is_one {
        return Err(format!("a namespace has small letters, digits and dashes, and at most 63 of them: {FORM}"));
    }
    Ok(text.to_owned())
}

/// The proof of who is asking.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Token {
    /// None, or a certificate.
    None,
    /// From a variable.
    Given(Password),
    /// Read for each connection, since such a token is replaced every hour.
    File(PathBuf),
}

impl Token {
    /// One from a variable, perhaps with the line end of the file that it was made from.
    fn given(Password(text): &Password) -> Result<Token, StoreError> {
        match as_token(text) {
            Some(token) => Ok(Token::Given(Password(token.to_owned()))),
            None => Err(StoreError::Misused(
                "ELECT_PASSWORD has blanks or control characters: set it to the bearer token alone".to_owned(),
            )),
        }
    }

    /// The token as it is now.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or holds none.
    pub fn read(&self) -> Result<Option<String>, StoreError> {
        let path = match self {
            Token::None => return Ok(None),
            Token::Given(Password(token)) => return Ok(Some(token.clone())),
            Token::File(path) => path,
        };
        // A file that is being replaced is there again in a moment.
        let text = read(path).map_err(StoreError::Unavailable)?;
        match as_token(&text) {
            Some(token) => Ok(Some(token.to_owned())),
            None => Err(StoreError::Unavailable(format!("{} holds no token", path.display()))),
        }
    }

    /// Whether it may be another one later.
    pub fn is_replaced(&self) -> bool {
        matches!(self, Token::File(_))
    }
}

/// The token without blanks around it, if a header may hold it.
fn as_token(text: &str) -> Option<&str> {
    let token = text.trim();
    (!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())).then_some(token)
}

fn read(path: &Path) -> Result<String, String> {
    let bytes = bounded_file::read(path, CREDENTIAL_BYTES_MAX);
    let bytes = bytes.map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    String::from_utf8(bytes).map_err(|_| format!("{} is not text", path.display()))
}

/// Everything that is needed to reach a Lease; it also travels in claims.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settings {
    pub address: ServerAddress,
    pub namespace: String,
    /// `None`: without TLS.
    pub tls: Option<TlsSettings>,
    pub token: Token,
    pub limits: TimeLimits,
    /// Between two looks at a Lease.
    pub renew_interval: Duration,
    /// As people read it.
    pub shown: String,
}

impl Settings {
    /// Puts together what the URL, the flags and the pod say. `folder` is that of the pod's service account.
    ///
    /// # Errors
    ///
    /// They do not fit together, or this is no pod.
    pub fn new(
        url: &StoreUrl<'_>,
        access: &Access,
        folder: &Path,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Settings, StoreError> {
        let target = KubernetesUrl::parse(url).map_err(StoreError::Misused)?;
        if access.username.is_some() {
            return Err(StoreError::Misused(
                "--username is of no use to an API server, which knows users by their tokens and certificates: leave it out"
                    .to_owned(),
            ));
        }
        let is_in_cluster = target.address.is_none();
        let address = match &target.address {
            Some(address) => address.clone(),
            None => in_cluster(&variable)?,
        };
        let namespace = if let Some(namespace) = &target.namespace {
            namespace.clone()
        } else {
            let path = folder.join("namespace");
            let text = read(&path).map_err(|error| {
                StoreError::Refused(format!("{error}: name the namespace, as in kubernetes:NAMESPACE"))
            })?;
            self::namespace(text.trim())
                .map_err(|_| StoreError::Refused(format!("{} names no namespace", path.display())))?
        };
        let token = match (&access.password_file, &access.password) {
            (Some(path), _) => Token::File(std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            (None, Some(token)) => Token::given(token)?,
            (None, None) if is_in_cluster && access.tls_cert.is_none() => Token::File(folder.join("token")),
            (None, None) => Token::None,
        };
        let tls = if target.is_encrypted {
            let given = access.tls_ca.clone();
            let of_cluster = || (is_in_cluster && !access.tls_skip_verify).then(|| folder.join("ca.crt"));
            let tls = TlsSettings::new(given.or_else(of_cluster), access.tls_cert.clone(), access.tls_key.clone())?;
            Some(tls.skipping_verification(access.tls_skip_verify.then_some("--tls-skip-verify"), "--tls-ca")?)
        } else if let Some(flag) = access.first_tls_flag() {
            return Err(StoreError::Misused(format!(
                "{flag} needs TLS: write kubernetes:// instead of {PLAIN_SCHEME}://"
            )));
        } else {
            None
        };
        let shown = KubernetesUrl { namespace: Some(namespace.clone()), ..target }.shown(url.scheme);
        Ok(Settings {
            address,
            namespace,
            tls,
            token,
            limits: TimeLimits::new(access),
            renew_interval: access.renew_interval,
            shown,
        })
    }
}

/// The server of the cluster that this pod is in: kubelet sets the variables.
fn in_cluster(variable: impl Fn(&str) -> Option<String>) -> Result<ServerAddress, StoreError> {
    let outside = || {
        StoreError::Misused(
            "kubernetes: is for a pod, which has KUBERNETES_SERVICE_HOST: name the API server, as in \
             kubernetes://HOST:PORT/NAMESPACE"
                .to_owned(),
        )
    };
    let host = variable("KUBERNETES_SERVICE_HOST").filter(|host| !host.is_empty()).ok_or_else(outside)?;
    let port = match variable("KUBERNETES_SERVICE_PORT") {
        Some(port) => port.parse().map_err(|_| StoreError::Misused("KUBERNETES_SERVICE_PORT is no port".to_owned()))?,
        None => 443,
    };
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    let address = ServerAddress::parse(&host, port);
    address.ok_or_else(|| StoreError::Misused("KUBERNETES_SERVICE_HOST is no host".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const IN_CLUSTER: [(&str, &str); 2] =
        [("KUBERNETES_SERVICE_HOST", "10.96.0.1"), ("KUBERNETES_SERVICE_PORT", "443")];

    fn settings(url: &str, access: &Access, folder: &Path, variables: &[(&str, &str)]) -> Result<Settings, String> {
        let url = StoreUrl::parse(url).map_err(|error| error.to_string())?;
        let value =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Settings::new(&url, access, folder, value).map_err(|error| error.to_string())
    }

    fn service_account() -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for (name, text) in [("namespace", "team"), ("token", "t1\n"), ("ca.crt", "")] {
            std::fs::write(folder.path().join(name), text).expect("written");
        }
        folder
    }

    #[test]
    fn a_pod_finds_all_that_it_needs_and_flags_come_first() {
        let folder = service_account();
        let read = settings("kubernetes:", &Access::default(), folder.path(), &IN_CLUSTER).expect("complete");
        assert_eq!(
            (read.address.to_string().as_str(), read.namespace.as_str(), read.shown.as_str()),
            ("10.96.0.1:443", "team", "kubernetes:team")
        );
        assert_eq!(read.tls.and_then(|tls| tls.ca), Some(folder.path().join("ca.crt")));
        assert_eq!(read.token.read().expect("a token").as_deref(), Some("t1"));
        std::fs::write(folder.path().join("token"), "t2").expect("rotated");
        assert_eq!(read.token.read().expect("a token").as_deref(), Some("t2"));
        let flags = Access { tls_ca: Some("/ca".into()), password: Some(Password("t3".into())), ..Access::default() };
        let read = settings("kubernetes:other", &flags, folder.path(), &IN_CLUSTER).expect("complete");
        assert_eq!((read.namespace.as_str(), read.token), ("other", Token::Given(Password("t3".into()))));
        assert_eq!(read.tls.and_then(|tls| tls.ca), Some("/ca".into()));
        // As a Secret has it that was made from a file.
        let line = Access { password: Some(Password("t4\n".into())), ..flags.clone() };
        let read = settings("kubernetes:other", &line, folder.path(), &IN_CLUSTER).expect("complete");
        assert_eq!(read.token, Token::Given(Password("t4".into())));
        let ipv6 = [("KUBERNETES_SERVICE_HOST", "fd00::1")];
        let read = settings("kubernetes:a", &Access::default(), folder.path(), &ipv6).expect("complete");
        assert_eq!(read.address.to_string(), "[fd00::1]:443");
    }

    #[test]
    fn outside_of_a_pod_the_server_has_to_be_named() {
        let none = Path::new("/nowhere");
        let access = Access::default();
        let error = settings("kubernetes:", &access, none, &[]).expect_err("no pod");
        assert!(error.contains("kubernetes://HOST:PORT/NAMESPACE"), "{error}");
        let error = settings("kubernetes:", &access, none, &IN_CLUSTER).expect_err("no folder");
        assert!(error.contains("kubernetes:NAMESPACE"), "{error}");
        for (url, shown) in [
            ("kubernetes://h", "kubernetes://h:6443/default"),
            ("kubernetes://h:7/team", "kubernetes://h:7/team"),
            ("kubernetes://[::1]:7/team", "kubernetes://[::1]:7/team"),
            ("kubernetes+http://h", "kubernetes+http://h:8001/default"),
        ] {
            let read = settings(url, &access, none, &[]).expect(url);
            assert_eq!((read.shown.as_str(), &read.token), (shown, &Token::None));
            assert_eq!(read.tls.is_some(), url.starts_with("kubernetes:"));
        }
    }

    #[test]
    fn settings_that_contradict_each_other_are_usage_errors() {
        let none = Path::new("/nowhere");
        let user = Access { username: Some("u".into()), ..Access::default() };
        let ca = Access { tls_ca: Some("/ca".into()), ..Access::default() };
        let two = Access { password: Some(Password("hunter2\nX: y".into())), ..Access::default() };
        let skip = Access { tls_skip_verify: true, ..ca.clone() };
        for (url, access, named) in [
            ("kubernetes://h", &user, "--username"),
            ("kubernetes+http://h", &ca, "--tls-ca"),
            ("kubernetes://h", &skip, "--tls-skip-verify"),
            ("kubernetes://h", &two, "ELECT_PASSWORD"),
            ("kubernetes://u:hunter2@h", &Access::default(), "--password-file"),
            ("kubernetes://h/a/b", &Access::default(), "a namespace"),
            ("kubernetes:Team", &Access::default(), "a namespace"),
            ("kubernetes:-", &Access::default(), "a namespace"),
            ("kubernetes://h?x=1", &Access::default(), "no options"),
            ("kubernetes+http:team", &Access::default(), "kubernetes:NAMESPACE"),
        ] {
            let error = settings(url, access, none, &[]).expect_err(url);
            assert!(error.contains(named) && !error.contains("hunter2"), "{url}: {error}");
        }
    }
}
