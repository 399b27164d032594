#include "tests/harness/spec_policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

struct openvla *spec_policy(uint64_t seed)
{
    struct openvla *model = NULL;
    struct error error;

    if (openvla_new("models/tiny-spec", seed, &model, &error) < 0)
        fail_msg("%s", error.text);
    return model;
}

struct openvla *spec_policy_with_heads(void)
{
    struct openvla *model = spec_policy(1);

    assert_int_equal(openvla_add_value_head(model, 32, 0, 2), 0);
    assert_int_equal(openvla_add_reward_head(model, 32, 3), 0);
    for (int i = 0; i < model->params.count; i++)
        if (strstr(model->params.list[i]->name, "head.fc2.weight"))
            for (int64_t k = 0; k < model->params.list[i]->numel; k++)
                model->params.list[i]->value[k] = 0.1f * (float)(k % 5 - 2);
    return model;
}
