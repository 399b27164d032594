/* An actor and a learner that multiply otherwise are named, with the remedy; who does not matter is not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "coordinator/membership.h"
#include "coordinator/products.h"

static struct member member(enum member_role role, const char *isa)
{
    struct member m = {.id = role, .role = role, .state = MEMBER_ALIVE, .host = "h"};

    snprintf(m.isa, sizeof m.isa, "%s", isa);
    return m;
}

/* NULL: alike */
static const char *unlike(enum numerics numerics, struct member here, struct member comes)
{
    static char text[PRODUCTS_TEXT];
    struct member both[] = {here, comes};
    struct membership members = {.items = both, .n = 2};

    text[0] = '\0';
    return products_unlike(&members, &both[1], numerics, text, sizeof text) ? text : NULL;
}

static void who_multiplies_otherwise(void **state)
{
    struct member learner = member(MEMBER_LEARNER, "amx"), actor = member(MEMBER_ACTOR, "avx512bf16");
    const char *said;

    (void)state;
    assert_string_equal(unlike(NUMERICS_FAST, learner, actor),
                        "member 3 (actor on h) multiplies by avx512bf16, member 5 (learner on h) by amx: their log-probabilities "
                        "differ a little (logp_gap in the metrics); GANTRY_ISA=avx512bf16 in the environment of all daemons "
                        "makes them equal");
    assert_non_null(unlike(NUMERICS_FAST, actor, learner));             /* whoever comes later */
    assert_null(unlike(NUMERICS_STRICT, learner, actor));               /* these bits are everybody's */
    assert_null(unlike(NUMERICS_FAST, member(MEMBER_LEARNER, "avx2"), member(MEMBER_ACTOR, "avx512")));
    said = unlike(NUMERICS_FAST, learner, member(MEMBER_ACTOR, "avx2"));
    assert_non_null(strstr(said, "by strict, member 5 (learner on h) by amx: "));
    assert_non_null(strstr(said, "; numerics: strict makes them equal"));
    assert_non_null(strstr(unlike(NUMERICS_STRICT, learner, member(MEMBER_ACTOR, "")), "; put both on devices, or neither"));
    assert_null(unlike(NUMERICS_STRICT, member(MEMBER_LEARNER, ""), member(MEMBER_ACTOR, "")));
}

static void who_does_not_matter(void **state)
{
    struct member learner = member(MEMBER_LEARNER, "amx"), gone = learner, actor = member(MEMBER_ACTOR, "avx512bf16");

    (void)state;
    gone.state = MEMBER_GONE;
    assert_null(unlike(NUMERICS_FAST, gone, actor));
    assert_null(unlike(NUMERICS_FAST, actor, member(MEMBER_ACTOR, "amx")));     /* two actors: each must equal the learner */
    assert_non_null(unlike(NUMERICS_FAST, learner, member(MEMBER_LEARNER, "avx512bf16")));      /* ranks add up one gradient */
    assert_null(unlike(NUMERICS_FAST, learner, member(MEMBER_PRM, "avx512bf16")));
    assert_null(unlike(NUMERICS_FAST, learner, member(MEMBER_WORKER, "")));
    assert_null(unlike(NUMERICS_FAST, member(MEMBER_WORKER, ""), learner));
    assert_null(unlike(NUMERICS_FAST, member(MEMBER_PRM, ""), actor));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(who_multiplies_otherwise), cmocka_unit_test(who_does_not_matter)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
