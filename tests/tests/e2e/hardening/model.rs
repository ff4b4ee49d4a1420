//! The security model quotes only existing tests.

use std::{collections::BTreeSet, env, fs, process::Command};

use drawbridge_tests::repository;

/// The quoted test paths of a text: `module::claim`.
fn quoted_tests(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2).filter(|name| {
        name.contains("::")
            && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_:".contains(&byte))
    })
}

#[test]
fn every_invariant_of_the_security_model_quotes_an_existing_test() {
    let text = fs::read_to_string(repository().join("docs/explanation/security-model.md"))
        .expect("the page");
    let listed = Command::new(env::current_exe().expect("this program"))
        .args(["--list", "--format", "terse"])
        .output()
        .expect("a list");
    let listed = String::from_utf8(listed.stdout).expect("a text");
    let tests: BTreeSet<_> =
        listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    let missing: Vec<_> = quoted_tests(&text).filter(|name| !tests.contains(name)).collect();
    assert!(missing.is_empty(), "no such tests: {missing:#?}");

    let rows: Vec<_> = text.lines().filter(|line| line.starts_with("| I-")).collect();
    for (number, row) in rows.iter().enumerate() {
        assert!(row.starts_with(&format!("| I-{} |", number + 1)), "out of order: {row}");
        assert!(quoted_tests(row).next().is_some(), "no test: {row}");
    }
    assert!(rows.len() >= 30, "{} invariants", rows.len());
}
