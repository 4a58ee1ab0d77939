//! Connections to the members of a cluster, tried in turn within one attempt.
//!
//! There is one connection per member, made when it is needed and closed after any error: a connection that has survived a
//! cut waits for TCP's growing retransmission pauses, while a new one works as soon as the network does. The client's own
//! balancing is not used, because it does not know which members answer.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Channel, Client, ConnectOptions, Error};
use tokio::time::timeout;
use tonic::Code;
use tonic::transport::{Certificate, ClientTlsConfig, Endpoint, Identity};
use tracing::{debug, warn};

use super::dialer::Dialer;
use super::insecure_tls::AcceptAnyServerCert;
use super::settings::{Settings, Tls};
use crate::store::StoreError;
use crate::store::connection::attempt::within;
use crate::store::connection::errors::{excerpt, is_certificate_error, root_cause};
use crate::store::connection::tls::read_pem;
use elect_keeper::clock;

/// Pings on a connection that has streams open: etcd closes those that ping more often than every five seconds.
const PING_INTERVAL: Duration = Duration::from_secs(6);
/// How long it may take to learn a member's version: nothing depends on it.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
/// Versions from which on known lease bugs are fixed, by minor version.
const FIXED_VERSIONS: [(u64, u64, u64); 3] = [(3, 4, 42), (3, 5, 28), (3, 6, 9)];

#[derive(Debug)]
pub struct Endpoints {
    settings: Settings,
    all: Vec<ConnectedEndpoint>,
    /// Where the next attempt begins: at the one that answered last.
    current: usize,
}

struct ConnectedEndpoint {
    endpoint: String,
    client: Option<Client>,
    version_looked_at: bool,
}

impl std::fmt::Debug for ConnectedEndpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.endpoint)
    }
}

impl Endpoints {
    pub fn new(settings: Settings) -> Endpoints {
        let member = |endpoint: &String| ConnectedEndpoint {
            endpoint: endpoint.clone(),
            client: None,
            version_looked_at: false,
        };
        let all = settings.endpoints.iter().map(member).collect();
        Endpoints { settings, all, current: 0 }
    }

    pub fn prefix(&self) -> &str {
        &self.settings.prefix
    }

    /// Does something with one member, and if that fails with another, until each has been tried or the time is up. Each
    /// has half of what is left of the attempt, but for the last, who has all of it.
    ///
    /// Cancellation: may be dropped at any time. What was under way counts as failed then: the connection is not used again,
    /// and the next attempt begins with the next member.
    ///
    /// # Errors
    ///
    /// The first member's trouble; a refusal only if none had any other. An obstacle is an answer.
    pub async fn try_each<T>(
        &mut self,
        mut ask: impl AsyncFnMut(Client) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let deadline = clock::now() + self.settings.request_timeout;
        let first = self.current;
        let mut failure = None;
        for tried in 0..self.all.len() {
            let index = (first + tried) % self.all.len();
            self.current = (index + 1) % self.all.len();
            let left = deadline.since(clock::now());
            let share = if tried + 1 == self.all.len() { left } else { left / 2 };
            let member = &mut self.all[index];
            let attempt = async {
                let client = member.take_connected(&self.settings).await?;
                match ask(client.clone()).await {
                    // The obstacle is in the store: this member is well, and the others give the same answer.
                    answer @ (Ok(_) | Err(StoreError::Obstacle(_))) => Ok((answer, client)),
                    Err(error) => Err(member.named(error)),
                }
            };
            let error = match within(share, attempt).await {
                Some(Ok((answer, client))) => {
                    self.current = index;
                    member.client = Some(client);
                    return answer;
                }
                Some(Err(error)) => error,
                None => StoreError::Unavailable(format!("{} did not answer in time", member.endpoint)),
            };
            debug!(endpoint = member.endpoint, "etcd: {error}");
            if !matches!(failure, Some(StoreError::Unavailable(_))) {
                failure = Some(error);
            }
        }
        self.current = (first + 1) % self.all.len();
        Err(failure.unwrap_or_else(|| StoreError::Unavailable("there is nobody to ask".to_owned())))
    }

    /// Logs known lease bugs once for each member that has answered; no request waits for it.
    ///
    /// Must be called inside a [`tokio::task::LocalSet`].
    pub fn look_at_version(&mut self) {
        let member = &mut self.all[self.current];
        let Some(client) = member.client.clone().filter(|_| !member.version_looked_at) else { return };
        member.version_looked_at = true;
        // Not watched: it ends by itself, and nothing depends on it.
        tokio::task::spawn_local(timeout(VERSION_TIMEOUT, warn_of_known_bugs(client, member.endpoint.clone())));
    }
}

async fn warn_of_known_bugs(mut client: Client, endpoint: String) {
    // A user without the permission gets no answer; the check is left out.
    let Ok(status) = client.status().await else { return };
    if !is_sound(status.version()) {
        warn!(
            version = excerpt(status.version()),
            "etcd at {endpoint} has known lease bugs, mended in 3.4.42, 3.5.28 and 3.6.9: upgrade it"
        );
    }
}

impl ConnectedEndpoint {
    /// The connection, or a new one. It is taken out, and put back after a success.
    async fn take_connected(&mut self, settings: &Settings) -> Result<Client, StoreError> {
        match self.client.take() {
            Some(client) => Ok(client),
            None => self.connect(settings).await,
        }
    }

    async fn connect(&self, settings: &Settings) -> Result<Client, StoreError> {
        let scheme = if settings.tls.is_some() { "https" } else { "http" };
        let dial = settings.dial_timeout.map_or(settings.request_timeout, |dial| dial.min(settings.request_timeout));
        let mut endpoint = Endpoint::from_shared(format!("{scheme}://{}", self.endpoint))
            .map_err(|error| StoreError::Misused(format!("{}: {error}", self.endpoint)))?
            .connect_timeout(dial)
            .http2_keep_alive_interval(PING_INTERVAL)
            .keep_alive_timeout(settings.request_timeout)
            // Without a stream etcd takes even one ping for too many.
            .keep_alive_while_idle(false);
        if let Some(tls) = &settings.tls {
            endpoint = encrypted(endpoint, tls)?;
        }
        let channel = endpoint.connect_with_connector(Dialer { dial_timeout: dial }).await.map_err(|error| {
            let reason = transport_cause(&error);
            let message = format!("{} cannot be reached: {reason}", self.endpoint);
            if is_certificate_error(&reason) { StoreError::Refused(message) } else { StoreError::Unavailable(message) }
        })?;
        let mut options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
        if let Some((name, password)) = &settings.user {
            options = options.with_user(name, &password.0);
        }
        Client::from_channel(Channel::Tonic(channel), Some(options)).await.map_err(|error| self.classify(error))
    }

    fn classify(&self, error: Error) -> StoreError {
        self.named(classify(error))
    }

    /// The error with the name of the member.
    fn named(&self, error: StoreError) -> StoreError {
        match error {
            StoreError::Unavailable(message) => StoreError::Unavailable(format!("{}: {message}", self.endpoint)),
            StoreError::Refused(message) => StoreError::Refused(format!("{}: {message}", self.endpoint)),
            same @ (StoreError::Misused(_) | StoreError::Obstacle(_)) => same,
        }
    }
}

fn encrypted(endpoint: Endpoint, tls: &Tls) -> Result<Endpoint, StoreError> {
    let mut config = ClientTlsConfig::new();
    if let Some((cert, key)) = &tls.identity {
        config = config.identity(Identity::from_pem(read_pem(cert)?, read_pem(key)?));
    }
    let unusable = |error: tonic::transport::Error| StoreError::Refused(format!("TLS: {}", transport_cause(&error)));
    if tls.skip_verify {
        return endpoint.tls_config_with_verifier(config, Arc::new(AcceptAnyServerCert::new())).map_err(unusable);
    }
    config = match &tls.ca {
        Some(ca) => config.ca_certificate(Certificate::from_pem(read_pem(ca)?)),
        None => config.with_enabled_roots(),
    };
    endpoint.tls_config(config).map_err(unusable)
}

/// The root cause; what is around it says "transport error".
fn transport_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let reason = root_cause(error);
    // In h2's words, for what is no HTTP/2 at all.
    if reason.contains("frame with invalid size") {
        format!("it does not speak as an etcd does ({reason})")
    } else {
        reason
    }
}

/// The meaning of a failed call for the election.
pub fn classify(error: Error) -> StoreError {
    let Error::GRpcStatus(status) = error else { return StoreError::Unavailable(excerpt(&error.to_string())) };
    if status.source().is_some() {
        // Not the server's word: the connection's. A server says only after the handshake that it wants a certificate.
        let message = transport_cause(&status);
        return if is_certificate_error(&message) {
            StoreError::Refused(message)
        } else {
            StoreError::Unavailable(message)
        };
    }
    let message = excerpt(status.message().trim_start_matches("etcdserver: "));
    let code = status.code();
    // That is how etcd says that a user is missing, or a password wrong, or that there is no need for either.
    if code == Code::PermissionDenied {
        StoreError::Refused(format!("permission denied: {message}"))
    } else if code == Code::InvalidArgument && message.contains("user name is empty") {
        StoreError::Refused("authentication is needed: give --username and --password-file".to_owned())
    } else if code == Code::Unauthenticated || message.contains("authentication failed") {
        StoreError::Refused(format!("authentication failed: {message}"))
    } else if code == Code::FailedPrecondition && message.contains("authentication is not enabled") {
        StoreError::Refused("a user was given, but authentication is not enabled there".to_owned())
    } else {
        StoreError::Unavailable(if message.is_empty() { code.description().to_owned() } else { message })
    }
}

/// Versions that cannot be read, and newer minors, have no known bug.
fn is_sound(version: &str) -> bool {
    let mut numbers = version.split(['.', '-', '+']).map_while(|number| number.parse::<u64>().ok());
    let (Some(major), Some(minor), Some(patch)) = (numbers.next(), numbers.next(), numbers.next()) else { return true };
    match FIXED_VERSIONS.iter().find(|&&(known, line, _)| (known, line) == (major, minor)) {
        Some(&(_, _, mended)) => patch >= mended,
        None => (major, minor) > (3, 4),
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::net::TcpListener;

    use super::super::KIND;
    use super::*;
    use crate::store::Access;
    use crate::store::url::StoreUrl;
    use elect_core::limits;

    #[test]
    fn the_words_of_a_server_are_short_and_steer_no_terminal() {
        let status =
            |message: &str| classify(Error::GRpcStatus(tonic::Status::new(Code::Unavailable, message))).to_string();
        assert_eq!(status("etcdserver: no leader"), "no leader");
        assert_eq!(status("a\r\nb\u{1b}[2J"), "a\\r\\nb\\u{1b}[2J");
        for endless in ["x".repeat(1_000_000), "\u{1b}".repeat(1_000_000), "é\n".repeat(1_000_000)] {
            assert!(status(&endless).len() <= limits::MESSAGE_BYTES_MAX);
            let denied = classify(Error::GRpcStatus(tonic::Status::new(Code::PermissionDenied, endless))).to_string();
            assert!(denied.len() <= limits::MESSAGE_BYTES_MAX + 64 && denied.lines().count() == 1);
        }
    }

    /// Both members listen, and neither says anything of its own accord: the first one is asked in vain.
    #[tokio::test]
    async fn a_member_that_does_not_answer_leaves_time_for_the_next_one() {
        let listeners = [(); 2].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let [first, second] = listeners.each_ref().map(|listener| listener.local_addr().expect("an address"));
        let rest = format!("//{first},{second}");
        let url = StoreUrl { kind: &KIND, scheme: "etcd", rest: &rest };
        let access = Access { request_timeout: Duration::from_secs(4), ..Access::default() };
        let mut members = Endpoints::new(Settings::new(&url, &access, |_| None).expect("settings"));
        let asked = Cell::new(0);
        let answer = members.try_each(async |_: Client| {
            asked.set(asked.get() + 1);
            if asked.get() == 1 {
                return std::future::pending().await;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            Ok(asked.get())
        });
        assert_eq!(answer.await.expect("the second one answers within the attempt"), 2);
        assert_eq!(members.current, 1, "the next attempt begins at the one that answered");
    }

    #[test]
    fn versions_with_known_bugs_are_told_from_mended_ones() {
        for version in ["3.4.23", "3.4.41", "3.5.27", "3.6.8", "3.3.27", "2.3.8"] {
            assert!(!is_sound(version), "{version}");
        }
        for version in ["3.4.42", "3.5.28", "3.6.9", "3.7.0", "4.0.0", "3.6.9-rc.1", "", "main"] {
            assert!(is_sound(version), "{version}");
        }
    }
}
