#include "nn/reward_config.h"

#include <errno.h>
#include <string.h>

#include "base/atomic_file.h"
#include "base/strbuf.h"
#include "nn/hf.h"

int reward_config_read(const char *dir, int usual, int most, int *ret_history, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT;
    _cleanup_json_ json_t *json = NULL;
    int64_t history = usual;
    int r = 0;

    strbuf_addf(&path, "%s/reward_config.json", dir);
    if (path.failed)
        return error_set(error, ENOMEM, "out of memory");
    if (access(path.text, F_OK) == 0) {
        r = hf_json(dir, "reward_config.json", &json, error);
        if (r >= 0)
            r = hf_integer(json, "history", usual, &history, error);
    }
    if (r < 0)
        return r;
    if (history < 0 || history > most)
        return error_set(error, EINVAL, "%s: history: %lld, expected 0 to %d", path.text, (long long)history, most);
    *ret_history = (int)history;
    return 0;
}

int reward_config_write(const char *dir, int history, struct error *error)
{
    _cleanup_(strbuf_release) struct strbuf path = STRBUF_INIT, text = STRBUF_INIT;
    int r;

    strbuf_addf(&path, "%s/reward_config.json", dir);
    strbuf_addf(&text, "{\n  \"history\": %d\n}\n", history);
    r = path.failed || text.failed ? -ENOMEM : atomic_file_write(path.text, text.text, text.length);
    return r < 0 ? error_set(error, -r, "%s: %s", path.text, strerror(-r)) : 0;
}
