//! Signs in at the development authorization server by its form.

use anyhow::{Context as _, bail, ensure};
use drawbridge_runtime::is_loopback;
use drawbridge_transport::fetch::Fetcher;
use http::{Method, header::LOCATION};
use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

use super::oauth::{self, Server, Tokens};

/// Nothing listens there: the code is read from the redirect.
const REDIRECT_URI: &str = "http://127.0.0.1/callback";

/// Signs in, and returns the client's id and tokens.
pub(super) async fn sign_in(
    fetcher: &Fetcher,
    server: &Server,
    user: &str,
    password: &SecretString,
) -> anyhow::Result<(String, Tokens)> {
    let issuer = &server.issuer;
    let is_local = issuer.parse().is_ok_and(|url: Url| is_loopback(&url));
    ensure!(
        is_local,
        "{issuer} is not a development authorization server of this machine: sign in with a \
         browser, without --user"
    );
    let request = oauth::request_code(fetcher, server, None, REDIRECT_URI.to_owned()).await?;
    let page = fetcher.send(&request.url, fetcher.request(Method::GET, &request.url)?).await?;
    let page = page.text();
    let id = page
        .split_once(r#"name="request" value=""#)
        .and_then(|(_, rest)| rest.split_once('"'))
        .with_context(|| {
            format!("{issuer} does not show the sign-in form of `drawbridge up`; leave out --user")
        })?
        .0;
    let mut form_url = request.url.clone();
    form_url.set_query(None);
    let form = [
        ("request", id),
        ("username", user),
        ("password", password.expose_secret()),
        ("decision", "allow"),
    ];
    let post = fetcher.request(Method::POST, &form_url)?.form(&form);
    let response = fetcher.send(&form_url, post).await?;
    let location = response.headers.get(LOCATION).and_then(|location| location.to_str().ok());
    let Some(location) = location else {
        bail!("{issuer} refused the user {user} ({}): check --user and --password", response.status)
    };
    let location: Url = location.parse().context("the redirect is not a URL")?;
    let redirected: Vec<_> = location.query_pairs().into_owned().collect();
    let tokens = request.redeem(fetcher, server, &redirected).await?;
    Ok((request.client_id, tokens))
}
