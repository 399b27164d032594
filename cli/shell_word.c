#include "cli/shell_word.h"

#include <string.h>

#include "base/strbuf.h"

char *shell_word(const char *word)
{
    static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-+=/.,:@%";
    _cleanup_(strbuf_release) struct strbuf out = STRBUF_INIT;

    if (word[0] && word[strspn(word, plain)] == '\0')
        return strdup(word);
    strbuf_addc(&out, '\'');
    for (; *word; word++)
        strbuf_adds(&out, *word == '\'' ? "'\\''" : (char[]) {*word, '\0'});
    strbuf_addc(&out, '\'');
    return out.failed ? NULL : strdup(out.text);
}
