/* plan_memory.c - struct plan_memory (stage_plan.h) as text and back: `key value` lines, doubles in hexadecimal. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "coordinator/stage_plan.h"

void plan_memory_init(struct plan_memory *memory)
{
    *memory = (struct plan_memory) { .next_episode = 1, .stage_best = -1 };
    for (int i = 0; i < RUN_MAX_POLICIES; i++)
        memory->temperature[i] = -1;
}

static void write_members(const struct plan_members *list, const char *key, struct strbuf *out)
{
    for (uint32_t i = 0; i < list->n; i++)
        strbuf_addf(out, "%s %llu\n", key, (unsigned long long)list->instance[i]);
}

static bool take_member(struct plan_members *list, uint64_t instance)
{
    if (list->n == PLAN_MEMBERS)
        return false;
    list->instance[list->n++] = instance;
    return true;
}

int plan_memory_write(const struct plan_memory *memory, struct strbuf *out)
{
    strbuf_addf(out, "next_episode %llu\nnext_state %llu\nstage %u\niteration %u\nfinished %d\n",
                (unsigned long long)memory->next_episode, (unsigned long long)memory->next_state, memory->stage,
                memory->iteration, memory->finished);
    strbuf_addf(out, "have_best %d\nbest_version %llu\nbest_success %a\nsft_version %llu\nsft_earlier %llu\nprm_current %llu\n",
                memory->have_best,
                (unsigned long long)memory->best_version, memory->best_success, (unsigned long long)memory->sft_version,
                (unsigned long long)memory->sft_earlier, (unsigned long long)memory->prm_current);
    if (memory->prm_before)
        strbuf_addf(out, "prm_before %llu\n", (unsigned long long)memory->prm_before);
    if (memory->prm_next)
        strbuf_addf(out, "prm_next %llu\nprm_next_stage %u\nprm_next_round %u\n", (unsigned long long)memory->prm_next,
                    memory->prm_next_stage, memory->prm_next_round);
    shadow_write(&memory->shadow, out);
    write_members(&memory->cordoned, "cordoned", out);
    write_members(&memory->leaving, "leaving", out);
    for (int i = 0; i < RUN_MAX_POLICIES; i++)
        strbuf_addf(out, "temperature%d %a\n", i, memory->temperature[i]);
    strbuf_addf(out, "stop %d\nstage_best %a\nsince_best %u\nalarms %u\n", memory->stop, memory->stage_best, memory->since_best,
                memory->alarms);
    for (uint32_t i = 0; i < memory->watched; i++)
        strbuf_addf(out, "paid %a\nwon %a\n", memory->paid[i], memory->won[i]);
    for (uint32_t i = 0; i < memory->n_extra; i++)
        strbuf_addf(out, "extra %u\n", memory->extra[i]);
    if (memory->curriculum_ready) {
        strbuf_adds(out, "curriculum ");
        if (curriculum_write(&memory->curriculum, out) < 0)
            return -ENOMEM;
        strbuf_addc(out, '\n');
    }
    return out->failed ? -ENOMEM : 0;
}

static int parse_line(char *line, struct plan_memory *memory, struct error *error)
{
    char *space = strchr(line, ' '), *end;
    uint64_t number;
    double real;
    int i;

    if (!space)
        return error_set(error, EBADMSG, "ledger: blob memory: \"%.40s\": no value", line);
    *space = '\0';
    if (!strcmp(line, "curriculum")) {
        memory->curriculum_ready = true;
        return curriculum_parse(space + 1, &memory->curriculum, error);
    }
    if (!strncmp(line, "shadow", 6))
        return shadow_parse(line, space + 1, &memory->shadow, error);
    number = strtoull(space + 1, NULL, 10);
    real = strtod(space + 1, &end);
    if (end == space + 1 || *end)
        return error_set(error, EBADMSG, "ledger: blob memory: %.30s: \"%.40s\" is not a number", line, space + 1);
    i = line[0] ? line[strlen(line) - 1] - '0' : 0;
    if (!strcmp(line, "next_episode")) memory->next_episode = number;
    else if (!strcmp(line, "next_state")) memory->next_state = number;
    else if (!strcmp(line, "stage")) memory->stage = (uint32_t)number;
    else if (!strcmp(line, "iteration")) memory->iteration = (uint32_t)number;
    else if (!strcmp(line, "finished")) memory->finished = number;
    else if (!strcmp(line, "have_best")) memory->have_best = number;
    else if (!strcmp(line, "best_version")) memory->best_version = number;
    else if (!strcmp(line, "best_success")) memory->best_success = real;
    else if (!strcmp(line, "sft_version")) memory->sft_version = number;
    else if (!strcmp(line, "sft_earlier")) memory->sft_earlier = number;
    else if (!strcmp(line, "prm_current")) memory->prm_current = number;
    else if (!strcmp(line, "prm_before")) memory->prm_before = number;
    else if (!strcmp(line, "prm_next")) memory->prm_next = number;
    else if (!strcmp(line, "prm_next_stage")) memory->prm_next_stage = (uint32_t)number;
    else if (!strcmp(line, "prm_next_round")) memory->prm_next_round = (uint32_t)number;
    else if (!strcmp(line, "prm_next_iteration")) memory->prm_next_round = (uint32_t)number;        /* of earlier builds */
    else if (!strcmp(line, "cordoned") && take_member(&memory->cordoned, number)) return 0;
    else if (!strcmp(line, "leaving") && take_member(&memory->leaving, number)) return 0;
    else if (!strncmp(line, "temperature", 11) && i >= 0 && i < RUN_MAX_POLICIES) memory->temperature[i] = real;
    else if (!strcmp(line, "stop") && number <= PLAN_COLLAPSE) memory->stop = (enum plan_stop)number;
    else if (!strcmp(line, "stage_best")) memory->stage_best = real;
    else if (!strcmp(line, "since_best")) memory->since_best = (uint32_t)number;
    else if (!strcmp(line, "alarms")) memory->alarms = (uint32_t)number;
    else if (!strcmp(line, "paid") && memory->watched < PLAN_WATCH) memory->paid[memory->watched] = real;
    else if (!strcmp(line, "won") && memory->watched < PLAN_WATCH) memory->won[memory->watched++] = real;
    else if (!strcmp(line, "extra") && memory->n_extra < PLAN_EXTRA) memory->extra[memory->n_extra++] = (uint32_t)number;
    else return error_set(error, EBADMSG, "ledger: blob memory: unknown key %.40s", line);
    return 0;
}

int plan_memory_parse(const char *text, size_t n, struct plan_memory *ret, struct error *error)
{
    _cleanup_free_ char *copy = strndup(text, n);
    struct plan_memory memory;
    char *rest = copy;

    if (!copy)
        return error_set(error, ENOMEM, "ledger: blob memory: out of memory");
    plan_memory_init(&memory);
    while (rest && *rest) {
        char *line = strsep(&rest, "\n");
        int r = line[0] ? parse_line(line, &memory, error) : 0;

        if (r < 0)
            return r;
    }
    *ret = memory;
    return 0;
}
