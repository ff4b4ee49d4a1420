//! Contracts of services that run.

use std::time::Duration;

use anyhow::{Context as _, bail};
use drawbridge_sdk::{
    CallContext, GrpcUrl, MtlsConfig, Peers, RequestId, SpiffeId,
    reflection::{self, Contract},
};
use tonic::transport::Channel;
use url::Url;

use crate::state::{MeshArgs, MeshState};

const TIMEOUT: Duration = Duration::from_secs(10);

/// Which services, and how to speak to them.
#[derive(Clone, Debug, clap::Args)]
pub struct ContractArgs {
    /// The gRPC address of a running service. Repeat for more. Absent: the services that this build knows.
    #[arg(long, value_name = "URL")]
    service_url: Vec<GrpcUrl>,

    /// The SPIFFE id of that service. Absent: as the running mesh says.
    #[arg(long, value_name = "SPIFFE_ID", requires = "service_url")]
    service_spiffe_id: Option<SpiffeId>,

    #[command(flatten)]
    mesh: MeshArgs,

    /// What services are shown, and which are believed.
    #[command(flatten)]
    mtls: MtlsConfig,
}

impl ContractArgs {
    /// The contracts of the services that are named.
    pub(crate) async fn read(&self) -> anyhow::Result<Vec<Contract>> {
        let mesh = self.mesh.find()?;
        let mut contracts = Vec::new();
        for url in &self.service_url {
            let context = CallContext::new(RequestId::generate(), TIMEOUT);
            let contract = reflection::contract(self.channel(mesh.state(), url)?, &context).await;
            contracts.push(contract.with_context(|| format!("cannot read the contract at {url}"))?);
        }
        Ok(contracts)
    }

    /// The services of a config file, as the command speaks to them.
    pub(crate) fn peers(&self) -> anyhow::Result<Peers> {
        peers(&self.mtls, self.mesh.find()?.state())
    }

    fn channel(&self, state: Option<&MeshState>, url: &Url) -> anyhow::Result<Channel> {
        let known = state.and_then(|state| state.services.iter().find(|(_, known)| *known == url));
        let name = known.map(|(name, _)| name.as_str());
        if url.scheme() == "https" && name.is_none() && self.service_spiffe_id.is_none() {
            bail!("who {url} must be is not known here: give --service-spiffe-id");
        }
        let peers = peers(&self.mtls, state)?;
        Ok(peers.connect(url, name.unwrap_or_default(), self.service_spiffe_id.as_ref())?)
    }
}

/// The services of a mesh, as a command speaks to them: by what is given, or as the running mesh says.
pub(crate) fn peers(given: &MtlsConfig, state: Option<&MeshState>) -> anyhow::Result<Peers> {
    let is_given = given.mtls_certificate_file.is_some() || given.allow_plaintext;
    Ok(match state {
        Some(state) if !is_given => state.peers()?,
        _ => Peers::open(given)?,
    })
}
