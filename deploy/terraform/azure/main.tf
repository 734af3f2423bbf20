# The vault for the secret that holds the Elastic Cloud key, and an identity that may read it and nothing else.
#
# The key itself is never in Terraform, whose state would hold it. Put it in once:
#
#   az keyvault secret set --vault-name VAULT --name elastic-key --file /dev/stdin

data "azurerm_client_config" "current" {}

resource "azurerm_key_vault" "this" {
  name                          = var.vault_name
  resource_group_name           = var.resource_group_name
  location                      = var.location
  tenant_id                     = data.azurerm_client_config.current.tenant_id
  sku_name                      = "standard"
  rbac_authorization_enabled    = true
  purge_protection_enabled      = true
  soft_delete_retention_days    = var.soft_delete_retention_days
  public_network_access_enabled = true
  tags                          = var.tags

  # Nobody but who is named: without subnets and addresses only a private endpoint leads there.
  network_acls {
    default_action             = "Deny"
    bypass                     = "None"
    virtual_network_subnet_ids = var.subnet_ids
    ip_rules                   = var.ip_rules
  }

  lifecycle {
    prevent_destroy = true
  }
}

resource "azurerm_user_assigned_identity" "this" {
  name                = var.name
  resource_group_name = var.resource_group_name
  location            = var.location
  tags                = var.tags
}

# This one ServiceAccount, and tokens made for Azure.
resource "azurerm_federated_identity_credential" "pods" {
  name                = var.name
  resource_group_name = var.resource_group_name
  parent_id           = azurerm_user_assigned_identity.this.id
  issuer              = var.oidc_issuer_url
  subject             = "system:serviceaccount:${var.namespace}:${var.service_account}"
  audience            = ["api://AzureADTokenExchange"]
}

# Reading this one secret, not the vault; the connector never writes it.
resource "azurerm_role_assignment" "read" {
  scope                = "${azurerm_key_vault.this.id}/secrets/${var.secret_name}"
  role_definition_name = "Key Vault Secrets User"
  principal_id         = azurerm_user_assigned_identity.this.principal_id
  principal_type       = "ServicePrincipal"
}
