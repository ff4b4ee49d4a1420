//! The index and the caches do not change decisions.

use proptest::prelude::*;

use super::*;

/// Two services besides `code`: one with a destructive tool, one with a prompt.
const SCHEMAS: &str = r#"
action "invoices_pay" in [write_tool] appliesTo {
  principal: [User, Workload], resource: Tool, context: { "input": { "amount": Long, "note"?: String } }
};
action "invoices_find" in [read_tool] appliesTo {
  principal: [User], resource: Tool, context: { "input": { "amount": Long } }
};
action "tickets_reply" in [get_prompt] appliesTo {
  principal: [User, Workload], resource: Prompt, context: { "input": {} }
};
"#;
const ENTITIES: &str = r#"[
  { "uid": { "type": "Service", "id": "invoices" }, "attrs": {}, "parents": [] },
  { "uid": { "type": "Tool", "id": "invoices_pay" }, "parents": [{ "type": "Service", "id": "invoices" }],
    "attrs": { "rpc": "i/Pay", "read_only": false, "destructive": true, "idempotent": false, "open_world": true } },
  { "uid": { "type": "Tool", "id": "invoices_find" }, "parents": [{ "type": "Service", "id": "invoices" }],
    "attrs": { "rpc": "i/Find", "read_only": true, "destructive": false, "idempotent": true, "open_world": true } },
  { "uid": { "type": "Service", "id": "tickets" }, "attrs": {}, "parents": [] },
  { "uid": { "type": "Prompt", "id": "tickets_reply" }, "parents": [{ "type": "Service", "id": "tickets" }],
    "attrs": { "rpc": "t/Reply" } }
]"#;
const MEMBERS: &str = r#"[
  { "uid": { "type": "Group", "id": "a" }, "parents": [{ "type": "Group", "id": "all" }] },
  { "uid": { "type": "Role", "id": "r" }, "parents": [{ "type": "Role", "id": "all" }] },
  { "uid": { "type": "User", "id": "i#s" }, "parents": [{ "type": "Group", "id": "b" }] }
]"#;

/// A policy that validates.
fn policy() -> impl Strategy<Value = String> {
    let principal = prop::sample::select(vec![
        "principal",
        r#"principal == User::"i#s""#,
        r#"principal == Workload::"i#s""#,
        r#"principal in User::"i#s""#,
        r#"principal in Group::"a""#,
        r#"principal in Group::"b""#,
        r#"principal in Group::"all""#,
        r#"principal in Role::"all""#,
        r#"principal in Tenant::"t""#,
        "principal is User",
        "principal is Workload",
        r#"principal is User in Group::"a""#,
        r#"principal is Workload in Group::"a""#,
    ]);
    let action_and_resource = prop::sample::select(vec![
        ("action", "resource"),
        ("action", "resource is Tool"),
        ("action", r#"resource in Service::"invoices""#),
        ("action", r#"resource is Tool in Service::"invoices""#),
        (r#"action in Action::"call_tool""#, "resource"),
        (
            r#"action in [Action::"read_tool", Action::"call_tool", Action::"get_prompt"]"#,
            "resource",
        ),
        (r#"action in Action::"read_tool""#, r#"resource in Service::"code""#),
        (r#"action == Action::"invoices_pay""#, "resource"),
        (r#"action in Action::"invoices_pay""#, r#"resource == Tool::"invoices_pay""#),
        (
            r#"action in [Action::"invoices_pay", Action::"invoices_find"]"#,
            r#"resource in Tool::"invoices_pay""#,
        ),
        (r#"action == Action::"tickets_reply""#, r#"resource in Service::"tickets""#),
    ]);
    let condition = prop::sample::select(vec![
        "",
        "when { principal.mfa }",
        "unless { principal.mfa }",
        r#"when { principal.scopes.contains("s") }"#,
        r#"when { principal in Group::"b" || principal.client == "c" }"#,
        r#"when { resource in Service::"invoices" }"#,
        r#"unless { resource is Tool && resource.destructive }"#,
        "when { resource is Tool && resource.read_only && principal.mfa }",
        r#"when { principal has email && principal.email like "*@t" }"#,
        "when { context.input has amount && context.input.amount < 10 }",
        "unless { context.input has amount && context.input.amount < 10 }",
        "when { principal.mfa && context.input has amount && context.input.amount < 10 }",
        "when { context.input has amount && context.input.amount > 5 && principal.mfa }",
        // Fails for large amounts.
        "when { context.input has amount && context.input.amount * 9223372036854775807 > 5 }",
        // Always fails.
        "when { 9223372036854775807 + 1 == 0 }",
        "when { principal.mfa && 9223372036854775807 + 1 == 0 }",
    ]);
    let effect = prop::sample::select(vec![
        "permit",
        "permit",
        "forbid",
        "@shadow permit",
        "@shadow forbid",
    ]);
    (effect, principal, action_and_resource, condition).prop_map(
        |(effect, principal, (action, resource), condition)| {
            format!("{effect} ({principal}, {action}, {resource}) {condition};")
        },
    )
}

fn identity() -> impl Strategy<Value = Identity> {
    let some = |values: &'static [&'static str]| {
        prop::sample::subsequence(values, 0..=values.len())
            .prop_map(|values| values.into_iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let subject = prop::sample::select(vec!["s", "other"]);
    let tenant = prop::sample::select(vec!["", "t"]);
    let email = prop::option::of(prop::sample::select(vec!["x@t", "x@u"]));
    let flags = (any::<bool>(), any::<bool>());
    (subject, tenant, some(&["s"]), some(&["a", "b", "c"]), some(&["r"]), email, flags).prop_map(
        |(subject, tenant, scopes, groups, roles, email, (mfa, workload))| Identity {
            principal: pb::Principal {
                issuer: "i".into(),
                subject: subject.into(),
                client_id: "c".into(),
                tenant: tenant.into(),
                scopes,
                ..pb::Principal::default()
            },
            groups,
            roles,
            email: email.map(ToOwned::to_owned),
            mfa,
            workload,
        },
    )
}

fn operation() -> impl Strategy<Value = (Kind, pb::CatalogItem, Option<String>)> {
    let item = |name: &str, service: &str, rpc: &str| pb::CatalogItem {
        name: name.into(),
        service: service.into(),
        rpc: rpc.into(),
        scopes: vec![],
    };
    let amount = prop::option::of(prop::sample::select(vec![
        r#"{"amount":1}"#,
        r#"{"amount":7}"#,
        r#"{"amount":-3}"#,
        r#"{"amount":100}"#,
        r#"{"amount":"no"}"#,
    ]));
    let amount = amount.prop_map(|arguments| arguments.map(ToOwned::to_owned));
    let empty = prop::option::of(Just("{}".to_owned()));
    let query = prop::option::of(Just(QUERY.to_owned()));
    prop_oneof![
        (Just(Kind::CallTool), Just(item("invoices_pay", "invoices", "i/Pay")), amount.clone()),
        (Just(Kind::CallTool), Just(item("invoices_find", "invoices", "i/Find")), amount),
        (Just(Kind::GetPrompt), Just(item("tickets_reply", "tickets", "t/Reply")), empty),
        (Just(Kind::CallTool), Just(search()), query),
    ]
}

/// Loads policies from these texts, each with an id. Policies that do not validate, because their
/// scope and condition contradict each other, are omitted.
fn load_valid(texts: &[String]) -> Policies {
    let mut texts = texts.to_vec();
    loop {
        let all: String = texts
            .iter()
            .enumerate()
            .map(|(number, text)| format!("@id(\"p{number}\")\n{text}\n"))
            .collect();
        let folder = folder(&all);
        let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
        write("catalog/more.cedarschema", SCHEMAS);
        write("catalog/more.entities.json", ENTITIES);
        fs::create_dir(folder.path().join("entities")).unwrap();
        write("entities/members.json", MEMBERS);
        match Policies::load(folder.path()) {
            Ok(policies) => return policies,
            Err(PolicyError(problems)) => {
                let invalid: Vec<_> = problems
                    .iter()
                    .map(|problem| problem.place.as_ref().unwrap().line.div_ceil(2) - 1)
                    .collect();
                let mut number = 0;
                let before = texts.len();
                texts.retain(|_| (!invalid.contains(&number), number += 1).0);
                assert!(texts.len() < before, "{problems:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn indexed_and_flat_evaluation_agree(
        texts in prop::collection::vec(policy(), 1..12),
        requests in prop::collection::vec((identity(), operation()), 12),
    ) {
        let policies = load_valid(&texts);
        for (identity, (kind, item, arguments)) in &requests {
            let arguments = arguments.as_deref().map(str::as_bytes);
            let flat = policies.decide_flat(identity, *kind, item, arguments);
            let first = policies.decide(identity, *kind, item, arguments);
            let again = policies.decide(identity, *kind, item, arguments);
            prop_assert_eq!(&first, &again);
            prop_assert_eq!(
                (first.outcome, &first.policy_ids, &first.shadow),
                (flat.outcome, &flat.policy_ids, &flat.shadow),
                "{:?} {:?} {:?}", identity, item, arguments
            );
            // A decision that does not read the arguments is the same for all of them.
            let is_invalid = first.outcome == DecisionOutcome::Arguments;
            if arguments.is_some() && !first.reads_arguments && !is_invalid {
                let listed = policies.decide(identity, *kind, item, None);
                prop_assert_eq!(listed, first);
            }
        }
    }
}
