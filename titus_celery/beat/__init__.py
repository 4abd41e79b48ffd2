"""Celery Beat, which only ticks: no rules, no state, and of several only one leads."""
