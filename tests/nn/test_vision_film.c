/* Vision towers modulated by the words (FiLM): numbers and gradients are torch's (tests/ref/make_film.py); computed twice they
 * are the same to the bit; the training script's file is read, adapters added; zeros change nothing; who shares a pass changes
 * nothing. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>
#include <cmocka.h>

#include "base/atomic_file.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_lora.h"
#include "nn/models/openvla_oft.h"
#include "nn/safetensors.h"
#include "tests/harness/scratch.h"

#define GOLDEN "tests/golden/film/"
enum { SIDE = 64, PIXELS = SIDE * SIDE * 3, CHUNK = 2, ITEMS = 2 };

/* make_film.py's `drawn` and `value`. */
static float drawn(const char *name, uint64_t i)
{
    uint32_t seed = 0, u;

    for (const char *c = name; *c; c++)
        seed += (unsigned char)*c;
    u = (uint32_t)(i * 2654435761u + (uint64_t)seed * 40503u);
    u = (uint32_t)((u ^ u >> 15) * 2246822519u);
    return (float)(((double)(u >> 8) / 16777216.0 - 0.5) * 0.4);
}

static void fill(const struct param *p)
{
    size_t n = strlen(p->name);
    bool norm = strstr(p->name, "norm") && n > 7 && !strcmp(p->name + n - 7, ".weight");

    for (int64_t i = 0; i < p->numel; i++)
        p->value[i] = drawn(p->name, (uint64_t)i) + (norm ? 1.0f : 0.0f);
}

static struct openvla *make(bool film)
{
    struct openvla *model = NULL;
    struct error error;

    if (openvla_new("tests/golden/nano", 1, &model, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(oft_add_film(model), -EINVAL);
    assert_int_equal(oft_add_action_head(model, CHUNK, 24, 1, 2), 0);
    if (film)
        assert_int_equal(oft_add_film(model), 0);
    return model;
}

static struct openvla *filled(void)
{
    struct openvla *model = make(true);

    assert_int_equal(oft_add_film(model), -EEXIST);
    for (int i = 0; i < model->params.count; i++)
        fill(model->params.list[i]);
    assert_int_equal(openvla_pack(model, true), 0);
    return model;
}

static struct {
    uint8_t pixels[2][PIXELS];
    struct openvla_item items[ITEMS];
    struct safetensors *golden;
} f;

static int setup(void **state)
{
    static const int32_t short_one[] = {1, 17, 300, 689}, long_one[] = {1, 42, 5, 6, 7, 689};
    struct error error;

    (void)state;
    for (unsigned i = 0; i < 2; i++)
        for (unsigned k = 0; k < PIXELS; k++)
            f.pixels[i][k] = (uint8_t)((k + i * 977) * 2654435761u >> 13);
    for (int i = 0; i < ITEMS; i++)
        f.items[i] = (struct openvla_item) {.images = {f.pixels[0], f.pixels[1]}, .n_images = 2,
                                            .prompt = i ? long_one : short_one, .n_prompt = i ? 6 : 4, .slots = CHUNK * 7};
    if (safetensors_open(GOLDEN "film.safetensors", &f.golden, &error) < 0)
        fail_msg("%s", error.text);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    f.golden = safetensors_close(f.golden);
    return 0;
}

static float worst_against(const char *name, const float *x, int64_t n)
{
    const struct st_tensor *want = safetensors_find(f.golden, name);
    float worst = 0, y;

    if (!want || want->numel != n)
        fail_msg("%s is not in the golden file with %lld values", name, (long long)n);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(st_read_f32(want, i, 1, &y), 0);
        worst = fmaxf(worst, fabsf(x[i] - y) / (1 + fabsf(y)));
    }
    return worst;
}

/* Forward and backward of sum(projector * w); grad like the arena. */
static void pass(const struct openvla *model, struct tape *tape, bool recompute, struct openvla_pass *ret, float *grad)
{
    float *w;

    tape_init(tape, grad != NULL);
    tape->recompute = recompute;
    tape->param_grad = grad;
    assert_int_equal(tape_reserve(tape, (size_t)256 << 20), 0);
    assert_int_equal(openvla_forward(model, tape, f.items, ITEMS, ret), 0);
    if (!grad)
        return;
    w = malloc((size_t)(ret->projector->rows * ret->projector->cols) * sizeof(*w));
    for (int64_t i = 0; i < ret->projector->rows * ret->projector->cols; i++)
        w[i] = drawn("w", (uint64_t)i);
    assert_int_equal(tape_set_gradient(tape, ret->projector, w), 0);
    tape_backward(tape);
    assert_int_equal(tape->error, 0);
    free(w);
}

static void test_torch(void **state)
{
    struct openvla *model = filled();
    _cleanup_free_ float *grad = calloc((size_t)model->params.numel, sizeof(*grad)),
        *twice = calloc((size_t)model->params.numel, sizeof(*twice));
    const struct st_tensor *ids = safetensors_find(f.golden, "ids");
    const struct param *embedding = model->w->embedding;
    struct openvla_pass ret;
    struct tape tape;
    int compared = 0;

    (void)state;
    pass(model, &tape, false, &ret, grad);
    assert_true(worst_against("dino", ret.dino->x, ret.dino->rows * ret.dino->cols) < 1e-5f);
    assert_true(worst_against("siglip", ret.siglip->x, ret.siglip->rows * ret.siglip->cols) < 1e-5f);
    assert_true(worst_against("projector", ret.projector->x, ret.projector->rows * ret.projector->cols) < 1e-5f);
    for (int i = 0; i < model->params.count; i++) {
        const struct param *p = model->params.list[i];
        char name[256];

        snprintf(name, sizeof(name), "gradient.%s", p->name);
        if (!safetensors_find(f.golden, name))
            continue;
        assert_true(worst_against(name, grad + p->offset, p->numel) < 2e-5f);
        compared++;
    }
    assert_int_equal(compared, 2 * (4 + 1));
    for (int64_t i = 0; i < ids->numel; i++) {
        const struct st_tensor *want = safetensors_find(f.golden, "gradient.embedding");
        float id, row[64];

        assert_int_equal(st_read_f32(ids, i, 1, &id), 0);
        assert_int_equal(st_read_f32(want, i * embedding->dim[1], embedding->dim[1], row), 0);
        for (int64_t k = 0; k < embedding->dim[1]; k++)
            assert_true(fabsf(row[k] - grad[embedding->offset + (int64_t)id * embedding->dim[1] + k]) < 1e-5f);
    }
    tape_release(&tape);

    pass(model, &tape, true, &ret, twice);
    assert_memory_equal(grad, twice, (size_t)model->params.numel * sizeof(*grad));
    tape_release(&tape);
    openvla_free(model);
}

/* Adapters that say nothing yet change nothing: scale and shift have torch's gradients and learn as they are, the towers rest. */
static void test_whole_beside_adapters(void **state)
{
    struct openvla *model = filled();
    _cleanup_free_ float *grad = NULL;
    struct openvla_pass ret;
    struct error error;
    struct tape tape;
    int compared = 0;

    (void)state;
    assert_int_equal(openvla_lora_new(model, &(struct lora_spec) {.r = 2, .alpha = 4, .targets = "all-linear"}, 5, &error), 0);
    assert_int_equal(openvla_pack(model, true), 0);
    grad = calloc((size_t)model->params.numel, sizeof(*grad));
    pass(model, &tape, false, &ret, grad);
    assert_true(worst_against("projector", ret.projector->x, ret.projector->rows * ret.projector->cols) < 1e-5f);
    for (int i = 0; i < model->params.count; i++) {
        const struct param *p = model->params.list[i];
        char name[256];

        snprintf(name, sizeof(name), "gradient.%s", p->name);
        if (film_is(p)) {
            assert_true(!p->lora.a && p->frozen == (strstr(p->name, "blocks.1.") != NULL));      /* the last block never runs */
            compared += safetensors_find(f.golden, name) && worst_against(name, grad + p->offset, p->numel) < 2e-5f;
        } else if (!p->adapter && !strncmp(p->name, "vision_backbone.", 16)) {
            assert_true(p->frozen);
        }
    }
    assert_int_equal(compared, 2 * 4);
    tape_release(&tape);
    openvla_free(model);
}

/* The loss at one value of one parameter. */
static double loss_at(struct openvla *model, struct param *p, int64_t k, float x)
{
    float was = p->value[k];
    struct openvla_pass ret;
    struct tape tape;
    double sum = 0;

    p->value[k] = x;
    param_changed(p);
    assert_int_equal(openvla_pack(model, true), 0);
    pass(model, &tape, false, &ret, NULL);
    for (int64_t i = 0; i < ret.projector->rows * ret.projector->cols; i++)
        sum += (double)ret.projector->x[i] * (double)drawn("w", (uint64_t)i);
    tape_release(&tape);
    p->value[k] = was;
    return sum;
}

static void test_finite_differences(void **state)
{
    static const char *const names[] = {
        "vision_backbone.featurizer.blocks.0.scale.weight", "vision_backbone.featurizer.blocks.0.shift.bias",
        "vision_backbone.fused_featurizer.blocks.0.shift.weight", "language_model.model.embed_tokens.weight",
    };
    struct openvla *model = filled();
    _cleanup_free_ float *grad = calloc((size_t)model->params.numel, sizeof(*grad));
    struct openvla_pass ret;
    struct tape tape;

    (void)state;
    pass(model, &tape, false, &ret, grad);
    tape_release(&tape);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct param *p = param_find(&model->params, names[i]);
        int64_t k = i == 3 ? 17 * p->dim[1] + 3 : p->numel / 3;
        float step = 0.02f;
        double slope = (loss_at(model, p, k, p->value[k] + step) - loss_at(model, p, k, p->value[k] - step)) / (2 * (double)step);

        assert_true(fabs(slope - (double)grad[p->offset + k]) < 2e-3 * (1 + fabs(slope)));
        assert_true(fabs(slope) > 1e-4);
    }
    openvla_free(model);
}

/* What the training script leaves takes the place of the towers. */
static void test_script_file(void **state)
{
    struct openvla *model = make(false), *expected = filled(), *back = NULL;
    char dir[SCRATCH_PATH], path[256];
    struct error error = {0};

    (void)state;
    scratch_new(dir);
    assert_int_equal(openvla_save(model, dir, "F32", &error), 0);
    snprintf(path, sizeof(path), "%s/vision_backbone--30_checkpoint.pt", dir);
    assert_int_equal(file_copy(GOLDEN "vision_backbone--30_checkpoint.pt", path), 0);
    if (openvla_load(dir, &back, &error) < 0)
        fail_msg("%s", error.text);
    assert_true(back->config.oft.film);
    for (int i = 0; i < back->params.count; i++) {
        const struct param *p = back->params.list[i], *q = param_find(&expected->params, p->name);

        if (strncmp(p->name, "vision_backbone.", 16) != 0)
            continue;
        for (int64_t k = 0; k < p->numel; k++)
            if (!(fabsf(p->value[k] - q->value[k]) < 1e-6f))
                fail_msg("%s[%lld] is %g, expected %g", p->name, (long long)k, (double)p->value[k], (double)q->value[k]);
    }
    assert_int_equal(remove_tree(dir), 0);

    /* ours: scale and shift beside, the towers in the checkpoint */
    assert_int_equal(mkdir_p(dir, 0755), 0);
    assert_int_equal(openvla_save(back, dir, NULL, &error), 0);
    openvla_free(model);
    if (openvla_load(dir, &model, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(model->params.numel, back->params.numel);
    for (int i = 0; i < back->params.count; i++) {
        const struct param *p = back->params.list[i];

        assert_memory_equal(p->value, param_find(&model->params, p->name)->value, (size_t)p->numel * sizeof(float));
    }
    openvla_free(back);

    /* below adapters the towers rest, scale and shift learn as they are */
    assert_int_equal(openvla_lora_new(model, &(struct lora_spec) {.r = 2, .alpha = 2, .targets = "all-linear"}, 1, &error), 0);
    assert_null(param_find(&model->params, "vision_backbone.featurizer.blocks.0.scale.weight")->lora.a);
    openvla_free(model);
    openvla_free(expected);
    assert_int_equal(remove_tree(dir), 0);
}

static void refuse(const char *dir, const char *line)
{
    struct openvla *model = NULL;
    struct error error = {0};

    assert_true(openvla_load(dir, &model, &error) < 0);
    if (!strstr(error.text, line))
        fail_msg("said: %s", error.text);
}

static void test_refusals(void **state)
{
    static const float zeros[16], not_finite[16] = {NAN};
    struct openvla *model = make(true);
    const struct param *p;
    char dir[SCRATCH_PATH], path[256];
    struct st_write list[64];
    struct error error = {0};
    int n = 0;

    (void)state;
    scratch_new(dir);
    assert_int_equal(openvla_save(model, dir, "F32", &error), 0);
    for (int i = 0; i < model->params.count; i++) {
        p = model->params.list[i];
        if (!film_is(p))
            continue;
        list[n] = (struct st_write) {.name = p->name, .dtype = DTYPE_F32, .ndim = p->ndim, .values = p->value};
        memcpy(list[n++].dim, p->dim, sizeof(p->dim));
    }
    snprintf(path, sizeof(path), "%s/vision_backbone.safetensors", dir);
    assert_int_equal(safetensors_write(path, list, n - 1, &error), 0);
    refuse(dir, "shift.bias: missing, expected 16");
    list[0].dim[0] = 15;
    assert_int_equal(safetensors_write(path, list, n, &error), 0);
    refuse(dir, "scale.weight: another shape or dtype, expected 16x32");
    list[0].dim[0] = 16;
    list[1].values = not_finite;
    assert_int_equal(safetensors_write(path, list, n, &error), 0);
    refuse(dir, "scale.bias: a value is not finite");
    list[1].values = zeros;
    list[n] = (struct st_write) {.name = "vision_backbone.featurizer.blocks.0.block.norm1.bias", .dtype = DTYPE_F32, .ndim = 1,
                                 .dim = {16}, .values = zeros};
    assert_int_equal(safetensors_write(path, list, n + 1, &error), 0);
    refuse(dir, "holds a part of the vision towers, but not vision_backbone.featurizer.cls_token");
    assert_int_equal(safetensors_write(path, list, n, &error), 0);
    snprintf(path, sizeof(path), "%s/action_head.safetensors", dir);
    assert_int_equal(remove_tree(path), 0);
    refuse(dir, "no action_head beside them: the kind is unknown");
    assert_int_equal(remove_tree(dir), 0);
    openvla_free(model);
}

/* Zeros modulate nothing; a picture that two items show is seen with each one's own words. */
static void test_company(void **state)
{
    struct openvla *plain = make(false), *zero = make(true), *film = filled();
    struct openvla *const models[] = {plain, zero};
    struct openvla_pass ret[2], alone;
    struct tape tape[2], other;
    int64_t per_item;

    (void)state;
    for (int i = 0; i < 2; i++) {
        assert_int_equal(openvla_pack(models[i], false), 0);
        pass(models[i], &tape[i], false, &ret[i], NULL);
    }
    assert_int_equal(ret[0].projector->rows * 2, ret[1].projector->rows);       /* each picture once, or once for each
                                                                                 * instruction */
    assert_memory_equal(ret[0].hidden->x, ret[1].hidden->x, (size_t)(ret[0].hidden->rows * ret[0].hidden->cols) * sizeof(float));
    tape_release(&tape[0]);
    tape_release(&tape[1]);

    pass(film, &tape[0], false, &ret[0], NULL);
    per_item = ret[0].projector->rows / ITEMS * ret[0].projector->cols;
    for (int i = 0; i < ITEMS; i++) {
        tape_init(&other, false);
        assert_int_equal(tape_reserve(&other, (size_t)256 << 20), 0);
        assert_int_equal(openvla_forward(film, &other, &f.items[i], 1, &alone), 0);
        assert_memory_equal(alone.projector->x, ret[0].projector->x + i * per_item, (size_t)per_item * sizeof(float));
        assert_memory_equal(alone.hidden->x, ret[0].hidden->x + ret[0].spans.start[i] * ret[0].hidden->cols,
                            (size_t)(alone.hidden->rows * alone.hidden->cols) * sizeof(float));
        tape_release(&other);
    }
    tape_release(&tape[0]);
    openvla_free(plain);
    openvla_free(zero);
    openvla_free(film);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_torch), cmocka_unit_test(test_whole_beside_adapters), cmocka_unit_test(test_finite_differences),
        cmocka_unit_test(test_script_file), cmocka_unit_test(test_refusals), cmocka_unit_test(test_company),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
