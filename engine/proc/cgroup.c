/* SPDX-License-Identifier: MIT */
/* Container and unit out of /proc/PID/cgroup.
 *
 *	9:name=systemd:/system.slice/docker-4f0c….scope
 *	0::/kubepods.slice/kubepods-pod1f.slice/cri-containerd-9e1b….scope
 *
 * Containers are known by the form of a path's component, the innermost first: 64 hex digits at its end, alone or
 *behind "docker-", "cri-containerd-", "crio-", "libpod-" or a ':', with or without ".scope"; lxc's and nspawn's by
 *their names. In v1 any controller's path may tell it; the unified path and systemd's are asked first. */
#include "engine/proc/cgroup.h"

#include "engine/base/strbuf.h"
#include "engine/base/util.h"
#include "engine/proc/text.h"
#include <errno.h>

#define CONTAINER_ID_DIGITS 64

static bool text_is(const struct text *t, const char *s) {
	return text_left(t) == strlen(s) && !memcmp(t->at, s, strlen(s));
}

static bool strip_start(struct text *t, const char *s) {
	size_t n = strlen(s);

	if (text_left(t) < n || memcmp(t->at, s, n))
		return false;
	t->at += n;
	return true;
}

static bool strip_end(struct text *t, const char *s) {
	size_t n = strlen(s);

	if (text_left(t) < n || memcmp(t->end - n, s, n))
		return false;
	t->end -= n;
	return true;
}

/* Takes the last component of a path off. Return: false where none is left. */
static bool take_last(struct text *path, struct text *ret_component) {
	const char *slash;

	while (path->at < path->end && path->end[-1] == '/')
		path->end--;
	if (path->at == path->end)
		return false;
	slash = memrchr(path->at, '/', text_left(path));
	*ret_component = (struct text){ .at = slash ? slash + 1 : path->at, .end = path->end };
	path->end = slash ? slash : path->at;
	return true;
}

static bool find_hex_id(struct text component, struct text *ret_id) {
	struct text id;

	strip_end(&component, ".scope");
	if (text_left(&component) < CONTAINER_ID_DIGITS)
		return false;
	id = (struct text){ .at = component.end - CONTAINER_ID_DIGITS, .end = component.end };
	for (const char *p = id.at; p < id.end; p++)
		if (text_digit(*p) > 15)
			return false;
	if (id.at > component.at && id.at[-1] != '-' && id.at[-1] != ':')
		return false;
	component.end = id.at;
	/* The monitor of a container stands beside it, not in it. */
	if (strip_end(&component, "conmon-"))
		return false;
	*ret_id = id;
	return true;
}

/* `parent` is the path before the component. */
static bool find_name(struct text component, struct text parent, struct text *ret_name) {
	struct text name = component, above;
	bool found;

	if (strip_start(&name, "lxc.payload."))
		found = true;
	else if (strip_start(&name, "systemd-nspawn@"))
		found = strip_end(&name, ".service");
	else if (strip_start(&name, "machine-"))
		found = strip_end(&name, ".scope") && !(text_left(&name) >= 4 && !memcmp(name.at, "qemu", 4));
	else
		found = take_last(&parent, &above) && (text_is(&above, "lxc") || text_is(&above, "lxc.payload"));
	if (!found || !text_left(&name))
		return false;
	*ret_name = name;
	return true;
}

static bool find_container(struct text path, struct text *ret_container) {
	struct text component;

	for (struct text left = path; take_last(&left, &component);)
		if (find_hex_id(component, ret_container))
			return true;
	while (take_last(&path, &component))
		if (find_name(component, path, ret_container))
			return true;
	return false;
}

static bool find_unit(struct text path, struct text *ret_unit) {
	struct text component;

	while (take_last(&path, &component)) {
		struct text name = component;

		if (!strip_end(&name, ".service") && !strip_end(&name, ".scope"))
			continue;
		*ret_unit = component;
		return true;
	}
	return false;
}

/* "9:name=systemd:/path" */
static bool split_line(struct text line, struct text *ret_controllers, struct text *ret_path) {
	const char *first = memchr(line.at, ':', text_left(&line));
	const char *second = first ? memchr(first + 1, ':', (size_t)(line.end - first - 1)) : NULL;

	if (!second)
		return false;
	*ret_controllers = (struct text){ .at = first + 1, .end = second };
	*ret_path = (struct text){ .at = second + 1, .end = line.end };
	return true;
}

/* systemd writes '-' and others in a name as \x2d. */
static char *copy_unescaped(struct text t) {
	struct strbuf out = { 0 };

	strbuf_add(&out, "", 0);
	while (t.at < t.end) {
		char c = *t.at++;

		if (c == '\\' && text_left(&t) >= 3 && t.at[0] == 'x' && text_digit(t.at[1]) < 16 &&
			text_digit(t.at[2]) < 16) {
			c = (char)(text_digit(t.at[1]) << 4 | text_digit(t.at[2]));
			t.at += 3;
		}
		if (c)
			strbuf_add(&out, &c, 1);
	}
	return strbuf_take(&out);
}

struct paths {
	struct text unified, systemd, container;
};

static void look_at_lines(struct text t, struct paths *paths) {
	struct text line, controllers, path;

	while (text_line(&t, &line)) {
		if (!split_line(line, &controllers, &path))
			continue;
		if (!text_left(&controllers))
			paths->unified = path;
		else if (text_is(&controllers, "name=systemd"))
			paths->systemd = path;
		if (!text_left(&paths->container))
			find_container(path, &paths->container);
	}
}

int cgroup_parse(const char *text, size_t len, struct cgroup_names *ret_names) {
	struct paths paths = { 0 };
	struct cgroup_names names;
	struct text path, unit = { 0 }, container;

	look_at_lines(text_of(text, len), &paths);
	path = paths.unified;
	if (text_left(&path) <= 1 && text_left(&paths.systemd))
		path = paths.systemd;
	if (!find_container(path, &container))
		container = paths.container;
	if (!find_unit(path, &unit))
		find_unit(paths.systemd, &unit);
	names.path = strndup(path.at ? path.at : "", text_left(&path));
	names.container = copy_unescaped(container);
	names.unit = strndup(unit.at ? unit.at : "", text_left(&unit));
	if (!names.path || !names.container || !names.unit) {
		free(names.path);
		free(names.container);
		free(names.unit);
		return -ENOMEM;
	}
	*ret_names = names;
	return 0;
}
