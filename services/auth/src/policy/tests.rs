use std::{fs, path::Path};

use super::*;

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

fn alice(groups: &[&str]) -> Identity {
    Identity {
        principal: pb::Principal {
            issuer: "https://idp.example".into(),
            subject: "alice".into(),
            client_id: "client".into(),
            tenant: "acme".into(),
            scopes: vec!["mcp".into()],
        },
        groups: groups.iter().map(ToString::to_string).collect(),
        roles: vec![],
        email: None,
        mfa: false,
        workload: false,
        token_id: None,
        issued_at: None,
        expires_at: u64::MAX,
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

const QUERY: &str =
    r#"{"query":"fn main","regex":false,"glob":"","path":"src","ignore_case":false,"context_lines":2}"#;

fn check(policies: &str, arguments: Option<&str>, answer: Answer, policy_ids: &[&str]) {
    let outcome = load(policies).decide(
        &alice(&["engineering"]),
        Kind::CallTool,
        &search(),
        arguments.map(str::as_bytes),
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
    let on_path = search_alone
        .replace(';', r#" when { context.input.path == "src" && context.input.context_lines < 3 };"#);
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
    check(&overflow, Some(QUERY), Answer::Error, &[]);
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
    let decide = |identity: &Identity| policies.decide(identity, Kind::CallTool, &search(), None).answer;
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
    insta::assert_snapshot!(refused("permit (principal, action, resource);"), @r"
    policies/test.cedar: this policy has no @id:
    permit (principal, action, resource);
    ");
    insta::assert_snapshot!(refused("@id(\"p\") permit (principal, action, resource"), @"policies/test.cedar: unexpected end of input");
    insta::assert_snapshot!(refused(r#"@id("p") permit (principal, action == Action::"code_serch", resource);"#), @r#"the policies are not valid: for policy `p`, unrecognized action `Action::"code_serch"`"#);
    insta::assert_snapshot!(
        refused(r#"@id("p") permit (principal, action == Action::"code_search", resource) when { context.input.pth == "" };"#),
        @r#"the policies are not valid: for policy `p`, attribute `input.pth` in context for Action::"code_search" not found"#
    );
    insta::assert_snapshot!(
        refused(r#"@id("p") permit (principal, action, resource); @id("p") forbid (principal, action, resource);"#),
        @r#"policies/test.cedar: @id("p") stands in policies/test.cedar too"#
    );
}

#[test]
fn the_shipped_policies_let_engineering_in_and_keep_support_out() {
    let policies = Policies::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../policies"))).unwrap();
    let decide =
        |group: &str| policies.decide(&alice(&[group]), Kind::CallTool, &search(), Some(QUERY.as_bytes()));
    assert_eq!(decide("engineering").answer, Answer::Allow);
    assert_eq!(decide("support").answer, Answer::NotPermitted);
    let file = pb::CatalogItem {
        name: "code_file".into(),
        rpc: "drawbridge.code.v1.CodeService/ReadFile".into(),
        ..search()
    };
    let read = |path: &str| {
        policies.decide(&alice(&["engineering"]), Kind::ReadResource, &file, Some(path.as_bytes())).answer
    };
    assert_eq!(read(r#"{"path":"src/main.rs"}"#), Answer::Allow);
    assert_eq!(read(r#"{"path":"deploy/tls.key"}"#), Answer::Forbidden);
}
