{{/* What every pod of the chart has in common. */}}

{{- define "latchkey.podSecurity" -}}
{{- $default := dict "runAsNonRoot" true "runAsUser" 65532 "runAsGroup" 65532 "fsGroup" 65532 "fsGroupChangePolicy" "OnRootMismatch" "seccompProfile" (dict "type" "RuntimeDefault") -}}
{{- mergeOverwrite $default .Values.podSecurityContext | toYaml -}}
{{- end -}}

{{- define "latchkey.containerSecurity" -}}
{{- $default := dict "allowPrivilegeEscalation" false "privileged" false "readOnlyRootFilesystem" true "runAsNonRoot" true "capabilities" (dict "drop" (list "ALL")) -}}
{{- mergeOverwrite $default .Values.securityContext | toYaml -}}
{{- end -}}

{{/* Labels of pods; AKS looks for its own there. */}}
{{- define "latchkey.podLabels" -}}
{{ include "latchkey.labels" . }}
{{- if .Values.cloudIdentity.aks.clientId }}
azure.workload.identity/use: "true"
{{- end }}
{{- with .Values.podLabels }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "latchkey.podCommon" -}}
serviceAccountName: {{ include "latchkey.serviceAccountName" . }}
automountServiceAccountToken: {{ eq (include "latchkey.needsToken" .) "true" }}
enableServiceLinks: false
securityContext:
  {{- include "latchkey.podSecurity" . | nindent 2 }}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .Values.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{/* A container that runs the program; the caller adds args, mounts and probes. */}}
{{- define "latchkey.container" -}}
image: {{ include "latchkey.image" . | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  {{- include "latchkey.containerSecurity" . | nindent 2 }}
resources:
  {{- toYaml .Values.resources | nindent 2 }}
{{- end -}}

{{- define "latchkey.secretOrConfigMap" -}}
{{- if .secretName }}
secret:
  secretName: {{ .secretName }}
  defaultMode: 0440
{{- else }}
configMap:
  name: {{ .configMapName }}
  defaultMode: 0444
{{- end }}
{{- end -}}

{{/* Volumes that hold what the configuration names, without the ledger and the witness. */}}
{{- define "latchkey.volumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: 64Mi
{{- range .Values.secretMounts }}
- name: secret-{{ .name }}
  secret:
    secretName: {{ .secretName }}
    defaultMode: 0440
    {{- with .items }}
    items:
      {{- toYaml . | nindent 6 }}
    {{- end }}
{{- end }}
{{- if include "latchkey.tlsSecret" . }}
- name: tls
  secret:
    secretName: {{ include "latchkey.tlsSecret" . }}
    defaultMode: 0440
{{- end }}
{{- if include "latchkey.clientCa" . }}
- name: client-ca
  {{- include "latchkey.secretOrConfigMap" .Values.tls.clientCa | trim | nindent 2 }}
{{- end }}
{{- if or .Values.tls.revocationList.secretName .Values.tls.revocationList.configMapName }}
- name: revocation-list
  {{- include "latchkey.secretOrConfigMap" .Values.tls.revocationList | trim | nindent 2 }}
{{- end }}
{{- if include "latchkey.lawConfigMap" . }}
- name: law
  configMap:
    name: {{ include "latchkey.lawConfigMap" . }}
    defaultMode: 0444
{{- end }}
{{- with .Values.extraVolumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{/* The database's password and authority; `.password` says which Secret. */}}
{{- define "latchkey.postgresVolumes" -}}
{{- if .password.name }}
- name: postgres
  secret:
    secretName: {{ .password.name }}
    defaultMode: 0440
{{- end }}
{{- if or .ca.secretName .ca.configMapName }}
- name: postgres-ca
  {{- include "latchkey.secretOrConfigMap" .ca | trim | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "latchkey.mounts" -}}
- name: config
  mountPath: /etc/latchkey/config
  readOnly: true
- name: tmp
  mountPath: /tmp
{{- range .Values.secretMounts }}
- name: secret-{{ .name }}
  mountPath: /etc/latchkey/secrets/{{ .name }}
  readOnly: true
{{- end }}
{{- if include "latchkey.tlsSecret" . }}
- name: tls
  mountPath: /etc/latchkey/tls
  readOnly: true
{{- end }}
{{- if include "latchkey.clientCa" . }}
- name: client-ca
  mountPath: /etc/latchkey/client-ca
  readOnly: true
{{- end }}
{{- if or .Values.tls.revocationList.secretName .Values.tls.revocationList.configMapName }}
- name: revocation-list
  mountPath: /etc/latchkey/revocation-list
  readOnly: true
{{- end }}
{{- if include "latchkey.lawConfigMap" . }}
- name: law
  mountPath: /etc/latchkey/law
  readOnly: true
{{- end }}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "latchkey.postgresMounts" -}}
{{- if .password.name }}
- name: postgres
  mountPath: /etc/latchkey/postgres
  readOnly: true
{{- end }}
{{- if or .ca.secretName .ca.configMapName }}
- name: postgres-ca
  mountPath: /etc/latchkey/postgres-ca
  readOnly: true
{{- end }}
{{- end -}}

{{/* The ledger, the journal and the witness of the running connector. */}}
{{- define "latchkey.stateVolumes" -}}
{{- if eq (include "latchkey.kind" .) "sqlite" }}
- name: ledger
  persistentVolumeClaim:
    claimName: {{ .Values.ledger.volume.existingClaim | default (printf "%s-ledger" (include "latchkey.fullname" .)) }}
{{- end }}
{{- if and (eq (include "latchkey.kind" .) "postgres") .Values.postgres.journal.enabled }}
- name: journal
  emptyDir:
    sizeLimit: {{ .Values.postgres.journal.sizeLimit }}
{{- end }}
{{- if include "latchkey.hasWitness" . }}
- name: witness
  persistentVolumeClaim:
    claimName: {{ .Values.witness.volume.existingClaim | default (printf "%s-witness" (include "latchkey.fullname" .)) }}
{{- end }}
{{- end -}}

{{- define "latchkey.stateMounts" -}}
{{- $config := include "latchkey.config" . | fromYaml -}}
{{- if eq (include "latchkey.kind" .) "sqlite" }}
- name: ledger
  mountPath: {{ dir $config.ledger.path }}
{{- end }}
{{- if and (eq (include "latchkey.kind" .) "postgres") .Values.postgres.journal.enabled }}
- name: journal
  mountPath: {{ $config.ledger.journal }}
{{- end }}
{{- if include "latchkey.hasWitness" . }}
- name: witness
  mountPath: {{ dir $config.witness.path }}
{{- end }}
{{- end -}}

{{/* Environment of the hooks that call the connector. */}}
{{- define "latchkey.operatorEnv" -}}
- name: LATCHKEY_SERVER
  value: {{ printf "%s://%s-headless.%s.svc:%s" (ternary "https" "http" (eq (include "latchkey.hasTls" .) "true")) (include "latchkey.fullname" .) .Release.Namespace (include "latchkey.grpcPort" .) }}
{{- if .Values.operator.tlsSecretName }}
- name: LATCHKEY_TLS_CA
  value: /etc/latchkey/operator/ca.crt
- name: LATCHKEY_TLS_CERT
  value: /etc/latchkey/operator/tls.crt
- name: LATCHKEY_TLS_KEY
  value: /etc/latchkey/operator/tls.key
{{- end }}
{{- with .Values.operator.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}
