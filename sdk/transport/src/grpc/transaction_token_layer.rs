//! Rejects every RPC whose caller has no transaction token for it. Health and reflection are
//! public: they reveal no one's data.

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
    transaction_token::{TransactionTokenError, Verifier},
};

/// Services that need no transaction token.
const PUBLIC_SERVICES: [&str; 2] =
    ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/"];

/// Metadata with credentials. A call carries each of them at most once.
const CREDENTIAL_HEADERS: [&str; 2] = [TXN_TOKEN, "authorization"];

#[derive(Clone, Debug)]
pub(crate) struct TransactionTokenLayer {
    verifier: Arc<Verifier>,
}

impl TransactionTokenLayer {
    pub(crate) fn new(verifier: Arc<Verifier>) -> Self {
        Self { verifier }
    }
}

impl<S> Layer<S> for TransactionTokenLayer {
    type Service = TransactionTokenService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TransactionTokenService { inner, verifier: Arc::clone(&self.verifier) }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct TransactionTokenService<S> {
    inner: S,
    verifier: Arc<Verifier>,
}

impl<S, B> Service<Request<B>> for TransactionTokenService<S>
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
        if PUBLIC_SERVICES.iter().any(|service| request.uri().path().starts_with(service)) {
            return Box::pin(self.inner.call(request));
        }
        let verifier = Arc::clone(&self.verifier);
        // The service that was polled ready serves this call.
        let fresh = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, fresh);
        Box::pin(async move {
            let rpc = request.uri().path().trim_start_matches('/').to_owned();
            let ambiguous = ambiguous(request.headers());
            // Removed, so that no handler logs or forwards it with the headers.
            let token = request.headers_mut().remove(TXN_TOKEN);
            let token = token.as_ref().and_then(|value| value.to_str().ok());
            let verified = match ambiguous {
                Some(name) => Err(TransactionTokenError::Ambiguous(name)),
                None => verifier.verify(token, &rpc).await,
            };
            match verified {
                Ok(caller) => {
                    crate::log_call!((&*caller.claims).into(), rpc, "called");
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(error) => Ok(reject(&error).into_http()),
            }
        })
    }
}

/// The name of a credential that occurs more than once in the metadata.
fn ambiguous(headers: &HeaderMap) -> Option<&'static str> {
    CREDENTIAL_HEADERS.into_iter().find(|name| headers.get_all(*name).iter().nth(1).is_some())
}

pub(super) fn reject(error: &TransactionTokenError) -> Status {
    tracing::info!(
        error = error as &dyn std::error::Error,
        "rejected a call without a valid transaction token"
    );
    match error {
        TransactionTokenError::Keys(_) => {
            Status::unavailable("transaction tokens cannot be verified now; retry")
        }
        _ => Status::unauthenticated(error.to_string()),
    }
}
