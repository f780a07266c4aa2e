// SPDX-License-Identifier: GPL-2.0
/* Leave out of a failing sequence what it does not need to fail. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "fuzz.h"

#define PATIENCE	120	/* seconds */

static struct op less[MAX_OPS];
static char reason[4096];

/* What the kernel prints once it may print again. */
void warn_again(void)
{
	FILE *file = fopen("/sys/kernel/debug/clear_warn_once", "w");

	if (!file)
		return;
	fputs("1", file);
	fclose(file);
}

/* Returns the number of calls up to the failure, 0 if there is none. */
static int fails(struct op *ops, int nr, uint64_t seed)
{
	const char *why;

	warn_again();
	why = run_sequence(ops, &nr, seed, false);
	if (!why)
		return 0;
	snprintf(reason, sizeof(reason), "%s", why);
	return failed_at + 1 < nr ? failed_at + 1 : nr;
}

/*
 * Returns the number of calls that are left in @ops, with @why the reason they
 * fail, or 0 if they do not fail again.
 */
int shrink(struct op *ops, int nr, uint64_t seed, const char **why)
{
	time_t until = time(NULL) + PATIENCE;
	int size, i, n, now, before;

	nr = fails(ops, nr, seed);
	*why = reason;
	do {
		before = nr;
		for (size = nr / 2; size > 0; size /= 2) {
			for (i = 0; i < nr && time(NULL) < until;) {
				n = i + size < nr ? size : nr - i;
				memcpy(less, ops, i * sizeof(*ops));
				memcpy(less + i, ops + i + n,
				       (nr - i - n) * sizeof(*ops));
				now = nr > n ? fails(less, nr - n, seed) : 0;
				if (now) {
					memcpy(ops, less, now * sizeof(*ops));
					nr = now;
				} else {
					i += size;
				}
			}
		}
	} while (nr < before && time(NULL) < until);
	return nr;
}
