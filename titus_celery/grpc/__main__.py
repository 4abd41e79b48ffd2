"""`python -m titus_celery.grpc`: one gateway, until SIGTERM or SIGINT."""

from __future__ import annotations

import asyncio
import logging
import sys

from titus_celery import bootstrap, log
from titus_celery.errors import EXIT_OURS, StoreUnavailable, TitusError
from titus_celery.grpc.server import GatewayServices, serve, stop_on_signals
from titus_celery.service.feed import Feed
from titus_celery.service.tail import Tails

__all__ = ["main", "process_services"]


def main() -> int:
    """Serve until told to stop; 125, with one sentence, if that cannot be done."""
    try:
        settings = bootstrap.process_settings()
        log.configure(settings.log_format)
        asyncio.run(_serve())
    except TitusError as error:
        print(f"titus: {error}", file=sys.stderr)
        return EXIT_OURS
    return 0


async def _serve() -> None:
    settings = bootstrap.process_settings()
    try:
        bootstrap.check_store(settings)
    except StoreUnavailable as error:
        # It may come back, and until then UNAVAILABLE is a better answer than none.
        logging.getLogger(__name__).warning("%s; TITUS_REDIS_URL says where it is", error)
    await serve(settings, process_services(), stop_on_signals())


def process_services() -> GatewayServices:
    """What this process's gateway serves from."""
    settings = bootstrap.process_settings()
    parts = bootstrap.gateway(settings, bootstrap.process_app())
    return GatewayServices(
        jobs=parts.jobs,
        clusters=parts.clusters,
        feed=Feed(parts.log, parts.snapshots, parts.known_clusters),
        log=parts.log,
        committed=parts.committed,
        tails=Tails(parts.records, parts.outputs),
        subscriptions=parts.subscriptions,
        descriptor_bytes_max=settings.descriptor_bytes_max,
    )


if __name__ == "__main__":
    sys.exit(main())
