#include "cli/report_sources.h"

#include <stdio.h>
#include <string.h>

#include "cli/plot.h"
#include "run/manifest.h"

static bool same(const json_t *a, const json_t *b)
{
    return json_equal(json_object_get(a, "stage"), json_object_get(b, "stage")) &&
           json_equal(json_object_get(a, "digest"), json_object_get(b, "digest"));
}

/* One more version that learnt from `source`: a row's own, or one at the end of `rows`. */
static void add(json_t *rows, json_t *source, const char *version)
{
    json_t *row;
    size_t i;

    json_array_foreach(rows, i, row)
        if (same(row, source)) {
            json_array_append_new(json_object_get(row, "versions"), json_string(version));
            return;
        }
    row = json_deep_copy(source);
    json_object_set_new(row, "versions", json_pack("[s]", version));
    json_array_append_new(rows, row);
}

/* Of a version whose files were dropped it is no longer known; those that a stage ended with stay. */
static void add_version(const char *run_dir, const struct ledger_version *v, json_t *rows)
{
    char dir[VERSION_PATH], path[VERSION_PATH + 16], name[48];
    _cleanup_(json_decrefp) json_t *record = NULL;
    json_t *source;
    size_t i;

    if (version_path(run_dir, v->kind, v->number, dir) < 0)
        return;
    snprintf(path, sizeof path, "%s/training.json", dir);
    snprintf(name, sizeof name, "%s%llu", v->kind == KIND_PRM ? "reward model " : "policy v", (unsigned long long)v->number);
    record = json_load_file(path, 0, NULL);
    json_array_foreach(json_object_get(record, "data"), i, source)
        add(rows, source, name);
}

static void write_row(const struct report_data *d, json_t *row, struct strbuf *out)
{
    json_int_t stage = json_integer_value(json_object_get(row, "stage"));
    const char *dir = json_string_value(json_object_get(row, "dir")), *digest = json_string_value(json_object_get(row, "digest"));
    json_t *version;
    size_t i;

    strbuf_adds(out, "<tr><td>");
    html_escape(out, stage >= 0 && (size_t)stage < d->n_stages ? d->stages[stage].name : "demos");
    strbuf_adds(out, "</td><td>");
    html_escape(out, dir ? dir : "");
    strbuf_addf(out, "</td><td>%lld</td><td>", (long long)json_integer_value(json_object_get(row, "episodes")));
    json_array_foreach(json_object_get(row, "versions"), i, version) {
        strbuf_adds(out, i ? ", " : "");
        html_escape(out, json_string_value(version));
    }
    strbuf_addf(out, "</td><td><code>%.12s</code></td></tr>", digest ? digest : "");
}

void report_sources_write(const char *run_dir, const struct report_data *d, struct strbuf *out)
{
    _cleanup_(json_decrefp) json_t *rows = json_array();
    json_t *row;
    size_t i;

    for (i = 0; i < d->n_versions; i++)
        add_version(run_dir, &d->versions[i], rows);
    if (!json_array_size(rows))
        return;
    strbuf_adds(out, "<h3>Imported demonstrations</h3><table><tr><th>stage</th><th>data set</th><th>episodes</th>"
                     "<th>learnt from by</th><th>digest</th></tr>");
    json_array_foreach(rows, i, row)
        write_row(d, row, out);
    strbuf_adds(out, "</table>");
}
