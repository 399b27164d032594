#include "cli/report_builds.h"

#include <inttypes.h>
#include <string.h>

#include "cli/plot.h"

static void write_roles(unsigned roles, struct strbuf *out)
{
    const char *between = "";

    for (int i = 0; i < RUN_BUILD_ROLES; i++)
        if (roles & 1u << i) {
            strbuf_addf(out, "%s%s", between, run_build_roles[i]);
            between = ", ";
        }
}

static void write_range(uint64_t first, uint64_t last, struct strbuf *out)
{
    strbuf_addf(out, first == last ? "v%" PRIu64 : "v%" PRIu64 " to v%" PRIu64, first, last);
}

/* Where learners of several builds made policies: v1 to v12 by A, v13 to v40 by B. Version 0 was brought along. */
static void write_versions(const struct report_data *d, struct strbuf *out)
{
    const struct ledger_version *first = NULL, *last = NULL;
    const char *between = " Policies: ";
    int by = -1;

    for (size_t i = 0; i <= d->n_versions; i++) {
        const struct ledger_version *v = i < d->n_versions ? &d->versions[i] : NULL;
        int next = v ? run_builds_at(&d->builds, v->committed_ms) : -1;

        if (v && (v->kind != KIND_POLICY || v->number == 0))
            continue;
        if (first && (!v || next != by)) {
            strbuf_adds(out, between);
            write_range(first->number, last->number, out);
            strbuf_adds(out, " by ");
            html_escape(out, by < 0 ? "an unknown build" : d->builds.items[by].name);
            between = ", ";
            first = NULL;
        }
        if (v && !first)
            first = v;
        last = v;
        by = next;
    }
    if (strcmp(between, ", ") == 0)
        strbuf_addc(out, '.');
}

void report_builds(const struct report_data *d, const char *here, struct strbuf *out)
{
    const struct run_builds *b = &d->builds;

    if (b->n == 1 && !b->silent && !strcmp(b->items[0].name, here)) {
        strbuf_adds(out, "build ");
        html_escape(out, here);
        strbuf_addc(out, '.');
        return;
    }
    strbuf_adds(out, "run by build ");
    for (size_t i = 0; i < b->n; i++) {
        strbuf_adds(out, i ? " and by " : "");
        html_escape(out, b->items[i].name);
        if (b->n > 1) {
            strbuf_adds(out, " (");
            write_roles(b->items[i].roles, out);
            strbuf_addc(out, ')');
        }
    }
    if (b->silent)
        strbuf_adds(out, b->n ? " and by others that did not say theirs" : "that nobody noted");
    strbuf_adds(out, "; this report by build ");
    html_escape(out, here);
    strbuf_addc(out, '.');
    if (b->n_learner > 1)
        write_versions(d, out);
}
