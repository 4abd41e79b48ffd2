"""Make a checkout ready for work: system packages, a pinned .venv, a Docker engine, the demo images.

Plain Python, standard library only, because it runs before anything is installed. Every step looks first and
acts only on what is missing, so a second run is quick and needs no network. `setup.py python` does that step
alone.
"""

import hashlib
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn

ROOT: Final = Path(__file__).resolve().parent.parent
VENV: Final = ROOT / ".venv"
PYTHON: Final = VENV / "bin" / "python"
REQUIREMENTS: Final = (ROOT / "requirements.txt", ROOT / "requirements-dev.txt")
OLDEST_PYTHON: Final = (3, 11)

DEFAULT_ENGINE: Final = "unix:///var/run/docker.sock"
ENGINE_LOG: Final = Path("/var/log/titus-dockerd.log")
#: What a killed engine leaves behind, and the program whose process number the file should hold.
PID_FILES: Final[Mapping[Path, str]] = {
    Path("/var/run/docker.pid"): "dockerd",
    Path("/var/run/docker/containerd/containerd.pid"): "containerd",
}
#: There while systemd runs this machine.
SYSTEMD: Final = Path("/run/systemd/system")
#: Seconds; a cold engine with a full image store needs about ten.
ENGINE_PATIENCE: Final = 60.0
#: Seconds between two knocks at the engine's door.
ENGINE_KNOCK: Final = 0.25

#: Debian keeps dockerd and iptables where the PATH of a plain user does not look.
SEARCH: Final = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", "/sbin", "/usr/bin", "/bin"])
COLOUR: Final = sys.stdout.isatty() and "NO_COLOR" not in os.environ


def paint(code: str, text: str) -> str:
    """Return the text in an ANSI colour, or as it is where nobody would see colours."""
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def working(step: str, text: str) -> None:
    """Say that something slow has begun."""
    print(f"{paint('33', '…')} {step:<8} {text}", flush=True)


def done(step: str, text: str) -> None:
    """Say that a step holds."""
    print(f"{paint('32', '✓')} {step:<8} {text}", flush=True)


def fail(step: str, text: str) -> NoReturn:
    """Say in one line what is missing and what to do, and end with status 1."""
    print(f"{paint('31', '✗')} {step:<8} {text}", file=sys.stderr, flush=True)
    raise SystemExit(1)


def last_lines(text: str, count: int) -> str:
    """Return the last lines of a program's output that say anything, indented to stand under a failure."""
    lines = [line for line in text.splitlines() if line.strip()]
    return "\n".join(f"    {line}" for line in lines[-count:])


def last_line(text: str) -> str:
    """Return a program's last word: with apt-get and pip that is the reason."""
    return last_lines(text, 1).strip() or "it gave no reason"


def run(command: Sequence[str | Path], **extra: str) -> subprocess.CompletedProcess[str]:
    """Run a program from the root with its output kept back; `extra` is added to its environment."""
    return subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=os.environ | {"PATH": SEARCH} | extra,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )


# --------------------------------------------------------------------------------------------------- packages


def engine_address() -> str:
    """Return where the engine should answer: DOCKER_HOST, else the usual socket."""
    return os.environ.get("DOCKER_HOST") or DEFAULT_ENGINE


def engine_answers(address: str | None = None) -> bool:
    """Tell whether a Docker engine answers (by default where it should), without any Docker client."""
    scheme, _, place = (address or engine_address()).partition("://")
    try:
        if scheme == "tcp":
            name, _, port = place.rstrip("/").rpartition(":")
            with socket.create_connection((name.strip("[]"), int(port)), timeout=5):
                return True
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(place)
            line.sendall(b"GET /_ping HTTP/1.0\r\nHost: docker\r\n\r\n")
            return b" 200 " in line.recv(64)
    except (OSError, ValueError):
        return False


def has_static_busybox() -> bool:
    """Tell whether busybox is here and runs in an empty image: a dynamic one names its loader up front."""
    found = shutil.which("busybox", path=SEARCH)
    return found is not None and b"/ld-" not in Path(found).read_bytes()[:4096]


def has_venv() -> bool:
    """Tell whether this Python can make virtual environments (Debian ships that part apart)."""
    return PYTHON.exists() or run([sys.executable, "-c", "import ensurepip, venv"]).returncode == 0


def missing_packages() -> list[str]:
    """Return the Debian packages whose programs are not here."""
    missing = []
    if not engine_answers():
        if not shutil.which("dockerd", path=SEARCH):
            missing.append("docker.io")
        if not shutil.which("iptables", path=SEARCH):
            missing.append("iptables")
        # Without its parser, an engine on a kernel with AppArmor starts no container.
        armoured = Path("/sys/module/apparmor/parameters/enabled")
        if (
            armoured.exists()
            and armoured.read_text().startswith("Y")
            and not shutil.which("apparmor_parser", path=SEARCH)
        ):
            missing.append("apparmor")
    if not has_static_busybox():
        missing.append("busybox-static")
    for program in ("redis-server", "docker-registry", "openssl"):
        if not shutil.which(program, path=SEARCH):
            missing.append(program)
    if not has_venv():
        missing.append("python3-venv")
    return missing


def system() -> None:
    """Install the missing Debian packages, or say which ones to install."""
    missing = missing_packages()
    if missing:
        names = " ".join(missing)
        if os.geteuid() != 0 or not shutil.which("apt-get", path=SEARCH):
            fail(
                "system",
                f"missing: {names}. Install them (Debian: sudo apt-get install {names}), then try again",
            )
        working("system", f"installing {names}")
        if "docker-registry" in missing and SYSTEMD.is_dir():
            # Tests start registries of their own; the package's would listen on every address of this host.
            run(["systemctl", "mask", "docker-registry.service"])
        quiet = {"DEBIAN_FRONTEND": "noninteractive", "NEEDRESTART_SUSPEND": "1"}
        output = run(["apt-get", "update", "-qq"], **quiet).stdout
        output += run(
            ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *missing], **quiet
        ).stdout
        # What is there now counts, not apt's word: a service that does not start does no harm here.
        missing = missing_packages()
        if missing:
            fail(
                "system",
                f"apt-get could not install {' '.join(missing)}: {last_line(output)} (is the network up?)",
            )
    done("system", "engine, busybox, redis-server, docker-registry, openssl and venv are here")


# ----------------------------------------------------------------------------------------------------- python


def fingerprint(files: Sequence[Path]) -> str:
    """Return what a stamp holds: these files' contents, this Python and this folder, in one hash."""
    digest = hashlib.sha256(f"{sys.version_info[:2]} {ROOT}".encode())
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest()


def up_to_date(stamp: Path, wanted: str) -> bool:
    """Tell whether a stamp says that this very input was installed."""
    return stamp.exists() and stamp.read_text() == wanted


def pip(*arguments: str | Path) -> None:
    """Run pip in the environment; if it fails, say so with its last word."""
    result = run([PYTHON, "-m", "pip", "install", "--quiet", *arguments], PIP_DISABLE_PIP_VERSION_CHECK="1")
    if result.returncode != 0:
        fail(
            "python",
            f"pip could not install the pinned packages: {last_line(result.stdout)} (is the network up?)",
        )


def python() -> None:
    """Make .venv with every pinned package, each checked by its hash, and this checkout in editable form."""
    if sys.version_info < OLDEST_PYTHON:
        fail(
            "python",
            f"this is Python {sys.version.split()[0]}; 3.11 or newer is needed (make PYTHON=python3.12)",
        )
    stamp, wanted = VENV / "requirements.stamp", fingerprint(REQUIREMENTS)
    fresh = run([PYTHON, "-c", "import pip"]).returncode == 0 if PYTHON.exists() else False
    if not fresh or not up_to_date(stamp, wanted):
        working("python", "installing the pinned packages into .venv (about a minute)")
        if not has_venv():
            fail("python", f"{sys.executable} cannot make virtual environments: install python3-venv")
        made = run([sys.executable, "-m", "venv", "--clear", VENV])
        if made.returncode != 0:
            fail("python", f"{sys.executable} could not make .venv: {last_line(made.stdout)}")
        pip("--require-hashes", *(part for file in REQUIREMENTS for part in ("-r", file)))
        stamp.write_text(wanted)
    stamp, wanted = VENV / "project.stamp", fingerprint([ROOT / "pyproject.toml"])
    if not up_to_date(stamp, wanted):
        pip("--no-deps", "--no-build-isolation", "--no-index", "-e", ".")
        stamp.write_text(wanted)
    done("python", ".venv holds the pinned packages and this checkout")


# ----------------------------------------------------------------------------------------------------- engine


def drop_stale_pid_files(files: Mapping[Path, str] = PID_FILES) -> None:
    """Remove the pid files of an engine that is gone: its number may be another program's by now."""
    for file, program in files.items():
        if not file.exists():
            continue
        name = Path("/proc") / file.read_text().strip() / "comm"
        if not name.exists() or name.read_text().strip() != program:
            file.unlink()


def launch_engine() -> Callable[[], int | None]:
    """Start dockerd so that it outlives this program, or let systemd do it; the answer tells how it ended."""
    if SYSTEMD.is_dir() and run(["systemctl", "start", "docker"]).returncode == 0:
        return lambda: None
    drop_stale_pid_files()
    with ENGINE_LOG.open("wb") as log:
        return subprocess.Popen(
            ["dockerd"],
            cwd="/",
            env=os.environ | {"PATH": SEARCH},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        ).poll


def engine() -> None:
    """See that a Docker engine answers; as root, start one that stays."""
    if not engine_answers():
        if engine_address() != DEFAULT_ENGINE:
            fail("engine", f"no Docker engine answers at DOCKER_HOST={engine_address()}")
        if os.geteuid() != 0:
            fail(
                "engine",
                f"no Docker engine answers you at {DEFAULT_ENGINE}: start it, and join its group (docker)",
            )
        working("engine", f"starting dockerd (log: {ENGINE_LOG})")
        ended = launch_engine()
        give_up = time.monotonic() + ENGINE_PATIENCE
        while not engine_answers():
            if ended() is not None or time.monotonic() > give_up:
                log = ENGINE_LOG.read_text(errors="replace") if ENGINE_LOG.exists() else ""
                print(last_lines(log, 8), file=sys.stderr)
                how = "ended at once" if ended() is not None else f"gave no answer in {ENGINE_PATIENCE:.0f} s"
                fail("engine", f"dockerd {how}; the end of {ENGINE_LOG} is above")
            time.sleep(ENGINE_KNOCK)
    done("engine", f"Docker answers at {engine_address()}")


# ----------------------------------------------------------------------------------------------------- images


def images() -> None:
    """Build the demo images where they are missing or older than their sources (scripts/images.py)."""
    result = run([PYTHON, ROOT / "scripts" / "images.py"])
    if result.returncode != 0:
        fail("images", f"the demo images could not be built: {last_line(result.stdout)}")
    done("images", result.stdout.strip())


STEPS: Final[dict[str, Callable[[], None]]] = {
    "system": system,
    "python": python,
    "engine": engine,
    "images": images,
}


def main(names: Sequence[str]) -> None:
    """Carry out the named steps, or all of them in order."""
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        fail("setup", f"no such step: {' '.join(unknown)} (there are {', '.join(STEPS)})")
    for name in names or STEPS:
        STEPS[name]()
    if not names:
        print(paint("1", "Ready. Try `make demo`; `make help` lists the rest."))


if __name__ == "__main__":
    main(sys.argv[1:])
