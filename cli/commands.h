/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_CLI_COMMANDS_H
#define PYSPYD_CLI_COMMANDS_H

#include "cli/options.h"

extern const struct command daemon_command, crash_handler_command, watch_command, dump_command, record_command,
	ps_command, waits_command, heap_command, handles_command, modules_command, snapshot_command, flamegraph_command,
	findings_command, show_command, doctor_command;

#endif
