//! Who calls, and the service that is called.

use std::sync::Arc;

use drawbridge_sdk::{
    BlockingJobs, CallContext, RequestId,
    identity::{Caller, Facts, Principal, TransactionClaims, TransactionContext},
};
use tokio_util::sync::CancellationToken;
use tonic::Request;

use crate::{
    api::{InvoiceApi, approval::Limit},
    store::{Asking, Store},
};

pub(super) const ISSUER: &str = "https://idp.example";

/// A person of a tenant.
pub(super) fn person(subject: &str, tenant: Option<&str>) -> Caller {
    let claims = TransactionClaims {
        iss: "drawbridge-auth".to_owned(),
        aud: "invoices".to_owned(),
        sub: subject.to_owned(),
        iat: 0,
        exp: 0,
        txn: "request".to_owned(),
        scope: String::new(),
        tctx: TransactionContext {
            iss: ISSUER.to_owned(),
            principal: Principal::new(ISSUER, subject, tenant),
            tenant: tenant.map(str::to_owned),
            client_id: "client".to_owned(),
            tool: String::new(),
            rpc: String::new(),
            message_sha256: None,
            facts: Some(Facts::default()),
        },
        act: None,
    };
    Caller { claims: claims.into(), token: Arc::new("token".into()) }
}

/// A request of theirs.
pub(super) fn by<T>(caller: &Caller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller.clone());
    request
}

pub(super) fn asking(caller: &Caller) -> Asking {
    let context = CallContext::new(RequestId::generate(), std::time::Duration::from_secs(60));
    Asking { caller: caller.clone(), context }
}

/// An empty store in memory.
pub(super) async fn store() -> Arc<Store> {
    Store::memory().await.unwrap().into()
}

/// A service with an empty store, which asks above 1000 EUR.
pub(super) async fn api() -> InvoiceApi {
    let limit = Limit { amount: 1000.into(), currency: "EUR".to_owned() };
    InvoiceApi::new(
        store().await,
        limit,
        BlockingJobs::new(4),
        CancellationToken::new().drop_guard(),
    )
}
