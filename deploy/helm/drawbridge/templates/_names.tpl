{{- define "drawbridge.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/* The name of a component's objects. Takes root and name. */}}
{{- define "drawbridge.name" -}}
{{- printf "%s-%s" (include "drawbridge.fullname" .root) (.name | replace "_" "-") -}}
{{- end -}}

{{- define "drawbridge.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .name }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{- define "drawbridge.labels" -}}
{{ include "drawbridge.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The SPIFFE id of a component. Takes root and name. */}}
{{- define "drawbridge.spiffeId" -}}
spiffe://{{ .root.Values.trustDomain }}/ns/{{ .root.Release.Namespace }}/sa/{{ include "drawbridge.name" . }}
{{- end -}}

{{- define "drawbridge.isPlaintext" -}}
{{- if eq .Values.certificates.mode "none" }}true{{ end -}}
{{- end -}}

{{- define "drawbridge.scheme" -}}
{{- ternary "http" "https" (eq .Values.certificates.mode "none") -}}
{{- end -}}

{{/* The image of a component. Takes root, image and default, the repository. */}}
{{- define "drawbridge.image" -}}
{{- $image := .image | default dict -}}
{{- $registry := hasKey $image "registry" | ternary $image.registry .root.Values.image.registry -}}
{{- $repository := $image.repository | default .default -}}
{{- $tag := $image.tag | default .root.Values.image.tag | default .root.Chart.AppVersion -}}
{{- with $registry }}{{ . }}/{{ end }}{{ $repository }}:{{ $tag }}
{{- end -}}
