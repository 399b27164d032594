#include "daemon/http.h"

#include <errno.h>
#include <sys/stat.h>

#include "base/atomic_file.h"

struct client {
    uv_tcp_t tcp;
    struct loop_timer *timeout;
    struct http *http;
    struct client *next, *previous;
    uv_write_t write;
    struct strbuf head;
    struct http_reply reply;
    bool answered;
    size_t n;
    char bytes[HTTP_MAX_REQUEST];
};

struct http {
    uv_tcp_t tcp;
    struct loop *loop;
    const struct http_route *routes;
    void *arg;
    struct client *clients;
    unsigned n_clients, port;
    char token[HTTP_TOKEN_MAX + 1];     /* "": none is asked for */
};

static void on_client_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;

    strbuf_release(&client->head);
    strbuf_release(&client->reply.body);
    free(client);
}

static void client_close(struct client *client)
{
    struct http *http = client->http;

    if (uv_is_closing((uv_handle_t *)&client->tcp))
        return;
    if (client->previous)
        client->previous->next = client->next;
    else
        http->clients = client->next;
    if (client->next)
        client->next->previous = client->previous;
    http->n_clients--;
    loop_timer_free(client->timeout);
    uv_close((uv_handle_t *)&client->tcp, on_client_closed);
}

static void on_timeout(void *arg) { client_close(arg); }

static void on_shutdown(uv_shutdown_t *request, int status _unused_)
{
    struct client *client = request->data;

    free(request);
    client_close(client);
}

/* Half-close first: closing with unread bytes of the client would reset the connection and lose our answer. */
static void on_written(uv_write_t *write, int status)
{
    struct client *client = write->data;
    uv_shutdown_t *request = status == 0 && !uv_is_closing((uv_handle_t *)&client->tcp) ? calloc(1, sizeof *request) : NULL;

    if (!request) {
        client_close(client);
        return;
    }
    request->data = client;
    if (uv_shutdown(request, (uv_stream_t *)&client->tcp, on_shutdown) < 0) {
        free(request);
        client_close(client);
    }
}

static const char *status_words(int status)
{
    switch (status) {
    case 200: return "OK";
    case 400: return "Bad Request";
    case 401: return "Unauthorized";
    case 404: return "Not Found";
    case 405: return "Method Not Allowed";
    case 414: return "URI Too Long";
    case 431: return "Request Header Fields Too Large";
    case 503: return "Service Unavailable";
    default: return "Internal Server Error";
    }
}

static void send_reply(struct client *client, bool head_only)
{
    struct http_reply *reply = &client->reply;
    uv_buf_t parts[2];

    client->answered = true;
    if (reply->body.failed) {
        reply->status = 500;
        strbuf_reset(&reply->body);
    }
    strbuf_addf(&client->head,
                "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %zu\r\nConnection: close\r\nCache-Control: no-store\r\n"
                "X-Content-Type-Options: nosniff\r\n%s\r\n",
                reply->status, status_words(reply->status), reply->type, reply->body.length,
                reply->status == 405 ? "Allow: GET, HEAD\r\n" :
                reply->status == 401 ? "WWW-Authenticate: Bearer\r\n" : "");
    if (client->head.failed) {
        client_close(client);
        return;
    }
    parts[0] = uv_buf_init(client->head.text, (unsigned)client->head.length);
    parts[1] = uv_buf_init(reply->body.text, head_only ? 0 : (unsigned)reply->body.length);
    client->write.data = client;
    if (uv_write(&client->write, (uv_stream_t *)&client->tcp, parts, 2, on_written) < 0)
        client_close(client);
}

static void refuse(struct client *client, int status, bool head_only)
{
    client->reply.status = status;
    strbuf_addf(&client->reply.body, "%d %s\n", status, status_words(status));
    send_reply(client, head_only);
}

/* Takes as long whatever is wrong with it. */
static bool is_token(const char token[HTTP_TOKEN_MAX + 1], const char given[HTTP_TOKEN_MAX + 1])
{
    volatile unsigned char differs = 0;

    for (size_t i = 0; i < HTTP_TOKEN_MAX + 1; i++)
        differs |= (unsigned char)(token[i] ^ given[i]);
    return !differs;
}

static void answer(struct client *client, const struct http_request *request)
{
    const struct http_route *route = client->http->routes;

    while (route->path && strcmp(route->path, request->path) != 0)
        route++;
    client->reply.trusted = !client->http->token[0] || is_token(client->http->token, request->token);
    if (!client->reply.trusted && !route->open) {
        refuse(client, 401, request->head_only);        /* also for paths that are not there */
        return;
    }
    if (!route->path) {
        refuse(client, 404, request->head_only);
        return;
    }
    route->handle(&client->reply, client->http->arg);
    send_reply(client, request->head_only);
}

static void on_alloc(uv_handle_t *handle, size_t suggested _unused_, uv_buf_t *ret)
{
    struct client *client = handle->data;
    static char discard[4096];          /* what comes after the request is read and forgotten */

    if (client->answered)
        *ret = uv_buf_init(discard, sizeof discard);
    else
        *ret = uv_buf_init(client->bytes + client->n, (unsigned)(sizeof client->bytes - client->n));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer _unused_)
{
    struct client *client = stream->data;
    struct http_request request;
    int r;

    if (n < 0) {                        /* the client closed its side: an answer under way is still sent */
        if (!client->answered)
            client_close(client);
        else
            uv_read_stop(stream);
        return;
    }
    if (client->answered)
        return;
    client->n += (size_t)n;
    r = http_parse(client->bytes, client->n, &request);
    if (r > 0)
        answer(client, &request);
    else if (r < 0)
        refuse(client, r == -EOPNOTSUPP ? 405 : r == -ENAMETOOLONG ? 414 : r == -EMSGSIZE ? 431 : 400, false);
}

static void on_connection(uv_stream_t *server, int status)
{
    struct http *http = server->data;
    struct client *client;

    if (status < 0)
        return;
    client = calloc(1, sizeof *client);
    if (!client)
        return;
    strbuf_init(&client->head);
    strbuf_init(&client->reply.body);
    client->reply.status = 200;
    client->reply.type = "text/plain; charset=utf-8";
    client->http = http;
    uv_tcp_init(loop_uv(http->loop), &client->tcp);
    client->tcp.data = client;
    client->next = http->clients;
    if (http->clients)
        http->clients->previous = client;
    http->clients = client;
    http->n_clients++;
    if (uv_accept(server, (uv_stream_t *)&client->tcp) < 0 ||
        loop_timer_new(http->loop, HTTP_TIMEOUT_MS, 0, on_timeout, client, &client->timeout) < 0 ||
        uv_read_start((uv_stream_t *)&client->tcp, on_alloc, on_read) < 0)
        client_close(client);
    else if (http->n_clients > HTTP_MAX_CLIENTS)
        refuse(client, 503, false);
}

int http_address_check(const char *address, struct error *error)
{
    const char *colon = strrchr(address, ':'), *port = colon ? colon + 1 : "";

    if (!port[0] || port[strspn(port, "0123456789")])
        return error_set(error, EINVAL, "status.http: %s: not an address; write host:port, for example 127.0.0.1:8080", address);
    if (strlen(port) > 9 || strtol(port, NULL, 10) > 65535)     /* getaddrinfo takes it modulo 2^16 */
        return error_set(error, EINVAL, "status.http: %s: there is no port %s; they end at 65535", address, port);
    return 0;
}

static int resolve(const char *address, struct sockaddr_storage *ret, struct error *error)
{
    const char *colon = strrchr(address, ':');
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE | AI_NUMERICSERV}, *found = NULL;
    char host[128];
    size_t n;
    int r;

    if ((r = http_address_check(address, error)) < 0)
        return r;
    if ((size_t)(colon - address) >= sizeof host)
        return error_set(error, ENAMETOOLONG, "status.http: %s: the host's name is too long", address);
    n = (size_t)(colon - address);
    memcpy(host, address, n);
    host[n] = '\0';
    if (n >= 2 && host[0] == '[' && host[n - 1] == ']') {       /* [::1]:8080 */
        memmove(host, host + 1, n - 2);
        host[n - 2] = '\0';
    }
    r = getaddrinfo(host[0] ? host : NULL, colon + 1, &hints, &found);
    if (r != 0)
        return error_set(error, EINVAL, "status.http: %s: %s", address, gai_strerror(r));
    memcpy(ret, found->ai_addr, found->ai_addrlen);
    freeaddrinfo(found);
    return 0;
}

static void on_http_closed(uv_handle_t *handle) { free(handle->data); }

int http_new(struct loop *loop, const char *address, const struct http_route *routes, void *arg, struct http **ret,
             struct error *error)
{
    struct sockaddr_storage where = {0}, bound = {0};
    struct http *http;
    int r = resolve(address, &where, error), size = sizeof bound;

    if (r < 0)
        return r;
    http = calloc(1, sizeof *http);
    if (!http)
        return error_set(error, ENOMEM, "status page: out of memory");
    *http = (struct http) {.loop = loop, .routes = routes, .arg = arg};
    uv_tcp_init(loop_uv(loop), &http->tcp);
    http->tcp.data = http;
    if ((r = uv_tcp_bind(&http->tcp, (struct sockaddr *)&where, 0)) < 0 ||
        (r = uv_listen((uv_stream_t *)&http->tcp, 64, on_connection)) < 0 ||
        (r = uv_tcp_getsockname(&http->tcp, (struct sockaddr *)&bound, &size)) < 0) {
        uv_close((uv_handle_t *)&http->tcp, on_http_closed);
        return error_set(error, -r, "cannot listen at %s: %s; change status.http, or end what listens there", address,
                         uv_strerror(r));
    }
    /* the port is at the same place in sockaddr_in and sockaddr_in6 */
    http->port = ntohs(((struct sockaddr_in *)&bound)->sin_port);
    *ret = http;
    return 0;
}

struct http *http_free(struct http *http)
{
    if (!http)
        return NULL;
    while (http->clients)
        client_close(http->clients);
    uv_close((uv_handle_t *)&http->tcp, on_http_closed);
    return NULL;
}

unsigned http_port(const struct http *http) { return http->port; }

int http_token_load(const char *path, char ret_token[HTTP_TOKEN_MAX + 1], struct error *error)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~";
    _cleanup_free_ char *text = NULL;
    struct stat st;
    size_t n;
    int r;

    if (stat(path, &st) < 0)
        return error_set(error, errno, "status.token_file: %s: %s", path, strerror(errno));
    if (st.st_mode & S_IRWXO)       /* a group may have it: systemd's credentials show their access list there */
        return error_set(error, EPERM, "status.token_file: %s can be read by others: chmod 600 %s", path, path);
    r = file_read(path, 4096, &text, &n);
    if (r < 0)
        return error_set(error, -r, "status.token_file: %s: %s", path, strerror(-r));
    n = strspn(text, letters);
    if (n < 16 || n > HTTP_TOKEN_MAX || (text[n] && text[n] != '\n'))
        return error_set(error, EINVAL, "status.token_file: the first line of %s is not 16 to %d letters, digits, - _ . ~", path,
                         HTTP_TOKEN_MAX);
    memset(ret_token, 0, HTTP_TOKEN_MAX + 1);
    memcpy(ret_token, text, n);
    return 0;
}

int http_set_token_file(struct http *http, const char *path, struct error *error)
{
    return http_token_load(path, http->token, error);
}
