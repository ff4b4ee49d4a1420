//! Groups and roles that are not in tokens.

use super::*;

fn with_members(policies: &str, members: &str) -> Result<Policies, String> {
    let folder = folder(policies);
    fs::create_dir(folder.path().join("entities")).unwrap();
    fs::write(folder.path().join("entities/people.json"), members).unwrap();
    let path = folder.path().display().to_string();
    Policies::load(folder.path()).map_err(|error| error.to_string().replace(&path, "policies"))
}

fn outcome(policies: &Policies, identity: &Identity) -> DecisionOutcome {
    policies.decide(identity, Kind::CallTool, &search(), None).outcome
}

const MEMBERS: &str = r#"[
  { "uid": { "type": "User", "id": "https://idp.example#alice" }, "parents": [{ "type": "Group", "id": "search" }] },
  { "uid": { "type": "Group", "id": "search" }, "parents": [{ "type": "Group", "id": "engineering" }] },
  { "uid": { "type": "Role", "id": "auditor" }, "parents": [{ "type": "Role", "id": "reader" }] }
]"#;

#[test]
fn a_membership_file_puts_a_user_into_a_group_and_a_group_into_another() {
    let policies = with_members(PERMIT, MEMBERS).unwrap();
    assert_eq!(outcome(&policies, &alice(&[])), DecisionOutcome::Allow);
    let mut impostor = alice(&[]);
    impostor.principal.issuer = "https://evil.example".into();
    assert_eq!(outcome(&policies, &impostor), DecisionOutcome::NotPermitted);
    impostor.groups = vec!["search".into()];
    assert_eq!(
        outcome(&policies, &impostor),
        DecisionOutcome::Allow,
        "a group of the token has the parents of the file"
    );
}

#[test]
fn a_role_has_its_ancestors() {
    let policies = with_members(
        r#"@id("p") permit (principal in Role::"reader", action, resource in Service::"code");"#,
        MEMBERS,
    );
    let policies = policies.unwrap();
    let mut auditor = alice(&[]);
    assert_eq!(outcome(&policies, &auditor), DecisionOutcome::NotPermitted);
    auditor.roles = vec!["auditor".into()];
    assert_eq!(outcome(&policies, &auditor), DecisionOutcome::Allow);
}

#[test]
fn an_invalid_membership_is_rejected_with_its_line() {
    let invalid = [
        r#"[{ "uid": { "type": "User", "id": "alice" }, "parents": [] }]"#,
        r#"[{ "uid": { "type": "User", "id": "i#alice" }, "attrs": { "mfa": true }, "parents": [] }]"#,
        r#"[{ "uid": { "type": "User", "id": "i#alice" }, "parents": [{ "type": "Tenant", "id": "acme" }] }]"#,
        r#"[{ "uid": { "type": "Service", "id": "code" }, "parents": [] }]"#,
        r#"[{ "uid": { "type": "Group", "id": "a" }, "parents": [{ "type": "Role", "id": "r" }] }]"#,
        r#"[{ "uid": { "type": "Group", "id": "a" }, "parnts": [] }]"#,
        "[{",
    ];
    let messages: Vec<_> =
        invalid.iter().map(|members| with_members(PERMIT, members).unwrap_err()).collect();
    insta::assert_snapshot!(messages.join("\n"), @r#"
    policies/entities/people.json:1:11: the id of a User is <issuer>#<subject>
      |
    1 | [{ "uid": { "type": "User", "id": "alice" }, "parents": [] }]
      |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    policies/entities/people.json:1:57: attributes come from the token; only parents may be given here
      |
    1 | [{ "uid": { "type": "User", "id": "i#alice" }, "attrs": { "mfa": true }, "parents": [] }]
      |                                                         ^^^^^^^^^^^^^^^
    policies/entities/people.json:1:60: a parent must be a Group or a Role, not Tenant
      |
    1 | [{ "uid": { "type": "User", "id": "i#alice" }, "parents": [{ "type": "Tenant", "id": "acme" }] }]
      |                                                            ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    policies/entities/people.json:1:11: a member must be a User, Workload, Group or Role, not Service
      |
    1 | [{ "uid": { "type": "Service", "id": "code" }, "parents": [] }]
      |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    policies/entities/people.json:1:11: entity does not conform to the schema: `Group::"a"` is not allowed to have an ancestor of type `Role` according to the schema
      |
    1 | [{ "uid": { "type": "Group", "id": "a" }, "parents": [{ "type": "Role", "id": "r" }] }]
      |           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
    policies/entities/people.json:1:43: unknown field `parnts`, expected one of `uid`, `attrs`, `parents`
      |
    1 | [{ "uid": { "type": "Group", "id": "a" }, "parnts": [] }]
      |                                           ^^^^^^^^
      = help: did you mean `parents`?
    policies/entities/people.json:1:2: invalid JSON: EOF while parsing an object
      |
    1 | [{
      |  ^
    "#);
    let cycle = r#"[{ "uid": { "type": "Group", "id": "a" }, "parents": [{ "type": "Group", "id": "b" }] },
                     { "uid": { "type": "Group", "id": "b" }, "parents": [{ "type": "Group", "id": "a" }] }]"#;
    assert!(with_members(PERMIT, cycle).unwrap_err().contains("cycle"));
}
