# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_elect_global_optspecs
    string join \n h/help V/version
end

function __fish_elect_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_elect_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_elect_using_subcommand
    set -l cmd (__fish_elect_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c elect -n "__fish_elect_needs_command" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_needs_command" -s V -l version -d 'Print version'
complete -c elect -n "__fish_elect_needs_command" -f -a "status" -d 'Say who leads'
complete -c elect -n "__fish_elect_needs_command" -f -a "assert" -d 'Exit with 0 only if the candidate that this command belongs to leads now'
complete -c elect -n "__fish_elect_needs_command" -f -a "extend" -d 'Have the candidate renew its lease now, and print what is left of it'
complete -c elect -n "__fish_elect_needs_command" -f -a "resign" -d 'Have the leader on this host stop its command and campaign behind the others'
complete -c elect -n "__fish_elect_needs_command" -f -a "drain" -d 'Have the candidate on this host stop its command and leave the election, until undrain'
complete -c elect -n "__fish_elect_needs_command" -f -a "undrain" -d 'Have a drained candidate campaign again'
complete -c elect -n "__fish_elect_needs_command" -f -a "proclaim" -d 'Change the name or address that the leader on this host is known by, in the same term'
complete -c elect -n "__fish_elect_needs_command" -f -a "watch" -d 'Show every change of leadership as it happens'
complete -c elect -n "__fish_elect_needs_command" -f -a "wait" -d 'Wait until a candidate leads, or until none does'
complete -c elect -n "__fish_elect_needs_command" -f -a "plan" -d 'Show the timings that follow from the flags of run'
complete -c elect -n "__fish_elect_needs_command" -f -a "check" -d 'Check whether the flags of run will work here: the store, the permissions, the time that it all takes'
complete -c elect -n "__fish_elect_needs_command" -f -a "completions" -d 'Print the completions of a shell, to install where the shell looks for them'
complete -c elect -n "__fish_elect_needs_command" -f -a "run" -d 'Campaign for a boundary, and run a command while leading it'
complete -c elect -n "__fish_elect_needs_command" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
complete -c elect -n "__fish_elect_using_subcommand status" -s b -l boundary -d 'The boundary, as a flag' -r
complete -c elect -n "__fish_elect_using_subcommand status" -s s -l store -d 'Where the election is held' -r
complete -c elect -n "__fish_elect_using_subcommand status" -l tls-ca -d 'The authority that must have signed the store\'s certificate, or that certificate (PEM) [default: this system\'s]' -r -F
complete -c elect -n "__fish_elect_using_subcommand status" -l tls-cert -d 'A certificate to show to the store (PEM)' -r -F
complete -c elect -n "__fish_elect_using_subcommand status" -l tls-key -d 'The key of that certificate (PEM)' -r -F
complete -c elect -n "__fish_elect_using_subcommand status" -l tls-skip-verify -d 'Accept any certificate of the store: any host on the path can then read and forge everything' -r
complete -c elect -n "__fish_elect_using_subcommand status" -l username -d 'The user name at the store' -r
complete -c elect -n "__fish_elect_using_subcommand status" -l password-file -d 'A file that holds the user\'s password (or the variable `ELECT_PASSWORD` does: it is never an argument)' -r -F
complete -c elect -n "__fish_elect_using_subcommand status" -l runtime-dir -d 'The directory of the control sockets [default: by uid, in /run or /tmp]' -r -F
complete -c elect -n "__fish_elect_using_subcommand status" -l json -d 'One JSON object per boundary'
complete -c elect -n "__fish_elect_using_subcommand status" -l self -d 'The candidates on this host instead, asked over their control sockets'
complete -c elect -n "__fish_elect_using_subcommand status" -l all -d 'Show boundaries that have been free for over 24h, too'
complete -c elect -n "__fish_elect_using_subcommand status" -l watch -d 'Show each change until stopped, on a terminal in place'
complete -c elect -n "__fish_elect_using_subcommand status" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_using_subcommand assert" -s b -l boundary -d 'The boundary, as a flag' -r
complete -c elect -n "__fish_elect_using_subcommand assert" -l id -d 'The candidate, where several on this host campaign for it' -r
complete -c elect -n "__fish_elect_using_subcommand assert" -l timeout -d 'How long to wait for the answer' -r
complete -c elect -n "__fish_elect_using_subcommand assert" -l runtime-dir -d 'The directory of the control sockets [default: by uid, in /run or /tmp]' -r -F
complete -c elect -n "__fish_elect_using_subcommand assert" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_using_subcommand extend" -s b -l boundary -d 'The boundary, as a flag' -r
complete -c elect -n "__fish_elect_using_subcommand extend" -l id -d 'The candidate, where several on this host campaign for it' -r
complete -c elect -n "__fish_elect_using_subcommand extend" -l timeout -d 'How long to wait for the answer' -r
complete -c elect -n "__fish_elect_using_subcommand extend" -l runtime-dir -d 'The directory of the control sockets [default: by uid, in /run or /tmp]' -r -F
complete -c elect -n "__fish_elect_using_subcommand extend" -l json -d 'The answer as a JSON object'
complete -c elect -n "__fish_elect_using_subcommand extend" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_using_subcommand resign" -s b -l boundary -d 'The boundary, as a flag' -r
complete -c elect -n "__fish_elect_using_subcommand resign" -l id -d 'The candidate, where several on this host campaign for it' -r
complete -c elect -n "__fish_elect_using_subcommand resign" -l timeout -d 'How long to wait for the answer' -r
complete -c elect -n "__fish_elect_using_subcommand resign" -l runtime-dir -d 'The directory of the control sockets [default: by uid, in /run or /tmp]' -r -F
complete -c elect -n "__fish_elect_using_subcommand resign" -l to -d 'Leave the boundary to this candidate, named by its name or id' -r
complete -c elect -n "__fish_elect_using_subcommand resign" -l within -d 'How long the others leave the boundary to it, at most 1m' -r
complete -c elect -n "__fish_elect_using_subcommand resign" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_using_subcommand drain" -s b -l boundary -d 'The boundary, as a flag' -r
complete -c elect -n "__fish_elect_using_subcommand drain" -l id -d 'The candidate, where several on this host campaign for it' -r
complete -c elect -n "__fish_elect_using_subcommand drain" -l timeout -d 'How long to wait for the answer' -r
complete -c elect -n "__fish_elect_using_subcommand drain" -l runtime-dir -d 'The directory of the control sockets [default: by uid, in /run or /tmp]' -r -F
complete -c elect -n "__fish_elect_using_subcommand drain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_using_subcommand undrain" -s b -l boundary -d 'The boundary, as a flag' -r
complete -c elect -n "__fish_elect_using_subcommand undrain" -l id -d 'The candidate, where several on this host campaign for it' -r
complete -c elect -n "__fish_elect_using_subcommand undrain" -l timeout -d 'How long to wait for the answer' -r
complete -c elect -n "__fish_elect_using_subcommand undrain" -l runtime-dir -d 'The directory of the control sockets [default: by uid, in /run or /tmp]' -r -F
complete -c elect -n "__fish_elect_using_subcommand undrain" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_using_subcommand proclaim" -l name -d 'The name shown to people' -r
complete -c elect -n "__fish_elect_using_subcommand proclaim" -l advertise -d 'The address that followers are given' -r
complete -c elect -n "__fish_elect_using_subcommand proclaim" -s b -l boundary -d 'The boundary, as a flag' -r
complete -c elect -n "__fish_elect_using_subcommand proclaim" -l id -d 'The candidate, where several on this host campaign for it' -r
complete -c elect -n "__fish_elect_using_subcommand proclaim" -l timeout -d 'How long to wait for the answer' -r
complete -c elect -n "__fish_elect_using_subcommand proclaim" -l runtime-dir -d 'The directory of the control sockets [default: by uid, in /run or /tmp]' -r -F
complete -c elect -n "__fish_elect_using_subcommand proclaim" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_using_subcommand watch" -s b -l boundary -d 'The boundary, as a flag' -r
complete -c elect -n "__fish_elect_using_subcommand watch" -s s -l store -d 'Where the election is held' -r
complete -c elect -n "__fish_elect_using_subcommand watch" -l tls-ca -d 'The authority that must have signed the store\'s certificate, or that certificate (PEM) [default: this system\'s]' -r -F
complete -c elect -n "__fish_elect_using_subcommand watch" -l tls-cert -d 'A certificate to show to the store (PEM)' -r -F
complete -c elect -n "__fish_elect_using_subcommand watch" -l tls-key -d 'The key of that certificate (PEM)' -r -F
complete -c elect -n "__fish_elect_using_subcommand watch" -l tls-skip-verify -d 'Accept any certificate of the store: any host on the path can then read and forge everything' -r
complete -c elect -n "__fish_elect_using_subcommand watch" -l username -d 'The user name at the store' -r
complete -c elect -n "__fish_elect_using_subcommand watch" -l password-file -d 'A file that holds the user\'s password (or the variable `ELECT_PASSWORD` does: it is never an argument)' -r -F
complete -c elect -n "__fish_elect_using_subcommand watch" -l json -d 'One JSON object per change'
complete -c elect -n "__fish_elect_using_subcommand watch" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_using_subcommand wait" -s b -l boundary -d 'The boundary, as a flag' -r
complete -c elect -n "__fish_elect_using_subcommand wait" -l for -d 'The condition: leader, none, name=NAME or id=ID' -r
complete -c elect -n "__fish_elect_using_subcommand wait" -l timeout -d 'The longest time to wait; 0: look once [default: no limit]' -r
complete -c elect -n "__fish_elect_using_subcommand wait" -s s -l store -d 'Where the election is held' -r
complete -c elect -n "__fish_elect_using_subcommand wait" -l tls-ca -d 'The authority that must have signed the store\'s certificate, or that certificate (PEM) [default: this system\'s]' -r -F
complete -c elect -n "__fish_elect_using_subcommand wait" -l tls-cert -d 'A certificate to show to the store (PEM)' -r -F
complete -c elect -n "__fish_elect_using_subcommand wait" -l tls-key -d 'The key of that certificate (PEM)' -r -F
complete -c elect -n "__fish_elect_using_subcommand wait" -l tls-skip-verify -d 'Accept any certificate of the store: any host on the path can then read and forge everything' -r
complete -c elect -n "__fish_elect_using_subcommand wait" -l username -d 'The user name at the store' -r
complete -c elect -n "__fish_elect_using_subcommand wait" -l password-file -d 'A file that holds the user\'s password (or the variable `ELECT_PASSWORD` does: it is never an argument)' -r -F
complete -c elect -n "__fish_elect_using_subcommand wait" -l json -d 'The answer as a JSON object, like that of status'
complete -c elect -n "__fish_elect_using_subcommand wait" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_using_subcommand plan" -s b -l boundary -d 'The election: one command runs per boundary' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l name -d 'The name for people [default: the hostname]' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l advertise -d 'For followers [default: the hostname, no port]' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -s s -l store -d 'Where the election is held' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l tls-ca -d 'The authority that must have signed the store\'s certificate, or that certificate (PEM) [default: this system\'s]' -r -F
complete -c elect -n "__fish_elect_using_subcommand plan" -l tls-cert -d 'A certificate to show to the store (PEM)' -r -F
complete -c elect -n "__fish_elect_using_subcommand plan" -l tls-key -d 'The key of that certificate (PEM)' -r -F
complete -c elect -n "__fish_elect_using_subcommand plan" -l tls-skip-verify -d 'Accept any certificate of the store: any host on the path can then read and forge everything' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l username -d 'The user name at the store' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l password-file -d 'A file that holds the user\'s password (or the variable `ELECT_PASSWORD` does: it is never an argument)' -r -F
complete -c elect -n "__fish_elect_using_subcommand plan" -l ttl -d 'The lease time, which a lost host costs [default: 10s]' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l renew -d 'From one renewal to the next [default: ttl/5, at most 60s]' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l request-timeout -d 'How long one attempt at the store may take [default: ttl/10, at most 30s]' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l fence-grace -d 'From SIGTERM to SIGKILL when the lease runs out [default: ttl/5, at most 10s]' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l stop-signal -d 'The signal that asks the command to stop' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l stop-timeout -d 'How long the command may take to end' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l stop-to -d 'Which process gets the stop signal first: main, or its whole process group' -r -f -a "main\t'The main process'
group\t'Its process group'"
complete -c elect -n "__fish_elect_using_subcommand plan" -l containment -d 'By cgroup, pidns or tree' -r -f -a "auto\t'cgroup if one can be made, otherwise tree'
cgroup\t'A cgroup of its own below elect\'s (kernel 5.14), in which one call kills every process'
pidns\t'A PID namespace of its own (root): it ends with elect even if all of elect is killed at once'
tree\t'Every descendant is found and killed, as in each tier, and no more'"
complete -c elect -n "__fish_elect_using_subcommand plan" -l restart -d 'Start an ended command again, in the same term' -r -f -a "never\t'None: elect exits with its status'
on-failure\t'A status other than 0, or a signal'
always\t'Each'"
complete -c elect -n "__fish_elect_using_subcommand plan" -l restart-delay -d 'The delay before a restart: doubled each time, up to 30s' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l restart-limit -d 'How many restarts, within how long, before another candidate gets its turn' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l takeover-delay -d 'Take over only after there was no leader for this long, as a spare' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l min-hold -d 'Lead for at least this long' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -s n -l no-wait -d 'Do not wait: exit with 75 if another candidate leads' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l wait -d 'Wait at most this long [default: no limit]' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -s E -l conflict-exit-code -d 'The exit status instead of 75, if another candidate leads [default: 75]' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l on-lost -d 'After a lost leadership [default: recampaign; exit with -n or --wait]' -r -f -a "recampaign\t'Campaign again'
exit\t'Exit with 76'"
complete -c elect -n "__fish_elect_using_subcommand plan" -l pass-credentials -d 'Pass the store\'s password on to the command, the follower and the hooks' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l pod-label -d 'Label elect\'s own pod KEY=leader or KEY=follower' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l listen -d 'Health checks, a status page and metrics over HTTP' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l follower -d 'The command while another leads, by sh -c' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l follower-on-change -d 'At another leader: restart, a signal to its main process, or ignore [default: restart]' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l on-elected -d 'The hook before the command; it has to succeed' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l on-ousted -d 'The hook after the command, before another may lead' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l on-change -d 'The hook to run whenever the leader changes, to none and to this candidate too' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l on-error -d 'The hook to run when the store fails: at the first error, and every 30s' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l hook-timeout -d 'How long a hook may take, before it is killed' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l health -d 'A check: lead only while it succeeds, by sh -c' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l health-interval -d 'From the start of a check to that of the next' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l health-timeout -d 'How long a check may take: at most the interval' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l health-rise -d 'How many successes in a row make this candidate healthy' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l health-fall -d 'How many failures in a row make it unhealthy' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l health-start -d 'Ignore failures for this long after the command\'s start' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l drained -d 'Start drained: campaign only after elect undrain' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -s q -l quiet -d 'Log only warnings and errors' -r
complete -c elect -n "__fish_elect_using_subcommand plan" -l log-format -d 'Log lines as text or json' -r -f -a "text\t'For people'
json\t'One object a line'"
complete -c elect -n "__fish_elect_using_subcommand plan" -l runtime-dir -d 'The directory of the control sockets [default: by uid, in /run or /tmp]' -r -F
complete -c elect -n "__fish_elect_using_subcommand plan" -l json -d 'The timings as a JSON object'
complete -c elect -n "__fish_elect_using_subcommand plan" -s v -l verbose -d 'Log more; given twice: everything'
complete -c elect -n "__fish_elect_using_subcommand plan" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_using_subcommand check" -s b -l boundary -d 'The election: one command runs per boundary' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l name -d 'The name for people [default: the hostname]' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l advertise -d 'For followers [default: the hostname, no port]' -r
complete -c elect -n "__fish_elect_using_subcommand check" -s s -l store -d 'Where the election is held' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l tls-ca -d 'The authority that must have signed the store\'s certificate, or that certificate (PEM) [default: this system\'s]' -r -F
complete -c elect -n "__fish_elect_using_subcommand check" -l tls-cert -d 'A certificate to show to the store (PEM)' -r -F
complete -c elect -n "__fish_elect_using_subcommand check" -l tls-key -d 'The key of that certificate (PEM)' -r -F
complete -c elect -n "__fish_elect_using_subcommand check" -l tls-skip-verify -d 'Accept any certificate of the store: any host on the path can then read and forge everything' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l username -d 'The user name at the store' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l password-file -d 'A file that holds the user\'s password (or the variable `ELECT_PASSWORD` does: it is never an argument)' -r -F
complete -c elect -n "__fish_elect_using_subcommand check" -l ttl -d 'The lease time, which a lost host costs [default: 10s]' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l renew -d 'From one renewal to the next [default: ttl/5, at most 60s]' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l request-timeout -d 'How long one attempt at the store may take [default: ttl/10, at most 30s]' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l fence-grace -d 'From SIGTERM to SIGKILL when the lease runs out [default: ttl/5, at most 10s]' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l stop-signal -d 'The signal that asks the command to stop' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l stop-timeout -d 'How long the command may take to end' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l stop-to -d 'Which process gets the stop signal first: main, or its whole process group' -r -f -a "main\t'The main process'
group\t'Its process group'"
complete -c elect -n "__fish_elect_using_subcommand check" -l containment -d 'By cgroup, pidns or tree' -r -f -a "auto\t'cgroup if one can be made, otherwise tree'
cgroup\t'A cgroup of its own below elect\'s (kernel 5.14), in which one call kills every process'
pidns\t'A PID namespace of its own (root): it ends with elect even if all of elect is killed at once'
tree\t'Every descendant is found and killed, as in each tier, and no more'"
complete -c elect -n "__fish_elect_using_subcommand check" -l restart -d 'Start an ended command again, in the same term' -r -f -a "never\t'None: elect exits with its status'
on-failure\t'A status other than 0, or a signal'
always\t'Each'"
complete -c elect -n "__fish_elect_using_subcommand check" -l restart-delay -d 'The delay before a restart: doubled each time, up to 30s' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l restart-limit -d 'How many restarts, within how long, before another candidate gets its turn' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l takeover-delay -d 'Take over only after there was no leader for this long, as a spare' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l min-hold -d 'Lead for at least this long' -r
complete -c elect -n "__fish_elect_using_subcommand check" -s n -l no-wait -d 'Do not wait: exit with 75 if another candidate leads' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l wait -d 'Wait at most this long [default: no limit]' -r
complete -c elect -n "__fish_elect_using_subcommand check" -s E -l conflict-exit-code -d 'The exit status instead of 75, if another candidate leads [default: 75]' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l on-lost -d 'After a lost leadership [default: recampaign; exit with -n or --wait]' -r -f -a "recampaign\t'Campaign again'
exit\t'Exit with 76'"
complete -c elect -n "__fish_elect_using_subcommand check" -l pass-credentials -d 'Pass the store\'s password on to the command, the follower and the hooks' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l pod-label -d 'Label elect\'s own pod KEY=leader or KEY=follower' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l listen -d 'Health checks, a status page and metrics over HTTP' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l follower -d 'The command while another leads, by sh -c' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l follower-on-change -d 'At another leader: restart, a signal to its main process, or ignore [default: restart]' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l on-elected -d 'The hook before the command; it has to succeed' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l on-ousted -d 'The hook after the command, before another may lead' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l on-change -d 'The hook to run whenever the leader changes, to none and to this candidate too' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l on-error -d 'The hook to run when the store fails: at the first error, and every 30s' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l hook-timeout -d 'How long a hook may take, before it is killed' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l health -d 'A check: lead only while it succeeds, by sh -c' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l health-interval -d 'From the start of a check to that of the next' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l health-timeout -d 'How long a check may take: at most the interval' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l health-rise -d 'How many successes in a row make this candidate healthy' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l health-fall -d 'How many failures in a row make it unhealthy' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l health-start -d 'Ignore failures for this long after the command\'s start' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l drained -d 'Start drained: campaign only after elect undrain' -r
complete -c elect -n "__fish_elect_using_subcommand check" -s q -l quiet -d 'Log only warnings and errors' -r
complete -c elect -n "__fish_elect_using_subcommand check" -l log-format -d 'Log lines as text or json' -r -f -a "text\t'For people'
json\t'One object a line'"
complete -c elect -n "__fish_elect_using_subcommand check" -l runtime-dir -d 'The directory of the control sockets [default: by uid, in /run or /tmp]' -r -F
complete -c elect -n "__fish_elect_using_subcommand check" -l json -d 'The findings as a JSON object'
complete -c elect -n "__fish_elect_using_subcommand check" -s v -l verbose -d 'Log more; given twice: everything'
complete -c elect -n "__fish_elect_using_subcommand check" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_using_subcommand completions" -s h -l help -d 'Print help'
complete -c elect -n "__fish_elect_using_subcommand run" -s b -l boundary -d 'The election: one command runs per boundary' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l name -d 'The name for people [default: the hostname]' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l advertise -d 'For followers [default: the hostname, no port]' -r
complete -c elect -n "__fish_elect_using_subcommand run" -s s -l store -d 'Where the election is held' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l tls-ca -d 'The authority that must have signed the store\'s certificate, or that certificate (PEM) [default: this system\'s]' -r -F
complete -c elect -n "__fish_elect_using_subcommand run" -l tls-cert -d 'A certificate to show to the store (PEM)' -r -F
complete -c elect -n "__fish_elect_using_subcommand run" -l tls-key -d 'The key of that certificate (PEM)' -r -F
complete -c elect -n "__fish_elect_using_subcommand run" -l tls-skip-verify -d 'Accept any certificate of the store: any host on the path can then read and forge everything' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l username -d 'The user name at the store' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l password-file -d 'A file that holds the user\'s password (or the variable `ELECT_PASSWORD` does: it is never an argument)' -r -F
complete -c elect -n "__fish_elect_using_subcommand run" -l ttl -d 'The lease time, which a lost host costs [default: 10s]' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l renew -d 'From one renewal to the next [default: ttl/5, at most 60s]' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l request-timeout -d 'How long one attempt at the store may take [default: ttl/10, at most 30s]' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l fence-grace -d 'From SIGTERM to SIGKILL when the lease runs out [default: ttl/5, at most 10s]' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l stop-signal -d 'The signal that asks the command to stop' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l stop-timeout -d 'How long the command may take to end' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l stop-to -d 'Which process gets the stop signal first: main, or its whole process group' -r -f -a "main\t'The main process'
group\t'Its process group'"
complete -c elect -n "__fish_elect_using_subcommand run" -l containment -d 'By cgroup, pidns or tree' -r -f -a "auto\t'cgroup if one can be made, otherwise tree'
cgroup\t'A cgroup of its own below elect\'s (kernel 5.14), in which one call kills every process'
pidns\t'A PID namespace of its own (root): it ends with elect even if all of elect is killed at once'
tree\t'Every descendant is found and killed, as in each tier, and no more'"
complete -c elect -n "__fish_elect_using_subcommand run" -l restart -d 'Start an ended command again, in the same term' -r -f -a "never\t'None: elect exits with its status'
on-failure\t'A status other than 0, or a signal'
always\t'Each'"
complete -c elect -n "__fish_elect_using_subcommand run" -l restart-delay -d 'The delay before a restart: doubled each time, up to 30s' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l restart-limit -d 'How many restarts, within how long, before another candidate gets its turn' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l takeover-delay -d 'Take over only after there was no leader for this long, as a spare' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l min-hold -d 'Lead for at least this long' -r
complete -c elect -n "__fish_elect_using_subcommand run" -s n -l no-wait -d 'Do not wait: exit with 75 if another candidate leads' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l wait -d 'Wait at most this long [default: no limit]' -r
complete -c elect -n "__fish_elect_using_subcommand run" -s E -l conflict-exit-code -d 'The exit status instead of 75, if another candidate leads [default: 75]' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l on-lost -d 'After a lost leadership [default: recampaign; exit with -n or --wait]' -r -f -a "recampaign\t'Campaign again'
exit\t'Exit with 76'"
complete -c elect -n "__fish_elect_using_subcommand run" -l pass-credentials -d 'Pass the store\'s password on to the command, the follower and the hooks' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l pod-label -d 'Label elect\'s own pod KEY=leader or KEY=follower' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l listen -d 'Health checks, a status page and metrics over HTTP' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l follower -d 'The command while another leads, by sh -c' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l follower-on-change -d 'At another leader: restart, a signal to its main process, or ignore [default: restart]' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l on-elected -d 'The hook before the command; it has to succeed' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l on-ousted -d 'The hook after the command, before another may lead' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l on-change -d 'The hook to run whenever the leader changes, to none and to this candidate too' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l on-error -d 'The hook to run when the store fails: at the first error, and every 30s' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l hook-timeout -d 'How long a hook may take, before it is killed' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l health -d 'A check: lead only while it succeeds, by sh -c' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l health-interval -d 'From the start of a check to that of the next' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l health-timeout -d 'How long a check may take: at most the interval' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l health-rise -d 'How many successes in a row make this candidate healthy' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l health-fall -d 'How many failures in a row make it unhealthy' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l health-start -d 'Ignore failures for this long after the command\'s start' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l drained -d 'Start drained: campaign only after elect undrain' -r
complete -c elect -n "__fish_elect_using_subcommand run" -s q -l quiet -d 'Log only warnings and errors' -r
complete -c elect -n "__fish_elect_using_subcommand run" -l log-format -d 'Log lines as text or json' -r -f -a "text\t'For people'
json\t'One object a line'"
complete -c elect -n "__fish_elect_using_subcommand run" -l runtime-dir -d 'The directory of the control sockets [default: by uid, in /run or /tmp]' -r -F
complete -c elect -n "__fish_elect_using_subcommand run" -s v -l verbose -d 'Log more; given twice: everything'
complete -c elect -n "__fish_elect_using_subcommand run" -s h -l help -d 'Print help (see more with \'--help\')'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "status" -d 'Say who leads'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "assert" -d 'Exit with 0 only if the candidate that this command belongs to leads now'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "extend" -d 'Have the candidate renew its lease now, and print what is left of it'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "resign" -d 'Have the leader on this host stop its command and campaign behind the others'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "drain" -d 'Have the candidate on this host stop its command and leave the election, until undrain'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "undrain" -d 'Have a drained candidate campaign again'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "proclaim" -d 'Change the name or address that the leader on this host is known by, in the same term'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "watch" -d 'Show every change of leadership as it happens'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "wait" -d 'Wait until a candidate leads, or until none does'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "plan" -d 'Show the timings that follow from the flags of run'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "check" -d 'Check whether the flags of run will work here: the store, the permissions, the time that it all takes'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "completions" -d 'Print the completions of a shell, to install where the shell looks for them'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "run" -d 'Campaign for a boundary, and run a command while leading it'
complete -c elect -n "__fish_elect_using_subcommand help; and not __fish_seen_subcommand_from status assert extend resign drain undrain proclaim watch wait plan check completions run help" -f -a "help" -d 'Print this message or the help of the given subcommand(s)'
