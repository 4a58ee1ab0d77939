# shellcheck shell=bash
# The mutations that the tests on Redis notice, for tests/sabotage, which sources this in a function: $1 is called with each.

"$1" 'a missing record is taken at once' crates/elect-core/src/takeover.rs \
  'RecordState::Held | RecordState::Free | RecordState::Vacant => self.longest_wait(),' \
  'RecordState::Held | RecordState::Free | RecordState::Vacant => Duration::ZERO,' \
  redis::data_loss::a_record_that_is_deleted

"$1" 'the ttls of others are forgotten with their record' crates/elect-core/src/takeover.rs \
  'if self.mutated(RuleMutation::OthersTtlsForgotten) { self.ttl } else { self.longest_ttl.max(self.ttl) }' \
  'let _ = self.longest_ttl; self.ttl' \
  redis::data_loss::a_record_that_is_deleted

"$1" 'a record of another life of the server is trusted' crates/elect-core/src/takeover.rs \
  'let is_continuous = self.continues(&view.basis, &record.basis);' \
  'let is_continuous = self.continues(&view.basis, &record.basis) || true;' \
  redis::data_loss::a_server_that_comes_back_with_an_old_snapshot

"$1" 'replicas that move over are no reason to wait again' crates/elect-core/src/takeover.rs \
  'later.continues(earlier)' \
  'later.incarnation == earlier.incarnation' \
  redis::epochs::a_replica_that_moves_over

"$1" 'renewals that change nothing are credited' crates/elect-core/src/takeover/held_term.rs \
  'nonce > found' \
  'nonce > found || true' \
  redis::epochs::a_leader_whose_renewals_change_nothing

"$1" 'a vacant record is taken like a free one' crates/elect-core/src/takeover.rs \
  'RecordState::Vacant if self.mutated(RuleMutation::VacantIsFree) => return Decision::Take,' \
  'RecordState::Vacant => return Decision::Take,' \
  redis::epochs::a_leader_that_came_and_was_forgotten

"$1" 'no WAIT for the replicas' src/store/redis/quorum.rs \
  'self.required == 0 || confirmed >= self.required + count.strangers' \
  'let _ = (confirmed, count, self.required); true' \
  redis::replicas::a_leader_on_a_primary_that_was_cut_off

"$1" 'a confirmation that asks nobody' src/store/redis/server.rs \
  'pipeline.cmd("WAIT").arg(replicas).arg(limit);' \
  'pipeline.cmd("ECHO").arg(replicas); let _ = limit;' \
  redis::replicas::a_connection_that_breaks_between

"$1" 'a take that compares nothing' src/store/redis/take.lua \
  'if not same then' \
  'if false then' \
  redis::no_wait::of_those_who_ask_only_once

"$1" 'a renewal of whatever is held' src/store/redis/renew.lua \
  'if seen[1] ~= ARGV[1] or seen[2] ~= ARGV[2] or' \
  'if' \
  redis::data_loss::a_server_that_comes_back_with_an_old_snapshot
