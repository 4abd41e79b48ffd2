#!/bin/sh
# Writes numbered lines to both streams, odd ones to the second. $1: how many lines (default 1000).
count="${1:-1000}"
line=1
while [ "$line" -le "$count" ]; do
    if [ $((line % 2)) -eq 0 ]; then
        echo "line $line"
    else
        echo "line $line" >&2
    fi
    line=$((line + 1))
done
