// SPDX-License-Identifier: GPL-2.0-or-later

/*
 * mlockall() and munlockall() while there is no memory to merge the VMAs that
 * they change.
 *
 * Every other chunk of an area has been locked before, so that all chunks can
 * become one VMA. If the memory for that cannot be had then they stay as many as
 * they are. But neither call has a way to report that some of them are not
 * locked, or still are, so that must not happen. Needs root, and failslab.
 */

#define _GNU_SOURCE
#include "../kselftest_harness.h"
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define FAILSLAB	"/sys/kernel/debug/failslab/"

#define NR_CHUNKS	9
#define CHUNK_PAGES	2

/* More allocations than there are to be failed in one call. */
#define MAX_NTH		200

/* In seconds, for a kernel with all debug options in an emulator. */
#define TIMEOUT		900

static const struct {
	const char *path, *value;
} settings[] = {
	{ FAILSLAB "ignore-gfp-wait", "N" },
	{ FAILSLAB "times", "-1" },
	{ FAILSLAB "verbose", "0" },
};

static bool get(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t len = -1;

	if (fd >= 0) {
		len = read(fd, buf, size - 1);
		close(fd);
	}
	buf[len > 0 ? len : 0] = '\0';
	return len > 0;
}

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

FIXTURE(mlockall_oom)
{
	unsigned long chunk, size;
	char saved[ARRAY_SIZE(settings)][32];
	char *area;
	int fd;
};

FIXTURE_VARIANT(mlockall_oom)
{
	bool lock;
};

FIXTURE_VARIANT_ADD(mlockall_oom, lock)
{
	.lock = true,
};

FIXTURE_VARIANT_ADD(mlockall_oom, unlock)
{
	.lock = false,
};

FIXTURE_SETUP(mlockall_oom)
{
	unsigned int i;

	self->chunk = CHUNK_PAGES * sysconf(_SC_PAGESIZE);
	self->size = NR_CHUNKS * self->chunk;

	self->fd = open("/proc/thread-self/fail-nth", O_RDWR);
	if (self->fd < 0)
		SKIP(return, "no fault injection, or not root");
	for (i = 0; i < ARRAY_SIZE(settings); i++)
		if (!get(settings[i].path, self->saved[i],
			 sizeof(self->saved[i])))
			SKIP(return, "no failslab");
	for (i = 0; i < ARRAY_SIZE(settings); i++)
		ASSERT_TRUE(set(settings[i].path, settings[i].value));
}

FIXTURE_TEARDOWN(mlockall_oom)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(settings); i++)
		if (self->saved[i][0])
			set(settings[i].path, self->saved[i]);
	if (self->fd >= 0)
		close(self->fd);
}

/* How much of the area is in VMAs that are locked, and in how many it is. */
static unsigned long locked(struct _test_data_mlockall_oom *self,
			    unsigned int *nr_vmas)
{
	const unsigned long first = (unsigned long)self->area;
	unsigned long start = 0, end = 0, from, to, sum = 0;
	FILE *f = fopen("/proc/self/smaps", "r");
	bool inside = false;
	char line[4096];

	*nr_vmas = 0;
	if (!f)
		return 0;

	while (fgets(line, sizeof(line), f)) {
		/* Not into start and end: some other lines begin with A. */
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			start = from;
			end = to;
			inside = start >= first && end <= first + self->size;
			*nr_vmas += inside;
			continue;
		}
		if (!strncmp(line, "VmFlags:", 8) && strstr(line, " lo") &&
		    inside)
			sum += end - start;
	}
	fclose(f);
	return sum;
}

/* Lock or unlock all, with the n-th allocation failing. Has there been one? */
static bool fail_nth(struct __test_metadata *_metadata,
		     struct _test_data_mlockall_oom *self, bool lock,
		     unsigned int nth)
{
	char buf[16];
	int len, ret;

	len = snprintf(buf, sizeof(buf), "%u", nth);
	ASSERT_EQ(pwrite(self->fd, buf, len, 0), len);
	ret = lock ? mlockall(MCL_CURRENT) : munlockall();
	memset(buf, 0, sizeof(buf));
	ASSERT_GT(pread(self->fd, buf, sizeof(buf) - 1, 0), 0);
	ASSERT_EQ(pwrite(self->fd, "0", 1, 0), 1);
	ASSERT_EQ(ret, 0);
	return atoi(buf) == 0;
}

TEST_F_TIMEOUT(mlockall_oom, every_allocation, TIMEOUT)
{
	unsigned int nth, i, nr_vmas, failed = 0, unmerged = 0;
	const unsigned long want = variant->lock ? self->size : 0;
	bool fails;

	for (nth = 1, fails = true; fails; nth++) {
		ASSERT_LE(nth, MAX_NTH);

		/*
		 * The protection differs from that of its neighbours, so that
		 * its ends do not merge with them.
		 */
		self->area = mmap(NULL, self->size,
				  PROT_READ | PROT_WRITE | PROT_EXEC,
				  MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
		ASSERT_NE(self->area, MAP_FAILED);
		/* While it is one VMA, or each chunk has its own anon_vma. */
		memset(self->area, 1, self->size);
		for (i = 1; i < NR_CHUNKS; i += 2)
			ASSERT_EQ(mlock(self->area + i * self->chunk,
					self->chunk), 0);
		ASSERT_EQ(locked(self, &nr_vmas),
			  NR_CHUNKS / 2 * self->chunk);
		ASSERT_EQ(nr_vmas, NR_CHUNKS);

		fails = fail_nth(_metadata, self, variant->lock, nth);
		failed += fails;

		ASSERT_EQ(locked(self, &nr_vmas), want) {
			TH_LOG("allocation %u failing: not all has changed", nth);
		}
		unmerged += nr_vmas > 1;
		if (!fails)
			ASSERT_EQ(nr_vmas, 1);

		/* With memory, all is one VMA in the end. */
		ASSERT_EQ(variant->lock ? munlockall() : mlockall(MCL_CURRENT), 0);
		ASSERT_EQ(locked(self, &nr_vmas), self->size - want);
		ASSERT_EQ(nr_vmas, 1);

		ASSERT_EQ(munlockall(), 0);
		ASSERT_EQ(munmap(self->area, self->size), 0);
	}

	TH_LOG("%u allocations failed one by one, unmerged %u times", failed,
	       unmerged);
	ASSERT_GT(failed, 0);
	ASSERT_GT(unmerged, 0);
}

TEST_HARNESS_MAIN
