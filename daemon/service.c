/* SPDX-License-Identifier: MIT */
/* pyspyd daemon: the engine watches all processes in a thread of its own and puts what it has into a mailbox; the event
 * loop here takes it out, writes it to the store, and only then lets sinks, followers and metrics know of it. */
#include "pyspyd/daemon.h"

#include "daemon/core_reader.h"
#include "daemon/coredumps.h"
#include "daemon/crashes.h"
#include "daemon/log.h"
#include "daemon/mailbox.h"
#include "daemon/parts.h"
#include "daemon/privileges.h"
#include "daemon/restart.h"
#include "daemon/rules.h"
#include "pyspyd/doctor.h"
#include "pyspyd/version.h"
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <time.h>

#define S 1000000ULL /* in microseconds, as the loop counts */
#define TICK_US (5 * S)
#define PRUNE_TICKS 12
#define COUNTERS_NS (15 * 1000000000ULL) /* between two rows of a process */
#define DRAIN_NS (5 * 1000000000ULL)

enum { STATUS_OK = 0, STATUS_FAILED = 1, STATUS_USAGE = 2 };

struct service {
	const struct pyspyd_daemon_options *options;
	_Atomic(struct config *) fresh; /* for the engine's thread, to be taken at a reload; a copy of its own */
	struct config *watched;         /* the engine's thread's */
	volatile int stop, reload;
	struct pyspyd_watch_options watch;
	struct rules *rules; /* the engine's thread's */
	struct mailbox *mailbox;
	pthread_t engine;
	bool engine_runs;

	struct parts parts;
	struct restart *restart; /* for the engine's thread, as it was at the start */
	struct core_reader *core_reader;
	struct coredumps *coredumps;
	bool coredumps_fail;
	uint64_t counters_ns; /* when they were written last */
	unsigned ticks;
	bool store_fails;
	int result;
};

static uint64_t now_real_ns(void) {
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/* The engine's thread */

static int on_finding(void *userdata, const struct pyspyd_finding *finding) {
	struct service *service = userdata;

	return mailbox_put_finding(service->mailbox, finding);
}

static int on_left_ended(void *userdata, const struct pyspyd_left_open *left, const char *ended) {
	struct service *service = userdata;

	return mailbox_put_left_ended(service->mailbox, left, ended);
}

static int on_report(void *userdata, const struct pyspyd_watch_process *processes, size_t n) {
	struct service *service = userdata;

	return mailbox_put_report(service->mailbox, processes, n);
}

static int on_health(void *userdata, const struct pyspyd_watch_health *health) {
	struct service *service = userdata;

	return mailbox_put_health(service->mailbox, health);
}

static int on_profile(void *userdata, const struct pyspyd_process *process, const struct pyspyd_packed *packed) {
	struct service *service = userdata;

	return mailbox_put_profile(service->mailbox, process, packed);
}

static void on_process(void *userdata, const struct pyspyd_process *process, struct pyspyd_watch_rule *ret_rule) {
	struct service *service = userdata;

	rules_apply(service->rules, process, ret_rule);
}

static void use_config(struct service *service, struct config *config) {
	struct pyspyd_watch_options *watch = &service->watch;

	watch->rate_hz = config->rate_hz;
	watch->interval_ns = config->interval_ns;
	watch->cpu_budget_percent = config->cpu_budget_percent;
	watch->memory_budget_bytes = config->memory_budget_bytes;
	watch->settings = (const char *const *)config->settings;
	watch->park = (const char *const *)config->park;
	watch->bucket_ns = config->bucket_ns;
	watch->on_profile = config->recorder ? on_profile : NULL;
	rules_use(service->rules, config);
	config_free(service->watched);
	service->watched = config;
}

static void on_reload(void *userdata) {
	struct service *service = userdata;
	struct config *fresh = atomic_exchange(&service->fresh, NULL);

	if (fresh)
		use_config(service, fresh);
}

static void *run_engine(void *arg) {
	struct service *service = arg;
	struct err err = { 0 };
	int r;

	pthread_setname_np(pthread_self(), "pyspyd-engine");
	r = pyspyd_watch(&service->watch, &err);
	mailbox_put_end(service->mailbox, r, &err);
	return NULL;
}

static int start_engine(struct service *service, struct config *config) {
	service->watch = (struct pyspyd_watch_options){
		.all = true,
		.processes_only = true,
		.stop = &service->stop,
		.reload = &service->reload,
		.on_reload = on_reload,
		.on_process = on_process,
		.on_finding = on_finding,
		.on_left_ended = on_left_ended,
		.on_report = on_report,
		.on_health = on_health,
		.userdata = service,
	};
	service->watch.left = restart_left(service->restart, &service->watch.left_n);
	use_config(service, config);
	service->engine_runs = !pthread_create(&service->engine, NULL, run_engine, service);
	return service->engine_runs ? 0 : -EAGAIN;
}

/* Mail */

/* Says once that the store does not take what it gets, and once that it does again; and what it did of itself. */
static void store_said(struct service *service, int r) {
	char *note = pyspyd_store_take_note(service->parts.store);

	if (note)
		log_say(LOG_WARNING, "%s", note);
	free(note);
	if (r == -ENOENT) { /* it was begun anew, and does not know the processes any more */
		status_forget_numbers(service->parts.status);
		return;
	}
	if (r && !service->store_fails)
		log_say(LOG_ERR, "the store does not take what is put into it: %s", strerror(r < 0 ? -r : EIO));
	if (!r && service->store_fails)
		log_say(LOG_NOTICE, "the store works again");
	service->store_fails = r != 0;
}

static int number_of(struct service *service, const struct pyspyd_process *process, int64_t *ret_number) {
	return status_process_number(service->parts.status, service->parts.store, process, ret_number);
}

static void take_finding(struct service *service, const struct mail *mail) {
	const struct pyspyd_finding *finding = mail->finding;
	struct pyspyd_event event = {
		.time_real_ns = finding->time_real_ns,
		.id = finding->id,
		.fingerprint = finding->fingerprint,
		.kind = finding->kind,
		.severity = finding->severity,
		.state = finding->state,
		.pid = finding->process.pid,
		.start_real_ns = finding->process.start_real_ns,
		.uid = finding->process.uid,
		.json = mail->json,
	};

	(void)!number_of(service, &finding->process, &(int64_t){ 0 }); /* whom it is about is known from now on */
	if (crashes_join(service->parts.status, service->parts.store, &event) != 1) {
		status_count_finding(service->parts.status, finding);
		status_keep_event(service->parts.status, &event); /* until the store has it */
	}
	store_said(service, status_flush_events(service->parts.status, service->parts.store));
	sinks_wake(service->parts.sinks);
	server_wake(service->parts.server);
}

/* The store knows the rest. Where it cannot be read, the next start tries again. */
static void take_left_ended(struct service *service, const struct mail *mail) {
	store_said(service,
		restart_resolve(service->parts.store, service->parts.status, mail->id, mail->ended, now_real_ns()));
	store_said(service, status_flush_events(service->parts.status, service->parts.store));
	sinks_wake(service->parts.sinks);
	server_wake(service->parts.server);
}

static int put_counters(struct service *service, const struct mail *mail) {
	struct pyspyd_store_counters *rows = calloc(mail->processes_n + 1, sizeof(*rows));
	size_t n = 0;
	int r = rows ? 0 : -ENOMEM;

	for (; !r && n < mail->processes_n; n++) {
		const struct pyspyd_watch_process *process = &mail->processes[n];

		rows[n] = (struct pyspyd_store_counters){
			.time_real_ns = service->counters_ns,
			.cpu_percent = process->cpu_percent,
			.rss_bytes = process->rss_bytes,
			.private_bytes = process->private_bytes,
			.fds = process->fds,
			.threads = process->threads_total,
		};
		r = number_of(service, &process->process, &rows[n].process);
	}
	if (!r)
		r = pyspyd_store_put_counters(service->parts.store, rows, n);
	free(rows);
	return r;
}

static void take_report(struct service *service, struct mail *mail) {
	if (now_real_ns() - service->counters_ns >= COUNTERS_NS) {
		service->counters_ns = now_real_ns();
		store_said(service, put_counters(service, mail));
	}
	status_keep_report(service->parts.status, mail);
}

static void take_profile(struct service *service, const struct mail *mail) {
	struct pyspyd_store_profile profile = {
		.start_real_ns = mail->packed.start_real_ns,
		.end_real_ns = mail->packed.end_real_ns,
		.data = mail->packed.data,
		.len = mail->packed.len,
	};
	int r = number_of(service, &mail->process, &profile.process);

	if (!r)
		r = pyspyd_store_put_profiles(service->parts.store, &profile, 1);
	store_said(service, r);
}

static void take(struct service *service, struct mail *mail) {
	switch (mail->kind) {
	case MAIL_FINDING: take_finding(service, mail); break;
	case MAIL_LEFT_ENDED: take_left_ended(service, mail); break;
	case MAIL_REPORT: take_report(service, mail); break;
	case MAIL_HEALTH: status_keep_health(service->parts.status, &mail->health); break;
	case MAIL_PROFILE: take_profile(service, mail); break;
	case MAIL_ENDED:
		if (!service->stop) {
			log_say(LOG_ERR, "the engine ended: %s", mail->err.text[0] ? mail->err.text : strerror(EIO));
			service->result = STATUS_FAILED;
			sd_event_exit(service->parts.loop, STATUS_FAILED);
		}
		break;
	}
}

static void take_all(struct service *service) {
	for (struct mail *mail = mailbox_take(service->mailbox), *next; mail; mail = next) {
		next = mail->next;
		take(service, mail);
		mail_free(mail);
	}
}

static int on_mail(sd_event_source *source, int fd, uint32_t events, void *userdata) {
	(void)source;
	(void)fd;
	(void)events;
	take_all(userdata);
	return 0;
}

/* The loop */

static void update_metrics(struct service *service) {
	struct metrics_input input;
	struct sink_stats sinks[8];

	if (!service->parts.metrics)
		return;
	status_metrics(service->parts.status, &input);
	input.sinks = sinks;
	input.sinks_n = sinks_stats(service->parts.sinks, sinks, sizeof(sinks) / sizeof(sinks[0]));
	server_stats(service->parts.server, &input.server);
	if (pyspyd_store_stats(service->parts.store, &input.store))
		input.store = (struct pyspyd_store_stats){ 0 };
	(void)!metrics_update(service->parts.metrics, &input);
}

/* As the configuration says now. */
static int take_coredumps(struct service *service) {
	const struct config_crash *crash = &service->parts.config->crash;
	int r = 0;

	if (!crash->systemd_coredump) {
		coredumps_free(service->coredumps);
		service->coredumps = NULL;
		return 0;
	}
	if (!service->coredumps && !service->coredumps_fail)
		r = coredumps_new(service->core_reader, &service->coredumps);
	if (r)
		log_say(LOG_WARNING, "the journal cannot be followed for what systemd-coredump stores: %s",
			strerror(-r));
	service->coredumps_fail |= r != 0;
	return service->coredumps
		? coredumps_take(service->coredumps, crash, service->parts.status, service->parts.store)
		: 0;
}

/* What the crash handler and systemd-coredump have. */
static void take_crashes(struct service *service) {
	int r = crashes_take(service->parts.config->crash.folder, service->parts.status, service->parts.store);
	int stored = r < 0 ? 0 : take_coredumps(service);

	r = stored < 0 ? stored : r + stored;
	if (!r)
		return;
	store_said(service, r < 0 ? r : 0);
	sinks_wake(service->parts.sinks);
	server_wake(service->parts.server);
}

static int on_tick(sd_event_source *source, uint64_t usec, void *userdata) {
	struct service *service = userdata;

	store_said(service, status_flush_events(service->parts.status, service->parts.store));
	if (++service->ticks % PRUNE_TICKS == 0)
		store_said(service,
			pyspyd_store_prune(service->parts.store, now_real_ns(), sinks_names(service->parts.sinks)));
	take_crashes(service);
	update_metrics(service);
	status_complain(service->parts.status);
	sd_event_source_set_time(source, usec + TICK_US);
	return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* A reader that was not made at the start cannot be made any more. */
static void say_coredumps(struct service *service) {
	if (service->parts.config->crash.systemd_coredump && !service->core_reader)
		status_config_fails(service->parts.status, "crash.systemd-coredump",
			"findings name the cores, but have no stacks of theirs: their reader is made when the service "
			"starts, so restart it");
}

/* Two readings: one for each thread. What is wrong leaves everything as it was. The loop has its parts at once, the
 * engine its own when its interval is over. */
static void reload(struct service *service) {
	struct config *mine, *engines;

	sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%llu", (unsigned long long)status_monotonic_us());
	if (config_read(service->options->config, stderr, &mine)) {
		status_config_read(service->parts.status);
		status_config_fails(service->parts.status, "configuration",
			"it is wrong, as the log says; the old one stays in use");
	} else if (config_read(service->options->config, stderr, &engines)) {
		config_free(mine);
	} else {
		parts_reload(&service->parts, mine);
		say_coredumps(service);
		config_free(atomic_exchange(&service->fresh, engines));
		service->reload++;
		log_say(LOG_INFO, "the configuration was read again");
	}
	sd_notify(0, "READY=1");
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata) {
	struct service *service = userdata;

	if (info->ssi_signo == SIGHUP)
		reload(service);
	else
		sd_event_exit(sd_event_source_get_event(source), STATUS_OK);
	return 0;
}

static int watch_signals(struct service *service) {
	static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
	int r = 0;

	for (size_t i = 0; r >= 0 && i < sizeof(signals) / sizeof(signals[0]); i++)
		r = sd_event_add_signal(service->parts.loop, NULL, signals[i], on_signal, service);
	return r;
}

/* Before any thread is made: they inherit it. */
static void block_signals(void) {
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
}

static char *status_json(void *userdata) {
	struct service *service = userdata;
	struct sink_stats sinks[8];
	struct pyspyd_store_stats store = { 0 };
	size_t n = sinks_stats(service->parts.sinks, sinks, sizeof(sinks) / sizeof(sinks[0]));

	(void)!pyspyd_store_stats(service->parts.store, &store);
	return status_text(service->parts.status, sinks, n, &store);
}

static bool is_watched(void *userdata, pid_t pid, uint64_t start_real_ns) {
	const struct service *service = userdata;

	return status_is_watched(service->parts.status, pid, start_real_ns);
}

static int open_all(struct service *service, struct err *err) {
	const struct server_options server = { .status = status_json, .watched = is_watched, .userdata = service };
	struct parts *parts = &service->parts;
	int fd, r = parts_open(parts, &server, err);

	if (!r)
		r = restart_new(parts->store, parts->status, &service->restart);
	if (!r)
		r = mailbox_new(&service->mailbox, &fd);
	if (!r &&
		(sd_event_add_io(parts->loop, NULL, fd, EPOLLIN, on_mail, service) < 0 ||
			sd_event_add_time_relative(parts->loop, NULL, CLOCK_MONOTONIC, TICK_US, 0, on_tick, service) <
				0 ||
			watch_signals(service) < 0))
		r = -ENOMEM;
	return r;
}

/* Before the list of system calls: it does not hold what is tried here. The sandbox is not complained about: it is as
 * whoever has started the service wants it. */
static void look_at_privileges(struct status *status, const struct config *config) {
	struct pyspyd_privilege list[PYSPYD_PRIVILEGES_MAX];
	size_t n = pyspyd_service_privileges(list, PYSPYD_PRIVILEGES_MAX);

	for (size_t i = 0; i < n; i++) {
		bool wanted =
			list[i].capability || (config->crash.systemd_coredump && !strcmp(list[i].name, "journal"));

		if (wanted && !list[i].held)
			log_say(LOG_WARNING, "without %s: %s", list[i].name, list[i].effect);
		status_keep_privilege(status, list[i].name, list[i].held);
	}
}

static void seal(bool inet, struct status *status) {
	const struct privileges_options options = { .inet = inet };
	struct err err = { 0 };
	int r = privileges_seal(&options, &err);

	if (r)
		log_say(LOG_WARNING, "no list of system calls: %s", err.text[0] ? err.text : strerror(-r));
	else
		status_keep_privilege(status, "seccomp", true);
}

static void stop_engine(struct service *service) {
	service->stop = 1;
	if (service->engine_runs)
		pthread_join(service->engine, NULL);
	service->engine_runs = false;
	if (service->mailbox) {
		take_all(service);
		mailbox_close(service->mailbox);
	}
}

static void close_all(struct service *service) {
	stop_engine(service);
	if (service->parts.sinks)
		sinks_drain(service->parts.sinks, DRAIN_NS);
	parts_close(&service->parts);
	coredumps_free(service->coredumps);
	core_reader_free(service->core_reader);
	mailbox_free(service->mailbox);
	restart_free(service->restart);
	rules_free(service->rules);
	config_free(service->watched);
	config_free(atomic_exchange(&service->fresh, NULL));
}

/* It has to be there before the service may make no process any more. */
static void start_core_reader(struct service *service) {
	int r = service->parts.config->crash.systemd_coredump ? core_reader_new(&service->core_reader) : 0;

	if (r)
		log_say(LOG_WARNING, "cores that systemd-coredump stores will not be read: %s", strerror(-r));
}

static int run(struct service *service, struct config *engines, struct err *err) {
	int r;

	start_core_reader(service);
	r = privileges_drop(core_reader_fd(service->core_reader), err);

	if (!r)
		r = open_all(service, err);
	if (!r)
		r = rules_new(&service->rules);
	if (!r)
		r = start_engine(service, engines);
	else
		config_free(engines);
	if (r)
		return r;
	look_at_privileges(service->parts.status, service->parts.config);
	seal(service->parts.inet, service->parts.status);
	sd_event_set_watchdog(service->parts.loop, true);
	log_say(LOG_INFO, "pyspyd %s watches this host", PYSPYD_VERSION);
	sd_notify(0, "READY=1");
	r = sd_event_loop(service->parts.loop);
	sd_notify(0, "STOPPING=1");
	return r;
}

int pyspyd_daemon_run(const struct pyspyd_daemon_options *options) {
	struct service service = { .options = options };
	struct config *engines;
	struct err err = { 0 };
	int r;

	log_init(options->foreground);
	if (config_read(options->config, stderr, &service.parts.config))
		return STATUS_USAGE;
	if (options->check_config || config_read(options->config, stderr, &engines)) {
		config_free(service.parts.config);
		return options->check_config ? STATUS_OK : STATUS_USAGE;
	}
	block_signals();
	umask(0027);
	r = run(&service, engines, &err);
	if (r < 0 || (r > 0 && err.text[0]))
		log_say(LOG_ERR, "%s", err.text[0] ? err.text : strerror(r < 0 ? -r : EIO));
	close_all(&service);
	return r ? STATUS_FAILED : service.result;
}
