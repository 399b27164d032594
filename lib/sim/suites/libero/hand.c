#include "sim/suites/libero/hand.h"

#include <math.h>
#include <string.h>

#include "base/macro.h"

#define PAD_INSIDE 0.0395
#define MARGIN 0.003

/* In the grip site's frame: closing axis, across, along the fingers; measured on the model's collision meshes. */
struct box {
    double lo[3], hi[3];
};
static const struct box open_fingers[] = {
    {{PAD_INSIDE, -HAND_THIN, -.03}, {.0545, HAND_THIN, HAND_TIP}}, /* fingers' ends */
    {{-.0545, -HAND_THIN, -.03}, {-PAD_INSIDE, HAND_THIN, HAND_TIP}},
    {{.0425, -.0105, -.12}, {.0665, .0105, -.026}}, /* fingers */
    {{-.0665, -.0105, -.12}, {-.0425, .0105, -.026}},
};
static const struct box closed_fingers[] = {
    {{-.015, -HAND_THIN, -.03}, {.015, HAND_THIN, HAND_TIP}},
    {{-.027, -.0105, -.12}, {.027, .0105, -.026}},
};
static const struct box palm[] = {
    {{-.104, -.023, -.095}, {.104, .023, -.031}},
    {{-.104, -.032, -.123}, {.104, .032, -.095}},
    {{-.056, -.045, -.25}, {.056, .045, -.123}}, /* the wrist */
};

void hand_upright(double yaw, double ret_R[9])
{
    const double c = cos(yaw), s = sin(yaw);
    const double R[9] = {-s, c, 0, c, s, 0, 0, 0, -1};

    memcpy(ret_R, R, sizeof(R));
}

double hand_yaw(const double R[9])
{
    const bool by_closing = hypot(R[0], R[3]) > hypot(R[1], R[4]);

    return by_closing ? atan2(-R[0], R[3]) : atan2(R[4], R[1]);
}

double hand_turned(const double R[9])
{
    double rest[9], trace;

    hand_upright(0, rest);
    trace = mju_dot(rest, R, 9);
    return acos(CLAMP((trace - 1) / 2, -1.0, 1.0));
}

static struct shape placed(const struct box *of, const double x[3], const double R[9])
{
    struct shape box = {.thing = -1};
    double middle[3], offset[3];

    for (int i = 0; i < 3; i++) {
        middle[i] = (of->lo[i] + of->hi[i]) / 2;
        box.half[i] = (of->hi[i] - of->lo[i]) / 2 + (i == 2 ? MARGIN / 3 : MARGIN);
    }
    memcpy(box.R, R, sizeof(box.R));
    mju_mulMatVec3(offset, R, middle);
    mju_add3(box.c, x, offset);
    box.r = mju_norm3(box.half);
    return box;
}

/* skip: furniture alone counts, and that body of it does not. */
static bool is_free(const struct shapes *shapes, const struct shape *box, const int *skip)
{
    for (int k = 0; k < shapes->n; k++)
        if ((!skip || (!shapes->at[k].movable && shapes->at[k].body != *skip)) && shape_overlaps(box, &shapes->at[k]))
            return false;
    return true;
}

static bool all_free(const struct shapes *shapes, const double x[3], const double R[9], enum hand_fingers fingers,
                     const int *skip)
{
    const struct box *boxes[] = {fingers == HAND_OPEN ? open_fingers : closed_fingers, palm};
    const size_t n[] = {fingers == HAND_OPEN ? ARRAY_SIZE(open_fingers) : ARRAY_SIZE(closed_fingers), ARRAY_SIZE(palm)};

    for (size_t i = 0; i < ARRAY_SIZE(boxes); i++)
        for (size_t b = 0; b < n[i]; b++) {
            const struct shape box = placed(&boxes[i][b], x, R);

            if (!is_free(shapes, &box, skip))
                return false;
        }
    return true;
}

bool hand_is_free(const struct shapes *shapes, const double x[3], const double R[9], enum hand_fingers fingers)
{
    return all_free(shapes, x, R, fingers, NULL);
}

bool hand_is_free_but(int body, const struct shapes *shapes, const double x[3], const double R[9], enum hand_fingers fingers)
{
    return all_free(shapes, x, R, fingers, &body);
}

double hand_hangs(const double R[9])
{
    double hangs = 0;

    for (int b = 0; b < (int)(ARRAY_SIZE(open_fingers) + ARRAY_SIZE(palm)); b++) {
        const struct box *box = b < (int)ARRAY_SIZE(palm) ? &palm[b] : &open_fingers[b - (int)ARRAY_SIZE(palm)];
        double below = 0;

        for (int i = 0; i < 3; i++)
            below += fmax(-R[6 + i] * box->lo[i], -R[6 + i] * box->hi[i]);
        hangs = fmax(hangs, below);
    }
    return hangs;
}
