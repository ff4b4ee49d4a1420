use std::collections::BTreeSet;

use anyhow::Context as _;
use comfy_table::{ColumnConstraint, Table, Width};
use drawbridge_auth::policy::{Answer, Study, Who};
use drawbridge_proto::auth::v1::{CatalogItem, operation::Kind};
use serde::Serialize;

use super::{Common, Verdict, explain::no_such_item, open, print_json};
use crate::table;

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
        let found = args
            .items
            .iter()
            .map(|name| study.item(name).with_context(|| no_such_item(&study, name)));
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

fn cell(
    study: &Study,
    kind: &str,
    id: &str,
    tenant: Option<&str>,
    item: &(Kind, CatalogItem),
) -> Cell {
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
        let [without, with] =
            [false, true].map(|mfa| study.decide(&who(workload, mfa), item, None).answer);
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

impl Row {
    fn name(&self) -> String {
        if self.id.is_empty() { self.kind.clone() } else { format!("{} {}", self.kind, self.id) }
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

/// A row for each item, and a column for each caller; as many tables as it takes to fit the width.
fn print(rows: &[Row], tenant: Option<&str>) {
    let mut left = rows;
    while !left.is_empty() {
        let (shown, rest) = left.split_at(fitting(left));
        anstream::println!("{}", table(shown));
        left = rest;
    }
    let tenant = tenant
        .map_or_else(|| "without a tenant".to_owned(), |tenant| format!("of the tenant {tenant}"));
    anstream::println!(
        "For callers {tenant}, without scopes or an address. With mfa: after a second factor."
    );
}

fn table(rows: &[Row]) -> Table {
    let mut table = table::new();
    table.set_header([String::new()].into_iter().chain(rows.iter().map(Row::name)));
    let items = rows.first().map(|row| row.may.as_slice()).unwrap_or_default();
    for (place, Cell { item, .. }) in items.iter().enumerate() {
        table.add_row(
            [item.clone()].into_iter().chain(rows.iter().map(|row| row.may[place].written())),
        );
    }
    // A word that is broken is hard to find.
    let widths = [item_width(rows)].into_iter().chain(rows.iter().map(word_width));
    for (column, width) in table.column_iter_mut().zip(widths) {
        let width = u16::try_from(width).unwrap_or(u16::MAX);
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
    }
    table
}

/// How many columns of text separate one cell from the next.
const PADDING: usize = 3;

/// How wide the names of the items are.
fn item_width(rows: &[Row]) -> usize {
    let items = rows.first().map(|row| row.may.as_slice()).unwrap_or_default();
    items.iter().map(|cell| cell.item.chars().count()).max().unwrap_or(0) + PADDING
}

/// How wide a caller must be, so that no word is broken.
fn word_width(row: &Row) -> usize {
    let texts = [row.name()].into_iter().chain(row.may.iter().map(Cell::written));
    let longest =
        |text: String| text.split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0);
    texts.map(longest).max().unwrap_or(0) + PADDING
}

/// How many of these callers fit beside the items without a word being broken; at least one.
fn fitting(rows: &[Row]) -> usize {
    let mut left = usize::from(table::columns()).saturating_sub(item_width(rows));
    let fits = rows.iter().take_while(|row| {
        let width = word_width(row);
        let fits = width <= left;
        left = left.saturating_sub(width);
        fits
    });
    fits.count().max(1)
}
