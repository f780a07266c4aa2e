// SPDX-License-Identifier: GPL-2.0
/*
 * Make random calls of mremap() and its neighbours in up to three processes,
 * and compare them, after each call, with a picture of what should have
 * happened. A seed stands for a sequence of calls.
 *
 * Usage: fuzz [--seed N] [--seeds N] [--minutes M] [--ops N] [--unpatched]
 *	       [--no-nth] [--alone] [--disturb] [--no-shrink] [--verbose]
 *	       [--keep-going] [--same]
 *
 * --same: only calls that give the same bytes, whether VMAs have merged or not,
 * and print a number for the bytes of each seed.
 *
 * The last line counts the sequences that passed and failed. Exit status 1 if
 * one has failed; it is shrunk, and printed as a C program of its own.
 */

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>
#include "fuzz.h"

static double seconds(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void report(struct op *ops, int nr, uint64_t seed, const char *why)
{
	static char first[4096];
	int i, left;

	snprintf(first, sizeof(first), "%s", why);
	printf("not ok - seed %llu, call %d: %s\n", (unsigned long long)seed,
	       failed_at, first);
	for (i = 0; i <= failed_at && i < nr; i++)
		print_op(&ops[i], &results[i]);
	if (hangs)
		printf("# it hangs: no more can be tried in this guest\n");
	if (hangs || opt.no_shrink)
		return;
	why = first;
	left = shrink(ops, nr, seed, &why);
	if (!left) {
		printf("# it did not fail again\n");
		return;
	}
	/* Once more, so that the picture and the results are those. */
	warn_again();
	why = run_sequence(ops, &left, seed, false) ?: why;
	printf("# shrunk to %d calls: %s\n", left, why);
	for (i = 0; i < left; i++)
		print_op(&ops[i], &results[i]);
	printf("8< - - - -\n");
	print_program(ops, results, left, why, seed);
	printf("- - - - >8\n");
}

/* The processes under test need no copy of the picture. */
static void keep_to_us(void)
{
	madvise(&m, sizeof(m) & -PAGE, MADV_DONTFORK);
	madvise(&before, sizeof(before) & -PAGE, MADV_DONTFORK);
	madvise(inst_refs, sizeof(inst_refs), MADV_DONTFORK);
	madvise(inst_unsure, sizeof(inst_unsure), MADV_DONTFORK);
}

int main(int argc, char **argv)
{
	static struct op ops[MAX_OPS];
	unsigned long passed = 0, failed = 0, done;
	uint64_t seed = 1, seeds = 0;
	double minutes = 0, start, last;
	bool keep_going = false;
	const char *why;
	cpu_set_t cpu;
	int i, nr;

	opt.nr_ops = 60;
	for (i = 1; i < argc; i++) {
		const char *arg = argv[i], *value = i + 1 < argc ? argv[i + 1] : "0";

		if (!strcmp(arg, "--seed"))
			seed = strtoull(value, NULL, 0), seeds = seeds ?: 1, i++;
		else if (!strcmp(arg, "--seeds"))
			seeds = strtoull(value, NULL, 0), i++;
		else if (!strcmp(arg, "--minutes"))
			minutes = atof(value), i++;
		else if (!strcmp(arg, "--ops"))
			opt.nr_ops = atoi(value), i++;
		else if (!strcmp(arg, "--unpatched"))
			opt.unpatched = true;
		else if (!strcmp(arg, "--no-nth"))
			opt.no_nth = true;
		else if (!strcmp(arg, "--verbose"))
			opt.verbose = true;
		else if (!strcmp(arg, "--disturb"))
			opt.disturb = true;
		else if (!strcmp(arg, "--same"))
			opt.same = true;
		else if (!strcmp(arg, "--no-shrink"))
			opt.no_shrink = true;
		else if (!strcmp(arg, "--alone"))
			opt.alone = true;
		else if (!strcmp(arg, "--keep-going"))
			keep_going = true;
		else {
			fprintf(stderr, "fuzz takes no '%s'\n", arg);
			return 2;
		}
	}
	if (opt.nr_ops < 1 || opt.nr_ops > MAX_OPS)
		opt.nr_ops = MAX_OPS;
	if (!seeds && minutes == 0)
		seeds = 100;

	if (!(personality(0xffffffff) & ADDR_NO_RANDOMIZE)) {
		personality(ADDR_NO_RANDOMIZE);
		execv("/proc/self/exe", argv);
	}
	CPU_ZERO(&cpu);
	CPU_SET(0, &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	worker_setup();
	check_init();
	keep_to_us();
	if (opt.disturb)
		disturb_start();

	start = last = seconds();
	for (done = 0; !seeds || done < seeds; done++, seed++) {
		if (minutes > 0 && seconds() - start > minutes * 60)
			break;
		why = run_sequence(ops, &nr, seed, true);
		if (!why) {
			passed++;
			if (opt.same)
				printf("seed %llu: %016llx\n",
				       (unsigned long long)seed,
				       (unsigned long long)digest);
		} else {
			failed++;
			report(ops, nr, seed, why);
			if (!keep_going || hangs)
				break;
		}
		if (seconds() - last > 30) {
			last = seconds();
			printf("# seed %llu, %lu calls, %.0f calls/s\n",
			       (unsigned long long)seed, nr_done,
			       nr_done / (last - start));
			fflush(stdout);
		}
	}
	printf("# %lu calls in %.0f s: %.0f/s; %lu relocated, %lu moved plainly, %lu refused, %lu short of memory\n",
	       nr_done, seconds() - start, nr_done / (seconds() - start),
	       nr_relocated, nr_plain, nr_refused, nr_injected);
	printf("fuzz: %lu passed, %lu failed, 0 skipped\n", passed, failed);
	return failed > 0;
}
