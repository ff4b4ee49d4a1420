//! Compares findings with those of the official validation artefacts of EN 16931: `make
//! validators-test`.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use drawbridge_proto::invoices::v1::Severity;

use super::{CII, UBL, read};

mod explained;
mod mutations;

/// The minimum number of mutations for a meaningful comparison.
const MUTATIONS_MIN: usize = 300;
/// The number of documents to name per rule with differences.
const NAMED_MAX: usize = 5;

type Rules = BTreeSet<String>;

/// The results of one rule, by document name.
#[derive(Default)]
struct Agreement {
    both: usize,
    here_only: Vec<String>,
    official_only: Vec<String>,
}

#[test]
#[ignore = "it needs the validation artefacts of EN 16931: make validators-test"]
fn findings_agree_with_the_official_rules() {
    let tools =
        env::var_os("DRAWBRIDGE_TOOLS").expect("DRAWBRIDGE_TOOLS; run make validators-test");
    let validators = PathBuf::from(tools).join("validators");
    let mut documents = samples(&validators.join("samples"));
    println!("read {} samples", documents.len());
    let mutated: Vec<_> =
        documents.iter().flat_map(|(name, text)| mutations::of_document(name, text)).collect();
    assert!(mutated.len() >= MUTATIONS_MIN, "only {} mutations", mutated.len());
    println!("made {} mutations of them", mutated.len());
    documents.extend(mutated);

    let ours: BTreeMap<_, _> =
        documents.iter().map(|(name, text)| (name.clone(), own_violations(name, text))).collect();
    println!("checked {} documents here", ours.len());
    let theirs = official_violations(&validators, &documents);
    println!("checked {} documents by the official rules", theirs.len());
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());

    let unexplained = report(&compare(&ours, &theirs), ours.len());
    assert!(unexplained.is_empty(), "unexplained differences: {}", unexplained.join(", "));
}

#[test]
fn every_difference_to_the_official_rules_is_documented() {
    let docs =
        include_str!("../../../../../docs/reference/services/invoices.md").replace('\n', " ");
    for reason in explained::REASONS {
        assert!(docs.contains(reason), "docs/reference/services/invoices.md lacks: {reason}");
    }
}

/// The documents of a folder and the project's own samples, by name.
fn samples(folder: &Path) -> BTreeMap<String, String> {
    let mut samples = BTreeMap::from([
        ("own-invoice.xml".to_owned(), UBL.to_owned()),
        ("own-credit-note.xml".to_owned(), CII.to_owned()),
    ]);
    for entry in fs::read_dir(folder).expect("the samples; run make validators-test") {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().replace(' ', "-");
        samples.insert(name, fs::read_to_string(&path).unwrap());
    }
    samples
}

/// The rules of EN 16931 that a document violates according to this service.
fn own_violations(name: &str, document: &str) -> Rules {
    let findings = read(document).unwrap_or_else(|error| panic!("{name}: {error}")).findings;
    let errors = findings.into_iter().filter(|finding| finding.severity() == Severity::Error);
    errors.map(|finding| finding.rule).collect()
}

/// The rules that the documents violate according to the official artefacts.
fn official_violations(
    validators: &Path,
    documents: &BTreeMap<String, String>,
) -> BTreeMap<String, Rules> {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in documents {
        fs::write(folder.path().join(name), text).unwrap();
    }
    let classes = format!("{0}/classes:{0}/lib/*", validators.display());
    let output = Command::new("java").args(["-cp", &classes, "Judge"]).arg(folder.path()).output();
    let output = output.expect("java runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let line = |line: &str| {
        let (name, rules) = line.split_once('\t').unwrap_or_else(|| panic!("{line}"));
        (name.to_owned(), rules.split_whitespace().map(str::to_owned).collect())
    };
    lines.lines().map(line).collect()
}

fn compare(
    ours: &BTreeMap<String, Rules>,
    theirs: &BTreeMap<String, Rules>,
) -> BTreeMap<String, Agreement> {
    let mut agreements: BTreeMap<String, Agreement> = BTreeMap::new();
    for (name, here) in ours {
        let official = &theirs[name];
        for rule in here.union(official) {
            let agreement = agreements.entry(rule.clone()).or_default();
            match (here.contains(rule), official.contains(rule)) {
                (true, true) => agreement.both += 1,
                (true, false) => agreement.here_only.push(name.clone()),
                _ => agreement.official_only.push(name.clone()),
            }
        }
    }
    agreements
}

/// Prints a line per rule, and returns the rules with unexplained differences.
fn report(agreements: &BTreeMap<String, Agreement>, documents: usize) -> Vec<String> {
    let mut unexplained = Vec::new();
    let mut unchecked = Vec::new();
    println!("{:14} {:>6} {:>6} {:>6} {:>8}", "rule", "both", "here", "judge", "agreed");
    for (rule, agreement) in agreements {
        let Agreement { both, here_only, official_only } = agreement;
        if here_only.is_empty() && *both == 0 && explained::unchecked(rule).is_some() {
            unchecked.push(format!("{rule} {}", official_only.len()));
            continue;
        }
        let apart = here_only.len() + official_only.len();
        let agreed = 100.0 * (documents - apart) as f64 / documents as f64;
        print!(
            "{rule:14} {both:>6} {:>6} {:>6} {agreed:>7.2}%",
            here_only.len(),
            official_only.len()
        );
        let here: Vec<_> =
            here_only.iter().filter(|name| explained::reason(rule, name, true).is_none()).collect();
        let official: Vec<_> = official_only
            .iter()
            .filter(|name| explained::reason(rule, name, false).is_none())
            .collect();
        println!(
            "{}",
            if apart > here.len() + official.len() {
                "  explained in docs/reference/services/invoices.md"
            } else {
                ""
            }
        );
        for (names, by) in [(here, "here"), (official, "by the judge")] {
            if names.is_empty() {
                continue;
            }
            println!("  found {by} alone, unexplained: {:?}", &names[..names.len().min(NAMED_MAX)]);
            unexplained.push(format!("{rule} {by} ({})", names.len()));
        }
    }
    println!("not checked here, and how often the judge finds them: {}", unchecked.join(", "));
    unexplained
}
