//! Checks enum values that policies compare arguments with: an unknown value never matches.
//!
//! For Cedar they are strings. `drawbridge policy schema` writes the values as annotations of the
//! fields.

use std::{
    cell::LazyCell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use serde_json::Value;

use super::suggest;

/// Annotates a field of the schema with the names of its enum's values, separated by spaces.
pub const VALUES_ANNOTATION: &str = "enum_values";
/// Annotates it with other names of the same values, as `alias=name` separated by spaces.
pub const ALIASES_ANNOTATION: &str = "enum_aliases";
/// The maximum number of values that a message lists.
const LISTED_MAX: usize = 20;

/// The values that a field of an action's context can have.
#[derive(Clone, Debug, Default)]
struct Enum {
    values: BTreeSet<String>,
    /// The names that policies read, by other names of the same value.
    aliases: BTreeMap<String, String>,
}

/// The string fields of each action's context by their paths; `None` if any string is allowed.
type Fields = HashMap<Vec<String>, Option<Enum>>;

/// The enums of the schemas.
#[derive(Debug, Default)]
pub(super) struct EnumValues {
    actions: HashMap<String, Fields>,
    /// The groups of each action.
    groups: HashMap<String, Vec<String>>,
}

/// A string that a policy compares with a field, and why it never matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EnumMismatch {
    pub(super) text: String,
    pub(super) message: String,
    pub(super) help: Option<String>,
}

impl EnumValues {
    pub(super) fn from_fragments(fragments: impl Iterator<Item = Value>) -> Self {
        let mut values = Self::default();
        for json in fragments {
            for (name, action) in json[""]["actions"].as_object().into_iter().flatten() {
                let mut fields = Fields::new();
                collect(&action["appliesTo"]["context"], &mut Vec::new(), &mut fields);
                values.actions.insert(name.clone(), fields);
                let groups = action["memberOf"].as_array().into_iter().flatten();
                let groups = groups.filter_map(|group| group["id"].as_str().map(str::to_owned));
                values.groups.insert(name.clone(), groups.collect());
            }
        }
        values
    }

    /// The strings of a policy, in its JSON form, that never match the fields they are compared
    /// with.
    pub(super) fn mismatches(&self, policy: &Value) -> Vec<EnumMismatch> {
        // Few policies compare arguments with texts.
        let actions = LazyCell::new(|| self.actions_of(&policy["action"]));
        let mut mismatches = Vec::new();
        for condition in policy["conditions"].as_array().into_iter().flatten() {
            walk(&condition["body"], &mut |path, text| {
                let found = self.check(&actions, path, text);
                let new = found.filter(|found| !mismatches.contains(found));
                mismatches.extend(new);
            });
        }
        mismatches
    }

    /// The actions that a policy's scope includes.
    fn actions_of(&self, constraint: &Value) -> Vec<&Fields> {
        let one = constraint["entity"]["id"].as_str();
        let several = constraint["entities"].as_array().into_iter().flatten();
        let named: Vec<_> = several.filter_map(|entity| entity["id"].as_str()).chain(one).collect();
        let all = constraint["op"] == "All";
        let actions = self.actions.iter();
        actions
            .filter(|(name, _)| all || self.is_in(name, &named, 0))
            .map(|(_, fields)| fields)
            .collect()
    }

    fn is_in(&self, action: &str, named: &[&str], depth: usize) -> bool {
        // Groups nest; a schema with a cycle is rejected elsewhere.
        named.contains(&action)
            || depth < 16
                && self.groups.get(action).is_some_and(|groups| {
                    groups.iter().any(|group| self.is_in(group, named, depth + 1))
                })
    }

    fn check(&self, actions: &[&Fields], path: &[String], text: &Text<'_>) -> Option<EnumMismatch> {
        let mut known = Enum::default();
        let mut found = false;
        for field in actions.iter().filter_map(|fields| fields.get(path)) {
            // If one action accepts any string, any string can match.
            let one = field.as_ref()?;
            found = true;
            known.values.extend(one.values.iter().cloned());
            known.aliases.extend(one.aliases.clone());
        }
        (found && !text.may_match(&known.values)).then(|| known.mismatch(path, text))
    }
}

impl Enum {
    fn mismatch(&self, path: &[String], text: &Text<'_>) -> EnumMismatch {
        let field = path.join(".");
        let text = match text {
            Text::Whole(text) => (*text).to_owned(),
            Text::Pattern(pattern) => pattern.iter().map(|part| part.unwrap_or("*")).collect(),
        };
        if let Some(name) = self.aliases.get(&text) {
            let message =
                format!("{text:?} is an alias of {name:?}, and {field} never has that value");
            return EnumMismatch { text, message, help: Some(format!("write {name:?}")) };
        }
        let message = format!("{field} is never {text:?}: its enum has no such value");
        let listed =
            self.values.iter().take(LISTED_MAX).map(String::as_str).collect::<Vec<_>>().join(", ");
        let help = match suggest(&text, self.values.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None => format!("its values are {listed}"),
        };
        EnumMismatch { text, message, help: Some(help) }
    }
}

/// A string that a field is compared with.
enum Text<'a> {
    Whole(&'a str),
    /// A pattern of `like`: the literal parts, and `None` for each `*`.
    Pattern(Vec<Option<&'a str>>),
}

impl Text<'_> {
    fn may_match(&self, values: &BTreeSet<String>) -> bool {
        match self {
            Self::Whole(text) => values.contains(*text),
            Self::Pattern(pattern) => values.iter().any(|value| is_like(value, pattern)),
        }
    }
}

fn is_like(text: &str, pattern: &[Option<&str>]) -> bool {
    match pattern.split_first() {
        None => text.is_empty(),
        Some((Some(literal), rest)) => {
            text.strip_prefix(literal).is_some_and(|after| is_like(after, rest))
        }
        Some((None, rest)) => {
            (0..=text.len()).filter_map(|from| text.get(from..)).any(|after| is_like(after, rest))
        }
    }
}

/// Collects the string fields of a type by path. Fields of records in a set have the set's path.
fn collect(kind: &Value, path: &mut Vec<String>, fields: &mut Fields) {
    for (name, attribute) in kind["attributes"].as_object().into_iter().flatten() {
        path.push(name.clone());
        let mut inner = attribute;
        while inner["element"].is_object() {
            inner = &inner["element"];
        }
        if inner["attributes"].is_object() {
            collect(inner, path, fields);
        } else if [&inner["name"], &inner["type"]].iter().any(|name| {
            name.as_str().is_some_and(|name| name.trim_start_matches("__cedar::") == "String")
        }) {
            fields.insert(path.clone(), annotated(&attribute["annotations"]));
        }
        path.pop();
    }
}

fn annotated(annotations: &Value) -> Option<Enum> {
    let values =
        annotations[VALUES_ANNOTATION].as_str()?.split_whitespace().map(str::to_owned).collect();
    let aliases = annotations[ALIASES_ANNOTATION].as_str().unwrap_or_default().split_whitespace();
    let aliases = aliases.filter_map(|pair| pair.split_once('='));
    let aliases = aliases.map(|(alias, name)| (alias.to_owned(), name.to_owned())).collect();
    Some(Enum { values, aliases })
}

/// Finds every comparison of a context field with a string.
fn walk(expression: &Value, found: &mut impl FnMut(&[String], &Text<'_>)) {
    match expression {
        Value::Array(items) => items.iter().for_each(|item| walk(item, found)),
        Value::Object(fields) => {
            for (operator, operands) in fields {
                match operator.as_str() {
                    "==" | "!=" | "contains" | "containsAll" | "containsAny" => {
                        let (left, right) = (&operands["left"], &operands["right"]);
                        compare(left, right, found);
                        compare(right, left, found);
                    }
                    "like" => {
                        if let (Some(path), Some(pattern)) =
                            (path(&operands["left"]), operands["pattern"].as_array())
                        {
                            let parts =
                                pattern.iter().map(|part| part["Literal"].as_str()).collect();
                            found(&path, &Text::Pattern(parts));
                        }
                    }
                    _ => {}
                }
                walk(operands, found);
            }
        }
        _ => {}
    }
}

/// Compares the fields in one side with the strings in the other.
fn compare(one: &Value, other: &Value, found: &mut impl FnMut(&[String], &Text<'_>)) {
    if let Some(mut path) = path(one) {
        texts(other, &mut path, found);
    }
    if let Some(branches) = one.get("if-then-else") {
        compare(&branches["then"], other, found);
        compare(&branches["else"], other, found);
    }
    for item in one["Set"].as_array().into_iter().flatten() {
        compare(item, other, found);
    }
}

/// The strings that an expression may have, including those in sets and records.
fn texts(expression: &Value, path: &mut Vec<String>, found: &mut impl FnMut(&[String], &Text<'_>)) {
    match expression {
        Value::String(text) => found(path, &Text::Whole(text)),
        Value::Array(items) => items.iter().for_each(|item| texts(item, path, found)),
        Value::Object(_) => {
            texts(&expression["Value"], path, found);
            texts(&expression["Set"], path, found);
            for branch in ["then", "else"] {
                texts(&expression["if-then-else"][branch], path, found);
            }
            for (name, value) in expression["Record"].as_object().into_iter().flatten() {
                path.push(name.clone());
                texts(value, path, found);
                path.pop();
            }
        }
        _ => {}
    }
}

/// The path of a context field.
fn path(expression: &Value) -> Option<Vec<String>> {
    if expression["Var"] == "context" {
        return Some(Vec::new());
    }
    let access = expression.get(".")?;
    let mut path = path(&access["left"])?;
    path.push(access["attr"].as_str()?.to_owned());
    Some(path)
}
