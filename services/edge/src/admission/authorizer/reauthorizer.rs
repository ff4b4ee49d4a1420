//! Decisions after admission: what goes on is decided again, on the strength of the token that began it.

use std::{fmt, net::IpAddr, sync::Arc, time::Duration};

use drawbridge_proto::auth::v1 as pb;
use drawbridge_sdk::{CallContext, RequestId};
use secrecy::SecretString;

use super::{Allowed, Authorizer, connecting};
use crate::refusal::Refusal;

/// How long one decision may take, in all.
const DECISION_TIMEOUT: Duration = Duration::from_secs(10);

/// Asks auth again whether an operation is allowed to the token with which a request was made.
#[derive(Clone)]
pub(crate) struct Reauthorizer {
    asking: Arc<Asking>,
    operation: Arc<pb::Operation>,
}

/// The token ends here: nothing behind admission sees it.
struct Asking {
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
    /// Asks whether the caller of a request may connect to `resource`.
    pub(crate) fn new(
        authorizer: &Authorizer,
        context: &CallContext,
        token: SecretString,
        resource: String,
    ) -> Self {
        let (authorizer, client_address) = (authorizer.clone(), context.client_address);
        let request_id = context.request_id.clone();
        let asking = Arc::new(Asking { authorizer, request_id, client_address, token, resource });
        Self { asking, operation: Arc::new(connecting()) }
    }

    /// Asks about another operation of the same caller.
    pub(crate) fn of(&self, operation: Arc<pb::Operation>) -> Self {
        Self { asking: Arc::clone(&self.asking), operation }
    }

    /// What is asked about.
    pub(crate) fn operation(&self) -> &Arc<pb::Operation> {
        &self.operation
    }

    /// The OAuth resource that was addressed.
    pub(crate) fn resource(&self) -> &str {
        &self.asking.resource
    }

    pub(super) fn authorizer(&self) -> &Authorizer {
        &self.asking.authorizer
    }

    /// Decides again.
    ///
    /// # Errors
    /// When it is no longer allowed, or auth gives no answer.
    pub(crate) async fn ask(&self) -> Result<Allowed, Refusal> {
        let Asking { authorizer, request_id, client_address, token, resource } = &*self.asking;
        let mut context = CallContext::new(request_id.clone(), DECISION_TIMEOUT);
        context.client_address = *client_address;
        authorizer.authorize(&context, token, resource, (*self.operation).clone()).await
    }
}
