//! Validation with a part of the schema finds what validation with all of it finds.

use std::path::PathBuf;

use proptest::prelude::*;

use super::*;
use crate::policy::{
    check::PolicyChecker,
    problem::Problem,
    schema::KnownSchema,
    source::{PolicySource, parse},
};

/// A tool: its group, principals, type and arguments, each a number of some.
type Tool = (usize, usize, usize, usize);

const GROUPS: [&str; 3] = ["read_tool", "write_tool", "get_prompt"];
const PRINCIPALS: [&str; 2] = ["[User, Workload]", "[User]"];
const RESOURCES: [&str; 2] = ["Tool", "Prompt"];
const ARGUMENTS: [&str; 4] = [
    r#"{ "input": { "amount": Long } }"#,
    r#"{ "input": { "amount"?: Long, "note": String } }"#,
    r#"{ "input": { @enum_values("open closed") "note": String } }"#,
    r#"{ "input": {} }"#,
];

fn schema(tools: &[Tool]) -> String {
    let tool = |(number, (group, principals, resource, arguments)): (usize, &Tool)| {
        format!(
            "action \"t{number}\" in [{}] appliesTo {{ principal: {}, resource: {}, context: {} }};\n",
            GROUPS[*group], PRINCIPALS[*principals], RESOURCES[*resource], ARGUMENTS[*arguments]
        )
    };
    tools.iter().enumerate().map(tool).collect()
}

fn tools() -> impl Strategy<Value = Vec<Tool>> {
    // Mostly of the same kinds, as tools are.
    let tool = (0..GROUPS.len(), 0..PRINCIPALS.len(), 0..RESOURCES.len(), 0..ARGUMENTS.len());
    let common = prop::sample::select(vec![(0, 0, 0, 0), (1, 0, 0, 1), (0, 0, 0, 2)]);
    prop::collection::vec(prop_oneof![6 => common, 1 => tool], 12..40)
}

fn policy() -> impl Strategy<Value = String> {
    let principal = prop::sample::select(vec![
        "principal",
        "principal is User",
        "principal is Workload",
        r#"principal in Group::"g""#,
        r#"principal == Service::"s""#,
        r#"principal is Typo"#,
    ]);
    let action = prop::sample::select(vec![
        "action",
        r#"action in Action::"call_tool""#,
        r#"action in Action::"read_tool""#,
        r#"action in [Action::"write_tool", Action::"t0"]"#,
        r#"action == Action::"t1""#,
        r#"action in [Action::"t2", Action::"t3"]"#,
        r#"action == Action::"typo""#,
        r#"action in Action::"get_prompt""#,
        r#"action == Action::"revoke""#,
    ]);
    let resource = prop::sample::select(vec![
        "resource",
        "resource is Tool",
        "resource is Prompt",
        r#"resource in Service::"s""#,
        r#"resource == Tool::"t1""#,
    ]);
    let condition = prop::sample::select(vec![
        "",
        "when { principal.mfa }",
        "when { principal.typo }",
        "when { resource.destructive }",
        "when { resource is Tool && resource.destructive }",
        "when { resource is Issuer }",
        "when { context.input.amount < 10 }",
        "when { context.input has amount && context.input.amount < 10 }",
        r#"when { context.input has note && context.input.note == "opne" }"#,
        r#"when { context.input.note == "open" }"#,
        r#"when { context.input.amount == "open" }"#,
        r#"when { action == Action::"t4" && context.input.amount < 10 }"#,
        r#"when { action != Action::"t4" && principal.mfa }"#,
        r#"when { if action == Action::"t5" then true else principal.typo }"#,
        r#"when { if action in Action::"read_tool" then true else resource.destructive }"#,
        r#"when { action in [Action::"t6", Action::"t7"] }"#,
        r#"when { action == Action::"t99" }"#,
        "when { context == context }",
        "when { false }",
    ]);
    let effect = prop::sample::select(vec!["permit", "forbid"]);
    (effect, principal, action, resource, condition).prop_map(
        |(effect, principal, action, resource, condition)| {
            format!("{effect} ({principal}, {action}, {resource}) {condition};\n")
        },
    )
}

fn files(tools: &[Tool], policies: &[String]) -> (Vec<PolicySource>, PolicySource) {
    let file = |path: &str, text| PolicySource { path: PathBuf::from(path), text };
    let base = file("mcp.cedarschema", SCHEMA.to_owned());
    let with_id = |(number, policy): (usize, &String)| format!("@id(\"p{number}\")\n{policy}");
    let text = policies.iter().enumerate().map(with_id).collect();
    (vec![base, file("catalog/t.cedarschema", schema(tools))], file("test.cedar", text))
}

/// The problems and the policies that read arguments. Suggestions are at random.
fn check(
    checker: &mut PolicyChecker,
    known: &mut KnownSchema,
    (schemas, policies): &(Vec<PolicySource>, PolicySource),
    is_whole: bool,
) -> (Vec<Problem>, Vec<bool>) {
    let schema = known.load(schemas).unwrap();
    let mut parsed = parse(policies).unwrap();
    checker.use_schema(known);
    if is_whole {
        checker.use_no_slices();
    }
    let mut problems = checker.check(&schema, std::slice::from_ref(policies), &mut parsed);
    for problem in &mut problems {
        let is_suggestion = |help: &String| help.starts_with("did you mean");
        problem.help = problem.help.take().filter(|help| !is_suggestion(help));
    }
    problems.sort_by_key(|problem| format!("{problem:?}"));
    (problems, parsed.iter().map(|policy| policy.reads_arguments).collect())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_slice_of_the_schema_finds_what_the_whole_finds_also_after_changes(
        versions in prop::collection::vec(tools(), 1..3),
        mut policies in prop::collection::vec(policy(), 1..12),
    ) {
        let (mut checker, mut known) = (PolicyChecker::default(), KnownSchema::default());
        for tools in versions {
            let files = files(&tools, &policies);
            let sliced = check(&mut checker, &mut known, &files, false);
            let whole = check(&mut PolicyChecker::default(), &mut KnownSchema::default(), &files, true);
            prop_assert_eq!(sliced, whole);
            policies.rotate_left(1);
        }
    }
}

#[test]
fn most_policies_need_a_small_part_of_many_tools() {
    let tools = vec![(0, 0, 0, 0); 200];
    let policies = [
        r#"permit (principal in Group::"g", action in Action::"read_tool", resource in Service::"s");"#,
        r#"permit (principal, action == Action::"t7", resource) when { context.input.amount < 7 };"#,
        "forbid (principal, action, resource) when { context has input && context.input has amount };",
    ]
    .map(str::to_owned);
    let (mut checker, mut known) = (PolicyChecker::default(), KnownSchema::default());
    let (problems, reads) = check(&mut checker, &mut known, &files(&tools, &policies), false);
    assert_eq!((problems, reads), (vec![], vec![false, true, true]));
    let sizes: Vec<_> = checker.slice_sizes().collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size < 10), "{sizes:?}");
}
