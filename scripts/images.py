"""Build the small images that the demo and the tests run, from nothing but busybox and our own scripts.

No registry is asked: each image starts empty. It goes to the engine over its API, so no Docker client is
needed and any engine since 20.10 builds it the same way. An image carries a hash of its sources and is left
alone while they match.
"""

import hashlib
import io
import os
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import docker
from docker.errors import DockerException

CONTAINERS: Final = Path(__file__).resolve().parent.parent / "containers"
#: In the order of building: the second starts from the first.
IMAGES: Final = ("hello", "workloads")
SOURCE_LABEL: Final = "titus.source"


def busybox() -> bytes:
    """Return the machine's static busybox; `make setup` installs it."""
    found = shutil.which("busybox", path=os.pathsep.join([os.environ.get("PATH", ""), "/bin", "/usr/bin"]))
    if found is None:
        raise SystemExit("busybox is missing: install busybox-static")
    return Path(found).read_bytes()


def sources(image: str) -> dict[str, bytes]:
    """Return the build context of an image: its folder's files, and busybox for the lowest one."""
    files = {
        path.name: path.read_bytes() for path in sorted((CONTAINERS / image).iterdir()) if path.is_file()
    }
    return files | {"busybox": busybox()} if image == IMAGES[0] else files


def fingerprint(files: Mapping[str, bytes], below: str) -> str:
    """Return a hash of a build context and of the image below it."""
    digest = hashlib.sha256(below.encode())
    for name, content in sorted(files.items()):
        digest.update(name.encode() + b"\0" + hashlib.sha256(content).digest())
    return digest.hexdigest()


def context(files: Mapping[str, bytes]) -> io.BytesIO:
    """Return a build context as the tar archive that the engine takes; every file may be executed."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o755
            tar.addfile(entry, io.BytesIO(content))
    archive.seek(0)
    return archive


def main() -> None:
    """Build what is missing or out of date, and print what is there in one line."""
    engine = docker.from_env()
    below = ""
    for image in IMAGES:
        tag, files = f"titus/{image}:latest", sources(image)
        below = fingerprint(files, below)
        found = engine.images.list(name=tag, filters={"label": f"{SOURCE_LABEL}={below}"})
        if not found:
            engine.images.build(
                fileobj=context(files),
                custom_context=True,
                tag=tag,
                labels={SOURCE_LABEL: below},
                network_mode="none",
                rm=True,
                forcerm=True,
            )
    print(", ".join(f"titus/{image}:latest" for image in IMAGES))


if __name__ == "__main__":
    try:
        main()
    except DockerException as error:
        raise SystemExit(f"the engine refused: {error}") from None
