//! Contracts of running services.

use std::time::Duration;

use anyhow::{Context as _, bail};
use drawbridge_contract::Contract;
use drawbridge_runtime::{GrpcUrl, RequestId};
use drawbridge_transport::{CallContext, MtlsConfig, Peers, SpiffeId, reflection};
use tonic::transport::Channel;
use url::Url;

use drawbridge_mesh::state::{MeshArgs, MeshState};

const TIMEOUT: Duration = Duration::from_secs(10);

/// The services, and the transport to them.
#[derive(Clone, Debug, clap::Args)]
pub struct ContractArgs {
    /// The gRPC URL of a running service. Repeat for more. Absent: the services in this build.
    #[arg(long, value_name = "URL")]
    service_url: Vec<GrpcUrl>,

    /// The SPIFFE id of that service. Absent: from the running mesh's state.
    #[arg(long, value_name = "SPIFFE_ID", requires = "service_url")]
    service_spiffe_id: Option<SpiffeId>,

    #[command(flatten)]
    mesh: MeshArgs,

    /// The client certificate, and the authorities to trust.
    #[command(flatten)]
    mtls: MtlsConfig,
}

impl ContractArgs {
    /// The contracts of the given services.
    pub(crate) async fn read(&self) -> anyhow::Result<Vec<Contract>> {
        let mesh = self.mesh.find()?;
        let mut contracts = Vec::new();
        for url in &self.service_url {
            let context = CallContext::new(RequestId::generate(), TIMEOUT);
            let contract =
                reflection::fetch_contract(self.channel(mesh.state(), url)?, &context).await;
            contracts.push(contract.with_context(|| format!("cannot read the contract at {url}"))?);
        }
        Ok(contracts)
    }

    /// The transport to the services of a config file.
    pub(crate) fn peers(&self) -> anyhow::Result<Peers> {
        peers(&self.mtls, self.mesh.find()?.state())
    }

    fn channel(&self, state: Option<&MeshState>, url: &Url) -> anyhow::Result<Channel> {
        let from_state = state
            .and_then(|state| state.services.iter().find(|(_, from_state)| *from_state == url));
        let name = from_state.map(|(name, _)| name.as_str());
        if url.scheme() == "https" && name.is_none() && self.service_spiffe_id.is_none() {
            bail!("the SPIFFE id of {url} is unknown: give --service-spiffe-id");
        }
        let peers = peers(&self.mtls, state)?;
        Ok(peers.connect(url, name.unwrap_or_default(), self.service_spiffe_id.as_ref())?)
    }
}

/// The transport to a mesh's services: from the options, or else from the running mesh's state.
pub(crate) fn peers(mtls: &MtlsConfig, state: Option<&MeshState>) -> anyhow::Result<Peers> {
    let has_mtls_options = mtls.mtls_certificate_file.is_some() || mtls.allow_plaintext;
    Ok(match state {
        Some(state) if !has_mtls_options => state.peers()?,
        _ => Peers::open(mtls)?,
    })
}
