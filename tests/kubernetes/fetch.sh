# shellcheck shell=bash
# For --long: the generic API server of Kubernetes with etcd, and the programs of others that take part in its elections. Debian
# has the server as a library only, and only sid has all its parts; nothing of it is installed: all is below the target directory.
#
#   target/kubernetes/bin/       leaseserver and participant, built here; kubectl; etcd
#   target/kubernetes/python/    the Python client
kubernetes_at=${CARGO_TARGET_DIR:-$PWD/target}/kubernetes
kubernetes_python=kubernetes==37.0.2

# apt with lists and a status of its own, so that the machine's are not touched.
kubernetes_apt() {
  apt-get -qq -o "Dir::Etc::SourceList=$kubernetes_at/sources.list" -o Dir::Etc::SourceParts=/dev/null \
    -o "Dir::State=$kubernetes_at/state" -o Dir::State::status=/dev/null -o "Dir::Cache=$kubernetes_at/cache" \
    -o APT::Sandbox::User=root -o Debug::NoLocking=1 "$@"
}

fetch_kubernetes() {
  local wanted='golang-k8s-apiserver-dev golang-k8s-client-go-dev golang-etcd-server-dev golang-1.27-go etcd-server kubectl' names
  say 'fetching the library of the API server'
  rm -rf "$kubernetes_at/sid" "$kubernetes_at/debs"
  mkdir -p "$kubernetes_at/state/lists/partial" "$kubernetes_at/cache/archives/partial" "$kubernetes_at/debs" "$kubernetes_at/sid"
  echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] ${DEBIAN_MIRROR:-http://deb.debian.org/debian} sid main" \
    >"$kubernetes_at/sources.list"
  kubernetes_apt update
  # Sources, and programs that are linked statically or to the C library alone: of the rest nothing is needed.
  # shellcheck disable=SC2086
  names=$(kubernetes_apt -q=1 install --simulate --no-install-recommends $wanted | sed -n 's/^Inst \(golang[^ ]*\|etcd-server\|kubectl\) .*/\1/p')
  # shellcheck disable=SC2086
  (cd "$kubernetes_at/debs" && kubernetes_apt download $names)
  local package
  for package in "$kubernetes_at"/debs/*.deb; do
    dpkg-deb --extract "$package" "$kubernetes_at/sid"
  done
  rm -rf "$kubernetes_at/debs" "$kubernetes_at/cache" "$kubernetes_at/state"
  touch "$kubernetes_at/sid/complete"
}

# Some minutes for the first time, and then seconds.
build_kubernetes() {
  local program
  mkdir -p "$kubernetes_at/bin"
  for program in leaseserver participant; do
    say "building $program"
    (
      cd "tests/kubernetes/$program"
      export GOROOT=$kubernetes_at/sid/usr/lib/go-1.27 GOPATH=$kubernetes_at/sid/usr/share/gocode GOCACHE=$kubernetes_at/go-cache
      # No module is fetched.
      export GO111MODULE=off GOFLAGS='' GOTOOLCHAIN=local GOPROXY=off CGO_ENABLED=0
      "$GOROOT/bin/go" build -ldflags '-s -w' -o "$kubernetes_at/bin/$program" main.go
    )
  done
  ln -sf ../sid/usr/bin/etcd ../sid/usr/bin/kubectl "$kubernetes_at/bin/"
}

if [ -n "${ELECT_LONG-}" ]; then
  [ -e "$kubernetes_at/sid/complete" ] || fetch_kubernetes
  build_kubernetes
  if [ ! -e "$kubernetes_at/python/bin/python3" ]; then
    say "fetching $kubernetes_python"
    python3 -m venv "$kubernetes_at/python"
    "$kubernetes_at/python/bin/pip" install --quiet "$kubernetes_python"
  fi
fi
