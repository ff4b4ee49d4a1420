use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use drawbridge_runtime::ServiceBuilder;
use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{
    service::{InterceptorLayer, LayerExt as _},
    transport::Server,
};
use tonic_health::{
    pb::health_server::{Health, HealthServer},
    server::HealthReporter,
};

use crate::{
    catalog::{Catalog, Catalogs, testdata},
    config::{ConfigFile, Reloadable, Services, from_flags},
    discovery::{Discovery, KubernetesConfig, PollIntervals},
    keys::EdgeKeys,
    traffic::cache::Cache,
    traffic::limits::RateLimiter,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Tests of the health watch must not depend on the poll.
pub(super) const NO_POLL: Duration = Duration::from_secs(600);
pub(super) const QUICK: Duration = Duration::from_millis(20);
pub(super) const FREE_PORT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A contract of one service in `namespace` whose methods are these tools.
pub(super) fn contract(namespace: &str, methods: &[&str]) -> Vec<u8> {
    let rpcs: String = methods
        .iter()
        .map(|method| {
            let (method, name) = method.split_once('=').unwrap_or((method, ""));
            format!(
                "rpc {method}(Nothing) returns (Nothing) \
                 {{ option (drawbridge.mcp.v1.tool) = {{ name: \"{name}\" }}; }}\n"
            )
        })
        .collect();
    testdata::descriptor_set(namespace, "message Nothing {}", &rpcs)
}

/// A service with reflection and health but without its methods: discovery calls none.
pub(super) struct TestService {
    pub(super) address: SocketAddr,
    /// How often the contract was read.
    reads: Arc<AtomicUsize>,
    pub(super) health: HealthReporter,
    runtime: Option<Runtime>,
}

impl TestService {
    pub(super) async fn start(namespace: &str, methods: &[&str]) -> Self {
        Self::serve(FREE_PORT, namespace, &contract(namespace, methods)).await
    }

    pub(super) async fn serve(address: SocketAddr, namespace: &str, contract: &[u8]) -> Self {
        let (health, service) = tonic_health::server::health_reporter();
        Self::serve_with(address, namespace, contract, health, Some(service)).await
    }

    async fn serve_with<H: Health>(
        address: SocketAddr,
        namespace: &str,
        contract: &[u8],
        health: HealthReporter,
        health_service: Option<HealthServer<H>>,
    ) -> Self {
        let reflection = tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(contract)
            .with_service_name(format!("test.{namespace}.Offers"))
            .build_v1()
            .unwrap();
        let reads = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&reads);
        let reflection = InterceptorLayer::new(move |request| {
            count.fetch_add(1, Ordering::Relaxed);
            Ok(request)
        })
        .named_layer(reflection);
        // Its own runtime, so that its end closes all its connections.
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let binding = async move {
            let listener = tokio::net::TcpListener::bind(address).await.unwrap();
            (listener.local_addr().unwrap(), TcpListenerStream::new(listener))
        };
        let (address, incoming) = runtime.spawn(binding).await.unwrap();
        let server = Server::builder().add_service(reflection).add_optional_service(health_service);
        runtime.spawn(server.serve_with_incoming(incoming));
        Self { address, reads, health, runtime: Some(runtime) }
    }

    /// Serves a contract without a health service.
    pub(super) async fn start_without_health(address: SocketAddr, methods: &[&str]) -> Self {
        let (health, service) = tonic_health::server::health_reporter();
        let none = Some(service).filter(|_| false);
        Self::serve_with(address, "code", &contract("code", methods), health, none).await
    }

    /// Stops, and serves another contract at the same address.
    pub(super) async fn restart_with(self, namespace: &str, methods: &[&str]) -> Self {
        self.restart_with_contract(namespace, &contract(namespace, methods)).await
    }

    pub(super) async fn restart_with_contract(self, namespace: &str, contract: &[u8]) -> Self {
        let address = self.address;
        drop(self);
        Self::serve(address, namespace, contract).await
    }

    pub(super) async fn wait_reads(&self, times: usize) {
        let wanted = self.reads.load(Ordering::Relaxed) + times;
        let waiting = async {
            while self.reads.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(QUICK).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    }
}

impl Drop for TestService {
    fn drop(&mut self) {
        let runtime = self.runtime.take().unwrap();
        // Blocks until its port is free. On another thread: a runtime must not block in another
        // one.
        std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join().unwrap();
    }
}

/// An edge's discovery under test.
pub(super) struct TestEdge {
    pub(super) catalogs: Arc<Catalogs>,
    pub(super) builder: ServiceBuilder,
}

impl TestEdge {
    pub(super) async fn start(
        flags: Services,
        file: Option<&Path>,
        contract_poll: Duration,
    ) -> Self {
        let kubernetes = drawbridge_runtime::parse_defaults(&[]);
        Self::start_with(flags, file, &kubernetes, contract_poll).await
    }

    pub(super) async fn start_with(
        flags: Services,
        file: Option<&Path>,
        kubernetes: &KubernetesConfig,
        contract_poll: Duration,
    ) -> Self {
        let intervals = PollIntervals { contract: contract_poll, settle: QUICK };
        let (catalogs, builder) = (Arc::<Catalogs>::default(), ServiceBuilder::new());
        let limits = Arc::new(RateLimiter::new(None).unwrap());
        let (cache, _) = Cache::new(EdgeKeys::for_tests("secret").cache, None).unwrap();
        let (calls, controller, guards) = (Arc::default(), Arc::default(), Arc::default());
        let reloadable = Reloadable { limits, cache: cache.into(), calls, controller, guards };
        let discovery =
            Discovery::new(Arc::clone(&catalogs), reloadable, Duration::from_secs(30), intervals)
                .with_host(|_| "127.0.0.1".to_owned());
        let file = file.map(|path| ConfigFile::new(path.to_owned()));
        let audit = drawbridge_audit::AuditLog::off().unwrap();
        crate::discovery::start(&builder, flags, file, kubernetes, &audit, discovery)
            .await
            .unwrap();
        Self { catalogs, builder }
    }

    pub(super) async fn with_flags(
        services: &[(&str, &TestService)],
        contract_poll: Duration,
    ) -> Self {
        let flags: Vec<_> = services
            .iter()
            .map(|(namespace, offers)| {
                format!("{namespace}=http://{}", offers.address).parse().unwrap()
            })
            .collect();
        Self::start(from_flags(&flags), None, contract_poll).await
    }

    pub(super) fn tools(&self) -> Vec<String> {
        self.catalogs.load().tools().iter().map(|tool| tool.item.name.clone()).collect()
    }

    /// Waits until the catalog has exactly these tools.
    pub(super) async fn wait_tools(&self, tools: &[&str]) {
        let mut changed = self.catalogs.subscribe();
        let waiting = async {
            while self.tools() != tools {
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("expected {tools:?}, found {:?}", self.tools()));
    }

    pub(super) fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalogs.load())
    }
}
