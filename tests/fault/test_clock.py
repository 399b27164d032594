"""The wall clock of every daemon jumps by hours and days, both ways, while a run goes on: leases, deadlines and silences are counted by the
monotonic clock, so nothing ends early, nothing waits, nobody is lost."""
import os
import sqlite3
import struct
import subprocess

import sanitized
from conftest import gantry

# What programs ask for the time of day answers with an offset that the test changes; waits on the wall clock see the true one, so a deadline
# made from it is wrong by the offset.
SHIM = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>
static const volatile int64_t *offset;
__attribute__((constructor)) static void map_it(void)
{
    int fd = open(getenv("WALL_CLOCK_OFFSET"), O_RDONLY | O_CLOEXEC);
    offset = mmap(NULL, 8, PROT_READ, MAP_SHARED, fd, 0);
    close(fd);
}
int clock_gettime(clockid_t id, struct timespec *t)
{
    int r = (int)syscall(SYS_clock_gettime, id, t);
    if (r == 0 && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE))
        t->tv_sec += offset ? *offset : 0;          /* libraries ask before we are set up */
    return r;
}
int gettimeofday(struct timeval *t, void *zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    *t = (struct timeval) {now.tv_sec, now.tv_nsec / 1000};
    return 0;
}
time_t time(time_t *ret)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (ret)
        *ret = now.tv_sec;
    return now.tv_sec;
}
"""
HOUR = 3600


def test_the_wall_clock_jumps(make_cluster, monkeypatch):
    # who is slow for a while, as anybody may be, is not missed: three heartbeats; each jump is longer than that
    cluster = make_cluster({"timing": {"heartbeat_ms": 3000, "lease_ttl_ms": 15000}})
    offset, shim = cluster.root / "offset", cluster.root / "shim.so"
    offset.write_bytes(struct.pack("q", 0))
    (cluster.root / "shim.c").write_text(SHIM)
    subprocess.run([os.environ.get("CC", "cc").split()[-1], "-shared", "-fPIC", "-O1", "-o", shim, cluster.root / "shim.c"], check=True)
    monkeypatch.setenv("WALL_CLOCK_OFFSET", str(offset))
    monkeypatch.setenv("LD_PRELOAD", str(shim))
    if sanitized.BUILD:         # it asks to be loaded first, and this shim is
        monkeypatch.setenv("ASAN_OPTIONS", os.environ["ASAN_OPTIONS"] + ":verify_asan_link_order=0")
    cluster.start()
    monkeypatch.delenv("LD_PRELOAD")

    def jump(seconds):
        with open(offset, "r+b") as f:
            f.write(struct.pack("q", seconds))

    def moved(status):
        return status and (status["stage_number"], status["iteration"], status["episodes"]["journaled"])
    for hours in (1, -1, 24 * 365, -24 * 365, 0.02, -26):
        before = cluster.until(lambda s: s and (s["state"] == "finished" or s["episodes"]["open"] > 0 or s["stage_number"] > 0) and moved(s), "work")
        jump(int(hours * HOUR))
        cluster.until(lambda s: cluster.of("coordinator")[0].popen.poll() == 0 or (s and moved(s) != before), "progress after a jump")
    cluster.until_finished()
    for process in cluster.processes:       # and everybody leaves when told, whatever day it is
        process.stop() if process.running() else None
    assert [p.starts for p in cluster.processes] == [1] * 5, cluster.logs()
    assert " 0 failed" in cluster.history()
    with sqlite3.connect(cluster.run / "ledger.sqlite") as db:
        kinds = dict(db.execute("select kind, count(*) from events group by kind"))
        days = [(max_ms - min_ms) / 86400e3 for min_ms, max_ms in db.execute("select min(wall_ms), max(wall_ms) from events")]
    assert not {"lost", "expired", "return", "failure"} & set(kinds), kinds
    assert days[0] > 365, "the jumps were not seen"
    assert gantry("report", cluster.run).returncode == 0
