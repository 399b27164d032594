/* Blocks computed twice: every gradient is the same to the bit, and the pass needs the memory of one block instead of all. And in
 * each way of going back a gradient that is told to be whole (tape_watch) is so. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/philox.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_lora.h"
#include "nn/tape_watch.h"

#define NANO "tests/golden/nano"
enum { SIDE = 64, FRAME = SIDE * SIDE * 3, N = 3, DIMS = 7 };

struct scene { struct openvla *model; uint8_t frames[N * FRAME]; int32_t *prompt; int n_prompt; int32_t actions[DIMS]; };

static int set_up(void **state)
{
    struct scene *s = calloc(1, sizeof(*s));
    struct philox random = philox_at(2, PHILOX_TEST, 0, 0, 0);
    struct error error = {0};

    if (openvla_new(NANO, 3, &s->model, &error) < 0)
        fail_msg("%s", error.text);
    for (int i = 0; i < N * FRAME; i++)
        s->frames[i] = (uint8_t)(i % 48 ? s->frames[i - 1] : philox_u32(&random));
    for (int k = 0; k < DIMS; k++)
        s->actions[k] = s->model->config.vocab - OPENVLA_ACTION_BINS + 9 * k;
    assert_int_equal(openvla_prompt(s->model, "pick up the block", &s->prompt, &s->n_prompt), 0);
    *state = s;
    return 0;
}

static int tear_down(void **state)
{
    struct scene *s = *state;

    openvla_free(s->model);
    free(s->prompt);
    free(s);
    return 0;
}

static struct token_stats *forward(const struct scene *s, struct tape *tape)
{
    int32_t rows[N * DIMS], target[N * DIMS];
    struct openvla_item items[N];
    struct openvla_pass pass;

    for (int i = 0; i < N; i++)
        items[i] = (struct openvla_item) {.images = {s->frames + i * FRAME}, .n_images = 1, .prompt = s->prompt,
                                          .n_prompt = s->n_prompt, .actions = s->actions, .n_actions = DIMS - 1};
    assert_int_equal(openvla_forward_tail(s->model, tape, items, N, &pass), 0);
    for (int i = 0; i < N * DIMS; i++) {
        rows[i] = pass.first[i / DIMS] + i % DIMS;
        target[i] = 9 * (i % DIMS);
    }
    return op_token_stats(tape, openvla_logits(s->model, tape, op_gather(tape, pass.hidden, rows, N * DIMS), true), target, 1,
                          NULL);
}

/* What was told, and how the gradients were then. */
struct witness {
    const float *grad;
    const struct param *param[2000];
    int64_t begin[2000];
    int n, told[2000], early;
    float *then;
};

static int whole(void *arg, int which)
{
    struct witness *w = arg;
    const struct param *p = w->param[which];
    bool first_is_still_zero = true;

    w->told[which]++;
    memcpy(w->then + p->offset, w->grad + p->offset, (size_t)p->numel * sizeof(*w->grad));
    for (int64_t i = 0; i < w->param[0]->numel; i++)
        first_is_still_zero &= w->grad[w->param[0]->offset + i] == 0;
    w->early += first_is_still_zero;
    return 0;
}

static struct tape_watch *watch(const struct params *params, const float *grad, struct witness *w)
{
    struct tape_watch *watch = NULL;

    *w = (struct witness) {.grad = grad, .then = calloc((size_t)params->numel, sizeof(float))};
    assert_non_null(w->then);
    for (int i = 0; i < params->count; i++)
        if (!params->list[i]->frozen) {
            assert_true(w->n < (int)ARRAY_SIZE(w->param));
            w->begin[w->n] = params->list[i]->offset;
            w->param[w->n++] = params->list[i];
        }
    assert_int_equal(tape_watch_new(w->begin, w->n, whole, w, &watch), 0);
    return watch;
}

static void check_witness(struct witness *w)
{
    for (int i = 0; i < w->n; i++) {
        assert_int_equal(w->told[i], 1);
        assert_memory_equal(w->then + w->param[i]->offset, w->grad + w->param[i]->offset,
                            (size_t)w->param[i]->numel * sizeof(float));
        w->told[i] = 0;
    }
    assert_true(w->early > w->n / 2);           /* most were told when the way back had not come to the first */
    w->early = 0;
}

/* The gradient of the summed log-probs, on a tape of exactly the size that the dry run found. */
static float *gradient(const struct scene *s, bool recompute, bool recycle, size_t *ret_bytes)
{
    float *grad = calloc((size_t)s->model->params.numel, sizeof(*grad));
    static struct witness witness;
    struct token_stats *stats;
    struct tape tape;

    assert_non_null(grad);
    tape_init(&tape, true);
    tape.recompute = recompute;
    tape.recycle = recycle;
    tape.param_grad = grad;
    tape_plan(&tape);
    assert_non_null(forward(s, &tape));
    assert_int_equal(tape_allocate(&tape), 0);
    *ret_bytes = tape.arena.size;
    tape.watch = watch(&s->model->params, grad, &witness);
    for (int pass = 0; pass < 2; pass++) {      /* the second finds the tape as a shard does */
        memset(grad, 0, (size_t)s->model->params.numel * sizeof(*grad));
        tape_begin(&tape);
        stats = forward(s, &tape);
        assert_non_null(stats);
        for (int i = 0; i < N * DIMS; i++)
            stats->dlogp[i] = -1;
        tape_backward(&tape);
        assert_int_equal(tape.error, 0);
        check_witness(&witness);
    }
    tape_watch_free(tape.watch);
    free(witness.then);
    tape_release(&tape);
    return grad;
}

static void compare(struct scene *s)
{
    size_t bytes[4];
    float *kept = gradient(s, false, false, &bytes[0]), *twice = gradient(s, true, false, &bytes[1]);
    float *recycled = gradient(s, false, true, &bytes[2]), *both = gradient(s, true, true, &bytes[3]);
    size_t n = (size_t)s->model->params.numel * sizeof(float);
    int64_t learnt = 0;

    assert_memory_equal(kept, recycled, n);
    assert_memory_equal(kept, twice, n);
    assert_memory_equal(kept, both, n);
    for (int64_t i = 0; i < s->model->params.numel; i++)
        learnt += kept[i] != 0;
    assert_true(learnt > 1000);
    assert_true(bytes[1] < bytes[0]);
    assert_true(bytes[3] < bytes[2]);
    print_message("bytes of a pass over %d samples: %zu kept, %zu computed twice\n", N, bytes[2], bytes[3]);
    free(kept);
    free(twice);
    free(recycled);
    free(both);
}

static void all_weights(void **state)
{
    assert_int_equal(openvla_pack(((struct scene *)*state)->model, true), 0);
    compare(*state);
}

static void adapters(void **state)
{
    struct scene *s = *state;
    struct error error = {0};

    assert_int_equal(openvla_lora_new(s->model, &(struct lora_spec) {.r = 4, .alpha = 8, .targets = "all-linear"}, 9, &error), 0);
    for (int i = 0; i < s->model->params.count; i++)
        for (int64_t k = 0; s->model->params.list[i]->adapter && k < s->model->params.list[i]->numel; k++)
            s->model->params.list[i]->value[k] += 0.01f * (float)(k % 7 - 3);
    assert_int_equal(openvla_pack(s->model, true), 0);
    compare(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_weights, set_up, tear_down),
        cmocka_unit_test_setup_teardown(adapters, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
