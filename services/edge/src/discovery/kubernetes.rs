//! Discovers tool services by a label of Kubernetes Services.

use std::{collections::BTreeMap, env, path::PathBuf, str::FromStr, time::Duration};

use drawbridge_runtime::{Effect, ServiceBuilder};
use tokio::{sync::watch, time::timeout};
use url::Url;

use self::{client::ApiServer, watcher::NamespaceWatcher};

pub(super) use self::{
    select::{Addressing, Selection, select},
    service::Service,
};

mod client;
mod select;
mod service;
mod watcher;

/// The label whose value is the namespace of the Service's tools.
const LABEL: &str = "drawbridge.dev/namespace";
/// How long the start of the edge waits for the first lists.
const FIRST_LISTS_WAIT: Duration = Duration::from_secs(3);
/// The longest name of a namespace (RFC 1123 label), in bytes.
const NAME_BYTES_MAX: usize = 63;

/// The discovery of tool services in Kubernetes.
#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Discovery in Kubernetes")]
pub struct KubernetesConfig {
    /// Offer each Kubernetes Service with the label `drawbridge.dev/namespace` as the tool service
    /// of that namespace, besides those of --service and --config. Changes take effect without a
    /// restart.
    #[arg(long)]
    pub discover_kubernetes: bool,

    /// A Kubernetes namespace whose Services are watched. Repeat, or separate by commas. Absent:
    /// the edge's own.
    #[arg(long, value_name = "NAMESPACE", value_delimiter = ',')]
    pub discover_kubernetes_namespaces: Vec<KubernetesNamespace>,

    /// The URL of the API server: https, or http on loopback. Absent: that of the cluster in which
    /// the edge runs.
    #[arg(long, value_name = "URL")]
    pub kubernetes_api_url: Option<Url>,

    /// The folder of the files `token` and `ca.crt`, with which the edge and the API server
    /// authenticate each other, and `namespace`, the edge's own. They may change at any time.
    #[arg(
        long,
        value_name = "FOLDER",
        default_value = "/var/run/secrets/kubernetes.io/serviceaccount"
    )]
    pub kubernetes_credentials: PathBuf,
}

/// The name of a namespace of Kubernetes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubernetesNamespace(String);

/// A text is not the name of a namespace of Kubernetes.
#[derive(Debug, thiserror::Error)]
#[error(
    "invalid namespace of Kubernetes {0:?} (expected 1 to 63 of the characters a-z 0-9 -, without \
     - at the ends)"
)]
pub struct KubernetesNamespaceError(String);

impl KubernetesNamespace {
    fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KubernetesNamespace {
    type Err = KubernetesNamespaceError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_name = (1..=NAME_BYTES_MAX).contains(&text.len())
            && !text.starts_with('-')
            && !text.ends_with('-')
            && text.bytes().all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || it == b'-');
        if is_name {
            Ok(Self(text.to_owned()))
        } else {
            Err(KubernetesNamespaceError(text.to_owned()))
        }
    }
}

/// Discovery in Kubernetes could not start.
#[derive(Debug, thiserror::Error)]
pub enum KubernetesError {
    /// The edge does not run in a cluster.
    #[error(
        "--discover-kubernetes: the edge does not run in a cluster (KUBERNETES_SERVICE_HOST is not \
         set): set --kubernetes-api-url"
    )]
    NotInCluster,
    /// The address of the API server in the environment is invalid.
    #[error("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not an address")]
    Environment(#[source] url::ParseError),
    /// The token would leave the machine in plaintext.
    #[error("--kubernetes-api-url: {0} is neither https nor on loopback")]
    Plaintext(Url),
    /// The edge's own namespace is unknown.
    #[error("cannot read the edge's own namespace from {}: set --discover-kubernetes-namespaces", path.display())]
    OwnNamespace {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: std::io::Error,
    },
    /// The edge's own namespace is invalid.
    #[error(transparent)]
    Namespace(#[from] KubernetesNamespaceError),
}

/// The labelled Services of each watched namespace; `None` before its first list.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Found(BTreeMap<KubernetesNamespace, Option<Vec<Service>>>);

impl Found {
    /// Whether the Services of every watched namespace are known.
    pub(super) fn is_complete(&self) -> bool {
        self.0.values().all(Option::is_some)
    }

    fn services(&self) -> impl Iterator<Item = &Service> {
        self.0.values().flatten().flatten()
    }

    fn set(&mut self, namespace: &KubernetesNamespace, services: Vec<Service>) {
        self.0.insert(namespace.clone(), Some(services));
    }
}

/// Starts to watch the Services, if that is configured. Waits for a moment until they are known, so
/// that an edge that has started has read the contracts of all services once.
///
/// # Errors
/// When the API server or the namespaces are not known.
pub(super) async fn start(
    builder: &ServiceBuilder,
    config: &KubernetesConfig,
) -> Result<watch::Receiver<Found>, KubernetesError> {
    let (sender, mut found) = watch::channel(Found::default());
    if !config.discover_kubernetes {
        return Ok(found);
    }
    let api = ApiServer::new(api_url(config)?, config.kubernetes_credentials.clone())?;
    for namespace in namespaces(config)? {
        sender.send_modify(|found| {
            found.0.insert(namespace.clone(), None);
        });
        let name = format!("kubernetes:{}", namespace.as_str());
        let watcher = NamespaceWatcher {
            condition: builder.readiness().condition(name, Effect::Degrading),
            api: api.clone(),
            namespace,
            found: sender.clone(),
        };
        let stopping = builder.stopping();
        builder.spawn(async move {
            stopping.run_until_cancelled(watcher.run()).await;
        });
    }
    // Without them the edge is not ready, and follows them once the API server answers.
    let _ = timeout(FIRST_LISTS_WAIT, found.wait_for(Found::is_complete)).await;
    Ok(found)
}

fn api_url(config: &KubernetesConfig) -> Result<Url, KubernetesError> {
    if let Some(url) = &config.kubernetes_api_url {
        return Ok(url.clone());
    }
    let variable = |name: &str| env::var(name).map_err(|_| KubernetesError::NotInCluster);
    let host = variable("KUBERNETES_SERVICE_HOST")?;
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    let host = if host.contains(':') { format!("[{host}]") } else { host };
    format!("https://{host}:{port}").parse().map_err(KubernetesError::Environment)
}

fn namespaces(config: &KubernetesConfig) -> Result<Vec<KubernetesNamespace>, KubernetesError> {
    if !config.discover_kubernetes_namespaces.is_empty() {
        return Ok(config.discover_kubernetes_namespaces.clone());
    }
    let path = config.kubernetes_credentials.join("namespace");
    let name = drawbridge_runtime::bounded::read_file_to_string(&path, 1024)
        .map_err(|source| KubernetesError::OwnNamespace { path, source })?;
    Ok(vec![name.trim().parse()?])
}
