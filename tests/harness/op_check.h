/* op_check.h - an op against a plain double-precision version of itself: forward by value, backward by central differences of the
 * double version under the loss sum(w * y) with random w. */
#pragma once

#include "nn/ops.h"

enum { MAX_PARTS = 4 };
enum kind { NONE, INPUT, PARAM, LINEAR };       /* an activation; a parameter; a parameter that is packed */

struct part { enum kind kind; int64_t rows, cols; };

struct op_case {
    const char *name;
    struct part part[MAX_PARTS];
    int64_t rows, cols;         /* of y */
    struct tensor *(*build)(struct tape *t, struct tensor *const *in, struct param *const *p);
    void (*reference)(const double *const *part, double *y);
};

/* Fails the running cmocka test where a value is off by more than 2e-6 of the largest, or a gradient by 1e-5. */
void op_check(const struct op_case *c);
