# SPDX-License-Identifier: MIT
# bash completion for pyspyd

_pyspyd_pids() {
	COMPREPLY=($(compgen -W "$(pgrep python 2>/dev/null)" -- "$1"))
}

_pyspyd() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]} options i
	COMPREPLY=()

	if [ "$COMP_CWORD" = 1 ]; then
		COMPREPLY=($(compgen -W "watch dump record flamegraph ps waits heap handles modules snapshot findings show doctor daemon crash-handler help --help --version" -- "$cur"))
		return
	fi
	# Behind "--" stands somebody else's command line.
	for ((i = 2; i < COMP_CWORD; i++)); do
		if [ "${COMP_WORDS[i]}" = -- ]; then
			COMPREPLY=($(compgen -c -- "$cur"))
			((i + 1 == COMP_CWORD)) || COMPREPLY=($(compgen -f -- "$cur"))
			return
		fi
	done

	case $prev in
	-p | --pid) _pyspyd_pids "$cur"; return ;;
	-o | --output | --snapshot | --info) COMPREPLY=($(compgen -f -- "$cur")); return ;;
	--section) COMPREPLY=($(compgen -W "dump objects waits counters handles maps modules heap meta" -- "$cur")); return ;;
	-f | --format)
		if [[ ${COMP_WORDS[1]} != @(findings|daemon|crash-handler) ]]; then
			COMPREPLY=($(compgen -W "svg html collapsed speedscope pprof gecko chrome" -- "$cur"))
			return
		fi
		;;
	-c | --config | --core | --exe)
		if [[ ${COMP_WORDS[1]} = @(daemon|dump|waits|heap|modules) ]]; then
			COMPREPLY=($(compgen -f -- "$cur"))
			return
		fi
		;;
	--root) COMPREPLY=($(compgen -d -- "$cur")); return ;;
	-m | --mode) COMPREPLY=($(compgen -W "wall cpu gil offcpu alloc" -- "$cur")); return ;;
	-k | --kind | --exit-on) COMPREPLY=($(compgen -W "spiking-thread deadlock self-deadlock orphaned-lock hang livelock gil-hog event-loop-blocked stopped d-state memory-leak handle-leak thread-leak process-leak gc-pressure exception-storm oom-risk crash" -- "$cur")); return ;;
	-d | --duration | -i | --interval | --last | --since | --until | --diff) COMPREPLY=($(compgen -W "10s 1m 10m 1h" -- "$cur")); return ;;
	--park | --top | --lines | -n | --name | -r | --rate | --spike | --hang-after | --leak-window | --var | --set) return ;;
	esac

	case ${COMP_WORDS[1]} in
	watch) options="--pid --name --all --children --duration --interval --rate --source --json --exit-on --spike --hang-after --leak-window --origins --park --var --unmask --set --help" ;;
	dump) options="--pid --core --exe --root --snapshot --native --locals --unmask --async --json --blocking --help" ;;
	record) options="--pid --output --duration --rate --format --mode --every --max-slowdown --threshold --kernel --children --threads --native --source --blocking --help" ;;
	flamegraph) options="--pid --snapshot --native --output --last --since --until --diff --format --threads --start --help" ;;
	ps) options="--json --help" ;;
	waits) options="--pid --core --exe --root --snapshot --json --dot --once --native --park --help" ;;
	heap) options="--pid --core --exe --root --snapshot --top --diff --no-paths --json --help" ;;
	handles) options="--pid --snapshot --diff --origins --json --help" ;;
	modules) options="--pid --core --exe --root --snapshot --expect --all --json --help" ;;
	snapshot) options="--pid --core --exe --root --output --unmask --blocking --info --section --json --help" ;;
	findings) options="--follow --open --since --until --kind --pid --lines --json --help" ;;
	show) options="--json --help" ;;
	daemon) options="--config --check-config --foreground --help" ;;
	crash-handler) options="--config --forward --help" ;;
	doctor) options="--pid --help" ;;
	help) options="watch dump record flamegraph ps waits heap handles modules snapshot findings show doctor daemon" ;;
	*) return ;;
	esac
	if [[ ${COMP_WORDS[1]} = @(dump|flamegraph|waits|heap|handles|modules|snapshot) && $cur != -* ]]; then
		_pyspyd_pids "$cur"
		return
	fi
	COMPREPLY=($(compgen -W "$options" -- "$cur"))
}

complete -F _pyspyd pyspyd
