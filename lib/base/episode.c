#include "base/episode.h"

const char *episode_check_observed(const uint32_t *observed, size_t n_observed, const uint32_t *turns, size_t n_turns,
                                   size_t steps)
{
    size_t turn = 0;

    if (!n_observed)
        return NULL;
    if (observed[0] != 0 || observed[n_observed - 1] != steps)
        return "its first or its last observation was not drawn";
    for (size_t i = 0; i < n_observed; i++) {
        if (i && observed[i] <= observed[i - 1])
            return "its drawn observations do not ascend";
        turn += turn < n_turns && turns[turn] == observed[i];
    }
    if (n_turns ? turn < n_turns : n_observed <= steps)
        return "the policy was asked about an observation that was not drawn";
    return NULL;
}
