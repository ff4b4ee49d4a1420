//! Looks at a bundle as auth would take it, without putting it in force.

use super::{
    BundleConfig, BundleError, BundleLocation, Loader, Release, follow::BundleFollower, load,
};

/// A bundle that auth would take.
#[derive(Clone, Debug)]
pub struct InspectedBundle {
    /// What its note says.
    pub release: Release,
    /// The names of the trusted keys that signed it.
    pub signed_by: Vec<String>,
}

/// Fetches a bundle, verifies its signatures, and checks and tests its policies. The cache of the
/// configuration is auth's, and is neither read nor written.
///
/// # Errors
/// If auth would not take it, or its server cannot be reached. There is no second attempt.
pub async fn inspect(
    location: &BundleLocation,
    config: &BundleConfig,
) -> Result<InspectedBundle, BundleError> {
    let config = BundleConfig { policy_cache: None, ..config.clone() };
    let mut follower = BundleFollower::new(location, &config).await?;
    let bundle = loop {
        if let Some(bundle) = follower.next().await? {
            break bundle;
        }
    };
    let (release, signed_by) = (bundle.release().clone(), follower.signers(&bundle));
    // Cases of large policies take long.
    let checking =
        tokio::task::spawn_blocking(move || load(&bundle.packed, &mut Loader::default()).map(drop));
    match checking.await {
        Ok(checked) => checked?,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
    Ok(InspectedBundle { release, signed_by })
}
