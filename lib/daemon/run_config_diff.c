/* run_config_diff.c - may a run directory go on with this configuration? */
#include <errno.h>

#include "daemon/run_config_tables.h"

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
