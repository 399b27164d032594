#include "run/ledger_place.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/macro.h"

enum { FUSE = 0x65735546 };

/* Those that are not on one host alone; whatever is not named is. */
static const struct { uint32_t f_type; const char *name; enum ledger_place place; } known[] = {
    {0x6969, "NFS", LEDGER_SHARED},
    {0x0BD00BD0, "Lustre", LEDGER_SHARED},
    {0x47504653, "GPFS", LEDGER_SHARED},
    {0x00C36400, "CephFS", LEDGER_SHARED},
    {0x19830326, "BeeGFS", LEDGER_SHARED},
    {0xAAD7AAEA, "PanFS", LEDGER_SHARED},
    {0x01161970, "GFS2", LEDGER_SHARED},
    {0x7461636F, "OCFS2", LEDGER_SHARED},
    {0x517B, "SMB", LEDGER_SHARED},
    {0xFF534D42, "CIFS", LEDGER_SHARED},
    {0xFE534D42, "SMB2", LEDGER_SHARED},
    {0x01021997, "9P", LEDGER_SHARED},
    {0x5346414F, "AFS", LEDGER_REFUSED},        /* locks of byte ranges are each host's own */
    {0x6B414653, "kAFS", LEDGER_REFUSED},
    {0x73757245, "Coda", LEDGER_REFUSED},
};

/* FUSE is a way, not a file system. One that is not named here may not lock between hosts, and may not sync. */
static const struct { const char *type; enum ledger_place place; } fuse[] = {
    {"fuseblk", LEDGER_LOCAL},              /* a disk: ntfs-3g, exfat */
    {"fuse.fuse-overlayfs", LEDGER_LOCAL},
    {"fuse.mergerfs", LEDGER_LOCAL},
    {"fuse.bindfs", LEDGER_LOCAL},
    {"virtiofs", LEDGER_SHARED},
    {"fuse.glusterfs", LEDGER_SHARED},
    {"fuse.ceph", LEDGER_SHARED},
    {"fuse.ceph-fuse", LEDGER_SHARED},
    {"fuse.juicefs", LEDGER_SHARED},
};

enum ledger_place ledger_place(uint32_t f_type, const char *type, const char **ret_name)
{
    const char *name = type;
    enum ledger_place place = f_type == FUSE ? LEDGER_REFUSED : LEDGER_LOCAL;

    for (size_t i = 0; i < ARRAY_SIZE(known); i++)
        if (known[i].f_type == f_type) {
            name = known[i].name;
            place = known[i].place;
        }
    for (size_t i = 0; f_type == FUSE && i < ARRAY_SIZE(fuse); i++)
        if (!strcmp(fuse[i].type, type))
            place = fuse[i].place;
    if (ret_name)
        *ret_name = name;
    return place;
}

/* "36 35 98:0 /root /mount options... - ext4 ...": the type behind the lone dash of the device's line. */
static void type_of_device(dev_t device, char ret[LEDGER_PLACE_NAME])
{
    FILE *file = fopen("/proc/self/mountinfo", "re");
    char line[4096];

    snprintf(ret, LEDGER_PLACE_NAME, "unknown");
    while (file && fgets(line, sizeof line, file)) {
        const char *dash = strstr(line, " - ");
        unsigned high, low;

        if (dash && sscanf(line, "%*u %*u %u:%u", &high, &low) == 2 && makedev(high, low) == device &&
            sscanf(dash, " - %63s", ret) == 1)
            break;
    }
    if (file)
        fclose(file);
}

static void go_up(char *path)
{
    char *slash = strrchr(path, '/');

    if (!slash)
        snprintf(path, 2, ".");
    else
        slash[slash == path] = '\0';
}

int ledger_place_of(const char *path, enum ledger_place *ret, char ret_name[LEDGER_PLACE_NAME])
{
    char type[LEDGER_PLACE_NAME], there[PATH_MAX];
    const char *name;
    struct statfs fs;
    struct stat st;

    if ((size_t)snprintf(there, sizeof there, "%s", path) >= sizeof there)
        return -ENAMETOOLONG;
    while (access(there, F_OK) < 0 && errno == ENOENT)
        go_up(there);
    if (statfs(there, &fs) < 0 || stat(there, &st) < 0)
        return -errno;
    type_of_device(st.st_dev, type);
    *ret = ledger_place((uint32_t)fs.f_type, type, &name);
    snprintf(ret_name, LEDGER_PLACE_NAME, "%s", name);
    return 0;
}

int ledger_place_check(const char *path, enum ledger_place *ret, struct error *error)
{
    char name[LEDGER_PLACE_NAME];
    enum ledger_place place;
    int r = ledger_place_of(path, &place, name);

    if (r < 0)
        return error_set(error, -r, "%s: %s", path, strerror(-r));
    if (place == LEDGER_REFUSED)
        return error_set(error, ENOTSUP,
                         "%s lies on %s, whose locks or syncs are not known to hold: choose a run.dir on a local disk, "
                         "NFS, Lustre or GPFS", path, name);
    *ret = place;
    return 0;
}
