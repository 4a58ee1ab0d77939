#!/bin/sh
# Runs celery beat for the application $1 on one of several hosts, because two beats would send each task twice. On every host:
#   elect run -b celery-beat --restart on-failure --stop-timeout 30s -- ./celery-beat.sh shop
# --pidfile is empty, because the file that a killed beat leaves would keep the next one from starting.
set -eu
exec celery --app "$1" beat --pidfile= --schedule "${TMPDIR:-/tmp}/celerybeat-$1" --loglevel info
