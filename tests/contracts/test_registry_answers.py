"""What is made of each answer that a registry may give, and of one that is no registry at all."""

from __future__ import annotations

import base64
import json
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from datetime import timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from requests.utils import DEFAULT_CA_BUNDLE_PATH

from tests.contracts.registries import PASSWORD, PATIENCE, USER, configure
from tests.contracts.scripted_registry import (
    HOST_WITH_TLS,
    Answer,
    Asked,
    ScriptedRegistry,
    certificate,
    scripted,
)
from titus_celery.adapters.docker_credentials import DockerCredentials
from titus_celery.adapters.registry_resolver import OPEN_MAX, RegistryResolver
from titus_celery.core.descriptor import Image
from titus_celery.errors import ImageMissing, Unavailable

DIGEST = "sha256:" + "1" * 64
HAS_IT = Answer(200, {"Docker-Content-Digest": DIGEST})
#: What `Authorization` says of USER.
BASIC = f"Basic {base64.b64encode(f'{USER}:{PASSWORD}'.encode()).decode()}"


@pytest.fixture(autouse=True)
def config(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The directory of this host's Docker configuration, which is empty."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    return tmp_path


@pytest.fixture
def registry() -> Iterator[ScriptedRegistry]:
    """One that has everything, without TLS."""
    with scripted(lambda asked: HAS_IT) as made:
        yield made


def resolve(host: str) -> Image:
    return RegistryResolver(DockerCredentials()).resolve(Image(name=f"{host}/team/app:1"))


def test_it_is_asked_once_for_every_kind_of_manifest(registry: ScriptedRegistry) -> None:
    assert resolve(registry.host).id == f"{registry.host}/team/app@{DIGEST}"
    [asked] = registry.asked
    assert asked.path == "/v2/team/app/manifests/1"
    for kind in (
        "application/vnd.docker.distribution.manifest.v2+json",
        "application/vnd.docker.distribution.manifest.list.v2+json",
        "application/vnd.oci.image.manifest.v1+json",
        "application/vnd.oci.image.index.v1+json",
    ):
        assert kind in asked.headers["Accept"]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_what_may_go_better_later_is_unavailable(registry: ScriptedRegistry, status: int) -> None:
    registry.answer = lambda asked: Answer(status)
    with pytest.raises(Unavailable) as away:
        resolve(registry.host)
    assert str(away.value) == f"the registry {registry.host} is unavailable: it answers {status}"


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (Answer(404), "its registry does not have it"),
        (Answer(400), "its registry answers 400"),
        (Answer(403), "its registry answers 403"),
        (Answer(451), "its registry answers 451"),
        (Answer(401), "its registry has it not, or only for a login, and the host that asked has none"),
        (Answer(200), "what answers there tells no digest, so it is no registry"),
        (Answer(200, {"Docker-Content-Digest": "md5:1"}), "what answers there tells no digest"),
        (
            Answer(401, {"WWW-Authenticate": 'Bearer realm="https://example.com/token"'}),
            "its registry wants a token, which is not asked for without TLS",
        ),
    ],
)
def test_what_will_not_go_better_is_missing(registry: ScriptedRegistry, answer: Answer, why: str) -> None:
    registry.answer = lambda asked: answer
    with pytest.raises(ImageMissing) as missing:
        resolve(registry.host)
    assert why in str(missing.value)
    assert missing.value.image == f"{registry.host}/team/app:1"


def test_a_registry_that_sends_us_in_circles_is_unavailable(registry: ScriptedRegistry) -> None:
    registry.answer = lambda asked: Answer(307, {"Location": asked.path})
    with pytest.raises(Unavailable, match="redirects"):
        resolve(registry.host)


def test_a_password_does_not_go_along_to_another_host(registry: ScriptedRegistry, config: Path) -> None:
    configure(config, registry.host)
    with scripted(lambda asked: HAS_IT) as other:

        def answer(asked: Asked) -> Answer:
            if "Authorization" not in asked.headers:
                return Answer(401, {"WWW-Authenticate": 'Basic realm="r"'})
            return Answer(307, {"Location": f"http://localhost:{other.host.partition(':')[2]}{asked.path}"})

        registry.answer = answer
        assert resolve(registry.host).id.endswith(DIGEST)
        assert [asked.headers.get("Authorization") for asked in registry.asked] == [None, BASIC]
        assert ["Authorization" in asked.headers for asked in other.asked] == [False]


def test_what_does_not_speak_http_is_unavailable() -> None:
    with answering(b"SSH-2.0-OpenSSH_9.2\r\n") as host, pytest.raises(Unavailable):
        resolve(host)


def test_a_registry_that_trickles_is_not_waited_for_without_end() -> None:
    """Each piece comes in time, and the answer never."""
    hurried = RegistryResolver(DockerCredentials(), answer_within=timedelta(milliseconds=300))
    with (
        answering(b"HTTP/1.1 200 OK\r\n", then=b"X-More: 1\r\n") as host,
        pytest.raises(Unavailable, match="within 0"),
    ):
        hurried.resolve(Image(name=f"{host}/app"))


def test_a_registry_that_never_answers_is_asked_so_often_and_again_once_it_did(
    registry: ScriptedRegistry,
) -> None:
    is_back = threading.Event()
    registry.answer = lambda asked: HAS_IT if is_back.wait(PATIENCE) else Answer(500)
    image, other = Image(name=f"{registry.host}/app"), Image(name=f"localhost:{registry.host[10:]}/app")
    hurried = RegistryResolver(DockerCredentials(), answer_within=timedelta(0))
    for _ in range(OPEN_MAX):
        with pytest.raises(Unavailable, match="within 0 s"):
            hurried.resolve(image)
    with pytest.raises(Unavailable, match=f"it has not answered {OPEN_MAX} questions yet"):
        hurried.resolve(image)
    with pytest.raises(Unavailable, match="within 0 s"):
        hurried.resolve(other)
    is_back.set()
    for thread in threading.enumerate():
        if thread.name.startswith("ask-"):
            thread.join(PATIENCE)
    with pytest.raises(Unavailable, match="within 0 s"):
        hurried.resolve(image)


def test_without_a_thread_to_ask_in_a_registry_is_unavailable_and_its_questions_are_not_counted(
    registry: ScriptedRegistry,
) -> None:
    resolver = RegistryResolver(DockerCredentials())
    image = Image(name=f"{registry.host}/team/app:1")
    before = threading.stack_size(1 << 46)
    # While it is so the server of this test has no threads either.
    try:
        for _ in range(2 * OPEN_MAX):
            with pytest.raises(Unavailable, match="there is nobody to ask it"):
                resolver.resolve(image)
    finally:
        threading.stack_size(before)
    assert resolver.resolve(image).id.endswith(DIGEST)


# ------------------------------------------------------------------------------------------------------- TLS


def test_a_registry_is_unavailable_without_the_certificates_to_trust(
    pem: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/no/such/file.pem")
    with pytest.raises(Unavailable, match=r"file\.pem"):
        resolve("registry.example.com")


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The certificate of the registries with TLS."""
    return certificate(tmp_path_factory.mktemp("pem"))


@pytest.fixture
def trusted(pem: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The same, where this host trusts it."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(pem))
    return pem


def test_a_registry_elsewhere_is_asked_over_tls(trusted: Path) -> None:
    with scripted(lambda asked: HAS_IT, trusted) as registry:
        assert resolve(registry.host).id == f"{registry.host}/team/app@{DIGEST}"


def test_a_certificate_that_nobody_vouches_for_is_not_believed(pem: Path) -> None:
    with scripted(lambda asked: HAS_IT, pem) as registry:
        with pytest.raises(Unavailable, match="certificate verify failed"):
            resolve(registry.host)
        assert registry.asked == []


def test_a_certificate_is_believed_for_its_own_host_alone(trusted: Path) -> None:
    with scripted(lambda asked: HAS_IT, trusted) as registry:
        other = registry.host.replace(HOST_WITH_TLS, "127.0.1")
        assert other != registry.host
        with pytest.raises(Unavailable, match="certificate"):
            resolve(other)
        assert registry.asked == []


def test_certificates_that_are_trusted_from_now_on_count_from_now_on(
    pem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(Path(DEFAULT_CA_BUNDLE_PATH).read_text())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
    with scripted(lambda asked: HAS_IT, pem) as registry:
        with pytest.raises(Unavailable, match="certificate verify failed"):
            resolve(registry.host)
        bundle.write_text(pem.read_text())
        assert resolve(registry.host).id.endswith(DIGEST)


def test_certificates_may_be_a_directory(pem: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hashed = subprocess.run(
        ["openssl", "x509", "-hash", "-noout", "-in", str(pem)], check=True, capture_output=True, text=True
    )
    (tmp_path / f"{hashed.stdout.strip()}.0").write_text(pem.read_text())
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path))
    with scripted(lambda asked: HAS_IT, pem) as registry:
        assert resolve(registry.host).id.endswith(DIGEST)


def test_a_registry_without_tls_is_asked_only_if_an_operator_says_so(registry: ScriptedRegistry) -> None:
    host = registry.host.replace("127.0.0.1", "127.1")
    image = Image(name=f"{host}/app:1")
    with pytest.raises(Unavailable):
        RegistryResolver(DockerCredentials()).resolve(image)
    with pytest.raises(Unavailable):
        RegistryResolver(DockerCredentials(), ["127.1:1"]).resolve(image)
    assert registry.asked == []
    assert RegistryResolver(DockerCredentials(), [host]).resolve(image).id == f"{host}/app@{DIGEST}"


def test_a_password_goes_over_tls_only_where_it_is_asked_for(trusted: Path, config: Path) -> None:
    def answer(asked: Asked) -> Answer:
        known = asked.headers.get("Authorization") == BASIC
        return HAS_IT if known else Answer(401, {"WWW-Authenticate": 'Basic realm="r"'})

    with scripted(answer, trusted) as registry:
        configure(config, registry.host)
        assert resolve(registry.host).id.endswith(DIGEST)
        assert [asked.headers.get("Authorization") for asked in registry.asked] == [None, BASIC]


class Tokens:
    """A registry that lets in who has a token, and gives tokens itself: to anybody, or to USER alone."""

    def __init__(self, *, for_anybody: bool, status: int = 200) -> None:
        self._for_anybody = for_anybody
        self._status = status
        self.host = ""
        self.scopes: list[str] = []

    def __call__(self, asked: Asked) -> Answer:
        url = urlsplit(asked.path)
        said = asked.headers.get("Authorization")
        if url.path == "/token":
            self.scopes += parse_qs(url.query)["scope"]
            if self._status != 200:
                return Answer(self._status)
            if not self._for_anybody and said != BASIC:
                return Answer(401)
            return Answer(200, {}, json.dumps({"token": "open"}).encode())
        if said == "Bearer open":
            return HAS_IT
        scope = 'scope="repository:team/app:pull"'
        where = f'Bearer realm="https://{self.host}/token",service="tests",{scope}'
        return Answer(401, {"WWW-Authenticate": where})


def resolve_by(tokens: Tokens, pem: Path, config: Path, password: str = "") -> Image:
    with scripted(tokens, pem) as registry:
        tokens.host = registry.host
        if password:
            configure(config, registry.host, password)
        return resolve(registry.host)


def test_a_token_that_everybody_gets_is_asked_for_without_a_login(trusted: Path, config: Path) -> None:
    tokens = Tokens(for_anybody=True)
    assert resolve_by(tokens, trusted, config).id.endswith(DIGEST)
    assert tokens.scopes == ["repository:team/app:pull"]


def test_a_token_is_given_for_a_password(trusted: Path, config: Path) -> None:
    assert resolve_by(Tokens(for_anybody=False), trusted, config, PASSWORD).id.endswith(DIGEST)


@pytest.mark.parametrize(("password", "why"), [("", "only for a login"), ("wrong", "not for the login")])
def test_who_gets_no_token_gets_no_image(trusted: Path, config: Path, password: str, why: str) -> None:
    with pytest.raises(ImageMissing, match=why):
        resolve_by(Tokens(for_anybody=False), trusted, config, password)


@pytest.mark.parametrize("status", [400, 403])
def test_a_login_may_be_refused_in_other_words(trusted: Path, config: Path, status: int) -> None:
    with pytest.raises(ImageMissing, match="not for the login"):
        resolve_by(Tokens(for_anybody=False, status=status), trusted, config, "wrong")


@pytest.mark.parametrize("status", [404, 429, 503])
def test_where_no_tokens_are_given_now_the_registry_is_unavailable(
    trusted: Path, config: Path, status: int
) -> None:
    with pytest.raises(Unavailable, match=f"what gives tokens for it answers {status}"):
        resolve_by(Tokens(for_anybody=True, status=status), trusted, config)


@pytest.mark.parametrize(
    "challenge", ["Bearer", "Bearer x", 'Bearer realm="https://"', "(", 'Bearer realm="a b"']
)
def test_a_way_in_that_makes_no_sense_is_unavailable(trusted: Path, challenge: str) -> None:
    answer = Answer(401, {"WWW-Authenticate": challenge})
    with scripted(lambda asked: answer, trusted) as registry, pytest.raises(Unavailable):
        resolve(registry.host)


@contextmanager
def answering(said: bytes, then: bytes = b"") -> Iterator[str]:
    """The host of a server that says something to who comes, and then the same thing over and over."""
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve() -> None:
        with suppress(OSError):
            line, _ = listener.accept()
            with closing(line):
                line.sendall(said)
                while then and not over.wait(0.05):
                    line.sendall(then)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with closing(listener):
        yield f"127.0.0.1:{listener.getsockname()[1]}"
        over.set()
        with suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()
