/* SPDX-License-Identifier: MIT */
/* A program with known stacks, for native_oracle.py. usage: native_target CASE
 *
 * Prints "ready" where it is to be looked at, and waits for its standard input to end, or spins. Functions whose names
 * begin with known_ are what the stack must show, in this order. */
#include <alloca.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define KNOWN __attribute__((noipa))
#define AFTER __asm__ volatile("" ::: "memory") /* what follows a call keeps it from being a jump */

static volatile int sink;

KNOWN static void known_wait(void) {
	char byte;

	if (write(1, "ready\n", 6) == 6)
		while (read(0, &byte, 1) > 0)
			;
	AFTER;
}

KNOWN static void known_spin(void) {
	if (write(1, "ready\n", 6) == 6)
		for (;;)
			sink++;
}

/* Through stubs of the PLT into the vdso, libc's assembler, and functions that are found at the first call. */
KNOWN static void known_calls(void) {
	static char a[256], b[256];
	struct timespec now;

	if (write(1, "ready\n", 6) != 6)
		return;
	for (size_t i = 0;; i++) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		memcpy(a, b, (size_t)now.tv_nsec % sizeof(a));
		sink += strchr(a, 'x') ? 1 : memcmp(a, b, i % sizeof(a));
		sink += rand();
	}
}

KNOWN static void known_deep(int n) {
	if (n)
		known_deep(n - 1);
	else
		known_wait();
	AFTER;
}

KNOWN static void known_alloca(size_t n) {
	char *room = alloca(n);

	memset(room, 1, n);
	sink = room[n / 2];
	known_wait();
	AFTER;
}

KNOWN static void known_realigned(int n) {
	_Alignas(64) char room[256];

	memset(room, n, sizeof(room));
	sink = (int)(uintptr_t)room;
	known_alloca((size_t)n + 16);
	AFTER;
}

KNOWN static int known_compare(const void *a, const void *b) {
	static int once;

	if (!once++)
		known_wait();
	return *(const int *)a - *(const int *)b;
}

KNOWN static void known_qsort(void) {
	int items[] = { 3, 2, 1 };

	qsort(items, 3, sizeof(*items), known_compare);
	sink = items[0];
}

static void known_handler(int signal) {
	(void)signal;
	known_wait();
	AFTER;
}

KNOWN static void known_signal(void) {
	struct sigaction action = { .sa_handler = known_handler };

	sigaction(SIGUSR1, &action, NULL);
	kill(getpid(), SIGUSR1);
	AFTER;
}

KNOWN static void known_alternate(void) {
	struct sigaction action = { .sa_handler = known_handler, .sa_flags = SA_ONSTACK };
	stack_t stack = { .ss_size = 65536 };
	int *volatile nothing = NULL;

	stack.ss_sp = malloc(stack.ss_size);
	sigaltstack(&stack, NULL);
	sigaction(SIGSEGV, &action, NULL);
	*nothing = 1;
	AFTER;
}

/* The call is the function's last instruction: what it would return to is another function's. */
KNOWN _Noreturn static void known_aborts(void) {
	struct sigaction action = { .sa_handler = known_handler };

	sigaction(SIGABRT, &action, NULL);
	abort();
}

KNOWN static void *known_thread(void *mutex) {
	pthread_mutex_lock(mutex);
	return NULL;
}

KNOWN static void known_mutex(void) {
	static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
	pthread_t thread;

	pthread_mutex_lock(&mutex);
	pthread_create(&thread, NULL, known_thread, &mutex);
	known_wait();
	AFTER;
}

KNOWN static void known_vfork(void) {
	pid_t pid = vfork();

	if (!pid) {
		char byte;

		if (write(1, "ready\n", 6) == 6)
			while (read(0, &byte, 1) > 0)
				;
		_exit(0);
	}
	waitpid(pid, NULL, 0);
}

KNOWN static void known_nowhere(void) {
	struct sigaction action = { .sa_handler = known_handler };
	void (*volatile nowhere)(void) = NULL;

	sigaction(SIGSEGV, &action, NULL);
	nowhere();
	AFTER;
}

#ifdef __x86_64__
/* push %rbp; mov %rsp,%rbp; call *%rdi; pop %rbp; ret: code that no file describes. */
KNOWN static void known_jit(void) {
	static const uint8_t code[] = { 0x55, 0x48, 0x89, 0xe5, 0xff, 0xd7, 0x5d, 0xc3 };
	void *room = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char path[64];
	FILE *map;

	memcpy(room, code, sizeof(code));
	snprintf(path, sizeof(path), "/tmp/perf-%d.map", (int)getpid());
	map = fopen(path, "we");
	if (!map)
		return;
	fprintf(map, "%lx 8 known_made\n", (unsigned long)room);
	fclose(map);
	((void (*)(void (*)(void)))room)(known_spin);
	AFTER;
}
#endif

static void run_deep(void) {
	known_deep(600);
	AFTER;
}

static void run_realigned(void) {
	known_realigned(100);
	AFTER;
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "wait", known_wait },
	{ "spin", known_spin },
	{ "calls", known_calls },
	{ "deep", run_deep },
	{ "realigned", run_realigned },
	{ "qsort", known_qsort },
	{ "signal", known_signal },
	{ "alternate", known_alternate },
	{ "aborts", known_aborts },
	{ "mutex", known_mutex },
	{ "vfork", known_vfork },
	{ "nowhere", known_nowhere },
#ifdef __x86_64__
	{ "jit", known_jit },
#endif
};

int main(int argc, char **argv) {
	for (size_t i = 0; argc == 2 && i < sizeof(cases) / sizeof(*cases); i++)
		if (!strcmp(cases[i].name, argv[1]))
			cases[i].run();
	return 2;
}
