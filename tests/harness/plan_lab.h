/* plan_lab.h - a run directory with a start policy, demonstrations and episodes of rl in its journal, and a learner that plans
 * are given to. */
#pragma once

#include "base/sha256.h"
#include "learner/plan_run.h"
#include "run/journal.h"
#include "tests/harness/scratch.h"

#define NANO "tests/golden/nano"
enum { RUN = 77 };              /* its id */
enum { DEMOS = 0, SFT = 1, RL = 2, ROLLOUTS = 3 };     /* stages */

extern const char plan_lab_sft_settings[];

struct plan_lab {
    char dir[SCRATCH_PATH];
    struct journal *journal;
    struct plan_runner runner;
    bool lora;
    bool stale;                 /* plans take what was played some versions ago */
};

/* For cmocka_unit_test_setup_teardown: *state is the plan_lab. Demonstrations 1 to 4; episodes 11 to 16 of rl, of which 15 has no
 * good score and 16 is of version 0. */
int plan_lab_set_up(void **state);
int plan_lab_tear_down(void **state);

/* One more episode into the open segment. */
void plan_lab_append(struct plan_lab *f, uint64_t id, Gantry__Purpose purpose, uint64_t version, float progress);
void plan_lab_segment(struct plan_lab *f, uint32_t stage);
void plan_lab_runner(struct plan_lab *f);                     /* as a process that has just started */
void plan_lab_restart(struct plan_lab *f);                    /* the same in place of the old one */

/* A plan and what it points at; the digest stands for its content. */
Gantry__Plan plan_of(const char *objective, uint64_t parent, const char *dir, const char *settings, uint8_t *digest);
int plan_lab_sft(struct plan_lab *f, uint64_t parent, const char *dir, struct intake_version *ret, struct error *error);
int plan_lab_ppo(struct plan_lab *f, uint64_t parent, const char *dir, uint64_t *rows, size_t n,
                 struct intake_version *ret, struct error *error);

/* Files below RUN/policies. */
void plan_lab_digest(const struct plan_lab *f, const char *file, uint8_t ret[SHA256_SIZE]);
bool plan_lab_has(const struct plan_lab *f, const char *file);
void plan_lab_drop_versions(const struct plan_lab *f, int last);      /* 1 to last */

#define MUST(call) do { error = (struct error) {0}; if ((call) < 0) fail_msg("%s", error.text); } while (0)
#define REFUSED(call, errnum, text_part) do { error = (struct error) {0}; assert_int_equal(call, -(errnum)); \
        if (!strstr(error.text, text_part)) fail_msg("said: %s", error.text); } while (0)
