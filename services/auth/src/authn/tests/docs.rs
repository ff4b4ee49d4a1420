use super::*;

#[test]
fn every_file_in_the_documentation_is_one_that_works() {
    let docs = include_str!("../../../../../docs/identity.md");
    let signed = Signed::new();
    for (name, text) in [("introspection.secret", "secret"), ("keys.json", r#"{"keys":[]}"#)] {
        fs::write(signed.folder.path().join(name), text).unwrap();
    }
    let blocks: Vec<_> =
        docs.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    for block in &blocks {
        signed.issuers(block).unwrap_or_else(|error| panic!("{error}\n{block}"));
    }
    assert!(blocks.len() >= 6, "{}", blocks.len());
}
