{{- define "federation.fullname" -}}
{{- if contains .Chart.Name .Release.Name -}}
{{- .Release.Name | trunc 52 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name .Chart.Name | trunc 52 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* A name for objects without a namespace, which two releases must not share. */ -}}
{{- define "federation.clusterName" -}}
{{- printf "%s-%s" .Release.Namespace (include "federation.fullname" .) -}}
{{- end -}}

{{- define "federation.selector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: broker
{{- end -}}

{{- define "federation.webhookSelector" -}}
app.kubernetes.io/name: {{ .Chart.Name }}
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/component: admission
{{- end -}}

{{- define "federation.commonLabels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
app.kubernetes.io/part-of: openfaas-iam
{{- end -}}

{{- define "federation.labels" -}}
{{ include "federation.selector" . }}
{{ include "federation.commonLabels" . }}
{{- end -}}

{{- define "federation.webhookLabels" -}}
{{ include "federation.webhookSelector" . }}
{{ include "federation.commonLabels" . }}
{{- end -}}

{{- define "federation.image" -}}
{{- required "image is needed: build the image with the project's Dockerfile, push it to a registry that your cluster reads, and set --set image=registry.example.com/federation:0.1.0" .Values.image -}}
{{- end -}}

{{- define "federation.issuerURL" -}}
{{- $url := required "iam.systemIssuer.url is needed: set it to the public URL of the broker, without a path, such as --set iam.systemIssuer.url=https://gateway.example.com" .Values.iam.systemIssuer.url -}}
{{- if not (regexMatch "^(https://[A-Za-z0-9._-]+|http://(localhost|127[.]0[.]0[.]1))(:[0-9]{1,5})?$" $url) -}}
{{- fail (printf "iam.systemIssuer.url is %s: set it to an https URL without a path and without a slash at its end, such as https://gateway.example.com" (quote $url)) -}}
{{- end -}}
{{- $url -}}
{{- end -}}

{{- /* The host of the public URL, without its port. */ -}}
{{- define "federation.host" -}}
{{- regexReplaceAll ":[0-9]+$" (get (urlParse (include "federation.issuerURL" .)) "host") "" -}}
{{- end -}}

{{- define "federation.documentsNamespace" -}}
{{- .Values.kubernetes.namespace | default .Release.Namespace -}}
{{- end -}}

{{- define "federation.ownDocuments" -}}
{{- if or .Values.documents .Values.iam.kubernetesIssuer.create -}}yes{{- end -}}
{{- end -}}

{{- /* The cluster's CA: as given, or as the cluster has it while the chart is installed. */ -}}
{{- define "federation.clusterCA" -}}
{{- $found := "" -}}
{{- with lookup "v1" "ConfigMap" .Release.Namespace "kube-root-ca.crt" -}}
{{- $found = get (.data | default dict) "ca.crt" | default "" -}}
{{- end -}}
{{- .Values.iam.kubernetesIssuer.caBundle | default $found | required "iam.kubernetesIssuer.caBundle is needed where the cluster cannot be asked: set it to the ca.crt of the ConfigMap kube-root-ca.crt" -}}
{{- end -}}

{{- /* Values that do not go together. A schema could refuse them, but not say why. */ -}}
{{- define "federation.refusals" -}}
{{- $shared := .Values.sharedState.secretName -}}
{{- if and (gt (int .Values.replicas) 1) (not (and $shared .Values.issuerKey.secretName)) -}}
{{- fail "replicas is more than 1: set sharedState.secretName (a Redis, for spent tokens) and issuerKey.secretName (a key that all sign with), as docs/kubernetes.md#the-chart shows" -}}
{{- end -}}
{{- if and (not .Values.persistence.enabled) (not $shared) -}}
{{- fail "persistence.enabled is false: without a volume spent tokens would be forgotten, so set sharedState.secretName (a Redis) and issuerKey.secretName" -}}
{{- end -}}
{{- if and $shared (not .Values.issuerKey.secretName) -}}
{{- fail "sharedState is for several replicas, which must all sign with one key: set issuerKey.secretName" -}}
{{- end -}}
{{- if eq .Values.functionNamespace .Release.Namespace -}}
{{- fail "functionNamespace: who deploys a function chooses its labels, and with those of the broker it would get the broker's requests and pass its NetworkPolicy; install the chart in another namespace than the functions" -}}
{{- end -}}
{{- if ne (empty .Values.signIn.issuer) (empty .Values.signIn.clientId) -}}
{{- fail "signIn.issuer and signIn.clientId need each other: set both to publish where people sign in" -}}
{{- end -}}
{{- if not (or .Values.kubernetes.enabled .Values.documentsConfigMap (include "federation.ownDocuments" .)) -}}
{{- fail "no documents: set kubernetes.enabled, documents or documentsConfigMap" -}}
{{- end -}}
{{- end -}}

{{- /* The settings of the broker that are not secret, as a map in YAML: option to value. */ -}}
{{- define "federation.settings" -}}
{{- $made := dict
    "issuer-url" (include "federation.issuerURL" .)
    "port" "8080"
    "state" "/var/lib/federation"
    "metrics-port" (.Values.metrics.port | toString)
    "function-namespace" .Values.functionNamespace
    "audit-verbs" .Values.eventSubscription.auditing.httpVerbs
    "documents" "" -}}
{{- $documents := list -}}
{{- if include "federation.ownDocuments" . -}}{{- $documents = append $documents "/etc/federation/documents" -}}{{- end -}}
{{- if .Values.documentsConfigMap -}}{{- $documents = append $documents "/etc/federation/configmap" -}}{{- end -}}
{{- /* The image sets FEDERATION_DOCUMENTS, so it is also set where there are none. */ -}}
{{- $_ := set $made "documents" (join ":" $documents) -}}
{{- if .Values.kubernetes.enabled -}}{{- $_ := set $made "kubernetes-namespace" (include "federation.documentsNamespace" .) -}}{{- end -}}
{{- if .Values.bearerTokens -}}{{- $_ := set $made "bearer-token-files" "/var/run/secrets/federation/bearer-tokens" -}}{{- end -}}
{{- with .Values.gateway.url -}}{{- $_ := set $made "upstream" . -}}{{- end -}}
{{- if and .Values.gateway.url .Values.basic_auth -}}{{- $_ := set $made "upstream-secrets" "/var/secrets/basic-auth" -}}{{- end -}}
{{- with .Values.issuerKey -}}
{{- if .secretName -}}
{{- $files := list -}}
{{- range .entries -}}{{- $files = append $files (printf "/var/secrets/issuer-key/%s" .) -}}{{- end -}}
{{- $_ := set $made "signing-key" (join ":" $files) -}}
{{- end -}}
{{- end -}}
{{- if .Values.sharedState.wait -}}{{- $_ := set $made "shared-state-wait" (.Values.sharedState.wait | toString) -}}{{- end -}}
{{- with .Values.trustedProxies -}}{{- $_ := set $made "trusted-proxies" . -}}{{- end -}}
{{- if .Values.signIn.issuer -}}
{{- $_ := set $made "sign-in-issuer" .Values.signIn.issuer -}}
{{- $_ := set $made "sign-in-client-id" .Values.signIn.clientId -}}
{{- with include "federation.scopes" .Values.signIn.scopes -}}{{- $_ := set $made "sign-in-scopes" . -}}{{- end -}}
{{- end -}}
{{- with .Values.eventSubscription.endpoint -}}{{- $_ := set $made "audit-webhook" . -}}{{- end -}}
{{- if and .Values.eventSubscription.endpoint .Values.eventSubscription.endpointSecret -}}
{{- $_ := set $made "audit-webhook-secret" "/var/secrets/webhook/webhook-secret" -}}
{{- end -}}
{{- $given := dict "host" "0.0.0.0" -}}
{{- range $name, $value := .Values.settings -}}{{- $_ := set $given $name (ternary (printf "%.0f" $value) (toString $value) (kindIs "float64" $value)) -}}{{- end -}}
{{- merge $made $given | toYaml -}}
{{- end -}}

{{- /* What a pod's own token volume has, for a pod that does not mount it by itself. */ -}}
{{- define "federation.tokenVolume" -}}
- name: kubernetes-api
  projected:
    defaultMode: 0440
    sources:
      - serviceAccountToken:
          path: token
          expirationSeconds: 3600
      - configMap:
          name: kube-root-ca.crt
          items:
            - key: ca.crt
              path: ca.crt
      - downwardAPI:
          items:
            - path: namespace
              fieldRef:
                fieldPath: metadata.namespace
{{- end -}}

{{- define "federation.affinity" -}}
podAntiAffinity:
  preferredDuringSchedulingIgnoredDuringExecution:
    - weight: 100
      podAffinityTerm:
        topologyKey: kubernetes.io/hostname
        labelSelector:
          matchLabels:
            {{- . | nindent 12 }}
{{- end -}}
