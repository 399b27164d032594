/* test_dataset.c - what training takes of what was played, and what it refuses, by the episode's name. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/harness/train_lab.h"

/* Which support tokens are over is a matter of those who drew them: demonstrations before, between and behind say nothing of it. */
static void demonstrations_have_no_support(void **state)
{
    struct openvla *model = lab_model(1);
    struct dataset *data = NULL;
    float logp[LAB_DIMS], label[LAB_DIMS] = {0};
    uint32_t tokens[LAB_DIMS];
    struct error error = {0};
    const struct { bool demo, full; int result; } list[] = {
        {true, false, 0}, {false, true, 0}, {true, false, 0}, {false, true, 0}, {false, false, -EINVAL}, {true, false, 0},
    };

    (void)state;
    assert_int_equal(dataset_new(model, &data), 0);
    for (int i = 0; i < LAB_DIMS; i++) {
        tokens[i] = (uint32_t)model->config.vocab - 1;
        logp[i] = -1;
    }
    for (size_t i = 0; i < ARRAY_SIZE(list); i++) {
        struct episode_input in = {.id = i + 1, .task = "t", .instruction = "i", .steps = 1, .max_steps = 8, .temperature = 1,
                                   .height = LAB_SIDE, .width = LAB_SIDE, .action_dims = LAB_DIMS, .images = 1,
                                   .frames = lab_noise_frames(1, 2), .n_frames = 2 * LAB_FRAME, .demo = list[i].demo,
                                   .full = list[i].full};

        if (in.demo) {
            in.label = label;
            in.n_label = LAB_DIMS;
        } else {
            in.tokens = tokens;
            in.logp = logp;
            in.n_tokens = in.n_logp = LAB_DIMS;
        }
        assert_int_equal(dataset_add(data, &in, &error), list[i].result);
        if (list[i].result < 0)
            free(in.frames);
    }
    assert_true(data->full);
    dataset_free(data);
    openvla_free(model);
}

static void bad_episodes_are_refused_by_name(void **state)
{
    struct openvla *model = lab_model(1);
    struct dataset *data = NULL;
    uint8_t *frames = lab_noise_frames(1, 3);
    float logp[2 * LAB_DIMS], progress[3] = {.1f, NAN, .2f};
    uint32_t tokens[2 * LAB_DIMS];
    struct error error = {0};
    struct episode_input in = {.id = 42, .task = "t", .instruction = "i", .steps = 2, .max_steps = 8, .temperature = 1,
                               .height = LAB_SIDE, .width = LAB_SIDE,
                               .action_dims = LAB_DIMS, .frames = frames, .n_frames = 3 * LAB_FRAME, .images = 1,
                               .tokens = tokens, .n_tokens = 2 * LAB_DIMS, .logp = logp, .n_logp = 2 * LAB_DIMS};
    struct episode_input bad;

    (void)state;
    assert_int_equal(dataset_new(model, &data), 0);
    for (int i = 0; i < 2 * LAB_DIMS; i++) {
        tokens[i] = (uint32_t)model->config.vocab - 1;
        logp[i] = -1;
    }
#define REFUSED(change)                                                     \
    do {                                                                    \
        bad = in;                                                           \
        change;                                                             \
        error = (struct error) {0};                                         \
        assert_int_equal(dataset_add(data, &bad, &error), -EINVAL);         \
        assert_non_null(strstr(error.text, "42"));                          \
    } while (0)
    REFUSED(bad.n_frames -= LAB_FRAME);
    REFUSED((bad.progress = progress, bad.n_progress = 3));
    REFUSED(bad.height = 32);
    REFUSED(bad.images = 2);     /* so many pictures are not there */
    REFUSED(bad.images = 0);
    snprintf(model->config.image_chain, sizeof model->config.image_chain, "render");
    REFUSED(bad.image_chain = "rot180+jpeg95+lanczos3");
    REFUSED(bad.steps = 0);
    REFUSED(bad.n_logp--);
    REFUSED(bad.temperature = -1);
    REFUSED(bad.temperature = NAN);
    tokens[3] = 5;
    REFUSED((void)0);
    tokens[3] = (uint32_t)model->config.vocab - 1;
    logp[2] = NAN;
    REFUSED((void)0);
    logp[2] = -1;
    assert_int_equal(dataset_add(data, &in, &error), 0);
    assert_int_equal(data->n, 1);
    dataset_free(data);
    openvla_free(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(demonstrations_have_no_support),
        cmocka_unit_test(bad_episodes_are_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
