use std::{fs, path::Path};

use drawbridge_proto::auth::v1::{self as pb, operation::Kind};

use super::*;

mod equivalence;
mod memberships;
mod operations;
mod reload;
mod slices;

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

fn load_error(policies: &str) -> String {
    let folder = folder(policies);
    let error = Policies::load(folder.path()).unwrap_err().to_string();
    error.replace(&folder.path().display().to_string(), "policies")
}

/// Cedar's suggestion for an unknown name differs between runs.
fn load_error_without_help(policies: &str) -> String {
    let message = load_error(policies);
    let (message, help) = message.rsplit_once("\n  = help: did you mean `").unwrap();
    assert!(help.ends_with("`?"), "{help}");
    message.to_owned()
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

fn check(policies: &str, arguments: Option<&str>, outcome: DecisionOutcome, policy_ids: &[&str]) {
    let decision = load(policies).decide(
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
        (&flat.outcome, &flat.policy_ids),
        (&decision.outcome, &decision.policy_ids),
        "without the index"
    );
    assert_eq!(
        (decision.outcome, decision.policy_ids),
        (outcome, policy_ids.iter().map(ToString::to_string).collect())
    );
}

const PERMIT: &str = r#"@id("p") permit (principal in Group::"engineering", action in Action::"read_tool", resource in Service::"code");"#;

#[test]
fn an_operation_without_a_permit_is_denied() {
    check("", Some(QUERY), DecisionOutcome::NotPermitted, &[]);
    check("", None, DecisionOutcome::NotPermitted, &[]);
}

#[test]
fn a_group_may_be_permitted_a_whole_service() {
    check(PERMIT, Some(QUERY), DecisionOutcome::Allow, &["p"]);
    check(PERMIT, None, DecisionOutcome::Allow, &["p"]);
}

#[test]
fn a_policy_reads_typed_arguments_and_a_list_is_conditional() {
    let search_alone =
        PERMIT.replace(r#"action in Action::"read_tool""#, r#"action == Action::"code_search""#);
    let on_path = search_alone.replace(
        ';',
        r#" when { context.input.path == "src" && context.input.context_lines < 3 };"#,
    );
    check(&on_path, Some(QUERY), DecisionOutcome::Allow, &["p"]);
    check(&on_path, Some(&QUERY.replace(":2", ":3")), DecisionOutcome::NotPermitted, &[]);
    check(&on_path, None, DecisionOutcome::Conditional, &[]);
}

#[test]
fn a_forbid_wins() {
    let forbid = format!(
        r#"{PERMIT} @id("f") forbid (principal, action, resource) when {{ principal.client == "client" }};"#
    );
    check(&forbid, Some(QUERY), DecisionOutcome::Forbidden, &["f"]);
    check(&forbid, None, DecisionOutcome::Forbidden, &["f"]);
}

#[test]
fn a_policy_that_fails_to_evaluate_denies() {
    let overflow = format!(
        r#"{PERMIT} @id("e") forbid (principal, action == Action::"code_search", resource)
           when {{ context.input.context_lines * 9223372036854775807 == 0 }};"#
    );
    check(&overflow, Some(QUERY), DecisionOutcome::Error, &["e"]);
}

#[test]
fn arguments_that_do_not_match_the_schema_are_rejected() {
    for arguments in [
        "{}",
        "null",
        "{",
        &QUERY.replace(":2", ":\"2\""),
        &QUERY.replace(":2", ":9223372036854775808"),
        &QUERY.replace('{', "{\"extra\":1,"),
    ] {
        check(PERMIT, Some(arguments), DecisionOutcome::Arguments, &[]);
    }
}

#[test]
fn an_item_outside_the_catalog_lock_is_not_in_the_catalog() {
    let policies = load(r#"@id("all") permit (principal, action, resource);"#);
    let unknown = [
        pb::CatalogItem { name: "code_new".into(), ..search() },
        pb::CatalogItem { rpc: "drawbridge.code.v1.CodeService/ReadFile".into(), ..search() },
        pb::CatalogItem { service: "other".into(), ..search() },
    ];
    for item in unknown {
        let decision = policies.decide(&alice(&[]), Kind::CallTool, &item, None);
        assert_eq!(decision.outcome, DecisionOutcome::NotInCatalog, "{item:?}");
    }
    let wrong_kind = policies.decide(&alice(&[]), Kind::ReadResource, &search(), None);
    assert_eq!(wrong_kind.outcome, DecisionOutcome::NotInCatalog);
}

#[test]
fn the_same_subject_of_another_issuer_is_another_principal() {
    let policies = load(
        r#"@id("p") permit (principal == User::"https://idp.example#alice", action, resource in Service::"code");"#,
    );
    let decide =
        |identity: &Identity| policies.decide(identity, Kind::CallTool, &search(), None).outcome;
    assert_eq!(decide(&alice(&[])), DecisionOutcome::Allow);
    let mut impostor = alice(&[]);
    impostor.principal.issuer = "https://evil.example".into();
    assert_eq!(decide(&impostor), DecisionOutcome::NotPermitted);
    let mut workload = alice(&[]);
    workload.workload = true;
    assert_eq!(decide(&workload), DecisionOutcome::NotPermitted);
}

#[test]
fn a_type_that_a_schema_declares_twice_is_shown_at_both_places() {
    let folder = folder("");
    let schema = "entity Floor;\n\n\n\n\nentity Room, Floor;\n";
    fs::write(folder.path().join("catalog/rooms.cedarschema"), schema).unwrap();
    let error = Policies::load(folder.path()).unwrap_err().to_string();
    let error = error.replace(&folder.path().display().to_string(), "policies");
    insta::assert_snapshot!(error, @"
    policies/catalog/rooms.cedarschema:1:8: error parsing schema: `Floor` is declared twice
      |
    1 | entity Floor;
      |        ^^^^^
    ...
    6 | entity Room, Floor;
      |              -----
    ");
}

#[test]
fn an_invalid_policy_is_rejected_with_its_file_and_reason() {
    insta::assert_snapshot!(load_error("permit (principal, action, resource);"), @r#"
    policies/test.cedar:1:1: this policy has no @id
      |
    1 | permit (principal, action, resource);
      | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
      = help: write @id("a-unique-name") above it
    "#);
    insta::assert_snapshot!(load_error("@id(\"p\") permit (principal, action, resource"), @r#"
    policies/test.cedar:1:45: unexpected end of input: expected `!=`, `)`, `,`, `:`, `<`, `<=`, `==`, `>`, `>=`, `in`, or `is`
      |
    1 | @id("p") permit (principal, action, resource
      |                                             ^
    "#);
    insta::assert_snapshot!(load_error_without_help(r#"@id("p") permit (principal, action == Action::"code_serch", resource);"#), @r#"
    policies/test.cedar:1:39: for policy `p`, unrecognized action `Action::"code_serch"`
      |
    1 | @id("p") permit (principal, action == Action::"code_serch", resource);
      |                                       ^^^^^^^^^^^^^^^^^^^^
    "#);
    insta::assert_snapshot!(
        load_error_without_help(r#"@id("p") permit (principal, action == Action::"code_search", resource) when { context.input.pth == "" };"#),
        @r#"
    policies/test.cedar:1:79: for policy `p`, attribute `input.pth` in context for Action::"code_search" not found
      |
    1 | @id("p") permit (principal, action == Action::"code_search", resource) when { context.input.pth == "" };
      |                                                                               ^^^^^^^^^^^^^^^^^
    "#
    );
    insta::assert_snapshot!(
        load_error(r#"@id("p") permit (principal, action, resource); @id("p") forbid (principal, action, resource);"#),
        @r#"
    policies/test.cedar:1:48: @id("p") is already used at policies/test.cedar:1
      |
    1 | @id("p") permit (principal, action, resource); @id("p") forbid (principal, action, resource);
      |                                                ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    "#
    );
}

#[test]
fn the_shipped_policies_permit_engineering_and_not_support() {
    let policies =
        Policies::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies"))).unwrap();
    let decide = |group: &str| {
        policies.decide(&alice(&[group]), Kind::CallTool, &search(), Some(QUERY.as_bytes()))
    };
    assert_eq!(decide("engineering").outcome, DecisionOutcome::Allow);
    assert_eq!(decide("support").outcome, DecisionOutcome::NotPermitted);
    let file = pb::CatalogItem {
        name: "code_file".into(),
        rpc: "drawbridge.code.v1.CodeService/ReadFile".into(),
        ..search()
    };
    let read = |path: &str| {
        policies
            .decide(&alice(&["engineering"]), Kind::ReadResource, &file, Some(path.as_bytes()))
            .outcome
    };
    assert_eq!(read(r#"{"path":"src/main.rs"}"#), DecisionOutcome::Allow);
    assert_eq!(read(r#"{"path":"deploy/tls.key"}"#), DecisionOutcome::Forbidden);
}

#[test]
fn a_shadow_policy_is_evaluated_without_effect_on_the_decision() {
    let decide = |policies: &str, arguments: Option<&str>| {
        let (identity, item) = (alice(&["engineering"]), search());
        load(policies).decide(&identity, Kind::CallTool, &item, arguments.map(str::as_bytes))
    };
    let guard = format!(
        r#"{PERMIT} @id("s") @shadow forbid (principal, action == Action::"code_search", resource)
           when {{ context.input.path == "src" }};"#
    );
    let decision = decide(&guard, Some(QUERY));
    assert_eq!(
        (decision.outcome, decision.policy_ids),
        (DecisionOutcome::Allow, vec!["p".to_owned()])
    );
    assert_eq!(
        decision.shadow,
        Some(Shadow { outcome: DecisionOutcome::Forbidden, policy_ids: vec!["s".into()] })
    );
    assert_eq!(decide(&guard, Some(&QUERY.replace("src", "docs"))).shadow, None);
    let listed = decide(&guard, None);
    assert_eq!(
        (listed.outcome, listed.shadow.unwrap().outcome),
        (DecisionOutcome::Allow, DecisionOutcome::Conditional)
    );

    let permit = PERMIT.replace("permit", "@shadow permit");
    let decision = decide(&permit, Some(QUERY));
    assert_eq!((decision.outcome, decision.policy_ids), (DecisionOutcome::NotPermitted, vec![]));
    assert_eq!(
        decision.shadow,
        Some(Shadow { outcome: DecisionOutcome::Allow, policy_ids: vec!["p".into()] })
    );

    let err = format!(
        r#"{PERMIT} @id("e") @shadow forbid (principal, action, resource) when {{ 9223372036854775807 + 1 == 0 }};"#
    );
    let decision = decide(&err, Some(QUERY));
    assert_eq!(
        (decision.outcome, decision.shadow.unwrap().outcome),
        (DecisionOutcome::Allow, DecisionOutcome::Error)
    );
}

#[test]
fn a_decision_reports_whether_it_depends_on_the_arguments() {
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
    // A scope that cannot match does not count.
    assert!(!reads(&with(
        r#"@id("f") forbid (principal, action == Action::"code_file", resource) when { context.input.path == "" };"#
    )));
    assert!(!reads(&with(
        r#"@id("f") forbid (principal in Group::"x", action == Action::"code_search", resource) when { context.input.regex };"#
    )));
    // A string is not the variable `context`. Shadow policies count.
    assert!(!reads(&with(
        r#"@id("f") forbid (principal, action, resource) when { principal.client == "context" };"#
    )));
    assert!(reads(&with(
        r#"@id("f") @shadow forbid (principal, action == Action::"code_search", resource) when { context has "input" };"#
    )));
}

#[test]
fn lists_and_records_in_arguments_reach_policies_unchanged() {
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
    for (arguments, expected) in [
        (r#"{"tags":["a","ours"]}"#, DecisionOutcome::Allow),
        (r#"{"tags":[]}"#, DecisionOutcome::NotPermitted),
        (r#"{"tags":["ours"],"owner":{"name":"x","level":2}}"#, DecisionOutcome::Allow),
        (r#"{"tags":["ours"],"owner":{"name":"x","level":3}}"#, DecisionOutcome::NotPermitted),
        (r#"{"tags":["ours"],"owner":{"name":"x"}}"#, DecisionOutcome::Arguments),
        (r#"{"tags":["ours"],"owner":null}"#, DecisionOutcome::Arguments),
        (r#"{"tags":["ours",1]}"#, DecisionOutcome::Arguments),
        (r#"{"tags":["ours"],"owner":{"name":"x","level":2.0}}"#, DecisionOutcome::Arguments),
        (r#"{"tags":[{"__extn":{"fn":"ip","arg":"1.1.1.1"}}]}"#, DecisionOutcome::Arguments),
    ] {
        let decision =
            policies.decide(&alice(&[]), Kind::CallTool, &item, Some(arguments.as_bytes()));
        assert_eq!(decision.outcome, expected, "{arguments}");
    }
}
