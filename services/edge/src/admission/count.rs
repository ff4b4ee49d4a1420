//! What the gate takes from rate limits.

use drawbridge_proto::auth::v1 as auth;
use drawbridge_sdk::CallContext;
use http::request::Parts;
use secrecy::SecretString;

use super::Gate;
use crate::{
    catalog::ToolItem,
    metadata::Endpoint,
    refusal::Refusal,
    traffic::limits::{CalledTool, Counted, address},
};

impl Gate {
    /// Takes what a request costs from the limits that count its caller.
    pub(super) async fn count(
        &self,
        parts: &mut Parts,
        principal: &auth::Principal,
        tool: Option<&ToolItem>,
    ) -> Result<(), Refusal> {
        let tool = tool.map(|tool| CalledTool { name: &tool.item.name, class: &tool.rate_class });
        if let Some(standing) = self.limits.take(&Counted::Caller { principal, tool }).await? {
            parts.extensions.insert(standing);
        }
        Ok(())
    }

    /// The same for a request that is refused already. Of the tool nothing is taken: whoever may not call it
    /// must not keep others from it.
    pub(super) async fn count_refused(
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
            Err(unknown) => return unknown,
        };
        self.count(parts, &allowed.principal, None).await.err().unwrap_or(refusal)
    }

    /// Takes what a request costs from the limits of its address: nobody is known to be calling.
    pub(super) async fn charge_address(&self, parts: &Parts) -> Result<(), Refusal> {
        self.limits.take(&Counted::Address(address(&parts.extensions))).await.map(drop)
    }
}
