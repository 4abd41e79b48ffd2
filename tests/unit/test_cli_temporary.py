"""Ctrl-C while an installation for a short while is being started."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def test_ctrl_c_while_the_demo_starts_ends_it_and_the_installation_without_a_trace(tmp_path: Path) -> None:
    # A short path: the address of a socket has little room.
    with tempfile.TemporaryDirectory(prefix="t-") as short, socket.socket(socket.AF_UNIX) as engine:
        engine.bind(f"{short}/engine")
        engine.listen()
        engine.settimeout(30)
        demo = subprocess.Popen(
            [sys.executable, str(ROOT / "examples" / "demo.py")],
            env={**os.environ, "TITUS_ENGINE_URL": f"unix://{short}/engine", "TMPDIR": str(tmp_path)},
            cwd=ROOT,
            stderr=subprocess.PIPE,
            text=True,
            # Some who start tests have it ignored, which is inherited.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        # The installation asks its engine, which will not answer: it is in the middle of its start.
        asked, _ = engine.accept()
        [directory] = tmp_path.iterdir()
        holder = int((directory / "lock").read_text())
        demo.send_signal(signal.SIGINT)
        _, told = demo.communicate(timeout=30)
        asked.close()
    assert demo.returncode == 130, told
    assert "Traceback" not in told
    assert list(tmp_path.iterdir()) == []
    assert not Path(f"/proc/{holder}").exists()
