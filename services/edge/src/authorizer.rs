//! Asks auth: who is calling, and may they?

use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, authorize_response, filter_catalog_response,
    operation::Kind,
};
use drawbridge_sdk::{CallContext, client_span, end_client_span};
use secrecy::{ExposeSecret as _, SecretString};
use tonic::{Status, transport::Channel};
use tracing::{Instrument as _, Span};

use crate::refusal::Refusal;

const AUTHORIZE: &str = "drawbridge.auth.v1.AuthService/Authorize";
const FILTER_CATALOG: &str = "drawbridge.auth.v1.AuthService/FilterCatalog";

/// Auth, as the edge knows it. Without an answer nothing is allowed.
#[derive(Clone, Debug)]
pub(crate) struct Authorizer {
    client: AuthServiceClient<Channel>,
}

impl Authorizer {
    pub(crate) fn new(channel: Channel) -> Self {
        Self { client: AuthServiceClient::new(channel) }
    }

    /// Decides one operation.
    pub(crate) async fn authorize(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
        operation: pb::Operation,
    ) -> Result<pb::Allowed, Refusal> {
        let item = operation.item.as_ref().map_or_else(String::new, |item| item.name.clone());
        let request = pb::AuthorizeRequest {
            access_token: token.expose_secret().to_owned(),
            operation: Some(operation),
            resource: resource.to_owned(),
        };
        let mut client = self.client.clone();
        let span = client_span(AUTHORIZE);
        let response = async { client.authorize(context.outgoing(request)).await }.instrument(span.clone());
        let outcome = answered(response.await, &span)?.into_inner().outcome;
        match outcome {
            Some(authorize_response::Outcome::Allowed(allowed)) => Ok(allowed),
            Some(authorize_response::Outcome::Unauthenticated(reason)) => Err(unauthenticated(reason)),
            Some(authorize_response::Outcome::InsufficientScope(missing)) => {
                Err(Refusal::InsufficientScope { scopes: missing.scopes })
            }
            Some(authorize_response::Outcome::Denied(denied)) => Err(Refusal::Denied {
                item,
                reason: denied.reason,
                decision: denied.decision.unwrap_or_default(),
            }),
            None => Err(Refusal::AuthUnavailable),
        }
    }

    /// Verifies the caller, for what reaches no tool service.
    pub(crate) async fn connect(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
    ) -> Result<pb::Allowed, Refusal> {
        let operation = pb::Operation { kind: Kind::Connect.into(), ..Default::default() };
        self.authorize(context, token, resource, operation).await
    }

    /// Says which items the caller may see.
    pub(crate) async fn filter(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
        kind: Kind,
        items: Vec<pb::CatalogItem>,
    ) -> Result<pb::Visible, Refusal> {
        let request = pb::FilterCatalogRequest {
            access_token: token.expose_secret().to_owned(),
            kind: kind.into(),
            items,
            resource: resource.to_owned(),
        };
        let mut client = self.client.clone();
        let span = client_span(FILTER_CATALOG);
        let response =
            async { client.filter_catalog(context.outgoing(request)).await }.instrument(span.clone());
        match answered(response.await, &span)?.into_inner().outcome {
            Some(filter_catalog_response::Outcome::Visible(visible)) => Ok(visible),
            Some(filter_catalog_response::Outcome::Unauthenticated(reason)) => Err(unauthenticated(reason)),
            None => Err(Refusal::AuthUnavailable),
        }
    }
}

fn answered<T>(response: Result<T, Status>, span: &Span) -> Result<T, Refusal> {
    let code = response.as_ref().map_or_else(Status::code, |_| tonic::Code::Ok);
    end_client_span(span, code);
    response.map_err(|status| {
        span.in_scope(
            || tracing::error!(code = ?status.code(), message = status.message(), "auth gives no answer"),
        );
        Refusal::AuthUnavailable
    })
}

fn unauthenticated(reason: pb::Unauthenticated) -> Refusal {
    Refusal::Unauthenticated { description: Some(reason.description) }
}
