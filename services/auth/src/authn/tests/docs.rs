use super::*;

#[test]
fn every_issuers_file_in_the_documentation_is_valid() {
    let docs = concat!(
        include_str!("../../../../../docs/how-to/connect-an-identity-provider.md"),
        include_str!("../../../../../docs/reference/issuers-file.md")
    );
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
