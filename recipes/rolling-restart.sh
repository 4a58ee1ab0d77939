#!/bin/sh
# Restarts elect@$1 on the hosts in the other arguments, the leader last, for one hand-over: ./rolling-restart.sh web web-1 web-2 web-3
# The names of the candidates are the hosts' names, which is the default.
set -eu
boundary=$1
shift
restart() {
  ssh "$1" systemctl restart "elect@$boundary"
  elect wait "$boundary" --timeout 60s
}
leader=
for host; do
  if elect wait "$boundary" --for "name=$host" --timeout 0 >/dev/null 2>&1; then
    leader=$host
  else
    restart "$host"
  fi
done
if [ -n "$leader" ]; then restart "$leader"; fi
