"""Compile titus_celery/grpc/proto/*.proto into the code and types beside them, or check that they match.

The generated files are committed, so an installation needs no compiler; `--check` is what keeps them honest.
"""

import os
import subprocess
import sys
import sysconfig
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PROTO: Final = ROOT / "titus_celery" / "grpc" / "proto"


def generate(target: Path) -> dict[Path, bytes]:
    """Compile every .proto into an empty folder and return the files by their path from the root."""
    protos = [str(path.relative_to(ROOT)) for path in sorted(PROTO.rglob("*.proto"))]
    if not protos:
        raise SystemExit(f"no .proto file under {PROTO.relative_to(ROOT)}")
    plugins = [f"--{plugin}_out={target}" for plugin in ("python", "mypy", "grpc_python", "mypy_grpc")]
    includes = ["-I.", f"-I{sysconfig.get_path('purelib')}"]  # the second holds google/rpc/*.proto
    here = os.path.dirname(sys.executable)
    compiled = subprocess.run(
        [sys.executable, "-m", "grpc_tools.protoc", *includes, *plugins, *protos],
        cwd=ROOT,
        env=os.environ | {"PATH": os.pathsep.join([here, os.environ.get("PATH", "")])},
        stderr=subprocess.PIPE,
        text=True,
        check=False,
    )
    if compiled.returncode != 0:
        raise SystemExit(compiled.stderr.strip())
    return {path.relative_to(target): path.read_bytes() for path in target.rglob("*") if path.is_file()}


def committed() -> dict[Path, bytes]:
    """Return the generated files in the tree by their path from the root."""
    return {path.relative_to(ROOT): path.read_bytes() for path in PROTO.rglob("*_pb2*.py*") if path.is_file()}


def main(check: bool) -> None:
    """Write the generated files, or with `check` change nothing and end with status 1 where they differ."""
    with tempfile.TemporaryDirectory() as folder:
        wanted = generate(Path(folder))
    here = {path: content for path, content in committed().items() if "__pycache__" not in path.parts}
    stale = sorted(path for path in wanted.keys() | here.keys() if wanted.get(path) != here.get(path))
    if check and stale:
        raise SystemExit("run `make protos`, these differ from their .proto: " + ", ".join(map(str, stale)))
    for path in stale:
        if path in wanted:
            (ROOT / path).write_bytes(wanted[path])
        else:
            (ROOT / path).unlink()
    print(
        f"{len(wanted)} generated files match their .proto"
        if check
        else f"{len(stale)} generated files written"
    )


if __name__ == "__main__":
    main(check="--check" in sys.argv[1:])
