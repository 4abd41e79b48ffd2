"""titus_celery: the Titus job API on Docker hosts, Celery and Redis."""

from typing import Final

__all__ = ["__version__"]

__version__: Final = "0.1.0"
