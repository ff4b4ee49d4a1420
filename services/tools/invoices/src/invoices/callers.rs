//! Callers, and the service under test.

use std::sync::Arc;

use drawbridge_sdk::{
    BlockingJobs, CallContext, RequestId,
    transaction_token::{
        Principal, SubjectFacts, TransactionClaims, TransactionContext, VerifiedCaller,
    },
};
use tonic::Request;

use crate::{
    api::{InvoiceApi, approval::ApprovalLimit},
    store::{CallerContext, Store},
};

pub(super) const ISSUER: &str = "https://idp.example";

/// A person of a tenant.
pub(super) fn person(subject: &str, tenant: Option<&str>) -> VerifiedCaller {
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
            facts: Some(SubjectFacts::default()),
        },
        act: None,
    };
    VerifiedCaller { claims: claims.into(), token: Arc::new("token".into()) }
}

/// A request of this caller.
pub(super) fn request_by<T>(caller: &VerifiedCaller, message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller.clone());
    request
}

pub(super) fn call(caller: &VerifiedCaller) -> CallerContext {
    let context = CallContext::new(RequestId::generate(), std::time::Duration::from_secs(60));
    CallerContext { caller: caller.clone(), context }
}

/// An empty store in memory.
pub(super) async fn store() -> Arc<Store> {
    Store::memory().await.unwrap().into()
}

/// A service with an empty store and an approval limit of 1000 EUR.
pub(super) async fn api() -> InvoiceApi {
    let limit = ApprovalLimit { amount: 1000.into(), currency: "EUR".to_owned() };
    InvoiceApi::new(store().await, limit, BlockingJobs::new(4))
}
