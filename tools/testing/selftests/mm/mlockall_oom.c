// SPDX-License-Identifier: GPL-2.0-or-later

/*
 * mlockall() while there is no memory to merge the VMAs that it has locked.
 *
 * Every other chunk of an area has been locked before, so that all chunks can
 * become one VMA. If the memory for that cannot be had then they stay as many as
 * they are, but mlockall() has no way to say that some of them are not locked,
 * so they must be. Needs root, and failslab.
 */

#define _GNU_SOURCE
#include "../kselftest_harness.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define IGNORE_WAIT	"/sys/kernel/debug/failslab/ignore-gfp-wait"
#define VERBOSE		"/sys/kernel/debug/failslab/verbose"

#define NR_CHUNKS	9
#define CHUNK_PAGES	2

/* The allocations of a call that are failed, one in each round. */
#define MAX_NTH		30

static bool set(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	ssize_t len = -1;

	if (fd >= 0) {
		len = write(fd, value, strlen(value));
		close(fd);
	}
	return len > 0;
}

/* How much of the area is in VMAs that are locked? */
static unsigned long locked(const char *area, unsigned long size)
{
	const unsigned long first = (unsigned long)area;
	unsigned long start = 0, end = 0, from, to, sum = 0;
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[4096];

	if (!f)
		return 0;

	while (fgets(line, sizeof(line), f)) {
		/* Not into start and end: other lines begin with A, too. */
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			start = from;
			end = to;
			continue;
		}
		if (!strncmp(line, "VmFlags:", 8) && strstr(line, " lo") &&
		    start >= first && end <= first + size)
			sum += end - start;
	}
	fclose(f);
	return sum;
}

TEST(mlockall_oom)
{
	const unsigned long chunk = CHUNK_PAGES * sysconf(_SC_PAGESIZE);
	const unsigned long size = NR_CHUNKS * chunk;
	unsigned int nth, i, failed = 0;
	char *area, buf[16];
	int fd, len, ret;

	fd = open("/proc/thread-self/fail-nth", O_RDWR);
	if (fd < 0 || !set(VERBOSE, "0") || !set(IGNORE_WAIT, "N"))
		SKIP(return, "no failslab, or not root");

	for (nth = 1; nth <= MAX_NTH; nth++) {
		/* What is next to it differs, so that the ends do not merge. */
		area = mmap(NULL, size, PROT_READ | PROT_WRITE | PROT_EXEC,
			    MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
		ASSERT_NE(area, MAP_FAILED);
		for (i = 1; i < NR_CHUNKS; i += 2)
			ASSERT_EQ(mlock(area + i * chunk, chunk), 0);
		ASSERT_EQ(locked(area, size), NR_CHUNKS / 2 * chunk);

		len = snprintf(buf, sizeof(buf), "%u", nth);
		ASSERT_EQ(pwrite(fd, buf, len, 0), len);
		ret = mlockall(MCL_CURRENT);
		memset(buf, 0, sizeof(buf));
		ASSERT_GT(pread(fd, buf, sizeof(buf) - 1, 0), 0);
		ASSERT_EQ(pwrite(fd, "0", 1, 0), 1);
		failed += atoi(buf) == 0;

		ASSERT_EQ(ret, 0);
		ASSERT_EQ(locked(area, size), size) {
			TH_LOG("allocation %u failing: not all is locked", nth);
		}

		ASSERT_EQ(munlockall(), 0);
		ASSERT_EQ(locked(area, size), 0);
		ASSERT_EQ(munmap(area, size), 0);
	}

	set(IGNORE_WAIT, "Y");
	close(fd);
	ASSERT_GT(failed, 0);
}

TEST_HARNESS_MAIN
