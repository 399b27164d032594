/* drain_mark.h - a drain that was promised, kept for the unit's next life.
 *
 * systemd starts a coordinator again that breaks off, and it would go on with the run that it was asked to drain. A file in the
 * unit's runtime directory tells it. systemd keeps that directory for a start that it makes by itself and removes it when the unit
 * has ended (RuntimeDirectoryPreserve=restart): who starts the unit later finds a run that goes on. Where there is no such
 * directory nothing is kept: `gantry up` ends everything when a coordinator dies draining. */
#pragma once

#include <stdbool.h>

int drain_mark_set(void);           /* 0 also where nothing is kept */
bool drain_mark_is_set(void);
void drain_mark_clear(void);        /* drained: a restart by hand goes on */
