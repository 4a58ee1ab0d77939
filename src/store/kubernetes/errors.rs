//! Classifies the errors of connections and the answers of API servers.

use std::io;

use hyper::StatusCode;
use serde_json::Value;

use super::settings::{PLAIN_SCHEME, Settings, Token};
use crate::store::StoreError;
use crate::store::connection::errors::{one_line, root_cause, with_network_advice};
use crate::store::connection::tls::TlsSettings;
use crate::store::connection::tls_errors::tls_fault;

/// The verbs that a candidate needs; `list` is for `elect status` without a boundary.
const VERBS: &str = "get,create,update,watch,list";
const PLAIN_FORM: &str = "kubernetes+http://";

/// The other side, as messages need it.
#[derive(Debug, Clone)]
pub struct KubernetesPeer {
    shown: String,
    namespace: String,
    tls: Option<TlsSettings>,
    has_token: bool,
    is_token_replaced: bool,
}

impl KubernetesPeer {
    pub fn new(settings: &Settings) -> KubernetesPeer {
        KubernetesPeer {
            shown: settings.shown.clone(),
            namespace: settings.namespace.clone(),
            tls: settings.tls.clone(),
            has_token: settings.token != Token::None,
            is_token_replaced: settings.token.is_replaced(),
        }
    }

    pub fn unavailable(&self, what: &str) -> StoreError {
        StoreError::Unavailable(one_line(&format!("{} {what}", self.shown)))
    }

    pub fn refused(&self, what: &str) -> StoreError {
        StoreError::Refused(one_line(&format!("{} {what}", self.shown)))
    }

    pub fn obstacle(&self, what: &str) -> StoreError {
        StoreError::Obstacle(one_line(&format!("{} {what}", self.shown)))
    }

    /// Classifies a failure to connect.
    pub fn classify_io(&self, error: &io::Error) -> StoreError {
        self.classify_cause(&root_cause(error), "cannot be reached")
    }

    /// Classifies a failure of a request.
    pub fn classify_http(&self, error: &hyper::Error) -> StoreError {
        if error.is_parse() {
            return self.refused(&format!(
                "does not answer in HTTP: check host and port of --store, and write {PLAIN_SCHEME}:// only for a server without TLS"
            ));
        }
        self.classify_cause(&root_cause(error), "failed")
    }

    fn classify_cause(&self, cause: &str, what: &str) -> StoreError {
        let side = self.tls.as_ref().map(|tls| tls.side(PLAIN_FORM));
        match side.and_then(|side| tls_fault(cause, side)) {
            Some(fault) => self.refused(&fault),
            None => self.unavailable(&format!("{what}: {}", with_network_advice(cause))),
        }
    }

    /// Classifies an answer that is not the one that was asked for.
    pub fn classify_answer(&self, status: StatusCode, body: &[u8]) -> StoreError {
        let answer: Option<Value> = serde_json::from_slice(body).ok();
        let field = |name: &str| answer.as_ref().and_then(|answer| answer.get(name)).and_then(Value::as_str);
        let is_status = field("kind") == Some("Status");
        let said = field("message").map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_owned);
        let said = one_line(said.trim());
        let number = status.as_u16();
        match number {
            401 => self.refused(&self.unauthorized()),
            // The namespace is about to go, whoever asks.
            403 if said.contains("being terminated") => self.unavailable(&format!("says {said}")),
            403 => self.forbidden(&said),
            400 | 404 | 405 | 415 | 300..=399 if !is_status => self
                .refused(&format!("does not answer as an API server does ({number}): check host and port of --store")),
            404 if field("reason") == Some("NotFound") && said.contains("namespaces") => self.refused(&format!(
                "has no namespace {:?}: name another one in --store, or have it created",
                self.namespace
            )),
            404 => self.refused(&format!("says {said} ({number}): Leases need Kubernetes 1.14 or newer")),
            400 | 405 | 415 => self.refused(&format!("says {said} ({number})")),
            // About an object that is there, so that another program may change it.
            422 => self.obstacle(&format!("says {said} ({number})")),
            429 => self.unavailable(&format!("has too many requests ({number})")),
            _ => self.unavailable(&format!("says {said} ({number})")),
        }
    }

    fn unauthorized(&self) -> String {
        match (self.has_token, self.is_token_replaced) {
            (false, _) => {
                "does not know who asks (401): give a token with --password-file, or a certificate with --tls-cert"
            }
            (true, true) => {
                "does not accept the token (401), nor the one that its file has now: check that the file is kept up to date"
            }
            (true, false) => {
                "does not accept the token (401): it may have expired: give one in a file that is kept up to date, with \
                 --password-file"
            }
        }
        .to_owned()
    }

    /// The error for a missing right, with the commands that make the Role.
    pub fn forbidden(&self, said: &str) -> StoreError {
        let StoreError::Refused(message) = self.refused(&format!("says permission denied: {said}")) else {
            return self.refused(said);
        };
        // Not cut: a command is of use as a whole.
        StoreError::Refused(format!("{message}: ask an administrator of the cluster to run: {}", self.role(said)))
    }

    fn role(&self, said: &str) -> String {
        let namespace = &self.namespace;
        let user = said.split_once("User \"").and_then(|(_, rest)| rest.split_once('"')).map(|(user, _)| user);
        let is_plain = |name: &&str| {
            !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._:@".contains(&byte))
        };
        let subject = match user.filter(is_plain) {
            Some(user) => match user.strip_prefix("system:serviceaccount:") {
                Some(account) => format!("--serviceaccount={account}"),
                None => format!("--user={user}"),
            },
            None => format!("--serviceaccount={namespace}:NAME"),
        };
        format!(
            "kubectl -n {namespace} create role elect --verb={VERBS} --resource=leases.coordination.k8s.io && kubectl -n \
             {namespace} create rolebinding elect --role=elect {subject}"
        )
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::host_port::ServerAddress;
    use crate::store::connection::setup::TimeLimits;

    fn peer(token: Token) -> KubernetesPeer {
        KubernetesPeer::new(&Settings {
            address: ServerAddress { host: "h".to_owned(), port: 6443 },
            namespace: "team".to_owned(),
            tls: None,
            token,
            limits: TimeLimits::default(),
            renew_interval: Duration::from_secs(2),
            shown: "kubernetes:team".to_owned(),
        })
    }

    fn status(reason: &str, message: &str) -> Vec<u8> {
        serde_json::json!({ "kind": "Status", "reason": reason, "message": message }).to_string().into_bytes()
    }

    #[test]
    fn a_missing_right_names_the_commands_that_grant_it() {
        let body = status(
            "Forbidden",
            "leases.coordination.k8s.io \"cron\" is forbidden: User \"system:serviceaccount:team:job\" cannot get resource",
        );
        let error = peer(Token::None).classify_answer(StatusCode::FORBIDDEN, &body);
        let StoreError::Refused(said) = error else { panic!("{error:?}") };
        for part in ["create role elect", "get,create,update,watch,list", "--serviceaccount=team:job", "-n team"] {
            assert!(said.contains(part), "{said}");
        }
        let forged = status("Forbidden", "User \"a; rm -rf /\" cannot");
        let said = peer(Token::None).classify_answer(StatusCode::FORBIDDEN, &forged).to_string();
        assert!(said.ends_with("--serviceaccount=team:NAME"), "{said}");
    }

    #[test]
    fn each_status_is_an_outage_a_refusal_or_an_obstacle() {
        let json = |text: &str| status("Any", text);
        for (number, body, kind, said) in [
            (401, json("Unauthorized"), "refused", "--password-file"),
            (403, json("namespace is being terminated"), "unavailable", "terminated"),
            (404, b"404 page not found".to_vec(), "refused", "host and port"),
            (404, status("NotFound", "namespaces \"team\" not found"), "refused", "\"team\""),
            (400, b"Client sent an HTTP request to an HTTPS server.".to_vec(), "refused", "host and port"),
            (302, Vec::new(), "refused", "host and port"),
            (422, json("is invalid"), "obstacle", "invalid"),
            (429, json("too many"), "unavailable", "429"),
            (500, b"\x1b[31m\nx".to_vec(), "unavailable", "500"),
            (503, Vec::new(), "unavailable", "503"),
            (504, json("timeout"), "unavailable", "504"),
        ] {
            let error = peer(Token::None).classify_answer(StatusCode::from_u16(number).expect("a status"), &body);
            let found = match &error {
                StoreError::Unavailable(_) => "unavailable",
                StoreError::Refused(_) => "refused",
                StoreError::Obstacle(_) => "obstacle",
                StoreError::Connecting(_) | StoreError::Misused(_) => "another",
            };
            let text = error.to_string();
            assert_eq!(found, kind, "{number}: {text}");
            assert!(text.contains(said) && !text.contains(char::is_control), "{number}: {text}");
        }
    }
}
