//! A helpdesk of sample tickets for a mesh without one. It serves the used part of Zammad's API on
//! loopback, for the tenants `acme` and `umbrella`, each with its own token.

use std::{
    collections::{BTreeMap, HashMap},
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::{
    Json, Router,
    extract::{FromRequestParts, Path, Query},
    http::{StatusCode, header, request::Parts},
    routing::{get, post},
};
use drawbridge_sdk::{Listen, ServiceBuilder, credentials::EmbeddedSource};
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;

use self::desk::{Desk, NewArticle};
use crate::{StartError, helpdesk::SECRET};

mod desk;
mod query;

/// The tickets of each tenant.
const TENANTS: [(&str, &str); 2] = [
    ("acme", include_str!("../samples/acme.toml")),
    ("umbrella", include_str!("../samples/umbrella.toml")),
];

/// Serves the samples, and returns the tenants' secrets.
///
/// # Errors
/// When no port is free.
pub(crate) fn serve(builder: &ServiceBuilder) -> Result<EmbeddedSource, StartError> {
    let mut desks = HashMap::new();
    let mut tokens = Vec::new();
    for (tenant, text) in TENANTS {
        let token = Uuid::new_v4().simple().to_string();
        desks.insert(format!("Token token={token}"), Mutex::new(Desk::parse(text)?));
        tokens.push((tenant, token));
    }
    let listen = Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let address = builder.http(&listen, router(desks))?;
    let secret = |(tenant, token): (&str, String)| {
        let fields = [("url", format!("http://{address}")), ("token", token)];
        let fields = fields.map(|(name, text)| (name.to_owned(), SecretString::from(text)));
        (format!("{tenant}/{SECRET}"), BTreeMap::from(fields))
    };
    Ok(EmbeddedSource::new(tokens.into_iter().map(secret).collect()))
}

/// The router of one tenant's sample, which requires this token.
#[cfg(test)]
pub(crate) fn router_of(tenant: &str, token: &str) -> Router {
    let text = TENANTS
        .iter()
        .find(|(name, _)| *name == tenant)
        .map(|(_, text)| Desk::parse(text).unwrap());
    router(HashMap::from([(format!("Token token={token}"), Mutex::new(text.unwrap()))]))
}

/// The desks by `Authorization` header.
type Desks = Arc<HashMap<String, Mutex<Desk>>>;

fn router(desks: HashMap<String, Mutex<Desk>>) -> Router {
    Router::new()
        .route("/api/v1/tickets/search", get(search))
        .route("/api/v1/tickets/{id}", get(ticket))
        .route("/api/v1/ticket_articles/by_ticket/{id}", get(articles))
        .route("/api/v1/ticket_articles", post(reply))
        .route("/api/v1/users/{id}", get(user))
        .with_state(Arc::new(desks))
}

/// An error in Zammad's format.
type ErrorResponse = (StatusCode, Json<Value>);

fn error_response(status: StatusCode, error: &str) -> ErrorResponse {
    (status, Json(json!({ "error": error })))
}

fn not_found() -> ErrorResponse {
    error_response(StatusCode::NOT_FOUND, "Couldn't find it")
}

/// Access to the desk of a request's token.
struct Session {
    desks: Desks,
    authorization: String,
}

impl Session {
    fn desk(&self) -> Result<MutexGuard<'_, Desk>, ErrorResponse> {
        let desk = self.desks.get(&self.authorization);
        let desk = desk.ok_or_else(|| error_response(StatusCode::UNAUTHORIZED, "Invalid token"))?;
        Ok(desk.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl FromRequestParts<Desks> for Session {
    type Rejection = ErrorResponse;

    async fn from_request_parts(parts: &mut Parts, desks: &Desks) -> Result<Self, ErrorResponse> {
        let authorization =
            parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        let session = Self { desks: Arc::clone(desks), authorization };
        session.desk().map(drop)?;
        Ok(session)
    }
}

#[derive(Deserialize)]
struct Search {
    query: String,
    page: usize,
    per_page: usize,
}

async fn search(
    session: Session,
    Query(Search { query, page, per_page }): Query<Search>,
) -> Result<Json<Value>, ErrorResponse> {
    let matcher = query::parse(&query);
    let matcher =
        matcher.ok_or_else(|| error_response(StatusCode::UNPROCESSABLE_ENTITY, "Invalid query"))?;
    let desk = session.desk()?;
    let skipped = page.saturating_sub(1).saturating_mul(per_page);
    Ok(Json(desk.find(&matcher).skip(skipped).take(per_page).collect()))
}

async fn ticket(session: Session, Path(id): Path<u64>) -> Result<Json<Value>, ErrorResponse> {
    session.desk()?.ticket(id).map(Json).ok_or_else(not_found)
}

async fn articles(session: Session, Path(id): Path<u64>) -> Result<Json<Value>, ErrorResponse> {
    session.desk()?.articles(id).map(Json).ok_or_else(not_found)
}

async fn user(session: Session, Path(id): Path<u64>) -> Result<Json<Value>, ErrorResponse> {
    session.desk()?.user(id).map(Json).ok_or_else(not_found)
}

async fn reply(
    session: Session,
    Json(article): Json<NewArticle>,
) -> Result<(StatusCode, Json<Value>), ErrorResponse> {
    let mut desk = session.desk()?;
    if desk.ticket(article.ticket_id).is_none() {
        return Err(not_found());
    }
    let created = desk.add(article);
    let created = created.ok_or_else(|| {
        error_response(StatusCode::UNPROCESSABLE_ENTITY, "The sample holds no more articles")
    })?;
    Ok((StatusCode::CREATED, Json(created)))
}
