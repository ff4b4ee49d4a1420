//! Lists: the items of the endpoint that the caller may see.

use std::sync::Arc;

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};

use serde_json::Value;

use super::Planner;
use crate::{
    admitted::{
        Cursor, ListedTool, PAGE_ITEMS_MAX, Plan, ServiceLists, TOOL_PAGE_BYTES_MAX,
        TOOL_PAGE_ITEMS_MAX, ToolPage, operation,
    },
    authorizer::{Grant, ItemList, Visible},
    catalog::{Catalog, ItemKind, ResourceItem, ToolForm, ToolItem, has_ui},
    refusal::Refusal,
};

/// The most services that are called for one page.
const LISTS_PER_PAGE_MAX: usize = 8;

impl Planner<'_> {
    pub(super) async fn list_tools(
        &self,
        catalog: &Catalog,
        params: &Value,
    ) -> Result<(Plan, Grant), Refusal> {
        let tools = catalog.tools();
        let start =
            after(params).map_or(0, |name| tools.partition_point(|tool| *tool.tool.name <= *name));
        let kinds = (Kind::CallTool, ItemKind::Tool);
        let (found, grant) =
            self.page(kinds, tools, start, TOOL_PAGE_ITEMS_MAX, |tool| &tool.item).await?;
        let (mut tools, mut bytes) = (Vec::with_capacity(found.len()), 0);
        for tool in &found {
            let with_ui = self.shows_page(tool);
            // No form is longer.
            bytes += tool
                .json(ToolForm { with_ui, with_any_output: true })
                .map_or(0, |json| json.get().len());
            let is_full = tools.len() == TOOL_PAGE_ITEMS_MAX
                || !tools.is_empty() && bytes > TOOL_PAGE_BYTES_MAX;
            if is_full {
                break;
            }
            tools.push(ListedTool { tool: Arc::clone(tool), with_ui });
        }
        let last = tools.last().filter(|_| tools.len() < found.len());
        let next = last.and_then(|last| Cursor::After(last.tool.tool.name.to_string()).encode());
        Ok((Plan::ListTools(Arc::new(ToolPage { tools, next })), grant))
    }

    /// The visible ones of these items from `start` on, in their order, up to one more than fits
    /// on a page. Auth is asked about items that no earlier list of the caller has asked about:
    /// first about as many as a page needs; while too few are visible, each next request contains
    /// twice as many.
    async fn page<T>(
        &self,
        (kind, of): (Kind, ItemKind),
        items: &[Arc<T>],
        start: usize,
        items_max: usize,
        item: fn(&T) -> &auth::CatalogItem,
    ) -> Result<(Vec<Arc<T>>, Grant), Refusal> {
        let list = ItemList { kind, catalog: self.catalog.number() };
        let authorizer = &self.state.authorizer;
        let known = authorizer.visible_items(self.token, self.resource, list);
        let (mut known, mut count) = (known.starting_at(start), items_max + 1);
        loop {
            // Without items, auth still authenticates the caller.
            if let Some(decision) = known.decision() {
                let page: Vec<_> = known.visible_from(start).take(items_max + 1).collect();
                if page.len() > items_max || known.end() == items.len() {
                    self.recorder.filtered(kind, decision);
                    let page = page.into_iter().map(|place| Arc::clone(&items[place]));
                    return Ok((page.collect(), decision.grant()));
                }
            }
            let (mut asked, mut taken) = (Vec::new(), 0);
            let rest = &items[known.end()..];
            for one in rest {
                if asked.len() == count {
                    break;
                }
                taken += 1;
                if self.serves(of, item(one)) {
                    asked.push(item(one).clone());
                }
            }
            let visible = self.visible(kind, asked).await?;
            // What the endpoint does not serve is not visible.
            let is_visible = |one: &Arc<T>| {
                visible.names.contains(&item(one).name) && self.serves(of, item(one))
            };
            known.extend(&visible, rest[..taken].iter().map(is_visible));
            authorizer.remember_visible(&known);
            count *= 2;
        }
    }

    /// Whether this endpoint shows the UI page of a tool (MCP Apps). A page may call any tool of
    /// its server, so only the endpoint of its own service shows it.
    pub(super) fn shows_page(&self, tool: &ToolItem) -> bool {
        self.endpoint == Some(tool.item.service.as_str()) && has_ui(tool.tool.meta.as_ref())
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
        Ok((Plan::ListResources(Arc::new(resources), Arc::new(lists)), visible.decision.grant()))
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
        let prompts = catalog.prompts();
        let start = after(params)
            .map_or(0, |name| prompts.partition_point(|prompt| prompt.item.name <= name));
        let kinds = (Kind::GetPrompt, ItemKind::Prompt);
        let (prompts, grant) =
            self.page(kinds, prompts, start, PAGE_ITEMS_MAX, |prompt| &prompt.item).await?;
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
        let visible = filtering.await?;
        self.recorder.filtered(kind, &visible.decision);
        Ok(visible)
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
