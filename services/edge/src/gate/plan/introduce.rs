//! What services tell models of themselves, for those who may use them.

use std::{collections::BTreeSet, fmt::Write as _};

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};

use super::{Asking, Plan};
use crate::{
    authorizer::Grant,
    catalog::{Catalog, Instructions, ItemKind},
    refusal::Refusal,
};

impl Asking<'_> {
    /// The instructions of each service of which the caller may use something at this endpoint. Nobody learns by them
    /// that there are others.
    pub(super) async fn introduce(&self, catalog: &Catalog) -> Result<(Plan, Grant), Refusal> {
        let (_, grant) = self.connect().await?;
        let mut told: BTreeSet<&str> = catalog.instructions().iter().map(|one| service(one)).collect();
        if told.is_empty() {
            return Ok((Plan::Introduce(String::new()), grant));
        }
        let mut open = BTreeSet::new();
        let tools: Vec<_> = catalog.tools().map(|tool| &tool.item).collect();
        let resources: Vec<_> = catalog.resources().map(|resource| &resource.item).collect();
        let prompts: Vec<_> = catalog.prompts().map(|prompt| &prompt.item).collect();
        for (kinds, items) in [
            ((Kind::CallTool, ItemKind::Tool), tools),
            ((Kind::ReadResource, ItemKind::Resource), resources),
            ((Kind::GetPrompt, ItemKind::Prompt), prompts),
        ] {
            let items: Vec<&auth::CatalogItem> =
                items.into_iter().filter(|item| told.contains(item.service.as_str())).collect();
            if items.is_empty() {
                continue;
            }
            let visible = self.filter(kinds, items.iter().copied()).await?;
            let seen = items.into_iter().filter(|item| visible.names.contains(&item.name));
            open.extend(seen.map(|item| item.service.as_str()));
            told.retain(|service| !open.contains(service));
        }
        let open: Vec<_> = catalog.instructions().iter().filter(|one| open.contains(service(one))).collect();
        let mut text = String::new();
        for one in &open {
            // Writing to a string cannot fail.
            let _ = match open.len() {
                1 => write!(text, "{}", one.text),
                _ => write!(text, "{}: {}\n\n", service(one), one.text),
            };
        }
        text.truncate(text.trim_end().len());
        Ok((Plan::Introduce(text), grant))
    }
}

fn service(instructions: &Instructions) -> &str {
    &instructions.item.service
}
