/* A ZIP archive from anyone: what the directory promises is either read whole or refused. */
#include "base/zip.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n)
{
    static volatile unsigned long sink;
    struct zip_archive *archive = NULL;
    struct error error;

    if (zip_parse("fuzz", bytes, n, &archive, &error) < 0)
        return 0;
    for (int i = 0; i < archive->count && i < 100; i++) {
        const uint8_t *contents;
        void *memory = NULL;
        size_t size;

        if (zip_read(archive, &archive->entries[i], 1 << 16, &contents, &size, &memory, NULL) < 0)
            continue;
        for (size_t k = 0; k < size; k++)
            sink += contents[k];
        free(memory);
    }
    zip_close(archive);
    return 0;
}
