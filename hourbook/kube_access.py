"""How to reach a Kubernetes cluster: from a kubeconfig file, or from within as a pod's service account."""

from __future__ import annotations

import base64
import binascii
import os
import ssl
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from metering.log_sources import IN_CLUSTER

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")


class KubeConfigError(ValueError):
    """Access that cannot be used; the message says which file and what to change."""


@dataclass(frozen=True)
class KubeAccess:
    """Where an API server is, whom to trust, and who asks."""

    server: str
    authority: str = ""  # PEM; "" for the authorities that the machine trusts
    token: str = ""
    token_file: Path | None = None  # read for each request, as such tokens are renewed
    certificate: str = ""  # PEM of the client's certificate and key

    def headers(self) -> Mapping[str, str]:
        """Return what a request says of who asks."""
        token = self.token_file.read_text(encoding="utf-8").strip() if self.token_file else self.token
        return {"Authorization": f"Bearer {token}"} if token else {}

    def ssl_context(self) -> ssl.SSLContext:
        """Return whom to trust; the certificate and the name of the server are always checked."""
        context = ssl.create_default_context(cadata=self.authority or None)
        if self.certificate:
            # The standard library takes a client's key from a file only.
            with tempfile.NamedTemporaryFile(suffix=".pem") as file:
                file.write(self.certificate.encode())
                file.flush()
                context.load_cert_chain(file.name)
        return context


def kube_access(kubeconfig: str, *, service_account: Path = SERVICE_ACCOUNT) -> KubeAccess:
    """Return how to reach the cluster of a kubeconfig's current context, or of the pod that this runs in."""
    if kubeconfig == IN_CLUSTER:
        return _in_cluster(service_account)
    path = Path(kubeconfig)
    try:
        said = yaml.safe_load(path.read_text(encoding="utf-8"))
        return _from_config(said, path.parent)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise KubeConfigError(f"{path} is no kubeconfig: {error}") from error
    except (KeyError, TypeError, AttributeError, binascii.Error) as error:
        raise KubeConfigError(f"{path} is no kubeconfig with a current context ({error!r})") from error
    except (KubeConfigError, ssl.SSLError) as error:
        raise KubeConfigError(f"{path}: {error}") from error


def _in_cluster(folder: Path) -> KubeAccess:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST", ""), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (folder / "token").is_file():
        raise KubeConfigError("this is no pod with a service account; name a kubeconfig file")
    name = f"[{host}]" if ":" in host else host
    authority = (folder / "ca.crt").read_text(encoding="ascii")
    return KubeAccess(f"https://{name}:{port}", authority, token_file=folder / "token")


def _from_config(said: Mapping[str, Any], folder: Path) -> KubeAccess:
    context = _named(said["contexts"], said["current-context"])["context"]
    cluster = _named(said["clusters"], context["cluster"])["cluster"]
    user = _named(said.get("users") or [], context["user"])["user"] or {}
    server = str(cluster["server"])
    if not server.startswith("https://") or cluster.get("insecure-skip-tls-verify"):
        raise KubeConfigError(
            f"{server} would be asked without checking who answers; use https and certificate-authority"
        )
    if "exec" in user or "auth-provider" in user:
        raise KubeConfigError("logging in by another program is not done here; make a service account's token")
    certificate = _pem(user, "client-certificate", folder)
    return KubeAccess(
        server=server.rstrip("/"),
        authority=_pem(cluster, "certificate-authority", folder),
        token=str(user.get("token") or ""),
        token_file=folder / user["tokenFile"] if user.get("tokenFile") else None,
        certificate=certificate + _pem(user, "client-key", folder) if certificate else "",
    )


def _named(entries: Any, name: str) -> Mapping[str, Any]:  # noqa: ANN401 - whatever the file holds
    found: Mapping[str, Any] = next((entry for entry in entries if entry["name"] == name), {})
    if not found:
        raise KubeConfigError(f"it has no entry {name!r}")
    return found


def _pem(entry: Mapping[str, Any], key: str, folder: Path) -> str:
    if data := entry.get(f"{key}-data"):
        return base64.b64decode(str(data)).decode("ascii") + "\n"
    return (folder / str(entry[key])).read_text(encoding="ascii") + "\n" if entry.get(key) else ""
