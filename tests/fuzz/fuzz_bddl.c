/* A BDDL file from anyone: what is accepted has names where names must be. */
#include <string.h>

#include "sim/suites/libero/bddl.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    struct bddl_problem *problem = NULL;
    struct error error = {0};
    size_t length = 0;

    if (bddl_parse("fuzz", (const char *)bytes, n, &problem, &error) < 0) {
        if (!error.errnum)
            abort();            /* every refusal has its line */
        return 0;
    }
    for (int i = 0; i < problem->n_objects; i++)
        length += strlen(problem->objects[i].name) + strlen(problem->objects[i].category);
    for (int i = 0; i < problem->n_regions; i++)
        if (bddl_region(problem, problem->regions[i].name) == NULL)
            abort();
    for (int i = 0; i < problem->n_goal; i++)
        length += strlen(problem->goal[i].first) + (problem->goal[i].second ? strlen(problem->goal[i].second) : 0);
    if (!length)
        abort();
    bddl_free(problem);
    return 0;
}
