//! What a tool service asks of a client, in the words of the client's revision, and what the client answers.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use drawbridge_proto::mcp::v1::{
    self as pb, elicit_result::Action, input_request::Kind as Asked,
    input_response::Kind as Answered,
};
use drawbridge_sdk::RequestId;
use rmcp::{
    ErrorData,
    model::{ClientCapabilities, ErrorCode, ExtensionCapabilities, InputRequest, InputResponses},
};
use serde_json::{Value, json};
use tonic::Status;

use super::{
    content,
    exchange::{Exchange, Unanswered},
    json as structs,
    revision::Revision,
};
use crate::admission::authorizer::Reauthorizer;

/// `URLElicitationRequiredError` (2025-11-25).
const URL_ELICITATION_REQUIRED: ErrorCode = ErrorCode(-32042);
/// The longest `extensions` of a client that services are given, in bytes of JSON: a session holds them.
const EXTENSIONS_BYTES_MAX: usize = 4096;
/// How deep they may be, in objects and arrays. Each is three messages of protobuf, whose readers take 100.
const EXTENSIONS_LEVELS_MAX: usize = 16;

/// Requests to the client, by keys of the service's choice.
pub(super) type Requests = BTreeMap<String, Value>;

/// What a service asks, as requests of the client's revision.
pub(super) fn requests(asked: &pb::InputRequired, revision: Revision) -> Result<Requests, Status> {
    let requests = asked.requests.iter().map(|(key, request)| {
        let typed: InputRequest = content::typed(request_json(request)?)?;
        let mut json = serde_json::to_value(typed).unwrap_or_default();
        // 2026-07-28 has no elicitationId any more (SEP-2322).
        if revision == Revision::Stateless
            && let Some(params) = json.get_mut("params").and_then(Value::as_object_mut)
        {
            params.remove("elicitationId");
        }
        Ok((key.clone(), json))
    });
    requests.collect()
}

/// The error that names the pages that a person must open before the call is made anew (2025-11-25).
pub(super) fn pages_required(requests: Requests) -> ErrorData {
    let pages: Vec<_> =
        requests.into_values().map(|mut request| request["params"].take()).collect();
    let text = "a person must open a page first; then make this call again";
    ErrorData::new(URL_ELICITATION_REQUIRED, text, Some(json!({ "elicitations": pages })))
}

/// What of it a person or a model reads.
pub(super) fn texts(asked: &mut pb::InputRequired) -> Vec<&mut String> {
    let mut texts = Vec::new();
    for kind in asked.requests.values_mut().filter_map(|request| request.kind.as_mut()) {
        match kind {
            Asked::Form(form) => texts.push(&mut form.message),
            Asked::Url(page) => texts.push(&mut page.message),
            Asked::Sampling(sampling) => {
                texts.push(&mut sampling.system_prompt);
                let blocks = sampling.messages.iter_mut().flat_map(|message| &mut message.content);
                texts.extend(blocks.filter_map(content::text_of));
            }
            Asked::Roots(_) => {}
        }
    }
    texts
}

fn request_json(request: &pb::InputRequest) -> Result<Value, Status> {
    let kind =
        request.kind.as_ref().ok_or_else(|| Status::internal("an input request without a kind"))?;
    Ok(match kind {
        Asked::Form(form) => {
            let empty = prost_types::Struct::default();
            let schema = structs::from_struct(form.requested_schema.as_ref().unwrap_or(&empty));
            json!({
                "method": "elicitation/create",
                "params": { "mode": "form", "message": form.message, "requestedSchema": schema },
            })
        }
        Asked::Url(page) => {
            let id = Some(page.elicitation_id.clone()).filter(|id| !id.is_empty());
            let id = id.unwrap_or_else(|| RequestId::generate().as_str().to_owned());
            json!({
                "method": "elicitation/create",
                "params": { "mode": "url", "message": page.message, "url": page.url, "elicitationId": id },
            })
        }
        Asked::Sampling(sampling) => {
            json!({ "method": "sampling/createMessage", "params": sampling_json(sampling)? })
        }
        Asked::Roots(_) => json!({ "method": "roots/list" }),
    })
}

fn sampling_json(sampling: &pb::Sampling) -> Result<Value, Status> {
    let mut messages = Vec::new();
    for message in &sampling.messages {
        let blocks = message.content.iter().map(content::content).collect::<Result<Vec<_>, _>>()?;
        // One block stands alone: older revisions know no list.
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
        let mut wanted = json!({ "hints": hints });
        let priorities = [
            ("costPriority", preferences.cost_priority),
            ("speedPriority", preferences.speed_priority),
            ("intelligencePriority", preferences.intelligence_priority),
        ];
        for (name, priority) in priorities {
            if let Some(priority) = priority {
                wanted[name] = json!(priority);
            }
        }
        params["modelPreferences"] = wanted;
    }
    Ok(params)
}

/// What a client can be asked.
pub(super) fn capabilities(capabilities: Option<&ClientCapabilities>) -> pb::ClientCapabilities {
    let Some(has) = capabilities else { return pb::ClientCapabilities::default() };
    pb::ClientCapabilities {
        // A client that names no mode means forms (2025-11-25).
        elicit_form: has
            .elicitation
            .as_ref()
            .is_some_and(|mode| mode.form.is_some() || mode.url.is_none()),
        elicit_url: has.elicitation.as_ref().is_some_and(|mode| mode.url.is_some()),
        sampling: has.sampling.is_some(),
        roots: has.roots.is_some(),
        extensions: has.extensions.as_ref().and_then(extensions),
    }
}

fn extensions(declared: &ExtensionCapabilities) -> Option<prost_types::Struct> {
    let json = serde_json::to_value(declared).unwrap_or_default();
    let (bytes, levels) = (json.to_string().len(), levels(&json));
    if bytes > EXTENSIONS_BYTES_MAX || levels > EXTENSIONS_LEVELS_MAX {
        tracing::info!(
            bytes,
            levels,
            EXTENSIONS_BYTES_MAX,
            EXTENSIONS_LEVELS_MAX,
            "a client's extensions are too long or too deep; services see none"
        );
        return None;
    }
    json.as_object().filter(|extensions| !extensions.is_empty()).map(structs::to_struct)
}

/// How deep arrays and objects lie in one another.
fn levels(json: &Value) -> usize {
    match json {
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or_default(),
        _ => 0,
    }
}

/// What a client can be asked that takes nothing before its answer: in 2025-11-25 to open pages, by an error.
pub(super) fn by_error(
    client: pb::ClientCapabilities,
    revision: Revision,
) -> pb::ClientCapabilities {
    let elicit_url = client.elicit_url && revision == Revision::November2025;
    pb::ClientCapabilities { elicit_url, extensions: client.extensions, ..Default::default() }
}

/// The capabilities that a client lacks to be asked this.
pub(super) fn missing(
    asked: &pb::InputRequired,
    client: &pb::ClientCapabilities,
) -> Option<ClientCapabilities> {
    let mut missing = json!({});
    for kind in asked.requests.values().filter_map(|request| request.kind.as_ref()) {
        match kind {
            Asked::Form(_) if !client.elicit_form => missing["elicitation"]["form"] = json!({}),
            Asked::Url(_) if !client.elicit_url => missing["elicitation"]["url"] = json!({}),
            Asked::Sampling(_) if !client.sampling => missing["sampling"] = json!({}),
            Asked::Roots(_) if !client.roots => missing["roots"] = json!({}),
            _ => {}
        }
    }
    if missing == json!({}) { None } else { serde_json::from_value(missing).ok() }
}

/// Asks a client of an older revision, on the stream of the request that needs the answers. Whoever answers must
/// be allowed what `needs` asks about.
pub(super) async fn ask(
    exchange: &Exchange,
    needs: &Reauthorizer,
    requests: Requests,
    within: Duration,
) -> Result<InputResponses, Unanswered> {
    let mut responses = InputResponses::new();
    for (key, request) in requests {
        let method = request["method"].as_str().unwrap_or_default();
        let answer = exchange.ask(needs.clone(), method, request.get("params"), within).await?;
        responses.insert(key, answer);
    }
    Ok(responses)
}

/// What a client answered, as the service reads it. What is no answer counts as not given, so that the
/// service asks again.
pub(super) fn responses(answers: &InputResponses) -> HashMap<String, pb::InputResponse> {
    let given = answers.iter().filter_map(|(key, answer)| {
        let kind = answered(answer)?;
        Some((key.clone(), pb::InputResponse { kind: Some(kind) }))
    });
    given.collect()
}

/// An answer, told apart by what each kind must have.
fn answered(answer: &Value) -> Option<Answered> {
    let object = answer.as_object()?;
    if let Some(action) = object.get("action") {
        let action = match action.as_str()? {
            "accept" => Action::Accept,
            "decline" => Action::Decline,
            "cancel" => Action::Cancel,
            _ => return None,
        };
        let content = object.get("content").and_then(Value::as_object).map(structs::to_struct);
        return Some(Answered::Elicitation(pb::ElicitResult { action: action.into(), content }));
    }
    if let Some(roots) = object.get("roots") {
        let roots = roots.as_array()?.iter().map(|root| {
            let name = root["name"].as_str().unwrap_or_default();
            Some(pb::Root { uri: root["uri"].as_str()?.to_owned(), name: name.to_owned() })
        });
        return Some(Answered::Roots(pb::Roots { roots: roots.collect::<Option<_>>()? }));
    }
    let text = |name: &str| object.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let role = if text("role") == "user" { pb::Role::User } else { pb::Role::Assistant };
    let content = match object.get("content")? {
        Value::Array(blocks) => blocks.iter().map(content::block_of).collect::<Option<_>>()?,
        block => vec![content::block_of(block)?],
    };
    Some(Answered::Sampling(pb::SamplingResult {
        model: text("model"),
        stop_reason: text("stopReason"),
        role: role.into(),
        content,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_that_are_too_long_or_too_deep_are_not_seen() {
        let seen = |extensions: Value| {
            let declared = serde_json::from_value(json!({ "acme/x": extensions })).unwrap();
            super::extensions(&declared).is_some()
        };
        let deep = |levels| (0..levels).fold(json!({}), |inner, _| json!({ "a": inner }));
        assert!(seen(deep(EXTENSIONS_LEVELS_MAX - 2)));
        assert!(!seen(deep(EXTENSIONS_LEVELS_MAX - 1)));
        assert!(!seen(json!({ "a": "x".repeat(EXTENSIONS_BYTES_MAX) })));
    }
}
