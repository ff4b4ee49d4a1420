//! Follows the labelled Services of one namespace of Kubernetes.

use std::{collections::BTreeMap, convert::Infallible, time::Duration};

use drawbridge_runtime::{Condition, backoff::ReconnectDelays, error_chain};
use tokio::{sync::watch, time::Instant};

use super::{
    Found, KubernetesNamespace,
    client::{ApiServer, Change, SERVICES_MAX, WatchError},
    service::Service,
};
use crate::metrics::DISCOVERY_FAILURES;

const DELAY_FIRST: Duration = Duration::from_millis(200);
const DELAY_MAX: Duration = Duration::from_secs(10);
/// A watch that the API server ends sooner is not begun again at once.
const WATCH_MIN: Duration = Duration::from_secs(1);

/// The task that follows one namespace.
#[derive(Debug)]
pub(super) struct NamespaceWatcher {
    pub(super) api: ApiServer,
    pub(super) namespace: KubernetesNamespace,
    pub(super) found: watch::Sender<Found>,
    pub(super) condition: Condition,
}

impl NamespaceWatcher {
    /// Lists, then watches, and lists again when that ends. While the API server does not answer,
    /// nothing changes in what is known.
    pub(super) async fn run(self) {
        let namespace = self.namespace.as_str();
        let mut last_failure = None;
        let mut delays = ReconnectDelays::new(DELAY_FIRST, DELAY_MAX);
        let failures = DISCOVERY_FAILURES.get();
        loop {
            let began = Instant::now();
            let mut is_listed = false;
            let Err(error) = self.follow(&mut is_listed).await;
            if is_listed {
                last_failure = None;
            }
            if error.is_failure() {
                failures.increment(1);
                self.condition.set(Err(format!("cannot watch the Services: {}", error.brief())));
                let error = error_chain(&error);
                if last_failure.as_ref() != Some(&error) {
                    tracing::warn!(namespace, error, "cannot watch the Services of a namespace");
                    last_failure = Some(error);
                }
            } else {
                tracing::debug!(namespace, reason = %error, "listing the Services again");
            }
            delays.wait_after(began.elapsed()).await;
        }
    }

    async fn follow(&self, is_listed: &mut bool) -> Result<Infallible, WatchError> {
        let connection = self.api.connect(&self.namespace).await?;
        let (mut version, services) = connection.list().await?;
        let mut services: BTreeMap<_, _> =
            services.into_iter().map(|service| (service.metadata.name.clone(), service)).collect();
        self.publish(&services);
        *is_listed = true;
        self.condition.set(Ok(()));
        loop {
            let began = Instant::now();
            let mut events = connection.watch(&version).await?;
            while let Some((change, after)) = events.next().await? {
                version = after;
                match change {
                    Change::Set(service) => {
                        services.insert(service.metadata.name.clone(), service);
                    }
                    Change::Deleted(service) => {
                        services.remove(&service.metadata.name);
                    }
                    Change::Bookmark => continue,
                }
                if services.len() > SERVICES_MAX {
                    return Err(WatchError::TooMany);
                }
                self.publish(&services);
            }
            if began.elapsed() < WATCH_MIN {
                return Err(WatchError::Ended);
            }
        }
    }

    fn publish(&self, services: &BTreeMap<String, Service>) {
        let services: Vec<_> = services.values().cloned().collect();
        self.found.send_if_modified(|found| {
            let before = found.clone();
            found.set(&self.namespace, services);
            *found != before
        });
    }
}
