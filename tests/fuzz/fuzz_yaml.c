/* A run configuration from anyone: it is refused with a line, or what is written back reads the same, with every value and as the
 * file that it was. */
#include "daemon/run_config.h"
#include "daemon/run_config_edit.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static struct run_config first, second;
    _cleanup_(strbuf_release) struct strbuf once = STRBUF_INIT, twice = STRBUF_INIT;
    struct error error = {0};

    if (run_config_parse((const char *)bytes, n, "fuzz.yaml", &first, &error) < 0) {
        if (!error.text[0] || strchr(error.text, '\n'))
            abort();            /* a refusal says why, in one line */
        return 0;
    }
    if (run_config_write(&first, &once) < 0 || run_config_parse(once.text, once.length, "written.yaml", &second, &error) < 0)
        abort();
    if (run_config_write(&second, &twice) < 0 || strcmp(once.text, twice.text) != 0)
        abort();
    strbuf_reset(&twice);
    if (run_config_edit((const char *)bytes, n, "fuzz.yaml", NULL, 0, &twice, &error) < 0 ||
        run_config_parse(twice.text, twice.length, "edited.yaml", &second, &error) < 0 || memcmp(&first, &second, sizeof first) != 0)
        abort();
    for (int i = 0; i < first.n_stages; i++) {
        static struct stage_config stage;

        strbuf_reset(&once);
        if (stage_config_write(&first.stages[i], &once) < 0 || stage_config_parse(once.text, once.length, &stage, &error) < 0)
            abort();
    }
    return 0;
}
