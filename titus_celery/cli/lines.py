"""Output of several containers on one terminal: whole lines, each under the number of its slot."""

from __future__ import annotations

from typing import Final

__all__ = ["LINE_MAX", "Lines"]

#: Bytes. A longer line is shown in pieces, so that a container without line breaks shows at all.
LINE_MAX: Final = 64 * 1024


class Lines:
    """One stream of one container, cut into lines."""

    def __init__(self, mark: str) -> None:
        self._mark = f"{mark} | ".encode()
        self._open = b""

    def whole(self, data: bytes) -> bytes:
        """The lines that *data* completes, marked; what is left waits for its line's end."""
        *complete, self._open = (self._open + data).split(b"\n")
        marked = [self._mark + line + b"\n" for line in complete]
        if len(self._open) >= LINE_MAX:
            marked.append(self.rest())
        return b"".join(marked)

    def rest(self) -> bytes:
        """What waits for its line's end, as a line."""
        line, self._open = self._open, b""
        return self._mark + line + b"\n" if line else b""
