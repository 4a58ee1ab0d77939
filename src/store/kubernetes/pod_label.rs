//! `--pod-label`: this pod is labelled `KEY=leader` while its command serves, and `KEY=follower` otherwise, so that the selector of
//! a Service follows the leader.
//!
//! Best effort, on a connection of its own. A leader that died keeps its label; so the next one takes it off all other pods before
//! it labels its own. The label is written again now and then, because another leader's late removal may have met it.

use std::time::Duration;

use serde_json::json;
use tokio::sync::watch;
use tokio::time::timeout;
use tracing::{info, warn};

use super::server::{KubernetesLink, KubernetesServer, attempt};
use super::settings::Settings;
use crate::store::StoreError;
use crate::store::pod_label::PodLabel;

/// After a failure.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Between two writes of what should be there already.
const REPEAT_INTERVAL: Duration = Duration::from_secs(10);
/// Longest key: a prefix that is a domain name, a slash, and a name.
const KEY_BYTES_MAX: usize = 253 + 1 + 63;

/// The label of one pod.
#[derive(Debug, Clone)]
struct PodRole {
    key: String,
    namespace: String,
    pod: String,
}

/// Begins to label this pod. The variables name it.
///
/// # Errors
///
/// The key is none, or `POD_NAME` is not set: usage errors.
pub fn begin(settings: Settings, key: &str, variable: impl Fn(&str) -> Option<String>) -> Result<PodLabel, StoreError> {
    if !is_key(key) {
        return Err(StoreError::Misused(
            "--pod-label takes the key of a label, such as example.com/role: letters, digits, dots, dashes and underscores, with \
             one slash at most"
                .to_owned(),
        ));
    }
    let variable = |name: &str| variable(name).filter(|value| is_object_name(value));
    let pod = variable("POD_NAME").ok_or_else(|| {
        StoreError::Misused(
            "--pod-label needs POD_NAME: set it from metadata.name in the pod's manifest (fieldRef), or leave --pod-label out"
                .to_owned(),
        )
    })?;
    let namespace = variable("POD_NAMESPACE").unwrap_or_else(|| settings.namespace.clone());
    let role = PodRole { key: key.to_owned(), namespace, pod };
    Ok(PodLabel::begin(|wanted| follow(settings, role, wanted)))
}

fn is_key(key: &str) -> bool {
    let is_name = |part: &str| {
        let bytes = part.as_bytes();
        let is_end = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
        bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
            && is_end(bytes.first())
            && is_end(bytes.last())
    };
    key.len() <= KEY_BYTES_MAX && key.split('/').count() <= 2 && key.split('/').all(is_name)
}

/// Whether the name may be a part of a path.
fn is_object_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte))
}

/// Writes what is wanted, until the driver is gone.
async fn follow(settings: Settings, role: PodRole, mut wanted: watch::Receiver<bool>) {
    let mut link = KubernetesLink::default();
    let mut is_in_trouble = false;
    loop {
        let leads = *wanted.borrow_and_update();
        let written = attempt(&settings, &mut link, async |server| role.write(server, leads).await).await;
        let again = match written {
            Ok(()) => {
                if std::mem::take(&mut is_in_trouble) {
                    info!("the pod {} is labelled again", role.pod);
                }
                REPEAT_INTERVAL
            }
            // The next attempt goes on with the same connection.
            Err(StoreError::Connecting(_)) => Duration::ZERO,
            Err(error) => {
                if !std::mem::replace(&mut is_in_trouble, true) {
                    warn!("the pod {} cannot be labelled, and the election goes on: {error}", role.pod);
                }
                RETRY_DELAY
            }
        };
        if let Ok(Err(_)) = timeout(again, wanted.changed()).await {
            return;
        }
    }
}

impl PodRole {
    async fn write(&self, server: &mut KubernetesServer, leads: bool) -> Result<(), StoreError> {
        // Without the right to list, this pod is labelled nevertheless.
        let cleared = if leads { self.clear_others(server).await } else { Ok(()) };
        self.label(server, &self.pod, if leads { "leader" } else { "follower" }).await?;
        cleared
    }

    async fn clear_others(&self, server: &mut KubernetesServer) -> Result<(), StoreError> {
        for pod in server.pods_with_label(&self.namespace, &self.key, "leader").await? {
            if pod != self.pod && is_object_name(&pod) {
                self.label(server, &pod, "follower").await?;
            }
        }
        Ok(())
    }

    async fn label(&self, server: &mut KubernetesServer, pod: &str, value: &str) -> Result<(), StoreError> {
        let patch = json!({ "metadata": { "labels": { self.key.as_str(): value } } });
        server.patch_pod(&self.namespace, pod, &patch).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_name_and_perhaps_a_prefix() {
        for key in ["role", "example.com/role", "a_b-c.d", "A1"] {
            assert!(is_key(key), "{key}");
        }
        for key in ["", "/", "a/", "/a", "a/b/c", "-a", "a-", "a b", "a=b", "ü"] {
            assert!(!is_key(key), "{key}");
        }
        assert!(is_object_name("worker-0") && !is_object_name("../x") && !is_object_name(""));
    }
}
