//! The record of one request: who called what, on which decision, and how it ended.
//!
//! Each request has one [`CallRecorder`], which writes one record: when the request ends, or when
//! the last owner of the recorder is dropped, because the client has gone.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use axum::{body::HttpBody as _, response::Response};
use bytes::Bytes;
use drawbridge_audit::{
    AuditUnavailable, Event,
    event::{Approval, Call, CallOutcome, Caller, DecisionRef, Question, Who},
};
use drawbridge_proto::auth::v1 as auth;
use drawbridge_runtime::{CallerRequestId, RequestId, span_pseudonym, trace};
use drawbridge_transport::CallContext;
use tracing::Span;

use crate::{
    authorizer::{Allowed, FilterDecision},
    metrics::record_operation,
    refusal::Refusal,
    request_log::{CallSummary, RequestLog},
    traffic::guard::{GuardChanges, GuardedItem},
};

pub(crate) use self::{ending::Ending, records::CallRecords};

mod ending;
mod records;

/// Writes the record of one request, once.
#[must_use = "it writes the record when it is dropped"]
pub(crate) struct CallRecorder {
    records: Arc<CallRecords>,
    started: Instant,
    /// Absent: the record is written, or the request has none.
    draft: Mutex<Option<Box<Draft>>>,
    changes: GuardChanges,
    /// The log line of the request.
    log: Option<Arc<RequestLog>>,
}

/// What is known of a request before its end.
struct Draft {
    call: Call,
    request_id: RequestId,
    principal: Option<Arc<auth::Principal>>,
    /// The arguments without sensitive ones, as JSON.
    arguments: Option<Bytes>,
    /// How the request ends, if a step of it determined that.
    ending: Option<Ending>,
    /// The span of the call.
    span: Span,
}

impl CallRecorder {
    /// Begins the record of a request.
    pub(crate) fn begin(
        records: &Arc<CallRecords>,
        context: &CallContext,
        caller_request_id: Option<&CallerRequestId>,
        log: Option<Arc<RequestLog>>,
    ) -> Arc<Self> {
        let call = Call {
            caller_request_id: caller_request_id.map(|id| id.as_str().to_owned()),
            client_address: context.client_address.map(|it| it.to_string()).unwrap_or_default(),
            ..Call::default()
        };
        let draft = Draft {
            call,
            request_id: context.request_id.clone(),
            principal: None,
            arguments: None,
            ending: None,
            span: Span::none(),
        };
        Arc::new(Self {
            records: Arc::clone(records),
            started: Instant::now(),
            draft: Mutex::new(Some(Box::new(draft))),
            changes: GuardChanges::default(),
            log,
        })
    }

    fn take(&self) -> Option<Box<Draft>> {
        self.draft.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn update(&self, change: impl FnOnce(&mut Draft)) {
        let mut draft = self.draft.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(draft) = draft.as_deref_mut() {
            change(draft);
        }
    }

    /// Whether the end of the request can be recorded, if that is required. Ask before anything is
    /// done that could not be undone.
    pub(crate) fn check(&self) -> Result<(), Refusal> {
        self.records.audit.check().map_err(unavailable)
    }

    /// The message was parsed.
    pub(crate) fn parsed(&self, method: &'static str, revision: Option<&str>, bytes_in: usize) {
        self.update(|draft| {
            method.clone_into(&mut draft.call.method);
            revision.unwrap_or_default().clone_into(&mut draft.call.revision);
            draft.call.bytes_in = bytes_in as u64;
        });
    }

    /// The request has this span.
    pub(crate) fn traced(&self, span: &Span) {
        self.update(|draft| {
            if self.records.audit.is_on() {
                draft.call.trace_id = span.in_scope(trace::current_id).unwrap_or_default();
            }
            draft.span = span.clone();
        });
    }

    /// Auth has accepted the caller.
    pub(crate) fn authenticated(&self, principal: &Arc<auth::Principal>) {
        self.update(|draft| draft.principal = Some(Arc::clone(principal)));
    }

    /// Auth was asked about the operation of the request.
    pub(crate) fn decided(&self, operation: &auth::Operation, ruling: Result<&Allowed, &Refusal>) {
        self.update(|draft| {
            let auth::CatalogItem { name, service, rpc, .. } =
                operation.item.clone().unwrap_or_default();
            draft.call.operation = operation.kind().as_str_name().to_owned();
            (draft.call.item, draft.call.service, draft.call.rpc) = (name, service, rpc);
            let recorded = operation.recorded_arguments_json.as_ref();
            draft.arguments = recorded.or(operation.arguments_json.as_ref()).cloned();
            draft.rule(ruling);
        });
    }

    /// Auth was asked again about the operation, because the request has continued.
    pub(crate) fn decided_again(&self, ruling: Result<&Allowed, &Refusal>) {
        self.update(|draft| draft.rule(ruling));
    }

    /// Auth has filtered a list of items, in this request or in an earlier one.
    pub(crate) fn filtered(&self, kind: auth::operation::Kind, decision: &FilterDecision) {
        self.update(|draft| {
            draft.principal = Some(Arc::clone(&decision.principal));
            kind.as_str_name().clone_into(&mut draft.call.operation);
            draft.call.decision = Some(DecisionRef {
                request_id: decision.decided_in.to_string(),
                policy_revision: decision.policy_revision.to_string(),
                epoch: decision.epoch,
                cached: decision.decided_in != draft.request_id,
                ..DecisionRef::default()
            });
        });
    }

    /// The outcome of the cache lookup.
    pub(crate) fn looked_up(&self, outcome: &'static str) {
        self.update(|draft| outcome.clone_into(&mut draft.call.cache));
    }

    /// The client was asked a question. The answer of a person has a record of its own.
    pub(crate) fn asked(&self, kind: &str, answer: &str) {
        let question = Question { kind: kind.to_owned(), answer: answer.to_owned() };
        let is_approval = matches!(answer, "accept" | "decline" | "cancel");
        self.update(|draft| {
            draft.call.questions.push(question);
            if is_approval {
                self.records.audit.record(Event::Approval(Box::new(draft.approval(answer))));
            }
        });
    }

    /// A step has determined how the request ends. The first one counts.
    pub(crate) fn set_ending(&self, ending: Ending) {
        self.update(|draft| _ = draft.ending.get_or_insert(ending));
    }

    /// An item whose texts are filtered. The record has the number of changes.
    pub(crate) fn guarded<'a>(&'a self, name: &'a str) -> GuardedItem<'a> {
        GuardedItem { name, changes: &self.changes }
    }

    /// The request makes no call: it has no record.
    pub(crate) fn discard(&self) {
        let Some(draft) = self.take() else { return };
        let code = draft.ending.map(|ending| ending.code).unwrap_or_default();
        self.finish(&draft.span, draft.principal, &draft.call, "", code);
    }

    /// Writes the record, unless it was written. If records are required, it returns once the
    /// record is on the disk.
    ///
    /// # Errors
    /// When the record is required and cannot be written.
    pub(crate) async fn end(&self, ending: Ending, bytes_out: usize) -> Result<(), Refusal> {
        let Some(draft) = self.take() else { return Ok(()) };
        match self.event(*draft, ending, bytes_out) {
            Some(event) => self.records.audit.commit(event).await.map_err(unavailable),
            None => Ok(()),
        }
    }

    /// Ends the request with this response.
    ///
    /// # Errors
    /// When the record is required and cannot be written.
    pub(crate) async fn respond(
        &self,
        ending: Ending,
        response: Response,
    ) -> Result<Response, Refusal> {
        let bytes = response.body().size_hint().exact().unwrap_or_default();
        self.end(ending, usize::try_from(bytes).unwrap_or(usize::MAX)).await?;
        Ok(response)
    }

    /// The one place that every request passes when it ends. `None`: it has no record.
    fn event(&self, draft: Draft, ending: Ending, bytes_out: usize) -> Option<Event> {
        let Draft { mut call, request_id, principal, arguments, ending: earlier, span } = draft;
        let Ending { outcome, code } = earlier.unwrap_or(ending);
        call.request_id = request_id.to_string();
        call.who = principal.as_deref().map(caller);
        let audit = &self.records.audit;
        let arguments = arguments.filter(|_| audit.is_on());
        call.argument_digest = arguments.map(|arguments| audit.digest(&arguments));
        (call.outcome, call.code) = (outcome, code.clone().into_owned());
        let elapsed = self.started.elapsed();
        call.duration_us = u64::try_from(elapsed.as_micros()).unwrap_or(u64::MAX);
        record_operation(&call.method, tool(&call), error_type(&call), elapsed);
        let error_type = error_type(&call);
        if !error_type.is_empty() {
            span.record("error.type", error_type).record("otel.status_code", "ERROR");
        }
        self.finish(&span, principal, &call, outcome_word(&call), code);
        call.bytes_out = bytes_out as u64;
        call.guards = self.changes.take();
        if !audit.is_on() {
            return None;
        }
        if call.who.is_none() {
            call.suppressed = self.records.permit_anonymous(Instant::now())?;
        }
        Some(Event::Call(Box::new(call)))
    }

    /// Ends the span, and hands the log line what it needs.
    fn finish(
        &self,
        span: &Span,
        principal: Option<Arc<auth::Principal>>,
        call: &Call,
        outcome: &'static str,
        code: Cow<'static, str>,
    ) {
        if let Some(principal) = principal.as_deref().filter(|_| !span.is_disabled()) {
            let auth::Principal { issuer, subject, tenant, .. } = principal;
            span.record("enduser.pseudo.id", span_pseudonym(issuer, subject, tenant));
        }
        let Some(log) = &self.log else { return };
        let trace_id = |span| Some(trace::context_of(span)?.trace_id());
        let own = trace_id(span).filter(|id| trace_id(&log.span) != Some(*id));
        log.call_ended(CallSummary {
            principal,
            method: call.method.clone(),
            item: call.item.clone(),
            outcome,
            code,
            trace_id: own.map(|id| id.to_string()),
        });
    }
}

impl Draft {
    fn approval(&self, answer: &str) -> Approval {
        Approval {
            request_id: self.request_id.to_string(),
            who: self.principal.as_deref().map(who).unwrap_or_default(),
            item: self.call.item.clone(),
            service: self.call.service.clone(),
            answer: answer.to_owned(),
        }
    }

    fn rule(&mut self, ruling: Result<&Allowed, &Refusal>) {
        let request_id = self.request_id.to_string();
        let mut decision = DecisionRef { request_id, ..DecisionRef::default() };
        match ruling {
            Ok(allowed) => {
                self.principal = Some(Arc::clone(&allowed.principal));
                decision.request_id = allowed.decided_in.to_string();
                decision.policy_ids.clone_from(&allowed.decision.policy_ids);
                decision.policy_revision.clone_from(&allowed.decision.policy_revision);
                (decision.epoch, decision.cached) = (allowed.epoch, allowed.is_cached);
            }
            Err(Refusal::Denied { denied, .. }) => {
                self.principal = denied.principal.clone().map(Arc::new);
                let auth::Decision { policy_ids, policy_revision } =
                    denied.decision.clone().unwrap_or_default();
                (decision.policy_ids, decision.policy_revision) = (policy_ids, policy_revision);
            }
            Err(Refusal::InsufficientScope { principal, .. }) => {
                self.principal = Some(Arc::clone(principal));
            }
            // Auth made no decision.
            Err(_) => return,
        }
        self.call.decision = Some(decision);
    }
}

/// The tool that was called, as a metric label.
fn tool(call: &Call) -> &str {
    let is_tool = call.operation == auth::operation::Kind::CallTool.as_str_name();
    if is_tool { &call.item } else { "" }
}

/// How the call ended, as log lines name it.
fn outcome_word(call: &Call) -> &'static str {
    match call.outcome {
        CallOutcome::Ok => "ok",
        CallOutcome::ToolError => "tool_error",
        CallOutcome::Denied => "denied",
        CallOutcome::Refused => "refused",
        CallOutcome::Cancelled => "cancelled",
        CallOutcome::Failed => "failed",
    }
}

/// How the call ended, as `error.type` of OpenTelemetry's conventions: empty for success.
fn error_type(call: &Call) -> &str {
    match call.outcome {
        CallOutcome::Ok => "",
        CallOutcome::ToolError => "tool_error",
        CallOutcome::Cancelled => "cancelled",
        CallOutcome::Denied if call.code.is_empty() => "policy_denied",
        _ if call.code.is_empty() => "failed",
        _ => &call.code,
    }
}

fn unavailable(_: AuditUnavailable) -> Refusal {
    Refusal::AuditUnavailable
}

fn caller(principal: &auth::Principal) -> Caller {
    let auth::Principal { issuer, subject, client_id, tenant, workload, .. } = principal.clone();
    Caller { issuer, subject, client_id, tenant, workload }
}

fn who(principal: &auth::Principal) -> Who {
    let auth::Principal { issuer, subject, client_id, tenant, scopes, groups, roles, workload } =
        principal.clone();
    let who = Who { issuer, subject, client_id, tenant, scopes, groups, roles, ..Who::default() };
    Who { workload, ..who }
}

impl Drop for CallRecorder {
    fn drop(&mut self) {
        let Some(draft) = self.take() else { return };
        let ending = match std::thread::panicking() {
            true => Ending::failed("panic"),
            false => Ending::new(CallOutcome::Cancelled, ""),
        };
        if let Some(event) = self.event(*draft, ending, 0) {
            self.records.audit.record(event);
        }
    }
}

impl fmt::Debug for CallRecorder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallRecorder").finish_non_exhaustive()
    }
}
