//! Operations on resources outside the catalog.

use super::*;

fn program(groups: &[&str]) -> Identity {
    Identity { workload: true, ..alice(groups) }
}

fn decide(
    policies: &str,
    identity: &Identity,
    action: &'static str,
    on: (&'static str, &str),
) -> (DecisionOutcome, String) {
    let decision = load(policies).decide_operation(identity, action, on);
    (decision.outcome, decision.policy_ids.join(" "))
}

const CODE: (&str, &str) = ("Service", "code");
const ACT: &str = r#"
    @id("acts") permit (principal in Group::"deputies", action == Action::"act", resource == Service::"code");
"#;

#[test]
fn a_workload_acts_as_the_service_that_policy_permits_and_a_person_never_does() {
    let deputy = program(&["deputies"]);
    assert_eq!(decide(ACT, &deputy, "act", CODE), (DecisionOutcome::Allow, "acts".to_owned()));
    for (identity, action, on) in [
        (&deputy, "act", ("Service", "tickets")),
        (&deputy, "revoke", ("Issuer", "code")),
        (&program(&["engineering"]), "act", CODE),
        (&alice(&["deputies"]), "act", CODE),
        (&deputy, "no_such_action", CODE),
    ] {
        assert_eq!(
            decide(ACT, identity, action, on),
            (DecisionOutcome::NotPermitted, String::new()),
            "{action} on {on:?}"
        );
    }
}

#[test]
fn policies_of_every_scope_are_evaluated_and_a_forbid_wins() {
    let deputy = program(&["deputies"]);
    for scope in [
        "principal, action, resource",
        "principal is Workload, action, resource is Service",
        r#"principal in Group::"deputies", action in [Action::"revoke", Action::"act"], resource"#,
        r#"principal == Workload::"https://idp.example#alice", action, resource in Service::"code""#,
    ] {
        let permit = format!("@id(\"p\") permit ({scope});");
        assert_eq!(
            decide(&permit, &deputy, "act", CODE),
            (DecisionOutcome::Allow, "p".to_owned()),
            "{scope}"
        );
        let forbid = format!("{ACT} @id(\"f\") forbid ({scope});");
        assert_eq!(
            decide(&forbid, &deputy, "act", CODE),
            (DecisionOutcome::Forbidden, "f".to_owned()),
            "{scope}"
        );
        let shadow = format!("{ACT} @id(\"f\") @shadow forbid ({scope});");
        assert_eq!(
            decide(&shadow, &deputy, "act", CODE),
            (DecisionOutcome::Allow, "acts".to_owned()),
            "{scope}"
        );
    }
    let fails = format!(
        "{ACT} @id(\"e\") forbid (principal, action == Action::\"act\", resource) when {{ 9223372036854775807 + 1 > 0 }};"
    );
    assert_eq!(decide(&fails, &deputy, "act", CODE), (DecisionOutcome::Error, "e".to_owned()));
}

#[test]
fn an_older_schema_permits_no_caller_to_act() {
    let folder = folder("");
    let start = SCHEMA.find("action act").unwrap();
    let end = start + SCHEMA[start..].find("};").unwrap() + 2;
    let before = format!("{}{}", &SCHEMA[..start], &SCHEMA[end..]);
    fs::write(folder.path().join("mcp.cedarschema"), before).unwrap();
    let policies = Policies::load(folder.path()).unwrap();
    let decision = policies.decide_operation(&program(&["deputies"]), "act", CODE);
    assert_eq!(decision.outcome, DecisionOutcome::NotPermitted);
}

/// A workload that another issuer put into the group could revoke the tokens of all issuers.
#[test]
fn an_authorization_server_revokes_only_its_own_tokens() {
    let shipped = include_str!("../../../../../policies/administration.cedar");
    let server = program(&["authorization-server"]);
    let own = server.principal.issuer.clone();
    let revoke = |identity: &Identity, issuer: &str| {
        decide(shipped, identity, "revoke", ("Issuer", issuer)).0
    };
    assert_eq!(revoke(&server, &own), DecisionOutcome::Allow);
    assert_eq!(revoke(&server, "https://other.example"), DecisionOutcome::NotPermitted);
    assert_eq!(
        revoke(&alice(&["authorization-server"]), &own),
        DecisionOutcome::NotPermitted,
        "a person"
    );
    assert_eq!(revoke(&program(&["platform"]), "https://other.example"), DecisionOutcome::Allow);
}
