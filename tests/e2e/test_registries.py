"""A job whose image only a private registry has: asked for by the gateway, fetched by the agent."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.contracts.registries import configure, running
from tests.e2e.installation import installed
from tests.e2e.jobs import job
from titus_celery.client import CallFailed
from titus_celery.grpc.proto import titus_job_api_pb2 as pb

pytestmark = pytest.mark.e2e


def test_a_job_runs_what_its_image_meant_in_the_registry_when_it_was_created(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.mkdir()
    with (
        running(tmp_path / "registry", is_private=True) as (registry, publisher),
        installed(tmp_path / "titus", DOCKER_CONFIG=str(config), HOME=str(config)) as titus,
    ):
        image = f"{registry.host}/team/app"
        first = publisher.put("team/app", "first")
        with pytest.raises(CallFailed) as refused:
            titus.client.submit(job(image=image))
        assert refused.value.status == "INVALID_ARGUMENT"
        assert "only for a login, and the host that asked has none" in str(refused.value)
        configure(config, registry.host)
        with pytest.raises(CallFailed, match="its registry does not have it"):
            titus.client.submit(job(image=f"{image}:2"))
        titus.stop("agent")
        job_id = titus.client.submit(job(image=image))
        assert publisher.put("team/app", "second") != first
        titus.start("agent")
        found = titus.over(job_id)
        assert found.jobState == pb.JobState(state=pb.FINISHED, reason="normal")
        told = found.jobDescriptor.containers["main"].image
        assert told == pb.Image(name=f"{image}:latest", imageId=f"{image}@{first}")
        assert titus.output(found.tasks[0].id) == "first"
        registry.stop()
        with pytest.raises(CallFailed, match=f"the registry {registry.host} is unavailable") as away:
            titus.client.submit(job(image=image))
        assert away.value.status == "UNAVAILABLE"
