use drawbridge_proto::{
    mcp::v1::{
        ClientCapabilities, ContentBlock, InputRequired, InputResponse, InputResponses,
        SamplingResult, TextContent, content_block::Kind as Block,
        input_request::Kind as RequestKind, input_response::Kind as ResponseKind,
    },
    tickets::v1::{
        SummarizeRequest, SummarizeResult, SummaryMethod, summarize_response::Event,
        ticket_service_server::TicketService as _,
    },
};
use futures::StreamExt as _;
use serde_json::{Value, json};
use tonic::{Code, Status};

use super::harness::{helpdesk, request_of_bob, service};

fn articles() -> Value {
    json!([
        { "id": 1, "from": "Tim", "sender": "Customer", "internal": false,
          "content_type": "text/plain",
          "body": "The printer on the third floor prints empty badges. It is a lovely morning \
              today." },
        { "id": 2, "from": "Olga", "sender": "Agent", "internal": true,
          "content_type": "text/plain",
          "body": "Replaced the ribbon of the printer on the third floor." },
    ])
}

/// The events of a summary, given the client's responses.
async fn events(articles: Value, interaction: InputResponses) -> Result<(Vec<f64>, Event), Status> {
    let server = helpdesk(articles).await;
    let request = SummarizeRequest {
        ticket_id: "7".to_owned(),
        max_sentences: Some(2),
        interaction: Some(interaction),
    };
    let stream = service(&server.uri()).summarize(request_of_bob(request)).await?.into_inner();
    let mut steps = Vec::new();
    for event in stream.collect::<Vec<_>>().await {
        match event?.event.unwrap() {
            Event::Progress(progress) => steps.push(progress.progress),
            last => return Ok((steps, last)),
        }
    }
    panic!("no last event")
}

fn sampling() -> Option<ClientCapabilities> {
    Some(ClientCapabilities { sampling: true, ..ClientCapabilities::default() })
}

async fn request_input() -> InputRequired {
    let interaction = InputResponses { client: sampling(), ..InputResponses::default() };
    match events(articles(), interaction).await.unwrap() {
        (steps, Event::InputRequired(request_input)) => {
            assert_eq!(steps, [1.0, 2.0, 3.0]);
            request_input
        }
        other => panic!("{other:?}"),
    }
}

/// The result of a summary, given the model's response.
async fn resume(response: Option<ResponseKind>) -> SummarizeResult {
    let InputRequired { requests, state } = request_input().await;
    let key = requests.into_keys().next().unwrap();
    let responses =
        response.map(|kind| (key, InputResponse { kind: Some(kind) })).into_iter().collect();
    let interaction = InputResponses { responses, state, client: sampling() };
    match events(articles(), interaction).await.unwrap() {
        (_, Event::Result(result)) => result,
        other => panic!("{other:?}"),
    }
}

fn model_response(text: &str) -> ResponseKind {
    let text = ContentBlock {
        kind: Some(Block::Text(TextContent { text: text.to_owned() })),
        ..ContentBlock::default()
    };
    ResponseKind::Sampling(SamplingResult {
        model: "the-model".to_owned(),
        content: vec![text],
        ..SamplingResult::default()
    })
}

#[tokio::test]
async fn a_client_without_a_model_gets_an_extract() {
    let (steps, last) = events(articles(), InputResponses::default()).await.unwrap();
    assert_eq!(steps, [1.0, 2.0, 3.0]);
    let Event::Result(result) = last else { panic!("{last:?}") };
    assert_eq!(result.method(), SummaryMethod::Extract);
    assert_eq!(
        result.summary,
        "The printer on the third floor prints empty badges.\nReplaced the ribbon of the printer \
         on the third floor."
    );
    assert_eq!(
        (result.articles_read, result.articles_left_out, result.title.as_str()),
        (2, 0, "Printer")
    );
    assert!(result.model.is_empty());
}

#[tokio::test]
async fn the_sampling_request_contains_the_ticket_as_data() {
    let InputRequired { requests, state } = request_input().await;
    assert!(!state.is_empty());
    let request = requests.into_values().next().unwrap();
    let Some(RequestKind::Sampling(sampling)) = request.kind else { panic!("{request:?}") };
    assert!(sampling.system_prompt.contains("at most 2 sentences"));
    assert!(!sampling.system_prompt.contains("printer"), "the ticket is not in the instructions");
    let Some(Block::Text(text)) = &sampling.messages[0].content[0].kind else {
        panic!("{sampling:?}")
    };
    for part in [
        "Ticket 26007 (open): Printer",
        "--- Tim (Customer)",
        "--- Olga (Agent, internal note)",
        "ribbon",
    ] {
        assert!(text.text.contains(part), "{}", text.text);
    }
    assert!(sampling.max_tokens > 0);
}

#[tokio::test]
async fn the_result_is_the_models_text_with_the_models_name() {
    let result = resume(Some(model_response("  The printer is broken. "))).await;
    assert_eq!(result.method(), SummaryMethod::ClientModel);
    assert_eq!(
        (result.summary.as_str(), result.model.as_str()),
        ("The printer is broken.", "the-model")
    );
    assert_eq!(result.articles_read, 2);
    let endless = resume(Some(model_response(&"word ".repeat(100_000)))).await;
    assert!(endless.summary.len() <= 8000);
}

#[tokio::test]
async fn a_model_that_returned_no_text_is_not_asked_again() {
    for nothing in [None, Some(model_response("  "))] {
        let result = resume(nothing).await;
        assert_eq!(result.method(), SummaryMethod::Extract);
        assert!(result.summary.contains("printer"));
    }
}

#[tokio::test]
async fn a_long_ticket_is_summarized_from_its_first_and_latest_articles() {
    let body =
        |id: u64| format!("Article number {id} says that the printer is broken. ").repeat(80);
    let articles =
        (1..=60).map(|id| json!({ "id": id, "body": body(id), "content_type": "text/plain" }));
    let interaction = InputResponses { client: sampling(), ..InputResponses::default() };
    let (_, last) = events(articles.collect(), interaction).await.unwrap();
    let Event::InputRequired(request_input) = last else { panic!("{last:?}") };
    let request_input = format!("{request_input:?}");
    assert!(request_input.len() < 60_000, "{}", request_input.len());
    for (article, is_there) in [(1, true), (2, false), (40, false), (60, true)] {
        assert_eq!(
            request_input.contains(&format!("Article number {article} says")),
            is_there,
            "{article}"
        );
    }
}

#[tokio::test]
async fn an_invalid_summary_request_is_rejected() {
    let invalid = |ticket_id: &str, max_sentences| SummarizeRequest {
        ticket_id: ticket_id.to_owned(),
        max_sentences,
        interaction: None,
    };
    let server = helpdesk(json!([])).await;
    let service = service(&server.uri());
    for request in [invalid("x", None), invalid("7", Some(0)), invalid("7", Some(13))] {
        let error = service.summarize(request_of_bob(request)).await.map(drop).unwrap_err();
        assert_eq!(error.code(), Code::InvalidArgument, "{error:?}");
    }
    let missing = service.summarize(request_of_bob(invalid("8", None))).await.unwrap().into_inner();
    let last = missing.collect::<Vec<_>>().await.pop().unwrap().unwrap_err();
    assert_eq!(last.code(), Code::NotFound);
    // A ticket without sentences has an empty summary.
    let (_, last) = events(json!([]), InputResponses::default()).await.unwrap();
    let Event::Result(result) = last else { panic!("{last:?}") };
    assert_eq!((result.summary.as_str(), result.articles_read), ("", 0));
}
