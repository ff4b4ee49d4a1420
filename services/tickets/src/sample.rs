//! A helpdesk of sample tickets, for a mesh without one: the part of Zammad's API that is used here, on loopback, for the
//! tenants `acme` and `umbrella`, each with a token of its own.

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
use drawbridge_sdk::{Listen, ServiceBuilder, credentials::Embedded};
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

/// Serves the sample, and returns the secrets that open it.
///
/// # Errors
/// When there is no free port.
pub(crate) fn serve(starting: &ServiceBuilder) -> Result<Embedded, StartError> {
    let mut desks = HashMap::new();
    let mut tokens = Vec::new();
    for (tenant, text) in TENANTS {
        let token = Uuid::new_v4().simple().to_string();
        desks.insert(format!("Token token={token}"), Mutex::new(Desk::parse(text)?));
        tokens.push((tenant, token));
    }
    let listen = Listen::Address(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let address = starting.http(&listen, router(desks))?;
    let secret = |(tenant, token): (&str, String)| {
        let fields = [("url", format!("http://{address}")), ("token", token)];
        let fields = fields.map(|(name, text)| (name.to_owned(), SecretString::from(text)));
        (format!("{tenant}/{SECRET}"), BTreeMap::from(fields))
    };
    Ok(Embedded::new(tokens.into_iter().map(secret).collect()))
}

/// The sample of one tenant, for whoever shows this token.
#[cfg(test)]
pub(crate) fn of(tenant: &str, token: &str) -> Router {
    let text = TENANTS
        .iter()
        .find(|(name, _)| *name == tenant)
        .map(|(_, text)| Desk::parse(text).unwrap());
    router(HashMap::from([(format!("Token token={token}"), Mutex::new(text.unwrap()))]))
}

/// The desk of each `Authorization` header.
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

/// An error, as Zammad writes it.
type Refusal = (StatusCode, Json<Value>);

fn refuse(status: StatusCode, error: &str) -> Refusal {
    (status, Json(json!({ "error": error })))
}

fn not_found() -> Refusal {
    refuse(StatusCode::NOT_FOUND, "Couldn't find it")
}

/// The desk that a request's token opens.
struct Opened {
    desks: Desks,
    authorization: String,
}

impl Opened {
    fn desk(&self) -> Result<MutexGuard<'_, Desk>, Refusal> {
        let desk = self.desks.get(&self.authorization);
        let desk = desk.ok_or_else(|| refuse(StatusCode::UNAUTHORIZED, "Invalid token"))?;
        Ok(desk.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl FromRequestParts<Desks> for Opened {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, desks: &Desks) -> Result<Self, Refusal> {
        let authorization =
            parts.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let authorization = authorization.unwrap_or_default().to_owned();
        let opened = Self { desks: Arc::clone(desks), authorization };
        opened.desk().map(drop)?;
        Ok(opened)
    }
}

#[derive(Deserialize)]
struct Search {
    query: String,
    page: usize,
    per_page: usize,
}

async fn search(
    opened: Opened,
    Query(Search { query, page, per_page }): Query<Search>,
) -> Result<Json<Value>, Refusal> {
    let matcher = query::parse(&query);
    let matcher =
        matcher.ok_or_else(|| refuse(StatusCode::UNPROCESSABLE_ENTITY, "Invalid query"))?;
    let desk = opened.desk()?;
    let skipped = page.saturating_sub(1).saturating_mul(per_page);
    Ok(Json(desk.find(&matcher).skip(skipped).take(per_page).collect()))
}

async fn ticket(opened: Opened, Path(id): Path<u64>) -> Result<Json<Value>, Refusal> {
    opened.desk()?.ticket(id).map(Json).ok_or_else(not_found)
}

async fn articles(opened: Opened, Path(id): Path<u64>) -> Result<Json<Value>, Refusal> {
    opened.desk()?.articles(id).map(Json).ok_or_else(not_found)
}

async fn user(opened: Opened, Path(id): Path<u64>) -> Result<Json<Value>, Refusal> {
    opened.desk()?.user(id).map(Json).ok_or_else(not_found)
}

async fn reply(
    opened: Opened,
    Json(article): Json<NewArticle>,
) -> Result<(StatusCode, Json<Value>), Refusal> {
    let mut desk = opened.desk()?;
    if desk.ticket(article.ticket_id).is_none() {
        return Err(not_found());
    }
    let made = desk.add(article);
    let made = made.ok_or_else(|| {
        refuse(StatusCode::UNPROCESSABLE_ENTITY, "The sample holds no more articles")
    })?;
    Ok((StatusCode::CREATED, Json(made)))
}
