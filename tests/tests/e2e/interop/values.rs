//! Argument values as real clients write them.

use std::fs;

use drawbridge_tests::{Reply, TestMesh, serve_conformance};
use http::StatusCode;
use serde_json::{Value, json};
use tonic::Code;

const ECHO: &str = "test_echo_values";

fn echoed(reply: &Reply) -> &Value {
    let result = &reply.json["result"];
    assert!(result["isError"] != true && result["structuredContent"].is_object(), "{reply:?}");
    &result["structuredContent"]
}

#[tokio::test]
async fn numbers_round_trip_in_a_form_that_every_client_can_read() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let given = json!({
        "int64": 9_007_199_254_740_991_i64, "uint64": "9223372036854775807", "float": 0.1, "double": 3.0,
        "sint64s": ["1", i64::MIN], "by_name": { "least": "0", "most": u64::MAX },
        "inner": { "double": 1e300, "float": "2.50" },
    });
    let reply = alice.call_tool(ECHO, given).await;
    let values = echoed(&reply);
    for (name, expected) in [
        ("int64", json!(9_007_199_254_740_991_i64)),
        ("uint64", json!("9223372036854775807")),
        ("float", json!(0.1)),
        ("double", json!(3)),
        ("sint64s", json!([1, "-9223372036854775808"])),
        ("by_name", json!({ "least": 0, "most": "18446744073709551615" })),
        ("inner", json!({ "float": 2.5, "double": 1e300 })),
    ] {
        assert_eq!(values[name], expected, "{reply:?}");
    }
    // The spelling matters, not only the value: some clients do not accept 3.0 as an integer, and
    // 0.1 is not 0.10000000149011612.
    let text = reply.json["result"]["content"][0]["text"].as_str().expect("a text");
    assert!(text.contains(r#""float":0.1,"double":3,"#), "{text}");

    // A client may send a result back as arguments.
    let mut again = values.clone();
    again.as_object_mut().expect("an object").retain(|name, _| name != "choice");
    assert_eq!(echoed(&alice.call_tool(ECHO, again).await), values);
}

#[tokio::test]
async fn a_null_argument_counts_as_absent() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    for arguments in [
        Value::Null,
        json!({}),
        json!({ "int64": null, "text": null, "choice": null, "optional_int32": null, "sint64s": null, "inner": null }),
    ] {
        let reply = alice.call_tool(ECHO, arguments).await;
        let values = echoed(&reply);
        assert_eq!((&values["int64"], &values["text"]), (&json!(0), &json!("")), "{reply:?}");
        assert!(
            values.get("optional_int32").is_none() && values.get("inner").is_none(),
            "{reply:?}"
        );
    }
    let simple =
        alice.call("tools/call", json!({ "name": "test_simple_text", "arguments": null })).await;
    assert!(
        simple.json["result"]["isError"] != true && simple.error_code().is_none(),
        "{simple:?}"
    );
    let prompt = json!({ "name": "test_simple_prompt", "arguments": null });
    assert!(alice.call("prompts/get", prompt).await.error_code().is_none());
    let name = "test_prompt_with_arguments";
    let prompt = json!({ "name": name, "arguments": { "arg1": 5, "arg2": "x" } });
    let reply = alice.call("prompts/get", prompt).await;
    assert!(reply.error_code().is_none() && reply.text.contains('5'), "{reply:?}");
    let prompt = json!({ "name": name, "arguments": { "arg1": "x", "arg2": null } });
    assert!(alice.call("prompts/get", prompt).await.message().contains("\"arg2\" is missing"));
    // Null does not satisfy a required argument.
    let search =
        mesh.client("alice").await.call_tool("code_search", json!({ "query": null })).await;
    assert!(search.message().contains("\"query\" is a required property"), "{search:?}");
}

#[tokio::test]
async fn a_value_of_another_type_is_converted_where_that_is_unambiguous() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let given = json!({ "int32": "5", "double": "1.5", "text": 42, "bool": "true", "choice": "choice_second" });
    let reply = alice.call_tool(ECHO, given).await;
    let values = echoed(&reply);
    for (name, expected) in [
        ("int32", json!(5)),
        ("double", json!(1.5)),
        ("text", json!("42")),
        ("bool", json!(true)),
        ("choice", json!("CHOICE_SECOND")),
    ] {
        assert_eq!(values[name], expected, "{reply:?}");
    }
    for (arguments, mistake) in [
        (json!({ "int32": "five" }), r#"int32: "five" is not of type "integer""#),
        (
            json!({ "int32": 2_147_483_648_i64 }),
            "int32: 2147483648 is greater than the maximum of 2147483647",
        ),
        (
            json!({ "int64": "9223372036854775808" }),
            "int64: 9223372036854775808 is greater than the maximum",
        ),
        (json!({ "uint64": "-1" }), "uint64: -1 is less than the minimum of 0"),
        (json!({ "bool": 1 }), r#"bool: 1 is not of type "boolean""#),
        (json!({ "text": true }), r#"text: true is not of type "string""#),
        (json!({ "choice": "second" }), r#"choice: "second" is not one of"#),
    ] {
        let reply = alice.call_tool(ECHO, arguments).await;
        assert_eq!(reply.json["result"]["isError"], true, "{reply:?}");
        assert!(reply.message().contains(mistake), "{reply:?}");
    }
}

/// The decision and the digest in the transaction token cover the message as it is sent.
#[tokio::test]
async fn a_policy_reads_the_value_that_the_service_receives() {
    let mesh = TestMesh::with(|config| {
        serve_conformance(config);
        let policy = r#"@id("no-five")
            forbid (principal, action == Action::"test_echo_values", resource)
            when { context.input.int32 == 5 || context.input.text == "5" };"#;
        fs::write(config.policies.join("five.cedar"), policy).expect("a policy");
    });
    let mesh = mesh.await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    for forbidden in [
        json!({ "int32": 5 }),
        json!({ "int32": "5" }),
        json!({ "text": 5 }),
        json!({ "text": "5" }),
    ] {
        let reply = alice.call_tool(ECHO, forbidden.clone()).await;
        assert_eq!(reply.status, StatusCode::FORBIDDEN, "{forbidden}: {reply:?}");
    }
    let reply = alice.call_tool(ECHO, json!({ "int32": "6", "text": 6, "choice": null })).await;
    assert_eq!(
        (&echoed(&reply)["int32"], &echoed(&reply)["text"]),
        (&json!(6), &json!("6")),
        "{reply:?}"
    );
}

#[tokio::test]
async fn a_long_status_message_is_truncated_and_an_empty_one_is_replaced() {
    let mesh = TestMesh::with(serve_conformance).await;
    let (_, _service, edge) = mesh.conformance(|_| {}).await;
    let alice = edge.client(&mesh.client("alice").await);
    let fail = async |code: Code, message: &str| {
        let reply = alice
            .call_tool("test_fail_with", json!({ "code": code as i32, "message": message }))
            .await;
        assert_eq!(reply.json["result"]["isError"], true, "{code:?}: {reply:?}");
        assert!(!reply.text.contains("; retry"), "{code:?}: {reply:?}");
        reply.message().to_owned()
    };
    let whole = "x".repeat(16 * 1024);
    assert_eq!(fail(Code::NotFound, &whole).await, whole);
    for (long, bytes) in [("x".repeat(40_000), 40_000), ("ä".repeat(100_000), 200_000)] {
        for code in [
            Code::InvalidArgument,
            Code::FailedPrecondition,
            Code::Aborted,
            Code::ResourceExhausted,
        ] {
            let message = fail(code, &long).await;
            let (text, mark) = message.split_once('…').expect("a truncation mark");
            assert!(long.starts_with(text) && text.len() >= 16 * 1024 - 1, "{}", text.len());
            assert_eq!(mark, format!(" [truncated: the message has {bytes} bytes]"));
        }
    }
    let message = fail(Code::InvalidArgument, "").await;
    assert_eq!(
        message,
        "the tool service rejected the arguments (INVALID_ARGUMENT) without a reason"
    );
    assert!(fail(Code::NotFound, "").await.contains("NOT_FOUND"));
}

#[tokio::test]
async fn metadata_is_served_with_a_trailing_slash_too() {
    let mesh = TestMesh::start().await;
    let get = async |url: &str| {
        let response = reqwest::get(url).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{url}");
        response.json::<Value>().await.expect("JSON")
    };
    let (edge, issuer) = (&mesh.mesh.mcp_url, &mesh.mesh.state.issuer);
    let at = |url: &url::Url, path: &str| url.join(path).expect("a URL").to_string();
    for path in [
        "oauth-protected-resource",
        "oauth-protected-resource/mcp",
        "oauth-protected-resource/mcp/code",
    ] {
        let url = at(edge, &format!("/.well-known/{path}"));
        assert_eq!(get(&format!("{url}/")).await, get(&url).await);
    }
    let expected = get(&at(issuer, "/.well-known/oauth-authorization-server")).await;
    for name in ["oauth-authorization-server", "openid-configuration"] {
        assert_eq!(get(&at(issuer, &format!("/.well-known/{name}/"))).await, expected);
        for path in ["", "mcp/", "mcp/code/"] {
            assert_eq!(
                get(&at(edge, &format!("/.well-known/{name}/{path}"))).await,
                expected,
                "{path}"
            );
        }
    }
}

#[tokio::test]
async fn a_challenge_names_existing_metadata_and_says_unauthorized() {
    let mesh = TestMesh::start().await;
    let (anonymous, alice) = (mesh.anonymous(), mesh.client("alice").await);
    for path in ["/mcp", "/mcp/", "/mcp/code", "/mcp/nope", "/mcp/nope/"] {
        let url = mesh.mesh.mcp_url.join(path).expect("a URL");
        let reply = anonymous.at(&url).call("initialize", json!({})).await;
        assert_eq!(reply.status, StatusCode::UNAUTHORIZED, "{path}");
        assert!(reply.message().contains("Unauthorized"), "{reply:?}");
        let challenge = reply.headers["www-authenticate"].to_str().expect("a text");
        let (_, named) = challenge.split_once("resource_metadata=\"").expect("a URL");
        let (named, _) = named.split_once('"').expect("a quoted URL");
        let response = reqwest::get(named).await.expect("an answer");
        assert_eq!(response.status(), StatusCode::OK, "{path}: {named}");
        // Clients accept only a resource that is their URL or a prefix of it.
        let document = response.json::<Value>().await.expect("JSON");
        let resource = document["resource"].as_str().expect("a URL").to_owned();
        assert!(url.as_str().starts_with(&resource), "{path}: {document}");
    }
    let wrong = mesh.client_with("nonsense").call("initialize", json!({})).await;
    assert!(
        wrong.status == StatusCode::UNAUTHORIZED && wrong.message().contains("Unauthorized"),
        "{wrong:?}"
    );
    // An authenticated caller learns that the endpoint does not exist.
    let nope = alice.at(&mesh.mesh.mcp_url.join("/mcp/nope").expect("a URL"));
    assert_eq!(nope.call("tools/list", json!({})).await.status, StatusCode::NOT_FOUND);
}
