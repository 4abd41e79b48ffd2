"""What `celery -A titus_celery ...` finds: the application, configured from the environment.

celery -A titus_celery worker -Q titus.control       places tasks, acts on deadlines
celery -A titus_celery worker -Q titus.agent.NAME    runs containers on this host's engine
celery -A titus_celery beat                          ticks
celery -A titus_celery flower                        shows workers and messages
"""

import os
import sys
from typing import Final

from celery import Celery

from titus_celery.beat.schedule import install
from titus_celery.bootstrap import process_app, process_settings
from titus_celery.errors import EXIT_OURS, SettingsError

__all__ = ["app"]

# Flower takes its options from the environment. It shows everything to whoever reaches it, and its
# buttons would act past the store: so only this machine, and only looking, unless somebody decides.
os.environ.setdefault("FLOWER_ADDRESS", "127.0.0.1")
os.environ.setdefault("FLOWER_READ_ONLY", "True")


def _configured() -> Celery:
    try:
        made = process_app()
        install(made, process_settings())
    except SettingsError as error:
        # Celery would show it under sixty lines of its own.
        print(f"titus: {error}", file=sys.stderr)
        raise SystemExit(EXIT_OURS) from error
    return made


app: Final[Celery] = _configured()
