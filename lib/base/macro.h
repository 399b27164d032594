/* macro.h - the few words every file uses: scope-owned cleanup, pointer hand-over, array length.
 *
 * _cleanup_(f) runs f(&variable) when the variable leaves scope; TAKE_PTR(p) hands p over and leaves
 * NULL behind, so that the cleanup of a half-built object is harmless. Destructors accept NULL. */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/banned.h"

#define _cleanup_(f) __attribute__((cleanup(f)))
#define _printf_(a, b) __attribute__((format(printf, a, b)))
#define _unused_ __attribute__((unused))

#define ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#undef MIN     /* <sys/param.h>, which <uv.h> pulls in, has them too */
#undef MAX
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define CLAMP(x, lo, hi) ((x) < (lo) ? (lo) : (x) > (hi) ? (hi) : (x))

#define TAKE_PTR(p) ({ __typeof__(p) taken_ = (p); (p) = NULL; taken_; })
#define TAKE_STRUCT(s) ({ __typeof__(s) taken_ = (s); (s) = (__typeof__(s)) {0}; taken_; })
#define TAKE_FD(fd) ({ int taken_ = (fd); (fd) = -1; taken_; })

/* For a type with `struct t *t_free(struct t *)` that returns NULL: defines t_freep for _cleanup_. */
#define DEFINE_FREEP(type, free_function) \
    static inline void free_function##p(type **p) { if (*p) *p = free_function(*p); }

static inline void freep(void *p) { free(*(void **)p); }
static inline void closep(int *fd) { if (*fd >= 0) close(*fd); }
#define _cleanup_free_ _cleanup_(freep)
#define _cleanup_close_ _cleanup_(closep)
