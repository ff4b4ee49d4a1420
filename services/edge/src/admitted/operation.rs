//! The operations that auth decides on.

use drawbridge_proto::auth::v1::{self as auth, operation::Kind};
use prost_reflect::{DynamicMessage, Value as Field};
use serde_json::Value;

use crate::{catalog::ResourceItem, grpc::upstream::RpcTarget};

/// The operation of reading this URI. `None`: the URI does not match the template of this resource.
pub(crate) fn read_operation(resource: &ResourceItem, uri: &str) -> Option<auth::Operation> {
    let mut message = DynamicMessage::new(resource.target.input());
    for (name, value) in resource.uri.matches(uri)? {
        message.set_field_by_name(&name, Field::String(value));
    }
    Some(operation_on(Kind::ReadResource, &resource.item, &resource.target, &message))
}

/// An operation without arguments.
pub(crate) fn operation(kind: Kind, item: &auth::CatalogItem) -> auth::Operation {
    auth::Operation { kind: kind.into(), item: Some(item.clone()), ..Default::default() }
}

/// An operation with the arguments in `message`.
pub(crate) fn operation_on(
    kind: Kind,
    item: &auth::CatalogItem,
    target: &RpcTarget,
    message: &DynamicMessage,
) -> auth::Operation {
    let text = |json: Value| json.to_string().into_bytes().into();
    auth::Operation {
        arguments_json: Some(text(target.policy_form.json(message))),
        recorded_arguments_json: target.policy_form.redacted_json(message).map(text),
        ..operation(kind, item)
    }
}
