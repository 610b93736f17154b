{{- /* How a pod shows the coordinator who it is. */ -}}
{{- define "vibeserve.joinVolumes" -}}
- name: join
  secret:
    secretName: {{ include "vibeserve.keys" . }}-join
    defaultMode: 0440
- name: identity
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          audience: {{ .Values.kubernetes.audience }}
          expirationSeconds: 3600
{{- end }}

{{- define "vibeserve.joinMounts" -}}
- name: join
  mountPath: /etc/vibeserve/join
  readOnly: true
- name: identity
  mountPath: /var/run/secrets/vibeserve
  readOnly: true
{{- end }}

{{- /* Of pods that run candidates' code: docs/install/kubernetes.md, "Sandbox". Argument: root, groups. */ -}}
{{- define "vibeserve.agentPodSecurity" -}}
{{- $userns := eq .root.Values.agents.sandbox.mode "userNamespaces" -}}
{{ include "vibeserve.podSecurity" (dict "root" .root "groups" .groups "seccomp" (ternary .root.Values.agents.sandbox.seccomp.profile "" $userns)) }}
{{- if $userns }}
appArmorProfile:
  type: Unconfined
{{- end }}
{{- end }}

{{- define "vibeserve.agentContainerSecurity" -}}
{{- $mode := .Values.agents.sandbox.mode -}}
{{- if eq $mode "privileged" -}}
# Of a user namespace of its own (hostUsers: false), and not root in it.
privileged: true
readOnlyRootFilesystem: true
{{- else -}}
{{ include "vibeserve.containerSecurity" . }}
{{- end }}
{{- if eq $mode "userNamespaces" }}
# bubblewrap mounts a /proc of its own, which the kernel refuses beneath a masked one.
procMount: Unmasked
{{- end }}
{{- end }}

{{- /* gVisor and Kata have a kernel of their own, and their runtimes refuse pods with a user namespace. Argument: root, c (a class's values). */ -}}
{{- define "vibeserve.hostUsers" -}}
{{- if hasKey .c "hostUsers" }}{{ .c.hostUsers }}
{{- else if eq .root.Values.agents.sandbox.mode "runtimeClass" }}true
{{- else }}{{ .root.Values.agents.hostUsers }}
{{- end }}
{{- end }}

{{- /* Argument: root, own (a class's). */ -}}
{{- define "vibeserve.runtimeClass" -}}
{{- with .root.Values.agents.sandbox }}
{{- if eq .mode "runtimeClass" }}
runtimeClassName: {{ required "agents.sandbox.mode runtimeClass needs agents.sandbox.runtimeClassName, such as gvisor or kata" .runtimeClassName }}
{{- else if $.own }}
runtimeClassName: {{ $.own }}
{{- end }}
{{- end }}
{{- end }}

{{- /* Environment of a gpu-agent. Argument: root, env (more of the class). */ -}}
{{- define "vibeserve.agentEnv" -}}
- name: HOME
  value: /tmp
- name: VIBESERVE_AGENT_AGENT_ID
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: VIBESERVE_AGENT_CACHE
  value: /var/cache/vibeserve
- name: VIBESERVE_AGENT_HTTP
  value: 0.0.0.0:9465
- name: VIBESERVE_AGENT_LOG_LEVEL
  value: {{ .root.Values.agents.logLevel }}
- name: VIBESERVE_AGENT_DRAIN_MS
  value: {{ mul .root.Values.agents.drainSeconds 1000 | quote }}
{{- range $name, $value := .env }}
- name: {{ $name }}
  value: {{ include "vibeserve.text" $value | quote }}
{{- end }}
{{- end }}

{{- /* The container of a gpu-agent. Argument: root, name, image (a key of .Values.images), first and last (options before and after those of all), env (of the class),
resources, weights (a mount of them; "": none). */}}
{{- define "vibeserve.agentContainer" -}}
- name: {{ .name }}
  image: {{ include "vibeserve.image" (dict "root" .root "image" .image) }}
  imagePullPolicy: {{ .root.Values.images.pullPolicy }}
  command: [/opt/vibeserve/bin/gpu-agent]
  # A folder below the mount: the agent sets its mode, which only its owner may, and a volume's own root belongs to root.
  args:
    {{- range .first }}
    - {{ . }}
    {{- end }}
    - --data
    - /var/lib/vibeserve-agent/data
    - --join-file
    - /etc/vibeserve/join/line
    - --service-account-token
    - /var/run/secrets/vibeserve/token
    {{- range .last }}
    - {{ . }}
    {{- end }}
  env:
    {{- include "vibeserve.agentEnv" . | nindent 4 }}
  ports:
    - name: http
      containerPort: 9465
  {{- include "vibeserve.probes" (dict "root" .root "startup" "/livez") | nindent 2 }}
  resources:
    {{- toYaml .resources | nindent 4 }}
  securityContext:
    {{- include "vibeserve.agentContainerSecurity" .root | nindent 4 }}
  volumeMounts:
    - name: data
      mountPath: /var/lib/vibeserve-agent
    {{- include "vibeserve.scratchMounts" .root | nindent 4 }}
    {{- include "vibeserve.joinMounts" .root | nindent 4 }}
    {{- with .weights }}
    {{- . | nindent 4 }}
    {{- end }}
{{- end }}

{{- /* Node-local, and as long-lived as the pod: its key and its id come and go together. */ -}}
{{- define "vibeserve.agentData" -}}
- name: data
  {{- if .Values.agents.data.storageClass }}
  ephemeral:
    volumeClaimTemplate:
      spec:
        accessModes: [ReadWriteOnce]
        storageClassName: {{ .Values.agents.data.storageClass }}
        resources:
          requests:
            storage: {{ .Values.agents.data.size }}
  {{- else }}
  emptyDir:
    sizeLimit: {{ .Values.agents.data.size }}
  {{- end }}
{{- end }}
