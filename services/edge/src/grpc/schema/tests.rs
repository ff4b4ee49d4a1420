use serde_json::{Value, json};

use super::*;
use crate::catalog::{schema_text::compile, testdata};

mod clients;
pub(crate) mod properties;

fn schema(message: &MessageDescriptor, purpose: Purpose) -> Value {
    Value::Object(object_schema(message, purpose, &mut Comments::default()).unwrap())
}

fn own(name: &str, purpose: Purpose) -> Value {
    schema(&testdata::message(name), purpose)
}

fn built_in(name: &str, purpose: Purpose) -> Value {
    let pool = drawbridge_contract::built_in().unwrap();
    schema(&pool.get_message_by_name(name).unwrap(), purpose)
}

#[track_caller]
fn check(name: &str, purpose: Purpose, accepted: &[Value], rejected: &[Value]) {
    let validator = compile(own(name, purpose).as_object().unwrap()).unwrap();
    for json in accepted {
        let result = validator.validate(json).map_err(|error| error.to_string());
        assert_eq!(result, Ok(()), "{json}");
    }
    for json in rejected {
        assert!(!validator.is_valid(json), "{json}");
    }
}

#[test]
fn comments_become_descriptions_and_rules_become_keywords() {
    let schema = built_in("drawbridge.code.v1.SearchRequest", Purpose::Arguments);
    insta::assert_snapshot!(serde_json::to_string_pretty(&schema).unwrap(), @r##"
    {
      "type": "object",
      "properties": {
        "query": {
          "type": "string",
          "minLength": 1,
          "description": "The text or regular expression to search for. It must not be empty."
        },
        "regex": {
          "type": "boolean",
          "description": "Whether the query is a regular expression (Rust syntax) rather than literal text."
        },
        "glob": {
          "type": "string",
          "description": "Only files whose path matches this glob, for example `**/*.rs`."
        },
        "path": {
          "type": "string",
          "description": "Only files in this folder, relative to the root of the tree. It must not be a symbolic link."
        },
        "ignore_case": {
          "type": "boolean",
          "description": "Whether to ignore case."
        },
        "context_lines": {
          "type": "integer",
          "minimum": 0,
          "maximum": 20,
          "description": "Lines of context before and after each match, 0 to 20."
        },
        "max_results": {
          "type": "integer",
          "minimum": 1,
          "maximum": 1000,
          "description": "The maximum number of matches to return, 1 to 1000. Default: 100."
        }
      },
      "required": [
        "query"
      ],
      "additionalProperties": false
    }
    "##);
}

#[test]
fn a_result_schema_has_required_fields_and_no_rules() {
    let schema = built_in("drawbridge.code.v1.ListFilesResponse", Purpose::Result);
    insta::assert_snapshot!(serde_json::to_string_pretty(&schema).unwrap(), @r##"
    {
      "type": "object",
      "properties": {
        "files": {
          "type": "array",
          "items": {
            "type": "object",
            "properties": {
              "path": {
                "type": "string",
                "description": "Its path, relative to the root of the tree, with `/`."
              },
              "size": {
                "anyOf": [
                  {
                    "type": "integer"
                  },
                  {
                    "type": "string"
                  }
                ],
                "description": "Its size in bytes."
              }
            },
            "required": [
              "path",
              "size"
            ]
          },
          "description": "The files, by path."
        },
        "truncated": {
          "type": "boolean",
          "description": "Whether there were more files than `max_results`."
        }
      },
      "required": [
        "files",
        "truncated"
      ]
    }
    "##);
    let ruled = own("Ruled", Purpose::Result);
    assert_eq!(ruled.get("additionalProperties"), None, "a newer service's result has more");
    assert_eq!(ruled["properties"]["email"], json!({ "type": "string" }));
    let required = ruled["required"].as_array().unwrap();
    assert!(required.contains(&json!("unruled")) && !required.contains(&json!("tree")));
}

#[test]
fn a_choice_is_described_to_clients_and_checked_by_keywords() {
    let shown = own("Choices", Purpose::Arguments);
    assert_eq!(shown["properties"]["a"]["description"], "Exactly one of `a`, `b` is set.");
    assert_eq!(shown["properties"]["y"]["description"], "At most one of `x`, `y` is set.");
    let both = json!({ "a": "", "b": 1 });
    check(
        "Choices",
        Purpose::Check,
        &[json!({ "a": "" }), json!({ "b": 1, "x": "" })],
        &[json!({}), both],
    );
}

#[test]
fn a_schema_for_clients_has_no_choice_at_its_top() {
    for name in ["Everything", "Ruled", "Broken", "Choices", "Tree", "Secretive"] {
        for purpose in [Purpose::Arguments, Purpose::Result] {
            let schema = own(name, purpose);
            assert_eq!(schema["type"], "object");
            for keyword in ["oneOf", "anyOf", "allOf", "not", "enum"] {
                assert_eq!(schema.get(keyword), None, "{name}");
            }
        }
    }
}

#[test]
fn a_message_may_contain_itself() {
    let schema = own("Tree", Purpose::Arguments);
    let own = &schema["$defs"]["drawbridge.test.v1.Tree"]["properties"];
    assert_eq!(own["children"]["items"]["$ref"], "#/$defs/drawbridge.test.v1.Tree");
    assert_eq!(own["named"]["additionalProperties"]["$ref"], "#/$defs/drawbridge.test.v1.Tree");
    let deep = json!({ "children": [{ "named": { "a": { "label": 1 } } }] });
    check("Tree", Purpose::Check, &[json!({ "children": [{ "children": [{}] }] })], &[deep]);
}

#[test]
fn a_message_with_too_many_types_is_rejected() {
    let types = |name: &str| {
        let pool = drawbridge_contract::built_in().unwrap();
        object_schema(
            &pool.get_message_by_name(name).unwrap(),
            Purpose::Result,
            &mut Comments::default(),
        )
    };
    assert!(types("google.protobuf.FileDescriptorSet").is_ok());
    let mut file = prost_types::FileDescriptorProto {
        name: Some("many.proto".into()),
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    for at in 0..300 {
        let field = prost_types::FieldDescriptorProto {
            name: Some("next".into()),
            number: Some(1),
            r#type: Some(prost_types::field_descriptor_proto::Type::Message.into()),
            type_name: Some(format!("M{}", (at + 1) % 300)),
            ..Default::default()
        };
        let name = Some(format!("M{at}"));
        let message =
            prost_types::DescriptorProto { name, field: vec![field], ..Default::default() };
        file.message_type.push(message);
    }
    let mut pool = prost_reflect::DescriptorPool::new();
    pool.add_file_descriptor_proto(file).unwrap();
    let message = pool.get_message_by_name("M0").unwrap();
    assert_eq!(
        object_schema(&message, Purpose::Check, &mut Comments::default()),
        Err(TooLarge::Types)
    );
}

#[test]
fn an_enum_argument_is_a_known_name_and_a_result_any_name_or_number() {
    let color = |value: Value| json!({ "color": value });
    let names = ["COLOR_RED", "COLOR_CRIMSON", "COLOR_NEGATIVE"].map(|name| color(json!(name)));
    let invalid = ["COLOR_UNSPECIFIED", "RED"].map(|name| color(json!(name)));
    check("Everything", Purpose::Check, &names, &invalid);
    check(
        "Everything",
        Purpose::Check,
        &[],
        &[color(json!(1)), color(json!(99)), color(Value::Null)],
    );

    let message = prost_reflect::DynamicMessage::new(testdata::message("Everything"));
    let mut written = drawbridge_contract::dynamic::to_json(&message).unwrap();
    for (value, valid) in
        [(json!("COLOR_UNSPECIFIED"), true), (json!(99), true), (json!("RED"), false)]
    {
        written["color"] = value;
        let (accepted, rejected) =
            if valid { (vec![written.clone()], vec![]) } else { (vec![], vec![written.clone()]) };
        check("Everything", Purpose::Result, &accepted, &rejected);
    }
}

#[test]
fn a_number_must_be_in_its_range_and_not_a_string() {
    let rejected: Vec<_> = [
        json!({ "int32": 2_147_483_648_i64 }),
        json!({ "int32": "5" }),
        json!({ "int64": 1.5 }),
        json!({ "int64": 9_223_372_036_854_775_808.0 }),
        json!({ "uint64": -1 }),
        json!({ "uint64": 18_446_744_073_709_551_616.0 }),
        json!({ "float": 1e39 }),
        json!({ "double": "NaN" }),
        json!({ "double": null }),
    ]
    .into();
    let accepted = [
        json!({
            "int32": 5.0, "int64": i64::MIN, "uint64": u64::MAX, "fixed64": u64::MAX,
            "float": f32::MAX,
        }),
        json!({ "double": 1e308, "sint32": -2_147_483_648_i64 }),
    ];
    check("Everything", Purpose::Check, &accepted, &rejected);
    assert!(serde_json::from_str::<Value>("1e400").is_err(), "parsed JSON has no such number");
}

#[test]
fn well_known_types_are_accepted_as_protobuf_parses_them() {
    let times =
        ["2024-02-29T12:00:00Z", "0001-01-01T00:00:00.123456789Z", "2024-01-01T00:00:00+02:00"];
    let no_times =
        ["2023-02-29T12:00:00Z", "2024-01-01", "2024-01-01T00:00:00", "0000-01-01T00:00:00Z", ""];
    let lower = json!({ "timestamp": "2024-01-01t00:00:00z" });
    let field = |name: &'static str| move |text: &str| json!({ name: text });
    check(
        "Everything",
        Purpose::Check,
        &times.map(field("timestamp")),
        &no_times.map(field("timestamp")),
    );
    check("Everything", Purpose::Check, &[], &[lower]);
    let (durations, no_durations) =
        (["0s", "-1.5s", "99999999999s"], ["1", "1.5", "1m", "1.s", "100000000000000s"]);
    check(
        "Everything",
        Purpose::Check,
        &durations.map(field("duration")),
        &no_durations.map(field("duration")),
    );
    let (bytes, no_bytes) =
        (["", "AA", "AA==", "AAA=", "+/+/"], ["A", "AA=", "-_-_", "AAAA====", "ä"]);
    check("Everything", Purpose::Check, &bytes.map(field("bytes")), &no_bytes.map(field("bytes")));
    let (masks, no_masks) = (["", "a", "fooBar,b.c"], ["foo_bar"]);
    check(
        "Everything",
        Purpose::Check,
        &masks.map(field("field_mask")),
        &no_masks.map(field("field_mask")),
    );
}

#[test]
fn a_field_that_the_edge_sets_is_hidden() {
    let mut file = prost_types::FileDescriptorProto {
        name: Some("responses.proto".into()),
        package: Some("drawbridge.mcp.v1".into()),
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    let field = prost_types::FieldDescriptorProto {
        name: Some("responses".into()),
        number: Some(1),
        r#type: Some(prost_types::field_descriptor_proto::Type::Message.into()),
        type_name: Some("InputResponses".into()),
        ..Default::default()
    };
    let message = |name: &str, field| prost_types::DescriptorProto {
        name: Some(name.into()),
        field,
        ..Default::default()
    };
    file.message_type = vec![message("InputResponses", vec![]), message("Request", vec![field])];
    let mut pool = prost_reflect::DescriptorPool::new();
    pool.add_file_descriptor_proto(file).unwrap();
    let request = pool.get_message_by_name("drawbridge.mcp.v1.Request").unwrap();
    for purpose in [Purpose::Arguments, Purpose::Check] {
        let schema = schema(&request, purpose);
        assert_eq!((&schema["properties"], schema.get("$defs")), (&json!({}), None));
    }
}
