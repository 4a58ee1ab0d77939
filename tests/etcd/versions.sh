# shellcheck shell=bash
# Further versions of etcd, for tests/server-versions.
etcd_programs=(etcd=etcd etcdctl=etcdctl)
fetch etcd etcd trixie 'etcd-server etcd-client' "${etcd_programs[@]}"
fetch etcd etcd sid 'etcd-server etcd-client' "${etcd_programs[@]}"
