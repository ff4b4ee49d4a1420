//! `drawbridge vault`: sets a Vault up for tool services.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use drawbridge_sdk::credentials::{
    VaultConfig,
    bootstrap::{Bootstrap, Change, ChangeKind, Setup},
};
use secrecy::SecretString;

/// What to do about Vault.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum VaultCommand {
    /// Make Vault trust auth's transaction tokens, and give each tool service what it needs and no more.
    ///
    /// What is as it should be already is left alone, so it can be run again and again.
    Bootstrap(BootstrapArgs),
}

/// What to set up, and where.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge vault bootstrap --vault-url http://127.0.0.1:8200 \\
    --setup deploy/vault/setup.toml --dry-run

The plan has a line for each thing: `+` is made, `~` is changed, `=` stays as it is, and `!` is for the \
config of the server: OpenBao takes its audit devices from there alone.")]
pub struct BootstrapArgs {
    /// The TOML file that says what to set up.
    #[arg(long, default_value = "deploy/vault/setup.toml")]
    setup: PathBuf,

    /// A Vault token that may set all this up.
    #[arg(long, env = "VAULT_TOKEN", hide_env_values = true)]
    vault_token: SecretString,

    /// The password of Vault's own database user, which the file names.
    #[arg(long, env = "DRAWBRIDGE_VAULT_DATABASE_PASSWORD", hide_env_values = true)]
    database_password: Option<SecretString>,

    /// Say what would be done, and do nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    vault: VaultConfig,
}

/// Runs `drawbridge vault`.
///
/// # Errors
/// When the file is not right, or Vault does not take it.
pub async fn run(VaultCommand::Bootstrap(args): VaultCommand) -> anyhow::Result<()> {
    let path = args.setup.display();
    let text = fs::read_to_string(&args.setup).with_context(|| format!("cannot read {path}"))?;
    let mut setup: Setup = toml::from_str(&text).with_context(|| format!("{path} is not right"))?;
    if let Some(database) = &mut setup.database {
        let password =
            args.database_password.context("the setup has a database: give --database-password")?;
        database.password = password;
    }
    let bootstrap = Bootstrap::new(&args.vault, &args.vault_token)?;
    let plan = bootstrap.plan(&setup).await?;
    for change in &plan {
        anstream::println!("{change}");
    }
    let count = |changes: &[Change]| {
        let is_own =
            |change: &&Change| matches!(change.kind, ChangeKind::Create | ChangeKind::Update);
        changes.iter().filter(is_own).count()
    };
    if args.dry_run {
        anstream::println!("{} of {} to do; nothing was done", count(&plan), plan.len());
    } else {
        let done = bootstrap.apply(&setup).await?;
        anstream::println!("{} of {} done", count(&done), done.len());
    }
    let for_server = plan.iter().any(|change| change.kind == ChangeKind::Configure);
    if let Some(config) = setup.audit_config().filter(|_| for_server) {
        anstream::println!(
            "\nThe audit device is left to you: this OpenBao takes it from its server's config alone. Put this into it, and \
             send the server SIGHUP or start it again:\n\n{config}"
        );
    }
    Ok(())
}
