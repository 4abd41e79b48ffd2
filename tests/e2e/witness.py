"""What the engines themselves say happened to containers: the witness that no record of ours can fool.

It listens to each engine from before the first container is made, and answers what tests ask about
promises P2 (a slot never has two containers that live) and P7 (how often a slot ran).
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tests.e2e.engines import connect
from tests.e2e.listener import Event, Life, Listener, clock, lives_of

__all__ = ["Overlap", "Witness", "slot_of"]


def slot_of(task_id: str) -> str:
    """The slot of a task, `<job>-<number>`, from `<job>-<number>-<attempt>`."""
    return task_id.rpartition("-")[0]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two containers of one slot that were alive at once."""

    first: Life
    second: Life

    def __str__(self) -> str:
        return f"slot {slot_of(self.first.task_id)} had two: {self.first} and {self.second}"


class Witness:
    """What happened to the containers with one label ("name=value") on every engine it watches."""

    def __init__(self, label: Callable[[], str]) -> None:
        self._label = label
        self._listeners: dict[str, Listener] = {}
        #: Set by a test that makes an engine go away: what it did meanwhile may be unknown in part.
        self.may_have_gaps = False

    def watch(self, url: str = "") -> None:
        """Listen to an engine from now on ("" is the one that the environment names)."""
        if url not in self._listeners:
            self._listeners[url] = Listener(connect(url), url)

    def moment(self) -> int:
        """A time that `nothing_after` understands: now, in nanoseconds."""
        return max(listener.mark() for listener in self._listeners.values())

    def all_died(self, url: str, at: int) -> None:
        """Say that every container on this engine had ended *at* this time (see SecondEngine.lose_power)."""
        self._listeners[url].all_died(at)

    @property
    def gaps(self) -> list[str]:
        """The absences of engines in which events may have been missed."""
        return [gap for listener in self._listeners.values() for gap in listener.gaps]

    def events(self, prefix: str = "") -> list[Event]:
        """What happened so far to the containers of tasks whose ids begin with *prefix*, in order."""
        self.moment()
        label = tuple(self._label().split("=", 1))
        found = [event for listener in self._listeners.values() for event in listener.events()]
        return sorted(event for event in found if label in event.labels and event.task_id.startswith(prefix))

    def story(self, prefix: str = "") -> str:
        """The same, one a line: what to say when an assertion fails."""
        return (
            "\n".join(str(event) for event in self.events(prefix)) or f"nothing happened to {prefix or 'any'}"
        )

    def creates(self, task_id: str) -> int:
        """How many containers were made for a task."""
        return self._count("create", lambda event: event.task_id == task_id)

    def starts(self, task_id: str) -> int:
        """How often a container of a task was started."""
        return self._count("start", lambda event: event.task_id == task_id)

    def runs(self, slot: str) -> int:
        """How often a container of a slot (`<job>-<number>`) was started."""
        return self._count("start", lambda event: slot_of(event.task_id) == slot)

    def alive_at_once(self) -> list[Overlap]:
        """Every two containers of one slot that lived at the same time (P2)."""
        slots: dict[str, list[Life]] = defaultdict(list)
        for life in lives_of(self.events()):
            slots[slot_of(life.task_id)].append(life)
        return [
            Overlap(first, second)
            for lives in slots.values()
            for first, second in itertools.combinations(sorted(lives, key=lambda life: life.started), 2)
            if first.ended is None or second.started < first.ended
        ]

    def nothing_after(self, moment: int, prefix: str = "") -> None:
        """AssertionError if a container was made or started after *moment*, for tasks with this prefix."""
        late = [e for e in self.events(prefix) if e.at > moment and e.action in ("create", "start")]
        assert not late, "\n".join([f"after {clock(moment)}:", *map(str, late)])

    def problems(self) -> list[str]:
        """Whatever must not be in any test, in words; nothing if all is well."""
        events = self.events()
        told = [str(overlap) for overlap in self.alive_at_once()]
        for action in ("create", "start"):
            times: dict[str, list[Event]] = defaultdict(list)
            for event in events:
                if event.action == action:
                    times[event.task_id].append(event)
            told += [
                f"{task_id} has more than one {action}:\n{self.story(task_id)}"
                for task_id, found in times.items()
                if len(found) > 1
            ]
        told += _missed(events)
        if not self.may_have_gaps:
            told += self.gaps
        return told

    def close(self) -> None:
        """Stop listening."""
        for listener in self._listeners.values():
            listener.close()

    def _count(self, action: str, chosen: Callable[[Event], bool]) -> int:
        return sum(event.action == action and chosen(event) for event in self.events())


def _missed(events: Iterable[Event]) -> list[str]:
    """Containers whose story cannot be whole: an event was lost on the way."""
    known: dict[str, set[str]] = defaultdict(set)
    for event in events:
        known[event.container_id].add(event.action)
    return [
        f"an event of container {container_id[:12]} was lost: heard only of {sorted(actions)}"
        for container_id, actions in known.items()
        if ("start" in actions and "create" not in actions)
        or ("die" in actions and "create" in actions and "start" not in actions)
    ]
