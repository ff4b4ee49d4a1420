use sqlx::AssertSqlSafe;

use super::{
    Access, Scope, StoreError, Stored, Transaction, Work,
    row::{FROM, SUMMARY},
    transaction::in_either,
};
use crate::extract::Document;

/// One invoice with what was read from its document.
pub(crate) struct Find<'a> {
    pub(crate) id: &'a str,
    pub(crate) access: Access,
}

impl Work for Find<'_> {
    const NAME: &'static str = "get";

    /// The invoice, and the message `ExtractResult` that was read from its document.
    type Done = Option<(Stored, Vec<u8>)>;

    fn access(&self) -> Access {
        self.access
    }

    fn texts(&self) -> Vec<&str> {
        vec![self.id]
    }

    async fn run(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
    ) -> Result<Self::Done, StoreError> {
        let select =
            format!("SELECT {SUMMARY}, extracted {FROM} WHERE {} AND id = $4", scope.visible());
        let found: Option<Whole> = in_either!(transaction, connection => {
            sqlx::query_as(AssertSqlSafe(select))
                .bind(&scope.owner)
                .bind(&scope.tenant)
                .bind(scope.whole_tenant)
                .bind(self.id)
                .fetch_optional(connection)
                .await?
        });
        Ok(found.map(|whole| (whole.stored, whole.extracted)))
    }
}

#[derive(sqlx::FromRow)]
struct Whole {
    #[sqlx(flatten)]
    stored: Stored,
    extracted: Vec<u8>,
}

/// The document of an invoice, as it came.
pub(crate) struct FindDocument<'a> {
    pub(crate) id: &'a str,
}

impl Work for FindDocument<'_> {
    const NAME: &'static str = "get document";

    type Done = Option<Document>;

    fn access(&self) -> Access {
        Access::Read
    }

    fn texts(&self) -> Vec<&str> {
        vec![self.id]
    }

    async fn run(
        &self,
        transaction: &mut Transaction,
        scope: &Scope,
    ) -> Result<Self::Done, StoreError> {
        let select = format!(
            "SELECT media_type, document FROM invoices WHERE {} AND id = $4",
            scope.visible()
        );
        let found: Option<(String, Vec<u8>)> = in_either!(transaction, connection => {
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
