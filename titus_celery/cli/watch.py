"""The loop around a follower: reads the streams, writes the output, listens to Ctrl-C.

Each stream has a thread that only puts what comes into one queue; everything is decided and
written in the thread that called `watch`.
"""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from types import FrameType
from typing import Final

from titus_celery.cli import console
from titus_celery.cli.follow import Ask, Follower, Say, Step, Tail, Write
from titus_celery.cli.outlet import Outlet
from titus_celery.client import CallFailed, Disconnected, Reconnected, TitusClient
from titus_celery.grpc.proto import titus_celery_v1_pb2 as v1
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

__all__ = ["INTERRUPTED", "watch"]

#: What a shell shows for a program that Ctrl-C ended.
INTERRUPTED: Final = 130

#: Tasks whose output is read at once, each by a thread; a server offers a few times as many to all of
#: its clients. Of a larger job, the output of the tasks beyond comes when others have ended; the
#: server keeps it until then.
STREAMS_MAX: Final = 64
#: Threads for the job itself: its stream, the wish to end it, and the question how it ended.
CALLS_MAX: Final = 3

_Event = Callable[[], Iterable[Step]]


def watch(
    client: TitusClient, job_id: str, follower: Follower, *, note: Callable[[str], None] = console.note
) -> int:
    """Follow the job to its end; the exit code.

    Ctrl-C asks the server to end the job, and it is followed on; the second one leaves it alone. A service
    was not begun to end with a terminal: the first one leaves it.
    CallFailed when the server stays away.
    """
    watcher = _Watcher(client, job_id, follower, note)
    with _interrupts(watcher.interrupt):
        return watcher.run()


class _Watcher:
    def __init__(
        self, client: TitusClient, job_id: str, follower: Follower, note: Callable[[str], None]
    ) -> None:
        self._client = client
        self._job_id = job_id
        self._follower = follower
        self._outlet = Outlet(note)
        self._note = self._outlet.note
        self._events: SimpleQueue[_Event] = SimpleQueue()
        # Apart, so that neither Ctrl-C nor the job's end waits for an output stream to end.
        self._pool = ThreadPoolExecutor(CALLS_MAX, thread_name_prefix="job")
        self._tails = ThreadPoolExecutor(STREAMS_MAX, thread_name_prefix="tail")
        self._interrupts = 0
        self._is_away = False

    def interrupt(self) -> None:
        """Ctrl-C was pressed. May be called at any moment, within a signal handler too."""
        self._events.put(self._interrupted)

    def run(self) -> int:
        """Follow to the end."""
        self._pool.submit(self._observe)
        try:
            while not self._follower.is_over and self._interrupts < 2:
                for step in self._events.get()():
                    self._perform(step)
        except BrokenPipeError:
            self._note(f"nobody reads the output any more; job {self._job_id} goes on")
            raise
        except CallFailed:
            # It is told by whoever catches it.
            self._outlet.end_line()
            raise
        finally:
            # Ends the streams, and with them the threads that read them.
            self._client.close()
            for pool in (self._pool, self._tails):
                pool.shutdown(wait=False, cancel_futures=True)
        if self._interrupts:
            return INTERRUPTED
        verdict = self._follower.verdict
        if verdict.why:
            self._note(f"exit code {verdict.code}: {verdict.why}")
        return verdict.code

    def _perform(self, step: Step) -> None:
        match step:
            case Say(text):
                self._note(text)
            case Write(source, data):
                self._outlet.write(data, is_error=source == v1.STDERR)
            case Tail(task_id, offset):
                self._tails.submit(self._tail, task_id, offset)
            case Ask():
                self._pool.submit(self._ask)

    def _observe(self) -> None:
        try:
            for item in self._client.observe(self._job_id):
                self._events.put(partial(self._observed, item))
        except CallFailed as error:
            self._events.put(partial(_raise, error))

    def _observed(self, item: pb.JobChangeNotification | Disconnected | Reconnected) -> Iterable[Step]:
        match item:
            case Disconnected():
                self._is_away = True
                self._note(f"the server at {self._client.server} went away; waiting for it")
                return []
            case Reconnected():
                return self._back()
        return self._follower.heard(item)

    def _back(self) -> Iterable[Step]:
        """Whichever stream finds the server first."""
        if self._is_away:
            self._is_away = False
            self._note("the server is back")
        return []

    def _tail(self, task_id: str, offset: int) -> None:
        try:
            for item in self._client.tail(task_id, offset):
                if isinstance(item, v1.TailTaskItem):
                    self._events.put(partial(self._follower.tailed, task_id, item))
                elif isinstance(item, Reconnected):
                    self._events.put(self._back)
        except CallFailed as error:
            is_away = error.status == "UNAVAILABLE"
            self._events.put(
                partial(_raise, error) if is_away else partial(self._follower.not_tailed, task_id, str(error))
            )

    def _ask(self) -> None:
        try:
            job = self._client.find(self._job_id, patient=True)
            self._events.put(partial(self._follower.settled, job))
        except CallFailed as error:
            self._events.put(partial(_raise, error))

    def _interrupted(self) -> Iterable[Step]:
        self._interrupts += 2 if self._follower.is_service else 1
        if self._interrupts == 1:
            self._note(f"asking the server to end job {self._job_id}; Ctrl-C again leaves it to itself")
            self._pool.submit(self._kill)
        else:
            self._note(f"left; job {self._job_id} is the server's now: `titus show {self._job_id}`")
        return []

    def _kill(self) -> None:
        try:
            self._client.kill(self._job_id, patient=True)
        except CallFailed as error:
            # It may be over already; whether it is, the stream tells.
            self._events.put(partial(self._not_killed, error))

    def _not_killed(self, error: CallFailed) -> Iterable[Step]:
        self._note(str(error))
        return []


def _raise(error: CallFailed) -> Iterable[Step]:
    raise error


@contextmanager
def _interrupts(handler: Callable[[], None]) -> Iterator[None]:
    def handle(number: int, frame: FrameType | None) -> None:
        handler()

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
