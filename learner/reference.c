#include "learner/reference.h"

#include <stdlib.h>

struct reference *reference_new(struct openvla *model, uint64_t version)
{
    struct reference *reference = malloc(sizeof *reference);

    if (!reference)
        return NULL;
    reference->version = version;
    reference->model = model;
    atomic_init(&reference->holders, 1);
    return reference;
}

struct reference *reference_hold(struct reference *reference)
{
    atomic_fetch_add(&reference->holders, 1);
    return reference;
}

struct reference *reference_drop(struct reference *reference)
{
    if (reference && atomic_fetch_sub(&reference->holders, 1) == 1) {
        openvla_free(reference->model);
        free(reference);
    }
    return NULL;
}
