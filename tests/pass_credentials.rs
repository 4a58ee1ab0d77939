//! The store in a command's environment: always the same store, and its password only where that is asked for.

use crate::harness::server::PASSWORD;
use crate::harness::store_fixtures::for_each_store;
use crate::harness::{ElectCmd, Sandbox, docs_under_test};

#[test]
fn a_query_inside_a_command_looks_at_the_store_of_the_command() {
    for_each_store(|fixture| {
        let elect = docs_under_test::elect();
        let inside =
            format!("{elect} status cron && {elect} wait cron && {elect} run -b inner -n --ttl 3s -- echo inner led");
        let ended = fixture.candidate("outer").shell(&inside).run();
        assert_eq!(ended.status.code(), Some(0), "{}: {ended:?}", fixture.name());
        for said in ["outer", "inner led"] {
            assert!(ended.stdout.contains(said), "{}: {ended:?}", fixture.name());
        }
    });
}

/// The variables of a command, of its hooks and of a follower are the same in this.
const SHOWN: &str = "echo \"store=$ELECT_STORE password=$ELECT_PASSWORD file=$ELECT_PASSWORD_FILE\"";

#[test]
fn a_command_and_its_hooks_do_not_get_a_password_unless_that_is_asked_for() {
    let sandbox = Sandbox::new();
    let elect = || ElectCmd::new(&sandbox).store("always:".to_owned()).variable("OTHER_SECRET", "kept");
    let hook = format!("({SHOWN}) >\"$WITNESS_PLACE/hook\"");
    let shown = format!("{SHOWN} other=$OTHER_SECRET");
    // always: takes no password, but a command inside another one inherits those of the outer store.
    let inside = || elect().variable("ELECT_ROLE", "leader").variable("ELECT_PASSWORD", PASSWORD);
    let inside = || inside().variable("ELECT_PASSWORD_FILE", "/outer");
    let file = sandbox.path().join("password");
    std::fs::write(&file, PASSWORD).expect("a file");
    let ended = inside().variable("ELECT_PASSWORD_FILE", &file.display().to_string());
    let ended = ended.flag("--on-elected", &hook).shell(&shown).run();
    assert_eq!(ended.stdout, "store=always: password= file= other=kept\n", "{ended:?}");
    let of_hook = std::fs::read_to_string(sandbox.path().join("hook")).expect("it ran");
    assert_eq!(of_hook, "store=always: password= file=\n");
    let asked = inside().variable("ELECT_PASSWORD_FILE", &file.display().to_string()).switch("--pass-credentials");
    let ended = asked.shell(&shown).run();
    assert!(ended.stdout.contains(&format!("password={PASSWORD} file={}", file.display())), "{ended:?}");
}
