//! The gRPC face of auth.

use std::sync::Arc;

use drawbridge_proto::auth::v1::{
    self as pb, auth_service_server::AuthService, authorize_response, exchange_response,
    filter_catalog_response, operation::Kind,
};
use drawbridge_sdk::{CallContext, RequestId, told};
use metrics::counter;
use tonic::{Request, Response, Status};

use crate::{
    authn::{Identity, TokenVerifier},
    policy::{Answer, Outcome, Policies},
    transaction::Minter,
};

/// The most items that one list may have.
const ITEMS_MAX: usize = 10_000;

pub(crate) struct Api {
    outside: TokenVerifier,
    inside: TokenVerifier,
    /// The audience of tokens that internal callers bring.
    internal_audience: String,
    policies: Policies,
    minter: Minter,
}

impl Api {
    pub(crate) fn new(
        outside: TokenVerifier,
        inside: TokenVerifier,
        internal_audience: String,
        policies: Policies,
        minter: Minter,
    ) -> Self {
        Self { outside, inside, internal_audience, policies, minter }
    }
}

#[tonic::async_trait]
impl AuthService for Api {
    async fn authorize(
        &self,
        request: Request<pb::AuthorizeRequest>,
    ) -> Result<Response<pb::AuthorizeResponse>, Status> {
        let context = CallContext::of(&request);
        let pb::AuthorizeRequest { access_token, operation, resource } = request.into_inner();
        let operation = operation.ok_or_else(|| Status::invalid_argument("operation is missing"))?;
        let outcome = match identify(&self.outside, &access_token, &resource).await? {
            Err(unauthenticated) => authorize_response::Outcome::Unauthenticated(unauthenticated),
            Ok(identity) => self.authorize(&identity, operation, &context.request_id)?,
        };
        Ok(Response::new(pb::AuthorizeResponse { outcome: Some(outcome) }))
    }

    async fn filter_catalog(
        &self,
        request: Request<pb::FilterCatalogRequest>,
    ) -> Result<Response<pb::FilterCatalogResponse>, Status> {
        let request = request.into_inner();
        let kind = request.kind();
        if request.items.len() > ITEMS_MAX {
            return Err(Status::invalid_argument(format!("at most {ITEMS_MAX} items")));
        }
        let outcome = match identify(&self.outside, &request.access_token, &request.resource).await? {
            Err(unauthenticated) => filter_catalog_response::Outcome::Unauthenticated(unauthenticated),
            Ok(identity) => {
                filter_catalog_response::Outcome::Visible(self.filter(&identity, kind, request.items))
            }
        };
        Ok(Response::new(pb::FilterCatalogResponse { outcome: Some(outcome) }))
    }

    async fn exchange(
        &self,
        request: Request<pb::ExchangeRequest>,
    ) -> Result<Response<pb::ExchangeResponse>, Status> {
        let context = CallContext::of(&request);
        let pb::ExchangeRequest { subject_token, rpc } = request.into_inner();
        let outcome = match identify(&self.inside, &subject_token, &self.internal_audience).await? {
            Err(unauthenticated) => exchange_response::Outcome::Unauthenticated(unauthenticated),
            Ok(identity) => self.exchange(&identity, &rpc, &context.request_id)?,
        };
        Ok(Response::new(pb::ExchangeResponse { outcome: Some(outcome) }))
    }
}

impl Api {
    fn authorize(
        &self,
        identity: &Identity,
        operation: pb::Operation,
        request_id: &RequestId,
    ) -> Result<authorize_response::Outcome, Status> {
        let kind = operation.kind();
        if kind == Kind::Connect {
            return Ok(authorize_response::Outcome::Allowed(self.allowed(identity, None, None)));
        }
        let item = operation.item.ok_or_else(|| Status::invalid_argument("operation.item is missing"))?;
        let arguments = operation.arguments_json.as_deref();
        let outcome = self.policies.decide(identity, kind, &item, arguments);
        log(identity, kind, &item.name, &outcome, self.policies.revision());
        match (outcome.answer, missing_scopes(identity, &item)) {
            (Answer::Allow | Answer::Perhaps, Some(scopes)) => {
                Ok(authorize_response::Outcome::InsufficientScope(pb::InsufficientScope {
                    scopes,
                    principal: Some(identity.principal.clone()),
                }))
            }
            (Answer::Allow | Answer::Perhaps, None) => {
                // Who could be allowed the item with some arguments may complete them. Anything else is minted
                // for the arguments that were decided on.
                let decided = arguments.is_some() && outcome.answer == Answer::Allow;
                let token = if decided || kind == Kind::Complete {
                    Some(self.mint(identity, &item, request_id)?)
                } else {
                    None
                };
                Ok(authorize_response::Outcome::Allowed(self.allowed(identity, token, Some(outcome))))
            }
            _ => Ok(authorize_response::Outcome::Denied(self.denied(identity, outcome))),
        }
    }

    fn filter(&self, identity: &Identity, kind: Kind, items: Vec<pb::CatalogItem>) -> pb::Visible {
        let visible = |item: &pb::CatalogItem| {
            let answer = self.policies.decide(identity, kind, item, None).answer;
            matches!(answer, Answer::Allow | Answer::Perhaps)
        };
        let names = items.into_iter().filter(visible).map(|item| item.name).collect();
        pb::Visible {
            names,
            principal: Some(identity.principal.clone()),
            policy_revision: self.policies.revision().to_owned(),
        }
    }

    fn exchange(
        &self,
        identity: &Identity,
        rpc: &str,
        request_id: &RequestId,
    ) -> Result<exchange_response::Outcome, Status> {
        let (outcome, item) = match self.policies.item_of_rpc(rpc) {
            None => (Outcome::from(Answer::NotInCatalog), None),
            Some((kind, item)) => {
                let outcome = self.policies.decide(identity, kind, &item, None);
                log(identity, kind, &item.name, &outcome, self.policies.revision());
                (outcome, Some(item))
            }
        };
        match (outcome.answer, item) {
            (Answer::Allow, Some(item)) => {
                let token = self.mint(identity, &item, request_id)?;
                let allowed = self.allowed(identity, Some(token), Some(outcome));
                Ok(exchange_response::Outcome::Allowed(allowed))
            }
            _ => Ok(exchange_response::Outcome::Denied(self.denied(identity, outcome))),
        }
    }

    fn mint(
        &self,
        identity: &Identity,
        item: &pb::CatalogItem,
        request_id: &RequestId,
    ) -> Result<pb::TransactionToken, Status> {
        self.minter.mint(&identity.principal, item, request_id).map_err(|error| {
            tracing::error!(error = &error as &dyn std::error::Error, "cannot sign a transaction token");
            Status::internal("cannot sign a transaction token")
        })
    }

    fn allowed(
        &self,
        identity: &Identity,
        transaction_token: Option<pb::TransactionToken>,
        outcome: Option<Outcome>,
    ) -> pb::Allowed {
        pb::Allowed {
            principal: Some(identity.principal.clone()),
            transaction_token,
            decision: outcome.map(|outcome| self.decision(outcome)),
        }
    }

    fn denied(&self, identity: &Identity, outcome: Outcome) -> pb::Denied {
        pb::Denied {
            reason: reason(outcome.answer).to_owned(),
            principal: Some(identity.principal.clone()),
            decision: Some(self.decision(outcome)),
        }
    }

    fn decision(&self, outcome: Outcome) -> pb::Decision {
        pb::Decision { policy_ids: outcome.policy_ids, policy_revision: self.policies.revision().to_owned() }
    }
}

/// Verifies a token. The outer error means that nobody can say; the inner one that it is not good.
async fn identify(
    verifier: &TokenVerifier,
    token: &str,
    resource: &str,
) -> Result<Result<Arc<Identity>, pb::Unauthenticated>, Status> {
    match verifier.verify(token, resource).await {
        Ok(identity) => Ok(Ok(identity)),
        Err(error) if error.is_unavailable() => {
            tracing::error!(error = told(&error), "cannot verify an access token");
            Err(Status::unavailable("the issuer's keys cannot be had; try again"))
        }
        Err(error) => {
            tracing::info!(reason = %error, "an access token is not accepted");
            counter!("auth_tokens_refused_total").increment(1);
            Ok(Err(pb::Unauthenticated { description: error.to_string() }))
        }
    }
}

/// The scopes that the item asks for, when the token lacks one of them.
fn missing_scopes(identity: &Identity, item: &pb::CatalogItem) -> Option<Vec<String>> {
    let held = &identity.principal.scopes;
    item.scopes.iter().any(|scope| !held.contains(scope)).then(|| item.scopes.clone())
}

/// What a refused caller is told.
fn reason(answer: Answer) -> &'static str {
    match answer {
        Answer::NotPermitted | Answer::Allow => "no policy permits it",
        Answer::Forbidden => "a policy forbids it",
        Answer::NotInCatalog => "the policy catalog does not have it",
        Answer::Perhaps => "a policy decides on its arguments, which are not known here",
        Answer::Arguments => "its arguments do not fit the policy schema",
        Answer::Error => "a policy could not be evaluated",
    }
}

/// The decision log: who, what, how it ended, by which policies.
fn log(identity: &Identity, kind: Kind, item: &str, outcome: &Outcome, revision: &str) {
    let pb::Principal { issuer, subject, client_id, tenant, .. } = &identity.principal;
    counter!("auth_decisions_total", "operation" => kind.as_str_name(), "outcome" => format!("{:?}", outcome.answer))
        .increment(1);
    tracing::info!(
        issuer, subject, client_id, tenant, item,
        operation = kind.as_str_name(),
        outcome = ?outcome.answer,
        policy_ids = ?outcome.policy_ids,
        policy_revision = revision,
        "decision"
    );
}
