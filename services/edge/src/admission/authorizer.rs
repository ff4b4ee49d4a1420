//! Asks auth: who is calling, and may they?

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use drawbridge_proto::auth::v1::{
    self as pb, auth_service_client::AuthServiceClient, authorize_response,
    filter_catalog_response, operation::Kind,
};
use drawbridge_sdk::{CallContext, client_span, end_client_span};
use metrics::counter;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::{Status, transport::Channel};
use tracing::{Instrument as _, Span};

use crate::refusal::Refusal;

use self::kept::{Kept, Question};
pub(crate) use self::{kept::SILENCE, lease::Lease, reauthorizer::Reauthorizer};

mod kept;
mod lease;
mod reauthorizer;

const AUTHORIZE: &str = "drawbridge.auth.v1.AuthService/Authorize";
const FILTER_CATALOG: &str = "drawbridge.auth.v1.AuthService/FilterCatalog";
/// How long auth may take. Who waits longer is told to try again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Auth speaks once a second. For how long its silence is borne.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How many open streams are decided again at once, when an epoch ends.
const RENEWALS_AT_ONCE: usize = 16;
/// Before auth is listened to again.
const LISTEN_PAUSE: Duration = Duration::from_millis(200);

/// Auth, as the edge knows it. Without an answer nothing is allowed.
#[derive(Clone, Debug)]
pub(crate) struct Authorizer {
    client: AuthServiceClient<Channel>,
    kept: Arc<Kept>,
    /// Permits to decide on an open stream again.
    renewals: Arc<Semaphore>,
}

/// An operation that is allowed.
#[derive(Clone, Debug)]
pub(crate) struct Allowed {
    pub(crate) principal: Arc<pb::Principal>,
    /// In which it was allowed. What is kept is kept for this epoch.
    pub(crate) epoch: u64,
    /// When the access token expires.
    pub(crate) expires_at: Option<SystemTime>,
    token: Option<Arc<SecretString>>,
    decision: Arc<pb::Decision>,
}

/// Who was admitted, and for how long that holds.
#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) principal: Arc<pb::Principal>,
    /// In which it was decided. Zero: nobody said.
    pub(crate) epoch: u64,
    /// When the access token expires.
    pub(crate) expires_at: Option<SystemTime>,
}

impl From<pb::Visible> for Grant {
    fn from(visible: pb::Visible) -> Self {
        Self {
            principal: Arc::new(visible.principal.unwrap_or_default()),
            epoch: 0,
            expires_at: None,
        }
    }
}

impl Allowed {
    pub(crate) fn grant(&self) -> Grant {
        let Self { principal, epoch, expires_at, .. } = self.clone();
        Grant { principal, epoch, expires_at }
    }

    /// The transaction token, for an operation that reaches a tool service.
    pub(crate) fn token(&self) -> Result<Arc<SecretString>, Refusal> {
        self.token.clone().ok_or(Refusal::AuthUnavailable)
    }
}

impl From<pb::Allowed> for Allowed {
    fn from(allowed: pb::Allowed) -> Self {
        Self {
            principal: Arc::new(allowed.principal.unwrap_or_default()),
            epoch: allowed.epoch,
            expires_at: allowed.expires_at.and_then(|time| time.try_into().ok()),
            token: allowed.transaction_token.map(|token| Arc::new(token.token.into())),
            decision: Arc::new(allowed.decision.unwrap_or_default()),
        }
    }
}

impl Authorizer {
    pub(crate) fn new(channel: Channel) -> Self {
        let renewals = Arc::new(Semaphore::new(RENEWALS_AT_ONCE));
        Self { client: AuthServiceClient::new(channel), kept: Arc::new(Kept::new()), renewals }
    }

    /// Hears from auth when decisions change, until `stopping`. What nobody would take back is not kept.
    pub(crate) async fn listen(self, stopping: CancellationToken) {
        let listening = async {
            loop {
                let status = self.hear().await;
                self.kept.silence();
                tracing::debug!(code = ?status.code(), message = status.message(), "auth is not heard");
                tokio::time::sleep(LISTEN_PAUSE).await;
            }
        };
        stopping.run_until_cancelled(listening).await;
    }

    /// Hears until auth falls silent.
    async fn hear(&self) -> Status {
        let silent = || Status::deadline_exceeded("auth says nothing");
        let mut client = self.client.clone();
        let hearing = async {
            let beginning = tokio::time::timeout(ANSWER_TIMEOUT, client.watch(pb::WatchRequest {}));
            let mut words = beginning.await.map_err(|_| silent())??.into_inner();
            while let Some(word) =
                tokio::time::timeout(SILENCE_MAX, words.message()).await.map_err(|_| silent())??
            {
                self.kept.enter(word.epoch);
            }
            Err(Status::unavailable("auth has ended its stream"))
        };
        hearing.await.unwrap_or_else(|status: Status| status)
    }

    /// Decides one operation.
    pub(crate) async fn authorize(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
        operation: pb::Operation,
    ) -> Result<Allowed, Refusal> {
        self.decide(context, token, resource, operation, repeated).await
    }

    /// Decides an operation of which not all is known yet. Once it is, another decision follows, and that one has the
    /// record.
    pub(crate) async fn foresee(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
        operation: pb::Operation,
    ) -> Result<Allowed, Refusal> {
        self.decide(context, token, resource, operation, |_, _, _| {}).await
    }

    async fn decide(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
        operation: pb::Operation,
        record: impl FnOnce(&CallContext, &pb::Operation, &Allowed),
    ) -> Result<Allowed, Refusal> {
        let question = Question::new(token, resource, &operation);
        if let Some(allowed) = self.kept.get(&question) {
            record(context, &operation, &allowed);
            return Ok(allowed);
        }
        let asked = self.ask(context, token, resource, operation).await;
        if let Err(Refusal::Unauthenticated { description: Some(description) }) = &asked {
            self.kept.refuse(Question::new(token, resource, &connecting()), description);
        }
        let (allowed, reusable_for) = asked?;
        if let Some(lasts) = reusable_for {
            self.kept.put(question, &allowed, lasts);
        }
        Ok(allowed)
    }

    async fn ask(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
        operation: pb::Operation,
    ) -> Result<(Allowed, Option<Duration>), Refusal> {
        counter!("edge_decisions_total", "source" => "auth").increment(1);
        let item = operation.item.as_ref().map_or_else(String::new, |item| item.name.clone());
        let request = pb::AuthorizeRequest {
            access_token: token.expose_secret().to_owned(),
            operation: Some(operation),
            resource: resource.to_owned(),
            client_address: client_address(context),
        };
        let mut client = self.client.clone();
        let context = context.within(ANSWER_TIMEOUT);
        let span = client_span(AUTHORIZE);
        let response =
            async { client.authorize(context.outgoing(request)).await }.instrument(span.clone());
        match answered(response.await, &span)?.into_inner().outcome {
            Some(authorize_response::Outcome::Allowed(allowed)) => {
                let reusable_for = allowed.reusable_for.and_then(|lasts| lasts.try_into().ok());
                Ok((allowed.into(), reusable_for))
            }
            Some(authorize_response::Outcome::Unauthenticated(reason)) => {
                Err(unauthenticated(reason))
            }
            Some(authorize_response::Outcome::InsufficientScope(missing)) => {
                Err(Refusal::InsufficientScope { scopes: missing.scopes })
            }
            Some(authorize_response::Outcome::Denied(denied)) => {
                Err(Refusal::Denied { item, reason: denied.reason, is_hidden: denied.hidden })
            }
            Some(authorize_response::Outcome::Unverified(_)) => Err(Refusal::Unverified),
            None => Err(Refusal::AuthUnavailable),
        }
    }

    /// Verifies the caller, for what reaches no tool service.
    pub(crate) async fn connect(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
    ) -> Result<Allowed, Refusal> {
        self.authorize(context, token, resource, connecting()).await
    }

    /// Verifies a caller of whom nothing is known. A token that was refused a moment ago costs auth nothing.
    pub(crate) async fn authenticate(
        &self,
        context: &CallContext,
        token: &SecretString,
        resource: &str,
    ) -> Result<Allowed, Refusal> {
        match self.kept.refused(&Question::new(token, resource, &connecting())) {
            Some(description) => {
                counter!("edge_decisions_total", "source" => "refused").increment(1);
                Err(Refusal::Unauthenticated { description: Some(description.to_string()) })
            }
            None => self.decide(context, token, resource, connecting(), |_, _, _| {}).await,
        }
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
            client_address: client_address(context),
        };
        let mut client = self.client.clone();
        let context = context.within(ANSWER_TIMEOUT);
        let span = client_span(FILTER_CATALOG);
        let response = async { client.filter_catalog(context.outgoing(request)).await }
            .instrument(span.clone());
        match answered(response.await, &span)?.into_inner().outcome {
            Some(filter_catalog_response::Outcome::Visible(visible)) => Ok(visible),
            Some(filter_catalog_response::Outcome::Unauthenticated(reason)) => {
                Err(unauthenticated(reason))
            }
            Some(filter_catalog_response::Outcome::Unverified(_)) => Err(Refusal::Unverified),
            None => Err(Refusal::AuthUnavailable),
        }
    }
}

/// What needs a valid caller and reaches no tool service.
fn connecting() -> pb::Operation {
    pb::Operation { kind: Kind::Connect.into(), ..Default::default() }
}

/// By which address auth counts a token that it does not know.
fn client_address(context: &CallContext) -> String {
    context.client_address.map_or_else(String::new, |address| address.to_string())
}

/// The record of a decision that auth made a moment ago and the edge repeats: the decision log has it once.
fn repeated(context: &CallContext, operation: &pb::Operation, allowed: &Allowed) {
    counter!("edge_decisions_total", "source" => "kept").increment(1);
    let pb::Principal { issuer, subject, client_id, .. } = &*allowed.principal;
    let pb::Decision { policy_ids, policy_revision } = &*allowed.decision;
    let item = operation.item.as_ref().map_or("", |item| item.name.as_str());
    let operation = operation.kind().as_str_name();
    tracing::info!(
        request_id = %context.request_id,
        issuer, subject, client_id, item, operation, ?policy_ids, policy_revision,
        "decision repeated"
    );
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
