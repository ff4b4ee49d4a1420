//! Resources that services list for their resource templates.

use drawbridge_contract::dynamic::WireMessage;
use futures::{StreamExt as _, stream};
use rmcp::model::Resource;

use super::{
    MethodHandler,
    call::{CallFailure, CallOutcome, CallRunner, ClientInput, log_failure},
    content,
    exchange::Exchange,
};
use crate::{
    admitted::{Admission, Call, Cursor, PAGE_ITEMS_MAX, ServiceLists, read_operation},
    catalog::ListItem,
};

/// The most resources of one page of a service. Excess resources are dropped.
const LISTED_MAX: usize = 5 * PAGE_ITEMS_MAX;
/// How many decisions about listed resources run at once.
const DECISIONS_AT_ONCE: usize = 16;

/// Fills a page of `resources/list`.
pub(super) struct ResourceLister<'a> {
    pub(super) handler: &'a MethodHandler,
    pub(super) admission: &'a Admission,
    pub(super) exchange: &'a Exchange,
}

impl ResourceLister<'_> {
    /// Adds listed resources until the page is full, and returns the cursor of the next page. A
    /// service that fails is skipped, so that the others remain available.
    pub(super) async fn fill(
        &self,
        page: &mut Vec<Resource>,
        listed: &ServiceLists,
    ) -> Option<Cursor> {
        for (list, call) in &listed.lists {
            let next = |token| Some(Cursor::InTemplate { template: list.item.name.clone(), token });
            if page.len() >= PAGE_ITEMS_MAX {
                return next(String::new());
            }
            let Some(message) = self.call(list, call).await else { continue };
            let Ok((resources, token)) = content::listed(&message, LISTED_MAX) else {
                tracing::warn!(
                    rpc = list.item.rpc,
                    "a service's resource list does not fit its contract"
                );
                continue;
            };
            page.extend(self.readable(list, resources).await);
            let Some(token) = token else { continue };
            let cursor = next(token);
            if cursor.as_ref().is_some_and(|cursor| cursor.encode().is_some()) {
                return cursor;
            }
            tracing::warn!(
                rpc = list.item.rpc,
                "a service's page token is too long; its resource list is cut off"
            );
        }
        listed.next.clone()
    }

    async fn call(&self, list: &ListItem, call: &Call) -> Option<WireMessage> {
        let Self { handler, admission, exchange } = *self;
        let runner =
            CallRunner { handler, admission, exchange, target: &list.target, caching: None, call };
        match runner.run(ClientInput::default()).await {
            Ok(CallOutcome::Result(message, _)) => return Some(message),
            Err(CallFailure::Status(status)) => log_failure(admission, &status),
            Ok(_) | Err(_) => {}
        }
        tracing::warn!(
            template = list.item.name,
            rpc = list.item.rpc,
            "a service failed to list its resources"
        );
        None
    }

    /// Filters the resources that belong to the template and that the caller may read.
    async fn readable(&self, list: &ListItem, resources: Vec<Resource>) -> Vec<Resource> {
        let decided = resources.into_iter().map(|resource| async move {
            let Some(operation) = read_operation(&list.resource, &resource.uri) else {
                tracing::warn!(
                    rpc = list.item.rpc,
                    "a service lists a resource that does not match its template"
                );
                return None;
            };
            let allowed =
                self.admission.reauthorizer.for_operation(operation.into()).reauthorize().await;
            allowed.is_ok().then(|| self.guard(list, resource))
        });
        stream::iter(decided)
            .buffered(DECISIONS_AT_ONCE)
            .filter_map(async |resource| resource)
            .collect()
            .await
    }

    fn guard(&self, list: &ListItem, mut resource: Resource) -> Resource {
        let texts =
            [Some(&mut resource.name), resource.title.as_mut(), resource.description.as_mut()];
        let item = self.admission.recorder.guarded(&list.item.name);
        self.handler.guards.texts(item, texts.into_iter().flatten());
        resource
    }
}
