//! The methods that a tool service's contract exposes, and the fields of its messages that a policy
//! can read.
//!
//! The edge authorizes messages in this form, and the policy schemas are generated from it, so both
//! agree.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use drawbridge_proto::mcp::v1 as mcp;
use prost::{Message, Name};
use prost_reflect::{
    DescriptorError, DescriptorPool, DynamicMessage, FieldDescriptor, Kind, MessageDescriptor,
    MethodDescriptor, ReflectMessage as _, Value as Field,
};
use serde_json::{Map, Value};

use self::names::snake_case;

pub use self::hints::EffectiveHints;
pub use self::instructions::{ServiceInstructions, instructions};

pub mod dynamic;
mod hints;
mod instructions;
mod names;

/// The contract of one running service.
#[derive(Clone, Debug)]
pub struct Contract {
    /// All descriptors, with comments and custom options.
    pub pool: DescriptorPool,
    /// The names of its services.
    pub services: Vec<String>,
}

/// The contracts that are compiled into this build.
///
/// # Errors
/// Never in a build that passed its tests.
pub fn built_in() -> Result<DescriptorPool, DescriptorError> {
    DescriptorPool::decode(drawbridge_proto::FILE_DESCRIPTOR_SET)
}

/// Replaces a sensitive value in records.
const REDACTED: &str = "[sensitive]";

/// One method that is exposed to MCP.
#[derive(Clone, Debug)]
pub struct ExposedMethod {
    /// Its MCP name, or the method's own name if it serves other items.
    pub name: String,
    /// Its service's namespace.
    pub namespace: String,
    /// The method.
    pub method: MethodDescriptor,
    /// What it is exposed as.
    pub kind: Exposure,
}

/// What a method is exposed as.
#[derive(Clone, Debug)]
pub enum Exposure {
    /// A tool.
    Tool(mcp::ToolOptions),
    /// A resource or resource template.
    Resource(mcp::ResourceOptions),
    /// A prompt.
    Prompt(mcp::PromptOptions),
    /// Completes arguments of prompts and resources.
    Completion(mcp::CompletionOptions),
    /// Streams changes of resources.
    Watch(mcp::WatchOptions),
    /// Pages the resources of a template.
    List(mcp::ListOptions),
}

impl ExposedMethod {
    /// The RPC, `package.Service/Method`.
    #[must_use]
    pub fn rpc(&self) -> String {
        format!("{}/{}", self.method.parent_service().full_name(), self.method.name())
    }
}

/// The exposed methods of the named services, in the order of the contract.
pub fn exposed_methods<'a>(
    pool: &'a DescriptorPool,
    services: &'a [String],
) -> impl Iterator<Item = ExposedMethod> + 'a {
    let services = services.iter().filter_map(|name| pool.get_service_by_name(name));
    services.flat_map(|service| {
        let options: Option<mcp::ServiceOptions> =
            option(&service.options(), "drawbridge.mcp.v1.service");
        let namespace = options.map(|options| options.namespace);
        let offered =
            service.methods().filter_map(|method| exposed_method(namespace.as_ref()?, method));
        offered.collect::<Vec<_>>()
    })
}

fn exposed_method(namespace: &str, method: MethodDescriptor) -> Option<ExposedMethod> {
    let options = method.options();
    let named = |given: &str| match given {
        "" => format!("{namespace}_{}", snake_case(method.name())),
        given => given.to_owned(),
    };
    let (name, kind) = if let Some(tool) =
        option::<mcp::ToolOptions>(&options, "drawbridge.mcp.v1.tool")
    {
        (named(&tool.name), Exposure::Tool(tool))
    } else if let Some(resource) =
        option::<mcp::ResourceOptions>(&options, "drawbridge.mcp.v1.resource")
    {
        (named(&resource.name), Exposure::Resource(resource))
    } else if let Some(prompt) = option::<mcp::PromptOptions>(&options, "drawbridge.mcp.v1.prompt")
    {
        (named(&prompt.name), Exposure::Prompt(prompt))
    } else {
        let completion = option(&options, "drawbridge.mcp.v1.completion").map(Exposure::Completion);
        let watch = || option(&options, "drawbridge.mcp.v1.watch").map(Exposure::Watch);
        let list = || option(&options, "drawbridge.mcp.v1.list").map(Exposure::List);
        (named(""), completion.or_else(watch).or_else(list)?)
    };
    Some(ExposedMethod { name, namespace: namespace.to_owned(), method, kind })
}

/// The value of the custom option `name`, decoded as this build's message.
#[must_use]
pub fn option<M: Message + Name + Default>(options: &DynamicMessage, name: &str) -> Option<M> {
    raw_option(options, name)?.transcode_to().ok()
}

/// The value of the custom option `name`, as the service's own copy of the contract defines it.
#[must_use]
pub fn raw_option(options: &DynamicMessage, name: &str) -> Option<DynamicMessage> {
    let option = options.descriptor().parent_pool().get_extension_by_name(name)?;
    // A contract may use the name for an option of something else.
    if option.containing_message() != options.descriptor() || !options.has_extension(&option) {
        return None;
    }
    options.get_extension(&option).as_message().cloned()
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
    /// Whether its value must never be recorded.
    pub sensitive: bool,
}

/// Whether a field is marked sensitive: its value must never be returned, logged, traced, or cached
/// in clear.
#[must_use]
pub fn is_sensitive(field: &FieldDescriptor) -> bool {
    let options: Option<mcp::FieldOptions> = option(&field.options(), "drawbridge.mcp.v1.field");
    options.is_some_and(|options| options.sensitive)
}

/// The fields of a request that a policy can read. Cedar has no floating-point numbers, no maps,
/// and no recursive records; such fields are left out on both sides.
#[must_use]
pub fn policy_fields(message: &MessageDescriptor) -> Vec<PolicyField> {
    fields(message, &mut Vec::new())
}

fn fields(message: &MessageDescriptor, enclosing: &mut Vec<String>) -> Vec<PolicyField> {
    enclosing.push(message.full_name().to_owned());
    let known = message.fields().filter(|field| !field.is_map()).filter_map(|field| {
        let kind = policy_type(&field.kind(), enclosing)?;
        let kind = if field.is_list() { PolicyType::Set(Box::new(kind)) } else { kind };
        Some(PolicyField { sensitive: is_sensitive(&field), field, kind })
    });
    let known = known.collect();
    enclosing.pop();
    known
}

fn policy_type(kind: &Kind, enclosing: &mut Vec<String>) -> Option<PolicyType> {
    Some(match kind {
        Kind::Bool => PolicyType::Bool,
        Kind::String | Kind::Bytes | Kind::Enum(_) => PolicyType::Text,
        Kind::Float | Kind::Double => return None,
        Kind::Message(message) => match message.full_name() {
            "google.protobuf.Timestamp" | "google.protobuf.Duration" => PolicyType::Text,
            // MCP's own types and open-ended types have no fields that a policy could be typed on.
            name if name.starts_with("google.protobuf.")
                || name.starts_with("drawbridge.mcp.v1.") =>
            {
                return None;
            }
            name if enclosing.iter().any(|outer| outer == name) => return None,
            _ => PolicyType::Record(fields(message, enclosing)),
        },
        _ => PolicyType::Long,
    })
}

/// The JSON form of a message for policies: every field without presence, and each optional field
/// that is set.
#[derive(Clone, Debug)]
pub struct PolicyForm {
    fields: Vec<PolicyField>,
    sensitive: bool,
}

impl PolicyForm {
    /// The form of messages of this type.
    #[must_use]
    pub fn for_message(message: &MessageDescriptor) -> Self {
        let fields = policy_fields(message);
        Self { sensitive: has_sensitive(&fields), fields }
    }

    /// A message as a policy reads it.
    #[must_use]
    pub fn json(&self, message: &DynamicMessage) -> Value {
        record(message, &self.fields, Sensitive::Include)
    }

    /// A message with its sensitive fields redacted, or `None` if it has no sensitive fields.
    #[must_use]
    pub fn redacted_json(&self, message: &DynamicMessage) -> Option<Value> {
        self.sensitive.then(|| record(message, &self.fields, Sensitive::Redact))
    }
}

fn has_sensitive(fields: &[PolicyField]) -> bool {
    fn is_or_has_sensitive(kind: &PolicyType) -> bool {
        match kind {
            PolicyType::Record(fields) => has_sensitive(fields),
            PolicyType::Set(kind) => is_or_has_sensitive(kind),
            PolicyType::Text | PolicyType::Bool | PolicyType::Long => false,
        }
    }
    fields.iter().any(|known| known.sensitive || is_or_has_sensitive(&known.kind))
}

/// Whether sensitive values are included.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Sensitive {
    Include,
    Redact,
}

fn record(message: &DynamicMessage, fields: &[PolicyField], sensitive: Sensitive) -> Value {
    let visible = fields
        .iter()
        .filter(|known| !known.field.supports_presence() || message.has_field(&known.field));
    let object: Map<_, _> = visible
        .map(|known| {
            let visible = match known.sensitive && sensitive == Sensitive::Redact {
                true => Value::from(REDACTED),
                false => {
                    value(&message.get_field(&known.field), &known.field, &known.kind, sensitive)
                }
            };
            (known.field.name().to_owned(), visible)
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
        // A value beyond Cedar's Long is rejected there; it is never truncated.
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
    use prost_types::{FileDescriptorProto, FileDescriptorSet};

    use super::*;

    #[test]
    fn built_in_contracts_have_comments_and_custom_options() {
        let pool = built_in().expect("a whole contract");
        let method = pool
            .get_service_by_name("drawbridge.code.v1.CodeService")
            .and_then(|service| service.methods().find(|method| method.name() == "Search"))
            .expect("the method");
        let tool = pool.get_extension_by_name("drawbridge.mcp.v1.tool").expect("the option");
        assert!(method.options().has_extension(&tool));
        let set = FileDescriptorSet::decode(drawbridge_proto::FILE_DESCRIPTOR_SET).expect("a set");
        let own = |file: &&FileDescriptorProto| file.name().starts_with("drawbridge/");
        assert!(set.file.iter().filter(own).all(|file| file.source_code_info.is_some()));
    }

    #[test]
    fn exposed_methods_are_read_from_a_contract() {
        let pool = built_in().unwrap();
        let services = ["drawbridge.code.v1.CodeService".to_owned()];
        let names: Vec<_> = exposed_methods(&pool, &services)
            .map(|exposed_method| (exposed_method.name.clone(), exposed_method.rpc()))
            .collect();
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
    fn a_policy_reads_every_plain_field_and_the_optional_ones_that_are_set() {
        let pool = built_in().unwrap();
        let descriptor = pool.get_message_by_name("drawbridge.code.v1.SearchRequest").unwrap();
        let mut message = DynamicMessage::new(descriptor);
        message.set_field_by_name("query", Field::String("x".into()));
        let expected = serde_json::json!({
            "query": "x", "regex": false, "glob": "", "path": "",
            "ignore_case": false, "context_lines": 0,
        });
        let form = PolicyForm::for_message(&message.descriptor());
        assert_eq!(form.json(&message), expected);
        assert_eq!(form.redacted_json(&message), None);
        message.set_field_by_name("max_results", Field::U32(3));
        assert_eq!(form.json(&message)["max_results"], 3);
    }

    #[test]
    fn sensitive_fields_are_redacted_in_records() {
        let pool = built_in().unwrap();
        let descriptor = pool.get_message_by_name("drawbridge.auth.v1.ExchangeRequest").unwrap();
        let mut message = DynamicMessage::new(descriptor);
        message.set_field_by_name("subject_token", Field::String("secret".into()));
        let form = PolicyForm::for_message(&message.descriptor());
        assert_eq!(form.json(&message)["subject_token"], "secret");
        let redacted_json =
            serde_json::json!({ "subject_token": REDACTED, "rpc": "", "actor_token": REDACTED });
        assert_eq!(form.redacted_json(&message), Some(redacted_json));
    }

    #[test]
    fn fields_without_a_policy_type_are_left_out() {
        let pool = built_in().unwrap();
        let block = pool.get_message_by_name("drawbridge.mcp.v1.Annotations").unwrap();
        let fields: Vec<_> =
            policy_fields(&block).iter().map(|known| known.field.name().to_owned()).collect();
        assert_eq!(fields, ["audience", "last_modified"]);
        let nested = pool.get_message_by_name("google.protobuf.DescriptorProto").unwrap();
        assert!(policy_fields(&nested).iter().all(|known| known.field.name() != "nested_type"));
    }
}
