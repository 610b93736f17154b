{{- /* The pod of a class's agents: metadata and spec. root, class: its name, c: its values. A DaemonSet has it, or the coordinator makes it for a lease. */ -}}
{{- define "vibeserve.agentPod" -}}
{{- $ := .root }}
{{- $c := .c }}
{{- $class := .class }}
{{- $name := include "vibeserve.fullname" $ }}
{{- $images := dict "cpu" "agentCpu" "cuda" "agentCuda" "rocm" "agentRocm" }}
{{- $me := dict "root" $ "component" "agent" "class" $class }}
{{- $lease := include "vibeserve.leasePod" $c }}
{{- $gpu := default dict $c.gpu }}
{{- $dra := eq (default "" $gpu.allocation) "dra" }}
{{- $selectors := dict }}
{{- with $gpu.countLabel }}
{{- /* whole-node: a node with another number of devices would keep some that nobody uses, so it is not of this class. */ -}}
{{- if not (or $dra $lease) }}{{ $_ := set $selectors . (toString $gpu.count) }}{{ end }}
{{- end }}
{{- if has (default "none" $gpu.migStrategy) (list "single" "mixed") }}{{ $_ := set $selectors "nvidia.com/mig.strategy" $gpu.migStrategy }}{{ end }}
{{- $selectors = merge (deepCopy (default dict $c.nodeSelector)) $selectors }}
{{- $resources := deepCopy (default $.Values.agents.resources $c.resources) }}
{{- if and $gpu.resource (not $dra) }}
{{- $limits := merge (dict $gpu.resource (toString $gpu.count)) (default dict $resources.limits) }}
{{- $_ := set $resources "limits" $limits }}
{{- end }}
{{- if $dra }}{{ $_ := set $resources "claims" (list (dict "name" "devices")) }}{{ end }}
{{- $weights := dict "of" (default $.Values.weights $c.weights) "key" (ternary (printf "agents.classes.%s.weights" $class) "weights" (not (empty $c.weights))) "readOnly" true }}
{{- $container := dict "root" $ "name" "agent" "image" (index $images $c.family) "env" $c.env "resources" $resources "weights" (include "vibeserve.weightsMount" $weights) }}
{{- if and $c.pool (not $lease) }}{{ $_ := set $container "last" (list "--pool" $c.pool) }}{{ end }}
metadata:
  labels:
    {{- include "vibeserve.podLabels" $me | nindent 4 }}
    {{- if and $lease $.Values.kueue.queueName }}
    kueue.x-k8s.io/queue-name: {{ $.Values.kueue.queueName }}
    {{- end }}
  {{- with $.Values.agents.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ $name }}-agent
  automountServiceAccountToken: false
  enableServiceLinks: false
  hostUsers: {{ include "vibeserve.hostUsers" (dict "root" $ "c" $c) }}
  hostIPC: false
  {{- include "vibeserve.pullSecrets" $ | nindent 2 }}
  {{- include "vibeserve.priority" (dict "root" $ "of" "agent" "name" $.Values.agents.priorityClassName) | nindent 2 }}
  {{- include "vibeserve.runtimeClass" (dict "root" $ "own" $c.runtimeClassName) | nindent 2 }}
  # SIGTERM is the drain: the job that runs is finished within drainSeconds or handed back, and 40 s are for ending processes and saying goodbye.
  terminationGracePeriodSeconds: {{ add $.Values.agents.drainSeconds 40 }}
  securityContext:
    {{- include "vibeserve.agentPodSecurity" (dict "root" $ "groups" $c.supplementalGroups) | nindent 4 }}
  {{- include "vibeserve.placement" (dict "nodeSelector" $selectors "tolerations" $c.tolerations "affinity" $c.affinity) | nindent 2 }}
  {{- if $dra }}
  resourceClaims:
    - name: devices
      resourceClaimTemplateName: {{ $name }}-{{ $class }}
  {{- end }}
  containers:
    {{- include "vibeserve.agentContainer" $container | nindent 4 }}
  volumes:
    {{- include "vibeserve.agentData" $ | nindent 4 }}
    {{- include "vibeserve.scratchVolumes" $ | nindent 4 }}
    {{- include "vibeserve.joinVolumes" $ | nindent 4 }}
    {{- with include "vibeserve.weightsVolume" $weights }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}

{{- /* "true" where a class's pods live as long as a lease; "": they are a DaemonSet's. Of a class's values. */ -}}
{{- define "vibeserve.leasePod" -}}
{{- if eq (default "" (default dict .gpu).mode) "lease-pod" }}true{{ end }}
{{- end }}

{{- /* "true" where any class is so. */ -}}
{{- define "vibeserve.leasePods" -}}
{{- if .Values.agents.enabled }}
{{- range $class, $c := .Values.agents.classes }}
{{- if and $c $c.enabled (include "vibeserve.leasePod" $c) }}true{{ end }}
{{- end }}
{{- end }}
{{- end }}
