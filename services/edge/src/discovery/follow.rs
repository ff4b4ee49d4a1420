//! Follows the config file and the labelled Services.

use std::{future::pending, sync::Arc};

use drawbridge_audit::AuditLog;
use drawbridge_runtime::{
    ServiceBuilder, error_chain,
    follow::{FollowReport, FollowedFiles},
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::task::AbortOnDropHandle;

use super::{Discovery, kubernetes::Found};
use crate::{
    StartError,
    config::{ConfigFile, ConfigSources, OtherServices, record_change},
    metrics::{CONFIG_CURRENT, CONFIG_RELOADS_FAILED},
};

/// The followed config file.
pub(super) struct FollowedConfig {
    files: FollowedFiles<ConfigSources, StartError>,
    /// What is in force.
    running: ConfigSources,
    others: OtherServices,
}

impl FollowedConfig {
    pub(super) fn new(
        builder: &ServiceBuilder,
        audit: &AuditLog,
        file: ConfigFile,
        running: ConfigSources,
        others: OtherServices,
    ) -> Self {
        let (audit, path) = (audit.clone(), file.path().to_owned());
        let read = move || Ok(ConfigSources::read(file.path())?);
        let files = FollowedFiles::new(report(), read, builder.readiness(), builder.stopping());
        let files = files.observed_by(move |sources, applied| {
            record_change(&audit, &path, sources, applied);
        });
        Self { files, running, others }
    }

    /// The next contents that differ from what is in force.
    async fn next(&mut self) -> Option<Arc<ConfigSources>> {
        loop {
            let sources = self.files.next().await?;
            if *sources != self.running {
                return Some(sources);
            }
            self.files.report(Ok(false));
        }
    }
}

impl Discovery {
    /// Follows the config file with its lock file, and the labelled Services.
    pub(super) async fn follow(
        mut self,
        mut file: Option<FollowedConfig>,
        mut found: watch::Receiver<Found>,
    ) {
        loop {
            let next = async { file.as_mut()?.next().await };
            tokio::select! {
                Some(sources) = next => {
                    if let Some(file) = &mut file {
                        self.reload(file, &sources).await;
                    }
                }
                Ok(()) = found.changed() => {
                    self.found = found.borrow_and_update().clone();
                    let (services, overlay) = (self.configured.clone(), Arc::clone(&self.overlay));
                    match self.apply(services, overlay, self.lock.clone()).await {
                        Ok(first_reads) => self.await_first_reads(first_reads),
                        Err(error) => {
                            let error = error_chain(&error);
                            tracing::error!(error, "cannot follow the labelled Services");
                        }
                    }
                }
                // What is followed now stays so until the service stops.
                else => pending().await,
            }
        }
    }

    async fn reload(&mut self, file: &mut FollowedConfig, sources: &ConfigSources) {
        let applied = self.apply_sources(&file.others, sources).await;
        file.files.report(applied.map(|()| {
            file.running.clone_from(sources);
            true
        }));
    }

    async fn apply_sources(
        &mut self,
        others: &OtherServices,
        sources: &ConfigSources,
    ) -> Result<(), StartError> {
        let config = sources.parse(others).await?;
        let overlay = Arc::new(config.overlay);
        let first_reads = self.apply(config.services, overlay, config.lock_enforcer).await?;
        self.await_first_reads(first_reads);
        self.reloadable.set(config.policy).await;
        Ok(())
    }

    /// Warns of unknown tools once the new services have been read.
    fn await_first_reads(&mut self, first_reads: JoinSet<()>) {
        let catalogs = Arc::clone(&self.catalogs);
        self.first_reads = Some(AbortOnDropHandle::new(tokio::spawn(async move {
            first_reads.join_all().await;
            catalogs.warn_of_unknown_tools();
        })));
    }
}

/// How changes of the config file are reported.
fn report() -> FollowReport<StartError> {
    FollowReport {
        topic: "config",
        current: CONFIG_CURRENT.get(),
        failed: CONFIG_RELOADS_FAILED.get(),
        note: |error| match error {
            StartError::ConfigFile(error) => error.brief(),
            _ => "the config file cannot be used: see the log".to_owned(),
        },
    }
}
