#!/bin/sh
# Takes jobs on one machine of several, one after the other: $1 does one job and ends, as an ephemeral runner does, as in:
#   elect run -b runner --stop-timeout 1h -- ./runner.sh ./run.sh
# A job that is under way when elect is asked to stop, to resign or to drain is finished first; a lost lease ends it.
set -eu
stop=
trap 'stop=yes' TERM INT
while [ -z "$stop" ]; do
  "$@" &
  job=$!
  # A signal ends the first wait, and not the job.
  wait "$job" || :
  while kill -0 "$job" 2>/dev/null; do wait "$job" || :; done
done
