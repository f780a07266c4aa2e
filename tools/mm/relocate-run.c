// SPDX-License-Identifier: GPL-2.0
/*
 * relocate-run: run a program, and have mremap() relocate the anonymous memory
 * that it moves, as if it had asked for it with MREMAP_RELOCATE_ANON. See
 * Documentation/admin-guide/mm/mremap_relocate.rst.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#ifndef PR_SET_MREMAP_RELOCATE
#define PR_SET_MREMAP_RELOCATE		82
#define PR_MREMAP_RELOCATE_OFF		0
#define PR_MREMAP_RELOCATE_CHEAP	1
#define PR_MREMAP_RELOCATE_ALL		2
#define PR_MREMAP_RELOCATE_SYSCTL	3
#endif

static const char *const modes[] = {
	[PR_MREMAP_RELOCATE_OFF] = "off",
	[PR_MREMAP_RELOCATE_CHEAP] = "cheap",
	[PR_MREMAP_RELOCATE_ALL] = "all",
	[PR_MREMAP_RELOCATE_SYSCTL] = "sysctl",
};

static void print_usage(FILE *to)
{
	fprintf(to, "usage: relocate-run [--mode MODE] PROGRAM [ARGUMENT]...\n\n"
		"  -m, --mode MODE  which moves of the program and its children are relocated:\n"
		"                   all (the default), cheap, off, or sysctl: what\n"
		"                   vm.mremap_relocate says\n"
		"  -h, --help       this text\n");
}

static int mode_of(const char *name)
{
	for (int i = 0; i <= PR_MREMAP_RELOCATE_SYSCTL; i++)
		if (!strcmp(modes[i], name))
			return i;
	fprintf(stderr, "relocate-run: there is no mode '%s'; there are: off, cheap, all, sysctl\n",
		name);
	exit(2);
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "mode", required_argument, NULL, 'm' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	int mode = PR_MREMAP_RELOCATE_ALL, opt;

	/* The program's own options are not ours. */
	while ((opt = getopt_long(argc, argv, "+m:h", options, NULL)) != -1) {
		switch (opt) {
		case 'm':
			mode = mode_of(optarg);
			break;
		case 'h':
			print_usage(stdout);
			return 0;
		default:
			print_usage(stderr);
			return 2;
		}
	}
	if (optind == argc) {
		print_usage(stderr);
		return 2;
	}

	if (prctl(PR_SET_MREMAP_RELOCATE, mode, 0, 0, 0)) {
		fprintf(stderr, "relocate-run: prctl(PR_SET_MREMAP_RELOCATE): %s%s\n",
			strerror(errno), errno == EINVAL ?
			"; this kernel does not have it" : "");
		return 125;
	}
	execvp(argv[optind], argv + optind);
	fprintf(stderr, "relocate-run: %s: %s\n", argv[optind], strerror(errno));
	return errno == ENOENT ? 127 : 126;
}
