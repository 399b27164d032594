/* http.h - a small read-only HTTP/1.1 server for status pages and probes, on the daemon's loop.
 *
 * GET and HEAD only, request head <= HTTP_MAX_REQUEST bytes, a fixed table of paths, one answer per connection
 * (Connection: close), at most HTTP_MAX_CLIENTS at once, HTTP_TIMEOUT_MS for each from accept to the last byte.
 * Anything else is answered 400, 401, 404, 405, 414, 431 or 503 and closed. Of a query string only token=... is looked at. No
 * request can change anything: the page may be shown to whoever can reach the port, or who also knows the token, if one is set
 * (`Authorization: Bearer TOKEN`, or ?token=TOKEN for browsers). It is compared in constant time and never logged.
 * Thread rule: the loop's thread; handlers run there and must not block. */
#pragma once

#include "base/error.h"
#include "base/strbuf.h"
#include "daemon/loop.h"

enum { HTTP_MAX_REQUEST = 8192, HTTP_MAX_CLIENTS = 64, HTTP_TIMEOUT_MS = 10000, HTTP_TOKEN_MAX = 128 };

struct http_reply {
    int status;                 /* preset to 200 */
    const char *type;           /* preset to text/plain; charset=utf-8; constant text */
    bool trusted;               /* who asks knows the token, or there is none: an open route may say more */
    struct strbuf body;
};

struct http_route {
    const char *path;           /* "/status.json", whole */
    void (*handle)(struct http_reply *reply, void *arg);
    bool open;                  /* shown without the token, too: probes */
};

struct http;

/* host:port by its form, whether or not one could listen there? -EINVAL. */
int http_address_check(const char *address, struct error *error);

/* `address` is host:port (host: a number or name; port 0: any). `routes` is borrowed and ends with path NULL.
 * -EADDRINUSE, ...: *error names the address and the key to change. */
int http_new(struct loop *loop, const char *address, const struct http_route *routes, void *arg, struct http **ret,
             struct error *error);
struct http *http_free(struct http *http);      /* open connections are dropped */
DEFINE_FREEP(struct http, http_free)
unsigned http_port(const struct http *http);    /* the one that is listened on, also when port 0 was asked for */
/* The token that is a file's first line: 16 to HTTP_TOKEN_MAX letters, digits, - _ . ~, with zeros behind. -EPERM: the file is
 * open to others; -EINVAL: no such line; -ENOENT, ... */
int http_token_load(const char *path, char ret_token[HTTP_TOKEN_MAX + 1], struct error *error);
/* From here on asks for that token. */
int http_set_token_file(struct http *http, const char *path, struct error *error);

/* The request line and headers, pure (this is what the fuzzer feeds). Returns bytes of the head when it is complete,
 * 0 when more is needed; -EBADMSG no HTTP, -EOPNOTSUPP a method other than GET and HEAD, -ENAMETOOLONG a target over
 * 1 kB, -EMSGSIZE no end within HTTP_MAX_REQUEST. */
struct http_request { char path[1024]; char token[HTTP_TOKEN_MAX + 1]; bool head_only; };     /* token: "" none, or too long */
int http_parse(const char *bytes, size_t n, struct http_request *ret);
