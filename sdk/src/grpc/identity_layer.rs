//! Refuses every RPC whose caller has no transaction token for it. Health and reflection are open: they
//! tell nothing of anybody's data.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http::{HeaderMap, Request, Response};
use tonic::{Status, body::Body};
use tower::{Layer, Service};

use crate::{
    call::TXN_TOKEN,
    identity::{IdentityError, Verifier},
};

/// Services that anybody may call.
const OPEN: [&str; 2] = ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/"];

/// Metadata by which a caller may be known. A call carries each of them once.
const CREDENTIALS: [&str; 2] = [TXN_TOKEN, "authorization"];

#[derive(Clone, Debug)]
pub(crate) struct IdentityLayer {
    verifier: Arc<Verifier>,
}

impl IdentityLayer {
    pub(crate) fn new(verifier: Arc<Verifier>) -> Self {
        Self { verifier }
    }
}

impl<S> Layer<S> for IdentityLayer {
    type Service = IdentityService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        IdentityService { inner, verifier: Arc::clone(&self.verifier) }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct IdentityService<S> {
    inner: S,
    verifier: Arc<Verifier>,
}

impl<S, B> Service<Request<B>> for IdentityService<S>
where
    S: Service<Request<B>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        if OPEN.iter().any(|open| request.uri().path().starts_with(open)) {
            return Box::pin(self.inner.call(request));
        }
        let verifier = Arc::clone(&self.verifier);
        // The service that was polled ready serves this call.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            let rpc = request.uri().path().trim_start_matches('/').to_owned();
            let ambiguous = ambiguous(request.headers());
            // Taken out, so that no handler logs it with the headers or sends it on with them.
            let token = request.headers_mut().remove(TXN_TOKEN);
            let token = token.as_ref().and_then(|value| value.to_str().ok());
            let verified = match ambiguous {
                Some(name) => Err(IdentityError::Ambiguous(name)),
                None => verifier.verify(token, &rpc).await,
            };
            match verified {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(error) => Ok(refuse(&error).into_http()),
            }
        })
    }
}

/// The name of a credential that the metadata hold more than once.
fn ambiguous(headers: &HeaderMap) -> Option<&'static str> {
    CREDENTIALS.into_iter().find(|name| headers.get_all(*name).iter().nth(1).is_some())
}

pub(super) fn refuse(error: &IdentityError) -> Status {
    tracing::info!(
        error = error as &dyn std::error::Error,
        "a call without a fitting identity is refused"
    );
    match error {
        IdentityError::Keys(_) => {
            Status::unavailable("identities cannot be verified now; try again")
        }
        _ => Status::unauthenticated(error.to_string()),
    }
}
