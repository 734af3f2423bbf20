# The secret that holds the Elastic Cloud key, and an identity that may read it and nothing else.
#
# The key itself is never in Terraform, whose state would hold it. Put it in once:
#
#   gcloud secrets versions add elastic-key --project=PROJECT --data-file=-

locals {
  is_direct = var.identity == "direct"
  pool      = "${coalesce(var.cluster_project, var.project)}.svc.id.goog"
  pods      = "ns/${var.namespace}/sa/${var.service_account}"

  # This one ServiceAccount, as the pool of the cluster names it.
  subject = "principal://iam.googleapis.com/projects/${coalesce(var.cluster_project_number, "0")}/locations/global/workloadIdentityPools/${local.pool}/subject/${local.pods}"
  reader  = local.is_direct ? local.subject : "serviceAccount:${google_service_account.this[0].email}"
}

resource "google_secret_manager_secret" "elastic" {
  project             = var.project
  secret_id           = var.secret_id
  labels              = var.labels
  version_destroy_ttl = var.version_destroy_ttl

  replication {
    dynamic "auto" {
      for_each = length(var.replica_locations) == 0 ? [1] : []
      content {}
    }

    dynamic "user_managed" {
      for_each = length(var.replica_locations) == 0 ? [] : [1]

      content {
        dynamic "replicas" {
          for_each = var.replica_locations

          content {
            location = replicas.value
          }
        }
      }
    }
  }

  lifecycle {
    prevent_destroy = true

    precondition {
      condition     = !local.is_direct || var.cluster_project_number != null
      error_message = "direct needs cluster_project_number."
    }
  }
}

# Reading versions of this one secret; the connector never writes one.
resource "google_secret_manager_secret_iam_member" "read" {
  project   = var.project
  secret_id = google_secret_manager_secret.elastic.secret_id
  role      = "roles/secretmanager.secretAccessor"
  member    = local.reader
}

resource "google_service_account" "this" {
  count = local.is_direct ? 0 : 1

  project      = var.project
  account_id   = var.name
  display_name = "Reads the Elastic Cloud key of ${var.name}"
}

# This one ServiceAccount may act as it, and has no key that could be carried away.
resource "google_service_account_iam_member" "pods" {
  count = local.is_direct ? 0 : 1

  service_account_id = google_service_account.this[0].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "serviceAccount:${local.pool}[${var.namespace}/${var.service_account}]"
}
