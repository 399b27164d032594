/* The memory that memory_need foretells is what acting and training then take. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "nn/gemm_pack.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_session.h"
#include "nn/models/openvla_synth.h"
#include "tests/harness/scratch.h"
#include "tests/harness/synthetic.h"
#include "train/memory.h"
#include "train/shards.h"

enum { PROMPT = 35, BATCH = 6 };        /* memory.c reckons with prompts of this length */

static struct {
    char dir[SCRATCH_PATH];
    struct openvla *planned, *real;
} f;

static int setup(void **state)
{
    struct openvla_synthesis done;
    struct error error = {0};

    (void)state;
    scratch_new(f.dir);
    if (openvla_synth(openvla_size_find("tiny"), f.dir, DTYPE_BF16, 1, 0, &done, &error) < 0 ||
        openvla_open(f.dir, NULL, &f.planned, NULL, &error) < 0 || openvla_load(f.dir, &f.real, &error) < 0) {
        print_error("%s\n", error.text);
        return -1;
    }
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    openvla_free(f.planned);
    openvla_free(f.real);
    return remove_tree(f.dir);
}

static int64_t packed(const struct params *params)
{
    int64_t bytes = 0;

    for (int i = 0; i < params->count; i++) {
        const struct gemm_pack *packs[] = {params->list[i]->forward, params->list[i]->backward};

        for (int k = 0; k < 2; k++)
            bytes += packs[k] ? packs[k]->k * ((packs[k]->n + 31) / 32 * 32) * (int64_t)sizeof(float) : 0;
    }
    return bytes;
}

static void near(const char *what, int64_t foretold, int64_t taken)
{
    if (foretold < taken || foretold > taken + taken / 2)       /* at least what it takes, and not half as much again */
        fail_msg("%s: foretold %lld bytes, taken %lld", what, (long long)foretold, (long long)taken);
}

static void test_acting(void **state)
{
    struct openvla_session *session = NULL;
    struct act_item items[BATCH];
    struct act_result results[BATCH];
    struct memory_need need;
    static uint8_t image[64 * 64 * 3];
    int32_t prompt[PROMPT] = {0};

    (void)state;
    assert_int_equal(memory_need(f.planned, MEMORY_ACT, BATCH, 1, 0, &need), 0);
    assert_int_equal(openvla_pack(f.real, false), 0);
    assert_int_equal(openvla_session_new(&f.real->config, BATCH, &session), 0);
    for (int i = 0; i < BATCH; i++)
        items[i] = (struct act_item) {.images = {image}, .n_images = 1, .prompt = prompt, .n_prompt = PROMPT};
    assert_int_equal(openvla_act(f.real, session, items, BATCH, results), 0);
    near("weights", need.weights + 64 * f.real->params.count, f.real->params.numel * (int64_t)sizeof(float));
    assert_int_equal(need.packs, packed(&f.real->params));
    /* The dry run has no caches: what copies keys and values into them, and the step that decodes, comes on top. */
    near("activations", need.activations + need.activations / 4, (int64_t)session->tape.arena.size);
    near("cache", need.cache + need.cache / 5,
         2LL * f.real->config.layers * BATCH * session->capacity * f.real->config.hidden * 4);
    assert_int_equal(need.gradients + need.optimiser + need.mapped, 0);
    openvla_session_free(session);
}

static void test_training(void **state)
{
    struct memory_need full, lora, larger;
    int64_t trained = 0;

    (void)state;
    assert_int_equal(memory_need(f.planned, MEMORY_FULL, 16, 2, 0, &full), 0);
    assert_int_equal(memory_need(f.planned, MEMORY_LORA, 16, 2, 8, &lora), 0);
    assert_int_equal(memory_need(f.planned, MEMORY_FULL, 64, 2, 0, &larger), 0);
    for (int i = 0; i < f.real->params.count; i++)
        trained += f.real->params.list[i]->frozen ? 0 : f.real->params.list[i]->numel;
    assert_int_equal(full.trained, trained);
    assert_int_equal(full.gradients, (SHARDS + 1) * trained * 4);
    assert_int_equal(openvla_pack(f.real, true), 0);
    assert_int_equal(full.packs, packed(&f.real->params));
    assert_true(lora.trained < trained && lora.total < full.total);
    assert_true(larger.activations > 3 * full.activations && larger.gradients == full.gradients);
    assert_true(memory_need(f.planned, MEMORY_ACT, 0, 1, 0, &full) < 0);
}

/* A large model's blocks keep what they give and are computed again on the way back: of OpenVLA-7B's size, by shapes alone, a
 * sequence takes the outputs of its blocks and one block whole (.66 GiB), where all of it would be 7.6 GiB. */
static void test_a_large_model_computes_its_blocks_twice(void **state)
{
    struct openvla *model = synthetic_shapes_of_7b();
    struct memory_need one, eight;

    (void)state;
    assert_non_null(model);
    assert_int_equal(memory_need(model, MEMORY_LORA, 1, 1, 32, &one), 0);
    assert_int_equal(memory_need(model, MEMORY_LORA, 8, 8, 32, &eight), 0);
    assert_in_range(one.activations, 500LL << 20, 1000LL << 20);
    assert_int_equal(eight.activations, 8 * one.activations);
    openvla_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_acting), cmocka_unit_test(test_training),
        cmocka_unit_test(test_a_large_model_computes_its_blocks_twice),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
