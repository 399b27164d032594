#include "base/search.h"

#include <errno.h>
#include <string.h>

const char *const search_method_names[] = {"search_n", "sample_n", "refine", NULL};
const char *const search_judge_names[] = {"prm", "value", "confidence", "random", "shuffled", "oracle", NULL};
const char *const search_proposal_names[] = {"policy", "gaussian", NULL};

int search_name(const char *const *names, const char *name)
{
    if (!name || !name[0])
        return 0;
    for (int i = 0; names[i]; i++)
        if (!strcmp(names[i], name))
            return i;
    return -ENOENT;
}
