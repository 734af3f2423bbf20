{{/*
The connector's configuration: `config` of the values, with what the chart knows filled in where it is not said.
Everything below works on a copy; `include "latchkey.config" . | fromYaml` gives the whole.
*/}}

{{- define "latchkey.kind" -}}
{{- dig "ledger" "kind" "sqlite" .Values.config -}}
{{- end -}}

{{/* "true" when calls can come from other pods: when callers can be told apart and nobody keeps gRPC on loopback. */}}
{{- define "latchkey.reachable" -}}
{{- $said := dig "listen" "grpc" "" .Values.config -}}
{{- if $said -}}
{{- if not (or (hasPrefix "127." $said) (hasPrefix "[::1]" $said)) -}}true{{- end -}}
{{- else if eq (include "latchkey.tellsCallers" .) "true" -}}true
{{- end -}}
{{- end -}}

{{- define "latchkey.tellsCallers" -}}
{{- if or (include "latchkey.clientCa" .) (dig "listen" "tls" "client_ca" "" .Values.config) (dig "listen" "oidc" "" .Values.config) -}}true{{- end -}}
{{- end -}}

{{/* Whether the chart mounts a server certificate, and the name of its Secret. */}}
{{- define "latchkey.tlsSecret" -}}
{{- if .Values.tls.certManager.enabled -}}
{{- include "latchkey.fullname" . }}-tls
{{- else -}}
{{- .Values.tls.secretName -}}
{{- end -}}
{{- end -}}

{{- define "latchkey.hasTls" -}}
{{- if or (include "latchkey.tlsSecret" .) (dig "listen" "tls" "certificate" "" .Values.config) -}}true{{- end -}}
{{- end -}}

{{- define "latchkey.clientCa" -}}
{{- or .Values.tls.clientCa.secretName .Values.tls.clientCa.configMapName "" -}}
{{- end -}}

{{- define "latchkey.hasWitness" -}}
{{- if or (eq .Values.witness.mode "volume") (and (eq .Values.witness.mode "auto") (eq (include "latchkey.kind" .) "sqlite")) -}}true{{- end -}}
{{- end -}}

{{- define "latchkey.lawConfigMap" -}}
{{- if .Values.law.existingConfigMap -}}
{{- .Values.law.existingConfigMap -}}
{{- else if .Values.law.policies -}}
{{- include "latchkey.fullname" . }}-law
{{- end -}}
{{- end -}}

{{- define "latchkey.config" -}}
{{- $config := deepCopy .Values.config -}}
{{- range $section := list "listen" "ledger" -}}
{{- if not (hasKey $config $section) -}}{{- $_ := set $config $section dict -}}{{- end -}}
{{- end -}}
{{- $listen := $config.listen -}}
{{- if not $listen.http -}}{{- $_ := set $listen "http" "0.0.0.0:7480" -}}{{- end -}}
{{- if not $listen.grpc -}}
{{- $_ := set $listen "grpc" (ternary "0.0.0.0:7443" "127.0.0.1:7443" (eq (include "latchkey.reachable" .) "true")) -}}
{{- end -}}
{{- if include "latchkey.tlsSecret" . -}}
{{- $tls := $listen.tls | default dict -}}
{{- $_ := set $tls "certificate" "/etc/latchkey/tls/tls.crt" -}}
{{- $_ := set $tls "key" "/etc/latchkey/tls/tls.key" -}}
{{- if include "latchkey.clientCa" . -}}{{- $_ := set $tls "client_ca" (printf "/etc/latchkey/client-ca/%s" .Values.tls.clientCa.key) -}}{{- end -}}
{{- if or .Values.tls.revocationList.secretName .Values.tls.revocationList.configMapName -}}
{{- $_ := set $tls "revocation_list" (printf "/etc/latchkey/revocation-list/%s" .Values.tls.revocationList.key) -}}
{{- end -}}
{{- $_ := set $listen "tls" $tls -}}
{{- end -}}
{{- $ledger := $config.ledger -}}
{{- $_ := set $ledger "kind" (include "latchkey.kind" .) -}}
{{- if eq $ledger.kind "sqlite" -}}
{{- if not $ledger.path -}}{{- $_ := set $ledger "path" "/var/lib/latchkey/ledger.db" -}}{{- end -}}
{{- else -}}
{{- if .Values.postgres.passwordSecret.name -}}
{{- $_ := set $ledger "password_file" (printf "/etc/latchkey/postgres/%s" .Values.postgres.passwordSecret.key) -}}
{{- end -}}
{{- if or .Values.postgres.ca.secretName .Values.postgres.ca.configMapName -}}
{{- $_ := set $ledger "ca_file" (printf "/etc/latchkey/postgres-ca/%s" .Values.postgres.ca.key) -}}
{{- end -}}
{{- if .Values.postgres.journal.enabled -}}{{- $_ := set $ledger "journal" "/var/lib/latchkey-journal" -}}{{- end -}}
{{- end -}}
{{- if include "latchkey.hasWitness" . -}}
{{- if not (hasKey $config "witness") -}}{{- $_ := set $config "witness" dict -}}{{- end -}}
{{- if not $config.witness.path -}}{{- $_ := set $config.witness "path" "/var/lib/latchkey-witness/witness" -}}{{- end -}}
{{- end -}}
{{- if include "latchkey.lawConfigMap" . -}}
{{- if not (hasKey $config "law") -}}{{- $_ := set $config "law" dict -}}{{- end -}}
{{- if not $config.law.directory -}}{{- $_ := set $config.law "directory" "/etc/latchkey/law" -}}{{- end -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The configuration of `latchkey migrate`: the same, with the role that may change the schema. */}}
{{- define "latchkey.migrationConfig" -}}
{{- $config := include "latchkey.config" . | fromYaml -}}
{{- if .Values.migration.url -}}{{- $_ := set $config.ledger "url" .Values.migration.url -}}{{- end -}}
{{- if .Values.migration.passwordSecret.name -}}
{{- $_ := set $config.ledger "password_file" (printf "/etc/latchkey/postgres/%s" .Values.migration.passwordSecret.key) -}}
{{- end -}}
{{- toYaml $config -}}
{{- end -}}

{{/* The port of an address such as 0.0.0.0:7443. */}}
{{- define "latchkey.port" -}}
{{- regexFind "[0-9]+$" . -}}
{{- end -}}

{{- define "latchkey.grpcPort" -}}
{{- $config := include "latchkey.config" . | fromYaml -}}
{{- include "latchkey.port" $config.listen.grpc -}}
{{- end -}}

{{- define "latchkey.httpPort" -}}
{{- $config := include "latchkey.config" . | fromYaml -}}
{{- include "latchkey.port" $config.listen.http -}}
{{- end -}}

{{/* A duration such as `1m 30s` in whole seconds, rounded up. */}}
{{- define "latchkey.seconds" -}}
{{- $units := dict "ms" 0.001 "s" 1.0 "m" 60.0 "h" 3600.0 "d" 86400.0 -}}
{{- $total := 0.0 -}}
{{- range $part := regexFindAll "[0-9.]+ *(ms|s|m|h|d)" (toString .) -1 -}}
{{- $number := regexFind "^[0-9.]+" $part | float64 -}}
{{- $total = addf $total (mulf $number (get $units (regexFind "[a-z]+$" $part))) -}}
{{- end -}}
{{- ceil $total | int -}}
{{- end -}}

{{- define "latchkey.drainSeconds" -}}
{{- include "latchkey.seconds" (dig "engine" "drain" "25s" .Values.config) -}}
{{- end -}}

{{/* Seconds for which a replica goes on serving after it was told to end, so that callers have learnt of it. */}}
{{- define "latchkey.preStopSeconds" -}}
{{- if and (gt (int .Values.replicas) 1) (semverCompare ">=1.30.0-0" .Capabilities.KubeVersion.Version) -}}5{{- else -}}0{{- end -}}
{{- end -}}

{{- define "latchkey.graceSeconds" -}}
{{- if .Values.terminationGracePeriodSeconds -}}
{{- int .Values.terminationGracePeriodSeconds -}}
{{- else -}}
{{- add (include "latchkey.drainSeconds" .) (include "latchkey.preStopSeconds" .) 10 -}}
{{- end -}}
{{- end -}}

{{/* "true" when an integration reads its key through the Kubernetes API. */}}
{{- define "latchkey.kubernetesSecrets" -}}
{{- range .Values.config.integrations -}}
{{- if dig "secret" "kubernetes" "" . -}}true{{- break -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* "true" when the pod is told by GKE's metadata server who it is. */}}
{{- define "latchkey.asksGke" -}}
{{- if .Values.cloudIdentity.gke.serviceAccount -}}true
{{- else -}}
{{- range .Values.config.integrations -}}
{{- if dig "secret" "google_secret_manager" "" . -}}true{{- break -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* "true" when the pod needs a token of its ServiceAccount: for the API, or for Vault. */}}
{{- define "latchkey.needsToken" -}}
{{- range .Values.config.integrations -}}
{{- if or (dig "secret" "kubernetes" "" .) (dig "secret" "vault" "auth" "kubernetes" "" .) -}}true{{- break -}}{{- end -}}
{{- end -}}
{{- end -}}

{{/* The ports of every address in the configuration, each once, as a list in YAML. */}}
{{- define "latchkey.egressPorts" -}}
{{- $ports := list 443 -}}
{{- $texts := list -}}
{{- range .Values.config.integrations -}}
{{- $texts = append $texts (dig "base_url" "" .) -}}
{{- $texts = append $texts (dig "upstream" "proxy" "" .) -}}
{{- $texts = append $texts (dig "secret" "vault" "address" "" .) -}}
{{- $texts = append $texts (dig "secret" "aws_secrets_manager" "endpoint_url" "" .) -}}
{{- $texts = append $texts (dig "secret" "google_secret_manager" "endpoint_url" "" .) -}}
{{- $texts = append $texts (dig "secret" "azure_key_vault" "vault_url" "" .) -}}
{{- end -}}
{{- range (dig "listen" "oidc" list .Values.config) -}}
{{- $texts = append $texts (dig "issuer" "" .) -}}
{{- end -}}
{{- range $sink := (dig "audit" "sinks" list .Values.config) -}}
{{- range (list "webhook" "elasticsearch") -}}
{{- $texts = append $texts (dig . "url" "" $sink) -}}
{{- $texts = append $texts (dig . "proxy" "" $sink) -}}
{{- end -}}
{{- end -}}
{{- if eq (include "latchkey.kubernetesSecrets" .) "true" -}}{{- $ports = append $ports 6443 -}}{{- end -}}
{{- if eq (include "latchkey.kind" .) "postgres" -}}
{{- $port := regexFind ":[0-9]+(/|\\?|$)" (dig "ledger" "url" "" .Values.config) | trimAll ":/?" -}}
{{- $ports = append $ports (default "5432" $port | int) -}}
{{- end -}}
{{- range $texts -}}
{{- if . -}}
{{- $port := regexFind ":[0-9]+(/|\\?|$)" . | trimAll ":/?" -}}
{{- if $port -}}{{- $ports = append $ports (int $port) -}}
{{- else if hasPrefix "http://" . -}}{{- $ports = append $ports 80 -}}{{- end -}}
{{- end -}}
{{- end -}}
{{- range .Values.networkPolicy.extraEgressPorts -}}{{- $ports = append $ports (int .) -}}{{- end -}}
{{- $ports | uniq | toYaml -}}
{{- end -}}
