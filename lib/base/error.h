/* error.h - one line for a human beside the negative errno for the program.
 *
 * A function that can fail for a reason worth telling takes a `struct error *` last; NULL is fine. It
 * returns error_set(error, EINVAL, "..."), i.e. -EINVAL. The line says where, what was found and what to
 * do about it. Outputs (ret_*) are untouched on failure. The caller that logs, logs the line once. */
#pragma once

#include <stdbool.h>

#include "base/macro.h"

struct error {
    int errnum;         /* positive errno, 0 = none */
    char text[480];     /* one line, no newline at the end: control characters become spaces, wherever they came from */
};

/* Fill *error (may be NULL) and return -errnum. */
int error_set(struct error *error, int errnum, const char *format, ...) _printf_(3, 4);

/* Put "format: " before the line that is there (context on the way up); returns -error->errnum. */
int error_prefix(struct error *error, int result, const char *format, ...) _printf_(3, 4);

/* No room on the disk, or none for this user (a quota): what can be waited for. */
bool error_is_no_space(int result);

/* The line, or strerror of the number when no line was given. */
const char *error_text(const struct error *error, int result);
