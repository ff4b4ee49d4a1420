{{/*
The pod of a component. Takes
  root, name      the chart's context, the component
  image           image and default repository, as of drawbridge.image
  settings        the component's values: resources, env, volumes and so on
  port, admin     its ports
  args, env, volumes, mounts   lists that the component adds
*/}}
{{- define "drawbridge.pod" -}}
{{- $root := .root -}}
{{- $settings := .settings -}}
{{- $mode := $root.Values.certificates.mode -}}
metadata:
  labels:
    {{- include "drawbridge.labels" . | nindent 4 }}
  {{- with $settings.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  serviceAccountName: {{ include "drawbridge.name" . }}
  # Tokens are projected one by one, each for its audience.
  automountServiceAccountToken: false
  enableServiceLinks: false
  # The drain, the errors of calls that were cut, the release of resources, and the last spans.
  terminationGracePeriodSeconds: {{ add (divf (add $root.Values.drain.delayMs $root.Values.drain.timeoutMs) 1000 | ceil | int) 10 }}
  securityContext:
    runAsNonRoot: true
    runAsUser: 65532
    runAsGroup: 65532
    fsGroup: 65532
    seccompProfile: { type: RuntimeDefault }
  {{- with $root.Values.image.pullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with $settings.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  topologySpreadConstraints:
    {{- if $settings.topologySpreadConstraints }}
    {{- toYaml $settings.topologySpreadConstraints | nindent 4 }}
    {{- else }}
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "drawbridge.selector" . | nindent 10 }}
    {{- end }}
  containers:
    - name: {{ .name | replace "_" "-" }}
      image: {{ include "drawbridge.image" (dict "root" $root "image" $settings.image "default" .repository) | quote }}
      imagePullPolicy: {{ $root.Values.image.pullPolicy }}
      {{- with .args }}
      args:
        {{- toYaml . | nindent 8 }}
      {{- end }}
      env:
        {{- toYaml (concat .env (include "drawbridge.env" . | fromYamlArray) ($settings.env | default list)) | nindent 8 }}
      ports:
        - { name: {{ .portName }}, containerPort: {{ .port }} }
        - { name: admin, containerPort: {{ .admin }} }
      readinessProbe:
        httpGet: { path: /readyz, port: admin }
        periodSeconds: 3
        timeoutSeconds: 2
        failureThreshold: 1
      livenessProbe:
        httpGet: { path: /healthz, port: admin }
        initialDelaySeconds: 10
        periodSeconds: 10
        timeoutSeconds: 5
        failureThreshold: 3
      resources:
        {{- toYaml $settings.resources | nindent 8 }}
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: { drop: [ALL] }
      volumeMounts:
        {{- if ne $mode "none" }}
        - { name: mtls, mountPath: /etc/drawbridge/mtls, readOnly: true }
        {{- end }}
        - { name: tmp, mountPath: /tmp }
        {{- range concat .mounts ($settings.volumeMounts | default list) }}
        - {{ toJson . }}
        {{- end }}
  volumes:
    {{- if eq $mode "csi" }}
    - name: mtls
      csi:
        driver: {{ $root.Values.certificates.csi.driver }}
        readOnly: true
        {{- with $root.Values.certificates.csi.volumeAttributes }}
        volumeAttributes:
          {{- toYaml . | nindent 10 }}
        {{- end }}
    {{- else if ne $mode "none" }}
    - name: mtls
      # podman 4 reads `optional` without a default.
      secret: { secretName: {{ include "drawbridge.name" . }}-mtls, defaultMode: 0440, optional: false }
    {{- end }}
    - { name: tmp, emptyDir: { sizeLimit: 64Mi } }
    {{- range concat .volumes ($settings.volumes | default list) }}
    - {{ toJson . }}
    {{- end }}
{{- end -}}

{{/* The variables that every service has. Takes root, name, port and admin. */}}
{{- define "drawbridge.env" -}}
{{- $prefix := printf "DRAWBRIDGE_%s" (.name | upper | replace "-" "_") -}}
{{- $files := .root.Values.certificates.files -}}
- { name: {{ $prefix }}_LISTEN, value: "0.0.0.0:{{ .port }}" }
- { name: {{ $prefix }}_ADMIN_LISTEN, value: "0.0.0.0:{{ .admin }}" }
- { name: {{ $prefix }}_DRAIN_DELAY_MS, value: "{{ int .root.Values.drain.delayMs }}" }
- { name: {{ $prefix }}_DRAIN_TIMEOUT_MS, value: "{{ int .root.Values.drain.timeoutMs }}" }
{{- if include "drawbridge.isPlaintext" .root }}
- { name: {{ $prefix }}_ALLOW_PLAINTEXT, value: "true" }
{{- else }}
- { name: {{ $prefix }}_MTLS_CERTIFICATE_FILE, value: "/etc/drawbridge/mtls/{{ $files.certificate }}" }
- { name: {{ $prefix }}_MTLS_KEY_FILE, value: "/etc/drawbridge/mtls/{{ $files.key }}" }
- { name: {{ $prefix }}_MTLS_TRUST_BUNDLE_FILE, value: "/etc/drawbridge/mtls/{{ $files.trustBundle }}" }
{{- if ne .name "auth" }}
- { name: {{ $prefix }}_AUTH_SPIFFE_ID, value: {{ include "drawbridge.spiffeId" (dict "root" .root "name" "auth") | quote }} }
{{- end }}
{{- end }}
- { name: DRAWBRIDGE_LOG, value: {{ .root.Values.telemetry.log | quote }} }
{{- with .root.Values.telemetry.otlpEndpoint }}
- { name: OTEL_EXPORTER_OTLP_ENDPOINT, value: {{ . | quote }} }
{{- end }}
{{- if .root.Values.telemetry.otlpMetrics }}
- { name: OTEL_METRICS_EXPORTER, value: "otlp,prometheus" }
{{- end }}
{{- if .root.Values.telemetry.otlpLogs }}
- { name: OTEL_LOGS_EXPORTER, value: "otlp,console" }
{{- end }}
{{- end -}}

{{/* What each component has besides its Deployment: the account, a disruption budget. */}}
{{- define "drawbridge.companions" -}}
apiVersion: v1
kind: ServiceAccount
metadata:
  name: {{ include "drawbridge.name" . }}
  labels:
    {{- include "drawbridge.labels" . | nindent 4 }}
automountServiceAccountToken: false
{{- if and (ne (toString .settings.disruptionBudget) "false") (gt (int .replicas) 1) }}
---
apiVersion: policy/v1
kind: PodDisruptionBudget
metadata:
  name: {{ include "drawbridge.name" . }}
  labels:
    {{- include "drawbridge.labels" . | nindent 4 }}
spec:
  maxUnavailable: 1
  unhealthyPodEvictionPolicy: AlwaysAllow
  selector:
    matchLabels:
      {{- include "drawbridge.selector" . | nindent 6 }}
{{- end }}
{{- end -}}

{{- define "drawbridge.rollout" -}}
strategy:
  rollingUpdate: { maxSurge: 1, maxUnavailable: 0 }
{{- end -}}

{{/* The volume of the policies, as JSON; of a bundle, for the last good one. */}}
{{- define "drawbridge.policies" -}}
{{- if .Values.policies.bundle.url -}}
{{- dict "name" "policies" "emptyDir" (dict "sizeLimit" "64Mi") | toJson -}}
{{- else -}}
{{- $items := .Values.policies.items -}}
{{- range $path, $_ := .Values.policies.files }}
{{- $items = append $items (dict "key" (replace "/" "__" $path) "path" $path) -}}
{{- end }}
{{- $own := printf "%s-policies" (include "drawbridge.name" (dict "root" . "name" "auth")) -}}
{{- $folder := dict "name" (.Values.policies.existingConfigMap | default $own) -}}
{{- with $items }}{{ $_ := set $folder "items" . }}{{ end -}}
{{- dict "name" "policies" "configMap" $folder | toJson -}}
{{- end -}}
{{- end -}}

{{- /* The audit log of a component: its variables, volumes and mounts, as JSON. Takes root and name. */}}
{{- define "drawbridge.audit" -}}
{{- $audit := .root.Values.audit -}}
{{- $prefix := printf "DRAWBRIDGE_%s_AUDIT" (upper .name) -}}
{{- $env := list -}}
{{- $volumes := list -}}
{{- $mounts := list -}}
{{- if $audit.log -}}
{{- $env = list
  (dict "name" (printf "%s_LOG" $prefix) "value" $audit.log)
  (dict "name" (printf "%s_MODE" $prefix) "value" $audit.mode)
  (dict "name" (printf "%s_MESH" $prefix) "value" (include "drawbridge.fullname" .root)) -}}
{{- if ne $audit.log "-" -}}
{{- $env = append $env (dict "name" (printf "%s_DAYS" $prefix) "value" (toString (int $audit.days))) -}}
{{- $volumes = append $volumes (merge (dict "name" "audit") $audit.volume) -}}
{{- $mounts = append $mounts (dict "name" "audit" "mountPath" (dir $audit.log)) -}}
{{- end -}}
{{- with $audit.key.existingSecret -}}
{{- $env = append $env (dict "name" (printf "%s_KEY_FILE" $prefix) "value" (printf "/etc/drawbridge/audit/%s" $audit.key.key)) -}}
{{- $volumes = append $volumes (dict "name" "audit-key" "secret" (dict "secretName" . "defaultMode" 0440)) -}}
{{- $mounts = append $mounts (dict "name" "audit-key" "mountPath" "/etc/drawbridge/audit" "readOnly" true) -}}
{{- end -}}
{{- end -}}
{{- dict "env" $env "volumes" $volumes "mounts" $mounts | toJson -}}
{{- end -}}
