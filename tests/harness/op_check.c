#include "tests/harness/op_check.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/philox.h"

struct bench {
    struct params params;
    struct param *p[MAX_PARTS];
    struct tensor *in[MAX_PARTS];
    double *value[MAX_PARTS];
    float *param_grad;
    struct tape tape;
};

static int64_t numel(const struct part *part)
{
    return part->rows * part->cols;
}

/* Inputs and the op, for a dry run or for real. */
static struct tensor *run(struct bench *b, const struct op_case *c)
{
    for (int i = 0; i < MAX_PARTS; i++) {
        const struct part *part = &c->part[i];

        if (part->kind != INPUT)
            continue;
        b->in[i] = tape_tensor(&b->tape, part->rows, part->cols);
        assert_non_null(b->in[i]);
        for (int64_t j = 0; j < numel(part) && !b->tape.planning; j++)
            b->in[i]->x[j] = (float)b->value[i][j];
    }
    return c->build(&b->tape, b->in, b->p);
}

static void setup(struct bench *b, const struct op_case *c)
{
    struct philox random = philox_at(11, PHILOX_TEST, 1, 0, 0);
    char name[2] = "a";

    *b = (struct bench) {0};
    for (int i = 0; i < MAX_PARTS; i++) {
        const struct part *part = &c->part[i];

        b->value[i] = calloc((size_t)numel(part) + 1, sizeof(double));
        assert_non_null(b->value[i]);
        for (int64_t j = 0; j < numel(part); j++)
            b->value[i][j] = (double)(float)philox_normal(&random);
        name[0] = (char)('a' + i);
        if (part->kind >= PARAM)
            b->p[i] = param_add(&b->params, name, 2, (int64_t[]) {part->rows, part->cols}, part->kind == LINEAR);
    }
    assert_int_equal(params_allocate(&b->params), 0);
    for (int i = 0; i < MAX_PARTS; i++)
        for (int64_t j = 0; b->p[i] && j < numel(&c->part[i]); j++)
            b->p[i]->value[j] = (float)b->value[i][j];
    assert_int_equal(params_pack(&b->params, true), 0);
    b->param_grad = calloc((size_t)b->params.numel + 1, sizeof(float));
    assert_non_null(b->param_grad);
    tape_init(&b->tape, true);
    b->tape.param_grad = b->param_grad;
}

static void teardown(struct bench *b)
{
    for (int i = 0; i < MAX_PARTS; i++)
        free(b->value[i]);
    free(b->param_grad);
    params_free(&b->params);
    tape_release(&b->tape);
}

static double largest(const double *x, int64_t n)
{
    double most = 0.0;

    for (int64_t i = 0; i < n; i++)
        most = MAX(most, fabs(x[i]));
    return most;
}

static double loss(const struct op_case *c, struct bench *b, const double *w, double *y)
{
    double sum = 0.0;

    c->reference((const double *const *)b->value, y);
    for (int64_t i = 0; i < c->rows * c->cols; i++)
        sum += w[i] * y[i];
    return sum;
}

static void check_gradient(const struct op_case *c, struct bench *b, int part, const float *g, const double *w, double *y)
{
    int64_t n = numel(&c->part[part]);
    _cleanup_free_ double *want = calloc((size_t)n, sizeof(double));
    double most;

    for (int64_t j = 0; j < n; j++) {
        double *x = &b->value[part][j], kept = *x, up, down, h = 1e-5;

        *x = kept + h;
        up = loss(c, b, w, y);
        *x = kept - h;
        down = loss(c, b, w, y);
        *x = kept;
        want[j] = (up - down) / (2.0 * h);
    }
    most = largest(want, n) + 1e-3;
    for (int64_t j = 0; j < n; j++)
        if (!(fabs((double)g[j] - want[j]) <= 1e-5 * most))
            fail_msg("%s: gradient of part %d, element %d: %.8g, differences give %.8g", c->name, part, (int)j, (double)g[j],
                     want[j]);
}

void op_check(const struct op_case *c)
{
    struct philox random = philox_at(12, PHILOX_TEST, 2, 0, 0);
    int64_t n = c->rows * c->cols;
    _cleanup_free_ double *y_ref = calloc((size_t)n, sizeof(double)), *w = calloc((size_t)n, sizeof(double));
    _cleanup_free_ float *first = calloc((size_t)n, sizeof(float));
    struct bench b;
    struct tensor *y;
    double most;

    setup(&b, c);
    tape_plan(&b.tape);
    assert_non_null(run(&b, c));
    assert_int_equal(tape_allocate(&b.tape), 0);
    tape_begin(&b.tape);
    y = run(&b, c);
    if (!y)
        fail_msg("%s: no result, error %d", c->name, b.tape.error);
    assert_int_equal(y->rows, c->rows);
    assert_int_equal(y->cols, c->cols);

    loss(c, &b, w, y_ref);
    most = largest(y_ref, n);
    for (int64_t i = 0; i < n; i++)
        if (!(fabs((double)y->x[i] - y_ref[i]) <= 2e-6 * most))
            fail_msg("%s: element %d is %.8g, in double %.8g", c->name, (int)i, (double)y->x[i], y_ref[i]);

    for (int64_t i = 0; i < n; i++) {
        w[i] = (double)(float)philox_normal(&random);
        y->g[i] = (float)w[i];
    }
    tape_backward(&b.tape);
    assert_int_equal(b.tape.error, 0);
    for (int i = 0; i < MAX_PARTS; i++)
        if (c->part[i].kind != NONE)
            check_gradient(c, &b, i, c->part[i].kind == INPUT ? b.in[i]->g : b.param_grad + b.p[i]->offset, w, y_ref);
    teardown(&b);
}
