#!/bin/sh
# Logs a CI job in at a broker: the job's ID token becomes a short-lived access token.
#
#   federate.sh github     logs a GitHub Actions job in; its inputs are in FEDERATION_*
#   federate.sh gitlab     logs a GitLab CI job in
#   federate.sh exports    prints what the shell of a GitLab job evaluates after its login
#   federate.sh logout     ends what this job's logins began
#
# The laws: no token stands in an argument list, in a trace or in a program's environment.
# Tokens are masked before anything can print them. What may pass is tried again; a refusal is
# final. Text from outside never begins a line that the runner could take for a command.
#
# POSIX sh with curl and awk, since runners and job images often have nothing else. This file
# is also the text of gitlab/federate.yml: change it here, then run `make gitlab`.

{ set +x; } 2>/dev/null
set +e +a -u
unset IFS
umask 077
LC_ALL=C
export LC_ALL
newline='
'

# Out of the environment at once, before any program is started.
id_token=${FEDERATION_ID_TOKEN-}
request_token=${ACTIONS_ID_TOKEN_REQUEST_TOKEN-}
unset FEDERATION_ID_TOKEN ACTIONS_ID_TOKEN_REQUEST_TOKEN

main() {
  case ${1-} in
    github | gitlab)
      platform=$1
      log_in
      ;;
    exports)
      platform=gitlab
      cat "$(state_folder)/exports"
      ;;
    logout)
      platform=gitlab
      [ "${GITHUB_ACTIONS-}" != true ] || platform=github
      log_out
      ;;
    *)
      printf 'usage: federate.sh github|gitlab|exports|logout\n' >&2
      exit 2
      ;;
  esac
}

log_in() {
  require_tools
  read_inputs
  warn_of_traces
  open_login
  find_identity
  patiently trade || unreachable
  understand_answer
  keep_token
  [ "$faas_cli" != true ] || write_faas_cli_config
  publish
}

log_out() {
  require_tools
  ended=0
  for login in "$(state_folder)"/login.*; do
    [ -f "$login/token" ] || continue
    end_login
    ended=$((ended + 1))
  done
  if [ "$ended" -eq 0 ]; then nothing_to_end; fi
  [ "$platform" = github ] || rm -rf "$(state_folder)"
}

# --- what is needed ---------------------------------------------------------------------------

require_tools() {
  for tool in curl awk sed tr mktemp date; do
    command -v "$tool" >/dev/null 2>&1 || lacking="${lacking-} $tool"
  done
  [ -z "${lacking-}" ] || fail "This runner lacks:$lacking." \
    "The login is a POSIX shell script for Linux and macOS. Install what is missing before it, for
example with \`apt-get install curl\` or \`apk add curl\`."
}

read_inputs() {
  url=$(without_slashes_at_end "${FEDERATION_URL-}")
  audience=${FEDERATION_AUDIENCE:-$url}
  scope=${FEDERATION_SCOPE-}
  faas_cli=${FEDERATION_FAAS_CLI:-false}
  export_as=${FEDERATION_EXPORT-}
  roles_asked=$(words "${FEDERATION_ROLE-}")
  functions_asked=$(words "${FEDERATION_FUNCTION_AUDIENCE-}")
  [ -z "$functions_asked" ] || scope=function
  [ -n "$url" ] || fail 'The input url is missing: it is the public URL of the broker.' "$(url_advice)"
  case $url in *'?'* | *'#'*) bad_url ;; esac
  is_safe_url "$url" || bad_url
  is_line "$audience" || fail 'The input audience holds a line break or a control character.' \
    'Give one audience; most often it is left out.'
  case $scope in '' | function) ;; *)
    fail "The input scope is $scope." 'The only scope is function; leave it out for a token to deploy with.' ;;
  esac
  case $faas_cli in true | false) ;; *)
    fail "The input faas-cli is $faas_cli." 'Write true or false.' ;;
  esac
  [ "$faas_cli$scope" != truefunction ] || fail \
    'A function token only invokes functions, so faas-cli cannot log in with it.' \
    'Leave out scope and function-audience, or set faas-cli to false.'
  case $roles_asked in *[!a-z0-9.\ -]*)
    fail "The input role is $roles_asked." 'Give the names of Roles, separated by spaces or lines.' ;;
  esac
  case $functions_asked in *[!A-Za-z0-9._:\ -]*)
    fail "The input function-audience is $functions_asked." \
      'Give <namespace>:<function>, separated by spaces or lines.' ;;
  esac
  case $export_as in [0-9]* | *[!A-Za-z0-9_]* | GITHUB_* | RUNNER_* | ACTIONS_*)
    fail "The input export is $export_as, which cannot name a variable." \
      'Give the name of an environment variable, for example FEDERATION_TOKEN.' ;;
  esac
}

bad_url() {
  fail "The input url, $url, is not an https URL." \
    'Give the public URL of the broker, https://… without a query. http is for this machine alone, since
a token is never sent in clear.'
}

url_advice() {
  if [ "$platform" = github ]; then
    printf 'Add to the step:\n  with:\n    url: https://gateway.example.com'
  else
    printf 'Let the job say extends: .federation, and give the include its input url. A job with a\n'
    printf 'before_script of its own needs extends, too.'
  fi
}

warn_of_traces() {
  [ "${CI_DEBUG_TRACE-}" != true ] || warn "CI_DEBUG_TRACE is on: this job's log shows its tokens" \
    'to everybody who may read it. Turn it off where it is not needed.'
}

# Each login has a folder of its own, so that a logout finds all of them.
open_login() {
  state=$(state_folder)
  mkdir -p "${state%/*}" 2>/dev/null
  mkdir -m 700 "$state" 2>/dev/null || is_private "$state" || fail \
    "The folder $state cannot be made, or is somebody else's." 'Clean the temporary folder of this runner.'
  login=$(mktemp -d "$state/login.XXXXXX") || fail \
    "Nothing can be written into $state." 'See whether the disk of this runner is full.'
}

# Outside the workspace, so that neither artifacts nor caches nor images pick it up.
state_folder() {
  if [ "$platform" = github ]; then
    printf '%s/federation' "${RUNNER_TEMP:-${TMPDIR:-/tmp}}"
    return
  fi
  # This folder of GitLab's runner is shared by the containers of a job; /tmp is not.
  beside=${RUNNER_TEMP_PROJECT_DIR:-${CI_PROJECT_DIR:-/tmp/project}.tmp}
  mkdir -p "$beside" 2>/dev/null
  [ -w "$beside" ] || beside=${TMPDIR:-/tmp}
  printf '%s/federation-%s' "$beside" "${CI_JOB_ID:-job}"
}

is_private() {
  # shellcheck disable=SC2012  # the mode and the owner's number of one known folder, not names
  [ -d "$1" ] && [ ! -L "$1" ] &&
    ls -dn "$1" | awk -v me="$(id -u)" '{ exit !($1 ~ /^drwx------/ && $3 == me) }'
}

# --- who this job is --------------------------------------------------------------------------

find_identity() {
  if [ "$platform" = gitlab ]; then check_gitlab_token; else check_github_request; fi
}

check_github_request() {
  id_token=
  case ${RUNNER_OS-} in Windows)
    fail 'The action runs on Linux and macOS runners; this one is Windows.' 'Log in from a job on Linux.' ;;
  esac
  absent=
  [ -n "${ACTIONS_ID_TOKEN_REQUEST_URL-}" ] || absent=ACTIONS_ID_TOKEN_REQUEST_URL
  [ -n "$request_token" ] || absent="${absent:+$absent and }ACTIONS_ID_TOKEN_REQUEST_TOKEN"
  [ -z "$absent" ] || may_not_ask
  mask "$request_token"
  is_safe_url "$ACTIONS_ID_TOKEN_REQUEST_URL" || fail \
    'ACTIONS_ID_TOKEN_REQUEST_URL is not an https URL.' 'A token is never asked for in clear.'
  is_line "$request_token" || fail 'ACTIONS_ID_TOKEN_REQUEST_TOKEN holds a line break.' \
    'This runner is not set up as GitHub sets one up.'
}

may_not_ask() {
  case ${GITHUB_EVENT_NAME-} in pull_request*)
    if [ -n "${FEDERATION_HEAD_REPOSITORY-}" ] &&
      [ "$FEDERATION_HEAD_REPOSITORY" != "${GITHUB_REPOSITORY-}" ]; then
      fail "This pull request comes from a fork, $FEDERATION_HEAD_REPOSITORY, and GitHub gives such a job no ID token, whatever it asks for." \
        'Deploy after the merge, from a push. Do not turn to pull_request_target: it would run the fork'"'"'s
code with your identity. Skip the job for forks with:
  if: github.event.pull_request.head.repo.full_name == github.repository'
    fi
    ;;
  esac
  fail "This job may not ask GitHub for an ID token: $absent not set." \
    'Add to the job:
  permissions:
    id-token: write
    contents: read
In a reusable workflow the job that calls it must grant both, too.'
}

check_gitlab_token() {
  [ -n "$id_token" ] || fail 'This job has no FEDERATION_ID_TOKEN.' \
    "Let the job say extends: .federation, or add to it:
  id_tokens:
    FEDERATION_ID_TOKEN:
      aud: $url"
  is_jwt "$id_token" || fail 'FEDERATION_ID_TOKEN is no ID token.' \
    'Remove the CI/CD variable of that name: the name is for the job'"'"'s id_tokens.'
  # Whoever may set a pipeline variable could send the token elsewhere, were this not compared.
  meant_for=$(claim "$id_token" aud)
  [ "$meant_for" = "$url" ] || fail \
    "The ID token is for $(one_line "$meant_for"), but would be sent to $url: that is the wrong audience." \
    "The input url of the include, without a slash at its end, gives both. See whether the job has
id_tokens of its own, or whether a variable FEDERATION_URL overrides the input."
}

# --- asking -----------------------------------------------------------------------------------

# One try of the whole way. A GitHub job asks for a new ID token each time, since the broker may
# have spent the first one although its answer was lost.
trade() {
  if [ -z "$id_token" ]; then
    ask_github || return 1
    understand_github
  fi
  ask_broker && return 0
  [ "$platform" = gitlab ] || id_token=
  return 1
}

ask_github() {
  whom=$(host_of "$ACTIONS_ID_TOKEN_REQUEST_URL")
  send "url = $(quoted "$ACTIONS_ID_TOKEN_REQUEST_URL")
header = $(quoted "Authorization: bearer $request_token")
get
data-urlencode = $(quoted "audience=$audience")"
}

ask_broker() {
  whom=$(host_of "$url")
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

# Leaves the answer in $status and $body, and why there is none in $curl_code and the error
# file. Fails if it is worth another try. curl reads its settings, tokens included, from standard
# input; the user's own .curlrc, which might print headers, is left out.
send() {
  answer=$(
    printf '%s\n' silent show-error globoff 'proto = "=http,https"' \
      'connect-timeout = 5' 'max-time = 15' 'max-filesize = 65536' \
      'header = "Accept: application/json"' 'user-agent = "federation-ci"' \
      "dump-header = $(quoted "$login/headers")" 'write-out = "\n%{http_code}"' "$1" |
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

patiently() {
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
  if [ "$curl_code" -eq 0 ]; then
    [ -z "$(member "$body" reason)" ] || cannot_answer
    fail "$whom answered HTTP $status, four times." 'It fails at the moment. Run the job again later.'
  fi
  problem=$(tr -d '\r' <"$login/error" | sed -n '1p')
  case $curl_code in
    35 | 51 | 53 | 54 | 58 | 59 | 60 | 64 | 66 | 77 | 80 | 82 | 83 | 90 | 91)
      fail "No TLS connection to $whom can be trusted: $problem" \
        "If its certificate comes from a private CA, put the CA into a file on the runner and name the
file in CURL_CA_BUNDLE. Verification is never switched off." ;;
    *)
      fail "$whom could not be reached: $problem" \
        'Check the input url, the network of this runner, and HTTPS_PROXY and NO_PROXY.' ;;
  esac
}

cannot_answer() {
  fail "$whom cannot answer at the moment ($(member "$body" reason)): $(member "$body" error_description)" \
    "Run the job again later. If it stays so, tell the operator of the broker; $(under_request_id)"
}

# --- understanding ----------------------------------------------------------------------------

understand_github() {
  [ "$status" = 200 ] || fail "GitHub answered HTTP $status instead of an ID token." \
    'Run the job again. If it stays so, see whether permissions: id-token: write is granted.'
  id_token=$(member "$body" value)
  mask "$id_token"
  body=
  is_jwt "$id_token" || fail "GitHub's answer holds no ID token." 'Run the job again.'
}

understand_answer() {
  case $status in
    200) ;;
    3??) fail "$url answered with a redirect, which is not followed with a token." \
      'Give the address that it leads to as input url.' ;;
    *)
      [ -z "$(member "$body" reason)" ] || refused
      fail "$whom answered HTTP $status, but not as a broker does." 'Check the input url.'
      ;;
  esac
  token=$(member "$body" access_token)
  mask "$token"
  body=
  is_jwt "$token" || fail "$whom answered, but not as a broker does." 'Check the input url.'
  roles=$(claim "$token" role | joined)
  policies=$(claim "$token" policy | joined)
  subject=$(one_line "$(claim "$token" sub)")
  expires_at=$(utc "$(claim "$token" exp)")
}

refused() {
  reason=$(member "$body" reason)
  fail "The broker at $url refused ($reason): $(member "$body" error_description)" \
    "$(advice_for "$reason")
A refusal is not tried again. docs/refusals.md says more about $reason; $(under_request_id)" \
    "$(observed_claims "$reason")"
}

advice_for() {
  case $1 in
    wrong_audience)
      printf 'The ID token is for %s. Ask for the audience that the JwtIssuer lists under aud, most\n' \
        "$(one_line "$(claim "$id_token" aud)")"
      printf 'often the public URL of the broker, exactly as written there.' ;;
    untrusted_issuer)
      printf 'The ID token was issued by %s. The operator adds a JwtIssuer with exactly this iss,\n' \
        "$(one_line "$(claim "$id_token" iss)")"
      printf 'if it is to be trusted.' ;;
    no_role_admits)
      printf 'No Role wants a job like this one. Run it from the branch or environment that is meant, or\n'
      printf 'have the operator compare the claims below with the Role.' ;;
    role_not_admitted)
      printf 'A Role that the input role names does not exist or does not admit this job. Leave the input\n'
      printf 'out, or have the operator compare the claims below with the Role.' ;;
    event_not_allowed)
      printf 'Strangers can cause such a job. Deploy from push, release, schedule or workflow_dispatch; on\n'
      printf 'GitLab from a branch pipeline.' ;;
    already_used)
      printf 'One ID token is one exchange. Retry the whole job for a new one, or declare a second entry\n'
      printf 'under id_tokens.' ;;
    invalid_target | invalid_scope)
      printf 'Write function-audience as <namespace>:<function>, and have the operator grant\n'
      printf 'Function:Invoke on it.' ;;
    expired | not_yet_valid)
      printf 'Run the job again. If it stays so, the clocks of runner, CI system and broker differ.' ;;
    *) printf 'The operator of the broker can say more.' ;;
  esac
}

under_request_id() {
  printf "the broker's log and audit trail have the whole story under request id %s." \
    "$(member "$body" request_id)"
}

# What the operator needs to ask "why", without what would make a token of it again and without
# what belongs to a person.
observed_claims() {
  case $1 in
    no_role_admits | role_not_admitted | event_not_allowed | missing_claim | not_a_ci_token | \
      wrong_audience | untrusted_issuer)
      printf 'The claims of this job:\n\n'
      payload_of "$id_token" | json claims
      printf '\nSaved as claims.json, they show the operator condition by condition why:\n\n'
      printf '  federation explain --documents DOCUMENTS --claims claims.json\n' ;;
  esac
}

# --- keeping and telling ----------------------------------------------------------------------

keep_token() {
  printf '%s\n' "$token" >"$login/token"
  printf '%s\n' "$url" >"$login/url"
  printf '%s\n' "$export_as" >"$login/export"
  rm -f "$login/headers" "$login/error"
}

# faas-cli looks beside the current folder in CI, so that a step in another folder would not find
# its login; OPENFAAS_CONFIG holds everywhere.
write_faas_cli_config() {
  config=${OPENFAAS_CONFIG-}
  [ -n "$config" ] || [ ! -f .openfaas/config.yml ] || config=$PWD/.openfaas
  config=${config:-$login/openfaas}
  case $config in /*) ;; *) config=$PWD/$config ;; esac
  is_line "$config" || fail 'OPENFAAS_CONFIG holds a line break.' 'Name another folder.'
  mkdir -p "$config" || fail "The folder $config cannot be made." 'Name another one in OPENFAAS_CONFIG.'
  change_config "$token"
  printf '%s\n' "$config" >"$login/config"
  case $config in "$PWD"/*) warn "faas-cli's login is in $config, inside the workspace." \
    'Keep it out of artifacts, caches and images.' ;;
  esac
  case ${OPENFAAS_URL-} in '' | "$url" | "$url/") ;; *)
    warn "OPENFAAS_URL is $OPENFAAS_URL, but this login is for $url." 'Unset it, or deploy with --gateway.' ;;
  esac
}

# The config with an entry for this gateway, which holds $1, or without one where $1 is empty.
# Lines are moved only in the form that faas-cli itself writes; any other is left as it is.
change_config() {
  gateway=$(printf '%s' "$url" | tr '[:upper:]' '[:lower:]')
  old=$config/config.yml
  [ -f "$old" ] || old=/dev/null
  new=$(mktemp "$config/config.XXXXXX") || fail "Nothing can be written into $config." 'See its owner and the disk.'
  printf '%s\n' "$gateway" "$1" | awk '
    function comparable(text) {
      gsub(/["\047 ]/, "", text); sub(/\/+$/, "", text)
      return tolower(text)
    }
    function close_entry() {
      if (entry != "" && replaced) stale = 1
      else kept = kept entry
      entry = ""
    }
    NR == 1 { gateway = $0; next }
    NR == 2 { token = $0; next }
    /^[ \t]*\r?$/ { next }
    NR == FNR { next }
    !header { if ($0 !~ /^auths:[ ]*(\[\])?[ ]*$/) exit unknown = 4; header = 1; next }
    !begun { if (!match($0, /^ *- gateway: /)) exit unknown = 4; margin = substr($0, 1, RLENGTH - 11); begun = 1 }
    index($0, margin "- ") == 1 {
      close_entry()
      if (index($0, margin "- gateway: ") != 1) exit unknown = 4
      replaced = comparable(substr($0, length(margin) + 12)) == gateway
      entry = $0 "\n"; next
    }
    index($0, margin "  ") == 1 { entry = entry $0 "\n"; next }
    { exit unknown = 4 }
    END {
      if (unknown) exit 4
      close_entry()
      if (token != "")
        kept = kept margin "- gateway: " gateway "\n" margin "  auth: oauth2\n" margin "  token: " token "\n"
      if (kept == "") exit 5
      printf "auths:\n%s", kept
      exit stale ? 3 : 0
    }' - "$old" >"$new"
  case $? in
    0) mv -f "$new" "$config/config.yml" ;;
    3)
      mv -f "$new" "$config/config.yml"
      [ -z "$1" ] || say "An earlier entry for $gateway in $config/config.yml was replaced."
      ;;
    5) rm -f "$new" "$config/config.yml" ;;
    *)
      rm -f "$new"
      [ -n "$1" ] || return 0
      fail "$config/config.yml is not in the form that faas-cli writes, so it was left alone." \
        'Move it away, or name another folder in OPENFAAS_CONFIG.'
      ;;
  esac
}

publish() {
  if [ "$platform" = github ]; then publish_to_github; else publish_to_gitlab; fi
  say "Logged in to $url as $subject until $expires_at. Roles: ${roles:-none}. Policies: ${policies:-none}."
  summarise 'logged in' "broker    $url
subject   $subject
roles     $roles
policies  $policies
until     $expires_at"
}

publish_to_github() {
  printf '%s\n' "token=$token" "expires-at=$expires_at" "roles=$roles" "policies=$policies" >>"$GITHUB_OUTPUT"
  [ -z "$export_as" ] || printf '%s=%s\n' "$export_as" "$token" >>"$GITHUB_ENV"
  [ "$faas_cli" = true ] || return 0
  printf 'OPENFAAS_CONFIG=%s\n' "$config" >>"$GITHUB_ENV"
  [ -n "${OPENFAAS_URL-}" ] || printf 'OPENFAAS_URL=%s\n' "$url" >>"$GITHUB_ENV"
}

publish_to_gitlab() {
  {
    printf 'export FEDERATION_TOKEN=%s\n' "$(shell_word "$token")"
    printf 'unset FEDERATION_ID_TOKEN\n'
    if [ "$faas_cli" = true ]; then
      printf 'export OPENFAAS_CONFIG=%s\n' "$(shell_word "$config")"
      [ -n "${OPENFAAS_URL-}" ] || printf 'export OPENFAAS_URL=%s\n' "$(shell_word "$url")"
    fi
  } >"$state/exports"
}

# --- logging out ------------------------------------------------------------------------------

end_login() {
  url=$(cat "$login/url")
  token=$(cat "$login/token")
  mask "$token"
  whom=$(host_of "$url")
  if patiently revoke && [ "$status" = 200 ]; then
    say "The access token of $url is revoked."
  else
    warn "The access token could not be revoked at $url; it ends by itself at" \
      "$(utc "$(claim "$token" exp)")."
  fi
  if [ -f "$login/config" ]; then
    config=$(cat "$login/config")
    [ ! -f "$config/config.yml" ] || change_config ''
    forget OPENFAAS_CONFIG
  fi
  export_as=$(cat "$login/export")
  [ -z "$export_as" ] || forget "$export_as"
  rm -rf "$login"
}

revoke() {
  send "url = $(quoted "$url/oauth/revoke")
data-urlencode = \"token=$token\""
}

forget() {
  [ "$platform" != github ] || printf '%s=\n' "$1" >>"$GITHUB_ENV"
}

nothing_to_end() {
  if [ "$platform" = github ]; then
    say 'No login of this job was found, so there is nothing to end.'
  elif [ -d "$(state_folder)" ]; then
    say 'The login of this job did not succeed, so there is nothing to end.'
  else
    complain 'THE LOGIN OF .federation DID NOT RUN IN THIS JOB.' \
      'The job replaced before_script, so it had no access token and no login for faas-cli. Write:
  before_script:
    - !reference [.federation, before_script]
    - your own commands'
  fi
}

# --- speaking ---------------------------------------------------------------------------------

# fail PROBLEM ADVICE [DETAILS]
fail() {
  complain "$1" "$2"
  [ -z "${3-}" ] || say "$3"
  summarise 'login failed' "$1$newline$newline$2${3:+$newline$newline$3}"
  [ -z "${login-}" ] || rm -rf "$login"
  exit 1
}

complain() {
  if [ "$platform" = github ]; then
    printf '::error title=Federation::%s\n' "$(command_data "$1$newline$2")"
  else
    say "${newline}ERROR: $1$newline$newline$2$newline"
  fi
}

warn() {
  if [ "$platform" = github ]; then
    printf '::warning title=Federation::%s\n' "$(command_data "$*")"
  else
    say "WARNING: $*"
  fi
}

say() {
  printf '%s\n' "$1" | harmless
}

# An indented block: nothing in it is Markdown.
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

# Text as the data of a workflow command.
command_data() {
  printf '%s\n' "$1" | harmless |
    awk '{ gsub(/%/, "%25"); printf "%s%s", between, $0; between = "%0A" }'
}

# No control characters, and nothing that a runner takes for a command, old form or new.
harmless() {
  tr -d '\000-\010\013-\037\177' | sed -e 's/##\[/# #[/g' -e 's/^\([[:space:]]*\)::/\1: :/'
}

# --- small things -----------------------------------------------------------------------------

is_safe_url() {
  is_line "$1" || return 1
  case $1 in *[\ \"\\]*) return 1 ;; esac
  authority=$(authority_of "$1")
  case $authority in '' | :* | *@*) return 1 ;; esac
  case $1 in
    https://*) return 0 ;;
    http://*) case $authority in
      localhost | localhost:* | 127.0.0.1 | 127.0.0.1:* | '[::1]' | '[::1]':*) return 0 ;;
    esac ;;
  esac
  return 1
}

authority_of() {
  rest=${1#*://}
  printf '%s' "${rest%%[/?#]*}"
}

host_of() {
  authority_of "$1"
}

is_line() {
  [ "$1" = "$(printf '%s' "$1" | tr -d '\000-\037\177')" ]
}

is_jwt() {
  case $1 in *[!A-Za-z0-9_.-]*) return 1 ;; ?*.?*.?*) return 0 ;; *) return 1 ;; esac
}

without_slashes_at_end() {
  printf '%s' "$1" | sed 's,//*$,,'
}

words() {
  printf '%s' "$1" | tr ',\n\t' '   ' | sed -e 's/  */ /g' -e 's/^ //' -e 's/ $//'
}

joined() {
  awk '{ printf "%s%s", between, $0; between = "," }'
}

one_line() {
  printf '%s' "$1" | tr '\n' ' '
}

utc() {
  date -u -d "@$1" +%Y-%m-%dT%H:%M:%SZ 2>/dev/null || date -u -r "$1" +%Y-%m-%dT%H:%M:%SZ
}

# A value in curl's settings.
quoted() {
  printf '"%s"' "$(printf '%s' "$1" | sed 's/[\\"]/\\&/g')"
}

shell_word() {
  printf "'%s'" "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"
}

member() {
  printf '%s' "$1" | json member "$2"
}

claim() {
  payload_of "$1" | json member "$2"
}

# The claims of a JWT, which nobody verifies here: the broker does.
payload_of() {
  payload=${1#*.}
  printf '%s\n' "${payload%%.*}" | awk '
    BEGIN { alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_" }
    {
      for (i = 1; i <= length($0); i++) {
        six = index(alphabet, substr($0, i, 1)) - 1
        if (i % 4 == 1) { left = six; continue }
        if (i % 4 == 2) { byte = left * 4 + int(six / 16); left = six % 16 }
        if (i % 4 == 3) { byte = left * 16 + int(six / 4); left = six % 4 }
        if (i % 4 == 0) byte = left * 64 + six
        printf "%c", byte
      }
    }'
}

# Reads a JSON object. `member NAME` prints the text of that member, of a list each item on a
# line; `claims` prints the object again, a member a line, without what is nobody's business.
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
          out = out between "  " key ": " raw
          between = ",\n"
        }
      }
      if (mode == "claims") printf "{\n%s\n}\n", out
    }'
}

main "$@"
