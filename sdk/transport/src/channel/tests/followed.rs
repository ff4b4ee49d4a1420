//! A channel whose follower decides which replicas get calls.

use std::{collections::HashMap, net::SocketAddr, sync::Arc};

use tokio::sync::watch;
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
};
use url::Url;

use super::{Replica, TIMEOUT, check_health, wait_for_code};
use crate::{
    Peers,
    channel::{BalancedChannel, ReplicaCounts, ReplicaFollower},
};

/// What a test finds of each replica.
#[derive(Clone, Copy, Debug)]
enum Found {
    /// Live, with this rank.
    Live(u64),
    /// Its calls in flight may finish.
    Ended,
    /// Its calls in flight fail.
    Silent,
}

/// What the test finds, by the replica's address.
type Findings = Arc<watch::Sender<HashMap<SocketAddr, Found>>>;

/// A channel to replicas that are live when the test finds them so.
fn followed(urls: &[Url]) -> (BalancedChannel, Findings) {
    let findings: Findings = Arc::default();
    let found = Arc::clone(&findings);
    let follower = ReplicaFollower::new("test", move |replica| {
        let mut found = found.subscribe();
        Box::pin(async move {
            let address = replica.address().tcp().unwrap();
            loop {
                match found.borrow_and_update().get(&address) {
                    Some(Found::Live(rank)) => replica.set_live(*rank),
                    Some(Found::Ended) => return Ok(()),
                    Some(Found::Silent) => return Err(Status::deadline_exceeded("it is silent")),
                    None => {}
                }
                found.changed().await.unwrap();
            }
        })
    });
    (Peers::default().followed(urls, None, follower).unwrap(), findings)
}

fn find(findings: &Findings, address: SocketAddr, found: Found) {
    findings.send_modify(|findings| {
        findings.insert(address, found);
    });
}

async fn wait_for_counts(channel: &BalancedChannel, known: usize, live: usize) {
    let wanted = ReplicaCounts { known, live };
    let mut counts = channel.counts();
    let waiting = counts.wait_for(|counts| *counts == wanted);
    tokio::time::timeout(TIMEOUT, waiting).await.expect("the counts").unwrap();
}

/// A server whose checks finish when the token is cancelled.
struct Slow(CancellationToken);

#[tonic::async_trait]
impl Health for Slow {
    type WatchStream = tokio_stream::Empty<Result<HealthCheckResponse, Status>>;

    async fn check(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        self.0.cancelled().await;
        Ok(Response::new(HealthCheckResponse { status: ServingStatus::Serving as i32 }))
    }

    async fn watch(
        &self,
        _: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        Err(Status::unimplemented("watch"))
    }
}

/// Starts a call to a slow replica. Returns the call, the findings about the replica, and the token
/// that finishes the call.
async fn slow_call()
-> (tokio::task::JoinHandle<Code>, BalancedChannel, SocketAddr, Findings, CancellationToken) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let finish = CancellationToken::new();
    let serving = Server::builder().add_service(HealthServer::new(Slow(finish.clone())));
    tokio::spawn(serving.serve_with_incoming(TcpListenerStream::new(listener)));
    let (channel, findings) = followed(&[format!("http://{address}").parse().unwrap()]);
    find(&findings, address, Found::Live(0));
    wait_for_counts(&channel, 1, 1).await;
    let calling = channel.clone();
    let call = tokio::spawn(async move { check_health(&calling, "").await });
    // The call is in flight once the channel counts it.
    let in_flight = async {
        while channel.replicas().calls_in_flight() == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, in_flight).await.unwrap();
    (call, channel, address, findings, finish)
}

#[tokio::test]
async fn a_connected_replica_gets_calls_only_while_it_is_live() {
    let one = Replica::start("one").await;
    let (channel, findings) = followed(&[one.url()]);
    wait_for_counts(&channel, 1, 0).await;
    find(&findings, one.address, Found::Live(0));
    wait_for_code(&channel, "one", Code::Ok).await;
    find(&findings, one.address, Found::Silent);
    wait_for_code(&channel, "one", Code::Unavailable).await;
    assert_eq!(*channel.counts().borrow(), ReplicaCounts { known: 1, live: 0 });
    find(&findings, one.address, Found::Live(0));
    wait_for_code(&channel, "one", Code::Ok).await;
}

#[tokio::test]
async fn calls_go_to_the_live_replicas_of_the_highest_rank_alone() {
    let (one, two) = (Replica::start("one").await, Replica::start("two").await);
    let (channel, findings) = followed(&[one.url(), two.url()]);
    for replica in [&one, &two] {
        find(&findings, replica.address, Found::Live(1));
    }
    wait_for_counts(&channel, 2, 2).await;
    let reached = async || {
        let mut reached = [0, 0];
        for _ in 0..40 {
            let index = usize::from(check_health(&channel, "one").await != Code::Ok);
            reached[index] += 1;
        }
        reached
    };
    let [to_one, to_two] = reached().await;
    assert!(to_one > 10 && to_two > 10, "{to_one} {to_two}");

    find(&findings, two.address, Found::Live(2));
    wait_for_code(&channel, "two", Code::Ok).await;
    while check_health(&channel, "one").await == Code::Ok {}
    assert_eq!(reached().await, [0, 40], "the other replica is behind");
    find(&findings, two.address, Found::Silent);
    wait_for_code(&channel, "one", Code::Ok).await;
    assert_eq!(reached().await, [40, 0], "a replica that is behind is better than none");
}

#[tokio::test]
async fn calls_in_flight_fail_at_once_when_their_replica_is_silent() {
    let (call, channel, address, findings, _finish) = slow_call().await;
    find(&findings, address, Found::Silent);
    let code = tokio::time::timeout(TIMEOUT, call).await.expect("the end of the call").unwrap();
    assert_eq!(code, Code::Unavailable);
    drop(channel);
}

#[tokio::test]
async fn calls_in_flight_finish_when_their_replica_ends() {
    let (call, channel, address, findings, finish) = slow_call().await;
    find(&findings, address, Found::Ended);
    wait_for_counts(&channel, 1, 0).await;
    assert_eq!(check_health(&channel, "").await, Code::Unavailable, "it gets no new calls");
    finish.cancel();
    let code = tokio::time::timeout(TIMEOUT, call).await.expect("the end of the call").unwrap();
    assert_eq!(code, Code::Ok);
}

#[tokio::test]
async fn the_channel_of_a_replica_reaches_that_replica_alone() {
    let (one, two) = (Replica::start("one").await, Replica::start("two").await);
    let names: HashMap<_, _> = [(one.address, "one"), (two.address, "two")].into();
    let checked = Arc::new(watch::Sender::new(Vec::new()));
    let checks = Arc::clone(&checked);
    let follower = ReplicaFollower::new("test", move |replica| {
        let name = names[&replica.address().tcp().unwrap()];
        let checks = Arc::clone(&checks);
        Box::pin(async move {
            let mut client = HealthClient::new(replica.channel());
            for _ in 0..10 {
                client.check(HealthCheckRequest { service: name.to_owned() }).await?;
            }
            checks.send_modify(|checks| checks.push(name));
            std::future::pending().await
        })
    });
    let _channel = Peers::default().followed(&[one.url(), two.url()], None, follower).unwrap();
    let mut checked = checked.subscribe();
    let both = checked.wait_for(|checks| checks.len() == 2);
    tokio::time::timeout(TIMEOUT, both).await.expect("both replicas").unwrap();
}
