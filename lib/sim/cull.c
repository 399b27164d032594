#include "sim/cull.h"

#include <math.h>
#include <stdbool.h>

/* A side of the frustum: inside is where normal . p >= at. World frame. */
struct side {
    double normal[3], at;
};

enum { SIDES = 5, MIRRORS_MAX = 16 }; /* near, left, right, bottom, top; far away is never cut */

struct frustum {
    struct side side[SIDES];
};

struct box {
    double c[3], axis[3][3]; /* centre; half axes, with their lengths */
};

struct camera {
    double pos[3], forward[3], up[3], right[3];
    double left, width_right, bottom, top, near; /* of the near plane's window */
};

static const double slack = 1e-3; /* m: more than rounding, far less than what could matter */

static void read_camera(const mjvScene *scene, int width, int height, struct camera *ret)
{
    const mjvGLCamera mean = mjv_averageCamera(scene->camera, scene->camera + 1);
    double half;

    for (int i = 0; i < 3; i++) {
        ret->pos[i] = (double)mean.pos[i];
        ret->forward[i] = (double)mean.forward[i];
        ret->up[i] = (double)mean.up[i];
    }
    mju_cross(ret->right, ret->forward, ret->up);
    ret->bottom = (double)mean.frustum_bottom;
    ret->top = (double)mean.frustum_top;
    ret->near = (double)mean.frustum_near;
    half = mean.frustum_width > 0 ? (double)mean.frustum_width : .5 * (ret->top - ret->bottom) * width / height;
    ret->left = (double)mean.frustum_center - half;
    ret->width_right = (double)mean.frustum_center + half;
}

static void set_side(struct side *side, const struct camera *c, double x, double y, double z)
{
    for (int i = 0; i < 3; i++)
        side->normal[i] = x * c->right[i] + y * c->up[i] + z * c->forward[i];
    mju_normalize3(side->normal);
    side->at = mju_dot3(side->normal, c->pos);
}

/* What is seen through the window left..right, bottom..top of the near plane. */
static void make_frustum(const struct camera *c, double left, double right, double bottom, double top, struct frustum *ret)
{
    set_side(&ret->side[0], c, 0, 0, 1);
    ret->side[0].at += c->near;
    set_side(&ret->side[1], c, c->near, 0, -left);
    set_side(&ret->side[2], c, -c->near, 0, right);
    set_side(&ret->side[3], c, 0, c->near, -bottom);
    set_side(&ret->side[4], c, 0, -c->near, top);
}

static bool box_of(const mjModel *model, const mjvGeom *geom, struct box *ret)
{
    const double *aabb;

    if (geom->objtype != mjOBJ_GEOM || geom->objid < 0 || geom->type == mjGEOM_PLANE)
        return false;
    aabb = model->geom_aabb + 6 * geom->objid;
    for (int i = 0; i < 3; i++) {
        ret->c[i] = (double)geom->pos[i];
        for (int k = 0; k < 3; k++) {
            ret->c[i] += (double)geom->mat[3 * i + k] * aabb[k];
            ret->axis[k][i] = (double)geom->mat[3 * i + k] * aabb[3 + k];
        }
    }
    return true;
}

static bool outside(const struct frustum *f, const struct box *box, double more)
{
    for (int s = 0; s < SIDES; s++) {
        const double *n = f->side[s].normal;
        double reach = mju_dot3(n, box->c) - f->side[s].at + more;

        for (int k = 0; k < 3; k++)
            reach += fabs(mju_dot3(n, box->axis[k]));
        if (reach < 0)
            return true;
    }
    return false;
}

/* ---- mirrors ---------------------------------------------------------------------------------------------- */

struct mirror {
    struct frustum seen; /* what the camera sees through its outline */
    double point[3], normal[3], thick;
};

static bool is_mirror(const mjvGeom *geom)
{
    return geom->reflectance > 0 && (geom->type == mjGEOM_PLANE || geom->type == mjGEOM_BOX);
}

/* The outline as a rectangle of the near plane's window; false: it reaches behind the camera. */
static bool outline(const struct camera *c, const struct box *box, double ret[4])
{
    ret[0] = ret[2] = 1e9;
    ret[1] = ret[3] = -1e9;
    for (int corner = 0; corner < 8; corner++) {
        double p[3], depth, x, y;

        mju_sub3(p, box->c, c->pos);
        for (int k = 0; k < 3; k++)
            mju_addToScl3(p, box->axis[k], corner >> k & 1 ? 1 : -1);
        depth = mju_dot3(p, c->forward);
        if (depth < 2 * c->near)
            return false;
        x = c->near * mju_dot3(p, c->right) / depth;
        y = c->near * mju_dot3(p, c->up) / depth;
        ret[0] = fmin(ret[0], x);
        ret[1] = fmax(ret[1], x);
        ret[2] = fmin(ret[2], y);
        ret[3] = fmax(ret[3], y);
    }
    return true;
}

static void make_mirror(const mjModel *model, const struct camera *c, const mjvGeom *geom, int width, int height,
                        struct mirror *ret)
{
    const double pixel = (c->top - c->bottom) / height, column = (c->width_right - c->left) / width;
    double window[4];
    struct box box;

    for (int i = 0; i < 3; i++) {
        ret->normal[i] = (double)geom->mat[3 * i + 2];
        ret->point[i] = (double)geom->pos[i];
    }
    ret->thick = geom->type == mjGEOM_BOX ? (double)geom->size[2] : 0;
    if (!box_of(model, geom, &box) || !outline(c, &box, window)) {
        make_frustum(c, c->left, c->width_right, c->bottom, c->top, &ret->seen);
        return;
    }
    make_frustum(c, fmax(c->left, window[0] - column), fmin(c->width_right, window[1] + column),
                 fmax(c->bottom, window[2] - pixel), fmin(c->top, window[3] + pixel), &ret->seen);
}

/* Is its image outside? Whichever face of the mirror it is that reflects: they are `thick` from the middle. */
static bool image_outside(const struct mirror *m, const struct box *box)
{
    struct box image = *box;
    double away[3];

    mju_sub3(away, box->c, m->point);
    mju_addToScl3(image.c, m->normal, -2 * mju_dot3(away, m->normal));
    for (int k = 0; k < 3; k++)
        mju_addToScl3(image.axis[k], m->normal, -2 * mju_dot3(box->axis[k], m->normal));
    return outside(&m->seen, &image, 2 * m->thick + slack);
}

int scene_cull(const mjModel *model, mjvScene *scene, int width, int height)
{
    struct mirror mirrors[MIRRORS_MAX];
    struct frustum view;
    struct camera camera;
    struct box box;
    int kept = 0, n_mirrors = 0, before = scene->ngeom;

    for (int i = 0; i < scene->nlight; i++)
        if (scene->flags[mjRND_SHADOW] && scene->lights[i].castshadow)
            return 0;
    read_camera(scene, width, height, &camera);
    make_frustum(&camera, camera.left, camera.width_right, camera.bottom, camera.top, &view);
    for (int i = 0; i < scene->ngeom && scene->flags[mjRND_REFLECTION]; i++) {
        const mjvGeom *geom = &scene->geoms[i];

        if (!is_mirror(geom) || (box_of(model, geom, &box) && outside(&view, &box, slack)))
            continue;
        if (n_mirrors == MIRRORS_MAX)
            return 0;
        make_mirror(model, &camera, geom, width, height, &mirrors[n_mirrors++]);
    }
    for (int i = 0; i < scene->ngeom; i++) {
        bool shown = !box_of(model, &scene->geoms[i], &box) || !outside(&view, &box, slack);

        for (int k = 0; k < n_mirrors && !shown; k++)
            shown = !image_outside(&mirrors[k], &box);
        if (shown)
            scene->geoms[kept++] = scene->geoms[i];
    }
    scene->ngeom = kept;
    return before - kept;
}
