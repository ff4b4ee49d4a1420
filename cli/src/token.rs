//! `drawbridge token`: prints an access token for scripts.

use secrecy::ExposeSecret as _;
use serde_json::json;

use crate::sign_in::SignInArgs;

/// Who signs in, and where.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge token --user alice
  drawbridge token --url https://mcp.acme.example/mcp
  curl -H \"Authorization: Bearer $(drawbridge token --user alice)\" …

Without --user, a browser opens the sign-in page of the endpoint's authorization server. The \
refresh token is stored in the state folder, in a file that only you may read, and the next command \
uses it.")]
pub struct TokenArgs {
    /// Print the token with its expiry and endpoint as one line of JSON.
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    sign_in: SignInArgs,
}

/// Prints an access token.
///
/// # Errors
/// When the endpoint is unknown, or the sign-in fails.
pub async fn run(args: TokenArgs) -> anyhow::Result<()> {
    let sign_in = args.sign_in.open()?;
    let tokens = sign_in.token(false).await?;
    let token = tokens.access_token.expose_secret();
    if args.json {
        let report = json!({
            "accessToken": token,
            "expiresAt": tokens.expires_at.map(|at| at.to_string()),
            "endpoint": sign_in.endpoint,
        });
        anstream::println!("{report}");
    } else {
        anstream::println!("{token}");
    }
    Ok(())
}
