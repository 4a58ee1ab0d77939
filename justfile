# The commands of CONTRIBUTING.md. Each recipe calls a script of the repository, or cargo, and nothing else.

# Lists the recipes.
default:
    @just --list

# Builds and installs elect, and runs it once.
install *ARGS:
    ./install {{ARGS}}

# Builds elect as one static program; --dev: not optimized.
static *ARGS:
    ./build-static {{ARGS}}

# What a release publishes: packages, tarball and checksums.
dist *ARGS:
    ./dist {{ARGS}}

# Everything that continuous integration runs, with a short form of each long proof.
all:
    tests/run

# Everything, with each proof in full.
long:
    tests/run --long

# Formats all crates.
fmt:
    cargo fmt --all

# Lints of all crates and targets.
lint:
    cargo clippy --locked --all-targets -- -D warnings

# Lints without features, with each one, and with all but each one.
features:
    tests/features

# Whether a newer Rust is needed than Cargo.toml says.
msrv:
    tests/msrv

# Imports, lengths, prose and names: figures, and a failure above a limit.
house:
    tests/house/imports
    tests/house/lengths
    tests/house/prose
    tests/house/homonyms
    tests/house/old-names

# Tests of the election: no server, no protoc.
core NAME='':
    cargo test --locked -p elect-core -- {{NAME}}

# Tests of the keeper.
keeper NAME='':
    cargo test --locked -p elect-keeper -- {{NAME}}

# Tests beside the code of the program.
unit NAME='':
    cargo test --locked --bin elect -- {{NAME}}

# Programs that end-to-end tests start: the witness, and one that refuses system calls.
[private]
examples:
    cargo build --quiet --locked --examples

# End-to-end tests; NAME selects some, such as handover:: or redis::load.
test NAME='': examples
    cargo test --locked --test main -- {{NAME}}

# One end-to-end test by its full name, with what it prints.
test-one NAME: examples
    cargo test --locked --test main -- --exact --nocapture {{NAME}}

# All tests of one store, by the name of its folder.
store NAME: examples
    cargo test --locked --bin elect -- registry::{{NAME}}::
    cargo test --locked --test main -- {{NAME}}::

# Breaks rules on purpose and expects a test to fail; WORDS select some by name, rule or fault.
mutations WORDS='':
    tests/mutations '{{WORDS}}'

# Generates manual pages and completions from the command line.
generate:
    UPDATE=1 cargo test --locked --bin elect generated

# Size, memory and times on this machine.
bench:
    cargo bench --locked

# Documentation of the code.
docs:
    RUSTDOCFLAGS='-D warnings' cargo doc --locked --no-deps --document-private-items

# A static site of the pages.
site *ARGS:
    docs/build-site {{ARGS}}
