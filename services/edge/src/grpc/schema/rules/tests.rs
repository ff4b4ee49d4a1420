use serde_json::{Value, json};

use crate::{
    catalog::{schema_text::compile, testdata},
    grpc::{
        comments::Comments,
        schema::{Purpose, object_schema},
    },
};

fn schema(name: &str, purpose: Purpose) -> Value {
    let schema = object_schema(&testdata::message(name), purpose, &mut Comments::default());
    Value::Object(schema.unwrap())
}

#[test]
fn each_rule_becomes_its_keywords() {
    let schema = schema("Ruled", Purpose::Arguments);
    let properties = schema["properties"].as_object().unwrap().iter();
    let lines: Vec<_> = properties.map(|(name, property)| format!("{name}: {property}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r##"
    name: {"type":"string","maxLength":8,"minLength":1,"description":"A name."}
    code: {"type":"string","minLength":2,"pattern":"^[a-z]+[0-9]*$","description":"Must be of the pattern `^a\\.`."}
    id: {"type":"string","description":"Must be exactly \"\", or a UUID."}
    email: {"type":"string","description":"Must be an email address."}
    address: {"type":"string","description":"Must be a host name, or an IPv4 address, or an IPv6 address."}
    flagged: {"type":"string"}
    word: {"type":"string","enum":["one","two"],"description":"Must be not of the pattern `o\\.e`."}
    page: {"type":"integer","minimum":1,"maximum":100}
    outside: {"type":"integer","description":"Must be more than 10, or less than 5."}
    ratio: {"type":"number","description":"Must be not one of 0.5, more than 0.1, less than 0.9."}
    exact: {"type":"integer","description":"Must be exactly 7."}
    large: {"type":"integer","minimum":0,"description":"Must be at most 18446744073709551614."}
    accepted: {"type":"boolean","description":"Must be exactly true."}
    color: {"type":"string","enum":["COLOR_NEGATIVE","COLOR_CRIMSON","COLOR_RED"]}
    other_color: {"type":"string","enum":["COLOR_NEGATIVE","COLOR_CRIMSON","COLOR_RED","COLOR_BLUE"]}
    tags: {"type":"array","items":{"type":"string","minLength":2},"minItems":1,"maxItems":3,"description":"Must be without duplicates."}
    scores: {"type":"object","additionalProperties":{"type":"integer","minimum":0},"description":"Must be of at most 2 entries, with keys that are of at most 3 characters."}
    key: {"type":"string","minLength":6,"maxLength":8,"description":"As base64."}
    tree: {"$ref":"#/$defs/drawbridge.test.v1.Tree"}
    wrapped: {"type":"string","minLength":3}
    nonzero: {"type":"integer","description":"Must be not exactly 0."}
    unruled: {"type":"string"}
    wait: {"type":"string","pattern":"^-?[0-9]{1,11}(\\.[0-9]{1,9})?s$"}
    "##);
    insta::assert_snapshot!(schema["required"], @r##"
    ["name","email","page","accepted","other_color","tags","key","tree","nonzero"]
    "##);
}

#[test]
fn invalid_rules_are_harmless() {
    let schema = schema("Broken", Purpose::Arguments);
    let properties = schema["properties"].as_object().unwrap().iter();
    let lines: Vec<_> = properties.map(|(name, property)| format!("{name}: {property}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @r##"
    length: {"type":"string","minLength":9,"maxLength":3}
    pattern: {"type":"string"}
    color: {"type":"string","enum":["COLOR_NEGATIVE","COLOR_CRIMSON","COLOR_RED","COLOR_BLUE"]}
    wrong_type: {"type":"integer","minLength":3}
    not_a_number: {"type":"number"}
    huge: {"type":"integer","description":"Must be at least 18446744073709551615."}
    lengths: {"type":"string","description":"Must be of at least 4611686018427387904 characters."}
    key: {"type":"string","description":"As base64. Must be of at least 6148914691236517205 characters."}
    "##);
    assert!(compile(schema.as_object().unwrap()).unwrap().is_valid(&json!({})));
}

#[test]
fn values_are_checked_by_their_rules() {
    let schema = schema("Ruled", Purpose::Check);
    for (field, accepted, rejected) in [
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
        (
            "tags",
            json!([["aa"], ["aa", "bb"]]),
            json!([[], ["a"], ["aa", "aa"], ["aa", "bb", "cc", "dd"]]),
        ),
        (
            "scores",
            json!([{}, { "a": 0 }]),
            json!([{ "abcd": 0 }, { "a": -1 }, { "a": 1, "b": 1, "c": 1 }]),
        ),
        ("key", json!(["AAAAAA==", "AAAAAA"]), json!(["", "AAAA", "AAAAAAAAAA"])),
        ("nonzero", json!([1]), json!([0])),
    ] {
        let mut property = schema["properties"][field].clone();
        property["$defs"] = schema["$defs"].clone();
        let validator = compile(property.as_object().unwrap()).unwrap();
        for (values, valid) in [(accepted, true), (rejected, false)] {
            for value in values.as_array().unwrap() {
                assert_eq!(validator.is_valid(value), valid, "{field}: {value}");
            }
        }
    }
}

#[test]
fn only_portable_patterns_are_used() {
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
