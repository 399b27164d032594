#include "daemon/admin.h"

#include <errno.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "base/clock.h"

enum { STALE_MS = 100 };        /* somebody is there who takes no connection for so long: not ours to remove */

struct client {
    uv_pipe_t pipe;
    struct admin *admin;
    struct client *next, *previous;
    bool busy;              /* an answer is being written: the next command waits */
    bool ended;             /* the client sends no more; close after the answers */
    uv_write_t write;
    struct strbuf reply;
    size_t n;
    char line[ADMIN_MAX_LINE];
};

struct admin {
    uv_pipe_t pipe;
    struct loop *loop;
    char *path;
    const struct admin_command *commands;
    void *arg;
    struct client *clients;
    unsigned n_clients;
};

static void on_client_closed(uv_handle_t *handle)
{
    struct client *client = handle->data;

    strbuf_release(&client->reply);
    free(client);
}

static void client_close(struct client *client)
{
    if (uv_is_closing((uv_handle_t *)&client->pipe))
        return;
    if (client->previous)
        client->previous->next = client->next;
    else
        client->admin->clients = client->next;
    if (client->next)
        client->next->previous = client->previous;
    client->admin->n_clients--;
    uv_close((uv_handle_t *)&client->pipe, on_client_closed);
}

static void write_help(const struct admin_command *commands, struct strbuf *out)
{
    for (; commands->name; commands++)
        strbuf_addf(out, "%s%s%s - %s\n", commands->name, commands->usage[0] ? " " : "", commands->usage, commands->help);
    strbuf_adds(out, "help - this list\n");
}

static int run_command(struct admin *admin, char *line, struct strbuf *out, struct error *error)
{
    const struct admin_command *command = admin->commands;
    char *argument;

    for (size_t n = strlen(line); n && strchr(" \t", line[n - 1]); n--)
        line[n - 1] = '\0';
    argument = line + strcspn(line, " \t");
    if (*argument)
        *argument++ = '\0';
    argument += strspn(argument, " \t");
    if (!strcmp(line, "help")) {
        write_help(admin->commands, out);
        return 0;
    }
    while (command->name && strcmp(command->name, line) != 0)
        command++;
    if (!command->name)
        return error_set(error, ENOENT, "there is no command '%s'; help lists them", line);
    return command->run(argument, out, error, admin->arg);
}

/* Blank lines would end the answer early: they are left out. */
static void add_without_blank_lines(struct strbuf *to, const char *text)
{
    for (; *text; text++)
        if (*text != '\n' || (to->length && to->text[to->length - 1] != '\n'))
            strbuf_addc(to, *text);
    if (to->length && to->text[to->length - 1] != '\n')
        strbuf_addc(to, '\n');
}

static void take_lines(struct client *client);

static void on_written(uv_write_t *write, int status)
{
    struct client *client = write->data;

    client->busy = false;
    if (status < 0)
        client_close(client);
    else
        take_lines(client);
}

static void answer(struct client *client, char *line)
{
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;
    struct error error = {0};
    int r = run_command(client->admin, line, &out, &error);
    uv_buf_t buffer;

    strbuf_reset(&client->reply);
    if (r < 0) {
        strbuf_adds(&client->reply, "error: ");
        add_without_blank_lines(&client->reply, error_text(&error, r));
    } else {
        strbuf_adds(&client->reply, "ok\n");
        add_without_blank_lines(&client->reply, out.text);
    }
    strbuf_addc(&client->reply, '\n');
    if (out.failed || client->reply.failed || client->reply.length > ADMIN_MAX_REPLY) {
        client_close(client);
        return;
    }
    buffer = uv_buf_init(client->reply.text, (unsigned)client->reply.length);
    client->write.data = client;
    client->busy = true;
    if (uv_write(&client->write, (uv_stream_t *)&client->pipe, &buffer, 1, on_written) < 0)
        client_close(client);
}

/* Answers the first whole line; the next one is taken when that answer has been written. */
static void take_lines(struct client *client)
{
    char line[ADMIN_MAX_LINE];
    char *end = memchr(client->line, '\n', client->n);
    size_t n;

    if (client->busy)
        return;
    if (!end) {
        if (client->ended || client->n == sizeof client->line)      /* done, or a line that is too long */
            client_close(client);
        return;
    }
    n = (size_t)(end - client->line);
    memcpy(line, client->line, n);
    line[n] = '\0';
    if (n && line[n - 1] == '\r')
        line[n - 1] = '\0';
    client->n -= n + 1;
    memmove(client->line, end + 1, client->n);
    answer(client, line);
}

static void on_alloc(uv_handle_t *handle, size_t suggested _unused_, uv_buf_t *ret)
{
    struct client *client = handle->data;

    *ret = uv_buf_init(client->line + client->n, (unsigned)(sizeof client->line - client->n));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer _unused_)
{
    struct client *client = stream->data;

    if (n == UV_EOF) {
        client->ended = true;
        uv_read_stop(stream);
    } else if (n < 0) {
        client_close(client);       /* also UV_ENOBUFS: more than a line's worth piled up behind a slow answer */
        return;
    } else {
        client->n += (size_t)n;
    }
    take_lines(client);
}

static void on_connection(uv_stream_t *server, int status)
{
    struct admin *admin = server->data;
    struct client *client = status < 0 ? NULL : calloc(1, sizeof *client);

    if (!client)
        return;
    strbuf_init(&client->reply);
    client->admin = admin;
    uv_pipe_init(loop_uv(admin->loop), &client->pipe, 0);
    client->pipe.data = client;
    client->next = admin->clients;
    if (admin->clients)
        admin->clients->previous = client;
    admin->clients = client;
    admin->n_clients++;
    if (uv_accept(server, (uv_stream_t *)&client->pipe) < 0 || admin->n_clients > ADMIN_MAX_CLIENTS ||
        uv_read_start((uv_stream_t *)&client->pipe, on_alloc, on_read) < 0)
        client_close(client);
}

/* Of sends, receives and connecting: where many wait for a daemon that hangs, that blocks, too. */
static int set_timeout(int fd, int timeout_ms)
{
    const struct timeval t = {.tv_sec = timeout_ms / 1000, .tv_usec = timeout_ms % 1000 * 1000};

    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof t) < 0 || setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t) < 0)
        return -errno;
    return 0;
}

static int connect_to(const char *path, int timeout_ms)
{
    const uint64_t end = clock_mono_ms() + (uint64_t)timeout_ms;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_close_ int fd = -1;
    int r;

    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    snprintf(address.sun_path, sizeof address.sun_path, "%s", path);
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || set_timeout(fd, timeout_ms) < 0)
        return -errno;
    do                  /* interrupted without a signal, too: a libuv of 1.45 or later has the kernel's io_uring do that */
        r = connect(fd, (struct sockaddr *)&address, sizeof address);
    while (r < 0 && errno == EINTR && clock_mono_ms() < end);
    if (r < 0)
        return errno == EAGAIN || errno == EINTR ? -ETIMEDOUT : -errno;
    return TAKE_FD(fd);
}

static void on_admin_closed(uv_handle_t *handle) { free(handle->data); }

/* Only a socket that nobody answers is removed: never another daemon's, never a plain file. */
static int remove_stale(const char *path, struct error *error)
{
    int fd = connect_to(path, STALE_MS);
    struct stat st;

    if (fd >= 0 || fd == -ETIMEDOUT) {
        if (fd >= 0)
            close(fd);
        return error_set(error, EADDRINUSE, "%s: another process answers there; end it, or use another run directory", path);
    }
    if (fd == -ENAMETOOLONG)
        return error_set(error, ENAMETOOLONG, "%s: %zu bytes; a socket's path has at most 107: use a shorter run directory", path,
                         strlen(path));
    if (fd == -ECONNREFUSED && lstat(path, &st) == 0 && S_ISSOCK(st.st_mode) && unlink(path) < 0)
        return error_set(error, errno, "%s: cannot remove the old socket: %s", path, strerror(errno));
    return 0;
}

int admin_new(struct loop *loop, const char *path, const struct admin_command *commands, void *arg, struct admin **ret,
              struct error *error)
{
    _cleanup_free_ char *copy = strdup(path);
    struct admin *admin;
    mode_t mask;
    int r = remove_stale(path, error);

    if (r < 0)
        return r;
    admin = calloc(1, sizeof *admin);
    if (!admin || !copy) {
        free(admin);
        return error_set(error, ENOMEM, "%s: out of memory", path);
    }
    *admin = (struct admin) {.loop = loop, .commands = commands, .arg = arg};
    uv_pipe_init(loop_uv(loop), &admin->pipe, 0);
    admin->pipe.data = admin;
    mask = umask(0177);         /* bind creates it 0600: no moment in which others could open it */
    r = uv_pipe_bind(&admin->pipe, path);
    umask(mask);
    if (r == 0)
        r = uv_listen((uv_stream_t *)&admin->pipe, 16, on_connection);
    if (r < 0) {
        uv_close((uv_handle_t *)&admin->pipe, on_admin_closed);
        return error_set(error, -r, "%s: cannot listen: %s", path, uv_strerror(r));
    }
    admin->path = TAKE_PTR(copy);
    *ret = admin;
    return 0;
}

struct admin *admin_free(struct admin *admin)
{
    if (!admin)
        return NULL;
    while (admin->clients)
        client_close(admin->clients);
    unlink(admin->path);        /* libuv does so too on close, in 1.44 */
    free(admin->path);
    uv_close((uv_handle_t *)&admin->pipe, on_admin_closed);
    return NULL;
}

/* ---- the other side -------------------------------------------------------------------------------------------- */

/* Until the empty line, or until end_ms: an answer that comes in drops gets no more time for each of them. */
static int receive(int fd, uint64_t end_ms, struct strbuf *out)
{
    while (out->length < 2 || memcmp(out->text + out->length - 2, "\n\n", 2) != 0) {
        const uint64_t now_ms = clock_mono_ms();
        char bytes[16384];
        ssize_t n;
        int r = now_ms < end_ms ? set_timeout(fd, (int)(end_ms - now_ms)) : -ETIMEDOUT;

        if (r < 0)
            return r;
        n = recv(fd, bytes, sizeof bytes, 0);
        if (n == 0)
            return -EPIPE;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return errno == EAGAIN ? -ETIMEDOUT : -errno;
        strbuf_add(out, bytes, (size_t)n);
        if (out->failed || out->length > ADMIN_MAX_REPLY)
            return -EMSGSIZE;
    }
    return 0;
}

int admin_call(const char *path, const char *command, int timeout_ms, char **ret_text, struct error *error)
{
    const uint64_t end_ms = clock_mono_ms() + (uint64_t)timeout_ms;
    _cleanup_(strbuf_release) struct strbuf line = STRBUF_INIT, reply = STRBUF_INIT;
    _cleanup_close_ int fd = -1;
    char *text;
    int r = connect_to(path, timeout_ms);

    if (r == -ETIMEDOUT)
        return error_set(error, ETIMEDOUT, "%s: no answer to '%s': time is up", path, command);
    if (r < 0)
        return error_set(error, -r, "%s: %s", path, r == -ENOENT || r == -ECONNREFUSED ? "nobody answers there" : strerror(-r));
    fd = r;
    strbuf_addf(&line, "%s\n", command);
    if (send(fd, line.text, line.length, MSG_NOSIGNAL) != (ssize_t)line.length)
        return error_set(error, EPIPE, "%s: the daemon does not listen", path);
    if ((r = receive(fd, end_ms, &reply)) < 0)
        return error_set(error, -r, "%s: no answer to '%s': %s", path, command, r == -ETIMEDOUT ? "time is up" : strerror(-r));
    reply.text[--reply.length] = '\0';      /* the empty line */
    if (strncmp(reply.text, "ok\n", 3) != 0) {
        const char *why = reply.text + (strncmp(reply.text, "error: ", 7) ? 0 : 7);

        return error_set(error, EREMOTEIO, "%.*s", (int)strcspn(why, "\n"), why);
    }
    text = strdup(reply.text + 3);
    if (!text)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    *ret_text = text;
    return 0;
}
