use std::path::PathBuf;

use anyhow::{Context as _, bail};
use drawbridge_auth::policy::{Answer, Explained, Explanation, Says, Study, Who};
use serde_json::Value;

use super::{Common, Verdict, diff::records, open, paint, print_json};

/// How many policies about other callers are shown.
const OTHERS_MAX: usize = 10;

/// What to explain.
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// The tool, resource or prompt.
    #[arg(required_unless_present = "log")]
    item: Option<String>,

    /// The arguments as JSON. Those that are missing have their defaults. Absent: as for a list.
    arguments: Option<String>,

    #[command(flatten)]
    who: Who,

    /// Explain a recorded decision: the decision log, a file or a folder.
    #[arg(long, requires = "request", conflicts_with = "item")]
    log: Option<PathBuf>,

    /// The id of the request whose decision is to be explained.
    #[arg(long, requires = "log")]
    request: Option<String>,

    #[command(flatten)]
    common: Common,
}

pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<Verdict> {
    let study = open(&args.common.policies)?;
    let (who, name, arguments) = asked(args)?;
    let item = study.item(&name).with_context(|| no_such_item(&study, &name))?;
    let explanation = study.explain(&who, &item, arguments.as_ref());
    if args.common.json {
        print_json(&explanation)?;
    } else {
        print(&name, &explanation);
    }
    Ok(Verdict::good_if(matches!(explanation.answer, Answer::Allow | Answer::Perhaps)))
}

fn asked(args: &ExplainArgs) -> anyhow::Result<(Who, String, Option<Value>)> {
    let (Some(log), Some(request)) = (&args.log, &args.request) else {
        let arguments = args.arguments.as_deref().map(serde_json::from_str).transpose();
        let arguments = arguments.context("the arguments are not JSON")?;
        return Ok((args.who.clone(), args.item.clone().unwrap_or_default(), arguments));
    };
    for record in records(log)? {
        let record = record?;
        if record.request_id == *request {
            return Ok((Who::from(&record), record.item, record.arguments));
        }
    }
    bail!("{} has no request {request}", log.display());
}

pub(super) fn no_such_item(study: &Study, name: &str) -> String {
    let names: Vec<_> = study.policies().items().map(|(_, item)| item.name).collect();
    format!("the catalog has no {name}; there are {}", names.join(", "))
}

fn print(name: &str, explanation: &Explanation) {
    let name = paint::strong(name);
    let answer = match explanation.answer {
        Answer::Allow => paint::good("allowed"),
        Answer::Perhaps => paint::warning("allowed with some arguments"),
        Answer::NotPermitted => format!("{}: no policy permits it", paint::bad("denied")),
        Answer::Forbidden => format!("{}: a policy forbids it", paint::bad("denied")),
        Answer::NotInCatalog => format!("{}: the catalog does not have it", paint::bad("denied")),
        Answer::Arguments => {
            format!("{}: the arguments do not fit the action's schema", paint::bad("denied"))
        }
        Answer::Error => format!("{}: a policy could not be evaluated", paint::bad("denied")),
    };
    anstream::println!("{name} is {answer}");
    if let Some(shadow) = explanation.shadow {
        anstream::println!(
            "With its shadow policies it would be {}.",
            paint::warning(&format!("{shadow:?}"))
        );
    }
    let denied = explanation.answer == Answer::NotPermitted;
    let (others, about): (Vec<_>, Vec<_>) =
        explanation.policies.iter().partition(|policy| policy.says == Says::Others);
    about.into_iter().for_each(print_policy);
    let others: Vec<_> = others.into_iter().filter(|policy| denied && policy.permits).collect();
    others.iter().take(OTHERS_MAX).copied().for_each(print_policy);
    if let Some(more) = others.len().checked_sub(OTHERS_MAX).filter(|more| *more > 0) {
        anstream::println!("\n… and {more} more that permit it to others");
    }
}

fn print_policy(policy: &Explained) {
    let effect = if policy.permits { "permits" } else { "forbids" };
    let says = match policy.says {
        Says::Yes => effect.to_owned(),
        Says::Perhaps => format!("{effect} some arguments"),
        Says::No => "does not apply: its conditions do not hold".to_owned(),
        Says::Others => format!("{effect} it to others"),
        Says::Error => format!("cannot be evaluated: {}", policy.error.as_deref().unwrap_or_default()),
    };
    let shadow = if policy.shadow { " (shadow: it does not decide)" } else { "" };
    let place = format!("{}:{}", policy.path.display(), policy.line);
    anstream::println!("\n{} {says}{shadow}  {place}", paint::strong(&policy.id));
    for line in policy.text.lines() {
        anstream::println!("    {line}");
    }
}
