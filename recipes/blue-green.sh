#!/bin/sh
# Replaces blue, the leader with process id $1, with green, once green is warm.
set -eu
elect run -b web --name green --follower ./green/standby -- ./green/serve &
green=$!
until [ -e green/warm ]; do sleep 0.1; done
elect resign -b web
elect wait web --for name=green --timeout 30s
kill "$1"
wait "$green"
