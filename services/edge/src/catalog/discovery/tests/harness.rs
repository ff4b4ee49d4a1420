use std::{
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use drawbridge_sdk::ServiceBuilder;
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
    catalog::discovery::{Discovery, Pace},
    catalog::{Catalog, Catalogs},
    config::{ConfigFile, Live, Services, from_flags},
    traffic::cache::Cache,
    traffic::limits::Limits,
};

pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Nothing that is tested by health waits for the poll.
pub(super) const NEVER: Duration = Duration::from_secs(600);
pub(super) const QUICK: Duration = Duration::from_millis(20);
pub(super) const FREE: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

/// A contract of one service in `namespace`, whose methods are these tools.
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
    let source = format!(
        "syntax = \"proto3\"; package test.{namespace}; \
         import \"drawbridge/mcp/v1/options.proto\"; \
         message Nothing {{}}\n\
         service Offers {{ option (drawbridge.mcp.v1.service) = {{ namespace: \"{namespace}\" }};\n{rpcs} }}"
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join(format!("{namespace}.proto"));
    std::fs::write(&file, source).unwrap();
    let protos = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../proto/proto");
    let mut compiler = protox::Compiler::new([folder.path(), &protos]).unwrap();
    compiler.include_imports(true).open_file(&file).unwrap();
    compiler.encode_file_descriptor_set()
}

/// A service that has a contract and a health, and no methods that work: discovery calls none.
pub(super) struct Offers {
    pub(super) address: SocketAddr,
    /// How often the contract was read.
    reads: Arc<AtomicUsize>,
    pub(super) health: HealthReporter,
    runtime: Option<Runtime>,
}

impl Offers {
    pub(super) async fn start(namespace: &str, methods: &[&str]) -> Self {
        Self::serve(FREE, namespace, &contract(namespace, methods)).await
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
        // Threads of its own, so that it dies with all its connections.
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

    /// Serves a contract without saying anything about health.
    pub(super) async fn start_without_health(address: SocketAddr, methods: &[&str]) -> Self {
        let (health, service) = tonic_health::server::health_reporter();
        let none = Some(service).filter(|_| false);
        Self::serve_with(address, "code", &contract("code", methods), health, none).await
    }

    /// Ends this one, and serves another contract in its place.
    pub(super) async fn becomes(self, namespace: &str, methods: &[&str]) -> Self {
        self.serves(namespace, &contract(namespace, methods)).await
    }

    pub(super) async fn serves(self, namespace: &str, contract: &[u8]) -> Self {
        let address = self.address;
        drop(self);
        Self::serve(address, namespace, contract).await
    }

    pub(super) async fn is_read_again(&self, times: usize) {
        let wanted = self.reads.load(Ordering::Relaxed) + times;
        let waiting = async {
            while self.reads.load(Ordering::Relaxed) < wanted {
                tokio::time::sleep(QUICK).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.unwrap();
    }
}

impl Drop for Offers {
    fn drop(&mut self) {
        let runtime = self.runtime.take().unwrap();
        // Waited for, so that its port is free; elsewhere, because a runtime must not be waited for in another.
        std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join().unwrap();
    }
}

/// What the edge finds out.
pub(super) struct Found {
    pub(super) catalogs: Arc<Catalogs>,
    pub(super) starting: ServiceBuilder,
}

impl Found {
    pub(super) async fn start(
        flags: Services,
        file: Option<&Path>,
        contract_poll: Duration,
    ) -> Self {
        let pace =
            Pace { file: QUICK, contract: contract_poll, retry_first: QUICK, retry_max: QUICK };
        let (catalogs, starting) = (Arc::<Catalogs>::default(), ServiceBuilder::new());
        let limits = Arc::new(Limits::new(None).unwrap());
        let (cache, _) = Cache::new(&"secret".into(), None).unwrap();
        let (calls, requests, guards) = (Arc::default(), Arc::default(), Arc::default());
        let live = Live { limits, cache: cache.into(), calls, requests, guards };
        let discovery = Discovery::new(Arc::clone(&catalogs), live, Duration::from_secs(30), pace);
        let file = file.map(|path| ConfigFile::new(path.to_owned()));
        crate::catalog::discovery::start(&starting, flags, file, discovery).await.unwrap();
        Self { catalogs, starting }
    }

    pub(super) async fn flagged(services: &[(&str, &Offers)], contract_poll: Duration) -> Self {
        let flags: Vec<_> = services
            .iter()
            .map(|(namespace, offers)| {
                format!("{namespace}=http://{}", offers.address).parse().unwrap()
            })
            .collect();
        Self::start(from_flags(&flags), None, contract_poll).await
    }

    pub(super) fn tools(&self) -> Vec<String> {
        self.catalogs.load().tools().map(|tool| tool.item.name.clone()).collect()
    }

    /// Waits until these tools and no others are there.
    pub(super) async fn offers(&self, tools: &[&str]) {
        let mut changed = self.catalogs.subscribe();
        let waiting = async {
            while self.tools() != tools {
                changed.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("there are {:?}, not {tools:?}", self.tools()));
    }

    pub(super) fn current(&self) -> Arc<Catalog> {
        Arc::clone(&self.catalogs.load())
    }
}
