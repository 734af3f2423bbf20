output "role_arn" {
  description = "`cloudIdentity.eks.roleArn` of the chart; with irsa."
  value       = aws_iam_role.this.arn
}

output "secret_arn" {
  description = "`secret.aws_secrets_manager.secret_id` of the configuration."
  value       = aws_secretsmanager_secret.elastic.arn
}

output "helm_values" {
  description = "Values for the chart, to be merged with yours."
  value = yamlencode({
    config = {
      integrations = [{
        name = "production"
        secret = {
          aws_secrets_manager = {
            secret_id = aws_secretsmanager_secret.elastic.arn
            region    = data.aws_region.current.name
          }
        }
      }]
    }
    cloudIdentity = local.is_irsa ? {
      eks            = { roleArn = aws_iam_role.this.arn }
      eksPodIdentity = { enabled = false }
      } : {
      eks            = { roleArn = "" }
      eksPodIdentity = { enabled = true }
    }
    serviceAccount = { name = var.service_account }
  })
}
