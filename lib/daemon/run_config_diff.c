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

static bool tables_differ(const struct config_key *table, const void *old, const void *now, const char *prefix, struct strbuf *out)
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
    if (old->n_stages != now->n_stages)
        strbuf_addf(out, "stages are %d there and %d here", old->n_stages, now->n_stages);
    return old->n_stages != now->n_stages;
}

bool run_config_differ(const struct run_config *old, const struct run_config *now, struct strbuf *out)
{
    static const char *const fixed[] = {"run", "suite", "policy", "prm"};

    for (const struct run_section *section = run_sections; section->name; section++)
        for (size_t i = 0; i < ARRAY_SIZE(fixed); i++)
            if (!strcmp(section->name, fixed[i]) && tables_differ(section->table, old, now, section->name, out))
                return true;
    return stages_differ(old, now, out);
}

int run_config_digest(const struct run_config *config, uint8_t ret[SHA256_SIZE])
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;
    _cleanup_free_ struct run_config *fixed = malloc(sizeof *fixed);
    int r;

    if (!fixed)
        return -ENOMEM;
    *fixed = *config;
    fixed->dir[0] = fixed->http[0] = fixed->token_file[0] = fixed->listen[0] = '\0';
    fixed->env_workers = fixed->slots = fixed->n_actors = fixed->n_prm_servers = fixed->n_learners = 0;
    fixed->heartbeat_ms = fixed->lease_ttl_ms = fixed->first_step_ms = fixed->journal_keep = 0;
    r = run_config_write(fixed, &text);
    if (r < 0)
        return r;
    sha256_of(text.text, text.length, ret);
    return 0;
}
