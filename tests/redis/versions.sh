# shellcheck shell=bash
# Further versions of Redis, and of Valkey, for tests/server-versions.
redis_programs=(redis-server=redis-server redis-cli=redis-cli redis-sentinel=redis-sentinel)
valkey_programs=(redis-server=valkey-server redis-cli=valkey-cli redis-sentinel=valkey-sentinel)
fetch redis redis trixie 'redis-server redis-tools redis-sentinel' "${redis_programs[@]}"
for suite in bookworm-backports trixie sid; do
  fetch redis valkey "$suite" 'valkey-server valkey-tools valkey-sentinel' "${valkey_programs[@]}"
done
