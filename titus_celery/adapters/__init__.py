"""One technology per file, each behind a port of `titus_celery.ports`."""
