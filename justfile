# The commands of CONTRIBUTING.md. Each recipe only calls a script or cargo.

# Lists the recipes.
default:
    @just --list

# Installs elect from these sources and runs it once.
install *ARGS:
    ./install {{ARGS}}

# What continuous integration runs: everything, with a short form of every long proof.
all:
    tests/run

# Everything with the full counts.
long:
    tests/run --long

# Formats all crates.
fmt:
    cargo fmt --all

# Lints of all crates and targets.
lint:
    cargo clippy --locked --all-targets -- -D warnings

# Counts that the code has to keep: imports, lengths, prose, names.
house:
    tests/house/imports
    tests/house/lengths
    tests/house/prose
    tests/house/homonyms
    tests/house/old-names

# Tests of the election alone: no server, no C compiler, no protoc.
core:
    cargo test --locked -p elect-core

# Tests of the keeper alone.
keeper:
    cargo test --locked -p elect-keeper

# Tests beside the code of the program; NAME selects some.
unit NAME='':
    cargo test --locked --bin elect -- {{NAME}}

# End-to-end tests whose name contains NAME, such as redis:: or handover::a_killed.
test NAME:
    cargo build --locked --examples
    cargo test --locked --test main -- {{NAME}}

# Breaks rules on purpose and expects a test to notice; NAME selects some.
sabotage NAME='':
    tests/sabotage '{{NAME}}'

# The documentation of the code.
docs:
    cargo doc --locked --no-deps --document-private-items
