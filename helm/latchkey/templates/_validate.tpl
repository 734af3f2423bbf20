{{/*
Refuses values that contradict each other, all complaints at once. Each says what to do. What a single value may look
like is the business of values.schema.json.
*/}}

{{- define "latchkey.validate" -}}
{{- $said := list -}}
{{- $values := .Values -}}
{{- $config := .Values.config -}}
{{- $kind := include "latchkey.kind" . -}}
{{- $listen := dig "listen" dict $config -}}

{{- if not $config.integrations -}}
{{- $said = append $said "config.integrations is empty: name at least one Elastic Cloud organization and where its key is, see helm/latchkey/values.yaml" -}}
{{- end -}}

{{- if not (has $kind (list "sqlite" "postgres")) -}}
{{- $said = append $said (printf "config.ledger.kind is %q, which forgets at every restart what has to be taken away: use sqlite, or postgres for several replicas" $kind) -}}
{{- end -}}
{{- if and (gt (int .Values.replicas) 1) (ne $kind "postgres") -}}
{{- $said = append $said (printf "replicas is %d, but a SQLite ledger belongs to one process: set replicas to 1, or config.ledger.kind to postgres" (int .Values.replicas)) -}}
{{- end -}}
{{- if eq $kind "postgres" -}}
{{- $url := dig "ledger" "url" "" $config -}}
{{- if not $url -}}
{{- $said = append $said "config.ledger.url is missing: write postgres://USER@HOST:5432/DATABASE" -}}
{{- end -}}
{{- range $name, $each := dict "config.ledger.url" $url "migration.url" .Values.migration.url -}}
{{- if regexMatch "^[a-z]+://[^/@]*:[^/@]*@" (toString $each) -}}
{{- $said = append $said (printf "%s holds a password: take it out, put it into a Secret and name that in postgres.passwordSecret or migration.passwordSecret" $name) -}}
{{- end -}}
{{- end -}}
{{- if not (or .Values.postgres.passwordSecret.name (dig "ledger" "password_file" "" $config)) -}}
{{- $said = append $said "the ledger is in PostgreSQL without a password: set postgres.passwordSecret.name, or config.ledger.password_file and mount the file" -}}
{{- end -}}
{{- if dig "ledger" "path" "" $config -}}
{{- $said = append $said "config.ledger.path is of the sqlite ledger, and config.ledger.kind is postgres: remove one of them" -}}
{{- end -}}
{{- if eq .Values.witness.mode "volume" -}}
{{- $said = append $said "witness.mode is volume, but a witness file belongs to one process and the ledger is in PostgreSQL: set it to auto" -}}
{{- end -}}
{{- else -}}
{{- if or .Values.postgres.passwordSecret.name .Values.postgres.ca.secretName .Values.postgres.ca.configMapName (dig "ledger" "url" "" $config) -}}
{{- $said = append $said "a PostgreSQL server is described, but config.ledger.kind is sqlite: set it to postgres, or remove postgres.* and config.ledger.url" -}}
{{- end -}}
{{- if .Values.sweep.enabled -}}
{{- $said = append $said "sweep.enabled needs PostgreSQL: a SQLite ledger is locked by the running connector, which sweeps by itself" -}}
{{- end -}}
{{- $ledgerFolder := dir (dig "ledger" "path" "/var/lib/latchkey/ledger.db" $config) -}}
{{- $witnessFolder := dir (dig "witness" "path" "/var/lib/latchkey-witness/witness" $config) -}}
{{- if hasPrefix (printf "%s/" $ledgerFolder) (printf "%s/" $witnessFolder) -}}
{{- $said = append $said (printf "config.witness.path lies below %s, the volume of the ledger: what is lost together proves nothing; leave it out" $ledgerFolder) -}}
{{- end -}}
{{- if and (eq .Values.witness.mode "none") (dig "witness" "path" "" $config) (not .Values.extraVolumeMounts) -}}
{{- $said = append $said "config.witness.path is set and witness.mode is none: set it to auto, or mount a volume there with extraVolumes and extraVolumeMounts" -}}
{{- end -}}
{{- end -}}
{{- if and .Values.postgres.ca.secretName .Values.postgres.ca.configMapName -}}
{{- $said = append $said "postgres.ca names a Secret and a ConfigMap: keep one" -}}
{{- end -}}

{{- if and .Values.tls.certManager.enabled .Values.tls.secretName -}}
{{- $said = append $said "tls.secretName and tls.certManager.enabled are both set: keep one" -}}
{{- end -}}
{{- if and .Values.tls.certManager.enabled (not .Values.tls.certManager.issuerRef.name) -}}
{{- $said = append $said "tls.certManager.enabled needs tls.certManager.issuerRef.name: the Issuer that signs" -}}
{{- end -}}
{{- range $name := list "clientCa" "revocationList" -}}
{{- $each := get $values.tls $name -}}
{{- if and $each.secretName $each.configMapName -}}
{{- $said = append $said (printf "tls.%s names a Secret and a ConfigMap: keep one" $name) -}}
{{- end -}}
{{- end -}}
{{- if and (include "latchkey.clientCa" .) (not (include "latchkey.hasTls" .)) -}}
{{- $said = append $said "tls.clientCa is set, but there is no server certificate: set tls.secretName or tls.certManager.enabled" -}}
{{- end -}}
{{- if and (or .Values.tls.revocationList.secretName .Values.tls.revocationList.configMapName) (not (include "latchkey.clientCa" .)) -}}
{{- $said = append $said "tls.revocationList is set, but no client certificates are accepted: set tls.clientCa, or remove it" -}}
{{- end -}}
{{- if and (dig "oidc" "" $listen) (not (include "latchkey.hasTls" .)) -}}
{{- $said = append $said "config.listen.oidc without TLS would send tokens in the clear: set tls.secretName or tls.certManager.enabled" -}}
{{- end -}}
{{- if and (eq (include "latchkey.reachable" .) "true") (ne (include "latchkey.tellsCallers" .) "true") -}}
{{- $said = append $said "config.listen.grpc can be reached from other pods, and callers cannot be told apart: set tls.clientCa or config.listen.oidc, or leave config.listen.grpc out to stay on loopback inside the pod" -}}
{{- end -}}
{{- if and (eq (include "latchkey.tellsCallers" .) "true") (not $config.callers) -}}
{{- $said = append $said "callers are told apart, and config.callers is empty, so nobody could call: name each with its role and its certificate or token" -}}
{{- end -}}
{{- $http := dig "http" "" $listen -}}
{{- if or (hasPrefix "127." $http) (hasPrefix "[::1]" $http) -}}
{{- $said = append $said "config.listen.http is on loopback, where the kubelet cannot probe it: leave it out, networkPolicy.metrics says who may read it" -}}
{{- end -}}
{{- if and (ne .Values.service.type "ClusterIP") (ne (include "latchkey.reachable" .) "true") -}}
{{- $said = append $said (printf "service.type is %s, but gRPC listens on loopback inside the pod: set tls.clientCa or config.listen.oidc first" .Values.service.type) -}}
{{- end -}}
{{- if and .Values.drain.enabled (include "latchkey.clientCa" .) (not (dig "listen" "oidc" "" $config)) (not .Values.operator.tlsSecretName) -}}
{{- $said = append $said "drain.enabled needs a client certificate that config.callers gives the role operator: put it into a Secret and name that in operator.tlsSecretName, or set drain.enabled to false and drain by hand before uninstalling" -}}
{{- end -}}

{{- if and .Values.law.policies .Values.law.existingConfigMap -}}
{{- $said = append $said "law.policies and law.existingConfigMap are both set: keep one" -}}
{{- end -}}
{{- if and (include "latchkey.lawConfigMap" .) (dig "law" "directory" "" $config) (ne (dig "law" "directory" "" $config) "/etc/latchkey/law") -}}
{{- $said = append $said "config.law.directory is another place than /etc/latchkey/law, where law.policies are mounted: leave it out" -}}
{{- end -}}

{{- $grace := include "latchkey.graceSeconds" . | int -}}
{{- $least := add (include "latchkey.drainSeconds" . | int) (include "latchkey.preStopSeconds" . | int) -}}
{{- if le $grace (int $least) -}}
{{- $said = append $said (printf "terminationGracePeriodSeconds is %d, and stopping may take %d (config.engine.drain): the process would be killed in the middle; set it above, or to 0" $grace (int $least)) -}}
{{- end -}}

{{- $clouds := list -}}
{{- with .Values.cloudIdentity -}}
{{- if .eks.roleArn -}}{{- $clouds = append $clouds "eks" -}}{{- end -}}
{{- if .eksPodIdentity.enabled -}}{{- $clouds = append $clouds "eksPodIdentity" -}}{{- end -}}
{{- if .gke.serviceAccount -}}{{- $clouds = append $clouds "gke" -}}{{- end -}}
{{- if .aks.clientId -}}{{- $clouds = append $clouds "aks" -}}{{- end -}}
{{- end -}}
{{- if gt (len $clouds) 1 -}}
{{- $said = append $said (printf "cloudIdentity has %s: a pod has one identity, keep one" (join " and " $clouds)) -}}
{{- end -}}

{{- if and .Values.podDisruptionBudget.minAvailable .Values.podDisruptionBudget.maxUnavailable -}}
{{- $said = append $said "podDisruptionBudget has minAvailable and maxUnavailable: keep one" -}}
{{- end -}}

{{- $mounted := list -}}
{{- range .Values.secretMounts -}}{{- $mounted = append $mounted .name -}}{{- end -}}
{{- if ne (len $mounted) (len (uniq $mounted)) -}}
{{- $said = append $said "secretMounts has a name twice: each is a folder of its own" -}}
{{- end -}}
{{- $variables := list -}}
{{- range .Values.extraEnv -}}{{- $variables = append $variables .name -}}{{- end -}}
{{- $names := list -}}
{{- range $index, $each := $config.integrations -}}
{{- $names = append $names (dig "name" "" $each) -}}
{{- $variable := dig "secret" "env" "name" "" $each -}}
{{- if and $variable (not (has $variable $variables)) -}}
{{- $said = append $said (printf "config.integrations[%d] reads its key from %s, which is not in extraEnv: add it there with valueFrom.secretKeyRef" $index $variable) -}}
{{- end -}}
{{- $folder := regexFind "^/etc/latchkey/secrets/[^/]+/" (dig "secret" "file" "path" "" $each) | trimPrefix "/etc/latchkey/secrets/" | trimSuffix "/" -}}
{{- if and $folder (not (has $folder $mounted)) -}}
{{- $said = append $said (printf "config.integrations[%d] reads its key below /etc/latchkey/secrets/%s, which is not in secretMounts: add {name: %s, secretName: …}" $index $folder $folder) -}}
{{- end -}}
{{- end -}}
{{- if ne (len $names) (len (uniq $names)) -}}
{{- $said = append $said "config.integrations has a name twice: names are how calls, logs and metrics tell them apart" -}}
{{- end -}}

{{- if $said -}}
{{- fail (printf "\n\nThese values contradict each other:\n\n* %s\n" (join "\n* " $said)) -}}
{{- end -}}
{{- end -}}
