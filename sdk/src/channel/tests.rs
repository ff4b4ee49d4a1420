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

use super::{BalancedChannel, ChannelError};

const PATIENCE: Duration = Duration::from_secs(10);
/// Less than any timeout of the channel.
const AT_ONCE: Duration = Duration::from_millis(500);

/// A server with threads of its own, so that it can die with all its connections.
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
        // Waited for, so that its port is free; elsewhere, because a runtime must not be waited for in another.
        std::thread::spawn(move || runtime.shutdown_timeout(PATIENCE)).join().unwrap();
    }
}

fn channel(replicas: &[&Replica]) -> BalancedChannel {
    let urls: Vec<_> = replicas.iter().map(|replica| replica.url()).collect();
    BalancedChannel::new(&urls).unwrap()
}

/// Asks for the health of one replica's own service: `NOT_FOUND` is another replica's answer.
async fn ask(channel: &BalancedChannel, name: &str) -> Code {
    let request = HealthCheckRequest { service: name.to_owned() };
    let answer = HealthClient::new(channel.clone()).check(request).await;
    answer.map_or_else(|status| status.code(), |_| Code::Ok)
}

async fn until(channel: &BalancedChannel, name: &str, code: Code) {
    let asking = async {
        while ask(channel, name).await != code {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, asking)
        .await
        .unwrap_or_else(|_| panic!("{name} never is {code:?}"));
}

#[tokio::test]
async fn replicas_share_the_calls() {
    let (one, two) = (Replica::start("one").await, Replica::start("two").await);
    let channel = channel(&[&one, &two]);
    until(&channel, "one", Code::Ok).await;
    until(&channel, "two", Code::Ok).await;
    let mut to_one = 0;
    for _ in 0..100 {
        match ask(&channel, "one").await {
            Code::Ok => to_one += 1,
            code => assert_eq!(code, Code::NotFound),
        }
    }
    assert!((30..=70).contains(&to_one), "{to_one} of 100");
}

#[tokio::test]
async fn calls_go_on_when_a_replica_dies_and_use_it_when_it_is_back() {
    let (one, two) = (Replica::start("one").await, Replica::start("two").await);
    let channel = channel(&[&one, &two]);
    until(&channel, "one", Code::Ok).await;
    until(&channel, "two", Code::Ok).await;

    let address = two.address;
    drop(two);
    // Once the death is noticed, not one call is lost to it.
    while channel.replicas().open_count() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..100 {
        assert_eq!(ask(&channel, "one").await, Code::Ok);
    }

    let _two = Replica::start_at("two", address).await;
    until(&channel, "two", Code::Ok).await;
}

#[tokio::test]
async fn a_replica_that_stops_in_order_costs_no_call() {
    let (one, two) = (Replica::start("one").await, Replica::start("two").await);
    let channel = channel(&[&one, &two]);
    until(&channel, "one", Code::Ok).await;
    until(&channel, "two", Code::Ok).await;
    two.stopping.cancel();
    for _ in 0..200 {
        assert!(matches!(ask(&channel, "one").await, Code::Ok | Code::NotFound));
    }
    until(&channel, "one", Code::Ok).await;
}

#[tokio::test]
async fn without_any_replica_a_call_fails_at_once() {
    let one = Replica::start("one").await;
    let channel = channel(&[&one]);
    until(&channel, "one", Code::Ok).await;
    drop(one);
    until(&channel, "one", Code::Unavailable).await;
    let begun = Instant::now();
    assert_eq!(ask(&channel, "one").await, Code::Unavailable);
    assert!(begun.elapsed() < AT_ONCE);
}

#[tokio::test]
async fn the_first_call_waits_for_the_first_connection_and_no_longer() {
    let one = Replica::start("one").await;
    let dead: Url = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        format!("http://{}", listener.local_addr().unwrap()).parse().unwrap()
    };
    let both = BalancedChannel::new(&[dead.clone(), one.url()]).unwrap();
    assert_eq!(ask(&both, "one").await, Code::Ok);
    let begun = Instant::now();
    assert_eq!(ask(&BalancedChannel::new(&[dead]).unwrap(), "one").await, Code::Unavailable);
    assert!(begun.elapsed() < AT_ONCE);
}

#[tokio::test]
async fn a_host_name_stands_for_all_its_addresses() {
    let one = Replica::start("one").await;
    let url = format!("http://localhost:{}", one.address.port()).parse().unwrap();
    // It may also have the address ::1, where nobody listens.
    let channel = BalancedChannel::new(&[url]).unwrap();
    for _ in 0..10 {
        assert_eq!(ask(&channel, "one").await, Code::Ok);
    }
}

#[tokio::test]
async fn a_dropped_channel_ends_its_connections_and_lets_calls_in_flight_end() {
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
    tokio::time::timeout(PATIENCE, ending).await.unwrap();
}

#[tokio::test]
async fn what_is_no_address_is_refused() {
    for text in ["http://127.0.0.1:7210/path", "http://user@127.0.0.1:7210", "ftp://localhost"] {
        let refused = BalancedChannel::new(&[text.parse().unwrap()]);
        assert!(matches!(refused, Err(ChannelError::Form { .. })), "{text}");
    }
    assert!(matches!(BalancedChannel::new(&[]), Err(ChannelError::Empty)));
    assert!(BalancedChannel::new(&["http://[::1]:7210".parse().unwrap()]).is_ok());
}

/// Fails each check with a message of as many bytes as the name of the service says.
struct Wordy;

#[tonic::async_trait]
impl Health for Wordy {
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
async fn a_status_message_is_read_however_long_and_one_beyond_reading_is_no_lost_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url: Url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let serving = Server::builder().add_service(HealthServer::new(Wordy));
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
        let starting = crate::ServiceBuilder::new();
        let listen = url.as_str().parse().unwrap();
        let (health, service) = tonic_health::server::health_reporter();
        health.set_service_status("socket", ServingStatus::Serving).await;
        let (accepted, _) = crate::Listen::accept(&listen).unwrap();
        let incoming = crate::grpc::incoming(accepted, crate::mtls::Accept::default());
        let stopped = starting.stopping().cancelled_owned();
        starting.spawn(async move {
            Server::builder()
                .add_service(service)
                .serve_with_incoming_shutdown(incoming, stopped)
                .await
                .unwrap();
        });
        starting
    };
    let (served, tcp) = (serve().await, Replica::start("tcp").await);
    let channel = BalancedChannel::new(&[url.clone(), tcp.url()]).unwrap();
    until(&channel, "socket", Code::Ok).await;
    until(&channel, "tcp", Code::Ok).await;
    let plain = crate::connect(&url).unwrap();
    let request = || HealthCheckRequest { service: "socket".to_owned() };
    assert!(HealthClient::new(plain.clone()).check(request()).await.is_ok());

    // One that goes gets no calls, and one that is back does.
    drop(served);
    until(&channel, "socket", Code::NotFound).await;
    while channel.replicas().open_count() > 1 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..20 {
        assert_eq!(ask(&channel, "tcp").await, Code::Ok);
    }
    let _served = serve().await;
    until(&channel, "socket", Code::Ok).await;
}
