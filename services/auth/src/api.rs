//! The gRPC API of auth.

use std::{pin::Pin, sync::Arc, time::Instant};

use drawbridge_audit::{AuditLog, Event};
use drawbridge_proto::auth::v1::{
    self as pb, auth_service_server::AuthService, authorize_response, filter_catalog_response,
    introspect_response::Status as IntrospectionStatus, operation::Kind, revoke_response,
};
use drawbridge_runtime::{REQUEST_ID, RequestId, error_chain};
use drawbridge_transport::{CallContext, SpiffeId};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    authn::{AccessToken, ClientNetwork, Identity, Issuers, TokenVerifier},
    epoch::{self, Epochs},
    policy::{DecisionOutcome, PolicyDecision, PolicyStore},
    records::{DecisionEntry, unrecorded},
    revocation::Revocations,
    transaction::{Delegation, KeyPeers, MessageBinding, Minter},
};

use self::{
    identify::{IdentifyError, network_of},
    response::{allowed, denied, principal, reason, reusable_for},
};

mod exchange;
mod identify;
mod response;
mod revocation;

/// The maximum number of items in one list.
const ITEMS_MAX: usize = 10_000;
/// After how many evaluated items of a list other tasks may run.
const ITEMS_PER_YIELD: usize = 16;

pub(crate) struct Api {
    pub(crate) client_tokens: TokenVerifier,
    pub(crate) internal_tokens: TokenVerifier,
    pub(crate) issuers: Arc<Issuers>,
    /// The audience of internal callers' tokens.
    pub(crate) internal_audience: String,
    pub(crate) policies: Arc<PolicyStore>,
    /// Authenticated peers that may authorize clients' access tokens.
    pub(crate) edges: Vec<SpiffeId>,
    pub(crate) revocations: Arc<Revocations>,
    pub(crate) epochs: Arc<Epochs>,
    pub(crate) minter: Minter,
    pub(crate) peers: Arc<KeyPeers>,
    pub(crate) audit: AuditLog,
    pub(crate) draining: CancellationToken,
}

#[tonic::async_trait]
impl AuthService for Api {
    async fn authorize(
        &self,
        request: Request<pb::AuthorizeRequest>,
    ) -> Result<Response<pb::AuthorizeResponse>, Status> {
        self.require_edge(&request)?;
        self.require_signing()?;
        let started = Instant::now();
        let call = CallContext::from_request(&request);
        let pb::AuthorizeRequest { access_token, operation, resource, client_address } =
            request.into_inner();
        let operation =
            operation.ok_or_else(|| Status::invalid_argument("operation is missing"))?;
        // Read first: a later change makes the decision stale.
        let epoch = self.epochs.current();
        let network = ClientNetwork::parse(&client_address);
        let outcome = match self
            .identify(&self.client_tokens, &access_token, &resource, network)
            .await?
        {
            Err(IdentifyError::Token(refused)) => {
                authorize_response::Outcome::Unauthenticated(refused)
            }
            Err(IdentifyError::Unverified(reason)) => {
                authorize_response::Outcome::Unverified(pb::Unverified { reason: reason.into() })
            }
            Ok(token) => {
                // The edge generates the id of each request.
                let ids = Ids { own: call.request_id, caller: None };
                let context = DecisionContext { ids, started, epoch, network };
                self.decide(&token, operation, &context).await?
            }
        };
        Ok(Response::new(pb::AuthorizeResponse { outcome: Some(outcome) }))
    }

    async fn filter_catalog(
        &self,
        request: Request<pb::FilterCatalogRequest>,
    ) -> Result<Response<pb::FilterCatalogResponse>, Status> {
        self.require_edge(&request)?;
        self.require_signing()?;
        let request = request.into_inner();
        let kind = request.kind();
        if request.items.len() > ITEMS_MAX {
            return Err(Status::invalid_argument(format!("at most {ITEMS_MAX} items")));
        }
        // Read first: a later change makes the decisions stale.
        let epoch = self.epochs.current();
        let network = ClientNetwork::parse(&request.client_address);
        let identified =
            self.identify(&self.client_tokens, &request.access_token, &request.resource, network);
        let outcome = match identified.await? {
            Err(IdentifyError::Token(refused)) => {
                filter_catalog_response::Outcome::Unauthenticated(refused)
            }
            Err(IdentifyError::Unverified(reason)) => {
                filter_catalog_response::Outcome::Unverified(pb::Unverified {
                    reason: reason.into(),
                })
            }
            Ok(token) => {
                let visible = self.filter(&token, kind, request.items).await;
                filter_catalog_response::Outcome::Visible(pb::Visible { epoch, ..visible })
            }
        };
        Ok(Response::new(pb::FilterCatalogResponse { outcome: Some(outcome) }))
    }

    async fn exchange(
        &self,
        request: Request<pb::ExchangeRequest>,
    ) -> Result<Response<pb::ExchangeResponse>, Status> {
        self.require_signing()?;
        let started = Instant::now();
        let epoch = self.epochs.current();
        let (ids, network) = (Ids::new(&request), network_of(&request));
        let context = DecisionContext { ids, started, epoch, network };
        let outcome = self.decide_exchange(request.into_inner(), &context).await?;
        Ok(context.ids.attach(Response::new(pb::ExchangeResponse { outcome: Some(outcome) })))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        self.require_signing()?;
        let readable = self.revocations.readable();
        if !*readable.borrow() {
            return Err(epoch::unreadable());
        }
        Ok(Response::new(Box::pin(self.epochs.watch(self.draining.clone(), readable))))
    }

    async fn introspect(
        &self,
        request: Request<pb::IntrospectRequest>,
    ) -> Result<Response<pb::IntrospectResponse>, Status> {
        let statuses = self.introspect_tokens(&request.get_ref().transaction_tokens)?;
        let active = statuses.iter().map(|status| *status == IntrospectionStatus::Active);
        Ok(Response::new(pb::IntrospectResponse {
            active: active.collect(),
            statuses: statuses.iter().map(|status| (*status).into()).collect(),
        }))
    }

    async fn revoke(
        &self,
        request: Request<pb::RevokeRequest>,
    ) -> Result<Response<pb::RevokeResponse>, Status> {
        let (ids, network) = (Ids::new(&request), network_of(&request));
        let pb::RevokeRequest { subject_token, tokens } = request.into_inner();
        let outcome = match self.identify_internal(&subject_token, network).await? {
            Err(unauthenticated) => revoke_response::Outcome::Unauthenticated(unauthenticated),
            Ok(token) => {
                self.decide_revocation(&token.identity, tokens.unwrap_or_default(), &ids).await?
            }
        };
        Ok(ids.attach(Response::new(pb::RevokeResponse { outcome: Some(outcome) })))
    }
}

/// The ids of a request.
struct Ids {
    /// Names the request in records and transaction tokens. Callers cannot choose it, otherwise two
    /// requests could share one id.
    own: RequestId,
    /// The id that an internal caller sent.
    caller: Option<RequestId>,
}

impl Ids {
    /// Generates an id for the request of an internal caller.
    fn new<T>(request: &Request<T>) -> Self {
        let caller =
            request.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok()?.parse().ok());
        Self { own: RequestId::generate(), caller }
    }

    /// Adds the request's own id to the response.
    fn attach<T>(&self, mut response: Response<T>) -> Response<T> {
        if let Ok(id) = self.own.as_str().parse() {
            response.metadata_mut().insert(REQUEST_ID, id);
        }
        response
    }
}

/// Inputs of a decision that do not come from its request.
struct DecisionContext {
    ids: Ids,
    started: Instant,
    epoch: u64,
    network: Option<ClientNetwork>,
}

impl Api {
    async fn decide(
        &self,
        token: &AccessToken,
        operation: pb::Operation,
        context: &DecisionContext,
    ) -> Result<authorize_response::Outcome, Status> {
        let kind = operation.kind();
        let identity = &token.identity;
        let policies = self.policies.load();
        if kind == Kind::Connect {
            let reusable_for = Some(reusable_for(token));
            let allowed =
                pb::Allowed { reusable_for, ..allowed(token, None, None, &policies, context) };
            return Ok(authorize_response::Outcome::Allowed(allowed));
        }
        let item =
            operation.item.ok_or_else(|| Status::invalid_argument("operation.item is missing"))?;
        let arguments = operation.arguments_json.as_deref();
        let message = operation.message_sha256.as_deref().map(<[u8; 32]>::try_from).transpose();
        let message = message
            .map_err(|_| Status::invalid_argument("operation.message_sha256 must have 32 bytes"))?;
        let decision = policies.decide(identity, kind, &item, arguments);
        let missing_scopes = missing_scopes(identity, &item, policies.scopes(kind, &item));
        let recorded = self.record(&DecisionEntry {
            request_id: &context.ids.own,
            caller_request_id: context.ids.caller.as_ref(),
            identity,
            actor: None,
            kind,
            item: &item,
            arguments: operation.recorded_arguments_json.as_deref().or(arguments),
            redacted: operation.recorded_arguments_json.is_some(),
            decision: &decision,
            missing_scopes: missing_scopes.as_deref().unwrap_or_default(),
            revision: policies.revision(),
            epoch: context.epoch,
            took: context.started.elapsed(),
        });
        recorded.await?;
        // Hide an item that no arguments could allow: the caller must not learn that it exists.
        let denied = |identity: &Identity, decision| {
            let conditional = arguments.map(|_| policies.decide(identity, kind, &item, None));
            let hidden = !conditional.is_some_and(|decision| may_allow(decision.outcome));
            let denied = pb::Denied { hidden, ..denied(identity, decision, &policies) };
            Ok(authorize_response::Outcome::Denied(denied))
        };
        if !may_allow(decision.outcome) {
            return denied(identity, decision);
        }
        if let Some(scopes) = missing_scopes {
            // A challenge asks a person to grant more scopes. Omit it where they would change
            // nothing.
            let granted = policies.decide(&with_scopes(identity, &scopes), kind, &item, arguments);
            if !may_allow(granted.outcome) {
                return denied(identity, granted);
            }
            let principal = Some(principal(identity));
            return Ok(authorize_response::Outcome::InsufficientScope(pb::InsufficientScope {
                scopes,
                principal,
            }));
        }
        // A caller who could be allowed the item with some arguments may complete those arguments
        // and list the item's resources.
        let is_allowed = arguments.is_some() && decision.outcome == DecisionOutcome::Allow;
        let is_lookup = matches!(kind, Kind::Complete | Kind::ListResources);
        let binding = if is_allowed || is_lookup { bind(&decision, message) } else { None };
        let minted =
            binding.map(|binding| self.mint(token, &item, binding, &context.ids.own, None));
        let minted = minted.transpose()?;
        let reusable_for = (!decision.reads_arguments).then(|| reusable_for(token));
        let allowed = allowed(token, minted, Some(decision), &policies, context);
        Ok(authorize_response::Outcome::Allowed(pb::Allowed { reusable_for, ..allowed }))
    }

    /// Records a decision. If records are required, it returns once the record is on the disk.
    fn record(
        &self,
        entry: &DecisionEntry<'_>,
    ) -> impl Future<Output = Result<(), Status>> + Send + use<'_> {
        entry.log();
        let event = self.audit.is_on().then(|| entry.event(&self.audit));
        async move {
            match event {
                Some(event) => self.commit(event).await,
                None => Ok(()),
            }
        }
    }

    async fn commit(&self, event: Event) -> Result<(), Status> {
        self.audit.commit(event).await.map_err(|error| unrecorded(&error))
    }

    async fn filter(
        &self,
        token: &AccessToken,
        kind: Kind,
        items: Vec<pb::CatalogItem>,
    ) -> pb::Visible {
        let policies = self.policies.load();
        let filter = policies.filter(&token.identity, kind);
        let (mut names, mut evaluated) = (Vec::with_capacity(items.len()), 0);
        for item in items {
            // A long list for a caller without cached decisions takes a while; let other tasks run.
            if !filter.is_cached(&item) {
                evaluated += 1;
                if evaluated % ITEMS_PER_YIELD == 0 {
                    tokio::task::yield_now().await;
                }
            }
            if may_allow(filter.outcome(&item)) {
                names.push(item.name);
            }
        }
        pb::Visible {
            names,
            principal: Some(principal(&token.identity)),
            policy_revision: policies.revision().to_owned(),
            reusable_for: Some(reusable_for(token)),
            ..Default::default()
        }
    }

    fn mint(
        &self,
        token: &AccessToken,
        item: &pb::CatalogItem,
        binding: MessageBinding,
        request_id: &RequestId,
        delegation: Option<&Delegation>,
    ) -> Result<pb::TransactionToken, Status> {
        self.minter.mint(token, item, binding, request_id, delegation).map_err(|error| {
            tracing::error!(error = error_chain(&error), "cannot sign a transaction token");
            Status::internal("cannot sign a transaction token")
        })
    }
}

/// The messages that a token for an allowed operation is valid for. If other arguments could be
/// denied, it is valid for the decided message only. `None`: that message is unknown.
fn bind(decision: &PolicyDecision, message: Option<[u8; 32]>) -> Option<MessageBinding> {
    if decision.reads_arguments {
        message.map(MessageBinding::Message)
    } else {
        Some(MessageBinding::AnyMessage)
    }
}

/// The scopes that the edge and the catalog require for the item, if the token lacks one of them.
fn missing_scopes(
    identity: &Identity,
    item: &pb::CatalogItem,
    locked: &[String],
) -> Option<Vec<String>> {
    let mut wanted = item.scopes.clone();
    wanted.extend(locked.iter().filter(|scope| !item.scopes.contains(scope)).cloned());
    let held = &identity.principal.scopes;
    wanted.iter().any(|scope| !held.contains(scope)).then_some(wanted)
}

/// Whether policy allows the operation with these arguments or with some arguments.
fn may_allow(outcome: DecisionOutcome) -> bool {
    matches!(outcome, DecisionOutcome::Allow | DecisionOutcome::Conditional)
}

/// The caller as if its token had these scopes too.
fn with_scopes(identity: &Identity, scopes: &[String]) -> Identity {
    let mut granted = identity.clone();
    let held = &mut granted.principal.scopes;
    for scope in scopes {
        if !held.contains(scope) {
            held.push(scope.clone());
        }
    }
    granted
}
