/* adapter_config.json: which alpha a module has, in all versions of PEFT that wrote such files. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "nn/peft.h"

static void test_patterns(void **state)
{
    static const char text[] =
        "{\"r\": 8, \"lora_alpha\": 16, \"alpha_pattern\": {\"layers.1.self_attn.q_proj\": 4, \"v_proj\": 32},"
        " \"target_modules\": [\"q_proj\", \"projector.fc1\"]}";
    struct peft_config config = {0};
    struct error error = {0};

    (void)state;
    assert_int_equal(peft_config_parse(text, sizeof(text) - 1, "x", &config, &error), 0);
    assert_true(peft_config_scale(&config, "model.layers.0.self_attn.q_proj", 8) == 2.0);
    assert_true(peft_config_scale(&config, "model.layers.1.self_attn.q_proj", 8) == .5);
    assert_true(peft_config_scale(&config, "model.layers.1.self_attn.v_proj", 4) == 8.0);
    assert_true(peft_config_matches(&config, "model.layers.1.self_attn.q_proj"));
    assert_true(peft_config_matches(&config, "projector.fc1"));
    assert_false(peft_config_matches(&config, "block.mlp.fc1"));
    assert_false(peft_config_matches(&config, "model.seq_proj"));
    peft_config_release(&config);
}

/* PEFT before 0.14 (OpenVLA pins 0.11.1) looks the first key that fits, of both patterns, up in both: with 0.11.1 the alpha of
 * layers.0.self_attn.q_proj is 8 here, and layers.1's 5, with 0.15.1 it is 5 for both. A file that does not say whose it is must
 * not leave that open. */
static void test_disputed_alpha(void **state)
{
    static const struct { const char *text; double alpha[2]; bool disputed[2]; } cases[] = {
        {"{\"lora_alpha\": 8, \"rank_pattern\": {\"layers.0.self_attn.q_proj\": 2}, \"alpha_pattern\": {\"q_proj\": 5}}",
         {5, 5}, {true, false}},
        {"{\"lora_alpha\": 8, \"rank_pattern\": {\"layers.0.self_attn.q_proj\": 2}, \"alpha_pattern\": {\"q_proj\": 5},"
         " \"peft_version\": \"0.18.0\"}", {5, 5}, {false, false}},
        {"{\"lora_alpha\": 8, \"rank_pattern\": {\"q_proj\": 2}, \"alpha_pattern\": {\"q_proj\": 5}}", {5, 5}, {false, false}},
        {"{\"lora_alpha\": 8, \"rank_pattern\": {\"v_proj\": 2}, \"alpha_pattern\": {\"layers.1.self_attn.q_proj\": 5}}",
         {8, 5}, {false, false}},
        {"{\"lora_alpha\": 8, \"rank_pattern\": {\"model.layers.0.self_attn.q_proj\": 2},"
         " \"alpha_pattern\": {\"model.layers.0.self_attn.q_proj\": 5}}", {5, 8}, {false, false}},     /* as gantry writes them */
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct peft_config config = {0};
        struct error error = {0};

        assert_int_equal(peft_config_parse(cases[i].text, strlen(cases[i].text), "x", &config, &error), 0);
        for (int layer = 0; layer < 2; layer++) {
            char module[64];

            snprintf(module, sizeof(module), "model.layers.%d.self_attn.q_proj", layer);
            assert_true(peft_config_scale(&config, module, 2) == cases[i].alpha[layer] / 2);
            assert_int_equal(peft_config_check_alpha(&config, module, "DIR", &error), cases[i].disputed[layer] ? -ENOTSUP : 0);
            if (cases[i].disputed[layer] && !strstr(error.text, "DIR/adapter_config.json: the alpha of model.layers.0.self_attn."
                                                                "q_proj is 8 to PEFT before 0.14"))
                fail_msg("%s", error.text);
        }
        peft_config_release(&config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_patterns),
        cmocka_unit_test(test_disputed_alpha),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
