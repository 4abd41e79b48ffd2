"""The decisions after something broke: an agent that is gone, a store that forgot its last writes.

What is on an engine does not go away because somebody lost sight of it. So tasks are handed on to
whoever can see their containers, and a record that fell behind is brought up to what happened.
"""

from __future__ import annotations

import enum
from dataclasses import replace
from datetime import datetime
from typing import Final

from titus_celery.core.decision import Decision
from titus_celery.core.lifecycle import deadlines_of, ended, limit_of, run_order
from titus_celery.core.model import Address, Agent, Capacity, Dispatch, Exit, Job, Task
from titus_celery.core.reasons import Reason
from titus_celery.core.states import State

__all__ = ["Standing", "asserted", "ended_again", "standing", "taken_over"]

#: For a container that is there, whatever the ledger says.
_BOUNDLESS: Final = Capacity(cpu_millis=10**12, memory_bytes=2**52, slots=10**6)


class Standing(enum.Enum):
    """How an agent that carries out an order stands to the task now."""

    #: It is to go on.
    OURS = enum.auto()
    #: The store forgot that it ever gave this order: it is to be told.
    FORGOTTEN = enum.auto()
    #: Another agent of this engine has the task and its container: nothing may be done to it.
    HANDED_ON = enum.auto()
    #: The task is over, or on another engine: a container of it here must go.
    OVER = enum.auto()


def standing(task: Task, order: Dispatch) -> Standing:
    """How who got *order* stands to the task."""
    if task.state is State.QUEUED and task.dispatches < order.number:
        return Standing.FORGOTTEN
    held = task.holds
    if held is None or held.engine_id != order.engine_id:
        return Standing.OVER
    if (held.agent_id, held.number) == (order.agent_id, order.number):
        return Standing.OURS
    return Standing.FORGOTTEN if held.number < order.number else Standing.HANDED_ON


def taken_over(job: Job, task: Task, heir: Agent) -> Decision:
    """A task whose agent is gone goes to another one on the same engine, where its container is.

    The order gets a new number, so that the agent that had it can do nothing more about it.
    """
    order = task.holds
    if order is None or order.engine_id != heir.engine_id or order.agent_id == heir.id:
        return Decision(why="it is not on this engine, or over")
    new = replace(
        order,
        number=task.dispatches + 1,
        agent_id=heir.id,
        host=heir.host,
        zone=heir.zone,
        region=heir.region,
    )
    after = replace(task, dispatch=new, dispatches=new.number)
    adopt = task.state is not State.DISPATCHED
    return Decision(tasks=(after,), room=heir.capacity, commands=(run_order(job, after, new, adopt=adopt),))


def asserted(job: Job, task: Task, order: Dispatch, address: Address, now: datetime) -> Decision:
    """The agent that got *order* has the task's container running, whatever the record says.

    A store that restarted may have forgotten its last writes: the claim, even that it was placed.
    What happened is written again; what has become of the task meanwhile stands.
    """
    if task.state.is_final or standing(task, order) not in (Standing.OURS, Standing.FORGOTTEN):
        return Decision(why=f"it is {task.state.name}, and no longer under order {order.number}")
    after = task
    for state in (State.DISPATCHED, State.STARTING, State.RUNNING):
        if state > task.state:
            after = replace(after, history=after.moved(state, now))
    after = replace(after, dispatch=order, dispatches=order.number, reason=None, address=address)
    if after == task:
        return Decision(why="the record says so")
    return Decision(
        tasks=(after,),
        # It is there already, so whatever room it needs is taken.
        room=_BOUNDLESS,
        arm=limit_of(job, after, now),
        disarm=() if task.state is State.RUNNING else deadlines_of(task),
    )


def ended_again(
    job: Job,
    task: Task,
    order: Dispatch,
    address: Address,
    reason: Reason,
    exit: Exit | None,
    now: datetime,
) -> Decision:
    """An end that a store which restarted has forgotten, with whatever else it forgot before."""
    if standing(task, order) in (Standing.HANDED_ON, Standing.OVER):
        # A number that was forgotten is given again, so it alone would not tell whose order it is.
        return Decision(why=f"it is {task.state.name}, and no longer under order {order.number}")
    first = asserted(job, task, order, address, now)
    known = first.tasks[0] if first.tasks else task
    end = ended(job, known, reason, now, exit=exit, number=order.number)
    return end if end.is_empty else replace(end, disarm=(*first.disarm, *end.disarm))
