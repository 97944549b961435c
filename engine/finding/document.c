/* SPDX-License-Identifier: MIT */
/* Documents of our own schemas, read back. What is wrong first is kept with its place; nothing after it counts.
 *
 * Words that stand in structs as static strings ("queue worker", "descriptor") are kept for the life of the process:
 * there are few of them, and no more than WORDS_MAX are taken. */
#include "engine/finding/document.h"

#include "engine/base/clock.h"
#include "engine/base/util.h"
#include <errno.h>
#include <math.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#define WORDS_MAX 2048
#define WORD_BYTES_MAX 256
#define SECONDS_MAX 1e10 /* of any duration */

static int fail(struct document *document, int r, const char *text) {
	if (document->r)
		return document->r;
	document->r = r;
	return err_set(
		document->err, r, "%s: %s%s%s", document->schema, document->path, document->path_len ? ": " : "", text);
}

int document_fail(struct document *document, const char *key, const char *what) {
	char text[128];

	snprintf(text, sizeof(text), "\"%.40s\" %s", key, what);
	return fail(document, -EBADMSG, text);
}

/* Whether parsing it would take no more memory than is meant for it. */
static bool is_small(const char *json, size_t len) {
	bool quoted = false;
	size_t values = 0;

	if (len > DOCUMENT_BYTES_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		if (json[i] == '"')
			quoted = !quoted;
		else if (quoted && json[i] == '\\')
			i++;
		else if (!quoted)
			values += json[i] == ',' || json[i] == '[' || json[i] == '{';
	}
	return values <= DOCUMENT_VALUES_MAX;
}

/* "pyspyd.dump/2" where "pyspyd.dump/1" is known. */
static bool is_newer(const char *schema, const char *known) {
	size_t len = (size_t)(strrchr(known, '/') - known) + 1;

	return !strncmp(schema, known, len) && strtoul(schema + len, NULL, 10) > strtoul(known + len, NULL, 10);
}

static int check_schema(struct document *document) {
	_free_ char *schema = document_string(document, document->root, "schema");

	if (document->r || !strcmp(schema, document->schema))
		return document->r;
	return fail(document, is_newer(schema, document->schema) ? -EPROTO : -EBADMSG,
		is_newer(schema, document->schema) ? "a newer pyspyd wrote it" : "this is another document");
}

int document_open(struct document *document, const char *schema, const char *json, size_t len, struct err *err) {
	json_error_t error;

	*document = (struct document){ .schema = schema, .err = err };
	if (!is_small(json, len))
		return fail(document, -EBADMSG, "too large");
	document->root = json_loadb(json, len, 0, &error);
	if (!document->root && json_error_code(&error) == json_error_out_of_memory)
		return fail(document, -ENOMEM, "out of memory");
	if (!json_is_object(document->root))
		return fail(document, -EBADMSG, "this is no JSON object");
	return check_schema(document);
}

void document_close(struct document *document) {
	json_decref(document->root);
	document->root = NULL;
}

size_t document_enter(struct document *document, const char *key, size_t index) {
	size_t mark = document->path_len, room = sizeof(document->path) - mark;
	int n = snprintf(document->path + mark, room, "%s%s[%zu]", mark ? "." : "", key, index);

	if (n > 0)
		document->path_len += min_of((size_t)n, room - 1);
	return mark;
}

void document_leave(struct document *document, size_t mark) {
	/* What is wrong was said already. */
	document->path_len = mark;
	document->path[mark] = '\0';
}

/* Members */

json_t *document_get(struct document *document, const json_t *object, const char *key) {
	json_t *value;

	if (document->r)
		return NULL;
	value = json_object_get(object, key);
	if (!value)
		document_fail(document, key, "is missing");
	return value;
}

/* Return: the member; NULL: null, or a failure. */
static json_t *get_or_null(struct document *document, const json_t *object, const char *key) {
	json_t *value = document_get(document, object, key);

	return json_is_null(value) ? NULL : value;
}

json_t *document_object(struct document *document, const json_t *object, const char *key) {
	json_t *value = get_or_null(document, object, key);

	if (value && !json_is_object(value))
		document_fail(document, key, "is no object");
	return document->r ? NULL : value;
}

static char *copy(struct document *document, const char *text) {
	char *copied = document->r ? NULL : strdup(text);

	if (!document->r && !copied)
		fail(document, -ENOMEM, "out of memory");
	return copied;
}

char *document_text(struct document *document, const json_t *object, const char *key) {
	json_t *value = get_or_null(document, object, key);

	if (value && !json_is_string(value))
		document_fail(document, key, "is no text");
	return value ? copy(document, json_string_value(value)) : NULL;
}

char *document_string(struct document *document, const json_t *object, const char *key) {
	char *text = document_text(document, object, key);

	return text || document->r ? text : copy(document, "");
}

/* Return: the same text for the same text, for ever; NULL when out of memory, or of room. */
static const char *keep_word(const char *word) {
	static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
	static char *words[WORDS_MAX];
	static size_t n;
	const char *kept = NULL;

	if (strlen(word) > WORD_BYTES_MAX)
		return NULL;
	pthread_mutex_lock(&lock);
	for (size_t i = 0; i < n && !kept; i++)
		if (!strcmp(words[i], word))
			kept = words[i];
	if (!kept && n < WORDS_MAX) {
		words[n] = strdup(word);
		kept = words[n];
		n += kept != NULL;
	}
	pthread_mutex_unlock(&lock);
	return kept;
}

/* Writers take words as they are, whatever they are written to. */
static bool is_plain(const char *text) {
	for (const unsigned char *at = (const unsigned char *)text; *at; at++)
		if (*at < ' ' || *at > '~')
			return false;
	return true;
}

const char *document_keep(struct document *document, const char *word) {
	const char *kept = !document->r && is_plain(word) ? keep_word(word) : NULL;

	if (!document->r && !kept)
		fail(document, -EBADMSG, "something is no word");
	return kept;
}

const char *document_word(struct document *document, const json_t *object, const char *key) {
	_free_ char *text = document_text(document, object, key);
	const char *word = text && is_plain(text) ? keep_word(text) : NULL;

	if (text && !word)
		document_fail(document, key, "is no word");
	return word;
}

bool document_bool(struct document *document, const json_t *object, const char *key) {
	json_t *value = document_get(document, object, key);

	if (value && !json_is_boolean(value))
		document_fail(document, key, "is neither true nor false");
	return json_is_true(value);
}

/* Return: whether it is there; null is not. */
static bool get_integer(struct document *document, const json_t *object, const char *key, json_int_t *ret) {
	json_t *value = get_or_null(document, object, key);

	if (value && !json_is_integer(value))
		document_fail(document, key, "is no whole number");
	if (!value || document->r)
		return false;
	*ret = json_integer_value(value);
	return true;
}

uint64_t document_count(struct document *document, const json_t *object, const char *key) {
	json_int_t value;

	return get_integer(document, object, key, &value) ? (uint64_t)value : UINT64_MAX;
}

int64_t document_signed(struct document *document, const json_t *object, const char *key) {
	json_int_t value;

	return get_integer(document, object, key, &value) ? value : 0;
}

int64_t document_number(
	struct document *document, const json_t *object, const char *key, int64_t min, int64_t max, int64_t if_null) {
	json_int_t value;

	if (!get_integer(document, object, key, &value))
		return if_null;
	if (value < min || value > max) {
		document_fail(document, key, "is out of bounds");
		return if_null;
	}
	return value;
}

double document_real(struct document *document, const json_t *object, const char *key) {
	json_t *value = get_or_null(document, object, key);

	if (value && !json_is_number(value))
		document_fail(document, key, "is no number");
	return value && !document->r ? json_number_value(value) : -1;
}

uint64_t document_ns(
	struct document *document, const json_t *object, const char *key, double unit_ns, uint64_t if_null) {
	double value = document_real(document, object, key);

	if (value < 0)
		return if_null;
	if (value * unit_ns > SECONDS_MAX * (double)NS_PER_SEC) {
		document_fail(document, key, "is out of bounds");
		return if_null;
	}
	return (uint64_t)round(value * unit_ns);
}

uint64_t document_address(struct document *document, const json_t *object, const char *key) {
	_free_ char *text = document_text(document, object, key);
	char *end;
	uint64_t value;

	if (!text)
		return 0;
	errno = 0;
	value = strtoull(text, &end, 16);
	if (strncmp(text, "0x", 2) || *end || errno)
		document_fail(document, key, "is no address");
	return document->r ? 0 : value;
}

uint64_t document_time(struct document *document, const json_t *object, const char *key) {
	_free_ char *text = document_text(document, object, key);
	char again[CLOCK_RFC3339_SIZE];
	struct tm tm = { 0 };
	unsigned ns;
	uint64_t value = 0;
	time_t seconds;

	if (!text)
		return 0;
	if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%9uZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour, &tm.tm_min,
		    &tm.tm_sec, &ns) == 7) {
		tm.tm_year -= 1900;
		tm.tm_mon -= 1;
		seconds = timegm(&tm);
		if (seconds > 0 && (uint64_t)seconds < UINT64_MAX / NS_PER_SEC - 1)
			value = (uint64_t)seconds * NS_PER_SEC + ns;
	}
	if (value)
		clock_rfc3339(value, again);
	if (!value || strcmp(again, text))
		document_fail(document, key, "is no point in time");
	return document->r ? 0 : value;
}

char document_state(struct document *document, const json_t *object, const char *key) {
	_free_ char *text = document_text(document, object, key);

	if (text && strlen(text) != 1)
		document_fail(document, key, "is no letter");
	return text && !document->r ? text[0] : '\0';
}

size_t document_choice(
	struct document *document, const json_t *object, const char *key, const char *const *words, size_t n) {
	_free_ char *text = document_string(document, object, key);

	for (size_t i = 0; text && i < n; i++)
		if (words[i] && !strcmp(text, words[i]))
			return i;
	if (text)
		document_fail(document, key, "is none of the words that are known");
	return 0;
}

void *document_array(struct document *document, const json_t *object, const char *key, size_t item_size,
	document_reader read, size_t *ret_n) {
	json_t *array = get_or_null(document, object, key);
	size_t n = json_array_size(array);
	char *items;

	if (array && !json_is_array(array))
		document_fail(document, key, "is no list");
	if (!array || document->r)
		return NULL;
	items = calloc(n + 1, item_size);
	if (!items) {
		fail(document, -ENOMEM, "out of memory");
		return NULL;
	}
	*ret_n = n;
	for (size_t i = 0; i < n && !document->r; i++) {
		json_t *item = json_array_get(array, i);
		size_t mark = document_enter(document, key, i);

		if (json_is_object(item))
			read(document, item, items + i * item_size);
		else
			fail(document, -EBADMSG, "is no object");
		document_leave(document, mark);
	}
	return items;
}

/* Bones */

static void read_cmdline(struct document *document, const json_t *object, struct pyspyd_process *process) {
	json_t *array = document_get(document, object, "cmdline");
	size_t n = json_array_size(array);

	if (array && !json_is_array(array))
		document_fail(document, "cmdline", "is no list");
	process->cmdline = document->r ? NULL : calloc(n + 1, sizeof(*process->cmdline));
	if (!document->r && !process->cmdline)
		fail(document, -ENOMEM, "out of memory");
	for (size_t i = 0; i < n && !document->r; i++) {
		const char *word = json_string_value(json_array_get(array, i));

		if (word)
			process->cmdline[i] = copy(document, word);
		else
			document_fail(document, "cmdline", "is not all text");
	}
}

void document_process(struct document *document, const json_t *object, struct pyspyd_process *process) {
	json_t *from = document_get(document, object, "process");

	if (!document->r && !json_is_object(from))
		document_fail(document, "process", "is no object");
	process->pid = (pid_t)document_number(document, from, "pid", 0, INT32_MAX, 0);
	process->start_real_ns = document_time(document, from, "start_time");
	process->name = document_string(document, from, "name");
	process->exe = document_text(document, from, "exe");
	process->python = document_string(document, from, "python");
	process->uid = (uid_t)document_number(document, from, "uid", 0, UINT32_MAX, 0);
	process->cgroup = document_text(document, from, "cgroup");
	process->container = document_text(document, from, "container");
	process->unit = document_text(document, from, "unit");
	read_cmdline(document, from, process);
	if (json_object_get(object, "core"))
		process->core = document_core(document, object);
}

static void read_local(struct document *document, const json_t *object, void *item) {
	struct pyspyd_local *local = item;

	local->name = document_string(document, object, "name");
	local->type = document_string(document, object, "type");
	local->value = document_string(document, object, "value");
	local->masked = document_bool(document, object, "masked");
}

void document_frame(struct document *document, const json_t *object, void *item) {
	static const char *const langs[] = {
		[PYSPYD_PYTHON] = "python",
		[PYSPYD_NATIVE] = "native",
		[PYSPYD_KERNEL] = "kernel",
	};
	struct pyspyd_frame *frame = item;

	frame->lang = (enum pyspyd_lang)document_choice(document, object, "lang", langs, ARRAY_SIZE(langs));
	frame->function = document_string(document, object, "function");
	frame->qualname = document_string(document, object, "qualname");
	frame->file = document_text(document, object, "file");
	frame->line = (int)document_number(document, object, "line", 1, INT32_MAX, 0);
	frame->module = document_text(document, object, "module");
	if (json_object_get(object, "inlined"))
		frame->inlined = document_bool(document, object, "inlined");
	if (json_object_get(object, "doubt"))
		frame->doubt = document_word(document, object, "doubt");
	if (json_object_get(object, "locals"))
		frame->locals = document_array(
			document, object, "locals", sizeof(*frame->locals), read_local, &frame->locals_n);
}

void document_native(struct document *document, const json_t *object, struct pyspyd_thread *thread) {
	json_t *from = document_object(document, object, "native");

	thread->native = true;
	thread->native_end = document_word(document, from, "why");
	thread->disagree = !document_bool(document, from, "agrees");
	thread->stopped_ns = document_ns(document, from, "stopped_us", NS_PER_US, 0);
}

void document_thread(struct document *document, const json_t *object, void *item) {
	static const char *const gils[] = {
		[PYSPYD_GIL_NONE] = "none",
		[PYSPYD_GIL_HELD] = "held",
		[PYSPYD_GIL_WAITING] = "waiting",
		[PYSPYD_GIL_UNKNOWN] = "unknown",
	};
	struct pyspyd_thread *thread = item;

	thread->tid = (pid_t)document_number(document, object, "tid", 0, INT32_MAX, 0);
	thread->name = document_string(document, object, "name");
	thread->state = document_state(document, object, "state");
	thread->ident = (uint64_t)document_signed(document, object, "ident");
	thread->gil = (enum pyspyd_gil)document_choice(document, object, "gil", gils, ARRAY_SIZE(gils));
	thread->in_gc = document_bool(document, object, "in_gc");
	thread->interpreter = document_number(document, object, "interpreter", 0, INT64_MAX, -1);
	thread->truncated = document_bool(document, object, "truncated");
	thread->incomplete = document_bool(document, object, "incomplete");
	if (json_object_get(object, "native"))
		document_native(document, object, thread);
	if (json_object_get(object, "exceptions"))
		document_exceptions(document, object, thread);
	thread->frames =
		document_array(document, object, "stack", sizeof(*thread->frames), document_frame, &thread->frames_n);
}
