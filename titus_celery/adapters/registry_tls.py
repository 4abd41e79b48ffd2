"""TLS to registries, with the certificates to trust read once instead of for each question.

Reading them takes the processor several times as long as all else that a question needs. Which they are is
known as `requests` knows it: REQUESTS_CA_BUNDLE, CURL_CA_BUNDLE, or those that it brings.
"""

from __future__ import annotations

import functools
import os
import ssl
from pathlib import Path
from typing import Any

from requests.adapters import HTTPAdapter
from requests.utils import DEFAULT_CA_BUNDLE_PATH

__all__ = ["SharedTls"]


class SharedTls(HTTPAdapter):
    """How a session of `requests` makes connections with TLS. OSError without certificates to trust."""

    def __init__(self) -> None:
        named = os.environ.get("REQUESTS_CA_BUNDLE") or os.environ.get("CURL_CA_BUNDLE")
        bundle = named or DEFAULT_CA_BUNDLE_PATH
        self._context = _trusting(bundle, Path(bundle).stat().st_mtime_ns)
        super().__init__()

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Connections to hosts."""
        super().init_poolmanager(*args, **kwargs, ssl_context=self._context)

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        """Connections through a proxy."""
        return super().proxy_manager_for(proxy, **kwargs, ssl_context=self._context)

    def send(self, request: Any, *args: Any, **kwargs: Any) -> Any:
        """As it is, but for what would have the certificates read."""
        return super().send(request, *args, **{**kwargs, "verify": True})

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """What a connection trusts: only what the context does."""
        conn.cert_reqs = "CERT_REQUIRED"


@functools.lru_cache(maxsize=1)
def _trusting(bundle: str, changed: int) -> ssl.SSLContext:
    """Trusts these certificates, as they were when they *changed*."""
    if Path(bundle).is_dir():
        return ssl.create_default_context(capath=bundle)
    return ssl.create_default_context(cafile=bundle)
