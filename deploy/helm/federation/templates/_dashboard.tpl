{{- define "federation.dashboardName" -}}
{{- printf "%s-dashboard" (include "federation.fullname" .) -}}
{{- end -}}

{{- define "federation.dashboardSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: dashboard
{{- end -}}

{{- define "federation.dashboardLabels" -}}
{{ include "federation.dashboardSelector" . }}
{{ include "federation.commonLabels" . }}
{{- end -}}

{{- define "federation.dashboardURL" -}}
{{- $url := required "dashboard.publicURL is needed: set it to the public URL of the dashboard, without a path, such as --set dashboard.publicURL=https://dashboard.example.com" .Values.dashboard.publicURL -}}
{{- if not (regexMatch "^(https://[A-Za-z0-9._-]+|http://(localhost|127[.]0[.]0[.]1))(:[0-9]{1,5})?$" $url) -}}
{{- fail (printf "dashboard.publicURL is %s: set it to an https URL without a path and without a slash at its end, such as https://dashboard.example.com" (quote $url)) -}}
{{- end -}}
{{- $url -}}
{{- end -}}

{{- /* The host of the dashboard's public URL in lower case, without its port. */ -}}
{{- define "federation.dashboardHost" -}}
{{- regexReplaceAll ":[0-9]+$" (get (urlParse (include "federation.dashboardURL" .)) "host") "" | lower -}}
{{- end -}}

{{- /* One scope string, of a string or a list; empty if nothing is given. */ -}}
{{- define "federation.scopes" -}}
{{- if kindIs "slice" . -}}{{- join " " . -}}{{- else -}}{{- . -}}{{- end -}}
{{- end -}}

{{- /*
The dashboard's client, as YAML: from dashboard.dashboardIssuer, or from iam.dashboardIssuer, where the
chart of OpenFaaS has it. No message quotes clientSecret: it may be a secret that was put there.
*/ -}}
{{- define "federation.dashboardIssuer" -}}
{{- $own := .Values.dashboard.dashboardIssuer -}}
{{- $theirs := .Values.iam.dashboardIssuer | default dict -}}
{{- $made := dict -}}
{{- range $name := list "url" "clientId" "clientSecret" "scopes" -}}
{{- $here := get $own $name -}}
{{- $there := get $theirs $name -}}
{{- if eq $name "scopes" -}}
{{- $here = include "federation.scopes" $here -}}
{{- $there = include "federation.scopes" $there -}}
{{- end -}}
{{- if and $here $there (ne $here $there) -}}
{{- fail (printf "dashboard.dashboardIssuer.%s and iam.dashboardIssuer.%s are the same setting and differ: set one of them" $name $name) -}}
{{- end -}}
{{- $_ := set $made $name ($here | default $there | default "") -}}
{{- end -}}
{{- $_ := set $made "clientSecretKey" (get $theirs "clientSecretKey" | default $own.clientSecretKey) -}}
{{- if not $made.url -}}
{{- fail "dashboard.dashboardIssuer.url is needed: set it to the issuer URL of your OpenID provider, exactly as its ID tokens have it in iss" -}}
{{- end -}}
{{- if not (regexMatch "^(https://[^/?#@]+|http://(localhost|127[.]0[.]0[.]1)(:[0-9]{1,5})?)(/[^?#]*)?$" $made.url) -}}
{{- fail (printf "dashboard.dashboardIssuer.url is %s: set it to the issuer URL of your OpenID provider, such as https://idp.example.com/realms/people" (quote $made.url)) -}}
{{- end -}}
{{- if not $made.clientId -}}
{{- fail "dashboard.dashboardIssuer.clientId is needed: set it to the client id that the dashboard has at your OpenID provider" -}}
{{- end -}}
{{- if not (regexMatch "^([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)?$" $made.clientSecret) -}}
{{- fail "dashboard.dashboardIssuer.clientSecret must be the name of a Secret, not the secret itself: kubectl create secret generic dashboard-client --from-file client-secret=client-secret.txt" -}}
{{- end -}}
{{- toYaml $made -}}
{{- end -}}

{{- /* Values that do not go together. */ -}}
{{- define "federation.dashboardRefusals" -}}
{{- $dashboard := .Values.dashboard -}}
{{- $host := include "federation.dashboardHost" . -}}
{{- $hosts := list (include "federation.host" . | lower) -}}
{{- range .Values.ingress.hosts -}}{{- $hosts = append $hosts (lower .host) -}}{{- end -}}
{{- if has $host $hosts -}}
{{- fail (printf "dashboard.publicURL is on %s, where the broker is: give the dashboard a host of its own, since functions answer under the broker's and could act as the people who signed in" (quote $host)) -}}
{{- end -}}
{{- if and $dashboard.publicURLGateway (ne $dashboard.publicURLGateway (include "federation.issuerURL" .)) -}}
{{- fail "dashboard.publicURLGateway is not iam.systemIssuer.url: the dashboard works with the broker of this chart alone, so leave it out" -}}
{{- end -}}
{{- if and (gt (int $dashboard.replicas) 1) (not (and $dashboard.sharedState.secretName $dashboard.signingKeySecret)) -}}
{{- fail "dashboard.replicas is more than 1: set dashboard.sharedState.secretName (a Redis, for sessions) and dashboard.signingKeySecret (a key by which all read them), as docs/kubernetes.md#the-dashboard shows" -}}
{{- end -}}
{{- if and $dashboard.sharedState.secretName (not $dashboard.signingKeySecret) -}}
{{- fail "dashboard.sharedState is for several replicas, which must read each other's sessions: set dashboard.signingKeySecret" -}}
{{- end -}}
{{- end -}}

{{- /* The settings of the dashboard that are not secret, as a map in YAML: option to value. */ -}}
{{- define "federation.dashboardSettings" -}}
{{- $issuer := include "federation.dashboardIssuer" . | fromYaml -}}
{{- $made := dict
    "public-url" (include "federation.dashboardURL" .)
    "gateway" (printf "http://%s.%s:8080" (include "federation.fullname" .) .Release.Namespace)
    "gateway-url" (include "federation.issuerURL" .)
    "issuer" $issuer.url
    "client-id" $issuer.clientId
    "state" "/var/lib/federation"
    "port" "8080" -}}
{{- with $issuer.scopes -}}{{- $_ := set $made "scopes" . -}}{{- end -}}
{{- if $issuer.clientSecret -}}{{- $_ := set $made "client-secret-file" (printf "/var/secrets/dashboard-client/%s" $issuer.clientSecretKey) -}}{{- end -}}
{{- if .Values.dashboard.signingKeySecret -}}
{{- $files := list -}}
{{- range .Values.dashboard.signingKeyEntries -}}{{- $files = append $files (printf "/var/secrets/dashboard-key/%s" .) -}}{{- end -}}
{{- $_ := set $made "session-key" (join ":" $files) -}}
{{- end -}}
{{- with .Values.trustedProxies -}}{{- $_ := set $made "trusted-proxies" . -}}{{- end -}}
{{- $given := dict "host" "0.0.0.0" -}}
{{- range $name, $value := .Values.dashboard.settings -}}{{- $_ := set $given $name (ternary (printf "%.0f" $value) (toString $value) (kindIs "float64" $value)) -}}{{- end -}}
{{- merge $made $given | toYaml -}}
{{- end -}}

{{- /* The port of the provider's URL. */ -}}
{{- define "federation.dashboardIssuerPort" -}}
{{- $issuer := include "federation.dashboardIssuer" . | fromYaml -}}
{{- $host := get (urlParse $issuer.url) "host" -}}
{{- regexFind ":[0-9]+$" $host | trimPrefix ":" | default "443" -}}
{{- end -}}
