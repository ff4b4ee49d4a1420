//! The audiences that a token must name.

/// The audience that a token must name.
#[derive(Debug)]
pub(crate) enum Audience {
    /// An endpoint of the edge, which has these URLs.
    Edge(Vec<String>),
    /// This service, under this name.
    Own(String),
}

impl Audience {
    /// The audiences of which a token for `resource` must name one, each with and without a
    /// trailing slash, because clients differ in it. Empty if `resource` is not served here.
    ///
    /// `allowed` are the audiences by which the issuer names the edge, by default the edge's URLs.
    /// An audience that is a URL of the edge covers that path and paths below it; any other, such
    /// as a client id, covers the whole edge.
    pub(super) fn acceptable(&self, allowed: Option<&[String]>, resource: &str) -> Vec<String> {
        let resource = bare(resource);
        let mut acceptable = Vec::new();
        match self {
            Self::Own(name) if bare(name) == resource => acceptable.push(resource.to_owned()),
            Self::Edge(urls) if urls.iter().any(|url| is_at_or_below(resource, bare(url))) => {
                for audience in allowed.unwrap_or(urls).iter().map(|audience| bare(audience)) {
                    if is_at_or_below(resource, audience) {
                        acceptable.extend(from_to(audience, resource));
                    } else if !urls.iter().any(|url| is_at_or_below(audience, bare(url))) {
                        acceptable.push(audience.to_owned());
                    }
                }
            }
            Self::Own(_) | Self::Edge(_) => {}
        }
        acceptable.dedup();
        acceptable.into_iter().flat_map(|audience| [format!("{audience}/"), audience]).collect()
    }
}

fn bare(audience: &str) -> &str {
    audience.trim_end_matches('/')
}

fn is_at_or_below(resource: &str, above: &str) -> bool {
    resource.strip_prefix(above).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// `above` and every path between it and `resource`.
fn from_to(above: &str, resource: &str) -> Vec<String> {
    let below = resource.get(above.len()..).unwrap_or_default();
    let ends = below.match_indices('/').skip(1).map(|(at, _)| at).chain([below.len()]);
    [above.to_owned()]
        .into_iter()
        .chain(ends.map(|end| format!("{above}{}", &below[..end])))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(allowed: Option<&[&str]>, resource: &str, expected: &[&str]) {
        let edge = Audience::Edge(vec!["https://a/mcp".to_owned()]);
        let allowed: Option<Vec<_>> =
            allowed.map(|allowed| allowed.iter().copied().map(ToOwned::to_owned).collect());
        let found = edge.acceptable(allowed.as_deref(), resource);
        let found: Vec<_> = found.iter().filter(|audience| !audience.ends_with('/')).collect();
        assert_eq!(found, expected.iter().collect::<Vec<_>>(), "{resource}");
    }

    #[test]
    fn a_token_is_valid_for_its_endpoint_and_those_below() {
        check(None, "https://a/mcp", &["https://a/mcp"]);
        check(None, "https://a/mcp/", &["https://a/mcp"]);
        check(None, "https://a/mcp/code", &["https://a/mcp", "https://a/mcp/code"]);
        check(
            None,
            "https://a/mcp/a/b",
            &["https://a/mcp", "https://a/mcp/a", "https://a/mcp/a/b"],
        );
    }

    #[test]
    fn a_resource_outside_the_edge_has_no_audience() {
        for resource in ["https://a", "https://a/mcpx", "https://evil/mcp", ""] {
            check(None, resource, &[]);
            check(Some(&["api://edge", resource]), resource, &[]);
        }
    }

    #[test]
    fn a_name_of_the_edge_covers_all_of_it_and_an_endpoint_only_itself() {
        check(Some(&["api://edge"]), "https://a/mcp/code", &["api://edge"]);
        check(Some(&["https://a/mcp/code"]), "https://a/mcp/code", &["https://a/mcp/code"]);
        check(Some(&["https://a/mcp/code"]), "https://a/mcp/tickets", &[]);
        check(Some(&["https://a/mcp/code"]), "https://a/mcp", &[]);
    }

    #[test]
    fn the_service_itself_must_be_named_exactly() {
        let own = Audience::Own("drawbridge-auth".to_owned());
        assert_eq!(
            own.acceptable(None, "drawbridge-auth"),
            ["drawbridge-auth/", "drawbridge-auth"]
        );
        assert_eq!(own.acceptable(Some(&["api://edge".into()]), "drawbridge-auth").len(), 2);
        assert!(own.acceptable(None, "https://a/mcp").is_empty());
    }
}
