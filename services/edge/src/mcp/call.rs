//! A call to its end: progress and log lines on the way, questions to the client, and the result.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use drawbridge_proto::mcp::v1 as pb;
use drawbridge_sdk::dynamic::{self, WireMessage};
use rmcp::{
    ErrorData,
    model::{CustomResult, InputResponses, ProgressNotificationParam},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tonic::{Code, Status};

use super::{
    Handler,
    exchange::Exchange,
    interaction::{self, Requests},
    logging,
    reuse::Reuse,
    seal::Binding,
    status,
};
use crate::{
    admission::{Admission, Call},
    grpc::upstream::{EncodedMessage, Event, Target},
    refusal::Refusal,
    traffic::queue::{Busy, Turn},
};

/// Before an idempotent call is repeated, where the service does not say how long.
const RETRY_PAUSE: Duration = Duration::from_millis(50);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often one call may ask a client of an older revision.
const ROUNDS_MAX: usize = 10;

/// How a call ended.
pub(super) enum Ended {
    /// With its result, and what the cache had to do with that.
    Result(WireMessage, Option<Reuse>),
    /// The client is asked, and will come again (2026-07-28).
    InputRequired(CustomResult),
    /// The client cannot be asked, and has no error for that.
    CannotAsk,
}

/// What one round ended with.
pub(super) enum Last {
    Result(WireMessage),
    InputRequired(pb::InputRequired),
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The tool service says so.
    Status(Status),
    /// The client's part is not right.
    Client(ErrorData),
    /// It was not its turn in time.
    Busy(Busy),
}

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Busy> for Failure {
    fn from(busy: Busy) -> Self {
        Self::Busy(busy)
    }
}

impl From<ErrorData> for Failure {
    fn from(error: ErrorData) -> Self {
        Self::Client(error)
    }
}

/// What a client answered to an earlier call, and the state that it was given (2026-07-28).
#[derive(Debug, Default)]
pub(super) struct Answers {
    pub(super) responses: Option<InputResponses>,
    pub(super) state: Option<String>,
}

pub(super) struct Calling<'a> {
    pub(super) handler: &'a Handler,
    pub(super) admission: &'a Admission,
    pub(super) exchange: &'a Exchange,
    pub(super) target: &'a Target,
    pub(super) call: &'a Call,
}

impl Calling<'_> {
    /// Calls until there is a result, or the client cancels.
    pub(super) async fn run(&self, answers: Answers) -> Result<Ended, Failure> {
        let running = async {
            tokio::select! {
                ended = self.rounds(answers) => ended,
                // Dropping the call resets its stream, which the service sees.
                () = self.exchange.cancelled.cancelled() => Err(Status::cancelled("the client cancelled").into()),
            }
        };
        // Boxed: it is large, and what waits for it is moved.
        let ended = Box::pin(running).await;
        ended.map_err(|failure| self.guarded(failure))
    }

    /// The failure as a model may see it, and the log.
    fn guarded(&self, failure: Failure) -> Failure {
        let Failure::Status(status) = failure else { return failure };
        let mut message = status.message().to_owned();
        self.handler.guards.texts(self.item(), [&mut message]);
        if message == status.message() {
            return status.into();
        }
        let details = Bytes::copy_from_slice(status.details());
        Status::with_details_and_metadata(
            status.code(),
            message,
            details,
            status.metadata().clone(),
        )
        .into()
    }

    async fn rounds(&self, answers: Answers) -> Result<Ended, Failure> {
        let client = &self.exchange.client;
        let mut responses = self.given(answers)?;
        // What a client has answered is of this one call.
        let mut rule = self.target.cache.as_ref();
        rule = rule.filter(|_| responses.responses.is_empty() && responses.state.is_empty());
        let mut first = self.call.token.clone();
        for _ in 0..ROUNDS_MAX {
            responses.client = Some(client.clone());
            let message = self.target.with_responses(&self.call.message, &responses);
            // In a later round the person may have taken longer than a transaction token lives, and policy may have
            // changed. Where the decision reads the arguments, the token is for the message of this round alone.
            let (token, epoch) = match first.take() {
                Some(token) => (token, self.call.epoch),
                None => self.authorize(&message).await?,
            };
            let (last, reuse) = match rule.take() {
                Some(rule) => self.kept_or_called(rule, &token, epoch, &message).await?,
                None => (self.carried_out(&token, &message).await?, None),
            };
            let asked = match last {
                Last::Result(message) => return Ok(Ended::Result(message, reuse)),
                Last::InputRequired(mut asked) => {
                    // The client shows it to a person, or to its model.
                    self.handler.guards.texts(self.item(), interaction::texts(&mut asked));
                    asked
                }
            };
            let by_result = self.exchange.is_stateless();
            match interaction::missing(&asked, client) {
                Some(missing) if by_result => {
                    return Err(ErrorData::missing_required_client_capability(missing).into());
                }
                Some(_) => return Ok(Ended::CannotAsk),
                None => {}
            }
            let requests = interaction::requests(&asked, self.exchange.revision)?;
            if by_result {
                return self.ask_by_result(&requests, &asked.state).map(Ended::InputRequired);
            }
            if !requests.is_empty() && !self.exchange.asks() {
                return Err(interaction::pages_required(requests).into());
            }
            responses = self.ask_now(requests, asked.state).await?;
        }
        Err(Status::aborted("the tool asks again and again").into())
    }

    /// The name of what is called.
    fn item(&self) -> &str {
        self.call.operation.item.as_ref().map_or("", |item| &item.name)
    }

    /// What the client brought from an earlier round. Answers may come without a state: then the service had
    /// none to keep.
    fn given(&self, answers: Answers) -> Result<pb::InputResponses, Failure> {
        let Answers { responses, state } = answers;
        let state = state.map(|state| self.handler.seal.open(&self.binding(), &state)).transpose();
        let state = state.map_err(|error| ErrorData::invalid_params(error.to_string(), None))?;
        Ok(pb::InputResponses {
            responses: interaction::responses(&responses.unwrap_or_default()),
            state: state.unwrap_or_default(),
            client: None,
        })
    }

    fn binding(&self) -> Binding {
        // The whole message, also what a policy cannot read.
        let arguments = dynamic::to_json(self.call.message.message()).unwrap_or_default();
        Binding::new(&self.admission.grant.principal, self.target.rpc(), &arguments)
    }

    fn ask_by_result(&self, requests: &Requests, state: &[u8]) -> Result<CustomResult, Failure> {
        let state = self.handler.seal.close(&self.binding(), state);
        let state = state.map_err(|_| Status::internal("cannot seal a request state"))?;
        let mut result = json!({ "resultType": "input_required", "requestState": state });
        if !requests.is_empty() {
            result["inputRequests"] = json!(requests);
        }
        Ok(CustomResult::new(result))
    }

    async fn ask_now(
        &self,
        requests: Requests,
        state: Vec<u8>,
    ) -> Result<pb::InputResponses, Failure> {
        let again = self.admission.again.of(Arc::clone(&self.call.operation));
        let within = self.admission.context.remaining();
        let answers =
            interaction::ask(self.exchange, &again, requests, within).await.map_err(|error| {
                tracing::info!(%error, "the client does not answer");
                ErrorData::invalid_request("the client did not answer what the tool asked", None)
            })?;
        let responses = interaction::responses(&answers);
        Ok(pb::InputResponses { responses, state, client: None })
    }

    /// A transaction token for this message, and the epoch in which it was allowed.
    async fn authorize(
        &self,
        message: &EncodedMessage,
    ) -> Result<(Arc<SecretString>, u64), Failure> {
        let operation = message.named_in((*self.call.operation).clone());
        let allowed = self.admission.again.of(operation.into()).ask().await;
        let allowed = allowed.and_then(|allowed| Ok((allowed.token()?, allowed.epoch)));
        Ok(allowed.map_err(|refusal| match refusal {
            Refusal::AuthUnavailable | Refusal::Unverified => {
                Status::unavailable("auth gives no answer")
            }
            refusal => Status::permission_denied(format!("no longer allowed: {}", refusal.word())),
        })?)
    }

    /// Calls, and drops what the call makes outdated.
    async fn carried_out(
        &self,
        token: &SecretString,
        message: &EncodedMessage,
    ) -> Result<Last, Failure> {
        if self.target.invalidates.is_empty() {
            return self.once(token, message).await;
        }
        let writing = self.handler.cache.writing(&self.target.invalidates, self.target.timeout);
        let ended = self.once(token, message).await;
        match &ended {
            Err(Failure::Busy(_)) => writing.never_began(),
            Err(Failure::Status(status)) if status::is_open(status) => writing.ended(false).await,
            _ => writing.ended(true).await,
        }
        ended
    }

    /// Waits until a call may run.
    pub(super) fn turn(&self) -> impl Future<Output = Result<Turn, Busy>> + Send + use<> {
        let service = self.call.operation.item.as_ref().map_or("", |item| item.service.as_str());
        self.handler.calls.begin(service, &self.admission.grant.principal)
    }

    /// Calls when it is its turn, and once more when the service was not there and a second call does no harm.
    pub(super) async fn once(
        &self,
        token: &SecretString,
        message: &EncodedMessage,
    ) -> Result<Last, Failure> {
        // Not held while a person is asked.
        let _turn = self.turn().await?;
        if !self.target.idempotent {
            return Ok(self.attempt(token, message).await?);
        }
        match self.attempt(token, message).await {
            Err(status) if status.code() == Code::Unavailable => {
                let pause = status::retry_after(&status).unwrap_or(RETRY_PAUSE);
                // A service that wants a longer pause is not asked again while a client waits.
                if pause > RETRY_PAUSE_MAX {
                    return Err(status.into());
                }
                tracing::info!(
                    message = status.message(),
                    "the service was not there; calling again"
                );
                tokio::time::sleep(pause).await;
                Ok(self.attempt(token, message).await?)
            }
            ended => Ok(ended?),
        }
    }

    /// Calls, tells the client what it is told on the way, and returns what the call ends with.
    async fn attempt(
        &self,
        token: &SecretString,
        message: &EncodedMessage,
    ) -> Result<Last, Status> {
        let mut answering =
            self.target.begin(&self.admission.context, token.expose_secret(), message).await?;
        loop {
            match answering.next().await? {
                Event::Progress(progress) => self.tell_progress(progress).await,
                Event::Log(line) => self.tell(line).await,
                Event::InputRequired(asked) => return Ok(Last::InputRequired(asked)),
                Event::Result(message) => return Ok(Last::Result(message)),
            }
        }
    }

    async fn tell_progress(&self, progress: pb::Progress) {
        let Some(token) = self.exchange.progress_token() else { return };
        let mut param = ProgressNotificationParam::new(token.clone(), progress.progress);
        param.total = progress.total;
        param.message = Some(progress.message).filter(|message| !message.is_empty());
        self.handler.guards.texts(self.item(), &mut param.message);
        self.exchange.notify("notifications/progress", &param).await;
    }

    async fn tell(&self, line: pb::LogMessage) {
        if !self.exchange.wants(logging::of_line(line.level())) {
            return;
        }
        let mut message = logging::message(line);
        self.handler.guards.value(self.item(), &mut message.data);
        self.exchange.notify("notifications/message", &message).await;
    }
}

/// A status as the client's error.
pub(super) fn failure(status: &Status, admission: &Admission) -> ErrorData {
    log_failure(admission, status);
    let (code, message, mut data) = status::to_json_rpc(status);
    data["requestId"] = json!(admission.context.request_id.as_str());
    ErrorData::new(code, message, Some(data))
}

pub(super) fn log_failure(admission: &Admission, status: &Status) {
    let Admission { span, context, .. } = admission;
    span.record("error.type", format!("{:?}", status.code()));
    let subject = &admission.grant.principal.subject;
    let (code, message) = (status.code(), status.message());
    let _entered = span.enter();
    if status::is_for_the_model(code) {
        tracing::info!(request_id = %context.request_id, subject, ?code, message, "a call failed");
    } else {
        span.record("otel.status_code", "ERROR");
        tracing::warn!(request_id = %context.request_id, subject, ?code, message, "a call failed");
    }
}
