//! Bundles past their `not_after`.

use std::time::{Duration, Instant};

use drawbridge_auth::policy::bundle::Release;
use drawbridge_mesh::HostedService;
use drawbridge_tests::{FileServer, TestMesh};
use jiff::{SignedDuration, Timestamp};

use super::{
    publisher::{NAME, Publisher, TAKEN_TIMEOUT, admin, release, status},
    wait_tools,
};

#[tokio::test]
async fn a_bundle_past_its_not_after_alarms_and_decides_on() {
    let (mesh, server) = (TestMesh::start().await, FileServer::start().await);
    let publisher = Publisher::new(server.url(NAME), 1);
    let packed = publisher.packed();
    let until = Timestamp::now() + SignedDuration::from_secs(3);
    let expiring = Release { not_after: Some(until), ..release(&packed, 1) };
    publisher.push_signed(&packed, &expiring, &[&publisher.keys[0]]).await;
    let auth = publisher.auth(&mesh);
    let running = auth.start().await;
    let code = &mesh.mesh.state.services["code"];
    let url = auth.url.clone().into();
    let edge = mesh.edge(&[("code", code)], |config| config.auth_urls = vec![url]).await;
    let alice = edge.client(&mesh.client("alice").await);
    let started = Instant::now();
    while !admin(&running, "/readyz").await.contains("past its not_after") {
        assert!(started.elapsed() < TAKEN_TIMEOUT, "no alarm");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(admin(&running, "/metrics").await.contains("auth_policy_bundle_expired 1\n"));
    assert_eq!(alice.tools().await, ["code_list_files", "code_search"]);
    assert!(status(&running).await.problem.is_none());
    // Signed anew with a later time, at the same revision.
    let later = Release {
        created: Timestamp::now(),
        not_after: Some(until + SignedDuration::from_hours(1)),
        ..expiring
    };
    publisher.push_signed(&packed, &later, &[&publisher.keys[0]]).await;
    let started = Instant::now();
    while admin(&running, "/readyz").await.contains("past its not_after") {
        assert!(started.elapsed() < TAKEN_TIMEOUT, "the alarm does not end");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(admin(&running, "/metrics").await.contains("auth_policy_bundle_expired 0\n"));
    edge.hosted.stop().await;
    running.stop().await;
    mesh.stop().await;
}

#[tokio::test]
async fn with_deny_expired_policies_everything_is_denied_until_a_newer_bundle_arrives() {
    let (mesh, server) = (TestMesh::start().await, FileServer::start().await);
    let publisher = Publisher::new(server.url(NAME), 1);
    let packed = publisher.packed();
    let until = Timestamp::now() + SignedDuration::from_secs(4);
    let expiring = Release { not_after: Some(until), ..release(&packed, 1) };
    publisher.push_signed(&packed, &expiring, &[&publisher.keys[0]]).await;
    let auth = publisher.auth(&mesh);
    let auth = auth.with(|config| config.policy_bundles.deny_expired_policies = true);
    let running = auth.start().await;
    let edge = async || {
        let code = &mesh.mesh.state.services["code"];
        let url = auth.url.clone().into();
        mesh.edge(&[("code", code)], |config| config.auth_urls = vec![url]).await
    };
    let is_denied = async |auth: &HostedService| {
        let url = format!("http://{}/readyz", auth.running.admin);
        let response = reqwest::get(url).await.expect("a response");
        response.text().await.expect("a text").contains("everything is denied")
    };
    let first = edge().await;
    let alice = first.client(&mesh.client("alice").await);
    wait_tools(&alice, &["code_list_files", "code_search"]).await;
    wait_tools(&alice, &[]).await;
    assert!(is_denied(&running).await);
    first.hosted.stop().await;
    // The same after a restart.
    running.stop().await;
    let running = auth.start().await;
    let started = Instant::now();
    while !is_denied(&running).await {
        assert!(started.elapsed() < TAKEN_TIMEOUT, "a restart permits");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let later = Release { created: Timestamp::now(), not_after: None, ..expiring };
    publisher.push_signed(&packed, &later, &[&publisher.keys[0]]).await;
    while is_denied(&running).await {
        assert!(started.elapsed() < TAKEN_TIMEOUT, "a newer bundle permits nothing");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let edge = edge().await;
    let alice = edge.client(&mesh.client("alice").await);
    wait_tools(&alice, &["code_list_files", "code_search"]).await;
    edge.hosted.stop().await;
    running.stop().await;
    mesh.stop().await;
}
