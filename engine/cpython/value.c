/* SPDX-License-Identifier: MIT */
/* A short text for a value, for people who look at the variables of a frame: 'text', [1, 2, … 40 items],
 * <queue.Queue at 0x7f…>. Runs nothing in the target: what __repr__ would say is not asked. An instance of a builtin's
 * subclass is shown as the builtin behind its type's name: Point (1, 2). Bounded by characters, items and depth, so
 * that a container that holds itself ends like any other. */
#include "engine/cpython/locals.h"
#include "engine/cpython/object_head.h"

#include <math.h>
#include <string.h>

#define DEPTH_MAX 2
#define ITEMS_MAX 16
#define NAME_BYTES 128
#define DIGITS_MAX 4 /* of 30 bits: what a 128-bit number holds */
#define DIGIT_BITS 30
#define BYTES_MAX 256
#define FLOAT_DIGITS_MAX 17
#define FLOAT_PLAIN_MAX 16 /* powers of ten from which repr() writes an exponent */
#define FLOAT_PLAIN_MIN (-4)

struct describe {
	const struct py_reader *py;
	struct strbuf *out;
	size_t end; /* of out->len */
	bool mask;
};

/* One value on its way. */
struct value {
	struct object_head head;
	struct type_head type;
	char type_name[NAME_BYTES];
	unsigned depth;
};

static void describe(struct describe *d, raddr object, unsigned depth);

static size_t left(const struct describe *d) {
	return d->end > d->out->len ? d->end - d->out->len : 0;
}

static void take_back(struct strbuf *out, size_t len) {
	if (!out->data || out->len <= len)
		return;
	out->len = len;
	out->data[len] = '\0';
}

static int add_text(struct describe *d, const struct value *v) {
	int r;

	strbuf_adds(d->out, "'");
	r = text_read_head(d->py, &v->head, left(d), d->out);
	if (r == PY_E_TRUNCATED)
		strbuf_adds(d->out, "…");
	strbuf_adds(d->out, "'");
	return r == PY_E_TRUNCATED ? 0 : r;
}

static int add_bytes(struct describe *d, const struct value *v) {
	uint8_t bytes[BYTES_MAX];
	size_t n, len;
	int r;

	r = object_count(&v->head, d->py->layout.var_size, &len);
	if (r)
		return r;
	n = min_of(len, left(d));
	n = min_of(n, sizeof(bytes));
	r = n ? mem_read(d->py->mem, v->head.addr + d->py->layout.bytes_data, bytes, n) : 0;
	if (r)
		return r;
	strbuf_adds(d->out, "b'");
	for (size_t i = 0; i < n; i++)
		strbuf_addf(d->out, bytes[i] < ' ' || bytes[i] > '~' ? "\\x%02x" : "%c", bytes[i]);
	strbuf_adds(d->out, n < len ? "…'" : "'");
	return 0;
}

static int add_long(struct describe *d, const struct value *v) {
	char text[48], *at = text + sizeof(text) - 1; /* 120 bits have at most 37 decimal digits */
	uint32_t digits[DIGITS_MAX];
	unsigned __int128 number = 0;
	bool negative;
	size_t n;
	int r;

	r = long_digits_read(d->py, &v->head, digits, DIGITS_MAX, &n, &negative);
	if (r == PY_E_TRUNCATED) {
		strbuf_addf(d->out, "%sint of about %zu bits", negative ? "negative " : "", n * DIGIT_BITS);
		return 0;
	}
	if (r)
		return r;
	while (n--)
		number = number << DIGIT_BITS | (digits[n] & ((1U << DIGIT_BITS) - 1));
	*at = '\0';
	do
		*--at = (char)('0' + (int)(number % 10));
	while (number /= 10);
	strbuf_addf(d->out, "%s%s", negative ? "-" : "", at);
	return 0;
}

static int add_bool(struct describe *d, const struct value *v) {
	uint32_t digit;
	bool negative;
	size_t n;
	int r;

	r = long_digits_read(d->py, &v->head, &digit, 1, &n, &negative);
	if (!r)
		strbuf_adds(d->out, n && digit ? "True" : "False");
	return r;
}

/* As repr(): the fewest digits that read back as the same number. */
static int add_float(struct describe *d, const struct value *v) {
	uint64_t bits = object_u64(&v->head, d->py->layout.float_value);
	char text[64];
	double number;
	int digits = 0, exponent;

	memcpy(&number, &bits, sizeof(number));
	if (!isfinite(number)) {
		strbuf_adds(d->out, isnan(number) ? "nan" : number < 0 ? "-inf" : "inf");
		return 0;
	}
	do
		snprintf(text, sizeof(text), "%.*e", digits, number);
	while (++digits < FLOAT_DIGITS_MAX && strtod(text, NULL) != number);
	exponent = atoi(strchr(text, 'e') + 1);
	if (exponent < FLOAT_PLAIN_MIN || exponent >= FLOAT_PLAIN_MAX)
		strbuf_adds(d->out, text);
	else
		strbuf_addf(d->out, "%.*f", max_of(digits - 1 - exponent, 1), number);
	return 0;
}

static int add_sequence(struct describe *d, const struct value *v) {
	bool tuple = v->type.flags & TYPE_TUPLE;
	raddr items[ITEMS_MAX];
	size_t n, shown;
	int r;

	r = py_sequence_read(d->py, v->head.addr, items, ITEMS_MAX, &n);
	if (r)
		return r;
	if (n && v->depth >= DEPTH_MAX) {
		strbuf_addf(d->out, "%s of %zu", tuple ? "tuple" : "list", n);
		return 0;
	}
	strbuf_adds(d->out, tuple ? "(" : "[");
	for (shown = 0; shown < min_of(n, (size_t)ITEMS_MAX) && left(d); shown++) {
		strbuf_adds(d->out, shown ? ", " : "");
		describe(d, items[shown], v->depth + 1);
	}
	if (shown < n)
		strbuf_addf(d->out, "%s… %zu items", shown ? ", " : "", n);
	strbuf_adds(d->out, !tuple ? "]" : n == 1 ? ",)" : ")");
	return 0;
}

struct dict_items {
	struct describe *d;
	unsigned depth;
	size_t shown;
};

static int add_item(void *userdata, raddr key, raddr value) {
	struct dict_items *items = userdata;
	size_t key_at;

	if (items->shown == ITEMS_MAX || !left(items->d))
		return PY_E_TRUNCATED;
	strbuf_adds(items->d->out, items->shown++ ? ", " : "");
	key_at = items->d->out->len;
	describe(items->d, key, items->depth + 1);
	if (items->d->mask && py_local_is_secret(strbuf_str(items->d->out) + key_at)) {
		strbuf_adds(items->d->out, ": ***");
		return 0;
	}
	strbuf_adds(items->d->out, ": ");
	describe(items->d, value, items->depth + 1);
	return 0;
}

static int add_dict(struct describe *d, const struct value *v) {
	struct dict_items items = { .d = d, .depth = v->depth };
	size_t n;
	int r;

	r = object_count(&v->head, d->py->layout.dict_used, &n);
	if (r)
		return r;
	if (n && v->depth >= DEPTH_MAX) {
		strbuf_addf(d->out, "dict of %zu", n);
		return 0;
	}
	strbuf_adds(d->out, "{");
	r = n ? py_dict_walk(d->py, v->head.addr, add_item, &items) : 0;
	if (r && r != PY_E_TRUNCATED)
		return r;
	if (items.shown < n)
		strbuf_addf(d->out, "%s… %zu items", items.shown ? ", " : "", n);
	strbuf_adds(d->out, "}");
	return 0;
}

static int add_set(struct describe *d, const struct value *v) {
	size_t n;
	int r;

	r = object_count(&v->head, d->py->layout.set_used, &n);
	if (!r)
		strbuf_addf(d->out, "%s of %zu", v->type_name, n);
	return r;
}

/* A class made by Python code: its dict knows the module, the heap type the qualified name. */
static int add_heap_type_name(const struct py_reader *py, const struct type_head *type, struct strbuf *out) {
	raddr module, qualname;
	int r = py_dict_get(py, type->dict, "__module__", &module);

	if (!r)
		r = mem_read_u64(py->mem, type->addr + py->layout.heaptype_qualname, &qualname);
	if (!r)
		r = py_text_read(py, module, NAME_BYTES, out);
	if (!r)
		strbuf_adds(out, ".");
	return r ? r : py_text_read(py, qualname, NAME_BYTES, out);
}

/* tp_name has the module in it where C code made the type. */
static void add_type_name(
	const struct py_reader *py, const struct type_head *type, const char *tp_name, struct strbuf *out) {
	size_t start = out->len;

	if (type->flags & TYPE_HEAP && !strchr(tp_name, '.') && layout_has(py->layout.heaptype_qualname)) {
		if (!add_heap_type_name(py, type, out))
			return;
		take_back(out, start);
	}
	strbuf_add_utf8(out, tp_name, strlen(tp_name));
}

int py_type_describe_at(const struct py_reader *py, raddr addr, struct strbuf *out) {
	char tp_name[NAME_BYTES];
	struct type_head type;
	int r = type_head_read(py, addr, &type);

	if (!r)
		r = type.name ? mem_read_cstr(py->mem, type.name, tp_name, sizeof(tp_name)) : PY_E_TYPE;
	if (!r)
		add_type_name(py, &type, tp_name, out);
	return r;
}

int py_type_describe(const struct py_reader *py, raddr object, struct strbuf *out) {
	raddr addr;
	int r = py_type_of(py, object, &addr);

	return r ? r : py_type_describe_at(py, addr, out);
}

static int add_other(struct describe *d, const struct value *v) {
	strbuf_adds(d->out, "<");
	add_type_name(d->py, &v->type, v->type_name, d->out);
	strbuf_addf(d->out, " at 0x%llx>", (unsigned long long)v->head.addr);
	return 0;
}

/* Builtins without a flag of their own cannot be told from their subclasses' instances but by their exact name. */
static const struct kind {
	const char *name;
	uint64_t flag; /* of tp_flags; 0: by name alone */
	const char *text;
	int (*add)(struct describe *d, const struct value *v);
} kinds[] = {
	{ .name = "NoneType", .text = "None" },
	{ .name = "NotImplementedType", .text = "NotImplemented" },
	{ .name = "ellipsis", .text = "Ellipsis" },
	{ .name = "bool", .add = add_bool },
	{ .name = "float", .add = add_float },
	{ .name = "set", .add = add_set },
	{ .name = "frozenset", .add = add_set },
	{ .name = "int", .flag = TYPE_LONG, .add = add_long },
	{ .name = "str", .flag = TYPE_UNICODE, .add = add_text },
	{ .name = "bytes", .flag = TYPE_BYTES, .add = add_bytes },
	{ .name = "list", .flag = TYPE_LIST, .add = add_sequence },
	{ .name = "tuple", .flag = TYPE_TUPLE, .add = add_sequence },
	{ .name = "dict", .flag = TYPE_DICT, .add = add_dict },
};

static const struct kind *kind_of(const struct value *v, bool *exact) {
	for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
		*exact = !(v->type.flags & TYPE_HEAP) && !strcmp(v->type_name, kinds[i].name);
		if (*exact || v->type.flags & kinds[i].flag)
			return &kinds[i];
	}
	return NULL;
}

static int add_value(struct describe *d, const struct value *v) {
	bool exact;
	const struct kind *kind = kind_of(v, &exact);

	if (!kind)
		return add_other(d, v);
	if (kind->text) {
		strbuf_adds(d->out, kind->text);
		return 0;
	}
	if (!exact) {
		strbuf_add_utf8(d->out, v->type_name, strlen(v->type_name));
		strbuf_adds(d->out, " ");
	}
	return kind->add(d, v);
}

static void describe(struct describe *d, raddr object, unsigned depth) {
	struct value v = { .depth = depth };
	size_t start = d->out->len;
	int r;

	r = object_head_read(d->py, object, d->py->layout.object_size, &v.head);
	if (!r)
		r = type_head_read(d->py, v.head.type, &v.type);
	if (!r)
		r = v.type.name ? mem_read_cstr(d->py->mem, v.type.name, v.type_name, sizeof(v.type_name)) : PY_E_TYPE;
	if (!r)
		r = add_value(d, &v);
	if (r) {
		take_back(d->out, start);
		strbuf_adds(d->out, "?");
	}
}

void py_value_describe(const struct py_reader *py, raddr object, size_t max_chars, struct strbuf *out) {
	struct describe d = { .py = py, .out = out, .end = out->len + max_chars };

	describe(&d, object, 0);
}

void py_value_describe_masked(const struct py_reader *py, raddr object, size_t max_chars, struct strbuf *out) {
	struct describe d = { .py = py, .out = out, .end = out->len + max_chars, .mask = true };

	describe(&d, object, 0);
}
