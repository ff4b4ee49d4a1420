use std::sync::{Arc, Mutex, PoisonError};

use axum::{Router, extract::Request, response::IntoResponse as _};
use tonic::body::Body;
use tower::{Service as _, ServiceExt as _};
use url::Url;

/// Stands before a gRPC service and notes the headers of every call.
#[derive(Clone, Debug, Default)]
pub struct Spy {
    seen: Arc<Mutex<Vec<(String, http::HeaderMap)>>>,
}

impl Spy {
    /// Starts a spy before `service` and says where it is.
    pub async fn start(service: &Url) -> (Self, Url) {
        let spy = Self::default();
        let channel = crate::connect(service).expect("a channel");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let notes = spy.clone();
        let routes = Router::new().fallback(move |request: Request| {
            let mut channel = channel.clone();
            notes.note(&request);
            async move {
                let channel = channel.ready().await.expect("a service");
                let response = channel.call(request.map(Body::new)).await.expect("an answer");
                response.map(axum::body::Body::new).into_response()
            }
        });
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (spy, url.parse().expect("a URL"))
    }

    fn note(&self, request: &Request) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.push((request.uri().path().to_owned(), request.headers().clone()));
    }

    /// Paths and headers of all calls.
    pub fn seen(&self) -> Vec<(String, http::HeaderMap)> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
