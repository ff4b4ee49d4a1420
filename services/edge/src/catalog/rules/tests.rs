use serde_json::{Value, json};

use crate::catalog::{
    comments::Comments,
    given::compile,
    schema::{Purpose, object_schema},
    testdata,
};

fn schema(name: &str) -> Value {
    let schema = object_schema(&testdata::message(name), Purpose::Arguments, &mut Comments::default());
    Value::Object(schema.unwrap())
}

#[test]
fn each_rule_becomes_its_keywords() {
    let schema = schema("Ruled");
    let properties = schema["properties"].as_object().unwrap().iter();
    let lines: Vec<_> = properties.map(|(name, property)| format!("{name}: {property}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r##"
    name: {"type":"string","maxLength":8,"minLength":1,"description":"A name."}
    code: {"type":"string","minLength":2,"pattern":"^[a-z]+[0-9]*$","allOf":[{"pattern":"^a\\."}]}
    id: {"type":"string","anyOf":[{"const":""},{"format":"uuid"}]}
    email: {"type":"string","format":"email"}
    address: {"type":"string","anyOf":[{"format":"hostname"},{"format":"ipv4"},{"format":"ipv6"}]}
    flagged: {"type":"string"}
    word: {"type":"string","enum":["one","two"],"not":{"pattern":"o\\.e"}}
    page: {"type":"integer","minimum":1,"maximum":100}
    outside: {"type":"integer","minimum":-9223372036854775808,"maximum":9223372036854775807,"anyOf":[{"exclusiveMinimum":10},{"exclusiveMaximum":5}]}
    ratio: {"type":"number","not":{"enum":[0.5]},"exclusiveMinimum":0.1,"exclusiveMaximum":0.9}
    exact: {"type":"integer","minimum":-2147483648,"maximum":2147483647,"const":7}
    large: {"type":"integer","minimum":0,"maximum":18446744073709551614}
    accepted: {"type":"boolean","const":true}
    color: {"type":"string","enum":["COLOR_NEGATIVE","COLOR_CRIMSON","COLOR_RED"]}
    other_color: {"type":"string","enum":["COLOR_NEGATIVE","COLOR_CRIMSON","COLOR_RED","COLOR_BLUE"]}
    tags: {"type":"array","items":{"type":"string","minLength":2},"minItems":1,"maxItems":3,"uniqueItems":true}
    scores: {"type":"object","additionalProperties":{"type":"integer","minimum":0,"maximum":2147483647},"maxProperties":2,"propertyNames":{"maxLength":3}}
    key: {"type":"string","contentEncoding":"base64","minLength":6,"maxLength":8}
    tree: {"$ref":"#/$defs/drawbridge.test.v1.Tree"}
    wrapped: {"type":"string","minLength":3}
    nonzero: {"type":"integer","minimum":-2147483648,"maximum":2147483647,"not":{"const":0}}
    unruled: {"type":"string"}
    wait: {"type":"string","pattern":"^-?[0-9]{1,11}(\\.[0-9]{1,9})?s$"}
    "##);
    insta::assert_snapshot!(schema["required"], @r##"
    ["name","email","page","accepted","other_color","tags","key","tree","nonzero"]
    "##);
}

#[test]
fn broken_rules_break_nothing() {
    let schema = schema("Broken");
    let properties = schema["properties"].as_object().unwrap().iter();
    let lines: Vec<_> = properties.map(|(name, property)| format!("{name}: {property}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r##"
    length: {"type":"string","minLength":9,"maxLength":3}
    pattern: {"type":"string"}
    color: {"type":"string","enum":["COLOR_NEGATIVE","COLOR_CRIMSON","COLOR_RED","COLOR_BLUE"]}
    wrong_type: {"type":"integer","minimum":-2147483648,"maximum":2147483647,"minLength":3}
    not_a_number: {"type":"number"}
    huge: {"type":"integer","minimum":18446744073709551615,"maximum":18446744073709551615}
    lengths: {"type":"string","minLength":4611686018427387904}
    key: {"type":"string","contentEncoding":"base64","minLength":6148914691236517205}
    "##);
    assert!(compile(schema.as_object().unwrap()).unwrap().is_valid(&json!({})));
}

#[test]
fn values_are_checked_by_their_rules() {
    let schema = schema("Ruled");
    for (field, accepted, refused) in [
        ("name", json!(["a", "äöüßäöüß"]), json!(["", "123456789"])),
        ("id", json!(["", "8f14e45f-ceea-467f-a83d-1c2d1f2a3b4c"]), json!(["x"])),
        ("email", json!(["a@example.com"]), json!(["", "a"])),
        ("address", json!(["example.com", "127.0.0.1", "::1"]), json!(["a b"])),
        ("word", json!(["one", "two"]), json!(["o.e", "three"])),
        ("page", json!([1, 100]), json!([0, 101])),
        ("outside", json!([4, 11, -1]), json!([5, 7, 10])),
        ("ratio", json!([0.2]), json!([0.1, 0.5, 0.9])),
        ("exact", json!([7]), json!([8])),
        ("large", json!([u64::MAX - 1]), json!([u64::MAX])),
        ("accepted", json!([true]), json!([false])),
        ("color", json!(["COLOR_RED"]), json!(["COLOR_BLUE"])),
        ("tags", json!([["aa"], ["aa", "bb"]]), json!([[], ["a"], ["aa", "aa"], ["aa", "bb", "cc", "dd"]])),
        ("scores", json!([{}, { "a": 0 }]), json!([{ "abcd": 0 }, { "a": -1 }, { "a": 1, "b": 1, "c": 1 }])),
        ("key", json!(["AAAAAA==", "AAAAAA"]), json!(["", "AAAA", "AAAAAAAAAA"])),
        ("nonzero", json!([1]), json!([0])),
    ] {
        let mut property = schema["properties"][field].clone();
        property["$defs"] = schema["$defs"].clone();
        let validator = compile(property.as_object().unwrap()).unwrap();
        for (values, valid) in [(accepted, true), (refused, false)] {
            for value in values.as_array().unwrap() {
                assert_eq!(validator.is_valid(value), valid, "{field}: {value}");
            }
        }
    }
}

#[test]
fn only_patterns_that_mean_the_same_everywhere_are_passed_on() {
    for (pattern, portable) in [
        (r"^[a-z]+\.\d{2,3}$", true),
        (r"^(?:a|b)*$", true),
        (r"\(\?i\)", true),
        ("(?i)a", false),
        ("(?P<name>a)", false),
        (r"\Aa\z", false),
        (r"\pL", false),
        (r"\Qa.b\E", false),
        ("[[:alpha:]]", false),
        ("(", false),
        ("", true),
    ] {
        assert_eq!(super::strings::is_portable(pattern), portable, "{pattern}");
    }
}
