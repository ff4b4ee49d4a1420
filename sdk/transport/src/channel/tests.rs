use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use tokio::runtime::Runtime;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status, transport::Server};
use tonic_health::{
    ServingStatus,
    pb::{
        HealthCheckRequest, HealthCheckResponse,
        health_client::HealthClient,
        health_server::{Health, HealthServer},
    },
    server::HealthReporter,
};
use url::Url;

use drawbridge_runtime::socket;

use super::{BalancedChannel, ChannelError};

mod followed;

const TIMEOUT: Duration = Duration::from_secs(10);
/// Less than any timeout of the channel.
const IMMEDIATELY: Duration = Duration::from_millis(500);

/// A server with its own threads, so that it can die with all its connections.
struct Replica {
    address: SocketAddr,
    health: HealthReporter,
    stopping: CancellationToken,
    runtime: Option<Runtime>,
}

impl Replica {
    /// Serves the health of a service that only this replica knows.
    async fn start(name: &'static str) -> Self {
        Self::start_at(name, SocketAddr::from(([127, 0, 0, 1], 0))).await
    }

    async fn start_at(name: &'static str, address: SocketAddr) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let (health, service) = tonic_health::server::health_reporter();
        health.set_service_status(name, ServingStatus::Serving).await;
        let stopping = CancellationToken::new();
        let stopped = stopping.clone().cancelled_owned();
        let (bound, address) = runtime
            .spawn(async move {
                let listener = tokio::net::TcpListener::bind(address).await.unwrap();
                let address = listener.local_addr().unwrap();
                (TcpListenerStream::new(listener), address)
            })
            .await
            .unwrap();
        runtime.spawn(
            Server::builder().add_service(service).serve_with_incoming_shutdown(bound, stopped),
        );
        Self { address, health, stopping, runtime: Some(runtime) }
    }

    fn url(&self) -> Url {
        format!("http://{}", self.address).parse().unwrap()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        let runtime = self.runtime.take().unwrap();
        // Waits, so that its port is free; on another thread, because a runtime cannot wait for
        // another one.
        std::thread::spawn(move || runtime.shutdown_timeout(TIMEOUT)).join().unwrap();
    }
}

fn channel(replicas: &[&Replica]) -> BalancedChannel {
    let urls: Vec<_> = replicas.iter().map(|replica| replica.url()).collect();
    BalancedChannel::new(&urls).unwrap()
}

/// Checks the health of one replica's service: `NOT_FOUND` comes from another replica.
async fn check_health(channel: &BalancedChannel, name: &str) -> Code {
    let request = HealthCheckRequest { service: name.to_owned() };
    let response = HealthClient::new(channel.clone()).check(request).await;
    response.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn wait_for_code(channel: &BalancedChannel, name: &str, code: Code) {
    let polling = async {
        while check_health(channel, name).await != code {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, polling)
        .await
        .unwrap_or_else(|_| panic!("{name} never returns {code:?}"));
}

#[tokio::test]
async fn replicas_share_the_calls() {
    let (one, two) = (Replica::start("one").await, Replica::start("two").await);
    let channel = channel(&[&one, &two]);
    wait_for_code(&channel, "one", Code::Ok).await;
    wait_for_code(&channel, "two", Code::Ok).await;
    let mut to_one = 0;
    for _ in 0..100 {
        match check_health(&channel, "one").await {
            Code::Ok => to_one += 1,
            code => assert_eq!(code, Code::NotFound),
        }
    }
    assert!((30..=70).contains(&to_one), "{to_one} of 100");
}

#[tokio::test]
async fn calls_succeed_when_a_replica_dies_and_reach_it_when_it_is_back() {
    let (one, two) = (Replica::start("one").await, Replica::start("two").await);
    let channel = channel(&[&one, &two]);
    wait_for_code(&channel, "one", Code::Ok).await;
    wait_for_code(&channel, "two", Code::Ok).await;

    let address = two.address;
    drop(two);
    // Once the closed connection is noticed, no call fails.
    while channel.counts().borrow().live > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..100 {
        assert_eq!(check_health(&channel, "one").await, Code::Ok);
    }

    let _two = Replica::start_at("two", address).await;
    wait_for_code(&channel, "two", Code::Ok).await;
}

#[tokio::test]
async fn no_call_fails_when_a_replica_shuts_down_gracefully() {
    let (one, two) = (Replica::start("one").await, Replica::start("two").await);
    let channel = channel(&[&one, &two]);
    wait_for_code(&channel, "one", Code::Ok).await;
    wait_for_code(&channel, "two", Code::Ok).await;
    two.stopping.cancel();
    for _ in 0..200 {
        assert!(matches!(check_health(&channel, "one").await, Code::Ok | Code::NotFound));
    }
    wait_for_code(&channel, "one", Code::Ok).await;
}

#[tokio::test]
async fn without_a_reachable_replica_a_call_fails_immediately() {
    let one = Replica::start("one").await;
    let channel = channel(&[&one]);
    wait_for_code(&channel, "one", Code::Ok).await;
    drop(one);
    wait_for_code(&channel, "one", Code::Unavailable).await;
    let begun = Instant::now();
    assert_eq!(check_health(&channel, "one").await, Code::Unavailable);
    assert!(begun.elapsed() < IMMEDIATELY);
}

#[tokio::test]
async fn the_first_call_waits_for_the_first_connection_and_no_longer() {
    let one = Replica::start("one").await;
    let dead: Url = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
    };
    let both = BalancedChannel::new(&[dead.clone(), one.url()]).unwrap();
    assert_eq!(check_health(&both, "one").await, Code::Ok);
    let begun = Instant::now();
    assert_eq!(
        check_health(&BalancedChannel::new(&[dead]).unwrap(), "one").await,
        Code::Unavailable
    );
    assert!(begun.elapsed() < IMMEDIATELY);
}

#[tokio::test]
async fn a_host_name_is_used_with_all_its_addresses() {
    let one = Replica::start("one").await;
    let url = format!("http://localhost:{}", one.address.port()).parse().unwrap();
    // It may also have the address ::1, where nothing listens.
    let channel = BalancedChannel::new(&[url]).unwrap();
    for _ in 0..10 {
        assert_eq!(check_health(&channel, "one").await, Code::Ok);
    }
}

#[tokio::test]
async fn a_dropped_channel_closes_its_connections_once_calls_in_flight_have_ended() {
    let one = Replica::start("one").await;
    let channel = channel(&[&one]);
    let request = HealthCheckRequest { service: "one".to_owned() };
    let mut watching =
        HealthClient::new(channel.clone()).watch(request).await.unwrap().into_inner();
    assert!(watching.message().await.unwrap().is_some());

    let replicas = std::sync::Arc::downgrade(channel.replicas());
    drop(channel);
    one.health.set_service_status("one", ServingStatus::NotServing).await;
    assert!(watching.message().await.unwrap().is_some());
    drop(watching);
    let ending = async {
        while replicas.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(TIMEOUT, ending).await.unwrap();
}

#[tokio::test]
async fn an_invalid_address_is_rejected() {
    for text in ["http://127.0.0.1:7210/path", "http://user@127.0.0.1:7210", "ftp://localhost"] {
        let refused = BalancedChannel::new(&[text.parse().unwrap()]);
        assert!(matches!(refused, Err(ChannelError::Form { .. })), "{text}");
    }
    assert!(matches!(BalancedChannel::new(&[]), Err(ChannelError::Empty)));
    assert!(BalancedChannel::new(&["http://[::1]:7210".parse().unwrap()]).is_ok());
}

/// Fails each check with a message of as many bytes as the service's name states.
struct LongMessages;

#[tonic::async_trait]
impl Health for LongMessages {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let bytes = request.into_inner().service.parse().unwrap();
        Err(Status::not_found("x".repeat(bytes)))
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }
}

#[tokio::test]
async fn a_long_status_message_is_read_and_one_over_the_limit_is_an_internal_error() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let serving = Server::builder().add_service(HealthServer::new(LongMessages));
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let channel = BalancedChannel::new(std::slice::from_ref(&url)).unwrap();
    let fail = async |bytes: usize| {
        let request = HealthCheckRequest { service: bytes.to_string() };
        HealthClient::new(channel.clone()).check(request).await.unwrap_err()
    };
    for bytes in [0, 17_000, 500_000] {
        let status = fail(bytes).await;
        assert_eq!((status.code(), status.message().len()), (Code::NotFound, bytes));
    }
    for bytes in [1_048_576, 1_400_000, 3_000_000] {
        let status = fail(bytes).await;
        assert_eq!(status.code(), Code::Internal, "{bytes}: {status:?}");
        assert!(
            status.message().contains("more than 1048576 bytes of headers"),
            "{bytes}: {status:?}"
        );
    }
    let request = HealthCheckRequest { service: "17000".to_owned() };
    let status = HealthClient::new(super::connect(&url).unwrap()).check(request).await.unwrap_err();
    assert_eq!((status.code(), status.message().len()), (Code::NotFound, 17_000));
}

#[tokio::test]
async fn replicas_of_unix_sockets_and_of_tcp_share_the_calls() {
    let folder = tempfile::tempdir().unwrap();
    let url: Url = format!("unix:{}/x.sock", folder.path().display()).parse().unwrap();
    let serve = || async {
        let builder = drawbridge_runtime::ServiceBuilder::new();
        let listen = url.as_str().parse().unwrap();
        let (health, service) = tonic_health::server::health_reporter();
        health.set_service_status("socket", ServingStatus::Serving).await;
        let (accepted, _) = drawbridge_runtime::Listen::accept(&listen).unwrap();
        let incoming = crate::grpc::incoming(accepted, crate::mtls::Acceptor::default());
        let stopped = builder.stopping().cancelled_owned();
        builder.spawn(async move {
            Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, stopped)
                .await
                .unwrap();
        });
        builder
    };
    let (served, tcp) = (serve().await, Replica::start("tcp").await);
    let channel = BalancedChannel::new(&[url.clone(), tcp.url()]).unwrap();
    wait_for_code(&channel, "socket", Code::Ok).await;
    wait_for_code(&channel, "tcp", Code::Ok).await;
    let plain = crate::connect(&url).unwrap();
    let request = || HealthCheckRequest { service: "socket".to_owned() };
    assert!(HealthClient::new(plain.clone()).check(request()).await.is_ok());

    // A replica that is gone gets no calls; one that is back does.
    drop(served);
    wait_for_code(&channel, "socket", Code::NotFound).await;
    while channel.counts().borrow().live > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..20 {
        assert_eq!(check_health(&channel, "tcp").await, Code::Ok);
    }
    let _served = serve().await;
    wait_for_code(&channel, "socket", Code::Ok).await;
}

#[cfg(unix)]
#[tokio::test]
async fn a_unix_socket_needs_neither_a_certificate_nor_allow_plaintext() {
    let url = "unix:/run/x.sock".parse().unwrap();
    assert!(crate::Peers::default().connect(&url, "tools", None).is_ok());
    assert!(BalancedChannel::new(&[url]).is_ok());
    assert!(BalancedChannel::new(&["unix:/run/x.sock?a".parse().unwrap()]).is_err());
}

#[cfg(unix)]
#[test]
fn a_connection_to_a_process_of_another_user_is_a_failed_handshake() {
    let error = std::io::Error::other(socket::check_user(1, 2).unwrap_err());
    assert_eq!(crate::mtls::handshake_failure(&error), Some("peer_user"));
}
