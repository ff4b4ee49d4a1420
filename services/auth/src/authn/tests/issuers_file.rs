//! Mistakes of an issuers file.

use drawbridge_config::ConfigText;

use super::*;

#[test]
fn all_mistakes_of_an_issuers_file_are_reported_at_once_and_no_secret_is_read_by_a_check() {
    let signed = Signed::new();
    let toml = r#"
[[issuers]]
issuer = "https://a.example#b"
audience = "https://mcp.example/mcp"
tenants = ["acme", "*"]
claims.tenant_prefix = ""

[[issuers]]
issuer = "http://b.example"
algorithms = ["HS256"]
leeway_seconds = 3600

[[issuers]]
issuer = "https://c.example"
audiences = ["api://c", "/"]
introspection.url = "https://c.example/introspect"
introspection.client_id = "c"
introspection.client_secret_env = "NO_SUCH_VARIABLE"
introspection.limits.known_seconds = 0

[[issuers]]
issuer = "https://c.example"
jwks_url = "http://c.example/keys"
"#;
    let error = signed.issuers(toml).unwrap_err().to_string();
    let folder = signed.folder.path().display().to_string();
    insta::assert_snapshot!(error.replace(&folder, ""), @r#"
    /issuers.toml:3:10: an issuer must be a value of the claim `iss` without #
      |
    3 | issuer = "https://a.example#b"
      |          ^^^^^^^^^^^^^^^^^^^^^
    /issuers.toml:4:1: unknown field `audience`, expected one of `issuer`, `preset`, `audiences`, `tenants`, `algorithms`, `jwks_url`, `jwks_file`, `jwks_ca_file`, `jwks_token_file`, `claims`, `leeway_seconds`, `require_at_jwt`, `workloads`, `allow_private_addresses`, `introspection`
      |
    4 | audience = "https://mcp.example/mcp"
      | ^^^^^^^^
      = help: did you mean `audiences`?
    /issuers.toml:5:20: tenants must be names, or only "*" for any
      |
    5 | tenants = ["acme", "*"]
      |                    ^^^
    /issuers.toml:6:24: claims.tenant_prefix must not be empty: omit it for no prefix
      |
    6 | claims.tenant_prefix = ""
      |                        ^^
    /issuers.toml:9:10: http://b.example/ is not https; set allow_private_addresses to allow http
      |
    9 | issuer = "http://b.example"
      |          ^^^^^^^^^^^^^^^^^^
    /issuers.toml:10:15: unknown variant `HS256`, expected one of `ES256`, `ES384`, `EdDSA`, `PS256`, `PS384`, `PS512`, `RS256`, `RS384`, `RS512`
       |
    10 | algorithms = ["HS256"]
       |               ^^^^^^^
    /issuers.toml:11:18: must be from 0 to 300
       |
    11 | leeway_seconds = 3600
       |                  ^^^^
    /issuers.toml:15:25: audiences must not be empty: omit them for the edge's URLs
       |
    15 | audiences = ["api://c", "/"]
       |                         ^^^
    /issuers.toml:18:35: the environment variable NO_SUCH_VARIABLE is not set
       |
    18 | introspection.client_secret_env = "NO_SUCH_VARIABLE"
       |                                   ^^^^^^^^^^^^^^^^^^
    /issuers.toml:19:38: expected a whole number from 1, found integer `0`
       |
    19 | introspection.limits.known_seconds = 0
       |                                      ^
    /issuers.toml:22:10: the issuer https://c.example is configured twice
       |
    22 | issuer = "https://c.example"
       |          ^^^^^^^^^^^^^^^^^^^
    /issuers.toml:23:12: http://c.example/keys is not https; set allow_private_addresses to allow http
       |
    23 | jwks_url = "http://c.example/keys"
       |            ^^^^^^^^^^^^^^^^^^^^^^^
    "#);

    let toml = r#"[[issuers]]
issuer = "https://c.example"
introspection.url = "https://c.example/introspect"
introspection.client_id = "c"
introspection.client_secret_env = "NO_SUCH_VARIABLE"
"#;
    assert!(signed.issuers(toml).is_err());
    check_issuers(&ConfigText::new("issuers.toml", toml)).unwrap();
}
