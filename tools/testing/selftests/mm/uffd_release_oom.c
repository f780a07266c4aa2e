// SPDX-License-Identifier: GPL-2.0-or-later

/*
 * Ranges that leave a userfaultfd while there is no memory.
 *
 * Once unregistered, VMAs merge with their neighbours. The merge takes memory,
 * leaving the userfaultfd must not: with the last close(), nobody can be told
 * that it has failed, and the context is freed.
 *
 * Each test lets a range leave, with the first allocation that this takes
 * failing, then with the second and so on, until there are no more, and at last
 * with all of them failing. failslab counts what it fails, so a round in which
 * nothing has failed is noticed. Needs root, and failslab.
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

/* The VMAs in the end, if every fourth chunk has an anon_vma of its own. */
#define NR_FAULTED	(NR_CHUNKS / 4)

/* More allocations than there are to be failed in one call. */
#define MAX_NTH		200

/* How often failslab may fail something. It counts down. */
#define MAX_TIMES	1000000

/* In seconds, for a kernel with all debug options in an emulator. */
#define TIMEOUT		900

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
	{ "times", "1000000" },
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
	int pagemap_fd, zero_fd;
	unsigned int tries;	/* Rounds in which an allocation has failed. */
	unsigned int unmerged;	/* Rounds that left more VMAs than they could. */
	unsigned int refused;	/* Rounds in which UFFDIO_UNREGISTER failed. */
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
	self->pagemap_fd = open("/proc/self/pagemap", O_RDONLY);
	self->zero_fd = open("/dev/zero", O_RDONLY);
	self->page_size = sysconf(_SC_PAGESIZE);
	self->chunk_size = CHUNK_PAGES * self->page_size;
	self->size = NR_CHUNKS * self->chunk_size;

	self->nth_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	self->all_fd = open("/proc/thread-self/make-it-fail", O_RDWR);
	ASSERT_GE(self->pagemap_fd, 0);
	ASSERT_GE(self->zero_fd, 0);
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
	close(self->pagemap_fd);
	close(self->zero_fd);
}

/* A fault that it should get gives SIGBUS, or EFAULT within a system call. */
static int open_uffd(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_SIGBUS,
	};
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
 * A range: the number of its VMAs, how many of them are with a userfaultfd, how
 * much of the range is mapped, and how much is with a userfaultfd.
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
		/* Not into start and end: some other lines begin with A. */
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

/* Back to normal. */
static void stop_failing(int nth_fd, int all_fd)
{
	pwrite(nth_fd, "0", 1, 0);
	pwrite(all_fd, "0", 1, 0);
}

/* How many allocations have failed since this was called last? */
static long nr_failed(void)
{
	char buf[32] = "";
	long left;

	if (!get_failslab("times", buf, sizeof(buf)))
		return -1;
	left = strtol(buf, NULL, 10);
	if (!set_failslab("times", "1000000"))
		return -1;
	return MAX_TIMES - left;
}

/* The byte that a page is filled with. */
static char mark(unsigned long page)
{
	return page % 251 + 1;
}

/* Is a page write-protected by its userfaultfd? */
static bool is_wp(struct __test_metadata *_metadata,
		  struct _test_data_uffd_release_oom *self, char *p)
{
	__u64 entry;

	ASSERT_EQ(pread(self->pagemap_fd, &entry, sizeof(entry),
			(unsigned long)p / self->page_size * sizeof(entry)),
		  sizeof(entry));
	return entry >> 57 & 1;
}

/*
 * The pages that have stayed in the userfaultfd are protected as before, and a
 * write to them is noticed.
 */
static void check_protected(struct __test_metadata *_metadata,
			    struct _test_data_uffd_release_oom *self, char *p,
			    unsigned long len, unsigned int nth)
{
	char *end = p + len;
	struct vmas vmas;

	for (; p < end; p += self->page_size) {
		ASSERT_TRUE(count_vmas(p, self->page_size, &vmas));
		ASSERT_EQ(is_wp(_metadata, self, p), vmas.nr_uffd == 1) {
			TH_LOG("allocation %u failing: registered %u, protected %u",
			       nth, vmas.nr_uffd, !vmas.nr_uffd);
		}
		if (!vmas.nr_uffd)
			continue;
		ASSERT_EQ(read(self->zero_fd, p, 1), -1);
		ASSERT_EQ(errno, EFAULT);
	}
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
	nr_failed();
}

/*
 * The range is out of the userfaultfd, and all bytes are what they were. VMAs
 * that did not merge do so when they are changed with memory at hand.
 */
static void check_plain(struct __test_metadata *_metadata,
			struct _test_data_uffd_release_oom *self,
			const struct _fixture_variant_uffd_release_oom *variant,
			unsigned int nth, long failed)
{
	const unsigned int merged = variant->fault_some ? NR_FAULTED : 1;
	const unsigned long pages = self->size / self->page_size;
	struct vmas vmas;
	unsigned long i;
	int uffd;

	ASSERT_TRUE(count_vmas(self->area, self->size, &vmas));
	ASSERT_GE(vmas.nr, merged);
	self->unmerged += vmas.nr > merged;
	if (!failed)
		ASSERT_EQ(vmas.nr, merged);
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

	ASSERT_EQ(mprotect(self->area, self->size, PROT_READ), 0);
	ASSERT_EQ(mprotect(self->area, self->size, PROT_READ | PROT_WRITE), 0);
	ASSERT_TRUE(count_vmas(self->area, self->size, &vmas));
	ASSERT_EQ(vmas.nr, merged);

	for (i = 0; i < pages; i++) {
		char *p = self->area + i * self->page_size;
		char want = 0;

		if (variant->fault_first ||
		    (variant->fault_some && i / CHUNK_PAGES % 4 == 2))
			want = mark(i);
		ASSERT_EQ(*p, want);
		*p = want + 1;
	}

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
		     long failed)
{
	ASSERT_GE(failed, 0);
	if (*nth == ALL) {
		ASSERT_GT(failed, 0);
		TH_LOG("%u allocations failed one by one, and %ld in one call; unmerged %u times",
		       self->tries, failed, self->unmerged);
		ASSERT_GT(self->tries, 0);
		ASSERT_GT(self->unmerged, 0);
		return false;
	}
	self->tries += failed;
	ASSERT_LT(*nth, MAX_NTH);
	*nth = failed ? *nth + 1 : ALL;
	return true;
}

/* The last close() of the descriptor. */
TEST_F_TIMEOUT(uffd_release_oom, by_close, TIMEOUT)
{
	unsigned int nth = 1;
	long failed;
	int ret;

	do {
		make_area(_metadata, self, variant);

		ASSERT_TRUE(start_failing(self->nth_fd, self->all_fd, nth));
		ret = close(self->uffd);
		stop_failing(self->nth_fd, self->all_fd);
		failed = nr_failed();
		self->uffd = -1;

		ASSERT_EQ(ret, 0);
		check_plain(_metadata, self, variant, nth, failed);
	} while (next_nth(_metadata, self, &nth, failed));
}

/*
 * The descriptor is that of a child, which has inherited it, and goes when the
 * child does. The memory is ours.
 */
TEST_F_TIMEOUT(uffd_release_oom, by_exit, TIMEOUT)
{
	unsigned int nth = 1;
	long failed;

	do {
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
		nr_failed();
		ASSERT_EQ(close(last[1]), 0);
		ASSERT_EQ(waitpid(pid, &status, 0), pid);
		failed = nr_failed();
		ASSERT_TRUE(WIFEXITED(status));
		ASSERT_EQ(WEXITSTATUS(status), 0);
		check_plain(_metadata, self, variant, nth, failed);
	} while (next_nth(_metadata, self, &nth, failed));
}

/* UFFDIO_UNREGISTER of whole VMAs. As there is nothing to split, it works. */
TEST_F_TIMEOUT(uffd_release_oom, by_unregister, TIMEOUT)
{
	unsigned int nth = 1;
	struct vmas vmas;
	long failed;
	int ret;

	do {
		make_area(_metadata, self, variant);

		ASSERT_TRUE(start_failing(self->nth_fd, self->all_fd, nth));
		ret = uffd_unregister(self->uffd, self->area, self->size);
		stop_failing(self->nth_fd, self->all_fd);
		failed = nr_failed();

		ASSERT_EQ(ret, 0) {
			TH_LOG("allocation %u failing: %s", nth,
			       strerror(-ret));
		}
		ASSERT_TRUE(count_vmas(self->area, self->size, &vmas));
		ASSERT_EQ(vmas.nr_uffd, 0);

		ASSERT_EQ(close(self->uffd), 0);
		self->uffd = -1;
		check_plain(_metadata, self, variant, nth, failed);
	} while (next_nth(_metadata, self, &nth, failed));
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
	const bool wp = variant->mode == UFFDIO_REGISTER_MODE_WP;
	struct vmas before, after;
	unsigned int nth = 1;
	long failed;
	int ret;

	do {
		make_area(_metadata, self, variant);
		ASSERT_TRUE(count_vmas(self->area, self->size, &before));

		ASSERT_TRUE(start_failing(self->nth_fd, self->all_fd, nth));
		ret = uffd_unregister(self->uffd, start, len);
		stop_failing(self->nth_fd, self->all_fd);
		failed = nr_failed();
		ASSERT_GE(failed, 0);
		ASSERT_TRUE(failed || !ret);

		ASSERT_TRUE(count_vmas(self->area, self->size, &after));
		ASSERT_EQ(after.mapped, self->size);
		if (ret) {
			ASSERT_EQ(ret, -ENOMEM);
			/* As far as it came, and not one page more. */
			ASSERT_GT(after.uffd, before.uffd - cleared);
			ASSERT_LE(after.uffd, before.uffd);
			if (wp)
				check_protected(_metadata, self, start, len, nth);
			self->refused++;
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
		check_plain(_metadata, self, variant, nth, failed);

		if (nth == ALL)
			break;
		self->tries += failed;
		ASSERT_LT(nth, MAX_NTH);
		nth = failed ? nth + 1 : ALL;
	} while (true);
}

/*
 * UFFDIO_UNREGISTER of the first or the last half of a VMA, which merges with the
 * neighbour. It may fail, and says so. The other half is as it was, and the next
 * try works.
 */
TEST_F_TIMEOUT(uffd_release_oom, by_half_unregister, TIMEOUT)
{
	unsigned int i;

	/*
	 * A VMA that grows at the cost of its neighbour often takes no memory,
	 * but it does if they are in different nodes of the tree. So try many.
	 */
	for (i = 1; i < NR_CHUNKS - 1; i += 2) {
		const unsigned long chunk = i * CHUNK_PAGES;

		unregister_part(_metadata, self, variant, chunk, 2, 2);
		unregister_part(_metadata, self, variant,
				chunk + CHUNK_PAGES - 2, 2, 2);
	}

	TH_LOG("%u allocations failed one by one, refused %u times", self->tries,
	       self->refused);
	if (!self->refused)
		SKIP(return, "failslab sees no nodes: boot with slab_debug=F,maple_node");
}

/*
 * UFFDIO_UNREGISTER of the middle of a VMA, which has to be split, and from one
 * middle to another.
 */
TEST_F_TIMEOUT(uffd_release_oom, by_partial_unregister, TIMEOUT)
{
	unsigned int i;

	for (i = 1; i + 4 < NR_CHUNKS; i += 8) {
		const unsigned long chunk = i * CHUNK_PAGES;

		unregister_part(_metadata, self, variant, chunk + 1, 2, 2);
		unregister_part(_metadata, self, variant, chunk + 2,
				4 * CHUNK_PAGES, 8);
	}

	TH_LOG("%u allocations failed one by one, refused %u times", self->tries,
	       self->refused);
	ASSERT_GT(self->refused, 0);
}

TEST_HARNESS_MAIN
