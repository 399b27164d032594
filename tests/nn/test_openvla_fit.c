/* What a published checkpoint leaves open is settled in the run's copy; what the suite takes and what the policy says are the
 * same action, there and back. */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/atomic_file.h"
#include "image/tf_image.h"
#include "nn/models/openvla_fit.h"
#include "nn/models/openvla_internal.h"
#include "nn/models/openvla_oft.h"
#include "tests/harness/scratch.h"
#include "train/sample.h"

enum { DIMS = 7, SIDE = 64 };

#define ONE(low, high)                                                             \
    "{\"action\": {\"q01\": [-0.63, -0.77, -0.76, -0.1, -0.15, -0.27, " #low "], " \
    "\"q99\": [0.77, 0.85, 0.9375, 0.14, 0.16, 0.32, " #high "], \"mask\": [true, true, true, true, true, true, false]}}"

static char dir[SCRATCH_PATH];

static void put(const char *name, const char *text)
{
    char path[128];

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    assert_int_equal(file_write(path, text, strlen(text)), 0);
}

static struct openvla *open_model(void)
{
    struct openvla *model = NULL;
    struct error error = {0};

    if (openvla_open(dir, NULL, &model, NULL, &error) < 0)
        fail_msg("%s", error.text);
    return model;
}

/* A checkpoint as it is published: config.json says nothing of ours. */
static int setup(void **state)
{
    struct openvla *model = NULL;
    struct error error = {0};

    (void)state;
    scratch_new(dir);
    if (openvla_new("tests/golden/nano", 1, &model, &error) < 0 || openvla_save(model, dir, "F32", &error) < 0)
        fail_msg("%s", error.text);
    openvla_free(model);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    return remove_tree(dir);
}

/* ---- what is found --------------------------------------------------------------------------------------------------------- */

static void test_whose_statistics(void **state)
{
    static const struct {
        const char *stats, *suite, *asked, *found;
    } cases[] = {
        {"{\"a\": " ONE(0, 1) "}", "tabletop", "", "a"},
        {"{\"a\": " ONE(0, 1) "}", "tabletop", "a", "a"},
        {"{\"a\": " ONE(0, 1) "}", "tabletop", "b", NULL},
        {"{\"libero_goal\": " ONE(0, 1) ", \"libero_goal_no_noops\": " ONE(0, 1) "}", "libero_goal", "", "libero_goal"},
        {"{\"libero_10_no_noops\": " ONE(0, 1) ", \"libero_goal_no_noops\": " ONE(0, 1) "}", "libero_goal", "",
         "libero_goal_no_noops"},
        {"{\"libero_10_no_noops\": " ONE(0, 1) ", \"libero_goal_no_noops\": " ONE(0, 1) "}", "libero_goal", "libero_10_no_noops",
         "libero_10_no_noops"},
        {"{\"bridge\": " ONE(0, 1) ", \"fractal\": " ONE(0, 1) "}", "libero_goal", "", NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct openvla_fit_ask ask = {.suite = cases[i].suite, .chain = "render", .unnorm_key = cases[i].asked};
        struct openvla_fit fit = {0};
        struct error error = {0};
        struct openvla *model;
        int r;

        put("dataset_statistics.json", cases[i].stats);
        model = open_model();
        r = openvla_fit_find(model, &ask, &fit, &error);
        if (cases[i].found) {
            assert_int_equal(r, 0);
            assert_string_equal(fit.stats->key, cases[i].found);
        } else {
            assert_int_equal(r, -EINVAL);
            assert_non_null(strstr(error.text, "policy.unnorm_key"));
            assert_non_null(strstr(error.text, model->stats[0].key));
            assert_null(fit.stats);
        }
        openvla_free(model);
    }
}

static void test_gripper_and_crop(void **state)
{
    static const struct {
        const char *stats, *suite, *chain;
        double asked;
        bool turned;
        float crop;
    } cases[] = {
        {"{\"a\": " ONE(0, 1) "}", "libero_goal", TF_EVALUATION_CHAIN, 0, true, .9f},
        {"{\"a\": " ONE(0, 1) "}", "libero_goal", TF_EVALUATION_CHAIN, 1, true, 0},
        {"{\"a\": " ONE(0, 1) "}", "libero_goal", "plain", 0, true, 0},
        {"{\"a\": " ONE(0, 1) "}", "libero_goal", "plain", .5, true, .5f},
        {"{\"a\": " ONE(-1, 1) "}", "libero_goal", TF_EVALUATION_CHAIN, 0, false, .9f},
        {"{\"a\": " ONE(0, 1) "}", "tabletop", TF_EVALUATION_CHAIN, 0, false, 0},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct openvla_fit_ask ask = {.suite = cases[i].suite, .chain = cases[i].chain, .unnorm_key = "",
                                            .center_crop = cases[i].asked};
        struct openvla_fit fit;
        struct error error = {0};
        struct openvla *model;
        char words[256];

        put("dataset_statistics.json", cases[i].stats);
        model = open_model();
        assert_int_equal(openvla_fit_find(model, &ask, &fit, &error), 0);
        assert_true(fit.turn_gripper == cases[i].turned && fit.center_crop == cases[i].crop);
        openvla_fit_words(&fit, words);
        assert_int_equal(openvla_fit_changes(&fit), words[0] != '\0');
        openvla_free(model);
    }
}

/* Data whose gripper is another's are refused before anybody learns to open where it is to close. */
static void test_data_the_other_way_round(void **state)
{
    static const struct {
        const char *policy, *data, *suite, *refused;
    } cases[] = {
        {"{\"a\": " ONE(0, 1) "}", "{\"d\": " ONE(0, 1) "}", "libero_goal", NULL},
        {"{\"a\": " ONE(0, 1) "}", "{\"d\": " ONE(-1, 1) "}", "libero_goal", "--gripper libero"},
        {"{\"a\": " ONE(-1, 1) "}", "{\"d\": " ONE(-1, 1) "}", "libero_goal", NULL},
        {"{\"a\": " ONE(-1, 1) "}", "{\"d\": " ONE(0, 1) "}", "libero_goal", "into policy.init"},
        {"{\"a\": " ONE(-1, 1) "}", "{\"d\": " ONE(0, 1) "}", "tabletop", NULL},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct openvla_fit_ask ask = {.suite = cases[i].suite, .chain = "render", .unnorm_key = ""};
        struct openvla_fit fit = {0};
        struct error error = {0};
        struct openvla *model;
        int r;

        put("dataset_statistics.json", cases[i].policy);
        model = open_model();
        assert_int_equal(openvla_fit_find(model, &ask, &fit, &error), 0);
        put("dataset_statistics.json", cases[i].data);
        r = openvla_fit_check_data(model, &fit, cases[i].suite, dir, &error);
        assert_int_equal(r, cases[i].refused ? -EINVAL : 0);
        if (cases[i].refused)
            assert_non_null(strstr(error.text, cases[i].refused));
        openvla_free(model);
    }
}

/* A policy that takes the robot's state, fresh: nobody has said the range of its numbers. */
static void add_state(int numbers)
{
    struct openvla *model = NULL;
    struct error error = {0};

    if (openvla_load(dir, &model, &error) < 0)
        fail_msg("%s", error.text);
    assert_int_equal(oft_make_tokens(model, 2), 0);
    assert_int_equal(oft_add_state(model, numbers, 1), 0);
    if (openvla_save(model, dir, "F32", &error) < 0)
        fail_msg("%s", error.text);
    openvla_free(model);
}

#define STATE(low, high) "\"proprio\": {\"q01\": [" low "], \"q99\": [" high "]}"
#define ACTION "\"action\": {\"q01\": [-1, -1, -1, -1, -1, -1, -1], \"q99\": [1, 1, 1, 1, 1, 1, 1]}"

static void test_range_of_the_state(void **state)
{
    static const struct {
        const char *policy, *data, *suite, *words;      /* data NULL: the expert's; words NULL: refused */
        bool imitates;
        double first;                                   /* its low end */
    } cases[] = {
        {"{\"a\": {" ACTION "}}", NULL, "tabletop", "the robot's state in the range of the suite", true, -.2},
        {"{\"a\": {" ACTION "}}", "{\"d\": {" ACTION ", " STATE("-7,-7,-7,-7,-7", "7,7,7,7,7") "}}", "tabletop",
         "the robot's state in the range of the data", true, -7},
        {"{\"a\": {" ACTION "}}", "{\"d\": {" ACTION "}}", "tabletop", "the robot's state in the range of the suite", true, -.2},
        {"{\"a\": {" ACTION ", " STATE("-9,-9,-9,-9,-9", "9,9,9,9,9") "}}", NULL, "tabletop", "", true, 0}, /* it says so */
        {"{\"a\": {" ACTION ", " STATE("-9,-9", "9,9") "}}", NULL, "tabletop", "the robot's state in the range of the suite", true, -.2},
        {"{\"a\": {" ACTION "}}", NULL, "tabletop", NULL, false, 0}, /* it was taught elsewhere, and nobody knows how */
        {"{\"a\": {" ACTION "}}", NULL, "libero_goal", NULL, true, 0}, /* that robot says eight numbers */
        {"{\"a\": {" ACTION "}}", NULL, "remote", NULL, true, 0},
    };

    (void)state;
    put("dataset_statistics.json", "{\"a\": {" ACTION "}}");
    add_state(5);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        char data[SCRATCH_PATH], words[256], path[SCRATCH_PATH + 64];
        struct openvla_fit_ask ask = {.suite = cases[i].suite, .chain = "render", .unnorm_key = "", .used = true, .imitates = cases[i].imitates,
                                      .data = cases[i].data ? data : NULL};
        struct openvla_fit fit = {0}, again;
        struct error error = {0};
        struct openvla *model;
        int r;

        scratch_new(data);
        snprintf(path, sizeof(path), "%s/dataset_statistics.json", data);
        assert_true(!cases[i].data || file_write(path, cases[i].data, strlen(cases[i].data)) == 0);
        put("dataset_statistics.json", cases[i].policy);
        model = open_model();
        r = openvla_fit_find(model, &ask, &fit, &error);
        assert_int_equal(r, cases[i].words ? 0 : -EINVAL);
        if (!cases[i].words) {
            assert_non_null(strstr(error.text, "5 numbers of the robot's state, whose range a does not say"));
            ask.used = false; /* to record demonstrations it need not be known */
            assert_int_equal(openvla_fit_find(model, &ask, &fit, &error), 0);
            assert_false(openvla_fit_changes(&fit));
        } else {
            openvla_fit_words(&fit, words);
            assert_string_equal(words, cases[i].words);
            assert_true(fit.state_low[0] == cases[i].first && fit.state == (words[0] ? 5 : 0));
            assert_int_equal(openvla_fit_write(&fit, dir, &error), 0);
            openvla_free(model);
            model = open_model(); /* and the copy says it */
            assert_int_equal(model->stats[0].proprio, 5);
            assert_true(!words[0] || model->stats[0].proprio_low[0] == cases[i].first);
            assert_int_equal(openvla_fit_find(model, &ask, &again, &error), 0);
            assert_false(openvla_fit_changes(&again));
        }
        openvla_free(model);
        remove_tree(data);
    }
}

/* ---- what is written ------------------------------------------------------------------------------------------------------- */

static void test_the_copy_says_it(void **state)
{
    const struct openvla_fit_ask ask = {.suite = "libero_goal", .chain = TF_EVALUATION_CHAIN, .unnorm_key = ""};
    struct openvla_fit_ask other;
    struct openvla_fit fit, again;
    struct error error = {0};
    struct openvla *model, *copy;

    (void)state;
    put("dataset_statistics.json", "{\"libero_10_no_noops\": " ONE(-1, 1) ", \"libero_goal_no_noops\": " ONE(0, 1) "}");
    model = open_model();
    assert_int_equal(openvla_fit_find(model, &ask, &fit, &error), 0);
    assert_true(openvla_fit_changes(&fit));
    if (openvla_fit_write(&fit, dir, &error) < 0)
        fail_msg("%s", error.text);

    copy = open_model();
    assert_int_equal(copy->n_stats, 1);
    assert_string_equal(copy->stats[0].key, "libero_goal_no_noops");
    assert_memory_equal(copy->stats[0].q01, fit.stats->q01, sizeof(fit.stats->q01));
    assert_memory_equal(copy->stats[0].q99, fit.stats->q99, sizeof(fit.stats->q99));
    assert_memory_equal(copy->stats[0].mask, fit.stats->mask, sizeof(fit.stats->mask));
    assert_true(copy->config.gripper.said && copy->config.gripper.binarise && copy->config.gripper.invert);
    assert_true(copy->config.center_crop == .9f);
    assert_int_equal(openvla_fit_find(copy, &ask, &again, &error), 0); /* and nothing is left open */
    assert_false(openvla_fit_changes(&again));

    /* what it says stands */
    other = ask;
    other.center_crop = .8;
    assert_int_equal(openvla_fit_find(copy, &other, &again, &error), -EINVAL);
    assert_non_null(strstr(error.text, "policy.center_crop"));
    openvla_free(copy);
    openvla_free(model);
}

/* ---- there and back -------------------------------------------------------------------------------------------------------- */

static void test_actions_of_the_suite(void **state)
{
    const struct openvla_fit_ask ask = {.suite = "libero_goal", .chain = TF_EVALUATION_CHAIN, .unnorm_key = ""};
    double worst = 0;
    struct openvla_fit fit;
    struct error error = {0};
    struct openvla *model;

    (void)state;
    put("dataset_statistics.json", "{\"libero_goal\": " ONE(0, 1) "}");
    model = open_model();
    if (openvla_fit_find(model, &ask, &fit, &error) < 0)
        fail_msg("%s", error.text);
    model->config.gripper = (struct gripper_rule){.binarise = fit.turn_gripper, .invert = fit.turn_gripper};
    for (int i = 0; i < 200; i++) {
        double action[DIMS], said[DIMS], back[DIMS];

        for (int k = 0; k < DIMS; k++) {
            double at = (double)((i * 31 + k * 17) % 101) / 100;

            action[k] = k < DIMS - 1 ? fit.stats->q01[k] + at * (fit.stats->q99[k] - fit.stats->q01[k]) : i % 2 ? 1 : -1;
        }
        assert_int_equal(openvla_from_environment(model, action, said), 0);
        for (int k = 0; k < DIMS; k++)
            said[k] = openvla_decode(&model->config, openvla_encode(&model->config, said[k]));
        openvla_to_environment(model, said, back);
        for (int k = 0; k < DIMS - 1; k++)
            worst = fmax(worst, fabs(back[k] - action[k]) / (fit.stats->q99[k] - fit.stats->q01[k]));
        assert_true(back[DIMS - 1] == action[DIMS - 1]); /* a hand that closes closes */
    }
    assert_true(worst <= 1.0 / 255); /* half a bin, and the last one's edge */
    openvla_free(model);
}

/* A demonstration that was played is imitated in the policy's own words; where these are the suite's, to the bit. */
static void test_what_is_imitated(void **state)
{
    static const char *const stats[2] = {
        "{\"a\": " ONE(0, 1) "}",
        "{\"a\": {\"action\": {\"q01\": [-1, -1, -1, -1, -1, -1, -1], \"q99\": [1, 1, 1, 1, 1, 1, 1]}}}",
    };
    static const float label[DIMS] = {.3f, -.1f, .9375f, .01f, 0.25f, 1e-9f, -1};
    uint8_t *frames;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct episode_input in = {.id = 1,
                                   .task = "a",
                                   .instruction = "open the drawer",
                                   .steps = 1,
                                   .max_steps = 8,
                                   .success = true,
                                   .demo = true,
                                   .height = SIDE,
                                   .width = SIDE,
                                   .images = 1,
                                   .action_dims = DIMS,
                                   .label = label,
                                   .n_label = DIMS,
                                   .n_frames = 2 * SIDE * SIDE * 3};
        struct dataset *data = NULL;
        struct error error = {0};
        struct openvla *model;

        put("dataset_statistics.json", stats[i]);
        model = open_model();
        model->config.gripper = (struct gripper_rule){.binarise = !i, .invert = !i};
        assert_int_equal(dataset_new(model, &data), 0);
        frames = calloc(1, in.n_frames);
        in.frames = frames;
        if (dataset_add(data, &in, &error) < 0)
            fail_msg("%s", error.text);
        if (i) {
            assert_memory_equal(data->list[0].label, label, sizeof(label));
        } else {
            double said[DIMS], back[DIMS];

            for (int k = 0; k < DIMS; k++)
                said[k] = (double)data->list[0].label[k];
            openvla_to_environment(model, said, back);
            for (int k = 0; k < DIMS; k++)
                assert_true(fabs(back[k] - (double)(k == 4 ? .16f : label[k])) < 1e-6); /* .25 is more than it can say */
            assert_int_equal(data->outside, 1);
        }
        for (int k = 0; k < DIMS; k++)
            assert_int_equal(data->list[0].tokens[k], openvla_encode(&model->config, (double)data->list[0].label[k]));
        dataset_free(data);
        openvla_free(model);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whose_statistics),
        cmocka_unit_test(test_gripper_and_crop),
        cmocka_unit_test(test_data_the_other_way_round),
        cmocka_unit_test(test_actions_of_the_suite),
        cmocka_unit_test(test_what_is_imitated),
        cmocka_unit_test(test_the_copy_says_it),      /* these two last: they change the checkpoint */
        cmocka_unit_test(test_range_of_the_state),
    };

    return cmocka_run_group_tests_name("openvla_fit", tests, setup, teardown);
}
