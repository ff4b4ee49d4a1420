//! Lists: what the caller may see of what the endpoint serves.

use std::{collections::HashSet, sync::Arc};

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};

use serde_json::Value;

use super::{Asking, Listed, Plan, operation};
use crate::{
    admission::authorizer::Grant,
    admission::{Cursor, PAGE_ITEMS_MAX},
    catalog::{Catalog, ItemKind, ResourceItem, ToolItem, has_ui, without_ui},
    refusal::Refusal,
};

/// The most services that are asked for one page.
const LISTS_PER_PAGE_MAX: usize = 8;

/// The names of what a caller may see of some items, and who the caller is.
pub(super) struct Visible {
    pub(super) names: HashSet<String>,
    pub(super) grant: Grant,
}

impl Asking<'_> {
    pub(super) async fn list_tools(
        &self,
        catalog: &Catalog,
        params: &Value,
    ) -> Result<(Plan, Grant), Refusal> {
        let after = after(params);
        let tools = catalog.tools_after(after.as_deref());
        let kinds = (Kind::CallTool, ItemKind::Tool);
        let (tools, grant) = self.page(kinds, tools, |tool| &tool.item).await?;
        let tools = tools.iter().map(|tool| self.of_endpoint(tool));
        Ok((Plan::ListTools(Arc::new(tools.collect())), grant))
    }

    /// What the caller may see of these items, in their order, up to one more than a page shows. Auth is asked about as
    /// many as a page needs, and about twice as many each time that too few of them are visible.
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
            // Asked about nothing, auth still says who the caller is.
            let asked = next.iter().map(|one| item(one).clone()).collect();
            let visible = self.visible(kind, asked).await?;
            let seen = next.iter().filter(|one| visible.names.contains(&item(one).name));
            page.extend(seen.map(|one| Arc::clone(one)));
            if page.len() > PAGE_ITEMS_MAX || rest.is_empty() {
                return Ok((page, visible.grant));
            }
            count *= 2;
        }
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
        Ok((Plan::ListResources(Arc::new(resources), Arc::new(listed)), visible.grant))
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
            visible
                .iter()
                .any(|one| (&one.item.name, &one.item.service) == (&item.name, &item.service))
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
            self.gate.authorizer.filter(self.context, self.token, self.resource, kind, items);
        let mut visible = filtering.await?;
        let names = std::mem::take(&mut visible.names).into_iter().collect();
        Ok(Visible { names, grant: visible.into() })
    }
}

/// The name after which the page of a request begins. None: with the first one; or the cursor is not one, which the
/// handler says.
fn after(params: &Value) -> Option<String> {
    match Cursor::of(params)? {
        Cursor::After(name) => Some(name),
        Cursor::Start | Cursor::Listed { .. } => None,
    }
}
