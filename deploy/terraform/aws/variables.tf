variable "name" {
  description = "Name of the secret, the role and the policy."
  type        = string
  default     = "latchkey"

  validation {
    condition     = can(regex("^[a-zA-Z0-9-]{1,40}$", var.name))
    error_message = "Letters, digits and hyphens, at most 40."
  }
}

variable "secret_name" {
  description = "Name of the secret in Secrets Manager: `secret.aws_secrets_manager.secret_id` of the configuration."
  type        = string
  default     = "latchkey/elastic"
}

variable "recovery_window_in_days" {
  description = "How long a deleted secret can be restored. Without the key nothing can be taken away any more."
  type        = number
  default     = 30

  validation {
    condition     = var.recovery_window_in_days >= 7 && var.recovery_window_in_days <= 30
    error_message = "From 7 to 30 days."
  }
}

variable "identity" {
  description = "How pods get the role: `irsa` (IAM roles for service accounts) or `pod-identity` (EKS Pod Identity)."
  type        = string
  default     = "irsa"

  validation {
    condition     = contains(["irsa", "pod-identity"], var.identity)
    error_message = "Either irsa or pod-identity."
  }
}

variable "cluster_name" {
  description = "Name of the EKS cluster; with pod-identity only."
  type        = string
  default     = null
}

variable "oidc_provider_arn" {
  description = "ARN of the IAM OIDC provider of the cluster; with irsa only."
  type        = string
  default     = null
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

variable "allow_rotation" {
  description = "Let the connector write a new version of the secret and move its labels, for rotating its own key."
  type        = bool
  default     = false
}

variable "tags" {
  description = "Tags of everything."
  type        = map(string)
  default     = {}
}
