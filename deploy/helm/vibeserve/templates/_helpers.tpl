{{- define "vibeserve.fullname" -}}
{{- /* 22: a builder's pod is "<this>-builder-<10>-<5>", and a pod's name is its agent's id, of at most 48 characters. */ -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride -}}
{{- else if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 22 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 22 | trimSuffix "-" -}}
{{- end -}}
{{- end }}

{{- /* What selects the pods of one component. Argument: root, component, class (of an agent). */ -}}
{{- define "vibeserve.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .component }}
{{- with .class }}
vibeserve.dev/class: {{ . }}
{{- end }}
{{- end }}

{{- /* What selects all pods of the release. */ -}}
{{- define "vibeserve.selectAll" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "vibeserve.labels" -}}
{{ include "vibeserve.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
app.kubernetes.io/part-of: {{ .root.Chart.Name }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Labels of a pod: those that select it, and those that a policy outside the chart may ask for. */ -}}
{{- define "vibeserve.podLabels" -}}
{{ include "vibeserve.selector" . }}
{{- with .root.Values.commonLabels }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- /* Argument: root, image (a key of .Values.images). */ -}}
{{- define "vibeserve.image" -}}
{{- $image := index .root.Values.images .image -}}
{{- $registry := .root.Values.images.registry -}}
{{- $repository := ternary $image.repository (printf "%s/%s" $registry $image.repository) (empty $registry) -}}
{{- if $image.digest -}}
{{- printf "%s@%s" $repository $image.digest -}}
{{- else -}}
{{- printf "%s:%s" $repository (default .root.Chart.AppVersion $image.tag) -}}
{{- end -}}
{{- end }}

{{- define "vibeserve.pullSecrets" -}}
{{- with .Values.registry.existingSecret }}
imagePullSecrets:
  - name: {{ . }}
{{- end }}
{{- end }}

{{- /* Security context of every pod. Argument: root, seccomp (localhost profile or ""), groups. */ -}}
{{- define "vibeserve.podSecurity" -}}
runAsNonRoot: true
{{- with .root.Values.podSecurity.runAsUser }}
runAsUser: {{ . }}
runAsGroup: {{ . }}
{{- end }}
{{- with .root.Values.podSecurity.fsGroup }}
fsGroup: {{ . }}
fsGroupChangePolicy: OnRootMismatch
{{- end }}
{{- with .groups }}
supplementalGroups: {{ toJson . }}
{{- end }}
seccompProfile:
  {{- if .seccomp }}
  type: Localhost
  localhostProfile: {{ .seccomp }}
  {{- else }}
  type: RuntimeDefault
  {{- end }}
{{- end }}

{{- define "vibeserve.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{- /* A value of env as text. A number of a values file is a float to helm, which would write ten millions as 1e+07. */ -}}
{{- define "vibeserve.text" -}}
{{- kindIs "string" . | ternary . (toJson .) -}}
{{- end }}

{{- /* Where pods are placed. Argument: a component's values. */ -}}
{{- define "vibeserve.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Argument: root, component. Spreads pods over nodes, and over zones where nodes say theirs. */ -}}
{{- define "vibeserve.spread" -}}
{{- if .root.Values.topologySpread.enabled }}
topologySpreadConstraints:
  {{- range .root.Values.topologySpread.constraints }}
  - maxSkew: 1
    topologyKey: {{ .key }}
    whenUnsatisfiable: {{ .whenUnsatisfiable }}
    # A node that they can't be on has none, and must not count.
    nodeTaintsPolicy: Honor
    labelSelector:
      matchLabels:
        {{- include "vibeserve.selector" $ | nindent 8 }}
  {{- end }}
{{- end }}
{{- end }}

{{- /* Argument: root, of ("control" or "agent"), name (a class of the user's). */ -}}
{{- define "vibeserve.priority" -}}
{{- if .name }}
priorityClassName: {{ .name }}
{{- else if .root.Values.priorityClasses.create }}
priorityClassName: {{ include "vibeserve.fullname" .root }}-{{ .of }}
{{- end }}
{{- end }}

{{- /* Argument: root, port (its name). */ -}}
{{- define "vibeserve.probes" -}}
{{- range $probe, $path := dict "startupProbe" .startup "livenessProbe" "/livez" "readinessProbe" "/readyz" }}
{{ $probe }}:
  httpGet:
    path: {{ $path }}
    port: http
  {{- toYaml (index $.root.Values.probes $probe) | nindent 2 }}
{{- end }}
{{- end }}

{{- /* Prefix of the four Secrets that `vibeserve keys` makes: -server, -coordinator, -join, -client. */ -}}
{{- define "vibeserve.keys" -}}
{{- default (include "vibeserve.fullname" .) .Values.nats.existingSecret -}}
{{- end }}

{{- define "vibeserve.natsHost" -}}
{{ include "vibeserve.fullname" . }}-nats.{{ .Release.Namespace }}.svc.{{ .Values.clusterDomain }}
{{- end }}

{{- define "vibeserve.natsUrl" -}}
{{- if .Values.nats.enabled -}}
tls://{{ include "vibeserve.natsHost" . }}:4222
{{- else -}}
{{ .Values.nats.url }}
{{- end -}}
{{- end }}

{{- /* Every name by which the broker's certificate may be asked for, with commas. */ -}}
{{- define "vibeserve.natsHosts" -}}
{{- $name := include "vibeserve.fullname" . -}}
{{- $hosts := list (include "vibeserve.natsHost" .) (printf "%s-nats" $name) (printf "%s-nats.%s" $name .Release.Namespace) (printf "%s-nats.%s.svc" $name .Release.Namespace) "localhost" -}}
{{- range $i := until (int .Values.nats.replicas) -}}
{{- $hosts = append $hosts (printf "%s-nats-%d.%s-nats-headless" $name $i $name) -}}
{{- $hosts = append $hosts (printf "%s-nats-%d.%s-nats-headless.%s.svc.%s" $name $i $name $.Release.Namespace $.Values.clusterDomain) -}}
{{- end -}}
{{- join "," $hosts -}}
{{- end }}

{{- /* The coordinator's folders: its volume, scratch. */ -}}
{{- define "vibeserve.dataVolume" -}}
- name: data
  persistentVolumeClaim:
    claimName: {{ default (printf "%s-data" (include "vibeserve.fullname" .)) .Values.coordinator.persistence.existingClaim }}
{{- end }}

{{- define "vibeserve.scratchVolumes" -}}
- name: tmp
  emptyDir:
    sizeLimit: {{ .Values.scratch.tmp }}
- name: cache
  emptyDir:
    sizeLimit: {{ .Values.scratch.cache }}
{{- end }}

{{- define "vibeserve.scratchMounts" -}}
- name: tmp
  mountPath: /tmp
- name: cache
  mountPath: /var/cache/vibeserve
{{- end }}

{{- define "vibeserve.keysHook" -}}
helm.sh/hook: pre-install,pre-upgrade
helm.sh/hook-weight: {{ .weight | quote }}
helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded
{{- end }}
