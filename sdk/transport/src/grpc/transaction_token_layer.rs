//! Rejects every RPC whose caller has no transaction token for it. Health and reflection are
//! public: they reveal no one's data.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use drawbridge_runtime::{LogLimit, error_chain, span_pseudonym};
use http::{HeaderMap, Request, Response};
use tonic::{Status, body::Body};
use tower::{Layer, Service};
use tracing::Span;

use crate::{
    call::TXN_TOKEN,
    transaction_token::{TransactionClaims, TransactionTokenError, Verifier},
};

/// Services that need no transaction token.
const PUBLIC_SERVICES: [&str; 2] =
    ["/grpc.health.v1.Health/", "/grpc.reflection.v1.ServerReflection/"];

/// Metadata with credentials. A call carries each of them at most once.
const CREDENTIAL_HEADERS: [&str; 2] = [TXN_TOKEN, "authorization"];

#[derive(Clone, Debug)]
pub(crate) struct TransactionTokenLayer {
    verifier: Arc<Verifier>,
    refusals: Arc<LogLimit>,
}

impl TransactionTokenLayer {
    /// Logs refusals as `refusals` permits.
    pub(crate) fn new(verifier: Arc<Verifier>, refusals: Arc<LogLimit>) -> Self {
        Self { verifier, refusals }
    }
}

impl<S> Layer<S> for TransactionTokenLayer {
    type Service = TransactionTokenService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        TransactionTokenService { inner, layer: self.clone() }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct TransactionTokenService<S> {
    inner: S,
    layer: TransactionTokenLayer,
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
        let TransactionTokenLayer { verifier, refusals } = self.layer.clone();
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
                    record_caller(&caller.claims);
                    crate::log_call!((&*caller.claims).into(), rpc, "called");
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(error) => Ok(reject(&error, &refusals).into_http()),
            }
        })
    }
}

/// The name of a credential that occurs more than once in the metadata.
fn ambiguous(headers: &HeaderMap) -> Option<&'static str> {
    CREDENTIAL_HEADERS.into_iter().find(|name| headers.get_all(*name).iter().nth(1).is_some())
}

fn record_caller(claims: &TransactionClaims) {
    let span = Span::current();
    if !span.is_disabled() {
        let tenant = claims.tctx.tenant.as_deref().unwrap_or_default();
        span.record("enduser.pseudo.id", span_pseudonym(&claims.tctx.iss, &claims.sub, tenant));
    }
}

/// The status of a call that is refused. Callers with invalid tokens cannot fill the log.
pub(super) fn reject(error: &TransactionTokenError, refusals: &LogLimit) -> Status {
    let reason = error.reason();
    if let Some(suppressed) = refusals.permit(reason) {
        let error = error_chain(error);
        tracing::warn!(reason, error, suppressed, "refused a transaction token");
    }
    match error {
        TransactionTokenError::Keys(_) => {
            Status::unavailable("transaction tokens cannot be verified now; retry")
        }
        _ => Status::unauthenticated(error.to_string()),
    }
}
