/* SPDX-License-Identifier: MIT */
/* Who refers to an object that is broken, out of the whole heap of the core: a census says where references may stand,
 * one pass over that memory finds those to the object, a second one the owners of the tables that they stand in, and
 * keepers.h the way from a module, or from a variable of a library.
 *
 * All of it is bounded in time; what was not looked at is said to be so. A core without its heap has none of it. */
#include "engine/base/clock.h"
#include "engine/cpython/objects.h"
#include "engine/leaks/census.h"
#include "engine/leaks/keepers.h"
#include "engine/leaks/referrers.h"
#include "engine/pipeline/triage_internal.h"
#include <errno.h>
#include <string.h>

#define CENSUS_NS (3 * NS_PER_SEC)
#define ALL_NS (6 * NS_PER_SEC)
#define TABLES_MAX 64

struct hunt {
	struct sample_target *target;
	struct triage_referrers *found;
	struct referrers referrers;
	uint32_t tables; /* that are looked for; number 0 is the object */
	bool second;     /* the owners of tables are looked for */
	uint64_t until_ns;
};

static bool is_known(const struct triage_referrers *found, raddr object) {
	for (size_t i = 0; i < found->n; i++)
		if (found->objects[i].address == object)
			return true;
	return false;
}

static int add_object(struct hunt *hunt, raddr address) {
	struct triage_referrers *found = hunt->found;
	struct strbuf type = { 0 };

	if (is_known(found, address))
		return 0;
	if (found->n == TRIAGE_REFERRERS_MAX) {
		found->more = true;
		return 0;
	}
	if (py_type_describe(&hunt->target->rt.reader, address, &type)) {
		strbuf_deinit(&type);
		return 0;
	}
	found->types[found->n] = strbuf_take(&type);
	if (!found->types[found->n])
		return -ENOMEM;
	found->objects[found->n] =
		(struct triage_object){ .address = address, .type = found->types[found->n], .readable = true };
	found->n++;
	return 0;
}

static int on_referrer(void *userdata, uint32_t wanted, const struct referrer *referrer) {
	struct hunt *hunt = userdata;

	if (referrer->kind == REFERRER_OBJECT && (!wanted || hunt->second))
		return add_object(hunt, referrer->addr);
	if (referrer->kind != REFERRER_BLOCK || wanted || hunt->second || hunt->tables == TABLES_MAX)
		return 0;
	return referrers_want(&hunt->referrers, referrer->addr, referrer->len, ++hunt->tables);
}

static int hunt_referrers(struct hunt *hunt, const struct census *census, raddr object) {
	int r = referrers_init(&hunt->referrers, &hunt->target->rt, census);

	if (r)
		return r;
	r = referrers_want(&hunt->referrers, object, 0, 0);
	if (!r)
		r = referrers_pass(&hunt->referrers, on_referrer, hunt);
	hunt->second = true;
	if (!r && hunt->tables && clock_mono_ns() < hunt->until_ns)
		r = referrers_pass(&hunt->referrers, on_referrer, hunt);
	else
		hunt->found->cut |= hunt->tables != 0;
	referrers_deinit(&hunt->referrers);
	return r;
}

static int hunt_path(struct hunt *hunt, const struct census *census, raddr object) {
	const struct keeper_limits limits = { .until_ns = hunt->until_ns };
	struct keeper keeper = { 0 };
	int r;

	if (clock_mono_ns() >= hunt->until_ns) {
		hunt->found->cut = true;
		return 0;
	}
	r = keepers_find(&hunt->target->rt, census, &object, 1, &limits, &keeper);
	if (r)
		return r;
	if (keeper.root == KEEPER_PYTHON || keeper.root == KEEPER_STATIC)
		hunt->found->path = take_ptr(keeper.path);
	hunt->found->cut |= !hunt->found->path && clock_mono_ns() >= hunt->until_ns;
	keepers_deinit(&keeper, 1);
	return 0;
}

static bool is_late(void *userdata, uint64_t done_bytes, uint64_t all_bytes) {
	const uint64_t *until_ns = userdata;

	(void)done_bytes;
	(void)all_bytes;
	return clock_mono_ns() > *until_ns;
}

void triage_find_referrers(
	struct sample_target *target, const proc_map_vec *maps, raddr object, struct triage_referrers *found) {
	uint64_t start = clock_mono_ns(), census_until = start + CENSUS_NS;
	const struct census_options options = {
		.flags = CENSUS_KEEP_PLACES, .progress = is_late, .userdata = &census_until
	};
	struct hunt hunt = { .target = target, .found = found, .until_ns = start + ALL_NS };
	struct census census;
	int r = census_take(&target->rt, maps, &options, &census, NULL);

	if (!r) {
		r = hunt_referrers(&hunt, &census, object);
		if (!r)
			r = hunt_path(&hunt, &census, object);
		census_deinit(&census);
	}
	if (r == -ECANCELED || r == -ENOMEM || r == -ENOSPC)
		found->cut = true;
}

void triage_referrers_deinit(struct triage_referrers *found) {
	for (size_t i = 0; i < found->n; i++)
		free(found->types[i]);
	free(found->path);
}
