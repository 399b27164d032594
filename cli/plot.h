/* plot.h - line charts as inline SVG, for report.html. No scripts, no fonts, nothing to load.
 *
 *   struct plot plot = {.title = "Success", .x_label = "iteration", .y_min = 0, .y_max = 1};
 *   plot_line(&plot, "train, mean of 10", x, y, n, PLOT_THICK);
 *   plot_band(&plot, "95 %", x, low, high, n);
 *   plot_write(&plot, &html);  plot_release(&plot);
 *
 * Title and legend lie above the frame, so that nothing covers a curve; a series without a name is not in the legend. Points that
 * are NaN leave a gap. Text is escaped here. */
#pragma once

#include "base/strbuf.h"

enum { PLOT_MAX_SERIES = 16 };
enum plot_style { PLOT_THIN, PLOT_THICK, PLOT_DOTS, PLOT_BAND };

struct plot_series {
    char name[64];
    double *x, *y, *y2;         /* owned copies; y2: upper edge of a band */
    int n;
    enum plot_style style;
    int colour;                 /* of the palette */
};

struct plot {
    const char *title, *x_label;      /* borrowed */
    const char *hint;           /* borrowed; shown where a pointer rests on the plot; NULL: nothing */
    double y_min, y_max;        /* equal: taken from the points */
    const char *const *x_names; /* borrowed; x = 0, 1, .. n_x_names - 1 are told by these instead of as numbers */
    int n_x_names;
    struct plot_series series[PLOT_MAX_SERIES];
    int count, colours;         /* how many of the palette are taken */
};

/* Copies the points. More than PLOT_MAX_SERIES series: -ENOSPC. */
int plot_line(struct plot *plot, const char *name, const double *x, const double *y, int n, enum plot_style style);
int plot_band(struct plot *plot, const char *name, const double *x, const double *low, const double *high, int n);
/* Around the line that was added last: its colour, no name. */
int plot_spread(struct plot *plot, const double *x, const double *low, const double *high, int n);
void plot_write(const struct plot *plot, struct strbuf *out);
void plot_release(struct plot *plot);

/* What is in view, and 1, 2 or 5 times a power of ten so that about `count` ticks fit into a span. */
struct plot_frame { double x0, x1, y0, y1; };
struct plot_frame plot_frame(const struct plot *plot);
double plot_tick_step(double span, int count);
double plot_x_step(const struct plot *plot, double span, int count);     /* the same of x, and whole where all points are */
/* A tick's number with as many decimals as its step needs. */
void plot_tick_text(double value, double step, char *ret, size_t size);

/* `text` with & < > " escaped, appended. */
void html_escape(struct strbuf *out, const char *text);
