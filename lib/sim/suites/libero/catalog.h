/* catalog.h - what LIBERO's Python classes say, as tables: suites, arenas, object categories. Constant data.
 *
 * Sources: libero/benchmark/libero_suite_task_map.py, libero/envs/problems, arenas, objects (LIBERO 8f1084e). */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct libero_suite {
    const char *name;           /* libero_spatial */
    int max_steps;              /* of the published evaluation protocol, without the wait steps */
    const char *const *tasks;   /* file stems, in benchmark order */
    int n_tasks;
};
extern const struct libero_suite libero_suites[];
enum { LIBERO_SUITES = 5, LIBERO_WAIT_STEPS = 10, LIBERO_TEST_STATES = 50 };     /* rows of every .pruned_init */

struct libero_camera {
    const char *name;
    double pos[3], quat[4];     /* m; w x y z */
};

/* A problem class and its arena. */
struct libero_arena {
    const char *problem;        /* libero_tabletop_manipulation */
    const char *scene;          /* file below assets/scenes */
    const char *workspace;      /* the fixture that is the work surface; regions on it become sites */
    const char *body;           /* the body these sites hang on */
    const char *floor, *wall;   /* texture files */
    double offset[3];           /* of the workspace, m */
    bool offset_sites;          /* region sites lie at range centre + offset xy */
    double site_z;              /* their z in `body` */
    bool mounted;               /* robot on the RethinkMount, else on the ground */
    double base[3];             /* robot's base before the mount's offset, m */
    double fixture_z;           /* z of a fixture's bottom above the workspace */
    bool shrink_regions;        /* movable objects keep their radius inside the region */
    double table_half[3];       /* 0: the XML's own table */
    const char *table_friction;
    struct libero_camera cameras[4];    /* set or added, in this order; name NULL ends */
};
const struct libero_arena *libero_arena(const char *problem);       /* NULL: unknown */

struct libero_category {
    const char *name;           /* akita_black_bowl */
    const char *file;           /* below assets, without .xml */
    struct { int draws; char about; double range[2]; } rotation;        /* of a placement, rad; draws 2: about x and z */
    /* A joint is open (closed, on, off) beyond the threshold in the direction of the sign; sign 0: never defined. */
    struct libero_threshold { int sign; double at; bool inclusive; double draw[2]; } open, close, turnon, turnoff;
};
const struct libero_category *libero_category(const char *name);    /* NULL: unknown */
