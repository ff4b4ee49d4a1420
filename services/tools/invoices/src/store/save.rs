use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::{
    Access, Columns, Scope, StoreError, StoreOperation, StoredInvoice, Transaction,
    row::{FROM, SUMMARY},
    transaction::with_connection,
};
use crate::document::Document;

const INSERT: &str = "INSERT INTO invoices (id, owner, tenant, shared, kind, seller_key, number, \
    issue_date, due_date, seller_name, seller_vat_id, buyer_name, currency, gross_amount, \
    payable_amount, payable_order, supplier_text, full_text, media_type, document, digest, \
    extracted) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
    $18, $19, $20, $21, $22) ON CONFLICT (owner, seller_key, number, issue_date) DO NOTHING";
const KEY: &str = "SELECT id, digest, shared FROM invoices \
     WHERE owner = $1 AND seller_key = $2 AND number = $3 AND issue_date = $4";
const SHARE: &str = "UPDATE invoices SET shared = $1 WHERE id = $2 AND owner = $3";

/// Stores an invoice. Owner, supplier, number and date are unique.
pub(crate) struct Save<'a> {
    pub(crate) document: &'a Document,
    pub(crate) columns: &'a Columns,
    pub(crate) shared: bool,
}

impl StoreOperation for Save<'_> {
    const NAME: &'static str = "save";

    /// The invoice, and whether it is new.
    type Output = (StoredInvoice, bool);

    fn access(&self) -> Access {
        Access::Write
    }

    fn bound_texts(&self) -> Vec<&str> {
        let mut bound_texts = self.columns.bound_texts();
        bound_texts.push(&self.document.media_type);
        bound_texts
    }

    async fn run(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
    ) -> Result<Self::Output, StoreError> {
        let Self { document, columns, shared } = self;
        let created = with_connection!(transaction, connection => {
            sqlx::query(INSERT)
                .bind(Uuid::now_v7().to_string())
                .bind(&scope.owner)
                .bind(&scope.tenant)
                .bind(*shared)
                .bind(columns.kind)
                .bind(&columns.seller_key)
                .bind(&columns.number)
                .bind(&columns.issue_date)
                .bind(&columns.due_date)
                .bind(&columns.seller_name)
                .bind(&columns.seller_vat_id)
                .bind(&columns.buyer_name)
                .bind(&columns.currency)
                .bind(&columns.gross_amount)
                .bind(&columns.payable_amount)
                .bind(&columns.payable_order)
                .bind(&columns.supplier_text)
                .bind(&columns.full_text)
                .bind(&document.media_type)
                .bind(&document.bytes)
                .bind(&columns.digest)
                .bind(&columns.extracted)
                .execute(connection)
                .await?
                .rows_affected()
                == 1
        });
        let found: (String, String, bool) = with_connection!(transaction, connection => {
            sqlx::query_as(KEY)
                .bind(&scope.owner)
                .bind(&columns.seller_key)
                .bind(&columns.number)
                .bind(&columns.issue_date)
                .fetch_one(connection)
                .await?
        });
        let (id, digest, is_shared) = found;
        if digest != columns.digest {
            return Err(StoreError::OtherDocument { id });
        }
        if is_shared != *shared {
            with_connection!(transaction, connection => {
                sqlx::query(SHARE)
                    .bind(*shared)
                    .bind(&id)
                    .bind(&scope.owner)
                    .execute(connection)
                    .await?;
            });
        }
        let select = format!("SELECT {SUMMARY} {FROM} WHERE id = $1");
        let stored = with_connection!(transaction, connection => {
            sqlx::query_as(AssertSqlSafe(select)).bind(&id).fetch_one(connection).await?
        });
        Ok((stored, created))
    }
}
