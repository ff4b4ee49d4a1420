//! Lists: the items of the endpoint that the caller may see.

use std::{collections::HashSet, sync::Arc};

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};

use serde_json::Value;

use super::Planner;
use crate::{
    admitted::{Cursor, PAGE_ITEMS_MAX, Plan, ServiceLists, operation},
    authorizer::Grant,
    catalog::{Catalog, ItemKind, ResourceItem, ToolItem, has_ui, without_ui},
    refusal::Refusal,
};

/// The most services that are called for one page.
const LISTS_PER_PAGE_MAX: usize = 8;

/// The names of the items that a caller may see, and the caller's grant.
pub(super) struct Visible {
    pub(super) names: HashSet<String>,
    pub(super) grant: Grant,
}

impl Planner<'_> {
    pub(super) async fn list_tools(
        &self,
        catalog: &Catalog,
        params: &Value,
    ) -> Result<(Plan, Grant), Refusal> {
        let after = after(params);
        let tools = catalog.tools_after(after.as_deref());
        let kinds = (Kind::CallTool, ItemKind::Tool);
        let (tools, grant) = self.page(kinds, tools, |tool| &tool.item).await?;
        let tools = tools.iter().map(|tool| self.at_endpoint(tool));
        Ok((Plan::ListTools(Arc::new(tools.collect())), grant))
    }

    /// The visible ones of these items, in their order, up to one more than fits on a page. The
    /// first request to auth contains as many items as a page needs; while too few are visible,
    /// each next one contains twice as many.
    async fn page<'a, T: 'a>(
        &self,
        (kind, of): (Kind, ItemKind),
        items: impl Iterator<Item = &'a Arc<T>>,
        item: fn(&T) -> &auth::CatalogItem,
    ) -> Result<(Vec<Arc<T>>, Grant), Refusal> {
        let items: Vec<&Arc<T>> = items.filter(|one| self.serves(of, item(one))).collect();
        let (mut page, mut rest, mut count) = (Vec::new(), items.as_slice(), PAGE_ITEMS_MAX + 1);
        loop {
            let next;
            (next, rest) = rest.split_at(rest.len().min(count));
            // Without items, auth still authenticates the caller.
            let candidates = next.iter().map(|one| item(one).clone()).collect();
            let visible = self.visible(kind, candidates).await?;
            let shown = next.iter().filter(|one| visible.names.contains(&item(one).name));
            page.extend(shown.map(|one| Arc::clone(one)));
            if page.len() > PAGE_ITEMS_MAX || rest.is_empty() {
                return Ok((page, visible.grant));
            }
            count *= 2;
        }
    }

    /// Whether this endpoint shows the UI page of a tool (MCP Apps). A page may call any tool of
    /// its server, so only the endpoint of its own service shows it.
    pub(super) fn shows_page(&self, tool: &ToolItem) -> bool {
        self.endpoint == Some(tool.item.service.as_str()) && has_ui(tool.tool.meta.as_ref())
    }

    /// The tool as this endpoint lists it.
    fn at_endpoint(&self, tool: &Arc<ToolItem>) -> Arc<ToolItem> {
        if self.shows_page(tool) || !has_ui(tool.tool.meta.as_ref()) {
            return Arc::clone(tool);
        }
        let mut tool = ToolItem::clone(tool);
        tool.tool.meta = without_ui(tool.tool.meta.as_ref());
        Arc::new(tool)
    }

    pub(super) async fn list_resources(
        &self,
        catalog: &Catalog,
        with_service_lists: bool,
        params: &Value,
    ) -> Result<(Plan, Grant), Refusal> {
        let visible = self
            .filter(
                (Kind::ReadResource, ItemKind::Resource),
                catalog.resources().map(|resource| &resource.item),
            )
            .await?;
        let resources = catalog
            .resources()
            .filter(|resource| visible.names.contains(&resource.item.name))
            .map(Arc::clone);
        let resources: Vec<_> = resources.collect();
        let cursor = Cursor::parse(params).filter(|_| with_service_lists);
        let lists = match cursor {
            Some(cursor) => self.service_lists(catalog, &resources, &cursor).await?,
            None => ServiceLists::default(),
        };
        Ok((Plan::ListResources(Arc::new(resources), Arc::new(lists)), visible.grant))
    }

    /// The calls that list resources for the page at `cursor`. None while fixed resources fill the
    /// page.
    async fn service_lists(
        &self,
        catalog: &Catalog,
        visible: &[Arc<ResourceItem>],
        cursor: &Cursor,
    ) -> Result<ServiceLists, Refusal> {
        let (first, mut token) = match cursor {
            Cursor::InTemplate { template, token } => (template.as_str(), token.as_str()),
            Cursor::Start | Cursor::After(_) => ("", ""),
        };
        let fixed = visible.iter().filter(|resource| match cursor {
            Cursor::Start => !resource.is_template(),
            Cursor::After(name) => !resource.is_template() && resource.item.name > *name,
            Cursor::InTemplate { .. } => false,
        });
        if fixed.count() > PAGE_ITEMS_MAX {
            return Ok(ServiceLists::default());
        }
        let is_visible = |item: &auth::CatalogItem| {
            visible
                .iter()
                .any(|one| (&one.item.name, &one.item.service) == (&item.name, &item.service))
        };
        let mut lists: Vec<_> = catalog.lists().filter(|list| is_visible(&list.item)).collect();
        lists.sort_by_key(|list| &list.item.name);
        let mut planned = ServiceLists::default();
        for list in lists.into_iter().filter(|list| list.item.name.as_str() >= first) {
            if planned.lists.len() == LISTS_PER_PAGE_MAX {
                let template = list.item.name.clone();
                planned.next = Some(Cursor::InTemplate { template, token: String::new() });
                break;
            }
            let token = if list.item.name == first { std::mem::take(&mut token) } else { "" };
            let operation = operation(Kind::ListResources, &list.item);
            let request = list.request(token, i32::try_from(PAGE_ITEMS_MAX).unwrap_or(i32::MAX));
            match self.allow(operation, &list.target, request).await {
                Ok((call, _)) => planned.lists.push((Arc::clone(list), Arc::new(call))),
                // The policy schema may not contain the RPC that lists.
                Err(refusal @ Refusal::Denied { .. }) => refusal.record(&self.context.request_id),
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(planned)
    }

    pub(super) async fn list_prompts(
        &self,
        catalog: &Catalog,
        params: &Value,
    ) -> Result<(Plan, Grant), Refusal> {
        let after = after(params);
        let prompts = catalog.prompts_after(after.as_deref());
        let kinds = (Kind::GetPrompt, ItemKind::Prompt);
        let (prompts, grant) = self.page(kinds, prompts, |prompt| &prompt.item).await?;
        Ok((Plan::ListPrompts(Arc::new(prompts)), grant))
    }

    pub(super) async fn filter(
        &self,
        (kind, of): (Kind, ItemKind),
        items: impl Iterator<Item = &auth::CatalogItem>,
    ) -> Result<Visible, Refusal> {
        let items = items.filter(|item| self.serves(of, item)).cloned().collect();
        self.visible(kind, items).await
    }

    async fn visible(&self, kind: Kind, items: Vec<auth::CatalogItem>) -> Result<Visible, Refusal> {
        let filtering =
            self.state.authorizer.filter(self.context, self.token, self.resource, kind, items);
        let mut visible = filtering.await?;
        self.recorder.filtered(kind, &visible);
        let names = std::mem::take(&mut visible.names).into_iter().collect();
        Ok(Visible { names, grant: visible.into() })
    }
}

/// The name after which the page of a request begins. `None`: the page is the first, or the cursor
/// is invalid, which the handler rejects.
fn after(params: &Value) -> Option<String> {
    match Cursor::parse(params)? {
        Cursor::After(name) => Some(name),
        Cursor::Start | Cursor::InTemplate { .. } => None,
    }
}
