/* Actions as ids: edges, centres, clipping, and the un-normalisation of bridge_orig (values of the public checkpoint). */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "nn/models/openvla.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_encode),
        cmocka_unit_test(test_decode),
        cmocka_unit_test(test_round_trip),
        cmocka_unit_test(test_unnormalise),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
