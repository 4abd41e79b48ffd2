"""What a change does to clusters: the part of `layout.plan` that speaks of them. Pure, as that is."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from titus_celery.adapters import keyspace as ks
from titus_celery.adapters import records
from titus_celery.adapters.codec import to_text
from titus_celery.adapters.keys import Keys
from titus_celery.core.claims import KEY_KEPT, cluster_claims
from titus_celery.core.cluster import Cluster
from titus_celery.core.decision import Change, ClusterChange, Gate

__all__ = ["plan"]

_Part = tuple[Sequence[ks.Check], Sequence[ks.Write]]


def plan(keys: Keys, change: Change) -> Iterator[_Part]:
    """The checks and writes, in parts."""
    if change.gate is not None:
        yield list(_gate(keys, change.gate)), ()
    match change.cluster:
        case ClusterChange(None, Cluster() as new):
            yield _made(keys, new)
        case ClusterChange(Cluster() as before, Cluster() as after, firings):
            key, what = keys.cluster(after.id), f"cluster {after.id}"
            writes: list[ks.Write] = [ks.HashSet(key, records.cluster_fields(after))]
            writes += (
                ks.SetAdd(keys.firings(after.id), to_text(firing), ks.to_ms(firing.at)) for firing in firings
            )
            yield [ks.FieldIs(key, records.VERSION, str(before.version), what)], writes
        case ClusterChange(Cluster() as before, None):
            yield _removed(keys, before)
        case _:
            pass


def _gate(keys: Keys, gate: Gate) -> Iterator[ks.Check]:
    what = f"cluster {gate.cluster_id}"
    yield ks.FieldIs(keys.cluster(gate.cluster_id), records.GATE, str(gate.number), what)
    if gate.jobs_max:
        yield ks.RoomFor(keys.cluster_jobs(gate.cluster_id), gate.jobs_max, f"jobs in {what}")


def _made(keys: Keys, new: Cluster) -> _Part:
    key, what = keys.cluster(new.id), f"cluster {new.id}"
    checks: list[ks.Check] = [ks.Absent(key, ks.Kind.HASH, what)]
    writes: list[ks.Write] = [
        ks.HashSet(key, records.cluster_fields(new)),
        ks.SetAdd(keys.clusters, new.id, ks.to_ms(new.created_at)),
    ]
    for claim in cluster_claims(new):
        name = keys.claim(claim.kind, claim.name)
        checks.insert(0, ks.Absent(name, ks.Kind.TEXT, "this idempotency key", name=True))
        writes.append(ks.TextSet(name, to_text(claim)))
    return checks, writes


def _removed(keys: Keys, before: Cluster) -> _Part:
    key, what = keys.cluster(before.id), f"cluster {before.id}"
    checks: list[ks.Check] = [
        ks.FieldIs(key, records.VERSION, str(before.version), what),
        ks.SizeIs(keys.cluster_jobs(before.id), 0, what),
    ]
    writes: list[ks.Write] = [
        ks.Delete(key, ks.Kind.HASH),
        ks.Delete(keys.firings(before.id), ks.Kind.SORTED),
        ks.SetRemove(keys.clusters, before.id),
    ]
    for claim in cluster_claims(before):
        # A key outlives its cluster, for who repeats the request late.
        writes.append(ks.Expire(keys.claim(claim.kind, claim.name), ks.Kind.TEXT, KEY_KEPT))
    return checks, writes
