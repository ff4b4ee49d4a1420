//! What services list of their resource templates.

use drawbridge_sdk::dynamic::WireMessage;
use futures::{StreamExt as _, stream};
use rmcp::model::Resource;

use super::{
    Handler,
    call::{Answers, Calling, Ended, Failure, log_failure},
    content,
    exchange::Exchange,
};
use crate::{
    admission::{Admission, Call, Cursor, Listed, PAGE_ITEMS_MAX, reading},
    catalog::ListItem,
};

/// The most resources of one page of a service. What is more is dropped.
const LISTED_MAX: usize = 5 * PAGE_ITEMS_MAX;
/// Decisions that are asked for at once, whether resources may be read.
const DECISIONS_AT_ONCE: usize = 16;

/// Fills a page of `resources/list`.
pub(super) struct Listing<'a> {
    pub(super) handler: &'a Handler,
    pub(super) admission: &'a Admission,
    pub(super) exchange: &'a Exchange,
}

impl Listing<'_> {
    /// Adds what services list until the page is full. Gives back where the list goes on. A service that cannot be
    /// asked is passed over: those of the others are still to be had.
    pub(super) async fn fill(&self, page: &mut Vec<Resource>, listed: &Listed) -> Option<Cursor> {
        for (list, call) in &listed.lists {
            let next = |token| Some(Cursor::Listed { template: list.item.name.clone(), token });
            if page.len() >= PAGE_ITEMS_MAX {
                return next(String::new());
            }
            let Some(message) = self.call(list, call).await else { continue };
            let Ok((resources, token)) = content::listed(&message, LISTED_MAX) else {
                tracing::warn!(rpc = list.item.rpc, "a service's list does not fit its contract");
                continue;
            };
            page.extend(self.readable(list, resources).await);
            let Some(token) = token else { continue };
            let cursor = next(token);
            if cursor.as_ref().is_some_and(|cursor| cursor.text().is_some()) {
                return cursor;
            }
            tracing::warn!(
                rpc = list.item.rpc,
                "a service's page token is too long; its list ends here"
            );
        }
        listed.next.clone()
    }

    async fn call(&self, list: &ListItem, call: &Call) -> Option<WireMessage> {
        let Self { handler, admission, exchange } = *self;
        let calling = Calling { handler, admission, exchange, target: &list.target, call };
        match calling.run(Answers::default()).await {
            Ok(Ended::Result(message, _)) => return Some(message),
            Err(Failure::Status(status)) => log_failure(admission, &status),
            Ok(_) | Err(_) => {}
        }
        tracing::warn!(
            template = list.item.name,
            rpc = list.item.rpc,
            "a service does not list its resources"
        );
        None
    }

    /// Those that belong to the template, and that the caller may read.
    async fn readable(&self, list: &ListItem, resources: Vec<Resource>) -> Vec<Resource> {
        let decided = resources.into_iter().map(|resource| async move {
            let Some(operation) = reading(&list.resource, &resource.uri) else {
                tracing::warn!(
                    rpc = list.item.rpc,
                    "a service lists a resource that is not of its template"
                );
                return None;
            };
            let allowed = self.admission.again.of(operation.into()).ask().await;
            allowed.is_ok().then(|| self.guarded(list, resource))
        });
        stream::iter(decided)
            .buffered(DECISIONS_AT_ONCE)
            .filter_map(async |one| one)
            .collect()
            .await
    }

    fn guarded(&self, list: &ListItem, mut resource: Resource) -> Resource {
        let texts =
            [Some(&mut resource.name), resource.title.as_mut(), resource.description.as_mut()];
        self.handler.guards.texts(&list.item.name, texts.into_iter().flatten());
        resource
    }
}
