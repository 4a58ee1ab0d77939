#!/bin/sh
# Holds the address $1 on the interface $2 while this host leads, as in: elect run -b vip -- ./vip.sh 10.0.0.9/32 eth0
# The address has a lifetime of two seconds: the kernel removes it once nothing renews it, even after SIGKILL.
set -eu
trap 'ip address del "$1" dev "$2" 2>/dev/null || :; exit 0' TERM INT
announced=
while :; do
  ip address replace "$1" dev "$2" valid_lft 2 preferred_lft 2
  # arping (iputils), where it is installed, tells the neighbours at once that the address has moved.
  if [ -z "$announced" ] && command -v arping >/dev/null; then
    arping -q -U -c 1 -I "$2" "${1%/*}" || :
  fi
  announced=yes
  sleep 0.5 &
  wait $!
done
