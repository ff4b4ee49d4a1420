use sqlx::{AssertSqlSafe, ColumnIndex, Decode, FromRow, Row, Type};

use super::{
    Access, Scope, StoreError, StoreOperation, StoredInvoice, Transaction,
    row::{FROM, SUMMARY},
    transaction::with_connection,
};
use crate::document::Document;

/// Finds one invoice with its extracted data.
pub(crate) struct Find<'a> {
    pub(crate) id: &'a str,
    pub(crate) access: Access,
}

impl StoreOperation for Find<'_> {
    const NAME: &'static str = "get";

    /// The invoice, and its encoded `ExtractResult` message.
    type Output = Option<(StoredInvoice, Vec<u8>)>;

    fn access(&self) -> Access {
        self.access
    }

    fn bound_texts(&self) -> Vec<&str> {
        vec![self.id]
    }

    async fn run(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
    ) -> Result<Self::Output, StoreError> {
        let select = format!(
            "SELECT {SUMMARY}, extracted {FROM} WHERE {} AND id = $4",
            scope.visibility_condition()
        );
        let found: Option<InvoiceRow> = with_connection!(transaction, connection => {
            sqlx::query_as(AssertSqlSafe(select))
                .bind(&scope.owner)
                .bind(&scope.tenant)
                .bind(scope.whole_tenant)
                .bind(self.id)
                .fetch_optional(connection)
                .await?
        });
        Ok(found.map(|row| (row.stored, row.extracted)))
    }
}

struct InvoiceRow {
    stored: StoredInvoice,
    extracted: Vec<u8>,
}

impl<'r, R: Row> FromRow<'r, R> for InvoiceRow
where
    &'static str: ColumnIndex<R>,
    StoredInvoice: FromRow<'r, R>,
    Vec<u8>: Decode<'r, R::Database> + Type<R::Database>,
{
    fn from_row(row: &'r R) -> Result<Self, sqlx::Error> {
        Ok(Self { stored: StoredInvoice::from_row(row)?, extracted: row.try_get("extracted")? })
    }
}

/// Finds the original document of an invoice.
pub(crate) struct FindDocument<'a> {
    pub(crate) id: &'a str,
}

impl StoreOperation for FindDocument<'_> {
    const NAME: &'static str = "get document";

    type Output = Option<Document>;

    fn access(&self) -> Access {
        Access::Read
    }

    fn bound_texts(&self) -> Vec<&str> {
        vec![self.id]
    }

    async fn run(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
    ) -> Result<Self::Output, StoreError> {
        let select = format!(
            "SELECT media_type, document FROM invoices WHERE {} AND id = $4",
            scope.visibility_condition()
        );
        let found: Option<(String, Vec<u8>)> = with_connection!(transaction, connection => {
            sqlx::query_as(AssertSqlSafe(select))
                .bind(&scope.owner)
                .bind(&scope.tenant)
                .bind(scope.whole_tenant)
                .bind(self.id)
                .fetch_optional(connection)
                .await?
        });
        Ok(found.map(|(media_type, bytes)| Document { media_type, bytes }))
    }
}
