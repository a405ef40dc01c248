//! What a proxy does at once, all of which ends with it.

use std::future::Future;

use tokio_util::sync::CancellationToken;

/// Tasks that end with the proxy.
#[derive(Clone)]
pub(super) struct Work(CancellationToken);

impl Work {
    pub(super) fn until(end: CancellationToken) -> Self {
        Self(end)
    }

    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let end = self.0.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = task => {}
                () = end.cancelled() => {}
            }
        });
    }
}
