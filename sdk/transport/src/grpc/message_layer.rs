//! Reads the one message of each call to a tool service before its handler does: it must be the
//! message that the transaction token is for, and no string in it may contain NUL.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::{Buf as _, Bytes};
use drawbridge_runtime::{
    LogLimit,
    bounded::{self, BodyError},
};
use http::{Request, Response};
use http_body_util::Full;
use prost_reflect::{DescriptorError, DescriptorPool, MessageDescriptor};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use super::{nul, transaction_token_layer::reject};
use crate::{call::CallContext, transaction_token::VerifiedCaller};

/// The frame before a message: the compression flag and the length.
const FRAME_BYTES: usize = 5;

/// Checks the request messages of a tool service.
#[derive(Debug)]
pub(super) struct MessageChecker {
    /// The request types, by `package.Service/Method`.
    inputs: HashMap<String, MessageDescriptor>,
    bytes_max: usize,
    refusals: Arc<LogLimit>,
}

impl MessageChecker {
    /// A checker for an encoded `FileDescriptorSet` and messages of at most `bytes_max` bytes, which
    /// logs refusals as `refusals` permits.
    pub(super) fn new(
        descriptors: &[u8],
        bytes_max: usize,
        refusals: Arc<LogLimit>,
    ) -> Result<Self, DescriptorError> {
        let pool = DescriptorPool::decode(descriptors)?;
        let methods = pool.services().flat_map(|service| service.methods().collect::<Vec<_>>());
        let inputs = methods
            .filter(|method| !method.is_client_streaming())
            .map(|method| {
                (
                    format!("{}/{}", method.parent_service().full_name(), method.name()),
                    method.input(),
                )
            })
            .collect();
        Ok(Self { inputs, bytes_max, refusals })
    }

    /// Reads and checks the message of a call to `rpc`. Returns the body unchanged.
    async fn check(&self, rpc: &str, caller: &VerifiedCaller, body: Body) -> Result<Body, Status> {
        // Client-streaming RPCs are not tools: an authorization decision covers one message.
        let input = self.inputs.get(rpc).ok_or_else(|| {
            Status::unimplemented("the service has no RPC of this name that takes one message")
        })?;
        let body = self.read(body).await?;
        let message = message(&body)?;
        caller.check_message(message).map_err(|error| reject(&error, &self.refusals))?;
        match nul::find(input, message) {
            Ok(None) => Ok(Body::new(Full::new(body))),
            Ok(Some(field)) => {
                let refused = format!("{field}: must not contain the character NUL (U+0000)");
                Err(Status::invalid_argument(refused))
            }
            Err(error) => {
                tracing::debug!(%error, "a request message cannot be decoded");
                Err(Status::invalid_argument("the message does not match the contract"))
            }
        }
    }

    async fn read(&self, body: Body) -> Result<Bytes, Status> {
        let bytes_max = self.bytes_max;
        bounded::read_body(body, FRAME_BYTES + bytes_max).await.map_err(|error| match error {
            BodyError::TooLarge { .. } => {
                Status::out_of_range(format!("a request may have at most {bytes_max} bytes"))
            }
            BodyError::Read(error) => {
                tracing::debug!(%error, "a request ended early");
                Status::cancelled("the request ended early")
            }
        })
    }
}

/// The message in a body, which must be exactly one.
fn message(mut body: &[u8]) -> Result<&[u8], Status> {
    if body.len() < FRAME_BYTES {
        return Err(Status::invalid_argument("the request contains no message"));
    }
    let (compressed, length) = (body.get_u8(), body.get_u32());
    if compressed != 0 {
        return Err(Status::unimplemented("compressed requests are not supported"));
    }
    if usize::try_from(length).ok() != Some(body.len()) {
        return Err(Status::invalid_argument(
            "the request must contain exactly one complete message",
        ));
    }
    Ok(body)
}

#[derive(Clone, Debug)]
pub(super) struct MessageLayer(Arc<MessageChecker>);

impl MessageLayer {
    pub(super) fn new(checker: MessageChecker) -> Self {
        Self(Arc::new(checker))
    }
}

impl<S> Layer<S> for MessageLayer {
    type Service = MessageService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        MessageService { inner, checker: Arc::clone(&self.0) }
    }
}

#[derive(Clone, Debug)]
pub(super) struct MessageService<S> {
    inner: S,
    checker: Arc<MessageChecker>,
}

impl<S> Service<Request<Body>> for MessageService<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        // Public services have no caller.
        let Some(caller) = request.extensions().get::<VerifiedCaller>().cloned() else {
            return Box::pin(self.inner.call(request));
        };
        let checker = Arc::clone(&self.checker);
        // The service that was polled ready serves this call.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let rpc = parts.uri.path().trim_start_matches('/');
            let checking = checker.check(rpc, &caller, body);
            // INVARIANT: `CallLayer` runs before this layer.
            let deadline = parts.extensions.get().map(|context: &CallContext| context.deadline);
            let checked = match deadline {
                Some(deadline) => {
                    tokio::time::timeout_at(deadline.into(), checking).await.unwrap_or_else(|_| {
                        Err(Status::deadline_exceeded("the request is incomplete"))
                    })
                }
                None => checking.await,
            };
            match checked {
                Ok(body) => inner.call(Request::from_parts(parts, body)).await,
                Err(refused) => Ok(refused.into_http()),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use tonic::Code;

    use super::*;

    #[test]
    fn a_body_is_exactly_one_uncompressed_message() {
        let framed = |flag: u8, length: u32, message: &[u8]| {
            [[flag].as_slice(), &length.to_be_bytes(), message].concat()
        };
        assert_eq!(message(&framed(0, 2, b"ab")).unwrap(), b"ab");
        assert_eq!(message(&framed(0, 0, b"")).unwrap(), b"");
        let refused = |body: &[u8]| message(body).unwrap_err().code();
        for body in [Vec::new(), vec![0, 0, 0, 0], framed(0, 3, b"ab"), framed(0, 1, b"ab")] {
            assert_eq!(refused(&body), Code::InvalidArgument, "{body:?}");
        }
        let two = [framed(0, 1, b"a"), framed(0, 1, b"b")].concat();
        assert_eq!(refused(&two), Code::InvalidArgument);
        assert_eq!(refused(&framed(1, 2, b"ab")), Code::Unimplemented);
    }
}
