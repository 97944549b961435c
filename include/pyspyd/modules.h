/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_MODULES_H
#define PYSPYD_MODULES_H

#include "pyspyd/err.h"
#include "pyspyd/stack.h"

/* What a process has loaded: Python modules of every interpreter with their versions, and native libraries. Strings
 * are the target's: not yet fit for a terminal (the writers see to that). */

enum pyspyd_module_kind {
	PYSPYD_MODULE_BUILTIN, /* compiled into the interpreter */
	PYSPYD_MODULE_FROZEN,  /* its bytecode is */
	PYSPYD_MODULE_STDLIB,  /* a file of the standard library */
	PYSPYD_MODULE_FILE,    /* any other file */
	PYSPYD_MODULE_NONE,    /* no file: a namespace package, made at run time */
};

/* One entry of sys.modules. */
struct pyspyd_module {
	int64_t interpreter;
	char *name;
	char *file; /* __file__, else the spec's origin; "" where it has none */
	enum pyspyd_module_kind kind;
	char *version;            /* NULL: not known */
	const char *version_from; /* static: "distribution", "interpreter", "__version__"; NULL: not known */
	char *distribution;       /* the installed distribution that it belongs to; NULL: none is known */
	char *also;               /* another module object made of the same file; NULL: none */
	char *expected;           /* the version that was expected instead; NULL: it is that, or none was */
};

/* One file of native code that is mapped. */
struct pyspyd_library {
	char *path;          /* without " (deleted)" */
	char *soname;        /* NULL: none, or not to be read */
	char *build_id;      /* hexadecimal; NULL likewise */
	uint64_t address;    /* lowest of its mappings */
	bool deleted;        /* the file that is mapped is not at its path any more */
	char *same_as;       /* another path under which the same library is mapped; NULL: none */
	char *other_version; /* path of another library of that name that is not the same by its build id; NULL: none */
};

enum pyspyd_expected_state {
	PYSPYD_EXPECTED_OK,
	PYSPYD_EXPECTED_OTHER,        /* imported in another version */
	PYSPYD_EXPECTED_UNKNOWN,      /* imported, in a version that is not known */
	PYSPYD_EXPECTED_NOT_IMPORTED, /* whether or not it is installed */
};

/* One line of what was expected. */
struct pyspyd_expected {
	char *name;    /* as it was given */
	char *version; /* likewise */
	unsigned line;
	enum pyspyd_expected_state state;
	char *found; /* the version that is there; NULL: none, or not known */
	char *file;  /* of the module that says so; NULL: none */
};

struct pyspyd_modules {
	struct pyspyd_process process;
	size_t interpreters;
	struct pyspyd_module *modules; /* by interpreter and name */
	size_t modules_n;
	struct pyspyd_library *libraries; /* by path */
	size_t libraries_n;
	bool expects;                     /* something was expected */
	struct pyspyd_expected *expected; /* in the order of the lines */
	size_t expected_n;
	bool incomplete; /* a limit was met, or something could not be read */
};

struct pyspyd_modules_options {
	struct pyspyd_core_source core; /* with a file: the process in it, and `pid` does not matter */
	/* Lines "name==version" as a file of requirements has them, with comments, extras, --hash options and lines
	 * that go on behind a backslash; NULL: nothing is expected. */
	const char *expect;
	const char *expect_name; /* of the file, for messages */
};

/* Looks at a live process, or at a dead one. Return: 0; PYSPYD_E_USAGE: a line of what is expected says something else
 * than an exact version; PYSPYD_E_GONE, _DENIED, _UNSUPPORTED, _STARTING; negative errno. *ret_modules is the caller's.
 */
int pyspyd_modules_look(
	pid_t pid, const struct pyspyd_modules_options *options, struct pyspyd_modules **ret_modules, struct err *err);
void pyspyd_modules_free(struct pyspyd_modules *modules);

/* pyspyd.modules/1 in one line; tables for people: of modules, those outside of the standard library that are not
 * inside of a package, or `all`. The caller's to free(); NULL when out of memory. */
char *pyspyd_modules_json(const struct pyspyd_modules *modules);
char *pyspyd_modules_text(const struct pyspyd_modules *modules, bool all, bool colour);

#endif
