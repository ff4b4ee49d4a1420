//! The templates, embedded in the program: files with placeholders.
//!
//! `templates/common` has the files of every language; a file of the same path in
//! `templates/<language>` replaces one of them. Placeholders occur in paths and in contents.

use std::{
    collections::BTreeMap,
    path::{Path, absolute},
};

use super::{Language, name::ServiceName, sdk::Sdk};

include!(concat!(env!("OUT_DIR"), "/templates.rs"));

const COMMON: &str = "common/";
/// The file with the commands that build and start a service, one per line.
const COMMANDS: &str = "NEXT.template-commands";
/// The suffix of files that tools would take for their own within this repository.
const SUFFIX: &str = ".template";

/// A template and the values of its placeholders.
pub(super) struct Template {
    folder: &'static str,
    values: [(&'static str, String); 8],
}

impl Template {
    pub(super) fn new(language: Language, name: &ServiceName, port: u16, sdk: &Sdk) -> Self {
        let folder = match language {
            Language::Rust => "rust/",
            Language::Python => "python/",
            Language::Go => "go/",
        };
        let values = [
            ("{{name}}", name.as_str().to_owned()),
            ("{{kebab}}", name.kebab()),
            ("{{Camel}}", name.camel()),
            ("{{UPPER}}", name.upper()),
            ("{{port}}", port.to_string()),
            ("{{admin_port}}", (port + 1).to_string()),
            ("{{checkout}}", sdk.checkout.clone()),
            ("{{checkout_url}}", sdk.url.to_string()),
        ];
        Self { folder, values }
    }

    /// The files of the service by their paths, sorted.
    pub(super) fn files(&self) -> Vec<(String, String)> {
        let mut files = BTreeMap::new();
        for folder in [COMMON, self.folder] {
            for (path, content) in TEMPLATES {
                let Some(path) = path.strip_prefix(folder).filter(|path| *path != COMMANDS) else {
                    continue;
                };
                let path = path.strip_suffix(SUFFIX).unwrap_or(path);
                files.insert(self.render(path), self.render(content));
            }
        }
        files.into_iter().collect()
    }

    /// The commands that build, test and start the service, in its folder.
    pub(super) fn build_commands(&self) -> Vec<String> {
        let path = format!("{}{COMMANDS}", self.folder);
        let commands = TEMPLATES.iter().find(|(name, _)| *name == path).map_or("", |found| found.1);
        self.render(commands).lines().map(str::to_owned).collect()
    }

    /// The commands that offer the running service to AI clients, in the folder of a mesh.
    pub(super) fn offer_commands(&self, folder: &Path) -> Vec<String> {
        let folder = absolute(folder).unwrap_or_else(|_| folder.to_owned());
        vec![
            self.render("drawbridge up --service {{name}}=http://127.0.0.1:{{port}}"),
            self.render("drawbridge policy schema --service-url http://127.0.0.1:{{port}}"),
            self.render(&format!("cp {}/policies/{{{{name}}}}.cedar policies/", folder.display())),
        ]
    }

    fn render(&self, text: &str) -> String {
        self.values
            .iter()
            .fold(text.to_owned(), |text, (placeholder, value)| text.replace(placeholder, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_of_every_language_has_a_contract_a_policy_and_no_unknown_placeholder() {
        let name: ServiceName = "meeting_rooms".parse().unwrap();
        for language in [Language::Rust, Language::Python, Language::Go] {
            let sdk = Sdk::find(None, language).unwrap();
            let template = Template::new(language, &name, 7460, &sdk);
            let files = template.files();
            for expected in [
                "proto/meeting_rooms/v1/meeting_rooms.proto",
                "policies/meeting_rooms.cedar",
                "README.md",
                "Dockerfile",
                ".gitignore",
            ] {
                assert!(files.iter().any(|(path, _)| path == expected), "{language}: {expected}");
            }
            for (path, content) in &files {
                for text in [path, content] {
                    assert!(!text.contains("{{"), "{language}: {path}");
                }
                assert!(!path.contains(SUFFIX), "{language}: {path}");
            }
            assert!(template.build_commands().len() > 1, "{language}");
        }
    }
}
