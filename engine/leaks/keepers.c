/* SPDX-License-Identifier: MIT */
/* A graph grows backwards from the objects that were asked for: a node is an object, or a block of which only the owner
 * is not known yet; an edge leads from what refers to what it refers to. What a pass finds is looked for in the rest
 * of the same pass already, and in all of the next one: an order of allocation that follows the references makes a
 * long chain show in one pass.
 *
 * After each pass the nodes that the map of roots knows are sources: from them the shortest ways lead forwards along
 * the edges. What leads only to objects that have a way is not looked for any more. At the end the rest gets its ways
 * from what no object owns: state of an interpreter, variables of libraries, native memory, stacks. */
#include "engine/leaks/keepers.h"

#include "engine/base/clock.h"
#include "engine/cpython/objects.h"
#include "engine/leaks/referrers.h"
#include "engine/leaks/roots_map.h"
#include <string.h>

#define NODES_MAX (1U << 20)
#define EDGES_MAX (4U << 20)
#define UPS_MAX 512 /* referrers of one node that are no roots' */
#define STEPS_MAX 4096
#define ROOTS_NS (2 * NS_PER_SEC)
#define NONE UINT32_MAX
#define INTERNED_LOOKED 64 /* items of a dict that is theirs */
#define BLOCK_ITEMS 64     /* references in one, at most */
#define SKIPS 3            /* objects that a step may lead across: an instance's dict, a function's cells */

struct node {
	raddr addr;
	uint32_t len;   /* of a block; 0: an object */
	uint32_t down;  /* the first of its edges; NONE */
	uint32_t up;    /* on the shortest way from a root; NONE */
	uint32_t ups;   /* referrers */
	uint32_t refs;  /* words of objects and blocks that refer to it, in its last pass */
	uint16_t born;  /* in which pass */
	uint16_t steps; /* from a root, of the map; UINT16_MAX: it is not in it */
	uint8_t held;   /* 1 << enum referrer_kind, of those that no object owns */
	bool found;     /* it has a way */
	bool needed;
	const char *name; /* of the library that holds it */
};

struct edge {
	uint32_t to, next;
};

struct search {
	const struct py_runtime *rt;
	struct root_map *roots;
	struct referrers referrers;
	VEC(struct node) nodes; /* the objects that were asked for come first */
	VEC(struct edge) edges;
	struct map index;        /* address → node */
	struct marks containers; /* on long ones */
	size_t targets;          /* nodes */
	unsigned pass;
	bool limited;
};

/* Nodes. */

static int add_node(struct search *search, raddr addr, uint32_t len, uint32_t *ret) {
	struct node node = {
		.addr = addr,
		.len = len,
		.down = NONE,
		.up = NONE,
		.born = (uint16_t)search->pass,
		.steps = UINT16_MAX,
	};
	uint64_t known;
	unsigned steps;
	int r;

	if (map_get(&search->index, addr, &known)) {
		*ret = (uint32_t)known;
		return 0;
	}
	if (search->nodes.n >= NODES_MAX)
		return -ENOSPC;
	if (!len && root_map_has(search->roots, addr, &steps))
		node.steps = (uint16_t)min_of(steps, UINT16_MAX - 1U);
	r = map_put(&search->index, addr, search->nodes.n);
	if (!r)
		r = vec_push(&search->nodes, node);
	if (!r)
		*ret = (uint32_t)(search->nodes.n - 1);
	return r;
}

static bool has_edge(const struct search *search, uint32_t from, uint32_t to) {
	uint32_t edge = search->nodes.items[from].down;

	for (unsigned i = 0; edge != NONE && i < UPS_MAX; i++, edge = search->edges.items[edge].next)
		if (search->edges.items[edge].to == to)
			return true;
	return false;
}

static int add_edge(struct search *search, uint32_t from, uint32_t to) {
	struct node *node = &search->nodes.items[from];
	int r;

	if (from == to || has_edge(search, from, to))
		return 0;
	if (search->edges.n >= EDGES_MAX)
		return -ENOSPC;
	r = vec_push(&search->edges, (struct edge){ to, node->down });
	if (r)
		return r;
	node->down = (uint32_t)(search->edges.n - 1);
	search->nodes.items[to].ups++;
	return 0;
}

static bool is_root(const struct node *node) {
	return node->steps != UINT16_MAX;
}

static int want(struct search *search, uint32_t number) {
	const struct node *node = &search->nodes.items[number];

	return is_root(node) ? 0 : referrers_want(&search->referrers, node->addr, node->len, number);
}

static int add_referrer(struct search *search, uint32_t wanted, const struct referrer *referrer) {
	size_t before = search->nodes.n;
	uint32_t from;
	int r;

	if (search->nodes.items[wanted].ups >= UPS_MAX && !root_map_has(search->roots, referrer->addr, NULL)) {
		search->limited = true;
		return 0;
	}
	r = add_node(search, referrer->addr, referrer->len, &from);
	if (!r)
		r = add_edge(search, from, wanted);
	if (!r && search->nodes.n > before)
		r = want(search, from);
	return r;
}

static int on_hit(void *userdata, uint32_t wanted, const struct referrer *referrer) {
	struct search *search = userdata;
	struct node *node = &search->nodes.items[wanted];
	int r = 0;

	if (referrer->kind == REFERRER_OBJECT || referrer->kind == REFERRER_BLOCK) {
		node->refs++;
		r = add_referrer(search, wanted, referrer);
	} else {
		node->held |= (uint8_t)(1U << referrer->kind);
		if (referrer->kind == REFERRER_STATIC)
			node->name = referrer->name;
	}
	if (r != -ENOSPC)
		return r;
	search->limited = true;
	return 0;
}

/* Ways: from sources forwards, shortest first. */

typedef VEC(uint32_t) number_vec;

static int is_it(void *userdata, raddr key, raddr value) {
	const raddr *wanted = userdata;

	return key == *wanted || value == *wanted;
}

/* Behind what a dict or list has in a block may stand words of no meaning. */
static bool belongs(const struct search *search, raddr owner, raddr object) {
	const struct py_reader *py = &search->rt->reader;
	raddr items[BLOCK_ITEMS];
	size_t n;
	int r = py_dict_walk(py, owner, is_it, &object);

	if (r != PY_E_TYPE)
		return r != 0;
	if (py_sequence_read(py, owner, items, BLOCK_ITEMS, &n) || n > BLOCK_ITEMS)
		return true;
	for (size_t i = 0; i < n; i++)
		if (items[i] == object)
			return true;
	return false;
}

/* A dict's or list's table is where its head says; tuples have none. */
static bool owns(const struct search *search, raddr owner, const struct node *block) {
	const struct py_reader *py = &search->rt->reader;
	const struct layout *l = &py->layout;
	uint64_t flags = TYPE_DICT | TYPE_LIST | TYPE_TUPLE;
	struct object_head head;
	raddr table, values = 0;

	if (object_head_read_as(py, owner, flags, l->object_size, &head))
		return true;
	if (!object_head_read_as(py, owner, TYPE_TUPLE, l->object_size, &head))
		return false;
	if (!object_head_read_as(py, owner, TYPE_LIST, l->list_items + sizeof(table), &head)) {
		table = object_u64(&head, l->list_items);
	} else {
		table = object_u64(&head, l->dict_keys);
		values = object_u64(&head, l->dict_values);
	}
	return table - block->addr < block->len || values - block->addr < block->len;
}

/* Whether an edge is one: where it is not, it is made to lead nowhere. */
static bool leads(struct search *search, uint32_t from, struct edge *edge) {
	const struct node *node = &search->nodes.items[from];
	struct node *to = &search->nodes.items[edge->to];

	if (!node->len == !to->len || (node->len && (node->up == NONE || search->nodes.items[node->up].len)))
		return true;
	if (node->len ? belongs(search, search->nodes.items[node->up].addr, to->addr) : owns(search, node->addr, to))
		return true;
	edge->to = from;
	to->ups--;
	to->refs -= to->refs > 0;
	return false;
}

static int reach(struct search *search, number_vec *next, uint32_t from) {
	uint32_t edge = search->nodes.items[from].down;
	int r = 0;

	for (; !r && edge != NONE; edge = search->edges.items[edge].next) {
		uint32_t to = search->edges.items[edge].to;

		if (search->nodes.items[to].found || !leads(search, from, &search->edges.items[edge]))
			continue;
		search->nodes.items[to].found = true;
		search->nodes.items[to].up = from;
		r = vec_push(next, to);
	}
	return r;
}

/* `sources` are in the order of their distances, which are nodes' steps, or 0 for those of no root. What has a way
 * keeps it. */
static int spread(struct search *search, const number_vec *sources) {
	number_vec now = { 0 }, next = { 0 };
	size_t at = 0;
	int r = 0;

	for (unsigned distance = 0; !r && (at < sources->n || now.n); distance++) {
		number_vec swap;

		for (; !r && at < sources->n; at++) {
			struct node *node = &search->nodes.items[sources->items[at]];

			if (is_root(node) && node->steps > distance)
				break;
			if (node->found && !is_root(node))
				continue;
			node->found = true;
			r = vec_push(&now, sources->items[at]);
		}
		for (size_t i = 0; !r && i < now.n; i++)
			r = reach(search, &next, now.items[i]);
		now.n = 0;
		swap = now;
		now = next;
		next = swap;
	}
	vec_free(&now);
	vec_free(&next);
	return r;
}

/* Nodes of the map of roots, those of few steps first: steps are few, so each is looked for in turn. */
static int roots_of(const struct search *search, number_vec *ret) {
	unsigned left = 0, steps = 0;
	int r = 0;

	vec_foreach (node, &search->nodes)
		left += is_root(node);
	for (; !r && left && steps < UINT16_MAX; steps++) {
		for (size_t i = 0; !r && i < search->nodes.n; i++) {
			if (search->nodes.items[i].steps != steps)
				continue;
			left--;
			r = vec_push(ret, (uint32_t)i);
		}
	}
	return r;
}

static int spread_roots(struct search *search) {
	number_vec sources = { 0 };
	int r = roots_of(search, &sources);

	if (!r)
		r = spread(search, &sources);
	vec_free(&sources);
	return r;
}

/* Whether it has more referrers than were found: by its count of references; of a block, where it has no owner. (Tables
 * of dicts that are kept for reuse have none either: they begin with a count that is 0.) */
static bool is_lacking(struct search *search, const struct node *node) {
	uint64_t first;

	if (!node->len)
		return !node->ups || referrers_lack(&search->referrers, node->addr, node->refs);
	return !node->ups && !mem_read_u64(search->rt->reader.mem, node->addr, &first) && first;
}

/* A word that no object owns may be of no meaning any more: it counts where something is lacking. What an interpreter
 * holds of blocks is current. */
static bool is_held(struct search *search, const struct node *node, enum referrer_kind kind) {
	struct node alone = *node;

	if (!(node->held & 1U << kind))
		return false;
	if (node->len && kind == REFERRER_INTERP)
		alone.ups = 0;
	return is_lacking(search, &alone);
}

/* From what is held by this, and by nothing better. */
static int spread_held(struct search *search, enum referrer_kind kind) {
	number_vec sources = { 0 };
	int r = 0;

	for (size_t i = 0; !r && i < search->nodes.n; i++) {
		const struct node *node = &search->nodes.items[i];

		if (!node->found && is_held(search, node, kind))
			r = vec_push(&sources, (uint32_t)i);
	}
	if (!r)
		r = spread(search, &sources);
	vec_free(&sources);
	return r;
}

/* Passes. */

/* A node is needed while it leads to an object that was asked for and has no way. Edges lead to older nodes, but for
 * those of circles, which add nothing. */
static size_t mark_needed(struct search *search) {
	size_t n = 0;

	for (size_t i = 0; i < search->nodes.n; i++) {
		struct node *node = &search->nodes.items[i];

		node->needed = i < search->targets && !node->found;
		for (uint32_t edge = node->down; !node->found && !node->needed && edge != NONE;
			edge = search->edges.items[edge].next) {
			uint32_t to = search->edges.items[edge].to;

			node->needed = to < i && search->nodes.items[to].needed;
		}
		n += node->needed;
	}
	return n;
}

/* What was born in the last pass has been looked for in a part of the memory only. Return: 0; -ENOMEM; PY_E_TYPE:
 * there is nothing to look for. */
static int want_next(struct search *search) {
	size_t n = 0;
	int r = 0;

	referrers_clear(&search->referrers);
	mark_needed(search);
	for (size_t i = 0; !r && i < search->nodes.n; i++) {
		struct node *node = &search->nodes.items[i];

		if (!node->needed || is_root(node) || node->born + 1U < search->pass)
			continue;
		node->refs = 0;
		r = want(search, (uint32_t)i);
		n++;
	}
	if (r == -ENOSPC) {
		search->limited = true;
		r = 0;
	}
	return !r && !n ? PY_E_TYPE : r;
}

static int search_all(struct search *search, const struct keeper_limits *limits) {
	unsigned rounds = limits->rounds ? limits->rounds : KEEPER_ROUNDS;
	uint64_t began = clock_cpu_ns();
	int r = spread_roots(search);

	for (search->pass = 1; !r; search->pass++) {
		r = want_next(search);
		if (r)
			break;
		if (search->pass > rounds || clock_mono_ns() > limits->until_ns ||
			(limits->cpu_ns && clock_cpu_ns() - began > limits->cpu_ns)) {
			search->limited = true;
			return 0;
		}
		r = referrers_pass(&search->referrers, on_hit, search);
		if (!r)
			r = spread_roots(search);
	}
	return r == PY_E_TYPE ? 0 : r;
}

/* What to say of it. */

struct chain {
	const struct node *source;           /* it may be a block */
	const struct node *nodes[STEPS_MAX]; /* objects, from the root to the one that was asked for */
	size_t n;
};

static void chain_of(const struct search *search, uint32_t target, struct chain *chain) {
	size_t n = 0;

	for (uint32_t at = target; at != NONE && n < STEPS_MAX; at = search->nodes.items[at].up) {
		chain->source = &search->nodes.items[at];
		if (!chain->source->len)
			chain->nodes[n++] = chain->source;
	}
	for (size_t i = 0; i < n / 2; i++) {
		const struct node *swap = chain->nodes[i];

		chain->nodes[i] = chain->nodes[n - 1 - i];
		chain->nodes[n - 1 - i] = swap;
	}
	chain->n = n;
}

static bool is_container(const struct search *search, raddr object) {
	return marks_get(&search->containers, object);
}

/* Appends a step as Python writes it: across objects that it does not show, where there are such. Return: 0 and
 * *ret_to, the number of the object that it ends at; as root_step. */
static int add_step(const struct search *search, const struct chain *chain, size_t from, size_t last,
	struct strbuf *out, size_t *ret_to) {
	bool is_long = is_container(search, chain->nodes[from]->addr);
	size_t most =
		min_of(last, from + (is_long ? 1U : SKIPS)); /* a long one's items are not looked at: any is one */

	for (size_t to = most; to > from; to--) {
		size_t before = out->len;
		int r = root_step(search->rt, chain->nodes[from]->addr, chain->nodes[to]->addr, out);

		if (r)
			return r;
		if (out->len == before)
			continue;
		*ret_to = to;
		return 0;
	}
	strbuf_adds(out, "[…]");
	*ret_to = from + 1;
	return 0;
}

struct equals {
	unsigned n;
	bool other; /* an item whose value is not its key */
};

static int count_equal(void *userdata, raddr key, raddr value) {
	struct equals *equals = userdata;

	equals->other = key != value;
	return equals->other || ++equals->n == INTERNED_LOOKED;
}

/* The dict of interned strings leads from each to itself. */
static bool is_interned(const struct search *search, raddr object) {
	struct equals equals = { 0 };

	return py_dict_walk(&search->rt->reader, object, count_equal, &equals) >= 0 && !equals.other &&
		equals.n == INTERNED_LOOKED;
}

/* Where a path begins that is none of Python. */
static int add_other_root(
	const struct search *search, const struct chain *chain, enum keeper_root root, bool more, struct strbuf *out) {
	const struct node *first = chain->nodes[0], *source = chain->source;
	const char *name = source->name ? source->name : "?";
	int r = 0;

	if (root == KEEPER_STATIC && is_interned(search, first->addr)) {
		strbuf_adds(out, "interned strings of the interpreter");
		return 0;
	}
	if (root == KEEPER_STATIC && source->held & 1U << REFERRER_INTERP) {
		strbuf_adds(out, "state of the interpreter");
	} else if (root == KEEPER_STATIC) {
		strbuf_adds(out, "static data of ");
		strbuf_add_printable(out, name, strlen(name));
	} else {
		strbuf_adds(out, root == KEEPER_STACK ? "a thread's native stack" : "native memory");
	}
	if (more) {
		strbuf_adds(out, ": ");
		r = py_type_describe(&search->rt->reader, first->addr, out);
	}
	return r < 0 || r == MEM_E_GONE ? r : 0;
}

/* The path to the chain's object number `last`. */
static int write_path(
	const struct search *search, const struct chain *chain, enum keeper_root root, size_t last, char **ret_path) {
	struct strbuf out = { 0 }, rest = { 0 };
	int r = 0;

	for (size_t at = 0; !r && at < last;)
		r = add_step(search, chain, at, last, &rest, &at);
	if (!r && root == KEEPER_PYTHON)
		r = root_map_path_to(search->roots, chain->nodes[0]->addr, strbuf_str(&rest), &out);
	else if (!r)
		r = add_other_root(search, chain, root, last > 0, &out);
	if (!r && root != KEEPER_PYTHON)
		strbuf_adds(&out, strbuf_str(&rest));
	if (!r && (out.failed || rest.failed))
		r = -ENOMEM;
	if (!r)
		*ret_path = strbuf_take(&out);
	strbuf_deinit(&out);
	strbuf_deinit(&rest);
	return r;
}

/* The nearest container on the way from a root to an object of the map. Dicts of attributes are none that anybody
 * thinks of. */
static int container_in_map(const struct search *search, raddr object, struct keeper *ret) {
	const struct root_map *map = search->roots;
	struct strbuf path = { 0 };
	uint64_t at;
	int r = 0;

	if (!map_get(&map->index, object, &at))
		return 0;
	for (at = map->entries.items[at].parent; at != ROOT_NONE; at = map->entries.items[at].parent)
		if (!map->entries.items[at].hidden && is_container(search, map->entries.items[at].object))
			break;
	if (at == ROOT_NONE)
		return 0;
	r = root_map_path(map, map->entries.items[at].object, &path);
	if (!r && path.failed)
		r = -ENOMEM;
	if (!r) {
		ret->container = map->entries.items[at].object;
		ret->container_path = strbuf_take(&path);
	}
	strbuf_deinit(&path);
	return r;
}

static int describe(const struct search *search, const struct chain *chain, struct keeper *ret) {
	int r = write_path(search, chain, ret->root, chain->n - 1, &ret->path);

	for (size_t i = chain->n - 1; !r && i-- > 0;) {
		if (!is_container(search, chain->nodes[i]->addr))
			continue;
		ret->container = chain->nodes[i]->addr;
		return write_path(search, chain, ret->root, i, &ret->container_path);
	}
	return r || ret->root != KEEPER_PYTHON ? r : container_in_map(search, chain->nodes[0]->addr, ret);
}

/* Describes those that have a way now and had none before. */
static int describe_found(struct search *search, enum keeper_root root, struct keeper *keepers) {
	_free_ struct chain *chain = malloc(sizeof(*chain));
	int r = chain ? 0 : -ENOMEM;

	for (size_t i = 0; !r && i < search->targets; i++) {
		if (!search->nodes.items[i].found || keepers[i].root != KEEPER_UNKNOWN)
			continue;
		keepers[i].root = root;
		chain_of(search, (uint32_t)i, chain);
		r = describe(search, chain, &keepers[i]);
		if (r == PY_E_TYPE) /* it has gone since */
			r = 0;
	}
	return r;
}

/* Sources of what is left: nobody refers to them, or fewer than are counted. What they do not lead to are circles. */
static int spread_lacking(struct search *search) {
	number_vec sources = { 0 };
	int r = 0;

	for (size_t i = 0; !r && i < search->nodes.n; i++) {
		const struct node *node = &search->nodes.items[i];

		if (!node->found && is_lacking(search, node))
			r = vec_push(&sources, (uint32_t)i);
	}
	if (!r)
		r = spread(search, &sources);
	vec_free(&sources);
	return r;
}

static int describe_circles(struct search *search, struct keeper *keepers) {
	int r = search->limited ? 0 : spread_lacking(search);

	for (size_t i = 0; !search->limited && !r && i < search->targets; i++) {
		if (search->nodes.items[i].found || keepers[i].root != KEEPER_UNKNOWN)
			continue;
		keepers[i].root = KEEPER_CYCLE;
		keepers[i].path = strdup("garbage in a cycle");
		r = keepers[i].path ? 0 : -ENOMEM;
	}
	return r;
}

static int describe_all(struct search *search, struct keeper *keepers) {
	static const struct {
		enum referrer_kind held;
		enum keeper_root root;
	} others[] = {
		{ REFERRER_INTERP, KEEPER_STATIC },
		{ REFERRER_STATIC, KEEPER_STATIC },
		{ REFERRER_NATIVE, KEEPER_NATIVE },
		{ REFERRER_STACK, KEEPER_STACK },
	};
	int r = describe_found(search, KEEPER_PYTHON, keepers);

	for (size_t i = 0; !r && i < ARRAY_SIZE(others); i++) {
		r = spread_held(search, others[i].held);
		if (!r)
			r = describe_found(search, others[i].root, keepers);
	}
	return r ? r : describe_circles(search, keepers);
}

/* The whole. */

static int begin(struct search *search, const raddr *objects, size_t n) {
	struct root_limits limits = { .until_ns = clock_mono_ns() + ROOTS_NS };
	uint32_t number;
	int r = root_map_build(search->rt, &limits, &search->roots);

	for (size_t i = 0; !r && i < n; i++)
		r = add_node(search, objects[i], 0, &number);
	search->targets = search->nodes.n;
	return r;
}

/* Those in places for which there is no mark are as short ones. */
static int mark_containers(const struct census *census, struct marks *ret) {
	int r = 0;

	for (size_t i = 0; !r && i < census->containers.n; i++) {
		r = marks_set(ret, census->containers.items[i].addr, MARK_TAKEN);
		if (r == -ENOSPC)
			r = 0;
	}
	return r;
}

/* An object may have been asked for twice: nodes are fewer then. */
static int hand_out(
	const struct search *search, const raddr *objects, size_t n, const struct keeper *found, struct keeper *ret) {
	for (size_t i = 0; i < n; i++) {
		uint64_t at = 0;

		map_get(&search->index, objects[i], &at);
		ret[i] = found[at];
		ret[i].path = found[at].path ? strdup(found[at].path) : NULL;
		ret[i].container_path = found[at].container_path ? strdup(found[at].container_path) : NULL;
		if ((found[at].path && !ret[i].path) || (found[at].container_path && !ret[i].container_path)) {
			keepers_deinit(ret, i + 1);
			return -ENOMEM;
		}
	}
	return 0;
}

int keepers_find(const struct py_runtime *rt, const struct census *census, const raddr *objects, size_t n,
	const struct keeper_limits *limits, struct keeper *ret_keepers) {
	struct search search = { .rt = rt };
	_free_ struct keeper *found = calloc(n + 1, sizeof(*found));
	int r;

	if (!found)
		return -ENOMEM;
	if (!census->places || n > KEEPER_OBJECTS_MAX)
		return -EINVAL;
	r = referrers_init(&search.referrers, rt, census);
	if (r)
		return r;
	r = mark_containers(census, &search.containers);
	if (!r)
		r = begin(&search, objects, n);
	if (!r)
		r = search_all(&search, limits);
	if (!r)
		r = describe_all(&search, found);
	if (!r)
		r = hand_out(&search, objects, n, found, ret_keepers);
	keepers_deinit(found, search.targets);
	marks_deinit(&search.containers);
	root_map_free(search.roots);
	vec_free(&search.nodes);
	vec_free(&search.edges);
	map_deinit(&search.index);
	referrers_deinit(&search.referrers);
	return r;
}

void keepers_deinit(struct keeper *keepers, size_t n) {
	for (size_t i = 0; i < n; i++) {
		free(take_ptr(keepers[i].path));
		free(take_ptr(keepers[i].container_path));
	}
}
