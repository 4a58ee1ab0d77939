# shellcheck shell=bash
# Programs that the tests on PostgreSQL start, and the Debian packages that have them, for tests/run. Debian keeps the server out of
# PATH, in a directory for each version.
ls /usr/lib/postgresql/*/bin/postgres >/dev/null 2>&1 || needs+=(postgresql)
need psql postgresql-client
need pgbouncer pgbouncer
