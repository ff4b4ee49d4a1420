//! The gRPC face of auth.

use std::{
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use drawbridge_proto::auth::v1::{
    self as pb, auth_service_server::AuthService, authorize_response, filter_catalog_response,
    operation::Kind, revoke_response,
};
use drawbridge_sdk::{CallContext, Peer, RequestId, SpiffeId, told};
use metrics::counter;
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    authn::{Identity, Token, TokenVerifier},
    decision_log::{Decided, DecisionLog},
    epoch::Epochs,
    policy::{Answer, Outcome, Policies, PolicyStore},
    revocation::Revocations,
    transaction::{Delegation, Minter},
};

mod exchange;
mod revocation;

/// The most items that one list may have.
const ITEMS_MAX: usize = 10_000;
/// After how many items of a list others get their turn.
const ITEMS_AT_ONCE: usize = 16;
/// For how long an answer may be repeated that does not depend on the arguments.
const REUSABLE_FOR: Duration = Duration::from_secs(5);

pub(crate) struct Api {
    pub(crate) outside: TokenVerifier,
    pub(crate) inside: TokenVerifier,
    /// The audience of tokens that internal callers bring.
    pub(crate) internal_audience: String,
    pub(crate) policies: Arc<PolicyStore>,
    /// Who may ask about clients' access tokens, of those who are known.
    pub(crate) edges: Vec<SpiffeId>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) minter: Arc<Minter>,
    pub(crate) log: DecisionLog,
    pub(crate) stopping: CancellationToken,
}

#[tonic::async_trait]
impl AuthService for Api {
    async fn authorize(
        &self,
        request: Request<pb::AuthorizeRequest>,
    ) -> Result<Response<pb::AuthorizeResponse>, Status> {
        self.must_be_edge(&request)?;
        let started = Instant::now();
        let context = CallContext::of(&request);
        let pb::AuthorizeRequest { access_token, operation, resource } = request.into_inner();
        let operation = operation.ok_or_else(|| Status::invalid_argument("operation is missing"))?;
        // Read first: what changes from here on makes the answer one of the past.
        let epoch = self.epochs.current();
        let outcome = match self.identify(&self.outside, &access_token, &resource).await? {
            Err(unauthenticated) => authorize_response::Outcome::Unauthenticated(unauthenticated),
            Ok(token) => {
                let deciding = Deciding { request_id: &context.request_id, started, epoch };
                self.decide(&token, operation, &deciding)?
            }
        };
        Ok(Response::new(pb::AuthorizeResponse { outcome: Some(outcome) }))
    }

    async fn filter_catalog(
        &self,
        request: Request<pb::FilterCatalogRequest>,
    ) -> Result<Response<pb::FilterCatalogResponse>, Status> {
        self.must_be_edge(&request)?;
        let request = request.into_inner();
        let kind = request.kind();
        if request.items.len() > ITEMS_MAX {
            return Err(Status::invalid_argument(format!("at most {ITEMS_MAX} items")));
        }
        let outcome = match self.identify(&self.outside, &request.access_token, &request.resource).await? {
            Err(unauthenticated) => filter_catalog_response::Outcome::Unauthenticated(unauthenticated),
            Ok(token) => {
                let visible = self.filter(&token.identity, kind, request.items).await;
                filter_catalog_response::Outcome::Visible(visible)
            }
        };
        Ok(Response::new(pb::FilterCatalogResponse { outcome: Some(outcome) }))
    }

    async fn exchange(
        &self,
        request: Request<pb::ExchangeRequest>,
    ) -> Result<Response<pb::ExchangeResponse>, Status> {
        let started = Instant::now();
        let context = CallContext::of(&request);
        let epoch = self.epochs.current();
        let deciding = Deciding { request_id: &context.request_id, started, epoch };
        let outcome = self.decide_exchange(request.into_inner(), &deciding).await?;
        Ok(Response::new(pb::ExchangeResponse { outcome: Some(outcome) }))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(&self, _: Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        Ok(Response::new(Box::pin(self.epochs.tell(self.stopping.clone()))))
    }

    async fn introspect(
        &self,
        request: Request<pb::IntrospectRequest>,
    ) -> Result<Response<pb::IntrospectResponse>, Status> {
        let active = self.introspect_tokens(&request.get_ref().transaction_tokens)?;
        Ok(Response::new(pb::IntrospectResponse { active }))
    }

    async fn revoke(
        &self,
        request: Request<pb::RevokeRequest>,
    ) -> Result<Response<pb::RevokeResponse>, Status> {
        let context = CallContext::of(&request);
        let pb::RevokeRequest { subject_token, tokens } = request.into_inner();
        let outcome = match self.identify(&self.inside, &subject_token, &self.internal_audience).await? {
            Err(unauthenticated) => revoke_response::Outcome::Unauthenticated(unauthenticated),
            Ok(token) => {
                self.decide_revocation(&token.identity, tokens.unwrap_or_default(), &context.request_id)
                    .await?
            }
        };
        Ok(Response::new(pb::RevokeResponse { outcome: Some(outcome) }))
    }
}

/// What is known of a decision before it is made.
struct Deciding<'a> {
    request_id: &'a RequestId,
    started: Instant,
    epoch: u64,
}

impl Api {
    /// Verifies a token. The outer error means that nobody can say; the inner one that it is not good.
    /// What clients show to an edge is nobody else's business.
    fn must_be_edge<T>(&self, request: &Request<T>) -> Result<(), Status> {
        // In plaintext nobody is known.
        let known = Peer::of(request).and_then(|peer| peer.id.as_ref());
        match known {
            Some(id) if !self.edges.contains(id) => {
                Err(Status::permission_denied("only an edge may ask this"))
            }
            _ => Ok(()),
        }
    }

    async fn identify(
        &self,
        verifier: &TokenVerifier,
        token: &str,
        resource: &str,
    ) -> Result<Result<Arc<Token>, pb::Unauthenticated>, Status> {
        let refused = |description: String| {
            tracing::info!(reason = description, "an access token is not accepted");
            counter!("auth_tokens_refused_total").increment(1);
            Ok(Err(pb::Unauthenticated { description }))
        };
        let token = match verifier.verify(token, resource).await {
            Ok(token) => token,
            Err(error) if error.is_unavailable() => {
                tracing::error!(error = told(&error), "cannot verify an access token");
                return Err(Status::unavailable("the issuer's keys cannot be had; try again"));
            }
            Err(error) => return refused(error.to_string()),
        };
        if self.is_revoked(&token)? {
            return refused("the access token is revoked".to_owned());
        }
        Ok(Ok(token))
    }

    /// Whether a token is revoked. The error means that nobody can say.
    fn is_revoked(&self, token: &Token) -> Result<bool, Status> {
        let revoked = self.revocations.has(token);
        revoked.map_err(|error| Status::unavailable(format!("{error}; try again")))
    }

    fn decide(
        &self,
        token: &Token,
        operation: pb::Operation,
        deciding: &Deciding<'_>,
    ) -> Result<authorize_response::Outcome, Status> {
        let kind = operation.kind();
        let identity = &token.identity;
        let policies = self.policies.load();
        if kind == Kind::Connect {
            let reusable_for = Some(reusable_for(token));
            let allowed = pb::Allowed { reusable_for, ..allowed(token, None, None, &policies, deciding) };
            return Ok(authorize_response::Outcome::Allowed(allowed));
        }
        let item = operation.item.ok_or_else(|| Status::invalid_argument("operation.item is missing"))?;
        let arguments = operation.arguments_json.as_deref();
        let outcome = policies.decide(identity, kind, &item, arguments);
        let missing_scopes = missing_scopes(identity, &item, policies.scopes(kind, &item));
        self.log.write(&Decided {
            request_id: deciding.request_id,
            identity,
            actor: None,
            kind,
            item: &item,
            arguments: operation.recorded_arguments_json.as_deref().or(arguments),
            redacted: operation.recorded_arguments_json.is_some(),
            outcome: &outcome,
            missing_scopes: missing_scopes.as_deref().unwrap_or_default(),
            revision: policies.revision(),
            took: deciding.started.elapsed(),
        });
        if !matches!(outcome.answer, Answer::Allow | Answer::Perhaps) {
            let could_be = arguments.map(|_| policies.decide(identity, kind, &item, None).answer);
            let hidden = !matches!(could_be, Some(Answer::Allow | Answer::Perhaps));
            let denied = pb::Denied { hidden, ..denied(identity, outcome, &policies) };
            return Ok(authorize_response::Outcome::Denied(denied));
        }
        if let Some(scopes) = missing_scopes {
            let principal = Some(principal(identity));
            return Ok(authorize_response::Outcome::InsufficientScope(pb::InsufficientScope {
                scopes,
                principal,
            }));
        }
        // Who could be allowed the item with some arguments may complete them. Anything else is minted for the
        // arguments that were decided on.
        let decided = arguments.is_some() && outcome.answer == Answer::Allow;
        let minted = match decided || kind == Kind::Complete {
            true => Some(self.mint(token, &item, deciding.request_id, None)?),
            false => None,
        };
        let reusable_for = (!outcome.reads_arguments).then(|| reusable_for(token));
        let allowed = allowed(token, minted, Some(outcome), &policies, deciding);
        Ok(authorize_response::Outcome::Allowed(pb::Allowed { reusable_for, ..allowed }))
    }

    async fn filter(&self, identity: &Identity, kind: Kind, items: Vec<pb::CatalogItem>) -> pb::Visible {
        let policies = self.policies.load();
        let mut names = Vec::new();
        for (number, item) in items.into_iter().enumerate() {
            // A long list for a caller who is not known yet takes a while; others do not wait for its end.
            if number % ITEMS_AT_ONCE == ITEMS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            let answer = policies.decide(identity, kind, &item, None).answer;
            if matches!(answer, Answer::Allow | Answer::Perhaps) {
                names.push(item.name);
            }
        }
        pb::Visible {
            names,
            principal: Some(principal(identity)),
            policy_revision: policies.revision().to_owned(),
        }
    }

    fn mint(
        &self,
        token: &Token,
        item: &pb::CatalogItem,
        request_id: &RequestId,
        delegation: Option<&Delegation>,
    ) -> Result<pb::TransactionToken, Status> {
        self.minter.mint(token, item, request_id, delegation).map_err(|error| {
            tracing::error!(error = told(&error), "cannot sign a transaction token");
            Status::internal("cannot sign a transaction token")
        })
    }
}

/// For how long an answer may be repeated to the holder of this token.
fn reusable_for(token: &Token) -> prost_types::Duration {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let left = Duration::from_secs(token.expires_at).saturating_sub(now);
    // INVARIANT: some seconds are a protobuf duration.
    left.min(REUSABLE_FOR).try_into().unwrap_or_default()
}

fn allowed(
    token: &Token,
    transaction_token: Option<pb::TransactionToken>,
    outcome: Option<Outcome>,
    policies: &Policies,
    deciding: &Deciding<'_>,
) -> pb::Allowed {
    let identity = &token.identity;
    let (groups, roles) = (identity.groups.clone(), identity.roles.clone());
    pb::Allowed {
        principal: Some(pb::Principal { groups, roles, ..principal(identity) }),
        transaction_token,
        decision: outcome.map(|outcome| decision(outcome, policies)),
        epoch: deciding.epoch,
        reusable_for: None,
        expires_at: expiry(token),
    }
}

/// The caller as the edge knows it, with its kind.
fn principal(identity: &Identity) -> pb::Principal {
    pb::Principal { workload: identity.workload, ..identity.principal.clone() }
}

/// When the access token expires. None: later than a timestamp can say.
fn expiry(token: &Token) -> Option<prost_types::Timestamp> {
    Some(prost_types::Timestamp { seconds: token.expires_at.try_into().ok()?, nanos: 0 })
}

fn denied(identity: &Identity, outcome: Outcome, policies: &Policies) -> pb::Denied {
    pb::Denied {
        reason: reason(outcome.answer).to_owned(),
        principal: Some(principal(identity)),
        decision: Some(decision(outcome, policies)),
        hidden: false,
    }
}

fn decision(outcome: Outcome, policies: &Policies) -> pb::Decision {
    pb::Decision { policy_ids: outcome.policy_ids, policy_revision: policies.revision().to_owned() }
}

/// The scopes that the item asks for, when the token lacks one of them: by the edge's word and by the catalog's.
fn missing_scopes(identity: &Identity, item: &pb::CatalogItem, locked: &[String]) -> Option<Vec<String>> {
    let mut wanted = item.scopes.clone();
    wanted.extend(locked.iter().filter(|scope| !item.scopes.contains(scope)).cloned());
    let held = &identity.principal.scopes;
    wanted.iter().any(|scope| !held.contains(scope)).then_some(wanted)
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
