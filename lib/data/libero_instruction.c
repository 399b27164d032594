#include "data/libero_instruction.h"

#include <errno.h>
#include <jansson.h>
#include <string.h>

#include "base/macro.h"
#include "base/strbuf.h"

static void add(struct strbuf *out, const char *text)
{
    for (; text && *text; text++)
        if (*text != '"')
            strbuf_addc(out, *text);
}

static void add_from_info(struct strbuf *out, const char *problem_info)
{
    _cleanup_(json_decrefp) json_t *root = json_loads(problem_info, 0, NULL);
    const json_t *said = json_object_get(root, "language_instruction");

    add(out, json_string_value(said));
    for (size_t i = 0; i < json_array_size(said); i++)
        add(out, json_string_value(json_array_get(said, i)));
}

static void add_from_name(struct strbuf *out, const char *task)
{
    const char *scene = strstr(task, "SCENE"), *words = task;

    if (scene)
        words = scene + strlen("SCENE") + strspn(scene + strlen("SCENE"), "0123456789_");
    for (const char *c = *words ? words : task; *c; c++)
        strbuf_addc(out, *c == '_' ? ' ' : *c);
}

int libero_instruction(const char *problem_info, const char *task, char *ret, size_t n)
{
    _cleanup_(strbuf_release) struct strbuf text = STRBUF_INIT;

    add_from_info(&text, problem_info);
    if (!text.length)
        add_from_name(&text, task);
    if (text.failed)
        return -ENOMEM;
    if (text.length >= n)
        return -ENAMETOOLONG;
    memcpy(ret, text.text, text.length);
    ret[text.length] = '\0';
    return 0;
}
