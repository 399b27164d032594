/* Envelope, limits and arena: what goes in comes out; what is hostile is refused before it costs anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>

#include "base/crc32c.h"
#include "base/philox.h"
#include "wire/envelope.h"
#include "wire/proto_arena.h"

static struct envelope example(void)
{
    return (struct envelope) {
        .protocol = WIRE_PROTOCOL, .kind = WIRE_KIND(ACT), .remaining_ms = 1500, .request = 1ull << 60,
        .epoch = 3, .version = 12, .run = 0xfedcba9876543210u, .error = "",
    };
}

static struct part_table two_parts(const char *body, const char *part)
{
    struct part_table t = {.n = 2};

    t.size[0] = (uint32_t)strlen(body);
    t.crc[0] = crc32c(0, body, strlen(body));
    t.size[1] = (uint32_t)strlen(part);
    t.crc[1] = crc32c(0, part, strlen(part));
    return t;
}

static size_t packed(const struct envelope *e, const struct part_table *t, uint8_t *bytes)
{
    size_t n = envelope_size(e, t);

    assert_true(n <= WIRE_ENVELOPE_MAX);
    assert_int_equal(envelope_pack(e, t, bytes, n), 0);
    return n;
}

static void round_trip(void **state)
{
    struct envelope e = example(), back;
    struct part_table t = two_parts("body", "image"), t_back;
    uint8_t bytes[WIRE_ENVELOPE_MAX];
    size_t n;

    (void)state;
    snprintf(e.error, sizeof e.error, "lease_ttl is 0: set it to 10s\n\x1b[31m");
    n = packed(&e, &t, bytes);
    assert_int_equal(envelope_pack(&e, &t, bytes, n - 1), -EMSGSIZE);
    assert_int_equal(envelope_unpack(bytes, n, &back, &t_back, NULL), 0);
    assert_int_equal(back.request, e.request);
    assert_int_equal(back.run, e.run);
    assert_int_equal(back.version, 12);
    assert_int_equal(back.epoch, 3);
    assert_int_equal(back.kind, WIRE_KIND(ACT));
    assert_int_equal(back.remaining_ms, 1500);
    assert_string_equal(back.error, "lease_ttl is 0: set it to 10s??[31m");     /* nothing that could upset a log */
    assert_int_equal(t_back.n, 2);
    assert_int_equal(t_back.size[1], 5);
    assert_int_equal(envelope_check_part(&t_back, 0, "body", 4, NULL), 0);
    assert_int_equal(envelope_check_part(&t_back, 1, "image", 5, NULL), 0);
}

static void wrong_parts(void **state)
{
    struct part_table t = two_parts("body", "image");
    struct error error = {0};

    (void)state;
    assert_int_equal(envelope_check_part(&t, 1, "imagf", 5, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "CRC32C"));
    assert_non_null(strstr(error.text, "frame 2 "));        /* on the wire: behind envelope and body */
    assert_int_equal(envelope_check_part(&t, 1, "imag", 4, NULL), -EBADMSG);
    assert_int_equal(envelope_check_part(&t, 1, "images", 6, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "frame 2 has 6 bytes, the envelope says 5"));
    t.size[2] = 4;
    t.crc[2] = crc32c(0, "more", 4);
    assert_int_equal(envelope_check_part(&t, 2, "more", 4, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "frame 3 is one more"));
}

/* A peer's error is one line that ends, however long he makes it. */
static void long_error(void **state)
{
    Gantry__Envelope e = GANTRY__ENVELOPE__INIT;
    char text[2 * WIRE_ERROR_MAX];
    uint8_t bytes[WIRE_ENVELOPE_MAX];
    uint32_t zero = 0;
    struct envelope back;
    struct part_table t;

    (void)state;
    memset(text, 'x', sizeof text - 1);
    text[sizeof text - 1] = '\0';
    memcpy(text, "\t\x7f~ ", 4);
    e.protocol = WIRE_PROTOCOL;
    e.error = text;
    e.part_size = e.part_crc32c = &zero;
    e.n_part_size = e.n_part_crc32c = 1;
    assert_int_equal(envelope_unpack(bytes, gantry__envelope__pack(&e, bytes), &back, &t, NULL), 0);
    assert_int_equal(strnlen(back.error, sizeof back.error), WIRE_ERROR_MAX - 1);
    assert_memory_equal(back.error, "??~ xx", 6);
}

static void other_major(void **state)
{
    struct envelope e = example(), back = {0};
    struct part_table t = two_parts("", ""), t_back;
    uint8_t bytes[WIRE_ENVELOPE_MAX];
    struct error error = {0};
    char ours[40];

    (void)state;
    snprintf(ours, sizeof ours, "speaks %d.%d:", WIRE_PROTOCOL_MAJOR, WIRE_PROTOCOL_MINOR);
    e.protocol = 9u << 16 | 4;
    assert_int_equal(envelope_unpack(bytes, packed(&e, &t, bytes), &back, &t_back, &error), -EPROTO);
    assert_non_null(strstr(error.text, "9.4"));
    assert_non_null(strstr(error.text, ours));
    assert_int_equal(back.request, e.request);      /* so that the refusal can be addressed */
    e.protocol = WIRE_PROTOCOL + 1;                 /* a newer minor is fine */
    assert_int_equal(envelope_unpack(bytes, packed(&e, &t, bytes), &back, &t_back, &error), 0);
}

static void limits(void **state)
{
    const struct wire_kind *act = wire_kind(WIRE_KIND(ACT));
    struct envelope e = example();
    struct part_table t = {.n = 1};
    struct error error = {0};

    (void)state;
    assert_int_equal(envelope_check_limits(&e, &t, NULL), 0);
    t.size[0] = act->body_max;
    assert_int_equal(envelope_check_limits(&e, &t, NULL), 0);
    t.size[0]++;
    assert_int_equal(envelope_check_limits(&e, &t, NULL), -EMSGSIZE);
    t.size[0] = 0;
    t.n = 2;
    t.size[1] = act->part_max;
    assert_int_equal(envelope_check_limits(&e, &t, NULL), 0);
    t.size[1]++;
    assert_int_equal(envelope_check_limits(&e, &t, &error), -EMSGSIZE);
    assert_non_null(strstr(error.text, "act: frame 2 of"));
    t.size[1] = 0xffffffffu;
    assert_int_equal(envelope_check_limits(&e, &t, NULL), -EMSGSIZE);
    t.size[1] = 0;
    t.n = 1u + act->parts_max;
    assert_int_equal(envelope_check_limits(&e, &t, NULL), 0);
    t.n++;
    assert_int_equal(envelope_check_limits(&e, &t, &error), -EBADMSG);
    assert_non_null(strstr(error.text, "1 to 17 are allowed"));
    t.n = 0;
    assert_int_equal(envelope_check_limits(&e, &t, NULL), -EBADMSG);
    t.n = 1;
    t.size[0] = 1;
    e.kind = WIRE_KIND(ACT_REPLY);                  /* has a body and no parts */
    assert_int_equal(envelope_check_limits(&e, &t, NULL), 0);
    e.kind = 9999;
    assert_int_equal(envelope_check_limits(&e, &t, NULL), -EBADMSG);
}

/* Every truncation and 20,000 corruptions: either refused or a well-formed envelope; never a crash or a wild table. */
static void damaged(void **state)
{
    struct envelope e = example(), back;
    struct part_table t = two_parts("body", "image"), t_back;
    uint8_t bytes[WIRE_ENVELOPE_MAX], bad[WIRE_ENVELOPE_MAX];
    struct philox p = philox_at(1, PHILOX_TEST, 0, 0, 0);
    size_t n = packed(&e, &t, bytes);

    (void)state;
    for (size_t i = 0; i < n; i++)
        if (envelope_unpack(bytes, i, &back, &t_back, NULL) == 0)
            assert_in_range(t_back.n, 1, 1 + WIRE_PARTS_MAX);
    for (int i = 0; i < 20000; i++) {
        size_t m = n;

        memcpy(bad, bytes, n);
        for (uint32_t k = 1 + philox_below(&p, 4); k; k--)
            bad[philox_below(&p, (uint32_t)n)] = (uint8_t)philox_u32(&p);
        if (philox_below(&p, 2))
            m = philox_below(&p, (uint32_t)n);
        if (envelope_unpack(bad, m, &back, &t_back, NULL) == 0)
            assert_in_range(t_back.n, 1, 1 + WIRE_PARTS_MAX);
    }
    assert_int_equal(envelope_unpack(bytes, 0, &back, &t_back, NULL), -EMSGSIZE);
    memset(bad, 0xff, sizeof bad);
    assert_int_equal(envelope_unpack(bad, sizeof bad, &back, &t_back, NULL), -EBADMSG);
}

/* More frames announced than allowed, and a table that does not fit frame 0. */
static void huge_counts(void **state)
{
    Gantry__Envelope e = GANTRY__ENVELOPE__INIT;
    uint32_t zeros[WIRE_ENVELOPE_MAX / 4] = {0};
    uint8_t bytes[3 * WIRE_ENVELOPE_MAX];
    struct envelope back;
    struct part_table t;

    (void)state;
    e.protocol = WIRE_PROTOCOL;
    e.part_size = e.part_crc32c = zeros;
    e.n_part_size = e.n_part_crc32c = 1 + WIRE_PARTS_MAX;
    assert_int_equal(envelope_unpack(bytes, gantry__envelope__pack(&e, bytes), &back, &t, NULL), 0);
    assert_int_equal(t.n, 1 + WIRE_PARTS_MAX);
    e.n_part_size = e.n_part_crc32c = 2 + WIRE_PARTS_MAX;
    assert_int_equal(envelope_unpack(bytes, gantry__envelope__pack(&e, bytes), &back, &t, NULL), -EMSGSIZE);
    e.n_part_size = 3;
    assert_int_equal(envelope_unpack(bytes, gantry__envelope__pack(&e, bytes), &back, &t, NULL), -EBADMSG);
    e.n_part_size = e.n_part_crc32c = ARRAY_SIZE(zeros);
    assert_int_equal(envelope_unpack(bytes, gantry__envelope__pack(&e, bytes), &back, &t, NULL), -EMSGSIZE);
}

/* 1 MiB of empty sub-messages asks for 80 times its size: the arena says no, and gives everything back. */
static void greedy_body(void **state)
{
    enum { N = 1 << 20 };
    struct proto_arena arena;
    uint8_t *bytes = malloc(N);

    (void)state;
    for (size_t i = 0; i < N; i += 2) {
        bytes[i] = 2 << 3 | 2;          /* Heartbeat.leases, length-delimited */
        bytes[i + 1] = 0;
    }
    proto_arena_init(&arena, proto_arena_cap(N));
    assert_null(proto_unpack(&gantry__heartbeat__descriptor, bytes, N, &arena));
    assert_true(arena.used <= arena.cap);
    proto_arena_release(&arena);
    assert_int_equal(arena.used, 0);
    free(bytes);
}

/* The cap never stands in the way of an honest body. */
static void honest_bodies(void **state)
{
    Gantry__Inventory inventory = GANTRY__INVENTORY__INIT;
    Gantry__Heartbeat beat = GANTRY__HEARTBEAT__INIT;
    struct proto_arena arena;
    enum { N = 5000 };
    Gantry__JournaledEpisode *episodes = calloc(N, sizeof *episodes), **list = calloc(N, sizeof *list);
    Gantry__HeldLease *leases = calloc(N, sizeof *leases), **held = calloc(N, sizeof *held);
    uint8_t digest[32] = {1}, *bytes = malloc(1 << 20);
    const Gantry__Inventory *back;
    size_t n;

    (void)state;
    for (int i = 0; i < N; i++) {
        episodes[i] = (Gantry__JournaledEpisode)GANTRY__JOURNALED_EPISODE__INIT;
        episodes[i].episode = (uint64_t)i + 1;
        episodes[i].digest = (ProtobufCBinaryData) {.data = digest, .len = sizeof digest};
        list[i] = &episodes[i];
        leases[i] = (Gantry__HeldLease)GANTRY__HELD_LEASE__INIT;
        leases[i].episode = (uint64_t)i + 1;
        leases[i].fence = 1ull << 32 | (uint64_t)i;
        held[i] = &leases[i];
    }
    inventory.episodes = list;
    inventory.n_episodes = N;
    n = gantry__inventory__pack(&inventory, bytes);
    proto_arena_init(&arena, proto_arena_cap(n));
    back = (const Gantry__Inventory *)proto_unpack(&gantry__inventory__descriptor, bytes, n, &arena);
    assert_non_null(back);
    assert_int_equal(back->n_episodes, N);
    assert_int_equal(back->episodes[N - 1]->episode, N);
    proto_arena_release(&arena);

    beat.leases = held;
    beat.n_leases = N;
    n = gantry__heartbeat__pack(&beat, bytes);
    proto_arena_init(&arena, proto_arena_cap(n));
    assert_non_null(proto_unpack(&gantry__heartbeat__descriptor, bytes, n, &arena));
    proto_arena_release(&arena);
    free(episodes);
    free(list);
    free(leases);
    free(held);
    free(bytes);
}

/* The table's rows make sense: a reply for every repeatable request, limits within the wire's. */
static void kinds(void **state)
{
    unsigned n = 0;

    (void)state;
    for (uint32_t k = 0; k < 200; k++) {
        const struct wire_kind *kind = wire_kind(k);

        if (!kind)
            continue;
        n++;
        assert_string_equal(wire_kind_name(k), kind->name);
        assert_true(kind->body_max <= WIRE_BODY_MAX && kind->part_max <= WIRE_FRAME_MAX && kind->parts_max <= WIRE_PARTS_MAX);
        assert_true(kind->senders != 0);
        if (kind->idempotent)
            assert_non_null(wire_kind(k + 1));
    }
    assert_int_equal(n, gantry__kind__descriptor.n_values - 1);     /* all but NONE */
    assert_null(wire_kind(0));
    assert_int_equal(wire_status_errno(WIRE_STATUS(LOADING)), -EAGAIN);
    assert_int_equal(wire_status_errno(WIRE_STATUS(OK)), 0);
    assert_int_equal(wire_status_errno(12345), -EIO);
}

/* docs/protocol.md, section 4: whoever else says it is refused before anybody looks at what it says. Which are said again is a
 * promise, too: what is not idempotent must not come twice. */
static void who_may_say_what(void **state)
{
    enum {
        COORDINATOR = 1 << GANTRY__ROLE__ROLE_COORDINATOR, WORKER = 1 << GANTRY__ROLE__ROLE_ENV_WORKER,
        ACTOR = 1 << GANTRY__ROLE__ROLE_ACTOR, PRM = 1 << GANTRY__ROLE__ROLE_PRM_SERVER,
        LEARNER = 1 << GANTRY__ROLE__ROLE_LEARNER, CLI = 1 << GANTRY__ROLE__ROLE_CLI,
        MEMBERS = COORDINATOR | WORKER | ACTOR | PRM | LEARNER | CLI,
    };
    static const struct { uint32_t kind; unsigned senders; bool idempotent; } expected[] = {
        {WIRE_KIND(HELLO), MEMBERS, true}, {WIRE_KIND(HEARTBEAT), MEMBERS, true}, {WIRE_KIND(BYE), MEMBERS, true},
        {WIRE_KIND(LEASE_REQUEST), WORKER, false}, {WIRE_KIND(LEASE_RETURN), WORKER, true}, {WIRE_KIND(JOURNALED), LEARNER, true},
        {WIRE_KIND(INVENTORY), LEARNER, true}, {WIRE_KIND(COMMITTED), LEARNER, true}, {WIRE_KIND(PLAN_FAILED), LEARNER, true},
        {WIRE_KIND(VERSION_STATE), ACTOR | PRM, true}, {WIRE_KIND(SHADOW_SCORED), PRM, true},
        {WIRE_KIND(ACT), WORKER | CLI, true}, {WIRE_KIND(SCORE), WORKER | CLI, true}, {WIRE_KIND(DELIVER), WORKER, true},
        {WIRE_KIND(WEIGHTS), ACTOR | PRM | LEARNER, true}, {WIRE_KIND(REDUCE), LEARNER, true},
        {WIRE_KIND(OPEN_ITERATION), COORDINATOR, false}, {WIRE_KIND(PLAN), COORDINATOR, false},
        {WIRE_KIND(VERSIONS), COORDINATOR, false}, {WIRE_KIND(WORK), COORDINATOR, false},
        {WIRE_KIND(DRAIN), COORDINATOR | CLI, false}, {WIRE_KIND(WELCOME), COORDINATOR, false}, {WIRE_KIND(LEASE_GRANT), COORDINATOR, false},
        {WIRE_KIND(ACT_REPLY), ACTOR, false}, {WIRE_KIND(SCORE_REPLY), PRM, false}, {WIRE_KIND(DELIVER_REPLY), LEARNER, false},
        {WIRE_KIND(WEIGHTS_REPLY), LEARNER, false}, {WIRE_KIND(REDUCE_REPLY), LEARNER, false},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(expected); i++) {
        const struct wire_kind *kind = wire_kind(expected[i].kind);

        if (kind->senders != expected[i].senders || kind->idempotent != expected[i].idempotent)
            fail_msg("%s: senders %x, idempotent %d", kind->name, (unsigned)kind->senders, kind->idempotent);
    }
}

/* What it hands out lies apart, aligned for anything, and is its cap altogether at most. */
static void what_an_arena_hands_out(void **state)
{
    enum { PIECES = 300 };
    struct proto_arena arena;
    unsigned char *piece[PIECES];

    (void)state;
    proto_arena_init(&arena, 1 << 20);
    for (size_t i = 0; i < PIECES; i++) {
        piece[i] = arena.allocator.alloc(&arena, i + 1);
        assert_non_null(piece[i]);
        assert_int_equal((uintptr_t)piece[i] % 16, 0);
        memset(piece[i], (int)i, i + 1);
    }
    for (size_t i = 0; i < PIECES; i++)
        assert_true(piece[i][0] == (unsigned char)i && piece[i][i] == (unsigned char)i);
    proto_arena_release(&arena);
    proto_arena_init(&arena, 4096);
    assert_null(arena.allocator.alloc(&arena, SIZE_MAX - 3));
    assert_null(arena.allocator.alloc(&arena, 4097));
    assert_non_null(arena.allocator.alloc(&arena, 16));
    assert_non_null(arena.allocator.alloc(&arena, 4080));
    assert_null(arena.allocator.alloc(&arena, 1));
    proto_arena_release(&arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip), cmocka_unit_test(wrong_parts), cmocka_unit_test(long_error),
        cmocka_unit_test(other_major), cmocka_unit_test(limits),
        cmocka_unit_test(damaged), cmocka_unit_test(huge_counts), cmocka_unit_test(greedy_body), cmocka_unit_test(honest_bodies),
        cmocka_unit_test(kinds), cmocka_unit_test(who_may_say_what), cmocka_unit_test(what_an_arena_hands_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
