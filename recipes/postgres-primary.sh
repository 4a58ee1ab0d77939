#!/bin/sh
# Runs the PostgreSQL of the shared volume $PGDATA while this host leads, as in:
#   elect run -b pg --stop-signal INT --stop-timeout 60s -- ./postgres-primary.sh -p 5432
# INT is PostgreSQL's fast shutdown. A leader that was frozen and thaws late does not start PostgreSQL on the files of a later leader.
set -eu
last=$(cat "$PGDATA/elect.term" 2>/dev/null || echo 0)
if [ "$ELECT_TERM" -lt "$last" ]; then
  echo "term $ELECT_TERM is over: term $last has used $PGDATA" >&2
  exit 1
fi
echo "$ELECT_TERM" >"$PGDATA/elect.term.new"
mv "$PGDATA/elect.term.new" "$PGDATA/elect.term"
exec postgres -D "$PGDATA" "$@"
