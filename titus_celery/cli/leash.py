"""Run a program that is not to outlive the process that starts it, however that one ends.

    python leash.py SIGNAL PARENT PROGRAM [ARGUMENT...]

The kernel sends SIGNAL to the program when PARENT (a process id) has died. It is a program of its own
because the wish must be made between fork and exec, where a process with threads must not run Python;
it imports nothing of ours, so that it starts in a few milliseconds. Where the kernel has no such wish
(only Linux has), the program runs without it.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import Final

__all__ = ["main"]

#: The option of prctl(2) that asks for a signal at the parent's death.
PR_SET_PDEATHSIG: Final = 1


def main(arguments: list[str]) -> None:
    """Become the program; never returns."""
    number, parent, *command = arguments
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, int(number), 0, 0, 0)
        # It may have died before the wish was made.
        if os.getppid() != int(parent):
            raise SystemExit(1)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1:])
