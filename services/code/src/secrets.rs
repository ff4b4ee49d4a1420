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
    ".env-*",
    ".env_*",
    "*.env",
    ".envrc",
    "!.env[._-]{example,sample,template,dist}",
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
    // Copies of these that editors and people make.
    "*.{pem,key,p8,p12,pfx,jks,jceks,bcfks,keystore,ppk,kdbx,ovpn,env}{~,.bak,.backup,.old,.orig,.save,.sw[op]}",
    ".{envrc,npmrc,yarnrc,yarnrc.yml,pypirc,netrc,pgpass,my.cnf}{~,.bak,.backup,.old,.orig,.save,.sw[op]}",
    ".{htpasswd,git-credentials,dockercfg,boto,s3cfg,vault-token}{~,.bak,.backup,.old,.orig,.save,.sw[op]}",
];

/// The list of files that may hold keys.
#[derive(Debug)]
pub(crate) struct Secrets(Gitignore);

impl Secrets {
    /// The default list and then these globs, in the syntax of a `.gitignore`. The last that matches
    /// decides; one that begins with `!` says that a file holds no keys.
    ///
    /// # Errors
    /// The first glob that is none or would be passed over (blank, or a comment), and why.
    pub(crate) fn new(globs: &[String]) -> Result<Self, (String, ignore::Error)> {
        let mut builder = GitignoreBuilder::new("");
        let all = GLOBS.iter().copied().chain(globs.iter().map(String::as_str));
        let failed = |glob: &str, error| (glob.to_owned(), error);
        for glob in all {
            check(glob).map_err(|error| failed(glob, error))?;
            builder.add_line(None, &folded(glob)).map_err(|error| failed(glob, error))?;
        }
        Ok(Self(builder.build().map_err(|error| failed("", error))?))
    }

    /// Whether a file or folder at this path, relative to the tree's root, or a folder that it lies in, is
    /// on the list.
    pub(crate) fn contain(&self, path: &Path, is_folder: bool) -> bool {
        let folded = folded(&path.to_string_lossy());
        !folded.is_empty() && self.0.matched_path_or_any_parents(&folded, is_folder).is_ignore()
    }
}

/// File systems may tell capital letters from small ones or not; whoever looks for a key does not. Those that do not also
/// take `ſ` (U+017F) for `s`, and `K` (U+212A) for `k`. Each letter is folded by itself: a word's other letters do not
/// change a glob's.
fn folded(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Refuses lines of a `.gitignore` that name nothing.
fn check(glob: &str) -> Result<(), ignore::Error> {
    let names_nothing = |why: &str| {
        let (glob, err) = (Some(glob.to_owned()), format!("{why} names no file"));
        Err(ignore::Error::Glob { glob, err })
    };
    if glob.trim_start_matches('!').trim().is_empty() {
        return names_nothing("a blank glob");
    }
    if glob.starts_with('#') {
        return names_nothing("a comment (write `\\#` for a name that begins with `#`)");
    }
    Ok(())
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
            ".env-production",
            "web/.env_local",
            ".env~",
            "server.pem~",
            "SERVER.PEM.BAK",
            "tls/server.key.old",
            ".server.key.swp",
            ".npmrc.bak",
            ".netrc~",
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
            ".env-example",
            "npmrc.bak",
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
        for glob in ["{a", "", "  ", "!", "# keys", "#keys"] {
            let (refused, _) = Secrets::new(&[glob.to_owned()]).unwrap_err();
            assert_eq!(refused, glob);
        }
    }

    /// Paths were folded by Unicode and globs by ASCII, so a glob with such a capital letter matched nothing.
    #[test]
    fn a_glob_with_letters_beyond_ascii_is_folded_as_paths_are() {
        let globs = ["Übergabe*", "ΟΔΟΣ*", "Straße.txt", "\\#Q[A-C]*"].map(str::to_owned);
        let secrets = Secrets::new(&globs).unwrap();
        for path in [
            "Übergabe.txt",
            "übergabe",
            "x/ÜBERGABE-2",
            "οδος",
            "οδοσα.txt",
            "ΟΔΟΣΑ",
            "STRASSE.TXT",
            "straße.txt",
            "#Qa",
            "#qB.md",
        ] {
            assert!(secrets.contain(Path::new(path), false), "{path}");
        }
        assert!(!secrets.contain(Path::new("ubergabe"), false));
    }
}
