use std::{fs, path::Path};

use drawbridge_proto::auth::v1::{self as pb, operation::Kind};

use super::*;

mod equivalence;
mod memberships;
mod operations;
mod reload;

const SCHEMA: &str = include_str!("../../../../policies/mcp.cedarschema");
const CODE_SCHEMA: &str = include_str!("../../../../policies/catalog/code.cedarschema");
const CODE_ENTITIES: &str = include_str!("../../../../policies/catalog/code.entities.json");

fn folder(policies: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
    fs::create_dir(folder.path().join("catalog")).unwrap();
    write("mcp.cedarschema", SCHEMA);
    write("catalog/code.cedarschema", CODE_SCHEMA);
    write("catalog/code.entities.json", CODE_ENTITIES);
    write("test.cedar", policies);
    folder
}

fn load(policies: &str) -> Policies {
    Policies::load(folder(policies).path()).unwrap()
}

fn refused(policies: &str) -> String {
    let folder = folder(policies);
    let error = Policies::load(folder.path()).unwrap_err().to_string();
    error.replace(&folder.path().display().to_string(), "policies")
}

/// What Cedar suggests for a name that does not exist is not the same in every run.
fn refused_without_help(policies: &str) -> String {
    let told = refused(policies);
    let (told, help) = told.rsplit_once("\n  help: did you mean `").unwrap();
    assert!(help.ends_with("`?"), "{help}");
    told.to_owned()
}

fn alice(groups: &[&str]) -> Identity {
    Identity {
        principal: pb::Principal {
            issuer: "https://idp.example".into(),
            subject: "alice".into(),
            client_id: "client".into(),
            tenant: "acme".into(),
            scopes: vec!["mcp".into()],
            ..pb::Principal::default()
        },
        groups: groups.iter().map(ToString::to_string).collect(),
        roles: vec![],
        email: None,
        mfa: false,
        workload: false,
    }
}

fn search() -> pb::CatalogItem {
    pb::CatalogItem {
        name: "code_search".into(),
        service: "code".into(),
        rpc: "drawbridge.code.v1.CodeService/Search".into(),
        scopes: vec![],
    }
}

const QUERY: &str = r#"{"query":"fn main","regex":false,"glob":"","path":"src","ignore_case":false,"context_lines":2}"#;

fn check(policies: &str, arguments: Option<&str>, answer: Answer, policy_ids: &[&str]) {
    let outcome = load(policies).decide(
        &alice(&["engineering"]),
        Kind::CallTool,
        &search(),
        arguments.map(str::as_bytes),
    );
    let flat = load(policies).decide_flat(
        &alice(&["engineering"]),
        Kind::CallTool,
        &search(),
        arguments.map(str::as_bytes),
    );
    assert_eq!(
        (&flat.answer, &flat.policy_ids),
        (&outcome.answer, &outcome.policy_ids),
        "without the index"
    );
    assert_eq!(
        (outcome.answer, outcome.policy_ids),
        (answer, policy_ids.iter().map(ToString::to_string).collect())
    );
}

const PERMIT: &str = r#"@id("p") permit (principal in Group::"engineering", action in Action::"read_tool", resource in Service::"code");"#;

#[test]
fn what_no_policy_permits_is_denied() {
    check("", Some(QUERY), Answer::NotPermitted, &[]);
    check("", None, Answer::NotPermitted, &[]);
}

#[test]
fn a_group_may_be_permitted_a_whole_service() {
    check(PERMIT, Some(QUERY), Answer::Allow, &["p"]);
    check(PERMIT, None, Answer::Allow, &["p"]);
}

#[test]
fn a_policy_reads_typed_arguments_and_the_list_says_perhaps() {
    let search_alone =
        PERMIT.replace(r#"action in Action::"read_tool""#, r#"action == Action::"code_search""#);
    let on_path = search_alone.replace(
        ';',
        r#" when { context.input.path == "src" && context.input.context_lines < 3 };"#,
    );
    check(&on_path, Some(QUERY), Answer::Allow, &["p"]);
    check(&on_path, Some(&QUERY.replace(":2", ":3")), Answer::NotPermitted, &[]);
    check(&on_path, None, Answer::Perhaps, &[]);
}

#[test]
fn a_forbid_wins() {
    let forbid = format!(
        r#"{PERMIT} @id("f") forbid (principal, action, resource) when {{ principal.client == "client" }};"#
    );
    check(&forbid, Some(QUERY), Answer::Forbidden, &["f"]);
    check(&forbid, None, Answer::Forbidden, &["f"]);
}

#[test]
fn a_policy_that_errs_denies() {
    let overflow = format!(
        r#"{PERMIT} @id("e") forbid (principal, action == Action::"code_search", resource)
           when {{ context.input.context_lines * 9223372036854775807 == 0 }};"#
    );
    check(&overflow, Some(QUERY), Answer::Error, &["e"]);
}

#[test]
fn arguments_that_do_not_fit_the_schema_are_not_decided_on() {
    for arguments in [
        "{}",
        "null",
        "{",
        &QUERY.replace(":2", ":\"2\""),
        &QUERY.replace(":2", ":9223372036854775808"),
        &QUERY.replace('{', "{\"extra\":1,"),
    ] {
        check(PERMIT, Some(arguments), Answer::Arguments, &[]);
    }
}

#[test]
fn an_item_that_nobody_locked_in_is_not_in_the_catalog() {
    let policies = load(r#"@id("all") permit (principal, action, resource);"#);
    let unknown = [
        pb::CatalogItem { name: "code_new".into(), ..search() },
        pb::CatalogItem { rpc: "drawbridge.code.v1.CodeService/ReadFile".into(), ..search() },
        pb::CatalogItem { service: "other".into(), ..search() },
    ];
    for item in unknown {
        let outcome = policies.decide(&alice(&[]), Kind::CallTool, &item, None);
        assert_eq!(outcome.answer, Answer::NotInCatalog, "{item:?}");
    }
    let wrong_kind = policies.decide(&alice(&[]), Kind::ReadResource, &search(), None);
    assert_eq!(wrong_kind.answer, Answer::NotInCatalog);
}

#[test]
fn the_same_subject_of_another_issuer_is_somebody_else() {
    let policies = load(
        r#"@id("p") permit (principal == User::"https://idp.example#alice", action, resource in Service::"code");"#,
    );
    let decide =
        |identity: &Identity| policies.decide(identity, Kind::CallTool, &search(), None).answer;
    assert_eq!(decide(&alice(&[])), Answer::Allow);
    let mut impostor = alice(&[]);
    impostor.principal.issuer = "https://evil.example".into();
    assert_eq!(decide(&impostor), Answer::NotPermitted);
    let mut workload = alice(&[]);
    workload.workload = true;
    assert_eq!(decide(&workload), Answer::NotPermitted);
}

#[test]
fn a_broken_policy_is_refused_with_its_file_and_reason() {
    insta::assert_snapshot!(refused("permit (principal, action, resource);"), @r#"
    policies/test.cedar:1:1: this policy has no @id
      |
    1 | permit (principal, action, resource);
      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      help: write @id("a-name-of-its-own") above it
    "#);
    insta::assert_snapshot!(refused("@id(\"p\") permit (principal, action, resource"), @r#"
    policies/test.cedar:1:45: unexpected end of input: expected `!=`, `)`, `,`, `:`, `<`, `<=`, `==`, `>`, `>=`, `in`, or `is`
      |
    1 | @id("p") permit (principal, action, resource
      |                                             ^
    "#);
    insta::assert_snapshot!(refused_without_help(r#"@id("p") permit (principal, action == Action::"code_serch", resource);"#), @r#"
    policies/test.cedar:1:39: for policy `p`, unrecognized action `Action::"code_serch"`
      |
    1 | @id("p") permit (principal, action == Action::"code_serch", resource);
      |                                       ^^^^^^^^^^^^^^^^^^^^
    "#);
    insta::assert_snapshot!(
        refused_without_help(r#"@id("p") permit (principal, action == Action::"code_search", resource) when { context.input.pth == "" };"#),
        @r#"
    policies/test.cedar:1:79: for policy `p`, attribute `input.pth` in context for Action::"code_search" not found
      |
    1 | @id("p") permit (principal, action == Action::"code_search", resource) when { context.input.pth == "" };
      |                                                                               ^^^^^^^^^^^^^^^^^
    "#
    );
    insta::assert_snapshot!(
        refused(r#"@id("p") permit (principal, action, resource); @id("p") forbid (principal, action, resource);"#),
        @r#"
    policies/test.cedar:1:48: @id("p") stands at policies/test.cedar:1 too
      |
    1 | @id("p") permit (principal, action, resource); @id("p") forbid (principal, action, resource);
      |                                                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#
    );
}

#[test]
fn the_shipped_policies_let_engineering_in_and_keep_support_out() {
    let policies =
        Policies::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies"))).unwrap();
    let decide = |group: &str| {
        policies.decide(&alice(&[group]), Kind::CallTool, &search(), Some(QUERY.as_bytes()))
    };
    assert_eq!(decide("engineering").answer, Answer::Allow);
    assert_eq!(decide("support").answer, Answer::NotPermitted);
    let file = pb::CatalogItem {
        name: "code_file".into(),
        rpc: "drawbridge.code.v1.CodeService/ReadFile".into(),
        ..search()
    };
    let read = |path: &str| {
        policies
            .decide(&alice(&["engineering"]), Kind::ReadResource, &file, Some(path.as_bytes()))
            .answer
    };
    assert_eq!(read(r#"{"path":"src/main.rs"}"#), Answer::Allow);
    assert_eq!(read(r#"{"path":"deploy/tls.key"}"#), Answer::Forbidden);
}

#[test]
fn a_shadow_policy_is_heard_and_does_not_decide() {
    let decide = |policies: &str, arguments: Option<&str>| {
        let (identity, item) = (alice(&["engineering"]), search());
        load(policies).decide(&identity, Kind::CallTool, &item, arguments.map(str::as_bytes))
    };
    let guard = format!(
        r#"{PERMIT} @id("s") @shadow forbid (principal, action == Action::"code_search", resource)
           when {{ context.input.path == "src" }};"#
    );
    let outcome = decide(&guard, Some(QUERY));
    assert_eq!((outcome.answer, outcome.policy_ids), (Answer::Allow, vec!["p".to_owned()]));
    assert_eq!(
        outcome.shadow,
        Some(Shadow { answer: Answer::Forbidden, policy_ids: vec!["s".into()] })
    );
    assert_eq!(decide(&guard, Some(&QUERY.replace("src", "docs"))).shadow, None);
    let listed = decide(&guard, None);
    assert_eq!((listed.answer, listed.shadow.unwrap().answer), (Answer::Allow, Answer::Perhaps));

    let permit = PERMIT.replace("permit", "@shadow permit");
    let outcome = decide(&permit, Some(QUERY));
    assert_eq!((outcome.answer, outcome.policy_ids), (Answer::NotPermitted, vec![]));
    assert_eq!(
        outcome.shadow,
        Some(Shadow { answer: Answer::Allow, policy_ids: vec!["p".into()] })
    );

    let err = format!(
        r#"{PERMIT} @id("e") @shadow forbid (principal, action, resource) when {{ 9223372036854775807 + 1 == 0 }};"#
    );
    let outcome = decide(&err, Some(QUERY));
    assert_eq!((outcome.answer, outcome.shadow.unwrap().answer), (Answer::Allow, Answer::Error));
}

#[test]
fn an_outcome_says_whether_it_depends_on_the_arguments() {
    let reads = |policies: &str| {
        let decide = |arguments| {
            load(policies).decide(&alice(&["engineering"]), Kind::CallTool, &search(), arguments)
        };
        let (called, listed) = (decide(Some(QUERY.as_bytes())), decide(None));
        assert_eq!(called.reads_arguments, listed.reads_arguments);
        called.reads_arguments
    };
    let with = |policy: &str| format!("{PERMIT} {policy}");
    assert!(!reads(PERMIT));
    assert!(reads(&with(
        r#"@id("f") forbid (principal, action == Action::"code_search", resource) when { context.input.regex };"#
    )));
    // A scope that cannot fit is no reason to ask again.
    assert!(!reads(&with(
        r#"@id("f") forbid (principal, action == Action::"code_file", resource) when { context.input.path == "" };"#
    )));
    assert!(!reads(&with(
        r#"@id("f") forbid (principal in Group::"x", action == Action::"code_search", resource) when { context.input.regex };"#
    )));
    // A text is not the variable, and a shadow is asked for too.
    assert!(!reads(&with(
        r#"@id("f") forbid (principal, action, resource) when { principal.client == "context" };"#
    )));
    assert!(reads(&with(
        r#"@id("f") @shadow forbid (principal, action == Action::"code_search", resource) when { context has "input" };"#
    )));
}

#[test]
fn lists_and_records_in_arguments_are_seen_as_they_are() {
    let schema = r#"
        action "code_tag" in [write_tool] appliesTo { principal: [User], resource: Tool, context: { "input": {
            "tags": Set<String>, "owner"?: { "name": String, "level": Long },
        } } };"#;
    let entities = r#"[{ "uid": { "type": "Tool", "id": "code_tag" }, "parents": [{ "type": "Service", "id": "code" }],
        "attrs": { "rpc": "c/Tag", "read_only": false, "destructive": true, "idempotent": false, "open_world": true } }]"#;
    let folder = folder(
        r#"@id("p") permit (principal, action == Action::"code_tag", resource)
           when { context.input.tags.contains("ours") }
           unless { context.input has owner && context.input.owner.level >= 3 };"#,
    );
    fs::write(folder.path().join("catalog/tag.cedarschema"), schema).unwrap();
    fs::write(folder.path().join("catalog/tag.entities.json"), entities).unwrap();
    let policies = Policies::load(folder.path()).unwrap();
    let item = pb::CatalogItem { name: "code_tag".into(), rpc: "c/Tag".into(), ..search() };
    for (arguments, answer) in [
        (r#"{"tags":["a","ours"]}"#, Answer::Allow),
        (r#"{"tags":[]}"#, Answer::NotPermitted),
        (r#"{"tags":["ours"],"owner":{"name":"x","level":2}}"#, Answer::Allow),
        (r#"{"tags":["ours"],"owner":{"name":"x","level":3}}"#, Answer::NotPermitted),
        (r#"{"tags":["ours"],"owner":{"name":"x"}}"#, Answer::Arguments),
        (r#"{"tags":["ours"],"owner":null}"#, Answer::Arguments),
        (r#"{"tags":["ours",1]}"#, Answer::Arguments),
        (r#"{"tags":["ours"],"owner":{"name":"x","level":2.0}}"#, Answer::Arguments),
        (r#"{"tags":[{"__extn":{"fn":"ip","arg":"1.1.1.1"}}]}"#, Answer::Arguments),
    ] {
        let outcome =
            policies.decide(&alice(&[]), Kind::CallTool, &item, Some(arguments.as_bytes()));
        assert_eq!(outcome.answer, answer, "{arguments}");
    }
}
