//! A transaction of either database. Their types differ, their SQL does not: see
//! [`with_connection`].

/// Evaluates an expression with the connection of either database.
macro_rules! with_connection {
    ($transaction:expr, $connection:ident => $work:expr) => {
        match $transaction {
            crate::store::transaction::Transaction::Sqlite(inner) => {
                let $connection = &mut **inner;
                $work
            }
            crate::store::transaction::Transaction::Postgres(inner) => {
                let $connection = &mut **inner;
                $work
            }
        }
    };
}
pub(super) use with_connection;

/// A transaction that is rolled back unless committed.
pub(crate) enum Transaction {
    Sqlite(sqlx::Transaction<'static, sqlx::Sqlite>),
    Postgres(sqlx::Transaction<'static, sqlx::Postgres>),
}

impl Transaction {
    pub(crate) async fn commit(self) -> Result<(), sqlx::Error> {
        match self {
            Self::Sqlite(transaction) => transaction.commit().await,
            Self::Postgres(transaction) => transaction.commit().await,
        }
    }
}
