/* qwen_vl_window.c - Qwen2.5's window order: merged units are gathered window by window, so that a window's patches are one after
 * the other. Windows at the lower and right edge are smaller; where the sides are multiples already the reference adds a whole
 * row and column of empty ones, which change nothing but are in its list. */
#include <string.h>

#include "nn/models/qwen_vl_internal.h"

static int windows_along(int units, int window)
{
    return units / window + 1;
}

int qwen_windows_most(const struct qwen_vision_config *c, int height, int width)
{
    return windows_along(height, c->window) * windows_along(width, c->window);
}

/* The units of one picture; `unit` is its first. Returns the next one. */
static int cut(const struct qwen_vision_config *c, struct qwen_layout *l, int unit, int height, int width)
{
    int group = c->merge * c->merge, next = unit;

    for (int top = 0; top <= height; top += c->window)
        for (int left = 0; left <= width; left += c->window) {
            for (int y = top; y < MIN(top + c->window, height); y++)
                for (int x = left; x < MIN(left + c->window, width); x++)
                    l->window_order[next++] = unit + y * width + x;
            l->window_start_raw[++l->n_windows_raw] = next * group;
            if (l->window_start[l->n_windows] != next * group)
                l->window_start[++l->n_windows] = next * group;
        }
    return next;
}

void qwen_windows(const struct qwen_vision_config *c, struct qwen_layout *l)
{
    int side = c->patch * c->merge, group = c->merge * c->merge, unit = 0;

    l->n_windows = l->n_windows_raw = 0;
    l->window_start[0] = l->window_start_raw[0] = 0;
    for (int p = 0; p < l->n_pictures; p++)
        unit = cut(c, l, unit, l->pictures[p].height / side, l->pictures[p].width / side);
    for (int i = 0; i < unit; i++) {
        l->window_back[l->window_order[i]] = i;
        for (int k = 0; k < group; k++)
            l->window_rows[i * group + k] = l->window_order[i] * group + k;
    }
}
