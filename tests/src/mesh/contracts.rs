use std::fs;

use drawbridge_contract::Contract;
use drawbridge_mesh::MeshConfig;
use prost_reflect::DescriptorPool;

use crate::{cached, conformance, notes};

/// Locks the conformance service into the policies of a mesh, and permits it to every caller.
pub fn serve_conformance(config: &mut MeshConfig) {
    serve(config, "test", conformance::DESCRIPTORS, "drawbridge.conformance.v1.ConformanceService");
}

/// Locks the service with cacheable results into the policies of a mesh, and permits it to every
/// caller.
pub fn serve_cached(config: &mut MeshConfig) {
    serve(config, "cached", cached::DESCRIPTORS, "drawbridge.cached.v1.CachedService");
}

/// Locks the notes service into the policies of a mesh, and permits it to every caller.
pub fn serve_notes(config: &mut MeshConfig) {
    serve(config, "notes", notes::DESCRIPTORS, "drawbridge.notes.v1.NotesService");
}

fn serve(config: &mut MeshConfig, namespace: &str, descriptors: &[u8], service: &str) {
    let pool = DescriptorPool::decode(descriptors).expect("a contract");
    permit(config, namespace, &Contract { pool, services: vec![service.to_owned()] });
}

/// Locks a contract into the policies of a mesh, and permits it to every caller; removes the
/// guardrails.
pub fn permit(config: &mut MeshConfig, namespace: &str, contract: &Contract) {
    for (name, text) in drawbridge_cli::policy::schema::files(contract) {
        fs::write(config.policies.join("catalog").join(name), text).expect("a file");
    }
    let guardrails = config.policies.join("guardrails.cedar");
    if guardrails.exists() {
        fs::remove_file(guardrails).expect("a removable file");
    }
    // A bare `action` would include the action `act`.
    let actions = r#"[Action::"call_tool", Action::"read_resource", Action::"get_prompt"]"#;
    let policy = format!(
        "@id(\"all-{namespace}\")\npermit (principal, action in {actions}, resource in Service::{namespace:?});\n"
    );
    fs::write(config.policies.join(format!("{namespace}.cedar")), policy).expect("a file");
}
