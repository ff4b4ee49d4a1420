//! Decisions after admission: a request that continues is authorized again with its own token.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use drawbridge_proto::auth::v1 as pb;
use drawbridge_runtime::RequestId;
use drawbridge_transport::CallContext;
use secrecy::SecretString;

use super::{Allowed, Authorizer, connect_operation};
use crate::refusal::Refusal;

/// How long one decision may take, including retries.
const DECISION_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks auth again whether the token of a request still allows an operation.
#[derive(Clone)]
pub(crate) struct Reauthorizer {
    request: Arc<AdmittedRequest>,
    operation: Arc<pb::Operation>,
}

/// The request that was admitted. INVARIANT: no code behind admission can read its token.
struct AdmittedRequest {
    authorizer: Authorizer,
    request_id: RequestId,
    client_address: Option<IpAddr>,
    token: SecretString,
    resource: String,
}

impl fmt::Debug for Reauthorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reauthorizer")
            .field("operation", &self.operation.kind())
            .finish_non_exhaustive()
    }
}

impl Reauthorizer {
    /// A reauthorizer for the caller's connection to `resource`.
    pub(crate) fn new(
        authorizer: &Authorizer,
        context: &CallContext,
        token: SecretString,
        resource: String,
    ) -> Self {
        let (authorizer, client_address) = (authorizer.clone(), context.client_address);
        let request_id = context.request_id.clone();
        let request =
            Arc::new(AdmittedRequest { authorizer, request_id, client_address, token, resource });
        Self { request, operation: Arc::new(connect_operation()) }
    }

    /// A reauthorizer for another operation of the same caller.
    pub(crate) fn for_operation(&self, operation: Arc<pb::Operation>) -> Self {
        Self { request: Arc::clone(&self.request), operation }
    }

    /// The operation to reauthorize.
    pub(crate) fn operation(&self) -> &Arc<pb::Operation> {
        &self.operation
    }

    /// The OAuth resource of the request.
    pub(crate) fn resource(&self) -> &str {
        &self.request.resource
    }

    pub(super) fn authorizer(&self) -> &Authorizer {
        &self.request.authorizer
    }

    /// Authorizes the operation again.
    ///
    /// # Errors
    /// When the operation is no longer allowed, or auth is unavailable.
    pub(crate) async fn reauthorize(&self) -> Result<Allowed, Refusal> {
        let AdmittedRequest { authorizer, request_id, client_address, token, resource } =
            &*self.request;
        let mut context = CallContext::new(request_id.clone(), DECISION_TIMEOUT);
        context.client_address = *client_address;
        authorizer.authorize(&context, token, resource, &self.operation).await
    }
}
