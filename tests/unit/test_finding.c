/* SPDX-License-Identifier: MIT */
/* Findings: who is who (fingerprints, ids), what is said when (life cycle), and how it is written (JSON, text). */
#include "engine/base/clock.h"
#include "engine/base/util.h"
#include "engine/finding/fingerprint.h"
#include "engine/finding/lifecycle.h"
#include <criterion/criterion.h>
#include <jansson.h>
#include <string.h>

#define S(text) ((char[]){ text }) /* the public structs own their strings: not const */
#define FRAME(name, path, at) \
	{ .function = name, .qualname = name, .file = path, .module = "", .line = at }

static const struct detect_frame frames[] = {
	FRAME("Reader.parse", "/srv/app/json.py", 88),
	FRAME("main", "/srv/app/app.py", 3),
};
static const struct detect_stack stacks[] = { { .share = 0.93, .frames = frames, .frames_n = 2 },
	{ .share = 0.05, .frames = frames + 1, .frames_n = 1 } };
static const struct detect_thread thread = { .tid = 4711,
	.name = "worker-3",
	.state = 'R',
	.gil = PYSPYD_GIL_HELD,
	.python = true,
	.samples = 240,
	.stacks = stacks,
	.stacks_n = 2 };
static char *cmdline[] = { S("python3"), S("-u"), S("/srv/app/app.py"), S("--port"), S("80"), NULL };
static const struct pyspyd_process process = { .pid = 4700,
	.start_real_ns = 1000000001,
	.name = S("python3"),
	.cmdline = cmdline,
	.exe = S("/usr/bin/python3.13"),
	.python = S("3.13.1"),
	.uid = 33,
	.unit = S("app.service") };
static const struct pyspyd_accuracy accuracy = { .source = "vm", .priority = "fifo", .looks = 300, .torn = 1 };

static struct finding_context context_at(uint64_t now_ns) {
	return (struct finding_context){ .now_ns = now_ns,
		.real_ns = 1700000000 * NS_PER_SEC + now_ns,
		.host = "web-1",
		.process = &process,
		.accuracy = &accuracy };
}

static struct detect_verdict present(void) {
	return (struct detect_verdict){ .kind = "spiking-thread",
		.pattern = "Spiking Thread",
		.key = 7,
		.severity = PYSPYD_WARNING,
		.since_ns = 100 * NS_PER_SEC,
		.parties = { { .thread = &thread, .role = "spinning", .cpu_percent = 99.4321 } },
		.parties_n = 1,
		.facts = { { "cpu_percent", DETECT_NUMBER, 99.43216, 0, NULL },
			{ "verdict", DETECT_TEXT, 0, 0, "python-loop" } },
		.facts_n = 2,
		.advice = "Look at the loop.",
		.summary = "spiking-thread: worker-3" };
}

/* What was emitted. */
struct heard {
	enum pyspyd_finding_state states[64];
	char id[27], fingerprint[33];
	char *json;
	size_t n;
	int answer;
};

static int hear(void *userdata, const struct pyspyd_finding *finding) {
	struct heard *heard = userdata;

	cr_assert_lt(heard->n, ARRAY_SIZE(heard->states));
	heard->states[heard->n++] = finding->state;
	memcpy(heard->id, finding->id, sizeof(heard->id));
	memcpy(heard->fingerprint, finding->fingerprint, sizeof(heard->fingerprint));
	free(heard->json);
	heard->json = pyspyd_finding_json(finding);
	return heard->answer;
}

static int apply(struct lifecycle *lifecycle, uint64_t now_s, struct detect_verdict verdict, struct heard *heard) {
	struct finding_context context = context_at(now_s * NS_PER_SEC);
	detect_verdicts verdicts = { .items = &verdict, .n = 1, .cap = 1 };

	return lifecycle_apply(lifecycle, &context, &verdicts, hear, heard);
}

static void expect_keys(json_t *object, const char *keys) {
	char have[512] = "";
	const char *key;
	json_t *value;

	json_object_foreach(object, key, value) {
		strcat(have, *have ? " " : "");
		strcat(have, key);
	}
	cr_assert_str_eq(have, keys);
}

static const char *text_of(json_t *object, const char *key) {
	return json_string_value(json_object_get(object, key));
}

Test(finding, is_said_once_then_each_minute_then_at_its_end) {
	struct heard heard = { 0 };
	struct lifecycle *lifecycle;
	struct detect_verdict gone = present();
	char id[27];
	json_t *root;

	cr_assert_eq(lifecycle_new(&lifecycle), 0);
	apply(lifecycle, 110, present(), &heard);
	cr_assert_eq(heard.n, 1);
	memcpy(id, heard.id, sizeof(id));
	for (uint64_t s = 111; s < 110 + 150; s++)
		apply(lifecycle, s, present(), &heard);
	cr_assert_eq(heard.n, 3);
	cr_assert_eq(lifecycle_open(lifecycle), 1);
	gone.presence = DETECT_ABSENT;
	gone.ended = "calm";
	gone.parties_n = gone.facts_n = 0;
	apply(lifecycle, 265, gone, &heard);
	apply(lifecycle, 266, gone, &heard);
	cr_assert_eq(heard.n, 4);
	cr_assert_eq(lifecycle_open(lifecycle), 0);
	cr_assert_eq(heard.states[0], PYSPYD_OPEN);
	cr_assert_eq(heard.states[1], PYSPYD_UPDATE);
	cr_assert_eq(heard.states[2], PYSPYD_UPDATE);
	cr_assert_eq(heard.states[3], PYSPYD_RESOLVED);
	cr_assert_str_eq(heard.id, id);
	root = json_loads(heard.json, 0, NULL);
	cr_assert_str_eq(text_of(root, "state"), "resolved");
	cr_assert_str_eq(text_of(root, "since"), "2023-11-14T22:15:00.000000000Z");
	cr_assert_str_eq(text_of(root, "time"), "2023-11-14T22:17:45.000000000Z");
	cr_assert_float_eq(json_number_value(json_object_get(root, "duration_s")), 165, 1e-6);
	cr_assert_str_eq(text_of(json_object_get(root, "evidence"), "ended"), "calm");
	json_decref(root);
	free(heard.json);
	lifecycle_free(lifecycle);
}

static void count_calls(void *userdata, struct pyspyd_finding *finding) {
	size_t *calls = userdata;

	finding->threads[0].thread.frames[0].line = 1000 + (int)++*calls;
}

Test(finding, evidence_is_added_to_what_is_told_and_stays_to_the_end) {
	static const uint64_t at_s[] = { 110, 111, 170, 171 };
	static const size_t expected[] = { 1, 1, 2, 2 };
	struct finding_context context;
	struct detect_verdict verdict = present();
	detect_verdicts verdicts = { .items = &verdict, .n = 1, .cap = 1 };
	struct heard heard = { 0 };
	struct lifecycle *lifecycle;
	size_t calls = 0;

	cr_assert_eq(lifecycle_new(&lifecycle), 0);
	for (size_t i = 0; i < ARRAY_SIZE(at_s); i++) {
		context = context_at(at_s[i] * NS_PER_SEC);
		context.add_evidence = count_calls;
		context.userdata = &calls;
		verdict.presence = i == 3 ? DETECT_ABSENT : DETECT_PRESENT;
		cr_assert_eq(lifecycle_apply(lifecycle, &context, &verdicts, hear, &heard), 0);
		cr_assert_eq(calls, expected[i], "%zu", i);
	}
	cr_assert_eq(heard.n, 3);
	cr_assert_eq(heard.states[2], PYSPYD_RESOLVED);
	cr_assert_not_null(strstr(heard.json, "\"line\":1002"));
	free(heard.json);
	lifecycle_free(lifecycle);
}

static struct pyspyd_frame native_frame(enum pyspyd_lang lang, const char *function) {
	return (struct pyspyd_frame){ .lang = lang, .function = (char *)(uintptr_t)function };
}

Test(finding, text_of_native_frames_is_short) {
	struct pyspyd_frame shown[] = { native_frame(PYSPYD_KERNEL, "k1"), native_frame(PYSPYD_NATIVE, "n1"),
		native_frame(PYSPYD_NATIVE, "n2"), native_frame(PYSPYD_NATIVE, "n3"), native_frame(PYSPYD_PYTHON, "p1"),
		native_frame(PYSPYD_NATIVE, "n4"), native_frame(PYSPYD_PYTHON, "p2"),
		native_frame(PYSPYD_NATIVE, "n5") };
	struct pyspyd_finding_thread one = {
		.thread = { .name = S("w"), .native = true, .frames = shown, .frames_n = ARRAY_SIZE(shown) }
	};
	struct pyspyd_finding finding = { .summary = S("s"), .threads = &one, .threads_n = 1 };
	_free_ char *text = pyspyd_finding_text(&finding, false), *foreign = NULL;

	cr_assert_not_null(strstr(text, ":\n    n1\n    n2\n    p1\n    p2\n"), "%s", text);
	one.thread.frames_n = 4;
	foreign = pyspyd_finding_text(&finding, false);
	cr_assert_not_null(strstr(foreign, ":\n    k1 [kernel]\n    n1\n    n2\n    n3\n"), "%s", foreign);
}

Test(finding, is_not_updated_while_it_fades) {
	struct heard heard = { 0 };
	struct detect_verdict fading = present();
	struct lifecycle *lifecycle;

	fading.fading = true;
	cr_assert_eq(lifecycle_new(&lifecycle), 0);
	apply(lifecycle, 109, fading, &heard);
	cr_assert_eq(heard.n, 0);
	apply(lifecycle, 110, present(), &heard);
	apply(lifecycle, 171, fading, &heard);
	cr_assert_eq(heard.n, 1);
	apply(lifecycle, 172, present(), &heard);
	cr_assert_eq(heard.n, 2);
	free(heard.json);
	lifecycle_free(lifecycle);
}

Test(finding, the_end_of_the_process_resolves_all) {
	struct heard heard = { 0 };
	struct finding_context context = context_at(200 * NS_PER_SEC);
	struct detect_verdict other = present();
	struct lifecycle *lifecycle;

	cr_assert_eq(lifecycle_new(&lifecycle), 0);
	other.key++;
	apply(lifecycle, 110, present(), &heard);
	apply(lifecycle, 110, other, &heard);
	heard.answer = 5;
	cr_assert_eq(lifecycle_end(lifecycle, &context, "process-ended", hear, &heard), 5);
	cr_assert_eq(heard.n, 4);
	cr_assert_eq(heard.states[3], PYSPYD_RESOLVED);
	cr_assert_eq(lifecycle_open(lifecycle), 0);
	free(heard.json);
	lifecycle_free(lifecycle);
}

Test(finding, an_emitter_s_answer_comes_back_and_loses_nothing) {
	struct heard heard = { .answer = 9 };
	struct detect_verdict both[2] = { present(), present() };
	detect_verdicts verdicts = { .items = both, .n = 2, .cap = 2 };
	struct finding_context context = context_at(110 * NS_PER_SEC);
	struct lifecycle *lifecycle;

	both[1].key++;
	cr_assert_eq(lifecycle_new(&lifecycle), 0);
	cr_assert_eq(lifecycle_apply(lifecycle, &context, &verdicts, hear, &heard), 9);
	cr_assert_eq(heard.n, 2);
	cr_assert_eq(lifecycle_open(lifecycle), 2);
	free(heard.json);
	lifecycle_free(lifecycle);
	lifecycle_free(NULL);
}

/* What an earlier watch has left open */

struct left_heard {
	const struct pyspyd_left_open *left[8];
	const char *ended;
	size_t n;
};

static int hear_left(void *userdata, const struct pyspyd_left_open *left, const char *ended) {
	struct left_heard *heard = userdata;

	heard->left[heard->n++] = left;
	heard->ended = ended;
	return 0;
}

static const pid_t tid_of_thread[] = { 4711 }, tid_of_other[] = { 99 };

static struct pyspyd_left_open left_open(const char *id, const char *fingerprint, const pid_t *tid) {
	return (struct pyspyd_left_open){ .id = id,
		.fingerprint = fingerprint,
		.kind = "spiking-thread",
		.pid = 4700,
		.since_real_ns = 1700000010 * NS_PER_SEC,
		.tids = tid,
		.tids_n = tid ? 1 : 0 };
}

/* Whose fingerprint, without a life cycle that goes on with anything. */
static void fingerprint_of(struct heard *heard) {
	struct lifecycle *lifecycle;

	cr_assert_eq(lifecycle_new(&lifecycle), 0);
	apply(lifecycle, 110, present(), heard);
	lifecycle_free(lifecycle);
}

Test(finding, goes_on_with_what_was_left_open) {
	struct heard heard = { 0 };
	struct pyspyd_left_open left[3];
	struct detect_verdict gone = present();
	struct lifecycle *lifecycle;
	char fingerprint[33];
	json_t *root;

	fingerprint_of(&heard);
	memcpy(fingerprint, heard.fingerprint, sizeof(fingerprint));
	left[0] = left_open("of-another-thread", fingerprint, tid_of_other);
	left[1] = left_open("of-another-site", "0123", tid_of_thread);
	left[2] = left_open("the-same", fingerprint, tid_of_thread);
	heard.n = 0;
	cr_assert_eq(lifecycle_new(&lifecycle), 0);
	for (size_t i = 0; i < ARRAY_SIZE(left); i++)
		cr_assert_eq(lifecycle_leave(lifecycle, &left[i]), 0);
	cr_assert_eq(lifecycle_open(lifecycle), 3);
	apply(lifecycle, 110, present(), &heard);
	cr_assert_eq(heard.states[0], PYSPYD_UPDATE);
	cr_assert_str_eq(heard.id, "the-same");
	cr_assert_eq(lifecycle_open(lifecycle), 3);
	root = json_loads(heard.json, 0, NULL);
	cr_assert_str_eq(text_of(root, "since"), "2023-11-14T22:13:30.000000000Z");
	cr_assert_float_eq(json_number_value(json_object_get(root, "duration_s")), 100, 1e-6);
	json_decref(root);
	gone.presence = DETECT_ABSENT;
	apply(lifecycle, 120, gone, &heard);
	cr_assert_eq(heard.states[1], PYSPYD_RESOLVED);
	cr_assert_str_eq(heard.id, "the-same");
	root = json_loads(heard.json, 0, NULL);
	cr_assert_float_eq(json_number_value(json_object_get(root, "duration_s")), 110, 1e-6);
	json_decref(root);
	free(heard.json);
	lifecycle_free(lifecycle);
}

/* Where a machine is busy a thread is told of before its stack is known; a look at who waits for whom has it later. */
Test(finding, goes_on_with_what_had_no_stack) {
	struct pyspyd_frame frame = {
		.lang = PYSPYD_PYTHON, .function = S("main"), .file = S("/srv/app/app.py"), .line = 3
	};
	struct pyspyd_wait_node node = { .kind = PYSPYD_WAIT_THREAD,
		.type = S("thread"),
		.label = S("worker-3"),
		.pid = 4700,
		.tid = 4711,
		.state = 'T',
		.python = true,
		.frames = &frame,
		.frames_n = 1,
		.knot = UINT32_MAX };
	const struct pyspyd_waits waits = { .nodes = &node, .nodes_n = 1 };
	struct detect_verdict verdict = present();
	struct pyspyd_left_open left = left_open("without-a-stack", "", tid_of_thread);
	struct strbuf nowhere = { 0 };
	struct heard heard = { 0 };
	struct lifecycle *lifecycle;
	char fingerprint_of_none[FINGERPRINT_SIZE];

	cr_assert_eq(fingerprint("spiking-thread", &process, &nowhere, fingerprint_of_none), 0);
	verdict.waits = &waits;
	verdict.parties[0].thread = NULL;
	for (int known = 0; known < 2; known++) {
		left.fingerprint = known ? "0123" : fingerprint_of_none;
		cr_assert_eq(lifecycle_new(&lifecycle), 0);
		cr_assert_eq(lifecycle_leave(lifecycle, &left), 0);
		apply(lifecycle, 110, verdict, &heard);
		cr_assert_eq(heard.states[known], known ? PYSPYD_OPEN : PYSPYD_UPDATE);
		cr_assert_eq(!strcmp(heard.id, left.id), !known);
		lifecycle_free(lifecycle);
	}
	free(heard.json);
}

Test(finding, goes_on_about_the_same_thread_at_another_site) {
	struct pyspyd_left_open left = left_open("of-another-site", "0123", tid_of_thread);
	struct pyspyd_left_open kind = left_open("of-another-kind", "0123", tid_of_thread);
	struct heard heard = { 0 };
	struct lifecycle *lifecycle;

	kind.kind = "gil-hog";
	cr_assert_eq(lifecycle_new(&lifecycle), 0);
	cr_assert_eq(lifecycle_leave(lifecycle, &kind), 0);
	apply(lifecycle, 110, present(), &heard);
	cr_assert_eq(heard.states[0], PYSPYD_OPEN);
	lifecycle_free(lifecycle);
	cr_assert_eq(lifecycle_new(&lifecycle), 0);
	cr_assert_eq(lifecycle_leave(lifecycle, &left), 0);
	apply(lifecycle, 110, present(), &heard);
	cr_assert_eq(heard.states[1], PYSPYD_UPDATE);
	cr_assert_str_eq(heard.id, "of-another-site");
	cr_assert_str_eq(heard.fingerprint, "0123", "the fault is the one that was opened");
	free(heard.json);
	lifecycle_free(lifecycle);
}

Test(finding, what_is_not_found_again_is_over_in_time) {
	struct pyspyd_left_open left = left_open("a", "0123", tid_of_thread), quick = left;
	struct left_heard heard = { 0 };
	struct detect_config config;
	struct lifecycle *lifecycle;

	detect_config_init(&config);
	quick.kind = "deadlock"; /* needs looks, and no time */
	cr_assert_eq(detect_config_longest(&config, "spiking-thread"), 10 * NS_PER_SEC);
	cr_assert_eq(detect_config_longest(&config, "deadlock"), 0);
	cr_assert_eq(lifecycle_new(&lifecycle), 0);
	cr_assert_eq(lifecycle_leave(lifecycle, &left), 0);
	cr_assert_eq(lifecycle_leave(lifecycle, &quick), 0);
	for (uint64_t s = 100; s < 110; s++)
		lifecycle_tend_left(lifecycle, &config, s * NS_PER_SEC, NULL, hear_left, &heard);
	cr_assert_eq(heard.n, 0);
	lifecycle_tend_left(lifecycle, &config, 110 * NS_PER_SEC, NULL, hear_left, &heard);
	cr_assert_eq(heard.n, 1);
	cr_assert_eq(heard.left[0], &quick);
	cr_assert_str_eq(heard.ended, "not-found-again");
	lifecycle_tend_left(lifecycle, &config, 120 * NS_PER_SEC, NULL, hear_left, &heard);
	cr_assert_eq(heard.n, 1);
	lifecycle_tend_left(lifecycle, &config, 121 * NS_PER_SEC, NULL, hear_left, &heard);
	cr_assert_eq(heard.n, 2);
	cr_assert_eq(heard.left[1], &left);
	cr_assert_eq(lifecycle_open(lifecycle), 0);
	lifecycle_tend_left(lifecycle, &config, 300 * NS_PER_SEC, NULL, hear_left, &heard);
	cr_assert_eq(heard.n, 2, "once is enough");
	lifecycle_free(lifecycle);
}

Test(finding, what_was_left_open_ends_with_the_process) {
	struct pyspyd_left_open left = left_open("a", "0123", tid_of_thread);
	struct left_heard heard = { 0 };
	struct lifecycle *lifecycle;

	cr_assert_eq(lifecycle_new(&lifecycle), 0);
	cr_assert_eq(lifecycle_leave(lifecycle, &left), 0);
	lifecycle_tend_left(lifecycle, NULL, 1, "process-ended", hear_left, &heard);
	cr_assert_eq(heard.n, 1);
	cr_assert_str_eq(heard.ended, "process-ended");
	lifecycle_free(lifecycle);
}

Test(finding, json_has_the_schema_s_keys_in_order) {
	struct heard heard = { 0 };
	struct lifecycle *lifecycle;
	json_t *root, *part;

	cr_assert_eq(lifecycle_new(&lifecycle), 0);
	apply(lifecycle, 112, present(), &heard);
	root = json_loads(heard.json, JSON_REJECT_DUPLICATES, NULL);
	cr_assert_not_null(root);
	cr_assert_null(strchr(heard.json, '\n'));
	expect_keys(root,
		"schema id fingerprint kind pattern severity state time since duration_s host process threads "
		"evidence summary advice");
	cr_assert_str_eq(text_of(root, "schema"), "pyspyd.finding/1");
	cr_assert_str_eq(text_of(root, "severity"), "warning");
	cr_assert_str_eq(text_of(root, "host"), "web-1");
	part = json_object_get(root, "process");
	expect_keys(part, "pid start_time name cmdline exe python uid cgroup container unit");
	cr_assert_eq(json_array_size(json_object_get(part, "cmdline")), 5);
	part = json_array_get(json_object_get(root, "threads"), 0);
	cr_assert_eq(strncmp(heard.json, "{\"schema\":\"pyspyd.finding/1\",\"id\":\"", 34), 0);
	cr_assert_str_eq(text_of(part, "role"), "spinning");
	cr_assert_float_eq(json_number_value(json_object_get(part, "cpu_percent")), 99.432, 1e-9);
	part = json_array_get(json_object_get(part, "stack"), 0);
	expect_keys(part, "lang function qualname file line module");
	part = json_object_get(root, "evidence");
	expect_keys(part, "cpu_percent verdict stacks samples accuracy certainty");
	cr_assert_eq(json_array_size(json_object_get(part, "stacks")), 2);
	expect_keys(json_array_get(json_object_get(part, "stacks"), 0), "share frames");
	cr_assert_eq(json_integer_value(json_object_get(json_object_get(part, "accuracy"), "torn")), 1);
	cr_assert_str_eq(text_of(part, "certainty"), "proven");
	json_decref(root);
	free(heard.json);
	lifecycle_free(lifecycle);
}

Test(finding, what_is_inferred_says_why) {
	struct detect_verdict verdict = present();
	struct finding_context context = context_at(110 * NS_PER_SEC);
	struct pyspyd_finding *finding;

	verdict.inferred = true;
	verdict.certain_why = "few samples";
	context.accuracy = NULL;
	cr_assert_eq(finding_new(&context, &verdict, &finding), 0);
	expect_keys(finding->evidence, "cpu_percent verdict stacks samples certainty certainty_why");
	pyspyd_finding_free(finding);
	pyspyd_finding_free(NULL);
}

static void expect_same_text_of_json(const struct pyspyd_finding *finding) {
	_free_ char *json = pyspyd_finding_json(finding), *text = pyspyd_finding_text(finding, true);
	_free_ char *of_json = pyspyd_finding_text_of_json(json, true);

	cr_assert_str_eq(of_json, text);
}

Test(finding, text_reads_well) {
	struct detect_verdict verdict = present();
	struct finding_context context = context_at(112 * NS_PER_SEC);
	struct pyspyd_finding *finding;
	_free_ char *text = NULL, *coloured = NULL, *resolved = NULL;

	cr_assert_eq(finding_new(&context, &verdict, &finding), 0);
	text = pyspyd_finding_text(finding, false);
	cr_assert_str_eq(text,
		"open warning  spiking-thread: worker-3\n"
		"  process 4700: python3 -u /srv/app/app.py --port 80\n"
		"  hottest stack (93 % of 240 samples):\n"
		"    Reader.parse (json.py:88)\n"
		"    main (app.py:3)\n"
		"  advice: Look at the loop.\n");
	expect_same_text_of_json(finding);
	coloured = pyspyd_finding_text(finding, true);
	cr_assert_not_null(strstr(coloured, "\x1b[33m"));
	finding->state = PYSPYD_RESOLVED;
	resolved = pyspyd_finding_text(finding, false);
	cr_assert_str_eq(resolved,
		"resolved warning  spiking-thread: worker-3; it lasted 12 s\n"
		"  process 4700: python3 -u /srv/app/app.py --port 80\n");
	expect_same_text_of_json(finding);
	pyspyd_finding_free(finding);
}

Test(finding, hostile_strings_break_neither_json_nor_text) {
	static const char *const pieces[] = { "\x1b]0;x\x07", "\xff\xfe", "\xed\xa0\x80", "\xc2\x9b", "\xe2\x80\xa8",
		"\"\\\n" };
	char name[10001];
	struct detect_frame frame = FRAME(name, name, 1);
	struct detect_stack stack = { .share = 1, .frames = &frame, .frames_n = 1 };
	struct detect_thread evil = { .tid = 1, .name = name, .state = '\xff', .stacks = &stack, .stacks_n = 1 };
	char *arguments[] = { name, name, NULL };
	struct pyspyd_process who = { .name = name, .cmdline = arguments, .exe = name, .unit = name };

	for (size_t p = 0; p < ARRAY_SIZE(pieces); p++) {
		struct detect_verdict verdict = present();
		struct finding_context context = context_at(112 * NS_PER_SEC);
		struct pyspyd_finding *finding;
		_free_ char *text = NULL, *json = NULL;
		json_t *root;

		name[0] = '\0';
		for (size_t n = 0; n + strlen(pieces[p]) < sizeof(name); n += strlen(pieces[p]))
			memcpy(name + n, pieces[p], strlen(pieces[p]) + 1);
		verdict.parties[0].thread = &evil;
		context.process = &who;
		context.host = name;
		cr_assert_eq(finding_new(&context, &verdict, &finding), 0);
		text = pyspyd_finding_text(finding, false);
		json = pyspyd_finding_json(finding);
		root = json_loads(json, 0, NULL);
		cr_assert_not_null(root, "%zu", p);
		for (const char *c = text; *c; c++)
			cr_assert(*c == '\n' || ((unsigned char)*c >= 0x20 && *c != 0x7f));
		for (const char *c = json; *c; c++)
			cr_assert((unsigned char)*c >= 0x20 && *c != 0x7f);
		cr_assert_null(strstr(json, "\xc2\x9b"));
		cr_assert_null(strstr(json, "\xe2\x80\xa8"));
		cr_assert_null(strstr(text, "\xc2\x9b"));
		cr_assert_lt(strlen(text), 32768);
		json_decref(root);
		pyspyd_finding_free(finding);
	}
}

/* Fingerprints. */

static void print_kind(
	const char *kind, const struct pyspyd_process *who, const struct detect_stack *where, size_t n, char out[33]) {
	struct strbuf site = { 0 };

	fingerprint_site(&site, where, n);
	cr_assert_eq(fingerprint(kind, who, &site, out), 0);
	strbuf_deinit(&site);
}

static void print_of(const struct pyspyd_process *who, const struct detect_stack *where, size_t n, char out[33]) {
	print_kind("spiking-thread", who, where, n, out);
	cr_assert_eq(strspn(out, "0123456789abcdef"), 32);
}

Test(finding, fingerprints_carry_no_pid_line_path_or_version) {
	static const struct detect_frame moved[] = {
		FRAME("Reader.parse", "/opt/releases/2024-11-02/json.py", 91),
		FRAME("main", "/opt/releases/2024-11-02/app.py", 5),
	};
	const struct detect_stack where = { .share = 1, .frames = moved, .frames_n = 2 };
	char *elsewhere[] = { S("/usr/bin/python3.12"), S("-X"), S("dev"), S("/opt/app.py"), NULL };
	struct pyspyd_process who = {
		.pid = 1, .cmdline = elsewhere, .exe = S("/opt/py/bin/python3.12"), .unit = S("app.service")
	};
	char a[33], b[33];

	print_of(&process, stacks, 1, a);
	print_of(&who, &where, 1, b);
	cr_assert_str_eq(a, b);
	print_kind("other-kind", &process, stacks, 1, b);
	cr_assert_str_neq(a, b);
	elsewhere[3] = S("/opt/other.py");
	print_of(&who, &where, 1, b);
	cr_assert_str_neq(a, b);
	print_of(&process, stacks + 1, 1, b);
	cr_assert_str_neq(a, b);
	print_of(&process, NULL, 0, b);
	cr_assert_str_neq(a, b);
}

Test(finding, fingerprints_of_a_pool_are_one_and_ids_are_not) {
	struct pyspyd_process other = process;
	struct finding_context context = context_at(112 * NS_PER_SEC);
	struct detect_verdict verdict = present();
	struct pyspyd_finding *a, *b;

	cr_assert_eq(finding_new(&context, &verdict, &a), 0);
	other.pid++;
	context.process = &other;
	context.now_ns++;
	context.host = "web-2";
	cr_assert_eq(finding_new(&context, &verdict, &b), 0);
	cr_assert_str_eq(a->fingerprint, b->fingerprint);
	cr_assert_str_neq(a->id, b->id);
	pyspyd_finding_free(a);
	pyspyd_finding_free(b);
}

Test(finding, a_fingerprint_never_changes) {
	char print[33];

	print_of(&process, stacks, 1, print);
	cr_assert_str_eq(print, "1195fd48c4c37d2055b1a03165aea940");
}

/* Findings of waiting. */

#define NODES 5
#define C(text) ((char *)(uintptr_t)(text)) /* nobody writes into it */

/* Two threads (and a task behind them) that wait for each other's locks; ids and addresses begin at `from`. */
struct ring {
	struct pyspyd_frame frames[2];
	struct pyspyd_wait_node nodes[NODES];
	struct pyspyd_wait_edge edges[NODES];
	struct pyspyd_wait_knot knot;
	struct pyspyd_waits waits;
	uint32_t members[4], victims[1];
	char labels[2][32];
};

static void ring_init(struct ring *ring, pid_t from, int line, const char *expression) {
	*ring = (struct ring){ .members = { 0, 2, 1, 3 }, .victims = { 4 } };
	for (int i = 0; i < 2; i++) {
		snprintf(ring->labels[i], sizeof(ring->labels[i]), "Lock 0x7f%d", from + i);
		ring->frames[i] = (struct pyspyd_frame){ .function = C("acquire"),
			.qualname = C("transfer"),
			.file = i ? C("/srv/bank.py") : C("/opt/9/bank.py"),
			.module = C(""),
			.line = line };
	}
	for (int i = 0; i < NODES; i++)
		ring->nodes[i] = (struct pyspyd_wait_node){ .kind = i < 2 ? PYSPYD_WAIT_THREAD
				: i < 4                                   ? PYSPYD_WAIT_RESOURCE
									  : PYSPYD_WAIT_TASK,
			.rule = PYSPYD_WAIT_ALL,
			.type = i < 2   ? C("thread")
				: i < 4 ? C("Lock")
					: C("task"),
			.label = i < 2 || i == 4 ? C("worker") : ring->labels[i - 2],
			.pid = from,
			.tid = i < 2 ? from + i : 0,
			.state = 'S',
			.frames = i < 2 ? &ring->frames[i] : NULL,
			.frames_n = i < 2 };
	ring->edges[0] = (struct pyspyd_wait_edge){ 0, 2, (char *)(uintptr_t)expression, false, NULL };
	ring->edges[1] = (struct pyspyd_wait_edge){ 1, 3, (char *)(uintptr_t)expression, false, NULL };
	ring->edges[2] = (struct pyspyd_wait_edge){ 2, 1, NULL, true, C("a bare acquire()") };
	ring->edges[3] = (struct pyspyd_wait_edge){ 3, 0, NULL, false, NULL };
	ring->edges[4] = (struct pyspyd_wait_edge){ 4, 3, NULL, false, NULL };
	ring->knot = (struct pyspyd_wait_knot){
		.inferred = true, .nodes = ring->members, .nodes_n = 4, .victims = ring->victims, .victims_n = 1
	};
	ring->waits = (struct pyspyd_waits){ .nodes = ring->nodes,
		.nodes_n = NODES,
		.edges = ring->edges,
		.edges_n = NODES,
		.knots = &ring->knot,
		.knots_n = 1 };
}

static struct detect_verdict stuck(const struct ring *ring) {
	return (struct detect_verdict){ .kind = "deadlock",
		.pattern = "Deadlock",
		.severity = PYSPYD_CRITICAL,
		.parties = { { .node = 0, .role = "waiting", .cpu_percent = -1 },
			{ .node = 1, .role = "waiting", .cpu_percent = -1 },
			{ .node = 4, .role = "blocked", .cpu_percent = -1 } },
		.parties_n = 3,
		.facts = { { "threads", DETECT_COUNT, 0, 2, NULL } },
		.facts_n = 1,
		.waits = &ring->waits,
		.inferred = true,
		.certain_why = "an edge is inferred",
		.advice = "Take them in one order.",
		.summary = "deadlock: worker waits" };
}

static json_t *json_of(const struct pyspyd_finding *finding) {
	_free_ char *line = pyspyd_finding_json(finding);

	return json_loads(line, JSON_REJECT_DUPLICATES, NULL);
}

Test(finding, a_chain_is_evidence_and_threads_say_what_they_hold) {
	struct finding_context context = context_at(112 * NS_PER_SEC);
	struct pyspyd_finding *finding;
	struct detect_verdict verdict;
	json_t *root, *part, *step;
	struct ring ring;

	ring_init(&ring, 500, 12, "dst.guard");
	verdict = stuck(&ring);
	cr_assert_eq(finding_new(&context, &verdict, &finding), 0);
	root = json_of(finding);
	part = json_object_get(root, "evidence");
	expect_keys(part, "threads chain certainty certainty_why");
	part = json_object_get(part, "chain");
	cr_assert_eq(json_array_size(part), 4);
	step = json_array_get(part, 0);
	expect_keys(step, "kind type label pid tid function file line edges");
	cr_assert_str_eq(text_of(step, "function"), "transfer");
	step = json_array_get(json_object_get(step, "edges"), 0);
	expect_keys(step, "to expression certainty");
	cr_assert_eq(json_integer_value(json_object_get(step, "to")), 1);
	step = json_array_get(part, 1);
	expect_keys(step, "kind type label pid expression edges");
	cr_assert_str_eq(text_of(step, "expression"), "dst.guard");
	step = json_array_get(json_object_get(step, "edges"), 0);
	expect_keys(step, "to certainty why");
	cr_assert_str_eq(text_of(step, "certainty"), "inferred");
	part = json_object_get(root, "threads");
	cr_assert_eq(json_array_size(part), 3);
	step = json_array_get(part, 1);
	cr_assert_str_eq(text_of(step, "role"), "waiting");
	cr_assert_eq(json_array_size(json_object_get(step, "stack")), 1);
	cr_assert_eq(json_array_size(json_object_get(step, "holds")), 1);
	cr_assert_str_eq(text_of(json_array_get(json_object_get(step, "holds"), 0), "label"), "Lock 0x7f500");
	step = json_object_get(step, "waits_for");
	expect_keys(step, "kind label certainty expression holder");
	cr_assert_eq(json_integer_value(json_object_get(json_object_get(step, "holder"), "tid")), 500);
	cr_assert_eq(json_array_size(json_object_get(json_array_get(part, 2), "holds")), 0);
	json_decref(root);
	pyspyd_finding_free(finding);
}

Test(finding, without_a_knot_the_chains_of_all_parties_are_evidence) {
	struct finding_context context = context_at(112 * NS_PER_SEC);
	struct pyspyd_finding *finding;
	struct detect_verdict verdict;
	struct ring ring;

	ring_init(&ring, 500, 12, NULL);
	verdict = stuck(&ring);
	verdict.knot = UINT32_MAX;
	verdict.parties[0] = verdict.parties[2];
	verdict.parties_n = 1;
	cr_assert_eq(finding_new(&context, &verdict, &finding), 0);
	cr_assert_eq(json_array_size(json_object_get(finding->evidence, "chain")), NODES);
	pyspyd_finding_free(finding);
}

Test(finding, text_of_waiting_shows_those_who_wait) {
	struct finding_context context = context_at(112 * NS_PER_SEC);
	struct pyspyd_finding *finding;
	struct detect_verdict verdict;
	_free_ char *text = NULL;
	struct ring ring;

	ring_init(&ring, 500, 12, "dst.guard");
	verdict = stuck(&ring);
	cr_assert_eq(finding_new(&context, &verdict, &finding), 0);
	text = pyspyd_finding_text(finding, false);
	cr_assert_str_eq(text,
		"open critical  deadlock: worker waits\n"
		"  process 4700: python3 -u /srv/app/app.py --port 80\n"
		"  worker (tid 500), waiting:\n"
		"    transfer (bank.py:12)\n"
		"  worker (tid 501), waiting:\n"
		"    transfer (bank.py:12)\n"
		"  advice: Take them in one order.\n");
	expect_same_text_of_json(finding);
	pyspyd_finding_free(finding);
}

static void print_of_ring(const struct detect_verdict *verdict, char out[33]) {
	struct finding_context context = context_at(112 * NS_PER_SEC);
	struct pyspyd_finding *finding;

	cr_assert_eq(finding_new(&context, verdict, &finding), 0);
	memcpy(out, finding->fingerprint, sizeof(finding->fingerprint));
	pyspyd_finding_free(finding);
}

Test(finding, fingerprints_of_waiting_know_functions_and_names_only) {
	struct ring ring, moved, renamed;
	struct detect_verdict verdict;
	char a[33], b[33];

	ring_init(&ring, 500, 12, "dst.guard");
	ring_init(&moved, 900, 17, "dst.guard");
	ring_init(&renamed, 500, 12, "src.guard");
	verdict = stuck(&ring);
	print_of_ring(&verdict, a);
	verdict = stuck(&moved);
	print_of_ring(&verdict, b);
	cr_assert_str_eq(a, b);
	/* The other member first. */
	moved.members[0] = 1;
	moved.members[2] = 0;
	print_of_ring(&verdict, b);
	cr_assert_str_eq(a, b);
	/* Who is behind it does not matter. */
	verdict.parties_n = 2;
	print_of_ring(&verdict, b);
	cr_assert_str_eq(a, b);
	verdict = stuck(&renamed);
	print_of_ring(&verdict, b);
	cr_assert_str_neq(a, b);
	renamed.frames[1].qualname = C("withdraw");
	print_of_ring(&verdict, a);
	cr_assert_str_neq(a, b);
}

static char *program_of(const char *exe, const char *const *arguments, const char *unit) {
	struct pyspyd_process who = {
		.exe = (char *)(uintptr_t)exe, .cmdline = (char **)(uintptr_t)arguments, .unit = (char *)(uintptr_t)unit
	};
	struct strbuf sb = { 0 };

	fingerprint_program(&sb, &who);
	return strbuf_take(&sb);
}

Test(finding, programs_are_named_by_what_they_run) {
	static const struct {
		const char *exe;
		const char *arguments[8];
		const char *unit, *expected;
	} table[] = {
		{ "/usr/bin/python3.11", { "python3", "/a/app.py", "x" }, NULL, "python\nscript app.py\n\n" },
		{ "/usr/bin/python3.11 (deleted)", { "python3", "/a/app.py" }, NULL, "python\nscript app.py\n\n" },
		{ "/usr/bin/python3.13t", { "python3", "job-4711.py" }, NULL, "python\nscript job-#.py\n\n" },
		{ "/usr/bin/python3", { "python3", "-W", "ignore", "-Xdev", "-Im", "http.server", "80" }, "web.service",
			"python\nmodule http.server\nweb.service\n" },
		{ "/usr/bin/python3", { "python3", "-uWerror", "--check-hash-based-pycs", "always", "-mpkg" }, NULL,
			"python\nmodule pkg\n\n" },
		{ "/usr/bin/python3", { "python3", "-c", "f(tracker_fd=5, at=0x7fFf)", "-x" }, NULL,
			"python\ncommand f(tracker_fd=#, at=#)\n\n" },
		{ "/usr/bin/python3", { "python3", "-" }, NULL, "python\nscript -\n\n" },
		{ "/usr/bin/python3", { "python3" }, NULL, "python\n\n\n" },
		{ "/usr/bin/python3", { "python3", "-c" }, NULL, "python\n\n\n" },
		{ "/usr/bin/python3", { "python3", "-W" }, NULL, "python\n\n\n" },
		{ "/usr/bin/python3", { "gunicorn: worker [app] 12" }, NULL, "python\ngunicorn: worker [app] #\n\n" },
		{ "/usr/sbin/uwsgi", { "uwsgi", "--ini", "a.ini" }, "app@3.service", "uwsgi\nuwsgi\napp@#.service\n" },
		{ NULL, { NULL }, NULL, "\n\n\n" },
		{ "", { "/usr/bin/python3", "a.py" }, NULL, "python\nscript a.py\n\n" },
	};

	for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
		_free_ char *program = program_of(table[i].exe, table[i].arguments, table[i].unit);

		cr_assert_str_eq(program, table[i].expected, "%zu: %s", i, program);
	}
}

static char *site_of(const struct detect_stack *where, size_t n) {
	struct strbuf sb = { 0 };

	fingerprint_site(&sb, where, n);
	return strbuf_take(&sb);
}

Test(finding, the_site_is_what_the_stacks_share) {
	static const struct detect_frame a[] = { FRAME("a", "/s/m.py", 1), FRAME("loop", "/s/m.py", 9),
		FRAME("main", "/s/m.py", 20) };
	static const struct detect_frame b[] = { FRAME("b", "/s/m.py", 2), FRAME("loop", "/s/m.py", 11),
		FRAME("main", "/s/m.py", 20) };
	const struct detect_stack two[] = { { .share = .5, .frames = a, .frames_n = 3 },
		{ .share = .45, .frames = b, .frames_n = 3 } };
	const struct detect_stack one[] = { { .share = .95, .frames = a, .frames_n = 3 },
		{ .share = .02, .frames = b, .frames_n = 3 } };
	_free_ char *shared = site_of(two, 2), *hot = site_of(one, 2), *none = site_of(NULL, 0);

	cr_assert_str_eq(shared, "loop m.py\nmain m.py\n");
	cr_assert_str_eq(hot, "a m.py\nloop m.py\nmain m.py\n");
	cr_assert_str_eq(none, "");
}

Test(finding, the_site_is_the_application_s_where_there_is_one) {
	static const struct detect_frame mixed[] = {
		{ .lang = PYSPYD_NATIVE, .function = "scan_once", .qualname = "", .file = "_json.so", .module = "" },
		FRAME("decode", "/usr/lib/python3.11/json/decoder.py", 337),
		FRAME("handle", "/v/lib/python3.11/site-packages/web/h.py", 5),
		FRAME("<lambda>", "/tmp/x/app.py", 1),
		FRAME("run", "/usr/lib/python3.11/threading.py", 1),
	};
	const struct detect_stack all = { .share = 1, .frames = mixed, .frames_n = 5 };
	const struct detect_stack library = { .share = 1, .frames = mixed, .frames_n = 2 };
	const struct detect_stack native = { .share = 1, .frames = mixed, .frames_n = 1 };
	_free_ char *app = site_of(&all, 1), *lib = site_of(&library, 1), *leaf = site_of(&native, 1);

	cr_assert_str_eq(app, "handle web/h.py\n<lambda> app.py\n");
	cr_assert_str_eq(lib, "decode decoder.py\n");
	cr_assert_str_eq(leaf, "scan_once _json.so\n");
}

Test(finding, ids_sort_by_time) {
	char a[27], b[27], c[27];

	cr_assert_eq(ulid_new(1469918176385 * NS_PER_MS, a), 0);
	cr_assert_eq(ulid_new(1469918176385 * NS_PER_MS, b), 0);
	cr_assert_eq(ulid_new(1469918176386 * NS_PER_MS, c), 0);
	cr_assert_eq(strlen(a), 26);
	cr_assert_eq(strncmp(a, "01ARYZ6S41", 10), 0);
	cr_assert_eq(strncmp(a, b, 10), 0);
	cr_assert_str_neq(a, b);
	cr_assert_gt(strcmp(c, a), 0);
}

Test(finding, text_of_json_that_is_none_of_ours) {
	static const char *const none[] = { "", "x", "[]", "\"a\"", "{", "null" };
	static const char *const odd[] = {
		"{}",
		"{\"state\":5,\"severity\":\"\",\"duration_s\":1e300,\"summary\":[],\"process\":\"\",\"threads\":{}}",
		"{\"threads\":[null,{\"stack\":[1,{\"line\":-5}],\"role\":7}],\"evidence\":{\"chain\":1,\"stacks\":[1]}"
		"}",
		"{\"process\":{\"pid\":1e99,\"cmdline\":[1,{}]},\"state\":\"resolved\",\"duration_s\":-1,\"evidence\":["
		"]}",
	};

	for (size_t i = 0; i < ARRAY_SIZE(none); i++)
		cr_assert_null(pyspyd_finding_text_of_json(none[i], false));
	for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
		_free_ char *text = pyspyd_finding_text_of_json(odd[i], false);

		cr_assert_not_null(text, "%zu", i);
	}
}
