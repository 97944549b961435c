/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_DETECT_DETECT_H
#define PYSPYD_DETECT_DETECT_H

#include "engine/base/vec.h"
#include "pyspyd/err.h"
#include "pyspyd/finding.h"
#include "pyspyd/handles.h"
#include "pyspyd/heap.h"
#include "pyspyd/waits.h"

/* Detectors: pure decisions over what others acquired, the time an argument.
 *
 *   acquire (pipeline) → decide (here) → act (finding/lifecycle.h)
 *
 * A detector is one file and one line in detectors.def. What it remembers between two looks at a process is its state:
 * opaque, one per process. It says every time what is present and once what has gone; a threshold alone never makes it
 * change its mind (hysteresis). It reads nothing, logs nothing and knows no clock. */

/* What a detector sees. */

struct detect_frame {
	enum pyspyd_lang lang;
	const char *function, *qualname, *file, *module; /* never NULL; "" where unknown */
	int line;                                        /* 0: none */
};

/* One of the stacks a thread was seen with most. */
struct detect_stack {
	double share;                      /* of the thread's samples in the window, 0 to 1 */
	const struct detect_frame *frames; /* most recent call first */
	size_t frames_n;
	bool truncated;
};

/* Of a thread's samples in the window, the part in which …, 0 to 1. They may overlap. Negative: was not looked at. */
struct detect_shares {
	double native; /* … a Python frame had called native code, which ran */
	double gc;     /* … it collected garbage */
	double gil_held;
	double gil_waiting; /* … it wanted the GIL and did not have it */
};

/* What looks at a few words of a busy thread have met, in the last interval. */
struct detect_exceptions {
	uint64_t looks;         /* 0: it was not looked at */
	uint64_t raised;        /* an error was on its way; ends of iterations are none */
	uint64_t handled;       /* else: one was being handled … */
	uint64_t handled_below; /* … in what the handler has called */
	uint64_t pairs;         /* looks right after one that met an exception being handled */
	uint64_t changed;       /* … of which met another one, or none */
	const char *type;       /* the one that was met most; foreign text; NULL: none */
	uint64_t of_type;
};

struct detect_thread {
	pid_t tid;
	uint64_t start_ns;    /* when it started, of any clock: with the tid, its identity; 0 where unknown */
	const char *name;     /* never NULL; foreign text */
	char state;           /* as in pyspyd_thread */
	enum pyspyd_gil gil;  /* now */
	bool python;          /* it has a Python thread state */
	uint64_t ident;       /* Python's, 0 without */
	uint64_t interval_ns; /* since it was looked at last (or since it started): what the four below are sums over;
				 0: this is the first look, nothing is known yet */
	uint64_t run_ns;      /* on a CPU: the kernel's run counter (schedstat); where there is none, user + system */
	uint64_t wait_ns;     /* of the same interval: runnable, but without a CPU */
	uint64_t user_ns;     /* by the kernel's ticks: coarse, only their ratio is used */
	uint64_t system_ns;
	uint64_t samples; /* looks at its stack in the window: the last seconds, at least one interval; 0: none */
	struct detect_shares shares;
	struct detect_exceptions exceptions;
	const struct detect_stack *stacks; /* of the window, highest share first, DETECT_STACKS_MAX at most; those of
					      threads that used less than half a core need not be handed in */
	size_t stacks_n;
};

#define DETECT_STACKS_MAX 5

/* What the collector of garbage has done in one generation since the start; UINT64_MAX: not known. */
struct detect_collector {
	uint64_t collections, collected, uncollectable;
};

/* Descriptors that are alike. */
struct detect_group {
	const char *kind, *target; /* "socket", "tcp CLOSE_WAIT to 10.1.2.3:5432"; never NULL */
	uint64_t count;
	int64_t grew; /* since they were grouped first */
};

/* What a detector would like to be acquired for its next look: it costs more than counters do. Wishes of all detectors
 * add up. */
struct detect_wishes {
	bool heap_first;  /* a first count of the heap, to compare with, unless there is one */
	bool heap_growth; /* what grew since that one: another count */
	bool heap_forget; /* the first count is of no use any more */
	bool fds_first;   /* likewise: groups of descriptors to compare with, … */
	bool fds_growth;  /* … and what grew */
	bool origins;     /* from now on, where descriptors, threads and children are made */
};

struct detect_process {
	const char *name;                    /* the kernel's; NULL: not known */
	const struct detect_thread *threads; /* all of them: one that is missing has ended */
	size_t threads_n;
	uint64_t period_ns;        /* of the schedule: what interval_ns should be */
	double gil_switches_per_s; /* the GIL went to another thread; negative: not known */
	pid_t gil_holder;          /* the thread that has held the GIL without a break … */
	uint64_t gil_held_ns; /* … for at least that long, as far as it was looked at; 0: nobody, or it changes hands */
	uint32_t gil_waiters;       /* threads that wanted it meanwhile */
	const char *gil_call;       /* the C function that its holder sleeps in, printable; NULL: not known */
	uint64_t start_ns;          /* when it started, on the input's clock; 0: not known */
	uint64_t fds, fd_limit;     /* open descriptors, and how many there may be; here and below UINT64_MAX: not known
				       (of a limit: none) */
	uint64_t threads_total;     /* those of native libraries too, as the kernel counts them */
	uint64_t children, zombies; /* direct children, zombies included; how many of them are zombies */
	uint64_t private_bytes;     /* anonymous memory of its own, in RAM or swap */
	uint64_t memory_bytes, memory_limit_bytes; /* of its control group with the lowest limit */
	uint64_t host_available_bytes;             /* what the machine could still give */
	double memory_stall_pct;     /* of the last 10 s, in which a task of the group waited for memory; negative: not
					known */
	uint64_t tasks, tasks_limit; /* of the control group with the lowest limit */
	double gc_share;             /* of the samples since the last look, in which it collected garbage,
					0 to 1; negative: not known */
	struct detect_collector collector[3]; /* by generation, the young one first */
	bool expect_busy;                     /* a rule says that this program uses its cores for its purpose */
};

/* How a process ended. */
struct detect_end {
	int signal; /* that ended it; 0: it exited */
	int code;   /* with 0: the status that it exited with */
	bool core_dumped;
	pid_t parent;    /* at its end; 0: in no PID namespace of ours; negative: not known */
	bool sent_known; /* who sent the signal, and what follows, is known */
	bool by_kernel;  /* it is the kernel's own: for what the sender did, or for want of memory */
	pid_t sender;    /* process; 0: in no PID namespace of ours */
	char sender_name[16];
	pid_t thread; /* that the signal was for; 0: for all */
	bool address_known;
	uint64_t address; /* what it stumbled at */
	bool oom;         /* the kernel has killed for want of memory lately */
};

/* One look at one process. A detector that needs more (a wait graph, a census) gets a pointer of its own here, NULL
 * where it was not acquired; the others do not notice. */
struct detect_input {
	uint64_t now_ns; /* never goes back (CLOCK_BOOTTIME); the same clock in every look */
	const struct detect_process *process;
	const struct pyspyd_waits *waits; /* the wait graph, solved and confirmed; NULL: not looked at this time, what
					     was said last still stands */
	pid_t pid;                        /* whose looks these are: which nodes of the graph are its own */
	const bool *alive;                /* per node of waits: see waits_alive; NULL with waits */
	const pid_t *watched; /* all processes that are looked at: a fault among several is raised by one of them */
	size_t watched_n;     /* 0: this one alone */
	const struct pyspyd_heap *heap; /* two counts compared (between_ns is not 0), the newest ones that were made;
					   NULL: none */
	uint64_t heap_ns;               /* when the later one was made */
	const char *heap_why;           /* why there can be none ("free-threaded …"); NULL: nothing is in the way */
	const struct detect_group *fds; /* what grew most comes first */
	size_t fds_n;                   /* 0: not grouped */
	const struct pyspyd_origin *origins; /* where what is there was made, by what; as far as it was seen */
	size_t origins_n;
	const char *origins_why;      /* why nothing can be seen of that; NULL: nothing is in the way */
	struct detect_wishes *wishes; /* to be filled in; NULL: nobody listens */
	const struct detect_end *end; /* the process has ended, how that is known, and this is the last look: the
					 threads are as they were last, their first stack is the last one that was seen;
					 NULL: it goes on */
};

/* What a detector says. */

enum detect_presence { DETECT_PRESENT, DETECT_ABSENT };

/* One thing that was read, or worked out; its place in the finding's evidence. */
struct detect_fact {
	const char *key; /* static */
	enum { DETECT_NUMBER, DETECT_COUNT, DETECT_TEXT } type;
	double number;    /* negative: not known */
	uint64_t count;   /* UINT64_MAX: not known */
	const char *text; /* static, or the input's; NULL: not known */
};

struct detect_party {
	const struct detect_thread *thread; /* the input's; or NULL, and … */
	uint32_t node;                      /* … a node of the verdict's wait graph: thread, task or process */
	const char *role;                   /* static: "spinning", "waiting", "holding" */
	double cpu_percent;                 /* of one core over the fault; negative: not measured */
};

#define DETECT_FACTS_MAX 12
#define DETECT_PARTIES_MAX 16
#define DETECT_SUMMARY_MAX 1024

/* Borrows from the input: to be used before the input's strings and arrays go. */
struct detect_verdict {
	const char *kind;    /* "spiking-thread"; static, as all words here */
	const char *pattern; /* "Spiking Thread" */
	uint64_t key;        /* tells faults of one kind in one process apart; never used again */
	enum detect_presence presence;
	const char *ended; /* with DETECT_ABSENT, why: "calm", "thread-ended"; the rest below may be empty then */
	bool fading;       /* present, but it may be over: no moment to show what it looks like */
	enum pyspyd_severity severity;
	uint64_t since_ns;                               /* when the fault began, on the input's clock */
	struct detect_party parties[DETECT_PARTIES_MAX]; /* the first one's stacks are the fault's site */
	size_t parties_n;
	struct detect_fact facts[DETECT_FACTS_MAX];
	size_t facts_n;
	const struct pyspyd_waits *waits; /* NULL: the fault is none of waiting */
	uint32_t knot;                  /* of `waits`, whose chain is the evidence; UINT32_MAX: chains of all parties */
	bool inferred;                  /* else proven */
	const char *certain_why;        /* with inferred: why; static */
	const struct pyspyd_heap *heap; /* evidence: what grew; NULL: the fault is none of memory */
	const struct detect_group *fds; /* evidence likewise */
	size_t fds_n;
	const struct pyspyd_origin *origins; /* evidence likewise */
	size_t origins_n;
	const char *origins_why;
	const char *advice;               /* static, or the detector's own until its next look */
	char summary[DETECT_SUMMARY_MAX]; /* one line, printable */
};

typedef VEC(struct detect_verdict) detect_verdicts;

/* Settings. */

enum detect_unit {
	DETECT_PERCENT,  /* "90" or "90%": 90.0 */
	DETECT_DURATION, /* "10s": nanoseconds */
	DETECT_NUMBERS,  /* "50": 50.0 */
};

struct detect_setting {
	const char *name; /* "pct" */
	enum detect_unit unit;
	double value, least, most; /* default and range, in the unit's terms */
	const char *help;          /* one line */
};

#define DETECT_SETTINGS_MAX 12
#define DETECT_MAX 32

struct detector {
	const char *kind;
	bool at_end;                           /* asked when a process has ended, and only then */
	const struct detect_setting *settings; /* ends with a NULL name */
	size_t state_bytes;                    /* zeroed memory is a fresh state */
	void (*state_deinit)(void *state);
	/* Appends its verdicts. Values stand in the settings' order. Return: 0; -ENOMEM (then some may be missing). */
	int (*decide)(void *state, const double *settings, const struct detect_input *input, detect_verdicts *verdicts);
};

#define DETECTOR(name) extern const struct detector name##_detector;
#include "engine/detect/detectors.def"
#undef DETECTOR

extern const struct detector *const detectors[];
extern const size_t detectors_n;

struct detect_config {
	double values[DETECT_MAX][DETECT_SETTINGS_MAX];
};

void detect_config_init(struct detect_config *config);

/* Applies "spiking-thread.pct=95". Return: 0; PYSPYD_E_USAGE, the text names what is wrong and what there is. */
int detect_config_set(struct detect_config *config, const char *assignment, struct err *err);

/* The value of a setting that there is: "spiking-thread.pct". */
double detect_config_get(const struct detect_config *config, const char *setting);

/* The longest of the durations among a detector's settings: it needs about that long to raise what there is. 0: it has
 * none, or there is no such detector. */
uint64_t detect_config_longest(const struct detect_config *config, const char *kind);

/* The states of all detectors for one process. */
struct detect_set;
int detect_set_new(struct detect_set **ret_set); /* Return: 0, -ENOMEM */
void detect_set_free(struct detect_set *set);

/* One look. Empties `verdicts` first; the vector stays the caller's to vec_free. Return: 0, -ENOMEM. */
int detect_set_decide(struct detect_set *set, const struct detect_config *config, const struct detect_input *input,
	detect_verdicts *verdicts);

/* "12 s", "3 min 5 s", "2 h 10 min". */
void detect_duration_text(uint64_t ns, char *out, size_t size);

#endif
