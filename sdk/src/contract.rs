//! What a tool service's contract offers, and what of its messages a policy can read.
//!
//! The edge decides on messages in this form, and the policy schemas are generated from it, so that
//! both mean the same.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use drawbridge_proto::mcp::v1 as mcp;
use prost::{Message, Name};
use prost_reflect::{
    DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor,
    ReflectMessage as _, Value as Field,
};
use serde_json::{Map, Value};

use self::names::snake_case;
use crate::dynamic;

pub use self::instructions::{Introduction, instructions};

mod instructions;
mod names;

/// What is written down for a sensitive value.
const HIDDEN: &str = "[sensitive]";

/// One method that is offered to MCP.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Its name towards MCP, or the method's own where it serves other items.
    pub name: String,
    /// Its service's namespace.
    pub namespace: String,
    /// The method.
    pub method: MethodDescriptor,
    /// As what it is offered.
    pub kind: OfferKind,
}

/// As what a method is offered.
#[derive(Clone, Debug)]
pub enum OfferKind {
    /// A tool.
    Tool(mcp::ToolOptions),
    /// A resource or resource template.
    Resource(mcp::ResourceOptions),
    /// A prompt.
    Prompt(mcp::PromptOptions),
    /// What completes arguments of prompts and resources.
    Completion(mcp::CompletionOptions),
    /// What streams changes of resources.
    Watch(mcp::WatchOptions),
    /// What pages the resources of a template.
    List(mcp::ListOptions),
}

impl Offer {
    /// The RPC, `package.Service/Method`.
    #[must_use]
    pub fn rpc(&self) -> String {
        format!("{}/{}", self.method.parent_service().full_name(), self.method.name())
    }
}

/// All that the services of this name offer, in the order of the contract.
pub fn offers<'a>(
    pool: &'a DescriptorPool,
    services: &'a [String],
) -> impl Iterator<Item = Offer> + 'a {
    let services = services.iter().filter_map(|name| pool.get_service_by_name(name));
    services.flat_map(|service| {
        let options: Option<mcp::ServiceOptions> =
            option(&service.options(), "drawbridge.mcp.v1.service");
        let namespace = options.map(|options| options.namespace);
        let offered = service.methods().filter_map(|method| offer(namespace.as_ref()?, method));
        offered.collect::<Vec<_>>()
    })
}

fn offer(namespace: &str, method: MethodDescriptor) -> Option<Offer> {
    let options = method.options();
    let named = |given: &str| match given {
        "" => format!("{namespace}_{}", snake_case(method.name())),
        given => given.to_owned(),
    };
    let (name, kind) = if let Some(tool) =
        option::<mcp::ToolOptions>(&options, "drawbridge.mcp.v1.tool")
    {
        (named(&tool.name), OfferKind::Tool(tool))
    } else if let Some(resource) =
        option::<mcp::ResourceOptions>(&options, "drawbridge.mcp.v1.resource")
    {
        (named(&resource.name), OfferKind::Resource(resource))
    } else if let Some(prompt) = option::<mcp::PromptOptions>(&options, "drawbridge.mcp.v1.prompt")
    {
        (named(&prompt.name), OfferKind::Prompt(prompt))
    } else {
        let completion =
            option(&options, "drawbridge.mcp.v1.completion").map(OfferKind::Completion);
        let watch = || option(&options, "drawbridge.mcp.v1.watch").map(OfferKind::Watch);
        let list = || option(&options, "drawbridge.mcp.v1.list").map(OfferKind::List);
        (named(""), completion.or_else(watch).or_else(list)?)
    };
    Some(Offer { name, namespace: namespace.to_owned(), method, kind })
}

/// The message that the custom option `name` holds, decoded as this build's.
#[must_use]
pub fn option<M: Message + Name + Default>(options: &DynamicMessage, name: &str) -> Option<M> {
    raw_option(options, name)?.transcode_to().ok()
}

/// The message that the custom option `name` holds, as the service's own copy of the contract knows
/// it.
#[must_use]
pub fn raw_option(options: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    let option = options.descriptor().parent_pool().get_extension_by_name(name)?;
    // A contract may give the name to an option of something else.
    if option.containing_message() != options.descriptor() || !options.has_extension(&option) {
        return None;
    }
    options.get_extension(&option).as_message().cloned()
}

/// MCP's tool annotations, with MCP's defaults where the tool says nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hints {
    /// The tool changes nothing.
    pub read_only: bool,
    /// The tool may destroy or overwrite. One that is read-only does not, unless it says so: MCP
    /// gives the hint a meaning for the others alone.
    pub destructive: bool,
    /// Calling again with the same arguments changes nothing more.
    pub idempotent: bool,
    /// The tool reaches an open world, such as the web.
    pub open_world: bool,
}

impl Hints {
    /// The hints of a tool that has these options.
    #[must_use]
    pub fn of(tool: &mcp::ToolOptions) -> Self {
        let hints = tool.hints.unwrap_or_default();
        let read_only = hints.read_only.unwrap_or(false);
        Self {
            read_only,
            destructive: hints.destructive.unwrap_or(!read_only),
            idempotent: hints.idempotent.unwrap_or(false),
            open_world: hints.open_world.unwrap_or(true),
        }
    }
}

/// The type that a field has in a policy.
#[derive(Clone, Debug)]
pub enum PolicyType {
    /// Cedar's `String`: texts, bytes as base64, enums by name, times.
    Text,
    /// Cedar's `Bool`.
    Bool,
    /// Cedar's `Long`.
    Long,
    /// Cedar's `Set`.
    Set(Box<PolicyType>),
    /// Cedar's record.
    Record(Vec<PolicyField>),
}

/// A field that a policy can read.
#[derive(Clone, Debug)]
pub struct PolicyField {
    /// The field.
    pub field: FieldDescriptor,
    /// Its type.
    pub kind: PolicyType,
    /// Whether it is never to be written down.
    pub sensitive: bool,
}

/// Whether a field's option says that it must never be said back, nor logged, traced or cached in
/// clear.
#[must_use]
pub fn is_sensitive(field: &FieldDescriptor) -> bool {
    let options: Option<mcp::FieldOptions> = option(&field.options(), "drawbridge.mcp.v1.field");
    options.is_some_and(|options| options.sensitive)
}

/// The fields of a request that a policy can read. Cedar has no floating-point numbers and no maps,
/// and no message that contains itself; what has no form there is left out on both sides.
#[must_use]
pub fn policy_fields(message: &MessageDescriptor) -> Vec<PolicyField> {
    fields(message, &mut Vec::new())
}

fn fields(message: &MessageDescriptor, within: &mut Vec<String>) -> Vec<PolicyField> {
    within.push(message.full_name().to_owned());
    let known = message.fields().filter(|field| !field.is_map()).filter_map(|field| {
        let kind = policy_type(&field.kind(), within)?;
        let kind = if field.is_list() { PolicyType::Set(Box::new(kind)) } else { kind };
        Some(PolicyField { sensitive: is_sensitive(&field), field, kind })
    });
    let known = known.collect();
    within.pop();
    known
}

fn policy_type(kind: &Kind, within: &mut Vec<String>) -> Option<PolicyType> {
    Some(match kind {
        Kind::Bool => PolicyType::Bool,
        Kind::String | Kind::Bytes | Kind::Enum(_) => PolicyType::Text,
        Kind::Float | Kind::Double => return None,
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" | "google.protobuf.Duration" => PolicyType::Text,
            // The contract's own types and the open-ended ones say nothing that a policy could be
            // typed on.
            name if name.starts_with("google.protobuf.")
                || name.starts_with("drawbridge.mcp.v1.") =>
            {
                return None;
            }
            name if within.iter().any(|outer| outer == name) => return None,
            _ => PolicyType::Record(fields(message, within)),
        },
        _ => PolicyType::Long,
    })
}

/// The form in which policies read a message: every field that is not optional, and each optional
/// one that is set.
#[derive(Clone, Debug)]
pub struct PolicyForm {
    fields: Vec<PolicyField>,
    sensitive: bool,
}

impl PolicyForm {
    /// The form of messages of this type.
    #[must_use]
    pub fn of(message: &MessageDescriptor) -> Self {
        let fields = policy_fields(message);
        Self { sensitive: holds_sensitive(&fields), fields }
    }

    /// A message as a policy reads it.
    #[must_use]
    pub fn json(&self, message: &DynamicMessage) -> Value {
        record(message, &self.fields, Sensitive::Said)
    }

    /// A message as it may be written down, where that is not as a policy reads it.
    #[must_use]
    pub fn recorded(&self, message: &DynamicMessage) -> Option<Value> {
        self.sensitive.then(|| record(message, &self.fields, Sensitive::Hidden))
    }
}

fn holds_sensitive(fields: &[PolicyField]) -> bool {
    fn holds(kind: &PolicyType) -> bool {
        match kind {
            PolicyType::Record(fields) => holds_sensitive(fields),
            PolicyType::Set(kind) => holds(kind),
            PolicyType::Text | PolicyType::Bool | PolicyType::Long => false,
        }
    }
    fields.iter().any(|known| known.sensitive || holds(&known.kind))
}

/// What becomes of sensitive fields.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sensitive {
    Said,
    Hidden,
}

fn record(message: &DynamicMessage, fields: &[PolicyField], sensitive: Sensitive) -> Value {
    let said = fields
        .iter()
        .filter(|known| !known.field.supports_presence() || message.has_field(&known.field));
    let object: Map<_, _> = said
        .map(|known| {
            let said = match known.sensitive && sensitive == Sensitive::Hidden {
                true => Value::from(HIDDEN),
                false => {
                    value(&message.get_field(&known.field), &known.field, &known.kind, sensitive)
                }
            };
            (known.field.name().to_owned(), said)
        })
        .collect();
    Value::Object(object)
}

fn value(
    field: &Field,
    descriptor: &FieldDescriptor,
    kind: &PolicyType,
    sensitive: Sensitive,
) -> Value {
    match (kind, field) {
        (PolicyType::Set(kind), Field::List(list)) => {
            list.iter().map(|item| value(item, descriptor, kind, sensitive)).collect()
        }
        (PolicyType::Record(fields), Field::Message(message)) => record(message, fields, sensitive),
        (_, Field::Bool(value)) => Value::from(*value),
        (_, Field::I32(value)) => Value::from(*value),
        (_, Field::I64(value)) => Value::from(*value),
        (_, Field::U32(value)) => Value::from(*value),
        // One beyond Cedar's Long is refused there; it is never cut.
        (_, Field::U64(value)) => Value::from(*value),
        (_, Field::String(text)) => Value::from(text.as_str()),
        (_, Field::Bytes(bytes)) => Value::from(STANDARD.encode(bytes)),
        (_, Field::EnumNumber(number)) => enum_name(*number, descriptor),
        // Times.
        (_, Field::Message(message)) => dynamic::to_json(message).unwrap_or_default(),
        _ => Value::Null,
    }
}

fn enum_name(number: i32, field: &FieldDescriptor) -> Value {
    let kind = field.kind();
    let name = kind.as_enum().and_then(|descriptor| descriptor.get_value(number));
    Value::from(name.map_or_else(|| number.to_string(), |value| value.name().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reflection::built_in;

    #[test]
    fn a_contract_tells_what_it_offers() {
        let pool = built_in().unwrap();
        let services = ["drawbridge.code.v1.CodeService".to_owned()];
        let names: Vec<_> =
            offers(&pool, &services).map(|offer| (offer.name.clone(), offer.rpc())).collect();
        let rpc = |name: &str| format!("drawbridge.code.v1.CodeService/{name}");
        assert_eq!(
            names,
            [
                ("code_search".to_owned(), rpc("Search")),
                ("code_list_files".to_owned(), rpc("ListFiles")),
                ("code_file".to_owned(), rpc("ReadFile")),
            ]
        );
    }

    #[test]
    fn a_read_only_tool_is_not_destructive_unless_it_says_so() {
        let hints = |read_only, destructive| {
            let hints = mcp::ToolHints { read_only, destructive, ..mcp::ToolHints::default() };
            Hints::of(&mcp::ToolOptions { hints: Some(hints), ..mcp::ToolOptions::default() })
        };
        let silent = Hints::of(&mcp::ToolOptions::default());
        assert_eq!(
            silent,
            Hints { read_only: false, destructive: true, idempotent: false, open_world: true }
        );
        assert!(!hints(Some(true), None).destructive && hints(Some(true), None).open_world);
        assert!(
            hints(Some(false), None).destructive && !hints(Some(false), Some(false)).destructive
        );
        assert!(hints(Some(true), Some(true)).destructive);
    }

    #[test]
    fn a_policy_reads_every_plain_field_and_the_optional_ones_that_are_set() {
        let pool = built_in().unwrap();
        let descriptor = pool.get_message_by_name("drawbridge.code.v1.SearchRequest").unwrap();
        let mut message = DynamicMessage::new(descriptor);
        message.set_field_by_name("query", Field::String("x".into()));
        let expected = serde_json::json!({
            "query": "x", "regex": false, "glob": "", "path": "", "ignore_case": false, "context_lines": 0,
        });
        let form = PolicyForm::of(&message.descriptor());
        assert_eq!(form.json(&message), expected);
        assert_eq!(form.recorded(&message), None);
        message.set_field_by_name("max_results", Field::U32(3));
        assert_eq!(form.json(&message)["max_results"], 3);
    }

    #[test]
    fn what_is_sensitive_is_not_written_down() {
        let pool = built_in().unwrap();
        let descriptor = pool.get_message_by_name("drawbridge.auth.v1.ExchangeRequest").unwrap();
        let mut message = DynamicMessage::new(descriptor);
        message.set_field_by_name("subject_token", Field::String("secret".into()));
        let form = PolicyForm::of(&message.descriptor());
        assert_eq!(form.json(&message)["subject_token"], "secret");
        let recorded =
            serde_json::json!({ "subject_token": HIDDEN, "rpc": "", "actor_token": HIDDEN });
        assert_eq!(form.recorded(&message), Some(recorded));
    }

    #[test]
    fn what_a_policy_cannot_read_is_left_out() {
        let pool = built_in().unwrap();
        let block = pool.get_message_by_name("drawbridge.mcp.v1.Annotations").unwrap();
        let fields: Vec<_> =
            policy_fields(&block).iter().map(|known| known.field.name().to_owned()).collect();
        assert_eq!(fields, ["audience", "last_modified"]);
        let nested = pool.get_message_by_name("google.protobuf.DescriptorProto").unwrap();
        assert!(policy_fields(&nested).iter().all(|known| known.field.name() != "nested_type"));
    }
}
