/* run_config_diff.c - may a run directory go on with this configuration? In what do several differ? */
#include <errno.h>

#include "daemon/run_config_tables.h"
#include "daemon/run_later.h"

/* True when they differ; the place and both values go to *out. */
static bool differ(const struct config_key *key, const void *old, const void *now, const char *prefix, struct strbuf *out)
{
    _cleanup_(strbuf_release) struct strbuf before = STRBUF_INIT, after = STRBUF_INIT;

    config_write_value(key, old, &before);
    config_write_value(key, now, &after);
    if (!strcmp(before.text, after.text))
        return false;
    strbuf_addf(out, "%s.%s is %s there and %s here", prefix, key->name, before.text, after.text);
    return true;
}

static bool tables_differ(const struct config_key *table, const void *old, const void *now, const char *prefix,
                          struct strbuf *out)
{
    for (const struct config_key *key = table; key->name; key++)
        if (strcmp(key->name, "dir") != 0 && differ(key, old, now, prefix, out))
            return true;
    return false;
}

static bool stages_differ(const struct run_config *old, const struct run_config *now, struct strbuf *out)
{
    for (int i = 0; i < MIN(old->n_stages, now->n_stages); i++) {
        const struct stage_config *a = &old->stages[i], *b = &now->stages[i];
        char prefix[64];

        snprintf(prefix, sizeof prefix, "stages[%d]", i);
        if (a->kind != b->kind) {
            strbuf_addf(out, "%s is %s there and %s here", prefix, stage_kind_name(a->kind), stage_kind_name(b->kind));
            return true;
        }
        snprintf(prefix, sizeof prefix, "stages[%d].%s", i, stage_kind_name(a->kind));
        if (differ(&stage_name_key, a, b, prefix, out) || tables_differ(stage_kinds[a->kind].table, a, b, prefix, out))
            return true;
    }
    if (old->n_stages > now->n_stages)
        strbuf_addf(out, "stages are %d there and %d here", old->n_stages, now->n_stages);
    return old->n_stages > now->n_stages;
}

static const char *const fixed_sections[] = {"run", "suite", "policy", "prm"};

static bool is_fixed(const struct run_section *section)
{
    for (size_t i = 0; i < ARRAY_SIZE(fixed_sections); i++)
        if (!strcmp(section->name, fixed_sections[i]))
            return true;
    return false;
}

bool run_config_differ(const struct run_config *old, const struct run_config *now, struct strbuf *out)
{
    for (const struct run_section *section = run_sections; section->name; section++)
        if (is_fixed(section) && tables_differ(section->table, old, now, section->name, out))
            return true;
    return stages_differ(old, now, out);
}

/* What is not at its default, a line each: a key that a later gantry adds leaves the text of today's runs as it is. */
static void write_chosen(const struct config_key *table, const void *defaults, const void *from, struct strbuf *out)
{
    for (const struct config_key *key = table; key->name; key++) {
        _cleanup_(strbuf_release) struct strbuf usual = STRBUF_INIT, value = STRBUF_INIT;

        if (!strcmp(key->name, "dir"))
            continue;
        config_write_value(key, defaults, &usual);
        config_write_value(key, from, &value);
        if (usual.failed || value.failed)
            out->failed = true;
        else if (strcmp(usual.text, value.text) != 0)
            strbuf_addf(out, "  %s: %s\n", key->name, value.text);
    }
}

int run_config_digest_of(const struct run_config *config, int n_stages, uint8_t ret[SHA256_SIZE])
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    _cleanup_free_ struct run_config *defaults = calloc(1, sizeof *defaults);
    _cleanup_free_ struct stage_config *usual = malloc(sizeof *usual);

    if (!defaults || !usual)
        return -ENOMEM;
    for (const struct run_section *section = run_sections; section->name; section++)
        if (is_fixed(section)) {
            config_defaults(section->table, defaults);
            strbuf_addf(&text, "%s\n", section->name);
            write_chosen(section->table, defaults, config, &text);
        }
    for (int i = 0; i < n_stages; i++) {
        const struct stage_config *stage = &config->stages[i];

        stage_config_defaults(stage->kind, NULL, usual);
        strbuf_addf(&text, "%s %s\n", stage_kind_name(stage->kind), stage->name);
        write_chosen(stage_kinds[stage->kind].table, usual, stage, &text);
    }
    if (text.failed)
        return -ENOMEM;
    sha256_of(text.text, text.length, ret);
    return 0;
}

int run_config_digest(const struct run_config *config, uint8_t ret[SHA256_SIZE])
{
    return run_config_digest_of(config, config->n_stages, ret);
}

/* ---- several beside one another ---------------------------------------------------------------------------------------- */

struct rows { int n; run_config_row_fn row; void *arg; bool failed; };

/* froms: NULL where a configuration has no such stage. */
static void compare_key(const struct config_key *key, const void *const *froms, const char *prefix, struct rows *rows)
{
    struct strbuf values[RUN_COMPARE_MAX];
    const char *texts[RUN_COMPARE_MAX], *some = NULL;
    bool same = true;
    char place[96];

    for (int i = 0; i < rows->n; i++) {
        strbuf_init(&values[i]);
        if (froms[i])
            config_write_value(key, froms[i], &values[i]);
        rows->failed |= values[i].failed;
        texts[i] = froms[i] ? values[i].text : NULL;
        some = some ?: texts[i];
        same &= !texts[i] || !strcmp(texts[i], some);
    }
    snprintf(place, sizeof place, "%s.%s", prefix, key->name);
    if (!same)
        rows->row(place, texts, rows->arg);
    for (int i = 0; i < rows->n; i++)
        strbuf_release(&values[i]);
}

static void compare_table(const struct config_key *table, const void *const *froms, const char *prefix, struct rows *rows)
{
    for (const struct config_key *key = table; key->name; key++)
        compare_key(key, froms, prefix, rows);
}

static const struct stage_config *stage_named(const struct run_config *config, const char *name)
{
    for (int i = 0; i < config->n_stages; i++)
        if (!strcmp(config->stages[i].name, name))
            return &config->stages[i];
    return NULL;
}

/* Stages are the same by their name, wherever they stand; of those that one has and another has not, and of another kind, there is
 * no more to say. */
static void compare_stage(const char *name, const struct run_config *const *configs, struct rows *rows)
{
    const char *kinds[RUN_COMPARE_MAX], *kind = NULL;
    const void *stages[RUN_COMPARE_MAX];
    bool one_kind = true, all = true;
    const struct config_key *table = NULL;

    for (int i = 0; i < rows->n; i++) {
        const struct stage_config *stage = stage_named(configs[i], name);

        stages[i] = stage;
        kinds[i] = stage ? stage_kind_name(stage->kind) : NULL;
        kind = kind ?: kinds[i];
        one_kind &= !kinds[i] || !strcmp(kinds[i], kind);
        all &= stage != NULL;
        if (stage)
            table = stage_kinds[stage->kind].table;
    }
    if (!all || !one_kind)
        rows->row(name, kinds, rows->arg);
    if (one_kind)
        compare_table(table, stages, name, rows);
}

/* Has it been looked at, as a stage of an earlier configuration? */
static bool came_before(const char *name, const struct run_config *const *configs, int n)
{
    for (int i = 0; i < n; i++)
        if (stage_named(configs[i], name))
            return true;
    return false;
}

/* Where a run lies, and where it is watched from, make no difference to it. */
static bool is_told(const char *section, const char *key)
{
    return strcmp(section, "status") && (strcmp(section, "run") || (strcmp(key, "name") && strcmp(key, "dir")));
}

int run_config_compare(const struct run_config *const *configs, int n, run_config_row_fn row, void *arg)
{
    const void *froms[RUN_COMPARE_MAX];
    struct rows rows = {n, row, arg, false};

    for (int i = 0; i < n; i++)
        froms[i] = configs[i];
    for (const struct run_section *section = run_sections; section->name; section++)
        for (const struct config_key *key = section->table; key->name; key++)
            if (is_told(section->name, key->name))
                compare_key(key, froms, section->name, &rows);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < configs[i]->n_stages; k++)
            if (!run_later_is(&configs[i]->stages[k]) && !came_before(configs[i]->stages[k].name, configs, i))
                compare_stage(configs[i]->stages[k].name, configs, &rows);
    return rows.failed ? -ENOMEM : 0;
}
