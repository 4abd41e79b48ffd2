"""Resolves images by asking the registries that their names name (docs/semantics.md A20, A22)."""

from __future__ import annotations

import base64
import threading
from collections import Counter
from collections.abc import Collection
from concurrent.futures import Future
from datetime import timedelta
from typing import Final

from dxf import DXF, DXFBase
from dxf.exceptions import DXFError, DXFUnauthorizedError
from requests import Response
from requests.exceptions import HTTPError, Timeout

from titus_celery.adapters.docker_credentials import DockerCredentials, Login
from titus_celery.adapters.docker_events import bottom_of
from titus_celery.adapters.docker_records import short
from titus_celery.adapters.image_names import DEFAULT_TAG, DIGEST, Reference, is_plain, reference
from titus_celery.adapters.registry_tls import SharedTls
from titus_celery.core.descriptor import Image
from titus_celery.errors import ImageMissing, Unavailable

__all__ = ["ANSWER_WITHIN", "OPEN_MAX", "RegistryResolver"]

#: How long one question may take in all, with the name server, the login and a credential helper: whoever
#: creates a job waits for it.
ANSWER_WITHIN: Final = timedelta(seconds=10)
#: Questions to one registry at the same time, with those that were left behind: more than anybody asks. So a
#: registry, or a credential helper, that never answers takes no more of our threads.
OPEN_MAX: Final = 64
#: How long a registry may take to let us connect, and then for each piece of its answer (s).
_STEP_SECONDS: Final = 4.0

#: What a registry answers if there is no such image, and if it is worth trying again: it waited for us too
#: long, or was asked too often.
_ABSENT: Final = 404
_LATER: Final = (408, 429)
#: From here on it is the registry's own fault.
_ITS_FAULT: Final = 500
#: What those who give tokens answer to a login that is not right.
_REFUSED: Final = (400, 401, 403)

#: What an answer that is none of a registry's makes its reader fail with.
_MALFORMED: Final = (AttributeError, KeyError, TypeError, ValueError)


class RegistryResolver:
    """The ImageResolver for images whose name says which registry has them. Safe to use from many threads."""

    def __init__(
        self,
        credentials: DockerCredentials,
        insecure: Collection[str] = (),
        *,
        answer_within: timedelta = ANSWER_WITHIN,
    ) -> None:
        """*insecure*: registries (host[:port]) without TLS, besides those on loopback."""
        self._credentials = credentials
        self._insecure = frozenset(insecure)
        self._answer_within = answer_within
        self._lock = threading.Lock()
        self._open: Counter[str] = Counter()

    def resolve(self, image: Image) -> Image:
        """Both name and id of what *image* means in its registry now; the id is `registry/repository@digest`.

        A name without a tag means `:latest`; one with a digest means that, whatever its tag. ImageMissing if
        the registry has no such image, or not for us; Unavailable if it does not answer.
        """
        given = image.id or image.name
        try:
            wanted = reference(given)
        except ValueError as error:
            raise ImageMissing(given, str(error)) from error
        if image.id and not wanted.digest:
            raise ImageMissing(given, "an id of an image in a registry ends in @sha256: and its digest")
        found = self._asked(given, wanted)
        name = image.name or wanted.place
        if image.name and not (wanted.tag or wanted.digest):
            name += f":{DEFAULT_TAG}"
        return Image(name=name, id=f"{wanted.place}@{wanted.digest or found}")

    def _asked(self, given: str, wanted: Reference) -> str:
        """The digest; asked in a thread that is left behind once it takes too long."""
        who, answer = f"the registry {wanted.registry}", Future[str]()

        def ask() -> None:
            try:
                answer.set_result(self._ask(given, wanted))
            except Exception as error:
                answer.set_exception(error)
            finally:
                self._count(wanted.registry, -1)

        if self._count(wanted.registry, 1) > OPEN_MAX:
            self._count(wanted.registry, -1)
            raise Unavailable(who, f"it has not answered {OPEN_MAX} questions yet")
        try:
            threading.Thread(target=ask, name=f"ask-{wanted.registry}", daemon=True).start()
        except RuntimeError as error:
            self._count(wanted.registry, -1)
            raise Unavailable(who, f"there is nobody to ask it: {error}") from error
        try:
            return answer.result(self._answer_within.total_seconds())
        except TimeoutError as error:
            why = f"it did not answer within {self._answer_within.total_seconds():g} s"
            raise Unavailable(who, why) from error

    def _count(self, registry: str, by: int) -> int:
        """How many questions are open then."""
        with self._lock:
            self._open[registry] += by
            # Drops those with none.
            self._open = +self._open
            return self._open[registry]

    def _ask(self, given: str, wanted: Reference) -> str:
        who = f"the registry {wanted.registry}"
        plain = is_plain(wanted.registry, self._insecure)
        entry = _Entry(wanted.registry, self._credentials, is_plain=plain)
        door = DXF(wanted.registry, wanted.repository, entry, insecure=plain, timeout=_STEP_SECONDS)
        try:
            with door:
                door._sessions[0].mount("https://", SharedTls())
                digest, _ = door.head_manifest_and_response(wanted.alias)
        except DXFUnauthorizedError as error:
            raise ImageMissing(given, entry.why_refused()) from error
        except HTTPError as error:
            status = _status_of(error)
            if status in _LATER or status >= _ITS_FAULT:
                raise Unavailable(who, f"it answers {status}") from error
            why = "its registry does not have it" if status == _ABSENT else f"its registry answers {status}"
            raise ImageMissing(given, why) from error
        except (OSError, DXFError, *_MALFORMED) as error:
            raise Unavailable(who, _why_silent(error)) from error
        if not DIGEST.fullmatch(digest or ""):
            raise ImageMissing(given, "what answers there tells no digest, so it is no registry")
        return digest


class _Entry:
    """How we get in where a registry asks who we are: dxf calls it then."""

    def __init__(self, registry: str, credentials: DockerCredentials, *, is_plain: bool) -> None:
        self._registry = registry
        self._credentials = credentials
        self._is_plain = is_plain
        self._login: Login | None = None
        self._wants_token = False

    def __call__(self, door: DXFBase, response: Response) -> None:
        """Let *door* send what the *response* asks for, as far as we have it."""
        self._login = self._credentials.of(self._registry)
        user = self._login if self._login and self._login.username else Login()
        kind = response.headers.get("www-authenticate", "").lower()
        self._wants_token = kind.startswith("bearer")
        if self._is_plain:
            if user.username and kind.startswith("basic"):
                # dxf sends passwords over TLS alone. Docker sends them to loopback, and where it is told to.
                door._headers = {"Authorization": f"Basic {_basic(user)}"}
            return
        try:
            # Without a user it asks for the token that everybody gets.
            door.authenticate(user.username or None, user.password or None, response=response)
        except HTTPError as error:
            status = _status_of(error)
            if status in _REFUSED:
                raise DXFUnauthorizedError from error
            why = f"what gives tokens for it answers {status}"
            raise Unavailable(f"the registry {self._registry}", why) from error

    def why_refused(self) -> str:
        """What was the matter with our entry. Registries do not say whether there is such an image at all."""
        if self._is_plain and self._wants_token:
            return "its registry wants a token, which is not asked for without TLS"
        if self._login is None:
            return "its registry has it not, or only for a login, and the host that asked has none"
        if not self._login.username:
            return "for its registry the host that asked has an identity token alone: a password is needed"
        return "its registry has it not, or not for the login of the host that asked"


def _basic(login: Login) -> str:
    return base64.b64encode(f"{login.username}:{login.password}".encode()).decode()


def _status_of(error: HTTPError) -> int:
    return _ITS_FAULT if error.response is None else error.response.status_code


def _why_silent(error: Exception) -> str:
    if isinstance(error, Timeout):
        return f"it gives no answer within {_STEP_SECONDS:g} s"
    if isinstance(error, OSError):
        return short(str(bottom_of(error)))
    return "its answer makes no sense"
