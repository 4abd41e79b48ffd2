"""The gateway: the Titus API over gRPC.

This file imports nothing on purpose: the client takes `proto` and `convert` from here without the
server, and without Celery, Redis or Docker.
"""
