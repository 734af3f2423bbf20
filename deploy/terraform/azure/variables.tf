variable "name" {
  description = "Name of the managed identity and of its federated credential."
  type        = string
  default     = "latchkey"

  validation {
    condition     = can(regex("^[a-zA-Z0-9][a-zA-Z0-9-]{2,39}$", var.name))
    error_message = "Letters, digits and hyphens, 3 to 40."
  }
}

variable "resource_group_name" {
  description = "Resource group of the identity and the vault."
  type        = string
}

variable "location" {
  description = "Location of the identity and the vault."
  type        = string
}

variable "vault_name" {
  description = "Name of the vault, one of a kind in all of Azure: `secret.azure_key_vault.vault_url` of the configuration has it."
  type        = string

  validation {
    condition     = can(regex("^[a-zA-Z][a-zA-Z0-9-]{1,22}[a-zA-Z0-9]$", var.vault_name))
    error_message = "Letters, digits and hyphens, 3 to 24."
  }
}

variable "secret_name" {
  description = "Name of the secret: `secret.azure_key_vault.secret` of the configuration."
  type        = string
  default     = "elastic-key"

  validation {
    condition     = can(regex("^[a-zA-Z0-9-]{1,127}$", var.secret_name))
    error_message = "Letters, digits and hyphens, at most 127."
  }
}

variable "soft_delete_retention_days" {
  description = "How long a deleted secret can be restored. Without the key nothing can be taken away any more."
  type        = number
  default     = 90

  validation {
    condition     = var.soft_delete_retention_days >= 7 && var.soft_delete_retention_days <= 90
    error_message = "From 7 to 90 days."
  }
}

variable "subnet_ids" {
  description = "Subnets that reach the vault: those of the nodes, with the service endpoint Microsoft.KeyVault."
  type        = list(string)
  default     = []
}

variable "ip_rules" {
  description = "Addresses that reach the vault besides, in CIDR: that of whoever puts the key in."
  type        = list(string)
  default     = []
}

variable "oidc_issuer_url" {
  description = "Issuer of the AKS cluster's tokens (`oidc_issuer_url` of azurerm_kubernetes_cluster)."
  type        = string

  validation {
    condition     = startswith(var.oidc_issuer_url, "https://")
    error_message = "An https address."
  }
}

variable "namespace" {
  description = "Namespace of the release."
  type        = string
  default     = "latchkey"
}

variable "service_account" {
  description = "ServiceAccount of the release."
  type        = string
  default     = "latchkey"
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
