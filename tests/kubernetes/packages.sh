# shellcheck shell=bash
# The double of the API server needs nothing. The genuine one, for --long, is fetched and built by fetch.sh, with these.
if [ -n "${ELECT_LONG-}" ]; then
  need dpkg-deb dpkg
  need apt-get apt
  need setpriv util-linux
fi
