"""What `celery -A titus_celery ...` finds: the application, configured from the environment.

celery -A titus_celery worker -Q titus.control       places tasks, acts on deadlines
celery -A titus_celery worker -Q titus.agent.NAME    runs containers on this host's engine
celery -A titus_celery beat                          ticks
celery -A titus_celery flower                        shows workers and messages
"""

from typing import Final

from celery import Celery

from titus_celery.beat.schedule import install
from titus_celery.bootstrap import process_app, process_settings

__all__ = ["app"]

app: Final[Celery] = process_app()
install(app, process_settings())
