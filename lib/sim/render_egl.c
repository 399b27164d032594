/* Off-screen pictures: EGL without a window, one OpenGL context per renderer, MuJoCo's mjrContext per task.
 *
 * The EGL device is chosen by name, never left to a default: without that a machine with a broken GPU driver gives
 * an empty display and no reason. llvmpipe is told to work in the calling thread (LP_NUM_THREADS=0): its worker threads
 * halve the rate at 64x64. */
#include <EGL/egl.h>
#include <EGL/eglext.h>
#include <GL/gl.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/resource.h>

#include "base/clock.h"
#include "sim/cull.h"
#include "sim/mujoco_slot.h"
#include "sim/suite.h"

enum { MAX_DEVICES = 32 };
enum { MAX_GEOMS = 1000 };      /* to draw; geoms and sites of LIBERO's largest scenes (libero_spatial) are 301 together */

struct task_context {
    uint64_t serial;            /* of the sim_task */
    uint64_t used;              /* the renderer's clock when it was drawn last */
    mjrContext gl;
};

struct sim_renderer {
    int height, width;
    EGLDisplay display;
    EGLContext context;
    EGLSurface surface;         /* 1x1 where surfaceless contexts are unknown, else none */
    char name[128];             /* GL_RENDERER */
    bool software;              /* it computes on this CPU */
    bool passes_on;             /* SIM_DEVICE_NONE: there is no OpenGL behind it */
    mjvScene scene;
    mjvOption option;
    mjvCamera camera;
    uint8_t *upside_down;       /* (height, width, 3) as OpenGL gives it: bottom row first */
    struct task_context *tasks; /* [n_tasks], a handful; searched in order */
    int n_tasks, most;          /* most: the one drawn longest ago makes room beyond */
    uint64_t clock;
    bool cull, plain;
    uint64_t busy_ns;
};

static bool has_word(const char *list, const char *word)
{
    const char *at;
    size_t n = strlen(word);

    for (at = list; at && (at = strstr(at, word)); at += n)
        if ((at == list || at[-1] == ' ') && (at[n] == '\0' || at[n] == ' '))
            return true;
    return false;
}

static const char *egl_reason(void)
{
    switch (eglGetError()) {
    case EGL_SUCCESS: return "no error given";
    case EGL_NOT_INITIALIZED: return "EGL_NOT_INITIALIZED: no driver could be loaded (install libegl-mesa0 and libgl1-mesa-dri)";
    case EGL_BAD_ALLOC: return "EGL_BAD_ALLOC";
    case EGL_BAD_MATCH: return "EGL_BAD_MATCH";
    case EGL_BAD_CONFIG: return "EGL_BAD_CONFIG";
    case EGL_BAD_DISPLAY: return "EGL_BAD_DISPLAY";
    case EGL_BAD_PARAMETER: return "EGL_BAD_PARAMETER";
    default: return "an EGL error";
    }
}

/* A context on one device, current in the calling thread. */
static int open_on_device(struct sim_renderer *renderer, EGLDeviceEXT device, struct error *error)
{
    static const EGLint wanted[] = {
        EGL_SURFACE_TYPE, EGL_PBUFFER_BIT, EGL_RENDERABLE_TYPE, EGL_OPENGL_BIT,
        EGL_RED_SIZE, 8, EGL_GREEN_SIZE, 8, EGL_BLUE_SIZE, 8, EGL_DEPTH_SIZE, 24, EGL_NONE
    };
    static const EGLint one_pixel[] = { EGL_WIDTH, 1, EGL_HEIGHT, 1, EGL_NONE };
    PFNEGLGETPLATFORMDISPLAYEXTPROC get_display =
        (PFNEGLGETPLATFORMDISPLAYEXTPROC)(void *)eglGetProcAddress("eglGetPlatformDisplayEXT");
    const char *name;
    EGLConfig config;
    EGLint n = 0;

    if (!get_display)
        return error_set(error, ENOTSUP, "renderer: libEGL has no eglGetPlatformDisplayEXT (install libegl1 and libegl-mesa0)");
    renderer->display = get_display(EGL_PLATFORM_DEVICE_EXT, device, NULL);
    if (renderer->display == EGL_NO_DISPLAY || !eglInitialize(renderer->display, NULL, NULL))
        return error_set(error, ENODEV, "renderer: the EGL device does not start: %s", egl_reason());
    if (!eglChooseConfig(renderer->display, wanted, &config, 1, &n) || n < 1)
        return error_set(error, ENODEV, "renderer: the EGL device offers no RGB888 + depth 24 OpenGL configuration");
    if (!eglBindAPI(EGL_OPENGL_API))
        return error_set(error, ENOTSUP, "renderer: this EGL knows no desktop OpenGL: %s", egl_reason());
    renderer->context = eglCreateContext(renderer->display, config, EGL_NO_CONTEXT, NULL);
    if (renderer->context == EGL_NO_CONTEXT)
        return error_set(error, ENODEV, "renderer: no OpenGL context: %s", egl_reason());
    if (!has_word(eglQueryString(renderer->display, EGL_EXTENSIONS), "EGL_KHR_surfaceless_context"))
        renderer->surface = eglCreatePbufferSurface(renderer->display, config, one_pixel);
    if (!eglMakeCurrent(renderer->display, renderer->surface, renderer->surface, renderer->context))
        return error_set(error, ENODEV, "renderer: the OpenGL context cannot be made current: %s", egl_reason());

    name = (const char *)glGetString(GL_RENDERER);
    snprintf(renderer->name, sizeof(renderer->name), "%s", name ? name : "unknown");
    return 0;
}

static void close_egl(struct sim_renderer *renderer)
{
    if (renderer->display == EGL_NO_DISPLAY)
        return;
    eglMakeCurrent(renderer->display, EGL_NO_SURFACE, EGL_NO_SURFACE, EGL_NO_CONTEXT);
    if (renderer->surface != EGL_NO_SURFACE)
        eglDestroySurface(renderer->display, renderer->surface);
    if (renderer->context != EGL_NO_CONTEXT)
        eglDestroyContext(renderer->display, renderer->context);
    renderer->display = EGL_NO_DISPLAY;
    renderer->surface = EGL_NO_SURFACE;
    renderer->context = EGL_NO_CONTEXT;
}

/* device as in sim_renderer_open. */
static int open_egl(struct sim_renderer *renderer, int device, struct error *error)
{
    PFNEGLQUERYDEVICESEXTPROC query = (PFNEGLQUERYDEVICESEXTPROC)(void *)eglGetProcAddress("eglQueryDevicesEXT");
    PFNEGLQUERYDEVICESTRINGEXTPROC text =
        (PFNEGLQUERYDEVICESTRINGEXTPROC)(void *)eglGetProcAddress("eglQueryDeviceStringEXT");
    EGLDeviceEXT devices[MAX_DEVICES];
    EGLint n = 0, i;
    int r;

    if (!query || !text)
        return error_set(error, ENOTSUP,
                         "renderer: libEGL has no EGL_EXT_device_enumeration (install libegl1 and libegl-mesa0)");
    if (!query(MAX_DEVICES, devices, &n) || n == 0)
        return error_set(error, ENODEV,
                         "renderer: EGL sees no device (install libegl-mesa0 and libgl1-mesa-dri for software rendering)");
    if (device >= n)
        return error_set(error, ENODEV, "renderer: EGL device %d was asked for, there are %d (0 to %d)", device, n, n - 1);

    r = error_set(error, ENODEV, "renderer: none of the %d EGL devices %s (install libgl1-mesa-dri)", n,
                  device == -1 ? "renders in software" : "works");
    /* -2: those that are no software first, wherever they stand in the list */
    for (i = 0; i < 2 * n; i++) {
        bool software = has_word(text(devices[i % n], EGL_EXTENSIONS), "EGL_MESA_device_software");

        if (device >= 0 ? i != device : device == -1 ? !software || i >= n : software != (i >= n))
            continue;
        r = open_on_device(renderer, devices[i % n], error);
        renderer->software = software;
        if (r == 0)
            return 0;
        close_egl(renderer);
    }
    return r;
}

/* A driver that finds no room for its libraries says that there are none. */
static int name_limit(int r, struct error *error)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_AS, &limit) < 0 || limit.rlim_cur == RLIM_INFINITY)
        return r;
    return error_prefix(error, r, "ulimit -v is %llu MiB, which may be too little", (unsigned long long)limit.rlim_cur >> 20);
}

int sim_renderer_open(int device, int height, int width, struct sim_renderer **ret, struct error *error)
{
    struct sim_renderer *renderer;
    int r;

    if (height < 8 || width < 8 || height > 4096 || width > 4096)
        return error_set(error, EINVAL, "renderer: image size %dx%d is outside 8..4096", height, width);
    if (device == SIM_DEVICE_NONE) {
        renderer = calloc(1, sizeof(*renderer));
        if (!renderer)
            return error_set(error, ENOMEM, "renderer: out of memory");
        *renderer = (struct sim_renderer) { .height = height, .width = width, .name = "the simulator itself", .passes_on = true };
        *ret = renderer;
        return 0;
    }
    setenv("LP_NUM_THREADS", "0", 0);       /* before the driver is loaded; the user's own value wins */
    /* Mesa's cache on disk has a thread of nice 19. A process that was killed is not gone before each of its threads has run once
     * more, and on a busy machine that one waits for seconds: so long nobody starts another in its place. Compiling anew costs
     * 0.1 s. */
    if (device == -1)
        setenv("MESA_SHADER_CACHE_DISABLE", "true", 0);

    renderer = calloc(1, sizeof(*renderer));
    if (!renderer)
        return error_set(error, ENOMEM, "renderer: out of memory");
    renderer->cull = true;
    renderer->most = SIM_RENDERER_TASKS;
    renderer->height = height;
    renderer->width = width;
    renderer->upside_down = malloc((size_t)height * (size_t)width * 3);
    r = renderer->upside_down ? open_egl(renderer, device, error) : error_set(error, ENOMEM, "renderer: out of memory");
    if (r < 0) {
        free(renderer->upside_down);
        free(renderer);
        return name_limit(r, error);
    }
    mjv_defaultOption(&renderer->option);
    mjv_defaultCamera(&renderer->camera);
    mjv_defaultScene(&renderer->scene);
    *ret = renderer;
    return 0;
}

struct sim_renderer *sim_renderer_close(struct sim_renderer *renderer)
{
    int i;

    if (!renderer)
        return NULL;
    if (renderer->passes_on) {
        free(renderer);
        return NULL;
    }
    for (i = 0; i < renderer->n_tasks; i++)
        mjr_freeContext(&renderer->tasks[i].gl);
    mjv_freeScene(&renderer->scene);
    close_egl(renderer);
    free(renderer->tasks);
    free(renderer->upside_down);
    free(renderer);
    return NULL;
}

const char *sim_renderer_name(const struct sim_renderer *renderer)
{
    return renderer->name;
}

bool sim_renderer_is_software(const struct sim_renderer *renderer)
{
    return renderer->software;
}

void sim_renderer_set_cull(struct sim_renderer *renderer, bool cull)
{
    renderer->cull = cull;
}

void sim_renderer_set_plain(struct sim_renderer *renderer, bool plain)
{
    renderer->plain = plain;
}

uint64_t sim_renderer_busy_ns(const struct sim_renderer *renderer)
{
    return renderer->busy_ns;
}

void sim_renderer_keep(struct sim_renderer *renderer, int most)
{
    renderer->most = most;
}

/* A place for one more. NULL: no memory. */
static struct task_context *room(struct sim_renderer *renderer)
{
    struct task_context *oldest = renderer->tasks, *grown;

    if (renderer->n_tasks >= renderer->most) {
        for (int i = 1; i < renderer->n_tasks; i++)
            if (renderer->tasks[i].used < oldest->used)
                oldest = &renderer->tasks[i];
        mjr_freeContext(&oldest->gl);
        return oldest;
    }
    grown = realloc(renderer->tasks, sizeof(*grown) * (size_t)(renderer->n_tasks + 1));
    if (!grown)
        return NULL;
    renderer->tasks = grown;
    return &grown[renderer->n_tasks++];
}

/* How often edges are sampled is the model's word alone: a shallow copy has another. */
static void make_context(const struct sim_renderer *renderer, const mjModel *model, mjrContext *ret)
{
    mjModel drawn = *model;

    if (renderer->plain)
        drawn.vis.quality.offsamples = 0;
    mjr_defaultContext(ret);
    mjr_makeContext(&drawn, ret, mjFONTSCALE_50);
}

/* The task's OpenGL resources, made when it is first drawn, and again when they have made room for another's. NULL: no memory. */
static mjrContext *context_of(struct sim_renderer *renderer, const struct sim_task *task, const mjModel *model)
{
    struct task_context *its = NULL;

    for (int i = 0; i < renderer->n_tasks && !its; i++)
        its = renderer->tasks[i].serial == task->serial ? &renderer->tasks[i] : NULL;
    if (!its) {
        its = room(renderer);
        if (!its)
            return NULL;
        if (!renderer->scene.maxgeom)
            mjv_makeScene(model, &renderer->scene, MAX_GEOMS);
        make_context(renderer, model, &its->gl);
        mjr_resizeOffscreen(renderer->width, renderer->height, &its->gl);
        its->serial = task->serial;
    }
    its->used = ++renderer->clock;
    return &its->gl;
}

/* robosuite takes MuJoCo's defaults: shadow, reflection, sky box, haze, culling; the built-in suite culling alone. */
static void set_flags(mjvScene *scene, const struct mujoco_view *view, bool plain)
{
    for (int i = 0; i < mjNRNDFLAG; i++)
        scene->flags[i] = view->benchmark && mjRNDSTRING[i][1][0] == '1';
    scene->flags[mjRND_CULL_FACE] = 1;
    if (plain)
        scene->flags[mjRND_REFLECTION] = 0;
}

static void paint(mjvScene *scene, const struct mujoco_view *view)
{
    int i, p;

    for (i = 0; i < scene->ngeom; i++)
        for (p = 0; p < view->n_paint; p++)
            if (scene->geoms[i].objtype == mjOBJ_GEOM && scene->geoms[i].objid == view->paint[p].geom)
                memcpy(scene->geoms[i].rgba, view->paint[p].rgba, sizeof(view->paint[p].rgba));
}

/* Draws into renderer->upside_down, bottom row first as OpenGL gives it. */
static int draw(struct sim_renderer *renderer, struct sim_slot *slot, int camera)
{
    const mjrRect viewport = { 0, 0, renderer->width, renderer->height };
    struct mujoco_view view;
    mjrContext *gl;
    uint64_t begun;

    slot->task->driver->view(slot, camera, &view);
    gl = context_of(renderer, slot->task, view.model);
    if (!gl)
        return -ENOMEM;

    begun = clock_cpu_ns();
    renderer->camera.type = mjCAMERA_FIXED;
    renderer->camera.fixedcamid = view.camera;
    renderer->option.geomgroup[0] = !view.benchmark;
    mjv_updateScene(view.model, view.data, &renderer->option, NULL, &renderer->camera, mjCAT_ALL, &renderer->scene);
    set_flags(&renderer->scene, &view, renderer->plain);
    paint(&renderer->scene, &view);
    if (renderer->cull)
        (void)scene_cull(view.model, &renderer->scene, renderer->width, renderer->height);

    mjr_setBuffer(mjFB_OFFSCREEN, gl);
    mjr_render(viewport, &renderer->scene, gl);
    mjr_readPixels(renderer->upside_down, NULL, viewport, gl);
    renderer->busy_ns += clock_cpu_ns() - begun;
    return 0;
}

int sim_render(struct sim_renderer *renderer, struct sim_slot *slot, uint8_t *ret_rgb)
{
    return sim_render_camera(renderer, slot, 0, ret_rgb);
}

int sim_render_camera(struct sim_renderer *renderer, struct sim_slot *slot, int camera, uint8_t *ret_rgb)
{
    const struct sim_suite_driver *driver = slot->task->driver;
    const size_t row = (size_t)renderer->width * 3;
    int r, y;

    if (camera < 0 || camera >= slot->task->info->cameras)
        return -EINVAL;
    if (driver->picture)
        return driver->picture(slot, camera, renderer->height, renderer->width, ret_rgb);
    if (renderer->passes_on)
        return -ENOTSUP;
    r = draw(renderer, slot, camera);
    for (y = 0; r == 0 && y < renderer->height; y++)
        memcpy(ret_rgb + row * (size_t)y, renderer->upside_down + row * (size_t)(renderer->height - 1 - y), row);
    return r;
}
