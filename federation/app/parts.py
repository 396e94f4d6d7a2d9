"""
The parts of the application, each made from the settings.

Whatever can be wrong with a setting is found here, before the first request. Rooms get plain
values and never see the settings.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from socket import gethostname
from typing import TYPE_CHECKING

import structlog

from federation.app.documents import Documents
from federation.audit.delivery import Delivery
from federation.audit.journal import FileJournal
from federation.audit.seals import Sign
from federation.audit.segments import OUTSIDERS
from federation.audit.webhook import Webhook, read_header
from federation.config import Settings
from federation.documents.model import READ_AUDIT, READ_DOCUMENTS, JwtIssuer
from federation.errors import Refusal, SettingsRefused
from federation.gateway.body_budget import BodyBudget
from federation.gateway.function_headers import FunctionHeaders
from federation.gateway.proxy import Functions, Gateway
from federation.gateway.upstream import BasicAuth, Tls, Upstream
from federation.issuers.dates import Dates
from federation.issuers.fetch import open_client
from federation.issuers.key_ring import KeyRing
from federation.outbound import Outbound, trusting
from federation.ownership import NotTrusted, fault, read_key
from federation.server.metrics import Metrics
from federation.state import Observe, Store
from federation.state.redis_start import check_redis, redis_of_extra
from federation.state.sqlite import SqliteStore
from federation.tokens.signing_keys import KeyFolder, SigningKeys, read_pem
from federation.web.api.audit import AuditAnswer
from federation.web.api.can_i import can_i
from federation.web.api.documents import Documents as DocumentsAnswer
from federation.web.api.endpoint import Api, Endpoint
from federation.web.api.explain import ExplainAnswer
from federation.web.api.paths import ApiPaths
from federation.web.api.turns import Turns
from federation.web.api.who_can import WhoCanAnswer
from federation.web.api.whoami import whoami
from federation.web.discovery import SignIn
from federation.web.rate_limit import Network, is_from_proxy

if TYPE_CHECKING:
    from federation.state.redis import RedisStore

_MIB = 1024 * 1024
_OUTSIDERS_SHARE = 8
"""The part of the journal's size that events of outsiders have: one of so many."""


def generated_keys(state: Path) -> SigningKeys:
    """The keys in the folder *state*, made if missing. Raises: SettingsRefused."""
    try:
        return KeyFolder.under(state).ensure()
    except OSError as error:
        raise SettingsRefused([f"state: {fault(error)}"]) from error
    except ValueError as error:
        raise SettingsRefused([f"state: {error}"]) from error


def known_keys(settings: Settings) -> SigningKeys | None:
    """
    The keys that the broker would sign with, None if its first start would make one.

    Raises: SettingsRefused.
    """
    if settings.signing_key:
        return given_keys(settings.signing_key)
    with _problem_of("state"):
        return KeyFolder.under(settings.state).existing()


def given_keys(paths: Sequence[Path]) -> SigningKeys:
    """The keys in the files *paths*, of which the first signs. Raises: SettingsRefused."""
    keys, problems = [], []
    for path in paths:
        try:
            keys.append(read_pem(read_key(path)))
        except NotTrusted as error:  # it names the file
            problems.append(f"signing-key: {error}")
        except OSError as error:
            problems.append(f"signing-key: {fault(error)}")
        except ValueError as error:
            problems.append(f"signing-key: {path}: {error}")
    if problems:
        raise SettingsRefused(problems)
    return SigningKeys(tuple({key.kid: key for key in keys}.values()))


def store(settings: Settings, clock: Callable[[], float], observe: Observe) -> Store:
    """The record of spent and revoked tokens. Raises: SettingsRefused."""
    if settings.shared_state is None:
        return SqliteStore(settings.state / "state.db", clock, observe=observe)
    return shared_store(settings, clock, observe)


def check_shared_state(settings: Settings) -> None:
    """
    Make sure that the shared state can be used, unless it cannot be reached now.

    Raises: SettingsRefused with the reason.
    """
    if settings.shared_state is None:
        return
    try:
        check_redis(shared_store(settings, time.time, None))
    except Refusal as refusal:
        structlog.get_logger("federation").warning(
            "the shared state does not answer; no exchange is answered until it does",
            **refusal.evidence,
        )


def shared_store(
    settings: Settings,
    clock: Callable[[], float],
    observe: Observe | None,
    memory: Path | None = None,
) -> RedisStore:
    """
    The store in Redis, which remembers its epoch in the file *memory*, by default in the state.

    Raises: SettingsRefused if the library is missing.
    """
    assert settings.shared_state is not None  # noqa: S101  for mypy: the caller asked
    with redis_of_extra("server"):
        from federation.state.redis import RedisStore  # noqa: PLC0415  often not installed
    return RedisStore(
        settings.shared_state.get_secret_value(),
        clock,
        memory or settings.state / "shared-state-epoch",
        observe,
        replicas=settings.shared_state_wait,
    )


def upstream(settings: Settings, outbound: Outbound) -> Upstream | None:
    """
    The gateway behind the broker, None if there is none. No proxy is asked for it.

    Raises: SettingsRefused.
    """
    if settings.upstream is None:
        return None
    auth, folder = None, settings.upstream_secrets
    if folder:
        auth = BasicAuth(folder)
        must = f"upstream-secrets: {folder} must hold basic-auth-user and basic-auth-password"
        with _problem_of(must):
            auth.header()
    files = settings.upstream_ca, settings.upstream_certificate, settings.upstream_key
    with _problem_of("upstream-ca, upstream-certificate or upstream-key"):
        return Upstream.at(
            settings.upstream,
            connections=settings.upstream_connections,
            timeout_seconds=settings.upstream_timeout.total_seconds(),
            auth=auth,
            tls=Tls(*files, outbound.trust) if settings.upstream.startswith("https:") else None,
        )


def gateway(
    api: Api,
    settings: Settings,
    metrics: Metrics,
    behind: Upstream,
    trusted_proxies: Sequence[Network],
) -> Gateway:
    """The application for every path that is not the broker's own. Its callers are those of *api*."""
    broker = api.broker
    return Gateway(
        issuer_url=broker.issuer_url,
        source=broker.source,
        signing=lambda: broker.signing,
        tokens=api.tokens,
        challenge=api.challenge,
        policies=broker.policies,
        upstream=behind,
        journal=broker.journal,
        clock=broker.clock,
        bodies=BodyBudget(settings.body_budget * _MIB),
        is_from_proxy=partial(is_from_proxy, trusted=trusted_proxies),
        functions=Functions(settings.functions),
        to_functions=FunctionHeaders(
            broker.issuer_url, frozenset(settings.callback_hosts.lower().split(","))
        ),
        default_namespace=settings.function_namespace,
        audited=frozenset(settings.audit_verbs.split(",")),
        observer=metrics,
        count_invalid_token=api.count_invalid_token,
    )


def sign_in(settings: Settings) -> SignIn | None:
    """The provider where people sign in, None if none is published."""
    if settings.sign_in_issuer is None or settings.sign_in_client_id is None:
        return None
    return SignIn(settings.sign_in_issuer, settings.sign_in_client_id, settings.sign_in_scopes)


def api(shared: Api, documents: Documents, settings: Settings) -> ApiPaths:
    """The API for people: `/federation/v1/…`."""
    clock, folder, turns = shared.broker.clock, settings.state / "audit", Turns()
    # Whoever holds a token may ask these, so they wait for each other, and not for explanations.
    own = Turns()
    explained = ExplainAnswer(folder, clock, turns)
    trail = AuditAnswer(folder, gethostname(), turns)
    followed = documents.kubernetes
    listed = DocumentsAnswer(
        documents.source,
        (lambda: followed.snapshot.united.verdicts) if followed else None,
        (lambda: followed.following().trouble) if followed else None,
    )
    return ApiPaths(
        {
            "/federation/v1/whoami": ("GET", Endpoint(shared, partial(whoami, own))),
            "/federation/v1/can-i": ("POST", Endpoint(shared, partial(can_i, own), has_body=True)),
            "/federation/v1/documents": ("GET", Endpoint(shared, listed, needs=READ_DOCUMENTS)),
            "/federation/v1/explain": (
                "POST",
                Endpoint(shared, explained, needs=READ_DOCUMENTS, has_body=True),
            ),
            "/federation/v1/who-can": (
                "GET",
                Endpoint(shared, WhoCanAnswer(turns), needs=READ_DOCUMENTS, has_query=True),
            ),
            "/federation/v1/audit": (
                "GET",
                Endpoint(shared, trail, needs=READ_AUDIT, has_query=True),
            ),
        }
    )


def journals(
    settings: Settings, clock: Callable[[], float], sign: Sign
) -> tuple[FileJournal, FileJournal]:
    """Return the journal of the events that are owed, and that of the events of outsiders."""
    folder, size = settings.state / "audit", settings.audit_size * _MIB
    for_outsiders = size // _OUTSIDERS_SHARE
    make = partial(
        FileJournal,
        sign=sign,
        deliver=settings.audit_webhook is not None,
        workers=settings.workers,
        clock=clock,
    )
    return (
        make(folder, size - for_outsiders),
        make(folder / OUTSIDERS, for_outsiders, owed=False),
    )


def check_webhook(settings: Settings) -> None:
    """Make sure that the files for the webhook can be used. Raises: SettingsRefused."""
    ca, header = settings.audit_webhook_ca, settings.audit_webhook_header
    if ca:
        with _problem_of("audit-webhook-ca"):
            trusting(ca)
    if header:
        with _problem_of("audit-webhook-header"):
            read_header(header)


def deliveries(
    journals: Iterable[FileJournal], settings: Settings, outbound: Outbound
) -> Sequence[Delivery]:
    """A delivery for each journal, with connections of its own: no one waits for the other's."""
    if settings.audit_webhook is None:
        return ()
    return [Delivery(journal, webhook(settings, outbound)) for journal in journals]


def webhook(settings: Settings, outbound: Outbound) -> Webhook:
    """The receiver of audit events that the settings name."""
    assert settings.audit_webhook is not None  # noqa: S101  for mypy: the caller asked
    return Webhook(
        settings.audit_webhook,
        secret=settings.audit_webhook_secret,
        header=settings.audit_webhook_header,
        ca=settings.audit_webhook_ca,
        outbound=outbound,
    )


def key_ring(
    settings: Settings,
    outbound: Outbound,
    on_fetch: Callable[[JwtIssuer, bool], None] = lambda _issuer, _fetched: None,
    dates: Dates | None = None,
) -> KeyRing:
    """The issuers' keys. *dates* learns what the issuers' clocks say."""
    connect = partial(open_client, outbound=outbound)
    return KeyRing(
        dates.watching(connect) if dates else connect,
        on_fetch=on_fetch,
        token_folder=settings.bearer_token_files,
    )


@contextmanager
def _problem_of(setting: str) -> Iterator[None]:
    """Report an error of reading files as a problem of *setting*."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise SettingsRefused([f"{setting}: {error}"]) from error
