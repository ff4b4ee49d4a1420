use std::path::PathBuf;

use anyhow::{Context as _, bail};
use drawbridge_auth::policy::{Answer, Explained, Explanation, Says, Study, Who, suggest};
use drawbridge_idp::Facts;
use serde_json::Value;

use super::{Common, Verdict, diff::records, open, paint, print_json};

mod token;

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

    /// The users file of the development authorization server, which says what the tokens of its users say. Absent: its
    /// own users. It is asked when nothing is given of a user of that server but the name.
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,

    /// A file with an access token, or `-` for standard input: who calls is read from its claims, and nothing is verified.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["log", "subject", "issuer"])]
    token: Option<PathBuf>,

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
    let Asked { who, name, arguments, note } = asked(args)?;
    let item = study.item(&name).with_context(|| no_such_item(&study, &name))?;
    let explanation = study.explain(&who, &item, arguments.as_ref());
    if args.common.json {
        print_json(&explanation)?;
    } else {
        note.iter().for_each(|note| anstream::println!("{note}"));
        print(&name, &explanation);
        let nothing_known = who.groups.is_empty() && who.roles.is_empty();
        if explanation.answer == Answer::NotPermitted && nothing_known {
            anstream::println!(
                "\nNo group or role of {} is known: give what the tokens say by --group and --role, or by --token.",
                who.subject
            );
        }
    }
    Ok(Verdict::good_if(matches!(explanation.answer, Answer::Allow | Answer::Perhaps)))
}

/// What is asked.
struct Asked {
    who: Who,
    name: String,
    arguments: Option<Value>,
    /// Where what is known of the caller comes from.
    note: Option<String>,
}

fn asked(args: &ExplainArgs) -> anyhow::Result<Asked> {
    let (Some(log), Some(request)) = (&args.log, &args.request) else {
        let arguments = args.arguments.as_deref().map(serde_json::from_str).transpose();
        let arguments = arguments.context("the arguments are not JSON")?;
        let (who, note) = caller(args)?;
        return Ok(Asked { who, name: args.item.clone().unwrap_or_default(), arguments, note });
    };
    for record in records(log)? {
        let record = record?;
        if record.request_id == *request {
            let who = Who::from(&record);
            return Ok(Asked { who, name: record.item, arguments: record.arguments, note: None });
        }
    }
    bail!("{} has no request {request}", log.display());
}

/// Who calls, by a token, by the flags, or by what the development users file says of whom the flags name.
fn caller(args: &ExplainArgs) -> anyhow::Result<(Who, Option<String>)> {
    if let Some(file) = &args.token {
        let who = token::read(file)?;
        let note = format!(
            "{} of {}, by the token's claims, which are not verified",
            who.subject, who.issuer
        );
        return Ok((who, Some(note)));
    }
    let who = args.who.clone();
    let only_named = Who { subject: who.subject.clone(), ..Who::default() };
    if who != only_named {
        return Ok((who, None));
    }
    let Some(facts) = drawbridge_idp::facts(args.users.as_deref(), &who.subject)? else {
        return Ok((who, None));
    };
    let Facts { groups, roles, tenant, email, mfa } = facts;
    let said = [
        tenant.as_ref().map(|tenant| format!("tenant {tenant}")),
        (!groups.is_empty()).then(|| format!("groups {}", groups.join(", "))),
        (!roles.is_empty()).then(|| format!("roles {}", roles.join(", "))),
        mfa.then(|| "mfa".to_owned()),
    ];
    let said: Vec<_> = said.into_iter().flatten().collect();
    let note = format!("{}, as the development users file says: {}", who.subject, said.join("; "));
    let who = Who { groups, roles, tenant: tenant.unwrap_or_default(), email, mfa, ..who };
    Ok((who, Some(note)))
}

pub(super) fn no_such_item(study: &Study, name: &str) -> String {
    let mut names: Vec<_> = study.policies().items().map(|(_, item)| item.name).collect();
    names.sort_unstable();
    let meant = suggest(name, names.iter().map(String::as_str));
    let meant = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
    format!("the catalog has no {name}; there are {}{meant}", names.join(", "))
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
    for wrong in &explanation.arguments {
        anstream::println!("  {wrong}");
    }
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
        Says::Error => {
            format!("cannot be evaluated: {}", policy.error.as_deref().unwrap_or_default())
        }
    };
    let shadow = if policy.shadow { " (shadow: it does not decide)" } else { "" };
    let place = format!("{}:{}", policy.path.display(), policy.line);
    anstream::println!("\n{} {says}{shadow}  {place}", paint::strong(&policy.id));
    for line in policy.text.lines() {
        anstream::println!("    {line}");
    }
}
