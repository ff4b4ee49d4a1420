use std::collections::BTreeSet;

use anyhow::Context as _;
use comfy_table::{ColumnConstraint, Table, Width};
use drawbridge_auth::policy::{DecisionOutcome, PolicyWorkspace};
use drawbridge_config::policy::PrincipalSpec;
use drawbridge_proto::auth::v1::{CatalogItem, operation::Kind};
use serde::Serialize;

use super::{CommonArgs, Verdict, explain::no_such_item, open_workspace, print_json};
use crate::table;

/// Arguments of `policy who-can`.
#[derive(Clone, Debug, clap::Args)]
pub struct WhoCanArgs {
    /// Tools, resources and prompts. Absent: the whole catalog.
    items: Vec<String>,

    /// The callers' tenant. Absent: the first one that the policies name.
    #[arg(long)]
    tenant: Option<String>,

    #[command(flatten)]
    common: CommonArgs,
}

/// A principal, with its permissions.
#[derive(Clone, Debug, Serialize)]
struct Row {
    /// `Group`, `Role`, `User`, `Workload`, or `anyone`.
    kind: String,
    id: String,
    #[serde(rename = "may")]
    permissions: Vec<Cell>,
}

/// The permission of a principal on an item, as a user and as a workload.
#[derive(Clone, Debug, Serialize)]
struct Cell {
    item: String,
    user: Option<Permission>,
    workload: Option<Permission>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Permission {
    No,
    Some,
    Yes,
    SomeWithMfa,
    WithMfa,
}

impl Permission {
    fn describe(self) -> &'static str {
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
    let workspace = open_workspace(&args.common.policies)?;
    let mut items: Vec<_> = workspace.policies().items().collect();
    if !args.items.is_empty() {
        let found = args
            .items
            .iter()
            .map(|name| workspace.item(name).with_context(|| no_such_item(&workspace, name)));
        items = found.collect::<Result<_, _>>()?;
    }
    items.sort_by(|one, other| one.1.name.cmp(&other.1.name));
    let named_principals = workspace.named();
    let tenant = args.tenant.clone().or_else(|| {
        let first = named_principals.iter().find(|(kind, _)| kind == "Tenant");
        first.map(|(_, id)| id.clone())
    });
    let rows: Vec<_> = rows(&named_principals)
        .into_iter()
        .map(|(kind, id)| {
            let permissions =
                items.iter().map(|item| cell(&workspace, &kind, &id, tenant.as_deref(), item));
            Row { permissions: permissions.collect(), kind, id }
        })
        .collect();
    if args.common.json {
        print_json(&rows)?;
    } else {
        print(&rows, tenant.as_deref());
    }
    Ok(Verdict::Good)
}

fn rows(named_principals: &BTreeSet<(String, String)>) -> Vec<(String, String)> {
    let anyone = [("anyone".to_owned(), String::new())];
    anyone
        .into_iter()
        .chain(named_principals.iter().filter(|(kind, _)| kind != "Tenant").cloned())
        .collect()
}

fn cell(
    workspace: &PolicyWorkspace,
    kind: &str,
    id: &str,
    tenant: Option<&str>,
    item: &(Kind, CatalogItem),
) -> Cell {
    let who = |workload, mfa| {
        let mut who = PrincipalSpec { workload, mfa, ..PrincipalSpec::default() };
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
    let permission = |workload| {
        let [without, with] =
            [false, true].map(|mfa| workspace.decide(&who(workload, mfa), item, None).outcome);
        match (without, with) {
            (DecisionOutcome::Allow, _) => Permission::Yes,
            (_, DecisionOutcome::Allow) => Permission::WithMfa,
            (DecisionOutcome::Conditional, _) => Permission::Some,
            (_, DecisionOutcome::Conditional) => Permission::SomeWithMfa,
            _ => Permission::No,
        }
    };
    Cell {
        item: item.1.name.clone(),
        user: (kind != "Workload").then(|| permission(false)),
        workload: (kind != "User").then(|| permission(true)),
    }
}

impl Row {
    fn name(&self) -> String {
        if self.id.is_empty() { self.kind.clone() } else { format!("{} {}", self.kind, self.id) }
    }
}

impl Cell {
    fn describe(&self) -> String {
        match (self.user, self.workload) {
            (Some(user), Some(workload)) if user != workload => match user {
                Permission::No => format!("workloads: {}", workload.describe()),
                _ => format!("{}; workloads: {}", user.describe(), workload.describe()),
            },
            (Some(permission), _) | (None, Some(permission)) => permission.describe().to_owned(),
            (None, None) => String::new(),
        }
    }
}

/// One row per item and one column per principal, split into tables that fit the width.
fn print(rows: &[Row], tenant: Option<&str>) {
    let mut remaining = rows;
    while !remaining.is_empty() {
        let (shown, rest) = remaining.split_at(fitting(remaining));
        anstream::println!("{}", table(shown));
        remaining = rest;
    }
    let tenant = tenant
        .map_or_else(|| "without a tenant".to_owned(), |tenant| format!("of the tenant {tenant}"));
    anstream::println!(
        "For callers {tenant}, without scopes or an IP address. With mfa: after a second factor."
    );
}

fn table(rows: &[Row]) -> Table {
    let mut table = table::new();
    table.set_header([String::new()].into_iter().chain(rows.iter().map(Row::name)));
    let items = rows.first().map(|row| row.permissions.as_slice()).unwrap_or_default();
    for (place, Cell { item, .. }) in items.iter().enumerate() {
        table.add_row(
            [item.clone()]
                .into_iter()
                .chain(rows.iter().map(|row| row.permissions[place].describe())),
        );
    }
    // Words stay unbroken, so that they can be searched for.
    let widths = [item_width(rows)].into_iter().chain(rows.iter().map(word_width));
    for (column, width) in table.column_iter_mut().zip(widths) {
        let width = u16::try_from(width).unwrap_or(u16::MAX);
        column.set_constraint(ColumnConstraint::LowerBoundary(Width::Fixed(width)));
    }
    table
}

/// Padding and border of a cell, in columns of text.
const PADDING: usize = 3;

/// The width of the item column.
fn item_width(rows: &[Row]) -> usize {
    let items = rows.first().map(|row| row.permissions.as_slice()).unwrap_or_default();
    items.iter().map(|cell| cell.item.chars().count()).max().unwrap_or(0) + PADDING
}

/// The width of a principal's column that breaks no word.
fn word_width(row: &Row) -> usize {
    let texts = [row.name()].into_iter().chain(row.permissions.iter().map(Cell::describe));
    let longest =
        |text: String| text.split_whitespace().map(|word| word.chars().count()).max().unwrap_or(0);
    texts.map(longest).max().unwrap_or(0) + PADDING
}

/// The number of principals that fit next to the items without breaking words; at least one.
fn fitting(rows: &[Row]) -> usize {
    let mut remaining = usize::from(table::columns()).saturating_sub(item_width(rows));
    let fits = rows.iter().take_while(|row| {
        let width = word_width(row);
        let fits = width <= remaining;
        remaining = remaining.saturating_sub(width);
        fits
    });
    fits.count().max(1)
}
