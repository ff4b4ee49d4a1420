use std::sync::Arc;

use serde_json::{Value, json};

use crate::catalog::{
    Catalog, CatalogConfig, ItemKind, NameKind, ToolItem, check_arguments, read_arguments, testdata,
};

/// The catalog of the test service with the overlay of this config file.
fn overlaid(text: &str) -> Catalog {
    let overlay = testdata::overlay(text, &[]).unwrap();
    let config = CatalogConfig { overlay: Arc::new(overlay), ..CatalogConfig::default() };
    let catalog = Catalog::default().with_config(&config);
    catalog.with("test".parse().unwrap(), testdata::catalog())
}

fn tool(name: &str, rest: &str) -> String {
    format!("[[tool]]\nname = \"test_take_{name}\"\n{rest}\n")
}

#[track_caller]
fn shown<'a>(catalog: &'a Catalog, name: &str) -> &'a ToolItem {
    catalog.tool(name).unwrap_or_else(|| panic!("no {name}: {:?}", catalog.overlay_errors()))
}

#[tokio::test]
async fn a_tool_is_renamed_for_clients_alone() {
    let catalog = overlaid(&tool(
        "everything",
        "rename = \"all\"\ntitle = \"All\"\ndescription = \"Takes all.\"",
    ));
    let all = shown(&catalog, "all");
    assert_eq!(
        (all.item.name.as_str(), all.tool.title.as_deref()),
        ("test_take_everything", Some("All"))
    );
    assert_eq!(all.tool.description.as_deref(), Some("Takes all."));
    assert!(catalog.tool("test_take_everything").is_none());
    // Arguments and results are not transformed.
    assert!(all.transformation.is_none());
}

#[tokio::test]
async fn a_rename_to_the_name_of_another_tool_is_a_conflict() {
    let catalog = overlaid(&tool("ruled", "rename = \"test_take_choices\""));
    let [conflict] = catalog.conflicts() else { panic!("{:?}", catalog.conflicts()) };
    assert_eq!((conflict.kind, conflict.name.as_str()), (NameKind::Tool, "test_take_choices"));
    // The config file takes precedence over a contract.
    assert_eq!(shown(&catalog, "test_take_choices").item.name, "test_take_ruled");
    // A hidden tool claims no name.
    let hidden = tool("choices", "hidden = true");
    let catalog = overlaid(&(tool("ruled", "rename = \"test_take_choices\"") + &hidden));
    assert!(catalog.conflicts().is_empty());
    assert_eq!(shown(&catalog, "test_take_choices").item.name, "test_take_ruled");
}

#[tokio::test]
async fn clients_neither_see_nor_set_a_fixed_argument() {
    let text = "arguments.fixed = { name = \"ab\" }\n\
                arguments.defaults = { page = 3 }\narguments.hidden = [\"tags\"]";
    let catalog = overlaid(&tool("ruled", text));
    let ruled = shown(&catalog, "test_take_ruled");
    let schema = Value::Object(ruled.tool.input_schema.as_ref().clone());
    let properties = schema["properties"].as_object().unwrap();
    assert!(!properties.contains_key("name") && !properties.contains_key("tags"), "{schema}");
    assert!(!schema["required"].as_array().unwrap().contains(&json!("name")), "{schema}");
    assert_eq!(properties["page"]["default"], 3);
    let good = json!({
        "email": "a@example.com", "accepted": true, "other_color": "COLOR_RED", "key": "AAAAAA==",
        "tree": {},
        "nonzero": -1, "large": 18_446_744_073_709_551_614_u64,
    });
    assert_eq!(check_arguments(ruled, &good).map(drop), Ok(()));
    for (name, value) in [("name", json!("ab")), ("tags", json!([]))] {
        let mut arguments = good.clone();
        arguments[name] = value;
        let message = check_arguments(ruled, &arguments).unwrap_err();
        assert!(message.contains(&format!("'{name}' was unexpected")), "{message}");
    }
    let transformation = ruled.transformation.as_ref().unwrap();
    let with_values = |arguments: Value| {
        Value::Object(transformation.with_values(arguments.as_object().unwrap()))
    };
    assert_eq!(
        with_values(json!({ "name": "x", "code": "a.1" })),
        json!({ "code": "a.1", "name": "ab", "page": 3 })
    );
    assert_eq!(with_values(json!({ "page": 4 })), json!({ "name": "ab", "page": 4 }));
}

#[tokio::test]
async fn a_tool_that_does_not_fit_its_overlay_is_left_out() {
    for (text, problem) in [
        ("arguments.hidden = [\"unknown\"]", "the tool has no argument \"unknown\""),
        (
            "arguments.fixed = { page = \"x\" }",
            "a configured value does not match the schema of the tool: /page",
        ),
        ("arguments.defaults = { unknown = 1 }", "the tool has no argument \"unknown\""),
    ] {
        let catalog = overlaid(&tool("ruled", text));
        assert!(
            catalog.tool("test_take_ruled").is_none()
                && catalog.tool("test_take_choices").is_some()
        );
        let [error] = catalog.overlay_errors() else { panic!("{:?}", catalog.overlay_errors()) };
        assert!(error.problem.starts_with(problem), "{error:?}");
    }
    // Another part of the schema mentions the fixed argument.
    let catalog = overlaid(&tool("choices", "arguments.fixed = { x = \"1\" }"));
    assert!(catalog.overlay_errors()[0].problem.contains("mention the argument \"x\""));
    let schema = "input_schema = '{ \"type\": \"object\", \
                  \"properties\": { \"a\": { \"type\": \"string\" } } }'";
    let catalog =
        overlaid(&tool("choices", &format!("arguments.fixed = {{ x = \"1\" }}\n{schema}")));
    let choices = shown(&catalog, "test_take_choices");
    assert_eq!(choices.tool.input_schema["properties"], json!({ "a": { "type": "string" } }));
}

#[tokio::test]
async fn a_result_of_a_program_does_not_have_the_schema_of_its_service() {
    let plain = overlaid("");
    assert!(shown(&plain, "test_take_ruled").tool.output_schema.is_some());
    let catalog = overlaid(&tool("ruled", "response = \"{}\""));
    assert!(shown(&catalog, "test_take_ruled").tool.output_schema.is_none());
    let config =
        "response = \"{}\"\noutput_schema = '{ \"type\": \"object\", \"title\": \"None\" }'";
    let catalog = overlaid(&tool("ruled", config));
    assert_eq!(
        shown(&catalog, "test_take_ruled").tool.output_schema.as_ref().unwrap()["title"],
        "None"
    );
}

#[tokio::test]
async fn a_sensitive_value_under_another_name_is_not_repeated_in_an_error() {
    let schema = "input_schema = '{ \"type\": \"object\", \
                  \"properties\": { \"pin\": { \"maxLength\": 3 } } }'";
    let catalog =
        overlaid(&tool("secretive", &format!("request = \"{{ secret: .pin }}\"\n{schema}")));
    let message =
        check_arguments(shown(&catalog, "test_take_secretive"), &json!({ "pin": "hunter2" }))
            .unwrap_err();
    assert!(message.starts_with("pin: ") && !message.contains("hunter2"), "{message}");
}

#[tokio::test]
async fn arguments_are_checked_by_the_schema_of_clients_and_then_by_that_of_the_service() {
    let catalog = overlaid(&tool("ruled", "input_schema = '{ \"type\": \"object\" }'"));
    let ruled = shown(&catalog, "test_take_ruled");
    assert!(check_arguments(ruled, &json!({ "unknown": 1 })).is_ok());
    assert!(read_arguments(ruled, &json!({ "unknown": 1 })).is_err());
}

#[tokio::test]
async fn a_virtual_server_is_an_endpoint_in_addition_to_the_services() {
    let text = "[[server]]\nname = \"some\"\ntools = [\"test_take_r*\", \"test_take_choices\"]\n";
    let catalog = overlaid(text);
    assert!(
        catalog.has_endpoint("some")
            && catalog.has_endpoint("test")
            && !catalog.has_endpoint("other")
    );
    let at = |endpoint: &str| {
        let served = catalog
            .tools()
            .iter()
            .filter(|tool| catalog.serves(endpoint, ItemKind::Tool, &tool.item));
        served.map(|tool| tool.item.name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(at("some"), ["test_take_choices", "test_take_ruled"]);
    assert_eq!(at("test").len(), catalog.tools().len());
    assert!(at("other").is_empty());
    let ruled = &shown(&catalog, "test_take_ruled").item;
    assert!(!catalog.serves("some", ItemKind::Prompt, ruled));
    // A change of a virtual server changes the revision.
    assert_ne!(overlaid("").revision(), catalog.revision());
    assert_eq!(overlaid(text).revision(), catalog.revision());
}

#[tokio::test]
async fn the_overlay_of_a_tool_that_no_service_offers_is_reported() {
    let catalog = overlaid(&(tool("ruled", "hidden = true") + &tool("unknown", "hidden = true")));
    assert_eq!(catalog.unknown_tools(), ["test_take_unknown"]);
}
