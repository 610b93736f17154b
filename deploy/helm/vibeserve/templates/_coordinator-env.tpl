{{- /* What every process that works with the coordinator's data is told. */ -}}
{{- define "vibeserve.baseEnv" -}}
- name: HOME
  value: /tmp
- name: VIBESERVE_CACHE
  value: /var/cache/vibeserve
- name: VIBESERVE_LOG_LEVEL
  value: {{ .Values.coordinator.logLevel }}
- name: VIBESERVE_NATS_URL
  value: {{ include "vibeserve.natsUrl" . }}
- name: VIBESERVE_NATS_KEYS
  value: /etc/vibeserve/nats
- name: VIBESERVE_NATS_REPLICAS
  value: {{ .Values.nats.replicas | quote }}
{{- end }}

{{- /* Settings of the coordinator's process: none is a secret, those are files. */ -}}
{{- define "vibeserve.coordinatorEnv" -}}
{{ include "vibeserve.baseEnv" . }}
# For `kubectl logs`.
- name: VIBESERVE_LOG_STDOUT
  value: "1"
- name: VIBESERVE_HTTP
  value: 0.0.0.0:9464
- name: VIBESERVE_KUBERNETES_ISSUER
  value: {{ .Values.kubernetes.issuer }}
- name: VIBESERVE_KUBERNETES_AUDIENCE
  value: {{ .Values.kubernetes.audience }}
- name: VIBESERVE_KUBERNETES_ACCOUNTS
  value: {{ .Release.Namespace }}:{{ include "vibeserve.fullname" . }}-agent,{{ .Release.Namespace }}:{{ include "vibeserve.fullname" . }}-builder
{{- if hasPrefix "https://kubernetes.default" .Values.kubernetes.issuer }}
- name: VIBESERVE_KUBERNETES_CA
  value: /var/run/secrets/vibeserve-api/ca.crt
- name: VIBESERVE_KUBERNETES_TOKEN_FILE
  value: /var/run/secrets/vibeserve-api/token
{{- end }}
{{- if include "vibeserve.leasePods" . }}
- name: VIBESERVE_WORKER_PODS
  value: /etc/vibeserve/worker-pods/pods.yaml
- name: VIBESERVE_KUBERNETES_API
  value: https://kubernetes.default.svc
- name: VIBESERVE_KUBERNETES_API_CA
  value: /var/run/secrets/vibeserve-api/ca.crt
- name: VIBESERVE_KUBERNETES_API_TOKEN_FILE
  value: /var/run/secrets/vibeserve-api/token
{{- end }}
{{- if .Values.llm.existingSecret }}
{{- with .Values.llm.keys.anthropic }}
- name: ANTHROPIC_API_KEY_FILE
  value: /etc/vibeserve/llm/{{ . }}
{{- end }}
{{- with .Values.llm.keys.openai }}
- name: OPENAI_API_KEY_FILE
  value: /etc/vibeserve/llm/{{ . }}
{{- end }}
{{- end }}
{{- with .Values.llm.anthropicBaseUrl }}
- name: ANTHROPIC_BASE_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.llm.openaiBaseUrl }}
- name: OPENAI_BASE_URL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.llm.model }}
- name: VIBESERVE_MODEL
  value: {{ . | quote }}
{{- end }}
{{- with .Values.llm.usd }}
- name: VIBESERVE_USD
  value: {{ . | quote }}
{{- end }}
{{- range $name, $value := .Values.coordinator.env }}
- name: {{ $name }}
  value: {{ include "vibeserve.text" $value | quote }}
{{- end }}
{{- end }}
