use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use drawbridge_audit::{Event, event::Decision};
use drawbridge_auth::policy::{
    Contribution, DecisionOutcome, Explained, Explanation, PolicyWorkspace, recorded_principal,
    suggest,
};
use drawbridge_config::policy::PrincipalSpec;
use drawbridge_idp::Facts;
use serde_json::Value;

use super::{CommonArgs, Verdict, diff::events, open_workspace, paint, print_json};

mod token;

/// The number of policies about other principals to print.
const OTHERS_MAX: usize = 10;

/// Arguments of `policy explain`.
#[derive(Clone, Debug, clap::Args)]
pub struct ExplainArgs {
    /// The tool, resource or prompt.
    #[arg(required_unless_present = "log")]
    item: Option<String>,

    /// The arguments as JSON, with defaults for missing ones. Absent: decide as for a list, where
    /// arguments are unknown.
    arguments: Option<String>,

    #[command(flatten)]
    who: PrincipalSpec,

    /// The users file of the development authorization server. Absent: its built-in users. If only
    /// a user's name is given, the user's groups, roles and tenant are read from it.
    #[arg(long, value_name = "FILE")]
    users: Option<PathBuf>,

    /// A file with an access token, or `-` for standard input. The caller is read from its claims,
    /// which are not verified.
    #[arg(long, value_name = "FILE", conflicts_with_all = ["log", "subject", "issuer"])]
    token: Option<PathBuf>,

    /// Explain a recorded decision: the audit log of auth, a file or a folder. With the log of the
    /// edge in the same folder, calls whose decision was cached are found too.
    #[arg(long, requires = "request", conflicts_with = "item")]
    log: Option<PathBuf>,

    /// The id of the request whose decision to explain.
    #[arg(long, requires = "log")]
    request: Option<String>,

    #[command(flatten)]
    common: CommonArgs,
}

pub(super) fn run(args: &ExplainArgs) -> anyhow::Result<Verdict> {
    let workspace = open_workspace(&args.common.policies)?;
    let Query { who, name, arguments, note } = query(args)?;
    let item = workspace.item(&name).with_context(|| no_such_item(&workspace, &name))?;
    let explanation = workspace.explain(&who, &item, arguments.as_ref());
    if args.common.json {
        print_json(&explanation)?;
    } else {
        note.iter().for_each(|note| anstream::println!("{note}"));
        print(&name, &explanation);
        let nothing_known = who.groups.is_empty() && who.roles.is_empty();
        if explanation.answer == DecisionOutcome::NotPermitted && nothing_known {
            anstream::println!(
                "\nNo group or role of {} is known: give the claims with --group and --role, or \
                 with --token.",
                who.subject
            );
        }
    }
    Ok(Verdict::good_if(matches!(
        explanation.answer,
        DecisionOutcome::Allow | DecisionOutcome::Conditional
    )))
}

/// The operation to explain.
struct Query {
    who: PrincipalSpec,
    name: String,
    arguments: Option<Value>,
    /// The source of the caller's attributes, for the output.
    note: Option<String>,
}

fn query(args: &ExplainArgs) -> anyhow::Result<Query> {
    let (Some(log), Some(request)) = (&args.log, &args.request) else {
        let arguments = args.arguments.as_deref().map(serde_json::from_str).transpose();
        let arguments = arguments.context("the arguments are not valid JSON")?;
        let (who, note) = caller(args)?;
        return Ok(Query { who, name: args.item.clone().unwrap_or_default(), arguments, note });
    };
    let Some(record) = recorded(log, request)? else {
        bail!("{} has no record of a decision on the request {request}", log.display());
    };
    let who = recorded_principal(&record);
    let note = (record.request_id != *request)
        .then(|| format!("decided in the earlier request {}", record.request_id));
    Ok(Query { who, name: record.item, arguments: record.arguments, note })
}

/// The decision on a request: its own, or the cached one that its call used.
fn recorded(log: &Path, request: &str) -> anyhow::Result<Option<Decision>> {
    let mut wanted = request.to_owned();
    for _ in 0..2 {
        let mut used = None;
        for event in events(log)? {
            match event? {
                Event::Decision(decision) if decision.request_id == wanted => {
                    return Ok(Some(*decision));
                }
                Event::Call(call) if call.request_id == request => {
                    used = call.decision.map(|decision| decision.request_id);
                }
                _ => {}
            }
        }
        match used {
            Some(other) if other != wanted => wanted = other,
            _ => break,
        }
    }
    Ok(None)
}

/// The caller, from a token, from the flags, or from the development users file for a user named by
/// the flags.
fn caller(args: &ExplainArgs) -> anyhow::Result<(PrincipalSpec, Option<String>)> {
    if let Some(file) = &args.token {
        let who = token::read(file)?;
        let note =
            format!("{} of {}, from the token's claims (not verified)", who.subject, who.issuer);
        return Ok((who, Some(note)));
    }
    let who = args.who.clone();
    let only_named = PrincipalSpec { subject: who.subject.clone(), ..PrincipalSpec::default() };
    if who != only_named {
        return Ok((who, None));
    }
    let Some(facts) = drawbridge_idp::facts(args.users.as_deref(), &who.subject)? else {
        return Ok((who, None));
    };
    let Facts { groups, roles, tenant, email, mfa } = facts;
    let facts = [
        tenant.as_ref().map(|tenant| format!("tenant {tenant}")),
        (!groups.is_empty()).then(|| format!("groups {}", groups.join(", "))),
        (!roles.is_empty()).then(|| format!("roles {}", roles.join(", "))),
        mfa.then(|| "mfa".to_owned()),
    ];
    let facts: Vec<_> = facts.into_iter().flatten().collect();
    let note = format!("{}, from the development users file: {}", who.subject, facts.join("; "));
    let who =
        PrincipalSpec { groups, roles, tenant: tenant.unwrap_or_default(), email, mfa, ..who };
    Ok((who, Some(note)))
}

pub(super) fn no_such_item(workspace: &PolicyWorkspace, name: &str) -> String {
    let mut names: Vec<_> = workspace.policies().items().map(|(_, item)| item.name).collect();
    names.sort_unstable();
    let suggestion = suggest(name, names.iter().map(String::as_str));
    let suggestion =
        suggestion.map_or_else(String::new, |suggestion| format!("; did you mean {suggestion}?"));
    format!("the catalog has no {name}; it has {}{suggestion}", names.join(", "))
}

fn print(name: &str, explanation: &Explanation) {
    let name = paint::strong(name);
    let answer = match explanation.answer {
        DecisionOutcome::Allow => paint::good("allowed"),
        DecisionOutcome::Conditional => paint::warning("allowed with some arguments"),
        DecisionOutcome::NotPermitted => format!("{}: no policy permits it", paint::bad("denied")),
        DecisionOutcome::Forbidden => format!("{}: a policy forbids it", paint::bad("denied")),
        DecisionOutcome::NotInCatalog => format!("{}: not in the catalog", paint::bad("denied")),
        DecisionOutcome::Arguments => {
            format!("{}: the arguments do not match the action's schema", paint::bad("denied"))
        }
        DecisionOutcome::Error => {
            format!("{}: a policy could not be evaluated", paint::bad("denied"))
        }
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
    let denied = explanation.answer == DecisionOutcome::NotPermitted;
    let (others, decisive): (Vec<_>, Vec<_>) = explanation
        .policies
        .iter()
        .partition(|policy| policy.contribution == Contribution::OtherCallers);
    decisive.into_iter().for_each(print_policy);
    let others: Vec<_> = others.into_iter().filter(|policy| denied && policy.permits).collect();
    others.iter().take(OTHERS_MAX).copied().for_each(print_policy);
    if let Some(more) = others.len().checked_sub(OTHERS_MAX).filter(|more| *more > 0) {
        anstream::println!("\n… and {more} more that permit others");
    }
}

fn print_policy(policy: &Explained) {
    let effect = if policy.permits { "permits" } else { "forbids" };
    let verdict_text = match policy.contribution {
        Contribution::Applies => effect.to_owned(),
        Contribution::Conditional => format!("{effect} some arguments"),
        Contribution::DoesNotApply => "does not apply: its conditions are false".to_owned(),
        Contribution::OtherCallers => format!("{effect} others"),
        Contribution::Error => {
            format!("cannot be evaluated: {}", policy.error.as_deref().unwrap_or_default())
        }
    };
    let shadow = if policy.shadow { " (shadow: not enforced)" } else { "" };
    let place = format!("{}:{}", policy.path.display(), policy.line);
    anstream::println!("\n{} {verdict_text}{shadow}  {place}", paint::strong(&policy.id));
    for line in policy.text.lines() {
        anstream::println!("    {line}");
    }
}
