//! Links between the pages of the documentation resolve.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use super::docs::{pages, read};
use crate::REPOSITORY;

/// The lines of a page that are not code.
fn prose(text: &str) -> Vec<&str> {
    let mut is_code = false;
    let is_prose = |line: &&str| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    };
    text.lines().filter(is_prose).collect()
}

/// The anchors of a page, as GitHub makes them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let mut seen = BTreeMap::<String, usize>::new();
    let headings = prose(text).into_iter().filter(|line| line.starts_with('#'));
    let anchor = |heading: &str| {
        let words = heading.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        let words: String =
            words.chars().filter(|c| c.is_alphanumeric() || *c == '-' || *c == '_').collect();
        let count = seen.entry(words.clone()).or_default();
        *count += 1;
        if *count == 1 { words } else { format!("{words}-{}", *count - 1) }
    };
    headings.map(anchor).collect()
}

/// The targets of the links in a page.
fn targets(text: &str) -> Vec<String> {
    let prose = prose(text).join(" ");
    let ends = prose.match_indices("](").map(|(at, begin)| at + begin.len());
    ends.filter_map(|at| prose[at..].split(')').next()).map(str::to_owned).collect()
}

/// Why a link of a page does not resolve, if it does not.
fn problem(page: &str, target: &str) -> Option<String> {
    let (path, anchor) = target.split_once('#').unwrap_or((target, ""));
    let folder = Path::new(page).parent().unwrap_or(Path::new(""));
    let file = if path.is_empty() { Path::new(page).to_owned() } else { folder.join(path) };
    if !Path::new(REPOSITORY).join(&file).exists() {
        return Some(format!("{page}: {target} does not exist"));
    }
    let has_anchor =
        || anchors(&read(file.to_str().expect("a name"))).contains(&anchor.to_lowercase());
    (!anchor.is_empty() && !has_anchor()).then(|| format!("{page}: {target} has no such heading"))
}

#[test]
fn every_link_between_pages_of_the_documentation_resolves() {
    let (mut seen, mut problems) = (0, Vec::new());
    for page in pages() {
        for target in targets(&read(&page)).iter().filter(|target| !target.contains("://")) {
            seen += 1;
            problems.extend(problem(&page, target));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    assert!(seen >= 100, "{seen} links");
}

#[test]
fn every_page_of_the_documentation_is_in_its_index() {
    let index: BTreeSet<_> = targets(&read("docs/README.md")).into_iter().collect();
    for page in pages() {
        let Some(path) = page.strip_prefix("docs/").filter(|path| *path != "README.md") else {
            continue;
        };
        assert!(index.contains(path), "docs/README.md does not link to {path}");
    }
}
