//! For tests of handlers without a mesh.

use std::sync::Arc;

use drawbridge_transport::transaction_token::{
    Principal, SubjectFacts, TransactionClaims, TransactionContext, VerifiedCaller,
};
use tonic::Request;

/// A request as a handler gets it, of a person of a tenant who calls directly.
pub fn request_of_person<T>(subject: &str, tenant: &str, message: T) -> Request<T> {
    let issuer = "http://127.0.0.1:7100";
    let claims = TransactionClaims {
        iss: "drawbridge-auth".to_owned(),
        aud: "test".to_owned(),
        sub: subject.to_owned(),
        iat: 0,
        exp: i64::MAX,
        txn: "test".to_owned(),
        scope: "mcp".to_owned(),
        tctx: TransactionContext {
            iss: issuer.to_owned(),
            principal: Principal::new(issuer, subject, Some(tenant)),
            tenant: Some(tenant.to_owned()),
            client_id: "test".to_owned(),
            tool: String::new(),
            rpc: String::new(),
            message_sha256: None,
            facts: Some(SubjectFacts::default()),
        },
        act: None,
    };
    let mut request = Request::new(message);
    let token = Arc::new("test".into());
    request.extensions_mut().insert(VerifiedCaller { claims: Arc::new(claims), token });
    request
}
