#include "rl/search.h"

#include <math.h>
#include <string.h>

#include "base/macro.h"
#include "base/philox.h"

double search_worth(const struct search_candidates *s, uint32_t c)
{
    double sum = 0;

    if (!s->mean)
        return (double)s->scores[c * s->h + s->h - 1];
    for (uint32_t i = 0; i < s->h; i++)
        sum += (double)s->scores[c * s->h + i];
    return sum / s->h;
}

/* Whose scores candidate c is judged by: its own, or for `shuffled` those of one dealt to it (Fisher-Yates over the living). */
static void deal(const struct search_candidates *s, uint32_t *ret_row)
{
    struct philox draws = philox_at(s->seed, PHILOX_PROPOSE, s->key, s->step, SEARCH_N_MAX);
    uint32_t living[SEARCH_N_MAX], n = 0, c;

    for (c = 0; c < s->n; c++) {
        ret_row[c] = c;
        if (s->alive[c])
            living[n++] = c;
    }
    for (uint32_t i = n; i > 1 && s->judge == JUDGE_SHUFFLED; i--) {
        uint32_t k = philox_below(&draws, i), row = ret_row[living[i - 1]];

        ret_row[living[i - 1]] = ret_row[living[k]];
        ret_row[living[k]] = row;
    }
}

static int choose_random(const struct search_candidates *s)
{
    struct philox draws = philox_at(s->seed, PHILOX_PROPOSE, s->key, s->step, SEARCH_N_MAX);
    uint32_t living[SEARCH_N_MAX], n = 0;

    for (uint32_t c = 0; c < s->n; c++)
        if (s->alive[c])
            living[n++] = c;
    return n ? (int)living[philox_below(&draws, n)] : -1;
}

static int first_to_meet(const struct search_candidates *s)
{
    int best = -1;

    for (uint32_t c = 0; c < s->n; c++)
        if (s->alive[c] && s->met[c] && (best < 0 || s->met[c] < s->met[best]))
            best = (int)c;
    return best;
}

int search_choose(const struct search_candidates *s)
{
    uint32_t row[SEARCH_N_MAX];
    double best_worth = 0, best_last = 0;
    int best = -1;

    if (s->judge == JUDGE_RANDOM)
        return choose_random(s);
    if (s->judge == JUDGE_ORACLE && s->met && (best = first_to_meet(s)) >= 0)
        return best;
    deal(s, row);
    for (uint32_t c = 0; c < s->n; c++) {
        double worth, last;

        if (!s->alive[c])
            continue;
        worth = search_worth(s, row[c]);
        last = (double)s->scores[row[c] * s->h + s->h - 1];
        if (best < 0 || worth > best_worth || (!(worth < best_worth) && last > best_last)) {
            best = (int)c;
            best_worth = worth;
            best_last = last;
        }
    }
    return best;
}

void search_gaussian(const float *from, uint32_t k, uint32_t dims, uint64_t seed, uint64_t key, uint32_t step, float *ret,
                     uint32_t n)
{
    for (uint32_t d = 0; d < dims; d++) {
        double sum = 0, squares = 0, mean, std, low = INFINITY, high = -INFINITY;
        bool gripper = d + 1 == dims;

        for (uint32_t i = 0; i < k; i++) {
            double x = (double)from[i * dims + d];

            sum += gripper ? (x > 0 ? 1 : -1) : x;
            low = fmin(low, x);
            high = fmax(high, x);
        }
        mean = sum / k;
        for (uint32_t i = 0; i < k; i++)
            squares += ((double)from[i * dims + d] - mean) * ((double)from[i * dims + d] - mean);
        std = sqrt(squares / k);
        for (uint32_t i = 0; i < n; i++) {
            struct philox draws = philox_at(seed, PHILOX_PROPOSE, key, step, i << 8 | d);
            double drawn = mean + std * philox_normal(&draws);

            if (gripper) /* an even vote goes with the first sample */
                ret[i * dims + d] = sum > 0 ? 1 : sum < 0 ? -1 : from[d] > 0 ? 1 : -1;
            else
                ret[i * dims + d] = (float)CLAMP(drawn, low - std, high + std);
        }
    }
}

uint32_t search_lowest(const float *scores, uint32_t h)
{
    uint32_t lowest = 0;

    for (uint32_t i = 1; i < h; i++)
        if (scores[i] < scores[lowest])
            lowest = i;
    return lowest;
}
