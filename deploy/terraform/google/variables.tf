variable "project" {
  description = "Id of the project that holds the secret: `secret.google_secret_manager.project` of the configuration."
  type        = string
}

variable "cluster_project" {
  description = "Id of the project of the GKE cluster, whose workload identity pool the pods are in; the same when null."
  type        = string
  default     = null
}

variable "cluster_project_number" {
  description = "Number of the project of the cluster; with direct only."
  type        = string
  default     = null

  validation {
    condition     = var.cluster_project_number == null || can(regex("^[0-9]+$", var.cluster_project_number))
    error_message = "The number of the project, not its id."
  }
}

variable "name" {
  description = "Name of the service account, and what descriptions call it."
  type        = string
  default     = "latchkey"

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.name))
    error_message = "Lower case letters, digits and hyphens, 6 to 30, as Google wants it of service accounts."
  }
}

variable "secret_id" {
  description = "Name of the secret in Secret Manager: `secret.google_secret_manager.secret` of the configuration."
  type        = string
  default     = "elastic-key"
}

variable "replica_locations" {
  description = "Locations that the secret is kept in; Google chooses when there are none."
  type        = list(string)
  default     = []
}

variable "version_destroy_ttl" {
  description = "How long a destroyed version can be restored, in seconds with an s. Without the key nothing can be taken away any more."
  type        = string
  default     = "2592000s"

  validation {
    condition     = can(regex("^[0-9]+s$", var.version_destroy_ttl))
    error_message = "Seconds with an s, such as 2592000s for 30 days."
  }
}

variable "identity" {
  description = "Who may read: `service-account` (a service account of Google that pods act as) or `direct` (the ServiceAccount of Kubernetes itself)."
  type        = string
  default     = "service-account"

  validation {
    condition     = contains(["service-account", "direct"], var.identity)
    error_message = "Either service-account or direct."
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

variable "labels" {
  description = "Labels of the secret."
  type        = map(string)
  default     = {}
}
