#!/bin/sh
# Runs the beat of the application $1 on one host of several: two beats would send each task twice. With elect in front of every one:
#   elect run -b celery-beat --restart on-failure --stop-timeout 30s -- ./celery-beat.sh shop
# The empty --pidfile: a file that a killed beat has left would keep the next one from starting.
set -eu
exec celery --app "$1" beat --pidfile= --schedule "${TMPDIR:-/tmp}/celerybeat-$1" --loglevel info
