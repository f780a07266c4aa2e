// SPDX-License-Identifier: GPL-2.0
/* Leave out of a failing sequence what it does not need to fail. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "fuzz.h"

#define PATIENCE	120	/* seconds */

#define LETTERS		"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

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

/* Do they say the same, but for the numbers? */
static bool same_kind(const char *a, const char *b)
{
	int letters = 0;

	while (letters < 30) {
		a += strcspn(a, LETTERS "\n");
		b += strcspn(b, LETTERS "\n");
		if (*a != *b)
			return false;
		if (!*a || *a == '\n')
			break;
		a++;
		b++;
		letters++;
	}
	return true;
}

/* Returns the number of calls up to the failure, 0 if it is none like that. */
static int fails(struct op *ops, int nr, uint64_t seed, const char *like)
{
	const char *why;

	warn_again();
	why = run_sequence(ops, &nr, seed, false);
	if (!why || !same_kind(why, like))
		return 0;
	snprintf(reason, sizeof(reason), "%s", why);
	return failed_at + 1 < nr ? failed_at + 1 : nr;
}

/*
 * @ops fail for the reason @why. Returns the number of those that are left, with
 * @why the reason they fail now, or 0 if they do not fail again.
 */
int shrink(struct op *ops, int nr, uint64_t seed, const char **why)
{
	time_t until = time(NULL) + PATIENCE;
	int size, i, n, now, before;
	static char like[4096];

	snprintf(like, sizeof(like), "%s", *why);
	nr = fails(ops, nr, seed, like);
	*why = reason;
	do {
		before = nr;
		for (size = nr / 2; size > 0; size /= 2) {
			for (i = 0; i < nr && time(NULL) < until;) {
				n = i + size < nr ? size : nr - i;
				memcpy(less, ops, i * sizeof(*ops));
				memcpy(less + i, ops + i + n,
				       (nr - i - n) * sizeof(*ops));
				now = nr > n ? fails(less, nr - n, seed, like) : 0;
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
