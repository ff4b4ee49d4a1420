use drawbridge_proto::invoices::v1::{InvoiceStatus, SearchRequest};
use sqlx::AssertSqlSafe;

use super::{
    Access, Scope, StoreError, Stored, Transaction, Work,
    columns::lower,
    row::{FROM, SUMMARY},
    transaction::in_either,
};
use crate::{decimal, error::InvoiceError};

const WHERE: &str = "AND ($4 IS NULL OR supplier_text LIKE $4 ESCAPE '\\') \
     AND ($5 IS NULL OR number = $5) \
     AND ($6 IS NULL OR issue_date >= $6) \
     AND ($7 IS NULL OR (issue_date <> '' AND issue_date <= $7)) \
     AND ($8 IS NULL OR payable_order >= $8) \
     AND ($9 IS NULL OR (payable_order <> '' AND payable_order <= $9)) \
     AND ($10 IS NULL OR currency = $10) \
     AND ($11 IS NULL OR (approved_by IS NOT NULL) = $11) \
     AND ($12 IS NULL OR full_text LIKE $12 ESCAPE '\\') \
     AND ($13 IS NULL OR id < $13) \
     ORDER BY id DESC LIMIT $14";

/// The longest text that is looked for, in bytes. A database compares it with each place of each text.
const TEXT_BYTES_MAX: usize = 500;

/// Looks for invoices, newest first.
#[derive(Debug, Default)]
pub(crate) struct Search {
    supplier: Option<String>,
    number: Option<String>,
    issued_from: Option<String>,
    issued_to: Option<String>,
    amount_min: Option<String>,
    amount_max: Option<String>,
    currency: Option<String>,
    approved: Option<bool>,
    text: Option<String>,
    /// The last of the page before.
    before: Option<String>,
    rows_max: i64,
}

impl Search {
    /// What is asked for, after the invoice `before`. An empty text asks for nothing.
    ///
    /// # Errors
    /// When an amount is none, or a text is too long or contains NUL.
    pub(crate) fn new(
        request: &SearchRequest,
        before: Option<String>,
        rows_max: u32,
    ) -> Result<Self, InvoiceError> {
        let given = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        for (field, text) in [
            ("supplier", &request.supplier),
            ("number", &request.number),
            ("issued_from", &request.issued_from),
            ("issued_to", &request.issued_to),
            ("currency", &request.currency),
            ("text", &request.text),
        ] {
            check(field, text.as_deref().unwrap_or_default())?;
        }
        let amount = |field: &'static str, text: &Option<String>| {
            let problem = "must be a decimal with up to 14 digits before the point and 10 after it";
            let order = |text: &String| decimal::parse(text).map(decimal::order);
            let order = |text| order(text).ok_or(InvoiceError::Argument { field, problem });
            text.as_ref().map(order).transpose()
        };
        Ok(Self {
            supplier: given(&request.supplier).as_deref().map(contains),
            number: given(&request.number).map(|number| number.trim().to_owned()),
            issued_from: given(&request.issued_from),
            issued_to: given(&request.issued_to),
            amount_min: amount("amount_min", &request.amount_min)?,
            amount_max: amount("amount_max", &request.amount_max)?,
            currency: given(&request.currency),
            approved: match request.status() {
                InvoiceStatus::Unspecified => None,
                InvoiceStatus::Open => Some(false),
                InvoiceStatus::Approved => Some(true),
            },
            text: given(&request.text).as_deref().map(contains),
            before,
            rows_max: rows_max.into(),
        })
    }
}

impl Work for Search {
    const NAME: &'static str = "search";

    type Done = Vec<Stored>;

    fn access(&self) -> Access {
        Access::Read
    }

    fn texts(&self) -> Vec<&str> {
        let texts = [
            &self.supplier,
            &self.number,
            &self.issued_from,
            &self.issued_to,
            &self.amount_min,
            &self.amount_max,
            &self.currency,
            &self.text,
            &self.before,
        ];
        texts.into_iter().filter_map(|text| text.as_deref()).collect()
    }

    async fn run(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
    ) -> Result<Self::Done, StoreError> {
        let select = format!("SELECT {SUMMARY} {FROM} WHERE {} {WHERE}", scope.visible());
        Ok(in_either!(transaction, connection => {
            sqlx::query_as(AssertSqlSafe(select))
                .bind(&scope.owner)
                .bind(&scope.tenant)
                .bind(scope.whole_tenant)
                .bind(&self.supplier)
                .bind(&self.number)
                .bind(&self.issued_from)
                .bind(&self.issued_to)
                .bind(&self.amount_min)
                .bind(&self.amount_max)
                .bind(&self.currency)
                .bind(self.approved)
                .bind(&self.text)
                .bind(&self.before)
                .bind(self.rows_max)
                .fetch_all(connection)
                .await?
        }))
    }
}

fn check(field: &'static str, text: &str) -> Result<(), InvoiceError> {
    let problem = match text {
        text if text.contains('\0') => "must not contain NUL",
        text if text.len() > TEXT_BYTES_MAX => "must have at most 500 bytes",
        _ => return Ok(()),
    };
    Err(InvoiceError::Argument { field, problem })
}

/// The pattern of what contains a text, which is nothing but itself in it.
fn contains(text: &str) -> String {
    let text = lower(text).replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{text}%")
}
