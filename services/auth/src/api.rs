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
use drawbridge_sdk::{CallContext, REQUEST_ID, RequestId, SpiffeId, error_chain};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use crate::{
    authn::{ClientNetwork, Identity, Issuers, Token, TokenVerifier},
    decision_log::{Decided, DecisionLog},
    epoch::Epochs,
    policy::{Answer, Outcome, Policies, PolicyStore},
    revocation::Revocations,
    transaction::{Delegation, Minter, Opens},
};

use self::identify::{Refused, network_of};

mod exchange;
mod identify;
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
    pub(crate) issuers: Arc<Issuers>,
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
        let pb::AuthorizeRequest { access_token, operation, resource, client_address } =
            request.into_inner();
        let operation =
            operation.ok_or_else(|| Status::invalid_argument("operation is missing"))?;
        // Read first: what changes from here on makes the answer one of the past.
        let epoch = self.epochs.current();
        let network = ClientNetwork::of(&client_address);
        let outcome = match self.identify(&self.outside, &access_token, &resource, network).await? {
            Err(Refused::Token(refused)) => authorize_response::Outcome::Unauthenticated(refused),
            Err(Refused::Unverified(reason)) => {
                authorize_response::Outcome::Unverified(pb::Unverified { reason: reason.into() })
            }
            Ok(token) => {
                // The edge gives each request an id of its own.
                let ids = Ids { own: context.request_id, caller: None };
                let deciding = Deciding { ids, started, epoch, network };
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
        let network = ClientNetwork::of(&request.client_address);
        let identified =
            self.identify(&self.outside, &request.access_token, &request.resource, network);
        let outcome = match identified.await? {
            Err(Refused::Token(refused)) => {
                filter_catalog_response::Outcome::Unauthenticated(refused)
            }
            Err(Refused::Unverified(reason)) => {
                filter_catalog_response::Outcome::Unverified(pb::Unverified {
                    reason: reason.into(),
                })
            }
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
        let epoch = self.epochs.current();
        let (ids, network) = (Ids::new(&request), network_of(&request));
        let deciding = Deciding { ids, started, epoch, network };
        let outcome = self.decide_exchange(request.into_inner(), &deciding).await?;
        Ok(deciding.ids.tell(Response::new(pb::ExchangeResponse { outcome: Some(outcome) })))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<pb::WatchResponse, Status>> + Send>>;

    async fn watch(
        &self,
        _: Request<pb::WatchRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
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
        let (ids, network) = (Ids::new(&request), network_of(&request));
        let pb::RevokeRequest { subject_token, tokens } = request.into_inner();
        let outcome = match self.identify_inside(&subject_token, network).await? {
            Err(unauthenticated) => revoke_response::Outcome::Unauthenticated(unauthenticated),
            Ok(token) => {
                self.decide_revocation(&token.identity, tokens.unwrap_or_default(), &ids).await?
            }
        };
        Ok(ids.tell(Response::new(pb::RevokeResponse { outcome: Some(outcome) })))
    }
}

/// The ids of a request.
struct Ids {
    /// By it records and transaction tokens name the request. A caller does not choose it: two requests of one id could
    /// not be told apart.
    own: RequestId,
    /// What an internal caller calls it.
    caller: Option<RequestId>,
}

impl Ids {
    /// A new id for the request of an internal caller.
    fn new<T>(request: &Request<T>) -> Self {
        let caller =
            request.metadata().get(REQUEST_ID).and_then(|id| id.to_str().ok()?.parse().ok());
        Self { own: RequestId::generate(), caller }
    }

    /// Tells the caller which id its request has here.
    fn tell<T>(&self, mut response: Response<T>) -> Response<T> {
        if let Ok(id) = self.own.as_str().parse() {
            response.metadata_mut().insert(REQUEST_ID, id);
        }
        response
    }
}

/// What is known of a decision before it is made.
struct Deciding {
    ids: Ids,
    started: Instant,
    epoch: u64,
    network: Option<ClientNetwork>,
}

impl Api {
    fn decide(
        &self,
        token: &Token,
        operation: pb::Operation,
        deciding: &Deciding,
    ) -> Result<authorize_response::Outcome, Status> {
        let kind = operation.kind();
        let identity = &token.identity;
        let policies = self.policies.load();
        if kind == Kind::Connect {
            let reusable_for = Some(reusable_for(token));
            let allowed =
                pb::Allowed { reusable_for, ..allowed(token, None, None, &policies, deciding) };
            return Ok(authorize_response::Outcome::Allowed(allowed));
        }
        let item =
            operation.item.ok_or_else(|| Status::invalid_argument("operation.item is missing"))?;
        let arguments = operation.arguments_json.as_deref();
        let message = operation.message_sha256.as_deref().map(<[u8; 32]>::try_from).transpose();
        let message = message
            .map_err(|_| Status::invalid_argument("operation.message_sha256 must have 32 bytes"))?;
        let outcome = policies.decide(identity, kind, &item, arguments);
        let missing_scopes = missing_scopes(identity, &item, policies.scopes(kind, &item));
        self.log.write(&Decided {
            request_id: &deciding.ids.own,
            caller_request_id: deciding.ids.caller.as_ref(),
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
        // What no arguments could open is hidden: the caller must not learn that it exists.
        let denied = |identity: &Identity, outcome| {
            let could_be = arguments.map(|_| policies.decide(identity, kind, &item, None));
            let hidden = !could_be.is_some_and(|could_be| is_open(&could_be));
            let denied = pb::Denied { hidden, ..denied(identity, outcome, &policies) };
            Ok(authorize_response::Outcome::Denied(denied))
        };
        if !is_open(&outcome) {
            return denied(identity, outcome);
        }
        if let Some(scopes) = missing_scopes {
            // A challenge makes a person grant more. Where that would change nothing there is none.
            let granted = policies.decide(&with_scopes(identity, &scopes), kind, &item, arguments);
            if !is_open(&granted) {
                return denied(identity, granted);
            }
            let principal = Some(principal(identity));
            return Ok(authorize_response::Outcome::InsufficientScope(pb::InsufficientScope {
                scopes,
                principal,
            }));
        }
        // Who could be allowed the item with some arguments may complete them, and list what there is of it.
        let decided = arguments.is_some() && outcome.answer == Answer::Allow;
        let serves = matches!(kind, Kind::Complete | Kind::ListResources);
        let opens = if decided || serves { opens(&outcome, message) } else { None };
        let minted = opens.map(|opens| self.mint(token, &item, opens, &deciding.ids.own, None));
        let minted = minted.transpose()?;
        let reusable_for = (!outcome.reads_arguments).then(|| reusable_for(token));
        let allowed = allowed(token, minted, Some(outcome), &policies, deciding);
        Ok(authorize_response::Outcome::Allowed(pb::Allowed { reusable_for, ..allowed }))
    }

    async fn filter(
        &self,
        identity: &Identity,
        kind: Kind,
        items: Vec<pb::CatalogItem>,
    ) -> pb::Visible {
        let policies = self.policies.load();
        let mut names = Vec::new();
        for (number, item) in items.into_iter().enumerate() {
            // A long list for a caller who is not known yet takes a while; others do not wait for its end.
            if number % ITEMS_AT_ONCE == ITEMS_AT_ONCE - 1 {
                tokio::task::yield_now().await;
            }
            if is_open(&policies.decide(identity, kind, &item, None)) {
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
        opens: Opens,
        request_id: &RequestId,
        delegation: Option<&Delegation>,
    ) -> Result<pb::TransactionToken, Status> {
        self.minter.mint(token, item, opens, request_id, delegation).map_err(|error| {
            tracing::error!(error = error_chain(&error), "cannot sign a transaction token");
            Status::internal("cannot sign a transaction token")
        })
    }
}

/// What a token for an allowed operation opens. Other arguments could be refused: then it opens the RPC for the message
/// that was decided on, and nothing where nobody has said which that is.
fn opens(outcome: &Outcome, message: Option<[u8; 32]>) -> Option<Opens> {
    if outcome.reads_arguments { message.map(Opens::Message) } else { Some(Opens::AnyMessage) }
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
    deciding: &Deciding,
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

/// Whether policy allows it, with these arguments or with some.
fn is_open(outcome: &Outcome) -> bool {
    matches!(outcome.answer, Answer::Allow | Answer::Perhaps)
}

/// The caller, as its token would tell of it with these scopes too.
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
