/* standalone.c - a fuzz target without libFuzzer: replay a corpus, and near misses of it.
 *
 *   fuzz_yaml tests/fuzz/corpus/yaml        prints "N inputs"; a target that objects aborts
 *
 * For every file: its bytes, its truncations and a fixed set of flipped bits (no randomness: the same on each run). */
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>

#include "base/atomic_file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n);

enum { INPUT_LIMIT = 4 << 20, TRUNCATIONS = 64, FLIPS = 256 };

static unsigned long inputs;

/* An exact-size copy each time, so that the sanitizer sees one byte too far. */
static void feed(const char *bytes, size_t n)
{
    _cleanup_free_ uint8_t *copy = malloc(n ? n : 1);

    if (!copy)
        abort();
    memcpy(copy, bytes, n);
    LLVMFuzzerTestOneInput(copy, n);
    inputs++;
}

static void replay(char *bytes, size_t n)
{
    uint32_t place = 12345;

    feed(bytes, n);
    for (size_t i = 0; i < TRUNCATIONS && i < n; i++)
        feed(bytes, n <= TRUNCATIONS ? i : n * i / TRUNCATIONS);
    for (int i = 0; i < FLIPS && n; i++) {
        place = place * 1664525 + 1013904223;
        bytes[(place >> 8) % n] ^= (char)(1 << (place & 7));
        feed(bytes, n);
        bytes[(place >> 8) % n] ^= (char)(1 << (place & 7));
    }
}

static int replay_path(const char *path)
{
    _cleanup_free_ char *bytes = NULL;
    struct dirent **names;
    struct stat st;
    size_t size;
    int r, n;

    if (stat(path, &st) < 0)
        return -errno;
    if (!S_ISDIR(st.st_mode)) {
        r = file_read(path, INPUT_LIMIT, &bytes, &size);
        if (r == 0)
            replay(bytes, size);
        return r;
    }
    n = scandir(path, &names, NULL, alphasort);
    r = n < 0 ? -errno : 0;
    for (int i = 0; i < n; i++) {
        char child[1024];

        snprintf(child, sizeof child, "%s/%s", path, names[i]->d_name);
        if (names[i]->d_name[0] != '.' && r == 0)
            r = replay_path(child);
        free(names[i]);
    }
    if (n >= 0)
        free(names);
    return r;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        int r = replay_path(argv[i]);

        if (r < 0) {
            fprintf(stderr, "%s: %s\n", argv[i], strerror(-r));
            return 1;
        }
    }
    printf("%lu inputs\n", inputs);
    return inputs == 0;
}
