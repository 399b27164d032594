#include "rl/labels.h"

#include <math.h>

#define SLOW .25                /* of the mean speed: the hand rests */
enum { SHORTEST = 2 };          /* frames of a segment */

static float label_of(int segment, int n, bool success)
{
    float climbed = (float)(segment + 1) / (float)n;

    return success ? climbed : MIN(climbed / 2, .25f);
}

void prm_labels(int frames, bool success, float *ret_label)
{
    for (int t = 0; t < frames; t++)
        ret_label[t] = label_of(frames >= 5 ? MIN(4, t / (frames / 5)) : 5 * t / frames, 5, success);
}

static double speed(const float *action)
{
    double sum = 0;

    for (int k = 0; k < 3; k++)
        sum += (double)action[k] * (double)action[k];
    return sqrt(sum);
}

int prm_milestones(const float *action, int steps, int dims, int *ret_cut)
{
    double mean = 0;
    int n = 0;

    if (dims < 4)
        return 0;
    for (int t = 0; t < steps; t++)
        mean += speed(action + t * dims) / steps;
    for (int frame = 1; frame <= steps; frame++) {
        /* frame t shows what action t - 1 did, before action t */
        const float *before = action + (frame - 1) * dims;
        bool gripped = frame >= 2 && (before[dims - 1] > 0) != (before[-1] > 0);
        bool rests = frame < steps && speed(before + dims) < SLOW * mean && speed(before) >= SLOW * mean;

        if ((gripped || rests) && frame - (n ? ret_cut[n - 1] : 0) >= SHORTEST)
            ret_cut[n++] = frame;
    }
    return n;
}

void prm_milestone_labels(const int *cut, int n_cuts, int frames, bool success, float *ret_label)
{
    int segment = 0;

    if (!n_cuts) {
        prm_labels(frames, success, ret_label);
        return;
    }
    for (int t = 0; t < frames; t++) {
        while (segment < n_cuts && cut[segment] <= t)
            segment++;
        ret_label[t] = label_of(segment, n_cuts + 1, success);
    }
}
