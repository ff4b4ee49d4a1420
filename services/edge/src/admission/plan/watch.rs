//! Plans subscriptions to changes of resources.

use std::sync::Arc;

use drawbridge_proto::auth::v1::operation::Kind;
use prost_reflect::{DynamicMessage, Value as Field};

use super::Planner;
use crate::{
    admitted::{Plan, ResourceWatch, operation_on},
    authorizer::Grant,
    catalog::{Catalog, ItemKind},
    refusal::Refusal,
    truncate::truncate,
};

/// The longest URI of a watched resource, in bytes: it stays in memory as long as the watch.
const WATCHED_URI_BYTES_MAX: usize = 2048;
/// How many resources one request may watch.
const WATCHES_MAX: usize = 64;

impl Planner<'_> {
    /// Watches all of these resources or none: a client that is notified of some would assume that
    /// the others are unchanged.
    pub(super) async fn watch(
        &self,
        catalog: &Catalog,
        uris: &[&str],
    ) -> Result<(Plan, Grant), Refusal> {
        if uris.len() > WATCHES_MAX {
            return self
                .invalid_params(&format!("at most {WATCHES_MAX} resources can be watched"))
                .await;
        }
        let mut watches: Vec<ResourceWatch> = Vec::new();
        for uri in uris {
            if uri.len() > WATCHED_URI_BYTES_MAX {
                return self
                    .invalid_params(&format!(
                        "{} is longer than {WATCHED_URI_BYTES_MAX} bytes",
                        truncate(uri)
                    ))
                    .await;
            }
            if watches.iter().any(|watch| watch.uri == **uri) {
                continue;
            }
            let found = catalog.resource(uri);
            if found.is_none() {
                match self.absent(Kind::ReadResource, ItemKind::Resource, uri).await {
                    Ok((Plan::Connect, _)) | Err(Refusal::Denied { is_hidden: true, .. }) => {}
                    planned => return planned,
                }
            }
            let found =
                found.filter(|(resource, _)| self.serves(ItemKind::Resource, &resource.item));
            let watched = found.and_then(|(resource, variables)| {
                Some((resource, catalog.watch(&resource.item)?, variables))
            });
            let Some((resource, item, variables)) = watched else {
                return self.invalid_params(&format!("{} cannot be watched", truncate(uri))).await;
            };
            // Authorized with the same arguments as reading the resource.
            let mut read = DynamicMessage::new(resource.target.input());
            for (name, value) in &variables {
                read.set_field_by_name(name, Field::String(value.clone()));
            }
            let operation = operation_on(Kind::WatchResource, &item.item, &resource.target, &read);
            let allowed = self.allow(operation, &item.target, item.request(variables)).await;
            let (call, _) = match allowed {
                Err(Refusal::Denied { is_hidden: true, .. }) => {
                    return self
                        .invalid_params(&format!("{} cannot be watched", truncate(uri)))
                        .await;
                }
                allowed => allowed?,
            };
            watches.push(ResourceWatch {
                uri: (*uri).to_owned(),
                item: Arc::clone(item),
                call: Arc::new(call),
            });
        }
        let (_, grant) = self.connect().await?;
        Ok((Plan::Watch(Arc::new(watches)), grant))
    }
}
