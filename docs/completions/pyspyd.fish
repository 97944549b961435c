# SPDX-License-Identifier: MIT
# fish completion for pyspyd

set -l commands watch dump record flamegraph ps waits heap handles modules snapshot findings show doctor daemon help

complete -c pyspyd -f
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a watch -d 'Watch processes, and findings as they come'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a dump -d 'Show all threads with their stacks'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a record -d 'Sample a process into a profile'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a flamegraph -d 'Draw what a process did a while ago'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a ps -d 'List the Python processes here'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a waits -d 'Show who waits for whom, deadlocks first'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a heap -d 'Count objects by type, and what grew'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a handles -d 'Show descriptors, threads, children and mappings'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a modules -d 'Show imported modules and native libraries'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a snapshot -d 'Write everything about a process into one file'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a findings -d 'List what the service has found'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a show -d 'Show one finding whole'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a daemon -d 'Run the service'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a doctor -d 'Say what works here and what does not'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -a help -d 'Help of a command'
complete -c pyspyd -n "not __fish_seen_subcommand_from $commands" -l version -d 'Print the version'
complete -c pyspyd -s h -l help -d 'Help'

set -l pids '(pgrep -l python | string replace " " \t)'

complete -c pyspyd -n '__fish_seen_subcommand_from watch dump record flamegraph waits heap handles modules snapshot findings doctor' -s p -l pid -x -a "$pids" -d 'The process'
complete -c pyspyd -n '__fish_seen_subcommand_from dump flamegraph waits heap handles modules snapshot' -a "$pids"

complete -c pyspyd -n '__fish_seen_subcommand_from watch' -s n -l name -x -d 'Those whose command line matches'
complete -c pyspyd -n '__fish_seen_subcommand_from watch' -s a -l all -d 'Every Python process here'
complete -c pyspyd -n '__fish_seen_subcommand_from watch' -s i -l interval -x -d 'Between two reports'
complete -c pyspyd -n '__fish_seen_subcommand_from watch' -l exit-on -x -a 'spiking-thread deadlock self-deadlock orphaned-lock hang livelock gil-hog event-loop-blocked stopped d-state memory-leak handle-leak thread-leak process-leak gc-pressure oom-risk crash' -d 'End with status 10 at such a finding'
complete -c pyspyd -n '__fish_seen_subcommand_from watch' -l spike -x -d 'What counts as a spinning thread'
complete -c pyspyd -n '__fish_seen_subcommand_from watch' -l hang-after -x -d 'How long no thread has run in a hang'
complete -c pyspyd -n '__fish_seen_subcommand_from watch' -l leak-window -x -d 'For how long memory, descriptors, threads or children must grow'
complete -c pyspyd -n '__fish_seen_subcommand_from watch' -l origins -d 'See from the start where things are opened and started'
complete -c pyspyd -n '__fish_seen_subcommand_from watch' -l park -x -d 'A function in which threads wait for work'
complete -c pyspyd -n '__fish_seen_subcommand_from watch' -l set -x -d 'A setting of a detector'
complete -c pyspyd -n '__fish_seen_subcommand_from watch' -l var -x -d 'An object whose length and value are logged'

complete -c pyspyd -n '__fish_seen_subcommand_from watch record' -s c -l children -d 'Descendants too'
complete -c pyspyd -n '__fish_seen_subcommand_from watch record' -s d -l duration -x -d 'How long'
complete -c pyspyd -n '__fish_seen_subcommand_from watch record' -s r -l rate -x -d 'Samples per second'

complete -c pyspyd -n '__fish_seen_subcommand_from waits' -l dot -d 'The graph for Graphviz'
complete -c pyspyd -n '__fish_seen_subcommand_from waits' -l once -d 'One look, not two'
complete -c pyspyd -n '__fish_seen_subcommand_from waits' -s n -l native -d 'Native and kernel frames of threads that sleep'
complete -c pyspyd -n '__fish_seen_subcommand_from waits' -l park -x -d 'A function in which threads wait for work'

complete -c pyspyd -n '__fish_seen_subcommand_from heap' -s n -l top -x -d 'Types and containers shown'
complete -c pyspyd -n '__fish_seen_subcommand_from heap' -l diff -x -d 'Count twice, that far apart'
complete -c pyspyd -n '__fish_seen_subcommand_from heap' -l no-paths -d 'Do not look for who keeps what'
complete -c pyspyd -n '__fish_seen_subcommand_from handles' -l origins -x -d 'See for so long what is made, and where'
complete -c pyspyd -n '__fish_seen_subcommand_from handles' -l diff -x -d 'Look twice, that far apart'
complete -c pyspyd -n '__fish_seen_subcommand_from modules' -l expect -r -d 'Mark what is not the version that a line says'
complete -c pyspyd -n '__fish_seen_subcommand_from modules' -l all -d 'The standard library and modules of packages too'

complete -c pyspyd -n '__fish_seen_subcommand_from dump waits heap handles modules' -l snapshot -r -F -d 'A file of pyspyd snapshot'
complete -c pyspyd -n '__fish_seen_subcommand_from snapshot' -s o -l output -r -F -d 'Where the snapshot goes'
complete -c pyspyd -n '__fish_seen_subcommand_from snapshot' -l unmask -d 'Mask nothing'
complete -c pyspyd -n '__fish_seen_subcommand_from snapshot' -l blocking -d 'Stop the threads while their stacks are read'
complete -c pyspyd -n '__fish_seen_subcommand_from snapshot' -l info -r -F -d 'Show what a snapshot holds'
complete -c pyspyd -n '__fish_seen_subcommand_from snapshot' -l section -xa 'dump waits counters handles maps modules heap meta' -d 'The JSON of one part'

complete -c pyspyd -n '__fish_seen_subcommand_from record flamegraph' -s o -l output -r -F -d 'Where the profile goes'
complete -c pyspyd -n '__fish_seen_subcommand_from record flamegraph' -s f -l format -x -a 'svg html collapsed speedscope pprof gecko chrome' -d 'Of the file'
complete -c pyspyd -n '__fish_seen_subcommand_from record' -s m -l mode -x -a 'wall cpu gil offcpu alloc' -d 'Which threads are counted'
complete -c pyspyd -n '__fish_seen_subcommand_from record' -l every -x -d 'alloc: a sample for so many bytes'
complete -c pyspyd -n '__fish_seen_subcommand_from record' -l max-slowdown -x -d 'alloc: ends where it costs more'
complete -c pyspyd -n '__fish_seen_subcommand_from record' -l threshold -x -d 'offcpu: shorter sleeps are summed'
complete -c pyspyd -n '__fish_seen_subcommand_from record' -l kernel -d 'offcpu: the functions of the kernel too'
complete -c pyspyd -n '__fish_seen_subcommand_from record flamegraph' -s t -l threads -d 'The thread as the outermost element'

complete -c pyspyd -n '__fish_seen_subcommand_from flamegraph' -s l -l last -x -d 'So long until now, or --until'
complete -c pyspyd -n '__fish_seen_subcommand_from flamegraph' -s s -l since -x -d 'From then'
complete -c pyspyd -n '__fish_seen_subcommand_from flamegraph' -s u -l until -x -d 'To then'
complete -c pyspyd -n '__fish_seen_subcommand_from flamegraph' -s D -l diff -x -d 'What changed since the time before'
complete -c pyspyd -n '__fish_seen_subcommand_from flamegraph' -l start -x -d 'The process that had the pid then'

complete -c pyspyd -n '__fish_seen_subcommand_from dump' -s l -l locals -d 'Variables of every frame'
complete -c pyspyd -n '__fish_seen_subcommand_from dump' -s n -l native -d 'Also native and kernel frames'
complete -c pyspyd -n '__fish_seen_subcommand_from dump watch' -l unmask -d 'Mask nothing'
complete -c pyspyd -n '__fish_seen_subcommand_from dump' -s a -l async -d 'Also the tasks of asyncio, as a tree'
complete -c pyspyd -n '__fish_seen_subcommand_from record' -l native -d 'Native and kernel frames of running threads'
complete -c pyspyd -n '__fish_seen_subcommand_from record watch' -l source -xa 'auto vm bpf' -d 'Who takes the stacks'
complete -c pyspyd -n '__fish_seen_subcommand_from dump record' -l blocking -d 'Stop the Python threads while they are read'
complete -c pyspyd -n '__fish_seen_subcommand_from watch dump ps waits heap handles modules snapshot findings show' -l json -d 'For machines'

complete -c pyspyd -n '__fish_seen_subcommand_from findings' -s f -l follow -d 'Go on with what is found from now on'
complete -c pyspyd -n '__fish_seen_subcommand_from findings' -s o -l open -d 'Only those that are open'
complete -c pyspyd -n '__fish_seen_subcommand_from findings' -s s -l since -x -d 'Not earlier'
complete -c pyspyd -n '__fish_seen_subcommand_from findings' -s u -l until -x -d 'Earlier than this'
complete -c pyspyd -n '__fish_seen_subcommand_from findings' -s k -l kind -x -a 'spiking-thread deadlock self-deadlock orphaned-lock hang livelock gil-hog event-loop-blocked stopped d-state memory-leak handle-leak thread-leak process-leak gc-pressure oom-risk crash' -d 'Only these'
complete -c pyspyd -n '__fish_seen_subcommand_from findings' -s n -l lines -x -d 'Only the last ones'

complete -c pyspyd -n '__fish_seen_subcommand_from daemon' -s c -l config -r -F -d 'Another configuration'
complete -c pyspyd -n '__fish_seen_subcommand_from daemon' -l check-config -d 'Say what is wrong with the configuration, and end'
complete -c pyspyd -n '__fish_seen_subcommand_from daemon' -s f -l foreground -d 'Messages for people on stderr'
