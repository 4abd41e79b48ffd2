"""Logins for registries, from the Docker client configuration of this host (docs/semantics.md A22).

That is `config.json` in DOCKER_CONFIG or ~/.docker, with the credential helpers that it names: what
`docker login` writes. It is read anew each time, so that a login counts from the next image on.
"""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final

from docker import auth
from docker.credentials import Store
from docker.credentials.errors import StoreError, process_store_error
from docker.errors import DockerException

from titus_celery.errors import Unavailable

__all__ = ["HELPER_WITHIN", "DockerCredentials", "Login"]

#: How long a credential helper may take; one that waits for somebody to unlock a keyring waits for ever.
HELPER_WITHIN: Final = timedelta(seconds=8)

#: What a configuration that is no such thing makes its reader fail with.
_MALFORMED: Final = (AttributeError, KeyError, TypeError, ValueError)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are to a registry: a user with a password, or a token that stands for both."""

    username: str = ""
    password: str = field(default="", repr=False)
    identity_token: str = field(default="", repr=False)


class DockerCredentials:
    """The logins of this host's Docker configuration. Safe to use from many threads."""

    def __init__(self, helper_within: timedelta = HELPER_WITHIN) -> None:
        self._helper_within = helper_within

    def of(self, registry: str) -> Login | None:
        """The login for a registry (host[:port]), if there is one.

        Unavailable if the configuration cannot be read, or a credential helper fails.
        """
        try:
            config = auth.load_config()
            if name := config.get_credential_store(registry):
                # Where the library keeps those that it has asked already.
                config._stores[name] = _Helper(name, self._helper_within)
            return _login(config.resolve_authconfig(registry) or {})
        except (DockerException, OSError, *_MALFORMED) as error:
            # What a helper says is for who runs this host, not for whoever sent a job.
            _log.warning("no login for %s can be read: %s", registry, error)
            why = f"no login for {registry} can be read from it; the log says why"
            raise Unavailable("the Docker configuration of this host", why) from error


class _Helper(Store):  # type: ignore[misc]
    """A credential helper that is ended if it takes too long; the library would wait for it."""

    def __init__(self, name: str, within: timedelta) -> None:
        super().__init__(name)
        self._within = within.total_seconds()

    def _execute(self, verb: str, words: bytes) -> bytes:
        if self.exe is None:
            raise StoreError(f"{self.program} is not installed")
        try:
            return subprocess.run(
                [self.exe, verb], input=words, stdout=subprocess.PIPE, check=True, timeout=self._within
            ).stdout
        except subprocess.CalledProcessError as error:
            raise process_store_error(error, self.program) from error
        except subprocess.TimeoutExpired as error:
            raise StoreError(f"{self.program} did not answer within {self._within:g} s") from error


def _login(found: Mapping[str, Any]) -> Login | None:
    """The library spells the keys in two ways, by where they come from."""
    known = {str(key).lower(): str(value or "") for key, value in found.items()}
    login = Login(known.get("username", ""), known.get("password", ""), known.get("identitytoken", ""))
    return login if login != Login() else None
