/* curriculum.h - which task the next episode gets, from how often each has succeeded.
 *
 * Pure and small: a plain struct, no pointers. Draws are keyed by (seed, iteration, index), so a plan made twice is the
 * same plan; the state moves only in curriculum_record(), called once per committed iteration. Its text form is stored
 * in the ledger and restores it bit for bit. */
#pragma once

#include <stdbool.h>

#include "base/error.h"
#include "base/method.h"
#include "base/strbuf.h"

enum { CURRICULUM_MAX_TASKS = 96, CURRICULUM_HISTORY = 10 };

struct curriculum {
    enum curriculum_mode mode;
    int tasks;
    int level_of[CURRICULUM_MAX_TASKS];     /* each task's level; `levels` climbs them */
    double tries[CURRICULUM_MAX_TASKS];     /* sum of w, decayed x .9 per iteration */
    double wins[CURRICULUM_MAX_TASKS];      /* sum of w * success */
    int level;                              /* `levels`: where we are */
    double history[CURRICULUM_HISTORY];     /* `levels`: success rates since the last climb, oldest first */
    int in_history;
};

/* level_of[tasks]; NULL: all 0. -EINVAL: no task or too many. */
int curriculum_init(struct curriculum *c, enum curriculum_mode mode, const int *level_of, int tasks);

/* P(task j), summing to 1. ret_p[tasks]. */
void curriculum_weights(const struct curriculum *c, double *ret_p);
/* s_j = (1 + wins) / (2 + tries): the smoothed success rate the weights come from. */
double curriculum_success(const struct curriculum *c, int task);

/* Task of episode `index` of `iteration` (replacements go on counting index). `fixed`: round robin. */
int curriculum_draw(const struct curriculum *c, uint64_t seed, uint64_t iteration, uint32_t index);

/* All committed train episodes of one iteration: attempts[tasks], successes[tasks]. Returns true when a level was climbed. */
bool curriculum_record(struct curriculum *c, const int *attempts, const int *successes);

/* One line of text and back; the numbers are hexadecimal floats, so nothing is rounded. */
int curriculum_write(const struct curriculum *c, struct strbuf *out);
int curriculum_parse(const char *text, struct curriculum *ret, struct error *error);
