use drawbridge_proto::invoices::v1::{InvoiceStatus, SearchRequest};
use sqlx::AssertSqlSafe;

use super::{
    Access, Scope, StoreError, StoreOperation, StoredInvoice, Transaction,
    columns::normalize,
    row::{FROM, SUMMARY},
    transaction::with_connection,
};
use crate::decimal;

const WHERE: &str = "AND ($4 IS NULL OR supplier_text LIKE $4 ESCAPE '\\') AND ($5 IS NULL OR \
     number = $5) AND ($6 IS NULL OR issue_date >= $6) AND ($7 IS NULL OR (issue_date <> '' AND \
     issue_date <= $7)) AND ($8 IS NULL OR payable_order >= $8) AND ($9 IS NULL OR (payable_order \
     <> '' AND payable_order <= $9)) AND ($10 IS NULL OR currency = $10) AND ($11 IS NULL OR \
     (approved_by IS NOT NULL) = $11) AND ($12 IS NULL OR full_text LIKE $12 ESCAPE '\\') AND ($13 \
     IS NULL OR id < $13) ORDER BY id DESC LIMIT $14";

/// The longest search text, in bytes. The database compares it at each position of each text.
const TEXT_BYTES_MAX: usize = 500;

/// A filter of a search is invalid.
#[derive(Debug, thiserror::Error)]
#[error("`{field}`: {problem}")]
pub(crate) struct FilterError {
    /// The request's field.
    pub(crate) field: &'static str,
    pub(crate) problem: &'static str,
}

/// Searches invoices, newest first.
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
    /// The id of the last invoice of the previous page.
    before: Option<String>,
    rows_max: i64,
}

impl Search {
    /// A search that starts after the invoice `before`. An empty text is no filter.
    ///
    /// # Errors
    /// When an amount is invalid, or a text is too long or contains NUL.
    pub(crate) fn new(
        request: &SearchRequest,
        before: Option<String>,
        rows_max: u32,
    ) -> Result<Self, FilterError> {
        let non_blank = |text: &Option<String>| text.clone().filter(|text| !text.trim().is_empty());
        for (field, text) in [
            ("supplier", &request.supplier),
            ("number", &request.number),
            ("issued_from", &request.issued_from),
            ("issued_to", &request.issued_to),
            ("currency", &request.currency),
            ("text", &request.text),
        ] {
            check_text(field, text.as_deref().unwrap_or_default())?;
        }
        let amount = |field: &'static str, text: &Option<String>| {
            let problem = "must be a decimal with up to 14 digits before the point and 10 after it";
            let sort_key = |text: &String| decimal::parse(text).map(decimal::sort_key);
            let sort_key = |text| sort_key(text).ok_or(FilterError { field, problem });
            text.as_ref().map(sort_key).transpose()
        };
        Ok(Self {
            supplier: non_blank(&request.supplier).as_deref().map(contains_pattern),
            number: non_blank(&request.number).map(|number| number.trim().to_owned()),
            issued_from: non_blank(&request.issued_from),
            issued_to: non_blank(&request.issued_to),
            amount_min: amount("amount_min", &request.amount_min)?,
            amount_max: amount("amount_max", &request.amount_max)?,
            currency: non_blank(&request.currency),
            approved: match request.status() {
                InvoiceStatus::Unspecified => None,
                InvoiceStatus::Open => Some(false),
                InvoiceStatus::Approved => Some(true),
            },
            text: non_blank(&request.text).as_deref().map(contains_pattern),
            before,
            rows_max: rows_max.into(),
        })
    }
}

impl StoreOperation for Search {
    const NAME: &'static str = "search";

    type Output = Vec<StoredInvoice>;

    fn access(&self) -> Access {
        Access::Read
    }

    fn bound_texts(&self) -> Vec<&str> {
        let bound_texts = [
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
        bound_texts.into_iter().filter_map(|text| text.as_deref()).collect()
    }

    async fn run(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
    ) -> Result<Self::Output, StoreError> {
        let select =
            format!("SELECT {SUMMARY} {FROM} WHERE {} {WHERE}", scope.visibility_condition());
        Ok(with_connection!(transaction, connection => {
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

fn check_text(field: &'static str, text: &str) -> Result<(), FilterError> {
    let problem = match text {
        text if text.contains('\0') => "must not contain NUL",
        text if text.len() > TEXT_BYTES_MAX => "must have at most 500 bytes",
        _ => return Ok(()),
    };
    Err(FilterError { field, problem })
}

/// The LIKE pattern for texts that contain this one, with its wildcards escaped.
fn contains_pattern(text: &str) -> String {
    let text = normalize(text).replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{text}%")
}
