/* The device that counts (tests/harness/count_device.h) knows every kernel, counts what is put on it and what a graph has in it,
 * and shows what passes promise: a step is replayed by one launch, and several shards in a pass take that much fewer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "nn/models/openvla_session.h"
#include "tests/emulate/emulate.h"
#include "tests/harness/count_device.h"
#include "tests/harness/train_lab.h"

static struct device *device;

static int setup(void **state)
{
    (void)state;
    return device_wrap(count_kernels(), 0, &device, NULL);
}

static int teardown(void **state)
{
    (void)state;
    device = device_unref(device);
    return 0;
}

static void test_it_knows_every_kernel(void **state)
{
    const void *const *has = (const void *const *)(const void *)count_kernels(),
    *const *real = (const void *const *)(const void *)emulated_kernels();

    (void)state;
    for (size_t i = 0; i < sizeof(struct device_kernels) / sizeof(void *); i++)
        if (real[i] && !has[i])
            fail_msg("entry %zu of struct device_kernels is not counted", i);
}

static void test_a_product_is_counted(void **state)
{
    struct device_gemm g = {.m = 100, .n = 200, .k = 300, .batch = 2, .a_type = DEVICE_BF16, .b_type = DEVICE_BF16,
                            .c_type = DEVICE_BF16, .add = true};
    struct counts c;

    (void)state;
    count_clear();
    assert_int_equal(device->k->gemm(NULL, &g), 0);     /* both of the same A */
    c = count_read();
    assert_int_equal(c.kind[COUNT_product].launches, 1);
    assert_int_equal((int64_t)c.total.flops, 2 * 2 * 100 * 200 * 300);
    assert_int_equal((int64_t)c.total.bytes, 2 * (100 * 300 + 2 * 200 * 300 + 2 * 2 * 100 * 200));
}

/* The first steps run as ever, then one is recorded; from then on the host puts a launch and a download on the stream, and the
 * device does the same work. */
static void test_a_step_is_one_launch(void **state)
{
    struct openvla *model = lab_model(1);
    uint8_t *frames = lab_noise_frames(3, 1);
    struct openvla_session *session = NULL;
    struct act_item item = {.images = {frames}, .n_images = 1, .temperature = 1};
    struct act_pass pass;
    int32_t *prompt, token = 5;
    struct counts first = {0}, last = {0};

    (void)state;
    assert_int_equal(openvla_prompt(model, "open the drawer", &prompt, &item.n_prompt), 0);
    item.prompt = prompt;
    params_use_device(&model->params, device, false);
    assert_int_equal(openvla_pack(model, false), 0);
    assert_int_equal(openvla_session_new(&model->config, 1, &session), 0);
    assert_int_equal(openvla_prefill(model, session, &item, 1, true, &pass), 0);
    for (int step = 1; step < model->config.action_dims; step++) {
        count_clear();
        assert_int_equal(openvla_step(model, session, &token, true, &pass), 0);
        assert_non_null(tape_values(&session->tape, pass.logits));
        first = step == 1 ? count_read() : first;
        last = count_read();
    }
    assert_true(first.issued > 20 && first.issued >= first.total.launches);
    assert_int_equal(last.issued, 2);
    assert_int_equal(last.total.launches, first.total.launches);
    openvla_session_free(session);
    openvla_free(model);
    free(frames);
    free(prompt);
}

static unsigned long long update_launches(int together)
{
    static const struct sft_config sft = {.steps = 1, .batch = 2 * SHARDS, .lr = 1e-3, .clip = 1, .beta2 = .95, .lr_end = 1};
    struct trainer *t = NULL;
    struct sft_result result;
    struct dataset *data;
    struct error error = {0};

    device_set_process(device);
    assert_int_equal(trainer_new(lab_model(1), 1, NULL, &t), 0);
    device_set_process(NULL);
    device->strict = false;
    shards_together(t->shards, together);
    data = lab_demonstrations(t->model, 4);
    count_clear();
    if (objective_sft(t, data, &sft, &(struct objective) {.seed = 1}, &result, &error) < 0)
        fail_msg("%s", error.text);
    dataset_free(data);
    trainer_free(t);
    return count_read().total.launches;
}

static void test_shards_together_take_fewer_launches(void **state)
{
    unsigned long long apart = update_launches(1), pairs = update_launches(2), all = update_launches(SHARDS);

    (void)state;
    assert_true(2 * pairs < apart + apart / 10 && SHARDS * all < apart + apart / 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_it_knows_every_kernel),
        cmocka_unit_test(test_a_product_is_counted),
        cmocka_unit_test(test_a_step_is_one_launch),
        cmocka_unit_test(test_shards_together_take_fewer_launches),
    };

    return cmocka_run_group_tests(tests, setup, teardown);
}
