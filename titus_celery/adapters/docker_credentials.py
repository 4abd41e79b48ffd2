"""Logins for registries, from the Docker client configuration of this host (docs/semantics.md A22).

That is `config.json` in DOCKER_CONFIG or ~/.docker, with the credential helpers that it names: what
`docker login` writes. It is read anew each time, so that a login counts from the next image on.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from docker import auth
from docker.errors import DockerException

from titus_celery.errors import Unavailable

__all__ = ["DockerCredentials", "Login"]

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

    def of(self, registry: str) -> Login | None:
        """The login for a registry (host[:port]), if there is one.

        Unavailable if the configuration cannot be read, or a credential helper fails.
        """
        try:
            found = auth.resolve_authconfig(auth.load_config(), registry)
            return _login(found or {})
        except (DockerException, OSError, *_MALFORMED) as error:
            # What a helper says is for who runs this host, not for whoever sent a job.
            _log.warning("no login for %s can be read: %s", registry, error)
            why = f"no login for {registry} can be read from it; the log says why"
            raise Unavailable("the Docker configuration of this host", why) from error


def _login(found: Mapping[str, Any]) -> Login | None:
    """The library spells the keys in two ways, by where they come from."""
    known = {str(key).lower(): str(value or "") for key, value in found.items()}
    login = Login(known.get("username", ""), known.get("password", ""), known.get("identitytoken", ""))
    return login if login != Login() else None
