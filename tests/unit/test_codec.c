/* Actions as ids: edges, centres, clipping, and the un-normalisation of bridge_orig (values of the public checkpoint). */
#include <errno.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "nn/models/openvla_internal.h"

static const struct openvla_config config = {.vocab = 32000, .vocab_padded = 32064};

static void test_encode(void **state)
{
    static const struct { double value; int32_t id;
    } cases[] = {
        {-1, 31999},     {0, 31872}, {1, 31744}, {-7, 31999}, {7, 31744}, {-1 + 2.0 / 255, 31998}, {-1 + 1.9 / 255, 31999},
        {0.9999, 31745},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
        assert_int_equal(openvla_encode(&config, cases[i].value), cases[i].id);
    assert_int_equal(openvla_encode(&config, (double)NAN), 31744);
}

static void test_decode(void **state)
{
    (void)state;
    assert_true(fabs(openvla_decode(&config, 31999) - (-1 + 1.0 / 255)) < 1e-15);
    assert_true(fabs(openvla_decode(&config, 31872)) < 1e-15);
    assert_true(openvla_decode(&config, 31744) == openvla_decode(&config, 31745));      /* 255 centres for 256 ids */
    assert_true(openvla_decode(&config, 5) == openvla_decode(&config, 31744));
    assert_true(openvla_decode(&config, 32063) == openvla_decode(&config, 31999));
}

/* A centre keeps its id, and the ids go down as values go up. */
static void test_round_trip(void **state)
{
    (void)state;
    for (int32_t id = 31745; id < 32000; id++)
        assert_int_equal(openvla_encode(&config, openvla_decode(&config, id)), id);
}

static void test_unnormalise(void **state)
{
    const struct action_stats bridge = {
        .dims = 7,
        .q01 = {-0.02872725307941437, -0.04170349963009357, -0.026093858778476715, -0.08092105075716972, -0.09288699507713317,
                -0.20718276381492615, 0},
        .q99 = {0.028309678435325586, 0.040855254605412394, 0.040161586627364146, 0.08192047759890528, 0.07792850524187081,
                0.20382574498653397, 1},
        .mask = {true, true, true, true, true, true, false},
    };
    const double low[7] = {-1, -1, -1, -1, -1, -1, -1}, high[7] = {1, 1, 1, 1, 1, 1, 0.25};
    double action[7];

    (void)state;
    openvla_unnormalise(&bridge, low, action);
    for (int i = 0; i < 6; i++)
        assert_true(fabs(action[i] - bridge.q01[i]) < 1e-15);
    assert_true(action[6] == -1);                   /* not masked: as it is */
    openvla_unnormalise(&bridge, high, action);
    for (int i = 0; i < 6; i++)
        assert_true(fabs(action[i] - bridge.q99[i]) < 1e-15);
    assert_true(action[6] == 0.25);
}

static int read_text(const char *action, struct action_stats **ret, int *ret_n, struct error *error)
{
    char text[512];
    json_t *json;
    int r;

    snprintf(text, sizeof text, "{\"mine\": {\"action\": {%s}}}", action);
    json = json_loads(text, 0, NULL);
    assert_non_null(json);
    r = openvla_read_stats(json, ret, ret_n, error);
    json_decref(json);
    return r;
}

/* Quantiles that cannot be meant are refused when the file is read, not played with: they would turn actions round. */
static void test_ranges_that_are_none(void **state)
{
    static const struct { const char *action, *says; } cases[] = {
        {"\"q01\": [0, 0.5], \"q99\": [1, -0.5]", "dataset mine: action: number 1 has q01 0.5 and q99 -0.5: that is no range"},
        {"\"q01\": [-1e308, 0], \"q99\": [1e308, 1]", "dataset mine: action: number 0 has q01 -1e+308 and q99 1e+308: that is"},
        {"\"q01\": [0, 0.5], \"q99\": [1, -0.5], \"mask\": [true, false]", NULL},      /* is not asked for */
        {"\"q01\": [0, 0.5], \"q99\": [1, 0.5]", NULL},
        {"\"q01\": [0], \"q99\": [1]}, \"proprio\": {\"q01\": [1], \"q99\": [0]", "dataset mine: proprio: number 0 has q01 1 and q99 0"},
        {"\"q01\": [0], \"q99\": [\"NaN\"]", "dataset mine: action needs q01, q99 (and mask) of 1 to"},
    };

    (void)state;
    assert_null(json_loads("[NaN]", 0, NULL));          /* nor are such numbers in JSON */
    assert_null(json_loads("[1e999]", 0, NULL));
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct action_stats *stats = NULL;
        struct error error = {0};
        int n = 0, r = read_text(cases[i].action, &stats, &n, &error);

        assert_int_equal(r, cases[i].says ? -EINVAL : 0);
        if (cases[i].says && strncmp(error.text, cases[i].says, strlen(cases[i].says)) != 0)
            assert_string_equal(error.text, cases[i].says);
        openvla_free_stats(stats, n);
    }
}

/* What is accepted goes to the environment and back: what a demonstrator did is what the policy would have to say for it. */
static void test_there_and_back(void **state)
{
    struct action_stats stats = {.dims = 4, .q01 = {-.02, 3, .25, .5}, .q99 = {.03, 3.000001, .25, -.5}, .mask = {true, true, true}};
    const struct openvla model = {.stats = &stats, .n_stats = 1, .config = {.action_dims = 4}};

    (void)state;
    for (int k = -8; k <= 8; k++) {
        const double said[4] = {k / 8., -k / 8., k / 8., k / 8.};
        double action[4], again[4], heard[4];

        openvla_to_environment(&model, said, action);
        assert_int_equal(openvla_from_environment(&model, action, heard), 0);
        assert_true(fabs(heard[0] - said[0]) < 1e-12 && fabs(heard[1] - said[1]) < 1e-8);
        assert_true(action[2] == .25 && heard[2] == 0);                 /* one value, whatever is said */
        assert_true(action[3] == said[3] && heard[3] == said[3]);       /* not masked: as it is, whatever its quantiles */
        openvla_to_environment(&model, heard, again);
        for (int i = 0; i < 4; i++)
            assert_true(fabs(again[i] - action[i]) < 1e-14);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ranges_that_are_none),
        cmocka_unit_test(test_there_and_back),
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_unnormalise),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
