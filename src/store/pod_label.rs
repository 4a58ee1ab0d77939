//! The label of the pod that elect runs in, where the store is the pod's own cluster (`--pod-label`).
//!
//! The driver says whether the command serves; a task beside the election writes the label. Nothing waits for it, and its failures
//! are warnings.

use tokio::sync::watch;
use tokio::task::JoinSet;

/// The label, as the driver sees it. The task ends with it.
pub struct PodLabel {
    leads: watch::Sender<bool>,
    /// Aborted when it is dropped.
    _task: JoinSet<()>,
}

impl PodLabel {
    /// Begins to write it. Must be called inside a runtime.
    #[cfg_attr(not(feature = "all-stores"), allow(dead_code, reason = "one store has pods"))]
    pub fn begin<F>(write: impl FnOnce(watch::Receiver<bool>) -> F) -> PodLabel
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (leads, wanted) = watch::channel(false);
        let mut task = JoinSet::new();
        task.spawn(write(wanted));
        PodLabel { leads, _task: task }
    }

    /// Whether the command serves from now on.
    pub fn show(&self, leads: bool) {
        self.leads.send_if_modified(|shown| std::mem::replace(shown, leads) != leads);
    }
}
