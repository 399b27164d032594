/* conductor_desk.h - a conductor on a desk: stages, members by name, what they say event by event, and what it answers. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "coordinator/conductor.h"

enum { EPOCH = 3, WORKER = 1, WORKER_2 = 2, ACTOR = 3, LEARNER = 4, PRM = 5 };

/* As long as refusals get: people are told all of it, its end is what matters. */
#define DESK_REFUSAL "model-00003-of-00007.safetensors cannot be had from the learner: /work/groups/manipulation/experiments/" \
    "2026-11-30-tabletop-openvla-lora-r32-seed-7/restarted-after-the-move/runs/gantry/policies/v000000/" \
    "model-00003-of-00007.safetensors is not there (any more)"

struct desk {
    struct run_config config;
    struct conductor *c;
    struct conductor_effects out;
    uint64_t now_ms;
    uint32_t member[8];             /* by the names above */
    uint32_t stage, iteration;      /* of the last OpenIteration */
    uint64_t opened[64];
    size_t n_opened;
    const char *gate_text;          /* of versions committed from now on; NULL: none */
    struct strbuf kept;             /* the memory, as the ledger has it */
};

extern const char *const desk_settings[RUN_MAX_STAGES];    /* of its stages */

/* One event; the effects are in d->out, the ledger's before the messages. What it changed of the memory is among them. */
void desk_step(struct desk *d, struct conductor_event event);
/* The first effect of a kind in d->out, or NULL; how many there are. */
const struct conductor_effect *desk_find(const struct desk *d, enum conductor_effect_kind kind);
size_t desk_count(const struct desk *d, enum conductor_effect_kind kind);
struct stage_config *desk_add_stage(struct desk *d, enum stage_kind kind, const char *name);
void desk_start(struct desk *d, const struct conductor_restored *restored, uint64_t epoch);
void desk_hello(struct desk *d, uint32_t name, enum member_role role, uint64_t instance);
void desk_inventory(struct desk *d, uint32_t stage, uint32_t iteration, uint32_t rows,
                    const struct journaled_episode *episodes, size_t n);
/* The learner knows the iteration that was opened last. */
void desk_confirm(struct desk *d);
struct journaled_episode desk_played(uint64_t episode, bool success);
void desk_journaled(struct desk *d, uint64_t episode, bool success);
void desk_ready(struct desk *d, uint32_t name, enum version_kind kind, uint64_t version);
const struct conductor_effect *desk_request(struct desk *d, uint32_t name, uint32_t slots);
void desk_worker_exits(struct desk *d, uint64_t instance, bool crashed);
void desk_committed(struct desk *d, const struct conductor_plan *plan, const uint64_t *trained, size_t n, bool gate);
/* cmocka's; *state is the desk. */
int desk_set_up(void **state);
int desk_tear_down(void **state);
/* A single stage of demonstrations, `episodes` of them, opened and known to the learner. */
void desk_demos(struct desk *d, int episodes);
/* A single rl stage, first train iteration open and known. */
void desk_rl(struct desk *d, int episodes, int max_staleness);
