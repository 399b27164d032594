/* bddl.h - LIBERO's task description: (define (problem P) ... (:regions R) (:fixtures F) (:objects O) (:init S) (:goal G)).
 *
 * The text is lower-cased, `;` starts a comment. Groups may come in any order; unknown groups, predicates and names are
 * refused with file and line. Strings belong to the problem. Bounded: 1 MB of text, 64 of each thing. */
#pragma once

#include <stdbool.h>

#include "base/error.h"

enum { BDDL_MAX = 64 };

enum bddl_predicate { BDDL_ON, BDDL_IN, BDDL_OPEN, BDDL_CLOSE, BDDL_TURNON, BDDL_TURNOFF, BDDL_UP, BDDL_PREDICATES };
extern const char *const bddl_predicate_name[BDDL_PREDICATES];

struct bddl_thing {             /* an object or a fixture */
    char *name;                 /* akita_black_bowl_1 */
    char *category;             /* akita_black_bowl */
};

struct bddl_region {
    char *name;                 /* <target>_<region>: wooden_cabinet_1_top_region */
    char *target;               /* a workspace, object or fixture */
    bool has_range;
    double range[4];            /* x0 y0 x1 y1, m, relative to the workspace */
    double yaw[2];              /* rad, low and high; 0 0 unless given */
    double rgba[4];             /* 0 0 1 0 unless given */
};

struct bddl_statement {         /* (predicate first second) or (predicate first) */
    enum bddl_predicate predicate;
    char *first, *second;       /* second NULL: unary */
    int line;
};

struct bddl_problem {
    char *file;                 /* for messages */
    char *problem;              /* libero_tabletop_manipulation */
    char *language;             /* the words of :language; policies see the task's own wording instead */
    struct bddl_thing objects[BDDL_MAX], fixtures[BDDL_MAX];    /* grouped by category, categories by first appearance */
    int n_objects, n_fixtures;
    struct bddl_region regions[BDDL_MAX];                       /* in file order */
    int n_regions;
    struct bddl_statement init[BDDL_MAX], goal[BDDL_MAX];       /* in file order; goal: a conjunction */
    int n_init, n_goal;
};

int bddl_read(const char *path, struct bddl_problem **ret, struct error *error);
int bddl_parse(const char *name, const char *text, size_t n, struct bddl_problem **ret, struct error *error);
struct bddl_problem *bddl_free(struct bddl_problem *problem);
DEFINE_FREEP(struct bddl_problem, bddl_free)

const struct bddl_region *bddl_region(const struct bddl_problem *problem, const char *name);    /* NULL: none */
