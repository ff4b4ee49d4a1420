use std::sync::Arc;

use bytes::Bytes;
use drawbridge_proto::auth::v1 as auth;
use prost_reflect::{DynamicMessage, prost::Message as _};
use sha2::{Digest as _, Sha256};

/// A request message, encoded once. The transaction token contains the digest of these bytes, and
/// the tool service receives these bytes: protobuf maps have no order, so encoding the message
/// again could give other bytes.
#[derive(Clone, Debug)]
pub(crate) struct EncodedMessage {
    message: Arc<DynamicMessage>,
    bytes: Bytes,
}

impl EncodedMessage {
    pub(crate) fn new(message: DynamicMessage) -> Self {
        Self { bytes: message.encode_to_vec().into(), message: Arc::new(message) }
    }

    pub(crate) fn message(&self) -> &DynamicMessage {
        &self.message
    }

    pub(super) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// Adds the digest of this message to the operation, for a transaction token bound to it.
    pub(crate) fn bind_digest(&self, operation: auth::Operation) -> auth::Operation {
        let message_sha256 = Some(Sha256::digest(&self.bytes).to_vec());
        auth::Operation { message_sha256, ..operation }
    }
}
