use std::sync::{Arc, Mutex, PoisonError};

use axum::{Router, extract::Request, response::IntoResponse as _};
use tonic::body::Body;
use tower::{Service as _, ServiceExt as _};
use url::Url;

/// Forwards calls to a gRPC service and records the path and headers of each.
#[derive(Clone, Debug, Default)]
pub struct Spy {
    calls: Arc<Mutex<Vec<(String, http::HeaderMap)>>>,
}

impl Spy {
    /// Starts a spy in front of `service` and returns its URL.
    pub async fn start(service: &Url) -> (Self, Url) {
        let spy = Self::default();
        let channel = crate::connect(service).expect("a channel");
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let recorder = spy.clone();
        let routes = Router::new().fallback(move |request: Request| {
            let mut channel = channel.clone();
            recorder.record(&request);
            async move {
                let channel = channel.ready().await.expect("a service");
                let response = channel.call(request.map(Body::new)).await.expect("a response");
                response.map(axum::body::Body::new).into_response()
            }
        });
        tokio::spawn(async move { axum::serve(listener, routes).await });
        (spy, url.parse().expect("a URL"))
    }

    fn record(&self, request: &Request) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push((request.uri().path().to_owned(), request.headers().clone()));
    }

    /// Paths and headers of all calls.
    pub fn calls(&self) -> Vec<(String, http::HeaderMap)> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
