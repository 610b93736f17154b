{{- /* Configuration of every server. Accounts, operator and resolver come from auth.conf, which `vibeserve keys` makes: it is in a Secret. */ -}}
{{- define "vibeserve.natsConf" -}}
{{- $name := printf "%s-nats" (include "vibeserve.fullname" .) -}}
server_name: $POD_NAME
host: 0.0.0.0
port: 4222
http: 0.0.0.0:8222
pid_file: /var/run/nats/nats.pid
max_payload: 1MB
ping_interval: 10s
ping_max: 2
lame_duck_grace_period: 5s
lame_duck_duration: 30s
# TLS begins with the first byte: there is nothing to downgrade.
tls {
  cert_file: /etc/nats/keys/tls.crt
  key_file: /etc/nats/keys/tls.key
  handshake_first: true
  timeout: 5
}
jetstream {
  store_dir: /data/jetstream
  # On disk before it is acknowledged. The default loses acknowledged messages when machines die together.
  sync_interval: always
  max_memory_store: 64MB
  max_file_store: {{ .Values.nats.persistence.maxFileStore }}
}
{{- if gt (int .Values.nats.replicas) 1 }}
cluster {
  name: {{ $name }}
  host: 0.0.0.0
  port: 6222
  tls {
    cert_file: /etc/nats/keys/tls.crt
    key_file: /etc/nats/keys/tls.key
    ca_file: /etc/nats/keys/ca.crt
    verify: true
    timeout: 5
  }
  no_advertise: true
  routes: [
    {{- range $i := until (int .Values.nats.replicas) }}
    tls://{{ $name }}-{{ $i }}.{{ $name }}-headless.{{ $.Release.Namespace }}.svc.{{ $.Values.clusterDomain }}:6222
    {{- end }}
  ]
}
{{- end }}
include ./keys/auth.conf
{{- end }}
