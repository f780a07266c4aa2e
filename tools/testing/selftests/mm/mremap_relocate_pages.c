// SPDX-License-Identifier: GPL-2.0-only
/*
 * MREMAP_RELOCATE_ANON and MREMAP_MUST_RELOCATE_ANON: what the page tables of
 * the range that is moved can hold, and what has become of it afterwards.
 *
 * Whether a page was re-homed rightly shows when the kernel has to find its
 * mappings from the page: healthy() has every page migrated and reclaimed. A
 * page that kept its old index or its old anon_vma can be read and written as
 * if nothing were wrong, but it cannot be unmapped.
 */
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>
#include <mm/gup_test.h>
#include "mremap_relocate_util.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#endif
#ifndef MADV_HWPOISON
#define MADV_HWPOISON		100
#endif

#define KPF_SWAPCACHE		BIT_ULL(13)
#define KPF_KSM			BIT_ULL(21)
#define KPF_ZERO_PAGE		BIT_ULL(24)

/* Small pages only. */
FIXTURE(pages)
{
	struct arena arena;
	struct snapshot snap;
	char *left, *ptr, *to;
};

FIXTURE_VARIANT(pages)
{
	int flags;
};

FIXTURE_VARIANT_ADD(pages, relocate)
{
	.flags = RELOCATE_ANON,
};

FIXTURE_VARIANT_ADD(pages, must)
{
	.flags = MUST_RELOCATE_ANON,
};

/*
 * Every test moves ptr to the right of left:
 *
 *	..[A..A]..[BBBB]........   ->   ..________..[BBBBA..A]..
 */
FIXTURE_SETUP(pages)
{
	ASSERT_EQ(prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0), 0);
	arena_init(&self->arena, 200, 0);
	self->left = arena_map(&self->arena, 100, 4);
	self->ptr = arena_at(&self->arena, 10);
	self->to = arena_at(&self->arena, 104);
	fill(self->left, 4, 9);
}

FIXTURE_TEARDOWN(pages)
{
	arena_exit(&self->arena);
}

#define EXPECT_MERGED(nr) do {							\
	EXPECT_TRUE(is_one_vma(&self->arena, self->left, 4 + (nr)));		\
	EXPECT_TRUE(healthy(&self->arena, self->left, 4, 9));			\
} while (0)

TEST_F(pages, with_holes)
{
	struct arena *arena = &self->arena;
	__u64 entries[32];
	int i;

	/* ..[AaAaAaAa].. */
	arena_map(arena, 10, 32);
	for (i = 0; i < 32; i += 2)
		fill(self->ptr + PAGES(i), 1, i);
	read_entries(arena, self->ptr, 32, entries);

	ASSERT_EQ(relocate(self->ptr, 32, variant->flags, self->to), self->to);
	EXPECT_TRUE(same_entries(arena, self->to, 32, entries));
	EXPECT_EQ(nr_present(arena, self->to, 32), 16);
	EXPECT_MERGED(32);
	for (i = 0; i < 32; i += 2) {
		EXPECT_TRUE(healthy(arena, self->to + PAGES(i), 1, i));
		EXPECT_TRUE(all_zero(self->to + PAGES(i + 1), 1));
	}
}

TEST_F(pages, zero_pages)
{
	struct arena *arena = &self->arena;
	__u64 entries[32];
	int i;

	/* Every second page is the zero page, the others are our own. */
	arena_map(arena, 10, 32);
	for (i = 0; i < 32; i += 2) {
		fill(self->ptr + PAGES(i), 1, i);
		FORCE_READ(self->ptr[PAGES(i + 1)]);
	}
	read_entries(arena, self->ptr, 32, entries);

	ASSERT_EQ(relocate(self->ptr, 32, variant->flags, self->to), self->to);
	EXPECT_TRUE(same_entries(arena, self->to, 32, entries));
	EXPECT_MERGED(32);
	for (i = 0; i < 32; i += 2) {
		EXPECT_TRUE(healthy(arena, self->to + PAGES(i), 1, i));
		EXPECT_TRUE(all_zero(self->to + PAGES(i + 1), 1));
	}

	/* A write replaces it, by a page that is at home here. */
	fill(self->to, 32, 3);
	EXPECT_TRUE(healthy(arena, self->to, 32, 3));
}

/* Nothing but zero pages: not a page to be re-homed, and yet faulted. */
TEST_F(pages, only_zero_pages)
{
	struct arena *arena = &self->arena;

	arena_map(arena, 10, 8);
	force_read_pages(self->ptr, 8, psize());
	ASSERT_EQ(nr_present(arena, self->ptr, 8), 8);
	ASSERT_EQ(relocate(self->ptr, 8, variant->flags, self->to), self->to);
	EXPECT_EQ(nr_present(arena, self->to, 8), 8);
	EXPECT_TRUE(all_zero(self->to, 8));
	EXPECT_MERGED(8);
	fill(self->to, 8, 3);
	EXPECT_TRUE(healthy(arena, self->to, 8, 3));
}

/* Faulted once, and empty again: there is an anon_vma, but no page. */
TEST_F(pages, all_dropped)
{
	struct arena *arena = &self->arena;

	fill(arena_map(arena, 10, 8), 8, 1);
	ASSERT_EQ(madvise(self->ptr, PAGES(8), MADV_DONTNEED), 0);
	ASSERT_EQ(relocate(self->ptr, 8, variant->flags, self->to), self->to);
	EXPECT_TRUE(all_zero(self->to, 8));
	EXPECT_MERGED(8);
	fill(self->to, 8, 3);
	EXPECT_TRUE(healthy(arena, self->to, 8, 3));
}

TEST_F(pages, guard_regions)
{
	struct arena *arena = &self->arena;
	__u64 entries[32];
	int i;

	fill(arena_map(arena, 10, 32), 32, 1);
	for (i = 0; i < 32; i += 4) {
		if (madvise(self->ptr + PAGES(i), PAGES(1), MADV_GUARD_INSTALL))
			SKIP(return, "no guard regions");
	}
	read_entries(arena, self->ptr, 32, entries);

	ASSERT_EQ(relocate(self->ptr, 32, variant->flags, self->to), self->to);
	EXPECT_TRUE(same_entries(arena, self->to, 32, entries));
	EXPECT_EQ(nr_vmas(arena, self->left, 36), 1);
	for (i = 0; i < 32; i += 4) {
		EXPECT_TRUE(faults(self->to + PAGES(i)));
		EXPECT_TRUE(healthy_from(arena, self->to + PAGES(i + 1), 3, 1,
					 i + 1));
	}
	EXPECT_TRUE(healthy(arena, self->left, 4, 9));
}

/* More than one page table, aligned so that tables could be moved whole. */
TEST_F(pages, whole_tables)
{
	const size_t nr = 2 * HPAGE_SIZE / psize();
	struct arena arena;
	__u64 *entries = calloc(nr, sizeof(*entries));
	char *left, *ptr, *to;

	ASSERT_NE(entries, NULL);
	arena_init(&arena, 8 * nr, 2 * HPAGE_SIZE);
	left = arena_map(&arena, 4 * nr - 4, 4);
	fill(left, 4, 9);
	ptr = arena_map(&arena, nr, nr);
	to = arena_at(&arena, 4 * nr);
	fill(ptr, nr, 1);
	read_entries(&arena, ptr, nr, entries);

	ASSERT_EQ(relocate(ptr, nr, variant->flags, to), to);
	EXPECT_TRUE(same_entries(&arena, to, nr, entries));
	EXPECT_TRUE(is_one_vma(&arena, left, nr + 4));
	EXPECT_TRUE(healthy(&arena, to, nr, 1));
	EXPECT_TRUE(healthy(&arena, left, 4, 9));
	free(entries);
	arena_exit(&arena);
}

/* From the middle of one table to the end of another, and over it. */
TEST_F(pages, across_tables)
{
	const size_t table = HPAGE_SIZE / psize();
	struct arena arena;
	char *ptr, *to;

	arena_init(&arena, 8 * table, HPAGE_SIZE);
	ptr = arena_map(&arena, table - 20, 40);
	to = arena_at(&arena, 4 * table - 7);
	fill(ptr, 40, 1);
	fill(arena_map(&arena, 4 * table - 11, 4), 4, 9);

	ASSERT_EQ(relocate(ptr, 40, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(&arena, arena_at(&arena, 4 * table - 11), 44));
	EXPECT_TRUE(healthy(&arena, to, 40, 1));
	EXPECT_TRUE(healthy(&arena, arena_at(&arena, 4 * table - 11), 4, 9));
	arena_exit(&arena);
}

TEST_F(pages, swapped_out)
{
	struct arena *arena = &self->arena;
	__u64 entries[32];

	if (!can_swap())
		SKIP(return, "no swap");

	fill(arena_map(arena, 10, 32), 32, 1);
	ASSERT_EQ(pageout(arena, self->ptr, 32, 32), 32);
	read_entries(arena, self->ptr, 32, entries);

	ASSERT_EQ(relocate(self->ptr, 32, variant->flags, self->to), self->to);
	EXPECT_TRUE(same_entries(arena, self->to, 32, entries));
	EXPECT_EQ(nr_vmas(arena, self->left, 36), 1);
	EXPECT_TRUE(healthy(arena, self->to, 32, 1));
	EXPECT_MERGED(32);
}

TEST_F(pages, swapped_out_in_part)
{
	struct arena *arena = &self->arena;
	int i;

	if (!can_swap())
		SKIP(return, "no swap");

	fill(arena_map(arena, 10, 32), 32, 1);
	ASSERT_EQ(pageout(arena, self->ptr, 32, 32), 32);
	for (i = 0; i < 32; i += 3)
		FORCE_READ(self->ptr[PAGES(i)]);

	ASSERT_EQ(relocate(self->ptr, 32, variant->flags, self->to), self->to);
	EXPECT_TRUE(healthy(arena, self->to, 32, 1));
	EXPECT_MERGED(32);
}

/* There and back several times, swapped out all the while. */
TEST_F(pages, swapped_out_moved_often)
{
	struct arena *arena = &self->arena;
	int i;

	if (!can_swap())
		SKIP(return, "no swap");

	fill(arena_map(arena, 10, 16), 16, 1);
	ASSERT_EQ(pageout(arena, self->ptr, 16, 16), 16);
	for (i = 0; i < 10; i++) {
		ASSERT_EQ(relocate(self->ptr, 16, variant->flags, self->to),
			  self->to);
		ASSERT_EQ(relocate(self->to, 16, variant->flags, self->ptr),
			  self->ptr);
	}
	ASSERT_EQ(relocate(self->ptr, 16, variant->flags, self->to), self->to);
	EXPECT_TRUE(healthy(arena, self->to, 16, 1));
	EXPECT_MERGED(16);
}

/*
 * Swap out, and have a child read everything: the pages are in the swap cache,
 * mapped by the child. When it is gone they still are there, because our swap
 * entries need them, mapped by nobody.
 */
static bool make_swap_cached(struct arena *arena, char *ptr, size_t nr)
{
	pid_t pid;

	if (pageout(arena, ptr, nr, nr) != nr)
		ksft_exit_fail_msg("cannot swap out\n");
	pid = fork_child(arena);
	if (!pid) {
		force_read_pages(ptr, nr, psize());
		_exit(0);
	}
	if (!reap(pid))
		ksft_exit_fail_msg("the child could not read\n");
	return nr_swapped(arena, ptr, nr) == nr &&
	       nr_swap_cached(arena, ptr, nr) > 0;
}

/*
 * Such a page is found from its mapping and index as soon as it is mapped
 * again, so it must have been re-homed although it was not mapped anywhere.
 */
TEST_F(pages, swap_cached)
{
	struct arena *arena = &self->arena;

	if (!can_swap())
		SKIP(return, "no swap");

	fill(arena_map(arena, 10, 32), 32, 1);
	if (!make_swap_cached(arena, self->ptr, 32))
		SKIP(return, "the pages do not stay in the swap cache");

	ASSERT_EQ(relocate(self->ptr, 32, variant->flags, self->to), self->to);
	EXPECT_EQ(nr_vmas(arena, self->left, 36), 1);
	EXPECT_TRUE(healthy(arena, self->to, 32, 1));
	EXPECT_MERGED(32);
}

/*
 * Pages that have just been reclaimed may still be on their way to the disk, and
 * in the swap cache until they are there.
 */
TEST_F(pages, under_writeback)
{
	struct arena *arena = &self->arena;
	size_t cached = 0;
	int i;

	if (!can_swap())
		SKIP(return, "no swap");

	fill(arena_map(arena, 10, 64), 64, 1);
	for (i = 0; i < 10; i++) {
		fill(self->ptr, 64, i);
		madvise(self->ptr, PAGES(64), MADV_PAGEOUT);
		cached += nr_swap_cached(arena, self->ptr, 64);
		ASSERT_EQ(relocate(self->ptr, 64, variant->flags, self->to),
			  self->to);
		ASSERT_EQ(nr_vmas(arena, self->left, 68), 1);
		ASSERT_TRUE(intact(self->to, 64, i));
		madvise(self->to, PAGES(64), MADV_PAGEOUT);
		cached += nr_swap_cached(arena, self->to, 64);
		ASSERT_EQ(relocate(self->to, 64, variant->flags, self->ptr),
			  self->ptr);
		ASSERT_TRUE(intact(self->ptr, 64, i));
	}
	TH_LOG("%zu of %d pages were in the swap cache", cached, 20 * 64);
	if (!cached)
		SKIP(return, "no page was in the swap cache when it was moved");
	EXPECT_TRUE(healthy(arena, self->ptr, 64, 9));
}

/* Swapped in again, the page is still in the swap cache, and mapped. */
TEST_F(pages, swapped_in)
{
	struct arena *arena = &self->arena;
	size_t i, cached = 0;

	if (!can_swap())
		SKIP(return, "no swap");

	fill(arena_map(arena, 10, 32), 32, 1);
	ASSERT_EQ(pageout(arena, self->ptr, 32, 32), 32);
	force_read_pages(self->ptr, 32, psize());
	ASSERT_EQ(nr_present(arena, self->ptr, 32), 32);
	for (i = 0; i < 32; i++)
		cached += !!(page_flags(arena, self->ptr + PAGES(i)) &
			     KPF_SWAPCACHE);
	if (!cached)
		SKIP(return, "no page is in the swap cache, or we may not know");

	ASSERT_EQ(relocate(self->ptr, 32, variant->flags, self->to), self->to);
	EXPECT_TRUE(healthy(arena, self->to, 32, 1));
	EXPECT_MERGED(32);
	fill(self->to, 32, 2);
	EXPECT_TRUE(healthy(arena, self->to, 32, 2));
}

/*
 * Migration entries. The pages are migrated back and forth by another thread
 * while they are moved back and forth: whichever comes first, no page may be
 * lost, left with a migration entry for ever, or left behind.
 */
TEST_F(pages, under_migration)
{
	struct arena *arena = &self->arena;
	struct migrator mig;
	unsigned long done;
	int i;

	if (nr_nodes() < 2)
		SKIP(return, "no second node to migrate to");

	fill(arena_map(arena, 10, 64), 64, 1);
	migrator_start(&mig, self->ptr, self->to, 64);
	for (i = 0; i < 100; i++) {
		/* Be sure that there is something to collide with. */
		migrator_wait(&mig, i);
		ASSERT_EQ(relocate(self->ptr, 64, variant->flags, self->to),
			  self->to);
		ASSERT_EQ(nr_vmas(arena, self->left, 68), 1);
		ASSERT_EQ(relocate(self->to, 64, variant->flags, self->ptr),
			  self->ptr);
		ASSERT_TRUE(is_one_vma(arena, self->ptr, 64));
	}
	done = migrator_stop(&mig);
	TH_LOG("%lu pages migrated during 200 moves", done);
	EXPECT_TRUE(healthy(arena, self->ptr, 64, 1));
	EXPECT_TRUE(healthy(arena, self->left, 4, 9));
}

/*
 * The neighbour is the rest of the source, so the pages keep their anon_vma. If
 * its lock were held during the move, it would be waited for with a page locked
 * by the one, and that page with the lock held by the other.
 */
TEST_F(pages, under_migration_in_one_anon_vma)
{
	struct arena *arena = &self->arena;
	char *rest = arena_map(arena, 50, 40);
	char *above = arena_at(arena, 58), *below = arena_at(arena, 18);
	struct migrator mig;
	int i;

	if (nr_nodes() < 2)
		SKIP(return, "no second node to migrate to");

	/* ..________[aaaaBBBB]..   ->   ..[BBBBaaaa]________..   and back */
	fill(rest, 40, 1);
	migrator_start(&mig, above, below, 32);
	for (i = 0; i < 100; i++) {
		migrator_wait(&mig, i);
		ASSERT_EQ(relocate(above, 32, variant->flags, below), below);
		ASSERT_TRUE(is_one_vma(arena, below, 40));
		ASSERT_EQ(relocate(below, 32, variant->flags, above), above);
		ASSERT_TRUE(is_one_vma(arena, rest, 40));
	}
	TH_LOG("%lu pages migrated during 200 moves", migrator_stop(&mig));
	EXPECT_TRUE(healthy(arena, rest, 40, 1));
}

/* A thread that marks pages as idle, for which it locks each of them. */
struct idler {
	pthread_t thread;
	struct arena *arena;
	char *ptr[2];		/* Places where the pages may be. */
	unsigned long rounds;
	bool stop;
	int bitmap;
};

#define IDLER_NR	32

static void *idler(void *arg)
{
	struct idler *idler = arg;
	const __u64 all = -1ull;
	__u64 entries[IDLER_NR];
	cpu_set_t set;
	int i;

	/* Run elsewhere than the thread that moves the range. */
	memset(&set, 0xff, sizeof(set));
	sched_setaffinity(0, sizeof(set), &set);
	while (!__atomic_load_n(&idler->stop, __ATOMIC_ACQUIRE)) {
		read_entries(idler->arena, idler->ptr[idler->rounds & 1], IDLER_NR,
			     entries);
		for (i = 0; i < IDLER_NR; i++) {
			__u64 pfn = entries[i] & (BIT_ULL(55) - 1);

			if (entries[i] & PM_PRESENT &&
			    pwrite(idler->bitmap, &all, sizeof(all),
				   pfn / 64 * sizeof(all)) != sizeof(all))
				ksft_exit_fail_perror("page_idle/bitmap");
		}
		__atomic_fetch_add(&idler->rounds, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

/*
 * Pages that are busy just when it is their turn: mapped, and locked by somebody
 * else. Each move is looked at, as the next one would put right what it left.
 */
TEST_F(pages, locked_by_others)
{
	struct arena *arena = &self->arena;
	struct idler idle = {
		.arena = arena,
		.ptr = { self->ptr, self->to },
	};
	unsigned long seen = 0;
	int i;

	if (nr_nodes() < 2)
		SKIP(return, "no second node to migrate to");
	idle.bitmap = open("/sys/kernel/mm/page_idle/bitmap", O_RDWR);
	if (idle.bitmap < 0)
		SKIP(return, "no /sys/kernel/mm/page_idle/bitmap");

	fill(arena_map(arena, 10, IDLER_NR), IDLER_NR, 1);
	ASSERT_EQ(pthread_create(&idle.thread, NULL, idler, &idle), 0);
	for (i = 0; i < 60; i++) {
		char *from = i & 1 ? self->to : self->ptr;
		char *to = i & 1 ? self->ptr : self->to;

		while (__atomic_load_n(&idle.rounds, __ATOMIC_ACQUIRE) == seen)
			sched_yield();
		seen = __atomic_load_n(&idle.rounds, __ATOMIC_ACQUIRE);
		ASSERT_EQ(relocate(from, IDLER_NR, variant->flags, to), to);
		/* On whatever node it is, one of the two is a change. */
		EXPECT_EQ(migrate(to, IDLER_NR, 0), IDLER_NR);
		EXPECT_EQ(migrate(to, IDLER_NR, 1), IDLER_NR);
	}
	__atomic_store_n(&idle.stop, true, __ATOMIC_RELEASE);
	pthread_join(idle.thread, NULL);
	close(idle.bitmap);
	EXPECT_TRUE(healthy(arena, self->ptr, IDLER_NR, 1));
	EXPECT_TRUE(healthy(arena, self->left, 4, 9));
}

/*
 * Map pages, and let KSM make one page of them. Then stop ksmd by "0", which does
 * not undo the merge. The neighbour has to agree about KSM. Returns NULL, or why
 * there is nothing to test.
 */
static const char *map_merged_by_ksm(FIXTURE_DATA(pages) * self, size_t nr)
{
	size_t i;

	if (ksm_stop() < 0 || ksm_get_full_scans() < 0)
		return "no KSM";
	arena_map(&self->arena, 10, nr);
	for (i = 0; i < nr; i++)
		fill(self->ptr + PAGES(i), 1, 1);
	if (madvise(self->ptr, PAGES(nr), MADV_MERGEABLE) ||
	    madvise(self->left, PAGES(4), MADV_MERGEABLE))
		return "no MADV_MERGEABLE";
	ksm_start();
	write_file("/sys/kernel/mm/ksm/run", "0", 2);
	if (page_flags(&self->arena, self->ptr) & KPF_KSM)
		return NULL;
	ksm_stop();
	return "KSM did not merge";
}

/* Pages that were one page for KSM are made separate again by the move. */
TEST_F(pages, ksm)
{
	struct arena *arena = &self->arena;
	const char *why = map_merged_by_ksm(self, 8);
	int i;

	if (why)
		SKIP(return, "%s", why);

	ASSERT_EQ(relocate(self->ptr, 8, variant->flags, self->to), self->to);
	EXPECT_EQ(nr_vmas(arena, self->left, 12), 1);
	EXPECT_EQ(page_flags(arena, self->to) & KPF_KSM, 0);
	ksm_stop();
	for (i = 0; i < 8; i++)
		EXPECT_TRUE(healthy(arena, self->to + PAGES(i), 1, 1));
	EXPECT_TRUE(healthy(arena, self->left, 4, 9));
	fill(self->to, 8, 2);
	EXPECT_TRUE(healthy(arena, self->to, 8, 2));
}

/*
 * But not if the call is refused, because a child shares the last page of the
 * range. Then they are still one page.
 */
static void move_ksm_and_shared(struct __test_metadata *_metadata,
				FIXTURE_DATA(pages) * self, size_t nr, int flags)
{
	struct arena *arena = &self->arena;
	struct step step;
	pid_t pid;

	/* ksmd is stopped, and does not touch this one. */
	fill_from(self->ptr + PAGES(nr - 1), 1, 1, nr - 1);
	pid = share_with_child(arena, self->ptr, nr, nr - 1, 1, &step);

	if (flags & MUST_RELOCATE_ANON) {
		snapshot_take(&self->snap, arena, self->ptr, nr);
		EXPECT_TRUE(is_refused(&self->snap, self->ptr, nr, flags,
				       self->to));
		EXPECT_TRUE(refused_as("shared_page",
				       self->ptr + PAGES(nr - 1)));
		EXPECT_NE(page_flags(arena, self->ptr) & KPF_KSM, 0);
	}

	/* Best effort moves them, if plainly, and makes them separate. */
	ASSERT_EQ(relocate(self->ptr, nr, RELOCATE_ANON, self->to), self->to);
	EXPECT_EQ(page_flags(arena, self->to) & KPF_KSM, 0);
	ksm_stop();
	tell_child(&step);
	EXPECT_TRUE(reap(pid));
	EXPECT_TRUE(healthy_from(arena, self->to + PAGES(nr - 1), 1, 1, nr - 1));
	while (--nr)
		EXPECT_TRUE(healthy(arena, self->to + PAGES(nr - 1), 1, 1));
	EXPECT_TRUE(healthy(arena, self->left, 4, 9));
}

TEST_F(pages, ksm_refused)
{
	const char *why = map_merged_by_ksm(self, 8);

	if (why)
		SKIP(return, "%s", why);
	ASSERT_TRUE(is_one_vma(&self->arena, self->ptr, 8));
	move_ksm_and_shared(_metadata, self, 8, variant->flags);
	EXPECT_TRUE(is_one_vma(&self->arena, self->to, 8));
}

/* Nor for another VMA of the range. Best effort is made for each of the two. */
TEST_F(pages, ksm_and_the_next_vma_shared)
{
	const char *why = map_merged_by_ksm(self, 8);

	if (why)
		SKIP(return, "%s", why);
	arena_map(&self->arena, 18, 1);
	ASSERT_EQ(nr_vmas(&self->arena, self->ptr, 9), 2);
	move_ksm_and_shared(_metadata, self, 9, variant->flags);
	EXPECT_TRUE(is_one_vma(&self->arena, self->left, 12));
}

static sigjmp_buf jump;
static sig_atomic_t can_jump;
static char *bus_address;

static void on_sigbus(int sig, siginfo_t *info, void *context)
{
	bus_address = info->si_addr;
	if (can_jump)
		siglongjmp(jump, 1);
}

/* Does reading end in SIGBUS, at this address? */
static bool is_poisoned(char *ptr)
{
	bus_address = NULL;
	if (!sigsetjmp(jump, 1)) {
		can_jump = true;
		asm volatile("" : : : "memory");
		FORCE_READ(*ptr);
		asm volatile("" : : : "memory");
	}
	can_jump = false;
	return (char *)((unsigned long)bus_address & ~(psize() - 1ul)) == ptr;
}

/*
 * The kernel finds out whom to tell, and at which address, from the page. It
 * tells at once, as the page has been written to.
 */
static int poison(char *ptr)
{
	int ret;

	bus_address = NULL;
	/* The compiler believes that madvise() does not call on_sigbus(). */
	asm volatile("" : : : "memory");
	ret = madvise(ptr, PAGES(1), MADV_HWPOISON);
	asm volatile("" : : : "memory");
	if (ret)
		return -1;
	return bus_address == ptr ? 0 : 1;
}

/* A page that fails before the move, and one that fails after it. */
TEST_F(pages, hwpoison)
{
	struct sigaction old, action = {
		.sa_sigaction = on_sigbus,
		.sa_flags = SA_SIGINFO,
	};
	struct arena *arena = &self->arena;
	unsigned long pfn[2];
	int ret;

	fill(arena_map(arena, 10, 8), 8, 1);
	pfn[0] = pagemap_get_pfn(arena->pagemap, self->ptr + PAGES(2));
	ASSERT_EQ(sigaction(SIGBUS, &action, &old), 0);
	ret = poison(self->ptr + PAGES(2));
	if (ret < 0)
		SKIP(return, "no MADV_HWPOISON");
	EXPECT_EQ(ret, 0);

	ASSERT_EQ(relocate(self->ptr, 8, variant->flags, self->to), self->to);
	EXPECT_EQ(nr_vmas(arena, self->left, 12), 1);
	EXPECT_TRUE(is_poisoned(self->to + PAGES(2)));
	EXPECT_TRUE(healthy_from(arena, self->to, 2, 1, 0));
	EXPECT_TRUE(healthy_from(arena, self->to + PAGES(3), 5, 1, 3));

	fill_from(self->to + PAGES(5), 1, 1, 5);
	pfn[1] = pagemap_get_pfn(arena->pagemap, self->to + PAGES(5));
	EXPECT_EQ(poison(self->to + PAGES(5)), 0);
	EXPECT_TRUE(is_poisoned(self->to + PAGES(5)));
	EXPECT_TRUE(intact_from(self->to + PAGES(6), 2, 1, 6));

	ASSERT_EQ(sigaction(SIGBUS, &old, NULL), 0);
	ASSERT_EQ(munmap(self->to, PAGES(8)), 0);
	unpoison_memory(pfn[0]);
	unpoison_memory(pfn[1]);
}

static int wp_range(int uffd, char *ptr, size_t nr, bool protect)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (unsigned long)ptr, .len = PAGES(nr) },
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(uffd, UFFDIO_WRITEPROTECT, &wp);
}

/* mremap() waits until the event that it causes has been read. */
static void *read_remap_event(void *arg)
{
	struct pollfd pollfd = { .fd = *(int *)arg, .events = POLLIN };
	struct uffd_msg *msg = calloc(1, sizeof(*msg));

	if (poll(&pollfd, 1, 10000) != 1 ||
	    read(pollfd.fd, msg, sizeof(*msg)) != sizeof(*msg)) {
		free(msg);
		return NULL;
	}
	return msg;
}

/*
 * userfaultfd write protection: some pages, some places without a page, and
 * some pages in swap. The new mapping stays registered if it was asked for.
 */
TEST_F(pages, uffd_wp_with_event)
{
	struct arena *arena = &self->arena;
	struct uffd_msg *msg;
	pthread_t thread;
	__u64 entries[16];
	int uffd, i;

	uffd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			 UFFD_FEATURE_WP_UNPOPULATED |
			 UFFD_FEATURE_EVENT_REMAP);
	if (uffd < 0)
		SKIP(return, "no userfaultfd with these features");

	arena_map(arena, 10, 16);
	fill(self->ptr, 12, 1);
	if (uffd_register(uffd, self->ptr, PAGES(16), false, true, false) ||
	    uffd_register(uffd, self->left, PAGES(4), false, true, false))
		SKIP(return, "cannot register for write protection");
	for (i = 0; i < 16; i += 2)
		ASSERT_EQ(wp_range(uffd, self->ptr + PAGES(i), 1, true), 0);
	if (can_swap())
		ASSERT_EQ(pageout(arena, self->ptr, 4, 4), 4);
	read_entries(arena, self->ptr, 16, entries);

	ASSERT_EQ(pthread_create(&thread, NULL, read_remap_event, &uffd), 0);
	ASSERT_EQ(relocate(self->ptr, 16, variant->flags, self->to), self->to);
	ASSERT_EQ(pthread_join(thread, (void **)&msg), 0);
	ASSERT_NE(msg, NULL);
	EXPECT_EQ(msg->event, UFFD_EVENT_REMAP);
	EXPECT_EQ(msg->arg.remap.from, (unsigned long)self->ptr);
	EXPECT_EQ(msg->arg.remap.to, (unsigned long)self->to);
	EXPECT_EQ(msg->arg.remap.len, PAGES(16));
	free(msg);

	EXPECT_TRUE(same_entries(arena, self->to, 16, entries));
	for (i = 0; i < 16; i++) {
		EXPECT_EQ(count_entries(arena, self->to + PAGES(i), 1,
					PM_UFFD_WP, PM_UFFD_WP), !(i & 1));
	}
	EXPECT_EQ(nr_vmas(arena, self->left, 20), 1);
	ASSERT_EQ(wp_range(uffd, self->to, 16, false), 0);
	EXPECT_TRUE(healthy(arena, self->to, 12, 1));
	EXPECT_TRUE(all_zero(self->to + PAGES(12), 4));
	EXPECT_TRUE(healthy(arena, self->left, 4, 9));
	close(uffd);
}

/* Not asked for: the new mapping is not registered, and has no markers left. */
TEST_F(pages, uffd_wp_without_event)
{
	struct arena *arena = &self->arena;
	int uffd, i;

	uffd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			 UFFD_FEATURE_WP_UNPOPULATED);
	if (uffd < 0)
		SKIP(return, "no userfaultfd with these features");

	arena_map(arena, 10, 16);
	fill(self->ptr, 12, 1);
	if (uffd_register(uffd, self->ptr, PAGES(16), false, true, false))
		SKIP(return, "cannot register for write protection");
	for (i = 0; i < 16; i += 2)
		ASSERT_EQ(wp_range(uffd, self->ptr + PAGES(i), 1, true), 0);
	if (can_swap())
		ASSERT_EQ(pageout(arena, self->ptr, 4, 4), 4);

	ASSERT_EQ(relocate(self->ptr, 16, variant->flags, self->to), self->to);
	EXPECT_EQ(count_entries(arena, self->to, 16, PM_UFFD_WP, PM_UFFD_WP), 0);
	EXPECT_EQ(nr_vmas(arena, self->left, 20), 1);
	EXPECT_TRUE(healthy(arena, self->to, 12, 1));
	fill(self->to, 16, 2);
	EXPECT_TRUE(healthy(arena, self->to, 16, 2));
	EXPECT_TRUE(healthy(arena, self->left, 4, 9));
	close(uffd);
}

/*
 * A refused move of a registered range must leave it registered, protected and
 * without an event. What makes it refused is a page that a child uses too.
 */
TEST_F(pages, uffd_wp_refused)
{
	struct arena *arena = &self->arena;
	struct step step;
	int uffd, i;
	char byte;
	pid_t pid;

	uffd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			 UFFD_FEATURE_WP_UNPOPULATED);
	if (uffd < 0)
		SKIP(return, "no userfaultfd with these features");

	arena_map(arena, 10, 16);
	fill(self->ptr, 12, 1);
	if (uffd_register(uffd, self->ptr, PAGES(16), false, true, false))
		SKIP(return, "cannot register for write protection");
	for (i = 0; i < 16; i += 2)
		ASSERT_EQ(wp_range(uffd, self->ptr + PAGES(i), 1, true), 0);

	pid = share_with_child(arena, self->ptr, 12, 0, 1, &step);

	snapshot_take(&self->snap, arena, self->ptr, 16);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr, 16, MUST_RELOCATE_ANON,
			       self->to));
	EXPECT_EQ(read(uffd, &byte, 1), -1);

	/* Still registered: write protection can be taken back. */
	EXPECT_EQ(wp_range(uffd, self->ptr, 16, false), 0);
	EXPECT_EQ(count_entries(arena, self->ptr, 16, PM_UFFD_WP, PM_UFFD_WP), 0);
	EXPECT_TRUE(intact(self->ptr, 12, 1));
	tell_child(&step);
	EXPECT_TRUE(reap(pid));
	close(uffd);
}

/*
 * Large folios. The arena is aligned to page tables; the source lies at the
 * start of one, where faults get folios of the size under test.
 */
FIXTURE(large)
{
	struct arena arena;
	struct snapshot snap;
	struct thp_settings saved;
	size_t table;		/* pages that a page table maps */
	size_t nr;		/* pages of a folio */
	char *ptr;
	__u64 entries[1024];
};

FIXTURE_VARIANT(large)
{
	int order;
};

FIXTURE_VARIANT_ADD(large, 16kB)
{
	.order = 2,
};

FIXTURE_VARIANT_ADD(large, 64kB)
{
	.order = 4,
};

FIXTURE_VARIANT_ADD(large, 1MB)
{
	.order = 8,
};

FIXTURE_VARIANT_ADD(large, 2MB)
{
	.order = 9,
};

/*
 * Keep khugepaged away from what is to stay as it is. It would take pages off
 * their LRU list, and leave them in the batch of its own CPU if it gives up.
 * Mappings that are to merge must agree on this.
 */
static void no_more_huge(char *ptr, size_t nr)
{
	if (madvise(ptr, PAGES(nr), MADV_NOHUGEPAGE))
		ksft_exit_fail_perror("MADV_NOHUGEPAGE");
}

FIXTURE_SETUP(large)
{
	if (geteuid())
		SKIP(return, "only root may choose the size of folios");

	self->table = HPAGE_SIZE / psize();
	self->nr = 1ul << variant->order;
	arena_init(&self->arena, 10 * self->table, HPAGE_SIZE);
	if (self->arena.kpageflags < 0)
		SKIP(return, "cannot read /proc/kpageflags");

	if (!thp_set_order(variant->order, &self->saved))
		SKIP(return, "no folios of this size");
	/* From here on there is something to put back. */
	self->ptr = arena_map(&self->arena, self->table, 2 * self->nr);
	fill(self->ptr, 2 * self->nr, 1);
	no_more_huge(self->ptr, 2 * self->nr);
	if (folio_pages(&self->arena, self->ptr) != self->nr ||
	    folio_pages(&self->arena, self->ptr + PAGES(self->nr)) != self->nr) {
		thp_write_settings(&self->saved);
		SKIP(return, "got no folios of this size");
	}
	read_entries(&self->arena, self->ptr, 2 * self->nr, self->entries);
}

/* The settings of the system are put back even if the test was killed. */
FIXTURE_TEARDOWN_PARENT(large)
{
	thp_write_settings(&self->saved);
}

/* A neighbour to the left of 'to', faulted in. */
static char *large_left(struct arena *arena, char *to)
{
	char *left = arena_map(arena, (to - arena->base) / psize() - 3, 3);

	no_more_huge(left, 3);
	fill(left, 3, 9);
	return left;
}

/*
 * Move both folios to a place that is 'page' pages into the arena. They must
 * arrive unsplit, and merge.
 */
static void move_both(struct __test_metadata *_metadata,
		      FIXTURE_DATA(large) * self, char *from, size_t page)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, page);
	char *left = large_left(arena, to);

	ASSERT_EQ(relocate(from, 2 * self->nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(same_entries(arena, to, 2 * self->nr, self->entries));
	EXPECT_EQ(folio_pages(arena, to), self->nr);
	EXPECT_EQ(folio_pages(arena, to + PAGES(self->nr)), self->nr);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + 2 * self->nr));
	EXPECT_TRUE(intact(to, 2 * self->nr, 1));
	EXPECT_TRUE(healthy(arena, left, 3, 9));
}

TEST_F(large, aligned)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table);

	move_both(_metadata, self, self->ptr, 4 * self->table);
	/* What was mapped by one entry still is. */
	if (PAGES(self->nr) == HPAGE_SIZE)
		EXPECT_TRUE(check_huge_anon(to - PAGES(3), PAGES(2 * self->nr + 3),
					    2, HPAGE_SIZE));
	EXPECT_TRUE(healthy(arena, to, 2 * self->nr, 1));
}

TEST_F(large, one_page_off)
{
	move_both(_metadata, self, self->ptr, 4 * self->table + 1);
	EXPECT_TRUE(healthy(&self->arena, arena_at(&self->arena, 4 * self->table + 1),
			    2 * self->nr, 1));
}

TEST_F(large, half_a_folio_off)
{
	const size_t page = 4 * self->table + self->nr / 2;

	move_both(_metadata, self, self->ptr, page);
	EXPECT_TRUE(healthy(&self->arena, arena_at(&self->arena, page),
			    2 * self->nr, 1));
}

/* The first folio astride two page tables: at the destination, at both, at the source. */
TEST_F(large, astride_tables)
{
	const size_t one = 4 * self->table - self->nr / 2;
	const size_t two = 6 * self->table - self->nr / 4;
	struct arena *arena = &self->arena;

	move_both(_metadata, self, self->ptr, one);
	move_both(_metadata, self, arena_at(arena, one), two);
	move_both(_metadata, self, arena_at(arena, two), self->table);
	EXPECT_TRUE(healthy(arena, self->ptr, 2 * self->nr, 1));
}

TEST_F(large, moved_often)
{
	struct arena *arena = &self->arena;
	char *from = self->ptr;
	int i;

	for (i = 0; i < 20; i++) {
		size_t page = (i & 1 ? self->table : 4 * self->table) + 7 * i;

		ASSERT_EQ(relocate(from, 2 * self->nr, MUST_RELOCATE_ANON, arena_at(arena, page)),
			  arena_at(arena, page));
		from = arena_at(arena, page);
		ASSERT_TRUE(is_one_vma(arena, from, 2 * self->nr));
	}
	EXPECT_TRUE(same_entries(arena, from, 2 * self->nr, self->entries));
	EXPECT_EQ(folio_pages(arena, from), self->nr);
	EXPECT_EQ(folio_pages(arena, from + PAGES(self->nr)), self->nr);
	EXPECT_TRUE(healthy(arena, from, 2 * self->nr, 1));
}

/*
 * The page tables that a move has ready in case that a huge page is split at
 * the last moment are given back if it is not. The figure is that of the whole
 * system, and may be off by what each CPU has not told yet.
 */
TEST_F(large, tables_given_back)
{
	const int moves = 500;
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table);
	const size_t nr = 2 * self->nr;
	long before;
	int i;

	before = meminfo_kb("PageTables");
	ASSERT_GE(before, 0);
	for (i = 0; i < moves; i += 2) {
		ASSERT_EQ(relocate(self->ptr, nr, MUST_RELOCATE_ANON, to), to);
		ASSERT_EQ(relocate(to, nr, MUST_RELOCATE_ANON, self->ptr),
			  self->ptr);
	}
	EXPECT_LT(meminfo_kb("PageTables") - before,
		  moves * (long)psize() / 1024);
	EXPECT_TRUE(healthy(arena, self->ptr, nr, 1));
}

/* Take one page of the first folio out, and move. */
static void move_with_hole(struct __test_metadata *_metadata,
			   FIXTURE_DATA(large) * self, size_t hole, size_t page)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, page);
	char *left = large_left(arena, to);
	const size_t nr = self->nr;

	ASSERT_EQ(madvise(self->ptr + PAGES(hole), PAGES(1), MADV_DONTNEED), 0);
	read_entries(arena, self->ptr, 2 * nr, self->entries);
	ASSERT_EQ(relocate(self->ptr, 2 * nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(same_entries(arena, to, 2 * nr, self->entries));
	EXPECT_EQ(folio_pages(arena, hole ? to : to + PAGES(1)), nr);
	EXPECT_EQ(folio_pages(arena, to + PAGES(nr)), nr);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + 2 * nr));

	if (hole)
		EXPECT_TRUE(healthy_from(arena, to, hole, 1, 0));
	EXPECT_TRUE(healthy_from(arena, to + PAGES(hole + 1), 2 * nr - hole - 1,
				 1, hole + 1));
	EXPECT_TRUE(all_zero(to + PAGES(hole), 1));
	EXPECT_TRUE(healthy(arena, left, 3, 9));
}

TEST_F(large, first_page_unmapped)
{
	move_with_hole(_metadata, self, 0, 4 * self->table + 1);
}

TEST_F(large, second_page_unmapped)
{
	move_with_hole(_metadata, self, 1, 4 * self->table);
}

TEST_F(large, last_page_unmapped)
{
	move_with_hole(_metadata, self, self->nr - 1, 4 * self->table + 3);
}

TEST_F(large, page_unmapped_astride_tables)
{
	move_with_hole(_metadata, self, self->nr / 2,
		       4 * self->table - self->nr / 2);
}

/* A page of the folio was dropped, and a small one has come into its place. */
TEST_F(large, hole_filled)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table + 1);
	char *left = large_left(arena, to);
	const size_t nr = 2 * self->nr;
	char *hole = self->ptr + PAGES(1);

	ASSERT_EQ(madvise(hole, PAGES(1), MADV_DONTNEED), 0);
	fill_from(hole, 1, 1, 1);
	ASSERT_EQ(folio_pages(arena, hole), 1);
	read_entries(arena, self->ptr, nr, self->entries);

	ASSERT_EQ(relocate(self->ptr, nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(same_entries(arena, to, nr, self->entries));
	EXPECT_EQ(folio_pages(arena, to), self->nr);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + nr));
	EXPECT_TRUE(healthy(arena, to, nr, 1));
	EXPECT_TRUE(healthy(arena, left, 3, 9));
}

/* Only a part of the folio is mapped at all: it is a part that moves whole. */
TEST_F(large, first_half_unmapped)
{
	struct arena *arena = &self->arena;
	const size_t nr = self->nr, half = nr / 2;
	char *to = arena_at(arena, 4 * self->table);
	char *left = large_left(arena, to);

	ASSERT_EQ(munmap(self->ptr, PAGES(half)), 0);
	ASSERT_EQ(relocate(self->ptr + PAGES(half), 2 * nr - half,
			   MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(same_entries(arena, to, 2 * nr - half, self->entries + half));
	EXPECT_EQ(folio_pages(arena, to + PAGES(nr - half)), nr);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + 2 * nr - half));
	EXPECT_TRUE(healthy_from(arena, to, 2 * nr - half, 1, half));
	EXPECT_TRUE(healthy(arena, left, 3, 9));
}

/*
 * Move 'nr' pages from page 'first' on. The rest stays, and of the folios only
 * those are split that an end of the range cuts.
 */
static void move_part(struct __test_metadata *_metadata,
		      FIXTURE_DATA(large) * self, size_t first, size_t nr)
{
	const size_t end = first + nr, all = 2 * self->nr;
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table);
	char *left = large_left(arena, to);

	ASSERT_EQ(relocate(self->ptr + PAGES(first), nr, MUST_RELOCATE_ANON,
			   to), to);
	EXPECT_TRUE(same_entries(arena, to, nr, self->entries + first));
	EXPECT_TRUE(is_one_vma(arena, left, 3 + nr));
	if (first)
		EXPECT_TRUE(same_entries(arena, self->ptr, first, self->entries));
	if (end < all)
		EXPECT_TRUE(same_entries(arena, self->ptr + PAGES(end), all - end,
					 self->entries + end));

	/* Is the first folio, is the second one, wholly in the range? */
	if (!first && end >= self->nr)
		EXPECT_EQ(folio_pages(arena, to), self->nr);
	if (first <= self->nr && end == all)
		EXPECT_EQ(folio_pages(arena, to + PAGES(self->nr - first)),
			  self->nr);
	/* Or wholly outside? */
	if (end <= self->nr)
		EXPECT_EQ(folio_pages(arena, self->ptr + PAGES(self->nr)),
			  self->nr);
	if (first >= self->nr)
		EXPECT_EQ(folio_pages(arena, self->ptr), self->nr);

	EXPECT_TRUE(healthy_from(arena, to, nr, 1, first));
	if (first)
		EXPECT_TRUE(healthy_from(arena, self->ptr, first, 1, 0));
	if (end < all)
		EXPECT_TRUE(healthy_from(arena, self->ptr + PAGES(end), all - end,
					 1, end));
	EXPECT_TRUE(healthy(arena, left, 3, 9));
}

TEST_F(large, one_of_two)
{
	move_part(_metadata, self, 0, self->nr);
}

TEST_F(large, the_other_of_two)
{
	move_part(_metadata, self, self->nr, self->nr);
}

TEST_F(large, cut_at_its_end)
{
	move_part(_metadata, self, 0, self->nr / 2);
}

TEST_F(large, cut_at_its_start)
{
	move_part(_metadata, self, self->nr + self->nr / 2, self->nr / 2);
}

TEST_F(large, cut_at_both_ends)
{
	move_part(_metadata, self, 1, self->nr / 2);
}

TEST_F(large, one_and_a_half)
{
	move_part(_metadata, self, 0, self->nr + self->nr / 2);
}

TEST_F(large, half_and_half)
{
	move_part(_metadata, self, self->nr / 2, self->nr);
}

TEST_F(large, all_but_the_ends)
{
	move_part(_metadata, self, 1, 2 * self->nr - 2);
}

/* The same cut, but the caller does not insist: it must work all the same. */
TEST_F(large, cut_best_effort)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table);
	char *left = large_left(arena, to);
	const size_t half = self->nr / 2;

	ASSERT_EQ(relocate(self->ptr, half, RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + half));
	EXPECT_TRUE(healthy_from(arena, to, half, 1, 0));
	EXPECT_TRUE(healthy_from(arena, self->ptr + PAGES(half),
				 2 * self->nr - half, 1, half));
}

/* An older plain move took a part elsewhere: the folio is in two places. */
TEST_F(large, mapped_in_two_places)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table);
	char *other = arena_at(arena, 6 * self->table + 5);
	const size_t nr = self->nr, half = nr / 2;
	char *left = large_left(arena, to);

	ASSERT_EQ(relocate(self->ptr, half, 0, other), other);
	ASSERT_EQ(relocate(self->ptr + PAGES(half), 2 * nr - half,
			   MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + 2 * nr - half));
	EXPECT_EQ(folio_pages(arena, to + PAGES(nr - half)), nr);
	EXPECT_TRUE(healthy_from(arena, to, 2 * nr - half, 1, half));
	EXPECT_TRUE(healthy_from(arena, other, half, 1, 0));

	/* The part that was elsewhere can follow. */
	ASSERT_EQ(relocate(other, half, MUST_RELOCATE_ANON, to + PAGES(2 * nr - half)),
		  to + PAGES(2 * nr - half));
	EXPECT_TRUE(is_one_vma(arena, left, 3 + 2 * nr));
	EXPECT_TRUE(healthy_from(arena, to + PAGES(2 * nr - half), half, 1, 0));
}

/*
 * As mapped_in_two_places, but new pages have come where the part was that is
 * elsewhere: no end of the range cuts the folio, and it cannot be re-homed.
 */
TEST_F(large, mapped_in_two_places_and_filled)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table);
	char *other = arena_at(arena, 6 * self->table + 5);
	const size_t nr = self->nr, half = nr / 2;
	char *left = large_left(arena, to);

	ASSERT_EQ(relocate(self->ptr, half, 0, other), other);
	arena_map(arena, self->table, half);
	no_more_huge(self->ptr, half);
	fill(self->ptr, half, 2);
	ASSERT_TRUE(is_one_vma(arena, self->ptr, 2 * nr));

	ASSERT_EQ(relocate(self->ptr, 2 * nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + 2 * nr));
	EXPECT_EQ(folio_pages(arena, to + PAGES(nr)), nr);
	EXPECT_TRUE(healthy(arena, to, half, 2));
	EXPECT_TRUE(healthy_from(arena, to + PAGES(half), 2 * nr - half, 1, half));
	EXPECT_TRUE(healthy(arena, other, half, 1));
}

/* Mapped by single pages, after write protection of one came and went. */
TEST_F(large, mapped_by_pages)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table);

	ASSERT_EQ(mprotect(self->ptr + PAGES(1), PAGES(1), PROT_READ), 0);
	ASSERT_EQ(mprotect(self->ptr + PAGES(1), PAGES(1),
			   PROT_READ | PROT_WRITE), 0);
	ASSERT_TRUE(is_one_vma(arena, self->ptr, 2 * self->nr));
	move_both(_metadata, self, self->ptr, 4 * self->table);
	EXPECT_TRUE(healthy(arena, to, 2 * self->nr, 1));
}

TEST_F(large, dontunmap)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table + 1);
	char *left = large_left(arena, to);

	ASSERT_EQ(relocate(self->ptr, 2 * self->nr, MUST_RELOCATE_ANON | MREMAP_DONTUNMAP, to),
		  to);
	EXPECT_TRUE(same_entries(arena, to, 2 * self->nr, self->entries));
	EXPECT_EQ(folio_pages(arena, to), self->nr);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + 2 * self->nr));
	EXPECT_TRUE(all_zero(self->ptr, 2 * self->nr));
	fill(self->ptr, 2 * self->nr, 2);
	EXPECT_TRUE(healthy(arena, to, 2 * self->nr, 1));
	EXPECT_TRUE(healthy(arena, self->ptr, 2 * self->nr, 2));
}

TEST_F(large, swapped_out)
{
	const size_t nr = 2 * self->nr;
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table + 1);
	char *left = large_left(arena, to);

	if (!can_swap())
		SKIP(return, "no swap");
	ASSERT_EQ(pageout(arena, self->ptr, nr, nr), nr);
	ASSERT_EQ(relocate(self->ptr, nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + nr));
	EXPECT_TRUE(healthy(arena, to, nr, 1));
}

/* Some pages come back, some stay out; what came back may be in the swap cache. */
TEST_F(large, swapped_out_in_part)
{
	const size_t nr = 2 * self->nr;
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table + 1);
	char *left = large_left(arena, to);
	size_t i;

	if (!can_swap())
		SKIP(return, "no swap");
	ASSERT_EQ(pageout(arena, self->ptr, nr, nr), nr);
	for (i = 1; i < nr; i += 3)
		FORCE_READ(self->ptr[PAGES(i)]);
	ASSERT_EQ(relocate(self->ptr, nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + nr));
	EXPECT_TRUE(healthy(arena, to, nr, 1));
}

/* Still large in the swap cache, and mapped again in part. */
TEST_F(large, under_writeback)
{
	const size_t nr = 2 * self->nr;
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table + 1);
	size_t whole = 0;
	int i;

	if (!can_swap())
		SKIP(return, "no swap");
	for (i = 0; i < 3; i++) {
		madvise(self->ptr, PAGES(nr), MADV_PAGEOUT);
		FORCE_READ(self->ptr[PAGES(1)]);
		whole += page_flags(arena, self->ptr + PAGES(1)) & KPF_SWAPCACHE &&
			 folio_pages(arena, self->ptr + PAGES(1)) == self->nr;
		ASSERT_EQ(relocate(self->ptr, nr, MUST_RELOCATE_ANON, to), to);
		ASSERT_TRUE(is_one_vma(arena, to, nr));
		madvise(to, PAGES(nr), MADV_PAGEOUT);
		FORCE_READ(to[PAGES(nr - 1)]);
		ASSERT_EQ(relocate(to, nr, MUST_RELOCATE_ANON, self->ptr),
			  self->ptr);
	}
	if (!whole)
		SKIP(return, "no large folio stayed in the swap cache");
	EXPECT_TRUE(healthy(arena, self->ptr, nr, 1));
}

TEST_F(large, swap_cached)
{
	const size_t nr = 2 * self->nr;
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table + 1);
	char *left = large_left(arena, to);

	if (!can_swap())
		SKIP(return, "no swap");
	if (!make_swap_cached(arena, self->ptr, nr))
		SKIP(return, "the pages do not stay in the swap cache");
	ASSERT_EQ(relocate(self->ptr, nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + nr));
	EXPECT_TRUE(healthy(arena, to, nr, 1));
}

TEST_F(large, under_migration)
{
	struct arena *arena = &self->arena;
	/* In turns, a place that is aligned and one that is not. */
	char *to[2] = { arena_at(arena, 4 * self->table), arena_at(arena, 4 * self->table + 5) };
	const size_t nr = 2 * self->nr;
	struct migrator mig;
	unsigned long done;
	int i;

	if (nr_nodes() < 2)
		SKIP(return, "no second node to migrate to");

	migrator_start(&mig, self->ptr, to[0], nr);
	for (i = 0; i < 30; i++) {
		migrator_wait(&mig, i);
		ASSERT_EQ(relocate(self->ptr, nr, MUST_RELOCATE_ANON,
				   to[i & 1]), to[i & 1]);
		ASSERT_TRUE(is_one_vma(arena, to[i & 1], nr));
		ASSERT_EQ(relocate(to[i & 1], nr, MUST_RELOCATE_ANON,
				   self->ptr), self->ptr);
		ASSERT_TRUE(is_one_vma(arena, self->ptr, nr));
	}
	done = migrator_stop(&mig);
	TH_LOG("%lu pages migrated during 60 moves", done);
	EXPECT_TRUE(healthy(arena, self->ptr, nr, 1));
}

/*
 * Always to a place where a huge page stays one, so that there is a migration
 * entry for all of it to be met.
 */
TEST_F(large, aligned_under_migration)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table);
	const size_t nr = 2 * self->nr;
	struct migrator mig;
	int i;

	if (nr_nodes() < 2)
		SKIP(return, "no second node to migrate to");
	if (PAGES(self->nr) != HPAGE_SIZE)
		SKIP(return, "only one size of folio is mapped by a PMD");

	migrator_start(&mig, self->ptr, to, nr);
	for (i = 0; i < 100; i++) {
		migrator_wait(&mig, i);
		ASSERT_EQ(relocate(self->ptr, nr, MUST_RELOCATE_ANON, to), to);
		ASSERT_TRUE(is_one_vma(arena, to, nr));
		ASSERT_EQ(relocate(to, nr, MUST_RELOCATE_ANON, self->ptr),
			  self->ptr);
		ASSERT_TRUE(is_one_vma(arena, self->ptr, nr));
	}
	TH_LOG("%lu pages migrated during 200 moves", migrator_stop(&mig));
	EXPECT_EQ(folio_pages(arena, self->ptr), self->nr);
	EXPECT_TRUE(healthy(arena, self->ptr, nr, 1));
}

/* Shared with a child that lives: refused, and not split in vain. */
TEST_F(large, shared)
{
	struct arena own = self->arena, *arena = &own;
	char *to = arena_at(arena, 4 * self->table);
	const size_t nr = 2 * self->nr;
	struct step step;
	pid_t pid;

	pid = share_with_child(arena, self->ptr, nr, 0, 1, &step);

	snapshot_take(&self->snap, arena, self->ptr, nr);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr, nr, MUST_RELOCATE_ANON, to));
	EXPECT_TRUE(refused_as("shared_page", self->ptr));
	EXPECT_EQ(folio_pages(arena, self->ptr), self->nr);

	ASSERT_EQ(relocate(self->ptr, nr, RELOCATE_ANON, to), to);
	EXPECT_TRUE(same_entries(arena, to, nr, self->entries));
	EXPECT_EQ(folio_pages(arena, to), self->nr);
	EXPECT_TRUE(intact(to, nr, 1));
	tell_child(&step);
	EXPECT_TRUE(reap(pid));

	/* Alone again. */
	move_both(_metadata, self, to, 7 * self->table + 1);
	EXPECT_TRUE(healthy(arena, arena_at(arena, 7 * self->table + 1), nr, 1));
}

/* The caller gets copies of its own, and these can be relocated. */
TEST_F(large, shared_populate_write)
{
	struct arena own = self->arena, *arena = &own;
	char *to = arena_at(arena, 4 * self->table);
	char *left = large_left(arena, to);
	const size_t nr = 2 * self->nr;
	struct step step;
	pid_t pid;

	step_init(&step);
	pid = fork_child(arena);
	if (!pid) {
		wait_for_parent(&step);
		EXPECT_TRUE(same_entries(arena, self->ptr, nr, self->entries));
		EXPECT_EQ(folio_pages(arena, self->ptr), self->nr);
		EXPECT_TRUE(intact(self->ptr, nr, 1));
		_exit(_metadata->exit_code);
	}

	ASSERT_EQ(relocate(self->ptr, nr, MUST_RELOCATE_ANON, to), MAP_FAILED);
	EXPECT_EQ(errno, EFAULT);
	ASSERT_EQ(madvise(self->ptr, PAGES(nr), MADV_POPULATE_WRITE), 0);
	ASSERT_EQ(relocate(self->ptr, nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + nr));
	EXPECT_TRUE(intact(to, nr, 1));
	tell_child(&step);
	EXPECT_TRUE(reap(pid));
	EXPECT_TRUE(healthy(arena, to, nr, 1));
	EXPECT_TRUE(healthy(arena, left, 3, 9));
}

/*
 * The first folio would have to be split, but the second one is shared, which
 * is found only after it: nothing may be split in vain.
 */
TEST_F(large, cut_and_the_other_shared)
{
	struct arena own = self->arena, *arena = &own;
	char *to = arena_at(arena, 4 * self->table);
	const size_t nr = self->nr, half = nr / 2;
	struct step step;
	pid_t pid;

	pid = share_with_child(arena, self->ptr, 2 * nr, nr, 1, &step);
	snapshot_take(&self->snap, arena, self->ptr, 2 * nr);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr + PAGES(half),
			       2 * nr - half, MUST_RELOCATE_ANON, to));
	EXPECT_TRUE(refused_as("shared_page", self->ptr + PAGES(nr)));
	EXPECT_EQ(folio_pages(arena, self->ptr), nr);
	EXPECT_EQ(folio_pages(arena, self->ptr + PAGES(nr)), nr);

	tell_child(&step);
	EXPECT_TRUE(reap(pid));
	move_part(_metadata, self, half, 2 * nr - half);
}

/*
 * The same, if what is shared is another VMA of the range. To insist on all of
 * them must leave all of them as they are.
 */
TEST_F(large, cut_and_the_next_vma_shared)
{
	struct arena own = self->arena, *arena = &own;
	char *to = arena_at(arena, 4 * self->table);
	const size_t nr = self->nr, half = nr / 2, part = 2 * nr - half;
	char *next = arena_map(arena, self->table + 2 * nr, 4);
	struct step step;
	pid_t pid;

	/* [aAAA][BBBB], where a and half of the next A are a folio. */
	no_more_huge(next, 4);
	fill_from(next, 4, 1, 2 * nr);
	ASSERT_EQ(mprotect(next, PAGES(4), PROT_READ), 0);
	pid = share_with_child(arena, self->ptr, 2 * nr + 4, 2 * nr, 1, &step);
	ASSERT_EQ(nr_vmas(arena, self->ptr, 2 * nr + 4), 2);

	snapshot_take(&self->snap, arena, self->ptr, 2 * nr + 4);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr + PAGES(half), part + 4,
			       MUST_RELOCATE_ANON, to));
	EXPECT_TRUE(refused_as("shared_page", next));
	EXPECT_EQ(folio_pages(arena, self->ptr), nr);
	EXPECT_EQ(folio_pages(arena, self->ptr + PAGES(nr)), nr);

	tell_child(&step);
	EXPECT_TRUE(reap(pid));
	ASSERT_EQ(relocate(self->ptr + PAGES(half), part + 4,
			   MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, to, part));
	EXPECT_EQ(folio_pages(arena, to + PAGES(half)), nr);
	ASSERT_EQ(mprotect(to + PAGES(part), PAGES(4), PROT_READ | PROT_WRITE), 0);
	EXPECT_TRUE(is_one_vma(arena, to, part + 4));
	EXPECT_TRUE(healthy_from(arena, to, part + 4, 1, half));
	EXPECT_TRUE(healthy(arena, self->ptr, half, 1));
}

/*
 * Two VMAs share a folio. All of it moves, though each VMA for itself, so that
 * it has two homes for a while.
 */
TEST_F(large, astride_two_vmas)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table);
	char *left = large_left(arena, to);
	const size_t nr = 2 * self->nr, half = self->nr / 2;

	/* [AA][BBBBBB], of which AABB and BBBB are the folios. */
	ASSERT_EQ(mprotect(self->ptr + PAGES(half), PAGES(nr - half), PROT_READ),
		  0);
	ASSERT_EQ(nr_vmas(arena, self->ptr, nr), 2);
	ASSERT_EQ(relocate(self->ptr, nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(same_entries(arena, to, nr, self->entries));
	EXPECT_TRUE(is_one_vma(arena, left, 3 + half));
	EXPECT_TRUE(is_one_vma(arena, to + PAGES(half), nr - half));
	EXPECT_EQ(folio_pages(arena, to + PAGES(self->nr)), self->nr);

	ASSERT_EQ(mprotect(to + PAGES(half), PAGES(nr - half),
			   PROT_READ | PROT_WRITE), 0);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + nr));
	EXPECT_TRUE(healthy(arena, to, nr, 1));
	EXPECT_TRUE(healthy(arena, left, 3, 9));
}

/*
 * Cut by the end of the range, so it would have to be split, and pinned, so it
 * cannot be: the one thing about a pin that stands in the way.
 */
TEST_F(large, cut_and_pinned)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table);
	char *left = large_left(arena, to);
	struct pin_longterm_test args = {
		.addr = (unsigned long)self->ptr,
		.size = PAGES(1),
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE,
	};
	const size_t nr = self->nr, half = nr / 2;
	int fd = open("/sys/kernel/debug/gup_test", O_RDWR);

	if (fd < 0)
		SKIP(return, "no /sys/kernel/debug/gup_test");
	ASSERT_EQ(ioctl(fd, PIN_LONGTERM_TEST_START, &args), 0);
	snapshot_take(&self->snap, arena, self->ptr, 2 * nr);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr, half, MUST_RELOCATE_ANON,
			       to));
	EXPECT_TRUE(refused_as("cut_pinned", self->ptr));

	ASSERT_EQ(relocate(self->ptr, half, RELOCATE_ANON, to), to);
	EXPECT_TRUE(refused_as("cut_pinned", to));
	EXPECT_TRUE(same_entries(arena, to, half, self->entries));
	EXPECT_EQ(nr_vmas(arena, left, 3 + half), 2);
	EXPECT_TRUE(intact(to, half, 1));

	/* Without the pin, it can be put right. */
	ASSERT_EQ(ioctl(fd, PIN_LONGTERM_TEST_STOP), 0);
	close(fd);
	ASSERT_EQ(relocate(to, half, MUST_RELOCATE_ANON, arena_at(arena, 6 * self->table)),
		  arena_at(arena, 6 * self->table));
	ASSERT_EQ(relocate(arena_at(arena, 6 * self->table), half,
			   MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + half));
	EXPECT_TRUE(healthy_from(arena, to, half, 1, 0));
	EXPECT_TRUE(healthy_from(arena, self->ptr + PAGES(half), 2 * nr - half,
				 1, half));
	EXPECT_TRUE(healthy(arena, left, 3, 9));
}

/* The same for a reference that is no pin: whoever has it, nobody can tell. */
TEST_F(large, cut_and_busy)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table);
	const size_t nr = self->nr, half = nr / 2;
	struct iovec iov = { .iov_base = self->ptr, .iov_len = 1 };
	int fds[2];

	ASSERT_EQ(pipe(fds), 0);
	ASSERT_EQ(vmsplice(fds[1], &iov, 1, 0), 1);
	snapshot_take(&self->snap, arena, self->ptr, 2 * nr);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr, half, MUST_RELOCATE_ANON,
			       to));
	EXPECT_TRUE(refused_as("cut_busy", self->ptr));
	EXPECT_EQ(folio_pages(arena, self->ptr), nr);

	close(fds[0]);
	close(fds[1]);
	move_part(_metadata, self, 0, half);
}

/* Shared with a child, and cut: nothing is split for it. */
TEST_F(large, cut_and_shared)
{
	struct arena own = self->arena, *arena = &own;
	char *to = arena_at(arena, 4 * self->table);
	const size_t nr = self->nr, half = nr / 2;
	struct step step;
	pid_t pid;

	pid = share_with_child(arena, self->ptr, 2 * nr, 0, 1, &step);
	snapshot_take(&self->snap, arena, self->ptr, 2 * nr);
	EXPECT_TRUE(is_refused(&self->snap, self->ptr + PAGES(half), nr,
			       MUST_RELOCATE_ANON, to));
	EXPECT_TRUE(refused_as("cut_shared", self->ptr + PAGES(half)));
	EXPECT_EQ(folio_pages(arena, self->ptr), nr);

	tell_child(&step);
	EXPECT_TRUE(reap(pid));
	move_part(_metadata, self, half, nr);
}

/* Pinned, and wholly in the range: that is no obstacle. */
TEST_F(large, pinned)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table + 1);
	struct pin_longterm_test args = {
		.addr = (unsigned long)self->ptr,
		.size = PAGES(self->nr),
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE,
	};
	char *seen = malloc(PAGES(self->nr));
	__u64 seen_addr = (unsigned long)seen;
	int fd = open("/sys/kernel/debug/gup_test", O_RDWR);

	ASSERT_NE(seen, NULL);
	if (fd < 0)
		SKIP(return, "no /sys/kernel/debug/gup_test");
	ASSERT_EQ(ioctl(fd, PIN_LONGTERM_TEST_START, &args), 0);
	move_both(_metadata, self, self->ptr, 4 * self->table + 1);
	fill(to, 2 * self->nr, 2);
	ASSERT_EQ(ioctl(fd, PIN_LONGTERM_TEST_READ, &seen_addr), 0);
	EXPECT_TRUE(intact(seen, self->nr, 2));
	ASSERT_EQ(ioctl(fd, PIN_LONGTERM_TEST_STOP), 0);
	close(fd);
	EXPECT_TRUE(healthy(arena, to, 2 * self->nr, 2));
	free(seen);
}

/* Large folios, small pages, zero pages, holes and swap entries in one range. */
TEST_F(large, mixture)
{
	const size_t nr = 2 * self->nr;
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 4 * self->table + 11);
	char *left = large_left(arena, to);
	char *tail = self->ptr + PAGES(nr);
	size_t i;

	/* Behind the folios, pages that are small. */
	arena_map(arena, self->table + nr, 32);
	no_more_huge(tail, 32);
	for (i = 0; i < 32; i += 4) {
		fill(tail + PAGES(i), 1, i);
		FORCE_READ(tail[PAGES(i + 1)]);
		fill(tail + PAGES(i + 3), 1, i + 3);
		if (can_swap())
			ASSERT_EQ(pageout(arena, tail + PAGES(i + 3), 1, 1), 1);
	}
	ASSERT_TRUE(is_one_vma(arena, self->ptr, nr + 32));

	ASSERT_EQ(relocate(self->ptr, nr + 32, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 3 + nr + 32));
	EXPECT_EQ(folio_pages(arena, to), self->nr);
	EXPECT_TRUE(healthy(arena, to, nr, 1));
	tail = to + PAGES(nr);
	for (i = 0; i < 32; i += 4) {
		EXPECT_TRUE(healthy(arena, tail + PAGES(i), 1, i));
		EXPECT_TRUE(all_zero(tail + PAGES(i + 1), 2));
		EXPECT_TRUE(healthy(arena, tail + PAGES(i + 3), 1, i + 3));
	}
}

/* The huge zero page, at a place where it can stay huge and at one where not. */
TEST_F(large, huge_zero_page)
{
	struct arena *arena = &self->arena;
	const size_t nr = self->table;
	char *ptr, *to, *left;
	int i;

	if (PAGES(self->nr) != HPAGE_SIZE)
		SKIP(return, "only one size of zero page is huge");

	for (i = 0; i < 2; i++) {
		arena_unmap(arena, 0, arena->nr);
		ptr = arena_map(arena, self->table, nr);
		FORCE_READ(*ptr);
		if (!(page_flags(arena, ptr) & KPF_ZERO_PAGE) ||
		    nr_present(arena, ptr, nr) != nr)
			SKIP(return, "got no huge zero page");
		no_more_huge(ptr, nr);
		to = arena_at(arena, 4 * self->table + i);
		left = large_left(arena, to);
		ASSERT_EQ(relocate(ptr, nr, MUST_RELOCATE_ANON, to), to);
		EXPECT_TRUE(is_one_vma(arena, left, 3 + nr));
		EXPECT_TRUE(all_zero(to, nr));
		fill(to, nr, 2);
		EXPECT_TRUE(healthy(arena, to, nr, 2));
	}
}

/* The same alone: the first write to it needs an anon_vma. */
TEST_F(large, huge_zero_page_alone)
{
	struct arena *arena = &self->arena;
	const size_t nr = self->table;
	char *ptr, *to = arena_at(arena, 4 * self->table);

	if (PAGES(self->nr) != HPAGE_SIZE)
		SKIP(return, "only one size of zero page is huge");
	ptr = arena_map(arena, self->table, nr);
	FORCE_READ(*ptr);
	if (!(page_flags(arena, ptr) & KPF_ZERO_PAGE) ||
	    nr_present(arena, ptr, nr) != nr)
		SKIP(return, "got no huge zero page");
	ASSERT_EQ(relocate(ptr, nr, MUST_RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, to, nr));
	fill(to, nr, 2);
	EXPECT_TRUE(healthy(arena, to, nr, 2));
}

TEST_HARNESS_MAIN
