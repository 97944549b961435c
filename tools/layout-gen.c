/* SPDX-License-Identifier: MIT */
/* Measures the layout of CPython builds from their DWARF and writes engine/cpython/layout_tables.c.
 *
 *   layout-gen [KNOWN-FILE] < BUILDS > layout_tables.c
 *   layout-gen --compare < BUILDS              one line per field in which two builds of one minor version differ
 *
 * A line of BUILDS is `VERSION_HEX FLAVOUR NAME FILE…`: 0x030b07f0 0 3.11.7-pyenv FILE; FLAVOUR is enum layout_flavour,
 * the first FILE an interpreter, a libpython or the separate debug file of one, the others, after a tab each, its
 * extension modules: what the one does not show is looked up in the next. tools/layout-tables makes that list.
 *
 * Builds of one minor version and flavour that agree become one row for the whole minor version. Where they differ,
 * each run of equal neighbours becomes a row that reaches from its first to its last measured patch release (the
 * outermost ones to the minor version's ends): what lies between two runs was not measured, and layout_find() says so.
 *
 * KNOWN-FILE adds what cannot be measured here, as a difference to a measured row (see tools/layout-known).
 *
 * A type is taken from the unit that shows most of it: headers hide members from modules outside the core, and declare
 * types forward. It trusts its input: it is run by developers on interpreters of their own. */
#include <assert.h>
#include <dwarf.h>
#include <elfutils/libdw.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "engine/cpython/layout.h"

enum kind { KIND_FIELD, KIND_SIZE, KIND_BIT };

static const struct field {
	const char *name;
	enum kind kind;
	const char *types; /* alternatives, "|" between them */
	const char *paths;
} fields[] = {
#define FIELD(name, type, path) { #name, KIND_FIELD, type, path },
#define SIZE(name, type) { #name, KIND_SIZE, type, "" },
#define BIT(name, type, path) { #name, KIND_BIT, type, path },
#include "engine/cpython/layout_fields.def"
#undef FIELD
#undef SIZE
#undef BIT
};

#define FIELDS_N (sizeof(fields) / sizeof(fields[0]))
static_assert(sizeof(struct layout) == FIELDS_N * sizeof(uint32_t), "struct layout is an array of its fields");

#define BUILDS_MAX 64
#define TYPES_MAX 128
#define NAME_MAX_LEN 160
#define MINOR_MASK 0xffff0000u

struct build {
	uint32_t first_version, last_version;
	unsigned flavour;
	char names[NAME_MAX_LEN]; /* of the builds that agree */
	uint32_t values[FIELDS_N];
};

/* A type of the .def, and the best definition seen so far. */
struct type {
	char name[64]; /* the typedef's, or the struct's tag */
	char tag[64];  /* the struct's tag, "" while unknown or where it has none */
	bool is_typedef;
	bool found;
	int members;
	Dwarf_Die die;
};

struct types {
	struct type items[TYPES_MAX];
	size_t n;
};

static void __attribute__((noreturn, format(printf, 1, 2))) die_with(const char *format, ...) {
	va_list args;

	va_start(args, format);
	fputs("layout-gen: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	exit(1);
}

/* Copies the next of the alternatives into `buffer`. Return: where to go on, or NULL when there is none left. */
static const char *next_alternative(const char *alternatives, char buffer[static 64]) {
	size_t length = strcspn(alternatives, "|");

	if (*alternatives == '\0')
		return NULL;
	if (length >= 64)
		die_with("name too long: %s", alternatives);
	memcpy(buffer, alternatives, length);
	buffer[length] = '\0';
	return alternatives + length + (alternatives[length] == '|');
}

static struct type *types_find(struct types *types, const char *spec) {
	bool is_typedef = strncmp(spec, "struct ", 7) != 0;
	const char *name = is_typedef ? spec : spec + 7;

	for (size_t i = 0; i < types->n; i++)
		if (types->items[i].is_typedef == is_typedef && strcmp(types->items[i].name, name) == 0)
			return &types->items[i];
	if (types->n == TYPES_MAX)
		die_with("more than %d types", TYPES_MAX);
	struct type *type = &types->items[types->n++];
	snprintf(type->name, sizeof(type->name), "%s", name);
	if (!is_typedef)
		snprintf(type->tag, sizeof(type->tag), "%s", name);
	type->is_typedef = is_typedef;
	return type;
}

static void types_collect(struct types *types) {
	char spec[64];

	for (size_t i = 0; i < FIELDS_N; i++)
		for (const char *at = next_alternative(fields[i].types, spec); at; at = next_alternative(at, spec))
			types_find(types, spec);
}

static bool is_aggregate(Dwarf_Die *die) {
	int tag = dwarf_tag(die);

	return tag == DW_TAG_structure_type || tag == DW_TAG_union_type;
}

/* Follows typedefs and qualifiers from `die`'s type. Return: whether there is a type. */
static bool type_of(Dwarf_Die *die, Dwarf_Die *ret_type) {
	Dwarf_Attribute attribute;
	Dwarf_Die type;

	if (!dwarf_attr_integrate(die, DW_AT_type, &attribute) || !dwarf_formref_die(&attribute, &type))
		return false;
	return dwarf_peel_type(&type, ret_type) == 0;
}

static int count_members(Dwarf_Die *aggregate) {
	Dwarf_Die child;
	int n = 0;

	if (dwarf_child(aggregate, &child) != 0)
		return 0;
	do
		n += dwarf_tag(&child) == DW_TAG_member;
	while (dwarf_siblingof(&child, &child) == 0);
	return n;
}

static void type_offer(struct type *type, Dwarf_Die *aggregate) {
	if (dwarf_hasattr(aggregate, DW_AT_declaration))
		return;
	int members = count_members(aggregate);
	if (type->found && members <= type->members)
		return;
	type->found = true;
	type->members = members;
	type->die = *aggregate;
}

static void types_see_typedef(struct types *types, Dwarf_Die *die, const char *name) {
	Dwarf_Die target;

	for (size_t i = 0; i < types->n; i++) {
		struct type *type = &types->items[i];
		if (!type->is_typedef || strcmp(type->name, name) != 0)
			continue;
		if (!type_of(die, &target) || !is_aggregate(&target))
			continue;
		if (dwarf_diename(&target))
			snprintf(type->tag, sizeof(type->tag), "%s", dwarf_diename(&target));
		type_offer(type, &target);
	}
}

static void types_see_struct(struct types *types, Dwarf_Die *die, const char *tag) {
	for (size_t i = 0; i < types->n; i++)
		if (strcmp(types->items[i].tag, tag) == 0)
			type_offer(&types->items[i], die);
}

static void types_see_unit(struct types *types, Dwarf_Die *unit) {
	Dwarf_Die die;

	if (dwarf_child(unit, &die) != 0)
		return;
	do {
		const char *name = dwarf_diename(&die);
		if (!name)
			continue;
		if (dwarf_tag(&die) == DW_TAG_typedef)
			types_see_typedef(types, &die, name);
		else if (dwarf_tag(&die) == DW_TAG_structure_type)
			types_see_struct(types, &die, name);
	} while (dwarf_siblingof(&die, &die) == 0);
}

/* Twice: a typedef tells the tag, and the tag's full definition may stand in a unit before. */
static void types_look_up(struct types *types, Dwarf *dwarf) {
	for (int pass = 0; pass < 2; pass++) {
		Dwarf_CU *unit = NULL;
		Dwarf_Die die;
		uint8_t unit_type;
		while (dwarf_get_units(dwarf, unit, &unit, NULL, &unit_type, &die, NULL) == 0)
			types_see_unit(types, &die);
	}
}

static uint64_t attribute_or(Dwarf_Die *die, unsigned name, uint64_t otherwise) {
	Dwarf_Attribute attribute;
	Dwarf_Word value;

	if (!dwarf_attr_integrate(die, name, &attribute) || dwarf_formudata(&attribute, &value) != 0)
		return otherwise;
	return value;
}

/* First bit of a member from its struct's start: DWARF 4's data_bit_offset, or the older bit_offset, which counts from
 * the high end of a storage unit, or a plain member's byte. */
static uint64_t member_bit(Dwarf_Die *member) {
	uint64_t byte = attribute_or(member, DW_AT_data_member_location, 0);

	if (dwarf_hasattr(member, DW_AT_data_bit_offset))
		return attribute_or(member, DW_AT_data_bit_offset, 0);
	if (!dwarf_hasattr(member, DW_AT_bit_offset))
		return byte * 8;
	Dwarf_Die type;
	uint64_t unit_bytes = attribute_or(member, DW_AT_byte_size, 0);
	if (unit_bytes == 0 && type_of(member, &type))
		unit_bytes = (uint64_t)dwarf_bytesize(&type);
	return byte * 8 + unit_bytes * 8 - attribute_or(member, DW_AT_bit_offset, 0) -
		attribute_or(member, DW_AT_bit_size, 0);
}

/* Looks in unnamed members too, as C does. */
static bool find_member(Dwarf_Die *aggregate, const char *name, Dwarf_Die *ret_member, uint64_t *ret_bit) {
	Dwarf_Die child, inner;
	uint64_t bit;

	if (dwarf_child(aggregate, &child) != 0)
		return false;
	do {
		if (dwarf_tag(&child) != DW_TAG_member)
			continue;
		const char *child_name = dwarf_diename(&child);
		if (child_name && strcmp(child_name, name) == 0) {
			*ret_member = child;
			*ret_bit = member_bit(&child);
			return true;
		}
		if (!child_name && type_of(&child, &inner) && is_aggregate(&inner) &&
			find_member(&inner, name, ret_member, &bit)) {
			*ret_bit = member_bit(&child) + bit;
			return true;
		}
	} while (dwarf_siblingof(&child, &child) == 0);
	return false;
}

/* Bits from the type's start to "member.member.…", and how many of them its first member lies behind. */
static bool resolve_path(Dwarf_Die aggregate, const char *path, uint64_t *ret_bit, uint64_t *ret_first_bit) {
	char names[64], *rest = names, *name;
	uint64_t bit = 0, first = 0, here;
	Dwarf_Die member;

	snprintf(names, sizeof(names), "%s", path);
	for (bool is_first = true; (name = strsep(&rest, ".")); is_first = false) {
		if (!is_first && (!type_of(&member, &aggregate) || !is_aggregate(&aggregate)))
			return false;
		if (!find_member(&aggregate, name, &member, &here))
			return false;
		bit += here;
		if (is_first)
			first = here;
	}
	*ret_bit = bit;
	*ret_first_bit = first;
	return true;
}

static uint32_t measure_in(const struct field *field, struct type *type) {
	char path[64];
	uint64_t bit, first;

	if (field->kind == KIND_SIZE) {
		int size = dwarf_bytesize(&type->die);
		return size < 0 ? LAYOUT_NONE : (uint32_t)size;
	}
	for (const char *at = next_alternative(field->paths, path); at; at = next_alternative(at, path))
		if (resolve_path(type->die, path, &bit, &first))
			return (uint32_t)(field->kind == KIND_BIT ? bit - first : bit / 8);
	return LAYOUT_NONE;
}

static uint32_t measure(const struct field *field, struct types *types) {
	char spec[64];

	for (const char *at = next_alternative(field->types, spec); at; at = next_alternative(at, spec)) {
		struct type *type = types_find(types, spec);
		uint32_t value = type->found ? measure_in(field, type) : LAYOUT_NONE;
		if (value != LAYOUT_NONE)
			return value;
	}
	return LAYOUT_NONE;
}

/* Fills in the values that the files before did not show. */
static void build_measure(struct build *build, const char *file) {
	struct types types = { .n = 0 };
	int fd = open(file, O_RDONLY | O_CLOEXEC);
	Dwarf *dwarf = fd < 0 ? NULL : dwarf_begin(fd, DWARF_C_READ);

	if (!dwarf)
		die_with("%s: %s: %s", build->names, file, fd < 0 ? strerror(errno) : dwarf_errmsg(-1));
	types_collect(&types);
	types_look_up(&types, dwarf);
	for (size_t i = 0; i < FIELDS_N; i++)
		if (build->values[i] == LAYOUT_NONE)
			build->values[i] = measure(&fields[i], &types);
	dwarf_end(dwarf);
	close(fd);
}

static void build_measure_all(struct build *build, char *files) {
	for (size_t i = 0; i < FIELDS_N; i++)
		build->values[i] = LAYOUT_NONE;
	for (char *file; (file = strsep(&files, "\t"));)
		build_measure(build, file);
	if (build->values[0] == LAYOUT_NONE && build->first_version >= 0x03070000)
		die_with("%s: no debug information of CPython in it", build->names);
}

static size_t builds_read(struct build builds[static BUILDS_MAX]) {
	char line[4096], files[4096];
	size_t n = 0;

	while (fgets(line, sizeof(line), stdin)) {
		struct build *build = &builds[n];
		if (n == BUILDS_MAX)
			die_with("more than %d builds", BUILDS_MAX);
		if (sscanf(line, "%" SCNx32 " %u %100s %4095[^\n]", &build->first_version, &build->flavour,
			    build->names, files) != 4)
			die_with("not `VERSION_HEX FLAVOUR NAME FILE…`: %s", line);
		build->last_version = build->first_version;
		build_measure_all(build, files);
		n++;
	}
	return n;
}

static int by_flavour_and_version(const void *left, const void *right) {
	const struct build *a = left, *b = right;
	uint32_t a_minor = a->first_version & MINOR_MASK, b_minor = b->first_version & MINOR_MASK;

	if (a_minor != b_minor)
		return a_minor < b_minor ? -1 : 1;
	if (a->flavour != b->flavour)
		return a->flavour < b->flavour ? -1 : 1;
	return (a->first_version > b->first_version) - (a->first_version < b->first_version);
}

static int by_version_and_flavour(const void *left, const void *right) {
	const struct build *a = left, *b = right;

	if (a->first_version != b->first_version)
		return a->first_version < b->first_version ? -1 : 1;
	return (a->flavour > b->flavour) - (a->flavour < b->flavour);
}

static bool same_group(const struct build *a, const struct build *b) {
	return (a->first_version & MINOR_MASK) == (b->first_version & MINOR_MASK) && a->flavour == b->flavour;
}

static void append_name(char names[static NAME_MAX_LEN], const char *more) {
	size_t length = strlen(names);

	snprintf(names + length, NAME_MAX_LEN - length, ", %s", more);
}

/* Joins equal neighbours, then stretches each group's outermost rows to the ends of the minor version. */
static size_t builds_merge(struct build *builds, size_t n) {
	size_t rows = 0;

	qsort(builds, n, sizeof(builds[0]), by_flavour_and_version);
	for (size_t i = 0; i < n; i++) {
		struct build *last = rows ? &builds[rows - 1] : NULL;
		if (last && same_group(last, &builds[i]) &&
			memcmp(last->values, builds[i].values, sizeof(last->values)) == 0) {
			last->last_version = builds[i].last_version;
			append_name(last->names, builds[i].names);
		} else {
			builds[rows++] = builds[i];
		}
	}
	for (size_t i = 0; i < rows; i++) {
		bool is_first = i == 0 || !same_group(&builds[i - 1], &builds[i]);
		bool is_last = i + 1 == rows || !same_group(&builds[i], &builds[i + 1]);
		builds[i].first_version &= is_first ? MINOR_MASK : ~0xffu;
		builds[i].last_version |= is_last ? ~MINOR_MASK : 0xffu;
	}
	return rows;
}

static struct build *row_of(struct build *rows, size_t n, uint32_t version, unsigned flavour) {
	for (size_t i = 0; i < n; i++)
		if (rows[i].flavour == flavour && rows[i].first_version <= version && version <= rows[i].last_version)
			return &rows[i];
	return NULL;
}

static void set_value(struct build *row, const char *assignment) {
	char name[64], value[32];

	if (sscanf(assignment, "%63[^=]=%31s", name, value) != 2)
		die_with("not name=value: %s", assignment);
	for (size_t i = 0; i < FIELDS_N; i++) {
		if (strcmp(fields[i].name, name) != 0)
			continue;
		row->values[i] = strcmp(value, "none") == 0 ? LAYOUT_NONE : (uint32_t)strtoul(value, NULL, 10);
		return;
	}
	die_with("no such field: %s", name);
}

/* `FIRST LAST FLAVOUR FROM FROM_FLAVOUR FROM_FIRST name=value …`: the row that holds version FROM of FROM_FLAVOUR,
 * changed, for FIRST to LAST of FLAVOUR; that row itself then begins at FROM_FIRST ("-": as before). Does nothing
 * without such a row, or where a row for FIRST was measured. Return: the number of rows. */
static size_t known_apply(struct build *rows, size_t n, char *line) {
	uint32_t first, last, from;
	unsigned flavour, from_flavour;
	char from_first[16];
	int used = 0;

	if (sscanf(line, "%" SCNx32 " %" SCNx32 " %u %" SCNx32 " %u %15s %n", &first, &last, &flavour, &from,
		    &from_flavour, from_first, &used) != 6)
		die_with("not `FIRST LAST FLAVOUR FROM FROM_FLAVOUR FROM_FIRST name=value …`: %s", line);
	struct build *base = row_of(rows, n, from, from_flavour);
	if (!base)
		return n;
	if (n == BUILDS_MAX)
		die_with("more than %d rows", BUILDS_MAX);
	struct build *row = &rows[n];
	*row = *base;
	if (strcmp(from_first, "-") != 0)
		base->first_version = (uint32_t)strtoul(from_first, NULL, 16);
	if (row_of(rows, n, first, flavour))
		return n;
	row->first_version = first;
	row->last_version = last;
	row->flavour = flavour;
	snprintf(row->names, sizeof(row->names), "not measured: see tools/layout-known");
	line += used;
	for (char *word; (word = strsep(&line, " \t\n"));)
		if (*word)
			set_value(row, word);
	return n + 1;
}

/* A line that begins with a blank continues the one before. */
static size_t known_read(struct build *rows, size_t n, const char *file) {
	char line[512], entry[8192] = "";
	FILE *stream = fopen(file, "re");

	if (!stream)
		die_with("%s: %s", file, strerror(errno));
	while (fgets(line, sizeof(line), stream)) {
		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (line[0] != ' ' && line[0] != '\t') {
			if (entry[0])
				n = known_apply(rows, n, entry);
			entry[0] = '\0';
		}
		size_t length = strlen(entry);
		snprintf(entry + length, sizeof(entry) - length, "%s", line);
	}
	if (entry[0])
		n = known_apply(rows, n, entry);
	fclose(stream);
	return n;
}

static void print_flavour(unsigned flavour) {
	if (flavour == LAYOUT_RELEASE)
		printf("LAYOUT_RELEASE");
	else
		printf("%s%s%s", flavour & LAYOUT_DEBUG ? "LAYOUT_DEBUG" : "", flavour == 3 ? " | " : "",
			flavour & LAYOUT_FREE_THREADED ? "LAYOUT_FREE_THREADED" : "");
}

static void print_row(const struct build *row) {
	printf("\t/* %s */\n\t{ 0x%08" PRIx32 ", 0x%08" PRIx32 ", ", row->names, row->first_version, row->last_version);
	print_flavour(row->flavour);
	printf(", {");
	for (size_t i = 0, column = 200; i < FIELDS_N; i++) {
		char text[96];
		int length = row->values[i] == LAYOUT_NONE
			? snprintf(text, sizeof(text), ".%s = NONE,", fields[i].name)
			: snprintf(text, sizeof(text), ".%s = %" PRIu32 ",", fields[i].name, row->values[i]);
		if (column + 1 + (size_t)length > 118) {
			printf("\n\t\t%s", text);
			column = 16 + (size_t)length;
		} else {
			printf(" %s", text);
			column += 1 + (size_t)length;
		}
	}
	printf("\n\t} },\n");
}

static void print_tables(const struct build *rows, size_t n) {
	puts("/* SPDX-License-Identifier: MIT */\n"
	     "/* The layout of CPython's structures, one row for each range of versions and flavour. Generated: do not "
	     "edit.\n"
	     " *\n"
	     " * Made by `tools/layout-tables --write`: tools/layout-gen.c looks up every line of layout_fields.def in "
	     "the\n"
	     " * debug information of the builds that each row names (version, where it comes from, -dbg for "
	     "Py_DEBUG), on\n"
	     " * x86-64. tools/layout-known adds what could not be measured. */\n"
	     "/* clang-format off */\n"
	     "#include \"engine/cpython/layout.h\"\n"
	     "\n"
	     "#define NONE LAYOUT_NONE\n"
	     "\n"
	     "const struct layout_row layout_rows[] = {");
	for (size_t i = 0; i < n; i++)
		print_row(&rows[i]);
	puts("};\n\nconst size_t layout_rows_n = sizeof(layout_rows) / sizeof(layout_rows[0]);");
}

static void print_difference(const struct build *a, const struct build *b) {
	for (size_t i = 0; i < FIELDS_N; i++)
		if (a->values[i] != b->values[i])
			printf("%s\t%s\t%s\t%" PRId32 "\t%" PRId32 "\n", a->names, b->names, fields[i].name,
				(int32_t)a->values[i], (int32_t)b->values[i]);
}

/* The release build to hold another flavour against: the same version's, or else the minor version's first. */
static const struct build *release_of(const struct build *builds, size_t n, const struct build *build) {
	const struct build *found = NULL;

	for (size_t i = 0; i < n; i++) {
		if (builds[i].flavour != LAYOUT_RELEASE)
			continue;
		if (builds[i].first_version == build->first_version)
			return &builds[i];
		if (!found && (builds[i].first_version & MINOR_MASK) == (build->first_version & MINOR_MASK))
			found = &builds[i];
	}
	return found;
}

/* Each build against the patch release before it, and each other flavour against a release build. */
static void compare(struct build *builds, size_t n) {
	qsort(builds, n, sizeof(builds[0]), by_flavour_and_version);
	for (size_t i = 0; i < n; i++) {
		const struct build *release = release_of(builds, n, &builds[i]);
		if (i > 0 && same_group(&builds[i - 1], &builds[i]))
			print_difference(&builds[i - 1], &builds[i]);
		if (builds[i].flavour != LAYOUT_RELEASE && release)
			print_difference(release, &builds[i]);
	}
}

int main(int argc, char **argv) {
	static struct build builds[BUILDS_MAX];
	bool comparing = argc == 2 && strcmp(argv[1], "--compare") == 0;

	if (argc > 2)
		die_with("usage: layout-gen [--compare | KNOWN-FILE] < BUILDS");
	size_t n = builds_read(builds);
	if (comparing) {
		compare(builds, n);
		return 0;
	}
	n = builds_merge(builds, n);
	if (argc == 2)
		n = known_read(builds, n, argv[1]);
	qsort(builds, n, sizeof(builds[0]), by_version_and_flavour);
	print_tables(builds, n);
	return fflush(stdout) == 0 ? 0 : 1;
}
