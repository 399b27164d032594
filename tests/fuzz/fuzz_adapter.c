/* An adapter_config.json from anyone: what is accepted can be asked about every module. */
#include <math.h>
#include <stdlib.h>

#include "nn/peft.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static const char *const modules[] = {"", "q_proj", "language_model.model.layers.0.self_attn.q_proj", "projector.fc1"};
    struct peft_config config, copy;
    struct error error;

    if (peft_config_parse((const char *)bytes, n, "fuzz", &config, &error) < 0)
        return 0;
    for (size_t i = 0; i < ARRAY_SIZE(modules); i++) {
        (void)peft_config_matches(&config, modules[i]);
        if (!isfinite(peft_config_scale(&config, modules[i], config.r)))
            abort();
    }
    if (peft_config_copy(&config, &copy) == 0)
        peft_config_release(&copy);
    peft_config_release(&config);
    return 0;
}
