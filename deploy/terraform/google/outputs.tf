output "service_account_email" {
  description = "`cloudIdentity.gke.serviceAccount` of the chart; empty with direct."
  value       = local.is_direct ? "" : google_service_account.this[0].email
}

output "secret_name" {
  description = "Full name of the secret."
  value       = google_secret_manager_secret.elastic.name
}

output "helm_values" {
  description = "Values for the chart, to be merged with yours."
  value = yamlencode({
    config = {
      integrations = [{
        name = "production"
        secret = {
          google_secret_manager = {
            project = var.project
            secret  = google_secret_manager_secret.elastic.secret_id
          }
        }
      }]
    }
    cloudIdentity = {
      gke = { serviceAccount = local.is_direct ? "" : google_service_account.this[0].email }
    }
    serviceAccount = { name = var.service_account }
  })
}
