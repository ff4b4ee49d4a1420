//! What errors of PostgreSQL mean.

use sqlx::PgPool;

/// `undefined_table`, `undefined_object` or `insufficient_privilege`: the errors of a user without
/// roles.
pub(super) fn is_missing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    matches!(code.as_deref(), Some("42P01" | "42704" | "42501"))
}

/// Whether an error means that the user was revoked or the connection broke.
pub(super) async fn is_user_lost(error: &sqlx::Error, pool: &PgPool) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolClosed => true,
        sqlx::Error::Database(inner) => match inner.code().as_deref() {
            // `invalid_authorization_specification`, `connection_exception`, and administrative
            // shutdown below.
            Some(code) if code.starts_with("28") || code.starts_with("08") => true,
            Some("57P01" | "57P02") => true,
            // A dropped user retains the connection but loses the roles.
            _ if is_missing(error) => {
                sqlx::query("SELECT session_user::text").execute(pool).await.is_err()
            }
            _ => false,
        },
        _ => false,
    }
}
