#!/bin/sh
# Replaces blue, which leads as process $1, by green, which is warm by then.
set -eu
elect run -b web --name green --follower ./green/standby -- ./green/serve &
green=$!
until [ -e green/warm ]; do sleep 0.1; done
elect resign -b web
elect wait web --for name=green --timeout 30s
kill "$1"
wait "$green"
