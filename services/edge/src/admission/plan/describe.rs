//! The instructions of services for the models of callers that may use them.

use std::{collections::BTreeSet, fmt::Write as _};

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};

use super::Planner;
use crate::{
    admitted::Plan,
    authorizer::Grant,
    catalog::{Catalog, Instructions, ItemKind},
    refusal::Refusal,
};

impl Planner<'_> {
    /// The instructions of each service of which the caller may use an item at this endpoint, and
    /// whether a tool has a UI page. They do not reveal that other services exist.
    pub(super) async fn describe(&self, catalog: &Catalog) -> Result<(Plan, Grant), Refusal> {
        let (_, grant) = self.connect().await?;
        let pages = self.has_pages(catalog).await?;
        let instructions = self.instructions(catalog).await?;
        Ok((Plan::Describe { instructions, pages }, grant))
    }

    /// Whether the caller may use a tool whose UI page this endpoint shows.
    async fn has_pages(&self, catalog: &Catalog) -> Result<bool, Refusal> {
        let tools = catalog.tools().iter().filter(|tool| self.shows_page(tool));
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
        let mut undecided: BTreeSet<&str> =
            catalog.instructions().iter().map(|one| service(one)).collect();
        let mut usable = BTreeSet::new();
        let tools: Vec<_> = catalog.tools().iter().map(|tool| &tool.item).collect();
        let resources: Vec<_> = catalog.resources().map(|resource| &resource.item).collect();
        let prompts: Vec<_> = catalog.prompts().iter().map(|prompt| &prompt.item).collect();
        for (kinds, items) in [
            ((Kind::CallTool, ItemKind::Tool), tools),
            ((Kind::ReadResource, ItemKind::Resource), resources),
            ((Kind::GetPrompt, ItemKind::Prompt), prompts),
        ] {
            let items: Vec<&auth::CatalogItem> = items
                .into_iter()
                .filter(|item| undecided.contains(item.service.as_str()))
                .collect();
            if items.is_empty() {
                continue;
            }
            let visible = self.filter(kinds, items.iter().copied()).await?;
            let shown = items.into_iter().filter(|item| visible.names.contains(&item.name));
            usable.extend(shown.map(|item| item.service.as_str()));
            undecided.retain(|service| !usable.contains(service));
        }
        let usable: Vec<_> =
            catalog.instructions().iter().filter(|one| usable.contains(service(one))).collect();
        let mut text = String::new();
        for one in &usable {
            // INVARIANT: writing to a string does not fail.
            let _ = match usable.len() {
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
