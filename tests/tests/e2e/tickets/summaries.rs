//! Summaries, for clients with and without sampling.

#![expect(deprecated, reason = "SEP-2577 deprecates sampling; clients still support it")]

use drawbridge_tests::TestMesh;
use rmcp::{
    ClientHandler, ErrorData, RoleClient,
    model::{
        CallToolRequestParams, ClientCapabilities, ClientConfig, CreateMessageRequestParams,
        CreateMessageResult, Implementation, ProtocolVersion, SamplingMessage,
    },
    service::{ClientLifecycleMode, ClientServiceExt as _, RequestContext},
    transport::{
        StreamableHttpClientTransport, streamable_http_client::StreamableHttpClientTransportConfig,
    },
};
use serde_json::{Value, json};

use super::result;
use crate::mcp::interaction::call_with;

const SUMMARY: &str = "The VPN drops; the gateway is changed on Thursday.";

fn ticket() -> Value {
    json!({ "ticket_id": "101", "max_sentences": 3 })
}

#[tokio::test]
async fn without_sampling_the_summary_is_an_extract_with_progress() {
    let mesh = TestMesh::start().await;
    let bob = mesh.client("bob").await;
    let params = json!({ "name": "tickets_summarize", "arguments": ticket(), "_meta": { "progressToken": "p" } });
    let reply = bob.call("tools/call", params).await;
    let events = reply.text.lines().filter_map(|line| line.strip_prefix("data: "));
    let events: Vec<Value> =
        events.map(|event| serde_json::from_str(event).expect("JSON")).collect();
    let steps: Vec<_> =
        events.iter().filter_map(|event| event["params"]["progress"].as_f64()).collect();
    assert_eq!(steps, [1.0, 2.0, 3.0], "{reply:?}");
    let summary = result(&reply);
    assert_eq!(summary["method"], "SUMMARY_METHOD_EXTRACT");
    let text = summary["summary"].as_str().expect("a summary");
    assert!(text.contains("VPN") && text.lines().count() == 3, "{text}");
    assert_eq!((&summary["articles_read"], &summary["model"]), (&json!(5), &json!("")));
}

#[tokio::test]
async fn a_client_of_the_stateless_revision_gets_a_sampling_request_as_a_result() {
    let mesh = TestMesh::start().await;
    let bob = mesh.client("bob").await;
    let sampling = || json!({ "sampling": {} });
    let pending = call_with(&bob, "tickets_summarize", ticket(), sampling(), json!({})).await;
    assert_eq!(pending.json["result"]["resultType"], "input_required", "{pending:?}");
    let request = &pending.json["result"]["inputRequests"]["summary"];
    assert_eq!(request["method"], "sampling/createMessage");
    assert!(
        request["params"]["systemPrompt"]
            .as_str()
            .is_some_and(|text| text.contains("at most 3 sentences"))
    );
    let data = request["params"]["messages"][0]["content"]["text"].as_str().expect("a text");
    assert!(data.contains("CR-8841"), "{data}");

    let sampled = |text: &str| {
        let content = json!({ "type": "text", "text": text });
        let message = json!({ "role": "assistant", "content": content, "model": "model-1" });
        json!({
            "requestState": pending.json["result"]["requestState"],
            "inputResponses": { "summary": message },
        })
    };
    let done = call_with(&bob, "tickets_summarize", ticket(), sampling(), sampled(SUMMARY)).await;
    let summary = result(&done);
    assert_eq!((&summary["summary"], &summary["model"]), (&json!(SUMMARY), &json!("model-1")));
    assert_eq!(summary["method"], "SUMMARY_METHOD_CLIENT_MODEL");
    // After an empty sample there is no second request.
    let nothing = call_with(&bob, "tickets_summarize", ticket(), sampling(), sampled(" ")).await;
    assert_eq!(result(&nothing)["method"], "SUMMARY_METHOD_EXTRACT");
}

/// A client that supports sampling.
struct Model;

impl ClientHandler for Model {
    fn get_info(&self) -> ClientConfig {
        let capabilities = ClientCapabilities::builder().enable_sampling().build();
        ClientConfig::new(capabilities, Implementation::new("model", "1"))
            .with_protocol_version(ProtocolVersion::LATEST_WITH_INITIALIZE)
    }

    async fn create_message(
        &self,
        _: CreateMessageRequestParams,
        _: RequestContext<RoleClient>,
    ) -> Result<CreateMessageResult, ErrorData> {
        Ok(CreateMessageResult::new(SamplingMessage::assistant_text(SUMMARY), "model-2".to_owned()))
    }
}

#[tokio::test]
async fn a_client_with_a_session_gets_a_sampling_request_on_its_stream() {
    let mesh = TestMesh::start().await;
    let bob = mesh.client("bob").await;
    let config = StreamableHttpClientTransportConfig::with_uri(mesh.mesh.mcp_url.as_str())
        .auth_header(bob.token());
    let transport = StreamableHttpClientTransport::from_config(config);
    let client = Model.serve_with_lifecycle(transport, ClientLifecycleMode::Initialize);
    let client = client.await.expect("a connection");
    let arguments = ticket().as_object().expect("arguments").clone();
    let call = CallToolRequestParams::new("tickets_summarize").with_arguments(arguments);
    let done = client.call_tool(call).await.expect("a result");
    let summary = done.structured_content.expect("a structured result");
    assert_eq!((&summary["summary"], &summary["model"]), (&json!(SUMMARY), &json!("model-2")));
    assert_eq!(summary["method"], "SUMMARY_METHOD_CLIENT_MODEL");
}
