#include "daemon/probe.h"

#include <errno.h>

int probe_add(struct probes *probes, const char *name, probe_fn *fn, void *arg)
{
    if (probes->n == PROBE_MAX)
        return -ENOSPC;
    probes->entries[probes->n].name = name;
    probes->entries[probes->n].fn = fn;
    probes->entries[probes->n++].arg = arg;
    return 0;
}

static bool all_at_least(const struct probes *probes, enum probe_state least, bool why, struct strbuf *out)
{
    static const char *const words[] = {"down", "busy", "ready"};
    bool all = true;

    for (unsigned i = 0; i < probes->n; i++) {
        _cleanup_(strbuf_release) struct strbuf detail = STRBUF_INIT;
        enum probe_state state = probes->entries[i].fn(&detail, probes->entries[i].arg);

        strbuf_addf(out, "%s %s%s%s\n", probes->entries[i].name, words[state], why && detail.length ? " " : "",
                    why ? detail.text : "");
        all = all && state >= least;
    }
    return all;
}

bool probes_live(const struct probes *probes, bool why, struct strbuf *out)
{
    return all_at_least(probes, PROBE_BUSY, why, out);
}

bool probes_ready(const struct probes *probes, bool why, struct strbuf *out)
{
    return all_at_least(probes, PROBE_READY, why, out);
}
