//! The memory of the queues (K3).

use super::*;

#[test]
fn queues_that_are_held_keep_their_order_and_their_room() {
    let mut machine = KeeperMachine::new(policy());
    for run in 0..3 * BUFFER as u64 {
        // The queue goes round in its memory, with some messages in it.
        machine.send(FromKeeper::NoCommand { run });
        if run >= 5 {
            machine.handle(at(0), KeeperEvent::MessageSent);
        }
        let (before, room) = (machine.outbox.clone(), machine.outbox.capacity());
        machine.hold();
        assert_eq!((&machine.outbox, machine.outbox.capacity()), (&before, room));
        assert!(machine.next_action().is_none());
    }
}
