/* RUN/ledger.sqlite-mark: how far the ledger had come, told by another file.
 *
 * What SQLite finds broken in its write-ahead log it takes for a write that was cut short, and drops it with all that follows:
 * commits that were acknowledged would be gone and nobody would know; so would they in a ledger put back from an older copy. So
 * each commit, once it is durable, leaves the number of its last event here. A mark that is behind is right (nothing syncs it); a
 * ledger that is behind its mark has lost commits. No mark, or none that is whole (a power cut tore it): nothing is known. */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>

#include "base/crc32c.h"
#include "run/ledger_sql.h"

struct mark {               /* little-endian; in one page, so that a kill leaves it whole */
    char magic[8];
    uint64_t run, event;
    uint32_t zero, crc;     /* CRC-32C of what is before it */
};
_Static_assert(sizeof(struct mark) == 32, "the mark's layout");

static const char magic[8] = {'g', 'n', 't', 'r', 'y', 'm', 'r', 'k'};

static uint32_t crc_of(const struct mark *m) { return htole32(crc32c(0, m, offsetof(struct mark, crc))); }

static int mark_path(struct ledger *ledger, char *path, size_t size)
{
    return snprintf(path, size, "%s-mark", sqlite3_db_filename(ledger->db, "main")) < (int)size ? 0 : -ENAMETOOLONG;
}

static int last_event(struct ledger *ledger, uint64_t *ret)
{
    sqlite3_stmt *s;
    int r = sql_query(ledger, &s, "SELECT ifnull(max(sequence), 0) FROM events", "");

    if (r < 0)
        return r;
    r = sql_next(ledger, s);
    if (r == 1)
        *ret = (uint64_t)sqlite3_column_int64(s, 0);
    sql_done(s);
    return r == 1 ? 0 : r < 0 ? r : -EIO;
}

int ledger_mark_check(struct ledger *ledger, int layout, struct error *error)
{
    _cleanup_close_ int fd = -1;
    char path[LEDGER_PATH];
    struct mark m;
    uint64_t event = 0;
    ssize_t n;
    int r = mark_path(ledger, path, sizeof path);

    if (r == 0 && layout > 0)
        r = last_event(ledger, &event);
    if (r < 0)
        return r;
    ledger->last_event = event;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    n = fd < 0 ? -1 : pread(fd, &m, sizeof m, 0);
    if (n < 0)
        return errno == ENOENT ? 0 : error_set(error, errno, "its mark (ledger.sqlite-mark) cannot be read: %m");
    if (n != sizeof m || memcmp(m.magic, magic, sizeof magic) || m.crc != crc_of(&m))
        return 0;
    if (le64toh(m.event) > event)
        return error_set(error, EBADMSG,
                         "damaged: it ends at event %" PRIu64 ", and events up to %" PRIu64 " had been committed: "
                         LEDGER_REMEDY, event, le64toh(m.event));
    if (le64toh(m.run) != ledger->run.id)
        return error_set(error, EBADMSG,
                         "damaged: it is of run %016" PRIx64 ", its mark (ledger.sqlite-mark) of run %016" PRIx64 ": "
                         LEDGER_REMEDY, ledger->run.id, le64toh(m.run));
    return 0;
}

int ledger_mark_open(struct ledger *ledger)
{
    char path[LEDGER_PATH];
    int r = mark_path(ledger, path, sizeof path);

    if (r < 0)
        return r;
    ledger->mark_fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
    return ledger->mark_fd < 0 ? -errno : 0;
}

void ledger_mark_write(struct ledger *ledger)
{
    struct mark m = {.run = htole64(ledger->run.id), .event = htole64(ledger->last_event)};

    memcpy(m.magic, magic, sizeof magic);
    m.crc = crc_of(&m);
    if (ledger->mark_fd >= 0)
        (void)!pwrite(ledger->mark_fd, &m, sizeof m, 0);        /* failed: the mark stays behind, which is right */
}
