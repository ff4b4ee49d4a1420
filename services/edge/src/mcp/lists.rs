//! The list methods, in pages.

use std::sync::Arc;

use rmcp::{
    ErrorData,
    model::{
        CacheScope, ListPromptsResult, ListResourceTemplatesResult, ListResourcesResult,
        ServerResult,
    },
};
use serde_json::Value;

use super::{
    MethodHandler,
    errors::{invalid_cursor, missing_plan},
    exchange::Exchange,
    listing::ResourceLister,
    page,
    wire::MethodOutcome,
};
use crate::{
    admitted::{Admission, Cursor, Plan},
    catalog::{ResourceItem, ShownResource},
};

/// How long a client may cache a list, in milliseconds. Clients are notified of catalog changes,
/// but not of policy changes.
const TTL_MS: Option<u64> = Some(30_000);
/// Lists are filtered for each caller.
const SCOPE: Option<CacheScope> = Some(CacheScope::Private);

pub(super) fn list_tools(
    params: &Value,
    admission: &Admission,
) -> Result<MethodOutcome, ErrorData> {
    let Plan::ListTools(page) = &admission.plan else { return Err(missing_plan(admission)) };
    match Cursor::parse(params) {
        Some(Cursor::Start | Cursor::After(_)) => {}
        Some(Cursor::InTemplate { .. }) | None => return Err(invalid_cursor(admission)),
    }
    Ok(MethodOutcome::Tools { page: Arc::clone(page), ttl_ms: TTL_MS, scope: SCOPE })
}

pub(super) async fn list_resources(
    handler: &MethodHandler,
    params: &Value,
    admission: &Admission,
    exchange: &Exchange,
) -> Result<ServerResult, ErrorData> {
    let Plan::ListResources(planned, listed) = &admission.plan else {
        return Err(missing_plan(admission));
    };
    let cursor = Cursor::parse(params).ok_or_else(|| invalid_cursor(admission))?;
    let (mut resources, mut next) = match cursor {
        Cursor::InTemplate { .. } => (Vec::new(), None),
        Cursor::Start | Cursor::After(_) => {
            let fixed = planned.iter().filter_map(|item| match &item.shown {
                ShownResource::Fixed(resource) => Some((item.item.name.as_str(), resource)),
                ShownResource::Template(_) => None,
            });
            page::paginate(fixed, params).ok_or_else(|| invalid_cursor(admission))?
        }
    };
    if next.is_none() {
        let lister = ResourceLister { handler, admission, exchange };
        next = lister.fill(&mut resources, listed).await.and_then(|cursor| cursor.encode());
    }
    let mut result = ListResourcesResult::with_all_items(resources);
    (result.next_cursor, result.ttl_ms, result.cache_scope) = (next, TTL_MS, SCOPE);
    Ok(result.into())
}

pub(super) fn list_resource_templates(
    params: &Value,
    admission: &Admission,
) -> Result<ServerResult, ErrorData> {
    let templates = planned_resources(admission)?.iter().filter_map(|item| match &item.shown {
        ShownResource::Template(template) => Some((item.item.name.as_str(), template)),
        ShownResource::Fixed(_) => None,
    });
    let (templates, next) =
        page::paginate(templates, params).ok_or_else(|| invalid_cursor(admission))?;
    let mut result = ListResourceTemplatesResult::with_all_items(templates);
    (result.next_cursor, result.ttl_ms, result.cache_scope) = (next, TTL_MS, SCOPE);
    Ok(result.into())
}

pub(super) fn list_prompts(
    params: &Value,
    admission: &Admission,
) -> Result<ServerResult, ErrorData> {
    let Plan::ListPrompts(prompts) = &admission.plan else { return Err(missing_plan(admission)) };
    let prompts = prompts.iter().map(|item| (item.item.name.as_str(), &item.prompt));
    let (prompts, next) =
        page::paginate(prompts, params).ok_or_else(|| invalid_cursor(admission))?;
    let mut result = ListPromptsResult::with_all_items(prompts);
    (result.next_cursor, result.ttl_ms, result.cache_scope) = (next, TTL_MS, SCOPE);
    Ok(result.into())
}

fn planned_resources(admission: &Admission) -> Result<&[Arc<ResourceItem>], ErrorData> {
    match &admission.plan {
        Plan::ListResources(resources, _) => Ok(resources),
        _ => Err(missing_plan(admission)),
    }
}
