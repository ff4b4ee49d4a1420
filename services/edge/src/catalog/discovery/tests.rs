use std::sync::Arc;

use prost::Message as _;
use prost_types::FileDescriptorSet;
use tonic_health::ServingStatus;

use self::harness::{FREE, Found, NEVER, Offers, PATIENCE, QUICK, contract};
use crate::{catalog::Catalogs, config::from_flags};

mod config;
mod harness;

#[tokio::test]
async fn a_service_that_comes_back_is_read_again() {
    let code = Offers::start("code", &["Search"]).await;
    let found = Found::flagged(&[("code", &code)], NEVER).await;
    found.starting.readiness().wait().await;
    found.offers(&["code_search"]).await;
    let _code = code.becomes("code", &["Search", "Read"]).await;
    found.offers(&["code_read", "code_search"]).await;
}

#[tokio::test]
async fn a_service_that_serves_again_is_read_again() {
    let code = Offers::start("code", &["Search"]).await;
    let found = Found::flagged(&[("code", &code)], NEVER).await;
    found.offers(&["code_search"]).await;
    let before = found.current();
    let telling = async {
        // What happens before anybody watches is not heard of.
        loop {
            for status in [ServingStatus::NotServing, ServingStatus::Serving] {
                code.health.set_service_status("", status).await;
                tokio::time::sleep(QUICK).await;
            }
        }
    };
    tokio::select! {
        () = telling => {}
        () = code.is_read_again(1) => {}
    }
    // What is unchanged is not offered anew.
    assert!(Arc::ptr_eq(&before, &found.current()));
}

#[tokio::test]
async fn a_service_without_health_is_read_again_by_the_poll() {
    let code = Offers::start_without_health(FREE, &["Search"]).await;
    let found = Found::flagged(&[("code", &code)], QUICK).await;
    found.offers(&["code_search"]).await;
    let address = code.address;
    drop(code);
    let _code = Offers::start_without_health(address, &["Read"]).await;
    found.offers(&["code_read"]).await;
}

#[tokio::test]
async fn a_contract_that_is_read_again_unchanged_changes_nothing() {
    let code = Offers::start("code", &["Search"]).await;
    let found = Found::flagged(&[("code", &code)], QUICK).await;
    found.offers(&["code_search"]).await;
    let before = found.current();
    let code = code.becomes("code", &["Search"]).await;
    code.is_read_again(3).await;
    assert!(Arc::ptr_eq(&before, &found.current()));
}

#[tokio::test]
async fn the_last_good_catalog_stays_while_a_service_serves_a_broken_contract() {
    let code = Offers::start("code", &["Search"]).await;
    let found = Found::flagged(&[("code", &code)], QUICK).await;
    found.offers(&["code_search"]).await;
    // It imports what is not there.
    let mut broken = FileDescriptorSet::decode(contract("code", &["Read"]).as_slice()).unwrap();
    broken.file.retain(|file| file.name().starts_with("code"));
    let code = code.serves("code", &broken.encode_to_vec()).await;
    code.is_read_again(2).await;
    assert_eq!(found.tools(), ["code_search"]);
    let _code = code.becomes("code", &["Read"]).await;
    found.offers(&["code_read"]).await;
}

#[tokio::test]
async fn the_last_good_catalog_stays_while_a_service_is_down() {
    let (code, other) =
        (Offers::start("code", &["Search"]).await, Offers::start("other", &["Do"]).await);
    let found = Found::flagged(&[("code", &code), ("other", &other)], QUICK).await;
    found.offers(&["code_search", "other_do"]).await;
    let address = code.address;
    drop(code);
    // Another service is followed all the while.
    let _other = other.becomes("other", &["Undo"]).await;
    found.offers(&["code_search", "other_undo"]).await;
    let _code = Offers::serve(address, "code", &contract("code", &["Read"])).await;
    found.offers(&["code_read", "other_undo"]).await;
}

#[tokio::test]
async fn the_edge_is_ready_though_a_service_is_down() {
    let code = Offers::start("code", &["Search"]).await;
    let address = code.address;
    drop(code);
    let flags = from_flags(&[format!("code=http://{address}").parse().unwrap()]);
    let found = Found::start(flags, None, NEVER).await;
    tokio::time::timeout(PATIENCE, found.starting.readiness().wait()).await.unwrap();
    let _code = Offers::serve(address, "code", &contract("code", &["Search"])).await;
    found.offers(&["code_search"]).await;
}

#[tokio::test]
async fn replicas_are_one_service() {
    let (one, two) =
        (Offers::start("code", &["Search"]).await, Offers::start("code", &["Search"]).await);
    let found = Found::flagged(&[("code", &one), ("code", &two)], NEVER).await;
    found.offers(&["code_search"]).await;
    drop(one);
    let _two = two.becomes("code", &["Search", "Read"]).await;
    found.offers(&["code_read", "code_search"]).await;
}

#[tokio::test]
async fn two_rpcs_that_claim_one_name_are_both_named() {
    let one = Offers::start("one", &["Search=search", "Read"]).await;
    let two = Offers::start("two", &["Find=search", "Write"]).await;
    let found = Found::flagged(&[("two", &two), ("one", &one)], NEVER).await;
    // The rest goes on working, and whoever answers first, the name is the first namespace's.
    found.offers(&["one_read", "search", "two_write"]).await;
    let catalog = found.current();
    assert_eq!(catalog.tool("search").unwrap().item.rpc, "test.one.Offers/Search");
    let [conflict] = catalog.conflicts() else { panic!("{:?}", catalog.conflicts()) };
    assert_eq!(
        conflict.to_string(),
        "the tool name \"search\" of test.two.Offers/Find (two) belongs to test.one.Offers/Search (one)"
    );

    // The name goes to the other when its owner gives it up.
    let _one = one.becomes("one", &["Read"]).await;
    let mut changed = found.catalogs.subscribe();
    while found.current().tool("search").unwrap().item.rpc != "test.two.Offers/Find" {
        tokio::time::timeout(PATIENCE, changed.changed()).await.unwrap().unwrap();
    }
    assert!(found.current().conflicts().is_empty());
}

#[tokio::test]
async fn subscribers_hear_of_what_clients_see_and_of_nothing_else() {
    let catalogs = Catalogs::default();
    let mut changed = catalogs.subscribe();
    catalogs.update(|catalog| catalog.with("code".parse().unwrap(), Default::default()));
    catalogs.update(|catalog| catalog.without(&"code".parse().unwrap()));
    assert!(!changed.has_changed().unwrap());

    let code = Offers::start("code", &["Search"]).await;
    let found = Found::flagged(&[("code", &code)], NEVER).await;
    found.offers(&["code_search"]).await;
    let (before, after) = (*changed.borrow_and_update(), found.current().revision());
    assert_ne!(before.tools, after.tools);
    assert_eq!(before.resources, after.resources);
}
