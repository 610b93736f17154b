{{- define "vibeserve.policyHead" }}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: {{ include "vibeserve.fullname" .root }}-{{ .name }}
  labels:
    {{- include "vibeserve.labels" (dict "root" .root "component" .name) | nindent 4 }}
spec:
{{- end }}

{{- /* To or from all pods of the release: who may really speak is settled at the other end. */ -}}
{{- define "vibeserve.ownPods" -}}
- podSelector:
    matchLabels:
      {{- include "vibeserve.selectAll" . | nindent 6 }}
{{- end }}
