use std::thread;

use serde_json::{Value as Json, json};

use super::{Program, ProgramError, meter::SHORT_STACK_BYTES};

/// Runs a program on its own thread and, if it is short enough, with the same outcome on a small
/// stack.
fn run(program: &str, input: &Json) -> Result<Json, String> {
    let principal = json!({ "subject": "alice", "tenant": "acme", "groups": ["finance"] });
    let program =
        Program::compile(program).map_err(|error| format!("{error} at {:?}", error.span))?;
    let outcome = program.run_on_thread(input, &principal).map_err(|error| error.to_string());
    if let Some(short) = run_short(&program, input, &principal) {
        assert_eq!(short.map_err(|error| error.to_string()), outcome);
    }
    outcome
}

fn run_short(
    program: &Program,
    input: &Json,
    principal: &Json,
) -> Option<Result<Json, ProgramError>> {
    thread::scope(|scope| {
        let small = thread::Builder::new().stack_size(SHORT_STACK_BYTES + 64 * 1024);
        small.spawn_scoped(scope, || program.run_short(input, principal)).unwrap().join().unwrap()
    })
}

#[track_caller]
fn check(program: &str, input: Json, output: Json) {
    assert_eq!(run(program, &input).as_ref(), Ok(&output), "{program}");
}

#[track_caller]
fn check_error(program: &str, reason: &str) {
    let error = run(program, &json!({ "items": [1, 2, 3], "text": "abc" })).expect_err(program);
    assert!(error.contains(reason), "{program}: {error}");
}

#[test]
fn typical_transformations_work() {
    check(".limit = ([.limit // 10, 50] | min)", json!({ "limit": 500 }), json!({ "limit": 50 }));
    check(".limit = ([.limit // 10, 50] | min)", json!({}), json!({ "limit": 10 }));
    check(".tenant //= $principal.tenant", json!({}), json!({ "tenant": "acme" }));
    check(
        ".filter.tenant = $principal.tenant",
        json!({}),
        json!({ "filter": { "tenant": "acme" } }),
    );
    let rows = json!({ "rows": [{ "iban": "DE02120300000000202051", "id": 1 }, { "id": 2 }] });
    check("del(.rows[].iban)", rows.clone(), json!({ "rows": [{ "id": 1 }, { "id": 2 }] }));
    check(
        "(.rows[] | select(.iban).iban) |= .[:2] + \"…\"",
        rows.clone(),
        json!({ "rows": [{ "iban": "DE…", "id": 1 }, { "id": 2 }] }),
    );
    check(
        ".rows |= map(with_entries(.key |= if . == \"id\" then \"number\" else . end))",
        json!({ "rows": [{ "id": 2 }] }),
        json!({ "rows": [{ "number": 2 }] }),
    );
    check(
        "{ total: (.rows | length), ids: [.rows[].id] }",
        rows.clone(),
        json!({ "total": 2, "ids": [1, 2] }),
    );
    check("if $principal.groups | index(\"finance\") then . else {} end", rows.clone(), rows);
    check("del(.a[1:])", json!({ "a": [1, 2, 3] }), json!({ "a": [1] }));
    check(
        "walk(if type == \"object\" then del(.secret) end)",
        json!({ "a": [{ "secret": 1, "b": 2 }] }),
        json!({ "a": [{ "b": 2 }] }),
    );
    check(
        ".a |= (tojson | fromjson)",
        json!({ "a": { "b": [1.5, null] } }),
        json!({ "a": { "b": [1.5, null] } }),
    );
    check("[paths]", json!({ "a": [1] }), json!([["a"], ["a", 0]]));
    check(
        "to_entries | sort_by(.key) | from_entries",
        json!({ "b": 1, "a": 2 }),
        json!({ "a": 2, "b": 1 }),
    );
    check("[.[] | select(contains(\"b\"))] | join(\",\")", json!(["ab", "c", "b"]), json!("ab,b"));
    check("[.a, .b] | add | . * 2", json!({ "a": 1, "b": 2 }), json!(6));
    check("\"\\(.a) of \\(.b)\"", json!({ "a": 1, "b": "two" }), json!("1 of two"));
}

#[test]
fn text_is_searched_and_replaced() {
    check("gsub(\"[0-9]{4}\"; \"****\")", json!("4111 1111 1"), json!("**** **** 1"));
    check(
        "gsub(\"(?<user>\\\\w+)@\"; \"\\(.user[:1])…@\")",
        json!("al@x bo@y"),
        json!("a…@x b…@y"),
    );
    check("[scan(\"[a-c]+\")]", json!("ab-c"), json!(["ab", "c"]));
    check("[test(\"B\"; \"i\"), test(\"B\")]", json!("abc"), json!([true, false]));
    check("split(\", *\"; null)", json!("a, b,c"), json!(["a", "b", "c"]));
    check_error(".text | test(\"(\")", "regular expression");
    check_error(".text | test(\"((a{100}){100}){100}\")", "too large");
    check_error("(.text * 100000) | test(\"a\")", "cannot search");
}

#[test]
fn numbers_are_preserved() {
    let numbers = json!([0, -1, 9_007_199_254_740_993_i64, u64::MAX, i64::MIN, 1.5, -0.25]);
    check(".", numbers.clone(), numbers);
    check("6 / 2", json!(null), json!(3));
    check("[.[0] * .[0], .[0] + 1 | . > 0]", json!([u64::MAX]), json!([true, true]));
    check(
        "[nan, infinite]",
        json!(null),
        json!([null, 1.797_693_134_862_315_7e308]).as_array().map(|_| json!([null, null])).unwrap(),
    );
    check_error("1 % 0", "cannot be calculated");
}

#[test]
fn a_program_gives_exactly_one_output() {
    check_error("empty", "no output");
    check_error("1, 2", "more than one output");
    check_error(".items[]", "more than one output");
    check_error("error(\"not like this\")", "raised an error: not like this");
    check_error("error({ secret: 1 })", "not a text");
    check_error(".items.a", "cannot index an array with a string");
    check_error(".text | .[0]", "cannot index a string with a number");
}

#[test]
fn functions_with_effects_are_undefined() {
    for program in [
        "env",
        "$ENV",
        "input",
        "inputs",
        "debug",
        "stderr",
        "halt",
        "halt_error",
        "now",
        "input_filename",
        "localtime",
        "get_search_list",
        "input_line_number",
        "$__prog_args",
    ] {
        check_error(program, "undefined");
    }
    for program in ["include \"a\"; .", "import \"a\" as a; .", "import \"a\" as $a; ."] {
        check_error(program, "not supported");
    }
}

#[test]
fn a_compile_error_has_a_place() {
    let at = |program: &str| {
        let error = Program::compile(program).map(drop).unwrap_err();
        format!("{error}: {:?}", program.get(error.span.clone()))
    };
    assert_eq!(at(".limit |= foo"), "undefined filter foo/0: Some(\"foo\")");
    assert_eq!(at(".a | $tenant"), "undefined variable $tenant: Some(\"$tenant\")");
    assert!(at(".a | (.b").contains("Some(\"(\")"), "{}", at(".a | (.b"));
    assert!(at(".a |").ends_with("Some(\"\")"), "{}", at(".a |"));
    assert!(at(&" ".repeat(17_000)).contains("it exceeds"));
    assert!(Program::compile(&format!("{}.{}", "(".repeat(8000), ")".repeat(8000))).is_ok());
}

#[test]
fn an_endless_program_is_stopped() {
    for program in [
        "def f: f; f",
        "def f: ., f; [f]",
        "[repeat(.)]",
        "last(repeat(.))",
        "[range(1e12)]",
        "reduce range(1e12) as $i (0; . + $i)",
        "until(false; .)",
        "[while(true; .)]",
        "first(range(1e12) | select(. < 0))",
        "[limit(1e9; repeat(1))] | length",
        "range(0; 1; 0)|empty",
        "[recurse]|[range(1e9)] | sort",
        "label $a | repeat(1) | if . > 1 then break $a else empty end",
        "path(repeat(.items))|empty",
        "[.text | splits(\"\")] | [range(1e9)]",
    ] {
        check_error(program, "limit of a program");
    }
}

#[test]
fn an_endless_recursion_is_stopped() {
    for program in [
        "def f: 1 + f; f",
        "def f: [f]; f",
        "def f: {a: f}; f",
        "def f(g): f(g | g); f(.)",
        "def f(g): if false then g else f(g | .a) end; f(.)",
        "def f($x): f($x + 1) | .; f(0)",
        "reduce range(1e9) as $i (null; [.])",
        "reduce range(1e9) as $i (null; {a: .})",
        "reduce range(1e9) as $i (null; .a = .) | 1",
        "[range(300)] as $path | reduce $path[] as $i (null; [.]) | tojson",
        "last(path(limit(1e9; repeat(.a))))",
        "getpath([range(1e9) | \"a\"])",
        "setpath([range(1000) | \"a\"]; 1)",
        ("[".repeat(300) + &"]".repeat(300)).as_str(),
    ] {
        check_error(program, "limit of a program");
    }
}

#[test]
fn memory_is_bounded() {
    for program in [
        "\"x\" * 1000000000",
        "1000000000 * \"x\"",
        "reduce range(60) as $i (\"x\"; . + .)",
        "reduce range(60) as $i ([1]; . + .)",
        "reduce range(60) as $i (1; [., .]) | tojson",
        "reduce range(60) as $i (1; [., .]) | \"\\(.)\"",
        "reduce range(60) as $i (1; [., .]) | . == (reduce range(60) as $i (1; [., .]))",
        "reduce range(60) as $i (1; [., .]) | [., .] | sort",
        "reduce range(60) as $i (1; [., .]) | flatten",
        "reduce range(60) as $i (1; [., .]) | [..] | length",
        "reduce range(60) as $i (1; [., .]) | contains(1)|[range(1e9)]",
        "reduce range(60) as $i ({a: 1}; {a: ., b: .}) | . * .|[range(1e9)]",
        "[range(100000)] | combinations(9)",
        "[range(1000)] | [., .] | [combinations]",
        "[.text * 100000 | explode[]] | [range(1e9)]",
        "reduce range(1e9) as $i (2; . * .)",
    ] {
        check_error(program, "limit of a program");
    }
    check_error("reduce range(60) as $i (1; [., .])", "its output exceeds");
    let large = json!("x".repeat(1024 * 1024));
    assert!(run(".", &large).unwrap_err().contains("its input exceeds"));
}

#[test]
fn an_input_that_nests_too_deep_is_rejected() {
    let mut deep = json!(1);
    for _ in 0..300 {
        deep = json!([deep]);
    }
    assert!(run(".", &deep).unwrap_err().contains("its input nests deeper"));
}

#[test]
fn a_short_run_needs_no_thread_and_a_longer_one_is_not_run() {
    let short =
        |text: &str, input: &Json| run_short(&Program::compile(text).unwrap(), input, &json!({}));
    let capped = short(".limit = ([.limit // 10, 50] | min)", &json!({ "limit": 500 }));
    assert_eq!(capped.unwrap().unwrap(), json!({ "limit": 50 }));
    let rows = |number| json!({ "rows": vec![json!({ "id": 7, "path": "a.md" }); number] });
    let few = ".rows |= map(select(.path | endswith(\".md\") | not))";
    assert_eq!(short(few, &rows(20)).unwrap().unwrap(), json!({ "rows": [] }));
    for (long, input) in [
        (few, rows(500)),
        (".", json!("x".repeat(20_000))),
        ("\"x\" * 20000", json!(null)),
        ("def f: f; f", json!(null)),
        ("def f: 1 + f; f", json!(null)),
    ] {
        assert!(short(long, &input).is_none(), "{long}");
    }
    // Not half: the C library may reuse the stack of another thread, of up to four times the size.
    let narrow = thread::Builder::new().stack_size(SHORT_STACK_BYTES / 8);
    let narrow =
        narrow.spawn(|| Program::compile(".").unwrap().run_short(&json!(1), &json!({})).is_none());
    assert!(narrow.unwrap().join().unwrap(), "it ran without the required stack");
}

#[test]
fn an_ordinary_result_is_well_within_the_limits() {
    let row = json!({
        "id": 7, "supplier": "ACME", "iban": "DE02120300000000202051", "lines": [1, 2, 3],
        "note": "paid"
    });
    let rows = json!({ "rows": vec![row; 1000] });
    let output = run(".rows |= map(del(.iban) | .note |= ascii_upcase)", &rows).unwrap();
    assert_eq!(
        output["rows"][999],
        json!({ "id": 7, "supplier": "ACME", "lines": [1, 2, 3], "note": "PAID" })
    );
}
