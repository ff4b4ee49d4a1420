//! The service `tickets`, through the edge.

use drawbridge_tests::Reply;
use serde_json::Value;

pub(crate) mod helpdesks;
mod replies;
mod sample;
mod summaries;

/// The structured result of a successful call.
fn result(reply: &Reply) -> &Value {
    assert_ne!(reply.json["result"]["isError"], true, "{reply:?}");
    let result = &reply.json["result"]["structuredContent"];
    assert!(result.is_object(), "{reply:?}");
    result
}
