# shellcheck shell=bash
# Programs that the tests on Redis start, and the Debian packages that have them, for tests/run.
need redis-server redis-server
need redis-cli redis-tools
need redis-sentinel redis-sentinel
