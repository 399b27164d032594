#include "tests/harness/oft_lab.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/philox.h"

enum { MOST_HIDDEN = 64 };

int oft_lab_cameras = 1, oft_lab_numbers = 0;
float oft_lab_states[(OFT_LAB_MAX_STEPS + 1) * OFT_LAB_STATE];

struct openvla *oft_lab_model(enum oft_kind kind)
{
    struct openvla *model = NULL;
    struct error error = {0};

    if (openvla_new("tests/golden/nano", 3, &model, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(oft_add_action_head(model, OFT_LAB_CHUNK, 24, 1, 2), 0);
    assert_int_equal(oft_add_scale_head(model, 8, -1.0f, 4), 0);
    assert_int_equal(openvla_add_value_head(model, 16, 1, 5), 0);
    model->config.oft.kind = kind;
    model->config.oft.images = oft_lab_cameras;
    if (oft_lab_numbers) {
        assert_int_equal(oft_add_state(model, oft_lab_numbers, 6), 0);
        model->stats[0].proprio = oft_lab_numbers;
        for (int i = 0; i < oft_lab_numbers; i++) {
            model->stats[0].proprio_low[i] = -1.5 - i;
            model->stats[0].proprio_high[i] = 2;
        }
    }
    return model;
}

uint8_t *oft_lab_pictures(uint64_t seed, int n)
{
    struct philox random = philox_at(seed, PHILOX_TEST, 1, 0, 0);
    uint8_t *frames = malloc((size_t)n * OFT_LAB_FRAME);

    assert_non_null(frames);
    for (int i = 0; i < n * OFT_LAB_FRAME; i++)
        frames[i] = (uint8_t)(i % 64 ? frames[i - 1] : philox_u32(&random));
    return frames;
}

struct episode_input oft_lab_episode(uint64_t id, int steps)
{
    return (struct episode_input){
        .id = id,
        .task = "open_drawer",
        .instruction = "open the drawer",
        .state_seed = id,
        .steps = steps,
        .max_steps = OFT_LAB_MAX_STEPS,
        .success = id % 2,
        .policy_version = 3,
        .temperature = 1,
        .height = OFT_LAB_SIDE,
        .width = OFT_LAB_SIDE,
        .action_dims = OFT_LAB_DIMS,
        .images = oft_lab_cameras,
        .state = oft_lab_numbers ? oft_lab_states : NULL,
        .n_state = (size_t)((steps + 1) * oft_lab_numbers),
        .frames = oft_lab_pictures(id, (steps + 1) * oft_lab_cameras),
        .n_frames = (size_t)((steps + 1) * oft_lab_cameras) * OFT_LAB_FRAME,
    };
}

const float *oft_lab_normalised(const struct openvla *model, const float *state)
{
    static float ret[OFT_LAB_STATE];
    double from[OFT_LAB_STATE], to[OFT_LAB_STATE];

    for (int i = 0; i < oft_lab_numbers; i++)
        from[i] = (double)state[i];
    oft_normalise_state(openvla_stats(model, NULL), from, to);
    for (int i = 0; i < oft_lab_numbers; i++)
        ret[i] = (float)to[i];
    return ret;
}

/* Chunks of the policy, executed as far as the episode goes. */
void oft_lab_add_rollout(struct dataset *data, const struct openvla *model, uint64_t id, int steps)
{
    struct episode_input in = oft_lab_episode(id, steps);
    struct openvla_session *session = NULL;
    uint32_t tokens[OFT_LAB_MAX_STEPS * OFT_LAB_DIMS], turns[OFT_LAB_MAX_STEPS];
    float logp[OFT_LAB_MAX_STEPS * OFT_LAB_DIMS], hidden[OFT_LAB_MAX_STEPS * MOST_HIDDEN];
    struct error error = {0};
    size_t width = (size_t)model->config.hidden;
    int32_t *prompt;
    int n_prompt;

    assert_true(width <= MOST_HIDDEN);
    assert_int_equal(openvla_session_new(&model->config, 1, &session), 0);
    assert_int_equal(openvla_prompt(model, in.instruction, &prompt, &n_prompt), 0);
    for (int t = 0; t < steps; t += OFT_LAB_CHUNK) {
        const uint8_t *seen = in.frames + t * oft_lab_cameras * OFT_LAB_FRAME;
        struct oft_item item = {.images = {seen, seen + OFT_LAB_FRAME},
                                .n_images = oft_lab_cameras,
                                .proprio = oft_lab_numbers ? oft_lab_normalised(model, oft_lab_states + t * oft_lab_numbers)
                                                           : NULL,
                                .prompt = prompt,
                                .n_prompt = n_prompt,
                                .temperature = 1,
                                .seed = 5,
                                .episode = id,
                                .step = (uint32_t)t};
        size_t n = (size_t)MIN(OFT_LAB_CHUNK, steps - t) * OFT_LAB_DIMS;
        struct oft_result result;

        assert_int_equal(oft_act(model, session, &item, 1, &result), 0);
        memcpy(tokens + t * OFT_LAB_DIMS, result.tokens, n * sizeof *tokens);
        memcpy(logp + t * OFT_LAB_DIMS, result.logp, n * sizeof *logp);
        memcpy(hidden + in.n_turns * width, openvla_act_hidden(session, 0), width * sizeof *hidden);
        turns[in.n_turns++] = (uint32_t)t;
    }
    free(prompt);
    openvla_session_free(session);
    in.tokens = tokens;
    in.logp = logp;
    in.turns = turns;
    in.hidden = hidden;
    in.n_hidden = in.n_turns * width;
    in.n_tokens = in.n_logp = (size_t)(steps * OFT_LAB_DIMS);
    if (dataset_add(data, &in, &error) < 0)
        fail_msg("%s", error.text);
}

struct dataset *oft_lab_rollouts(const struct openvla *model)
{
    struct dataset *data = NULL;

    assert_int_equal(dataset_new(model, &data), 0);
    for (int i = 1; i <= 6; i++)
        oft_lab_add_rollout(data, model, (uint64_t)i, 3 + i % 5); /* 4 to 7 steps: whole and broken chunks */
    dataset_sort(data);
    return data;
}

struct dataset *oft_lab_demonstrations(const struct openvla *model)
{
    struct dataset *data = NULL;
    struct error error = {0};
    float label[4 * OFT_LAB_DIMS];

    assert_int_equal(dataset_new(model, &data), 0);
    for (int i = 0; i < 4 * OFT_LAB_DIMS; i++)
        label[i] = sinf((float)i);
    for (uint64_t id = 1; id <= 2; id++) {
        struct episode_input in = oft_lab_episode(id, 4);

        in.demo = true;
        in.label = label;
        in.n_label = 4 * OFT_LAB_DIMS;
        if (dataset_add(data, &in, &error) < 0)
            fail_msg("%s", error.text);
    }
    dataset_sort(data);
    return data;
}

int oft_lab_two_cameras_and_state(void **state)
{
    (void)state;
    oft_lab_cameras = 2;
    oft_lab_numbers = OFT_LAB_STATE;
    for (int i = 0; i < (OFT_LAB_MAX_STEPS + 1) * OFT_LAB_STATE; i++)
        oft_lab_states[i] = sinf(.7f * (float)i) * 2;
    return 0;
}

int oft_lab_one_camera(void **state)
{
    (void)state;
    oft_lab_cameras = 1;
    oft_lab_numbers = 0;
    return 0;
}
