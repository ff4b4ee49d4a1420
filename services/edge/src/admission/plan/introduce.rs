//! What services tell models of themselves, for those who may use them.

use std::{collections::BTreeSet, fmt::Write as _};

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};

use super::{Asking, Plan};
use crate::{
    admission::authorizer::Grant,
    catalog::{Catalog, Instructions, ItemKind},
    refusal::Refusal,
};

impl Asking<'_> {
    /// The instructions of each service of which the caller may use something at this endpoint, and whether a tool has
    /// a page. Nobody learns by them that there are others.
    pub(super) async fn introduce(&self, catalog: &Catalog) -> Result<(Plan, Grant), Refusal> {
        let (_, grant) = self.connect().await?;
        let pages = self.has_pages(catalog).await?;
        let instructions = self.instructions(catalog).await?;
        Ok((Plan::Introduce { instructions, pages }, grant))
    }

    /// Whether the caller may use a tool that this endpoint shows with a page.
    async fn has_pages(&self, catalog: &Catalog) -> Result<bool, Refusal> {
        let tools = catalog.tools().filter(|tool| self.shows_page(tool));
        let tools: Vec<_> = tools.map(|tool| &tool.item).collect();
        if tools.is_empty() {
            return Ok(false);
        }
        Ok(!self
            .filter((Kind::CallTool, ItemKind::Tool), tools.into_iter())
            .await?
            .names
            .is_empty())
    }

    async fn instructions(&self, catalog: &Catalog) -> Result<String, Refusal> {
        let mut introduced: BTreeSet<&str> =
            catalog.instructions().iter().map(|one| service(one)).collect();
        let mut open = BTreeSet::new();
        let tools: Vec<_> = catalog.tools().map(|tool| &tool.item).collect();
        let resources: Vec<_> = catalog.resources().map(|resource| &resource.item).collect();
        let prompts: Vec<_> = catalog.prompts().map(|prompt| &prompt.item).collect();
        for (kinds, items) in [
            ((Kind::CallTool, ItemKind::Tool), tools),
            ((Kind::ReadResource, ItemKind::Resource), resources),
            ((Kind::GetPrompt, ItemKind::Prompt), prompts),
        ] {
            let items: Vec<&auth::CatalogItem> = items
                .into_iter()
                .filter(|item| introduced.contains(item.service.as_str()))
                .collect();
            if items.is_empty() {
                continue;
            }
            let visible = self.filter(kinds, items.iter().copied()).await?;
            let seen = items.into_iter().filter(|item| visible.names.contains(&item.name));
            open.extend(seen.map(|item| item.service.as_str()));
            introduced.retain(|service| !open.contains(service));
        }
        let open: Vec<_> =
            catalog.instructions().iter().filter(|one| open.contains(service(one))).collect();
        let mut text = String::new();
        for one in &open {
            // Writing to a string cannot fail.
            let _ = match open.len() {
                1 => write!(text, "{}", one.text),
                _ => write!(text, "{}: {}\n\n", service(one), one.text),
            };
        }
        text.truncate(text.trim_end().len());
        Ok(text)
    }
}

fn service(instructions: &Instructions) -> &str {
    &instructions.item.service
}
