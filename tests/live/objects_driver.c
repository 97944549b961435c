/* SPDX-License-Identifier: MIT */
/* Starts an interpreter on objects_oracle.py and checks, in that process's memory, everything that it says of its own
 * objects. usage: objects_driver ORACLE COMMAND… — the lines are described in objects_oracle.py. */
#include "engine/cpython/objects.h"
#include "tests/live/target.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/types.h>
#include <sys/wait.h>

#define SHOWN_MAX 20
#define ITEMS_MAX 2000
#define VALUE_CHARS 120
#define TEXT_CHARS (1U << 20)
#define BYTES_MAX (4U << 20)

struct test {
	struct py_reader py;
	struct strbuf got; /* what was read, as the oracle would write it */
	uint64_t checks, wrong;
};

static void add_hex(struct strbuf *out, const void *bytes, size_t n) {
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		uint8_t byte = ((const uint8_t *)bytes)[i];

		strbuf_add(out, &digits[byte >> 4], 1);
		strbuf_add(out, &digits[byte & 15], 1);
	}
}

static void unhex(const char *hex, char *out, size_t size) {
	size_t n = 0;
	unsigned byte;

	for (; n + 1 < size && sscanf(hex + 2 * n, "%2x", &byte) == 1; n++)
		out[n] = (char)byte;
	out[n] = '\0';
}

/* Each writes what it read; the return value is the reader's. */

static int do_text(struct test *t, raddr object, char **fields) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	int r = py_text_read(&t->py, object, TEXT_CHARS, &text);

	(void)fields;
	add_hex(&t->got, text.data, text.len);
	return r;
}

static int do_cut(struct test *t, raddr object, char **fields) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };
	const char *max = strsep(fields, "\t");
	int r = py_text_read(&t->py, object, strtoul(max, NULL, 10), &text);

	strbuf_addf(&t->got, "%s\t", max);
	add_hex(&t->got, text.data, text.len);
	return r == PY_E_TRUNCATED ? 0 : -1;
}

static int do_bytes(struct test *t, raddr object, char **fields) {
	_free_ uint8_t *data = NULL;
	size_t len = 0;
	int r = py_bytes_read(&t->py, object, BYTES_MAX, &data, &len);

	(void)fields;
	if (!r && len)
		add_hex(&t->got, data, len);
	return r;
}

static int do_long(struct test *t, raddr object, char **fields) {
	int64_t number = 0;
	int r = py_long_read(&t->py, object, &number);

	(void)fields;
	if (r == PY_E_TRUNCATED)
		strbuf_adds(&t->got, "big");
	else
		strbuf_addf(&t->got, "%" PRId64, number);
	return r == PY_E_TRUNCATED ? 0 : r;
}

static int do_type(struct test *t, raddr object, char **fields) {
	char name[128] = "";
	int r = py_type_name(&t->py, object, name, sizeof(name));

	(void)fields;
	strbuf_adds(&t->got, name);
	return r;
}

static int do_seq(struct test *t, raddr object, char **fields) {
	raddr items[ITEMS_MAX];
	size_t n = 0;
	int r = py_sequence_read(&t->py, object, items, ITEMS_MAX, &n);

	(void)fields;
	strbuf_addf(&t->got, "%zu", n);
	for (size_t i = 0; !r && i < n; i++)
		strbuf_addf(&t->got, "\t%" PRIx64, items[i]);
	return r;
}

struct pairs {
	struct strbuf text;
	size_t n;
};

static int add_pair(void *userdata, raddr key, raddr value) {
	struct pairs *pairs = userdata;

	strbuf_addf(&pairs->text, "\t%" PRIx64 ":%" PRIx64, key, value);
	pairs->n++;
	return 0;
}

static int do_dict(struct test *t, raddr object, char **fields) {
	struct pairs pairs = { .n = 0 };
	int r = py_dict_walk(&t->py, object, add_pair, &pairs);

	(void)fields;
	strbuf_addf(&t->got, "%zu%s", pairs.n, strbuf_str(&pairs.text));
	strbuf_deinit(&pairs.text);
	return r;
}

static int look_up(struct test *t, raddr object, char **fields,
	int (*reader)(const struct py_reader *py, raddr object, const char *name, raddr *ret_value)) {
	const char *hex = strsep(fields, "\t");
	char name[2048];
	raddr value = 0;
	int r;

	unhex(hex, name, sizeof(name));
	r = reader(&t->py, object, name, &value);
	if (r == PY_E_TYPE)
		strbuf_addf(&t->got, "%s\tnone", hex);
	else
		strbuf_addf(&t->got, "%s\t%" PRIx64, hex, value);
	return r == PY_E_TYPE ? 0 : r;
}

static int do_get(struct test *t, raddr object, char **fields) {
	return look_up(t, object, fields, py_dict_get);
}

static int do_attr(struct test *t, raddr object, char **fields) {
	return look_up(t, object, fields, py_attribute);
}

static int do_value(struct test *t, raddr object, char **fields) {
	_cleanup_(strbuf_deinit) struct strbuf text = { 0 };

	(void)fields;
	py_value_describe(&t->py, object, VALUE_CHARS, &text);
	add_hex(&t->got, text.data, text.len);
	return 0;
}

static const struct kind {
	const char *name;
	int (*run)(struct test *t, raddr object, char **fields);
} kinds[] = {
	{ "text", do_text },
	{ "cut", do_cut },
	{ "bytes", do_bytes },
	{ "long", do_long },
	{ "type", do_type },
	{ "seq", do_seq },
	{ "dict", do_dict },
	{ "get", do_get },
	{ "attr", do_attr },
	{ "value", do_value },
};

/* The same keys and values, in any order: shared keys stand in the order of the class's first instance. */
static int compare_words(const void *a, const void *b) {
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static bool same_words(const char *a, const char *b) {
	char *copies[] = { strdup(a), strdup(b) };
	size_t n[2] = { 0, 0 };
	char **words[2];
	bool same;

	for (int i = 0; i < 2; i++) {
		char *rest = copies[i];

		words[i] = calloc(strlen(rest) + 1, sizeof(char *));
		while (rest)
			words[i][n[i]++] = strsep(&rest, "\t");
		qsort(words[i], n[i], sizeof(char *), compare_words);
	}
	same = n[0] == n[1];
	for (size_t i = 0; same && i < n[0]; i++)
		same = !strcmp(words[0][i], words[1][i]);
	for (int i = 0; i < 2; i++) {
		free(words[i]);
		free(copies[i]);
	}
	return same;
}

static void check(struct test *t, const char *name, raddr object, const char *expected) {
	_free_ char *copy = strdup(expected);
	char *fields = copy;
	bool same = false;
	int r = -1;

	strbuf_deinit(&t->got);
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++)
		if (!strcmp(kinds[i].name, name))
			r = kinds[i].run(t, object, &fields);
	if (!r)
		same = !strcmp(strbuf_str(&t->got), expected) ||
			(!strcmp(name, "dict") && same_words(strbuf_str(&t->got), expected));
	t->checks++;
	if (!same && t->wrong++ < SHOWN_MAX)
		printf("%s %" PRIx64 ": result %d, %.300s instead of %.300s\n", name, object, r, strbuf_str(&t->got),
			expected);
}

static bool begin(struct test *t, char *fields) {
	pid_t pid = (pid_t)strtol(strsep(&fields, "\t"), NULL, 10);
	const struct layout_row *row;

	t->py.version = (uint32_t)strtoul(strsep(&fields, "\t"), NULL, 16);
	t->py.flavour = (unsigned)strtoul(fields, NULL, 16);
	row = layout_find(t->py.version, t->py.flavour);
	if (!row) {
		printf("no layout for %08x, flavour %u\n", t->py.version, t->py.flavour);
		return false;
	}
	t->py.layout = row->layout;
	return !mem_live_new(pid, &t->py.mem);
}

/* The target has told everything before the first check: it does not move any more. */
static void run(struct test *t, char *told) {
	char *line;

	while ((line = strsep(&told, "\n"))) {
		char *name = strsep(&line, "\t");
		char *address;

		if (!strcmp(name, "ready"))
			return;
		if (!strcmp(name, "start")) {
			if (!begin(t, line))
				break;
			continue;
		}
		address = strsep(&line, "\t");
		check(t, name, strtoull(address, NULL, 16), line ? line : "");
	}
	printf("the interpreter ended early\n");
	t->wrong++;
}

static char *read_told(FILE *in) {
	struct strbuf told = { 0 };
	char *line = NULL;
	size_t size = 0;
	ssize_t n;

	while ((n = getline(&line, &size, in)) > 0) {
		strbuf_add(&told, line, (size_t)n);
		if (!strcmp(line, "ready\n"))
			break;
	}
	free(line);
	return strbuf_take(&told);
}

int main(int argc, char **argv) {
	struct test t = { .checks = 0 };
	struct target target;
	char *told;

	if (argc < 3 || target_start(argv[1], argv + 2, &target)) {
		fprintf(stderr, "usage: objects_driver ORACLE COMMAND…\n");
		return 2;
	}
	told = read_told(target.out);
	run(&t, told);
	free(told);
	close(target.held);
	fclose(target.out);
	waitpid(target.pid, NULL, 0);
	printf("%" PRIu64 " checks, %" PRIu64 " wrong, %" PRIu64 " reads\n", t.checks, t.wrong,
		t.py.mem ? t.py.mem->reads : 0);
	mem_free(t.py.mem);
	strbuf_deinit(&t.got);
	return t.wrong || !t.checks;
}
