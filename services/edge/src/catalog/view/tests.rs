use std::sync::Arc;

use drawbridge_sdk::ConfigText;
use serde_json::{Value, json};

use crate::{
    catalog::{
        Catalog, ItemKind, NameKind, Terms, ToolItem, check_arguments, read_arguments, testdata,
    },
    config::{Services, parse},
};

/// What the test service offers, seen so.
fn seen(text: &str) -> Catalog {
    let view = parse(&ConfigText::new("edge.toml", text), &Services::new()).unwrap().view;
    let catalog = Catalog::default().on(&Terms { view: Arc::new(view), ..Terms::default() });
    catalog.with("test".parse().unwrap(), testdata::catalog())
}

fn tool(name: &str, rest: &str) -> String {
    format!("[[tool]]\nname = \"test_take_{name}\"\n{rest}\n")
}

#[track_caller]
fn shown<'a>(catalog: &'a Catalog, name: &str) -> &'a ToolItem {
    catalog.tool(name).unwrap_or_else(|| panic!("no {name}: {:?}", catalog.misfits()))
}

#[tokio::test]
async fn a_tool_is_renamed_for_clients_alone() {
    let catalog = seen(&tool(
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
    // Nothing is changed on the way.
    assert!(all.transformation.is_none());
}

#[tokio::test]
async fn a_name_that_another_tool_has_is_told() {
    let catalog = seen(&tool("ruled", "rename = \"test_take_choices\""));
    let [conflict] = catalog.conflicts() else { panic!("{:?}", catalog.conflicts()) };
    assert_eq!((conflict.kind, conflict.name.as_str()), (NameKind::Tool, "test_take_choices"));
    // What the config file says comes before what a service says.
    assert_eq!(shown(&catalog, "test_take_choices").item.name, "test_take_ruled");
    // A tool that is hidden has no name.
    let hidden = tool("choices", "hidden = true");
    let catalog = seen(&(tool("ruled", "rename = \"test_take_choices\"") + &hidden));
    assert!(catalog.conflicts().is_empty());
    assert_eq!(shown(&catalog, "test_take_choices").item.name, "test_take_ruled");
}

#[tokio::test]
async fn what_is_fixed_is_neither_seen_nor_said() {
    let text = "arguments.fixed = { name = \"ab\" }\narguments.defaults = { page = 3 }\narguments.hidden = [\"tags\"]";
    let catalog = seen(&tool("ruled", text));
    let ruled = shown(&catalog, "test_take_ruled");
    let schema = Value::Object(ruled.tool.input_schema.as_ref().clone());
    let properties = schema["properties"].as_object().unwrap();
    assert!(!properties.contains_key("name") && !properties.contains_key("tags"), "{schema}");
    assert!(!schema["required"].as_array().unwrap().contains(&json!("name")), "{schema}");
    assert_eq!(properties["page"]["default"], 3);
    let good = json!({
        "email": "a@example.com", "accepted": true, "other_color": "COLOR_RED", "key": "AAAAAA==", "tree": {},
        "nonzero": -1, "large": 18_446_744_073_709_551_614_u64,
    });
    assert_eq!(check_arguments(ruled, &good).map(drop), Ok(()));
    for (name, value) in [("name", json!("ab")), ("tags", json!([]))] {
        let mut said = good.clone();
        said[name] = value;
        let told = check_arguments(ruled, &said).unwrap_err();
        assert!(told.contains(&format!("'{name}' was unexpected")), "{told}");
    }
    let changes = ruled.transformation.as_ref().unwrap();
    let filled = |given: Value| Value::Object(changes.filled(given.as_object().unwrap()));
    assert_eq!(
        filled(json!({ "name": "x", "code": "a.1" })),
        json!({ "code": "a.1", "name": "ab", "page": 3 })
    );
    assert_eq!(filled(json!({ "page": 4 })), json!({ "name": "ab", "page": 4 }));
}

#[tokio::test]
async fn a_tool_that_is_not_as_the_file_says_is_left_out() {
    for (text, problem) in [
        ("arguments.hidden = [\"nobody\"]", "the tool has no argument \"nobody\""),
        (
            "arguments.fixed = { page = \"x\" }",
            "what is set does not fit the schema of the tool: /page",
        ),
        ("arguments.defaults = { nobody = 1 }", "the tool has no argument \"nobody\""),
    ] {
        let catalog = seen(&tool("ruled", text));
        assert!(
            catalog.tool("test_take_ruled").is_none()
                && catalog.tool("test_take_choices").is_some()
        );
        let [misfit] = catalog.misfits() else { panic!("{:?}", catalog.misfits()) };
        assert!(misfit.problem.starts_with(problem), "{misfit:?}");
    }
    // What others say of it would tell clients of what they cannot say.
    let catalog = seen(&tool("choices", "arguments.fixed = { x = \"1\" }"));
    assert!(catalog.misfits()[0].problem.contains("speaks of the argument \"x\" elsewhere"));
    let schema = "input_schema = '{ \"type\": \"object\", \"properties\": { \"a\": { \"type\": \"string\" } } }'";
    let catalog = seen(&tool("choices", &format!("arguments.fixed = {{ x = \"1\" }}\n{schema}")));
    let choices = shown(&catalog, "test_take_choices");
    assert_eq!(choices.tool.input_schema["properties"], json!({ "a": { "type": "string" } }));
}

#[tokio::test]
async fn a_result_that_a_program_changes_has_no_schema_of_its_service() {
    let plain = seen("");
    assert!(shown(&plain, "test_take_ruled").tool.output_schema.is_some());
    let catalog = seen(&tool("ruled", "response = \"{}\""));
    assert!(shown(&catalog, "test_take_ruled").tool.output_schema.is_none());
    let given =
        "response = \"{}\"\noutput_schema = '{ \"type\": \"object\", \"title\": \"None\" }'";
    let catalog = seen(&tool("ruled", given));
    assert_eq!(
        shown(&catalog, "test_take_ruled").tool.output_schema.as_ref().unwrap()["title"],
        "None"
    );
}

#[tokio::test]
async fn what_is_sensitive_under_another_name_is_not_said_back() {
    let schema = "input_schema = '{ \"type\": \"object\", \"properties\": { \"pin\": { \"maxLength\": 3 } } }'";
    let catalog = seen(&tool("secretive", &format!("request = \"{{ secret: .pin }}\"\n{schema}")));
    let told =
        check_arguments(shown(&catalog, "test_take_secretive"), &json!({ "pin": "hunter2" }))
            .unwrap_err();
    assert!(told.starts_with("pin: ") && !told.contains("hunter2"), "{told}");
}

#[tokio::test]
async fn arguments_pass_the_schema_that_is_seen_and_then_the_services_own() {
    let catalog = seen(&tool("ruled", "input_schema = '{ \"type\": \"object\" }'"));
    let ruled = shown(&catalog, "test_take_ruled");
    assert!(check_arguments(ruled, &json!({ "nobody": 1 })).is_ok());
    assert!(read_arguments(ruled, &json!({ "nobody": 1 })).is_err());
}

#[tokio::test]
async fn a_virtual_server_is_an_endpoint_beside_the_services() {
    let text = "[[server]]\nname = \"some\"\ntools = [\"test_take_r*\", \"test_take_choices\"]\n";
    let catalog = seen(text);
    assert!(
        catalog.has_endpoint("some")
            && catalog.has_endpoint("test")
            && !catalog.has_endpoint("other")
    );
    let at = |endpoint: &str| {
        let served =
            catalog.tools().filter(|tool| catalog.serves(endpoint, ItemKind::Tool, &tool.item));
        served.map(|tool| tool.item.name.as_str()).collect::<Vec<_>>()
    };
    assert_eq!(at("some"), ["test_take_choices", "test_take_ruled"]);
    assert_eq!(at("test").len(), catalog.tools().count());
    assert!(at("other").is_empty());
    let ruled = &shown(&catalog, "test_take_ruled").item;
    assert!(!catalog.serves("some", ItemKind::Prompt, ruled));
    // Clients are told when another server offers something else.
    assert_ne!(seen("").revision(), catalog.revision());
    assert_eq!(seen(text).revision(), catalog.revision());
}

#[tokio::test]
async fn what_is_said_of_tools_that_are_not_there_is_known() {
    let catalog = seen(&(tool("ruled", "hidden = true") + &tool("nobody", "hidden = true")));
    assert_eq!(catalog.unknown_tools(), ["test_take_nobody"]);
}
