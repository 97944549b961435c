/* SPDX-License-Identifier: MIT */
#ifndef PYSPYD_BASE_LIMITS_H
#define PYSPYD_BASE_LIMITS_H

/* How far we follow what a target says. Every walk over foreign data ends at one of these. */

#define LIMIT_FRAMES 4096            /* of one stack; deeper ones are marked truncated */
#define LIMIT_THREADS 65536          /* thread states of one interpreter */
#define LIMIT_INTERPRETERS 1024      /* of one process */
#define LIMIT_CHUNKS 256             /* data-stack chunks of one thread */
#define LIMIT_CHUNK_BYTES (4U << 20) /* of one data-stack chunk */
#define LIMIT_NAME_CHARS 1024        /* of a function's or a thread's name, a type's name */
#define LIMIT_PATH_CHARS 4096        /* of a file name */
#define LIMIT_LINETABLE_BYTES (4U << 20)
#define LIMIT_LOCALS 256               /* variables shown of one frame */
#define LIMIT_VALUE_CHARS 120          /* of one variable's value */
#define LIMIT_EXCEPTIONS 64            /* of one thread, with all that they lead to */
#define LIMIT_EXCEPTION_MEMBERS 16     /* shown of one group of exceptions */
#define LIMIT_EXCEPTION_NOTES 16       /* of one exception */
#define LIMIT_MESSAGE_CHARS 1000       /* of one exception's message, and of one note */
#define LIMIT_TRACEBACK_INNER 64       /* frames shown of a traceback: where it was raised, */
#define LIMIT_TRACEBACK_OUTER 32       /* and where the calls began */
#define LIMIT_DICT_ENTRIES (1U << 20)  /* looked at in one dictionary */
#define LIMIT_MAPS 65536               /* lines of one /proc/PID/maps */
#define LIMIT_INTERN_BYTES (64U << 20) /* of one table of strings */
#define LIMIT_PLACES (1U << 20)        /* instructions kept decoded per process */
#define LIMIT_NODES (4U << 20)         /* distinct stacks of one profile */
#define LIMIT_CODES 65536              /* code objects kept decoded per process */

#endif
