# shellcheck shell=bash
# For install and tests/run, which source it in the root of the sources: finds a Rust that builds elect, or installs the system's.

RUST_MIN=$(sed -n 's/^rust-version = "1\.\([0-9]*\)"$/\1/p' Cargo.toml)
# rustup would otherwise fetch the channel that rust-toolchain.toml names, beside one that is new enough.
export RUSTUP_AUTO_INSTALL=${RUSTUP_AUTO_INSTALL-0}

# Runs a command as root; sudo asks for a password if it must.
as_root() {
  if [ "$(id -u)" -eq 0 ]; then
    "$@"
  elif command -v sudo >/dev/null 2>&1; then
    sudo "$@"
  else
    echo "$0: root or sudo is needed for: $*" >&2
    return 1
  fi
}

# Installs packages, and refreshes apt's lists once before.
apt_lists_are_fresh=
install_packages() {
  refresh_apt_lists || return 1
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" >/dev/null
}
refresh_apt_lists() {
  [ -z "$apt_lists_are_fresh" ] || return 0
  as_root apt-get update -qq || return 1
  apt_lists_are_fresh=1
}

# Whether the given programs of a toolchain are on PATH, and new enough.
is_rust_usable() {
  local minor program
  for program in "$@"; do
    command -v "$program" >/dev/null 2>&1 || return 1
  done
  minor=$(rustc --version 2>/dev/null | sed -n 's/^rustc 1\.\([0-9]*\)\..*/\1/p')
  [ -n "$minor" ] && [ "$minor" -ge "$RUST_MIN" ] && cargo --version >/dev/null 2>&1
}

# Selects a toolchain of rustup that is new enough, if the one for this folder is not.
select_rustup_toolchain() {
  local toolchain
  command -v rustup >/dev/null 2>&1 || return 1
  for toolchain in $(rustup toolchain list 2>/dev/null | sed -n 's/^\([^ ]*-[^ ]*\).*/\1/p' | sort -rV); do
    export RUSTUP_TOOLCHAIN=$toolchain
    is_rust_usable "$@" && return 0
  done
  unset RUSTUP_TOOLCHAIN
  return 1
}

# The package with a new enough cargo: Debian's cargo-web, Ubuntu's cargo-1.NN, cargo.
rust_package() {
  local package version
  for package in cargo-web $(apt-cache pkgnames cargo-1. | grep -x 'cargo-1\.[0-9]*' | sort -rV) cargo; do
    # Packages of Rust before 1.80 have cargo's own numbers, such as 0.66.
    version=$(apt-cache policy "$package" | sed -n 's/^  Candidate: 1\.\([0-9]*\)\..*/\1/p')
    if [ -n "$version" ] && [ "$version" -ge "$RUST_MIN" ]; then
      echo "$package"
      return 0
    fi
  done
  return 1
}

# Packages of the same source that have `cargo fmt` and `cargo clippy`.
rust_tool_packages() {
  case $1 in
    cargo-web) echo rustfmt-web rust-web-clippy ;;
    cargo-1.*) echo "rustfmt-${1#cargo-}" "rust-${1#cargo-}-clippy" ;;
    *) echo rustfmt rust-clippy ;;
  esac
}

# Packages that have to go for the given ones, other than those of the Rust that they replace.
packages_lost_to() {
  apt-get install -s -qq --no-install-recommends "$@" 2>/dev/null |
    sed -n 's/^Remv \([^ ]*\).*/\1/p' | grep -vE '^(cargo|rustc|rustfmt|rust-clippy|rust-gdb|rust-lldb|libstd-rust-.*)$'
}

# Puts the given programs of a toolchain on PATH that builds elect, and installs one if there is none.
find_rust() {
  local package packages lost
  is_rust_usable "$@" && return 0
  [ ! -x "${CARGO_HOME:-$HOME/.cargo}/bin/cargo" ] || PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  is_rust_usable "$@" && return 0
  select_rustup_toolchain "$@" && return 0
  local wanted="Rust 1.$RUST_MIN or newer is needed" rustup='curl https://sh.rustup.rs -sSf | sh'
  if ! command -v apt-get >/dev/null 2>&1; then
    echo "$0: $wanted: install it with $rustup" >&2
    return 1
  fi
  refresh_apt_lists || return 1
  if ! package=$(rust_package); then
    echo "$0: $wanted, and no package here has it: install it with $rustup; Debian 12 has it in the suite bookworm-security" >&2
    return 1
  fi
  packages=$package
  case " $* " in
    *' cargo-fmt '* | *' cargo-clippy '*) packages="$package $(rust_tool_packages "$package")" ;;
  esac
  # shellcheck disable=SC2086 # several words
  if lost=$(packages_lost_to $packages); then
    echo "$0: $wanted: $package would remove $(echo "$lost" | tr '\n' ' ')- install it yourself, or Rust with $rustup" >&2
    return 1
  fi
  echo "== installing $packages"
  # shellcheck disable=SC2086 # several words
  install_packages $packages || return 1
  # Ubuntu keeps each version in a folder of its own.
  case $package in
    cargo-1.*) PATH=/usr/lib/rust-${package#cargo-}/bin:$PATH ;;
    *) PATH=/usr/bin:$PATH ;;
  esac
  hash -r
  is_rust_usable "$@" && return 0
  echo "$0: $wanted: $package is installed, but $(command -v rustc) says: $(rustc --version 2>&1 | head -n 1)" >&2
  return 1
}
