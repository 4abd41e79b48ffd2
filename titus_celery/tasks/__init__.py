"""The Celery side of control and agents: each body unpacks, calls one service, packs."""
