use std::sync::Arc;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic_health::ServingStatus;

use self::harness::{FREE_PORT, NO_POLL, PATIENCE, QUICK, TestEdge, TestService, contract};
use crate::{catalog::Catalogs, config::from_flags};

mod config;
mod harness;
mod kubernetes;

#[tokio::test]
async fn a_restarted_service_is_read_again() {
    let code = TestService::start("code", &["Search"]).await;
    let edge = TestEdge::with_flags(&[("code", &code)], NO_POLL).await;
    edge.builder.readiness().wait_ready().await;
    edge.wait_tools(&["code_search"]).await;
    let _code = code.restart_with("code", &["Search", "Read"]).await;
    edge.wait_tools(&["code_read", "code_search"]).await;
}

#[tokio::test]
async fn a_service_that_is_serving_again_is_read_again() {
    let code = TestService::start("code", &["Search"]).await;
    let edge = TestEdge::with_flags(&[("code", &code)], NO_POLL).await;
    edge.wait_tools(&["code_search"]).await;
    let before = edge.current();
    let toggle_health = async {
        // Repeated: a change before the watch begins has no effect.
        loop {
            for status in [ServingStatus::NotServing, ServingStatus::Serving] {
                code.health.set_service_status("", status).await;
                tokio::time::sleep(QUICK).await;
            }
        }
    };
    tokio::select! {
        () = toggle_health => {}
        () = code.wait_reads(1) => {}
    }
    // An unchanged contract does not replace the catalog.
    assert!(Arc::ptr_eq(&before, &edge.current()));
}

#[tokio::test]
async fn a_service_without_health_is_polled() {
    let code = TestService::start_without_health(FREE_PORT, &["Search"]).await;
    let edge = TestEdge::with_flags(&[("code", &code)], QUICK).await;
    edge.wait_tools(&["code_search"]).await;
    let address = code.address;
    drop(code);
    let _code = TestService::start_without_health(address, &["Read"]).await;
    edge.wait_tools(&["code_read"]).await;
}

#[tokio::test]
async fn an_unchanged_contract_does_not_change_the_catalog() {
    let code = TestService::start("code", &["Search"]).await;
    let edge = TestEdge::with_flags(&[("code", &code)], QUICK).await;
    edge.wait_tools(&["code_search"]).await;
    let before = edge.current();
    let code = code.restart_with("code", &["Search"]).await;
    code.wait_reads(3).await;
    assert!(Arc::ptr_eq(&before, &edge.current()));
}

#[tokio::test]
async fn the_last_valid_catalog_stays_while_a_service_has_an_invalid_contract() {
    let code = TestService::start("code", &["Search"]).await;
    let edge = TestEdge::with_flags(&[("code", &code)], QUICK).await;
    edge.wait_tools(&["code_search"]).await;
    // It imports a missing file.
    let mut broken = FileDescriptorSet::decode(contract("code", &["Read"]).as_slice()).unwrap();
    broken.file.retain(|file| file.name().starts_with("code"));
    let code = code.restart_with_contract("code", &broken.encode_to_vec()).await;
    code.wait_reads(2).await;
    assert_eq!(edge.tools(), ["code_search"]);
    let _code = code.restart_with("code", &["Read"]).await;
    edge.wait_tools(&["code_read"]).await;
}

#[tokio::test]
async fn the_last_valid_catalog_stays_while_a_service_is_down() {
    let (code, other) =
        (TestService::start("code", &["Search"]).await, TestService::start("other", &["Do"]).await);
    let edge = TestEdge::with_flags(&[("code", &code), ("other", &other)], QUICK).await;
    edge.wait_tools(&["code_search", "other_do"]).await;
    let address = code.address;
    drop(code);
    // Another service is still followed.
    let _other = other.restart_with("other", &["Undo"]).await;
    edge.wait_tools(&["code_search", "other_undo"]).await;
    let _code = TestService::serve(address, "code", &contract("code", &["Read"])).await;
    edge.wait_tools(&["code_read", "other_undo"]).await;
}

#[tokio::test]
async fn the_edge_is_ready_though_a_service_is_down() {
    let code = TestService::start("code", &["Search"]).await;
    let address = code.address;
    drop(code);
    let flags = from_flags(&[format!("code=http://{address}").parse().unwrap()]);
    let edge = TestEdge::start(flags, None, NO_POLL).await;
    tokio::time::timeout(PATIENCE, edge.builder.readiness().wait_ready()).await.unwrap();
    let _code = TestService::serve(address, "code", &contract("code", &["Search"])).await;
    edge.wait_tools(&["code_search"]).await;
}

#[tokio::test]
async fn replicas_are_one_service() {
    let (one, two) = (
        TestService::start("code", &["Search"]).await,
        TestService::start("code", &["Search"]).await,
    );
    let edge = TestEdge::with_flags(&[("code", &one), ("code", &two)], NO_POLL).await;
    edge.wait_tools(&["code_search"]).await;
    drop(one);
    let _two = two.restart_with("code", &["Search", "Read"]).await;
    edge.wait_tools(&["code_read", "code_search"]).await;
}

#[tokio::test]
async fn a_name_conflict_names_both_rpcs() {
    let one = TestService::start("one", &["Search=search", "Read"]).await;
    let two = TestService::start("two", &["Find=search", "Write"]).await;
    let edge = TestEdge::with_flags(&[("two", &two), ("one", &one)], NO_POLL).await;
    // Other items stay, and the first namespace has the name in any order of answers.
    edge.wait_tools(&["one_read", "search", "two_write"]).await;
    let catalog = edge.current();
    assert_eq!(catalog.tool("search").unwrap().item.rpc, "test.one.Offers/Search");
    let [conflict] = catalog.conflicts() else { panic!("{:?}", catalog.conflicts()) };
    assert_eq!(
        conflict.to_string(),
        "the tool name \"search\" of test.two.Offers/Find (two) \
         belongs to test.one.Offers/Search (one)"
    );

    // The other service gets the name when its owner drops it.
    let _one = one.restart_with("one", &["Read"]).await;
    let mut changed = edge.catalogs.subscribe();
    while edge.current().tool("search").unwrap().item.rpc != "test.two.Offers/Find" {
        tokio::time::timeout(PATIENCE, changed.changed()).await.unwrap().unwrap();
    }
    assert!(edge.current().conflicts().is_empty());
}

#[tokio::test]
async fn subscribers_are_notified_only_of_changes_that_clients_see() {
    let catalogs = Catalogs::default();
    let mut changed = catalogs.subscribe();
    catalogs.update(|catalog| catalog.with("code".parse().unwrap(), Default::default()));
    catalogs.update(|catalog| catalog.without(&"code".parse().unwrap()));
    assert!(!changed.has_changed().unwrap());

    let code = TestService::start("code", &["Search"]).await;
    let edge = TestEdge::with_flags(&[("code", &code)], NO_POLL).await;
    edge.wait_tools(&["code_search"]).await;
    let (before, after) = (*changed.borrow_and_update(), edge.current().revision());
    assert_ne!(before.tools, after.tools);
    assert_eq!(before.resources, after.resources);
}
