//! The schemas that clients see.

use super::*;

/// All keywords of a schema and its subschemas, with their values.
fn keywords(schema: &Value, seen: &mut Vec<(String, Value)>) {
    for (keyword, value) in schema.as_object().into_iter().flatten() {
        match keyword.as_str() {
            "properties" | "$defs" => {
                value.as_object().unwrap().values().for_each(|inner| keywords(inner, seen));
            }
            "items" | "additionalProperties" => keywords(value, seen),
            "anyOf" => value.as_array().unwrap().iter().for_each(|inner| keywords(inner, seen)),
            _ => {}
        }
        seen.push((keyword.clone(), value.clone()));
    }
}

#[test]
fn clients_see_no_keyword_that_a_model_api_rejects() {
    const ACCEPTED: [&str; 17] = [
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "description",
        "enum",
        "pattern",
        "format",
        "minimum",
        "maximum",
        "minLength",
        "maxLength",
        "minItems",
        "maxItems",
        "$ref",
        "$defs",
    ];
    for name in ["Everything", "Envelope", "Ruled", "Broken", "Choices", "Tree", "Secretive"] {
        let mut seen = Vec::new();
        keywords(&own(name, Purpose::Arguments), &mut seen);
        for (keyword, value) in seen {
            assert!(ACCEPTED.contains(&keyword.as_str()), "{name}: {keyword}: {value}");
            assert!(keyword != "type" || value.is_string(), "{name}: {value}");
            assert!(keyword != "format" || value == "date-time", "{name}: {value}");
            if let Some(bound) = value.as_f64() {
                assert!(bound.abs() <= 9_007_199_254_740_991.0, "{name}: {keyword}: {value}");
            }
        }
        let mut seen = Vec::new();
        let result =
            write(&testdata::message(name), Purpose::Result, Detail::ALL, &mut Comments::default());
        keywords(&Value::Object(result.unwrap()), &mut seen);
        assert!(
            seen.iter().all(|(keyword, value)| keyword != "type" || value.is_string()),
            "{name}"
        );
    }
}

#[test]
fn a_rule_without_a_portable_keyword_is_in_the_description() {
    let ruled = own("Ruled", Purpose::Arguments);
    let description =
        |name: &str| ruled["properties"][name]["description"].as_str().unwrap_or_default();
    assert_eq!(description("email"), "Must be an email address.");
    assert_eq!(description("id"), r#"Must be exactly "", or a UUID."#);
    assert_eq!(description("ratio"), "Must be not one of 0.5, more than 0.1, less than 0.9.");
    assert_eq!(description("outside"), "Must be more than 10, or less than 5.");
    assert_eq!(description("key"), "As base64.");
    assert_eq!(description("tags"), "Must be without duplicates.");
    let everything = own("Everything", Purpose::Arguments);
    assert_eq!(everything["properties"]["by_int32"]["description"], "The keys are whole numbers.");
    assert_eq!(everything["properties"]["nested"]["description"], "A message.");
    assert_eq!(everything["properties"]["uint64"], json!({ "type": "integer", "minimum": 0 }));
    assert_eq!(everything["properties"]["int64"], json!({ "type": "integer" }));
}

#[test]
fn only_a_recursive_message_is_referenced() {
    let everything = own("Everything", Purpose::Arguments);
    let defined: Vec<_> = everything["$defs"].as_object().unwrap().keys().collect();
    assert_eq!(defined, ["drawbridge.test.v1.Tree"]);
    assert_eq!(
        everything["properties"]["tree"],
        json!({ "$ref": "#/$defs/drawbridge.test.v1.Tree" })
    );
    assert_eq!(
        everything["$defs"]["drawbridge.test.v1.Tree"]["description"],
        "A message that contains itself."
    );
    assert_eq!(everything["properties"]["nested"]["properties"]["renamed"]["type"], "integer");
}

#[test]
fn a_result_schema_hides_the_types_between_services_and_the_edge() {
    let approved = built_in("drawbridge.invoices.v1.ApproveResponse", Purpose::Result);
    assert_eq!(approved["properties"].as_object().unwrap().keys().collect::<Vec<_>>(), ["invoice"]);
    assert!(!approved.to_string().contains("drawbridge.mcp"), "{approved}");
}

#[test]
fn a_large_result_schema_has_fewer_descriptions_and_levels() {
    let large = built_in("drawbridge.invoices.v1.GetResponse", Purpose::Result);
    assert!(large.to_string().len() <= RESULT_BYTES_MAX, "{}", large.to_string().len());
    assert_eq!(large["properties"]["summary"]["type"], "object");
    assert!(
        large["properties"]["findings"]["items"]["type"] == "object"
            && large.get("required").is_none()
    );
    // One level, the least that a schema has.
    let wide = own("Everything", Purpose::Result);
    assert_eq!(wide["properties"]["nested"], json!({ "type": "object" }));
}

#[test]
fn messages_that_grow_exponentially_are_rejected() {
    let mut file = prost_types::FileDescriptorProto {
        name: Some("doubling.proto".into()),
        syntax: Some("proto3".into()),
        ..Default::default()
    };
    for at in 0..40 {
        let field = |name: &str, number| prost_types::FieldDescriptorProto {
            name: Some(name.into()),
            number: Some(number),
            r#type: Some(prost_types::field_descriptor_proto::Type::Message.into()),
            type_name: Some(format!("M{}", at + 1)),
            ..Default::default()
        };
        let field = vec![field("left", 1), field("right", 2)];
        file.message_type.push(prost_types::DescriptorProto {
            name: Some(format!("M{at}")),
            field,
            ..Default::default()
        });
    }
    file.message_type
        .push(prost_types::DescriptorProto { name: Some("M40".into()), ..Default::default() });
    let mut pool = prost_reflect::DescriptorPool::new();
    pool.add_file_descriptor_proto(file).unwrap();
    let message = pool.get_message_by_name("M0").unwrap();
    let write = |purpose| object_schema(&message, purpose, &mut Comments::default());
    assert_eq!(write(Purpose::Arguments), Err(TooLarge::Properties));
    assert!(write(Purpose::Check).is_ok());
    assert!(json!(write(Purpose::Result).unwrap()).to_string().len() <= RESULT_BYTES_MAX);
}
