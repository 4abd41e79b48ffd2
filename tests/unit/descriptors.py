"""A valid job description, and the same with one thing changed."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

from titus_celery.core.descriptor import (
    BatchSpec,
    Container,
    Image,
    JobDescriptor,
    Owner,
    RetryPolicy,
)
from titus_celery.core.model import (
    Caller,
)
from titus_celery.core.validation import check, effective
from titus_celery.errors import Violation
from titus_celery.settings import Settings

LIMITS: Final = Settings().limits()
ANN: Final = Caller(id="ann", email="ann@example.com")
NOBODY: Final = Caller()

CONTAINER: Final = Container(
    image=Image(name="app:1.2"), resources={"cpu": "1", "memory": "128MB"}, command=("true",)
)
BATCH: Final = BatchSpec(
    desired=1, runtime_limit=timedelta(hours=1), retry=RetryPolicy(), container_id="main"
)
VALID: Final = JobDescriptor(
    spec=BATCH,
    owner=Owner(owner_email="o@example.com", team_email="t@example.com"),
    app_name="app",
    containers={"main": CONTAINER},
)


def with_container(**parts: Any) -> JobDescriptor:
    return replace(VALID, containers={"main": replace(CONTAINER, **parts)})


def with_batch(**parts: Any) -> JobDescriptor:
    return replace(VALID, spec=replace(BATCH, **parts))


def with_resources(**texts: str) -> JobDescriptor:
    return with_container(resources={**CONTAINER.resources, **texts})


def with_owner(**parts: str) -> JobDescriptor:
    return replace(VALID, owner=replace(VALID.owner, **parts))


def found(job: JobDescriptor, caller: Caller = NOBODY) -> list[Violation]:
    return check(effective(job, caller, LIMITS), LIMITS)
