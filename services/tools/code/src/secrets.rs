//! Files that may hold keys, by name. They are not found, listed or read.

use std::path::Path;

use ignore::gitignore::{Gitignore, GitignoreBuilder};

/// The built-in list, in `.gitignore` syntax.
const GLOBS: &[&str] = &[
    // Private keys and key stores.
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
    // Environment files.
    ".env",
    ".env.*",
    ".env-*",
    ".env_*",
    "*.env",
    ".envrc",
    "!.env[._-]{example,sample,template,dist}",
    // Credentials of package managers and other clients.
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
    // Backup copies of these.
    "*.{pem,key,p8,p12,pfx,jks,jceks,bcfks,keystore,ppk,kdbx,ovpn,env}{~,.bak,.backup,.old,.orig,.save,.sw[op]}",
    ".{envrc,npmrc,yarnrc,yarnrc.yml,pypirc,netrc,pgpass,my.cnf}{~,.bak,.backup,.old,.orig,.save,.sw[op]}",
    ".{htpasswd,git-credentials,dockercfg,boto,s3cfg,vault-token}{~,.bak,.backup,.old,.orig,.save,.sw[op]}",
];

/// The list of files that may hold keys.
#[derive(Debug)]
pub(crate) struct Secrets(Gitignore);

impl Secrets {
    /// The built-in list followed by these globs, in `.gitignore` syntax. The last match decides; a
    /// glob that starts with `!` exempts a file.
    ///
    /// # Errors
    /// The first glob that is invalid or would be skipped (blank, or a comment), and the cause.
    pub(crate) fn new(globs: &[String]) -> Result<Self, (String, ignore::Error)> {
        let mut builder = GitignoreBuilder::new("");
        let all = GLOBS.iter().copied().chain(globs.iter().map(String::as_str));
        let with_glob = |glob: &str, error| (glob.to_owned(), error);
        for glob in all {
            check(glob).map_err(|error| with_glob(glob, error))?;
            builder.add_line(None, &fold_case(glob)).map_err(|error| with_glob(glob, error))?;
        }
        Ok(Self(builder.build().map_err(|error| with_glob("", error))?))
    }

    /// Whether a file or folder at this path, relative to the tree's root, or a folder that
    /// contains it, is on the list.
    pub(crate) fn contain(&self, path: &Path, is_folder: bool) -> bool {
        let fold_case = fold_case(&path.to_string_lossy());
        !fold_case.is_empty()
            && self.0.matched_path_or_any_parents(&fold_case, is_folder).is_ignore()
    }
}

/// Matching ignores case, as some file systems do. Those also equate `ſ` (U+017F) with `s`, and `K`
/// (U+212A) with `k`. Each character is folded separately, so that context-dependent folding cannot
/// make a path differ from a glob.
fn fold_case(text: &str) -> String {
    text.chars().flat_map(char::to_uppercase).flat_map(char::to_lowercase).collect()
}

/// Rejects `.gitignore` lines that match nothing.
fn check(glob: &str) -> Result<(), ignore::Error> {
    let reject = |why: &str| {
        let (glob, err) = (Some(glob.to_owned()), format!("{why} matches no file"));
        Err(ignore::Error::Glob { glob, err })
    };
    if glob.trim_start_matches('!').trim().is_empty() {
        return reject("a blank glob");
    }
    if glob.starts_with('#') {
        return reject("a comment (write `\\#` for a name that starts with `#`)");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_recognized_by_name_in_any_folder_and_any_case() {
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
    fn configured_globs_extend_and_exempt() {
        let globs = ["!ca.pem", "/ops/*.txt", "private/"].map(str::to_owned);
        let secrets = Secrets::new(&globs).unwrap();
        let refused = ["server.pem", "ops/a.txt", "x/private/notes.md"];
        let shown = ["ca.pem", "tls/CA.PEM", "x/ops/a.txt", "private"];
        assert!(refused.iter().all(|path| secrets.contain(Path::new(path), false)));
        assert!(shown.iter().all(|path| !secrets.contain(Path::new(path), false)));
        assert!(secrets.contain(Path::new("x/private"), true));
    }

    #[test]
    fn an_invalid_glob_is_rejected() {
        for glob in ["{a", "", "  ", "!", "# keys", "#keys"] {
            let (refused, _) = Secrets::new(&[glob.to_owned()]).unwrap_err();
            assert_eq!(refused, glob);
        }
    }

    /// Regression: paths were folded by Unicode and globs by ASCII, so a glob with a non-ASCII
    /// capital matched nothing.
    #[test]
    fn non_ascii_globs_are_folded_like_paths() {
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
