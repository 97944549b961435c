/* SPDX-License-Identifier: MIT */
/* Where threads wait, by frames alone. */
#include "engine/waits/sites.h"

#include <criterion/criterion.h>
#include <string.h>

#define FRAMES_MAX 8

struct stack {
	struct view_frame frames[FRAMES_MAX];
	struct view_thread thread;
};

/* "module:function" or "module:function:qualname", most recent call first. */
static struct view_thread *stack_of(struct stack *stack, ...) {
	const char *text;
	size_t n = 0;
	va_list args;

	va_start(args, stack);
	while ((text = va_arg(args, const char *))) {
		char *module = strdup(text), *rest = module;

		strsep(&rest, ":");
		cr_assert(n < FRAMES_MAX && rest);
		stack->frames[n] = (struct view_frame){ .module = module, .file = "x.py" };
		stack->frames[n].function = strsep(&rest, ":");
		stack->frames[n].qualname = rest ? rest : stack->frames[n].function;
		n++;
	}
	va_end(args);
	stack->thread = (struct view_thread){ .frames = stack->frames, .frames_n = n };
	return &stack->thread;
}

static void free_stack(struct stack *stack) {
	for (size_t i = 0; i < stack->thread.frames_n; i++)
		free((void *)(uintptr_t)stack->frames[i].module);
}

#define STACK(...) stack_of(&stack, __VA_ARGS__, NULL)

Test(waits_sites, own_frame_is_the_first_that_is_no_plumbing) {
	struct stack stack;

	cr_assert_eq(site_own_frame(STACK("threading:wait", "queue:get", "shop.worker:serve", "threading:run")), 2);
	free_stack(&stack);
	cr_assert_eq(site_own_frame(STACK("shop:main", "threading:run")), 0);
	free_stack(&stack);
	cr_assert_eq(site_own_frame(STACK("threading:wait", "threading:run")), 0, "all are: the innermost one");
	free_stack(&stack);
	stack.thread = (struct view_thread){ .frames_n = 0 };
	cr_assert_eq(site_own_frame(&stack.thread), 0);
}

Test(waits_sites, the_outermost_frame_of_the_library_says_what_it_is) {
	struct stack stack;
	struct wait_site site = site_of(STACK("threading:wait", "queue:get", "shop:serve"));

	cr_assert_eq(site.kind, SITE_QUEUE_GET);
	cr_assert_eq(site.frame, 1);
	free_stack(&stack);
	site = site_of(STACK("threading:wait", "concurrent.futures._base:result", "shop:main"));
	cr_assert_eq(site.kind, SITE_FUTURE);
	cr_assert_eq(site.frame, 1);
	free_stack(&stack);
	site = site_of(STACK("threading:_wait_for_tstate_lock", "threading:join", "shop:main"));
	cr_assert_eq(site.kind, SITE_JOIN);
	cr_assert_eq(site.frame, 1);
	free_stack(&stack);
}

Test(waits_sites, what_is_behind_own_code_does_not_count) {
	struct stack stack;
	struct wait_site site = site_of(STACK("shop:lock", "queue:get", "shop:serve"));

	cr_assert_eq(site.kind, SITE_NONE);
	cr_assert_null(site_park(NULL, &stack.thread));
	free_stack(&stack);
	stack.thread = (struct view_thread){ .frames_n = 0 };
	cr_assert_eq(site_of(&stack.thread).kind, SITE_NONE);
	cr_assert_null(site_park(NULL, &stack.thread));
}

Test(waits_sites, names_count_whole) {
	struct stack stack;

	cr_assert_eq(site_of(STACK("threadings:join", "shop:main")).kind, SITE_NONE);
	free_stack(&stack);
	cr_assert_eq(site_of(STACK("threading:joined", "shop:main")).kind, SITE_NONE);
	free_stack(&stack);
	cr_assert_eq(site_own_frame(STACK("concurrentx.futures:f", "shop:main")), 0, "a prefix ends at a dot");
	free_stack(&stack);
}

Test(waits_sites, workers_are_parked) {
	struct stack stack;

	cr_assert_str_eq(site_park(NULL, STACK("concurrent.futures.thread:_worker", "threading:run")), "pool worker");
	free_stack(&stack);
	cr_assert_str_eq(
		site_park(NULL, STACK("threading:wait", "queue:get", "shop:serve", "threading:run")), "queue worker");
	free_stack(&stack);
	cr_assert_null(site_park(NULL, STACK("threading:wait", "queue:put", "shop:serve")));
	free_stack(&stack);
}

Test(waits_sites, the_user_s_rules_name_functions_by_either_name) {
	static const char *const park[] = { "shop.worker:Worker.serve", "shop.jobs:pop", NULL };
	struct park_rules *rules = NULL;
	struct stack stack;

	cr_assert_eq(park_rules_new(park, &rules, NULL), 0);
	cr_assert_str_eq(site_park(rules, STACK("threading:wait", "shop.worker:serve:Worker.serve")), "park site");
	free_stack(&stack);
	cr_assert_str_eq(site_park(rules, STACK("shop.jobs:pop:Jobs.pop")), "park site");
	free_stack(&stack);
	cr_assert_null(site_park(rules, STACK("shop.worker:serve:Other.serve")));
	free_stack(&stack);
	cr_assert_null(site_park(rules, STACK("shop:f", "shop.jobs:pop:pop")), "the innermost of its own counts");
	free_stack(&stack);
	park_rules_free(rules);
}

Test(waits_sites, rules_that_are_none_are_refused) {
	static const char *const wrong[] = { "", ":", "shop", "shop:", ":serve" };

	for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
		const char *const park[] = { "shop:serve", wrong[i], NULL };
		struct park_rules *rules = NULL;
		struct err err = { 0 };

		cr_assert_eq(park_rules_new(park, &rules, &err), PYSPYD_E_USAGE, "'%s'", wrong[i]);
		cr_assert_null(rules);
		cr_assert(strstr(err.text, "MODULE:QUALNAME"));
	}
	park_rules_free(NULL);
}
