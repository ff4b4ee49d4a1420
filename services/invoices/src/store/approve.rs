use sqlx::AssertSqlSafe;

use super::{
    Access, Scope, StoreError, Stored, Transaction, Work,
    row::{FROM, SUMMARY},
    transaction::in_either,
};

/// Approves an invoice in the caller's name. The first approval stays.
pub(crate) struct Approve<'a> {
    pub(crate) id: &'a str,
    /// Whether a person was asked.
    pub(crate) confirmed: bool,
}

impl Work for Approve<'_> {
    const NAME: &'static str = "approve";

    /// The invoice, and whether it was approved by this.
    type Done = Option<(Stored, bool)>;

    fn access(&self) -> Access {
        Access::Approve
    }

    fn texts(&self) -> Vec<&str> {
        vec![self.id]
    }

    async fn run(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
    ) -> Result<Self::Done, StoreError> {
        let visible = scope.visible();
        let insert = format!(
            "INSERT INTO approvals (invoice_id, approved_by, confirmed) \
             SELECT id, $1, $4 FROM invoices WHERE {visible} AND id = $5 ON CONFLICT (invoice_id) DO NOTHING"
        );
        let select = format!("SELECT {SUMMARY} {FROM} WHERE {visible} AND id = $4");
        let made = in_either!(transaction, connection => {
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
        let stored: Option<Stored> = in_either!(transaction, connection => {
            sqlx::query_as(AssertSqlSafe(select))
                .bind(&scope.owner)
                .bind(&scope.tenant)
                .bind(scope.whole_tenant)
                .bind(self.id)
                .fetch_optional(connection)
                .await?
        });
        Ok(stored.map(|stored| (stored, made)))
    }
}
