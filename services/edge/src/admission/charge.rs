//! Charges requests to rate limits.

use drawbridge_proto::auth::v1 as auth;
use drawbridge_transport::CallContext;
use http::request::Parts;
use secrecy::SecretString;

use super::AdmissionState;
use crate::{
    catalog::ToolItem,
    metadata::Endpoint,
    refusal::Refusal,
    traffic::limits::{CalledTool, Subject, client_address},
};

impl AdmissionState {
    /// Charges a request to the limits of its caller.
    pub(super) async fn charge_caller(
        &self,
        parts: &mut Parts,
        principal: &auth::Principal,
        tool: Option<&ToolItem>,
    ) -> Result<(), Refusal> {
        let tool = tool.map(|tool| CalledTool { name: &tool.item.name, class: &tool.rate_class });
        if let Some(status) = self.limits.charge(&Subject::Caller { principal, tool }).await? {
            parts.extensions.insert(status);
        }
        Ok(())
    }

    /// Charges a rejected request to the limits of its caller. A caller without permission for a
    /// tool consumes none of that tool's limits, so that it cannot exhaust them for others.
    pub(super) async fn charge_rejected(
        &self,
        context: &CallContext,
        endpoint: &Endpoint,
        parts: &mut Parts,
        token: &SecretString,
        refusal: Refusal,
    ) -> Refusal {
        if matches!(
            refusal,
            Refusal::Unauthenticated { .. } | Refusal::Unverified | Refusal::AuthUnavailable
        ) {
            return refusal;
        }
        let allowed = match self.authorizer.connect(context, token, &endpoint.resource()).await {
            Ok(allowed) => allowed,
            Err(refusal) => return refusal,
        };
        self.charge_caller(parts, &allowed.principal, None).await.err().unwrap_or(refusal)
    }

    /// Charges an unauthenticated request to the limits of its address.
    pub(super) async fn charge_address(&self, parts: &Parts) -> Result<(), Refusal> {
        let subject = Subject::Address(client_address(&parts.extensions));
        self.limits.charge(&subject).await?;
        Ok(())
    }
}
