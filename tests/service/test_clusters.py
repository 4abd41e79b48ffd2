"""What the API does with clusters, and that a refusal changes nothing (docs/semantics.md B1.1-B1.6)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from tests.service.mantis import a_cluster, live, mantis_job, run_all, settle
from tests.service.test_services import a_service
from tests.service.world import ANN, World, a_job
from titus_celery.core.cluster import BUILT_IN, ClusterDescriptor
from titus_celery.core.decision import Change
from titus_celery.core.descriptor import JobDescriptor, JobGroup, JobType, Owner
from titus_celery.core.model import Caller, ClusterId
from titus_celery.core.states import State
from titus_celery.errors import AlreadyExists, FailedPrecondition, InvalidRequest, NotFound, TitusError

NOWHERE = ClusterId("00000000-0000-4000-8000-00000000dead")
CRON = "0 * * * * ?"


def ready() -> World:
    world = World()
    world.host(cores=64, slots=64)
    return world


def of_services(**parts: Any) -> ClusterDescriptor:
    return ClusterDescriptor(name="s", kind=JobType.SERVICE, template=a_service(), **parts)


def refused(world: World, error: type[TitusError], call: Callable[[], object]) -> str:
    """Why; the store is as before, and nobody was told anything."""
    world.queue.take()
    before = world.keyspace.dump()
    with pytest.raises(error) as refusal:
        call()
    assert world.keyspace.dump() == before
    assert list(world.queue.take()) == []
    return str(refusal.value)


# ------------------------------------------------------------------------------------------ create


def test_a_cluster_is_found_as_it_is_in_effect() -> None:
    world = ready()
    id = world.clusters.create(replace(a_cluster(cron=CRON, min=3, max=9), name=" c "), ANN)
    found = world.clusters.find(id)
    assert found.descriptor.owner == Owner(owner_email=ANN.email, team_email=ANN.email)
    assert (found.descriptor.name, found.created_by, found.created_at) == ("c", "ann", world.now)
    assert (found.rules.min, found.rules.max, found.rules.policy) == (0, 1, "KEEP_EXISTING")
    assert found.descriptor.template is not None
    assert found.descriptor.template.containers["stage0"].image.id == ""


def test_two_clusters_may_have_one_name() -> None:
    world = ready()
    assert world.clusters.create(a_cluster(), ANN) != world.clusters.create(a_cluster(), ANN)


def test_the_same_request_again_makes_one_cluster() -> None:
    world = ready()
    first = world.clusters.create(a_cluster(), ANN, "key")
    before = world.keyspace.dump()
    assert world.clusters.create(a_cluster(), ANN, "key") == first
    assert world.keyspace.dump() == before
    refused(world, AlreadyExists, lambda: world.clusters.create(a_cluster(max=3), ANN, "key"))
    assert world.clusters.create(a_cluster(), Caller(id="bob", email="b@x"), "key") != first


@pytest.mark.parametrize("descriptor", [a_cluster(min=1), replace(a_cluster(), name=""), a_cluster(cron="x")])
def test_a_wrong_cluster_is_refused(descriptor: ClusterDescriptor) -> None:
    world = ready()
    refused(world, InvalidRequest, lambda: world.clusters.create(descriptor, ANN))
    id = world.clusters.create(a_cluster(), ANN)
    refused(world, InvalidRequest, lambda: world.clusters.update(id, descriptor, ANN))


# ------------------------------------------------------------------------------------------ update, enable


def test_an_update_replaces_all_of_it_and_leaves_the_jobs() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(max=2), ANN)
    old = world.jobs.create(mantis_job(cluster_id=id), ANN)
    world.clusters.update(id, replace(a_cluster(max=3, template=mantis_job(2)), name="other"), ANN)
    found = world.clusters.find(id)
    assert (found.descriptor.name, found.rules.max) == ("other", 3)
    assert world.job(old).descriptor.labels == {"from": "template"}
    new = world.jobs.create(mantis_job(cluster_id=id), ANN)
    assert world.job(new).descriptor.labels == {}
    assert live(world, id) == [old, new]


def test_what_is_so_already_is_not_written_again() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(max=2), ANN)
    before = world.keyspace.dump()
    world.clusters.update(id, a_cluster(max=2), ANN)
    world.clusters.enable(id, True)
    assert world.keyspace.dump() == before


def test_a_cluster_keeps_its_kind_and_all_that_is_wrong_is_told() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(), ANN)
    why = refused(world, InvalidRequest, lambda: world.clusters.update(id, of_services(), ANN))
    assert why == "service: the cluster is of mantis jobs, and stays so"
    nameless = replace(of_services(), name="")
    why = refused(world, InvalidRequest, lambda: world.clusters.update(id, nameless, ANN))
    assert why == "service: the cluster is of mantis jobs, and stays so; name: a cluster needs a name"


def test_a_raised_floor_is_filled_at_once() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(max=3), ANN)
    world.clusters.update(id, a_cluster(min=3, max=3), ANN)
    world.sweep()
    assert len(live(world, id)) == 3


def test_disabling_in_the_definition_is_disabling() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(min=1, max=1), ANN)
    world.sweep()
    world.clusters.update(id, a_cluster(min=1, max=1, enabled=False), ANN)
    settle(world)
    assert live(world, id) == []


def test_a_disabled_cluster_of_services_takes_no_job_and_keeps_those_it_has() -> None:
    world = ready()
    id = world.clusters.create(of_services(), ANN)
    old = world.jobs.create(replace(a_service(), cluster_id=id), ANN)
    run_all(world)
    world.clusters.enable(id, False)
    settle(world)
    assert (live(world, id), world.job(old).kill) == ([old], None)
    why = refused(
        world, FailedPrecondition, lambda: world.jobs.create(replace(a_service(), cluster_id=id), ANN)
    )
    assert "disabled" in why
    # An update says nothing of it.
    world.clusters.update(id, replace(of_services(), name="t"), ANN)
    assert not world.clusters.find(id).is_enabled
    world.clusters.enable(id, True)
    world.jobs.create(replace(a_service(), cluster_id=id), ANN)


def test_a_job_of_a_cluster_that_was_enabled_again_meanwhile_is_not_ended() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(), ANN)
    mine = world.jobs.create(mantis_job(cluster_id=id), ANN)
    world.clusters.enable(id, False)
    seen: list[Change] = []

    def enabled(change: Change) -> None:
        if change.job_after is not None and not seen:
            seen.append(change)
            world.clusters.enable(id, True)

    world.records.before_commit = enabled
    world.sweep()
    world.records.before_commit = None
    settle(world)
    assert seen
    assert (live(world, id), world.job(mine).kill) == ([mine], None)


# ------------------------------------------------------------------------------------------ remove


def test_a_removed_cluster_is_gone_and_its_jobs_are_still_found() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(cron=CRON), ANN)
    mine = world.jobs.create(mantis_job(cluster_id=id), ANN)
    why = refused(world, FailedPrecondition, lambda: world.clusters.remove(id))
    assert mine in why
    world.jobs.kill(mine, ANN)
    settle(world)
    world.clusters.remove(id)
    refused(world, NotFound, lambda: world.clusters.remove(id))
    refused(world, NotFound, lambda: world.clusters.find(id))
    assert world.job(mine).state is State.FAILED
    refused(world, NotFound, lambda: world.jobs.create(mantis_job(cluster_id=id), ANN))


def test_a_job_that_comes_while_its_cluster_is_removed_keeps_it() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(), ANN)

    def joined(change: Change) -> None:
        world.records.before_commit = None
        world.jobs.create(mantis_job(cluster_id=id), ANN)

    world.records.before_commit = joined
    with pytest.raises(FailedPrecondition):
        world.clusters.remove(id)
    assert len(live(world, id)) == 1


# ------------------------------------------------------------------------------------------ all of them


@pytest.mark.parametrize(
    "call",
    [
        lambda clusters: clusters.update(NOWHERE, a_cluster(), ANN),
        lambda clusters: clusters.update(NOWHERE, replace(a_cluster(), name=""), ANN),
        lambda clusters: clusters.enable(NOWHERE, True),
        lambda clusters: clusters.remove(NOWHERE),
        lambda clusters: clusters.find(NOWHERE),
        lambda clusters: clusters.coming(NOWHERE, 1),
        lambda clusters: clusters.firings(NOWHERE, 0, 1),
    ],
)
def test_an_unknown_cluster_is_not_found(call: Callable[[Any], object]) -> None:
    world = ready()
    refused(world, NotFound, lambda: call(world.clusters))


@pytest.mark.parametrize("kind", list(JobType))
def test_built_in_clusters_stay_as_they_are(kind: JobType) -> None:
    world = ready()
    id = BUILT_IN[kind].id
    refused(world, FailedPrecondition, lambda: world.clusters.remove(id))
    refused(world, FailedPrecondition, lambda: world.clusters.enable(id, False))
    refused(world, FailedPrecondition, lambda: world.clusters.update(id, a_cluster(), ANN))
    world.clusters.enable(id, True)
    assert world.clusters.find(id) == BUILT_IN[kind]


@pytest.mark.parametrize("job", [a_job(), a_service()])
def test_a_job_joins_only_a_cluster_of_its_kind(job: JobDescriptor) -> None:
    world = ready()
    id = world.clusters.create(a_cluster(), ANN)
    why = refused(world, InvalidRequest, lambda: world.jobs.create(replace(job, cluster_id=id), ANN))
    assert why == "jobClusterId: is a cluster of mantis jobs"


def test_coming_times_are_told_as_far_as_is_asked() -> None:
    world = ready()
    id = world.clusters.create(a_cluster(cron=CRON), ANN)
    assert [world.elapsed(each) for each in world.clusters.coming(id, 3)] == [60, 120, 180]
    refused(world, InvalidRequest, lambda: world.clusters.coming(id, 0))
    refused(world, InvalidRequest, lambda: world.clusters.coming(id, 1_001))
    world.clusters.enable(id, False)
    assert world.clusters.coming(id, 3) == ()
    assert world.clusters.coming(world.clusters.create(a_cluster(), ANN), 3) == ()


def test_a_floor_whose_jobs_share_a_name_has_one_and_control_goes_on() -> None:
    world = ready()
    named = replace(mantis_job(), group=JobGroup(sequence="v1"))
    id = world.clusters.create(a_cluster(min=2, max=2, template=named), ANN)
    world.sweep()
    assert len(live(world, id)) == 1
    # It is not tried again at once, over and over.
    due = world.records.next_due()
    assert due is not None
    assert due > world.now
