#!/bin/sh
# Fails on the first attempts and then succeeds. $1: how many attempts fail (default 1).
attempt="${TITUS_TASK_ATTEMPT:-1}"
if [ "$attempt" -le "${1:-1}" ]; then
    echo "attempt $attempt fails" >&2
    exit 3
fi
echo "attempt $attempt succeeds"
