# The secret that holds the Elastic Cloud key, and a role that may read it and nothing else.
#
# The key itself is never in Terraform, whose state would hold it. Put it in once:
#
#   aws secretsmanager put-secret-value --secret-id latchkey/elastic --secret-string file:///dev/stdin

data "aws_caller_identity" "current" {}

data "aws_partition" "current" {}

data "aws_region" "current" {}

locals {
  oidc_issuer = var.oidc_provider_arn == null ? "" : split(":oidc-provider/", var.oidc_provider_arn)[1]
  is_irsa     = var.identity == "irsa"
}

# A key of its own, so that reading the secret takes a right to this key too.
resource "aws_kms_key" "this" {
  description             = "Secret of ${var.name}"
  enable_key_rotation     = true
  deletion_window_in_days = 30
  policy                  = data.aws_iam_policy_document.key.json
  tags                    = var.tags

  lifecycle {
    prevent_destroy = true
  }
}

resource "aws_kms_alias" "this" {
  name          = "alias/${var.name}"
  target_key_id = aws_kms_key.this.key_id
}

data "aws_iam_policy_document" "key" {
  # Without this nobody could ever change the key's policy again; rights come from IAM policies of the account.
  statement {
    sid       = "Account"
    actions   = ["kms:*"]
    resources = ["*"]

    principals {
      type        = "AWS"
      identifiers = ["arn:${data.aws_partition.current.partition}:iam::${data.aws_caller_identity.current.account_id}:root"]
    }
  }
}

resource "aws_secretsmanager_secret" "elastic" {
  name                    = var.secret_name
  description             = "Elastic Cloud key of ${var.name}"
  kms_key_id              = aws_kms_key.this.arn
  recovery_window_in_days = var.recovery_window_in_days
  tags                    = var.tags

  lifecycle {
    prevent_destroy = true
  }
}

data "aws_iam_policy_document" "read" {
  statement {
    sid       = "ReadTheKey"
    actions   = ["secretsmanager:GetSecretValue"]
    resources = [aws_secretsmanager_secret.elastic.arn]
  }

  statement {
    sid       = "DecryptTheKey"
    actions   = var.allow_rotation ? ["kms:Decrypt", "kms:GenerateDataKey"] : ["kms:Decrypt"]
    resources = [aws_kms_key.this.arn]

    # Only through Secrets Manager, and only for this secret.
    condition {
      test     = "StringEquals"
      variable = "kms:ViaService"
      values   = ["secretsmanager.${data.aws_region.current.name}.amazonaws.com"]
    }

    condition {
      test     = "StringEquals"
      variable = "kms:EncryptionContext:SecretARN"
      values   = [aws_secretsmanager_secret.elastic.arn]
    }
  }

  dynamic "statement" {
    for_each = var.allow_rotation ? [1] : []

    content {
      sid       = "RotateTheKey"
      actions   = ["secretsmanager:PutSecretValue", "secretsmanager:UpdateSecretVersionStage"]
      resources = [aws_secretsmanager_secret.elastic.arn]
    }
  }
}

data "aws_iam_policy_document" "trust" {
  dynamic "statement" {
    for_each = local.is_irsa ? [1] : []

    content {
      actions = ["sts:AssumeRoleWithWebIdentity"]

      principals {
        type        = "Federated"
        identifiers = [var.oidc_provider_arn]
      }

      # This one ServiceAccount, and tokens made for AWS.
      condition {
        test     = "StringEquals"
        variable = "${local.oidc_issuer}:sub"
        values   = ["system:serviceaccount:${var.namespace}:${var.service_account}"]
      }

      condition {
        test     = "StringEquals"
        variable = "${local.oidc_issuer}:aud"
        values   = ["sts.amazonaws.com"]
      }
    }
  }

  dynamic "statement" {
    for_each = local.is_irsa ? [] : [1]

    content {
      actions = ["sts:AssumeRole", "sts:TagSession"]

      principals {
        type        = "Service"
        identifiers = ["pods.eks.amazonaws.com"]
      }

      condition {
        test     = "StringEquals"
        variable = "aws:SourceAccount"
        values   = [data.aws_caller_identity.current.account_id]
      }
    }
  }
}

resource "aws_iam_role" "this" {
  name               = var.name
  description        = "Reads the Elastic Cloud key"
  assume_role_policy = data.aws_iam_policy_document.trust.json
  tags               = var.tags

  lifecycle {
    precondition {
      condition     = local.is_irsa ? var.oidc_provider_arn != null : var.cluster_name != null
      error_message = "irsa needs oidc_provider_arn, pod-identity needs cluster_name."
    }
  }
}

resource "aws_iam_role_policy" "read" {
  name   = "read-the-key"
  role   = aws_iam_role.this.id
  policy = data.aws_iam_policy_document.read.json
}

resource "aws_eks_pod_identity_association" "this" {
  count = local.is_irsa ? 0 : 1

  cluster_name    = var.cluster_name
  namespace       = var.namespace
  service_account = var.service_account
  role_arn        = aws_iam_role.this.arn
  tags            = var.tags
}
