"""The services of this worker process, built once when the worker knows its roles."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from titus_celery.bootstrap import AgentParts, ControlParts

__all__ = ["Wired", "wire", "wired"]


@dataclass(slots=True)
class Wired:
    """What the bodies of our Celery tasks call."""

    control_parts: ControlParts | None = None
    agent_parts: AgentParts | None = None

    @property
    def control(self) -> ControlParts:
        """The services of control."""
        if self.control_parts is None:
            raise RuntimeError("this worker does not serve titus.control")
        return self.control_parts

    @property
    def agent(self) -> AgentParts:
        """The services of an agent."""
        if self.agent_parts is None:
            raise RuntimeError("this worker does not serve a titus.agent queue")
        return self.agent_parts


_PROCESS: Final = Wired()


def wired() -> Wired:
    """This process's services."""
    return _PROCESS


def wire(*, control: ControlParts | None = None, agent: AgentParts | None = None) -> None:
    """Set services of this process; what is not given stays."""
    _PROCESS.control_parts = control or _PROCESS.control_parts
    _PROCESS.agent_parts = agent or _PROCESS.agent_parts
