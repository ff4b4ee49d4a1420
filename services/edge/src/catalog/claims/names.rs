//! Which service owns a name by its prefix.

use std::collections::BTreeSet;

use drawbridge_config::Namespace;

/// The kinds of names that services claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum NameKind {
    /// The name by which clients call a tool.
    Tool,
    /// The name of a tool for its service, auth, policies and limits.
    ToolOwn,
    Resource,
    /// A resource's URI or URI template.
    Uri,
    Prompt,
}

impl NameKind {
    pub(crate) const ALL: [Self; 5] =
        [Self::Tool, Self::ToolOwn, Self::Resource, Self::Uri, Self::Prompt];

    /// The kind in messages.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Tool => "tool name",
            Self::ToolOwn => "tool's own name",
            Self::Resource => "resource name",
            Self::Uri => "resource URI",
            Self::Prompt => "prompt name",
        }
    }

    /// The kind as a metric label.
    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::Tool => "tool",
            Self::ToolOwn => "tool_own",
            Self::Resource => "resource",
            Self::Uri => "uri",
            Self::Prompt => "prompt",
        }
    }
}

/// Whether a name is this namespace, or begins with it and a separator. Case is ignored: models
/// confuse names that differ only in case.
pub(super) fn has_prefix(name: &str, namespace: &str) -> bool {
    let Some((prefix, rest)) = name.split_at_checked(namespace.len()) else { return false };
    prefix.eq_ignore_ascii_case(namespace) && (rest.is_empty() || rest.starts_with(['_', '-']))
}

/// The longest namespace that a name begins with.
pub(in crate::catalog) fn owner_of_name<'a>(
    namespaces: &'a BTreeSet<Namespace>,
    name: &str,
) -> Option<&'a str> {
    let owners =
        namespaces.iter().map(Namespace::as_str).filter(|namespace| has_prefix(name, namespace));
    owners.max_by_key(|namespace| namespace.len())
}

/// The namespace that a URI's scheme names: the scheme itself, or its plural (`invoice:` belongs to
/// `invoices`). A scheme has `-` where a namespace has `_`.
pub(in crate::catalog) fn owner_of_uri<'a>(
    namespaces: &'a BTreeSet<Namespace>,
    uri: &str,
) -> Option<&'a str> {
    let (scheme, _) = uri.split_once(':')?;
    let scheme = scheme.to_ascii_lowercase().replace('-', "_");
    let named = |name: &str| namespaces.get(name).map(Namespace::as_str);
    named(&scheme).or_else(|| named(&format!("{scheme}s")))
}
