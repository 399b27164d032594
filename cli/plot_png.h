/* plot_png.h - a plot (plot.h) as a PNG file: the same series, axes and colours, in a picture that needs no browser. */
#pragma once

#include "base/error.h"
#include "cli/plot.h"

/* Write the plot, unless drawing it has failed already (drawn < 0: -errno), and release it. drawn, -ENOMEM, or what writing
 * said. */
int plot_finish_png(struct plot *plot, int drawn, const char *path, struct error *error);
