/* What is trained whole beside adapters (OpenVLA-OFT's heads, the robot state's projector, FiLM) is in the adapter's directory:
 * whoever loads it has what was trained, to the bit; and what is for another base is refused. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_lora.h"
#include "nn/models/openvla_oft.h"
#include "nn/models/openvla_start.h"
#include "nn/safetensors.h"
#include "tests/harness/scratch.h"
#include "tests/harness/train_lab.h"
#include "train/checkpoint.h"

enum { CHUNK = 2 };

/* Laplace heads and FiLM on the nano model; on disk as version 0. */
static struct openvla *base_model(void)
{
    struct openvla *model = lab_model(1), *back = NULL;
    struct error error = {0};

    assert_int_equal(oft_add_action_head(model, CHUNK, 24, 1, 2), 0);
    assert_int_equal(oft_add_scale_head(model, 8, -1, 4), 0);
    assert_int_equal(oft_add_film(model), 0);
    assert_int_equal(mkdir(scratch_at("v000000"), 0777), 0);
    if (openvla_save(model, scratch_at("v000000"), "F32", &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(atomic_file_write(scratch_at("v000000/manifest.json"), "{}", 2), 0);
    openvla_free(model);
    if (openvla_load(scratch_at("v000000"), &back, &error) < 0)
        fail_msg("%s", error.text);
    return back;
}

/* Some imitation with adapters. */
static struct trainer *trained(void)
{
    struct sft_config config = {.steps = 3, .batch = 4, .lr = 1e-2, .clip = 1, .beta2 = .95, .lr_end = 1};
    struct openvla *model = base_model();
    struct error error = {0};
    struct trainer *trainer;
    struct dataset *data;

    if (openvla_lora_new(model, &(struct lora_spec) {.r = 2, .alpha = 4, .targets = "all-linear", .base = "../v000000"}, 3,
                         &error) < 0)
        fail_msg("%s", error.text);
    trainer = lab_trainer(model, 2);
    data = lab_demonstrations(model, 4);
    assert_int_equal(lab_imitate(trainer, data, &config, 1).skipped, 0);
    dataset_free(data);
    assert_int_equal(mkdir(scratch_at("v000001"), 0777), 0);
    if (checkpoint_save(trainer, scratch_at("v000001"), &error) < 0)
        fail_msg("%s", error.text);
    return trainer;
}

static bool is_whole(const struct param *p)
{
    return !strncmp(p->name, "action_head.", 12) || !strncmp(p->name, "scale_head.", 11) || film_is(p);
}

/* Every parameter of one is the other's, to the bit. */
static void same(const struct openvla *a, const struct openvla *b, bool adapters)
{
    for (int i = 0; i < a->params.count; i++) {
        const struct param *p = a->params.list[i], *q = param_find(&b->params, p->name);

        if (p->adapter && !adapters)
            continue;
        if (!q || q->numel != p->numel || memcmp(p->value, q->value, (size_t)p->numel * sizeof(float)) != 0)
            fail_msg("%s is another", p->name);
    }
}

static void all_of_it_comes_back(void **state)
{
    struct trainer *trainer = trained();
    struct openvla *model = trainer->model, *base = NULL, *back = NULL;
    struct error error = {0};
    int moved = 0;

    (void)state;
    assert_int_equal(openvla_load(scratch_at("v000000"), &base, &error), 0);
    for (int i = 0; i < base->params.count; i++) {
        const struct param *p = base->params.list[i], *q = param_find(&model->params, p->name);
        bool rests = !memcmp(p->value, q->value, (size_t)p->numel * sizeof(float));

        if (!is_whole(p) && !rests)
            fail_msg("%s has moved", p->name);
        moved += is_whole(p) && !rests;
        assert_true(!film_is(q) || !q->lora.a);
    }
    assert_true(moved >= 8 + 2 * 4);            /* the L1 head's, FiLM's of the block that runs; L1 imitation knows no scale */
    if (openvla_load(scratch_at("v000001"), &back, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(model->params.numel, back->params.numel);
    same(model, back, true);
    assert_true(oft_trains_whole(back));
    openvla_free(back);
    openvla_free(base);
    trainer_free(trainer);
}

/* As policy.init: both in one directory, or added up. */
static void it_can_be_begun_with(void **state)
{
    struct trainer *trainer = trained();
    struct openvla *back = NULL;
    struct error error = {0};

    (void)state;
    for (int merge = 0; merge < 2; merge++) {
        const char *to = scratch_at(merge ? "merged" : "beside");

        assert_int_equal(mkdir(to, 0777), 0);
        if (openvla_start_write(scratch_at("v000001"), scratch_at("v000000"), merge, to, &error) < 0 ||
            openvla_load(to, &back, &error) < 0)
            fail_msg("%s", error.text);
        assert_int_equal(back->lora != NULL, !merge);
        for (int i = 0; i < back->params.count && merge; i++)
            if (is_whole(back->params.list[i]))
                assert_memory_equal(back->params.list[i]->value,
                                    param_find(&trainer->model->params, back->params.list[i]->name)->value,
                                    (size_t)back->params.list[i]->numel * sizeof(float));
        if (!merge)
            same(trainer->model, back, true);
        openvla_free(back);
    }
    trainer_free(trainer);
}

static void refused(const char *text)
{
    struct openvla *back = NULL;
    struct error error = {0};

    assert_int_equal(openvla_load(scratch_at("v000001"), &back, &error), -EINVAL);
    if (!strstr(error.text, text))
        fail_msg("said: %s", error.text);
}

/* A value head with one odd number, or of another type. */
static void put_value_head(int hidden, float odd, enum dtype dtype)
{
    static float zeros[8 * 64], fc2[8];
    const struct st_write list[] = {
        {.name = "value_head.fc1.weight", .dtype = DTYPE_F32, .ndim = 2, .dim = {8, hidden}, .values = zeros},
        {.name = "value_head.fc1.bias", .dtype = DTYPE_F32, .ndim = 1, .dim = {8}, .values = zeros},
        {.name = "value_head.fc2.weight", .dtype = dtype, .ndim = 2, .dim = {1, 8}, .raw = fc2},
        {.name = "value_head.fc2.bias", .dtype = DTYPE_F32, .ndim = 1, .dim = {1}, .values = zeros},
    };

    assert_true(hidden <= 64);
    fc2[3] = odd;
    assert_int_equal(safetensors_write(scratch_at("v000001/value_head.safetensors"), list, ARRAY_SIZE(list), NULL), 0);
}

static void what_cannot_be_a_value_head(void **state)
{
    struct trainer *trainer = trained();
    int hidden = trainer->model->config.hidden;

    (void)state;
    put_value_head(hidden, NAN, DTYPE_F32);
    refused("value_head.fc2.weight: value [0,3] is nan, expected finite numbers");
    put_value_head(hidden, 0, DTYPE_I32);
    refused("value_head.fc2.weight: I32 8 values, expected 8 of F32, F16 or BF16");
    trainer_free(trainer);
}

static void what_is_for_another_base(void **state)
{
    static const float values[64];
    struct trainer *trainer = trained();
    struct openvla *model = lab_model(1), *back = NULL;
    struct error error = {0};
    struct st_write one = {.name = "model.fc1.weight", .dtype = DTYPE_F32, .ndim = 2, .dim = {8, 8}, .values = values};
    struct st_write film[2] = {
        {.name = "base_model.model.vision_backbone.featurizer.blocks.0.scale.lora_A.weight", .dtype = DTYPE_F32, .ndim = 2,
         .dim = {2, 32}, .values = values},
        {.name = "base_model.model.vision_backbone.featurizer.blocks.0.scale.lora_B.weight", .dtype = DTYPE_F32, .ndim = 2,
         .dim = {16, 2}, .values = values},
    };

    (void)state;
    assert_int_equal(safetensors_write(scratch_at("v000001/action_head.safetensors"), &one, 1, &error), 0);
    refused("tensor model.layer_norm1.weight: missing");
    assert_int_equal(unlink(scratch_at("v000001/action_head.safetensors")), 0);

    /* adapters of FiLM, as it was trained here once */
    assert_int_equal(safetensors_write(scratch_at("v000001/adapter_model.safetensors"), film, 2, &error), 0);
    refused("is trained whole and takes no adapter");

    /* a base without heads: a plain OpenVLA */
    assert_int_equal(checkpoint_save(trainer, scratch_at("v000001"), &error), 0);
    assert_int_equal(remove_tree(scratch_at("v000000")), 0);
    assert_int_equal(mkdir(scratch_at("v000000"), 0777), 0);
    assert_int_equal(openvla_save(model, scratch_at("v000000"), "F32", &error), 0);
    assert_int_equal(atomic_file_write(scratch_at("v000000/manifest.json"), "{}", 2), 0);
    refused("has no such part: it is for another one");
    assert_null(back);
    openvla_free(model);
    trainer_free(trainer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(all_of_it_comes_back, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(it_can_be_begun_with, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(what_is_for_another_base, scratch_set_up, scratch_tear_down),
        cmocka_unit_test_setup_teardown(what_cannot_be_a_value_head, scratch_set_up, scratch_tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
