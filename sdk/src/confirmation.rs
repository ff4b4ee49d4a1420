//! Asks the person to confirm what a call is about to do.

use std::collections::{BTreeMap, HashMap};

use drawbridge_proto::mcp::v1::{
    ElicitForm, ElicitResult, InputRequest, InputRequired, InputResponses, elicit_result::Action,
    input_request, input_response,
};
use drawbridge_transport::transaction_token::VerifiedCaller;
use prost_types::{ListValue, Struct, Value, value::Kind};
use tonic::Status;

/// The key of the request to the person.
const REQUEST_KEY: &str = "confirm";

/// A confirmation by the person, which a call needs before it acts.
///
/// The request of the RPC has a field of the type `InputResponses`; its response, or an event of
/// it, one of the type `InputRequired`:
///
/// ```
/// # use drawbridge_sdk::{Confirmation, VerifiedCaller, mcp::{InputRequired, InputResponses}};
/// # use drawbridge_sdk::tonic::Status;
/// # #[derive(Default)] struct DeleteResponse { input_required: Option<InputRequired> }
/// # struct DeleteRequest { id: String, interaction: Option<InputResponses> }
/// fn delete(caller: &VerifiedCaller, request: &DeleteRequest) -> Result<DeleteResponse, Status> {
///     let confirmation = Confirmation::new(format!("Delete {}?", request.id));
///     let question = confirmation.check(caller, request.interaction.as_ref())?;
///     if question.is_some() {
///         return Ok(DeleteResponse { input_required: question, ..Default::default() });
///     }
///     // The person has confirmed: act.
///     Ok(DeleteResponse::default())
/// }
/// ```
#[derive(Clone, Debug)]
pub struct Confirmation {
    message: String,
    checkbox: Option<(&'static str, &'static str)>,
    state: Vec<u8>,
}

/// Why a call is not confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfirmationError {
    /// The caller is a program, or a service that acts for a person: it could forge a response,
    /// because only the edge asks the person itself.
    #[error("this needs the confirmation of a person who calls directly")]
    NoPerson,
    /// The person declined, or closed the form.
    #[error("the person did not confirm")]
    Declined,
}

impl From<ConfirmationError> for Status {
    fn from(error: ConfirmationError) -> Self {
        match error {
            ConfirmationError::NoPerson => Self::permission_denied(error.to_string()),
            ConfirmationError::Declined => Self::failed_precondition(error.to_string()),
        }
    }
}

impl Confirmation {
    /// Asks with this message: what will happen, in a sentence.
    #[must_use]
    pub fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), checkbox: None, state: Vec::new() }
    }

    /// Requires that the person checks a box, too: the field `name` with the title `title`.
    #[must_use]
    pub fn with_checkbox(mut self, name: &'static str, title: &'static str) -> Self {
        self.checkbox = Some((name, title));
        self
    }

    /// Identifies what the person is asked about where the request does not: a response about
    /// another state does not count, and the person is asked again.
    #[must_use]
    pub fn with_state(mut self, state: impl Into<Vec<u8>>) -> Self {
        self.state = state.into();
        self
    }

    /// Checks the responses of a call. `None`: confirmed. `Some`: what to return, so that the edge
    /// asks the person and calls again with the response. The edge rejects the call of a client
    /// that cannot show forms (`InputResponses.client`).
    ///
    /// # Errors
    /// When the person did not confirm, or no person calls directly.
    pub fn check(
        &self,
        caller: &VerifiedCaller,
        responses: Option<&InputResponses>,
    ) -> Result<Option<InputRequired>, ConfirmationError> {
        if !caller.is_person() {
            return Err(ConfirmationError::NoPerson);
        }
        let response = responses
            .filter(|responses| responses.state == self.state)
            .and_then(|responses| responses.responses.get(REQUEST_KEY)?.kind.as_ref());
        match response {
            Some(input_response::Kind::Elicitation(result)) if self.is_confirmed_by(result) => {
                Ok(None)
            }
            Some(_) => Err(ConfirmationError::Declined),
            None => Ok(Some(self.request())),
        }
    }

    fn is_confirmed_by(&self, result: &ElicitResult) -> bool {
        let is_checked = |name: &str| {
            let field = result.content.as_ref().and_then(|content| content.fields.get(name));
            matches!(field.and_then(|value| value.kind.as_ref()), Some(Kind::BoolValue(true)))
        };
        result.action() == Action::Accept && self.checkbox.is_none_or(|(name, _)| is_checked(name))
    }

    fn request(&self) -> InputRequired {
        let mut schema = fields([("type", text("object")), ("properties", object([]))]);
        if let Some((name, title)) = self.checkbox {
            let field = object([("type", text("boolean")), ("title", text(title))]);
            let required = Kind::ListValue(ListValue { values: vec![value(text(name))] });
            schema.fields.insert("properties".to_owned(), value(object([(name, field)])));
            schema.fields.insert("required".to_owned(), value(required));
        }
        let form = ElicitForm { message: self.message.clone(), requested_schema: Some(schema) };
        let request = InputRequest { kind: Some(input_request::Kind::Form(form)) };
        InputRequired {
            requests: HashMap::from([(REQUEST_KEY.to_owned(), request)]),
            state: self.state.clone(),
        }
    }
}

fn fields<const N: usize>(fields: [(&str, Kind); N]) -> Struct {
    let fields: BTreeMap<_, _> =
        fields.into_iter().map(|(name, kind)| (name.to_owned(), value(kind))).collect();
    Struct { fields }
}

fn object<const N: usize>(of: [(&str, Kind); N]) -> Kind {
    Kind::StructValue(fields(of))
}

fn text(text: &str) -> Kind {
    Kind::StringValue(text.to_owned())
}

fn value(kind: Kind) -> Value {
    Value { kind: Some(kind) }
}

#[cfg(test)]
mod tests {
    use drawbridge_proto::mcp::v1::InputResponse;
    use drawbridge_transport::transaction_token::Actor;

    use super::*;
    use crate::testing::request_of_person;

    fn person() -> VerifiedCaller {
        VerifiedCaller::require(&request_of_person("alice", "acme", ())).unwrap().clone()
    }

    fn responses(state: &[u8], action: Option<Action>, is_checked: bool) -> InputResponses {
        let content = fields([("ok", Kind::BoolValue(is_checked))]);
        let response = action.map(|action| {
            let result = ElicitResult { action: action.into(), content: Some(content) };
            let kind = Some(input_response::Kind::Elicitation(result));
            (REQUEST_KEY.to_owned(), InputResponse { kind })
        });
        InputResponses {
            responses: response.into_iter().collect(),
            state: state.to_owned(),
            client: None,
        }
    }

    #[test]
    fn only_an_accepted_checked_response_about_the_same_state_confirms() {
        let confirmation =
            Confirmation::new("Delete it?").with_checkbox("ok", "Delete").with_state(*b"a");
        let check = |given: InputResponses| confirmation.check(&person(), Some(&given));
        let accept = Some(Action::Accept);
        assert_eq!(check(responses(b"a", accept, true)), Ok(None));
        assert_eq!(check(responses(b"a", accept, false)), Err(ConfirmationError::Declined));
        for action in [Action::Decline, Action::Cancel, Action::Unspecified] {
            let declined = check(responses(b"a", Some(action), true));
            assert_eq!(declined, Err(ConfirmationError::Declined));
        }
        for unasked in [responses(b"b", accept, true), responses(b"a", None, true)] {
            assert_eq!(check(unasked).unwrap().unwrap().state, b"a");
        }
    }

    #[test]
    fn a_program_and_an_intermediate_service_cannot_confirm() {
        let confirmation = Confirmation::new("Delete it?");
        let accepted = responses(b"", Some(Action::Accept), true);
        let (mut program, mut service) = (person(), person());
        let claims = std::sync::Arc::make_mut(&mut program.claims);
        claims.tctx.facts.as_mut().unwrap().workload = true;
        let actor = Actor { iss: "i".to_owned(), sub: "s".to_owned(), act: None };
        std::sync::Arc::make_mut(&mut service.claims).act = Some(Box::new(actor));
        for caller in [program, service] {
            let refused = confirmation.check(&caller, Some(&accepted));
            assert_eq!(refused, Err(ConfirmationError::NoPerson));
        }
        assert_eq!(confirmation.check(&person(), Some(&accepted)), Ok(None));
    }
}
