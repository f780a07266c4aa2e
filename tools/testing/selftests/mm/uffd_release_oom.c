// SPDX-License-Identifier: GPL-2.0-or-later

/*
 * Ranges that leave a userfaultfd while there is no memory.
 *
 * Once unregistered, VMAs merge with their neighbours. The merge takes memory,
 * leaving the userfaultfd must not: with the last close() there is nobody to
 * tell that it has failed, and the context is freed.
 *
 * Each test lets a range leave, with the first allocation that this takes
 * failing, then with the second and so on, until there are no more, and at last
 * with all of them failing. Needs root, and failslab.
 */

#define _GNU_SOURCE
#include "../kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FAILSLAB	"/sys/kernel/debug/failslab/"

/* An odd number of chunks; every other one is registered. */
#define NR_CHUNKS	33
#define CHUNK_PAGES	4

/* More allocations than there are to be failed in one call. */
#define MAX_NTH		100

/* Fail all allocations, not only the n-th one. */
#define ALL		0

/* In /proc/sys/kernel/tainted: the kernel has died, or has warned. */
#define TAINTS		0x280

static const struct {
	const char *name, *value;
} settings[] = {
	{ "ignore-gfp-wait", "N" },
	{ "task-filter", "Y" },
	{ "probability", "100" },
	{ "interval", "1" },
	{ "times", "-1" },
	{ "space", "0" },
	{ "verbose", "0" },
};

static bool read_file(const char *path, char *buf, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t len = -1;

	if (fd >= 0) {
		len = read(fd, buf, size - 1);
		close(fd);
	}
	if (len < 0)
		return false;

	buf[len] = '\0';
	return true;
}

static bool write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);
	ssize_t len = -1;

	if (fd >= 0) {
		len = write(fd, value, strlen(value));
		close(fd);
	}
	return len == (ssize_t)strlen(value);
}

static bool set_failslab(const char *name, const char *value)
{
	char path[100];

	snprintf(path, sizeof(path), FAILSLAB "%s", name);
	return write_file(path, value);
}

static bool get_failslab(const char *name, char *buf, size_t size)
{
	char path[100];

	snprintf(path, sizeof(path), FAILSLAB "%s", name);
	return read_file(path, buf, size);
}

static unsigned long taint(void)
{
	char buf[32] = "";

	read_file("/proc/sys/kernel/tainted", buf, sizeof(buf));
	return strtoul(buf, NULL, 10) & TAINTS;
}

FIXTURE(uffd_release_oom)
{
	unsigned long page_size, chunk_size, size;
	unsigned long taint;
	char saved[ARRAY_SIZE(settings)][32];
	char *area;		/* With a hole on both sides. */
	char *reserved;
	int uffd;
	int nth_fd, all_fd;
	unsigned int tries;
};

/* Which chunks have pages before they are registered, and in between? */
FIXTURE_VARIANT(uffd_release_oom)
{
	bool fault_first;	/* All of them, when they are one VMA. */
	bool fault_some;	/* A few, each with an anon_vma of its own. */
	unsigned long mode;
};

FIXTURE_VARIANT_ADD(uffd_release_oom, unfaulted)
{
	.mode = UFFDIO_REGISTER_MODE_MISSING,
};

FIXTURE_VARIANT_ADD(uffd_release_oom, faulted)
{
	.fault_first = true,
	.mode = UFFDIO_REGISTER_MODE_MISSING,
};

FIXTURE_VARIANT_ADD(uffd_release_oom, partly_faulted)
{
	.fault_some = true,
	.mode = UFFDIO_REGISTER_MODE_MISSING,
};

FIXTURE_VARIANT_ADD(uffd_release_oom, write_protected)
{
	.fault_first = true,
	.mode = UFFDIO_REGISTER_MODE_WP,
};

FIXTURE_SETUP(uffd_release_oom)
{
	unsigned int i;

	self->uffd = -1;
	self->page_size = sysconf(_SC_PAGESIZE);
	self->chunk_size = CHUNK_PAGES * self->page_size;
	self->size = NR_CHUNKS * self->chunk_size;

	self->nth_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	self->all_fd = open("/proc/thread-self/make-it-fail", O_RDWR);
	if (self->nth_fd < 0 || self->all_fd < 0)
		SKIP(return, "no fault injection, or not root");

	for (i = 0; i < ARRAY_SIZE(settings); i++)
		if (!get_failslab(settings[i].name, self->saved[i],
				  sizeof(self->saved[i])))
			SKIP(return, "no failslab");
	for (i = 0; i < ARRAY_SIZE(settings); i++)
		ASSERT_TRUE(set_failslab(settings[i].name, settings[i].value));

	self->reserved = mmap(NULL, self->size + 2 * self->page_size, PROT_NONE,
			      MAP_ANONYMOUS | MAP_PRIVATE, -1, 0);
	ASSERT_NE(self->reserved, MAP_FAILED);
	self->area = self->reserved + self->page_size;
	self->taint = taint();
}

FIXTURE_TEARDOWN(uffd_release_oom)
{
	unsigned int i;

	if (self->uffd >= 0)
		close(self->uffd);
	for (i = 0; i < ARRAY_SIZE(settings); i++)
		if (self->saved[i][0])
			set_failslab(settings[i].name, self->saved[i]);
	if (self->nth_fd >= 0)
		close(self->nth_fd);
	if (self->all_fd >= 0)
		close(self->all_fd);
}

static int open_uffd(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	int uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api)) {
		close(uffd);
		uffd = -1;
	}
	return uffd;
}

static int uffd_register(int uffd, char *start, unsigned long len,
			 unsigned long mode)
{
	struct uffdio_register reg = {
		.range = { .start = (unsigned long)start, .len = len },
		.mode = mode,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

static int uffd_unregister(int uffd, char *start, unsigned long len)
{
	struct uffdio_range range = {
		.start = (unsigned long)start, .len = len,
	};

	return ioctl(uffd, UFFDIO_UNREGISTER, &range) ? -errno : 0;
}

static int uffd_wp(int uffd, char *start, unsigned long len)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (unsigned long)start, .len = len },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp) ? -errno : 0;
}

/*
 * What is in a range? The number of VMAs, how many of them are with a userfaultfd,
 * and how much of the range is mapped, and is with a userfaultfd.
 */
struct vmas {
	unsigned int nr, nr_uffd;
	unsigned long mapped, uffd;
};

static bool count_vmas(char *area, unsigned long len, struct vmas *vmas)
{
	unsigned long start = 0, end = 0, from, to, first = (unsigned long)area;
	FILE *f = fopen("/proc/self/smaps", "r");
	bool inside = false;
	char line[4096];

	memset(vmas, 0, sizeof(*vmas));
	if (!f)
		return false;

	while (fgets(line, sizeof(line), f)) {
		/* Not into start and end: other lines begin with A, too. */
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			start = from;
			end = to;
			inside = start < first + len && end > first;
			if (!inside)
				continue;
			if (start < first)
				start = first;
			if (end > first + len)
				end = first + len;
			vmas->nr++;
			vmas->mapped += end - start;
		} else if (inside && !strncmp(line, "VmFlags:", 8)) {
			if (!strstr(line, " um") && !strstr(line, " uw") &&
			    !strstr(line, " ui"))
				continue;
			vmas->nr_uffd++;
			vmas->uffd += end - start;
		}
	}
	fclose(f);
	return true;
}

/* From here on, the n-th allocation of this task fails, or all of them. */
static bool start_failing(int nth_fd, int all_fd, unsigned int nth)
{
	char buf[16];
	int len;

	if (nth == ALL)
		return pwrite(all_fd, "1", 1, 0) == 1;

	len = snprintf(buf, sizeof(buf), "%u", nth);
	return pwrite(nth_fd, buf, len, 0) == len;
}

/* Back to normal. Has there been a failure? With ALL, nobody knows. */
static bool stop_failing(int nth_fd, int all_fd, unsigned int nth)
{
	char buf[16] = "";

	if (nth == ALL) {
		pwrite(all_fd, "0", 1, 0);
		return false;
	}

	pread(nth_fd, buf, sizeof(buf) - 1, 0);
	pwrite(nth_fd, "0", 1, 0);
	return atoi(buf) == 0;
}

/* The byte that a page is filled with. */
static char mark(unsigned long page)
{
	return page % 251 + 1;
}

/*
 * Make the area anew and register every other chunk of it.
 *
 *	| chunk 0 | chunk 1 | chunk 2 | chunk 3 | ... | last chunk |
 *	     -         uffd      -         uffd              -
 */
static void make_area(struct __test_metadata *_metadata,
		      struct _test_data_uffd_release_oom *self,
		      const struct _fixture_variant_uffd_release_oom *variant)
{
	const unsigned long pages = self->size / self->page_size;
	unsigned long i;
	struct vmas vmas;

	ASSERT_NE(mmap(self->area, self->size, PROT_READ | PROT_WRITE,
		       MAP_FIXED | MAP_ANONYMOUS | MAP_PRIVATE, -1, 0),
		  MAP_FAILED);
	/* Each page for itself. A kernel without THP does not know this. */
	madvise(self->area, self->size, MADV_NOHUGEPAGE);
	if (variant->fault_first)
		for (i = 0; i < pages; i++)
			self->area[i * self->page_size] = mark(i);

	self->uffd = open_uffd();
	ASSERT_GE(self->uffd, 0);

	for (i = 1; i < NR_CHUNKS; i += 2) {
		char *chunk = self->area + i * self->chunk_size;

		ASSERT_EQ(uffd_register(self->uffd, chunk, self->chunk_size,
					variant->mode), 0);
		if (variant->mode == UFFDIO_REGISTER_MODE_WP)
			ASSERT_EQ(uffd_wp(self->uffd, chunk,
					  self->chunk_size), 0);
	}

	/* Every fourth chunk, none of which is registered. */
	if (variant->fault_some)
		for (i = 2 * CHUNK_PAGES; i < pages; i++)
			if (i / CHUNK_PAGES % 4 == 2)
				self->area[i * self->page_size] = mark(i);

	ASSERT_TRUE(count_vmas(self->area, self->size, &vmas));
	ASSERT_EQ(vmas.nr, NR_CHUNKS);
	ASSERT_EQ(vmas.nr_uffd, NR_CHUNKS / 2);
}

/* Nothing reminds of a userfaultfd, and all bytes are what they were. */
static void check_plain(struct __test_metadata *_metadata,
			struct _test_data_uffd_release_oom *self,
			const struct _fixture_variant_uffd_release_oom *variant,
			unsigned int nth)
{
	const unsigned long pages = self->size / self->page_size;
	struct vmas vmas;
	unsigned long i;
	int uffd;

	ASSERT_TRUE(count_vmas(self->area, self->size, &vmas));
	ASSERT_EQ(vmas.mapped, self->size);
	ASSERT_EQ(vmas.nr_uffd, 0) {
		TH_LOG("allocation %u failing: still in a userfaultfd", nth);
	}

	/* A context that is left behind would make the range busy. */
	uffd = open_uffd();
	ASSERT_GE(uffd, 0);
	ASSERT_EQ(uffd_register(uffd, self->area, self->size,
				UFFDIO_REGISTER_MODE_MISSING), 0) {
		TH_LOG("allocation %u failing: cannot be registered anew", nth);
	}
	ASSERT_EQ(uffd_unregister(uffd, self->area, self->size), 0);
	ASSERT_EQ(close(uffd), 0);

	for (i = 0; i < pages; i++) {
		char *p = self->area + i * self->page_size;
		char want = 0;

		if (variant->fault_first ||
		    (variant->fault_some && i / CHUNK_PAGES % 4 == 2))
			want = mark(i);
		ASSERT_EQ(*p, want);
		*p = want + 1;
	}

	/* One VMA again, after all: the memory is plain. */
	ASSERT_EQ(mprotect(self->area, self->size, PROT_READ), 0);
	ASSERT_EQ(mprotect(self->area, self->size, PROT_READ | PROT_WRITE), 0);
	ASSERT_EQ(madvise(self->area, self->size, MADV_DONTNEED), 0);
	for (i = 0; i < pages; i++)
		ASSERT_EQ(self->area[i * self->page_size], 0);
	ASSERT_NE(mmap(self->area, self->size, PROT_NONE,
		       MAP_FIXED | MAP_ANONYMOUS | MAP_PRIVATE, -1, 0),
		  MAP_FAILED);

	ASSERT_EQ(taint(), self->taint) {
		TH_LOG("allocation %u failing: the kernel has warned", nth);
	}
}

/* 1, 2, 3 ... until no allocation is left to fail, then ALL, then the end. */
static bool next_nth(struct __test_metadata *_metadata,
		     struct _test_data_uffd_release_oom *self, unsigned int *nth,
		     bool failed)
{
	self->tries += failed;
	if (*nth == ALL) {
		TH_LOG("%u allocations failed one by one", self->tries);
		return false;
	}
	*nth = failed && *nth < MAX_NTH ? *nth + 1 : ALL;
	return true;
}

/* The last close() of the descriptor. */
TEST_F(uffd_release_oom, by_close)
{
	unsigned int nth = 1;
	bool failed;
	int ret;

	do {
		make_area(_metadata, self, variant);

		ASSERT_TRUE(start_failing(self->nth_fd, self->all_fd, nth));
		ret = close(self->uffd);
		failed = stop_failing(self->nth_fd, self->all_fd, nth);
		self->uffd = -1;

		ASSERT_EQ(ret, 0);
		check_plain(_metadata, self, variant, nth);
	} while (next_nth(_metadata, self, &nth, failed));

	ASSERT_GT(self->tries, 0);
}

/*
 * The descriptor is that of a child, which has inherited it, and goes when the
 * child does. What it is about is our memory.
 */
TEST_F(uffd_release_oom, by_exit)
{
	unsigned int nth;

	for (nth = ALL; nth <= NR_CHUNKS; nth++) {
		int status, last[2];
		pid_t pid;

		make_area(_metadata, self, variant);

		ASSERT_EQ(pipe(last), 0);
		pid = fork();
		ASSERT_GE(pid, 0);
		if (!pid) {
			/* Those that are open would fail the parent. */
			int nth_fd = open("/proc/thread-self/fail-nth", O_RDWR);
			int all_fd = open("/proc/thread-self/make-it-fail",
					  O_RDWR);
			char c;

			/* Wait until this descriptor is the last one. */
			close(last[1]);
			if (read(last[0], &c, 1) ||
			    !start_failing(nth_fd, all_fd, nth))
				_exit(1);
			_exit(0);
		}

		ASSERT_EQ(close(last[0]), 0);
		ASSERT_EQ(close(self->uffd), 0);
		self->uffd = -1;
		ASSERT_EQ(close(last[1]), 0);
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		ASSERT_TRUE(WIFEXITED(status));
		ASSERT_EQ(WEXITSTATUS(status), 0);
		check_plain(_metadata, self, variant, nth);
	}
}

/* UFFDIO_UNREGISTER of whole VMAs. As there is nothing to split, it works. */
TEST_F(uffd_release_oom, by_unregister)
{
	unsigned int nth = 1;
	struct vmas vmas;
	bool failed;
	int ret;

	do {
		make_area(_metadata, self, variant);

		ASSERT_TRUE(start_failing(self->nth_fd, self->all_fd, nth));
		ret = uffd_unregister(self->uffd, self->area, self->size);
		failed = stop_failing(self->nth_fd, self->all_fd, nth);

		ASSERT_EQ(ret, 0) {
			TH_LOG("allocation %u failing: %s", nth,
			       strerror(-ret));
		}
		ASSERT_TRUE(count_vmas(self->area, self->size, &vmas));
		ASSERT_EQ(vmas.nr_uffd, 0);

		ASSERT_EQ(close(self->uffd), 0);
		self->uffd = -1;
		check_plain(_metadata, self, variant, nth);
	} while (next_nth(_metadata, self, &nth, failed));

	ASSERT_GT(self->tries, 0);
}

/* Unregister some pages, and how many of them are in a userfaultfd. */
static void unregister_part(struct __test_metadata *_metadata,
			    struct _test_data_uffd_release_oom *self,
			    const struct _fixture_variant_uffd_release_oom *variant,
			    unsigned long first, unsigned long pages,
			    unsigned long uffd_pages)
{
	char *start = self->area + first * self->page_size;
	const unsigned long len = pages * self->page_size;
	const unsigned long cleared = uffd_pages * self->page_size;
	struct vmas before, after;
	unsigned int nth = 1;
	bool failed;
	int ret;

	do {
		make_area(_metadata, self, variant);
		ASSERT_TRUE(count_vmas(self->area, self->size, &before));

		ASSERT_TRUE(start_failing(self->nth_fd, self->all_fd, nth));
		ret = uffd_unregister(self->uffd, start, len);
		failed = stop_failing(self->nth_fd, self->all_fd, nth);
		self->tries += failed;

		ASSERT_TRUE(count_vmas(self->area, self->size, &after));
		ASSERT_EQ(after.mapped, self->size);
		if (ret) {
			ASSERT_EQ(ret, -ENOMEM);
			/* As far as it came, and not one page more. */
			ASSERT_GT(after.uffd, before.uffd - cleared);
			ASSERT_LE(after.uffd, before.uffd);
			ret = uffd_unregister(self->uffd, start, len);
			ASSERT_TRUE(count_vmas(self->area, self->size, &after));
		}
		ASSERT_EQ(ret, 0);
		ASSERT_EQ(after.uffd, before.uffd - cleared);
		ASSERT_TRUE(count_vmas(start, len, &after));
		ASSERT_EQ(after.uffd, 0) {
			TH_LOG("page %lu, allocation %u failing: other memory was unregistered",
			       first, nth);
		}

		ASSERT_EQ(close(self->uffd), 0);
		self->uffd = -1;
		check_plain(_metadata, self, variant, nth);
	} while (failed && nth++ < MAX_NTH);
}

/*
 * UFFDIO_UNREGISTER of ranges that start or end within a VMA. It may fail, and
 * says so. What it was not to touch is as it was, and the next try works.
 */
TEST_F(uffd_release_oom, by_partial_unregister)
{
	unsigned int i;

	/*
	 * A VMA that grows at the cost of its neighbour often takes no memory,
	 * but it does if they are in different nodes of the tree. So try many.
	 */
	for (i = 1; i < NR_CHUNKS - 1; i += 2) {
		const unsigned long chunk = i * CHUNK_PAGES;

		/* The first half, the last half. */
		unregister_part(_metadata, self, variant, chunk, 2, 2);
		unregister_part(_metadata, self, variant,
				chunk + CHUNK_PAGES - 2, 2, 2);
		if (i % 8 != 1 || i + 4 >= NR_CHUNKS)
			continue;
		/* The middle, and from one middle to another. */
		unregister_part(_metadata, self, variant, chunk + 1, 2, 2);
		unregister_part(_metadata, self, variant, chunk + 2,
				4 * CHUNK_PAGES, 8);
	}

	TH_LOG("%u allocations failed one by one", self->tries);
	ASSERT_GT(self->tries, 0);
}

TEST_HARNESS_MAIN
