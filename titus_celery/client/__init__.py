"""The Python client of a Titus server: synchronous, and without Celery, Redis or Docker.

    with TitusClient("127.0.0.1:7104", caller="ann@example.com") as titus:
        job_id = titus.submit(descriptor)
        for item in titus.observe(job_id):
            if isinstance(item, Reconnected) and not item.resumed:
                ...  # forget what was heard: a snapshot follows

Requests and replies are the messages of `titus_celery.grpc.proto`.
"""

from titus_celery.client.failure import CallFailed, Failed
from titus_celery.client.repeating import AWAY
from titus_celery.client.streams import Disconnected, Reconnected
from titus_celery.client.titus import DEFAULT_SERVER, Instances, Resized, TitusClient

__all__ = [
    "AWAY",
    "DEFAULT_SERVER",
    "CallFailed",
    "Disconnected",
    "Failed",
    "Instances",
    "Reconnected",
    "Resized",
    "TitusClient",
]
