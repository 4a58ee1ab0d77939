# shellcheck shell=bash
# Programs that the tests on etcd start, and the Debian packages that have them, for tests/run.
need etcd etcd-server
need etcdctl etcd-client
