//! Which files may hold keys, by their names. They are not found, listed or read.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The list without configuration, in the syntax of a `.gitignore`.
const GLOBS: &[&str] = &[
    // Private keys and stores of keys.
    "*.pem",
    "*.key",
    "*.p8",
    "*.p12",
    "*.pfx",
    "*.jks",
    "*.jceks",
    "*.bcfks",
    "*.keystore",
    "*.ppk",
    "*.kdbx",
    "*.ovpn",
    "id_rsa*",
    "id_dsa*",
    "id_ecdsa*",
    "id_ed25519*",
    "!id_*.pub",
    ".ssh",
    ".gnupg",
    // Settings of a process.
    ".env",
    ".env.*",
    "*.env",
    ".envrc",
    "!.env.example",
    "!.env.sample",
    "!.env.template",
    "!.env.dist",
    // Logins of package managers and other clients.
    ".npmrc",
    ".yarnrc",
    ".yarnrc.yml",
    ".pypirc",
    ".netrc",
    "_netrc",
    ".pgpass",
    ".my.cnf",
    ".htpasswd",
    ".git-credentials",
    ".dockercfg",
    "**/.docker/config.json",
    "**/.cargo/credentials",
    "**/.cargo/credentials.toml",
    "**/.gem/credentials",
    "**/.config/gh/hosts.yml",
    // Clouds, clusters and infrastructure.
    "**/.aws/credentials",
    "**/.aws/config",
    "**/.azure/*.json",
    "application_default_credentials.json",
    ".boto",
    ".s3cfg",
    ".vault-token",
    "kubeconfig",
    "kubeconfig.*",
    "*.kubeconfig",
    "**/.kube/config",
    "*.tfstate",
    "*.tfstate.*",
    ".terraformrc",
    "credentials.tfrc.json",
];

/// The list of files that may hold keys.
#[derive(Debug)]
pub(crate) struct Secrets(Gitignore);

impl Secrets {
    /// The default list and then these globs, in the syntax of a `.gitignore`. The last that matches
    /// decides; one that begins with `!` says that a file holds no keys.
    ///
    /// # Errors
    /// The first glob that is none, and why.
    pub(crate) fn new(globs: &[String]) -> Result<Self, (String, ignore::Error)> {
        let mut builder = GitignoreBuilder::new("");
        let all = GLOBS.iter().copied().chain(globs.iter().map(String::as_str));
        // File systems may tell capital letters from small ones or not. Whoever looks for a key does not.
        let failed = |glob: &str, error| (glob.to_owned(), error);
        builder.case_insensitive(true).map_err(|error| failed("", error))?;
        for glob in all {
            builder.add_line(None, glob).map_err(|error| failed(glob, error))?;
        }
        Ok(Self(builder.build().map_err(|error| failed("", error))?))
    }

    /// Whether a file or folder at this path, relative to the tree's root, or a folder that it lies in, is
    /// on the list.
    pub(crate) fn contain(&self, path: &Path, is_folder: bool) -> bool {
        // The globs fold ASCII. File systems that fold also take `ſ` (U+017F) for `s`, and `K` (U+212A) for `k`.
        let folded = path.to_string_lossy().to_uppercase().to_lowercase();
        !folded.is_empty() && self.0.matched_path_or_any_parents(&folded, is_folder).is_ignore()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_their_names_wherever_they_lie_and_however_they_are_spelt() {
        let secrets = Secrets::new(&[]).unwrap();
        for path in [
            "server.pem",
            "deploy/tls/SERVER.PEM",
            "a/b.key",
            "id_rsa",
            "keys/id_ed25519_work",
            ".npmrc",
            "web/.env",
            ".env.local",
            "production.env",
            ".Env.Production",
            "home/.aws/credentials",
            "home/.AWS/Credentials",
            ".docker/config.json",
            "home/.kube/config",
            "terraform.tfstate",
            "terraform.tfstate.backup",
            "home/.ssh/config",
            ".ſsh/config",
            "client.\u{212a}ey",
            ".git-credentials",
        ] {
            assert!(secrets.contain(Path::new(path), false), "{path}");
        }
        for path in [
            "src/main.rs",
            "pem.rs",
            "key",
            "server.pem.md",
            ".env.example",
            "web/.env.sample",
            "id_rsa.pub",
            "environment",
            "docker/config.json",
            "credentials",
            "",
        ] {
            assert!(!secrets.contain(Path::new(path), false), "{path}");
        }
    }

    #[test]
    fn a_list_is_added_to_and_taken_from() {
        let globs = ["!ca.pem", "/ops/*.txt", "private/"].map(str::to_owned);
        let secrets = Secrets::new(&globs).unwrap();
        let refused = ["server.pem", "ops/a.txt", "x/private/notes.md"];
        let shown = ["ca.pem", "tls/CA.PEM", "x/ops/a.txt", "private"];
        assert!(refused.iter().all(|path| secrets.contain(Path::new(path), false)));
        assert!(shown.iter().all(|path| !secrets.contain(Path::new(path), false)));
        assert!(secrets.contain(Path::new("x/private"), true));
    }

    #[test]
    fn what_is_no_glob_is_refused() {
        let (glob, _) = Secrets::new(&["{a".to_owned()]).unwrap_err();
        assert_eq!(glob, "{a");
    }
}
