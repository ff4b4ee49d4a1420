//! Cache keys, and the cache policies that a contract may have.

use std::slice;

use drawbridge_transport::transaction_token::Actor;
use proptest::{collection::vec, prelude::*};
use prost_reflect::ReflectMessage as _;

use super::*;
use crate::{
    catalog::read_arguments,
    grpc::generate::{self, Tape},
    keys::EdgeKeys,
};

fn scoped(scope: mcp::cache_policy::Scope) -> CacheRule {
    rule(&mcp::CachePolicy { scope: scope.into(), ..Default::default() })
}

fn changed(change: impl FnOnce(&mut TransactionClaims)) -> TransactionClaims {
    let mut claims = alice();
    change(&mut claims);
    claims
}

fn key_deriver(secret: &str) -> KeyDeriver {
    KeyDeriver::new(EdgeKeys::for_tests(secret).cache.digests)
}

fn key_of(rule: &CacheRule, message: &DynamicMessage, caller: &TransactionClaims) -> CacheKey {
    let input =
        KeyInput { rule, rpc: "test.v1.Service/Get", message, caller: Some(caller), epoch: 1 };
    key_deriver("secret").key(&input, &[]).unwrap()
}

#[test]
fn a_private_result_is_shared_by_no_callers_that_the_service_can_tell_apart() {
    let private = scoped(mcp::cache_policy::Scope::Private);
    let message = labelled("x");
    let mut keys = vec![key_of(&private, &message, &alice())];
    let actor = |name: &str| Some(Box::new(Actor { iss: "i".into(), sub: name.into(), act: None }));
    let others = [
        changed(|claims| claims.sub = "bob".into()),
        changed(|claims| claims.scope = "mcp admin".into()),
        changed(|claims| claims.tctx.iss = "https://other.example".into()),
        changed(|claims| claims.tctx.tenant = Some("umbrella".into())),
        changed(|claims| claims.tctx.tenant = None),
        changed(|claims| claims.tctx.client_id = "cursor".into()),
        changed(|claims| claims.tctx.facts = None),
        changed(|claims| claims.tctx.facts = Some(SubjectFacts::default())),
        changed(|claims| claims.tctx.facts.as_mut().unwrap().roles = vec!["finance".into()]),
        changed(|claims| claims.tctx.facts.as_mut().unwrap().email = Some("a@acme.example".into())),
        changed(|claims| claims.tctx.facts.as_mut().unwrap().mfa = true),
        changed(|claims| claims.tctx.facts.as_mut().unwrap().workload = true),
        changed(|claims| claims.act = actor("tickets")),
        changed(|claims| claims.act = actor("invoices")),
        // The same characters, split between other claims.
        changed(|claims| (claims.sub, claims.tctx.client_id) = ("alicec".into(), "laude".into())),
    ];
    for other in &others {
        let key = key_of(&private, &message, other);
        assert!(!keys.contains(&key), "{other:?}");
        keys.push(key);
    }
    let same = changed(|claims| {
        (claims.iat, claims.exp, claims.txn) = (100, 130, "two".into());
        let facts = claims.tctx.facts.as_mut().unwrap();
        (facts.token_id, facts.issued_at) = (Some("another".into()), Some(99));
    });
    assert_eq!(key_of(&private, &message, &same), keys[0], "another token of the same caller");
}

#[test]
fn a_tenant_result_is_shared_within_its_issuers_tenant_and_a_public_one_by_all() {
    let (tenant, public) =
        (scoped(mcp::cache_policy::Scope::Tenant), scoped(mcp::cache_policy::Scope::Public));
    let message = labelled("x");
    let bob = changed(|claims| claims.sub = "bob".into());
    assert_eq!(key_of(&tenant, &message, &alice()), key_of(&tenant, &message, &bob));
    for outsider in [
        changed(|claims| claims.tctx.tenant = Some("umbrella".into())),
        changed(|claims| claims.tctx.iss = "https://other.example".into()),
    ] {
        assert_ne!(key_of(&tenant, &message, &alice()), key_of(&tenant, &message, &outsider));
        assert_eq!(key_of(&public, &message, &alice()), key_of(&public, &message, &outsider));
    }
    let without_tenant = |subject: &str| {
        changed(|claims| (claims.sub, claims.tctx.tenant) = (subject.into(), Some(String::new())))
    };
    assert_ne!(
        key_of(&tenant, &message, &without_tenant("alice")),
        key_of(&tenant, &message, &without_tenant("bob"))
    );
}

#[test]
fn a_key_depends_on_contract_method_epoch_and_generation() {
    let (rule, message, caller) = (tagged("trees"), labelled("x"), alice());
    let input = KeyInput {
        rule: &rule,
        rpc: "a.S/Get",
        message: &message,
        caller: Some(&caller),
        epoch: 1,
    };
    let other_contract = CacheRule::new("test_item", "test", [8; 32], &policy(60)).unwrap();
    let keys = key_deriver("secret");
    let generation = |text: &str| vec![text.to_owned()];
    let mut derived = vec![
        keys.key(&input, &generation("1")),
        keys.key(&input, &generation("2")),
        keys.key(&KeyInput { epoch: 2, ..input }, &generation("1")),
        keys.key(&KeyInput { rpc: "a.S/Got", ..input }, &generation("1")),
        keys.key(&KeyInput { rule: &other_contract, ..input }, &generation("1")),
        key_deriver("other").key(&input, &generation("1")),
    ];
    let count = derived.len();
    derived.sort_unstable_by_key(|key| key.unwrap().text());
    derived.dedup();
    assert_eq!(derived.len(), count);
}

#[tokio::test]
async fn spellings_of_the_same_arguments_share_a_key() {
    let catalog = testdata::catalog();
    let tool = catalog.tools.iter().find(|tool| tool.item.name == "test_take_everything").unwrap();
    let rule = scoped(mcp::cache_policy::Scope::Private);
    let key = |text: &str| {
        let arguments = serde_json::from_str(text).unwrap();
        key_of(&rule, &read_arguments(tool, &arguments).unwrap(), &alice())
    };
    let plain = key(r#"{ "string": "x", "int32": 3,
             "by_string": {"a": "2026-01-01T00:00:00Z", "b": "2026-01-01T00:00:00Z"} }"#);
    for same in [
        r#"{"by_string":{"b":"2026-01-01T00:00:00Z","a":"2026-01-01T00:00:00.000Z"},
            "int32":3.0,"string":"x"}"#,
        r#"{"by_string":{"b":"2026-01-01T01:00:00+01:00","a":"2026-01-01T00:00:00Z"},
            "int32":3e0,"string":"\u0078"}"#,
        r#"{"string":"x","int32":"3","int64":null,
            "by_string":{"a":"2026-01-01T00:00:00Z","b":"2026-01-01T00:00:00Z"}}"#,
        r#"{"bool":false,"strings":[],"string":"x","int32":3,
            "by_string":{"a":"2026-01-01T00:00:00Z","b":"2026-01-01T00:00:00Z"}}"#,
    ] {
        assert!(key(same) == plain, "{same}");
    }
    assert_ne!(key(r#"{"int64": 9007199254740992}"#), key(r#"{"int64": 9007199254740993}"#));
    assert_ne!(key(r#"{"optional_int32": 0}"#), key("{}"));
    assert_ne!(key(r#"{"strings": ["a", "b"]}"#), key(r#"{"strings": ["b", "a"]}"#));
}

/// A message as its receiver decodes it.
fn received(message: &DynamicMessage) -> DynamicMessage {
    DynamicMessage::decode(message.descriptor(), message.encode_to_vec().as_slice()).unwrap()
}

fn config() -> ProptestConfig {
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn two_messages_share_a_key_when_a_service_cannot_tell_them_apart(
        one in vec(any::<u64>(), 0..200),
        other in vec(any::<u64>(), 0..200),
        at in any::<prop::sample::Index>(),
        name in prop::sample::select(vec!["Everything", "Secretive", "Tree"]),
    ) {
        let made = |numbers: &[u64]| {
            let mut tape = Tape::new(numbers.to_vec());
            tape.only_numbers = true;
            generate::message(&testdata::message(name), &mut tape, 0)
        };
        let rule = scoped(mcp::cache_policy::Scope::Public);
        let key = |message: &DynamicMessage| key_of(&rule, message, &alice());
        // One unrelated message, and one that differs in one number.
        let mut almost = one.clone();
        if !almost.is_empty() {
            let at = at.index(almost.len());
            almost[at] = almost[at].wrapping_add(1);
        }
        let first = made(&one);
        prop_assert!(key(&first) == key(&received(&first)));
        for second in [made(&other), made(&almost)] {
            prop_assert_eq!(received(&first) == received(&second), key(&first) == key(&second));
        }
    }
}

fn policy(seconds: i64) -> mcp::CachePolicy {
    let ttl = Some(prost_types::Duration { seconds, nanos: 0 });
    mcp::CachePolicy { ttl, ..Default::default() }
}

#[test]
fn an_invalid_cache_policy_is_rejected() {
    let error = |policy: &mcp::CachePolicy| CacheRule::new("item", "test", [7; 32], policy).err();
    let stale = |seconds| {
        let stale_while_revalidate = Some(prost_types::Duration { seconds, nanos: 0 });
        mcp::CachePolicy { stale_while_revalidate, ..policy(1) }
    };
    let tags = |tags: &[&str]| {
        let tags = tags.iter().map(|&tag| tag.to_owned()).collect();
        mcp::CachePolicy { tags, ..policy(1) }
    };
    for invalid in [
        policy(0),
        policy(-1),
        policy(86_401),
        stale(-1),
        stale(86_401),
        mcp::CachePolicy::default(),
    ] {
        assert_eq!(error(&invalid), Some(CacheRuleError::Duration), "{invalid:?}");
    }
    for invalid in [tags(&[""]), tags(&["a/b"]), tags(&[&"x".repeat(65)]), tags(&["x"; 17])] {
        assert_eq!(error(&invalid), Some(CacheRuleError::Tag(CacheTagError)), "{invalid:?}");
    }
    for valid in [policy(86_400), stale(86_400), tags(&["a-b_c.D9"; 16])] {
        assert_eq!(error(&valid), None);
    }
}

#[test]
fn tags_of_two_services_differ() {
    let names = ["b".to_owned(), "a".to_owned(), "b".to_owned()];
    let (one, other) =
        (CacheTag::all("one", &names).unwrap(), CacheTag::all("other", &names).unwrap());
    assert_eq!(one.iter().map(ToString::to_string).collect::<Vec<_>>(), ["one/a", "one/b"]);
    assert!(one.iter().all(|tag| !other.contains(tag)));
    assert_eq!(slice::from_ref(&one[0]), CacheTag::all("one", &names[1..2]).unwrap());
}
