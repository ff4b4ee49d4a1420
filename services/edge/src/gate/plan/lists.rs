//! Lists: what the caller may see of what the endpoint serves.

use std::sync::Arc;

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};

use serde_json::Value;

use super::{Asking, Listed, Plan, operation};
use crate::{
    authorizer::Grant,
    catalog::{Catalog, ItemKind, ResourceItem, ToolItem, has_ui, without_ui},
    gate::{Cursor, PAGE_ITEMS_MAX},
    refusal::Refusal,
};

/// The most services that are asked for one page.
const LISTS_PER_PAGE_MAX: usize = 8;

impl Asking<'_> {
    pub(super) async fn list_tools(&self, catalog: &Catalog) -> Result<(Plan, Grant), Refusal> {
        let visible =
            self.filter((Kind::CallTool, ItemKind::Tool), catalog.tools().map(|tool| &tool.item)).await?;
        let tools = catalog.tools().filter(|tool| visible.names.contains(&tool.item.name));
        let tools = tools.map(|tool| self.of_endpoint(tool));
        Ok((Plan::ListTools(Arc::new(tools.collect())), visible.into()))
    }

    /// Whether a tool's page (MCP Apps) is shown at this endpoint: a page may call any tool of the server that it comes
    /// from, so it is shown where that is its own service.
    pub(super) fn shows_page(&self, tool: &ToolItem) -> bool {
        self.endpoint == Some(tool.item.service.as_str()) && has_ui(tool.tool.meta.as_ref())
    }

    /// The tool as this endpoint shows it.
    fn of_endpoint(&self, tool: &Arc<ToolItem>) -> Arc<ToolItem> {
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
        listed: bool,
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
        let listed = match Cursor::of(params).filter(|_| listed) {
            Some(cursor) => self.listed(catalog, &resources, &cursor).await?,
            None => Listed::default(),
        };
        Ok((Plan::ListResources(Arc::new(resources), Arc::new(listed)), visible.into()))
    }

    /// What services are asked for the page at `cursor`: nothing while fixed resources fill it.
    async fn listed(
        &self,
        catalog: &Catalog,
        visible: &[Arc<ResourceItem>],
        cursor: &Cursor,
    ) -> Result<Listed, Refusal> {
        let (first, mut token) = match cursor {
            Cursor::Listed { template, token } => (template.as_str(), token.as_str()),
            Cursor::Start | Cursor::After(_) => ("", ""),
        };
        let fixed = visible.iter().filter(|resource| match cursor {
            Cursor::Start => !resource.is_template(),
            Cursor::After(name) => !resource.is_template() && resource.item.name > *name,
            Cursor::Listed { .. } => false,
        });
        if fixed.count() > PAGE_ITEMS_MAX {
            return Ok(Listed::default());
        }
        let is_visible = |item: &auth::CatalogItem| {
            visible.iter().any(|one| (&one.item.name, &one.item.service) == (&item.name, &item.service))
        };
        let mut lists: Vec<_> = catalog.lists().filter(|list| is_visible(&list.item)).collect();
        lists.sort_by_key(|list| &list.item.name);
        let mut listed = Listed::default();
        for list in lists.into_iter().filter(|list| list.item.name.as_str() >= first) {
            if listed.lists.len() == LISTS_PER_PAGE_MAX {
                let template = list.item.name.clone();
                listed.next = Some(Cursor::Listed { template, token: String::new() });
                break;
            }
            let token = if list.item.name == first { std::mem::take(&mut token) } else { "" };
            let operation = operation(Kind::ListResources, &list.item);
            let request = list.request(token, i32::try_from(PAGE_ITEMS_MAX).unwrap_or(i32::MAX));
            match self.allow(operation, &list.target, request).await {
                Ok((call, _)) => listed.lists.push((Arc::clone(list), Arc::new(call))),
                // The catalog of policies may not know the RPC that lists.
                Err(refusal @ Refusal::Denied { .. }) => refusal.record(&self.context.request_id),
                Err(refusal) => return Err(refusal),
            }
        }
        Ok(listed)
    }

    pub(super) async fn list_prompts(&self, catalog: &Catalog) -> Result<(Plan, Grant), Refusal> {
        let visible = self
            .filter((Kind::GetPrompt, ItemKind::Prompt), catalog.prompts().map(|prompt| &prompt.item))
            .await?;
        let prompts =
            catalog.prompts().filter(|prompt| visible.names.contains(&prompt.item.name)).map(Arc::clone);
        Ok((Plan::ListPrompts(Arc::new(prompts.collect())), visible.into()))
    }

    pub(super) async fn filter(
        &self,
        (kind, of): (Kind, ItemKind),
        items: impl Iterator<Item = &auth::CatalogItem>,
    ) -> Result<auth::Visible, Refusal> {
        let items = items.filter(|item| self.serves(of, item)).cloned().collect();
        self.gate.authorizer.filter(self.context, self.token, self.resource, kind, items).await
    }
}
