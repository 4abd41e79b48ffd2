"""Which registry a name means, and what else it says."""

from __future__ import annotations

import pytest

from titus_celery.adapters.image_names import Reference, is_plain, reference, registry_of

DIGEST = "sha256:" + "0123456789abcdef" * 4


@pytest.mark.parametrize(
    ("name", "registry"),
    [
        ("app", ""),
        ("app:1", ""),
        ("team/app", ""),
        ("team/app:1", ""),
        (f"team/app@{DIGEST}", ""),
        (f"app@{DIGEST}", ""),
        (DIGEST, ""),
        ("", ""),
        ("localhost", ""),
        ("example.com", ""),
        ("localhosts/app", ""),
        ("localhost/app", "localhost"),
        ("localhost:5000/app", "localhost:5000"),
        ("registry:5000/app", "registry:5000"),
        ("example.com/app:1", "example.com"),
        ("example.com/a/b/c", "example.com"),
        ("127.0.0.1:5000/app", "127.0.0.1:5000"),
        ("[::1]:5000/app", "[::1]:5000"),
    ],
)
def test_a_registry_is_what_looks_like_a_host_before_the_first_slash(name: str, registry: str) -> None:
    assert registry_of(name) == registry


@pytest.mark.parametrize(
    ("name", "said", "alias"),
    [
        ("example.com/app", Reference("example.com", "app"), "latest"),
        (
            "example.com:443/a/b-c/d__e.f:V1.2_x",
            Reference("example.com:443", "a/b-c/d__e.f", "V1.2_x"),
            "V1.2_x",
        ),
        (f"example.com/app@{DIGEST}", Reference("example.com", "app", "", DIGEST), DIGEST),
        (f"localhost/app:1@{DIGEST}", Reference("localhost", "app", "1", DIGEST), DIGEST),
        ("[::1]:5000/app:1", Reference("[::1]:5000", "app", "1"), "1"),
        (f"{'a' * 63}.example.com:65535/app", Reference(f"{'a' * 63}.example.com:65535", "app"), "latest"),
    ],
)
def test_a_name_is_taken_apart(name: str, said: Reference, alias: str) -> None:
    assert reference(name) == said
    assert reference(name).alias == alias
    assert reference(name).place == f"{said.registry}/{said.repository}"


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("app", "'' is no address of a registry"),
        ("a..b/app", "'a..b' is no address"),
        ("-a.b/app", "'-a.b' is no address"),
        ("user@a.b/app", "'user@a.b' is no address"),
        ("a.b:/app", "'a.b:' is no address"),
        ("a.b:65536/app", "'a.b:65536' is no address"),
        (f"{'a' * 64}.b/app", "is no address"),
        (f"{'a.' * 130}b/app", "is no address"),
        ("a.b?x=1/app", "is no address"),
        ("a.b/", "lower-case"),
        ("a.b/App", "lower-case"),
        ("a.b/../app", "lower-case"),
        ("a.b//app", "lower-case"),
        ("a.b/app/", "lower-case"),
        ("a.b/app?x=1", "lower-case"),
        ("a.b/app\n", "lower-case"),
        ("a.b/app:", "'' is no tag"),
        ("a.b/app:-1", "'-1' is no tag"),
        ("a.b/app:1:2", "'1:2' is no tag"),
        (f"a.b/app:{'1' * 129}", "is no tag"),
        ("a.b/app@", "'' is no digest"),
        ("a.b/app@sha256:12", "'sha256:12' is no digest"),
        (f"a.b/app@sha512:{'1' * 64}", "is no digest"),
        (f"a.b/app@{DIGEST}\n", "is no digest"),
    ],
)
def test_what_could_not_be_asked_for_is_told(name: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        reference(name)


@pytest.mark.parametrize(
    "registry",
    [
        "localhost",
        "localhost:5000",
        "127.0.0.1",
        "127.8.9.10:80",
        "[::1]",
        "[::1]:5000",
        "a.example.com:5000",
    ],
)
def test_loopback_and_what_an_operator_names_go_without_tls(registry: str) -> None:
    assert is_plain(registry, ["a.example.com:5000"])


@pytest.mark.parametrize(
    "registry",
    ["a.example.com", "a.example.com:5001", "b.example.com:5000", "128.0.0.1", "[::2]", "localhosts"],
)
def test_all_others_need_tls(registry: str) -> None:
    assert not is_plain(registry, ["a.example.com:5000"])
