# The variables of ../setup.toml, with the same names: see docs/how-to/vault.md.

variable "jwks_url" {
  description = "The URL of auth's keys for transaction tokens, as Vault reaches it."
  type        = string
}

variable "auth_issuer" {
  description = "The iss of transaction tokens."
  type        = string
  default     = "drawbridge-auth"
}

variable "audit_file" {
  description = "The file of the audit device. Absent: audit is configured separately."
  type        = string
  default     = null
}

variable "database" {
  description = "The database in which Vault creates users; {{username}} and {{password}} in its URL are Vault's own."
  type = object({
    name           = optional(string, "postgres")
    connection_url = string
    username       = string
  })
  default = null
}

variable "database_password" {
  description = "The password of Vault's own user. It is not stored in the state."
  type        = string
  sensitive   = true
  ephemeral   = true
  default     = null
}

variable "database_password_version" {
  description = "Increase it when the password changes."
  type        = number
  default     = 1
}

variable "pki" {
  description = "The authority that issues certificates. Absent: its PKI engine is configured separately."
  type = object({
    common_name = string
    ttl_seconds = optional(number, 157680000)
  })
  default = null
}

variable "kubernetes" {
  description = "The Kubernetes cluster whose service accounts log in. Absent: its auth method is configured separately."
  type = object({
    host           = string
    ca_certificate = optional(string)
  })
  default = null
}

variable "services" {
  description = "The tool services by name: the audiences of their transaction tokens."
  type = map(object({
    rpcs            = optional(string)
    ttl_seconds     = optional(number, 300)
    max_ttl_seconds = optional(number, 3600)
    database_roles = optional(list(object({
      name                  = string
      own                   = optional(bool, false)
      creation_statements   = list(string)
      revocation_statements = optional(list(string), [])
      ttl_seconds           = optional(number, 300)
      max_ttl_seconds       = optional(number, 3600)
    })), [])
    certificate_roles = optional(list(object({
      name             = string
      allowed_domains  = list(string)
      allow_subdomains = optional(bool, false)
      ttl_seconds      = optional(number, 300)
    })), [])
    kubernetes = optional(object({
      namespace       = string
      service_account = string
      audience        = optional(string)
    }))
    approle = optional(object({
      secret_id_ttl_seconds = optional(number, 86400)
    }))
  }))
  default = {}

  # Names are parts of paths in policies, so they must not contain special characters.
  validation {
    condition = alltrue([
      for name in concat(keys(var.services), flatten([
        for service in var.services : concat(service.database_roles[*].name, service.certificate_roles[*].name)
      ])) : can(regex("^[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*$", name))
    ])
    error_message = "Names must consist of letters, digits, '.', '_' and '-'."
  }

  validation {
    condition     = !anytrue([for name in keys(var.services) : contains(keys(var.services), "${name}-own")])
    error_message = "The policy of a service <name>-own would conflict with the own policy of the service <name>."
  }
}

# The mount paths: --vault-auth-mount and others.
variable "mounts" {
  description = "The names of the mounts."
  type = object({
    auth       = optional(string, "drawbridge")
    database   = optional(string, "database")
    kv         = optional(string, "secret")
    pki        = optional(string, "pki")
    kubernetes = optional(string, "kubernetes")
    approle    = optional(string, "approle")
  })
  default = {}
}
