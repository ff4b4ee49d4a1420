//! Discovery against a server that lists and watches as Kubernetes' API server does.

use std::time::Duration;

use drawbridge_runtime::parse_defaults;
use tempfile::TempDir;

use self::api_server::TestApiServer;
use super::harness::{NO_POLL, PATIENCE, QUICK, TestEdge, TestService};
use crate::{
    config::{Services, from_flags},
    discovery::KubernetesConfig,
};

mod api_server;

/// An edge that watches the namespace `tools`, and its token.
struct Watching {
    edge: TestEdge,
    credentials: TempDir,
}

impl Watching {
    async fn start(api: &TestApiServer) -> Self {
        Self::start_with(api, Services::new()).await
    }

    async fn start_with(api: &TestApiServer, flags: Services) -> Self {
        let credentials = tempfile::tempdir().unwrap();
        std::fs::write(credentials.path().join("token"), "first\n").unwrap();
        std::fs::write(credentials.path().join("namespace"), "tools").unwrap();
        let config = KubernetesConfig {
            discover_kubernetes: true,
            kubernetes_api_url: Some(api.url()),
            kubernetes_credentials: credentials.path().to_owned(),
            ..parse_defaults(&[])
        };
        let edge = TestEdge::start_with(flags, None, &config, NO_POLL).await;
        Self { edge, credentials }
    }

    /// Waits until the condition is not met for this reason, or is met.
    async fn wait_note(&self, reason: Option<&str>) {
        let readiness = self.edge.builder.readiness();
        let waiting = async {
            loop {
                let notes = readiness.notes();
                let note = notes.get("kubernetes:tools").map(String::as_str);
                if note == reason {
                    return;
                }
                tokio::time::sleep(QUICK).await;
            }
        };
        let waited = tokio::time::timeout(PATIENCE, waiting).await;
        waited.unwrap_or_else(|_| panic!("expected {reason:?}: {:?}", readiness.notes()));
    }
}

#[tokio::test]
async fn a_labelled_service_is_followed_while_it_appears_changes_and_disappears() {
    let (code, moved, other) = (
        TestService::start("code", &["Search"]).await,
        TestService::start("code", &["Read"]).await,
        TestService::start("other", &["Do"]).await,
    );
    let api = TestApiServer::start().await;
    api.set("code", "code", &code);
    let watching = Watching::start(&api).await;
    watching.edge.builder.readiness().wait_ready().await;
    assert_eq!(watching.edge.tools(), ["code_search"], "it was read before the edge was ready");
    api.set("other", "other", &other);
    watching.edge.wait_tools(&["code_search", "other_do"]).await;
    api.set("code", "code", &moved);
    watching.edge.wait_tools(&["code_read", "other_do"]).await;
    api.delete("code");
    watching.edge.wait_tools(&["other_do"]).await;
    assert!(!watching.edge.current().has_endpoint("code"));
    watching.wait_note(None).await;
    let requests = api.requests();
    assert!(
        requests.iter().all(|query| query.contains("labelSelector=drawbridge.dev%2Fnamespace"))
    );
}

#[tokio::test]
async fn a_list_in_several_pages_is_read_whole() {
    let (code, other) =
        (TestService::start("code", &["Search"]).await, TestService::start("other", &["Do"]).await);
    let api = TestApiServer::start().await;
    api.set("code", "code", &code);
    api.set("other", "other", &other);
    api.behave(|behaviour| behaviour.page_services = 1);
    let watching = Watching::start(&api).await;
    watching.edge.wait_tools(&["code_search", "other_do"]).await;
}

#[tokio::test]
async fn while_the_api_server_is_down_nothing_changes_and_afterwards_it_is_followed_again() {
    let (code, other) =
        (TestService::start("code", &["Search"]).await, TestService::start("other", &["Do"]).await);
    let mut api = TestApiServer::start().await;
    api.set("code", "code", &code);
    let watching = Watching::start(&api).await;
    watching.edge.wait_tools(&["code_search"]).await;
    api.stop();
    watching.wait_note(Some("cannot watch the Services: the API server cannot be reached")).await;
    assert_eq!(watching.edge.tools(), ["code_search"]);
    assert_eq!(watching.edge.builder.readiness().reason(), None, "it is degraded, not out");
    api.delete("code");
    api.set("other", "other", &other);
    api.restart().await;
    watching.edge.wait_tools(&["other_do"]).await;
    watching.wait_note(None).await;
}

#[tokio::test]
async fn an_edge_that_knows_no_service_yet_is_not_ready_until_the_first_list() {
    let code = TestService::start("code", &["Search"]).await;
    let api = TestApiServer::start().await;
    api.set("code", "code", &code);
    api.behave(|behaviour| behaviour.is_forbidden = true);
    let watching = Watching::start(&api).await;
    let note = "cannot watch the Services: the API server answered 403 Forbidden";
    watching.wait_note(Some(note)).await;
    assert!(!watching.edge.current().is_loaded(), "the condition `catalog` is not met");
    api.behave(|behaviour| behaviour.is_forbidden = false);
    watching.edge.wait_tools(&["code_search"]).await;
    assert!(watching.edge.current().is_loaded());
    // Without any labelled Service there is nothing to wait for.
    let empty = TestApiServer::start().await;
    let watching = Watching::start(&empty).await;
    assert!(watching.edge.current().is_loaded());
}

#[tokio::test]
async fn a_version_that_has_expired_makes_the_edge_list_again() {
    let (code, other) =
        (TestService::start("code", &["Search"]).await, TestService::start("other", &["Do"]).await);
    for in_the_stream in [true, false] {
        let api = TestApiServer::start().await;
        api.set("code", "code", &code);
        let watching = Watching::start(&api).await;
        watching.edge.wait_tools(&["code_search"]).await;
        api.behave(|behaviour| behaviour.is_expiry_in_stream = in_the_stream);
        api.compact_with(|| api.set("other", "other", &other));
        watching.edge.wait_tools(&["code_search", "other_do"]).await;
        watching.wait_note(None).await;
    }
}

#[tokio::test]
async fn a_watch_goes_on_after_the_last_bookmark() {
    let (code, other) =
        (TestService::start("code", &["Search"]).await, TestService::start("other", &["Do"]).await);
    let api = TestApiServer::start().await;
    api.set("code", "code", &code);
    let watching = Watching::start(&api).await;
    watching.edge.wait_tools(&["code_search"]).await;
    // Long enough that the watch is not one that ended early.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let version = api.bookmark();
    api.end_watches();
    let wanted = format!("resourceVersion={version}&");
    let waiting = async {
        while !api.requests().iter().any(|query| query.contains(&wanted)) {
            tokio::time::sleep(QUICK).await;
        }
    };
    tokio::time::timeout(PATIENCE, waiting).await.expect("a watch from the bookmark");
    assert_eq!(api.lists(), 1);
    api.set("other", "other", &other);
    watching.edge.wait_tools(&["code_search", "other_do"]).await;
}

#[tokio::test]
async fn half_a_message_is_not_used_and_the_edge_lists_again() {
    let (code, other) =
        (TestService::start("code", &["Search"]).await, TestService::start("other", &["Do"]).await);
    let api = TestApiServer::start().await;
    api.set("code", "code", &code);
    let watching = Watching::start(&api).await;
    watching.edge.wait_tools(&["code_search"]).await;
    api.behave(|behaviour| behaviour.are_messages_cut = true);
    api.set("other", "other", &other);
    watching.wait_note(Some("cannot watch the Services: the watch ended within a message")).await;
    watching.edge.wait_tools(&["code_search", "other_do"]).await;
}

#[tokio::test]
async fn a_token_that_was_replaced_is_used_from_the_next_request_on() {
    let code = TestService::start("code", &["Search"]).await;
    let mut api = TestApiServer::start().await;
    let watching = Watching::start(&api).await;
    api.behave(|behaviour| behaviour.token = "second");
    api.set("code", "code", &code);
    api.stop();
    api.restart().await;
    let note = "cannot watch the Services: the API server answered 401 Unauthorized";
    watching.wait_note(Some(note)).await;
    std::fs::write(watching.credentials.path().join("token"), "second\n").unwrap();
    watching.edge.wait_tools(&["code_search"]).await;
}

#[tokio::test]
async fn a_service_that_is_labelled_later_takes_over_no_namespace_and_no_name() {
    let (code, configured, late) = (
        TestService::start("code", &["Search"]).await,
        TestService::start("mine", &["Do"]).await,
        TestService::start("late", &["Search=code_search", "Do=mine_do", "Own"]).await,
    );
    let api = TestApiServer::start().await;
    api.set("code", "code", &code);
    let flag = format!("mine=http://{}", configured.address).parse().unwrap();
    let watching = Watching::start_with(&api, from_flags(&[flag])).await;
    watching.edge.wait_tools(&["code_search", "mine_do"]).await;
    // Names of other services, and their namespaces.
    api.set("late", "late", &late);
    watching.edge.wait_tools(&["code_search", "late_own", "mine_do"]).await;
    assert_eq!(watching.edge.current().conflicts().len(), 2);
    api.set("a-code", "code", &late);
    api.set("a-mine", "mine", &late);
    let again = TestService::start("again", &["Do"]).await;
    api.set("again", "again", &again);
    watching.edge.wait_tools(&["again_do", "code_search", "late_own", "mine_do"]).await;
    let catalog = watching.edge.current();
    assert_eq!(catalog.tool("code_search").unwrap().item.rpc, "test.code.Offers/Search");
    assert_eq!(catalog.tool("mine_do").unwrap().item.rpc, "test.mine.Offers/Do");
    // The younger one follows once the older one is gone.
    let next = TestService::start("code", &["Read"]).await;
    api.set("b-code", "code", &next);
    api.delete("a-code");
    api.delete("code");
    watching.edge.wait_tools(&["again_do", "code_read", "late_own", "mine_do"]).await;
}
