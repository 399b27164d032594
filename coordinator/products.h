/* products.h - do an actor and a learner multiply with the same bits? Only then are their log-probabilities of the same tokens
 * under the same version equal (docs/method.md, Behaviour). Otherwise the difference is measured (logp_gap) and harms little, but
 * nobody should have it without knowing. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "daemon/run_config.h"

struct member;
struct membership;

enum { PRODUCTS_TEXT = 300 };

/* Somebody there, a learner if `member` is an actor, either if it is a learner, multiplies otherwise than it: true, and one line
 * in `text` that names both and the remedy. */
bool products_unlike(const struct membership *members, const struct member *member, enum numerics numerics, char *text,
                     size_t size);
