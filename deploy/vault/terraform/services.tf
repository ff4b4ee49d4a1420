# How the tool services log in, and what they may do.

locals {
  # What every session may do with itself.
  session_rules = [
    ["auth/token/lookup-self", "read"],
    ["auth/token/renew-self", "update"],
    ["auth/token/revoke-self", "update"],
    ["sys/leases/renew", "update"],
  ]

  # What a service may do in a caller's name.
  rules = {
    for name, service in var.services : name => concat(
      local.session_rules,
      [["${var.mounts.kv}/data/${local.tenant}/${name}/*", "read"]],
      [for role in service.database_roles : ["${var.mounts.database}/creds/${role.name}", "read"] if !role.own],
      [for role in service.certificate_roles : ["${var.mounts.pki}/issue/${role.name}", "update"]],
    )
  }

  # What it may do in its own. A token that an agent keeps has a child for each session.
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

# By the transaction token of a call.
resource "vault_jwt_auth_backend_role" "service" {
  for_each  = var.services
  backend   = vault_jwt_auth_backend.drawbridge.path
  role_name = each.key
  role_type = "jwt"
  # Issuer, subject and tenant: nobody else becomes the same user of Vault.
  user_claim              = "/tctx/principal"
  user_claim_json_pointer = true
  bound_audiences         = [each.key]
  bound_claims_type       = "glob"
  bound_claims            = { "/tctx/rpc" = coalesce(each.value.rpcs, "drawbridge.${each.key}.*") }
  # A comma would be a part of it.
  disable_bound_claims_parsing = true
  claim_mappings = {
    "sub"          = "subject"
    "txn"          = "request_id"
    "/tctx/iss"    = "issuer"
    "/tctx/tenant" = "tenant"
    "/act/sub"     = "actor"
    "/act/iss"     = "actor_issuer"
  }
  # Vault's own default is a minute: as long as a token lives.
  clock_skew_leeway       = 5
  expiration_leeway       = 5
  not_before_leeway       = 5
  token_policies          = [vault_policy.service[each.key].name]
  token_no_default_policy = true
  token_ttl               = each.value.ttl_seconds
  token_max_ttl           = each.value.max_ttl_seconds
}

# By the service account of its pod.
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

# By a role id and a secret id.
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
