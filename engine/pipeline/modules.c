/* SPDX-License-Identifier: MIT */
/* pyspyd_modules_look: sys.modules of every interpreter, the files that the modules came from, the distributions that
 * own those, native libraries, and what of it is not as expected.
 *
 * A module's import root is its file's folder without the packages that its name says. Whose a file is, RECORD says in
 * any root that it lies in; by a mere name it is found only in the module's own root, so that a program's own
 * "requests.py" does not get the version of the installed one. */
#include "pyspyd/modules.h"

#include "engine/base/clock.h"
#include "engine/base/strbuf.h"
#include "engine/cpython/imported.h"
#include "engine/pipeline/describe.h"
#include "engine/pipeline/distributions.h"
#include "engine/pipeline/expect.h"
#include "engine/pipeline/libraries.h"
#include "engine/pipeline/subject.h"
#include <errno.h>
#include <string.h>

#define STARTING_WAIT_NS (2 * NS_PER_SEC)
#define ROOTS_MAX 256
#define TRIES 5 /* a dict that changes while it is read */

typedef VEC(struct pyspyd_module) module_vec;
typedef VEC(struct distribution_root) root_vec;

struct look {
	struct sample_target *target;
	struct pyspyd_modules *result;
	module_vec modules;
	VEC(raddr) objects; /* of the modules */
	root_vec roots;
	char *python; /* version of the interpreter, without letters of the build */
};

static const char *base_name(const char *path) {
	const char *slash = strrchr(path, '/');

	return slash ? slash + 1 : path;
}

/* Kinds */

/* The folder of the standard library: where `os` is, which every interpreter imports. NULL: not known. */
static char *find_stdlib(const py_imported_vec *imported) {
	vec_foreach (module, imported) {
		const char *slash = module->file ? strrchr(module->file, '/') : NULL;

		if (slash && !strcmp(module->name, "os"))
			return strndup(module->file, (size_t)(slash + 1 - module->file));
	}
	return NULL;
}

static bool is_below(const char *path, const char *folder) {
	return folder && !strncmp(path, folder, strlen(folder));
}

static bool is_in_stdlib(const char *file, const char *stdlib) {
	return is_below(file, stdlib) && !is_below(file + strlen(stdlib), "site-packages/") &&
		!is_below(file + strlen(stdlib), "dist-packages/");
}

static enum pyspyd_module_kind kind_of(const struct py_imported *module, const char *stdlib) {
	if (module->origin && !strcmp(module->origin, "built-in"))
		return PYSPYD_MODULE_BUILTIN;
	if (module->origin && !strcmp(module->origin, "frozen"))
		return PYSPYD_MODULE_FROZEN;
	if (module->file)
		return is_in_stdlib(module->file, stdlib) ? PYSPYD_MODULE_STDLIB : PYSPYD_MODULE_FILE;
	return PYSPYD_MODULE_NONE;
}

/* Reading */

static int add_module(struct look *look, int64_t interp, struct py_imported *from, const char *stdlib) {
	struct pyspyd_module module = { .interpreter = interp };
	int r;

	if (!from->file && from->origin && from->origin[0] == '/')
		from->file = take_ptr(from->origin);
	module.kind = kind_of(from, stdlib);
	module.name = take_ptr(from->name);
	module.file = from->file ? take_ptr(from->file) : strdup("");
	r = module.file ? vec_push(&look->objects, from->object) : -ENOMEM;
	if (!r)
		r = vec_push(&look->modules, module);
	if (r) {
		free(module.name);
		free(module.file);
		return r;
	}
	if (module.kind >= PYSPYD_MODULE_FILE && from->version) {
		look->modules.items[look->modules.n - 1].version = take_ptr(from->version);
		look->modules.items[look->modules.n - 1].version_from = "__version__";
	}
	return 0;
}

static int compare_imported(const void *a, const void *b) {
	return strcmp(((const struct py_imported *)a)->name, ((const struct py_imported *)b)->name);
}

/* What a running program has in pieces is read again; then what there was of it is taken, marked incomplete. */
static int read_imported(struct look *look, raddr interp, py_imported_vec *imported) {
	int r = PY_E_TORN;

	for (int i = 0; r > 0 && r != MEM_E_GONE && r != PY_E_TRUNCATED && i < TRIES; i++) {
		py_imported_free(imported);
		r = py_imported_read(&look->target->rt, interp, imported);
	}
	look->result->incomplete |= r != 0;
	return r < 0 || r == MEM_E_GONE ? r : 0;
}

static int read_interp(struct look *look, const struct py_interp *interp) {
	py_imported_vec imported = { 0 };
	_free_ char *stdlib = NULL;
	int r = read_imported(look, interp->addr, &imported);

	if (!r && imported.n)
		qsort(imported.items, imported.n, sizeof(*imported.items), compare_imported);
	stdlib = find_stdlib(&imported);
	for (size_t i = 0; !r && i < imported.n; i++)
		r = add_module(look, interp->id, &imported.items[i], stdlib);
	py_imported_free(&imported);
	return r;
}

static int read_interps(struct look *look) {
	py_interp_vec interps = { 0 };
	int r = py_interps_read(&look->target->rt, &interps);

	look->result->interpreters = interps.n;
	for (size_t i = interps.n; !r && i > 0; i--) {
		if (look->modules.n >= IMPORTED_MAX) {
			look->result->incomplete = true;
			break;
		}
		r = read_interp(look, &interps.items[i - 1]);
	}
	vec_free(&interps);
	return r;
}

/* Distributions */

/* Whether the module is a file that something may have installed. */
static bool may_be_installed(const struct pyspyd_module *module) {
	return module->kind == PYSPYD_MODULE_FILE && module->file[0] == '/';
}

/* Return: length of the import root's path, 0: the file does not lie as the name says. */
static size_t root_len(const struct pyspyd_module *module) {
	size_t len = strlen(module->file), up = 1;

	for (const char *dot = module->name; (dot = strchr(dot, '.')); dot++)
		up++;
	up += !strncmp(base_name(module->file), "__init__.", strlen("__init__."));
	for (; up; up--) {
		while (len && module->file[len - 1] != '/')
			len--;
		if (!len--)
			return 0;
	}
	return len;
}

static int add_root(struct look *look, const struct pyspyd_module *module) {
	size_t len = root_len(module);
	struct distribution_root root;
	char *path;
	int r;

	if (!len)
		return 0;
	vec_foreach (other, &look->roots)
		if (strlen(other->path) == len && !memcmp(other->path, module->file, len))
			return 0;
	if (look->roots.n == ROOTS_MAX) {
		look->result->incomplete = true;
		return 0;
	}
	path = strndup(module->file, len);
	if (!path)
		return -ENOMEM;
	distribution_root_init(&root, path);
	r = vec_push(&look->roots, root);
	if (r)
		free(path);
	return r;
}

/* Return: the file's path below the root; NULL. */
static const char *below_root(const struct distribution_root *root, const char *file) {
	size_t len = strlen(root->path);

	return !strncmp(file, root->path, len) && file[len] == '/' ? file + len + 1 : NULL;
}

static int want_files(struct look *look, struct distribution_root *root) {
	int r = 0;

	for (size_t i = 0; !r && i < look->modules.n; i++) {
		const struct pyspyd_module *module = &look->modules.items[i];
		const char *below = may_be_installed(module) ? below_root(root, module->file) : NULL;

		if (below)
			r = distribution_root_want(root, below);
	}
	return r;
}

static int read_roots(struct look *look) {
	int r = 0;

	for (size_t i = 0; !r && i < look->modules.n; i++)
		if (may_be_installed(&look->modules.items[i]))
			r = add_root(look, &look->modules.items[i]);
	vec_foreach (root, &look->roots) {
		if (!r)
			r = want_files(look, root);
		if (!r)
			r = distribution_root_read(&look->target->proc, root);
		look->result->incomplete |= root->incomplete;
	}
	return r == PROC_E_GONE ? MEM_E_GONE : r;
}

static const struct distribution *owner_by_name(const struct look *look, const struct pyspyd_module *module) {
	size_t len = root_len(module);

	vec_foreach (root, &look->roots) {
		const char *below = below_root(root, module->file);

		if (len && strlen(root->path) == len && below)
			return distribution_of_name(root, below, strcspn(below, "./"));
	}
	return NULL;
}

static const struct distribution *owner_of(const struct look *look, const struct pyspyd_module *module) {
	vec_foreach (root, &look->roots) {
		const char *below = below_root(root, module->file);
		const struct distribution *owner = below ? distribution_of_file(root, below) : NULL;

		if (owner)
			return owner;
	}
	return owner_by_name(look, module);
}

static int set_version(struct pyspyd_module *module, const char *version, const char *from) {
	char *copy = strdup(version);

	if (!copy)
		return -ENOMEM;
	free(module->version);
	module->version = copy;
	module->version_from = from;
	return 0;
}

static int find_version(const struct look *look, struct pyspyd_module *module) {
	const struct distribution *owner;

	if (module->kind < PYSPYD_MODULE_FILE)
		return set_version(module, look->python, "interpreter");
	owner = may_be_installed(module) ? owner_of(look, module) : NULL;
	if (!owner)
		return 0;
	module->distribution = strdup(owner->name);
	return module->distribution ? set_version(module, owner->version, "distribution") : -ENOMEM;
}

static int find_versions(struct look *look) {
	int r = read_roots(look);

	for (size_t i = 0; !r && i < look->modules.n; i++)
		r = find_version(look, &look->modules.items[i]);
	return r;
}

/* Modules made of one file */

struct file_entry {
	struct pyspyd_module *module;
	raddr object;
};

static int compare_files(const void *a, const void *b) {
	const struct file_entry *x = a, *y = b;
	int r = strcmp(x->module->file, y->module->file);

	if (!r)
		r = (x->module->interpreter > y->module->interpreter) -
			(x->module->interpreter < y->module->interpreter);
	return r ? r : strcmp(x->module->name, y->module->name);
}

/* `entries` are of one file and interpreter. Several names of one object are no second module. */
static int mark_also(const struct file_entry *entries, size_t n) {
	for (size_t i = 0; i < n; i++) {
		size_t other = 0;

		while (other < n && entries[other].object == entries[i].object)
			other++;
		if (other == n)
			return 0;
		entries[i].module->also = strdup(entries[other].module->name);
		if (!entries[i].module->also)
			return -ENOMEM;
	}
	return 0;
}

/* An extension module's file may hold several modules, and a frozen one's file was not what it was made of. */
static bool is_source(const struct pyspyd_module *module) {
	size_t len = strlen(module->file);

	return module->kind != PYSPYD_MODULE_FROZEN && len > 3 &&
		(!strcmp(module->file + len - 3, ".py") || (len > 4 && !strcmp(module->file + len - 4, ".pyc")));
}

static int mark_doubles(struct look *look) {
	struct file_entry *entries _free_ = calloc(look->modules.n + 1, sizeof(*entries));
	size_t n = 0, end;
	int r = 0;

	if (!entries)
		return -ENOMEM;
	for (size_t i = 0; i < look->modules.n; i++)
		if (is_source(&look->modules.items[i]))
			entries[n++] = (struct file_entry){ &look->modules.items[i], look->objects.items[i] };
	qsort(entries, n, sizeof(*entries), compare_files);
	for (size_t i = 0; !r && i < n; i = end) {
		for (end = i + 1; end < n; end++)
			if (strcmp(entries[i].module->file, entries[end].module->file) ||
				entries[i].module->interpreter != entries[end].module->interpreter)
				break;
		r = end - i > 1 ? mark_also(entries + i, end - i) : 0;
	}
	return r;
}

/* What was expected */

/* A module speaks for its distribution; without one, a top-level module for itself. */
static bool is_of(const struct pyspyd_module *module, const char *name) {
	if (module->distribution)
		return expect_same_name(module->distribution, name);
	return module->kind >= PYSPYD_MODULE_FILE && !strchr(module->name, '.') && expect_same_name(module->name, name);
}

static int judge(struct pyspyd_expected *expected, struct pyspyd_module *module) {
	bool same = module->version && expect_same_version(expected->version, module->version);
	bool worse = !same && expected->state != PYSPYD_EXPECTED_OTHER;

	if (!same && module->version && !module->expected) {
		module->expected = strdup(expected->version);
		if (!module->expected)
			return -ENOMEM;
	}
	if (expected->state != PYSPYD_EXPECTED_NOT_IMPORTED && !worse)
		return 0;
	free(expected->found);
	free(expected->file);
	expected->state = same ? PYSPYD_EXPECTED_OK : module->version ? PYSPYD_EXPECTED_OTHER : PYSPYD_EXPECTED_UNKNOWN;
	expected->found = module->version ? strdup(module->version) : NULL;
	expected->file = strdup(module->file);
	return expected->file && (!module->version || expected->found) ? 0 : -ENOMEM;
}

static int compare_expected(struct pyspyd_modules *result, struct pyspyd_module *modules, size_t n) {
	int r = 0;

	for (size_t i = 0; !r && i < result->expected_n; i++) {
		struct pyspyd_expected *expected = &result->expected[i];

		expected->state = PYSPYD_EXPECTED_NOT_IMPORTED;
		for (size_t k = 0; !r && k < n; k++)
			if (is_of(&modules[k], expected->name))
				r = judge(expected, &modules[k]);
	}
	return r;
}

/* All of it */

static void hand_over(struct look *look) {
	look->result->modules = take_ptr(look->modules.items);
	look->result->modules_n = look->modules.n;
	vec_free(&look->objects);
	vec_foreach (root, &look->roots)
		distribution_root_deinit(root);
	vec_free(&look->roots);
	free(look->python);
}

static int look_at(struct look *look) {
	struct pyspyd_modules *result = look->result;
	const char *version = look->target->rt.version;
	library_vec libraries = { 0 };
	int r = describe_process(&look->target->proc, version, &result->process);

	look->python = strndup(version, strcspn(version, "dt"));
	if (!r)
		r = look->python ? read_interps(look) : -ENOMEM;
	if (!r)
		r = find_versions(look);
	if (!r)
		r = mark_doubles(look);
	if (!r)
		r = compare_expected(result, look->modules.items, look->modules.n);
	if (r)
		return r == MEM_E_GONE ? PYSPYD_E_GONE : r == PY_E_TORN ? -EAGAIN : r == MEM_E_FAULT ? -EFAULT : r;
	r = libraries_read(&look->target->proc, &libraries, &result->incomplete);
	result->libraries = libraries.items;
	result->libraries_n = libraries.n;
	return r == PROC_E_GONE ? PYSPYD_E_GONE : r;
}

static int read_expected(const struct pyspyd_modules_options *options, struct pyspyd_modules *result, struct err *err) {
	expected_vec expected = { 0 };
	int r = 0;

	if (options->expect)
		r = expect_parse(options->expect, options->expect_name, &expected, err);
	result->expects = options->expect;
	result->expected = expected.items;
	result->expected_n = expected.n;
	return r;
}

int modules_expect(struct pyspyd_modules *modules, const struct pyspyd_modules_options *options, struct err *err) {
	int r = options->expect ? read_expected(options, modules, err) : 0;

	return r ? r : compare_expected(modules, modules->modules, modules->modules_n);
}

int pyspyd_modules_look(
	pid_t pid, const struct pyspyd_modules_options *options, struct pyspyd_modules **ret_modules, struct err *err) {
	struct pyspyd_modules *result = calloc(1, sizeof(*result));
	struct look look = { .result = result };
	struct subject subject = { 0 };
	int r = result ? read_expected(options, result, err) : -ENOMEM;

	if (!r)
		r = subject_open(pid, &options->core, STARTING_WAIT_NS, &subject, err);
	if (!r) {
		look.target = subject.target;
		r = look_at(&look);
		for (size_t i = 0; !r && i < result->libraries_n; i++)
			if (!result->libraries[i].build_id)
				result->libraries[i].build_id = subject_build_id(&subject, result->libraries[i].path);
		if (!r)
			r = subject_add_core(&subject, &result->process);
		hand_over(&look);
		if (r == PYSPYD_E_GONE)
			err_set(err, r, "process %d has ended", (int)pid);
		else if (r)
			err_set(err, r, "modules of process %d: %s", (int)pid, strerror(-r));
	} else if (r == -ENOMEM) {
		err_set(err, r, "out of memory");
	}
	subject_close(&subject);
	if (r)
		pyspyd_modules_free(result);
	else
		*ret_modules = result;
	return r;
}

static void free_module(struct pyspyd_module *module) {
	free(module->name);
	free(module->file);
	free(module->version);
	free(module->distribution);
	free(module->also);
	free(module->expected);
}

void pyspyd_modules_free(struct pyspyd_modules *modules) {
	if (!modules)
		return;
	for (size_t i = 0; i < modules->modules_n; i++)
		free_module(&modules->modules[i]);
	free(modules->modules);
	libraries_free(modules->libraries, modules->libraries_n);
	expect_free(modules->expected, modules->expected_n);
	pyspyd_process_deinit(&modules->process);
	free(modules);
}
