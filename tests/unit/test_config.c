/* SPDX-License-Identifier: MIT */
/* The service's configuration: the defaults and the file that is installed agree, every kind of fault is told with its
 * line, drop-ins take their turn, and rules match what they say. */
#include "daemon/config.h"

#include "daemon/config_keys.h"
#include "daemon/config_parse.h"
#include <criterion/criterion.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SECOND_NS UINT64_C(1000000000)
#define HOUR_NS (3600 * SECOND_NS)
#define MIB (UINT64_C(1) << 20)

static char folder[] = "/tmp/pyspyd-config-XXXXXX";
static char path[64], *told;
static size_t told_n;

static void make_folder(void) {
	cr_assert(mkdtemp(folder));
	snprintf(path, sizeof(path), "%s/pyspyd.conf", folder);
}

static void write_file(const char *name, const char *text, size_t n) {
	char file[128];
	FILE *out;

	snprintf(file, sizeof(file), "%s/%s", folder, name);
	out = fopen(file, "we");
	cr_assert(out);
	cr_assert_eq(fwrite(text, 1, n, out), n);
	fclose(out);
}

#define WRITE(name, text) write_file(name, text, strlen(text))

static void remove_folder(void) {
	char command[128];

	snprintf(command, sizeof(command), "rm -rf %s", folder);
	cr_assert_eq(system(command), 0);
	free(told);
}

TestSuite(config, .init = make_folder, .fini = remove_folder);

static int read_config(const char *file, struct config **ret) {
	FILE *faults;
	int r;

	free(told);
	faults = open_memstream(&told, &told_n);
	cr_assert(faults);
	r = config_read(file, faults, ret);
	fclose(faults);
	return r;
}

static struct config *read_good(const char *text) {
	struct config *config = NULL;
	int r;

	write_file("pyspyd.conf", text, strlen(text));
	r = read_config(path, &config);
	cr_assert_eq(r, 0, "%d: %s", r, told);
	cr_assert_str_empty(told);
	return config;
}

/* What is told of this text, the file's name taken off each line. */
static const char *faults_of(const char *text, size_t n) {
	static char shown[16384];
	struct config *config = NULL;
	size_t used = 0, len = strlen(path);

	write_file("pyspyd.conf", text, n);
	cr_assert_eq(read_config(path, &config), -EINVAL, "%.200s", text);
	cr_assert_null(config);
	for (const char *line = told; *line && used < sizeof(shown) - ERR_TEXT_MAX; line = strchr(line, '\n') + 1) {
		cr_assert(!strncmp(line, path, len), "%s", line);
		used += (size_t)snprintf(shown + used, sizeof(shown) - used, "%.*s\n",
			(int)(strcspn(line, "\n") - len - 1), line + len + 1);
	}
	shown[used ? used - 1 : 0] = '\0';
	return shown;
}

static const char *faults_in(const char *text) {
	return faults_of(text, strlen(text));
}

#define FAULTS(text, expected) cr_expect_str_eq(faults_in(text), expected)

static void value_text(const struct config_key *key, const struct config *config, char *out, size_t size) {
	const void *at = (const char *)config + key->offset;
	const string_array *words = at;

	switch (key->type) {
	case CONFIG_FLAG: snprintf(out, size, "%d", *(const bool *)at); break;
	case CONFIG_NUMBER:
	case CONFIG_PERCENT: snprintf(out, size, "%g", *(const double *)at); break;
	case CONFIG_DURATION:
	case CONFIG_SIZE:
	case CONFIG_COUNT: snprintf(out, size, "%llu", (unsigned long long)*(const uint64_t *)at); break;
	case CONFIG_UNSIGNED:
	case CONFIG_TRANSPORT:
	case CONFIG_FACILITY: snprintf(out, size, "%u", *(const unsigned *)at); break;
	case CONFIG_TEXT: snprintf(out, size, "%s", *(char *const *)at); break;
	case CONFIG_WORDS: snprintf(out, size, "%s…", **words ? **words : ""); break;
	}
}

static void same(const struct config *a, const struct config *b) {
	char of_a[256], of_b[256];

	for (size_t i = 0; i < config_keys_n; i++) {
		if (!strcmp(config_keys[i].section, "rule"))
			continue;
		value_text(&config_keys[i], a, of_a, sizeof(of_a));
		value_text(&config_keys[i], b, of_b, sizeof(of_b));
		cr_expect_str_eq(of_a, of_b, "%s.%s", config_keys[i].section, config_keys[i].name);
	}
	for (size_t i = 0; a->settings[i] || b->settings[i]; i++)
		cr_assert_str_eq(a->settings[i], b->settings[i]);
	cr_expect_eq(a->rules_n, b->rules_n);
}

Test(config, defaults) {
	struct config *c = read_good("");

	cr_expect_eq(c->rate_hz, 20);
	cr_expect_eq(c->interval_ns, SECOND_NS);
	cr_expect_eq(c->cpu_budget_percent, 1);
	cr_expect_eq(c->memory_budget_bytes, 64 * MIB);
	cr_assert(c->settings[0]);
	cr_expect_str_eq(c->settings[0], "spiking-thread.for=30s");
	cr_expect_null(c->settings[1]);
	cr_expect_null(c->park[0]);
	cr_expect_eq(c->rules_n, 0);
	cr_expect(c->recorder);
	cr_expect_eq(c->bucket_ns, 60 * SECOND_NS);
	cr_expect_eq(c->profile_age_ns, HOUR_NS);
	cr_expect_str_eq(c->store_path, "/var/lib/pyspyd/pyspyd.db");
	cr_expect_eq(c->store_max_bytes, 512 * MIB);
	cr_expect_eq(c->finding_age_ns, 30 * 24 * HOUR_NS);
	cr_expect_eq(c->counter_age_ns, 7 * 24 * HOUR_NS);
	cr_expect(c->journal && !c->syslog.enabled && !c->file && !c->otlp.enabled && !c->metrics);
	cr_expect_eq(c->syslog.transport, SYSLOG_LOCAL);
	cr_expect_str_eq(c->syslog.address, "/dev/log");
	cr_expect_eq(c->syslog.port, 514);
	cr_expect_eq(c->syslog.facility, 3);
	cr_expect_str_eq(c->file_path, "/var/log/pyspyd/findings.jsonl");
	cr_expect_null(c->otlp.headers[0]);
	cr_expect_eq(c->sink_rate, 10);
	cr_expect_eq(c->sink_burst, 100);
	cr_expect_eq(c->sink_queue, 10000);
	cr_expect_str_eq(c->metrics_listen, "127.0.0.1:9733");
	cr_expect_eq(c->metrics_processes, 500);
	cr_expect_str_eq(c->socket_path, "/run/pyspyd/pyspyd.sock");
	cr_expect_str_eq(c->socket_group, "pyspyd");
	config_free(c);
}

Test(config, nothing_there) {
	struct config *c = NULL;
	char expected[128];

	cr_assert_eq(read_config(path, &c), -EINVAL);
	snprintf(expected, sizeof(expected), "%s: cannot be read: No such file or directory\n", path);
	cr_expect_str_eq(told, expected);
	if (access(CONFIG_FILE, F_OK) && access(CONFIG_FILE ".d", F_OK)) {
		cr_assert_eq(read_config(NULL, &c), 0);
		config_free(c);
	}
}

/* The file that is installed, as it is and with everything in it that is commented out; it has every key. */
Test(config, installed_file) {
	char *text = NULL, line[1024];
	struct config *plain = read_good(""), *as_is = NULL, *filled;
	FILE *in = fopen("packaging/pyspyd.conf", "re"), *out;
	size_t n;

	cr_assert(in);
	cr_assert_eq(read_config("packaging/pyspyd.conf", &as_is), 0, "%s", told);
	same(plain, as_is);
	out = open_memstream(&text, &n);
	while (fgets(line, sizeof(line), in)) {
		bool is_key = line[0] == '#' && line[1] >= 'a' && line[1] <= 'z' && strstr(line, " =");

		fputs(line + is_key, out);
	}
	fclose(out);
	fclose(in);
	filled = read_good(text);
	same(plain, filled);
	for (size_t i = 0; i < config_keys_n; i++) {
		char wanted[64];

		if (!strcmp(config_keys[i].section, "rule"))
			continue;
		snprintf(wanted, sizeof(wanted), "\n%s =", config_keys[i].name);
		cr_expect(strstr(text, wanted), "%s.%s", config_keys[i].section, config_keys[i].name);
	}
	free(text);
	config_free(plain);
	config_free(as_is);
	config_free(filled);
}

/* Every section and key is in the manual, with its default. */
Test(config, manual) {
	char *text = malloc(MIB), item[128];
	FILE *in = fopen("docs/man/pyspyd.conf.5", "re");
	size_t n;

	cr_assert(in && text);
	n = fread(text, 1, MIB - 1, in);
	text[n] = '\0';
	fclose(in);
	for (size_t i = 0; i < config_keys_n; i++) {
		const struct config_key *key = &config_keys[i];
		const char *section;

		snprintf(item, sizeof(item), "\n.Ss [%s%s]\n", key->section,
			strcmp(key->section, "rule") ? "" : " NAME");
		section = strstr(text, item);
		cr_assert(section, "%s", item);
		if (key->initial && *key->initial && strcmp(key->section, "rule") != 0)
			snprintf(item, sizeof(item), "\n.It Cm %s = %s\n", key->name, key->initial);
		else
			snprintf(item, sizeof(item), "\n.It Cm %s =", key->name);
		cr_expect(strstr(section, item), "%s", item);
	}
	free(text);
}

Test(config, values) {
	struct config *c =
		read_good("# a comment\n; another\n\n"
			  "[watch]\nrate = 99.5\n  interval=500ms\t\ncpu-budget = 2.5%\nmemory-budget = 0\n"
			  "spiking-thread.pct = 95\n"
			  "[park]\nsites = app.pool:Worker.run  lib:idle\n"
			  "[recorder]\nenabled = off\nbucket = 10s\nkeep = 1.5h\n"
			  "[store]\npath = /data/a b.db\nmax-size = 1.5G\nkeep-findings = 0.5d\n"
			  "[syslog]\nenabled = true\ntransport = tcp\naddress = logs.example.org\nport = 6514\n"
			  "facility = local3\n"
			  "[otlp]\nurl = https://[::1]:4318/v1/logs\nheader.Authorization = Bearer a = b\n"
			  "header.X-Scope = 1\n"
			  "[sinks]\nrate = 0\n[metrics]\nlisten = [::1]:9999\n[socket]\ngroup =\n");

	cr_expect_eq(c->rate_hz, 99.5);
	cr_expect_eq(c->interval_ns, SECOND_NS / 2);
	cr_expect_eq(c->cpu_budget_percent, 2.5);
	cr_expect_eq(c->memory_budget_bytes, 0);
	cr_assert(c->settings[0] && c->settings[1]);
	cr_expect_str_eq(c->settings[1], "spiking-thread.pct=95");
	cr_assert(c->park[0] && c->park[1]);
	cr_expect_str_eq(c->park[0], "app.pool:Worker.run");
	cr_expect_str_eq(c->park[1], "lib:idle");
	cr_expect(!c->recorder);
	cr_expect_eq(c->profile_age_ns, 3 * HOUR_NS / 2);
	cr_expect_str_eq(c->store_path, "/data/a b.db");
	cr_expect_eq(c->store_max_bytes, 1536 * MIB);
	cr_expect_eq(c->finding_age_ns, 12 * HOUR_NS);
	cr_expect(c->syslog.enabled);
	cr_expect_eq(c->syslog.transport, SYSLOG_TCP);
	cr_expect_eq(c->syslog.facility, 19);
	cr_assert(c->otlp.headers[0] && c->otlp.headers[1]);
	cr_expect_str_eq(c->otlp.headers[0], "Authorization: Bearer a = b");
	cr_expect_eq(c->sink_rate, 0);
	cr_expect_str_empty(c->socket_group);
	config_free(c);
}

/* All of them, not only the first. */
Test(config, every_fault_is_told) {
	FAULTS("rate = 1\n[wach]\nrate = x\n[watch]\nrate = x\nrte = 3\npath = /a\nbogus\n[park]\nsites = nowhere\n",
		"1: rate stands in no section\n"
		"2: unknown section [wach]; did you mean [watch]?\n"
		"5: rate must be a number, not 'x'\n"
		"6: unknown key rte in [watch]; did you mean rate?\n"
		"7: unknown key path in [watch]; there is one in [store]\n"
		"8: neither a [section] nor KEY = VALUE\n"
		"10: sites 'nowhere' is not MODULE:QUALNAME");
}

Test(config, faults_of_values) {
	FAULTS("[watch]\nrate = 0\n", "2: rate must be from 0.1 to 1000, not '0'");
	FAULTS("[watch]\nrate = 20 # Hz\n", "2: rate must be a number, not '20 # Hz'");
	FAULTS("[watch]\nrate = -1\n", "2: rate must be a number, not '-1'");
	FAULTS("[watch]\nrate =\n", "2: rate has no value");
	FAULTS("[watch]\ninterval = 1w\n", "2: interval must be a duration (500ms, 10s, 5m, 1h, 30d), not '1w'");
	FAULTS("[watch]\ninterval = 1ms\n", "2: interval must be from 100ms to 1m, not '1ms'");
	FAULTS("[watch]\ncpu-budget = 1 %\n", "2: cpu-budget must be a percentage (1%), not '1 %'");
	FAULTS("[store]\nmax-size = 1k\n", "2: max-size must be a size (bytes, 64K, 512M, 1G), not '1k'");
	FAULTS("[store]\nkeep-findings = 99999999999999999999d\n",
		"2: keep-findings must be a duration (500ms, 10s, 5m, 1h, 30d), not '99999999999999999999d'");
	FAULTS("[journal]\nenabled = 1\n", "2: enabled must be yes or no, not '1'");
	FAULTS("[syslog]\nport = 65536\n", "2: port must be from 1 to 65535, not '65536'");
	FAULTS("[syslog]\nfacility = 24\n",
		"2: facility must be a facility (daemon, user, local0 to local7, …), not '24'");
	FAULTS("[syslog]\ntransport = tls\n", "2: transport must be local, udp or tcp, not 'tls'");
	FAULTS("[store]\npath = pyspyd.db\n", "2: path 'pyspyd.db' is not an absolute path");
	FAULTS("[file]\npath = /var/log/\n", "2: path '/var/log/' is a folder's name, not a file's");
	FAULTS("[otlp]\nurl = ftp://a\n", "2: url 'ftp://a' does not begin with http:// or https://");
	FAULTS("[otlp]\nurl = http:///v1\n", "2: url 'http:///v1' has no HOST or HOST:PORT behind the scheme");
	FAULTS("[otlp]\nurl = http://u:p@h/\n", "2: url 'http://u:p@h/' has no HOST or HOST:PORT behind the scheme");
	FAULTS("[otlp]\nheader.X Y = 1\n", "2: a key is one word");
	FAULTS("[otlp]\nheader.(X) = 1\n", "2: '(X)' is not a header's name");
	FAULTS("[metrics]\nlisten = localhost:9733\n",
		"2: listen 'localhost:9733' is neither ADDRESS:PORT with a numeric address nor a socket's path");
	FAULTS("[metrics]\nlisten = ::1:9733\n",
		"2: listen '::1:9733' is neither ADDRESS:PORT with a numeric address nor a socket's path");
	FAULTS("[metrics]\nlisten = 127.0.0.1:0\n",
		"2: listen '127.0.0.1:0' is neither ADDRESS:PORT with a numeric address nor a socket's path");
}

Test(config, faults_of_settings) {
	cr_expect(strstr(faults_in("[watch]\nspiking-thread.pt = 1\n"), "2: \"spiking-thread.pt=1\" is no setting"));
	cr_expect(strstr(faults_in("[watch]\nhang.after = soon\n"), "2: hang.after: \"soon\" is not a duration"));
	cr_expect(strstr(faults_in("[store]\nhang.after = 1s\n"), "2: unknown key hang.after in [store]"));
}

Test(config, faults_of_lines) {
	static const char nul[] = "[watch]\nra\0te = 1\n";

	FAULTS("[watch\n", "1: a section's line ends with ']'");
	FAULTS("[]\n", "1: a section without a name");
	FAULTS("[watch two]\n", "1: section [watch] takes no name");
	FAULTS("[watch]\n= 1\n", "2: no key in front of '='");
	FAULTS("[watch]\nrate = 1\r\n", "2: ends with a carriage return: lines end with a newline alone");
	FAULTS("[watch]\nra\033te = 1\n", "2: a control character");
	FAULTS("[watch]\nrate = 1\nrate = 1\n", "3: rate was given already, in line 2");
	FAULTS("[watch]\nrate = 1\n[park]\n[watch]\nrate = 1\n", "5: rate was given already, in line 2");
	FAULTS("[watch]\nhang.after = 1m\nhang.after = 1m\n", "3: hang.after was given already, in line 2");
	cr_expect_str_eq(faults_of(nul, sizeof(nul) - 1), "2: a NUL byte");
}

Test(config, too_large) {
	char *text = malloc(CONFIG_FILE_MAX + 1);

	cr_assert(text);
	memset(text, '#', CONFIG_FILE_MAX + 1);
	cr_expect_str_eq(faults_of(text, CONFIG_FILE_MAX + 1), " is larger than 1 MiB");
	text[CONFIG_LINE_MAX] = '\n';
	text[CONFIG_LINE_MAX + 1] = '\n';
	cr_expect_str_eq(faults_of(text, 3 * CONFIG_LINE_MAX), "3: a line of more than 4096 bytes");
	for (size_t i = 0; i < 200; i++)
		memcpy(text + 2 * i, "x\n", 2);
	cr_expect(strstr(faults_of(text, 400), "100: neither a [section] nor KEY = VALUE\n there are more faults"));
	free(text);
}

Test(config, keys_that_belong_together) {
	FAULTS("[syslog]\ntransport = udp\n", " [syslog] address is a socket's path, but the transport is udp or tcp");
	FAULTS("[syslog]\naddress = host\n", "2: [syslog] address is no socket's path, but the transport is local");
	FAULTS("[recorder]\nkeep = 1s\n",
		"2: [recorder] keep is shorter than the bucket, so that nothing would be kept");
	FAULTS("[watch]\nmemory-budget = 64\n",
		"2: [watch] memory-budget is less than 8M, which pyspyd cannot keep (0: no budget)");
}

Test(config, drop_ins) {
	struct config *c = NULL;
	char file[128];

	snprintf(file, sizeof(file), "%s.d", path);
	cr_assert_eq(mkdir(file, 0700), 0);
	WRITE("pyspyd.conf", "[watch]\nrate = 1\nspiking-thread.for = 1m\n[rule a]\nmatch-user = x\nexclude = yes\n");
	WRITE("pyspyd.conf.d/20-b.conf", "[watch]\nrate = 3\ninterval = 2s\n");
	WRITE("pyspyd.conf.d/10-a.conf", "[watch]\nrate = 2\ninterval = 3s\nspiking-thread.for = 2m\n");
	WRITE("pyspyd.conf.d/30-c.conf", "[rule b]\nmatch-user = y\n[rule a]\nexclude = no\n");
	WRITE("pyspyd.conf.d/40-d.conf.dpkg-old", "rubbish");
	WRITE("pyspyd.conf.d/.50-e.conf", "rubbish");
	cr_assert_eq(read_config(path, &c), 0, "%s", told);
	cr_expect_eq(c->rate_hz, 3);
	cr_expect_eq(c->interval_ns, 2 * SECOND_NS);
	cr_expect_str_eq(c->settings[0], "spiking-thread.for=2m");
	cr_expect_null(c->settings[1]);
	cr_assert_eq(c->rules_n, 2);
	cr_expect_str_eq(c->rules[0].name, "a");
	cr_expect(!c->rules[0].exclude);
	cr_expect_str_eq(c->rules[0].match_user, "x");
	config_free(c);

	WRITE("pyspyd.conf.d/60-f.conf", "\n[journal]\nenable = yes\n");
	cr_assert_eq(read_config(path, &c), -EINVAL);
	cr_expect(strstr(told, "/pyspyd.conf.d/60-f.conf:3: unknown key enable in [journal]; did you mean enabled?"),
		"%s", told);
}

/* As the service reads it, which is no root. */
Test(config, not_permitted) {
	struct config *c = NULL;

	WRITE("pyspyd.conf", "");
	cr_assert_eq(chmod(path, 0), 0);
	if (geteuid() == 0 && seteuid(65534))
		cr_skip_test("cannot become another user");
	cr_expect_eq(read_config(path, &c), -EINVAL);
	(void)!seteuid(getuid());
	cr_expect(strstr(told, "cannot be read by uid"), "%s", told);
	cr_expect(strstr(told, "the service does not run as root"), "%s", told);
}

static const char rules[] =
	"[rule excluded]\nmatch-unit = cron*.service\nmatch-user = 1000\nexclude = yes\n"
	"[rule batch]\nmatch-cmdline = (^| )nightly\\.py( |$)\nexpect-busy = yes\nhang.after = 10m\n"
	"[rule www]\nmatch-user = www-data\n"
	"[rule boxes]\nmatch-container = ab[0-9]*\n";

static const char *rule_of(const struct config *config, const char *const *cmdline, const char *unit, uid_t uid,
	const char *user, const char *container) {
	const struct pyspyd_process process = { .cmdline = (char **)(uintptr_t)cmdline,
		.unit = (char *)(uintptr_t)unit,
		.uid = uid,
		.container = (char *)(uintptr_t)container };
	const struct config_rule *rule = config_rule_for(config, &process, user);

	return rule ? rule->name : "";
}

Test(config, rules_match) {
	static const char *const nightly[] = { "/usr/bin/python3", "nightly.py", "--all", NULL };
	static const char *const other[] = { "python3", "nightly.pyc", NULL };
	struct config *c = read_good(rules);

	cr_assert_eq(c->rules_n, 4);
	cr_expect(c->rules[0].exclude && c->rules[1].expect_busy);
	cr_expect_str_eq(c->rules[1].settings[0], "hang.after=10m");
	cr_expect_str_eq(rule_of(c, nightly, NULL, 1, NULL, NULL), "batch");
	cr_expect_str_eq(rule_of(c, other, NULL, 1, NULL, NULL), "");
	cr_expect_str_eq(rule_of(c, nightly, "cron.service", 1000, NULL, NULL), "excluded");
	cr_expect_str_eq(rule_of(c, nightly, "cron.service", 1001, NULL, NULL), "batch");
	cr_expect_str_eq(rule_of(c, other, "cron.service", 1001, NULL, NULL), "");
	cr_expect_str_eq(rule_of(c, other, NULL, 33, "www-data", NULL), "www");
	cr_expect_str_eq(rule_of(c, other, NULL, 33, NULL, NULL), "");
	cr_expect_str_eq(rule_of(c, NULL, NULL, 0, "root", "ab12"), "boxes");
	cr_expect_str_eq(rule_of(c, NULL, NULL, 0, "root", "abc"), "");
	config_free(c);
}

/* A command line without end costs no more than its beginning. */
Test(config, long_command_line) {
	char *word = calloc(1, 1 << 20);
	const char *cmdline[] = { word, "nightly.py", NULL };
	struct config *c = read_good(rules);

	cr_assert(word);
	memset(word, 'a', (1 << 20) - 1);
	cr_expect_str_eq(rule_of(c, cmdline, NULL, 1, NULL, NULL), "");
	word[100] = '\0';
	cr_expect_str_eq(rule_of(c, cmdline, NULL, 1, NULL, NULL), "batch");
	config_free(c);
	free(word);
}

Test(config, faults_of_rules) {
	FAULTS("[rule]\nexclude = yes\n", "1: a rule needs a name: [rule NAME]");
	FAULTS("[rule a]\nmatch-user = x\n[rule a]\nexclude = yes\n", "3: the rule was given already, in line 1");
	FAULTS("[rule a]\nexclude = yes\n",
		"1: a rule without match-cmdline, match-unit, match-user or match-container; match-cmdline = . is "
		"every "
		"process");
	FAULTS("[rule a]\nmatch-unit = a[b\n", "2: match-unit 'a[b' has a '[' that is not closed");
	FAULTS("[rule a]\nmatch-user = a b\n", "2: match-user 'a b' is neither a name nor a number");
	FAULTS("[rule a]\nmatch-user = x\nrate = 1\n", "3: unknown key rate in [rule]; there is one in [watch]");
	cr_expect(strstr(faults_in("[rule a]\nmatch-cmdline = (\n"),
		"2: match-cmdline '(' is no regular expression (POSIX extended): "));
}
