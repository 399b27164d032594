#include "cli/plot.h"

#include <errno.h>
#include <math.h>

/* The frame's size, and what is around it; a legend's lines come between title and frame. */
enum { WIDTH = 560, LEFT = 56, RIGHT = 12, FRAME = 182, TOP = 30, BOTTOM = 38, LEGEND_LINE = 16 };

struct drawing { struct plot_frame view; int top; };    /* top: where the frame begins */

/* Okabe and Ito's palette: told apart also by those who see few colours. Its blue and its black are the page's, which may be dark
 * (daemon/page_style.h). */
static const char *const colours[] = {"var(--blue)", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "currentColor",
                                      "#999999"};

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

static int add_series(struct plot *plot, const char *name, const double *x, const double *y, const double *y2, int n,
                      enum plot_style style)
{
    struct plot_series *s;

    if (plot->count == PLOT_MAX_SERIES)
        return -ENOSPC;
    s = &plot->series[plot->count];
    *s = (struct plot_series) {.x = copy_points(x, n), .y = copy_points(y, n), .n = n, .style = style, .colour = plot->colours};
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
    plot->colours++;
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

int plot_spread(struct plot *plot, const double *x, const double *low, const double *high, int n)
{
    int r;

    plot->colours--;
    r = add_series(plot, "", x, low, high, n, PLOT_BAND);
    plot->colours += r < 0;
    return r;
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

/* Values that are alike to their last digits get a range that steps of ticks can cross. */
static void part(double *low, double *high)
{
    double least = 1e-9 * fmax(fabs(*low), fabs(*high));

    if (*high - *low < least) {
        *low -= least;
        *high += least;
    }
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
    part(&f.x0, &f.x1);
    part(&f.y0, &f.y1);
    return f;
}

static double px(const struct drawing *d, double x)
{
    return LEFT + (x - d->view.x0) / (d->view.x1 - d->view.x0) * (WIDTH - LEFT - RIGHT);
}

static double py(const struct drawing *d, double y)
{
    return d->top + FRAME - (CLAMP(y, d->view.y0, d->view.y1) - d->view.y0) / (d->view.y1 - d->view.y0) * FRAME;
}

double plot_tick_step(double span, int count)
{
    double raw = span / count, power = pow(10, floor(log10(raw))), lead = raw / power;

    return power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
}

double plot_x_step(const struct plot *plot, double span, int count)
{
    double step = plot_tick_step(span, count);

    for (int i = 0; i < plot->count; i++)
        for (int k = 0; k < plot->series[i].n; k++)
            if (plot->series[i].x[k] != rint(plot->series[i].x[k]))
                return step;
    return fmax(step, 1);
}

void plot_tick_text(double value, double step, char *ret, size_t size)
{
    int decimals = step > 0 && step < 1 ? (int)ceil(-log10(step) - 1e-9) : 0;

    if (decimals > 6 || fabs(value) >= 1e7)
        snprintf(ret, size, "%.3g", value);
    else
        snprintf(ret, size, "%.*f", decimals, fabs(value) < step * 1e-6 ? 0 : value);
}

static void write_axes(const struct plot *plot, const struct drawing *d, struct strbuf *out)
{
    const struct plot_frame *f = &d->view;
    double step = plot_tick_step(f->y1 - f->y0, 5), v;
    int below = d->top + FRAME;
    char text[32];

    for (v = ceil(f->y0 / step) * step; v <= f->y1 + step * 1e-6; v += step) {
        plot_tick_text(v, step, text, sizeof text);
        strbuf_addf(out, "<line x1='%d' x2='%d' y1='%.1f' y2='%.1f' stroke='var(--line)'/>"
                    "<text x='%d' y='%.1f' text-anchor='end'>%s</text>", LEFT, WIDTH - RIGHT, py(d, v), py(d, v),
                    LEFT - 6, py(d, v) + 4, text);
    }
    step = plot_x_step(plot, f->x1 - f->x0, 6);
    for (int i = 0; i < plot->n_x_names; i++) {
        strbuf_addf(out, "<text x='%.1f' y='%d' text-anchor='middle'>", px(d, i), below + 15);
        html_escape(out, plot->x_names[i]);
        strbuf_adds(out, "</text>");
    }
    for (v = ceil(f->x0 / step) * step; !plot->n_x_names && v <= f->x1 + step * 1e-6; v += step) {
        plot_tick_text(v, step, text, sizeof text);
        strbuf_addf(out, "<text x='%.1f' y='%d' text-anchor='middle'>%s</text>", px(d, v), below + 15, text);
    }
    strbuf_addf(out, "<text x='%d' y='18' class='title'>", LEFT);
    html_escape(out, plot->title ? plot->title : "");
    strbuf_addf(out, "</text><text x='%d' y='%d' text-anchor='middle'>", (LEFT + WIDTH - RIGHT) / 2, below + BOTTOM - 6);
    html_escape(out, plot->x_label ? plot->x_label : "");
    strbuf_adds(out, "</text>");
}

static void write_band(const struct plot_series *s, const struct drawing *d, const char *colour, struct strbuf *out)
{
    strbuf_addf(out, "<polygon fill='%s' fill-opacity='.18' points='", colour);
    for (int k = 0; k < s->n; k++)
        strbuf_addf(out, "%.1f,%.1f ", px(d, s->x[k]), py(d, s->y[k]));
    for (int k = s->n - 1; k >= 0; k--)
        strbuf_addf(out, "%.1f,%.1f ", px(d, s->x[k]), py(d, s->y2[k]));
    strbuf_adds(out, "'/>");
}

static void write_dots(const struct plot_series *s, const struct drawing *d, const char *colour, struct strbuf *out)
{
    for (int k = 0; k < s->n; k++)
        if (isfinite(s->y[k]))
            strbuf_addf(out, "<circle cx='%.1f' cy='%.1f' r='3' fill='%s'/>", px(d, s->x[k]), py(d, s->y[k]), colour);
}

static void write_polyline(const struct plot_series *s, const struct drawing *d, const char *colour, struct strbuf *out)
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
        strbuf_addf(out, "%.1f,%.1f ", px(d, s->x[k]), py(d, s->y[k]));
    }
    if (open)
        strbuf_adds(out, "'/>");
}

/* Names in their colours, line by line; NULL: only how many lines that takes. */
static int write_legend(const struct plot *plot, struct strbuf *out)
{
    int x = LEFT, line = 0;

    for (int i = 0; i < plot->count; i++) {
        const struct plot_series *s = &plot->series[i];
        const char *colour = colours[(size_t)s->colour % ARRAY_SIZE(colours)];
        int width = 38 + 6 * (int)strlen(s->name), y;

        if (!s->name[0])
            continue;
        if (!line || (x + width > WIDTH - RIGHT && x > LEFT)) {
            x = LEFT;
            line++;
        }
        y = TOP + (line - 1) * LEGEND_LINE;
        if (out) {
            if (s->style == PLOT_DOTS)
                strbuf_addf(out, "<circle cx='%d' cy='%d' r='3' fill='%s'/>", x + 8, y, colour);
            else
                strbuf_addf(out, "<line x1='%d' x2='%d' y1='%d' y2='%d' stroke='%s' stroke-width='%s'/>", x, x + 16, y, y, colour,
                            s->style == PLOT_BAND ? "8' stroke-opacity='.3" : s->style == PLOT_THICK ? "2.4" : "1");
            strbuf_addf(out, "<text x='%d' y='%d'>", x + 21, y + 4);
            html_escape(out, s->name);
            strbuf_adds(out, "</text>");
        }
        x += width;
    }
    return line;
}

void plot_write(const struct plot *plot, struct strbuf *out)
{
    struct drawing d = {plot_frame(plot), TOP + write_legend(plot, NULL) * LEGEND_LINE};
    int height = d.top + FRAME + BOTTOM;

    strbuf_addf(out, "<svg class='plot' viewBox='0 0 %d %d' width='%d' height='%d' role='img'>", WIDTH, height, WIDTH, height);
    if (plot->hint) {
        strbuf_adds(out, "<title>");
        html_escape(out, plot->hint);
        strbuf_adds(out, "</title>");
    }
    write_axes(plot, &d, out);
    for (int i = 0; i < plot->count; i++) {
        const struct plot_series *s = &plot->series[i];
        const char *colour = colours[(size_t)s->colour % ARRAY_SIZE(colours)];

        if (s->style == PLOT_BAND)
            write_band(s, &d, colour, out);
        else if (s->style == PLOT_DOTS)
            write_dots(s, &d, colour, out);
        else
            write_polyline(s, &d, colour, out);
    }
    write_legend(plot, out);
    strbuf_adds(out, "</svg>\n");
}
