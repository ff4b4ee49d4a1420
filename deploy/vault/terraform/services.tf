# Logins and permissions of the tool services.

locals {
  # Permissions of every session on itself.
  session_rules = [
    ["auth/token/lookup-self", "read"],
    ["auth/token/renew-self", "update"],
    ["auth/token/revoke-self", "update"],
    ["sys/leases/renew", "update"],
  ]

  # Permissions of a service on behalf of a caller.
  rules = {
    for name, service in var.services : name => concat(
      local.session_rules,
      [["${var.mounts.kv}/data/${local.tenant}/${name}/*", "read"]],
      [for role in service.database_roles : ["${var.mounts.database}/creds/${role.name}", "read"] if !role.own],
      [for role in service.certificate_roles : ["${var.mounts.pki}/issue/${role.name}", "update"]],
    )
  }

  # Permissions on its own behalf. The token of an agent creates a child per session.
  own_rules = {
    for name, service in local.own : name => concat(
      local.session_rules,
      [["auth/token/create", "update"]],
      [for role in service.database_roles : ["${var.mounts.database}/creds/${role.name}", "read"] if role.own],
    )
  }
}

resource "vault_policy" "service" {
  for_each = local.rules
  name     = "drawbridge-${each.key}"
  policy   = join("", [for rule in each.value : "path \"${rule[0]}\" { capabilities = [\"${rule[1]}\"] }\n"])
}

resource "vault_policy" "own" {
  for_each = local.own_rules
  name     = "drawbridge-${each.key}-own"
  policy   = join("", [for rule in each.value : "path \"${rule[0]}\" { capabilities = [\"${rule[1]}\"] }\n"])
}

# Login with the transaction token of a call.
resource "vault_jwt_auth_backend_role" "service" {
  for_each  = var.services
  backend   = vault_jwt_auth_backend.drawbridge.path
  role_name = each.key
  role_type = "jwt"
  # Issuer, subject and tenant identify the user in Vault uniquely.
  user_claim              = "/tctx/principal"
  user_claim_json_pointer = true
  bound_audiences         = [each.key]
  bound_claims_type       = "glob"
  bound_claims            = { "/tctx/rpc" = coalesce(each.value.rpcs, "drawbridge.${each.key}.*") }
  # A comma is part of the value.
  disable_bound_claims_parsing = true
  claim_mappings = {
    "sub"          = "subject"
    "txn"          = "request_id"
    "/tctx/iss"    = "issuer"
    "/tctx/tenant" = "tenant"
    "/act/sub"     = "actor"
    "/act/iss"     = "actor_issuer"
  }
  # Vault's default is a minute, as long as a token lives.
  clock_skew_leeway       = 5
  expiration_leeway       = 5
  not_before_leeway       = 5
  token_policies          = [vault_policy.service[each.key].name]
  token_no_default_policy = true
  token_ttl               = each.value.ttl_seconds
  token_max_ttl           = each.value.max_ttl_seconds
}

# Login with the service account of the service's pod.
resource "vault_auth_backend" "kubernetes" {
  count = length(local.kubernetes) == 0 ? 0 : 1
  type  = "kubernetes"
  path  = var.mounts.kubernetes
}

resource "vault_kubernetes_auth_backend_config" "kubernetes" {
  count                = var.kubernetes == null ? 0 : length(vault_auth_backend.kubernetes)
  backend              = vault_auth_backend.kubernetes[0].path
  kubernetes_host      = trimsuffix(var.kubernetes.host, "/")
  kubernetes_ca_cert   = var.kubernetes.ca_certificate
  disable_local_ca_jwt = var.kubernetes.ca_certificate != null
}

resource "vault_kubernetes_auth_backend_role" "own" {
  for_each                         = local.kubernetes
  backend                          = vault_auth_backend.kubernetes[0].path
  role_name                        = each.key
  bound_service_account_names      = [each.value.kubernetes.service_account]
  bound_service_account_namespaces = [each.value.kubernetes.namespace]
  audience                         = each.value.kubernetes.audience
  token_policies                   = [vault_policy.own[each.key].name]
  token_no_default_policy          = true
  token_ttl                        = each.value.ttl_seconds
  token_max_ttl                    = each.value.max_ttl_seconds
}

# Login with a role id and a secret id.
resource "vault_auth_backend" "approle" {
  count = length(local.approle) == 0 ? 0 : 1
  type  = "approle"
  path  = var.mounts.approle
}

resource "vault_approle_auth_backend_role" "own" {
  for_each                = local.approle
  backend                 = vault_auth_backend.approle[0].path
  role_name               = each.key
  bind_secret_id          = true
  secret_id_ttl           = each.value.approle.secret_id_ttl_seconds
  token_policies          = [vault_policy.own[each.key].name]
  token_no_default_policy = true
  token_ttl               = each.value.ttl_seconds
  token_max_ttl           = each.value.max_ttl_seconds
}
