//! The state shared by all endpoints.

use std::{sync::Arc, time::Duration};

use drawbridge_audit::{AuditLog, AuditUnavailable, Event, event::SignIn};
use secrecy::ExposeSecret as _;

use crate::{
    Config, StartError,
    client::Client,
    grant::{Grant, Scopes},
    issuer::Issuer,
    keys::SigningKey,
    revoker::Revoker,
    sign_in_limiter::SignInLimiter,
    state_file::{Snapshot, StateFile, StateFileError},
    store::Store,
    users::Users,
};

/// Schemes that browsers execute, render or handle themselves, so that no application handles them.
const UNSAFE_SCHEMES: [&str; 12] = [
    "about",
    "blob",
    "data",
    "file",
    "filesystem",
    "ftp",
    "javascript",
    "mailto",
    "vbscript",
    "view-source",
    "ws",
    "wss",
];

/// The state shared by all endpoints.
pub(crate) struct Idp {
    pub(crate) issuer: Issuer,
    pub(crate) resources: Vec<String>,
    pub(crate) scopes: Scopes,
    pub(crate) access_token_lifetime: Duration,
    pub(crate) code_lifetime: Duration,
    pub(crate) users: Users,
    pub(crate) key: Arc<SigningKey>,
    pub(crate) store: Store,
    pub(crate) sign_in_limiter: SignInLimiter,
    pub(crate) redirect_schemes: Vec<String>,
    internal_resources: Vec<String>,
    /// Absent: access tokens remain valid until they expire.
    revoker: Option<Arc<Revoker>>,
    audit: AuditLog,
    state_file: Option<Arc<StateFile>>,
}

impl Idp {
    pub(crate) fn new(
        issuer: Issuer,
        config: &Config,
        users: Users,
        key: Arc<SigningKey>,
        revoker: Option<Arc<Revoker>>,
        audit: AuditLog,
    ) -> Result<Self, StartError> {
        if config.resources.is_empty() {
            return Err(StartError::NoResource);
        }
        let unsafe_scheme = config.redirect_schemes.iter().find(|scheme| is_unsafe(scheme));
        if let Some(scheme) = unsafe_scheme {
            return Err(StartError::RedirectScheme { scheme: scheme.clone() });
        }
        let mut configured: Vec<_> = users.workloads.iter().map(Client::workload).collect();
        for client in &users.clients {
            let redirect = || StartError::RedirectUri { client_id: client.client_id.to_string() };
            configured.push(Client::configured(client).map_err(|_| redirect())?);
        }
        Ok(Self {
            issuer,
            resources: config.resources.clone(),
            scopes: Scopes::new(&config.scopes).ok_or(StartError::Scope)?,
            access_token_lifetime: lifetime(config.access_token_ttl_seconds),
            code_lifetime: lifetime(config.code_ttl_seconds),
            users,
            key,
            store: Store::new(
                configured,
                config.registrations_of_address_max,
                config.sign_ins_of_address_max,
                lifetime(config.refresh_token_ttl_seconds),
            ),
            sign_in_limiter: SignInLimiter::new(
                config.sign_in_failures_max,
                lifetime(config.sign_in_lock_seconds),
            ),
            redirect_schemes: config.redirect_schemes.clone(),
            internal_resources: config.internal_resources.clone(),
            revoker,
            audit,
            state_file: None,
        })
    }

    /// Records a sign-in that succeeded. If records are required, it returns once the record is on
    /// the disk.
    pub(crate) async fn record(&self, sign_in: SignIn) -> Result<(), AuditUnavailable> {
        let (issuer, outcome) = (self.issuer.as_str().to_owned(), "ok".to_owned());
        let sign_in = SignIn { issuer, outcome, ..sign_in };
        self.audit.commit(Event::SignIn(Box::new(sign_in))).await
    }

    /// Records a sign-in that failed.
    pub(crate) fn record_failed(&self, code: &str, sign_in: SignIn) {
        let (issuer, outcome) = (self.issuer.as_str().to_owned(), "failed".to_owned());
        let sign_in = SignIn { issuer, outcome, code: code.to_owned(), ..sign_in };
        self.audit.record(Event::SignIn(Box::new(sign_in)));
    }

    /// Restores the contents of a state file, and updates the file from now on.
    pub(crate) async fn restore(&mut self, file: StateFile, saved: Option<Snapshot>) {
        if let Some(saved) = saved {
            let is_resource =
                |resource: &str| self.resource(Some(resource), true) == Some(resource);
            self.store.restore(saved, is_resource, &self.scopes).await;
        }
        self.state_file = Some(Arc::new(file));
    }

    /// Writes changes to the state file, if there is one, and logs failures.
    pub(crate) async fn save(self: &Arc<Self>) {
        if let Err(error) = self.try_save().await {
            let error = &error as &dyn std::error::Error;
            tracing::error!(error, "clients and refresh tokens would be lost in a restart");
        }
    }

    /// Writes changes to the state file, if there is one.
    pub(crate) async fn try_save(self: &Arc<Self>) -> Result<(), StateFileError> {
        let Some(file) = &self.state_file else { return Ok(()) };
        let idp = Arc::clone(self);
        file.write(move || idp.store.snapshot(idp.key.saved().expose_secret().to_owned())).await
    }

    /// Ends a grant and revokes its access tokens.
    pub(crate) async fn revoke(self: &Arc<Self>, grant: &Grant) {
        let tokens = grant.revoke();
        self.save().await;
        if let Some(revoker) = &self.revoker {
            Arc::clone(revoker).revoke(tokens).await;
        }
    }

    /// The configured resource that matches the requested one, ignoring a trailing slash; internal
    /// resources only if `internal`. Without a requested resource the first one, for clients
    /// without RFC 8707.
    pub(crate) fn resource(&self, requested: Option<&str>, internal: bool) -> Option<&str> {
        let Some(requested) = requested else { return self.resources.first().map(String::as_str) };
        let same = |resource: &&String| without_slash(resource) == without_slash(requested);
        let internal = self.internal_resources.iter().filter(|_| internal);
        self.resources.iter().chain(internal).find(same).map(String::as_str)
    }
}

fn is_unsafe(scheme: &str) -> bool {
    let allowed =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
    let is_scheme =
        scheme.starts_with(|first: char| first.is_ascii_lowercase()) && scheme.bytes().all(allowed);
    !is_scheme || UNSAFE_SCHEMES.contains(&scheme)
}

fn without_slash(resource: &str) -> &str {
    resource.strip_suffix('/').unwrap_or(resource)
}

/// Limited here too, because a `Config` need not come from the command line.
fn lifetime(seconds: u64) -> Duration {
    Duration::from_secs(seconds.min(crate::TTL_SECONDS_MAX))
}
