/* plot_png.h - a plot (plot.h) as a PNG file: the same series, axes and colours, in a picture that needs no browser. */
#pragma once

#include "base/error.h"
#include "cli/plot.h"

/* -ENOMEM, or what writing said. */
int plot_write_png(const struct plot *plot, const char *path, struct error *error);
