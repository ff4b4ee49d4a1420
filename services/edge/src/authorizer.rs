//! Asks auth who the caller is and whether an operation is allowed.

use std::{sync::Arc, time::Duration};

use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, authorize_response,
    filter_catalog_response, operation::Kind,
};
use drawbridge_runtime::{LogLimit, trace};
use drawbridge_transport::{
    BalancedChannel, CallContext, ChannelError, Peers, REASON, ReplicaCounts, SpiffeId,
    client_span, end_client_span, status_name,
};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::{
    sync::{Semaphore, watch},
    time::timeout_at,
};
use tonic::{Code, Request, Response, Status};
use tracing::{Instrument as _, Span, field::Empty};
use url::Url;

use crate::{
    error_codes,
    metrics::{AUTH_FAILOVERS, DECISIONS},
    refusal::Refusal,
};

pub(crate) use self::{
    allowed::{Allowed, Grant},
    decision_key::ItemList,
    epochs::NO_EPOCH,
    lease::StreamLease,
    reauthorizer::Reauthorizer,
    visible::{FilterDecision, Visible, VisibleItems},
};
use self::{decision_cache::DecisionCache, decision_key::DecisionKey, epochs::Epochs};

mod allowed;
mod decision_cache;
mod decision_key;
mod epochs;
mod lease;
mod reauthorizer;
mod replicas;
mod visible;

const AUTHORIZE: &str = "drawbridge.auth.v1.AuthService/Authorize";
const FILTER_CATALOG: &str = "drawbridge.auth.v1.AuthService/FilterCatalog";
/// How long one request to auth may take.
const AUTH_TIMEOUT: Duration = Duration::from_secs(5);
/// How many stream leases are renewed at once when an epoch ends.
const RENEWALS_MAX: usize = 16;

type AuthClient = AuthServiceClient<BalancedChannel>;

/// A client of all replicas of auth. INVARIANT: without a response from auth nothing is allowed.
#[derive(Clone, Debug)]
pub(crate) struct Authorizer {
    channel: BalancedChannel,
    decisions: Arc<DecisionCache>,
    /// Permits to renew stream leases.
    renewals: Arc<Semaphore>,
    /// Bounds the log lines while auth is unavailable.
    failures: Arc<LogLimit>,
}

impl Authorizer {
    /// Connects to every replica of auth behind these URLs. Each must be `id`, by default the
    /// sibling `auth` of the edge. Must be called within a runtime.
    ///
    /// # Errors
    /// When a URL cannot be used, or the list is empty.
    pub(crate) fn new(
        peers: &Peers,
        urls: &[Url],
        id: Option<&SpiffeId>,
    ) -> Result<Self, ChannelError> {
        let epochs = Epochs::new();
        let channel = peers.followed(urls, id, replicas::follower(&epochs))?;
        tokio::spawn(replicas::publish_counts(channel.counts()));
        Ok(Self {
            channel,
            decisions: Arc::new(DecisionCache::new(epochs)),
            renewals: Arc::new(Semaphore::new(RENEWALS_MAX)),
            failures: Arc::default(),
        })
    }

    /// How many replicas auth has, and how many of them are live: only those are asked. Without a
    /// live one nothing is allowed.
    pub(crate) fn replicas(&self) -> watch::Receiver<ReplicaCounts> {
        self.channel.counts()
    }

    /// Authorizes one operation.
    pub(crate) async fn authorize(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
        operation: &pb::Operation,
    ) -> Result<Allowed, Refusal> {
        let span = authorization_span(operation);
        let deciding = self.decide(context, token, resource, operation);
        let ruling = deciding.instrument(span.clone()).await;
        record_ruling(&span, ruling.as_ref());
        ruling
    }

    async fn decide(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
        operation: &pb::Operation,
    ) -> Result<Allowed, Refusal> {
        let key = DecisionKey::new(token, resource, operation);
        let period = match self.decisions.get(&key) {
            Ok(allowed) => {
                DECISIONS.with(["cache".into()]).increment(1);
                return Ok(Allowed { is_cached: true, ..allowed });
            }
            Err(period) => period,
        };
        let decision = self.request_decision(context, token, resource, operation.clone()).await;
        if let Err(Refusal::Unauthenticated { description: Some(description) }) = &decision {
            let key = DecisionKey::new(token, resource, &connect_operation());
            self.decisions.insert_rejected(key, period, description);
        }
        let (allowed, reusable_for) = decision?;
        if let Some(ttl) = reusable_for {
            self.decisions.insert(key, period, &allowed, ttl);
        }
        Ok(allowed)
    }

    async fn request_decision(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
        operation: pb::Operation,
    ) -> Result<(Allowed, Option<Duration>), Refusal> {
        DECISIONS.with(["auth".into()]).increment(1);
        let item = operation.item.as_ref().map_or_else(String::new, |item| item.name.clone());
        let request = pb::AuthorizeRequest {
            access_token: token.expose_secret().to_owned(),
            operation: Some(operation),
            resource: resource.to_owned(),
            client_address: client_address(context),
        };
        let authorize =
            |mut auth: AuthClient, request| async move { auth.authorize(request).await };
        let response = self.call(context, AUTHORIZE, request, authorize).await?;
        match response.outcome {
            Some(authorize_response::Outcome::Allowed(allowed)) => {
                let reusable_for = allowed.reusable_for.and_then(|ttl| ttl.try_into().ok());
                Ok((Allowed::new(allowed, context.request_id.clone()), reusable_for))
            }
            Some(authorize_response::Outcome::Unauthenticated(reason)) => {
                Err(unauthenticated(reason))
            }
            Some(authorize_response::Outcome::InsufficientScope(missing)) => {
                let principal = Arc::new(missing.principal.unwrap_or_default());
                Err(Refusal::InsufficientScope { scopes: missing.scopes, principal })
            }
            Some(authorize_response::Outcome::Denied(denied)) => {
                Err(Refusal::Denied { item, is_hidden: denied.hidden, denied: denied.into() })
            }
            Some(authorize_response::Outcome::Unverified(_)) => Err(Refusal::Unverified),
            None => Err(Refusal::AuthUnavailable),
        }
    }

    /// Authenticates the caller for an operation that reaches no tool service.
    pub(crate) async fn connect(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
    ) -> Result<Allowed, Refusal> {
        self.authorize(context, token, resource, &connect_operation()).await
    }

    /// Authenticates an unknown caller. A token that auth rejected recently causes no request to
    /// auth.
    pub(crate) async fn authenticate(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
    ) -> Result<Allowed, Refusal> {
        match self.decisions.rejected(&DecisionKey::new(token, resource, &connect_operation())) {
            Some(description) => {
                DECISIONS.with(["refused".into()]).increment(1);
                Err(Refusal::Unauthenticated { description: Some(description.to_string()) })
            }
            None => self.connect(context, token, resource).await,
        }
    }

    /// What is known of the items of a list that the caller may see.
    pub(crate) fn visible_items(
        &self,
        token: &SecretString,
        resource: &str,
        list: ItemList,
    ) -> VisibleItems {
        self.decisions.visible(DecisionKey::of_list(token, resource, list))
    }

    /// Lets later lists use what is known now.
    pub(crate) fn remember_visible(&self, items: &VisibleItems) {
        self.decisions.insert_visible(items);
    }

    /// Returns which items the caller may see.
    pub(crate) async fn filter(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
        kind: Kind,
        items: Vec<pb::CatalogItem>,
    ) -> Result<Visible, Refusal> {
        let request = pb::FilterCatalogRequest {
            access_token: token.expose_secret().to_owned(),
            kind: kind.into(),
            items,
            resource: resource.to_owned(),
            client_address: client_address(context),
        };
        let filter =
            |mut auth: AuthClient, request| async move { auth.filter_catalog(request).await };
        let response = self.call(context, FILTER_CATALOG, request, filter).await?;
        match response.outcome {
            Some(filter_catalog_response::Outcome::Visible(visible)) => {
                Ok(Visible::new(visible, context.request_id.clone()))
            }
            Some(filter_catalog_response::Outcome::Unauthenticated(reason)) => {
                Err(unauthenticated(reason))
            }
            Some(filter_catalog_response::Outcome::Unverified(_)) => Err(Refusal::Unverified),
            None => Err(Refusal::AuthUnavailable),
        }
    }

    /// Calls an RPC that only reads. If its replica is lost or refuses, the call is repeated once, on
    /// the live replica that is then the least loaded.
    async fn call<Q: Clone, R, F>(
        &self,
        context: &CallContext,
        rpc: &'static str,
        message: Q,
        send: impl Fn(AuthClient, Request<Q>) -> F,
    ) -> Result<R, Refusal>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let context = context.with_timeout(AUTH_TIMEOUT);
        let attempt = async |span: Span| {
            let client = AuthServiceClient::new(self.channel.clone());
            let calling = async { send(client, context.outgoing(message.clone())).await };
            let calling = calling.instrument(span.clone());
            let late = |_| Err(Status::deadline_exceeded("auth did not respond in time"));
            let response = timeout_at(context.deadline.into(), calling).await.unwrap_or_else(late);
            end_client_span(&span, response.as_ref().map_or_else(Status::code, |_| Code::Ok));
            response
        };
        let first = client_span(rpc);
        let retried = trace::context_of(&first);
        let response = match attempt(first).await {
            Err(status) if status.code() == Code::Unavailable => {
                let again = client_span(rpc);
                retried.iter().for_each(|first| trace::link(&again, first));
                attempt(again).await.inspect(|_| AUTH_FAILOVERS.get().increment(1))
            }
            response => response,
        };
        response.map(Response::into_inner).map_err(|status| self.unavailable(&status))
    }

    /// Logs why auth cannot be asked, once in a while: all calls fail for the same reason.
    fn unavailable(&self, status: &Status) -> Refusal {
        let reason = status.metadata().get(REASON).and_then(|reason| reason.to_str().ok());
        if reason == Some(error_codes::AUDIT_UNAVAILABLE.reason) {
            return Refusal::AuditUnavailable;
        }
        let (code, detail) = (status_name(status.code()), status.message());
        if let Some(suppressed) = self.failures.permit(code) {
            tracing::error!(code, detail, suppressed, "auth is unavailable");
        }
        Refusal::AuthUnavailable
    }
}

/// The operation that needs an authenticated caller and reaches no tool service.
fn connect_operation() -> pb::Operation {
    pb::Operation { kind: Kind::Connect.into(), ..Default::default() }
}

/// The address by which auth limits the introspection of unknown tokens.
fn client_address(context: &CallContext) -> String {
    context.client_address.map_or_else(String::new, |address| address.to_string())
}

/// The span of a decision, whether auth makes it or an earlier one is used.
fn authorization_span(operation: &pb::Operation) -> Span {
    let is_connect = operation.kind() == Kind::Connect;
    tracing::info_span!(
        "authorize",
        otel.name = if is_connect { "authenticate" } else { "authorize" },
        otel.status_code = Empty,
        error.type = Empty,
        drawbridge.operation = operation.kind().as_str_name(),
        drawbridge.item = operation.item.as_ref().map(|item| item.name.as_str()),
        drawbridge.decision.outcome = Empty,
        drawbridge.decision.source = Empty,
        drawbridge.decision.epoch = Empty,
        drawbridge.policy.revision = Empty,
    )
}

fn record_ruling(span: &Span, ruling: Result<&Allowed, &Refusal>) {
    if span.is_disabled() {
        return;
    }
    let decision = match ruling {
        Ok(allowed) => {
            span.record("drawbridge.decision.outcome", "allow");
            let source = if allowed.is_cached { "cache" } else { "auth" };
            span.record("drawbridge.decision.source", source);
            span.record("drawbridge.decision.epoch", allowed.epoch);
            Some(&*allowed.decision)
        }
        Err(refusal) => {
            span.record("drawbridge.decision.outcome", refusal.reason());
            if matches!(refusal, Refusal::AuthUnavailable | Refusal::Unverified) {
                span.record("error.type", refusal.reason()).record("otel.status_code", "ERROR");
            }
            match refusal {
                Refusal::Denied { denied, .. } => {
                    // No denial is cached.
                    span.record("drawbridge.decision.source", "auth");
                    denied.decision.as_ref()
                }
                _ => None,
            }
        }
    };
    let decision = decision.filter(|decision| !decision.policy_revision.is_empty());
    if let Some(pb::Decision { policy_ids, policy_revision }) = decision {
        span.record("drawbridge.policy.revision", policy_revision);
        trace::set_list(span, "drawbridge.policy.ids", policy_ids);
    }
}

fn unauthenticated(reason: pb::Unauthenticated) -> Refusal {
    Refusal::Unauthenticated { description: Some(reason.description) }
}
