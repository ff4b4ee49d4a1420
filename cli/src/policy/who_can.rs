use std::{collections::BTreeSet, io::IsTerminal as _};

use anyhow::Context as _;
use comfy_table::{Table, presets::UTF8_HORIZONTAL_ONLY};
use drawbridge_auth::policy::{Answer, Study, Who};
use drawbridge_proto::auth::v1::{CatalogItem, operation::Kind};
use serde::Serialize;

use super::{Common, Verdict, explain::no_such_item, open, print_json};

/// About what to ask.
#[derive(Clone, Debug, clap::Args)]
pub struct WhoCanArgs {
    /// Tools, resources and prompts. None: all of the catalog.
    items: Vec<String>,

    /// The tenant that callers belong to. Absent: the first that the policies name.
    #[arg(long)]
    tenant: Option<String>,

    #[command(flatten)]
    common: Common,
}

/// Who a row is about.
#[derive(Clone, Debug, Serialize)]
struct Row {
    /// `Group`, `Role`, `User`, `Workload`, or `anyone`.
    kind: String,
    id: String,
    may: Vec<Cell>,
}

/// What somebody may do with an item.
#[derive(Clone, Debug, Serialize)]
struct Cell {
    item: String,
    user: Option<Reach>,
    workload: Option<Reach>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Reach {
    No,
    Some,
    Yes,
    SomeWithMfa,
    WithMfa,
}

impl Reach {
    fn written(self) -> &'static str {
        match self {
            Self::No => "-",
            Self::Some => "some arguments",
            Self::Yes => "yes",
            Self::SomeWithMfa => "some arguments, with mfa",
            Self::WithMfa => "with mfa",
        }
    }
}

pub(super) fn run(args: &WhoCanArgs) -> anyhow::Result<Verdict> {
    let study = open(&args.common.policies)?;
    let mut items: Vec<_> = study.policies().items().collect();
    if !args.items.is_empty() {
        let found =
            args.items.iter().map(|name| study.item(name).with_context(|| no_such_item(&study, name)));
        items = found.collect::<Result<_, _>>()?;
    }
    items.sort_by(|one, other| one.1.name.cmp(&other.1.name));
    let named = study.named();
    let tenant = args.tenant.clone().or_else(|| {
        let first = named.iter().find(|(kind, _)| kind == "Tenant");
        first.map(|(_, id)| id.clone())
    });
    let rows: Vec<_> = rows(&named)
        .into_iter()
        .map(|(kind, id)| {
            let may = items.iter().map(|item| cell(&study, &kind, &id, tenant.as_deref(), item));
            Row { may: may.collect(), kind, id }
        })
        .collect();
    if args.common.json {
        print_json(&rows)?;
    } else {
        print(&rows, tenant.as_deref());
    }
    Ok(Verdict::Good)
}

fn rows(named: &BTreeSet<(String, String)>) -> Vec<(String, String)> {
    let anyone = [("anyone".to_owned(), String::new())];
    anyone.into_iter().chain(named.iter().filter(|(kind, _)| kind != "Tenant").cloned()).collect()
}

fn cell(study: &Study, kind: &str, id: &str, tenant: Option<&str>, item: &(Kind, CatalogItem)) -> Cell {
    let who = |workload, mfa| {
        let mut who = Who { workload, mfa, ..Who::default() };
        who.tenant = tenant.unwrap_or_default().to_owned();
        match kind {
            "Group" => who.groups.push(id.to_owned()),
            "Role" => who.roles.push(id.to_owned()),
            "User" | "Workload" => {
                // An issuer's URL has no fragment (RFC 8414 section 2).
                let (issuer, subject) = id.split_once('#').unwrap_or_default();
                (who.issuer, who.subject) = (issuer.to_owned(), subject.to_owned());
            }
            _ => {}
        }
        who
    };
    let reach = |workload| {
        let [without, with] = [false, true].map(|mfa| study.decide(&who(workload, mfa), item, None).answer);
        match (without, with) {
            (Answer::Allow, _) => Reach::Yes,
            (_, Answer::Allow) => Reach::WithMfa,
            (Answer::Perhaps, _) => Reach::Some,
            (_, Answer::Perhaps) => Reach::SomeWithMfa,
            _ => Reach::No,
        }
    };
    Cell {
        item: item.1.name.clone(),
        user: (kind != "Workload").then(|| reach(false)),
        workload: (kind != "User").then(|| reach(true)),
    }
}

impl Cell {
    fn written(&self) -> String {
        match (self.user, self.workload) {
            (Some(user), Some(workload)) if user != workload => match user {
                Reach::No => format!("workloads: {}", workload.written()),
                _ => format!("{}; workloads: {}", user.written(), workload.written()),
            },
            (Some(reach), _) | (None, Some(reach)) => reach.written().to_owned(),
            (None, None) => String::new(),
        }
    }
}

fn print(rows: &[Row], tenant: Option<&str>) {
    let mut table = Table::new();
    table.load_style(UTF8_HORIZONTAL_ONLY);
    if !std::io::stdout().is_terminal() {
        table.force_no_tty();
    }
    let items = rows.first().into_iter().flat_map(|row| row.may.iter().map(|cell| cell.item.clone()));
    table.set_header([String::new()].into_iter().chain(items));
    for row in rows {
        let name = if row.id.is_empty() { row.kind.clone() } else { format!("{} {}", row.kind, row.id) };
        table.add_row([name].into_iter().chain(row.may.iter().map(Cell::written)));
    }
    anstream::println!("{table}");
    let tenant =
        tenant.map_or_else(|| "without a tenant".to_owned(), |tenant| format!("of the tenant {tenant}"));
    anstream::println!(
        "For callers {tenant}, without scopes or an address. With mfa: after a second factor."
    );
}
