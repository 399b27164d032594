#include "base/plain.h"

#include <string.h>

#include "base/macro.h"

size_t control_length(const char *text)
{
    const unsigned char *c = (const unsigned char *)text;

    if ((c[0] > 0 && c[0] < 0x20) || c[0] == 0x7f)
        return 1;
    return c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0 ? 2 : 0;
}

void make_plain(char *text, char instead)
{
    for (size_t n; text && *text; text += MAX(n, (size_t)1)) {
        n = control_length(text);
        memset(text, instead, n);
    }
}
