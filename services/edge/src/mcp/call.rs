//! One call from start to end: progress and log messages, input from the client, the result.

use std::{collections::HashMap, mem, sync::Arc, time::Duration};

use bytes::Bytes;
use drawbridge_contract::dynamic::{self, WireMessage};
use drawbridge_proto::mcp::v1 as pb;
use drawbridge_runtime::trace;
use drawbridge_transport::{client_span, status_name};
use rmcp::{
    ErrorData,
    model::{CustomResult, InputResponses, ProgressNotificationParam},
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use tonic::{Code, Status};
use tracing::{Instrument as _, Span};

use super::{
    MethodHandler,
    cache_status::CacheStatus,
    capabilities, ending,
    exchange::Exchange,
    interaction::{self, InputRequests},
    logging,
    seal::{Binding, SealError},
    status,
};
use crate::{
    admitted::{Admission, Call},
    grpc::upstream::{CallEvent, EncodedMessage, RpcTarget},
    recorder::Ending,
    refusal::Refusal,
    traffic::cache::CallCaching,
    traffic::guard::GuardedItem,
    traffic::queue::{Busy, Permit},
};

/// The delay before an idempotent call is retried, unless the service names one.
const RETRY_DELAY: Duration = Duration::from_millis(50);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(2);
/// How many times one call may request input from a client of an older revision.
const ROUNDS_MAX: usize = 10;

/// How a call ended.
pub(super) enum CallOutcome {
    /// The result, and its cache status where the result may be cached.
    Result(WireMessage, Option<CacheStatus>),
    /// The result requests input, and the client calls again with it (2026-07-28).
    InputRequired(CustomResult),
    /// The client does not support the input, and its revision has no error for that.
    InputUnsupported,
}

/// How one round of a call ended.
pub(super) enum RoundOutcome {
    Result(WireMessage),
    InputRequired(pb::InputRequired),
}

/// Why a call failed.
#[derive(Debug)]
pub(super) enum CallFailure {
    /// The tool service failed.
    Status(Status),
    /// The client's input is invalid.
    Client(ErrorData),
    /// No permit was free in time.
    Busy(Busy),
}

impl From<Status> for CallFailure {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<Busy> for CallFailure {
    fn from(busy: Busy) -> Self {
        Self::Busy(busy)
    }
}

impl From<ErrorData> for CallFailure {
    fn from(error: ErrorData) -> Self {
        Self::Client(error)
    }
}

/// The input that a client sends with a repeated call, and the state it received (2026-07-28).
#[derive(Debug, Default)]
pub(super) struct ClientInput {
    pub(super) responses: Option<InputResponses>,
    pub(super) state: Option<String>,
}

/// Runs one admitted call of a tool service.
pub(super) struct CallRunner<'a> {
    pub(super) handler: &'a MethodHandler,
    pub(super) admission: &'a Admission,
    pub(super) exchange: &'a Exchange,
    pub(super) target: &'a RpcTarget,
    /// Absent: a call neither reads nor changes the cache.
    pub(super) caching: Option<&'a CallCaching>,
    pub(super) call: &'a Call,
}

impl<'a> CallRunner<'a> {
    /// The same call, which reads and changes the cache.
    pub(super) fn with_caching(self, caching: &'a CallCaching) -> Self {
        Self { caching: Some(caching), ..self }
    }

    /// Calls until there is a result, or the client cancels.
    pub(super) async fn run(&self, input: ClientInput) -> Result<CallOutcome, CallFailure> {
        let overdue = self.handler.tasks.overdue();
        let running = async {
            tokio::select! {
                outcome = self.run_rounds(input) => outcome,
                // Dropping the call resets its stream, so the service notices.
                () = self.exchange.cancelled.cancelled() => {
                    Err(Status::cancelled("the client cancelled the request").into())
                }
                () = overdue.cancelled() => {
                    Err(Status::unavailable("the edge stopped before the call had ended").into())
                }
            }
        };
        // Boxed: the future is large, and its parents move it.
        let outcome = Box::pin(running).await;
        outcome.map_err(|failure| self.guard_failure(failure))
    }

    /// Applies the guards to the failure, before a model or the log sees it.
    fn guard_failure(&self, failure: CallFailure) -> CallFailure {
        let CallFailure::Status(status) = failure else { return failure };
        let mut message = status.message().to_owned();
        self.handler.guards.texts(self.guarded(), [&mut message]);
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

    async fn run_rounds(&self, input: ClientInput) -> Result<CallOutcome, CallFailure> {
        let client = &self.exchange.client;
        let mut responses = self.open_input(input)?;
        // A result that depends on the client's input is not cached.
        let mut rule = self.caching.and_then(|caching| caching.rule.as_ref());
        rule = rule.filter(|_| responses.responses.is_empty() && responses.state.is_empty());
        let mut first = self.call.token.clone();
        for _ in 0..ROUNDS_MAX {
            responses.client = Some(client.clone());
            let message = self.target.with_responses(&self.call.message, &responses);
            // By a later round the transaction token may have expired, and policy may have changed.
            // Where the decision reads the arguments, the token is valid for this message alone.
            let (token, epoch) = match first.take() {
                Some(token) => (token, self.call.epoch),
                None => self.authorize(&message).await?,
            };
            let (outcome, cache) = match rule.take() {
                Some(rule) => self.call_cached(rule, &token, epoch, &message).await?,
                None => (self.call_and_invalidate(&token, &message).await?, None),
            };
            let mut required = match outcome {
                RoundOutcome::Result(message) => return Ok(CallOutcome::Result(message, cache)),
                RoundOutcome::InputRequired(mut required) => {
                    // The client shows it to a person or to its model.
                    self.handler.guards.texts(self.guarded(), interaction::texts(&mut required));
                    required
                }
            };
            let is_stateless = self.exchange.is_stateless();
            match capabilities::missing_capabilities(&required, client) {
                Some(missing) if is_stateless => {
                    return Err(ErrorData::missing_required_client_capability(missing).into());
                }
                Some(_) => return Ok(CallOutcome::InputUnsupported),
                None => {}
            }
            let requests = interaction::to_requests(&required, self.exchange.revision)?;
            if is_stateless || !self.exchange.can_request_input() {
                self.record_questions(&required, &HashMap::new());
            }
            if is_stateless {
                self.admission.recorder.set_ending(ending::INPUT_REQUIRED);
                let result = self.input_required_result(&requests, &required.state)?;
                return Ok(CallOutcome::InputRequired(result));
            }
            if !requests.is_empty() && !self.exchange.can_request_input() {
                self.admission.recorder.set_ending(ending::INPUT_REQUIRED);
                return Err(interaction::url_elicitation_required(requests).into());
            }
            let answered = self.request_input(requests, mem::take(&mut required.state)).await;
            let answers = answered.as_ref().map(|answered| &answered.responses);
            self.record_questions(&required, answers.unwrap_or(&HashMap::new()));
            responses = answered?;
        }
        Err(Status::aborted("the tool requested input too many times").into())
    }

    /// The called item.
    fn guarded(&self) -> GuardedItem<'_> {
        let item = self.call.operation.item.as_ref().map_or("", |item| &item.name);
        self.admission.recorder.guarded(item)
    }

    /// Records what the client was asked, and its answers.
    fn record_questions(
        &self,
        required: &pb::InputRequired,
        answers: &HashMap<String, pb::InputResponse>,
    ) {
        for (key, request) in &required.requests {
            let kind = interaction::request_kind(request);
            let answer = answers.get(key).map_or("none", interaction::answer);
            self.admission.recorder.asked(kind, answer);
        }
    }

    /// Opens the client's input from an earlier round. It has no state if the service sent none.
    fn open_input(&self, input: ClientInput) -> Result<pb::InputResponses, CallFailure> {
        let ClientInput { responses, state } = input;
        let open = |state: String| self.handler.seal.open(&self.binding()?, &state);
        let state = state.map(open).transpose();
        let state = state.map_err(|error| ErrorData::invalid_params(error.to_string(), None))?;
        let responses = interaction::parse_responses(&responses.unwrap_or_default());
        for response in responses.values() {
            let answer = interaction::answer(response);
            self.admission.recorder.asked(interaction::response_kind(response), answer);
        }
        let (state, asked) = state.unwrap_or_default();
        asked.iter().for_each(|asked| trace::link(&self.admission.span, asked));
        Ok(pb::InputResponses { responses, state, client: None })
    }

    fn binding(&self) -> Result<Binding, SealError> {
        // The whole message, including fields that policies cannot read. Its 64-bit integers are
        // strings where a double could not hold them, so no two messages have the same digest.
        let arguments = dynamic::to_json(self.call.message.message()).map_err(|_| SealError)?;
        Binding::new(&self.admission.grant.principal, self.target.rpc(), &arguments)
    }

    fn input_required_result(
        &self,
        requests: &InputRequests,
        state: &[u8],
    ) -> Result<CustomResult, CallFailure> {
        // The call that continues links to this one.
        let asked = trace::context_of(&self.admission.span);
        let seal = |binding| self.handler.seal.seal(&binding, state, asked.as_ref());
        let state = self.binding().and_then(seal);
        let state = state.map_err(|_| Status::internal("could not seal the request state"))?;
        let mut result = json!({ "resultType": "input_required", "requestState": state });
        if !requests.is_empty() {
            result["inputRequests"] = json!(requests);
        }
        Ok(CustomResult::new(result))
    }

    async fn request_input(
        &self,
        requests: InputRequests,
        state: Vec<u8>,
    ) -> Result<pb::InputResponses, CallFailure> {
        let reauthorizer =
            self.admission.reauthorizer.for_operation(Arc::clone(&self.call.operation));
        let within = self.admission.context.remaining();
        let responses = interaction::request_input(self.exchange, &reauthorizer, requests, within)
            .await
            .map_err(|error| {
                tracing::info!(%error, "the client did not provide the requested input");
                let message = "the client did not provide the input that the tool requested";
                ErrorData::invalid_request(message, None)
            })?;
        let responses = interaction::parse_responses(&responses);
        Ok(pb::InputResponses { responses, state, client: None })
    }

    /// Obtains a transaction token for this message, and the epoch of the decision.
    async fn authorize(
        &self,
        message: &EncodedMessage,
    ) -> Result<(Arc<SecretString>, u64), CallFailure> {
        let operation = message.bind_digest((*self.call.operation).clone());
        let allowed =
            self.admission.reauthorizer.for_operation(operation.into()).reauthorize().await;
        let recorder = &self.admission.recorder;
        recorder.decided_again(allowed.as_ref());
        if let Err(refusal) = &allowed {
            recorder.set_ending(Ending::from(refusal));
        }
        let allowed = allowed.and_then(|allowed| Ok((allowed.token()?, allowed.epoch)));
        Ok(allowed.map_err(|refusal| match refusal {
            Refusal::AuthUnavailable | Refusal::Unverified => {
                Status::unavailable("the authorization service is unavailable")
            }
            refusal => {
                Status::permission_denied(format!("no longer allowed: {}", refusal.reason()))
            }
        })?)
    }

    /// Calls, and invalidates the cache entries that the call makes stale.
    async fn call_and_invalidate(
        &self,
        token: &SecretString,
        message: &EncodedMessage,
    ) -> Result<RoundOutcome, CallFailure> {
        let tags = self.caching.map_or(&[][..], |caching| &caching.invalidates);
        if tags.is_empty() {
            return self.call_with_retry(token, message).await;
        }
        let write = self.handler.cache.begin_write(tags, self.target.timeout);
        let outcome = self.call_with_retry(token, message).await;
        match &outcome {
            Err(CallFailure::Busy(_)) => write.cancel(),
            Err(CallFailure::Status(status)) if status::is_unresolved(status) => {
                write.end(false).await;
            }
            _ => write.end(true).await,
        }
        outcome
    }

    /// Waits for a permit to call the service.
    pub(super) fn acquire_permit(
        &self,
    ) -> impl Future<Output = Result<Permit, Busy>> + Send + use<> {
        let service = self.call.operation.item.as_ref().map_or("", |item| item.service.as_str());
        self.handler.calls.acquire(service, &self.admission.grant.principal)
    }

    /// Calls once it has a permit; retries an idempotent call once if the service was unavailable.
    pub(super) async fn call_with_retry(
        &self,
        token: &SecretString,
        message: &EncodedMessage,
    ) -> Result<RoundOutcome, CallFailure> {
        // Released before input is requested from the client.
        let _permit = self.acquire_permit().await?;
        let span = client_span(self.target.rpc());
        if !self.target.idempotent {
            return Ok(self.attempt(span, token, message).await?);
        }
        let first = trace::context_of(&span);
        match self.attempt(span, token, message).await {
            Err(status) if status.code() == Code::Unavailable => {
                let delay = status::retry_after(&status).unwrap_or(RETRY_DELAY);
                // A client does not wait for a longer delay.
                if delay > RETRY_DELAY_MAX {
                    return Err(status.into());
                }
                tracing::info!(detail = status.message(), "the service was unavailable; retrying");
                let wait = tracing::info_span!("retry", otel.name = "wait before a retry");
                tokio::time::sleep(delay).instrument(wait).await;
                let span = client_span(self.target.rpc());
                first.iter().for_each(|first| trace::link(&span, first));
                Ok(self.attempt(span, token, message).await?)
            }
            outcome => Ok(outcome?),
        }
    }

    /// Calls once, and forwards progress and log messages to the client.
    async fn attempt(
        &self,
        span: Span,
        token: &SecretString,
        message: &EncodedMessage,
    ) -> Result<RoundOutcome, Status> {
        let context = &self.admission.context;
        let beginning = self.target.begin(span, context, token.expose_secret(), message);
        let mut response = beginning.await?;
        loop {
            match response.next().await? {
                CallEvent::Progress(progress) => self.notify_progress(progress).await,
                CallEvent::Log(log) => self.notify_log(log).await,
                CallEvent::InputRequired(required) => {
                    return Ok(RoundOutcome::InputRequired(required));
                }
                CallEvent::Result(message) => return Ok(RoundOutcome::Result(message)),
            }
        }
    }

    async fn notify_progress(&self, progress: pb::Progress) {
        let Some(token) = self.exchange.progress_token() else { return };
        let mut param = ProgressNotificationParam::new(token.clone(), progress.progress);
        param.total = progress.total;
        param.message = Some(progress.message).filter(|message| !message.is_empty());
        self.handler.guards.texts(self.guarded(), &mut param.message);
        self.exchange.notify("notifications/progress", &param).await;
    }

    async fn notify_log(&self, log: pb::LogMessage) {
        if !self.exchange.wants_log(logging::level_from_service(log.level())) {
            return;
        }
        let mut message = logging::notification(log);
        self.handler.guards.value(self.guarded(), &mut message.data);
        self.exchange.notify("notifications/message", &message).await;
    }
}

/// Logs a status, and converts it to the client's error.
pub(super) fn to_error_data(status: &Status, admission: &Admission) -> ErrorData {
    log_failure(admission, status);
    admission.recorder.set_ending(ending::of_status(status));
    let (code, message, mut data) = status::to_json_rpc(status);
    data["requestId"] = json!(admission.context.request_id.as_str());
    ErrorData::new(code, message, Some(data))
}

pub(super) fn log_failure(admission: &Admission, status: &Status) {
    let (code, detail) = (status_name(status.code()), status.message());
    let _entered = admission.span.enter();
    if status::is_for_model(status.code()) {
        tracing::info!(code, detail, "a call failed");
    } else {
        tracing::warn!(code, detail, "a call failed");
    }
}
