/* An XML file from anyone: printed and read again, it is the same. */
#include <string.h>

#include "sim/suites/libero/xml.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    _cleanup_(strbuf_release) struct strbuf first = STRBUF_INIT, second = STRBUF_INIT;
    struct xml_node *root = NULL, *again = NULL;
    struct error error = {0};

    if (xml_parse("fuzz", (const char *)bytes, n, &root, &error) < 0) {
        if (!error.errnum)
            abort();
        return 0;
    }
    xml_print(root, &first);
    if (xml_parse("again", first.text, first.length, &again, &error) < 0)
        abort();
    xml_print(again, &second);
    if (strcmp(first.text, second.text) != 0)
        abort();
    xml_free(root);
    xml_free(again);
    return 0;
}
