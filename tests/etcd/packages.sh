# shellcheck shell=bash
# Programs that the tests on etcd start, and the Debian packages that have them, for tests/run.
need etcd etcd-server
need etcdctl etcd-client
# The Go program that takes part with --long.
if [ -n "${ELECT_LONG-}" ]; then
  need go golang-go
  [ -d /usr/share/gocode/src/go.etcd.io/etcd/clientv3 ] || needs+=(golang-etcd-server-dev)
fi
