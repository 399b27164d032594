/* A request head from anyone; a longer reading of the same bytes must never take back an answer. */
#include "daemon/http.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct http_request whole = {0}, part = {0};
    int r = http_parse((const char *)bytes, n, &whole);

    if (r > (int)n || (r > 0 && whole.path[0] != '/'))
        abort();
    if (r > 0 && (http_parse((const char *)bytes, (size_t)r, &part) != r || strcmp(whole.path, part.path) != 0))
        abort();
    if (r > 0 && r > 1 && http_parse((const char *)bytes, (size_t)r - 2, &part) > r)
        abort();
    return 0;
}
