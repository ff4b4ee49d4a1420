//! Lists: what the caller may see of what the endpoint serves.

use std::sync::Arc;

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};

use super::{Asking, Plan};
use crate::{
    authorizer::Grant,
    catalog::{Catalog, ItemKind},
    refusal::Refusal,
};

impl Asking<'_> {
    pub(super) async fn list_tools(&self, catalog: &Catalog) -> Result<(Plan, Grant), Refusal> {
        let visible =
            self.filter((Kind::CallTool, ItemKind::Tool), catalog.tools().map(|tool| &tool.item)).await?;
        let tools = catalog.tools().filter(|tool| visible.names.contains(&tool.item.name)).map(Arc::clone);
        Ok((Plan::ListTools(Arc::new(tools.collect())), visible.into()))
    }

    pub(super) async fn list_resources(&self, catalog: &Catalog) -> Result<(Plan, Grant), Refusal> {
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
        Ok((Plan::ListResources(Arc::new(resources.collect())), visible.into()))
    }

    pub(super) async fn list_prompts(&self, catalog: &Catalog) -> Result<(Plan, Grant), Refusal> {
        let visible = self
            .filter((Kind::GetPrompt, ItemKind::Prompt), catalog.prompts().map(|prompt| &prompt.item))
            .await?;
        let prompts =
            catalog.prompts().filter(|prompt| visible.names.contains(&prompt.item.name)).map(Arc::clone);
        Ok((Plan::ListPrompts(Arc::new(prompts.collect())), visible.into()))
    }

    async fn filter(
        &self,
        (kind, of): (Kind, ItemKind),
        items: impl Iterator<Item = &auth::CatalogItem>,
    ) -> Result<auth::Visible, Refusal> {
        let items = items.filter(|item| self.serves(of, item)).cloned().collect();
        self.gate.authorizer.filter(self.context, self.token, self.resource, kind, items).await
    }
}
