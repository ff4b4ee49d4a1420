use std::thread;

use serde_json::{Value as Json, json};

use super::{Failure, Program, meter::BRIEF_STACK_BYTES};

/// Runs a program alone, and, where it is short enough, with the same outcome on a small stack.
fn run(program: &str, input: &Json) -> Result<Json, String> {
    let principal = json!({ "subject": "alice", "tenant": "acme", "groups": ["finance"] });
    let program =
        Program::compile(program).map_err(|mistake| format!("{mistake} at {:?}", mistake.at))?;
    let outcome = program.run_alone(input, &principal).map_err(|failure| failure.to_string());
    if let Some(brief) = briefly(&program, input, &principal) {
        assert_eq!(brief.map_err(|failure| failure.to_string()), outcome);
    }
    outcome
}

fn briefly(program: &Program, input: &Json, principal: &Json) -> Option<Result<Json, Failure>> {
    thread::scope(|scope| {
        let small = thread::Builder::new().stack_size(BRIEF_STACK_BYTES + 64 * 1024);
        small.spawn_scoped(scope, || program.run_briefly(input, principal)).unwrap().join().unwrap()
    })
}

#[track_caller]
fn gives(program: &str, input: Json, output: Json) {
    assert_eq!(run(program, &input).as_ref(), Ok(&output), "{program}");
}

#[track_caller]
fn fails(program: &str, why: &str) {
    let failure = run(program, &json!({ "items": [1, 2, 3], "text": "abc" })).expect_err(program);
    assert!(failure.contains(why), "{program}: {failure}");
}

#[test]
fn what_operators_ask_for_can_be_said() {
    gives(".limit = ([.limit // 10, 50] | min)", json!({ "limit": 500 }), json!({ "limit": 50 }));
    gives(".limit = ([.limit // 10, 50] | min)", json!({}), json!({ "limit": 10 }));
    gives(".tenant //= $principal.tenant", json!({}), json!({ "tenant": "acme" }));
    gives(
        ".filter.tenant = $principal.tenant",
        json!({}),
        json!({ "filter": { "tenant": "acme" } }),
    );
    let rows = json!({ "rows": [{ "iban": "DE02120300000000202051", "id": 1 }, { "id": 2 }] });
    gives("del(.rows[].iban)", rows.clone(), json!({ "rows": [{ "id": 1 }, { "id": 2 }] }));
    gives(
        "(.rows[] | select(.iban).iban) |= .[:2] + \"…\"",
        rows.clone(),
        json!({ "rows": [{ "iban": "DE…", "id": 1 }, { "id": 2 }] }),
    );
    gives(
        ".rows |= map(with_entries(.key |= if . == \"id\" then \"number\" else . end))",
        json!({ "rows": [{ "id": 2 }] }),
        json!({ "rows": [{ "number": 2 }] }),
    );
    gives(
        "{ total: (.rows | length), ids: [.rows[].id] }",
        rows.clone(),
        json!({ "total": 2, "ids": [1, 2] }),
    );
    gives("if $principal.groups | index(\"finance\") then . else {} end", rows.clone(), rows);
    gives("del(.a[1:])", json!({ "a": [1, 2, 3] }), json!({ "a": [1] }));
    gives(
        "walk(if type == \"object\" then del(.secret) end)",
        json!({ "a": [{ "secret": 1, "b": 2 }] }),
        json!({ "a": [{ "b": 2 }] }),
    );
    gives(
        ".a |= (tojson | fromjson)",
        json!({ "a": { "b": [1.5, null] } }),
        json!({ "a": { "b": [1.5, null] } }),
    );
    gives("[paths]", json!({ "a": [1] }), json!([["a"], ["a", 0]]));
    gives(
        "to_entries | sort_by(.key) | from_entries",
        json!({ "b": 1, "a": 2 }),
        json!({ "a": 2, "b": 1 }),
    );
    gives("[.[] | select(contains(\"b\"))] | join(\",\")", json!(["ab", "c", "b"]), json!("ab,b"));
    gives("[.a, .b] | add | . * 2", json!({ "a": 1, "b": 2 }), json!(6));
    gives("\"\\(.a) of \\(.b)\"", json!({ "a": 1, "b": "two" }), json!("1 of two"));
}

#[test]
fn text_is_searched_and_replaced() {
    gives("gsub(\"[0-9]{4}\"; \"****\")", json!("4111 1111 1"), json!("**** **** 1"));
    gives(
        "gsub(\"(?<user>\\\\w+)@\"; \"\\(.user[:1])…@\")",
        json!("al@x bo@y"),
        json!("a…@x b…@y"),
    );
    gives("[scan(\"[a-c]+\")]", json!("ab-c"), json!(["ab", "c"]));
    gives("[test(\"B\"; \"i\"), test(\"B\")]", json!("abc"), json!([true, false]));
    gives("split(\", *\"; null)", json!("a, b,c"), json!(["a", "b", "c"]));
    fails(".text | test(\"(\")", "no regular expression");
    fails(".text | test(\"((a{100}){100}){100}\")", "too large");
    fails("(.text * 100000) | test(\"a\")", "is not searched");
}

#[test]
fn numbers_come_through_as_they_are() {
    let numbers = json!([0, -1, 9_007_199_254_740_993_i64, u64::MAX, i64::MIN, 1.5, -0.25]);
    gives(".", numbers.clone(), numbers);
    gives("6 / 2", json!(null), json!(3));
    gives("[.[0] * .[0], .[0] + 1 | . > 0]", json!([u64::MAX]), json!([true, true]));
    gives(
        "[nan, infinite]",
        json!(null),
        json!([null, 1.797_693_134_862_315_7e308]).as_array().map(|_| json!([null, null])).unwrap(),
    );
    fails("1 % 0", "cannot be calculated");
}

#[test]
fn a_program_gives_exactly_one_output() {
    fails("empty", "no output");
    fails("1, 2", "more than one output");
    fails(".items[]", "more than one output");
    fails("error(\"not like this\")", "ends with an error: not like this");
    fails("error({ secret: 1 })", "of its own");
    fails(".items.a", "cannot index an array with a string");
    fails(".text | .[0]", "cannot index a string with a number");
}

#[test]
fn what_reaches_outside_is_not_there() {
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
        fails(program, "there is no");
    }
    for program in ["include \"a\"; .", "import \"a\" as a; .", "import \"a\" as $a; ."] {
        fails(program, "not supported");
    }
}

#[test]
fn a_mistake_has_a_place() {
    let at = |program: &str| {
        let mistake = Program::compile(program).map(drop).unwrap_err();
        format!("{mistake}: {:?}", program.get(mistake.at.clone()))
    };
    assert_eq!(at(".limit |= foo"), "there is no filter foo/0 here: Some(\"foo\")");
    assert_eq!(at(".a | $tenant"), "there is no variable $tenant: Some(\"$tenant\")");
    assert!(at(".a | (.b").contains("Some(\"(\")"), "{}", at(".a | (.b"));
    assert!(at(".a |").ends_with("Some(\"\")"), "{}", at(".a |"));
    assert!(at(&" ".repeat(17_000)).contains("longer than"));
    assert!(Program::compile(&format!("{}.{}", "(".repeat(8000), ")".repeat(8000))).is_ok());
}

#[test]
fn what_does_not_end_is_ended() {
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
        fails(program, "than a program may");
    }
}

#[test]
fn what_nests_without_end_is_ended() {
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
        fails(program, "than a program may");
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
        fails(program, "than a program may");
    }
    fails("reduce range(60) as $i (1; [., .])", "its output is larger than");
    let large = json!("x".repeat(1024 * 1024));
    assert!(run(".", &large).unwrap_err().contains("its input is larger"));
}

#[test]
fn an_input_that_nests_deep_is_refused() {
    let mut deep = json!(1);
    for _ in 0..300 {
        deep = json!([deep]);
    }
    assert!(run(".", &deep).unwrap_err().contains("its input nests deeper"));
}

#[test]
fn a_short_run_needs_no_thread_and_any_other_is_left_alone() {
    let brief =
        |text: &str, input: &Json| briefly(&Program::compile(text).unwrap(), input, &json!({}));
    let capped = brief(".limit = ([.limit // 10, 50] | min)", &json!({ "limit": 500 }));
    assert_eq!(capped.unwrap().unwrap(), json!({ "limit": 50 }));
    let rows = |number| json!({ "rows": vec![json!({ "id": 7, "path": "a.md" }); number] });
    let few = ".rows |= map(select(.path | endswith(\".md\") | not))";
    assert_eq!(brief(few, &rows(20)).unwrap().unwrap(), json!({ "rows": [] }));
    for (long, input) in [
        (few, rows(500)),
        (".", json!("x".repeat(20_000))),
        ("\"x\" * 20000", json!(null)),
        ("def f: f; f", json!(null)),
        ("def f: 1 + f; f", json!(null)),
    ] {
        assert!(brief(long, &input).is_none(), "{long}");
    }
    // Not half: the C library may lend it a stack that another thread has left, of up to four times the size.
    let narrow = thread::Builder::new().stack_size(BRIEF_STACK_BYTES / 8);
    let narrow = narrow
        .spawn(|| Program::compile(".").unwrap().run_briefly(&json!(1), &json!({})).is_none());
    assert!(narrow.unwrap().join().unwrap(), "it has run without the stack that it may need");
}

#[test]
fn an_ordinary_result_is_well_within_what_a_program_may() {
    let row = json!({ "id": 7, "supplier": "ACME", "iban": "DE02120300000000202051", "lines": [1, 2, 3], "note": "paid" });
    let rows = json!({ "rows": vec![row; 1000] });
    let output = run(".rows |= map(del(.iban) | .note |= ascii_upcase)", &rows).unwrap();
    assert_eq!(
        output["rows"][999],
        json!({ "id": 7, "supplier": "ACME", "lines": [1, 2, 3], "note": "PAID" })
    );
}
