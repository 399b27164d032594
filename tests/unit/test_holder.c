/* test_holder.c - versions at a server: beside one another, refused without harm, let go when nobody uses them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "serve/holder.h"

enum { RETRY_MS = 1000 };

static void list(struct holder *h, struct holder_effects *out, uint64_t now_ms, size_t n, const uint64_t *versions)
{
    struct holder_listed listed[HOLDER_MAX];

    memset(listed, 0, sizeof(listed));
    for (size_t i = 0; i < n; i++) {
        listed[i].version = versions[i];
        listed[i].dir = "policies/v";
        listed[i].digest[0] = (uint8_t)versions[i];
    }
    holder_step(h, &(struct holder_event) { .kind = HOLDER_LIST, .list = { listed, n } }, now_ms, out);
}

/* As long as they get: people are told all of it, its end is what matters. */
static const char why[] =
    "model-00003-of-00007.safetensors cannot be had from the learner: /work/groups/manipulation/experiments/2026-11-30-tabletop-"
    "openvla-lora-r32-seed-7/restarted-after-the-move/runs/gantry/policies/v000004/model-00003-of-00007.safetensors is not there";

static void loaded(struct holder *h, struct holder_effects *out, uint64_t now_ms, uint64_t version, bool ok)
{
    holder_step(h, &(struct holder_event) { .kind = HOLDER_LOADED, .loaded = { version, ok, why } }, now_ms, out);
}

static const struct holder_effect *find(const struct holder_effects *out, enum holder_effect_kind kind)
{
    for (size_t i = 0; i < out->n; i++)
        if (out->items[i].kind == kind)
            return &out->items[i];
    return NULL;
}

static void test_load_and_serve(void **state)
{
    struct holder h;
    struct holder_effects out;

    (void)state;
    holder_init(&h, RETRY_MS);
    assert_int_equal(holder_take(&h, 3), HOLDER_WRONG_VERSION);
    list(&h, &out, 0, 2, (uint64_t[]) { 3, 4 });
    assert_int_equal(find(&out, HOLDER_LOAD)->version, 4);       /* the newest first, one at a time */
    assert_int_equal(out.n, 1);
    assert_int_equal(find(&out, HOLDER_LOAD)->digest[0], 4);
    assert_string_equal(find(&out, HOLDER_LOAD)->dir, "policies/v");
    holder_step(&h, &(struct holder_event) { .kind = HOLDER_TICK }, 0, &out);
    assert_int_equal(out.n, 0);
    assert_int_equal(holder_take(&h, 4), HOLDER_LOADING);
    loaded(&h, &out, 0, 4, true);
    assert_true(find(&out, HOLDER_SAY)->ready);
    assert_int_equal(find(&out, HOLDER_SAY)->digest[0], 4);
    assert_int_equal(find(&out, HOLDER_LOAD)->version, 3);
    assert_int_equal(holder_take(&h, 4), HOLDER_SERVE);
    assert_int_equal(holder_take(&h, 3), HOLDER_LOADING);
    assert_int_equal(holder_take(&h, 5), HOLDER_WRONG_VERSION);
    assert_false(holder_put(&h, 4));                             /* nothing to let go: it is wanted */
}

/* The hot swap: the old version serves until its last request is answered. */
static void test_let_go_when_unused(void **state)
{
    struct holder h;
    struct holder_effects out;

    (void)state;
    holder_init(&h, RETRY_MS);
    list(&h, &out, 0, 1, (uint64_t[]) { 3 });
    loaded(&h, &out, 0, 3, true);
    assert_int_equal(holder_take(&h, 3), HOLDER_SERVE);
    list(&h, &out, 0, 1, (uint64_t[]) { 4 });
    assert_int_equal(find(&out, HOLDER_LOAD)->version, 4);
    assert_int_equal(holder_peek(&h, 3), HOLDER_SERVE);          /* nothing else is ready: it stays */
    loaded(&h, &out, 0, 4, true);
    assert_null(find(&out, HOLDER_FREE));                        /* in use */
    assert_true(holder_put(&h, 3));
    holder_step(&h, &(struct holder_event) { .kind = HOLDER_TICK }, 0, &out);
    assert_int_equal(find(&out, HOLDER_FREE)->version, 3);
    assert_int_equal(holder_peek(&h, 3), HOLDER_WRONG_VERSION);
}

/* Wanted no more while it is still in use: it does not stand in for the one that was wanted last. */
static void test_in_use_is_no_reserve(void **state)
{
    struct holder h;
    struct holder_effects out;

    (void)state;
    holder_init(&h, RETRY_MS);
    list(&h, &out, 0, 1, (uint64_t[]) { 3 });
    loaded(&h, &out, 0, 3, true);
    assert_int_equal(holder_take(&h, 3), HOLDER_SERVE);
    list(&h, &out, 0, 1, (uint64_t[]) { 4 });
    loaded(&h, &out, 0, 4, true);
    list(&h, &out, 0, 1, (uint64_t[]) { 5 });
    assert_null(find(&out, HOLDER_FREE));
    assert_int_equal(holder_peek(&h, 4), HOLDER_SERVE);
    loaded(&h, &out, 0, 5, true);
    assert_int_equal(find(&out, HOLDER_FREE)->version, 4);
    assert_int_equal(holder_peek(&h, 3), HOLDER_SERVE);          /* as long as somebody waits for its answer */
}

/* Wanted no more while it loads: nobody is told of it, nobody waits for it. */
static void test_loaded_for_nobody(void **state)
{
    struct holder h;
    struct holder_effects out;

    (void)state;
    holder_init(&h, RETRY_MS);
    list(&h, &out, 0, 1, (uint64_t[]) { 4 });
    list(&h, &out, 0, 1, (uint64_t[]) { 5 });
    assert_null(find(&out, HOLDER_LOAD));                        /* one at a time */
    assert_int_equal(holder_peek(&h, 4), HOLDER_WRONG_VERSION);
    loaded(&h, &out, 0, 4, true);
    assert_null(find(&out, HOLDER_SAY));
    assert_int_equal(find(&out, HOLDER_LOAD)->version, 5);
}

static void test_bad_checkpoint(void **state)
{
    struct holder h;
    struct holder_effects out;

    (void)state;
    holder_init(&h, RETRY_MS);
    list(&h, &out, 0, 1, (uint64_t[]) { 3 });
    loaded(&h, &out, 0, 3, true);
    list(&h, &out, 0, 1, (uint64_t[]) { 4 });
    loaded(&h, &out, 0, 4, false);
    assert_false(find(&out, HOLDER_SAY)->ready);
    assert_string_equal(find(&out, HOLDER_SAY)->text, why);
    assert_int_equal(holder_peek(&h, 4), HOLDER_WRONG_VERSION);
    assert_int_equal(holder_peek(&h, 3), HOLDER_SERVE);          /* the old one goes on serving */
    holder_step(&h, &(struct holder_event) { .kind = HOLDER_TICK }, RETRY_MS - 1, &out);
    assert_int_equal(out.n, 0);
    holder_step(&h, &(struct holder_event) { .kind = HOLDER_TICK }, RETRY_MS, &out);
    assert_int_equal(find(&out, HOLDER_LOAD)->version, 4);
    loaded(&h, &out, RETRY_MS, 4, true);
    assert_int_equal(find(&out, HOLDER_FREE)->version, 3);
}

/* Other bytes under the number of a version that was refused: tried at once, as what they are now. What serves is not touched. */
static void test_other_bytes(void **state)
{
    const struct holder_listed other[2] = {{.version = 3, .dir = "elsewhere", .digest = {33}},
                                           {.version = 4, .dir = "elsewhere", .digest = {44}}};
    struct holder h;
    struct holder_effects out;

    (void)state;
    holder_init(&h, RETRY_MS);
    list(&h, &out, 0, 2, (uint64_t[]) { 3, 4 });
    loaded(&h, &out, 0, 4, false);
    loaded(&h, &out, 0, 3, true);
    list(&h, &out, 1, 2, (uint64_t[]) { 3, 4 });
    assert_null(find(&out, HOLDER_LOAD));                        /* the same as was refused */
    holder_step(&h, &(struct holder_event) { .kind = HOLDER_LIST, .list = { other, 2 } }, 1, &out);
    assert_int_equal(find(&out, HOLDER_LOAD)->version, 4);
    assert_int_equal(find(&out, HOLDER_LOAD)->digest[0], 44);
    assert_string_equal(find(&out, HOLDER_LOAD)->dir, "elsewhere");
    assert_int_equal(holder_peek(&h, 3), HOLDER_SERVE);
    assert_int_equal(find(&out, HOLDER_SAY)->digest[0], 3);
    list(&h, &out, 1, 2, (uint64_t[]) { 3, 4 });                 /* and back, while it loads: what comes is what was asked for */
    assert_null(find(&out, HOLDER_LOAD));
    loaded(&h, &out, 1, 4, false);
    assert_int_equal(find(&out, HOLDER_SAY)->digest[0], 44);
    list(&h, &out, 1, 2, (uint64_t[]) { 3, 4 });
    assert_int_equal(find(&out, HOLDER_LOAD)->digest[0], 4);
}

static void test_states_are_said_again(void **state)
{
    struct holder h;
    struct holder_effects out;

    (void)state;
    holder_init(&h, RETRY_MS);
    list(&h, &out, 0, 1, (uint64_t[]) { 3 });
    holder_step(&h, &(struct holder_event) { .kind = HOLDER_WELCOME }, 0, &out);
    assert_int_equal(out.n, 0);                                  /* nothing to say while it loads */
    loaded(&h, &out, 0, 3, true);
    holder_step(&h, &(struct holder_event) { .kind = HOLDER_WELCOME }, 0, &out);
    assert_true(find(&out, HOLDER_SAY)->ready);
    list(&h, &out, 0, 1, (uint64_t[]) { 3 });
    assert_true(find(&out, HOLDER_SAY)->ready);
}

/* No fault of the version (the learner is away while it is brought over): nothing is said, requests wait, it is tried again. */
static void test_postponed(void **state)
{
    struct holder h;
    struct holder_effects out;

    (void)state;
    holder_init(&h, RETRY_MS);
    list(&h, &out, 0, 2, (uint64_t[]) { 3, 4 });
    holder_step(&h, &(struct holder_event) { .kind = HOLDER_LOADED, .loaded = { 4, false, "nobody answers", .later = true } }, 0,
                &out);
    assert_null(find(&out, HOLDER_SAY));
    assert_int_equal(find(&out, HOLDER_LOAD)->version, 3);       /* meanwhile the other */
    assert_int_equal(holder_peek(&h, 4), HOLDER_LOADING);
    assert_true(holder_wants(&h, 4) && !holder_wants(&h, 5));
    loaded(&h, &out, 0, 3, true);
    holder_step(&h, &(struct holder_event) { .kind = HOLDER_WELCOME }, 0, &out);
    assert_int_equal(out.n, 1);                                  /* of 3 only */
    holder_step(&h, &(struct holder_event) { .kind = HOLDER_TICK }, RETRY_MS, &out);
    assert_int_equal(find(&out, HOLDER_LOAD)->version, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_load_and_serve), cmocka_unit_test(test_let_go_when_unused), cmocka_unit_test(test_bad_checkpoint),
        cmocka_unit_test(test_in_use_is_no_reserve), cmocka_unit_test(test_loaded_for_nobody),
        cmocka_unit_test(test_other_bytes), cmocka_unit_test(test_states_are_said_again),
        cmocka_unit_test(test_postponed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
