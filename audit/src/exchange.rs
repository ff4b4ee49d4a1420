//! The exchange of checkpoints between replicas: each writes those of the others into its own log,
//! after a proof that the other log only grew.

use std::{io, time::Duration};

use axum::{Json, Router, extract::DefaultBodyLimit, http::StatusCode, routing::post};
use bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::{
    AuditLog, Event,
    event::Anchor,
    metrics::PEER_CHECKPOINTS,
    peers::{ConsistencyProof, PROOFS_MAX, PeerMessage, verify},
    shared::lock,
};

/// Where replicas exchange checkpoints: `POST` of a [`PeerMessage`], answered by another.
pub const EXCHANGE_PATH: &str = "/.well-known/drawbridge-audit";
/// How often checkpoints are exchanged.
const INTERVAL: Duration = Duration::from_secs(10);
/// The largest message, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
impl AuditLog {
    /// The state of this log for other replicas.
    #[must_use]
    pub fn offer(&self) -> PeerMessage {
        let shared = self.shared();
        let published = lock(&shared.published).clone();
        let (wanted, seen) = {
            let peers = lock(&shared.peers);
            let seen = peers.known.iter().map(|(origin, peer)| (origin.clone(), peer.size));
            (peers.wanted.clone(), seen.collect())
        };
        let mut proofs = Vec::new();
        if let Some((size, _)) = &published {
            let tree = lock(&shared.tree);
            for since in wanted.range(..size).rev().take(PROOFS_MAX) {
                let hashes = tree.prove_consistency(*since, *size);
                proofs.extend(hashes.map(|hashes| ConsistencyProof { since: *since, hashes }));
            }
        }
        let checkpoint = published.map(|(_, note)| note);
        PeerMessage { key: shared.public_key.clone(), checkpoint, proofs, seen }
    }

    /// Takes the state of another replica's log, and records it if it is new.
    ///
    /// # Errors
    /// When the message is invalid: its checkpoint is not signed by its key.
    pub fn receive(&self, message: &PeerMessage) -> Result<(), String> {
        let shared = self.shared();
        let anchor = {
            let mut peers = lock(&shared.peers);
            if let Some(size) = message.seen.get(&shared.origin) {
                peers.wanted.insert(*size);
                while peers.wanted.len() > PROOFS_MAX {
                    peers.wanted.pop_first();
                }
            }
            let Some(note) = &message.checkpoint else { return Ok(()) };
            let checkpoint = verify(&message.key, note).inspect_err(|_| {
                PEER_CHECKPOINTS.with(["invalid".into()]).increment(1);
            })?;
            // A name of all replicas leads to this one too.
            if checkpoint.origin == shared.origin {
                return Ok(());
            }
            peers.receive(message, &checkpoint)
        };
        if let Some(anchor) = anchor {
            let outcome = if anchor.problem.is_empty() { "anchored" } else { "inconsistent" };
            PEER_CHECKPOINTS.with([outcome.into()]).increment(1);
            if !anchor.problem.is_empty() {
                let Anchor { origin, problem, .. } = &anchor;
                tracing::error!(%origin, %problem, "the audit log of another replica was changed");
            }
            self.record(Event::Anchor(Box::new(anchor)));
        }
        Ok(())
    }

    /// The route at which other replicas exchange checkpoints. Only services of the mesh may reach
    /// it.
    pub fn peer_routes(&self) -> Router {
        if !self.is_on() {
            return Router::new();
        }
        let log = self.clone();
        let answer = async move |Json(message): Json<PeerMessage>| match log.receive(&message) {
            Ok(()) => Ok(Json(log.offer())),
            Err(problem) => Err((StatusCode::BAD_REQUEST, problem)),
        };
        Router::new()
            .route(EXCHANGE_PATH, post(answer))
            .layer(DefaultBodyLimit::max(MESSAGE_BYTES_MAX))
    }

    /// Exchanges checkpoints with other replicas every ten seconds, until `stopping`. `send` posts
    /// JSON to [`EXCHANGE_PATH`] of each and returns their answers with their addresses.
    pub async fn exchange<F>(&self, mut send: impl FnMut(Bytes) -> F, stopping: CancellationToken)
    where
        F: Future<Output = Vec<(String, io::Result<Bytes>)>>,
    {
        if !self.is_on() {
            return;
        }
        let exchanging = async {
            loop {
                self.exchange_once(&mut send).await;
                tokio::time::sleep(INTERVAL).await;
            }
        };
        stopping.run_until_cancelled(exchanging).await;
    }

    /// Exchanges checkpoints with other replicas once.
    pub async fn exchange_once<F>(&self, mut send: impl FnMut(Bytes) -> F)
    where
        F: Future<Output = Vec<(String, io::Result<Bytes>)>>,
    {
        let Ok(message) = serde_json::to_vec(&self.offer()) else { return };
        for (replica, answer) in send(message.into()).await {
            let received = answer.map_err(|error| error.to_string()).and_then(|answer| {
                let message = serde_json::from_slice(&answer).map_err(|error| error.to_string())?;
                self.receive(&message)
            });
            if let Err(problem) = received {
                tracing::debug!(%replica, %problem, "no checkpoint of another replica");
            }
        }
    }
}

#[cfg(test)]
mod tests;
