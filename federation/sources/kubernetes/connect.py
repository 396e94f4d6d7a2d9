"""The connection to a Kubernetes API server that the settings name."""

from __future__ import annotations

from pathlib import Path

from federation.errors import SettingsRefused
from federation.outbound import Outbound
from federation.sources.kubernetes.access import AccessUnreadable, KubeconfigRefused
from federation.sources.kubernetes.connection import Connection


def connect(
    namespace: str,
    kubeconfig: Path | None,
    pod: tuple[str, str] | None,
    outbound: Outbound | None = None,
) -> Connection:
    """
    Return the connection by *kubeconfig*, or without one that of the pod this program runs in.

    *pod* is where Kubernetes says that its API server is. The proxies of *outbound* are for the API
    server of *kubeconfig* only. Raises: SettingsRefused.
    """
    if kubeconfig:
        try:
            return Connection.of_kubeconfig(kubeconfig, namespace, outbound)
        except (KubeconfigRefused, AccessUnreadable) as error:
            raise SettingsRefused([f"kubeconfig: {error}"]) from error
    if pod is None:
        problem = (
            "kubernetes-namespace: this is no pod of a cluster (KUBERNETES_SERVICE_HOST and"
            " KUBERNETES_SERVICE_PORT are not set); set --kubeconfig or FEDERATION_KUBECONFIG"
        )
        raise SettingsRefused([problem])
    try:
        return Connection.in_cluster(*pod, namespace)
    except AccessUnreadable as error:
        problem = (
            f"kubernetes-namespace: {error}; mount the token of the ServiceAccount"
            " (automountServiceAccountToken, or a projected volume)"
        )
        raise SettingsRefused([problem]) from error
