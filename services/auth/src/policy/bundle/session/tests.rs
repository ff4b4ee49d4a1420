use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap as Headers, Uri},
    response::{IntoResponse as _, Redirect, Response},
};
use drawbridge_runtime::error_chain;

use super::*;

/// The paths that were requested, with whether credentials came along.
type Seen = Arc<Mutex<Vec<(String, bool)>>>;

/// A server that redirects to the path of a URL: `/to/http://…`.
async fn serve() -> (Url, Seen) {
    async fn answer(State(seen): State<Seen>, uri: Uri, headers: Headers) -> Response {
        let has_credentials = headers.contains_key(header::AUTHORIZATION);
        seen.lock().unwrap().push((uri.path().to_owned(), has_credentials));
        match uri.path().strip_prefix("/to/") {
            Some(target) => Redirect::temporary(target).into_response(),
            None => "content".into_response(),
        }
    }
    let seen = Seen::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    let routes = Router::new().fallback(answer).with_state(Arc::clone(&seen));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    (url, seen)
}

async fn get(url: &Url) -> Result<Fetched, String> {
    let session = Session::new(url, &RemoteConfig::default()).unwrap();
    let mut exchange = Exchange::get(url, 1024);
    exchange.authorization = Credentials::Bearer("secret".into()).header();
    session.send(&exchange).await.map_err(|error| error_chain(&error))
}

#[tokio::test]
async fn credentials_do_not_follow_a_redirect_to_another_server() {
    let ((registry, asked), (storage, stored)) = (serve().await, serve().await);
    let url = registry.join(&format!("/to/{storage}blob")).unwrap();
    assert_eq!(get(&url).await.unwrap().text(), "content");
    assert!(asked.lock().unwrap().iter().all(|(_, has_credentials)| *has_credentials));
    assert_eq!(*stored.lock().unwrap(), [("/blob".to_owned(), false)]);
}

#[tokio::test]
async fn a_redirect_leads_neither_to_plaintext_nor_on_and_on() {
    let (url, _) = serve().await;
    let refused = get(&url.join("/to/http://a.example/blob").unwrap()).await.unwrap_err();
    assert!(refused.contains("http://a.example/blob is not https"), "{refused}");
    let four = url.join("/to//to//to//to//blob").unwrap();
    let refused = get(&four).await.unwrap_err();
    assert!(refused.contains("redirects too often"), "{refused}");
}

#[tokio::test]
async fn an_address_inside_the_network_needs_permission_and_no_query_is_shown() {
    let url = "https://10.0.0.1/p.tar.gz?signature=secret".parse().unwrap();
    let refused = get(&url).await.unwrap_err();
    assert!(refused.contains("--policy-allow-private-addresses"), "{refused}");
    assert!(!refused.contains("secret"), "{refused}");
    let closed = "http://127.0.0.1:1/p.tar.gz?signature=secret".parse().unwrap();
    let failed = get(&closed).await.unwrap_err();
    assert!(failed.contains("127.0.0.1:1") && !failed.contains("secret"), "{failed}");
}

#[tokio::test]
async fn a_file_of_credentials_is_one_user_or_one_token() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let config =
        RemoteConfig { policy_credentials: Some(file.path().into()), ..RemoteConfig::default() };
    let session = Session::new(&"https://a.example".parse().unwrap(), &config).unwrap();
    let read = async |text: &str| {
        std::fs::write(file.path(), text).unwrap();
        let credentials = session.credentials().await.map_err(|error| error.to_string())?;
        let header = credentials.and_then(|credentials| credentials.header()).unwrap();
        assert!(header.is_sensitive());
        Ok::<_, String>(header.to_str().unwrap().to_owned())
    };
    assert_eq!(read("ci:secret\n").await.unwrap(), "Basic Y2k6c2VjcmV0");
    assert_eq!(read("token").await.unwrap(), "Bearer token");
    for text in ["", "\n", "two\nlines"] {
        let refused = read(text).await.unwrap_err();
        assert!(refused.contains("one line, USER:PASSWORD or a bearer token"), "{refused}");
    }
}
