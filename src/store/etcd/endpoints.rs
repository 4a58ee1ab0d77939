//! Connections to the members of a cluster, tried in turn within one attempt.
//!
//! There is one connection per member, made when it is needed and closed after any error: a connection that has survived a
//! cut waits for TCP's growing retransmission pauses, while a new one works as soon as the network does. The client's own
//! balancing is not used, because it does not know which members answer.

use std::cell::Cell;
use std::error::Error as _;
use std::rc::Rc;
use std::time::Duration;

use etcd_client::{Client, ConnectOptions, Error, StatusResponse};
use tokio::time::timeout;
use tonic::Code;
use tonic::codegen::http::Uri;
use tonic::transport::{ClientTlsConfig, Endpoint, Identity};
use tracing::{debug, warn};

use super::dialer::{Dialer, ask_for_alert};
use super::first_answer;
use super::settings::Settings;
use crate::log::VERSION_TARGET;
use crate::store::connection::attempt::within;
use crate::store::connection::errors::{excerpt, root_cause, with_network_advice};
use crate::store::connection::identity::identity;
use crate::store::connection::setup::{Accepted, ConnectionSetup, Readiness, SetupTarget, ready_for_next};
use crate::store::connection::tls::{TlsSettings, read_pem};
use crate::store::connection::tls_errors::tls_fault;
use crate::store::connection::verification::verifier;
use crate::store::{Finding, StoreError};
use elect_core::Time;
use elect_keeper::clock;

/// Pings on a connection that has streams open: etcd closes those that ping more often than every five seconds.
const PING_INTERVAL: Duration = Duration::from_secs(6);
/// How long it may take to learn a member's version: nothing depends on it.
const VERSION_TIMEOUT: Duration = Duration::from_secs(5);
/// For each member that a check asks about itself.
const FACTS_TIMEOUT: Duration = Duration::from_millis(700);
/// How many request timeouts a candidate must have run before it warns of a version: a ttl, with the defaults. A job that
/// cron starts each night, and that ends sooner, sends no mail about a version that another team decides on.
const VERSION_DELAY_ATTEMPTS: u32 = 10;
/// Versions from which on known lease bugs are fixed, by minor version.
const FIXED_VERSIONS: [(u64, u64, u64); 3] = [(3, 4, 42), (3, 5, 28), (3, 6, 9)];

#[derive(Debug)]
pub struct Endpoints {
    settings: Settings,
    all: Vec<ConnectedEndpoint>,
    /// Where the next attempt begins: at the one that answered last.
    current: usize,
    /// Since when attempts have ended without an answer while a connection was being set up.
    connecting_since: Option<Time>,
    /// Whether the version of a member was warned of: once for all of them.
    version_is_warned_of: Rc<Cell<bool>>,
}

struct ConnectedEndpoint {
    endpoint: String,
    client: Option<Client>,
    setup: ConnectionSetup<Client>,
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
            setup: ConnectionSetup::default(),
            version_looked_at: false,
        };
        let all = settings.endpoints.iter().map(member).collect();
        Endpoints { settings, all, current: 0, connecting_since: None, version_is_warned_of: Rc::default() }
    }

    /// Uses this connection to the first member.
    #[cfg(test)]
    pub fn connected(&mut self, client: Client) {
        self.all[0].client = Some(client);
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
        let deadline = clock::now() + self.settings.limits.attempt;
        let first = self.current;
        let mut failure = None;
        for tried in 0..self.all.len() {
            let index = (first + tried) % self.all.len();
            self.current = (index + 1) % self.all.len();
            let left = deadline.since(clock::now());
            let share = if tried + 1 == self.all.len() { left } else { left / 2 };
            let member = &mut self.all[index];
            let attempt = async {
                let client = member.take_connected(&self.settings, share).await?;
                match ask(client.clone()).await {
                    // The obstacle is in the store: this member is well, and the others give the same answer.
                    answer @ (Ok(_) | Err(StoreError::Obstacle(_))) => Ok((answer, client)),
                    Err(error) => Err(explained(&member.endpoint, &self.settings, error).await),
                }
            };
            let error = match within(share, attempt).await {
                Some(Ok((answer, client))) => {
                    self.connecting_since = None;
                    self.current = index;
                    member.client = Some(client);
                    return answer;
                }
                Some(Err(error)) => error,
                None => {
                    let too_slow = self.settings.limits.too_slow_for_attempt(share);
                    StoreError::Unavailable(format!("{} {too_slow}", member.endpoint))
                }
            };
            debug!(endpoint = member.endpoint, "etcd: {error}");
            // One that is being connected to may answer the next attempt; a refusal is the last thing to report.
            let is_better = match (&failure, &error) {
                (None | Some(StoreError::Refused(_) | StoreError::Misused(_) | StoreError::Obstacle(_)), _)
                | (Some(StoreError::Unavailable(_)), StoreError::Connecting(_)) => true,
                (Some(StoreError::Unavailable(_) | StoreError::Connecting(_)), _) => false,
            };
            if is_better {
                failure = Some(error);
            }
        }
        self.current = (first + 1) % self.all.len();
        Err(self.without_end(failure.unwrap_or_else(|| StoreError::Unavailable("there is nobody to ask".to_owned()))))
    }

    /// The error of an attempt. Each member has the time that setting up a connection may take, and all of them together have no
    /// more: with one after the other under way, no attempt would ever report an outage.
    fn without_end(&mut self, error: StoreError) -> StoreError {
        let StoreError::Connecting(_) = error else { return error };
        let (now, limits) = (clock::now(), &self.settings.limits);
        if now.since(*self.connecting_since.get_or_insert(now)) < limits.setup {
            return error;
        }
        let names: Vec<&str> = self.all.iter().map(|member| member.endpoint.as_str()).collect();
        StoreError::Unavailable(target(&names.join(","), &self.settings).never_ready(limits))
    }

    /// The version and the alarms of each member, or that it does not answer.
    pub async fn facts(&mut self) -> Vec<Finding> {
        let (settings, share) = (&self.settings, self.settings.limits.attempt.min(FACTS_TIMEOUT));
        let mut facts = Vec::new();
        for member in &mut self.all {
            let endpoint = member.endpoint.clone();
            let answer = async {
                let mut client = member.take_connected(settings, share).await?;
                let status = client.status().await.map_err(classify)?;
                member.client = Some(client);
                Ok::<_, StoreError>(status)
            };
            facts.extend(match timeout(share, answer).await {
                Ok(Ok(status)) => member_facts(&endpoint, &status),
                Ok(Err(StoreError::Refused(why))) => {
                    let detail = format!("{endpoint} does not show its version to this user ({why})");
                    vec![Finding::warn("version", detail, "make sure that it is 3.4.42, 3.5.28, 3.6.9 or newer")]
                }
                Ok(Err(error)) => vec![unreachable_member(&endpoint, &error.to_string())],
                Err(_) => vec![unreachable_member(&endpoint, "it does not answer in time")],
            });
        }
        facts
    }

    /// Logs known lease bugs of a member that has answered, if this candidate keeps running; no request waits for it.
    ///
    /// Must be called inside a [`tokio::task::LocalSet`].
    pub fn look_at_version(&mut self) {
        let member = &mut self.all[self.current];
        let Some(client) = member.client.clone().filter(|_| !member.version_looked_at) else { return };
        member.version_looked_at = true;
        let delay = VERSION_DELAY_ATTEMPTS * self.settings.limits.attempt;
        let is_warned = Rc::clone(&self.version_is_warned_of);
        // Not watched: it ends by itself, and nothing depends on it.
        tokio::task::spawn_local(warn_of_known_bugs(client, member.endpoint.clone(), delay, is_warned));
    }
}

fn unreachable_member(endpoint: &str, why: &str) -> Finding {
    let advice = "start it, or leave it out of --store";
    Finding::warn("member", format!("{endpoint} cannot be asked: {why}"), advice)
}

/// The facts in a member's answer.
fn member_facts(endpoint: &str, status: &StatusResponse) -> Vec<Finding> {
    let version = excerpt(status.version());
    let mut facts = vec![if is_sound(status.version()) {
        Finding::ok("version", format!("{endpoint}: {version}"))
    } else {
        let detail = format!("{endpoint}: {version} has known lease bugs");
        Finding::warn("version", detail, "upgrade it to 3.4.42, 3.5.28, 3.6.9 or newer")
    }];
    facts.extend(status.errors().iter().map(|alarm| {
        let advice = "look at etcdctl alarm list, and remove the cause";
        Finding::fail("alarm", format!("{endpoint}: {}", excerpt(alarm)), advice)
    }));
    facts
}

async fn warn_of_known_bugs(mut client: Client, endpoint: String, delay: Duration, is_warned: Rc<Cell<bool>>) {
    tokio::time::sleep(delay).await;
    // A user without the permission gets no answer; the check is left out.
    let Ok(Ok(status)) = timeout(VERSION_TIMEOUT, client.status()).await else { return };
    if !is_sound(status.version()) && !is_warned.replace(true) {
        warn!(
            target: VERSION_TARGET,
            version = excerpt(status.version()),
            "etcd at {endpoint} has known lease bugs, mended in 3.4.42, 3.5.28 and 3.6.9: upgrade it"
        );
    }
}

impl ConnectedEndpoint {
    /// The connection, or a new one, whose setup may take several attempts (T6). It is taken out, and put back after a success.
    async fn take_connected(&mut self, settings: &Settings, share: Duration) -> Result<Client, StoreError> {
        if let Some(client) = self.client.take() {
            return Ok(client);
        }
        let begin = |accepted| {
            let (endpoint, settings) = (self.endpoint.clone(), settings.clone());
            async move { connect(&endpoint, &settings, accepted).await }
        };
        match self.setup.next(target(&self.endpoint, settings), &settings.limits, share, begin).await? {
            (client, Readiness::ForThisAttempt) => Ok(client),
            (client, Readiness::ForNextAttempt) => {
                self.client = Some(client);
                Err(ready_for_next(&self.endpoint))
            }
        }
    }
}

fn target<'a>(name: &'a str, settings: &Settings) -> SetupTarget<'a> {
    SetupTarget { name, plain_form: settings.tls.is_some().then_some("etcd://") }
}

async fn connect(member: &str, settings: &Settings, accepted: Accepted) -> Result<Client, StoreError> {
    let scheme = if settings.tls.is_some() { "https" } else { "http" };
    let attempt = settings.limits.attempt;
    let dial_timeout = settings.dial_timeout.map_or(attempt, |dial| dial.min(attempt));
    let mut endpoint = Endpoint::from_shared(format!("{scheme}://{member}"))
        .map_err(|error| StoreError::Misused(format!("{member}: {error}")))?
        .connect_timeout(settings.limits.setup)
        .http2_keep_alive_interval(PING_INTERVAL)
        .keep_alive_timeout(attempt)
        // Without a stream etcd takes even one ping for too many.
        .keep_alive_while_idle(false);
    if let Some(tls) = &settings.tls {
        endpoint = encrypted(endpoint, tls)?;
    }
    let channel = match endpoint.connect_with_connector(Dialer { dial_timeout, accepted }).await {
        Ok(channel) => channel,
        Err(error) => {
            let reason = with_network_advice(&transport_cause(&error));
            let error = StoreError::Unavailable(format!("it cannot be reached: {reason}"));
            return Err(explained(member, settings, error).await);
        }
    };
    let mut options = ConnectOptions::new().with_require_leader(true).with_auto_token_refresh(true);
    if let Some((name, password)) = &settings.user {
        options = options.with_user(name, &password.0);
    }
    match Client::from_channel(first_answer::channel(channel), Some(options)).await {
        Ok(client) => Ok(client),
        Err(error) => Err(explained(member, settings, classify(error)).await),
    }
}

/// The error with the name of the member, and with the reason that a server gives which ends a connection with TLS.
async fn explained(member: &str, settings: &Settings, error: StoreError) -> StoreError {
    if let (StoreError::Unavailable(message), Some(tls)) = (&error, &settings.tls)
        && is_end(message)
        && let Ok(uri) = Uri::from_maybe_shared(format!("https://{member}"))
        && let Some(alert) = ask_for_alert(uri, tls, settings.limits.attempt / 2).await
        && tls_fault(&alert, tls.side("etcd://")).is_some()
    {
        return named(member, settings, StoreError::Unavailable(alert));
    }
    named(member, settings, error)
}

/// The error with the name of the member, and with what the settings have to do with it.
fn named(member: &str, settings: &Settings, error: StoreError) -> StoreError {
    let fault = |message: &str| settings.tls.as_ref().and_then(|tls| tls_fault(message, tls.side("etcd://")));
    match error {
        StoreError::Unavailable(message) => match fault(&message) {
            Some(fault) => StoreError::Refused(format!("{member} {fault}")),
            None if message.contains(OTHER_PROTOCOL) && settings.tls.is_none() => StoreError::Unavailable(format!(
                "{member}: {message}: for a port with TLS write --store etcds://…, otherwise check host and port (2379 is for clients)"
            )),
            None if is_end(&message) => StoreError::Unavailable(format!(
                "{member} has ended the connection ({message}): {}",
                after_end(settings)
            )),
            None => StoreError::Unavailable(format!("{member}: {message}")),
        },
        // The advice about the key of the last term is there already.
        StoreError::Refused(message) if message.starts_with(DENIED) && !message.contains("etcdctl") => {
            let user = settings
                .user
                .as_ref()
                .map_or_else(|| "a client without a user".to_owned(), |(name, _)| format!("user {name:?}"));
            let keys =
                settings.keys.all().map_or_else(|| "keys of the election".to_owned(), |all| format!("prefix {all:?}"));
            StoreError::Refused(format!(
                "{member}: {message}: {user} needs a role with readwrite on the {keys}, see elect-stores(7)"
            ))
        }
        StoreError::Refused(message) if message.starts_with(UNAUTHENTICATED) => {
            let user = settings.user.as_ref().map_or("", |(name, _)| name.as_str());
            StoreError::Refused(format!(
                "{member}: {message}: check --username ({user:?}) and --password-file, ELECT_PASSWORD or ETCD3_PASSWORD"
            ))
        }
        StoreError::Refused(message) => StoreError::Refused(format!("{member}: {message}")),
        same @ (StoreError::Misused(_) | StoreError::Obstacle(_) | StoreError::Connecting(_)) => same,
    }
}

/// Whether a server has ended the connection without a word.
fn is_end(message: &str) -> bool {
    ["broken pipe", "connection closed", "handshake eof", "Connection reset", "connection reset", "close_notify"]
        .iter()
        .any(|words| message.contains(words))
}

/// The next step then: a mismatch of TLS looks like this, on both sides.
fn after_end(settings: &Settings) -> &'static str {
    match &settings.tls {
        None => "if it serves with TLS, write --store etcds://…; otherwise check host and port of --store",
        Some(tls) if tls.identity.is_some() => {
            "it may not accept the certificate of --tls-cert, or serve without TLS (etcd://)"
        }
        Some(_) => {
            "it may ask for a certificate of elect's own (--tls-cert and --tls-key), or serve without TLS (etcd://)"
        }
    }
}

/// Of a server that answers with something else than HTTP/2.
const OTHER_PROTOCOL: &str = "it does not speak as an etcd does";
const DENIED: &str = "permission denied";
const UNAUTHENTICATED: &str = "authentication failed";

fn encrypted(endpoint: Endpoint, tls: &TlsSettings) -> Result<Endpoint, StoreError> {
    let mut config = ClientTlsConfig::new();
    // Checked first: of a pair that does not fit together the client says nothing that helps.
    if identity(tls)?.is_some()
        && let Some((cert, key)) = &tls.identity
    {
        config = config.identity(Identity::from_pem(read_pem(cert)?, read_pem(key)?));
    }
    let unusable = |error: tonic::transport::Error| StoreError::Refused(format!("TLS: {}", transport_cause(&error)));
    endpoint.tls_config_with_verifier(config, verifier(tls)?).map_err(unusable)
}

/// The root cause; what is around it says "transport error".
fn transport_cause(error: &(dyn std::error::Error + 'static)) -> String {
    let reason = root_cause(error);
    // In h2's words, for what is no HTTP/2 at all.
    if reason.contains("frame with invalid size") { format!("{OTHER_PROTOCOL} ({reason})") } else { reason }
}

/// The error of a server that has reached its quota, and takes no writes until its alarm is disarmed.
const NO_SPACE: &str = "database space exceeded";

/// The meaning of a failed call for the election.
pub fn classify(error: Error) -> StoreError {
    // The client library names no cause then. The connection has worked before, so that no advice about TLS belongs here.
    if let Error::LeaseKeepAliveError(_) = error {
        return StoreError::Unavailable(
            "the stream of renewals has ended, with its connection or its server".to_owned(),
        );
    }
    let Error::GRpcStatus(status) = error else { return StoreError::Unavailable(excerpt(&error.to_string())) };
    if status.source().is_some() {
        // Not the server's word: the connection's. A server says only after the handshake that it wants a certificate.
        return StoreError::Unavailable(with_network_advice(&transport_cause(&status)));
    }
    let message = excerpt(status.message().trim_start_matches("etcdserver: "));
    let code = status.code();
    // That is how etcd says that a user is missing, or a password wrong, or that there is no need for either.
    if code == Code::PermissionDenied {
        StoreError::Refused(if message.is_empty() || message == DENIED {
            DENIED.to_owned()
        } else {
            format!("{DENIED}: {message}")
        })
    } else if code == Code::InvalidArgument && message.contains("user name is empty") {
        StoreError::Refused("authentication is needed: give --username and --password-file".to_owned())
    } else if code == Code::Unauthenticated || message.contains("authentication failed") {
        let reason = message.trim_start_matches("authentication failed, ").trim_start_matches(UNAUTHENTICATED);
        StoreError::Refused(format!("{UNAUTHENTICATED}: {reason}").trim_end_matches([':', ' ']).to_owned())
    } else if code == Code::FailedPrecondition && message.contains("authentication is not enabled") {
        StoreError::Refused("a user was given, but authentication is not enabled there: leave --username out, or enable it (etcdctl auth enable)".to_owned())
    } else if code == Code::Unimplemented {
        StoreError::Refused(format!(
            "lacks a feature without which no election can be held (unimplemented: {message}): use an etcd of version 3.4 or newer, \
             directly and not through a gateway"
        ))
    } else if code == Code::ResourceExhausted && message.contains(NO_SPACE) {
        StoreError::Unavailable(format!(
            "{message}: make room with etcdctl compact and defrag, then etcdctl alarm disarm"
        ))
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
    fn a_broken_stream_of_renewals_is_told_without_words_of_the_library_and_without_wrong_advice() {
        let url = StoreUrl { kind: &KIND, scheme: "etcd", rest: "//h" };
        let settings = Settings::new(&url, &Access::default(), |_| None).expect("settings");
        let error = named("h:2379", &settings, classify(Error::LeaseKeepAliveError("channel closed".to_owned())));
        let said = error.to_string();
        assert!(said.contains("h:2379: the stream of renewals has ended"), "{said}");
        assert!(!said.contains("channel") && !said.contains("TLS"), "{said}");
    }

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
        let access = Access { request_timeout: Duration::from_secs(10), ..Access::default() };
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

    /// A new setup begins for each of them in another attempt, so that in every attempt one is being connected to.
    #[tokio::test]
    async fn members_that_accept_and_stay_silent_are_an_outage_once_a_setup_would_have_been_over() {
        let listeners = [(); 3].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
        let addresses = listeners.each_ref().map(|listener| listener.local_addr().expect("an address").to_string());
        let rest = format!("//{}", addresses.join(","));
        let url = StoreUrl { kind: &KIND, scheme: "etcds", rest: &rest };
        let (request_timeout, connect_timeout) = (Duration::from_secs(1), Duration::from_secs(3));
        let access = Access { request_timeout, connect_timeout, ..Access::default() };
        let mut members = Endpoints::new(Settings::new(&url, &access, |_| None).expect("settings"));
        // Counted, not timed: a busy machine makes an attempt longer, and a setup is over after fewer of them.
        let attempts_max = 2 * connect_timeout.as_secs() / request_timeout.as_secs();
        let (mut attempts, mut outages) = (0, 0);
        while outages < 4 {
            attempts += 1;
            match members.try_each(async |_: Client| Ok(())).await {
                Err(StoreError::Unavailable(text)) => {
                    assert!(addresses.iter().any(|address| text.contains(address)), "{text}");
                    assert!(text.contains("etcd://"), "{text}");
                    outages += 1;
                }
                Err(StoreError::Connecting(_)) => {
                    assert!(attempts < attempts_max, "this goes on for ever");
                    assert_eq!(outages, 0, "an outage ends with an answer");
                }
                other => panic!("{other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(70)).await;
        }
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
