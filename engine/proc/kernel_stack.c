/* SPDX-License-Identifier: MIT */
/* Kernel stacks as /proc shows them:
 *
 *	[<0>] futex_wait_queue+0x60/0x90
 *	[<0>] ext4_file_read_iter+0x51/0x1f0 [ext4]
 *	[<0>] 0xffffffffc0a3b1f2
 *
 * Old kernels end with a line of the highest address, which is no frame. */
#include "engine/proc/kernel_stack.h"

#include <string.h>

#define TEXT_MAX 16384

static char *skip_address(char *line) {
	char *end = *line == '[' ? strchr(line, ']') : NULL;

	return end && end[1] == ' ' ? end + 2 : NULL;
}

/* Return: whether the line is a frame. */
static bool parse_line(char *line, struct kernel_frame *ret) {
	char *name = skip_address(line), *end, *module;

	if (!name || !*name || !strcmp(name, "0xffffffffffffffff"))
		return false;
	ret->function = name;
	ret->module = "";
	end = name + strcspn(name, "+ ");
	module = strchr(end, '[');
	if (module) {
		module[strcspn(module, "]")] = '\0';
		ret->module = module + 1;
	}
	*end = '\0';
	return true;
}

void kernel_stack_parse(char *text, struct kernel_stack *stack) {
	char *rest = text, *line;

	stack->n = 0;
	while (stack->n < KERNEL_FRAMES_MAX && (line = strsep(&rest, "\n")))
		stack->n += parse_line(line, &stack->frames[stack->n]);
}

int kernel_stack_read(const struct proc *proc, pid_t tid, struct kernel_stack *ret_stack) {
	char name[64], *text;
	size_t len;
	int r;

	snprintf(name, sizeof(name), "task/%d/stack", (int)tid);
	r = proc_read_file(proc, name, TEXT_MAX, &text, &len);
	if (r)
		return r;
	ret_stack->text = text;
	kernel_stack_parse(text, ret_stack);
	return 0;
}

void kernel_stack_deinit(struct kernel_stack *stack) {
	free(stack->text);
	stack->text = NULL;
	stack->n = 0;
}
