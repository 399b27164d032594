#include "tests/harness/stage_lab.h"

#include <stdio.h>

int stage_lab_set_up(void **state)
{
    static struct run_config config;

    config = (struct run_config) { .seed = 7, .n_tasks = 2, .tasks = { "reach", "open" } };
    *state = &config;
    return 0;
}

struct stage_config *stage_lab_add(struct run_config *config, enum stage_kind kind, const char *name)
{
    struct stage_config *stage = &config->stages[config->n_stages++];

    stage->kind = kind;
    snprintf(stage->name, sizeof(stage->name), "%s", name);
    return stage;
}
