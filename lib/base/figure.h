/* figure.h - numbers as people read them: what rounds to zero is 0.0, never -0.0.
 *
 *   printf("%+.1f points", figure(100 * difference, 1));
 *
 * JSON has it from json_number. */
#pragma once

/* `value`, or 0 where "%.*f" with so many decimals would write a zero. */
double figure(double value, int decimals);
