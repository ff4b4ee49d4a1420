//! Signs in with a browser, which is redirected to a port of this machine (RFC 8252).

use std::{collections::BTreeMap, time::Duration};

use anyhow::Context as _;
use axum::{Router, extract::Query, response::Html, routing::get};
use drawbridge_transport::fetch::Fetcher;
use tokio::{net::TcpListener, sync::mpsc};

use super::oauth::{self, Server, Tokens};

/// How long a person has to sign in.
const TIMEOUT: Duration = Duration::from_secs(300);
const DONE: &str = "<!doctype html><title>drawbridge</title>\
    <p>Drawbridge has the response of the authorization server. You can close this page.";

/// Signs in, and returns the client's id and tokens.
pub(super) async fn sign_in(
    fetcher: &Fetcher,
    server: &Server,
    client_id: Option<&str>,
    no_browser: bool,
) -> anyhow::Result<(String, Tokens)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("cannot wait for the browser")?;
    let redirect_uri = format!("http://{}/callback", listener.local_addr()?);
    let request = oauth::request_code(fetcher, server, client_id, redirect_uri).await?;
    let (sender, mut receiver) = mpsc::channel(1);
    let callback = move |Query(parameters): Query<BTreeMap<String, String>>| async move {
        // One response is enough.
        let _ = sender.try_send(parameters.into_iter().collect::<Vec<_>>());
        Html(DONE)
    };
    let serving = axum::serve(listener, Router::new().route("/callback", get(callback)));
    anstream::eprintln!("Sign in at:\n  {}", request.url);
    if !no_browser {
        // Without a browser the person opens the page that is printed.
        let _ = webbrowser::open(request.url.as_str());
    }
    let redirected = tokio::select! {
        served = serving.into_future() => {
            served.context("cannot wait for the browser")?;
            None
        }
        redirected = tokio::time::timeout(TIMEOUT, receiver.recv()) => redirected.ok().flatten(),
    };
    let redirected = redirected.context("there was no sign-in within five minutes")?;
    let tokens = request.redeem(fetcher, server, &redirected).await?;
    Ok((request.client_id, tokens))
}
