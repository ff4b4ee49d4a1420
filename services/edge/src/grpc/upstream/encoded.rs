use bytes::Bytes;
use drawbridge_proto::auth::v1 as auth;
use prost_reflect::{DynamicMessage, prost::Message as _};
use sha2::{Digest as _, Sha256};

/// A request message, encoded once. The transaction token names the digest of these bytes and the tool service gets
/// these bytes: encoding the message again could give others, since protobuf maps have no order.
#[derive(Clone, Debug)]
pub(crate) struct EncodedMessage {
    message: DynamicMessage,
    bytes: Bytes,
}

impl EncodedMessage {
    pub(crate) fn new(message: DynamicMessage) -> Self {
        Self { bytes: message.encode_to_vec().into(), message }
    }

    pub(crate) fn message(&self) -> &DynamicMessage {
        &self.message
    }

    pub(super) fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }

    /// The operation with the digest of this message, for a transaction token that opens the RPC for it.
    pub(crate) fn named_in(&self, operation: auth::Operation) -> auth::Operation {
        let message_sha256 = Some(Sha256::digest(&self.bytes).to_vec());
        auth::Operation { message_sha256, ..operation }
    }
}
