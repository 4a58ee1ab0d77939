#!/bin/sh
# Writes into the ledger, unless a later leader has written there: then it exits with 1.
set -eu
written=$(sqlite3 -bail -cmd '.timeout 5000' "$DATABASE" "
  BEGIN IMMEDIATE;
  UPDATE fence SET term = $ELECT_TERM WHERE boundary = 'billing' AND term <= $ELECT_TERM;
  INSERT INTO ledger SELECT $ELECT_TERM, 'paid' FROM fence WHERE boundary = 'billing' AND term = $ELECT_TERM;
  SELECT changes();
  COMMIT;")
[ "$written" = 1 ] || { echo "term $ELECT_TERM is over" >&2; exit 1; }
