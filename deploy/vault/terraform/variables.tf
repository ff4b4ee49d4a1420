# What ../setup.toml says, by the same names: docs/credentials.md.

variable "jwks_url" {
  description = "Where auth publishes the keys of transaction tokens, as Vault reaches it."
  type        = string
}

variable "auth_issuer" {
  description = "The iss of transaction tokens."
  type        = string
  default     = "drawbridge-auth"
}

variable "audit_file" {
  description = "The file of the audit device. Absent: audit is set up by somebody else."
  type        = string
  default     = null
}

variable "database" {
  description = "The database whose users Vault makes; {{username}} and {{password}} in its URL are those of Vault's own user."
  type = object({
    name           = optional(string, "postgres")
    connection_url = string
    username       = string
  })
  default = null
}

variable "database_password" {
  description = "The password of Vault's own user. It is not kept in the state."
  type        = string
  sensitive   = true
  ephemeral   = true
  default     = null
}

variable "database_password_version" {
  description = "To be raised when the password is another one."
  type        = number
  default     = 1
}

variable "pki" {
  description = "The authority that issues certificates. Absent: its PKI engine is given one by somebody else."
  type = object({
    common_name = string
    ttl_seconds = optional(number, 157680000)
  })
  default = null
}

variable "kubernetes" {
  description = "The Kubernetes whose service accounts log in. Absent: its auth method is configured by somebody else."
  type = object({
    host           = string
    ca_certificate = optional(string)
  })
  default = null
}

variable "services" {
  description = "The tool services, by their names: the audiences of their transaction tokens."
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

  # A name is a part of a path in policies, where it must stand for itself alone.
  validation {
    condition = alltrue([
      for name in concat(keys(var.services), flatten([
        for service in var.services : concat(service.database_roles[*].name, service.certificate_roles[*].name)
      ])) : can(regex("^[A-Za-z0-9._-]*[A-Za-z0-9_-][A-Za-z0-9._-]*$", name))
    ])
    error_message = "Names have letters, digits, '.', '_' and '-'."
  }

  validation {
    condition     = !anytrue([for name in keys(var.services) : contains(keys(var.services), "${name}-own")])
    error_message = "The policy of <name>-own would be that of the service <name> itself."
  }
}

# Where everything is mounted: --vault-auth-mount and so on.
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
