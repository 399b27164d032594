/* test_sha256.c - FIPS 180-4's own examples, every way of cutting a text, and the portable block against the CPU's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "base/macro.h"
#include "base/philox.h"
#include "base/sha256.h"

static void expect(const char *text, size_t n, const char *want)
{
    uint8_t digest[SHA256_SIZE];
    char hex[SHA256_HEX];

    sha256_of(text, n, digest);
    sha256_hex(digest, hex);
    assert_string_equal(hex, want);
}

static void test_examples(void **state _unused_)
{
    _cleanup_free_ char *many = malloc(1000000);

    assert_non_null(many);
    memset(many, 'a', 1000000);
    expect("", 0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    expect("abc", 3, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    expect("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56,
           "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    expect(many, 1000000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

/* The digest does not depend on where the text was cut. */
static void test_pieces(void **state _unused_)
{
    struct philox draws = philox_at(1, PHILOX_TEST, 0, 0, 0);
    uint8_t text[300], whole[SHA256_SIZE], pieces[SHA256_SIZE];
    struct sha256 s;

    for (size_t i = 0; i < sizeof text; i++)
        text[i] = (uint8_t)philox_u32(&draws);
    for (size_t n = 0; n <= sizeof text; n++) {
        sha256_of(text, n, whole);
        sha256_init(&s);
        for (size_t at = 0, take; at < n; at += take) {
            take = 1 + philox_below(&draws, 90);
            take = MIN(take, n - at);
            sha256_add(&s, text + at, take);
        }
        sha256_end(&s, pieces);
        assert_memory_equal(whole, pieces, SHA256_SIZE);
    }
}

/* One block of both kinds, from the same state: the digest of 64 bytes before its padding block. */
static void test_portable(void **state _unused_)
{
    struct philox draws = philox_at(2, PHILOX_TEST, 0, 0, 0);
    uint8_t block[64];
    struct sha256 s;
    uint32_t plain[8];

    for (int k = 0; k < 200; k++) {
        for (size_t i = 0; i < sizeof block; i++)
            block[i] = (uint8_t)philox_u32(&draws);
        sha256_init(&s);
        memcpy(plain, s.state, sizeof plain);
        sha256_add(&s, block, sizeof block);
        sha256_block_for_test(plain, block);
        assert_memory_equal(plain, s.state, sizeof plain);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_examples), cmocka_unit_test(test_pieces),
                                       cmocka_unit_test(test_portable)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
