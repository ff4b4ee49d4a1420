//! `drawbridge vault`: sets up a Vault for tool services.

use std::path::PathBuf;

use anyhow::bail;
use drawbridge_config::{ConfigText, setup};
use drawbridge_credentials::VaultConfig;
use drawbridge_mesh::vault::bootstrap::{Bootstrap, Change, ChangeKind, audit_config};
use secrecy::SecretString;

/// The subcommands.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum VaultCommand {
    /// Make Vault trust auth's transaction tokens, and grant each tool service least privilege.
    ///
    /// The command is idempotent: it changes only what differs from the setup.
    Bootstrap(BootstrapArgs),
}

/// The setup, and the Vault.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge vault bootstrap --vault-url http://127.0.0.1:8200 \\
    --setup deploy/vault/setup.toml --dry-run

The plan has one line per item: `+` create, `~` update, `=` unchanged, `!` to add to the server's \
config, the only place from which OpenBao takes its audit devices.")]
pub struct BootstrapArgs {
    /// The TOML file of the setup.
    #[arg(long, default_value = "deploy/vault/setup.toml")]
    setup: PathBuf,

    /// A Vault token with permission for the setup.
    #[arg(long, env = "VAULT_TOKEN", hide_env_values = true)]
    vault_token: SecretString,

    /// The password of Vault's database user, which the file names.
    #[arg(long, env = "DRAWBRIDGE_VAULT_DATABASE_PASSWORD", hide_env_values = true)]
    database_password: Option<SecretString>,

    /// Print the plan, and change nothing.
    #[arg(long)]
    dry_run: bool,

    #[command(flatten)]
    vault: VaultConfig,
}

/// Runs `drawbridge vault`.
///
/// # Errors
/// When the file is invalid, or Vault rejects a change.
pub async fn run(VaultCommand::Bootstrap(args): VaultCommand) -> anyhow::Result<()> {
    let setup = setup::read(&ConfigText::read(&args.setup)?)?;
    if setup.database.is_some() && args.database_password.is_none() {
        bail!("the setup names a database; give --database-password");
    }
    let bootstrap = Bootstrap::new(&args.vault, args.vault_token)?
        .with_database_password(args.database_password);
    let plan = bootstrap.plan(&setup).await?;
    for change in &plan {
        anstream::println!("{change}");
    }
    let count_changes = |changes: &[Change]| {
        let is_change =
            |change: &&Change| matches!(change.kind, ChangeKind::Create | ChangeKind::Update);
        changes.iter().filter(is_change).count()
    };
    if args.dry_run {
        anstream::println!(
            "{} of {} to change; nothing was changed",
            count_changes(&plan),
            plan.len()
        );
    } else {
        let done = bootstrap.apply(&setup).await?;
        anstream::println!("{} of {} changed", count_changes(&done), done.len());
    }
    let for_server = plan.iter().any(|change| change.kind == ChangeKind::RequiresServerConfig);
    if let Some(config) = audit_config(&setup).filter(|_| for_server) {
        anstream::println!(
            "\nThe audit device is left to you: this OpenBao takes it from its server's config \
             alone. Put this into it, and send the server SIGHUP or start it again:\n\n{config}"
        );
    }
    Ok(())
}
