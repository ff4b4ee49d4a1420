use sqlx::AssertSqlSafe;

use super::{
    Access, Scope, StoreError, StoreOperation, StoredInvoice, Transaction,
    row::{FROM, SUMMARY},
    transaction::with_connection,
};

/// Approves an invoice on behalf of the caller. The first approval is permanent.
pub(crate) struct Approve<'a> {
    pub(crate) id: &'a str,
    /// Whether a person confirmed it.
    pub(crate) confirmed: bool,
}

impl StoreOperation for Approve<'_> {
    const NAME: &'static str = "approve";

    /// The invoice, and whether this operation approved it.
    type Output = Option<(StoredInvoice, bool)>;

    fn access(&self) -> Access {
        Access::Approve
    }

    fn bound_texts(&self) -> Vec<&str> {
        vec![self.id]
    }

    async fn run(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
    ) -> Result<Self::Output, StoreError> {
        let visible = scope.visibility_condition();
        let insert = format!(
            "INSERT INTO approvals (invoice_id, approved_by, confirmed) \
             SELECT id, $1, $4 FROM invoices WHERE {visible} AND id = $5 ON CONFLICT (invoice_id) \
             DO NOTHING"
        );
        let select = format!("SELECT {SUMMARY} {FROM} WHERE {visible} AND id = $4");
        let is_new = with_connection!(transaction, connection => {
            sqlx::query(AssertSqlSafe(insert))
                .bind(&scope.owner)
                .bind(&scope.tenant)
                .bind(scope.whole_tenant)
                .bind(self.confirmed)
                .bind(self.id)
                .execute(connection)
                .await?
                .rows_affected()
                == 1
        });
        let stored: Option<StoredInvoice> = with_connection!(transaction, connection => {
            sqlx::query_as(AssertSqlSafe(select))
                .bind(&scope.owner)
                .bind(&scope.tenant)
                .bind(scope.whole_tenant)
                .bind(self.id)
                .fetch_optional(connection)
                .await?
        });
        Ok(stored.map(|stored| (stored, is_new)))
    }
}
