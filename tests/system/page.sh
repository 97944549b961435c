#!/bin/bash
# SPDX-License-Identifier: MIT
# A page that flamegraph writes, in a browser: what it shows, finds and zooms to, from a past that is known (recorded.py:
# main;first 20 and main;second 40 in minutes 40 to 43, main;first alone in the four before).
set -u
cd "$(dirname "$0")/../.." || exit 1
pyspyd="${PYSPYD:-${BUILD:-build}/pyspyd}"
browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) || {
	echo "there is no chromium"
	exit 77
}
work=$(mktemp -d) || exit 1
service=""
trap '[ -z "$service" ] || kill "$service" 2>/dev/null; rm -rf "$work"' EXIT
failures=0
export TZ=UTC PYSPYD_SOCKET="$work/socket"

mkfifo "$work/stdin" "$work/time"
python3 tests/system/recorded.py "$PYSPYD_SOCKET" <"$work/stdin" >"$work/time" &
service=$!
exec 3>"$work/stdin"
read -r time <"$work/time" || exit 1
until=$(date -u -d "@$((time + 60 * 44))" +%Y-%m-%dT%H:%M:%SZ)
"$pyspyd" flamegraph --pid 4242 --last 4m --until "$until" -o "$work/p.html" 2>/dev/null || exit 1
"$pyspyd" flamegraph --pid 4242 --diff 4m --until "$until" -o "$work/d.html" 2>/dev/null || exit 1
exec 3>&-

# shows PAGE#STATE WORDS…: the page's text, drawn by its script, has the words.
shows() {
	local page=$1
	shift
	timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/browser" \
		--dump-dom "file://$work/$page" >"$work/dom" 2>"$work/err"
	for words; do
		grep -qF -e "$words" "$work/dom" && continue
		echo "FAIL: $page does not show '$words'"
		grep -aE 'id="(details|matched|callers|group|reset|graph)"|<summary' "$work/dom" | cut -c 1-400 | sed 's/^/  dom | /'
		failures=$((failures + 1))
	done
}

timeout 60 "$browser" --headless --no-sandbox --disable-gpu --user-data-dir="$work/browser" --dump-dom about:blank \
	>"$work/dom" 2>"$work/err" && grep -q '<html' "$work/dom" || {
	echo "chromium does not run here: $(tail -n 1 "$work/err" | cut -c 1-200)"
	exit 77
}
shows p.html 'all<br><span>60 samples, 100.00 %, 3.00 s, self 0.00 %' 'Threads: 1 of 1' \
	'aria-label="Flame graph of all, 60 samples'
shows 'p.html#search=SECOND' 'Matched: 0.0 %'
shows 'p.html#search=(' 'Not a regular expression'
# The frames are main, first and second, in this order.
shows 'p.html#search=%5Esec&zoom=0.2' 'Matched: 66.7 %' 'second (app.py:12)<br><span>40 samples, 66.67 %, 2.00 s, self 66.67 %'
shows 'p.html#view=callers&zoom=2.0' 'main (app.py:10)<br><span>40 samples, 66.67 %, 2.00 s<' 'aria-pressed="true"'
shows 'p.html#group=thread&zoom=b0.0.1' 'first (app.py:11)<br><span>20 samples, 33.33 %'
shows 'p.html#threads=7' 'all<br><span>0 samples, 0.00 %' 'Threads: 0 of 1'
shows 'd.html#search=first' 'red: more than before, blue: less' 'Matched: 33.3 %, before 100.0 %' \
	'all<br><span>100.00 %, before 100.00 % (+0.00)'
shows 'd.html#view=callers&zoom=1' 'first (app.py:11)<br><span>33.33 %, before 100.00 % (-66.67)'
[ "$failures" = 0 ] || { echo "$failures failures"; exit 1; }
