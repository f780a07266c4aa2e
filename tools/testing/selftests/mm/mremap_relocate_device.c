// SPDX-License-Identifier: GPL-2.0-only
/*
 * MREMAP_RELOCATE_ANON and MREMAP_MUST_RELOCATE_ANON: memory that a device has
 * to itself, and memory that it shares with us. The device is the dummy of
 * lib/test_hmm.c. It can
 *
 * - mirror our page table in one of its own,
 * - take a page to its own memory. What stays here is a device-private entry,
 *   and the page comes back when we touch it,
 * - claim a page in our memory for a while: a device-exclusive entry.
 *
 * A range with such entries is not relocated, only moved. What is just mirrored
 * is relocated, and the device must forget where it was.
 */
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
#include <lib/test_hmm_uapi.h>
#include "mremap_relocate_util.h"
#include "hugepage_settings.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif

/* How the device sees a page that it has in its own memory. */
#define PRIVATE			(HMM_DMIRROR_PROT_DEV_PRIVATE_LOCAL | \
				 HMM_DMIRROR_PROT_WRITE)
#define PRIVATE_HUGE		(PRIVATE | HMM_DMIRROR_PROT_PMD)

#define NR_LEFT			4

static int open_device(int number)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/hmm_dmirror%d", number);
	return open(path, O_RDWR | O_CLOEXEC);
}

/*
 * Have the device do something with a range, and with a buffer that it reads
 * from or writes to. Returns how many faults that took it, or an error.
 */
static int device_do(int fd, unsigned long request, void *ptr, size_t nr,
		     void *buf)
{
	struct hmm_dmirror_cmd cmd = {
		.addr = (unsigned long)ptr,
		.ptr = (unsigned long)buf,
		.npages = nr,
	};

	return ioctl(fd, request, &cmd) ? -errno : (int)cmd.faults;
}

/* How many pages of the range does the device see in this way? */
static size_t nr_seen_as(int fd, char *ptr, size_t nr, int prot,
			 unsigned char *buf)
{
	size_t i, count = 0;

	if (device_do(fd, HMM_DMIRROR_SNAPSHOT, ptr, nr, buf))
		ksft_exit_fail_perror("HMM_DMIRROR_SNAPSHOT");
	for (i = 0; i < nr; i++)
		count += buf[i] == prot;
	return count;
}

/* A place to move to that has a neighbour to its left, faulted in. */
static char *place(struct arena *arena, size_t page)
{
	char *left = arena_map(arena, page - NR_LEFT, NR_LEFT);

	fill(left, NR_LEFT, 9);
	return arena_at(arena, page);
}

/* Has it merged with that neighbour? */
static bool merged(struct arena *arena, char *to, size_t nr)
{
	char *left = to - PAGES(NR_LEFT);

	return is_one_vma(arena, left, NR_LEFT + nr) &&
	       healthy(arena, left, NR_LEFT, 9);
}

/* Small pages, some of which the device has to itself. */
#define NR_PAGES			8

FIXTURE(device)
{
	struct arena arena;
	struct snapshot snap;
	int fd;
	unsigned char *buf;
	char *ptr, *to;
};

FIXTURE_VARIANT(device)
{
	unsigned long request;
	int prot;
	size_t first, nr;
};

FIXTURE_VARIANT_ADD(device, one_private)
{
	.request = HMM_DMIRROR_MIGRATE_TO_DEV,
	.prot = PRIVATE,
	.first = 3,
	.nr = 1,
};

FIXTURE_VARIANT_ADD(device, all_private)
{
	.request = HMM_DMIRROR_MIGRATE_TO_DEV,
	.prot = PRIVATE,
	.first = 0,
	.nr = NR_PAGES,
};

FIXTURE_VARIANT_ADD(device, one_exclusive)
{
	.request = HMM_DMIRROR_EXCLUSIVE,
	.prot = HMM_DMIRROR_PROT_NONE,
	.first = 3,
	.nr = 1,
};

FIXTURE_VARIANT_ADD(device, all_exclusive)
{
	.request = HMM_DMIRROR_EXCLUSIVE,
	.prot = HMM_DMIRROR_PROT_NONE,
	.first = 0,
	.nr = NR_PAGES,
};

/* How many pages are with the device, of those that it was given? */
static size_t nr_with_device(FIXTURE_DATA(device) * self,
			     const FIXTURE_VARIANT(device) * variant, char *ptr)
{
	ptr += PAGES(variant->first);
	if (nr_swapped(&self->arena, ptr, variant->nr) != variant->nr)
		return 0;
	return nr_seen_as(self->fd, ptr, variant->nr, variant->prot, self->buf);
}

FIXTURE_SETUP(device)
{
	char *ptr;

	self->fd = open_device(0);
	if (self->fd < 0)
		SKIP(return, "no device of the module test_hmm");
	ASSERT_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	arena_init(&self->arena, 200, 0);
	self->buf = calloc(NR_PAGES, psize());
	ASSERT_NE(self->buf, NULL);

	self->ptr = arena_map(&self->arena, 10, NR_PAGES);
	self->to = place(&self->arena, 100);
	fill(self->ptr, NR_PAGES, 1);
	ptr = self->ptr + PAGES(variant->first);
	ASSERT_EQ(device_do(self->fd, variant->request, ptr, variant->nr,
			    self->buf), 0);
	ASSERT_TRUE(intact_from((char *)self->buf, variant->nr, 1,
				variant->first));
	ASSERT_EQ(nr_with_device(self, variant, self->ptr), variant->nr);
}

FIXTURE_TEARDOWN(device)
{
	close(self->fd);
	free(self->buf);
	arena_exit(&self->arena);
}

TEST_F(device, must_is_refused)
{
	struct arena *arena = &self->arena;
	char *ptr = self->ptr + PAGES(variant->first);

	snapshot_take(&self->snap, arena, self->ptr, NR_PAGES);
	EXPECT_EQ(relocate(self->ptr, NR_PAGES, MUST_RELOCATE_ANON, self->to),
		  MAP_FAILED);
	EXPECT_EQ(errno, EFAULT);
	EXPECT_EQ(relocate(self->ptr, NR_PAGES,
			   RELOCATE_ANON | MUST_RELOCATE_ANON, self->to), MAP_FAILED);
	EXPECT_EQ(errno, EFAULT);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr, NR_PAGES,
			       MUST_RELOCATE_ANON | MREMAP_DONTUNMAP,
			       self->to));
	EXPECT_TRUE(refused_as("device", ptr));

	/* The device has not been told to give up anything. */
	EXPECT_EQ(nr_with_device(self, variant, self->ptr), variant->nr);
	if (variant->request == HMM_DMIRROR_EXCLUSIVE)
		EXPECT_EQ(device_do(self->fd, HMM_DMIRROR_CHECK_EXCLUSIVE, ptr,
				    variant->nr, self->buf), -EPERM);
	EXPECT_TRUE(healthy(arena, self->ptr, NR_PAGES, 1));
}

TEST_F(device, relocate_moves_plainly)
{
	struct arena *arena = &self->arena;
	char *to = place(arena, 150);
	__u64 entries[NR_PAGES];

	read_entries(arena, self->ptr, NR_PAGES, entries);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, RELOCATE_ANON, self->to), self->to);
	EXPECT_TRUE(same_entries(arena, self->to, NR_PAGES, entries));
	EXPECT_EQ(nr_with_device(self, variant, self->to), variant->nr);
	EXPECT_TRUE(is_one_vma(arena, self->to, NR_PAGES));
	EXPECT_EQ(device_do(self->fd, HMM_DMIRROR_READ, self->ptr, NR_PAGES, self->buf),
		  -EFAULT);

	/* When we touch them they are ours again, still with the old index. */
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 1));
	ASSERT_EQ(relocate(self->to, NR_PAGES, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(healthy(arena, to, NR_PAGES, 1));
	EXPECT_TRUE(merged(arena, to, NR_PAGES));
}

TEST_F(device, dontunmap_moves_plainly)
{
	struct arena *arena = &self->arena;
	__u64 entries[NR_PAGES];

	read_entries(arena, self->ptr, NR_PAGES, entries);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, RELOCATE_ANON | MREMAP_DONTUNMAP, self->to),
		  self->to);
	EXPECT_TRUE(same_entries(arena, self->to, NR_PAGES, entries));
	EXPECT_EQ(nr_with_device(self, variant, self->to), variant->nr);
	EXPECT_TRUE(is_one_vma(arena, self->to, NR_PAGES));
	EXPECT_TRUE(is_one_vma(arena, self->ptr, NR_PAGES));
	EXPECT_EQ(device_do(self->fd, HMM_DMIRROR_CHECK_EXCLUSIVE, self->ptr, NR_PAGES,
			    self->buf), 0);
	EXPECT_TRUE(all_zero(self->ptr, NR_PAGES));
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 1));
}

TEST_F(device, relocated_when_touched)
{
	struct arena *arena = &self->arena;
	char *to = place(arena, 150);

	force_read_pages(self->ptr, NR_PAGES, psize());
	ASSERT_EQ(nr_present(arena, self->ptr, NR_PAGES), NR_PAGES);
	EXPECT_EQ(device_do(self->fd, HMM_DMIRROR_CHECK_EXCLUSIVE, self->ptr, NR_PAGES,
			    self->buf), 0);

	ASSERT_EQ(relocate(self->ptr, NR_PAGES, MUST_RELOCATE_ANON, self->to),
		  self->to);
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 1));
	EXPECT_TRUE(merged(arena, self->to, NR_PAGES));

	ASSERT_EQ(relocate(self->to, NR_PAGES, RELOCATE_ANON, to), to);
	EXPECT_TRUE(healthy(arena, to, NR_PAGES, 1));
	EXPECT_TRUE(merged(arena, to, NR_PAGES));
}

/* Each VMA of a range is judged for itself, unless the caller insists. */
TEST_F(device, one_vma_of_two)
{
	struct arena *arena = &self->arena;
	char *other = arena_at(arena, 10 - NR_PAGES), *tmp = arena_at(arena, 50);

	/* ..[AAAA][BBBB].., of which B has pages with the device. */
	fill(arena_map(arena, 50, NR_PAGES), NR_PAGES, 2);
	ASSERT_EQ(relocate(tmp, NR_PAGES, 0, other), other);
	ASSERT_EQ(nr_vmas(arena, other, 2 * NR_PAGES), 2);

	snapshot_take(&self->snap, arena, other, 2 * NR_PAGES);
	EXPECT_TRUE(is_refused(&self->snap, other, 2 * NR_PAGES,
			       MUST_RELOCATE_ANON, self->to));
	EXPECT_TRUE(refused_as("device", self->ptr + PAGES(variant->first)));

	ASSERT_EQ(relocate(other, 2 * NR_PAGES, RELOCATE_ANON, self->to), self->to);
	EXPECT_TRUE(is_one_vma(arena, self->to + PAGES(NR_PAGES), NR_PAGES));
	EXPECT_EQ(nr_with_device(self, variant, self->to + PAGES(NR_PAGES)),
		  variant->nr);
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 2));
	EXPECT_TRUE(merged(arena, self->to, NR_PAGES));
	EXPECT_TRUE(healthy(arena, self->to + PAGES(NR_PAGES), NR_PAGES, 1));
}

/* What the device does of its own accord, before and after a move. */
FIXTURE(driver)
{
	struct arena arena;
	int fd;
	char *buf, *ptr, *to;
};

FIXTURE_VARIANT(driver)
{
	int flags;
};

FIXTURE_VARIANT_ADD(driver, relocate)
{
	.flags = RELOCATE_ANON,
};

FIXTURE_VARIANT_ADD(driver, must)
{
	.flags = MUST_RELOCATE_ANON,
};

FIXTURE_SETUP(driver)
{
	self->fd = open_device(0);
	if (self->fd < 0)
		SKIP(return, "no device of the module test_hmm");
	ASSERT_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	arena_init(&self->arena, 200, 0);
	self->buf = calloc(NR_PAGES, psize());
	ASSERT_NE(self->buf, NULL);

	self->ptr = arena_map(&self->arena, 10, NR_PAGES);
	self->to = place(&self->arena, 100);
	fill(self->ptr, NR_PAGES, 1);
}

FIXTURE_TEARDOWN(driver)
{
	close(self->fd);
	free(self->buf);
	arena_exit(&self->arena);
}

/* What the device had read must not be read from there any more. */
TEST_F(driver, mirrors)
{
	struct arena *arena = &self->arena;

	ASSERT_GT(device_do(self->fd, HMM_DMIRROR_READ, self->ptr, NR_PAGES, self->buf),
		  0);
	ASSERT_TRUE(intact(self->buf, NR_PAGES, 1));

	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_EQ(device_do(self->fd, HMM_DMIRROR_READ, self->ptr, NR_PAGES, self->buf),
		  -EFAULT);
	memset(self->buf, 0, PAGES(NR_PAGES));
	EXPECT_GT(device_do(self->fd, HMM_DMIRROR_READ, self->to, NR_PAGES, self->buf),
		  0);
	EXPECT_TRUE(intact(self->buf, NR_PAGES, 1));

	fill(self->buf, NR_PAGES, 2);
	EXPECT_GE(device_do(self->fd, HMM_DMIRROR_WRITE, self->to, NR_PAGES, self->buf),
		  0);
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 2));
	EXPECT_TRUE(merged(arena, self->to, NR_PAGES));
}

/*
 * The same, but nothing unmaps the source later, which would tell the device
 * as well: it is the move itself that must.
 */
TEST_F(driver, mirrors_what_is_not_unmapped)
{
	struct arena *arena = &self->arena;

	fill(self->buf, NR_PAGES, 2);
	ASSERT_GT(device_do(self->fd, HMM_DMIRROR_WRITE, self->ptr, NR_PAGES, self->buf),
		  0);

	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags | MREMAP_DONTUNMAP,
			   self->to), self->to);
	EXPECT_GT(device_do(self->fd, HMM_DMIRROR_READ, self->ptr, NR_PAGES, self->buf),
		  0);
	EXPECT_TRUE(all_zero(self->buf, NR_PAGES));
	fill(self->buf, NR_PAGES, 3);
	EXPECT_GT(device_do(self->fd, HMM_DMIRROR_WRITE, self->ptr, NR_PAGES, self->buf),
		  0);
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 2));
	EXPECT_TRUE(healthy(arena, self->ptr, NR_PAGES, 3));
	EXPECT_TRUE(merged(arena, self->to, NR_PAGES));
}

TEST_F(driver, gives_back)
{
	struct arena *arena = &self->arena;

	ASSERT_EQ(device_do(self->fd, HMM_DMIRROR_MIGRATE_TO_DEV, self->ptr, NR_PAGES,
			    self->buf), 0);
	ASSERT_EQ(nr_present(arena, self->ptr, NR_PAGES), 0);
	ASSERT_EQ(device_do(self->fd, HMM_DMIRROR_MIGRATE_TO_SYS, self->ptr, NR_PAGES,
			    self->buf), 0);
	ASSERT_EQ(nr_present(arena, self->ptr, NR_PAGES), NR_PAGES);

	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 1));
	EXPECT_TRUE(merged(arena, self->to, NR_PAGES));
}

/* Its memory is taken away: it migrates by the pages, and knows no address. */
TEST_F(driver, evicts)
{
	struct arena *arena = &self->arena;

	ASSERT_EQ(device_do(self->fd, HMM_DMIRROR_MIGRATE_TO_DEV, self->ptr, NR_PAGES,
			    self->buf), 0);
	ASSERT_EQ(nr_present(arena, self->ptr, NR_PAGES), 0);
	close(self->fd);
	self->fd = -1;
	ASSERT_EQ(nr_present(arena, self->ptr, NR_PAGES), NR_PAGES);

	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 1));
	EXPECT_TRUE(merged(arena, self->to, NR_PAGES));
}

TEST_F(driver, takes_what_was_relocated)
{
	struct arena *arena = &self->arena;

	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	ASSERT_EQ(device_do(self->fd, HMM_DMIRROR_MIGRATE_TO_DEV, self->to, NR_PAGES,
			    self->buf), 0);
	EXPECT_TRUE(intact(self->buf, NR_PAGES, 1));
	ASSERT_EQ(nr_present(arena, self->to, NR_PAGES), 0);

	/* The kernel has to find the place of each from its new index. */
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(nr_present(arena, self->to, NR_PAGES), NR_PAGES);
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 1));
	EXPECT_TRUE(merged(arena, self->to, NR_PAGES));
}

/* Without the flag, or with it and a device page: the index is the old one. */
TEST_F(driver, evicts_what_was_moved_plainly)
{
	struct arena *arena = &self->arena;

	ASSERT_EQ(device_do(self->fd, HMM_DMIRROR_MIGRATE_TO_DEV,
			    self->ptr + PAGES(2), 4, self->buf), 0);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, RELOCATE_ANON, self->to), self->to);
	ASSERT_EQ(nr_present(arena, self->to, NR_PAGES), NR_PAGES - 4);
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(nr_present(arena, self->to, NR_PAGES), NR_PAGES);
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 1));

	ASSERT_EQ(relocate(self->to, NR_PAGES, variant->flags, self->ptr),
		  self->ptr);
	EXPECT_TRUE(healthy(arena, self->ptr, NR_PAGES, 1));
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, variant->flags, self->to),
		  self->to);
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 1));
	EXPECT_TRUE(merged(arena, self->to, NR_PAGES));
}

/*
 * Another device writes to what was moved plainly, which has the first one give
 * it back. The first one must not try: it has forgotten what it had mapped, and
 * the dummy, when it faults in a page that it has already, crashes.
 */
TEST_F(driver, writes_to_what_was_moved_plainly)
{
	struct arena *arena = &self->arena;
	char *to = place(arena, 150);
	int fd = open_device(1);

	if (fd < 0)
		SKIP(return, "no second device of the module test_hmm");
	ASSERT_EQ(device_do(self->fd, HMM_DMIRROR_MIGRATE_TO_DEV, self->ptr, NR_PAGES,
			    self->buf), 0);
	ASSERT_EQ(relocate(self->ptr, NR_PAGES, RELOCATE_ANON, self->to), self->to);
	ASSERT_EQ(nr_present(arena, self->to, NR_PAGES), 0);

	EXPECT_GT(device_do(fd, HMM_DMIRROR_READ, self->to, NR_PAGES,
			    self->buf), 0);
	EXPECT_TRUE(intact(self->buf, NR_PAGES, 1));
	fill(self->buf, NR_PAGES, 2);
	EXPECT_GE(device_do(fd, HMM_DMIRROR_WRITE, self->to, NR_PAGES,
			    self->buf), 0);
	EXPECT_TRUE(healthy(arena, self->to, NR_PAGES, 2));

	ASSERT_EQ(relocate(self->to, NR_PAGES, variant->flags, to), to);
	EXPECT_EQ(device_do(fd, HMM_DMIRROR_READ, self->to, NR_PAGES, self->buf),
		  -EFAULT);
	EXPECT_TRUE(healthy(arena, to, NR_PAGES, 2));
	EXPECT_TRUE(merged(arena, to, NR_PAGES));
	close(fd);
}

/* A thread that takes the pages to the device and has them evicted from it. */
struct evictor {
	pthread_t thread;
	char *ptr[2];
	void *buf;
	bool stop;
	unsigned long rounds;
};

static void *evictor(void *arg)
{
	struct evictor *evictor = arg;
	cpu_set_t set;
	int fd, i;

	/* Run elsewhere than the thread that moves the range. */
	memset(&set, 0xff, sizeof(set));
	sched_setaffinity(0, sizeof(set), &set);

	while (!__atomic_load_n(&evictor->stop, __ATOMIC_ACQUIRE)) {
		fd = open_device(0);
		if (fd < 0)
			ksft_exit_fail_perror("/dev/hmm_dmirror0");
		/* The range is at one of the places, if it is not on its way. */
		for (i = 0; i < 2; i++)
			device_do(fd, HMM_DMIRROR_MIGRATE_TO_DEV,
				  evictor->ptr[i], NR_PAGES, evictor->buf);
		__atomic_fetch_add(&evictor->rounds, 1, __ATOMIC_RELEASE);
		/* This evicts, and does not take mmap_lock for it. */
		close(fd);
	}
	return NULL;
}

/*
 * A device migrates the pages to and fro while they are moved. If one of them
 * is with the device then the move is refused or plain, but nothing is lost,
 * left behind or left under migration.
 */
TEST_F(driver, takes_and_evicts_all_the_time)
{
	struct evictor evict = { .ptr = { self->ptr, self->to } };
	unsigned long round, relocated = 0, refused = 0;
	char *from = self->ptr, *to = self->to, *tmp;
	struct arena *arena = &self->arena;

	evict.buf = self->buf;
	ASSERT_EQ(pthread_create(&evict.thread, NULL, evictor, &evict), 0);
	while ((round = __atomic_load_n(&evict.rounds, __ATOMIC_ACQUIRE)) < 20) {
		if (relocate(from, NR_PAGES, variant->flags, to) == MAP_FAILED) {
			ASSERT_EQ(errno, EFAULT);
			ASSERT_NE(variant->flags, RELOCATE_ANON);
			refused++;
			continue;
		}
		tmp = from;
		from = to;
		to = tmp;
		relocated++;
		if (from == self->ptr)
			ASSERT_TRUE(is_one_vma(arena, from, NR_PAGES));
	}
	__atomic_store_n(&evict.stop, true, __ATOMIC_RELEASE);
	pthread_join(evict.thread, NULL);
	TH_LOG("%lu moves, %lu refused, in %lu rounds", relocated, refused, round);

	EXPECT_EQ(nr_present(arena, from, NR_PAGES), NR_PAGES);
	EXPECT_TRUE(healthy(arena, from, NR_PAGES, 1));
	to = place(arena, 150);
	ASSERT_EQ(relocate(from, NR_PAGES, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(healthy(arena, to, NR_PAGES, 1));
	EXPECT_TRUE(merged(arena, to, NR_PAGES));
}

/*
 * Two huge pages, one after the other. The destination is aligned as they are,
 * or not: then the PMD has to be split for the move.
 */
FIXTURE(huge)
{
	struct arena arena;
	struct snapshot snap;
	size_t table;		/* pages of a huge page */
	size_t nr;		/* pages of both */
	int fd;
	unsigned char *buf;
	char *ptr, *second, *to;
	__u64 entries[1024];
};

FIXTURE_VARIANT(huge)
{
	size_t offset;
};

FIXTURE_VARIANT_ADD(huge, aligned)
{
	.offset = 0,
};

FIXTURE_VARIANT_ADD(huge, one_page_off)
{
	.offset = 1,
};

FIXTURE_SETUP(huge)
{
	struct arena *arena = &self->arena;

	self->fd = open_device(0);
	if (self->fd < 0)
		SKIP(return, "no device of the module test_hmm");
	self->table = HPAGE_SIZE / psize();
	self->nr = 2 * self->table;
	if (!thp_available() || self->nr > ARRAY_SIZE(self->entries))
		SKIP(return, "no huge pages of a size that we can use");

	arena_init(arena, 10 * self->table, HPAGE_SIZE);
	self->buf = calloc(self->nr, psize());
	ASSERT_NE(self->buf, NULL);
	self->ptr = arena_map(arena, self->table, self->nr);
	self->second = self->ptr + PAGES(self->table);
	fill(self->ptr, self->nr, 1);
	if (madvise(self->ptr, PAGES(self->nr), MADV_COLLAPSE) ||
	    !check_huge_anon(self->ptr, PAGES(self->nr), 2, HPAGE_SIZE))
		SKIP(return, "got no huge pages");
	if (folio_pages(arena, self->ptr) != self->table)
		SKIP(return, "cannot read /proc/kpageflags");

	/* From here on khugepaged shall keep away. */
	ASSERT_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	self->to = place(arena, 4 * self->table + variant->offset);
}

FIXTURE_TEARDOWN(huge)
{
	close(self->fd);
	free(self->buf);
	arena_exit(&self->arena);
}

/* The first one goes to the device, as one. */
static bool take_first(FIXTURE_DATA(huge) * self)
{
	return !device_do(self->fd, HMM_DMIRROR_MIGRATE_TO_DEV, self->ptr,
			  self->table, self->buf) &&
	       nr_seen_as(self->fd, self->ptr, self->table, PRIVATE_HUGE,
			  self->buf) == self->table;
}

/* Both pages come back when we touch them, and can be relocated then. */
static bool can_relocate(FIXTURE_DATA(huge) * self,
			 const FIXTURE_VARIANT(huge) * variant, char *from)
{
	struct arena *arena = &self->arena;
	char *to = place(arena, 7 * self->table + variant->offset);

	return healthy(arena, from, self->nr, 1) &&
	       relocate(from, self->nr, MUST_RELOCATE_ANON, to) == to &&
	       healthy(arena, to, self->nr, 1) && merged(arena, to, self->nr);
}

TEST_F(huge, must_is_refused)
{
	struct arena *arena = &self->arena;

	if (!take_first(self))
		SKIP(return, "the device takes no huge page");

	snapshot_take(&self->snap, arena, self->ptr, self->nr);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr, self->nr,
			       MUST_RELOCATE_ANON, self->to));
	EXPECT_TRUE(refused_as("device", self->ptr));
	EXPECT_EQ(nr_seen_as(self->fd, self->ptr, self->table, PRIVATE_HUGE,
			     self->buf), self->table);
	EXPECT_EQ(folio_pages(arena, self->second), self->table);
	EXPECT_TRUE(can_relocate(self, variant, self->ptr));
}

TEST_F(huge, relocate_moves_plainly)
{
	int prot = variant->offset ? PRIVATE : PRIVATE_HUGE;
	struct arena *arena = &self->arena;

	if (!take_first(self))
		SKIP(return, "the device takes no huge page");

	read_entries(arena, self->ptr, self->nr, self->entries);
	ASSERT_EQ(relocate(self->ptr, self->nr, RELOCATE_ANON, self->to), self->to);
	EXPECT_TRUE(same_entries(arena, self->to, self->nr, self->entries));
	EXPECT_EQ(nr_seen_as(self->fd, self->to, self->table, prot, self->buf),
		  self->table);
	EXPECT_EQ(folio_pages(arena, self->to + PAGES(self->table)), self->table);
	EXPECT_TRUE(is_one_vma(arena, self->to, self->nr));
	EXPECT_TRUE(can_relocate(self, variant, self->to));
}

TEST_F(huge, evicted_after_plain_move)
{
	struct arena *arena = &self->arena;

	if (!take_first(self))
		SKIP(return, "the device takes no huge page");

	ASSERT_EQ(relocate(self->ptr, self->nr, RELOCATE_ANON, self->to), self->to);
	ASSERT_EQ(nr_present(arena, self->to, self->table), 0);
	close(self->fd);
	self->fd = -1;
	EXPECT_EQ(nr_present(arena, self->to, self->table), self->table);
	EXPECT_TRUE(can_relocate(self, variant, self->to));
}

TEST_F(huge, given_back)
{
	struct arena *arena = &self->arena;

	if (!take_first(self))
		SKIP(return, "the device takes no huge page");

	ASSERT_EQ(device_do(self->fd, HMM_DMIRROR_MIGRATE_TO_SYS, self->ptr,
			    self->table, self->buf), 0);
	ASSERT_EQ(nr_present(arena, self->ptr, self->nr), self->nr);
	read_entries(arena, self->ptr, self->nr, self->entries);

	ASSERT_EQ(relocate(self->ptr, self->nr, MUST_RELOCATE_ANON, self->to),
		  self->to);
	EXPECT_TRUE(same_entries(arena, self->to, self->nr, self->entries));
	EXPECT_EQ(folio_pages(arena, self->to), self->table);
	EXPECT_TRUE(merged(arena, self->to, self->nr));
	EXPECT_TRUE(can_relocate(self, variant, self->to));
}

/* The range cuts both: none is split if this does not help the other. */
TEST_F(huge, cut)
{
	const size_t half = self->table / 2;
	struct arena *arena = &self->arena;
	char *ptr = self->ptr + PAGES(half);

	if (!take_first(self))
		SKIP(return, "the device takes no huge page");

	snapshot_take(&self->snap, arena, self->ptr, self->nr);
	EXPECT_TRUE(is_refused(&self->snap, ptr, self->table,
			       MUST_RELOCATE_ANON, self->to));
	EXPECT_TRUE(refused_as("device", ptr));
	EXPECT_EQ(nr_seen_as(self->fd, self->ptr, self->table, PRIVATE_HUGE,
			     self->buf), self->table);
	EXPECT_EQ(folio_pages(arena, self->second), self->table);

	ASSERT_EQ(relocate(ptr, self->table, RELOCATE_ANON, self->to), self->to);
	EXPECT_EQ(nr_seen_as(self->fd, self->ptr, half, PRIVATE, self->buf), half);
	EXPECT_EQ(nr_seen_as(self->fd, self->to, half, PRIVATE, self->buf), half);
	EXPECT_EQ(folio_pages(arena, self->to + PAGES(half)), self->table);
	EXPECT_TRUE(intact_from(self->to, self->table, 1, half));
	EXPECT_TRUE(intact(self->ptr, half, 1));
	EXPECT_TRUE(intact_from(self->second + PAGES(half), half, 1,
				self->table + half));

	/* Together again. */
	ASSERT_EQ(relocate(self->to, self->table, MUST_RELOCATE_ANON, ptr), ptr);
	EXPECT_TRUE(is_one_vma(arena, self->ptr, self->nr));
	EXPECT_TRUE(can_relocate(self, variant, self->ptr));
}

/* One page of a huge page, the rest of which stays with us. */
TEST_F(huge, exclusive_page)
{
	struct arena *arena = &self->arena;
	char *ptr = self->ptr + PAGES(3);

	ASSERT_EQ(device_do(self->fd, HMM_DMIRROR_EXCLUSIVE, ptr, 1, self->buf), 0);
	ASSERT_EQ(nr_present(arena, self->ptr, self->nr), self->nr - 1);
	ASSERT_EQ(folio_pages(arena, self->ptr), self->table);
	read_entries(arena, self->ptr, self->nr, self->entries);

	snapshot_take(&self->snap, arena, self->ptr, self->nr);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr, self->nr,
			       MUST_RELOCATE_ANON, self->to));
	EXPECT_TRUE(refused_as("device", ptr));
	EXPECT_EQ(device_do(self->fd, HMM_DMIRROR_CHECK_EXCLUSIVE, ptr, 1,
			    self->buf), -EPERM);
	EXPECT_EQ(folio_pages(arena, self->ptr), self->table);

	ASSERT_EQ(relocate(self->ptr, self->nr, RELOCATE_ANON, self->to), self->to);
	EXPECT_TRUE(same_entries(arena, self->to, self->nr, self->entries));
	EXPECT_EQ(folio_pages(arena, self->to), self->table);
	EXPECT_TRUE(is_one_vma(arena, self->to, self->nr));
	EXPECT_TRUE(can_relocate(self, variant, self->to));
}

/*
 * The page is not even in the range, but moved away before: it is a mapping of
 * the folio nonetheless. The split that lets the others go takes it from the
 * device.
 */
TEST_F(huge, exclusive_page_elsewhere)
{
	struct arena *arena = &self->arena;
	char *other = arena_at(arena, 9 * self->table);

	/* The source VMA keeps the hole, so the folio is not cut by its end. */
	ASSERT_EQ(relocate(self->ptr, 1, MREMAP_DONTUNMAP, other), other);
	ASSERT_EQ(device_do(self->fd, HMM_DMIRROR_EXCLUSIVE, other, 1, self->buf),
		  0);
	ASSERT_EQ(nr_present(arena, other, 1), 0);
	force_read_pages(self->ptr + PAGES(1), self->nr - 1, psize());

	ASSERT_EQ(relocate(self->ptr, self->nr, MUST_RELOCATE_ANON, self->to),
		  self->to);
	EXPECT_EQ(device_do(self->fd, HMM_DMIRROR_CHECK_EXCLUSIVE, other, 1,
			    self->buf), 0);
	EXPECT_EQ(nr_present(arena, other, 1), 1);
	EXPECT_TRUE(healthy(arena, other, 1, 1));
	EXPECT_TRUE(all_zero(self->to, 1));
	EXPECT_TRUE(healthy_from(arena, self->to + PAGES(1), self->nr - 1, 1, 1));
	EXPECT_TRUE(merged(arena, self->to, self->nr));
}

TEST_F(huge, mirrored)
{
	struct arena *arena = &self->arena;

	ASSERT_GT(device_do(self->fd, HMM_DMIRROR_READ, self->ptr, self->nr,
			    self->buf), 0);
	ASSERT_EQ(relocate(self->ptr, self->nr, MUST_RELOCATE_ANON | MREMAP_DONTUNMAP, self->to),
		  self->to);
	EXPECT_GT(device_do(self->fd, HMM_DMIRROR_READ, self->ptr, self->nr,
			    self->buf), 0);
	EXPECT_TRUE(all_zero((char *)self->buf, self->nr));

	fill((char *)self->buf, self->nr, 2);
	EXPECT_GT(device_do(self->fd, HMM_DMIRROR_WRITE, self->to, self->nr,
			    self->buf), 0);
	EXPECT_TRUE(healthy(arena, self->to, self->nr, 2));
	EXPECT_TRUE(all_zero(self->ptr, self->nr));
	EXPECT_TRUE(merged(arena, self->to, self->nr));
}

static pid_t loaded_by;

/* A child that gives up by exit() comes here, too. */
static void unload_module(void)
{
	if (getpid() == loaded_by &&
	    system("modprobe -q -r test_hmm 2>/dev/null"))
		ksft_print_msg("cannot unload test_hmm\n");
}

/* As test_hmm.sh does it. The tests skip if there is no module to be had. */
static void load_module(void)
{
	if (!access("/dev/hmm_dmirror0", F_OK) ||
	    system("modprobe -q test_hmm 2>/dev/null"))
		return;
	loaded_by = getpid();
	atexit(unload_module);
}

int main(int argc, char **argv)
{
	load_module();
	return test_harness_run(argc, argv);
}
