# Configures Vault for tool services like `drawbridge vault bootstrap`: see docs/how-to/vault.md.

locals {
  tenant = "{{identity.entity.aliases.${vault_jwt_auth_backend.drawbridge.accessor}.metadata.tenant}}"

  database_roles = { for role in flatten(values(var.services)[*].database_roles) : role.name => role }
  certificate_roles = {
    for role in flatten(values(var.services)[*].certificate_roles) : role.name => role
  }

  # The services that act on their own behalf.
  own = {
    for name, service in var.services : name => service
    if service.kubernetes != null || service.approle != null || anytrue(service.database_roles[*].own)
  }
  kubernetes = { for name, service in var.services : name => service if service.kubernetes != null }
  approle    = { for name, service in var.services : name => service if service.approle != null }
}

resource "vault_audit" "drawbridge" {
  count   = var.audit_file == null ? 0 : 1
  type    = "file"
  path    = "drawbridge"
  options = { file_path = var.audit_file }
}

resource "vault_audit_request_header" "request_id" {
  name = "x-request-id"
  hmac = false
}

resource "vault_jwt_auth_backend" "drawbridge" {
  type               = "jwt"
  path               = var.mounts.auth
  jwks_url           = var.jwks_url
  bound_issuer       = var.auth_issuer
  jwt_supported_algs = ["EdDSA"]
}

resource "vault_mount" "kv" {
  type    = "kv"
  path    = var.mounts.kv
  options = { version = "2" }
}

# --- Database users -----------------------------------------------------------------------------

resource "vault_mount" "database" {
  count = var.database == null ? 0 : 1
  type  = "database"
  path  = var.mounts.database
}

resource "vault_database_secret_backend_connection" "postgres" {
  count         = var.database == null ? 0 : 1
  backend       = vault_mount.database[0].path
  name          = var.database.name
  plugin_name   = "postgresql-database-plugin"
  allowed_roles = sort(keys(local.database_roles))

  postgresql {
    connection_url = var.database.connection_url
    username       = var.database.username
    # The name contains a hash of the login, so that a schema can identify the user of a session.
    username_template   = "{{ printf \"v-%s-%s-%s\" (.DisplayName | sha256 | truncate 32) (random 8) (unix_time) }}"
    password_wo         = var.database_password
    password_wo_version = var.database_password_version
  }
}

resource "vault_database_secret_backend_role" "role" {
  for_each              = var.database == null ? {} : local.database_roles
  backend               = vault_mount.database[0].path
  name                  = each.key
  db_name               = vault_database_secret_backend_connection.postgres[0].name
  creation_statements   = each.value.creation_statements
  revocation_statements = each.value.revocation_statements
  default_ttl           = each.value.ttl_seconds
  max_ttl               = each.value.max_ttl_seconds
}

# --- Certificates -------------------------------------------------------------------------------

resource "vault_mount" "pki" {
  count = length(local.certificate_roles) == 0 ? 0 : 1
  type  = "pki"
  path  = var.mounts.pki
  # The engine limits the lifetime of the authority.
  max_lease_ttl_seconds = var.pki == null ? null : var.pki.ttl_seconds
}

resource "vault_pki_secret_backend_root_cert" "authority" {
  count       = var.pki == null ? 0 : length(vault_mount.pki)
  backend     = vault_mount.pki[0].path
  type        = "internal"
  common_name = var.pki.common_name
  ttl         = var.pki.ttl_seconds
  key_type    = "ec"
  key_bits    = 256
}

resource "vault_pki_secret_backend_role" "role" {
  for_each                    = local.certificate_roles
  backend                     = vault_mount.pki[0].path
  name                        = each.key
  allowed_domains             = [for domain in each.value.allowed_domains : replace(domain, "{{tenant}}", local.tenant)]
  allowed_domains_template    = true
  allow_bare_domains          = true
  allow_subdomains            = each.value.allow_subdomains
  allow_wildcard_certificates = false
  allow_localhost             = false
  allow_ip_sans               = false
  key_type                    = "ec"
  key_bits                    = 256
  ttl                         = each.value.ttl_seconds
  max_ttl                     = each.value.ttl_seconds
  # Certificates are revoked with the session.
  generate_lease = true
}
