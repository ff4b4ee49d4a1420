//! What may be listed, in pages.

use std::sync::Arc;

use rmcp::{
    ErrorData,
    model::{
        CacheScope, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
        ListToolsResult, ServerResult,
    },
};
use serde_json::Value;

use super::{
    Handler,
    errors::{not_planned, wrong_cursor},
    exchange::Exchange,
    listing::Listing,
    page,
};
use crate::{
    admission::{Admission, Cursor, Plan},
    catalog::{ResourceItem, ShownResource},
};

/// How long a client may keep a list, in milliseconds. A change of the catalog is told; one of policy is not.
const TTL_MS: Option<u64> = Some(30_000);
/// Lists are filtered for each caller.
const SCOPE: Option<CacheScope> = Some(CacheScope::Private);

pub(super) fn tools(params: &Value, admission: &Admission) -> Result<ServerResult, ErrorData> {
    let Plan::ListTools(tools) = &admission.plan else { return Err(not_planned(admission)) };
    let tools = tools.iter().map(|item| (item.tool.name.as_ref(), &item.tool));
    let (tools, next) = page::of(tools, params).ok_or_else(|| wrong_cursor(admission))?;
    let mut result = ListToolsResult::with_all_items(tools);
    (result.next_cursor, result.ttl_ms, result.cache_scope) = (next, TTL_MS, SCOPE);
    Ok(result.into())
}

pub(super) async fn resources(
    handler: &Handler,
    params: &Value,
    admission: &Admission,
    exchange: &Exchange,
) -> Result<ServerResult, ErrorData> {
    let Plan::ListResources(planned, listed) = &admission.plan else {
        return Err(not_planned(admission));
    };
    let cursor = Cursor::of(params).ok_or_else(|| wrong_cursor(admission))?;
    let (mut resources, mut next) = match cursor {
        Cursor::Listed { .. } => (Vec::new(), None),
        Cursor::Start | Cursor::After(_) => {
            let fixed = planned.iter().filter_map(|item| match &item.shown {
                ShownResource::Fixed(resource) => Some((item.item.name.as_str(), resource)),
                ShownResource::Template(_) => None,
            });
            page::of(fixed, params).ok_or_else(|| wrong_cursor(admission))?
        }
    };
    if next.is_none() {
        let listing = Listing { handler, admission, exchange };
        next = listing.fill(&mut resources, listed).await.and_then(|cursor| cursor.text());
    }
    let mut result = ListResourcesResult::with_all_items(resources);
    (result.next_cursor, result.ttl_ms, result.cache_scope) = (next, TTL_MS, SCOPE);
    Ok(result.into())
}

pub(super) fn resource_templates(
    params: &Value,
    admission: &Admission,
) -> Result<ServerResult, ErrorData> {
    let templates = planned_resources(admission)?.iter().filter_map(|item| match &item.shown {
        ShownResource::Template(template) => Some((item.item.name.as_str(), template)),
        ShownResource::Fixed(_) => None,
    });
    let (templates, next) = page::of(templates, params).ok_or_else(|| wrong_cursor(admission))?;
    let mut result = ListResourceTemplatesResult::with_all_items(templates);
    (result.next_cursor, result.ttl_ms, result.cache_scope) = (next, TTL_MS, SCOPE);
    Ok(result.into())
}

pub(super) fn prompts(params: &Value, admission: &Admission) -> Result<ServerResult, ErrorData> {
    let Plan::ListPrompts(prompts) = &admission.plan else { return Err(not_planned(admission)) };
    let prompts = prompts.iter().map(|item| (item.item.name.as_str(), &item.prompt));
    let (prompts, next) = page::of(prompts, params).ok_or_else(|| wrong_cursor(admission))?;
    let mut result = ListPromptsResult::with_all_items(prompts);
    (result.next_cursor, result.ttl_ms, result.cache_scope) = (next, TTL_MS, SCOPE);
    Ok(result.into())
}

fn planned_resources(admission: &Admission) -> Result<&[Arc<ResourceItem>], ErrorData> {
    match &admission.plan {
        Plan::ListResources(resources, _) => Ok(resources),
        _ => Err(not_planned(admission)),
    }
}
