#!/bin/bash
# SPDX-License-Identifier: MIT
# pyspyd flamegraph against a service whose past is known (recorded.py): windows, comparisons, processes that had the
# same pid, what is said when there is nothing.
set -u
cd "$(dirname "$0")/../.." || exit 1
pyspyd="${PYSPYD:-${BUILD:-build}/pyspyd}"
work=$(mktemp -d) || exit 1
service=""
trap '[ -z "$service" ] || kill "$service" 2>/dev/null; rm -rf "$work"' EXIT
failures=0
export TZ=UTC

fail() {
	echo "FAIL: $*"
	sed 's/^/  out | /' "$work/out" | head -n 20
	sed 's/^/  err | /' "$work/err" | head -n 20
	failures=$((failures + 1))
}

# expect STATUS ARG…: runs pyspyd flamegraph and leaves its output in $work/out and $work/err.
expect() {
	local want=$1 got
	shift
	timeout 60 "$pyspyd" flamegraph "$@" >"$work/out" 2>"$work/err" </dev/null
	got=$?
	[ "$got" = "$want" ] || fail "flamegraph $*: exit status $got, not $want"
}

says() {
	for words; do
		grep -qF -e "$words" "$work/err" || fail "stderr does not say '$words'"
	done
}

# lines LINE…: these and no others, in any order, are on stdout.
lines() {
	[ "$(printf '%s\n' "$@" | sort)" = "$(sort "$work/out")" ] || fail "not on stdout: $*"
}

export PYSPYD_SOCKET="$work/socket"
expect 1 --pid 4242 -o "$work/p.svg"
says "$work/socket" "systemctl start pyspyd"
[ ! -e "$work/p.svg" ] || fail "a file without a service"

mkfifo "$work/stdin" "$work/time"
python3 tests/system/recorded.py "$PYSPYD_SOCKET" <"$work/stdin" >"$work/time" &
service=$!
exec 3>"$work/stdin"
read -r time <"$work/time" || exit 1
at() {
	date -u -d "@$((time + 60 * $1))" +%Y-%m-%dT%H:%M:%SZ
}

expect 2 --pid 4242
says --output
expect 2 --pid 4242 -o "$work/p.gz"
says --output p.gz
expect 2 -o "$work/p.svg"
says --pid
for time_word in soon 25:00 14:60 14:3 2023-13-01 2023-02-29 2023-11-14T22:14:00X 2023-11-14T22:14:00.Z 10x '' -5m; do
	expect 2 --pid 4242 -o "$work/p.svg" --since "$time_word"
	says --since "'$time_word'"
done
expect 2 --pid 4242 -o "$work/p.svg" --since "$(at 2)" --until "$(at 1)"
says --since "$(at 1)"
expect 2 --pid 4242 -o "$work/p.svg" --since 5m --last 5m
says --since --last
expect 2 --pid 4242 -o "$work/p.svg" --diff soon
says --diff soon
expect 2 --pid 4242 -o "$work/p.svg" --diff 10m..20m
says --diff
expect 2 --pid 4242 -o "$work/p.svg" --start soon
says --start

expect 0 --pid 4242 --since "$(at 38)" --until "$(at 40)" --format collapsed -o -
lines 'main (app.py:10);first (app.py:11) 10'
says "2 processes had the pid 4242" "2023-11-14 22:43:59+0000"
expect 0 4242 --since 100000h --until "$(at 31)" -f collapsed -o -
lines 'main (app.py:10);first (app.py:11) 5'
expect 0 --pid 4242 --last 5m --until "$(at 45)" --threads --format collapsed -o -
lines 'MainThread (4242);main (app.py:10);first (app.py:11) 25' \
	'MainThread (4242);main (app.py:10);second (app.py:12) 50'
expect 0 --pid 4242 --since "$(at 44)" --until "$(at 47)" --format collapsed -o -
lines 'main (app.py:10);first (app.py:11) 10' 'main (app.py:10);second (app.py:12) 20'
says "1 of 3 profiles are damaged"

# Minutes that are asked for in part are drawn whole; other ways to say a time.
expect 0 --pid 4242 --since "2023-11-14 22:45:30" --until 2023-11-14T23:46:00.5+01:00 --format collapsed -o -
lines 'main (app.py:10);first (app.py:11) 10'
expect 0 --pid 4242 --since "$(at 10)" --until 2024-01-01 --start "$(at 15)" --format collapsed -o -
lines 'main (app.py:10);old (app.py:11) 50'
says "2023-11-14 22:13:59+0000"
expect 0 --pid 4242 --since "$(at 10)" --until now --start "2023-11-14 22:13:59+0000" --format collapsed -o -
lines 'main (app.py:10);old (app.py:11) 50'
expect 1 --pid 4242 --since 00:00 -o "$work/none.svg"
says "00:00:00+0000"

for file in p.svg p.speedscope.json p.pb.gz p.html p.gecko.json p.chrome.json; do
	expect 0 --pid 4242 --since "$(at 31)" --until "$(at 39)" -o "$work/$file"
	[ ! -s "$work/out" ] || fail "-o FILE wrote to stdout"
	says "wrote $work/$file: 8 profiles"
	[ -s "$work/$file" ] || fail "$file is empty"
	[ "$(stat -c %a "$work/$file")" = 600 ] || fail "$file can be read by others"
done
python3 -c 'import sys, xml.etree.ElementTree as e; e.parse(sys.argv[1])' "$work/p.svg" || fail "the svg is not XML"
grep -q 'prog (4242), 2023-11-14T22:45:00Z to 2023-11-14T22:53:00Z' "$work/p.svg" || fail "the svg does not say what it is of"
grep -q 'vm source, priority fifo; 9600 of 9608 ticks' "$work/p.svg" || fail "the svg does not say how exact it is"

# 40 samples before, 120 after: the former count three times.
expect 0 --pid 4242 --until "$(at 44)" --diff 4m --format collapsed -o -
lines 'main (app.py:10);first (app.py:11) 60 20' 'main (app.py:10);second (app.py:12) 0 40'
expect 0 --pid 4242 --last 2m --until "$(at 42)" --diff "$(at 32)..$(at 34)" --format collapsed -o -
lines 'main (app.py:10);first (app.py:11) 30 10' 'main (app.py:10);second (app.py:12) 0 20'
# A minute that both times have a part of belongs to the one that has more of it.
expect 0 --pid 4242 --since 2023-11-14T22:54:10Z --until "$(at 41)" --diff 1m --format collapsed -o -
lines 'main (app.py:10);first (app.py:11) 15 5' 'main (app.py:10);second (app.py:12) 0 10'
expect 0 --pid 4242 --until "$(at 44)" --diff 4m -o "$work/d.svg"
python3 -c 'import sys, xml.etree.ElementTree as e; e.parse(sys.argv[1])' "$work/d.svg" || fail "the diff is not XML"
grep -q '66.67 %, before 0.00 % (+66.67)' "$work/d.svg" || fail "the diff does not say what grew"
expect 2 --pid 4242 --until "$(at 44)" --diff 4m -o "$work/d.pb.gz"
says pprof
[ ! -e "$work/d.pb.gz" ] || fail "a file that cannot be"
expect 2 --pid 4242 --until "$(at 44)" --diff 4m -o "$work/d.json"
says speedscope
[ ! -e "$work/d.json" ] || fail "a file that cannot be"
for format in html gecko chrome; do
	expect 0 --pid 4242 --until "$(at 44)" --diff 4m --format "$format" -o "$work/d.$format"
	python3 tests/system/compared.py "$format" "$work/d.$format" >"$work/out" 2>&1 || fail "$format: not the comparison"
done

expect 1 --pid 4242 --last 1m -o "$work/none.svg"
says "no profile of process 4242"
expect 1 --pid 4243 --since "$(at 0)" -o "$work/none.svg"
says "no profile of process 4243"
expect 3 --pid 4244 -o "$work/none.svg"
says "no process 4244"
expect 3 --pid 4242 --start 2023-01-01 -o "$work/none.svg"
says "had started by then"
expect 1 --pid 4242 --since "$(at 45)" --until "$(at 46)" -o "$work/none.svg"
says "1 of 1 profiles"
expect 1 --pid 4242 --until "$(at 30)" --last 10m --diff 5m -o "$work/none.svg"
[ ! -e "$work/none.svg" ] || fail "a file with nothing in it"
expect 1 --pid 4242 --since "$(at 31)" --until "$(at 39)" -o /no/such/folder/p.svg
says /no/such/folder
[ -z "$(find "$work" -name '.pyspyd-*')" ] || fail "a temporary file was left"

exec 3>&-
wait "$service" || fail "the service went wrong"
service=""
[ "$failures" = 0 ] || { echo "$failures failures"; exit 1; }
