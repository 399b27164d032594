#include "base/error.h"

#include <errno.h>
#include <stdarg.h>

#include "base/plain.h"

int error_set(struct error *error, int errnum, const char *format, ...)
{
    va_list args;

    if (error) {
        error->errnum = errnum;
        va_start(args, format);
        vsnprintf(error->text, sizeof error->text, format, args);
        va_end(args);
        make_plain(error->text, ' ');       /* a file's name, a bit of JSON, a peer's words */
    }
    return -errnum;
}

int error_prefix(struct error *error, int result, const char *format, ...)
{
    char old[sizeof error->text];
    va_list args;
    int n;

    if (!error)
        return result;
    snprintf(old, sizeof old, "%s", error_text(error, result));
    error->errnum = -result;
    va_start(args, format);
    n = vsnprintf(error->text, sizeof error->text, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof error->text)
        snprintf(error->text + n, sizeof error->text - (size_t)n, ": %s", old);
    make_plain(error->text, ' ');
    return result;
}

bool error_is_no_space(int result)
{
    return result == -ENOSPC || result == -EDQUOT;
}

const char *error_text(const struct error *error, int result)
{
    if (error && error->errnum != 0 && error->text[0])
        return error->text;
    return strerror(result < 0 ? -result : result);
}
