/* http_parse.c - the request head: a method, a target, a version, and of the headers the one with a token. Pure. */
#include <errno.h>
#include <strings.h>

#include "daemon/http.h"

static bool starts_with(const char *bytes, size_t n, const char *word)
{
    return n >= strlen(word) && !memcmp(bytes, word, strlen(word));
}

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

static void take_token(const char *text, size_t n, struct http_request *ret)
{
    if (n == 0 || n > HTTP_TOKEN_MAX)
        return;
    memcpy(ret->token, text, n);
    ret->token[n] = '\0';
}

/* "a=1&token=abc" */
static void parse_query(const char *query, size_t n, struct http_request *ret)
{
    while (n > 0) {
        const char *end = memchr(query, '&', n);
        size_t length = end ? (size_t)(end - query) : n;

        if (starts_with(query, length, "token="))
            take_token(query + 6, length - 6, ret);
        n -= MIN(length + 1, n);
        query += length + 1;
    }
}

/* Authorization: Bearer abc */
static void parse_headers(const char *line, const char *end, struct http_request *ret)
{
    static const char name[] = "authorization:", scheme[] = "bearer ";

    while (line < end) {
        const char *next = memchr(line, '\n', (size_t)(end - line)), *last = next ? next : end, *value = line + sizeof name - 1;

        while (last > line && (last[-1] == '\r' || last[-1] == ' '))
            last--;
        if (value < last && !strncasecmp(line, name, sizeof name - 1)) {
            while (value < last && *value == ' ')
                value++;
            if ((size_t)(last - value) >= sizeof scheme && !strncasecmp(value, scheme, sizeof scheme - 1))
                take_token(value + sizeof scheme - 1, (size_t)(last - value) - (sizeof scheme - 1), ret);
        }
        line = next ? next + 1 : end;
    }
}

static int parse_target(const char *target, size_t n, struct http_request *ret)
{
    const char *query = memchr(target, '?', n);

    if (query) {
        parse_query(query + 1, n - (size_t)(query - target) - 1, ret);
        n = (size_t)(query - target);
    }
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
    parse_headers(line_end + 1, bytes + end, &request);
    *ret = request;
    return (int)end;
}
