use std::path::PathBuf;

use anyhow::Context as _;
use drawbridge_audit::{
    Checkpoint, Event, Record,
    prove::{LineProof, ProofBundle, ProofError, prove as make},
};
use drawbridge_runtime::bounded;
use serde_json::json;

use super::{Logs, TrustedKeys, print, print_json};

/// The largest proof that is read, in bytes.
const PROOF_BYTES_MAX: u64 = 64 << 20;

/// Arguments of `audit prove`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge audit prove 0199c0f4-6b1e-7c3a-8d51-3a7e2b9f4c10 logs/ > proof.json

The proof has the lines about the request, and nothing else of the logs. Give the logs of all \
replicas: then it has what the others recorded too.")]
pub struct ProveArgs {
    /// The id of the request.
    request_id: String,

    #[command(flatten)]
    logs: Logs,
}

/// Arguments of `audit check-proof`.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "\
Examples:
  drawbridge audit check-proof proof.json --key audit-keys.txt")]
pub struct CheckProofArgs {
    /// The file that `audit prove` has written.
    proof: PathBuf,

    #[command(flatten)]
    keys: TrustedKeys,

    /// Print the result as JSON.
    #[arg(long)]
    json: bool,
}

pub(super) fn prove(args: &ProveArgs) -> anyhow::Result<bool> {
    let bundle = make(&args.logs.logs, &args.request_id)?;
    for line in &bundle.unproven {
        anstream::eprintln!("{line}: no checkpoint covers the line yet; try again in ten seconds");
    }
    if bundle.lines.is_empty() {
        anstream::eprintln!("no line about the request {} can be proven", args.request_id);
        return Ok(false);
    }
    print_json(&bundle)?;
    Ok(bundle.unproven.is_empty())
}

pub(super) fn check(args: &CheckProofArgs) -> anyhow::Result<bool> {
    let keys = args.keys.read()?;
    let shown = args.proof.display();
    let text = bounded::read_file_to_string(&args.proof, PROOF_BYTES_MAX)
        .with_context(|| format!("cannot read {shown}"))?;
    let bundle: ProofBundle =
        serde_json::from_str(&text).with_context(|| format!("{shown} is not a proof"))?;
    let verify = |proofs: &[LineProof]| -> Vec<Result<(Record, Checkpoint), ProofError>> {
        proofs.iter().map(|proof| proof.verify(&keys)).collect()
    };
    let (lines, anchors) = (verify(&bundle.lines), verify(&bundle.anchors));
    let is_good = !lines.is_empty() && lines.iter().chain(&anchors).all(Result::is_ok);
    let vouching = |checkpoint: &str| {
        let of = |record: &&Record| match &record.event {
            Event::Anchor(anchor) => anchor.note == checkpoint,
            _ => false,
        };
        let all = anchors.iter().flatten().map(|(record, _)| record).filter(of);
        all.map(|record| format!("{} at {}", record.log, record.time)).collect::<Vec<_>>()
    };
    let mut results = Vec::new();
    for (proof, verified) in bundle.lines.iter().zip(&lines) {
        match verified {
            Ok((record, _)) => {
                let vouchers = vouching(&proof.checkpoint);
                results.push(json!({ "record": record, "recorded_by": vouchers }));
                if !args.json {
                    print(&proof.line)?;
                    print(&format!("  is the line number {} of {}", proof.seq, record.log))?;
                    print(&format!("  signed by {}", proof.key))?;
                    for voucher in vouchers {
                        print(&format!("  its log was recorded by {voucher}"))?;
                    }
                }
            }
            Err(error) => results.push(json!({ "problem": error.to_string() })),
        }
    }
    for error in lines.iter().chain(&anchors).filter_map(|verified| verified.as_ref().err()) {
        anstream::eprintln!("problem: {error}");
    }
    if args.json {
        print_json(&json!({ "holds": is_good, "lines": results }))?;
    }
    Ok(is_good)
}
