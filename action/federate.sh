#!/bin/sh
# Logs a CI job in at a broker: exchanges the job's ID token for a short-lived access token.
#
#   federate.sh github     log a GitHub Actions job in; its inputs are in FEDERATION_*
#   federate.sh gitlab     log a GitLab CI job in
#   federate.sh exports    print what the shell of a GitLab job evaluates after its login
#   federate.sh logout     revoke the access tokens of this job's logins and remove their files
#
# No token appears in an argument list, in a trace or in the environment of a program, and each is
# masked before anything can print it. Temporary errors are retried; refusals are final. Text from
# outside never begins a line that the runner could take for a command. Files are deleted one by
# one by name, never recursively.
#
# POSIX sh with curl and awk, because runners and job images often have nothing else.
# gitlab/federate.yml carries a copy of this file: after a change, run `make gitlab`.

{ set +x; } 2>/dev/null
set +e +a -u
unset IFS
umask 077
newline='
'

# Take the tokens out of the environment before any program starts. `unset` comes first because
# a variable that the job exported stays exported when it is assigned.
unset id_token request_token
id_token=${FEDERATION_ID_TOKEN-}
request_token=${ACTIONS_ID_TOKEN_REQUEST_TOKEN-}
unset FEDERATION_ID_TOKEN ACTIONS_ID_TOKEN_REQUEST_TOKEN

# Turn the rest of the environment into plain variables of this shell. Programs get only what curl
# needs: SSLKEYLOGFILE, for one, would have it write down the keys of its TLS connections. A line
# of a value may look like a name too; a wrong name does no harm.
unexport() {
  eval "set -- \"\${$1-}\"; command unset $1 && $1=\$1"
}

unset line name
IFS=$newline
set -f
for line in $(export -p); do
  line=${line#export }
  name=${line#declare -x }
  name=${name%%=*}
  case $name in
    '' | [0-9]* | *[!A-Za-z0-9_]* | PATH | HOME | TMPDIR | PWD | LD_LIBRARY_PATH) ;;
    SSL_CERT_FILE | SSL_CERT_DIR | CURL_CA_BUNDLE) ;;
    HTTPS_PROXY | ALL_PROXY | NO_PROXY | http_proxy | https_proxy | all_proxy | no_proxy) ;;
    *) unexport "$name" 2>/dev/null ;;
  esac
done
set +f
unset IFS
LC_ALL=C
export LC_ALL

# The job may have variables with these names. They start empty, so that a variable of the job
# cannot decide what this script does or deletes.
for name in absent advice answer ask_again audience authority body claims curl_code debug direct ended expected \
  expires_at export_as faas_cli form function functions_asked gateway given lacking login meant_for other page parent \
  pause payload platform policies problem reason request_id rest role roles roles_asked said scope seconds server \
  slip state status subject system token tool try unexpected url; do
  unset "$name"
  eval "$name="
done

main() {
  case ${1-} in
    github | gitlab) platform=$1 ;;
    exports) platform=gitlab ;;
    logout) if [ "${GITHUB_ACTIONS-}" = true ]; then platform=github; else platform=gitlab; fi ;;
    *)
      printf 'usage: federate.sh github|gitlab|exports|logout\n' >&2
      exit 2
      ;;
  esac
  system=GitLab
  [ "$platform" = gitlab ] || system=GitHub
  [ "$platform${FORGEJO_ACTIONS-}" != githubtrue ] || system=Forgejo
  find_state
  case $1 in
    exports) is_private "$state" && [ ! -L "$state/exports" ] && cat "$state/exports" ;;
    logout) log_out ;;
    *) log_in ;;
  esac
}

log_in() {
  require_tools
  open_login
  read_inputs
  [ "${CI_DEBUG_TRACE-}" != true ] || warn "CI_DEBUG_TRACE is on: everybody who may read this job's" \
    'log sees its tokens. Turn it off where it is not needed.'
  if [ "$platform" = gitlab ]; then check_gitlab_token; else check_github_request; fi
  [ "$debug" != true ] || show_claims
  [ "$platform" != gitlab ] || check_gitlab_audience
  [ -z "$slip" ] || warn "The input url has $slip. The login uses $url; write that."
  with_retries exchange || unreachable
  read_answer
  [ -z "$expected" ] || check_roles
  keep_token
  if [ "$platform" = github ]; then publish_to_github; else publish_to_gitlab; fi
  say "Logged in to $url as $subject until $expires_at. Roles: ${roles:-none}. Policies: ${policies:-none}."
  summarise 'logged in' "broker    $url
subject   $subject
roles     $roles
policies  $policies
until     $expires_at"
}

log_out() {
  require_tools
  ended=0
  if is_private "$state"; then
    for login in "$state"/login.*; do
      is_login "$login" || continue
      end_login
      ended=$((ended + 1))
    done
  fi
  [ "$ended" -gt 0 ] || nothing_to_end
  [ "$platform" = gitlab ] && is_private "$state" || return 0
  rm -f "$state/exports"
  rmdir "$state" 2>/dev/null || :
}

# --- inputs and folders ---------------------------------------------------------------------------

require_tools() {
  for tool in curl awk sed tr mktemp date; do
    command -v "$tool" >/dev/null 2>&1 || lacking="$lacking $tool"
  done
  [ -z "$lacking" ] || fail "This runner lacks:$lacking." \
    'Install what is missing before the login, for example: apk add curl'
}

read_inputs() {
  read_url
  audience=$(trimmed "${FEDERATION_AUDIENCE-}")
  audience=${audience:-$url}
  scope=$(trimmed "${FEDERATION_SCOPE-}")
  faas_cli=$(trimmed "${FEDERATION_FAAS_CLI:-false}")
  export_as=$(trimmed "${FEDERATION_EXPORT-}")
  debug=$(trimmed "${FEDERATION_DEBUG:-false}")
  expected=$(words "${FEDERATION_EXPECT_ROLE-}")
  roles_asked=$(words "${FEDERATION_ROLE-}")
  functions_asked=$(words "${FEDERATION_FUNCTION_AUDIENCE-}")
  [ -z "$functions_asked" ] || scope=function
  [ -n "$url" ] || bad_url 'The input url is missing.'
  case $url in
    *[?#]*) bad_url "The input url, $url, is not an https URL." ;;
    *://*) ;;
    *) bad_url "The input url, $url, is not an https URL: it does not begin with https://." ;;
  esac
  is_safe_url "$url" || bad_url "The input url, $url, is not an https URL."
  is_line "$audience" || fail 'The input audience holds a line break or a control character.' \
    'Give one audience, or leave the input out.'
  case $scope in '' | function) ;; *)
    fail "The input scope is $scope." 'The only scope is function. Leave it out to deploy.' ;;
  esac
  case $faas_cli in true | false) ;; *) fail "The input faas-cli is $faas_cli." 'Write true or false.' ;; esac
  case $debug in true | false) ;; *) fail "The input debug is $debug." 'Write true or false.' ;; esac
  [ "$faas_cli$scope" != truefunction ] || fail \
    'A function token only invokes functions, so faas-cli cannot log in with it.' \
    'Leave out scope and function-audience, or set faas-cli to false.'
  case $roles_asked in *[!a-z0-9.\ -]*)
    fail "The input role is $roles_asked." 'Give the names of Roles, separated by spaces or lines.' ;;
  esac
  case $expected in *[!a-z0-9.\ -]*)
    fail "The input expect-role is $expected." 'Give the names of Roles, separated by spaces or lines.' ;;
  esac
  [ -z "$expected" ] || [ "$scope" != function ] || fail \
    'A function token does not say which Roles admitted the job, so expect-role cannot be checked.' \
    'Leave out expect-role, and name the Roles that may take part in the input role.'
  case $functions_asked in *[!A-Za-z0-9._:\ -]*)
    fail "The input function-audience is $functions_asked." 'Give <namespace>:<function>, separated by spaces.' ;;
  esac
  case $export_as in [0-9]* | *[!A-Za-z0-9_]* | GITHUB_* | RUNNER_* | ACTIONS_*)
    fail "The input export is $export_as, which cannot name a variable." 'Give a name such as FEDERATION_TOKEN.' ;;
  esac
  ! is_taken "$export_as" || fail \
    "The input export is $export_as, and other programs already give that variable a meaning." \
    'The access token would take its place in every later step. Give a name such as FEDERATION_TOKEN.'
}

# Sets $url without what people copy along with it, and $slip, which names that.
read_url() {
  given=${FEDERATION_URL-}
  url=$(trimmed "$given")
  [ "$url" = "$given" ] || slip='a blank or a line end around it'
  url=$(without_slash "$url")
  for name in /oauth/token /oauth/revoke /.well-known/openid-configuration; do
    case $url in ?*"$name")
      slip="$name at its end"
      url=$(without_slash "${url%"$name"}") ;;
    esac
  done
}

# True if a token in a variable of that name would change how later steps run, or would be sent to
# somebody as the name of a proxy or of a server.
is_taken() {
  case $1 in
    PATH | HOME | USER | LOGNAME | SHELL | PWD | OLDPWD | TMPDIR | TMP | TEMP | TERM | TZ | IFS | CI | ACT) return 0 ;;
    ENV | BASH_* | BASHOPTS | SHELLOPTS | PS[0-9] | PROMPT_COMMAND | CDPATH | EDITOR | PAGER | LANG | LC_* | XDG_*) return 0 ;;
    LD_* | DYLD_* | GCONV_PATH | NODE_* | NPM_CONFIG_* | PYTHON* | PERL5* | PERLLIB | RUBY* | GEM_* | BUNDLE_*) return 0 ;;
    JAVA_* | JDK_JAVA_OPTIONS | _JAVA_OPTIONS | CLASSPATH | GO | GO11* | CGO_* | CC | CXX | CFLAGS | MAKEFLAGS) return 0 ;;
    GIT_* | SSH_* | DOCKER_* | KUBECONFIG | CURL_* | SSL_* | SSLKEYLOGFILE | OPENSSL_*) return 0 ;;
    *_PROXY | *_proxy | OPENFAAS_CONFIG | OPENFAAS_URL | FEDERATION_ID_TOKEN | FEDERATION_URL) return 0 ;;
    GOPATH | GOROOT | GOBIN | GOENV | GOCACHE | GOFLAGS | GOPROXY | GOSUMDB | GOAUTH | GOTOOLCHAIN | GODEBUG | GONO*) return 0 ;;
    GITLAB_* | CI_* | GITEA_* | FORGEJO_* | npm_config_*) return 0 ;;
  esac
  return 1
}

bad_url() {
  fail "$1" 'Give the public https URL of the broker, without a query: on GitHub as input url of the step, on
GitLab as input url of the include, in a job with extends: .federation.'
}

# Outside the workspace, so that artifacts, caches and images do not contain it.
find_state() {
  if [ "$platform" = github ]; then
    state=${RUNNER_TEMP:-${TMPDIR:-/tmp}}/federation
    return
  fi
  # This folder of GitLab's runner is shared by the containers of a job; /tmp is not.
  parent=${RUNNER_TEMP_PROJECT_DIR:-${CI_PROJECT_DIR:-/tmp/project}.tmp}
  mkdir -p "$parent" 2>/dev/null
  [ -w "$parent" ] || parent=${TMPDIR:-/tmp}
  state=$parent/federation-${CI_JOB_ID:-job}
  # Only a number is safe within a path: anything else could name another folder.
  case ${CI_JOB_ID-} in *[!0-9]*) state=$parent/federation-job ;; esac
}

# Each login has a new folder of its own. In GitLab an earlier job of the same user may have made
# $state, with links where this job writes, so a file in $state is only ever renamed into place.
open_login() {
  is_line "$state" || fail 'The temporary folder of this runner has a line break in its name.' 'Rename it.'
  mkdir -p "${state%/*}" 2>/dev/null
  mkdir -m 700 "$state" 2>/dev/null || is_private "$state" || fail \
    "The folder $state cannot be made, or is somebody else's." 'Clean the temporary folder of this runner.'
  rm -f "$state/exports" || fail "$state/exports cannot be removed." 'Clean the temporary folder of this runner.'
  login=$(mktemp -d "$state/login.XXXXXX") || fail \
    "Nothing can be written into $state." 'See whether the disk of this runner is full.'
}

# True if $1 is a folder, not a link to one, that only this user may enter.
is_private() {
  # shellcheck disable=SC2012  # the mode and the owner of one known folder, not names
  [ -d "$1" ] && [ ! -L "$1" ] &&
    ls -dn "$1" | awk -v me="$(id -u)" '{ exit !($1 ~ /^drwx------/ && $3 == me) }'
}

# True if $1 is a login folder whose files are no links: a link could lead to another program's token.
is_login() {
  is_private "$1" || return 1
  for name in token url entry; do [ ! -L "$1/$name" ] || return 1; done
  [ -f "$1/token" ] && [ -f "$1/url" ]
}

remove_login() {
  for name in token url export entry config.yml openfaas-url exports headers error; do rm -f "$login/$name"; done
  rmdir "$login" 2>/dev/null
}

# --- the job's identity ---------------------------------------------------------------------------

check_github_request() {
  id_token=
  [ "${RUNNER_OS-}" != Windows ] || fail \
    'The action runs on Linux and macOS runners; this one is Windows.' 'Log in from a job on Linux.'
  [ -n "${ACTIONS_ID_TOKEN_REQUEST_URL-}" ] || absent=ACTIONS_ID_TOKEN_REQUEST_URL
  [ -n "$request_token" ] || absent="${absent:+$absent and }ACTIONS_ID_TOKEN_REQUEST_TOKEN"
  [ -z "$absent" ] || no_permission
  mask "$request_token"
  is_safe_url "$ACTIONS_ID_TOKEN_REQUEST_URL" || fail \
    'ACTIONS_ID_TOKEN_REQUEST_URL is not an https URL.' 'The runner sets it, so look at the
setup of this runner. A token is never asked for in clear.'
  is_line "$request_token" || fail 'ACTIONS_ID_TOKEN_REQUEST_TOKEN holds a line break.' 'Look at the setup of this runner.'
}

no_permission() {
  case ${GITEA_ACTIONS-}/$system in
    true/GitHub) fail "This job runs on Gitea and got no way to ask for an ID token: $absent not set." \
      'Releases of Gitea so far issue no ID tokens to jobs, so adding permissions does not help. Deploy from
a CI system that issues them; docs/providers.md lists those that are known.' ;;
    */Forgejo) fail "This job may not ask Forgejo for an ID token: $absent not set." \
      'Add to the workflow or the job:
  enable-openid-connect: true
If it is there, the server or its runner is too old to issue ID tokens, or the job runs for a fork.' ;;
  esac
  case ${GITHUB_EVENT_NAME-} in pull_request*)
    [ "${FEDERATION_HEAD_REPOSITORY:-${GITHUB_REPOSITORY-}}" = "${GITHUB_REPOSITORY-}" ] || fail \
      "This pull request comes from a fork, $FEDERATION_HEAD_REPOSITORY, and GitHub gives such a job no ID token." \
      'Deploy from a push, after the merge. Do not turn to pull_request_target: it would run the code
of the fork with your identity. Skip the job for forks with:
  if: github.event.pull_request.head.repo.full_name == github.repository' ;;
  esac
  [ "${ACT-}" != true ] || fail "This job runs under act, which cannot issue an ID token: $absent not set." \
    'act has no token service, so adding permissions does not help. Run the job on GitHub. To see
here what a job would get, use federation explain or federation demo.'
  fail "This job may not ask GitHub for an ID token: $absent not set." \
    'Add to the job, and in a reusable workflow also to the job that calls it:
  permissions:
    id-token: write
    contents: read'
}

check_gitlab_token() {
  [ -n "$id_token" ] || fail 'This job has no FEDERATION_ID_TOKEN.' \
    "Add \`extends: .federation\` to the job, or:
  id_tokens:
    FEDERATION_ID_TOKEN:
      aud: $url"
  is_jwt "$id_token" || fail 'FEDERATION_ID_TOKEN is no ID token.' \
    'Remove the CI/CD variable of that name; id_tokens sets it.'
}

# Otherwise a person who may set a pipeline variable could send the token elsewhere.
check_gitlab_audience() {
  meant_for=$(claim "$id_token" aud)
  case $meant_for in *"$newline"*) fail \
    "FEDERATION_ID_TOKEN is for several audiences: $(printf '%s\n' "$meant_for" | joined)." \
    "Each service that gets such a token could use it at the others. Under id_tokens write one audience:
  FEDERATION_ID_TOKEN:
    aud: $url
A token for another service is another entry of id_tokens." ;;
  esac
  [ "$meant_for" = "$url" ] || [ "$meant_for" != "$given" ] || fail \
    "The input url has ${slip:-a slash at its end}, and GitLab copied it into the audience of the ID token." \
    "In the include write:
  inputs:
    url: $url"
  [ "$meant_for" = "$url" ] || fail \
    "The ID token is for $(one_line "$meant_for"), but would be sent to $url: that is the wrong audience." \
    'The input url of the include, without a slash at its end, sets both. Look for id_tokens in the
job and for a variable FEDERATION_URL.'
}

# --- requests -------------------------------------------------------------------------------------
# One try. A GitHub job asks for a new ID token each time: the broker may have spent the first one
# although its answer was lost.
exchange() {
  ask_ci || return 1
  ask_broker && return 0
  [ "$platform" = gitlab ] || id_token=
  return 1
}

# GitLab gave the job its ID token when it began.
ask_ci() {
  [ -n "$id_token" ] || ask_github
}

ask_again='Run the job again. If it fails again, check that it has permissions: id-token: write.'

ask_github() {
  server=$(host_of "$ACTIONS_ID_TOKEN_REQUEST_URL")
  send "url = $(quoted "$ACTIONS_ID_TOKEN_REQUEST_URL")
header = $(quoted "Authorization: bearer $request_token")
get
data-urlencode = $(quoted "audience=$audience")" || return 1
  case $status in
    200) ;;
    # Now and then GitHub answers 403, "Pending", to a job that may ask, and the next try gets a token.
    403) return 1 ;;
    *) fail "$system answered HTTP $status instead of an ID token$(told)." "$ask_again" ;;
  esac
  id_token=$(member "$body" value)
  mask "$id_token"
  is_jwt "$id_token" || fail "$system's answer holds no ID token." 'Run the job again.'
}

ask_broker() {
  server=$(host_of "$url")
  form="data-urlencode = \"grant_type=urn:ietf:params:oauth:grant-type:token-exchange\"
data-urlencode = \"subject_token_type=urn:ietf:params:oauth:token-type:id_token\"
data-urlencode = \"subject_token=$id_token\""
  for role in $roles_asked; do form="$form${newline}data-urlencode = \"role=$role\""; done
  [ -z "$scope" ] || form="$form${newline}data-urlencode = \"scope=$scope\""
  for function in $functions_asked; do
    form="$form${newline}data-urlencode = \"audience=$function\""
  done
  send "url = $(quoted "$url/oauth/token")$newline$form"
}

# Sends a request and sets $status, $body and $curl_code; returns 1 if another try may help.
# curl reads its settings, tokens included, from standard input. -q: a .curlrc might print headers.
# http is for this machine alone, and never by a proxy, which would see the tokens.
send() {
  direct=
  case $1 in 'url = "http://'*) direct='noproxy = "*"' ;; esac
  answer=$(
    printf '%s\n' silent show-error globoff 'proto = "=http,https"' \
      'connect-timeout = 5' 'max-time = 15' 'max-filesize = 65536' \
      'header = "Accept: application/json"' 'user-agent = "federation-ci"' \
      "dump-header = $(quoted "$login/headers")" 'write-out = "\n%{http_code}"' "$direct" "$1" |
      curl -q --config - 2>"$login/error"
  )
  curl_code=$?
  status=${answer##*"$newline"}
  body=${answer%"$newline"*}
  case $curl_code in
    0) case $status in 429 | 5??) return 1 ;; *) return 0 ;; esac ;;
    5 | 6 | 7 | 16 | 18 | 28 | 35 | 52 | 55 | 56 | 92) return 1 ;;
    *) unreachable ;;
  esac
}

with_retries() {
  pause=1
  for try in 1 2 3 4; do
    "$@" && return 0
    [ "$try" -lt 4 ] || return 1
    seconds=$(retry_after)
    sleep "${seconds:-$pause}"
    pause=$((pause * 2))
  done
}

retry_after() {
  [ "$curl_code" -eq 0 ] || return 0
  sed -n 's/^[Rr][Ee][Tt][Rr][Yy]-[Aa][Ff][Tt][Ee][Rr]:[ ]*\([0-9][0-9]*\).*/\1/p' "$login/headers" |
    awk 'END { if (NR) print ($1 > 10 ? 10 : $1) }'
}

unreachable() {
  read_refusal
  case $curl_code in
    0)
      [ "$status" != 403 ] || fail "$system answered HTTP 403 instead of an ID token, four times$(told)." "$ask_again"
      [ -n "$reason" ] || fail "$server answered HTTP $status, four times$(told)." 'Run the job again later.'
      fail "$server cannot answer at the moment ($reason): $problem" "Run the job again later. If it fails again, \
give the operator of the broker the request id $request_id." ;;
    35 | 51 | 53 | 54 | 58 | 59 | 60 | 64 | 66 | 77 | 80 | 82 | 83 | 90 | 91)
      fail "No TLS connection to $server can be trusted: $(curl_error)" \
        'If its certificate comes from a private CA, put the CA into a file on the runner and name the
file in CURL_CA_BUNDLE. Verification is never switched off.' ;;
    *)
      fail "$server could not be reached: $(curl_error)" \
        'Check the input url, the network of this runner, and HTTPS_PROXY and NO_PROXY.' ;;
  esac
}

# What an answer that is no broker's says about the error, after a colon; empty if it says nothing.
# A server may repeat the token that it was sent.
told() {
  said=$(one_line "$(member "$body" message)" | sed 's/eyJ[A-Za-z0-9_-]*[A-Za-z0-9_.-]*/.../g')
  [ -z "$said" ] || printf ': %.300s' "$said"
}

curl_error() {
  tr -d '\r' <"$login/error" | sed -n '1p'
}

# --- the broker's answer --------------------------------------------------------------------------

read_refusal() {
  reason=$(member "$body" reason)
  problem=$(member "$body" error_description)
  request_id=$(member "$body" request_id)
  page=$(one_line "$(member "$body" error_uri)")
}

read_answer() {
  read_refusal
  case $status in
    200) ;;
    3??) fail "$url answered with a redirect, which is not followed with a token." \
      'Give the address that it leads to as input url.' ;;
    *)
      [ -n "$reason" ] || fail "$server answered HTTP $status, but not as a broker does." 'Check the input url.'
      advise
      fail "The broker at $url refused ($reason): $problem" "$advice
A refusal is not retried. ${page:-docs/refusals.md} says more about $reason. The broker's log has
the details under request id $request_id, and so has its audit trail if the ID token is valid." "$(observed_claims)"
      ;;
  esac
  token=$(member "$body" access_token)
  mask "$token"
  is_jwt "$token" || fail "$server answered, but not as a broker does." 'Check the input url.'
  roles=$(claim "$token" role | joined)
  policies=$(claim "$token" policy | joined)
  subject=$(one_line "$(claim "$token" sub)")
  expires_at=$(utc "$(claim "$token" exp)")
}

# Sets $advice.
advise() {
  case $reason in
    wrong_audience) advice="The ID token is for $(one_line "$(claim "$id_token" aud)"). Ask for one that the JwtIssuer
lists under aud, most often the public URL of the broker, exactly as written there." ;;
    untrusted_issuer) advice="The ID token was issued by $(one_line "$(claim "$id_token" iss)"). To trust it, the operator
adds a JwtIssuer with exactly this iss." ;;
    no_role_admits) advice='Run the job from the branch or environment that a Role asks for, or have the operator
compare the claims below with the Role.' ;;
    role_not_admitted) advice='A Role in the input role does not exist or does not admit this job. Leave the input
out, or have the operator compare the claims below with the Role.' ;;
    event_not_allowed) advice='People outside can start such a job. Deploy from push, release, schedule or
workflow_dispatch; on GitLab from a branch pipeline.' ;;
    already_used) advice='One ID token is one exchange. Retry the whole job, or add a second entry to id_tokens.' ;;
    invalid_target | invalid_scope) advice='Write function-audience as <namespace>:<function>, and have the operator
grant Function:Invoke.' ;;
    expired | not_yet_valid) advice='Run the job again. If it fails again, the clocks of runner, CI system and
broker differ.' ;;
    missing_claim | not_a_ci_token) advice='The operator compares the claims below with the provider that the
JwtIssuer names.' ;;
    unknown_key) advice='If the CI system has just replaced its keys, run the job again in a minute. Else the
operator compares the keys of the issuer with the JwtIssuer.' ;;
    policy_missing) advice='The operator looks for the Role or Policy that the message or the log of the broker
names.' ;;
    *) advice='Give the operator of the broker the request id below.' ;;
  esac
}

observed_claims() {
  case $reason in
    no_role_admits | role_not_admitted | event_not_allowed | missing_claim | not_a_ci_token | \
      wrong_audience | untrusted_issuer)
      printf 'The claims of this job:\n\n'
      payload_of "$id_token" | json claims
      printf '\nSave them as claims.json; this shows the operator each condition that failed:\n\n'
      printf '  federation explain --documents DOCUMENTS --claims claims.json\n' ;;
  esac
}

# The input debug: nothing is sent to the broker.
show_claims() {
  with_retries ask_ci || unreachable
  problem='The input debug is true, so the login stopped before the exchange.'
  advice='Roles and policies decide by the claims of this job, which follow. Remove the input to log in.'
  claims=$(payload_of "$id_token" | json claims)
  complain "$problem" "$advice"
  say "$claims"
  summarise 'the claims of this job' "$problem$newline$advice$newline$newline$claims"
  remove_login
  exit 1
}

# The input expect-role: a token that more or other Roles gave is revoked, and no later step gets it.
check_roles() {
  set -f
  for role in $(claim "$token" role); do
    case " $expected " in *" $role "*) ;; *) unexpected="${unexpected:+$unexpected, }$role" ;; esac
  done
  set +f
  [ -n "$roles" ] && [ -z "$unexpected" ] && return
  with_retries revoke || status=
  said='is revoked'
  [ "$status" = 200 ] || said="could not be revoked and ends by itself at $expires_at"
  fail "Roles admitted this job that the input expect-role does not name: ${unexpected:-none at all}." \
    "The access token $said; no later step gets it. Expected were: $expected. Add the Role to expect-role,
have the operator narrow it, or let only the expected ones take part with the input role."
}

# --- what later steps get -------------------------------------------------------------------------

keep_token() {
  printf '%s\n' "$token" >"$login/token"
  printf '%s\n' "$url" >"$login/url"
  printf '%s\n' "$export_as" >"$login/export"
  rm -f "$login/headers" "$login/error"
  [ "$faas_cli" != true ] || write_faas_cli_config
}

# A config for this job alone. In CI, faas-cli looks in the current folder, so a step in another
# folder would not find its config. OPENFAAS_CONFIG works in every folder.
write_faas_cli_config() {
  gateway=$(printf '%s' "$url" | tr '[:upper:]' '[:lower:]')
  printf -- '- gateway: %s\n  auth: oauth2\n  token: %s\n' "$gateway" "$token" >"$login/entry"
  {
    printf 'auths:\n'
    cat "$login/entry"
    for other in "$state"/login.*; do # other gateways that this job logged in to
      is_login "$other" && [ -f "$other/entry" ] || continue
      [ "$(cat "$other/url")" = "$url" ] || cat "$other/entry"
    done
  } >"$login/config.yml"
  case ${OPENFAAS_CONFIG-} in '' | "$state"/*) ;; *)
    warn "OPENFAAS_CONFIG was $OPENFAAS_CONFIG and is now $login." \
      'The logins in the first folder are left alone; faas-cli does not see them here.' ;;
  esac
  case ${OPENFAAS_URL-} in '' | "$url" | "$url/") ;; *)
    warn "OPENFAAS_URL is $OPENFAAS_URL, but this login is for $url." 'Unset it, or deploy with --gateway.' ;;
  esac
}

publish_to_github() {
  printf '%s\n' "token=$token" "expires-at=$expires_at" "roles=$roles" "policies=$policies" >>"$GITHUB_OUTPUT"
  [ -z "$export_as" ] || printf '%s=%s\n' "$export_as" "$token" >>"$GITHUB_ENV"
  [ "$faas_cli" = true ] || return 0
  printf 'OPENFAAS_CONFIG=%s\n' "$login" >>"$GITHUB_ENV"
  [ -z "${OPENFAAS_URL-}" ] || return 0
  : >"$login/openfaas-url" # the logout empties what the login set
  printf 'OPENFAAS_URL=%s\n' "$url" >>"$GITHUB_ENV"
}

publish_to_gitlab() {
  {
    printf 'export FEDERATION_TOKEN=%s\n' "$(shell_word "$token")"
    printf 'unset FEDERATION_ID_TOKEN\n'
    if [ "$faas_cli" = true ]; then
      printf 'export OPENFAAS_CONFIG=%s\n' "$(shell_word "$login")"
      [ -n "${OPENFAAS_URL-}" ] || printf 'export OPENFAAS_URL=%s\n' "$(shell_word "$url")"
    fi
  } >"$login/exports"
  mv -f "$login/exports" "$state/exports"
}

# --- logging out ----------------------------------------------------------------------------------

end_login() {
  url=$(cat "$login/url")
  token=$(cat "$login/token")
  export_as=$(cat "$login/export")
  mask "$token"
  if ! is_jwt "$token" || ! is_safe_url "$url"; then # not written by this script
    remove_login
    return
  fi
  server=$(host_of "$url")
  if with_retries revoke && [ "$status" = 200 ]; then
    say "The access token of $url is revoked."
  else
    warn "The access token could not be revoked at $url; it ends by itself at" \
      "$(utc "$(claim "$token" exp)")."
  fi
  [ ! -f "$login/config.yml" ] || forget OPENFAAS_CONFIG
  case ${OPENFAAS_URL-} in '' | "$url") [ ! -f "$login/openfaas-url" ] || forget OPENFAAS_URL ;; esac
  [ -z "$export_as" ] || forget "$export_as"
  remove_login
}

revoke() { send "url = $(quoted "$url/oauth/revoke")${newline}data-urlencode = \"token=$token\""; }

forget() { [ "$platform" != github ] || printf '%s=\n' "$1" >>"$GITHUB_ENV"; }

nothing_to_end() {
  if [ "$platform" = github ] || [ -d "$state" ]; then
    say 'The login of this job did not run or did not succeed, so there is nothing to end.'
    return
  fi
  complain 'THE LOGIN OF .federation DID NOT RUN IN THIS JOB.' \
    'The job replaced before_script, so it has no access token and no login for faas-cli. Write:
  before_script:
    - !reference [.federation, before_script]
    - your own commands'
}

# --- messages -------------------------------------------------------------------------------------
# fail PROBLEM ADVICE [DETAILS]
fail() {
  complain "$1" "$2"
  [ -z "${3-}" ] || say "$3"
  summarise 'login failed' "$1$newline$newline$2${3:+$newline$newline$3}"
  [ -z "$login" ] || remove_login
  exit 1
}

complain() {
  if [ "$platform" = github ]; then
    annotate error "$1$newline$2"
  else
    say "${newline}ERROR: $1$newline$newline$2$newline"
  fi
}

warn() {
  if [ "$platform" = github ]; then annotate warning "$*"; else say "WARNING: $*"; fi
}

annotate() {
  printf '::%s title=Federation::%s\n' "$1" "$(command_data "$2")"
}

say() { printf '%s\n' "$1" | harmless; }

# Indented, so that nothing in the text is Markdown.
summarise() {
  [ -n "${GITHUB_STEP_SUMMARY-}" ] && [ "$platform" = github ] || return 0
  {
    printf '### Federation: %s\n\n' "$1"
    printf '%s\n' "$2" | harmless | sed 's/^/    /'
    printf '\n'
  } >>"$GITHUB_STEP_SUMMARY"
}

mask() {
  [ "$platform" != github ] || [ -z "$1" ] || printf '::add-mask::%s\n' "$(command_data "$1")"
}

# Escapes text as the data of a GitHub workflow command.
command_data() {
  printf '%s\n' "$1" | harmless |
    awk '{ gsub(/%/, "%25"); printf "%s%s", between, $0; between = "%0A" }'
}

# Removes control characters, and breaks up both forms of a runner's commands.
harmless() {
  tr -d '\000-\010\013-\037\177' | sed -e 's/##\[/# #[/g' -e 's/^\([[:space:]]*\)::/\1: :/'
}

# --- text -----------------------------------------------------------------------------------------
# True for https, and for http to this machine; without user, spaces, quotes and backslashes.
is_safe_url() {
  is_line "$1" || return 1
  case $1 in *[\ \"\\]*) return 1 ;; esac
  authority=$(host_of "$1")
  case $authority in '' | :* | *@*) return 1 ;; esac
  case $1 in
    https://*) return 0 ;;
    http://*) case $authority in
      localhost | localhost:* | 127.0.0.1 | 127.0.0.1:* | '[::1]' | '[::1]':*) return 0 ;;
    esac ;;
  esac
  return 1
}

host_of() {
  rest=${1#*://}
  printf '%s' "${rest%%[/?#]*}"
}

is_line() { [ "$1" = "$(printf '%s' "$1" | tr -d '\000-\037\177')" ]; }

is_jwt() {
  case $1 in *[!A-Za-z0-9_.-]*) return 1 ;; ?*.?*.?*) return 0 ;; *) return 1 ;; esac
}

# $1 without the blanks and line ends around it.
trimmed() {
  rest=${1#"${1%%[![:space:]]*}"}
  printf '%s' "${rest%"${rest##*[![:space:]]}"}"
}

without_slash() { printf '%s' "$1" | sed 's,//*$,,'; }

# The words in a list. From separators alone it makes a comma, which no input may hold: somebody who
# gave a list wanted less than all.
words() { printf '%s' "$1" | tr ',\n\t' '   ' | sed -e 's/  */ /g' -e 's/^ //' -e 's/ $//' -e 's/^$/,/'; }

joined() { awk '{ printf "%s%s", between, $0; between = "," }'; }

one_line() { printf '%s' "$1" | tr '\n' ' '; }

# GNU date takes -d, and BSD date takes -r, which for GNU date names a file: so $1 must be a number.
utc() {
  case $1 in '' | *[!0-9]*) printf 'an unknown time' ;; *)
    { date -u -d "@$1" +%Y-%m-%dT%H:%M:%SZ || date -u -r "$1" +%Y-%m-%dT%H:%M:%SZ; } 2>/dev/null ||
      printf 'an unknown time' ;;
  esac
}

# A value in curl's settings.
quoted() { printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"; }

shell_word() { printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }

member() { printf '%s' "$1" | json member "$2"; }

claim() { payload_of "$1" | json member "$2"; }

# The claims of a JWT, not verified: the broker does that.
payload_of() {
  payload=${1#*.}
  printf '%s\n' "${payload%%.*}" | awk '
    BEGIN { alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" }
    {
      for (i = 1; i <= length($0); i++) {
        rest = rest * 64 + index(alphabet, substr($0, i, 1)) - 1
        bits += 6
        if (bits < 8) continue
        bits -= 8
        below = bits == 4 ? 16 : bits == 2 ? 4 : 1 # 2 ^ bits, which not every busybox can reckon
        printf "%c", int(rest / below)
        rest %= below
      }
    }'
}

# json member NAME prints the text of that member of the JSON object on standard input, of a list
# one item a line. json claims prints the object again, one member a line, without the claims about
# a person, and without jti so that it is no use as a token.
json() {
  awk -v mode="$1" -v name="${2-}" '
    function next_token() {
      sub(/^[ \t\r\n]+/, "", text)
      if (!match(text, /^"([^"\\]|\\.)*"/) && !match(text, /^[][{}:,]/) &&
        !match(text, /^[-+.0-9A-Za-z]+/)) exit 1
      token = substr(text, 1, RLENGTH)
      text = substr(text, RLENGTH + 1)
    }
    function next_value(    raw, depth) {
      do {
        next_token()
        raw = raw token
        if (token == "{" || token == "[") depth++
        if (token == "}" || token == "]") depth--
      } while (depth > 0)
      return raw
    }
    function text_of(raw,    out, at, sign) {
      if (raw == "null") return ""
      if (raw !~ /^"/) return raw
      raw = substr(raw, 2, length(raw) - 2)
      while (at = index(raw, "\\")) {
        sign = substr(raw, at + 1, 1)
        out = out substr(raw, 1, at - 1) (sign == "u" ? "\\u" : sign ~ /[bfnrt]/ ? " " : sign)
        raw = substr(raw, at + 2)
      }
      out = out raw
      gsub(/[\001-\037\177]/, " ", out)
      return out
    }
    function show(raw) {
      if (raw !~ /^\[/) { print text_of(raw); return }
      text = substr(raw, 2)
      for (next_token(); token != "]"; next_token())
        if (token != ",") print text_of(token)
    }
    { text = text $0 "\n" }
    END {
      next_token()
      if (token != "{") exit 1
      while (1) {
        next_token()
        if (token == ",") continue
        if (token == "}") break
        key = token
        next_token()
        if (token != ":") exit 1
        raw = next_value()
        if (mode == "member" && text_of(key) == name) { show(raw); exit 0 }
        if (mode == "claims" && key !~ /^"(jti|user_email|user_identities|groups_direct)"$/) {
          gsub(/[\001-\037\177]/, " ", raw) # no JSON, and it would begin a line
          out = out between "  " key ": " raw
          between = ",\n"
        }
      }
      if (mode == "claims") printf "{\n%s\n}\n", out
    }'
}

main "$@"
