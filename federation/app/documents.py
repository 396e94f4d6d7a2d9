"""
The documents of the broker: those in files are read, those in the Kubernetes API followed.

A broker that names itself as an issuer is refused: its own tokens could be exchanged without end.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import structlog

from federation.config import Settings, api_server_of_the_pod
from federation.documents.assemble import Assembled
from federation.documents.catalog import Catalog
from federation.documents.codes import Code
from federation.documents.model import JwtIssuer
from federation.documents.rules.issuer_documents import token_file_outside
from federation.errors import Problem, Problems, Severity
from federation.outbound import Outbound
from federation.server.metrics import Metrics
from federation.sources import Source
from federation.sources.files import Adopted, FileSource
from federation.sources.kubernetes.connect import connect
from federation.sources.kubernetes.source import KubernetesSource
from federation.sources.kubernetes.writer import StatusWriter


@dataclass(frozen=True, slots=True)
class Documents:
    """The sources of documents: files, the Kubernetes API, or both united."""

    source: Source
    files: FileSource | None = None
    kubernetes: KubernetesSource | None = None

    @classmethod
    def given(cls, source: Source) -> Documents:
        """The documents of a *source* that was made elsewhere."""
        return cls(
            source,
            source if isinstance(source, FileSource) else None,
            source if isinstance(source, KubernetesSource) else None,
        )

    def work(self) -> Iterator[Coroutine[None, None, None]]:
        """Yield what follows the documents while the broker runs."""
        if self.files:
            yield self.files.watch()
        if self.kubernetes:
            yield self.kubernetes.run()
            # Apart: whatever happens to statuses, reading goes on.
            source = self.kubernetes
            yield StatusWriter(source.connection, lambda: source.snapshot, source.changed).run()

    async def aclose(self) -> None:
        """Close the connections, when all work has ended."""
        if self.kubernetes:
            await self.kubernetes.connection.aclose()

    def reload(self) -> None:
        """Read all documents anew, changed or not."""
        if self.files:
            self.files.reload()
        if self.kubernetes:
            self.kubernetes.reload()


def read_documents(
    settings: Settings,
    metrics: Metrics,
    clock: Callable[[], float],
    on_adopt: Callable[[Adopted], None] | None,
    last_good: bytes | None,
    *,
    outbound: Outbound,
) -> Documents:
    """
    Return the documents: those of files are read, those of the Kubernetes API awaited.

    A broker that names itself as an issuer is refused. Raises: DocumentsRefused, SettingsRefused.
    """
    problems = Problems()
    kubernetes: KubernetesSource | None = None
    files: FileSource | None = None
    if settings.kubernetes_namespace:
        with problems.collected():
            kubernetes = _followed(settings, settings.kubernetes_namespace, metrics, outbound)
    if settings.documents:
        unite_anew = kubernetes.files_changed if kubernetes else lambda: None
        with problems.collected():
            files = _files(
                settings,
                clock=clock,
                on_change=partial(_reloaded, metrics, unite_anew),
                on_adopt=on_adopt,
                last_good=last_good,
            )
    problems.refuse()
    if kubernetes and files:
        kubernetes.unite_with(files)
    source = kubernetes or files
    assert source is not None  # noqa: S101  for mypy: the settings have one of them
    return Documents(source, files, kubernetes)


def _followed(
    settings: Settings, namespace: str, metrics: Metrics, outbound: Outbound
) -> KubernetesSource:
    return KubernetesSource(
        connect(namespace, settings.kubeconfig, api_server_of_the_pod(), outbound),
        judge_issuer=partial(_judged, settings.url, settings.bearer_token_files),
        on_adopt=lambda _united: metrics.reloaded(True),
    )


def _judged(url: str, token_folder: Path | None, issuer: JwtIssuer) -> Iterator[Problem]:
    """Yield what is wrong with an *issuer* of the Kubernetes API at this broker."""
    yield from _names_itself(url, issuer)
    yield from token_file_outside(issuer, token_folder)


def _files(
    settings: Settings,
    *,
    clock: Callable[[], float],
    on_change: Callable[[Assembled], None],
    on_adopt: Callable[[Adopted], None] | None,
    last_good: bytes | None,
) -> FileSource:
    source = FileSource(
        settings.documents,
        clock=clock,
        on_change=on_change,
        on_adopt=on_adopt,
        refuse=partial(_trusts_itself, settings.url),
        last_good=last_good,
    )
    _log_passed_over(source.passed_over)
    _log_problems(source.current().warnings)
    if source.problems():
        _log_problems(source.problems())
        _log_not_adopted()
    return source


def _trusts_itself(url: str, catalog: Catalog) -> Sequence[Problem]:
    """Refuse the broker at *url* as an issuer: one of its tokens could be exchanged without end."""
    issuer = catalog.issuers.get(url)
    return _names_itself(url, issuer) if issuer else ()


def _names_itself(url: str, issuer: JwtIssuer) -> Sequence[Problem]:
    """Refuse *issuer* if it is the broker at *url*."""
    if issuer.iss != url:
        return ()
    message = f"names {url}, which is this broker itself"
    line, code = issuer.origin.line_of("spec", "iss"), Code.OWN_ISSUER.value
    place = issuer.origin.path, line, code, Severity.ERROR, message
    return [
        Problem(*place, "JwtIssuer", issuer.name, "spec.iss", "remove it, or correct issuer-url")
    ]


def _reloaded(metrics: Metrics, unite_anew: Callable[[], None], assembled: Assembled) -> None:
    """Count and log a reload of the files, and unite them anew with what else there is."""
    unite_anew()
    metrics.reloaded(assembled.catalog is not None)
    _log_problems(assembled.problems)
    _log_passed_over(assembled.passed_over)
    log = structlog.get_logger("federation.documents")
    if assembled.catalog is None:
        _log_not_adopted()
    else:
        log.info(
            "documents adopted", documents=assembled.documents, digest=assembled.catalog.digest
        )


def _log_passed_over(sentences: Iterable[str]) -> None:
    for sentence in sentences:
        structlog.get_logger("federation.documents").debug("file passed over", file=sentence)


def _log_not_adopted() -> None:
    structlog.get_logger("federation.documents").error(
        "documents not adopted; the last good set stays in use"
    )


def _log_problems(problems: Iterable[Problem]) -> None:
    log = structlog.get_logger("federation.documents")
    for problem in problems:
        log.warning("document problem", code=problem.code, problem=str(problem))
