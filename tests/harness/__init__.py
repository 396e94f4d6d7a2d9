"""
The harness: the world around a broker, for tests, fault injection (`faults/`) and `bench/`.

Most tests need one of the first lines only.

| you want | use |
| --- | --- |
| claims, Roles, Policies, a catalog, as objects | `builders`: `good()`, `role()`, `catalog()` |
| documents as text | `documents`: the sample set `DOCUMENTS`, and builders of one document each |
| a clock that the test moves | `clock.Clock` |
| an issuer: its keys, tokens, and answers | `issuer.FakeIssuer` within the process |
| an OpenID provider where people sign in | `openid_provider.FakeProvider`; on a port: `served()` |
| to verify a subject token in one line | `verification`: `proven()`, `refused()` |
| a broker | `broker.InProcess`, without sockets and processes |
| to read one gateway request, without a broker | `gateway_request.Wire` |
| a broker in front of an OpenFaaS gateway | `gateway.Front`; with sockets: `gateway.listening()` |
| the gateway itself | `openfaas.SampleUpstream` |
| the audit webhook's receiver | `webhook_receiver.receiving()` |
| events, and a process that records them | `journal_writer` |
| a second opinion on admissions and decisions | `second_evaluator`, with `generators` |

Real processes and sockets, for `end_to_end/`, faults and bench:

| you want | use |
| --- | --- |
| `federation serve` as a process | `broker.served()`; to restart it: `local_issuer()`, `started()` |
| that process in front of a gateway process | `gateway.fronted()` |
| an issuer that is slow, down, wrong, or rotates | `issuer.CiIssuer` |
| nginx and Go's reverse proxy in front of a broker | `reverse_proxies` |
| nginx, Caddy and HAProxy as docs/reverse-proxies.md has them | `reverse_proxies.documented` |
| a server with the broker's limits, without a broker | `http_server` |
| a peer that breaks HTTP or TLS | `raw_server`, `certificates` |
| any other program, started, killed and measured | `process.Process`, `process.Server` |
| load: each answer judged, or rates and delays | `load` |
| a CI job: the login script in a fake one | `ci_runner` |
| a CI job under act or gitlab-ci-local | `real_runners`, with the stand-in `faas_cli` |
"""
