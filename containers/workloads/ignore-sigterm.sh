#!/bin/sh
# Ignores the polite signal, so that only a kill after the grace period ends it. $1: seconds to live (default 600).
trap '' TERM
echo "ignoring TERM"
left="${1:-600}"
while [ "$left" -gt 0 ]; do
    sleep 1
    left=$((left - 1))
done
