//! Input that a tool service requests from a client: requests in the form of the client's revision,
//! and the client's responses.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use drawbridge_proto::mcp::v1::{
    self as pb, elicit_result::Action, input_request::Kind as RequestKind,
    input_response::Kind as ResponseKind,
};
use drawbridge_runtime::RequestId;
use rmcp::{
    ErrorData,
    model::{ErrorCode, InputRequest, InputResponses},
};
use serde_json::{Value, json};
use tonic::Status;

use super::{
    content,
    exchange::{ClientRequestError, Exchange},
    json as structs,
    revision::ProtocolRevision,
};
use crate::{authorizer::Reauthorizer, error_codes};

/// `URLElicitationRequiredError` (2025-11-25).
const URL_ELICITATION_REQUIRED: ErrorCode = ErrorCode(error_codes::URL_ELICITATION_REQUIRED);
/// Requests to the client, by keys that the service chooses.
pub(super) type InputRequests = BTreeMap<String, Value>;

/// Converts the requested input to requests of the client's revision.
pub(super) fn to_requests(
    required: &pb::InputRequired,
    revision: ProtocolRevision,
) -> Result<InputRequests, Status> {
    let requests = required.requests.iter().map(|(key, request)| {
        let typed: InputRequest = content::typed(request_json(request)?)?;
        let mut json = serde_json::to_value(typed).unwrap_or_default();
        // 2026-07-28 removed elicitationId (SEP-2322).
        if revision == ProtocolRevision::Stateless
            && let Some(params) = json.get_mut("params").and_then(Value::as_object_mut)
        {
            params.remove("elicitationId");
        }
        Ok((key.clone(), json))
    });
    requests.collect()
}

/// The error that lists the pages that a person must open before the client retries the call
/// (2025-11-25).
pub(super) fn url_elicitation_required(requests: InputRequests) -> ErrorData {
    let pages: Vec<_> =
        requests.into_values().map(|mut request| request["params"].take()).collect();
    let text = "a person must open a page first; then retry this call";
    ErrorData::new(URL_ELICITATION_REQUIRED, text, Some(json!({ "elicitations": pages })))
}

/// The texts that a person or a model reads.
pub(super) fn texts(required: &mut pb::InputRequired) -> Vec<&mut String> {
    let mut texts = Vec::new();
    for kind in required.requests.values_mut().filter_map(|request| request.kind.as_mut()) {
        match kind {
            RequestKind::Form(form) => texts.push(&mut form.message),
            RequestKind::Url(page) => texts.push(&mut page.message),
            RequestKind::Sampling(sampling) => {
                texts.push(&mut sampling.system_prompt);
                let blocks = sampling.messages.iter_mut().flat_map(|message| &mut message.content);
                texts.extend(blocks.filter_map(content::text_of));
            }
            RequestKind::Roots(_) => {}
        }
    }
    texts
}

fn request_json(request: &pb::InputRequest) -> Result<Value, Status> {
    let kind = request
        .kind
        .as_ref()
        .ok_or_else(|| Status::internal("the tool service sent an input request without a kind"))?;
    Ok(match kind {
        RequestKind::Form(form) => {
            let empty = prost_types::Struct::default();
            let schema = structs::from_struct(form.requested_schema.as_ref().unwrap_or(&empty));
            json!({
                "method": "elicitation/create",
                "params": { "mode": "form", "message": form.message, "requestedSchema": schema },
            })
        }
        RequestKind::Url(page) => {
            let id = Some(page.elicitation_id.clone()).filter(|id| !id.is_empty());
            let id = id.unwrap_or_else(|| RequestId::generate().as_str().to_owned());
            let (message, url) = (&page.message, &page.url);
            json!({
                "method": "elicitation/create",
                "params": { "mode": "url", "message": message, "url": url, "elicitationId": id },
            })
        }
        RequestKind::Sampling(sampling) => {
            json!({ "method": "sampling/createMessage", "params": sampling_json(sampling)? })
        }
        RequestKind::Roots(_) => json!({ "method": "roots/list" }),
    })
}

fn sampling_json(sampling: &pb::Sampling) -> Result<Value, Status> {
    let mut messages = Vec::new();
    for message in &sampling.messages {
        let blocks = message.content.iter().map(content::content).collect::<Result<Vec<_>, _>>()?;
        // A single block is not a list: older revisions accept no list.
        let content = match <[Value; 1]>::try_from(blocks) {
            Ok([block]) => block,
            Err(blocks) => Value::Array(blocks),
        };
        messages.push(json!({ "role": content::role(message.role()), "content": content }));
    }
    let mut params = json!({ "messages": messages, "maxTokens": sampling.max_tokens });
    if !sampling.system_prompt.is_empty() {
        params["systemPrompt"] = json!(sampling.system_prompt);
    }
    if let Some(temperature) = sampling.temperature {
        params["temperature"] = json!(temperature);
    }
    if !sampling.stop_sequences.is_empty() {
        params["stopSequences"] = json!(sampling.stop_sequences);
    }
    if let Some(preferences) = &sampling.model_preferences {
        let hints: Vec<_> = preferences.hints.iter().map(|name| json!({ "name": name })).collect();
        let mut model_preferences = json!({ "hints": hints });
        let priorities = [
            ("costPriority", preferences.cost_priority),
            ("speedPriority", preferences.speed_priority),
            ("intelligencePriority", preferences.intelligence_priority),
        ];
        for (name, priority) in priorities {
            if let Some(priority) = priority {
                model_preferences[name] = json!(priority);
            }
        }
        params["modelPreferences"] = model_preferences;
    }
    Ok(params)
}

/// The kind of a request for input, for records.
pub(super) fn request_kind(request: &pb::InputRequest) -> &'static str {
    match &request.kind {
        Some(RequestKind::Form(_)) => "form",
        Some(RequestKind::Url(_)) => "url",
        Some(RequestKind::Sampling(_)) => "sampling",
        Some(RequestKind::Roots(_)) => "roots",
        None => "",
    }
}

/// The kind of a response whose request is not known, for records.
pub(super) fn response_kind(response: &pb::InputResponse) -> &'static str {
    match &response.kind {
        Some(ResponseKind::Elicitation(_)) => "elicitation",
        Some(ResponseKind::Sampling(_)) => "sampling",
        Some(ResponseKind::Roots(_)) => "roots",
        None => "",
    }
}

/// What the client responded, for records.
pub(super) fn answer(response: &pb::InputResponse) -> &'static str {
    match &response.kind {
        Some(ResponseKind::Elicitation(result)) => match result.action() {
            Action::Accept => "accept",
            Action::Decline => "decline",
            Action::Cancel => "cancel",
            Action::Unspecified => "none",
        },
        Some(_) => "answered",
        None => "none",
    }
}

/// Requests input from a client of an older revision, on the stream of the request that waits for
/// it. A caller that responds needs the permission that `authorization` checks.
pub(super) async fn request_input(
    exchange: &Exchange,
    authorization: &Reauthorizer,
    requests: InputRequests,
    within: Duration,
) -> Result<InputResponses, ClientRequestError> {
    let mut responses = InputResponses::new();
    for (key, request) in requests {
        let method = request["method"].as_str().unwrap_or_default();
        let params = request.get("params");
        let response = exchange.request(authorization.clone(), method, params, within).await?;
        responses.insert(key, response);
    }
    Ok(responses)
}

/// Converts a client's responses for the service. Invalid responses are left out, so that the
/// service requests that input again.
pub(super) fn parse_responses(responses: &InputResponses) -> HashMap<String, pb::InputResponse> {
    let parsed = responses.iter().filter_map(|(key, response)| {
        let kind = parse_response(response)?;
        Some((key.clone(), pb::InputResponse { kind: Some(kind) }))
    });
    parsed.collect()
}

/// Parses a response. The required members of each kind identify the kind.
fn parse_response(response: &Value) -> Option<ResponseKind> {
    let object = response.as_object()?;
    if let Some(action) = object.get("action") {
        let action = match action.as_str()? {
            "accept" => Action::Accept,
            "decline" => Action::Decline,
            "cancel" => Action::Cancel,
            _ => return None,
        };
        let content = object.get("content").and_then(Value::as_object).map(structs::to_struct);
        return Some(ResponseKind::Elicitation(pb::ElicitResult {
            action: action.into(),
            content,
        }));
    }
    if let Some(roots) = object.get("roots") {
        let roots = roots.as_array()?.iter().map(|root| {
            let name = root["name"].as_str().unwrap_or_default();
            Some(pb::Root { uri: root["uri"].as_str()?.to_owned(), name: name.to_owned() })
        });
        return Some(ResponseKind::Roots(pb::Roots { roots: roots.collect::<Option<_>>()? }));
    }
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let role = if text("role") == "user" { pb::Role::User } else { pb::Role::Assistant };
    let content = match object.get("content")? {
        Value::Array(blocks) => blocks.iter().map(content::parse_block).collect::<Option<_>>()?,
        block => vec![content::parse_block(block)?],
    };
    Some(ResponseKind::Sampling(pb::SamplingResult {
        model: text("model"),
        stop_reason: text("stopReason"),
        role: role.into(),
        content,
    }))
}
