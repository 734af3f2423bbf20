output "client_id" {
  description = "`cloudIdentity.aks.clientId` of the chart."
  value       = azurerm_user_assigned_identity.this.client_id
}

output "vault_url" {
  description = "`secret.azure_key_vault.vault_url` of the configuration."
  value       = trimsuffix(azurerm_key_vault.this.vault_uri, "/")
}

output "helm_values" {
  description = "Values for the chart, to be merged with yours."
  value = yamlencode({
    config = {
      integrations = [{
        name = "production"
        secret = {
          azure_key_vault = {
            vault_url = trimsuffix(azurerm_key_vault.this.vault_uri, "/")
            secret    = var.secret_name
          }
        }
      }]
    }
    cloudIdentity = {
      aks = {
        clientId = azurerm_user_assigned_identity.this.client_id
        tenantId = data.azurerm_client_config.current.tenant_id
      }
    }
    serviceAccount = { name = var.service_account }
  })
}
