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

/* The plain values, in the order in which they are written. */
enum value { BOOL, U32, U64, REAL };
enum written { ALWAYS, UNLESS_0, NEVER };
#define AT(field) offsetof(struct plan_memory, field)

static const struct field {
    const char *key;
    enum value value;
    size_t at;
    enum written written;
} fields[] = {
    {"next_episode", U64, AT(next_episode), ALWAYS},
    {"next_state", U64, AT(next_state), ALWAYS},
    {"stage", U32, AT(stage), ALWAYS},
    {"iteration", U32, AT(iteration), ALWAYS},
    {"finished", BOOL, AT(finished), ALWAYS},
    {"have_best", BOOL, AT(have_best), ALWAYS},
    {"best_version", U64, AT(best_version), ALWAYS},
    {"best_success", REAL, AT(best_success), ALWAYS},
    {"sft_version", U64, AT(sft_version), ALWAYS},
    {"sft_earlier", U64, AT(sft_earlier), ALWAYS},
    {"prm_current", U64, AT(prm_current), ALWAYS},
    {"prm_before", U64, AT(prm_before), UNLESS_0},
    {"prm_next", U64, AT(prm_next), UNLESS_0},
    {"prm_next_stage", U32, AT(prm_next_stage), UNLESS_0},
    {"prm_next_round", U32, AT(prm_next_round), UNLESS_0},
    {"prm_next_iteration", U32, AT(prm_next_round), NEVER},     /* of earlier builds */
    {"stage_best", REAL, AT(stage_best), ALWAYS},
    {"since_best", U32, AT(since_best), ALWAYS},
    {"alarms", U32, AT(alarms), ALWAYS},
};

static void write_field(const struct plan_memory *memory, const struct field *field, struct strbuf *out)
{
    const void *at = (const char *)memory + field->at;
    uint64_t number = 0;

    switch (field->value) {
    case BOOL: number = *(const bool *)at; break;
    case U32: number = *(const uint32_t *)at; break;
    case U64: number = *(const uint64_t *)at; break;
    case REAL: break;
    }
    if (field->written == NEVER || (field->written == UNLESS_0 && !number))
        return;
    if (field->value == REAL)
        strbuf_addf(out, "%s %a\n", field->key, *(const double *)at);
    else
        strbuf_addf(out, "%s %llu\n", field->key, (unsigned long long)number);
}

static void set_field(struct plan_memory *memory, const struct field *field, uint64_t number, double real)
{
    void *at = (char *)memory + field->at;

    switch (field->value) {
    case BOOL: *(bool *)at = number; break;
    case U32: *(uint32_t *)at = (uint32_t)number; break;
    case U64: *(uint64_t *)at = number; break;
    case REAL: *(double *)at = real; break;
    }
}

int plan_memory_write(const struct plan_memory *memory, struct strbuf *out)
{
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        write_field(memory, &fields[i], out);
    strbuf_addf(out, "stop %d\n", memory->stop);
    shadow_write(&memory->shadow, out);
    write_members(&memory->cordoned, "cordoned", out);
    write_members(&memory->leaving, "leaving", out);
    for (int i = 0; i < RUN_MAX_POLICIES; i++)
        strbuf_addf(out, "temperature%d %a\n", i, memory->temperature[i]);
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

/* A value that stands in a list, or has a range. False: there is none of this name, or no room for it. */
static bool take_other(struct plan_memory *m, const char *key, uint64_t number, double real)
{
    int policy = *key ? key[strlen(key) - 1] - '0' : -1;

    if (!strcmp(key, "cordoned"))
        return take_member(&m->cordoned, number);
    if (!strcmp(key, "leaving"))
        return take_member(&m->leaving, number);
    if (!strcmp(key, "stop") && number <= PLAN_COLLAPSE)
        m->stop = (enum plan_stop)number;
    else if (!strncmp(key, "temperature", 11) && policy >= 0 && policy < RUN_MAX_POLICIES)
        m->temperature[policy] = real;
    else if (!strcmp(key, "paid") && m->watched < PLAN_WATCH)
        m->paid[m->watched] = real;
    else if (!strcmp(key, "won") && m->watched < PLAN_WATCH)
        m->won[m->watched++] = real;
    else if (!strcmp(key, "extra") && m->n_extra < PLAN_EXTRA)
        m->extra[m->n_extra++] = (uint32_t)number;
    else
        return false;
    return true;
}

static int parse_line(char *line, struct plan_memory *memory, struct error *error)
{
    char *value = strchr(line, ' '), *end;
    uint64_t number;
    double real;

    if (!value)
        return error_set(error, EBADMSG, "ledger: blob memory: \"%.40s\": no value", line);
    *value++ = '\0';
    if (!strcmp(line, "curriculum")) {
        memory->curriculum_ready = true;
        return curriculum_parse(value, &memory->curriculum, error);
    }
    if (!strncmp(line, "shadow", 6))
        return shadow_parse(line, value, &memory->shadow, error);
    number = strtoull(value, NULL, 10);
    real = strtod(value, &end);
    if (end == value || *end)
        return error_set(error, EBADMSG, "ledger: blob memory: %.30s: \"%.40s\" is not a number", line, value);
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++)
        if (!strcmp(line, fields[i].key)) {
            set_field(memory, &fields[i], number, real);
            return 0;
        }
    if (!take_other(memory, line, number, real))
        return error_set(error, EBADMSG, "ledger: blob memory: unknown key %.40s", line);
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
