#!/bin/sh
# Runs a command of maintenance on this host while another one leads, as in: ssh web-2 ./maintain.sh apt-get -y upgrade
set -eu
elect drain -b web
trap 'elect undrain -b web' EXIT
elect wait web --timeout 30s
"$@"
