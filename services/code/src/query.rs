//! What callers ask for, checked.

use std::{
    fmt,
    ops::RangeInclusive,
    path::{Path, PathBuf},
};

use drawbridge_proto::code::v1::{ListFilesRequest, SearchRequest};
use globset::{GlobBuilder, GlobMatcher};
use grep_regex::{RegexMatcher, RegexMatcherBuilder};
use regex_syntax::ast::Span;

use crate::{
    error::CodeError,
    tree::{Tree, TreePath},
};

const CONTEXT_LINES: RangeInclusive<u32> = 0..=20;
const SEARCH_RESULTS: RangeInclusive<u32> = 1..=1000;
const SEARCH_RESULTS_DEFAULT: u32 = 100;
const LIST_RESULTS: RangeInclusive<u32> = 1..=10_000;
const LIST_RESULTS_DEFAULT: u32 = 1000;
/// The largest compiled regular expression, in bytes. It also bounds the time that a byte of text takes.
const REGEX_BYTES_MAX: usize = 2 * 1024 * 1024;
/// The largest cache of the regular expression's lazy automaton, in bytes.
const REGEX_CACHE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// How large a search may be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SearchLimits {
    /// The longest query, in bytes.
    pub(crate) query_bytes_max: usize,
    /// The longest glob, in bytes.
    pub(crate) glob_bytes_max: usize,
    /// How much of a line is searched, in bytes.
    pub(crate) line_bytes_max: usize,
}

/// How deep a regular expression may nest.
const REGEX_NEST_MAX: u32 = 100;

/// Which files a call is about.
#[derive(Debug)]
pub(crate) struct Scope {
    /// Only files under this folder, which is free of links.
    pub(crate) folder: PathBuf,
    glob: Option<GlobMatcher>,
}

impl Scope {
    pub(crate) fn parse(
        tree: &Tree,
        path: &str,
        glob: &str,
        limits: &SearchLimits,
    ) -> Result<Self, CodeError> {
        at_most("glob", glob, limits.glob_bytes_max)?;
        let glob = if glob.is_empty() { None } else { Some(parse_glob(glob)?) };
        Ok(Self { folder: tree.folder(&TreePath::parse(path)?)?, glob })
    }

    /// Whether the glob, if any, matches this file.
    pub(crate) fn matches(&self, path: &Path) -> bool {
        self.glob.as_ref().is_none_or(|glob| glob.is_match(path))
    }

    /// Whether this path lies in the folder, or on the way to it.
    pub(crate) fn touches(&self, path: &Path) -> bool {
        path.starts_with(&self.folder) || self.folder.starts_with(path)
    }
}

/// As in a `.gitignore`, a glob without `/` is about names in any folder; one with `/` is about whole paths; one
/// that ends with `/` is about all files of a folder. `./` at its beginning means the tree's root.
fn parse_glob(text: &str) -> Result<GlobMatcher, CodeError> {
    let refuse = |problem: String| Err(CodeError::argument("glob", problem));
    if text.starts_with('!') {
        return refuse(
            "cannot exclude files; it names those that are wanted (write `[!]` for a `!`)"
                .to_owned(),
        );
    }
    let from_root = text.strip_prefix("./").map(|rest| rest.trim_start_matches('/'));
    let from_root = from_root.or_else(|| text.strip_prefix('/'));
    let path = from_root.unwrap_or(text);
    if path.split('/').any(|name| matches!(name, "." | "..")) {
        return refuse("must not contain `.` or `..` as a name".to_owned());
    }
    let (path, rest) = path.strip_suffix('/').map_or((path, ""), |folder| (folder, "/**"));
    let anywhere = if from_root.is_none() && !path.contains('/') { "**/" } else { "" };
    let pattern = if path.is_empty() { "**".to_owned() } else { format!("{anywhere}{path}{rest}") };
    let glob = GlobBuilder::new(&pattern).literal_separator(true).build();
    // The error's own text repeats the pattern, which is not quite what the caller wrote.
    let glob = glob.map_err(|error| CodeError::argument("glob", error.kind().to_string()))?;
    Ok(glob.compile_matcher())
}

/// A search.
#[derive(Debug)]
pub(crate) struct Query {
    pub(crate) scope: Scope,
    pub(crate) matcher: RegexMatcher,
    pub(crate) context_lines: usize,
    pub(crate) max_results: usize,
    pub(crate) line_bytes_max: usize,
}

impl Query {
    /// # Errors
    /// When an argument is wrong, naming it, or the folder is not there.
    pub(crate) fn parse(
        tree: &Tree,
        request: &SearchRequest,
        limits: &SearchLimits,
    ) -> Result<Self, CodeError> {
        at_most("query", &request.query, limits.query_bytes_max)?;
        Ok(Self {
            line_bytes_max: limits.line_bytes_max.max(1),
            matcher: parse_query(request)?,
            context_lines: within("context_lines", request.context_lines, CONTEXT_LINES)?,
            max_results: within(
                "max_results",
                request.max_results.unwrap_or(SEARCH_RESULTS_DEFAULT),
                SEARCH_RESULTS,
            )?,
            scope: Scope::parse(tree, &request.path, &request.glob, limits)?,
        })
    }
}

fn parse_query(request: &SearchRequest) -> Result<RegexMatcher, CodeError> {
    if request.query.is_empty() {
        return Err(CodeError::argument("query", "must not be empty"));
    }
    if !request.regex && request.query.contains(['\n', '\r']) {
        return Err(CodeError::argument("query", "must be a single line"));
    }
    if request.regex {
        check_regex(&request.query)?;
    }
    RegexMatcherBuilder::new()
        .fixed_strings(!request.regex)
        .case_insensitive(request.ignore_case)
        .multi_line(true)
        // Matches never span lines, and `$` matches before `\r\n` as well as before `\n`.
        .crlf(true)
        .size_limit(REGEX_BYTES_MAX)
        .dfa_size_limit(REGEX_CACHE_BYTES_MAX)
        .nest_limit(REGEX_NEST_MAX)
        .build(&request.query)
        .map_err(|error| CodeError::argument("query", error.to_string()))
}

/// Refuses what is no regular expression. The matcher's builder wraps the pattern before it parses, so that
/// it would take `a)(b` and point to wrong places.
fn check_regex(pattern: &str) -> Result<(), CodeError> {
    let parsed = regex_syntax::ParserBuilder::new()
        .utf8(false)
        .nest_limit(REGEX_NEST_MAX)
        .build()
        .parse(pattern);
    let problem = match parsed {
        Ok(_) => return Ok(()),
        Err(regex_syntax::Error::Parse(error)) => at(error.span(), error.kind()),
        Err(regex_syntax::Error::Translate(error)) => at(error.span(), error.kind()),
        Err(error) => error.to_string(),
    };
    Err(CodeError::argument("query", problem))
}

fn at(span: &Span, problem: &dyn fmt::Display) -> String {
    format!("not a regular expression, at character {}: {problem}", span.start.column)
}

/// A listing.
#[derive(Debug)]
pub(crate) struct ListQuery {
    pub(crate) scope: Scope,
    pub(crate) max_results: usize,
}

impl ListQuery {
    /// # Errors
    /// When an argument is wrong, naming it, or the folder is not there.
    pub(crate) fn parse(
        tree: &Tree,
        request: &ListFilesRequest,
        limits: &SearchLimits,
    ) -> Result<Self, CodeError> {
        let max_results = request.max_results.unwrap_or(LIST_RESULTS_DEFAULT);
        Ok(Self {
            max_results: within("max_results", max_results, LIST_RESULTS)?,
            scope: Scope::parse(tree, &request.path, &request.glob, limits)?,
        })
    }
}

fn at_most(field: &'static str, text: &str, bytes_max: usize) -> Result<(), CodeError> {
    if text.len() > bytes_max {
        return Err(CodeError::argument(field, format!("must have at most {bytes_max} bytes")));
    }
    Ok(())
}

fn within(field: &'static str, value: u32, range: RangeInclusive<u32>) -> Result<usize, CodeError> {
    let problem = || format!("must be {} to {}, not {value}", range.start(), range.end());
    if !range.contains(&value) {
        return Err(CodeError::argument(field, problem()));
    }
    usize::try_from(value).map_err(|_| CodeError::argument(field, problem()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{LIMITS, Sample};

    fn refusal(request: &SearchRequest) -> String {
        let sample = Sample::of(&[("a.txt", "")]);
        Query::parse(&sample.tree(), request, &LIMITS).unwrap_err().to_string()
    }

    fn ask(query: &str) -> SearchRequest {
        SearchRequest { query: query.to_owned(), ..Default::default() }
    }

    fn ask_regex(query: &str) -> SearchRequest {
        SearchRequest { regex: true, ..ask(query) }
    }

    #[test]
    fn a_query_must_be_one_line_and_not_empty() {
        assert_eq!(refusal(&ask("")), "`query`: must not be empty");
        assert_eq!(refusal(&ask_regex("")), "`query`: must not be empty");
        assert_eq!(refusal(&ask("a\nb")), "`query`: must be a single line");
        assert_eq!(
            refusal(&ask_regex(r"a\nb")),
            r#"`query`: the literal "\n" is not allowed in a regex"#
        );
    }

    #[test]
    fn a_bad_regex_is_refused_with_its_place() {
        for (query, message) in [
            ("fn (main", "at character 4: unclosed group"),
            ("ä)(b", "at character 2: unopened group"),
            (r"a\p{Nope}", "at character 2: Unicode property not found"),
        ] {
            assert_eq!(
                refusal(&ask_regex(query)),
                format!("`query`: not a regular expression, {message}")
            );
        }
    }

    #[test]
    fn a_regex_that_would_be_large_or_deep_is_refused() {
        let large = refusal(&ask_regex(r"(\w{1000}){1000}"));
        assert_eq!(large, "`query`: compiled regex exceeds size limit of 2097152");
        let deep = refusal(&ask_regex(&format!("{}{}", "(".repeat(200), ")".repeat(200))));
        assert!(
            deep.contains("exceed the maximum number of nested parentheses/brackets"),
            "{deep}"
        );
    }

    #[test]
    fn a_query_and_a_glob_have_a_length() {
        let long = "x".repeat(LIMITS.query_bytes_max + 1);
        assert_eq!(refusal(&ask(&long)), "`query`: must have at most 4096 bytes");
        let request = SearchRequest { glob: "x".repeat(LIMITS.glob_bytes_max + 1), ..ask("a") };
        assert_eq!(refusal(&request), "`glob`: must have at most 1024 bytes");
    }

    #[test]
    fn a_bad_glob_is_refused() {
        let request = SearchRequest { glob: "a[".to_owned(), ..ask("a") };
        assert_eq!(refusal(&request), "`glob`: unclosed character class; missing ']'");
        for (glob, problem) in [
            (
                "!*.rs",
                "cannot exclude files; it names those that are wanted (write `[!]` for a `!`)",
            ),
            ("../a", "must not contain `.` or `..` as a name"),
            ("a/./b", "must not contain `.` or `..` as a name"),
            (".", "must not contain `.` or `..` as a name"),
        ] {
            let request = SearchRequest { glob: glob.to_owned(), ..ask("a") };
            assert_eq!(refusal(&request), format!("`glob`: {problem}"), "{glob}");
        }
    }

    #[test]
    fn a_number_out_of_its_range_is_refused_with_the_range() {
        let context = SearchRequest { context_lines: 21, ..ask("a") };
        assert_eq!(refusal(&context), "`context_lines`: must be 0 to 20, not 21");
        for max_results in [0, 1001] {
            let request = SearchRequest { max_results: Some(max_results), ..ask("a") };
            let message = format!("`max_results`: must be 1 to 1000, not {max_results}");
            assert_eq!(refusal(&request), message);
        }
        let list = ListFilesRequest { max_results: Some(10_001), ..Default::default() };
        let error = ListQuery::parse(&Sample::of(&[]).tree(), &list, &LIMITS).unwrap_err();
        assert_eq!(error.to_string(), "`max_results`: must be 1 to 10000, not 10001");
    }

    #[test]
    fn a_path_must_name_a_folder_of_the_tree() {
        let refusal = |path: &str| refusal(&SearchRequest { path: path.to_owned(), ..ask("a") });
        assert_eq!(refusal("../outside"), "`path`: must not contain `..`");
        assert_eq!(refusal("/etc"), "`path`: must be relative to the source tree's root");
        assert_eq!(refusal("missing"), "there is no such file or folder in the source tree");
        assert_eq!(refusal("a.txt"), "the path names no folder");
    }

    #[test]
    fn a_request_without_limits_has_the_defaults() {
        let tree = Sample::of(&[]).tree();
        let query = Query::parse(&tree, &ask("a"), &LIMITS).unwrap();
        assert_eq!((query.max_results, query.context_lines), (100, 0));
        let list = ListQuery::parse(&tree, &ListFilesRequest::default(), &LIMITS).unwrap();
        assert_eq!(list.max_results, 1000);
    }
}
