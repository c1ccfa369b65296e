{{- define "usercast.name" -}}
{{- if contains .Chart.Name .Release.Name }}{{ .Release.Name | trunc 50 | trimSuffix "-" }}{{ else }}{{ printf "%s-%s" .Release.Name .Chart.Name | trunc 50 | trimSuffix "-" }}{{ end }}
{{- end }}

{{- define "usercast.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "usercast.labels" -}}
{{ include "usercast.selector" . }}
app.kubernetes.io/version: {{ .Values.image.tag | default .Chart.AppVersion | trunc 63 | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- /* The minimum grace period: the time to close all streams. */}}
{{- define "usercast.minGrace" -}}
{{ add .Values.drainDelaySeconds .Values.drainSeconds .Values.writeTimeoutSeconds 5 }}
{{- end }}

{{- define "usercast.grace" -}}
{{- $min := include "usercast.minGrace" . | int }}
{{- if kindIs "invalid" .Values.terminationGracePeriodSeconds }}{{ $min }}
{{- else if lt (.Values.terminationGracePeriodSeconds | int) $min }}
{{- fail (printf "terminationGracePeriodSeconds is %d, but a pod needs at least %d: drainDelaySeconds (%d) + drainSeconds (%d) + writeTimeoutSeconds (%d) + 5. Leave it empty, or reduce these values." (.Values.terminationGracePeriodSeconds | int) $min (.Values.drainDelaySeconds | int) (.Values.drainSeconds | int) (.Values.writeTimeoutSeconds | int)) }}
{{- else }}{{ .Values.terminationGracePeriodSeconds | int }}
{{- end }}
{{- end }}

{{- /* 90 % of a memory limit, in bytes: the rest is for memory that Go's limit does not include. */}}
{{- define "usercast.goMemory" -}}
{{- $limit := toString (ternary (int64 .) . (kindIs "float64" .)) }}
{{- $units := dict "" 1 "k" 1000 "Ki" 1024 "M" 1000000 "Mi" 1048576 "G" 1000000000 "Gi" 1073741824 }}
{{- if not (regexMatch "^[0-9]+(k|Ki|M|Mi|G|Gi)?$" $limit) }}
{{- fail (printf "resources.limits.memory is %q: set a whole number with Mi or Gi, such as 1536Mi, from which the chart computes GOMEMLIMIT" $limit) }}
{{- end }}
{{- div (mul (regexFind "^[0-9]+" $limit | int64) (get $units (regexFind "[A-Za-z]*$" $limit)) 9) 10 }}
{{- end }}

{{- /* Checks for missing and contradictory values. */}}
{{- define "usercast.check" -}}
{{- with .Values }}
{{- if not .image.repository }}{{ fail "image.repository is empty: set it to the image that you have built and pushed, such as registry.example/usercast" }}{{ end }}
{{- if not .redis.urls }}{{ fail "redis.urls is empty: set the URL of Redis, such as [redis://redis:6379/0]" }}{{ end }}
{{- range .redis.urls }}{{ if regexMatch "://[^/@]*:[^/@]+@" . }}{{ fail "redis.urls contains a password, which would be readable in the pod's spec: put it into a secret, and set redis.existingSecret to its name" }}{{ end }}{{ end }}
{{- if and (eq .feed "stream") (gt (len .redis.urls) 1) }}{{ fail "redis.urls has several URLs, but feed: stream needs exactly one, because a stream is on one server: set one URL" }}{{ end }}
{{- if not .auth.mode }}{{ fail "auth.mode is empty: set it to jwt, forward, header or insecure" }}{{ end }}
{{- if eq .auth.mode "jwt" }}
{{- $given := list }}
{{- if .auth.jwt.secretKeys }}{{ $given = append $given "secretKeys" }}{{ end }}
{{- if .auth.jwt.publicKey }}{{ $given = append $given "publicKey" }}{{ end }}
{{- if .auth.jwt.jwksUrl }}{{ $given = append $given "jwksUrl" }}{{ end }}
{{- if ne (len $given) 1 }}{{ fail "auth.jwt needs exactly one of secretKeys, publicKey (both in existingSecret) and jwksUrl" }}{{ end }}
{{- if and (not .auth.jwt.jwksUrl) (not .auth.jwt.existingSecret) }}{{ fail "auth.jwt.existingSecret is empty: set it to the name of the secret with the keys" }}{{ end }}
{{- end }}
{{- if and (eq .auth.mode "forward") (not .auth.forward.url) }}{{ fail "auth.forward.url is empty: set it to the session endpoint of the app, such as http://app/usercast/session" }}{{ end }}
{{- if and (eq .auth.mode "header") (not .auth.trustedProxies) }}{{ fail "auth.trustedProxies is empty, but auth.mode header trusts a proxy: set its address or network" }}{{ end }}
{{- if and (eq .auth.mode "insecure") (not .auth.insecureAnywhere) }}{{ fail "auth.mode insecure lets any client that can connect to the service read the messages of any user: set another mode, or set auth.insecureAnywhere" }}{{ end }}
{{- if and .admin.apiTokenKey (not .admin.existingSecret) }}{{ fail "admin.existingSecret is empty, but admin.apiTokenKey is set: set it to the name of the secret with both tokens" }}{{ end }}
{{- range .extraVolumes }}{{ if has .name (list "settings" "redis" "redis-tls" "tls" "admin" "jwt") }}{{ fail (printf "extraVolumes has %s, which is a volume of the chart: choose another name" .name) }}{{ end }}{{ end }}
{{- if and .ingress.enabled (not .ingress.host) }}{{ fail "ingress.host is empty: set it to the host of the app, so that browsers send its cookies" }}{{ end }}
{{- end }}
{{- end }}

{{- /* The environment variables from the values. */}}
{{- define "usercast.env" -}}
{{- $v := .Values }}
{{- $env := dict
  "USERCAST_LISTEN" ":8080"
  "USERCAST_ADMIN_LISTEN" ":8081"
  "USERCAST_ENV_FILE" "/etc/usercast/usercast.env"
  "USERCAST_RELOAD_EVERY" "10s"
  "USERCAST_FEED" $v.feed
  "USERCAST_AUTH" $v.auth.mode
  "USERCAST_LOG_FORMAT" $v.logFormat
  "USERCAST_PING_INTERVAL" (printf "%ds" (int $v.pingIntervalSeconds))
  "USERCAST_WRITE_TIMEOUT" (printf "%ds" (int $v.writeTimeoutSeconds))
  "USERCAST_DRAIN_DELAY" (printf "%ds" (int $v.drainDelaySeconds))
  "USERCAST_DRAIN" (printf "%ds" (int $v.drainSeconds)) }}
{{- if $v.ingress.enabled }}{{ $_ := set $env "USERCAST_PATH" $v.ingress.path }}{{ end }}
{{- if eq $v.feed "stream" }}{{ $_ := set $env "USERCAST_STREAM_KEY" $v.streamKey }}{{ end }}
{{- if $v.redis.existingSecret }}{{ $_ := set $env "USERCAST_REDIS_PASSWORD_FILE" (printf "/run/usercast/redis/%s" $v.redis.passwordKey) }}{{ end }}
{{- if and $v.redis.existingSecret $v.redis.sentinelPasswordKey }}{{ $_ := set $env "USERCAST_REDIS_SENTINEL_PASSWORD_FILE" (printf "/run/usercast/redis/%s" $v.redis.sentinelPasswordKey) }}{{ end }}
{{- with $v.redis.tls }}
{{- if and .existingSecret .caKey }}{{ $_ := set $env "USERCAST_REDIS_TLS_CA" (printf "/run/usercast/redis-tls/%s" .caKey) }}{{ end }}
{{- if and .existingSecret .certKey }}{{ $_ := set $env "USERCAST_REDIS_TLS_CERT" (printf "/run/usercast/redis-tls/%s" .certKey) }}{{ end }}
{{- if and .existingSecret .keyKey }}{{ $_ := set $env "USERCAST_REDIS_TLS_KEY" (printf "/run/usercast/redis-tls/%s" .keyKey) }}{{ end }}
{{- end }}
{{- if $v.tls.existingSecret }}{{ $_ := set $env "USERCAST_TLS_CERT" "/run/usercast/tls/tls.crt" }}{{ $_ := set $env "USERCAST_TLS_KEY" "/run/usercast/tls/tls.key" }}{{ end }}
{{- if $v.admin.existingSecret }}{{ $_ := set $env "USERCAST_ADMIN_TOKEN_FILE" (printf "/run/usercast/admin/%s" $v.admin.tokenKey) }}{{ end }}
{{- if and $v.admin.existingSecret $v.admin.apiTokenKey }}{{ $_ := set $env "USERCAST_API_TOKEN_FILE" (printf "/run/usercast/admin/%s" $v.admin.apiTokenKey) }}{{ end }}
{{- with $v.auth }}
{{- if eq .mode "jwt" }}
{{- $files := list }}
{{- range .jwt.secretKeys }}{{ $files = append $files (printf "/run/usercast/jwt/%s" .) }}{{ end }}
{{- if $files }}{{ $_ := set $env "USERCAST_JWT_SECRET_FILE" (join "," $files) }}{{ end }}
{{- if .jwt.publicKey }}{{ $_ := set $env "USERCAST_JWT_KEY_FILE" (printf "/run/usercast/jwt/%s" .jwt.publicKey) }}{{ end }}
{{- if .jwt.jwksUrl }}{{ $_ := set $env "USERCAST_JWT_JWKS_URL" .jwt.jwksUrl }}{{ end }}
{{- if .jwt.issuer }}{{ $_ := set $env "USERCAST_JWT_ISSUER" .jwt.issuer }}{{ end }}
{{- if .jwt.audience }}{{ $_ := set $env "USERCAST_JWT_AUDIENCE" .jwt.audience }}{{ end }}
{{- end }}
{{- if eq .mode "forward" }}{{ $_ := set $env "USERCAST_FORWARD_URL" .forward.url }}{{ end }}
{{- if and (has .mode (list "forward" "header")) .trustedProxies }}{{ $_ := set $env "USERCAST_TRUSTED_PROXY" (join "," .trustedProxies) }}{{ end }}
{{- if and (eq .mode "insecure") .insecureAnywhere }}{{ $_ := set $env "USERCAST_AUTH_INSECURE_ANYWHERE" "true" }}{{ end }}
{{- end }}
{{- with $v.resources.limits }}{{ if .memory }}{{ $_ := set $env "GOMEMLIMIT" (include "usercast.goMemory" .memory) }}{{ end }}{{ end }}
{{- $own := concat (keys $env) (list "USERCAST_ALLOW_ORIGIN" "USERCAST_LOG_LEVEL" "USERCAST_REDIS") }}
{{- range $flag, $value := $v.settings }}
{{- $name := printf "USERCAST_%s" ($flag | upper | replace "-" "_") }}
{{- if has $name $own }}{{ fail (printf "settings has %s, which the chart already sets: remove it from settings, and change the value of the chart, if there is one" $flag) }}{{ end }}
{{- /* In templates, all numbers are floats; toString would convert 1000000 to 1e+06. */}}
{{- $_ := set $env $name (kindIs "string" $value | ternary $value (toJson $value)) }}
{{- end }}
{{- range $v.extraEnv }}
{{- if or (has .name $own) (hasKey $env .name) }}{{ fail (printf "extraEnv has %s, which the chart already sets: remove it from extraEnv" .name) }}{{ end }}
{{- end }}
{{- range $name := keys $env | sortAlpha }}
- name: {{ $name }}
  value: {{ get $env $name | quote }}
{{- end }}
{{- end }}

{{- /* The mounted secrets, by the name of their directory. */}}
{{- define "usercast.secrets" -}}
{{- $all := dict }}
{{- with .Values.redis.existingSecret }}{{ $_ := set $all "redis" . }}{{ end }}
{{- with .Values.redis.tls.existingSecret }}{{ $_ := set $all "redis-tls" . }}{{ end }}
{{- with .Values.tls.existingSecret }}{{ $_ := set $all "tls" . }}{{ end }}
{{- with .Values.admin.existingSecret }}{{ $_ := set $all "admin" . }}{{ end }}
{{- if eq .Values.auth.mode "jwt" }}{{ with .Values.auth.jwt.existingSecret }}{{ $_ := set $all "jwt" . }}{{ end }}{{ end }}
{{- toYaml $all }}
{{- end }}
