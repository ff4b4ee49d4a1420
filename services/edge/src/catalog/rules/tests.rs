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
    insta::assert_snapshot!(lines.join("\n"), @"");
    insta::assert_snapshot!(schema["required"], @"");
}

#[test]
fn broken_rules_break_nothing() {
    let schema = schema("Broken");
    let properties = schema["properties"].as_object().unwrap().iter();
    let lines: Vec<_> = properties.map(|(name, property)| format!("{name}: {property}")).collect();
    insta::assert_snapshot!(lines.join("\n"), @"");
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
