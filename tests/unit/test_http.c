/* test_http.c - the request head alone, then the server over a real connection. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/atomic_file.h"
#include "daemon/http.h"
#include "tests/harness/scratch.h"

static int parse(const char *text, struct http_request *ret) { return http_parse(text, strlen(text), ret); }

static void test_parse(void **state _unused_)
{
    static const struct { const char *text; int result; } refused[] = {
        {"POST / HTTP/1.1\r\n\r\n", -EOPNOTSUPP}, {"get / HTTP/1.1\r\n\r\n", -EBADMSG}, {"GET /\r\n\r\n", -EBADMSG},
        {"GET x HTTP/1.1\r\n\r\n", -EBADMSG},     {"GET / FTP/1.1\r\n\r\n", -EBADMSG},  {"\x16\x03\x01", -EBADMSG},
        {"\r\n\r\n", -EBADMSG},                   {"GET /\x01 HTTP/1.1\r\n\r\n", -EBADMSG},
        {"GET /status\x01 HTTP/1.1\r\n\r\n", -EBADMSG}, {"GET /status\x7f HTTP/1.1\r\n\r\n", -EBADMSG},
        {"GET /", 0},                             {"GET / HTTP/1.1\r\nHost: x\r\n", 0},
    };
    struct http_request request = {0};

    assert_int_equal(parse("GET /status.json?x=1 HTTP/1.1\r\nHost: a\r\n\r\nrest", &request), 42);
    assert_string_equal(request.path, "/status.json");
    assert_false(request.head_only);
    assert_int_equal(parse("HEAD / HTTP/1.0\n\n", &request), 17);
    assert_true(request.head_only);
    for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
        assert_int_equal(parse(refused[i].text, &request), refused[i].result);
}

static void test_parse_limits(void **state _unused_)
{
    char text[HTTP_MAX_REQUEST + 8];
    struct http_request request;

    memset(text, 'a', sizeof text);
    memcpy(text, "GET /", 5);
    assert_int_equal(http_parse(text, HTTP_MAX_REQUEST, &request), -EMSGSIZE);
    assert_int_equal(http_parse(text, HTTP_MAX_REQUEST - 1, &request), 0);
    memcpy(text + 1100, " HTTP/1.1\r\n\r\n", 13);
    assert_int_equal(http_parse(text, 1113, &request), -ENAMETOOLONG);
}

static void say_hello(struct http_reply *reply, void *arg)
{
    ++*(unsigned *)arg;
    strbuf_adds(&reply->body, "hello\n");
}

static void say_down(struct http_reply *reply, void *arg _unused_)
{
    reply->status = 503;
    strbuf_adds(&reply->body, reply->trusted ? "down: why\n" : "down\n");
}

static const struct http_route routes[] = {{"/hello", say_hello, false}, {"/down", say_down, true}, {NULL, NULL, false}};

struct served { struct loop *loop; struct http *http; unsigned calls; };

static void serve(struct served *s)
{
    struct error error = {0};

    *s = (struct served) {0};
    assert_int_equal(loop_new(&s->loop), 0);
    if (http_new(s->loop, "127.0.0.1:0", routes, &s->calls, &s->http, &error) < 0)
        fail_msg("%s", error.text);
}

static void stop(struct served *s)
{
    http_free(s->http);
    loop_free(s->loop);
}

static int dial(const struct served *s)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)http_port(s->http)),
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

/* Send, then turn the loop until the server has closed the connection. */
static void ask(struct served *s, const char *request, char *ret, size_t size)
{
    int fd = dial(s);
    size_t n = 0;
    ssize_t got;

    assert_int_equal(send(fd, request, strlen(request), 0), (ssize_t)strlen(request));
    for (;;) {
        got = recv(fd, ret + n, size - 1 - n, MSG_DONTWAIT);
        if (got == 0)
            break;
        if (got > 0)
            n += (size_t)got;
        else
            loop_turn(s->loop, true);
    }
    ret[n] = '\0';
    close(fd);
}

static void test_server(void **state _unused_)
{
    struct served s;
    char reply[4096];

    serve(&s);
    ask(&s, "GET /hello HTTP/1.1\r\nHost: x\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 6\r\n"
                                  "Connection: close\r\n"));
    assert_non_null(strstr(reply, "\r\n\r\nhello\n"));
    ask(&s, "HEAD /hello HTTP/1.1\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "Content-Length: 6\r\n"));
    assert_null(strstr(reply, "hello"));
    assert_int_equal(s.calls, 2);
    ask(&s, "GET /down HTTP/1.1\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 503 Service Unavailable\r\n"));
    ask(&s, "GET /none HTTP/1.1\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 404 Not Found\r\n"));
    assert_non_null(strstr(reply, "\r\n\r\n404 Not Found\n"));
    ask(&s, "HEAD /none HTTP/1.1\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 404 Not Found\r\n"));
    assert_string_equal(strstr(reply, "\r\n\r\n"), "\r\n\r\n");    /* HEAD has no body, whatever the answer */
    ask(&s, "DELETE /hello HTTP/1.1\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 405 Method Not Allowed\r\n"));
    assert_non_null(strstr(reply, "Allow: GET, HEAD\r\n"));
    ask(&s, "garbage\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 400 Bad Request\r\n"));
    stop(&s);
}

/* Clients that go away, or are there when the server ends, leave nothing behind (loop_free would abort). */
static void test_rude_clients(void **state _unused_)
{
    struct served s;
    int half, gone;

    serve(&s);
    half = dial(&s);
    assert_int_equal(send(half, "GET /he", 7, 0), 7);
    gone = dial(&s);
    loop_turn(s.loop, true);
    close(gone);
    loop_turn(s.loop, false);
    stop(&s);
    close(half);
}

/* A head that comes in pieces, one that never ends, and one client more than there may be. */
static void test_slow_and_many_clients(void **state _unused_)
{
    char reply[512] = "", request[HTTP_MAX_REQUEST + 1];
    struct served s;
    int fds[HTTP_MAX_CLIENTS], slow;

    serve(&s);
    slow = dial(&s);
    assert_int_equal(send(slow, "GET /he", 7, 0), 7);
    for (int i = 0; i < 3; i++)
        loop_turn(s.loop, false);
    assert_int_equal(send(slow, "llo HTTP/1.1\r\n\r\n", 16, 0), 16);
    while (recv(slow, reply, sizeof reply - 1, MSG_DONTWAIT) < 0)
        loop_turn(s.loop, true);
    assert_non_null(strstr(reply, "HTTP/1.1 200 OK\r\n"));
    close(slow);
    memset(request, 'a', sizeof request - 1);
    request[sizeof request - 1] = '\0';
    memcpy(request, "GET /", 5);
    ask(&s, request, reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 431 Request Header Fields Too Large\r\n"));
    memcpy(request + 2000, " HTTP/1.1\r\n\r\n", 14);
    ask(&s, request, reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 414 URI Too Long\r\n"));
    for (int i = 0; i < HTTP_MAX_CLIENTS; i++) {
        fds[i] = dial(&s);
        loop_turn(s.loop, false);
    }
    ask(&s, "GET /hello HTTP/1.1\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 503 Service Unavailable\r\n"));
    for (int i = 0; i < HTTP_MAX_CLIENTS; i++)
        close(fds[i]);
    do
        ask(&s, "GET /hello HTTP/1.1\r\n\r\n", reply, sizeof reply);
    while (strstr(reply, "HTTP/1.1 503 "));         /* until it has seen them go */
    assert_non_null(strstr(reply, "HTTP/1.1 200 OK\r\n"));
    stop(&s);
}

static void test_address(void **state _unused_)
{
    struct served s;
    struct http *second;
    struct error error = {0};
    char address[200];

    serve(&s);
    snprintf(address, sizeof address, "127.0.0.1:%u", http_port(s.http));
    assert_int_equal(http_new(s.loop, address, routes, NULL, &second, &error), -EADDRINUSE);
    assert_non_null(strstr(error.text, address));
    assert_non_null(strstr(error.text, "change status.http"));
    assert_int_equal(http_new(s.loop, "8080", routes, NULL, &second, &error), -EINVAL);
    assert_int_equal(http_new(s.loop, "127.0.0.1:65536", routes, NULL, &second, &error), -EINVAL);    /* not port 0 */
    assert_int_equal(http_new(s.loop, "[127.0.0.1]:0", routes, NULL, &second, &error), 0);
    assert_null(http_free(second));
    memset(address, 'h', sizeof address);
    memcpy(address + sizeof address - 4, ":80", 4);
    assert_int_equal(http_new(s.loop, address, routes, NULL, &second, &error), -ENAMETOOLONG);
    stop(&s);
}

static void write_token(const char *path, const char *text, unsigned mode)
{
    FILE *file = fopen(path, "w");

    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(chmod(path, mode), 0);
}

static void test_parse_token(void **state _unused_)
{
    struct http_request request = {0};
    char text[HTTP_TOKEN_MAX + 32];

    assert_true(parse("GET /?a=1&token=abc&b HTTP/1.1\r\n\r\n", &request) > 0);
    assert_string_equal(request.token, "abc");
    assert_string_equal(request.path, "/");
    assert_true(parse("GET / HTTP/1.1\r\nX: y\r\nauthorization:  bearer t-1 \r\n\r\n", &request) > 0);
    assert_string_equal(request.token, "t-1");
    assert_true(parse("GET / HTTP/1.1\r\nX-Something-1: Bearer abcdefgh\r\nProxy-Authorization: Bearer a\r\n\r\n", &request) > 0);
    assert_string_equal(request.token, "");             /* other headers are not ours to read */
    assert_true(parse("GET /?nekot=abc HTTP/1.1\r\nAuthorization: Bearer x\r\n\r\n", &request) > 0);
    assert_string_equal(request.token, "x");
    memset(text, 't', sizeof text);
    memcpy(text, "GET /?token=", 12);
    memcpy(text + 12 + HTTP_TOKEN_MAX, " HTTP/1.1\r\n\r\n", 14);
    assert_true(parse(text, &request) > 0);
    assert_int_equal(strlen(request.token), HTTP_TOKEN_MAX);
    text[12 + HTTP_TOKEN_MAX] = 't';
    memcpy(text + 13 + HTTP_TOKEN_MAX, " HTTP/1.1\r\n\r\n", 14);
    assert_true(parse(text, &request) > 0);
    assert_string_equal(request.token, "");             /* too long to be one */
    assert_true(parse("GET /?token HTTP/1.1\r\nAuthorization: Basic abcdefgh\r\n\r\n", &request) > 0);
    assert_string_equal(request.token, "");
}

static void test_token(void **state _unused_)
{
    struct served s;
    struct error error = {0};
    char reply[4096], dir[SCRATCH_PATH], path[SCRATCH_PATH + 16];

    scratch_new(dir);
    snprintf(path, sizeof path, "%s/token", dir);
    serve(&s);
    write_token(path, "0123456789abcdef-secret\n", 0644);
    assert_int_equal(http_set_token_file(s.http, path, &error), -EPERM);
    assert_non_null(strstr(error.text, "chmod 600"));
    write_token(path, "short\n", 0600);
    assert_int_equal(http_set_token_file(s.http, path, &error), -EINVAL);
    assert_null(strstr(error.text, "short"));           /* what is in it is not said */
    write_token(path, "0123456789abcdef$ecret\n", 0600);      /* no part of it is a token */
    assert_int_equal(http_set_token_file(s.http, path, &error), -EINVAL);
    write_token(path, "0123456789abcdef-secret\n", 0600);
    assert_int_equal(http_set_token_file(s.http, path, &error), 0);
    ask(&s, "GET /hello HTTP/1.1\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 401 Unauthorized\r\n"));
    assert_non_null(strstr(reply, "WWW-Authenticate: Bearer\r\n"));
    ask(&s, "GET /none?token=0123456789abcdef-secreT HTTP/1.1\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 401 "));
    ask(&s, "GET /hello?token=0123456789abcdef-secret2 HTTP/1.1\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 401 "));
    assert_int_equal(s.calls, 0);
    ask(&s, "GET /hello?token=0123456789abcdef-secret HTTP/1.1\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 200 OK"));
    ask(&s, "GET /hello HTTP/1.1\r\nAuthorization: Bearer 0123456789abcdef-secret\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "HTTP/1.1 200 OK"));
    ask(&s, "GET /down HTTP/1.1\r\n\r\n", reply, sizeof reply);         /* a probe */
    assert_non_null(strstr(reply, "HTTP/1.1 503 "));
    assert_null(strstr(reply, "why"));
    ask(&s, "GET /down?token=0123456789abcdef-secret HTTP/1.1\r\n\r\n", reply, sizeof reply);
    assert_non_null(strstr(reply, "down: why"));
    stop(&s);
    assert_int_equal(remove_tree(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_parse_token), cmocka_unit_test(test_token),
        cmocka_unit_test(test_parse), cmocka_unit_test(test_parse_limits), cmocka_unit_test(test_server),
        cmocka_unit_test(test_rude_clients), cmocka_unit_test(test_slow_and_many_clients),
        cmocka_unit_test(test_address),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
