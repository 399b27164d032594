/* run_config_paths.c - directories that a configuration names, so that they mean the same wherever it is read next
 * (run_config.h). */
#include <errno.h>
#include <limits.h>
#include <string.h>

#include "daemon/run_config.h"

enum { OF_SECTIONS = 4 };

struct named {
    const char *key; char *at; size_t size;
    const char *word;           /* what names nothing on disk here, beside "" */
};

/* The i-th of them; at NULL: there are no more. */
static struct named path_of(struct run_config *c, int i)
{
    const struct named sections[OF_SECTIONS] = {
        {"policy.init", c->policy_init, sizeof c->policy_init, ""},
        {"policy.base", c->policy_base, sizeof c->policy_base, ""},
        {"prm.init", c->prm_init, sizeof c->prm_init, "policy"},
        {"status.token_file", c->token_file, sizeof c->token_file, ""},
    };

    if (i < OF_SECTIONS)
        return sections[i];
    for (int k = 0, n = OF_SECTIONS; k < c->n_stages; k++)
        if (c->stages[k].kind == STAGE_DEMOS && n++ == i)
            return (struct named) {"demos.from", c->stages[k].demos.from, sizeof c->stages[k].demos.from, ""};
    return (struct named) {0};
}

static bool is_relative(const struct named *path)
{
    return path->at[0] && path->at[0] != '/' && strcmp(path->at, path->word) != 0;
}

int run_config_anchor(struct run_config *config, const char *here, struct error *error)
{
    struct named p;

    for (int i = 0; (p = path_of(config, i)).at; i++) {
        char whole[PATH_MAX];

        if (!is_relative(&p))
            continue;
        if ((size_t)snprintf(whole, sizeof whole, "%s/%s", here, p.at) >= p.size)
            return error_set(error, ENAMETOOLONG, "%s: %s/%s has more than %zu characters: name it by a shorter path", p.key,
                             here, p.at, p.size - 1);
        memcpy(p.at, whole, strlen(whole) + 1);
    }
    return 0;
}

/* One is the other below some directory. */
static bool is_tail(const struct named *whole, const struct named *tail)
{
    size_t n = strlen(whole->at), m = strlen(tail->at);

    return whole->at[0] == '/' && is_relative(tail) && n > m && whole->at[n - m - 1] == '/' &&
        !strcmp(whole->at + n - m, tail->at);
}

void run_config_adopt_paths(struct run_config *config, struct run_config *old)
{
    struct named now, before;

    for (int i = 0; (now = path_of(config, i)).at && (before = path_of(old, i)).at; i++)
        if (is_tail(&before, &now) || is_tail(&now, &before))
            memcpy(now.at, before.at, now.size);
}
