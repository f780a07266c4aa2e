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

static uint64_t seed = 1, seeds;
static double minutes;
static bool keep_going;

static const struct {
	const char *name;
	bool *flag;
} switches[] = {
	{ "--unpatched", &opt.unpatched }, { "--no-nth", &opt.no_nth },
	{ "--alone", &opt.alone }, { "--disturb", &opt.disturb },
	{ "--no-shrink", &opt.no_shrink }, { "--verbose", &opt.verbose },
	{ "--same", &opt.same }, { "--keep-going", &keep_going },
};

static bool is_switch(const char *arg)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(switches); i++) {
		if (!strcmp(arg, switches[i].name)) {
			*switches[i].flag = true;
			return true;
		}
	}
	return false;
}

static void parse(int argc, char **argv)
{
	bool one = false;
	int i;

	opt.nr_ops = 60;
	for (i = 1; i < argc; i++) {
		const char *arg = argv[i], *value = argv[i + 1];

		if (is_switch(arg))
			continue;
		if (!value) {
			fprintf(stderr, "error: fuzz takes no '%s' at the end\n", arg);
			exit(2);
		}
		if (!strcmp(arg, "--seed")) {
			seed = strtoull(value, NULL, 0);
			one = true;
		} else if (!strcmp(arg, "--seeds")) {
			seeds = strtoull(value, NULL, 0);
		} else if (!strcmp(arg, "--minutes")) {
			minutes = atof(value);
		} else if (!strcmp(arg, "--ops")) {
			opt.nr_ops = atoi(value);
		} else {
			fprintf(stderr, "error: fuzz takes no '%s'\n", arg);
			exit(2);
		}
		i++;
	}
	if (!seeds && minutes == 0)
		seeds = one ? 1 : 100;
}

int main(int argc, char **argv)
{
	static struct op ops[MAX_OPS];
	unsigned long passed = 0, failed = 0, done;
	double start, last;
	const char *why;
	cpu_set_t cpu;
	int nr;

	parse(argc, argv);
	if (opt.nr_ops < 1 || opt.nr_ops > MAX_OPS)
		opt.nr_ops = MAX_OPS;
	if (!(personality(0xffffffff) & ADDR_NO_RANDOMIZE)) {
		personality(ADDR_NO_RANDOMIZE);
		execv("/proc/self/exe", argv);
	}
	CPU_ZERO(&cpu);
	CPU_SET(0, &cpu);
	sched_setaffinity(0, sizeof(cpu), &cpu);
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	worker_setup();
	observe_init();
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
	printf("# %lu calls in %.0f s: %.0f/s; %lu relocated, %lu moved plainly\n",
	       nr_done, seconds() - start, nr_done / (seconds() - start),
	       nr_relocated, nr_plain);
	printf("# %lu pages relocated, %lu in swap, %lu of large folios; ",
	       nr_pages, nr_swapped, nr_large);
	printf("%lu refused, %lu short of memory\n", nr_refused, nr_injected);
	printf("# %lu calls with a flag, %lu of which the picture does not know all\n",
	       nr_reports, nr_unsure);
	printf("fuzz: %lu passed, %lu failed, 0 skipped\n", passed, failed);
	return failed > 0;
}
