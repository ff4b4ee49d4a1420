//! PostgreSQL of a tool service.

use drawbridge_invoices::{DatabaseReport, StoreError};
use drawbridge_runtime::error_chain;
use secrecy::SecretString;

use super::check::{Check, Finding};

/// The oldest PostgreSQL whose schema features the migrations use.
const MAJOR_MIN: u32 = 14;

/// The check of the database of invoices.
pub(super) fn check(url: SecretString) -> Check {
    Check::new("database", "invoices", async move { inspect(&url).await })
}

async fn inspect(url: &SecretString) -> Vec<Finding> {
    let report = match drawbridge_invoices::inspect_database(url).await {
        Ok(report) => report,
        Err(error) => return vec![judge_error(&error)],
    };
    judge(&report)
}

fn judge_error(error: &StoreError) -> Finding {
    let text = error_chain(error);
    if text.contains("the database URL") {
        return Finding::failed(text, "correct --database-url");
    }
    if text.contains("password") || text.contains("authentication") || text.contains("role") {
        return Finding::failed(
            format!("it refuses the user: {text}"),
            "correct user and password of --database-url; without a user the check asks only \
             whether the server answers",
        );
    }
    Finding::failed(
        format!("it cannot be reached: {text}"),
        "see whether PostgreSQL runs, and that the firewall, listen_addresses and pg_hba.conf let \
         the tool service reach it",
    )
}

fn judge(report: &DatabaseReport) -> Vec<Finding> {
    const MIGRATE: &str = "run `drawbridge-invoices migrate` (docs/reference/services/invoices.md)";
    match report {
        DatabaseReport::Embedded => {
            vec![Finding::ok("SQLite, which the service migrates itself")]
        }
        DatabaseReport::Answers => {
            vec![Finding::ok("it answers; give a user in --database-url to check its schema")]
        }
        DatabaseReport::Connected { version, schema, required_schema } => {
            let major = version.split('.').next();
            let major: Option<u32> = major.and_then(|major| major.trim().parse().ok());
            let version = match major {
                Some(major) if major < MAJOR_MIN => Finding::failed(
                    format!("its version is {version}"),
                    format!("upgrade PostgreSQL to {MAJOR_MIN} or newer"),
                ),
                _ => Finding::ok(format!("version {version}")),
            };
            let schema = match schema {
                None => Finding::failed("the schema of invoices is missing", MIGRATE),
                Some(found) if found < required_schema => Finding::failed(
                    format!("its schema has version {found}; this release needs {required_schema}"),
                    MIGRATE,
                ),
                Some(found) => Finding::ok(format!("schema version {found}")),
            };
            vec![version, schema]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::check::Level, *};

    #[test]
    fn an_old_database_and_one_without_a_sufficient_schema_are_found() {
        use Level::{Failed, Ok};
        let levels = |version: &str, schema| {
            let version = version.to_owned();
            let report = DatabaseReport::Connected { version, schema, required_schema: 2 };
            judge(&report).iter().map(|finding| finding.level).collect::<Vec<_>>()
        };
        assert_eq!(levels("15.3 (Debian)", Some(2)), [Ok, Ok]);
        assert_eq!(levels("12.1", Some(2)), [Failed, Ok]);
        assert_eq!(levels("17.0", Some(1)), [Ok, Failed]);
        assert_eq!(levels("17.0", None), [Ok, Failed]);
        assert_eq!(levels("17.0", Some(3)), [Ok, Ok], "services run beside a newer schema");
    }
}
