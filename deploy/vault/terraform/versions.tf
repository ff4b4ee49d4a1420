terraform {
  # Write-only arguments, which keep the database's password out of the state.
  required_version = ">= 1.11"
  required_providers {
    vault = {
      source  = "hashicorp/vault"
      version = "~> 5.9"
    }
  }
}
