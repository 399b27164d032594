#include "cli/plot_png.h"

#include <errno.h>
#include <math.h>

#include "image/draw.h"

enum { WIDTH = 960, HEIGHT = 540, LEFT = 80, RIGHT = 24, TOP = 64, BOTTOM = 56 };
static const struct rgb ink = {40, 40, 40}, grid = {225, 225, 225};
static const struct rgb colours[] = {{0, 114, 178}, {213, 94, 0},   {0, 158, 115}, {204, 121, 167},
                                     {230, 159, 0}, {86, 180, 233}, {0, 0, 0}, {153, 153, 153}};

struct canvas {
    struct image image;
    struct plot_frame frame;
};

static int px(const struct canvas *c, double x)
{
    return (int)lround(LEFT + (x - c->frame.x0) / (c->frame.x1 - c->frame.x0) * (WIDTH - LEFT - RIGHT));
}

static int py(const struct canvas *c, double y)
{
    double clipped = CLAMP(y, c->frame.y0, c->frame.y1);

    return (int)lround(HEIGHT - BOTTOM - (clipped - c->frame.y0) / (c->frame.y1 - c->frame.y0) * (HEIGHT - TOP - BOTTOM));
}

static void centred(struct canvas *c, int x, int y, const char *text)
{
    draw_text(&c->image, x - (int)strlen(text) * DRAW_ADVANCE / 2, y, text, ink);
}

static void draw_axes(struct canvas *c, const struct plot *plot)
{
    double step = plot_tick_step(c->frame.y1 - c->frame.y0, 6), v;
    char text[32];

    for (v = ceil(c->frame.y0 / step) * step; v <= c->frame.y1 + step * 1e-6; v += step) {
        plot_tick_text(v, step, text, sizeof text);
        draw_line(&c->image, LEFT, py(c, v), WIDTH - RIGHT, py(c, v), 1, grid);
        draw_text(&c->image, LEFT - 8 - (int)strlen(text) * DRAW_ADVANCE, py(c, v) - DRAW_LINE / 2, text, ink);
    }
    step = plot_x_step(plot, c->frame.x1 - c->frame.x0, 8);
    for (int i = 0; i < plot->n_x_names; i++)
        centred(c, px(c, i), HEIGHT - BOTTOM + 10, plot->x_names[i]);
    for (v = ceil(c->frame.x0 / step) * step; !plot->n_x_names && v <= c->frame.x1 + step * 1e-6; v += step) {
        plot_tick_text(v, step, text, sizeof text);
        centred(c, px(c, v), HEIGHT - BOTTOM + 10, text);
    }
    draw_text(&c->image, LEFT, 12, plot->title ? plot->title : "", ink);
    centred(c, (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 20, plot->x_label ? plot->x_label : "");
}

/* A band is as many whiskers as it has points, and a pale line along each edge. */
static void draw_series(struct canvas *c, const struct plot_series *s, struct rgb colour)
{
    const struct rgb pale = {(uint8_t)(128 + colour.r / 2), (uint8_t)(128 + colour.g / 2), (uint8_t)(128 + colour.b / 2)};

    for (int k = 0; k < s->n; k++) {
        int x = px(c, s->x[k]), y = py(c, s->y[k]);

        if (!isfinite(s->y[k]))
            continue;
        if (s->style == PLOT_BAND)
            draw_line(&c->image, x, y, x, py(c, s->y2[k]), 2, pale);
        if (s->style == PLOT_DOTS)
            draw_box(&c->image, x - 3, y - 3, 7, 7, colour);
        if (s->style != PLOT_DOTS && k > 0 && isfinite(s->y[k - 1])) {
            draw_line(&c->image, px(c, s->x[k - 1]), py(c, s->y[k - 1]), x, y, s->style == PLOT_THICK ? 3 : 1,
                      s->style == PLOT_BAND ? pale : colour);
            if (s->style == PLOT_BAND)
                draw_line(&c->image, px(c, s->x[k - 1]), py(c, s->y2[k - 1]), x, py(c, s->y2[k]), 1, pale);
        }
    }
}

static int write_png(const struct plot *plot, const char *path, struct error *error)
{
    struct canvas c = {.image = {.height = HEIGHT, .width = WIDTH}, .frame = plot_frame(plot)};
    int legend = LEFT, line = 32, r;

    c.image.rgb = malloc((size_t)WIDTH * HEIGHT * 3);
    if (!c.image.rgb)
        return error_set(error, ENOMEM, "%s: out of memory", path);
    memset(c.image.rgb, 255, (size_t)WIDTH * HEIGHT * 3);
    draw_axes(&c, plot);
    for (int pass = 0; pass < 2; pass++) /* bands lie under everything */
        for (int i = 0; i < plot->count; i++)
            if ((plot->series[i].style == PLOT_BAND) == (pass == 0))
                draw_series(&c, &plot->series[i], colours[(size_t)plot->series[i].colour % ARRAY_SIZE(colours)]);
    for (int i = 0; i < plot->count; i++) {
        int width = (int)strlen(plot->series[i].name) * DRAW_ADVANCE + 20;

        if (!plot->series[i].name[0])
            continue;
        if (legend + width > WIDTH - RIGHT && legend > LEFT) {
            legend = LEFT;
            line += DRAW_LINE + 4;
        }
        draw_text(&c.image, legend, line, plot->series[i].name, colours[(size_t)plot->series[i].colour % ARRAY_SIZE(colours)]);
        legend += width;
    }
    r = image_write_png(path, c.image.rgb, HEIGHT, WIDTH);
    free(c.image.rgb);
    return r < 0 ? error_set(error, -r, "%s: cannot be written: %s", path, strerror(-r)) : 0;
}

int plot_finish_png(struct plot *plot, int drawn, const char *path, struct error *error)
{
    int r = drawn < 0 ? error_set(error, -drawn, "%s: the plot cannot be drawn: %s", path, strerror(-drawn)) : write_png(plot,
            path, error);

    plot_release(plot);
    return r;
}
