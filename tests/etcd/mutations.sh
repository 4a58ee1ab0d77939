# shellcheck shell=bash
# The mutations that the tests on etcd notice, for tests/sabotage, which sources this in a function: $1 is called with each.

"$1" 'a check that may be answered from local state' src/store/etcd/session.rs \
  '.and_then(branch).or_else([get_own, self.get_oldest(), terms.get()])' \
  '.and_then(if self.value_written { let _ = get_own; Vec::new() } else { branch })' \
  etcd::cluster::a_stalled_member_that_was

"$1" 'keep-alives credited whatever the raft term' src/store/etcd/session.rs \
  'if beat.raft_term == header.raft_term()' \
  'if beat.raft_term <= header.raft_term()' \
  etcd::cluster::a_keep_alive_begun

"$1" 'a win that is verified whatever term is kept by then' src/store/etcd/session.rs \
  'compares.push(terms.is_still(win.stored));' \
  'let _ = terms.is_still(win.stored);' \
  unit:store::registry::etcd::tests::a_last_term_that_is_raised

"$1" 'a last term that is read before the candidate is the oldest' src/store/etcd/terms.rs \
  'Some(term) => Ok(StoredTerm { term, modified: pair.mod_revision() }),' \
  'Some(term) => {
                static EARLY: std::sync::OnceLock<StoredTerm> = std::sync::OnceLock::new();
                Ok(*EARLY.get_or_init(|| StoredTerm { term, modified: pair.mod_revision() }))
            }' \
  etcd::terms::the_last_term_is_read

"$1" 'a term that is not kept' src/store/etcd/session.rs \
  'branch.extend(terms.put(win.term));' \
  '' \
  etcd::terms::the_last_term_is_read

"$1" 'terms below those that were seen on an etcd of before' src/store/etcd/terms.rs \
  'self.highest_seen = self.highest_seen.max(term);' \
  'let _ = term;' \
  etcd::terms::an_etcd_that_is_rebuilt_is_led

"$1" 'no watch on the own key' src/store/etcd/session.rs \
  'if self.own.as_ref().is_some_and(KeyWatch::is_alive)' \
  'if self.own.is_none()' \
  etcd::keys::a_leader_whose_key_is_deleted

"$1" 'the keeper gives nothing back' src/store/claim_release.rs \
  'elect_keeper::execute_self(SUBCOMMAND, &payload);' \
  'let _ = (payload, SUBCOMMAND, elect_keeper::execute_self as fn(&str, &[u8]));' \
  etcd::handover::a_killed_campaigner_hands_over_at_once

"$1" 'a session that is over leads again' src/store/etcd/mod.rs \
  'self.unrevoked.extend(session.lease_requested().then_some(session.lease()));
            self.given = false;' \
  'self.session = Some(session);' \
  etcd::access::a_permission_that_is_withdrawn

"$1" 'a key that may be older than ours is not looked for' src/store/etcd/session.rs \
  'if place.oldest.create_revision() == place.created' \
  'if place.oldest.create_revision() <= place.created' \
  etcd::handover::a_leader_that_is_asked_to_stop
