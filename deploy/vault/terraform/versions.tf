terraform {
  # For write-only arguments: they do not store the database's password in the state.
  required_version = ">= 1.11"
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = "~> 5.9"
    }
  }
}
