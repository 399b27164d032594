/* budget.h - what a client may repeat: a bucket of tokens for each server it asks.
 *
 * A repetition takes one; a new request brings a fifth of one, a second eight. So a server that is slow, or a connection that
 * comes and goes, gets at most a fifth more than what is asked of it anyway, a burst, and a trickle: repetitions cannot keep it
 * down. What finds no token waits, it is not given up. LOADING and WRONG_VERSION are waiting, not failing: they take none.
 * Pure; time is monotonic milliseconds. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define BUDGET_BURST 64.0
#define BUDGET_PER_REQUEST 0.2
#define BUDGET_PER_SECOND 8.0

struct budget { double tokens; uint64_t at_ms; };

static inline struct budget budget_full(uint64_t now_ms) { return (struct budget) {BUDGET_BURST, now_ms}; }

static inline void budget_add(struct budget *b, double tokens)
{
    b->tokens = b->tokens + tokens < BUDGET_BURST ? b->tokens + tokens : BUDGET_BURST;
}

static inline void budget_on_request(struct budget *b) { budget_add(b, BUDGET_PER_REQUEST); }

static inline bool budget_take(struct budget *b, uint64_t now_ms)
{
    if (now_ms > b->at_ms)
        budget_add(b, BUDGET_PER_SECOND * (double)(now_ms - b->at_ms) / 1000);
    b->at_ms = now_ms;
    if (b->tokens < 1)
        return false;
    b->tokens -= 1;
    return true;
}
