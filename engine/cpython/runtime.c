/* SPDX-License-Identifier: MIT */
/* From candidates (find.h) to a runtime that was checked.
 *
 * A layout is believed when the target's memory fits it: the interpreter's first thread state points back at it, sys is
 * a dict that has the hexversion which the layout was measured for, and sys.abiflags names the layout's flavour. That
 * holds for the tables as for the target's own debug offsets. */
#include "engine/cpython/runtime.h"

#include "engine/base/clock.h"
#include "engine/base/cursor.h"
#include "engine/base/limits.h"
#include "engine/cpython/debug_offsets.h"
#include "engine/cpython/find.h"
#include "engine/cpython/objects.h"
#include "engine/cpython/threads.h"
#include <errno.h>
#include <time.h>

#define FIRST_WITH_OWN_TABLE 0x030d0000U
#define RETRY_NS (10 * NS_PER_MS)
#define YOUNG_NS (1000 * NS_PER_MS) /* a process younger than this may still exec into a Python */

/* An attempt's result that only means "not this one". */
#define NO_MATCH PY_E_TYPE

struct attempt {
	struct mem *mem;
	const struct py_candidate *candidate;
	uint32_t version; /* what the target says of itself before it is looked at closely; 0: nothing */
	struct err *err;
};

static raddr interp_head_of(const struct py_candidate *candidate, const struct layout *l) {
	return candidate->interp_head ? candidate->interp_head : candidate->runtime + l->runtime_interpreters_head;
}

static raddr runtime_of(const struct py_candidate *candidate, const struct layout *l) {
	if (candidate->runtime || !layout_has(l->runtime_interpreters_head))
		return candidate->runtime;
	return candidate->interp_head - l->runtime_interpreters_head;
}

static bool plausible(uint64_t pointer) {
	return pointer >= 0x1000 && pointer < 1ULL << 56 && !(pointer & 7);
}

/* The newest interpreter that has threads, and its newest one: do they know each other? One that is idle may have none.
 */
static int check_lists(const struct py_runtime *rt, raddr *ret_interp) {
	const struct layout *l = &rt->reader.layout;
	struct mem *mem = rt->reader.mem;
	uint64_t interp, tstate = 0, back;
	int r = mem_read_u64(mem, rt->interp_head, &interp);

	if (r)
		return r;
	for (unsigned i = 0; interp && i < LIMIT_INTERPRETERS; i++) {
		if (!plausible(interp) || mem_read_u64(mem, interp + l->interp_threads_head, &tstate))
			return NO_MATCH;
		if (tstate)
			break;
		if (mem_read_u64(mem, interp + l->interp_next, &interp))
			return NO_MATCH;
	}
	if (!interp || !tstate)
		return PYSPYD_E_STARTING;
	if (!plausible(tstate) || mem_read_u64(mem, tstate + l->tstate_interp, &back) || back != interp)
		return NO_MATCH;
	*ret_interp = interp;
	return 0;
}

static int read_sys(const struct py_runtime *rt, raddr interp, int64_t *ret_hexversion, struct strbuf *abiflags) {
	const struct py_reader *py = &rt->reader;
	uint64_t sysdict;
	raddr value;
	int r = mem_read_u64(py->mem, interp + py->layout.interp_sysdict, &sysdict);

	if (r)
		return r;
	if (!sysdict)
		return PYSPYD_E_STARTING;
	r = py_dict_get(py, sysdict, "hexversion", &value);
	if (!r)
		r = py_long_read(py, value, ret_hexversion);
	if (!r)
		r = py_dict_get(py, sysdict, "abiflags", &value);
	if (!r)
		r = py_text_read(py, value, 16, abiflags);
	return r;
}

static unsigned flavour_of(const char *abiflags) {
	return (strchr(abiflags, 'd') ? LAYOUT_DEBUG : 0U) | (strchr(abiflags, 't') ? LAYOUT_FREE_THREADED : 0U);
}

static void write_version(struct py_runtime *rt) {
	static const char *const levels[16] = { [0xa] = "a", [0xb] = "b", [0xc] = "rc" };
	uint32_t v = rt->reader.version;
	const char *level = levels[v >> 4 & 0xf];
	int n = snprintf(rt->version, sizeof(rt->version), "%u.%u.%u", v >> 24, v >> 16 & 0xff, v >> 8 & 0xff);

	if (level)
		n += snprintf(rt->version + n, sizeof(rt->version) - (size_t)n, "%s%u", level, v & 0xf);
	snprintf(rt->version + n, sizeof(rt->version) - (size_t)n, "%s%s",
		rt->reader.flavour & LAYOUT_FREE_THREADED ? "t" : "", rt->reader.flavour & LAYOUT_DEBUG ? "d" : "");
}

static void set_statics(struct py_runtime *rt, const struct py_candidate *candidate) {
	const struct layout *l = &rt->reader.layout;

	rt->statics = candidate->statics;
	rt->tstate_current = candidate->tstate_current;
	if (rt->runtime && layout_has(l->runtime_tstate_current))
		rt->tstate_current = rt->runtime + l->runtime_tstate_current;
	if (rt->runtime && layout_has(l->runtime_gil) && !layout_has(l->interp_gil))
		rt->gil = rt->runtime + l->runtime_gil;
}

/* Does the memory look as this layout says? Return: 0 and *rt complete; NO_MATCH; PYSPYD_E_STARTING; MEM_E_GONE;
 * negative errno. */
static int try_layout(const struct attempt *attempt, const struct layout *layout, const struct layout_row *row,
	struct py_runtime *rt) {
	struct strbuf _cleanup_(strbuf_deinit) abiflags = { 0 };
	int64_t hexversion = 0;
	raddr interp;
	int r;

	*rt = (struct py_runtime){
		.reader = { .mem = attempt->mem,
			.layout = *layout,
			.version = row->first_version,
			.flavour = row->flavour },
		.interp_head = interp_head_of(attempt->candidate, layout),
		.runtime = runtime_of(attempt->candidate, layout),
		.pthread_tid = LAYOUT_NONE,
	};
	r = check_lists(rt, &interp);
	if (r)
		return r == MEM_E_FAULT ? NO_MATCH : r;
	r = read_sys(rt, interp, &hexversion, &abiflags);
	if (r == PY_E_TYPE && attempt->version)
		return PYSPYD_E_STARTING; /* the version is certain, so sys is just not filled yet */
	if (r)
		return r == PYSPYD_E_STARTING || r == MEM_E_GONE || r < 0 ? r : NO_MATCH;
	if (hexversion < 0 || hexversion > UINT32_MAX || layout_find((uint32_t)hexversion, row->flavour) != row ||
		(attempt->version >= FIRST_WITH_OWN_TABLE && hexversion != attempt->version) ||
		flavour_of(strbuf_str(&abiflags)) != row->flavour)
		return NO_MATCH;
	rt->reader.version = (uint32_t)hexversion;
	set_statics(rt, attempt->candidate);
	write_version(rt);
	return 0;
}

static int unsupported_version(const struct attempt *attempt, const char *flavour) {
	return err_set(attempt->err, PYSPYD_E_UNSUPPORTED,
		"this is a %sPython %u.%u.%u, a version that this pyspyd does not know", flavour,
		attempt->version >> 24, attempt->version >> 16 & 0xff, attempt->version >> 8 & 0xff);
}

/* 3.13+: the target's own table over the measured layout. */
static int try_own_table(
	const struct attempt *attempt, const struct debug_offsets_header *header, struct py_runtime *rt) {
	const unsigned threading = header->free_threaded ? LAYOUT_FREE_THREADED : 0;
	const unsigned flavours[] = { threading, threading | LAYOUT_DEBUG };
	uint8_t table[DEBUG_OFFSETS_MAX_BYTES];
	int r, best = NO_MATCH;

	r = mem_read(attempt->mem, attempt->candidate->runtime, table, header->table_bytes);
	if (r)
		return r;
	for (size_t i = 0; i < ARRAY_SIZE(flavours); i++) {
		const struct layout_row *row = layout_find(header->version, flavours[i]);
		struct layout layout;

		if (!row)
			continue;
		layout = row->layout;
		r = debug_offsets_apply(header, table, header->table_bytes, &layout, attempt->err);
		if (!r)
			r = try_layout(attempt, &layout, row, rt);
		if (!r || r == MEM_E_GONE || r < 0)
			return r;
		if (best == NO_MATCH || r == PYSPYD_E_STARTING)
			best = r;
	}
	return best == NO_MATCH ? unsupported_version(attempt, "differently built ") : best;
}

static bool row_fits(const struct attempt *attempt, const struct layout_row *row, bool same_size) {
	uint64_t bytes = attempt->candidate->runtime_bytes;

	if (row->first_version >= FIRST_WITH_OWN_TABLE)
		return false;
	if (attempt->version && PY_MINOR(attempt->version) != PY_MINOR(row->first_version))
		return false;
	if (!layout_has(row->layout.runtime_interpreters_head) != !attempt->candidate->runtime &&
		!attempt->candidate->interp_head)
		return false;
	return !bytes || !layout_has(row->layout.runtime_size) || (bytes == row->layout.runtime_size) == same_size;
}

/* To 3.12: the measured layouts; first those whose _PyRuntime has the size that is seen, then the others. */
static int try_rows(const struct attempt *attempt, struct py_runtime *rt) {
	int best = NO_MATCH;

	for (int same_size = 1; same_size >= 0; same_size--) {
		for (size_t i = 0; i < layout_rows_n; i++) {
			const struct layout_row *row = &layout_rows[i];
			int r;

			if (!row_fits(attempt, row, same_size))
				continue;
			r = try_layout(attempt, &row->layout, row, rt);
			if (!r || r == MEM_E_GONE || r < 0)
				return r;
			if (r == PYSPYD_E_STARTING && same_size)
				best = r;
		}
	}
	return best;
}

static int try_candidate(
	struct mem *mem, const struct py_candidate *candidate, struct py_runtime *rt, struct err *err) {
	struct attempt attempt = { .mem = mem, .candidate = candidate, .version = candidate->version, .err = err };
	uint8_t bytes[DEBUG_OFFSETS_HEADER_BYTES];
	struct debug_offsets_header header;
	int r;

	if (candidate->runtime) {
		r = mem_read(mem, candidate->runtime, bytes, sizeof(bytes));
		if (r)
			return r == MEM_E_FAULT ? NO_MATCH : r;
		r = debug_offsets_header_parse(bytes, sizeof(bytes), &header);
		if (r != -ENODATA) {
			attempt.version = header.version;
			return r ? unsupported_version(&attempt, "") : try_own_table(&attempt, &header, rt);
		}
	}
	if (attempt.version >= FIRST_WITH_OWN_TABLE) /* the table is zero until the runtime is set up */
		return layout_find(attempt.version, LAYOUT_RELEASE) ? PYSPYD_E_STARTING
								    : unsupported_version(&attempt, "");
	r = try_rows(&attempt, rt);
	if (r == NO_MATCH && attempt.version)
		return unsupported_version(&attempt, "");
	return r;
}

static int condition_of(int r) {
	switch (r) {
	case MEM_E_GONE: return PYSPYD_E_GONE;
	case -EPERM:
	case -EACCES: return PYSPYD_E_DENIED;
	default: return r;
	}
}

static int try_pass(const struct proc *proc, struct mem *mem, const proc_map_vec *maps, enum py_find_pass pass,
	struct py_runtime *rt, struct err *err) {
	py_candidate_vec candidates = { 0 };
	int best = NO_MATCH;
	int r = py_find(proc, mem, maps, pass, &candidates);

	for (size_t i = 0; !r && i < candidates.n; i++) {
		int tried = try_candidate(mem, &candidates.items[i], rt, err);

		if (!tried || tried == MEM_E_GONE || tried < 0) {
			best = tried;
			break;
		}
		if (best != PYSPYD_E_STARTING && tried != MEM_E_FAULT)
			best = tried == NO_MATCH ? best : tried;
	}
	vec_free(&candidates);
	return r ? r == PROC_E_GONE ? MEM_E_GONE : r : best;
}

static int find_runtime(
	const struct proc *proc, struct mem *mem, const proc_map_vec *maps, struct py_runtime *rt, struct err *err) {
	const char *other = py_find_what_else(maps);
	int r = NO_MATCH;

	for (int pass = 0; pass < PY_FIND_PASSES && r == NO_MATCH; pass++) {
		if (other && pass == PY_FIND_OTHERS)
			break;
		r = condition_of(try_pass(proc, mem, maps, (enum py_find_pass)pass, rt, err));
	}
	if (r == NO_MATCH)
		return other ? err_set(err, PYSPYD_E_UNSUPPORTED, "%s", other)
			     : err_set(err, PYSPYD_E_UNSUPPORTED,
				       "no CPython interpreter of 3.6 to 3.15 in it (%.200s)", maps->items[0].path);
	if (r == PYSPYD_E_STARTING)
		return err_set(err, r, "its Python interpreter is still starting, or already ending");
	return r;
}

static int finish(const struct proc *proc, struct py_runtime *rt) {
	struct proc_status status;
	py_thread_vec threads = { 0 };
	int r = proc_status_read(proc, &status);

	if (r)
		return r == PROC_E_GONE ? PYSPYD_E_GONE : r;
	rt->foreign_tids = status.ns_depth > 1;
	if (layout_has(rt->reader.layout.tstate_native_thread_id))
		return 0;
	r = py_threads_read(rt, proc, &threads);
	if (!r && threads.n)
		rt->pthread_tid = py_pthread_tid_offset(rt, proc, threads.items[threads.n - 1].ident);
	vec_free(&threads);
	return r == MEM_E_GONE ? PYSPYD_E_GONE : r < 0 ? r : 0;
}

int py_runtime_attach(const struct proc *proc, struct mem *mem, struct py_runtime *ret_runtime, struct err *err) {
	proc_map_vec maps = { 0 };
	struct py_runtime rt;
	int r = proc_maps_read(proc, &maps);

	if (r)
		return r == PROC_E_GONE ? PYSPYD_E_GONE : condition_of(r);
	if (!maps.n) /* a kernel thread, or a process that has let go of its memory: it ends */
		r = proc_alive(proc)
			? err_set(err, PYSPYD_E_UNSUPPORTED, "it has no memory of its own (a kernel thread)")
			: PYSPYD_E_GONE;
	else
		r = find_runtime(proc, mem, &maps, &rt, err);
	proc_maps_free(&maps);
	if (!r)
		r = finish(proc, &rt);
	if (!r)
		*ret_runtime = rt;
	return r;
}

/* A process that has just begun may be a shell or a loader that becomes a Python in a moment. */
static bool is_young(const struct proc *proc) {
	uint64_t age_ticks = clock_boot_ns() / (NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK)) - proc->start_ticks;

	return age_ticks * (NS_PER_SEC / (uint64_t)sysconf(_SC_CLK_TCK)) < YOUNG_NS;
}

int py_runtime_attach_wait(
	const struct proc *proc, struct mem *mem, uint64_t wait_ns, struct py_runtime *ret_runtime, struct err *err) {
	uint64_t end = clock_mono_ns() + wait_ns;

	for (;;) {
		int r = py_runtime_attach(proc, mem, ret_runtime, err);

		if (r != PYSPYD_E_STARTING && !(r == PYSPYD_E_UNSUPPORTED && is_young(proc)))
			return r;
		if (clock_mono_ns() >= end)
			return r;
		nanosleep(&(struct timespec){ .tv_nsec = (long)RETRY_NS }, NULL);
	}
}

int py_runtime_check(const struct py_runtime *rt) {
	raddr interp;

	return check_lists(rt, &interp);
}

static int read_link(const struct py_runtime *rt, raddr interp, uint64_t *ret_id, uint64_t *ret_next) {
	const struct layout *l = &rt->reader.layout;
	const struct mem_range ranges[] = {
		{ interp + l->interp_next, sizeof(*ret_next), ret_next },
		{ interp + l->interp_id, sizeof(*ret_id), ret_id },
	};

	return mem_read_many(rt->reader.mem, ranges, layout_has(l->interp_id) ? 2 : 1, NULL);
}

int py_interps_read(const struct py_runtime *rt, py_interp_vec *ret_interps) {
	const struct layout *l = &rt->reader.layout;
	py_interp_vec interps = { 0 };
	uint64_t next, after = 0, id = 0;
	int r = mem_read_u64(rt->reader.mem, rt->interp_head, &next);

	while (!r && next && interps.n < LIMIT_INTERPRETERS) {
		vec_foreach (seen, &interps)
			if (seen->addr == next)
				r = PY_E_TORN;
		if (r)
			break;
		r = read_link(rt, next, &id, &after);
		if (!r)
			r = vec_push(&interps, (struct py_interp){ .addr = next, .id = (int64_t)id });
		next = after;
	}
	if (r) {
		vec_free(&interps);
		return r;
	}
	for (size_t i = 0; !layout_has(l->interp_id) && i < interps.n; i++)
		interps.items[i].id = (int64_t)(interps.n - 1 - i);
	*ret_interps = interps;
	return 0;
}

/* What a view is made of, each read where it is there, and all with one call: views are taken many times a second. */
struct view_reads {
	struct mem_range ranges[5];
	size_t n;
	uint8_t gil[256];
	uint32_t gil_len;
	uint64_t gil_addr, current;
	int32_t collecting;
};

static void add_read(struct view_reads *reads, raddr addr, void *buf, size_t len) {
	reads->ranges[reads->n++] = (struct mem_range){ addr, len, buf };
}

static void add_gil(const struct py_runtime *rt, struct view_reads *reads) {
	reads->gil_len = min_of(rt->reader.layout.gil_size, (uint32_t)sizeof(reads->gil));
	add_read(reads, reads->gil_addr, reads->gil, reads->gil_len);
}

static void decode_gil(const struct py_runtime *rt, const struct view_reads *reads, struct py_interp_view *view) {
	const struct layout *l = &rt->reader.layout;

	view->gil = reads->gil_addr;
	view->gil_known = !layout_has(l->gil_enabled) || peek_u32(reads->gil, reads->gil_len, l->gil_enabled) != 0;
	view->gil_switches = peek_u64(reads->gil, reads->gil_len, l->gil_switch_number);
	if (peek_u32(reads->gil, reads->gil_len, l->gil_locked) == 1)
		view->gil_holder = peek_u64(reads->gil, reads->gil_len, l->gil_last_holder);
}

raddr py_collecting_word(const struct py_runtime *rt, raddr interp) {
	const struct layout *l = &rt->reader.layout;
	raddr gc = layout_has(l->interp_gc)                ? interp + l->interp_gc
		: layout_has(l->runtime_gc) && rt->runtime ? rt->runtime + l->runtime_gc
							   : 0;

	return gc && layout_has(l->gc_collecting) ? gc + l->gc_collecting : 0;
}

static void add_gc(const struct py_runtime *rt, raddr interp, struct view_reads *reads) {
	raddr word = py_collecting_word(rt, interp);

	if (word)
		add_read(reads, word, &reads->collecting, sizeof(reads->collecting));
}

/* From 3.12 on each interpreter may have a GIL of its own, and points to it; before, there is one at a known place. */
int py_interp_view(const struct py_runtime *rt, raddr interp, struct py_interp_view *ret) {
	bool own_gil = layout_has(rt->reader.layout.interp_gil);
	struct py_interp_view view = { 0 };
	struct view_reads reads = { 0 };
	int r;

	add_read(&reads, interp + rt->reader.layout.interp_threads_head, &view.threads_head, sizeof(view.threads_head));
	add_gc(rt, interp, &reads);
	if (own_gil) {
		add_read(&reads, interp + rt->reader.layout.interp_gil, &reads.gil_addr, sizeof(reads.gil_addr));
	} else {
		reads.gil_addr = rt->gil;
		if (rt->gil)
			add_gil(rt, &reads);
		if (rt->tstate_current)
			add_read(&reads, rt->tstate_current, &reads.current, sizeof(reads.current));
	}
	r = mem_read_many(rt->reader.mem, reads.ranges, reads.n, NULL);
	if (!r && own_gil && reads.gil_addr) {
		reads.n = 0;
		add_gil(rt, &reads);
		r = mem_read_many(rt->reader.mem, reads.ranges, reads.n, NULL);
	}
	if (r)
		return r;
	if (reads.gil_addr)
		decode_gil(rt, &reads, &view);
	if (!own_gil && rt->tstate_current) {
		view.gil_known = true;
		view.gil_holder = reads.current;
	}
	view.collecting = reads.collecting != 0;
	*ret = view;
	return 0;
}
