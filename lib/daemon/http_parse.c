/* http_parse.c - the request head: a method, a target, a version, headers nobody reads. Pure. */
#include <errno.h>

#include "daemon/http.h"

static bool starts_with(const char *bytes, size_t n, const char *word) { return n >= strlen(word) && !memcmp(bytes, word, strlen(word)); }

/* Where the head ends (behind the empty line), 0: not yet. Lines end with CR LF; a lone LF is accepted, as RFC 9112 allows. */
static size_t find_end(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] != '\n')
            continue;
        if (i + 1 < n && bytes[i + 1] == '\n')
            return i + 2;
        if (i + 2 < n && bytes[i + 1] == '\r' && bytes[i + 2] == '\n')
            return i + 3;
    }
    return 0;
}

static int parse_target(const char *target, size_t n, struct http_request *ret)
{
    const char *query = memchr(target, '?', n);

    if (query)
        n = (size_t)(query - target);
    if (n >= sizeof ret->path)
        return -ENAMETOOLONG;
    if (n == 0 || target[0] != '/')
        return -EBADMSG;
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)target[i] <= ' ' || (unsigned char)target[i] >= 0x7f)
            return -EBADMSG;
    memcpy(ret->path, target, n);
    ret->path[n] = '\0';
    return 0;
}

int http_parse(const char *bytes, size_t n, struct http_request *ret)
{
    size_t end = find_end(bytes, n);
    struct http_request request = {0};
    const char *line_end, *target, *space;
    int r;

    /* Refuse what cannot become a request without waiting for its end. */
    for (size_t i = 0; i < MIN(n, 8u); i++)
        if ((unsigned char)bytes[i] < ' ' && bytes[i] != '\r' && bytes[i] != '\n')
            return -EBADMSG;
    if (end == 0)
        return n >= HTTP_MAX_REQUEST ? -EMSGSIZE : 0;
    if (end > HTTP_MAX_REQUEST)
        return -EMSGSIZE;
    line_end = memchr(bytes, '\n', end);
    space = memchr(bytes, ' ', (size_t)(line_end - bytes));
    if (!space || space == bytes)
        return -EBADMSG;
    for (const char *c = bytes; c < space; c++)
        if (*c < 'A' || *c > 'Z')
            return -EBADMSG;
    target = space + 1;
    space = memchr(target, ' ', (size_t)(line_end - target));
    if (!space || !starts_with(space + 1, (size_t)(line_end - space - 1), "HTTP/1."))
        return -EBADMSG;
    request.head_only = starts_with(bytes, end, "HEAD ");
    if (!request.head_only && !starts_with(bytes, end, "GET "))
        return -EOPNOTSUPP;
    if ((r = parse_target(target, (size_t)(space - target), &request)) < 0)
        return r;
    *ret = request;
    return (int)end;
}
