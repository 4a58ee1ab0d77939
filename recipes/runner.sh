#!/bin/sh
# Takes jobs one after the other on one of several machines. $1 does one job and ends, like an ephemeral runner, as in:
#   elect run -b runner --stop-timeout 1h -- ./runner.sh ./run.sh
# When elect has to stop, resign or drain, a job that is under way is finished first; a lost lease ends it.
set -eu
stop=
trap 'stop=yes' TERM INT
while [ -z "$stop" ]; do
  "$@" &
  job=$!
  # A signal ends the first wait, but not the job.
  wait "$job" || :
  while kill -0 "$job" 2>/dev/null; do wait "$job" || :; done
done
