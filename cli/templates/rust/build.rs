//! Compiles the contract.

fn main() -> Result<(), drawbridge_build::BuildError> {
    drawbridge_build::compile("proto")
}
