#include "cli/plot.h"

#include <errno.h>
#include <math.h>

enum { WIDTH = 560, HEIGHT = 250, LEFT = 52, RIGHT = 12, TOP = 30, BOTTOM = 38 };

/* Okabe and Ito's palette: told apart also by those who see few colours. */
static const char *const colours[] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#999999"};

void html_escape(struct strbuf *out, const char *text)
{
    for (; *text; text++) {
        switch (*text) {
        case '&': strbuf_adds(out, "&amp;"); break;
        case '<': strbuf_adds(out, "&lt;"); break;
        case '>': strbuf_adds(out, "&gt;"); break;
        case '"': strbuf_adds(out, "&quot;"); break;
        default: strbuf_addc(out, *text);
        }
    }
}

static double *copy_points(const double *points, int n)
{
    double *copy = malloc((size_t)(n > 0 ? n : 1) * sizeof *copy);

    if (copy && n > 0)
        memcpy(copy, points, (size_t)n * sizeof *copy);
    return copy;
}

static int add_series(struct plot *plot, const char *name, const double *x, const double *y, const double *y2, int n, enum plot_style style)
{
    struct plot_series *s;

    if (plot->count == PLOT_MAX_SERIES)
        return -ENOSPC;
    s = &plot->series[plot->count];
    *s = (struct plot_series) {.x = copy_points(x, n), .y = copy_points(y, n), .n = n, .style = style};
    if (y2)
        s->y2 = copy_points(y2, n);
    if (!s->x || !s->y || (y2 && !s->y2)) {
        free(s->x);
        free(s->y);
        free(s->y2);
        return -ENOMEM;
    }
    snprintf(s->name, sizeof s->name, "%s", name);
    plot->count++;
    return 0;
}

int plot_line(struct plot *plot, const char *name, const double *x, const double *y, int n, enum plot_style style)
{
    return add_series(plot, name, x, y, NULL, n, style);
}

int plot_band(struct plot *plot, const char *name, const double *x, const double *low, const double *high, int n)
{
    return add_series(plot, name, x, low, high, n, PLOT_BAND);
}

void plot_release(struct plot *plot)
{
    for (int i = 0; i < plot->count; i++) {
        free(plot->series[i].x);
        free(plot->series[i].y);
        free(plot->series[i].y2);
    }
    plot->count = 0;
}

static void widen(double *low, double *high, double value)
{
    if (!isfinite(value))
        return;
    *low = fmin(*low, value);
    *high = fmax(*high, value);
}

struct plot_frame plot_frame(const struct plot *plot)
{
    struct plot_frame f = {INFINITY, -INFINITY, INFINITY, -INFINITY};

    for (int i = 0; i < plot->count; i++) {
        const struct plot_series *s = &plot->series[i];

        for (int k = 0; k < s->n; k++) {
            widen(&f.x0, &f.x1, s->x[k]);
            widen(&f.y0, &f.y1, s->y[k]);
            if (s->y2)
                widen(&f.y0, &f.y1, s->y2[k]);
        }
    }
    for (int i = 0; i < plot->n_x_names; i++) { /* with room beside the first and the last */
        widen(&f.x0, &f.x1, i - .5);
        widen(&f.x0, &f.x1, i + .5);
    }
    if (!(f.x0 < f.x1)) {
        f.x0 = isfinite(f.x0) ? f.x0 - 1 : 0;
        f.x1 = f.x0 + 2;
    }
    if (plot->y_min < plot->y_max) {
        f.y0 = plot->y_min;
        f.y1 = plot->y_max;
    } else if (!(f.y0 < f.y1)) {
        f.y0 = isfinite(f.y0) ? f.y0 - 1 : 0;
        f.y1 = f.y0 + 2;
    }
    return f;
}

static double px(const struct plot_frame *f, double x)
{
    return LEFT + (x - f->x0) / (f->x1 - f->x0) * (WIDTH - LEFT - RIGHT);
}

static double py(const struct plot_frame *f, double y)
{
    return HEIGHT - BOTTOM - (CLAMP(y, f->y0, f->y1) - f->y0) / (f->y1 - f->y0) * (HEIGHT - TOP - BOTTOM);
}

double plot_tick_step(double span, int count)
{
    double raw = span / count, power = pow(10, floor(log10(raw))), lead = raw / power;

    return power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
}

static void write_axes(const struct plot *plot, const struct plot_frame *f, struct strbuf *out)
{
    double step = plot_tick_step(f->y1 - f->y0, 5), v;

    for (v = ceil(f->y0 / step) * step; v <= f->y1 + step * 1e-6; v += step)
        strbuf_addf(out, "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='#ddd'/><text x='%d' y='%.1f' text-anchor='end'>%.4g</text>",
                    LEFT, WIDTH - RIGHT, py(f, v), py(f, v), LEFT - 6, py(f, v) + 4, fabs(v) < step * 1e-6 ? 0 : v);
    step = plot_tick_step(f->x1 - f->x0, 6);
    for (int i = 0; i < plot->n_x_names; i++) {
        strbuf_addf(out, "<text x='%.1f' y='%d' text-anchor='middle'>", px(f, i), HEIGHT - BOTTOM + 15);
        html_escape(out, plot->x_names[i]);
        strbuf_adds(out, "</text>");
    }
    for (v = ceil(f->x0 / step) * step; !plot->n_x_names && v <= f->x1 + step * 1e-6; v += step)
        strbuf_addf(out, "<text x='%.1f' y='%d' text-anchor='middle'>%.4g</text>", px(f, v), HEIGHT - BOTTOM + 15, fabs(v) < step * 1e-6 ? 0 : v);
    strbuf_addf(out, "<text x='%d' y='18' class='title'>", LEFT);
    html_escape(out, plot->title ? plot->title : "");
    strbuf_addf(out, "</text><text x='%d' y='%d' text-anchor='middle'>", (LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6);
    html_escape(out, plot->x_label ? plot->x_label : "");
    strbuf_adds(out, "</text>");
}

static void write_band(const struct plot_series *s, const struct plot_frame *f, const char *colour, struct strbuf *out)
{
    strbuf_addf(out, "<polygon fill='%s' fill-opacity='.18' points='", colour);
    for (int k = 0; k < s->n; k++)
        strbuf_addf(out, "%.1f,%.1f ", px(f, s->x[k]), py(f, s->y[k]));
    for (int k = s->n - 1; k >= 0; k--)
        strbuf_addf(out, "%.1f,%.1f ", px(f, s->x[k]), py(f, s->y2[k]));
    strbuf_adds(out, "'/>");
}

static void write_dots(const struct plot_series *s, const struct plot_frame *f, const char *colour, struct strbuf *out)
{
    for (int k = 0; k < s->n; k++)
        if (isfinite(s->y[k]))
            strbuf_addf(out, "<circle cx='%.1f' cy='%.1f' r='3' fill='%s'/>", px(f, s->x[k]), py(f, s->y[k]), colour);
}

static void write_polyline(const struct plot_series *s, const struct plot_frame *f, const char *colour, struct strbuf *out)
{
    bool open = false;

    for (int k = 0; k < s->n; k++) {
        if (!isfinite(s->y[k])) {
            if (open)
                strbuf_adds(out, "'/>");
            open = false;
            continue;
        }
        if (!open)
            strbuf_addf(out, "<polyline fill='none' stroke='%s' stroke-width='%s' %s points='", colour,
                        s->style == PLOT_THICK ? "2.4" : "1", s->style == PLOT_THICK ? "" : "stroke-opacity='.45'");
        open = true;
        strbuf_addf(out, "%.1f,%.1f ", px(f, s->x[k]), py(f, s->y[k]));
    }
    if (open)
        strbuf_adds(out, "'/>");
}

void plot_write(const struct plot *plot, struct strbuf *out)
{
    struct plot_frame f = plot_frame(plot);
    int legend_x = LEFT + 8, legend_y = TOP + 12;

    strbuf_addf(out, "<svg class='plot' viewBox='0 0 %d %d' width='%d' height='%d' role='img'>", WIDTH, HEIGHT, WIDTH, HEIGHT);
    write_axes(plot, &f, out);
    for (int i = 0; i < plot->count; i++) {
        const struct plot_series *s = &plot->series[i];
        const char *colour = colours[(size_t)i % ARRAY_SIZE(colours)];

        if (s->style == PLOT_BAND)
            write_band(s, &f, colour, out);
        else if (s->style == PLOT_DOTS)
            write_dots(s, &f, colour, out);
        else
            write_polyline(s, &f, colour, out);
        if (legend_x > LEFT + 8 && legend_x + 6 * (int)strlen(s->name) > WIDTH - RIGHT) {
            legend_x = LEFT + 8;
            legend_y += 13;
        }
        strbuf_addf(out, "<text x='%d' y='%d' style='fill:%s;paint-order:stroke;stroke:#fff;stroke-width:3px'>", legend_x, legend_y, colour);
        html_escape(out, s->name);
        strbuf_adds(out, "</text>");
        legend_x += 14 + 6 * (int)strlen(s->name);
    }
    strbuf_adds(out, "</svg>\n");
}
