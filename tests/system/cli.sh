#!/bin/bash
# SPDX-License-Identifier: MIT
# The command line as a user meets it: usage errors, exit statuses, help, where output goes, JSON that parses.
set -u
cd "$(dirname "$0")/../.." || exit 1
pyspyd="${PYSPYD:-${BUILD:-build}/pyspyd}"
work=$(mktemp -d) || exit 1
target="" other=""
# shellcheck disable=SC2317 # called by the trap
cleanup() {
	[ -z "$target" ] || kill "$target" 2>/dev/null
	[ -z "$other" ] || kill "$other" 2>/dev/null
	rm -rf "$work"
}
trap cleanup EXIT
failures=0

fail() {
	echo "FAIL: $*"
	sed 's/^/  out | /' "$work/out" | head -n 20
	sed 's/^/  err | /' "$work/err" | head -n 20
	failures=$((failures + 1))
}

# expect STATUS ARG…: runs pyspyd and leaves its output in $work/out and $work/err.
expect() {
	local want=$1 got
	shift
	timeout 60 "$pyspyd" "$@" >"$work/out" 2>"$work/err" </dev/null
	got=$?
	[ "$got" = "$want" ] || fail "pyspyd $*: exit status $got, not $want"
}

# The error stands alone on stderr and says these words.
says() {
	[ ! -s "$work/out" ] || fail "an error wrote to stdout"
	grep -q '^pyspyd: ' "$work/err" || fail "no line that begins with 'pyspyd: '"
	for word; do
		grep -qF -e "$word" "$work/err" || fail "the error does not name $word"
	done
}

prints() {
	[ -s "$work/out" ] || fail "nothing on stdout"
	[ ! -s "$work/err" ] || fail "something on stderr"
}

expect 2
expect 2 frobnicate
says frobnicate
expect 0 --help
prints
expect 0 --version
prints
for command in watch dump record flamegraph ps waits heap handles modules snapshot findings show doctor crash-handler; do
	expect 0 "$command" --help
	prints
	grep -q '^Example:' "$work/out" || fail "$command --help has no example"
	expect 2 "$command" --no-such-option
	says --no-such-option
done

expect 2 crash-handler
says words
expect 2 crash-handler --forward true -- 1
says absolute
expect 2 crash-handler -- 1 2 3
says "3 words"
expect 2 dump
expect 2 dump --pid 12x
says --pid 12x
expect 2 dump --pid
says --pid
expect 2 dump 1 2
says 2
for command in dump waits heap modules; do
	expect 2 $command --core "$work/none" --pid 1
	says exclude
	expect 2 $command --core "$work/none" 1
	says exclude
	expect 2 $command --exe /bin/true --pid 1
	says "--exe needs --core"
	expect 2 $command --root / --pid 1
	says "--root needs --core"
	expect 1 $command --core "$work/none"
	says "$work/none" "No such file"
	expect 1 $command --core /bin/true
	says "a program or a library"
done
expect 2 dump --blocking --core "$work/none"
says --blocking
expect 2 heap --diff 1s --core "$work/none"
says --diff
expect 2 record --pid 1
says --output
expect 2 record --pid 1 -o "$work/p.svg" -d 10x
says --duration 10x
expect 2 record --pid 1 -o "$work/p.svg" -d -1
says --duration -1
expect 2 record --pid 1 -o "$work/p.svg" --rate 0
says --rate 0
expect 2 record --pid 1 -o "$work/p.svg" --mode often
says --mode often
expect 2 record --pid 1 -o "$work/p.svg" --every 4K
says --every --mode alloc
expect 2 record --pid 1 -o "$work/p.svg" --mode alloc --every 0
says --every 0
expect 2 record --pid 1 -o "$work/p.svg" --mode alloc --max-slowdown some
says --max-slowdown some
expect 2 record --pid 1 -o "$work/p.svg" --mode alloc --children
says --children
expect 2 record --pid 1 -o "$work/p.unknown"
says p.unknown --format
expect 2 record --pid 1 -o "$work/p.svg" -- true
expect 2 record -o "$work/p.svg" true
says true
expect 2 watch
expect 2 watch --pid 1 --all
expect 2 watch --pid 1 --duration 0
says --duration 0
expect 2 watch --pid 1 --exit-on no-such-kind
says --exit-on no-such-kind
expect 2 watch --pid 1 --spike much
says --spike much
expect 2 watch --pid 1 --set nonsense
says --set nonsense
expect 2 watch --pid 1 --set no-such.key=1
says no-such.key
expect 2 watch --name '('
expect 2 ps extra
says extra
expect 2 waits
says --pid
expect 2 waits --pid 12x
says --pid 12x
expect 2 waits 1 2
says 2
expect 2 waits --pid 1 --json --dot
says --json --dot
expect 2 heap
says --pid
expect 2 heap --pid 1 --top none
says --top none
expect 2 heap --pid 1 --diff 0
says --diff 0
expect 2 handles
says --pid
expect 2 handles --pid 1 --diff soon
says --diff soon
expect 2 handles --pid 1 --diff 0
says --diff 0
expect 2 handles --pid 1 --origins soon
says --origins soon
expect 2 modules
says --pid
expect 1 modules --pid 1 --expect "$work/no-such-file"
says no-such-file
echo 'six>=1.0' >"$work/ranges"
expect 2 modules --pid 1 --expect "$work/ranges"
says 'line 1'

expect 2 snapshot
says --pid
expect 2 snapshot --pid 1
says --output
expect 2 snapshot --info x --pid 1
says --info
expect 2 snapshot --pid 1 -o "$work/s" --json
says --json --info
expect 1 snapshot --info "$work/no-such-file"
says no-such-file
for command in "dump --blocking" "waits --once" "heap --diff 1s" "handles --origins 1s" "modules --pid 1"; do
	# shellcheck disable=SC2086 # several words
	expect 2 $command --snapshot "$work/no-such-file"
	says --snapshot
done
for command in dump waits heap handles modules; do
	expect 1 "$command" --snapshot "$work/no-such-file"
	says no-such-file
	expect 1 "$command" --snapshot "$0"
	says 'no snapshot'
done

# An ended child's pid is free: the shell has waited for it.
sh -c : &
gone=$!
wait "$gone"
for command in "dump --pid" "watch --pid" "doctor --pid" "waits --pid" "heap --pid" "handles --pid" "modules --pid" "snapshot -o $work/s --pid" "record -d 1 -o $work/p.svg --pid"; do
	# shellcheck disable=SC2086 # several words
	expect 3 $command "$gone"
	says "$gone"
done
[ ! -e "$work/p.svg" ] || fail "a recording of nothing left a file"
[ ! -e "$work/s" ] || fail "a snapshot of nothing left a file"

sleep 600 &
other=$!
for command in "dump --pid" "watch --pid" "waits --pid" "heap --pid" "handles --pid" "modules --pid" "snapshot -o $work/s --pid" "record -d 1 -o $work/p.svg --pid"; do
	# shellcheck disable=SC2086 # several words
	expect 5 $command "$other"
	says
done
expect 1 watch -- "$work/no-such-program"
says no-such-program

coproc TARGET { exec python3 tests/scenarios/spinning.py; }
# shellcheck disable=SC2153 # set by coproc
target=$TARGET_PID
read -r _ <&"${TARGET[0]}"

json_ok() {
	python3 -m json.tool "$work/out" >/dev/null 2>"$work/json" || fail "not JSON: $(cat "$work/json")"
	grep -qF "$1" "$work/out" || fail "schema $1 is missing"
}

expect 0 dump "$target"
prints
grep -q longest_chain "$work/out" || fail "dump does not show the spinning function"
grep -q "$(printf '\033')" "$work/out" && fail "colour in a file"
expect 0 dump --locals --json --pid "$target"
prints
json_ok pyspyd.dump/1
expect 0 waits --pid "$target"
prints
grep -q "^Process $target: " "$work/out" || fail "waits does not name the process"
grep -q DEADLOCK "$work/out" && fail "a healthy program deadlocks"
expect 0 waits --once --json "$target"
prints
json_ok pyspyd.waits/1
expect 0 waits --once --native --json "$target"
prints
json_ok pyspyd.waits/1
grep -q '"native":{' "$work/out" || fail "waits --native does not say how the native frames went"
expect 0 waits --dot "$target"
prints
grep -q '^digraph' "$work/out" || fail "no graph"
expect 2 waits --pid "$target" --park nonsense
says nonsense
expect 0 heap --pid "$target"
prints
grep -q 'TYPE$' "$work/out" || fail "heap has no table of types"
expect 0 heap --json --diff 100ms --top 3 "$target"
prints
json_ok pyspyd.heap/1
expect 0 handles "$target"
prints
grep -q '^Descriptors: [0-9]* of ' "$work/out" || fail "handles has no descriptors against their limit"
grep -q "^  python .* 5$" "$work/out" || fail "handles does not count five threads"
grep -q "$(printf '\033')" "$work/out" && fail "colour in a file"
expect 0 handles --json --diff 100ms --pid "$target"
prints
json_ok pyspyd.handles/1
expect 0 modules "$target"
prints
grep -q '^  __main__ ' "$work/out" || fail "modules does not show the program"
grep -q '^  threading ' "$work/out" && fail "modules shows the standard library"
grep -q '^  libc.so.6 ' "$work/out" || fail "modules does not show libc"
expect 0 modules --all "$target"
grep -q '^  threading ' "$work/out" || fail "modules --all does not show the standard library"
echo 'no-such-distribution==1.0' >"$work/expect"
expect 0 modules --json --expect "$work/expect" --pid "$target"
prints
json_ok pyspyd.modules/1
grep -q '"pattern":"Not My Version"' "$work/out" || fail "what is missing is not marked"
expect 0 snapshot --pid "$target" -o "$work/s"
[ ! -s "$work/out" ] || fail "snapshot -o FILE wrote to stdout"
[ "$(stat -c %a "$work/s")" = 600 ] || fail "others may read the snapshot"
expect 0 snapshot --info "$work/s"
prints
grep -q "^Process $target: " "$work/out" || fail "snapshot --info does not name the process"
expect 0 snapshot --json --info "$work/s"
json_ok pyspyd.snapshot/1
for command in dump waits heap handles modules; do
	expect 0 "$command" --json --snapshot "$work/s"
	prints
	json_ok "pyspyd.$command/1"
	expect 0 "$command" --snapshot "$work/s"
	prints
done
for file in p.svg p.html p.collapsed p.speedscope.json p.pb.gz p.gecko.json p.trace.json; do
	expect 0 flamegraph --snapshot "$work/s" -o "$work/snapshot-$file"
	[ -s "$work/snapshot-$file" ] || fail "flamegraph --snapshot wrote nothing to $file"
done
grep -q 'longest_chain.* 1$' "$work/snapshot-p.collapsed" || fail "a stack is not counted once"
expect 2 flamegraph --snapshot "$work/s" -o "$work/p.svg" --last 1m
says --snapshot
for section in dump waits counters handles maps modules heap; do
	expect 0 snapshot --info "$work/s" --section "$section"
	json_ok "pyspyd.$section/1"
done
expect 1 snapshot --info "$work/s" --section nothing
says nothing
timeout 60 "$pyspyd" snapshot --pid "$target" -o - 2>/dev/null | cat >"$work/piped"
expect 0 dump --snapshot "$work/piped"
grep -q longest_chain "$work/out" || fail "a snapshot through a pipe lacks the stacks"
expect 0 ps --json
prints
json_ok pyspyd.ps/1
expect 0 ps
grep -q "^ *$target " "$work/out" || fail "ps does not list the target"
expect 0 doctor
prints
expect 0 doctor --pid "$target"
prints

for file in p.svg p.html p.collapsed p.speedscope.json p.pb.gz p.gecko.json p.trace.json; do
	expect 0 record --pid "$target" -d 300ms -o "$work/$file"
	[ ! -s "$work/out" ] || fail "record -o FILE wrote to stdout"
	grep -q 'torn' "$work/err" || fail "record does not say how exact it is"
	[ -s "$work/$file" ] || fail "$file is empty"
	[ "$(stat -c %a "$work/$file")" = 600 ] || fail "$file can be read by others"
done
for file in p.speedscope.json p.gecko.json p.trace.json; do
	python3 -m json.tool "$work/$file" >/dev/null || fail "$file is not JSON"
done
python3 -c 'import gzip, sys; assert gzip.open(sys.argv[1]).read()' "$work/p.pb.gz" || fail "the pprof file is not gzip"
python3 -c 'import sys, xml.etree.ElementTree as e; e.parse(sys.argv[1])' "$work/p.svg" || fail "the svg is not XML"
grep -q 'longest_chain.* [0-9][0-9]*$' "$work/p.collapsed" || fail "the collapsed file lacks the spinning function"
[ -z "$(find "$work" -name '.pyspyd-*')" ] || fail "a temporary file was left"

expect 0 record --pid "$target" -d 300ms --format collapsed -o -
grep -q longest_chain "$work/out" || fail "-o - does not write to stdout"
expect 0 record -d 300ms --format collapsed -o - -- python3 -c 'print("hello", flush=True)
while True: pass'
grep -q '^hello' "$work/out" && fail "the program's own output went into the profile"
grep -q '<module>' "$work/out" || fail "a program that was started is not in the profile"

expect 0 watch --pid "$target" --duration 1500ms
prints
grep -q "process pid=$target" "$work/out" || fail "watch does not report the process"
grep -q 'name="spinner" at="' "$work/out" || fail "watch does not report the spinning thread"
expect 10 watch --pid "$target" --json --spike 50:2s --interval 500ms --duration 30s --exit-on spiking-thread
json_ok pyspyd.finding/1
grep -q collatz_steps "$work/out" || fail "the finding does not name the function"

# A stop ends a recording, what was collected is written: of a thread that was on a CPU since it is looked at.
cpu_ticks() {
	sed 's/.*) //' "/proc/$target/stat" | cut -d ' ' -f 12
}
"$pyspyd" record --pid "$target" -o "$work/stopped.collapsed" >"$work/out" 2>"$work/err" &
recording=$!
until find "/proc/$recording/fd" -lname "/proc/$target/task/*" 2>/dev/null | grep -q . || ! kill -0 "$recording" 2>/dev/null; do
	sleep 0.05
done
begun=$(cpu_ticks)
while [ "$(cpu_ticks)" -lt $((begun + 50)) ] && kill -0 "$recording" 2>/dev/null; do
	sleep 0.05
done
kill -INT "$recording"
wait "$recording" || fail "a stopped recording ends with $?"
grep -q longest_chain "$work/stopped.collapsed" || fail "a stopped recording is not written"

kill "$target"
wait "$target" 2>/dev/null
target=""
[ "$failures" = 0 ] || { echo "$failures failures"; exit 1; }
