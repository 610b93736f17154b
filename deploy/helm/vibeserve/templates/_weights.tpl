{{- /* Where weights are. Argument of both: of (existingClaim, subPath, hostPath), key (where in the values that stands), readOnly,
for (what writes to them, and so needs a claim; "": agents, which may have none). "": there are none. */ -}}
{{- define "vibeserve.weightsVolume" -}}
{{- $claim := .of.existingClaim }}
{{- if and $claim .of.hostPath }}
{{- fail (printf "%s: existingClaim and hostPath are both given: weights are in one place" .key) }}
{{- else if and .of.subPath (not $claim) }}
{{- fail (printf "%s.subPath is a folder of existingClaim, which is not given; hostPath names its folder itself" .key) }}
{{- else if and .for (not $claim) }}
{{- fail (printf "%s needs %s.existingClaim, a claim to write to" .for .key) }}
{{- else if $claim -}}
- name: weights
  persistentVolumeClaim:
    claimName: {{ $claim | quote }}
    {{- if .readOnly }}
    readOnly: true
    {{- end }}
{{- else if .of.hostPath -}}
- name: weights
  hostPath:
    path: {{ .of.hostPath | quote }}
    # It must be there: an empty one that the kubelet makes helps nobody.
    type: Directory
{{- end }}
{{- end }}

{{- define "vibeserve.weightsMount" -}}
{{- if or .of.existingClaim .of.hostPath -}}
- name: weights
  mountPath: /var/cache/vibeserve/weights
  {{- with .of.subPath }}
  subPath: {{ . | quote }}
  {{- end }}
  {{- if .readOnly }}
  readOnly: true
  {{- end }}
{{- end }}
{{- end }}
