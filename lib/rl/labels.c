#include "rl/labels.h"

void prm_labels(int frames, bool success, float *ret_label)
{
    for (int t = 0; t < frames; t++) {
        int i = frames >= 5 ? MIN(4, t / (frames / 5)) : 5 * t / frames;

        if (success)
            ret_label[t] = (float)(i + 1) / 5;
        else
            ret_label[t] = i < 2 ? (float)(i + 1) / 10 : 0.25f;
    }
}
