# shellcheck shell=bash
# shellcheck disable=SC2154 # as_root is set by those who source this
#
# Finds a Rust that builds elect, or installs Debian's. The scripts install and tests/run source it.
#
# Sets PATH so that `cargo` is the one that was found. Needs `as_root`, an array, for the case that packages are installed.

RUST_MINOR_MIN=89 # Cargo.toml: rust-version

# Whether the cargo on PATH, with its rustc, is new enough.
is_rust_new_enough() {
  local minor
  command -v cargo >/dev/null 2>&1 && command -v rustc >/dev/null 2>&1 || return 1
  minor=$(rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
  [ -n "$minor" ] && [ "$minor" -ge "$RUST_MINOR_MIN" ]
}

# The Debian or Ubuntu package with a new enough cargo, if there is one: cargo-web, cargo-1.NN, cargo.
rust_package() {
  local package version
  for package in cargo-web $(apt-cache pkgnames cargo-1. 2>/dev/null | sort -t. -k2 -rn) cargo; do
    version=$(apt-cache policy "$package" 2>/dev/null | sed -n 's/^  Candidate: 1\.\([0-9]*\).*/\1/p')
    # Packages of before Rust 1.80 have cargo's own numbers, 0.66 and the like: these do not match, and are too old anyway.
    if [ -n "$version" ] && [ "$version" -ge "$RUST_MINOR_MIN" ]; then
      echo "$package"
      return 0
    fi
  done
  return 1
}

# Packages of the same source with what the tests need besides: rustfmt and clippy.
rust_tool_packages() {
  case $1 in
    cargo-web) echo rustfmt-web rust-web-clippy ;;
    cargo-1.*) echo "rustfmt-${1#cargo-} rust-${1#cargo-}-clippy" ;;
    *) echo rustfmt rust-clippy ;;
  esac
}

# Puts a cargo on PATH that builds elect; installs one where there is none. Fails with one line.
# With an argument, rustfmt and clippy as well.
find_rust() {
  local package with_tools=${1-}
  is_rust_new_enough && return 0
  PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  is_rust_new_enough && return 0
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "$0: no Rust of at least 1.$RUST_MINOR_MIN: install one, for example by rustup (https://rustup.rs)" >&2
    return 1
  fi
  "${as_root[@]}" apt-get update -qq
  if ! package=$(rust_package); then
    echo "$0: no Rust of at least 1.$RUST_MINOR_MIN here, and no package of this system has one: install one by rustup (https://rustup.rs)" >&2
    return 1
  fi
  # The package conflicts with an older cargo, which apt removes; it is put before others on PATH.
  # shellcheck disable=SC2046 # several words
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    "$package" $([ -z "$with_tools" ] || rust_tool_packages "$package") >/dev/null
  PATH=/usr/bin:$PATH
  hash -r
  is_rust_new_enough || { echo "$0: $package is installed, but $(rustc --version 2>&1 | head -1) is what runs: put /usr/bin first in PATH" >&2; return 1; }
}
