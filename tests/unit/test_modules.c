/* SPDX-License-Identifier: MIT */
/* What is written down of versions: metadata of distributions, expected versions, names of libraries. */
#include "engine/pipeline/distributions.h"
#include "engine/pipeline/expect.h"
#include "engine/pipeline/libraries.h"

#include <criterion/criterion.h>
#include <string.h>

static int parse_metadata(const char *text, struct distribution *ret) {
	return distribution_parse_metadata(text, strlen(text), ret);
}

Test(modules, metadata_names_and_versions) {
	static const char *const good[] = {
		"Metadata-Version: 2.1\nName: six\nVersion: 1.16.0\n",
		"Version: 1.16.0\r\nName:six  \r\n\r\nbody",
		"NAME: six\nSummary: x\n  continued\nversion:\t1.16.0",
		"Name: six\nVersion: 1.16.0\nVersion: 2\nName: seven\n",
	};

	for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
		struct distribution item = { 0 };

		cr_assert_eq(parse_metadata(good[i], &item), 0, "%zu", i);
		cr_expect_str_eq(item.name, "six");
		cr_expect_str_eq(item.version, "1.16.0");
		free(item.name);
		free(item.version);
	}
}

Test(modules, metadata_that_is_none) {
	static const char *const bad[] = { "", "\n", "Name: six\n", "Name: six\n\nVersion: 1\n", "Name:\nVersion: 1\n",
		"Name: six\nVersion:  \n", "Names: six\nVersion: 1\n", " Name: six\nVersion: 1\n" };
	char longest[1000] = "Version: 1\nName: ";
	struct distribution item = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
		cr_expect_eq(parse_metadata(bad[i], &item), -EINVAL, "%zu", i);
	memset(longest + strlen(longest), 'x', sizeof(longest) - strlen(longest) - 1);
	cr_expect_eq(parse_metadata(longest, &item), -EINVAL);
	cr_expect_eq(distribution_parse_metadata("Name: a\0b\nVersion: 1\n", 21, &item), -EINVAL);
	cr_expect_null(item.name);
}

Test(modules, metadata_is_bounded_by_its_length) {
	static const char text[] = "Name: six\nVersion: 1.16.0\n";
	struct distribution item;

	for (size_t len = 0; len <= strlen("Name: six\nVersion: "); len++) {
		char *exact = strndup(text, len); /* so that a sanitizer sees a byte too many */
		char *bytes = malloc(len + !len);

		memcpy(bytes, exact, len);
		cr_expect_eq(distribution_parse_metadata(bytes, len, &item), -EINVAL, "%zu", len);
		free(bytes);
		free(exact);
	}
}

static const struct distribution *owner(struct distribution_root *root, const char *below) {
	return distribution_of_file(root, below);
}

Test(modules, records_and_top_level_names) {
	static const char record[] = "a/__init__.py,sha256=x,10\r\n\"odd, name.py\",,\nother.py,,\n\n,,\nlast.py";
	static const char *const wanted[] = { "a/__init__.py", "odd, name.py", "missing.py", "last.py" };
	struct distribution_root root;

	distribution_root_init(&root, strdup("/x"));
	vec_push(&root.items, (struct distribution){ strdup("One.Dist"), strdup("1") });
	vec_push(&root.items, (struct distribution){ strdup("two"), strdup("2") });
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		cr_assert_eq(distribution_root_want(&root, wanted[i]), 0);
	cr_assert_eq(distribution_scan_record(record, strlen(record), &root.owners, 1), 0);
	cr_expect_eq(owner(&root, "a/__init__.py"), &root.items.items[1]);
	cr_expect_eq(owner(&root, "odd, name.py"), &root.items.items[1]);
	cr_expect_eq(owner(&root, "last.py"), &root.items.items[1]);
	cr_expect_null(owner(&root, "missing.py"));
	cr_expect_null(owner(&root, "other.py"), "nobody has asked for it");

	cr_assert_eq(distribution_scan_tops("shared\nmine\n\n", 13, &root.tops, 0), 0);
	cr_assert_eq(distribution_scan_tops("shared \r\nmore", 13, &root.tops, 1), 0);
	cr_expect_eq(distribution_of_name(&root, "mine", 4), &root.items.items[0]);
	cr_expect_eq(distribution_of_name(&root, "more", 4), &root.items.items[1]);
	cr_expect_null(distribution_of_name(&root, "shared", 6));
	cr_expect_eq(distribution_of_name(&root, "one_dist.py", 8), &root.items.items[0]);
	cr_expect_null(distribution_of_name(&root, "nobody", 6));
	distribution_root_deinit(&root);
}

Test(modules, names_of_distributions) {
	cr_expect(expect_same_name("Fake.Dist", "fake_dist"));
	cr_expect(expect_same_name("a-_.b", "A.b"));
	cr_expect(expect_same_name("a-", "a."));
	cr_expect(expect_same_name("", ""));
	cr_expect_not(expect_same_name("ab", "a-b"));
	cr_expect_not(expect_same_name("a", "a-"));
	cr_expect_not(expect_same_name("a-b", "a"));
}

Test(modules, versions_that_are_the_same) {
	static const char *const same[][2] = { { "1.0", "1" }, { "1.0", "1.0.0" }, { "v1.2", "1.2" }, { "01.2", "1.2" },
		{ "1.0RC1", "1.0-rc.1" }, { "1.0c1", "1.0rc1" }, { "1.0alpha2", "1.0.a2" }, { "1.0.dev3", "1.dev3" },
		{ "1.2", "1.2+cu118" }, { "1.2+CU118", "1.2+cu118" }, { "1!2.0", "1!2" }, { "0!2", "2" },
		{ "1.0.post1", "1.0-r1" }, { "0", "0.0" } };
	static const char *const other[][2] = { { "1.0", "1.0.1" }, { "1.10", "1.1" }, { "10", "1" },
		{ "1.0", "1.0rc1" }, { "1.2+cu118", "1.2" }, { "1.2+cu118", "1.2+cu117" }, { "1!2", "2" },
		{ "1.0a1", "1.0b1" }, { "1.0", "" }, { "1.2", "12" }, { "1.0a11", "1.0a1.1" } };

	for (size_t i = 0; i < ARRAY_SIZE(same); i++)
		cr_expect(expect_same_version(same[i][0], same[i][1]), "%s is %s", same[i][0], same[i][1]);
	for (size_t i = 0; i < ARRAY_SIZE(other); i++)
		cr_expect_not(expect_same_version(other[i][0], other[i][1]), "%s is not %s", other[i][0], other[i][1]);
}

Test(modules, expected_versions) {
	static const char text[] =
		"\xef\xbb\xbf# comment\n\nrequests==2.31.0 # another\r\n  uvicorn[standard] == 0.23.2 \\\n"
		"    --hash=sha256:00 \\\n    --hash=sha256:11\na.b===1.0#x\n#\\\nlast==1";
	static const struct {
		const char *name, *version;
		unsigned line;
	} want[] = { { "requests", "2.31.0", 3 }, { "uvicorn", "0.23.2", 4 }, { "last", "1", 9 } };
	char copy[sizeof(text)];
	expected_vec expected = { 0 };
	struct err err = { 0 };

	cr_assert_eq(expect_parse(text, "f", &expected, &err), PYSPYD_E_USAGE, "'#' without a space is no comment");
	cr_expect(strstr(err.text, "f, line 7: 'a.b===1.0#x'"), "%s", err.text);
	memcpy(copy, text, sizeof(text));
	memcpy(strstr(copy, "a.b"), "#", 1);
	cr_assert_eq(expect_parse(copy, "f", &expected, &err), 0, "%s", err.text);
	cr_assert_eq(expected.n, ARRAY_SIZE(want));
	for (size_t i = 0; i < ARRAY_SIZE(want); i++) {
		cr_expect_str_eq(expected.items[i].name, want[i].name);
		cr_expect_str_eq(expected.items[i].version, want[i].version);
		cr_expect_eq(expected.items[i].line, want[i].line, "%u", expected.items[i].line);
	}
	expect_free(expected.items, expected.n);
}

Test(modules, expectations_that_are_not_exact) {
	static const char *const bad[] = { "a>=1", "a~=1.0", "a", "a==", "a==1,<2", "a==1.*", "a=1", "==1",
		"-r other.txt", "a @ https://x/y.whl", "./a.whl", "a==1; python_version<'3'", "a[x==1", "a==1 b",
		"\x1b[31m==1", "a!=1" };
	expected_vec expected = { 0 };

	for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
		struct err err = { 0 };

		cr_expect_eq(expect_parse(bad[i], "f", &expected, &err), PYSPYD_E_USAGE, "%s", bad[i]);
		cr_expect(strstr(err.text, "line 1"), "%s", err.text);
		cr_expect_null(strchr(err.text, '\x1b'));
	}
	cr_expect_eq(expect_parse("", "f", &expected, NULL), 0);
	cr_expect_eq(expect_parse("\\", "f", &expected, NULL), 0);
	cr_expect_eq(expected.n, 0);
}

static struct pyspyd_library library(const char *path, const char *soname, const char *id) {
	return (struct pyspyd_library){
		.path = strdup(path), .soname = soname ? strdup(soname) : NULL, .build_id = id ? strdup(id) : NULL
	};
}

Test(modules, libraries_that_are_there_twice) {
	struct pyspyd_library all[] = {
		library("/a/libssl.so.3", "libssl.so.3", "11"),
		library("/b/libssl-3e69114b.so.1.1", "libssl-3e69114b.so.1.1", "22"),
		library("/a/libz.so.1", "libz.so.1", "33"),
		library("/b/libz.so.1", "libz.so.1", "33"),
		library("/a/_x.so", NULL, "44"),
		library("/b/_x.so", NULL, "55"),
		library("/a/libsslx.so", NULL, "66"),
		library("/a/liblast-xxxxxxxx.so", NULL, NULL),
		library("/a/lib", NULL, NULL),
	};

	cr_assert_eq(libraries_mark(all, ARRAY_SIZE(all)), 0);
	cr_expect_str_eq(all[0].other_version, all[1].path);
	cr_expect_str_eq(all[1].other_version, all[0].path);
	cr_expect_str_eq(all[2].same_as, all[3].path);
	cr_expect_str_eq(all[3].same_as, all[2].path);
	for (size_t i = 2; i < ARRAY_SIZE(all); i++)
		cr_expect_null(all[i].other_version, "%zu", i);
	for (size_t i = 4; i < ARRAY_SIZE(all); i++)
		cr_expect_null(all[i].same_as, "%zu", i);
	for (size_t i = 0; i < ARRAY_SIZE(all); i++) {
		free(all[i].path);
		free(all[i].soname);
		free(all[i].build_id);
		free(all[i].same_as);
		free(all[i].other_version);
	}
}
