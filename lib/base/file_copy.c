#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "base/atomic_file.h"

int file_copy(const char *from, const char *to)
{
    _cleanup_close_ int in = open(from, O_RDONLY | O_CLOEXEC), out = -1;
    ssize_t n;

    if (in < 0)
        return -errno;
    out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (out < 0)
        return -errno;
    do
        n = copy_file_range(in, NULL, out, NULL, 1 << 30, 0);   /* shares the blocks where the file system can */
    while (n > 0);
    if (n < 0 && (errno == EXDEV || errno == EINVAL || errno == EOPNOTSUPP || errno == ENOSYS)) {
        char block[64 * 1024];

        while ((n = read(in, block, sizeof block)) > 0)
            for (ssize_t done = 0, put; done < n; done += put)
                if ((put = write(out, block + done, (size_t)(n - done))) < 0)
                    return -errno;
    }
    return n < 0 ? -errno : 0;
}
