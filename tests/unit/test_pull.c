/* test_pull.c - bringing files over: whole and in order whatever gets lost, never more under way than allowed, resumed from what
 * is there. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "base/macro.h"
#include "serve/pull.h"

enum { FILES = 5, LONGEST = 4000, CHUNK = 64, UNDER_WAY = 16 * CHUNK, QUEUE = 256 };

static const struct pull_limits limits = {.chunk_least = CHUNK / 4, .chunk_most = CHUNK, .under_way = UNDER_WAY,
                                          .unsized = LONGEST};

/* A learner and a disk: what each file is, and what has been written of it. */
struct world {
    uint64_t random, now_ms;
    uint64_t size[FILES], on_disk[FILES];
    unsigned char there[FILES][LONGEST], here[FILES][LONGEST];
    struct pull pull;
    struct { struct pull_event event; uint64_t at_ms; } queue[QUEUE];
    size_t n_queue;
    unsigned loss, damage, slow, twice; /* of a thousand */
    uint64_t asked, most_under_way;
    unsigned restarts, forgotten;
    bool done, failed;
    int result;
    char text[400];
};

/* What a learner says of a run that lies as deep as this one: whole, its end is what matters. */
#define REFUSAL "/work/groups/manipulation/experiments/2026-11-30-tabletop-openvla-lora-r32-frontier-centred-seed-7/restarted-" \
    "after-the-move/runs/gantry/policies/v000007/model-00003-of-00007.safetensors is not there (any more)"

static uint64_t draw(struct world *w, uint64_t below)
{
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (w->random >> 33) % below;
}

static void later(struct world *w, struct pull_event event, uint64_t ms)
{
    assert_true(w->n_queue < QUEUE);
    w->queue[w->n_queue].event = event;
    w->queue[w->n_queue++].at_ms = w->now_ms + ms;
}

static void asked(struct world *w, const struct pull_effect *effect)
{
    struct pull_event event = {.kind = PULL_CHUNK, .file = effect->file, .offset = effect->offset,
                               .file_size = w->size[effect->file]};
    uint64_t left = w->size[effect->file] - MIN(effect->offset, w->size[effect->file]);

    event.size = (uint32_t)MIN((uint64_t)effect->size, left);
    w->asked += event.size;
    assert_in_range(effect->size, 1, CHUNK);
    if (draw(w, 1000) < w->loss) {
        event.result = (const int[]) {-ETIMEDOUT, -ECONNRESET, -EBUSY, -EIO}[draw(w, 4)];
        later(w, event, effect->timeout_ms);
    } else {
        later(w, event, 1 + draw(w, draw(w, 1000) < w->slow ? 5000 : 30));
        if (w->twice && draw(w, 1000) < w->twice)       /* its answer, and once more that of an earlier asking */
            later(w, event, 1 + draw(w, 60));
    }
}

static void written(struct world *w, const struct pull_effect *effect)
{
    struct pull_event event = {.kind = PULL_WRITTEN, .file = effect->file, .offset = effect->offset};
    bool damaged = draw(w, 1000) < w->damage;

    assert_true(effect->offset <= w->on_disk[effect->file]);    /* in order, no hole */
    w->on_disk[effect->file] = effect->offset + effect->size;
    memcpy(w->here[effect->file] + effect->offset, w->there[effect->file] + effect->offset, effect->size);
    if (damaged && effect->size)
        w->here[effect->file][effect->offset] ^= 1;
    if (effect->last && (w->on_disk[effect->file] != w->size[effect->file] ||
                         memcmp(w->here[effect->file], w->there[effect->file], w->size[effect->file])))
        event.result = -EBADMSG;
    later(w, event, draw(w, 10));
}

static void forget(struct world *w, const struct pull_effect *effect)
{
    size_t n = 0;

    w->forgotten++;
    for (size_t i = 0; i < w->n_queue; i++)
        if (w->queue[i].event.kind != PULL_CHUNK || w->queue[i].event.file != effect->file ||
            w->queue[i].event.offset != effect->offset)
            w->queue[n++] = w->queue[i];
    w->n_queue = n;
}

static void step(struct world *w, const struct pull_event *event)
{
    struct pull_effects out;
    uint64_t under_way = 0;

    pull_step(&w->pull, event, w->now_ms, &out);
    assert_true(out.n <= PULL_EFFECTS);
    for (size_t i = 0; i < out.n; i++)
        switch (out.items[i].kind) {
        case PULL_ASK: asked(w, &out.items[i]); break;
        case PULL_WRITE: written(w, &out.items[i]); break;
        case PULL_FORGET: forget(w, &out.items[i]); break;
        case PULL_RESTART: w->restarts++; break;
        case PULL_DONE: w->done = true; break;
        case PULL_FAILED:
            w->failed = true;
            w->result = out.items[i].result;
            snprintf(w->text, sizeof w->text, "%s", out.items[i].text);
            break;
        }
    for (uint32_t i = 0; i < w->pull.n; i++)
        under_way += w->pull.ring[(w->pull.head + i) % PULL_WINDOW].size;
    w->most_under_way = MAX(w->most_under_way, under_way);
}

static void begin(struct world *w, bool sized)
{
    struct pull_file files[FILES];

    for (int i = 0; i < FILES; i++)
        files[i] = (struct pull_file) {.name = "model.safetensors", .size = w->size[i], .have = w->on_disk[i], .sized = sized ||
                                       i > 0};
    w->n_queue = 0;
    w->done = w->failed = false;
    assert_int_equal(pull_init(&w->pull, files, FILES, &limits, w->random), 0);
    step(w, &(struct pull_event) {.kind = PULL_TICK});
}

/* Until it ends, or `events` have happened. */
static void play(struct world *w, size_t events)
{
    uint64_t tick_ms = w->now_ms;

    for (size_t k = 0; k < events && !w->done && !w->failed; k++) {
        size_t next = SIZE_MAX;

        for (size_t i = 0; i < w->n_queue; i++)
            if (next == SIZE_MAX || w->queue[i].at_ms < w->queue[next].at_ms)
                next = i;
        if (next == SIZE_MAX || w->queue[next].at_ms > tick_ms + 200) {
            w->now_ms = tick_ms += 200;
            step(w, &(struct pull_event) {.kind = PULL_TICK});
        } else {
            struct pull_event event = w->queue[next].event;

            w->now_ms = MAX(w->now_ms, w->queue[next].at_ms);
            w->queue[next] = w->queue[--w->n_queue];
            step(w, &event);
        }
    }
}

static void fill(struct world *w, uint64_t seed)
{
    memset(w, 0, sizeof *w);
    w->random = seed;
    for (int i = 0; i < FILES; i++) {
        w->size[i] = draw(w, 4) ? draw(w, LONGEST) : draw(w, 2) * CHUNK;     /* also none, and one whole chunk */
        for (uint64_t k = 0; k < w->size[i]; k++)
            w->there[i][k] = (unsigned char)draw(w, 256);
    }
}

static void assert_whole(struct world *w)
{
    if (!w->done)
        fail_msg("not done: %d %s; file %u offset %llu, %u in the ring (first: %d), written %llu of %llu, wait %lld", w->result,
                 w->text, w->pull.file, (unsigned long long)w->pull.offset, w->pull.n, (int)w->pull.ring[w->pull.head].state,
                 (unsigned long long)w->pull.written, (unsigned long long)w->pull.total,
                 (long long)(w->pull.wait_until_ms - w->now_ms));
    for (int i = 0; i < FILES; i++) {
        assert_int_equal(w->on_disk[i], w->size[i]);
        if (w->size[i])
            assert_memory_equal(w->here[i], w->there[i], w->size[i]);
    }
}

static uint64_t total(const struct world *w)
{
    uint64_t sum = 0;

    for (int i = 0; i < FILES; i++)
        sum += w->size[i];
    return sum;
}

static void test_comes_whole(void **state)
{
    static struct world w;

    (void)state;
    for (uint64_t seed = 1; seed <= 500; seed++) {
        fill(&w, seed);
        begin(&w, seed % 2);
        play(&w, 100000);
        assert_whole(&w);
        assert_int_equal(w.asked, total(&w));           /* nothing twice */
        assert_int_equal(w.pull.written, total(&w));
        assert_true(w.most_under_way <= UNDER_WAY + CHUNK);
    }
}

/* Losses, slow answers, crashes that leave a beginning on disk: whole in the end, and what was there is not asked for again. */
static void test_whatever_gets_lost(void **state)
{
    static struct world w;
    unsigned resumed = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 1000; seed++) {
        fill(&w, seed);
        w.loss = (unsigned)draw(&w, 200);
        w.slow = (unsigned)draw(&w, 200);
        w.twice = (unsigned)draw(&w, 200);
        for (int life = 0; life < 50 && !w.done; life++) {
            uint64_t had = 0;

            for (int i = seed % 2 ? 0 : 1; i < FILES; i++)
                had += w.on_disk[i];
            begin(&w, seed % 2);
            assert_true(w.pull.written >= had);
            resumed += had > 0;
            play(&w, life < 5 ? draw(&w, 100) : 100000);
            assert_true(!w.failed || w.result == -EAGAIN);
        }
        assert_whole(&w);
    }
    assert_true(resumed > 500);
}

static void test_damage(void **state)
{
    static struct world w;

    (void)state;
    fill(&w, 5);
    w.size[2] = 1000;
    memset(w.there[2], 7, 1000);
    w.on_disk[2] = 500;                                 /* what lies there is something else */
    begin(&w, true);
    play(&w, 100000);
    assert_whole(&w);
    fill(&w, 5);
    for (int i = 0; i < FILES; i++) {                   /* all of what a crash left is something else */
        w.size[i] = 1000;
        memset(w.there[i], 7, 1000);
        w.on_disk[i] = 200 * (uint64_t)i;
    }
    begin(&w, true);
    assert_int_equal(w.pull.written, 2000);
    play(&w, 100000);
    assert_whole(&w);
    assert_int_equal(w.restarts, FILES - 1);
    assert_int_equal(w.pull.written, FILES * 1000);
    fill(&w, 6);
    w.damage = 1000;                                    /* a disk that turns bits each time */
    begin(&w, true);
    play(&w, 100000);
    assert_true(w.failed);
    assert_int_equal(w.result, -EBADMSG);
    assert_non_null(strstr(w.text, "also when they are brought again"));
    assert_int_equal(w.restarts, 1);
}

static void test_refusals(void **state)
{
    static struct pull_file many[PULL_FILES + 1];
    static struct world w;
    struct pull_event event = {.kind = PULL_CHUNK, .result = -ESTALE,
                               .text = REFUSAL};

    (void)state;
    fill(&w, 7);
    w.size[0] = 1000;
    begin(&w, true);
    step(&w, &event);
    assert_true(w.failed && w.result == -ESTALE && strstr(w.text, REFUSAL));
    assert_true(w.forgotten == 1 && w.n_queue == 0);    /* what was asked for is not waited for */
    begin(&w, true);                                    /* another file than the manifest says */
    event = (struct pull_event) {.kind = PULL_CHUNK, .size = 10, .file_size = 10};
    step(&w, &event);
    assert_true(w.failed && w.result == -EBADMSG);
    begin(&w, false);                                   /* a manifest that is too long */
    event = (struct pull_event) {.kind = PULL_CHUNK, .size = CHUNK, .file_size = LONGEST + 1};
    step(&w, &event);
    assert_true(w.failed && w.result == -EFBIG);
    w.loss = 1000;                                      /* nobody there */
    begin(&w, true);
    play(&w, 100000);
    assert_true(w.failed && w.result == -EAGAIN);
    assert_true(w.now_ms < 300000);
    begin(&w, true);
    event = (struct pull_event) {.kind = PULL_WRITTEN, .result = -ENOSPC};
    w.loss = 0;
    while (w.pull.n == 0 || w.pull.ring[w.pull.head].state != PULL_WRITING)
        play(&w, 1);
    event.offset = w.pull.ring[w.pull.head].offset;
    step(&w, &event);
    assert_true(w.failed && w.result == -ENOSPC);
    assert_int_equal(pull_init(&w.pull, NULL, 0, &limits, 1), -EINVAL);
    assert_int_equal(pull_init(&w.pull, many, PULL_FILES + 1, &limits, 1), -E2BIG);
    assert_int_equal(pull_init(&w.pull, many, PULL_FILES, &limits, 1), 0);
}

/* One large file, and a pull that has asked for its first chunk at time 0; *out are the last step's effects. */
static void ask_first(struct pull *pull, uint64_t seed, struct pull_effects *out)
{
    const struct pull_file file = {.name = "model.safetensors", .size = 1 << 20, .sized = true};

    assert_int_equal(pull_init(pull, &file, 1, &limits, seed), 0);
    pull_step(pull, &(struct pull_event) {.kind = PULL_TICK}, 0, out);
    assert_int_equal(out->n, 1);
    assert_int_equal(out->items[0].kind, PULL_ASK);
    assert_int_equal(out->items[0].size, limits.chunk_least);
}

static void answered(struct pull *pull, uint64_t offset, int result, uint64_t now_ms, struct pull_effects *out)
{
    struct pull_event event = {.kind = PULL_CHUNK, .offset = offset, .result = result, .file_size = 1 << 20};

    for (uint32_t i = 0; i < pull->n; i++)
        if (pull->ring[(pull->head + i) % PULL_WINDOW].offset == offset)
            event.size = pull->ring[(pull->head + i) % PULL_WINDOW].size;
    pull_step(pull, &event, now_ms, out);
}

/* Asked again after 100 ms, doubling to 5 s, each a quarter more or less, and not before; PULL_TRIES in a row are the end, and a
 * chunk between them begins the count anew. */
static void test_retries(void **state)
{
    static const uint64_t usual_ms[PULL_TRIES - 1] = {100, 200, 400, 800, 1600, 3200, 5000, 5000, 5000, 5000, 5000};
    uint64_t least = UINT64_MAX, most = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 200; seed++) {
        struct pull_effects out;
        struct pull pull;
        uint64_t now_ms = 1000;

        ask_first(&pull, seed, &out);
        for (int i = 0; i < PULL_TRIES - 1; i++) {
            uint64_t wait_ms;

            answered(&pull, 0, -ETIMEDOUT, now_ms, &out);
            assert_int_equal(out.n, 0);
            wait_ms = pull.wait_until_ms - now_ms;
            assert_in_range(wait_ms, usual_ms[i] * 3 / 4, usual_ms[i] * 5 / 4);
            least = MIN(least, wait_ms * 1000 / usual_ms[i]);
            most = MAX(most, wait_ms * 1000 / usual_ms[i]);
            now_ms += wait_ms - 1;
            pull_step(&pull, &(struct pull_event) {.kind = PULL_TICK}, now_ms, &out);
            assert_int_equal(out.n, 0);
            pull_step(&pull, &(struct pull_event) {.kind = PULL_TICK}, ++now_ms, &out);
            assert_int_equal(out.n, 1);
            assert_int_equal(out.items[0].kind, PULL_ASK);
        }
        if (seed % 2) {
            answered(&pull, 0, -ETIMEDOUT, now_ms, &out);
            assert_int_equal(out.n, 2);
            assert_int_equal(out.items[0].kind, PULL_FORGET);
            assert_int_equal(out.items[1].result, -EAGAIN);
            assert_non_null(strstr(out.items[1].text, "has not answered 12 times in a row: Connection timed out"));
        } else {
            uint64_t next = limits.chunk_least;

            answered(&pull, 0, 0, now_ms, &out);
            assert_int_equal(out.items[0].kind, PULL_WRITE);
            answered(&pull, next, -EBUSY, now_ms, &out);
            assert_in_range(pull.wait_until_ms - now_ms, 75, 125);
        }
    }
    assert_in_range(least, 750, 790);
    assert_in_range(most, 1210, 1250);
}

/* Chunks that are lost together are one failure, and are asked for again one by one; what will not pass is the end at once. */
static void test_one_loss(void **state)
{
    static const int passing[] = {ETIMEDOUT, ECONNRESET, EBUSY, ESHUTDOWN, ESRCH, EIO, ENOBUFS, EAGAIN, ENOMEM},
                     lasting[] = {EACCES, ENOENT, ESTALE, EBADMSG, EPROTO, EINVAL};
    struct pull_effects out;
    struct pull pull;

    (void)state;
    ask_first(&pull, 1, &out);
    pull.allowance = limits.under_way;
    pull_step(&pull, &(struct pull_event) {.kind = PULL_TICK}, 0, &out);
    assert_in_range(pull.n, 2, PULL_WINDOW);
    for (uint32_t i = pull.n; i-- > 0;) {
        answered(&pull, pull.ring[i].offset, -ECONNRESET, 10, &out);
        assert_int_equal(out.n, 0);
        assert_int_equal(pull.failures, 1);
    }
    assert_int_equal(pull.allowance, limits.chunk_least);
    pull_step(&pull, &(struct pull_event) {.kind = PULL_TICK}, pull.wait_until_ms, &out);
    assert_int_equal(out.n, 1);
    assert_int_equal(out.items[0].offset, 0);

    for (size_t i = 0; i < ARRAY_SIZE(passing); i++) {
        ask_first(&pull, 1, &out);
        answered(&pull, 0, -passing[i], 10, &out);
        assert_false(pull.ended);
    }
    for (size_t i = 0; i < ARRAY_SIZE(lasting); i++) {
        ask_first(&pull, 1, &out);
        answered(&pull, 0, -lasting[i], 10, &out);
        assert_true(pull.ended);
        assert_int_equal(out.n, 2);
        assert_int_equal(out.items[1].result, -lasting[i]);
    }
}

/* More under way while answers come within half a second, half when one takes more than two, between its least and its most. */
static void test_allowance(void **state)
{
    static const struct { uint64_t took_ms, before, after; } cases[] = {
        {499, 400, 500}, {499, 16, 32}, {499, 1000, UNDER_WAY}, {500, 400, 400}, {2000, 400, 400}, {2001, 400, 200}, {2001, 20, 16},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        struct pull_effects out;
        struct pull pull;

        ask_first(&pull, 1, &out);
        pull.allowance = cases[i].before;
        answered(&pull, 0, 0, cases[i].took_ms, &out);
        assert_int_equal(pull.allowance, cases[i].after);
    }
}

/* What is under way follows the link. */
static void test_slow_link(void **state)
{
    static struct world w;

    (void)state;
    fill(&w, 8);
    for (int i = 0; i < FILES; i++)
        w.size[i] = LONGEST;
    begin(&w, true);
    assert_int_equal(w.pull.n, 1);                      /* carefully at first */
    play(&w, 200);
    assert_true(w.pull.allowance > 4 * CHUNK);
    w.loss = 1000;
    play(&w, 120);
    assert_int_equal(w.pull.allowance, limits.chunk_least);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_comes_whole), cmocka_unit_test(test_whatever_gets_lost), cmocka_unit_test(test_damage),
        cmocka_unit_test(test_refusals), cmocka_unit_test(test_slow_link),
        cmocka_unit_test(test_retries), cmocka_unit_test(test_one_loss), cmocka_unit_test(test_allowance),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
