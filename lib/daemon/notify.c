#include "daemon/notify.h"

#include <errno.h>
#include <stdarg.h>
#include <sys/socket.h>
#include <sys/un.h>

int notify_send(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    _cleanup_close_ int fd = -1;
    socklen_t size;
    size_t n;

    if (!path || !path[0])
        return 0;
    n = strlen(path);
    if ((path[0] != '/' && path[0] != '@') || n >= sizeof address.sun_path)
        return -EINVAL;
    memcpy(address.sun_path, path, n);
    if (path[0] == '@')             /* abstract name space: a NUL first, and no NUL at the end */
        address.sun_path[0] = '\0';
    size = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n);
    fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return -errno;
    if (sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address, size) < 0)
        return -errno;
    return 0;
}

int notify_status(const char *format, ...)
{
    char line[512] = "STATUS=";
    va_list args;

    va_start(args, format);
    vsnprintf(line + 7, sizeof line - 7, format, args);
    va_end(args);
    return notify_send(line);
}

uint64_t notify_watchdog_ms(void)
{
    const char *usec = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");

    if (!usec || !getenv("NOTIFY_SOCKET"))
        return 0;
    if (pid && strtol(pid, NULL, 10) != (long)getpid())
        return 0;
    return strtoull(usec, NULL, 10) / 2000;
}
