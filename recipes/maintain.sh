#!/bin/sh
# Runs a maintenance command on this host while another host leads, as in: ssh web-2 ./maintain.sh apt-get -y upgrade
set -eu
elect drain -b web
trap 'elect undrain -b web' EXIT
elect wait web --timeout 30s
"$@"
