/* probe.h - who is well: each subsystem registers one function; /livez, /readyz and status lines come from all of them.
 *
 * live: the process is not stuck (else restart it). ready: it may be given work. Thread rule: the loop's thread. */
#pragma once

#include <stdbool.h>

#include "base/strbuf.h"

enum probe_state { PROBE_DOWN, PROBE_BUSY, PROBE_READY };      /* BUSY: alive, not ready */
enum { PROBE_MAX = 16 };

/* `detail` may be given one line: why. */
typedef enum probe_state probe_fn(struct strbuf *detail, void *arg);

struct probes {
    struct { const char *name; probe_fn *fn; void *arg; } entries[PROBE_MAX];
    unsigned n;
};

int probe_add(struct probes *probes, const char *name, probe_fn *fn, void *arg);    /* -ENOSPC. name is borrowed */
/* Lines "name ready|busy|down", with `why` the detail behind it, which may name files of the host; true when none is DOWN. */
bool probes_live(const struct probes *probes, bool why, struct strbuf *out);
bool probes_ready(const struct probes *probes, bool why, struct strbuf *out);  /* true when all are READY */
