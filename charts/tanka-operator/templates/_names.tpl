{{- /* One operator for a cluster, or for a set of namespaces: its names are fixed, so that rights and Lease can name them. */ -}}
{{- define "tanka.selector" -}}
app.kubernetes.io/name: tanka-operator
{{- end -}}

{{- define "tanka.podLabels" -}}
{{ include "tanka.selector" . }}
app.kubernetes.io/part-of: tanka
{{- end -}}

{{- define "tanka.labels" -}}
{{ include "tanka.podLabels" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{- define "tanka.image" -}}
{{- $image := .Values.image -}}
{{- if $image.digest -}}
{{ .Values.registry }}{{ $image.repository }}@{{ $image.digest }}
{{- else -}}
{{ .Values.registry }}{{ $image.repository }}:{{ $image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end -}}

{{- /* An image of platforms: its name in the values, its repository. */ -}}
{{- define "tanka.platformImage" -}}
{{- $root := index . 0 -}}
{{- $root.Values.registry }}{{ index $root.Values.platformImages (index . 1) | default (printf "tanka/%s:%s" (index . 2) $root.Chart.AppVersion) -}}
{{- end -}}
