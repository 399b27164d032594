/* A directory that is written is the model that was; a copy is its own; a seed makes the weights; what is damaged is named. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "nn/lora_join.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_lora.h"
#include "nn/safetensors.h"
#include "tests/harness/scratch.h"
#include "tests/harness/spec_policy.h"

static struct openvla *trained;                 /* with both heads, whose last layers speak */

static int setup(void **state)
{
    (void)state;
    trained = spec_policy_with_heads();
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    trained = openvla_free(trained);
    return 0;
}

static void same_values(const struct openvla *a, const struct openvla *b, bool bf16)
{
    assert_int_equal(a->params.count, b->params.count);
    for (int i = 0; i < a->params.count; i++) {
        const struct param *p = a->params.list[i], *q = param_find(&b->params, p->name);

        assert_non_null(q);
        assert_int_equal(p->numel, q->numel);
        assert_int_equal(p->frozen, q->frozen);
        for (int64_t k = 0; k < p->numel; k++) {
            bool head = strstr(p->name, "_head.fc") != NULL;

            if (bf16 && !head)
                assert_int_equal(float_to_bf16(p->value[k]), float_to_bf16(q->value[k]));
            else
                assert_true(p->value[k] == q->value[k]);
        }
    }
}

static void test_save_and_load(void **state)
{
    static const char *const dtypes[] = {"F32", "BF16"};
    char dir[SCRATCH_PATH];
    struct error error = {0};

    (void)state;
    scratch_new(dir);
    for (int i = 0; i < 2; i++) {
        struct openvla *back = NULL;
        char path[64];

        snprintf(path, sizeof(path), "%s/%s", dir, dtypes[i]);
        assert_int_equal(mkdir_p(path, 0755), 0);
        if (openvla_save(trained, path, dtypes[i], &error) < 0 || openvla_load(path, &back, &error) < 0)
            fail_msg("%s", error.text);
        same_values(trained, back, i == 1);
        assert_int_equal(back->config.value_width, 32);
        assert_int_equal(back->config.reward_width, 32);
        assert_memory_equal(&back->config, &trained->config, sizeof(back->config));
        openvla_free(back);
    }
    assert_true(openvla_save(trained, dir, "I8", &error) < 0);
    remove_tree(dir);
}

static void test_shards(void **state)
{
    char dir[SCRATCH_PATH], path[96];
    struct openvla *back = NULL;
    struct error error = {0};

    (void)state;
    scratch_new(dir);
    if (openvla_save_sharded(trained, dir, "F32", 2 << 20, &error) < 0 || openvla_load(dir, &back, &error) < 0)
        fail_msg("%s", error.text);
    same_values(trained, back, false);
    openvla_free(back);
    snprintf(path, sizeof(path), "%s/model-00002-of-00003.safetensors", dir);
    assert_int_equal(unlink(path), 0);              /* a shard the index names is missing: said by name */
    assert_int_equal(openvla_load(dir, &back, &error), -ENOENT);
    assert_non_null(strstr(error.text, "model-00002-of-00003.safetensors"));
    remove_tree(dir);
}

static void test_clone_is_its_own(void **state)
{
    struct openvla *copy = NULL;
    float before = trained->params.values[0];

    (void)state;
    assert_int_equal(openvla_clone(trained, &copy), 0);
    same_values(trained, copy, false);
    copy->params.values[0] += 1;
    assert_true(trained->params.values[0] == before);
    for (int i = 0; i < copy->params.count; i++)
        assert_ptr_not_equal(copy->params.list[i], trained->params.list[i]);
    assert_int_equal(openvla_add_value_head(copy, 8, 0, 1), -EEXIST);
    openvla_free(copy);
}

/* With adapters, too: the A matrices that it joins for serving are its own, and it outlives the original. */
static void test_clone_joins_its_own(void **state)
{
    struct openvla *model = spec_policy(5), *copy = NULL;
    struct error error = {0};

    (void)state;
    if (openvla_lora_new(model, &(struct lora_spec) {.r = 2, .alpha = 2, .targets = "q_proj, k_proj, v_proj"}, 1, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(openvla_clone(model, &copy), 0);
    assert_int_equal(model->params.n_joins, model->config.layers);
    openvla_free(model);
    assert_int_equal(copy->params.n_joins, copy->config.layers);
    assert_int_equal(openvla_pack(copy, false), 0);
    for (int i = 0; i < copy->params.n_joins; i++)
        assert_ptr_equal(lora_join_of(copy->params.joins[i]->weight, copy->params.joins[i]->n, false), copy->params.joins[i]);
    openvla_free(copy);
}

static void test_seed_makes_the_weights(void **state)
{
    struct openvla *a = spec_policy(5), *b = spec_policy(5), *c = spec_policy(6);

    (void)state;
    same_values(a, b, false);
    assert_memory_not_equal(a->params.values, c->params.values, (size_t)a->params.numel * sizeof(float));
    assert_int_equal(openvla_add_value_head(a, 16, 2, 1), 0);       /* what was there stays as it is */
    for (int i = 0; i < b->params.count; i++)
        assert_memory_equal(a->params.list[i]->value, b->params.list[i]->value, (size_t)b->params.list[i]->numel * sizeof(float));
    assert_int_equal(a->params.list[b->params.count]->dim[1], 128 + 2);
    openvla_free(a);
    openvla_free(b);
    openvla_free(c);
}

/* Write the tensors of `dir`/model.safetensors again without, or with a wrong shape of, one. */
static void damage(const char *dir, const char *name, bool drop)
{
    _cleanup_free_ struct st_write *list = NULL;
    struct safetensors *file = NULL;
    char path[96], out[96];
    int n = 0;

    snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    snprintf(out, sizeof(out), "%s/new", dir);
    assert_int_equal(safetensors_open(path, &file, NULL), 0);
    list = calloc((size_t)file->count, sizeof(*list));
    for (int i = 0; i < file->count; i++) {
        const struct st_tensor *t = &file->list[i];
        bool hit = !strcmp(t->name, name);

        if (hit && drop)
            continue;
        list[n] = (struct st_write) {.name = t->name, .dtype = t->dtype, .ndim = t->ndim, .raw = t->data};
        memcpy(list[n].dim, t->dim, sizeof(t->dim));
        if (hit) {
            list[n].dim[0] /= 2;
            list[n].dim[1] *= 2;
        }
        n++;
    }
    assert_int_equal(safetensors_write(out, list, n, NULL), 0);
    safetensors_close(file);
    assert_int_equal(rename(out, path), 0);
}

static void test_damage_is_named(void **state)
{
    static const char name[] = "language_model.model.layers.2.mlp.up_proj.weight";
    char dir[SCRATCH_PATH];

    (void)state;
    scratch_new(dir);
    for (int drop = 0; drop < 2; drop++) {
        struct openvla *back = NULL;
        struct error error = {0};

        if (openvla_save(trained, dir, "BF16", &error) < 0)
            fail_msg("%s", error.text);
        damage(dir, name, drop);
        assert_true(openvla_load(dir, &back, &error) < 0);
        assert_null(back);
        assert_non_null(strstr(error.text, name));
        assert_non_null(strstr(error.text, drop ? "missing" : "expected [336,128]"));
    }
    remove_tree(dir);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_save_and_load),
        cmocka_unit_test(test_shards),
        cmocka_unit_test(test_clone_is_its_own),
        cmocka_unit_test(test_clone_joins_its_own),
        cmocka_unit_test(test_seed_makes_the_weights),
        cmocka_unit_test(test_damage_is_named),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
