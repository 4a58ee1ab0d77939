# shellcheck shell=bash
# The mutations that the tests on MongoDB notice, for tests/sabotage, which sources this in a function: $1 is called with each.

"$1" 'what the primary alone has is credited' src/store/mongodb/server.rs \
  '.w(Acknowledgment::Majority)' \
  '.w(Acknowledgment::Nodes(1))' \
  mongodb::replicas::a_primary_without_a_majority

"$1" 'renewals that look alike' src/store/mongodb/session.rs \
  'change.extend(doc! { "seq": long(nonce), ' \
  'change.extend(doc! { ' \
  mongodb::clock::a_server_alone

"$1" 'a renewal of whatever is there' src/store/mongodb/session.rs \
  'let mut filter = self.ours(term);' \
  'let mut filter = doc! { "_id": &self.boundary };' \
  mongodb::records::on_a_server_alone

"$1" 'a leader that does not hear of its record' src/store/mongodb/session.rs \
  'hints.lost(term);' \
  'let _ = (term, Notifier::lost as fn(&Notifier, Term));' \
  mongodb::records::a_leader_whose_record

"$1" 'an index that looks at leaders as well' src/store/mongodb/ttl_index.rs \
  '.partial_filter_expression(doc! { "state": "free" })' \
  '' \
  mongodb::ttl_index::a_boundary_that_was_abandoned
