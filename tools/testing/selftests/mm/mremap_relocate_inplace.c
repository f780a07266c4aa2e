// SPDX-License-Identifier: GPL-2.0-only
/*
 * MREMAP_RELOCATE_ANON and MREMAP_MUST_RELOCATE_ANON without a change of size
 * and without a new place: memory is relocated where it stands.
 *
 * In the pictures '.' is a page of the arena that is reserved and not usable,
 * a letter is a page that belongs to a mapping, faulted in if it is a capital,
 * and brackets enclose one VMA.
 */
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <mm/gup_test.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "mremap_relocate_util.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT	21
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif

#ifndef __NR_mseal
#define __NR_mseal		462
#endif

#define ARENA_PAGES	100

FIXTURE(in_place)
{
	struct arena arena;
	struct snapshot snap;
	struct thp_settings saved;
};

FIXTURE_VARIANT(in_place)
{
	int flags;
};

FIXTURE_VARIANT_ADD(in_place, relocate)
{
	.flags = RELOCATE_ANON,
};

FIXTURE_VARIANT_ADD(in_place, must)
{
	.flags = MUST_RELOCATE_ANON,
};

FIXTURE_VARIANT_ADD(in_place, both)
{
	.flags = RELOCATE_ANON | MUST_RELOCATE_ANON,
};

FIXTURE_SETUP(in_place)
{
	arena_init(&self->arena, ARENA_PAGES, 0);
}

FIXTURE_TEARDOWN(in_place)
{
	arena_exit(&self->arena);
}

static char *map_filled(struct arena *arena, size_t page, size_t nr,
			unsigned long seed)
{
	char *ptr = arena_map(arena, page, nr);

	fill(ptr, nr, seed);
	return ptr;
}

/* Memory that a plain move has left at a page, from elsewhere. */
static char *map_moved(struct arena *arena, size_t page, size_t nr,
		       unsigned long seed)
{
	char *ptr = map_filled(arena, ARENA_PAGES - nr, nr, seed);
	char *to = arena_at(arena, page);

	if (relocate(ptr, nr, 0, to) != to)
		ksft_exit_fail_perror("mremap in the arena");
	arena_map(arena, ARENA_PAGES - nr, nr);
	arena_unmap(arena, ARENA_PAGES - nr, nr);
	return to;
}

/*
 * Neighbours that were written to before they met: [AAAAAaaaaa][BBBBB] from a
 * page on.
 */
static char *map_apart(struct arena *arena, size_t page, unsigned long seed)
{
	char *ptr = map_filled(arena, page, 5, seed);

	map_filled(arena, page + 10, 5, seed + 1);
	arena_map(arena, page + 5, 5);
	return ptr;
}

static int in_place(char *ptr, size_t nr, int flags)
{
	void *ret = sys_mremap(ptr, PAGES(nr), PAGES(nr),
			       MREMAP_MAYMOVE | flags, NULL);

	return ret == ptr ? 0 : -1;
}

/* Until some page has been migrated again. */
static void wait_for_migration(struct migrator *mig)
{
	migrator_wait(mig, __atomic_load_n(&mig->migrated, __ATOMIC_ACQUIRE) + 1);
}

/* [AAAAA][BBBBB]   ->   [AAAAABBBBB] */
TEST_F(in_place, moved_beside_home)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	__u64 entries[10];

	map_moved(arena, 15, 5, 2);
	ASSERT_EQ(nr_vmas(arena, ptr, 10), 2);
	read_entries(arena, ptr, 10, entries);
	ASSERT_EQ(in_place(ptr, 10, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));
	EXPECT_TRUE(same_entries(arena, ptr, 10, entries));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(5), 5, 2));
}

/* Only their anon_vmas differ: [AAAAAaaaaa][BBBBB]   ->   one */
TEST_F(in_place, written_apart)
{
	struct arena *arena = &self->arena;
	char *ptr = map_apart(arena, 10, 1);

	ASSERT_EQ(nr_vmas(arena, ptr, 15), 2);
	ASSERT_EQ(in_place(ptr, 15, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 15));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(all_zero(ptr + PAGES(5), 5));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(10), 5, 2));
}

/* The neighbour need not be in the range, on whatever side it is. */
TEST_F(in_place, neighbour_in_front)
{
	struct arena *arena = &self->arena;
	char *ptr = map_apart(arena, 10, 1);

	ASSERT_EQ(in_place(ptr + PAGES(10), 5, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 15));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(10), 5, 2));
}

TEST_F(in_place, neighbour_behind)
{
	struct arena *arena = &self->arena;
	char *ptr = map_apart(arena, 10, 1);

	ASSERT_EQ(in_place(ptr, 10, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 15));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(10), 5, 2));
}

/* Or it is so with a part of it: then it is the others that change. */
TEST_F(in_place, neighbour_in_part)
{
	struct arena *arena = &self->arena;
	char *ptr = map_apart(arena, 10, 1);

	ASSERT_EQ(in_place(ptr + PAGES(2), 13, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 15));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(10), 5, 2));

	ptr = map_apart(arena, 40, 3);
	ASSERT_EQ(in_place(ptr, 12, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 15));
	EXPECT_TRUE(healthy(arena, ptr, 5, 3));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(10), 5, 4));
}

/* Two neighbours that stay cannot both be joined: the one in front is. */
TEST_F(in_place, between_two)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);

	map_filled(arena, 20, 5, 3);
	map_moved(arena, 15, 5, 2);
	ASSERT_EQ(nr_vmas(arena, ptr, 15), 3);
	ASSERT_EQ(in_place(ptr + PAGES(5), 5, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));
	EXPECT_TRUE(is_one_vma(arena, ptr + PAGES(10), 5));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(5), 5, 2));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(10), 5, 3));

	/* All three can, if they are in the range. */
	ASSERT_EQ(in_place(ptr, 15, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 15));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(5), 5, 2));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(10), 5, 3));
}

/* Nothing merges now, but it can later. */
TEST_F(in_place, alone)
{
	struct arena *arena = &self->arena;
	char *ptr = map_moved(arena, 10, 5, 1);

	ASSERT_EQ(in_place(ptr, 5, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 5));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	map_filled(arena, 15, 5, 2);
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
}

/* The heap of a collector that never called mremap(), and one that has. */
TEST_F(in_place, many)
{
	struct arena *arena = &self->arena;
	char *ptr = arena_at(arena, 0);
	int i;

	for (i = 0; i < 30; i += 2)
		map_filled(arena, i, 1, i + 1);
	for (i = 1; i < 30; i += 2)
		map_moved(arena, i, 1, i + 1);
	for (i = 30; i < 60; i += 3)
		map_moved(arena, i, 3, i + 1);
	ASSERT_EQ(nr_vmas(arena, ptr, 60), 40);
	ASSERT_EQ(in_place(ptr, 60, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 60));
	for (i = 0; i < 30; i++)
		EXPECT_TRUE(healthy(arena, ptr + PAGES(i), 1, i + 1));
	for (i = 30; i < 60; i += 3)
		EXPECT_TRUE(healthy(arena, ptr + PAGES(i), 3, i + 1));
}

/* Again with nothing at home, so that the first of them has to come home. */
TEST_F(in_place, all_moved)
{
	struct arena *arena = &self->arena;
	char *ptr = arena_at(arena, 10);
	int i;

	for (i = 0; i < 6; i++)
		map_moved(arena, 10 + 5 * i, 5, i + 1);
	ASSERT_EQ(nr_vmas(arena, ptr, 30), 6);
	ASSERT_EQ(in_place(ptr, 30, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 30));
	for (i = 0; i < 6; i++)
		EXPECT_TRUE(healthy(arena, ptr + PAGES(5 * i), 5, i + 1));
}

/* [AAAAA][BBBBB]_____[CCCCC]   ->   [AAAAABBBBB]_____[CCCCC] */
TEST_F(in_place, gaps)
{
	struct arena *arena = &self->arena;
	char *ptr = map_moved(arena, 10, 5, 1);

	map_moved(arena, 15, 5, 2);
	map_moved(arena, 25, 5, 3);
	ASSERT_EQ(munmap(ptr + PAGES(10), PAGES(5)), 0);
	ASSERT_EQ(munmap(ptr + PAGES(20), PAGES(20)), 0);
	ASSERT_EQ(in_place(ptr, 30, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));
	EXPECT_TRUE(is_one_vma(arena, ptr + PAGES(15), 5));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(5), 5, 2));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(15), 5, 3));

	/* As without the flags: the first page must be mapped. */
	EXPECT_EQ(in_place(ptr + PAGES(10), 10, variant->flags), -1);
	EXPECT_EQ(errno, EFAULT);
}

/* [AAAAAAAAAA]   ->   [AAA][AAAA][AAA], and the part in the middle is at home */
TEST_F(in_place, part_of_moved)
{
	struct arena *arena = &self->arena;
	char *ptr = map_moved(arena, 10, 10, 1);

	ASSERT_EQ(in_place(ptr + PAGES(3), 4, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 3));
	EXPECT_TRUE(is_one_vma(arena, ptr + PAGES(3), 4));
	EXPECT_TRUE(is_one_vma(arena, ptr + PAGES(7), 3));
	EXPECT_TRUE(healthy(arena, ptr, 10, 1));

	ASSERT_EQ(in_place(ptr, 10, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));
	EXPECT_TRUE(healthy(arena, ptr, 10, 1));
}

TEST_F(in_place, nothing_to_gain)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 10, 1);

	map_filled(arena, 21, 5, 2);
	ASSERT_EQ(munmap(ptr + PAGES(10), PAGES(1)), 0);
	snapshot_take(&self->snap, arena, ptr, 16);
	ASSERT_EQ(in_place(ptr, 16, variant->flags), 0);
	ASSERT_EQ(in_place(ptr + PAGES(2), 5, variant->flags), 0);
	EXPECT_TRUE(snapshot_same(&self->snap));

	/* To change a part of a VMA would only move the border. */
	ASSERT_EQ(munmap(arena_at(arena, 50), PAGES(20)), 0);
	ptr = map_apart(arena, 50, 3);
	snapshot_take(&self->snap, arena, ptr, 15);
	ASSERT_EQ(in_place(ptr + PAGES(10), 3, variant->flags), 0);
	ASSERT_EQ(in_place(ptr + PAGES(7), 5, variant->flags), 0);
	EXPECT_TRUE(snapshot_same(&self->snap));
}

/*
 * Sealed memory stays as it is: [AAAAA]{BBBBB}[CCCCC]. As without the flags, the
 * call fails if it is what the range begins with.
 */
TEST_F(in_place, sealed)
{
	const bool must = variant->flags & MUST_RELOCATE_ANON;
	struct arena *arena = &self->arena;
	char *ptr = map_moved(arena, 10, 5, 1);
	char *sealed = map_moved(arena, 15, 5, 2);
	char *last = map_moved(arena, 20, 5, 3);
	char *home = map_filled(arena, 30, 5, 4);

	map_moved(arena, 35, 5, 5);
	if (syscall(__NR_mseal, sealed, PAGES(5), 0) ||
	    syscall(__NR_mseal, home + PAGES(2), PAGES(3), 0))
		SKIP(return, "no mseal()");
	snapshot_take(&self->snap, arena, ptr, 15);
	EXPECT_EQ(in_place(sealed, 10, variant->flags), -1);
	EXPECT_EQ(errno, EPERM);
	EXPECT_TRUE(snapshot_same(&self->snap));

	snapshot_take(&self->snap, arena, ptr, 15);
	EXPECT_EQ(in_place(ptr, 15, variant->flags), must ? -1 : 0);
	if (must) {
		EXPECT_EQ(errno, EPERM);
		EXPECT_TRUE(snapshot_same(&self->snap));
	} else {
		EXPECT_TRUE(fits_in_again(arena, ptr, 5));
		EXPECT_TRUE(fits_in_again(arena, last, 5));
	}
	EXPECT_TRUE(is_one_vma(arena, sealed, 5));
	EXPECT_TRUE(intact(sealed, 5, 2));

	/* With nothing to gain from it, it is in nobody's way. */
	EXPECT_EQ(in_place(home, 10, variant->flags), 0);
	EXPECT_TRUE(fits_in_again(arena, home + PAGES(5), 5));
	/* A sealed mapping cannot be taken down before the process ends. */
	_exit(_metadata->exit_code);
}

/* A pin is on the page: whoever has it need not notice. */
TEST_F(in_place, pinned)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	char *moved = map_moved(arena, 15, 5, 2);
	char buf[5 * 4096];
	struct pin_longterm_test args = {
		.addr = (unsigned long)moved,
		.size = PAGES(5),
		.flags = PIN_LONGTERM_TEST_FLAG_USE_WRITE,
	};
	__u64 to = (unsigned long)buf;
	int fd = open("/sys/kernel/debug/gup_test", O_RDWR);

	if (fd < 0 || psize() * 5 > sizeof(buf))
		SKIP(return, "no /sys/kernel/debug/gup_test, or large pages");
	ASSERT_EQ(ioctl(fd, PIN_LONGTERM_TEST_START, &args), 0);
	ASSERT_EQ(in_place(ptr, 10, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));

	/* What is written now is seen through the pin. */
	fill(moved, 5, 3);
	ASSERT_EQ(ioctl(fd, PIN_LONGTERM_TEST_READ, &to), 0);
	EXPECT_EQ(memcmp(buf, moved, PAGES(5)), 0);
	ASSERT_EQ(ioctl(fd, PIN_LONGTERM_TEST_STOP), 0);
	close(fd);
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, moved, 5, 3));
}

/* What /proc/vmstat and the trace event say of it. */
TEST_F(in_place, reported)
{
	struct arena *arena = &self->arena;
	long relocated = vm_event("mremap_relocate");
	long pages = vm_event("mremap_relocate_pages");
	char *ptr = map_filled(arena, 10, 5, 1);

	if (relocated < 0)
		SKIP(return, "no counters of events in /proc/vmstat");
	map_moved(arena, 15, 5, 2);
	map_moved(arena, 20, 5, 3);
	ASSERT_EQ(in_place(ptr, 15, variant->flags), 0);
	EXPECT_TRUE(relocated_as(10, 10));
	/* Others count here as well. */
	EXPECT_GE(vm_event("mremap_relocate"), relocated + 2);
	EXPECT_GE(vm_event("mremap_relocate_pages"), pages + 10);

	ASSERT_EQ(in_place(ptr, 15, variant->flags), 0);
	EXPECT_TRUE(nothing_gained("unmoved"));
}

/* What differs in more than its page offset and anon_vma stays apart. */
TEST_F(in_place, others_between)
{
	struct arena *arena = &self->arena;
	char *ptr = map_moved(arena, 10, 5, 1);
	char *shared = ptr + PAGES(20);
	int fd = memfd_create("others", 0);

	map_moved(arena, 15, 5, 2);
	map_moved(arena, 20, 5, 3);
	map_moved(arena, 25, 5, 4);
	ASSERT_EQ(mprotect(ptr + PAGES(10), PAGES(10), PROT_READ), 0);
	ASSERT_EQ(ftruncate(fd, PAGES(5)), 0);
	ASSERT_EQ(mmap(shared, PAGES(5), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_FIXED, fd, 0), shared);
	memset(shared, 5, PAGES(5));
	map_moved(arena, 35, 5, 6);

	/* [AAAAA][BBBBB][CCCCC][DDDDD][FILE_][EEEEE] */
	if (variant->flags & MUST_RELOCATE_ANON) {
		EXPECT_EQ(in_place(ptr, 30, variant->flags), -1);
		EXPECT_EQ(errno, EFAULT);
		EXPECT_TRUE(refused_as("shared_mapping", shared));
		EXPECT_EQ(nr_vmas(arena, ptr, 30), 6);
	}
	ASSERT_EQ(in_place(ptr, 30, RELOCATE_ANON), 0);
	EXPECT_TRUE(refused_as("shared_mapping", shared));
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));
	EXPECT_TRUE(is_one_vma(arena, ptr + PAGES(10), 10));
	EXPECT_TRUE(is_one_vma(arena, shared, 5));
	EXPECT_TRUE(is_one_vma(arena, ptr + PAGES(25), 5));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(5), 5, 2));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(10), 5, 3));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(15), 5, 4));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(25), 5, 6));

	/* They are at home: what differed can become the same. */
	ASSERT_EQ(mprotect(ptr + PAGES(10), PAGES(10), PROT_READ | PROT_WRITE), 0);
	ASSERT_EQ(in_place(ptr, 20, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 20));
	close(fd);
}

TEST_F(in_place, names_differ)
{
	struct arena *arena = &self->arena;
	char *ptr = map_moved(arena, 10, 5, 1);

	map_moved(arena, 15, 5, 2);
	if (prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, ptr, PAGES(5), "heap"))
		SKIP(return, "no names for anonymous memory");
	ASSERT_EQ(in_place(ptr, 10, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 5));
	EXPECT_TRUE(is_one_vma(arena, ptr + PAGES(5), 5));
	prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, ptr + PAGES(5), PAGES(5), "heap");
	ASSERT_EQ(in_place(ptr, 10, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(5), 5, 2));
}

/* Some pages are another process's as well. */
TEST_F(in_place, shared)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	struct step step;
	pid_t pid;

	map_moved(arena, 15, 5, 2);
	map_moved(arena, 20, 5, 3);
	ASSERT_EQ(madvise(ptr, PAGES(10), MADV_DONTFORK), 0);
	pid = share_with_child(arena, ptr + PAGES(10), 5, 0, 3, &step);
	ASSERT_EQ(madvise(ptr, PAGES(10), MADV_DOFORK), 0);

	snapshot_take(&self->snap, arena, ptr, 15);
	if (variant->flags & MUST_RELOCATE_ANON) {
		EXPECT_EQ(in_place(ptr, 15, variant->flags), -1);
		EXPECT_EQ(errno, EFAULT);
		EXPECT_TRUE(snapshot_same(&self->snap));
		EXPECT_EQ(nr_vmas(arena, ptr, 15), 3);
	} else {
		EXPECT_EQ(in_place(ptr, 15, variant->flags), 0);
		EXPECT_TRUE(is_one_vma(arena, ptr, 10));
		EXPECT_TRUE(is_one_vma(arena, ptr + PAGES(10), 5));
	}
	tell_child(&step);
	EXPECT_TRUE(reap(pid));

	/* Now they are ours. */
	ASSERT_EQ(in_place(ptr, 15, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 15));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(5), 5, 2));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(10), 5, 3));
}

/* What a child inherited does not merge, until it is relocated. */
TEST_F(in_place, inherited)
{
	struct arena *arena = &self->arena;
	char *ptr = map_apart(arena, 10, 1);
	pid_t pid;

	pid = fork_child(arena);
	if (!pid) {
		fill(ptr, 5, 3);
		fill(ptr + PAGES(10), 5, 4);
		EXPECT_EQ(nr_vmas(arena, ptr, 15), 2);
		EXPECT_EQ(in_place(ptr, 15, variant->flags), 0);
		EXPECT_TRUE(is_one_vma(arena, ptr, 15));
		EXPECT_TRUE(healthy(arena, ptr, 5, 3));
		EXPECT_TRUE(healthy(arena, ptr + PAGES(10), 5, 4));
		_exit(_metadata->exit_code);
	}
	EXPECT_TRUE(reap(pid));
	EXPECT_EQ(nr_vmas(arena, ptr, 15), 2);
	ASSERT_EQ(in_place(ptr, 15, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 15));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(10), 5, 2));
}

/* A child forked afterwards has both sides found. */
TEST_F(in_place, then_forked)
{
	struct arena *arena = &self->arena;
	char *ptr = map_moved(arena, 10, 5, 1);
	pid_t pid;

	map_moved(arena, 15, 5, 2);
	ASSERT_EQ(in_place(ptr, 10, variant->flags), 0);
	pid = fork_child(arena);
	if (!pid) {
		EXPECT_TRUE(is_one_vma(arena, ptr, 10));
		fill(ptr, 3, 5);
		EXPECT_TRUE(healthy(arena, ptr, 3, 5));
		EXPECT_TRUE(intact(ptr + PAGES(5), 5, 2));
		_exit(_metadata->exit_code);
	}
	EXPECT_TRUE(reap(pid));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(5), 5, 2));
}

/* Swapped out, and some of it still in the swap cache. */
TEST_F(in_place, swapped)
{
	struct arena *arena = &self->arena;
	char *ptr = map_moved(arena, 10, 20, 1);

	map_moved(arena, 30, 20, 2);
	if (!can_swap())
		SKIP(return, "no swap");
	madvise(ptr, PAGES(40), MADV_PAGEOUT);
	FORCE_READ(ptr[PAGES(3)]);
	FORCE_READ(ptr[PAGES(33)]);
	madvise(ptr, PAGES(40), MADV_PAGEOUT);
	FORCE_READ(ptr[PAGES(13)]);
	ASSERT_NE(nr_swapped(arena, ptr, 40), 0);
	ASSERT_EQ(in_place(ptr, 40, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 40));
	EXPECT_TRUE(healthy(arena, ptr, 20, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(20), 20, 2));
}

TEST_F(in_place, mlocked)
{
	struct arena *arena = &self->arena;
	long locked = status_kb("VmLck");
	char *ptr = map_moved(arena, 10, 5, 1);

	map_moved(arena, 15, 5, 2);
	ASSERT_EQ(mlock(ptr, PAGES(10)), 0);
	ASSERT_EQ(in_place(ptr, 10, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));
	EXPECT_EQ(status_kb("VmLck"), locked + (long)PAGES(10) / 1024);
	ASSERT_EQ(munlock(ptr, PAGES(10)), 0);
	EXPECT_EQ(status_kb("VmLck"), locked);
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(5), 5, 2));
}

/* userfaultfd learns of nothing, and goes on to be told of faults. */
TEST_F(in_place, userfaultfd)
{
	struct arena *arena = &self->arena;
	char *ptr = map_moved(arena, 10, 5, 1);
	struct uffdio_writeprotect wp = {};
	struct uffdio_register reg = {};
	__u64 entries[10];
	int uffd;

	map_moved(arena, 15, 5, 2);
	uffd = open_uffd(UFFD_FEATURE_PAGEFAULT_FLAG_WP |
			 UFFD_FEATURE_EVENT_REMAP);
	if (uffd < 0)
		SKIP(return, "no userfaultfd");
	reg.range.start = (unsigned long)ptr;
	reg.range.len = PAGES(10);
	reg.mode = UFFDIO_REGISTER_MODE_WP;
	if (ioctl(uffd, UFFDIO_REGISTER, &reg))
		SKIP(return, "no write protection by userfaultfd");
	wp.range = reg.range;
	wp.range.len = PAGES(5);
	wp.mode = UFFDIO_WRITEPROTECT_MODE_WP;
	ASSERT_EQ(ioctl(uffd, UFFDIO_WRITEPROTECT, &wp), 0);
	read_entries(arena, ptr, 10, entries);

	/* With an event, it would wait for somebody to read it. */
	ASSERT_EQ(in_place(ptr, 10, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));
	EXPECT_TRUE(same_entries(arena, ptr, 10, entries));
	EXPECT_EQ(count_entries(arena, ptr, 10, PM_UFFD_WP, PM_UFFD_WP), 5);
	ASSERT_EQ(ioctl(uffd, UFFDIO_UNREGISTER, &reg.range), 0);
	close(uffd);
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(5), 5, 2));
}

/*
 * MREMAP_DONTUNMAP leaves a VMA that could merge with its neighbours, and does
 * not. Then it is the model for others that goes when it merges:
 *
 *   [aaaa][BBBB][CCCC]   and   [BBBB][aaaa][CCCC]   ->   one
 */
TEST_F(in_place, left_by_dontunmap)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1), *b, *c;
	char *away = arena_at(arena, 60);

	b = map_filled(arena, 20, 5, 2);
	arena_map(arena, 15, 5);
	ASSERT_EQ(sys_mremap(ptr, PAGES(10), PAGES(10), MREMAP_MAYMOVE |
			     MREMAP_FIXED | MREMAP_DONTUNMAP, away), away);
	c = map_moved(arena, 25, 5, 3);
	ASSERT_EQ(nr_vmas(arena, ptr, 20), 3);
	ASSERT_EQ(in_place(b, 10, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, ptr, 20));
	EXPECT_TRUE(healthy(arena, b, 5, 2));
	EXPECT_TRUE(healthy(arena, c, 5, 3));

	b = map_filled(arena, 35, 5, 2);
	ptr = map_filled(arena, 45, 5, 1);
	arena_map(arena, 40, 5);
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(5), MREMAP_MAYMOVE |
			     MREMAP_FIXED | MREMAP_DONTUNMAP, away + PAGES(20)),
		  away + PAGES(20));
	c = map_moved(arena, 50, 5, 3);
	ASSERT_EQ(nr_vmas(arena, b, 20), 3);
	ASSERT_EQ(in_place(b, 20, variant->flags), 0);
	EXPECT_TRUE(is_one_vma(arena, b, 20));
	EXPECT_TRUE(healthy(arena, b, 5, 2));
	EXPECT_TRUE(healthy(arena, c, 5, 3));
	EXPECT_TRUE(healthy(arena, away, 5, 1));
}

/* At the limit of VMAs, where nothing else can help. */
TEST_F(in_place, too_many_vmas)
{
	const char *path = "/proc/sys/vm/max_map_count";
	struct arena *arena = &self->arena;
	char *ptr = map_moved(arena, 10, 5, 1);
	char saved[32] = "";
	ssize_t len;
	int fd;

	map_moved(arena, 15, 5, 2);
	fd = open(path, O_RDONLY);
	ASSERT_GE(fd, 0);
	len = read(fd, saved, sizeof(saved) - 1);
	close(fd);
	ASSERT_GT(len, 0);
	if (!write_text(path, "3"))
		SKIP(return, "cannot write %s", path);
	EXPECT_EQ(relocate(ptr, 5, variant->flags, arena_at(arena, 50)),
		  MAP_FAILED);
	EXPECT_EQ(errno, ENOMEM);
	EXPECT_EQ(in_place(ptr, 10, variant->flags), 0);
	/* A part would have to be split off. */
	EXPECT_EQ(in_place(ptr + PAGES(1), 3, variant->flags), 0);
	write_text(path, saved);
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));

	ptr = map_moved(arena, 40, 5, 3);
	ASSERT_TRUE(write_text(path, "3"));
	snapshot_take(&self->snap, arena, ptr, 5);
	if (variant->flags & MUST_RELOCATE_ANON) {
		EXPECT_EQ(in_place(ptr + PAGES(1), 3, variant->flags), -1);
		EXPECT_EQ(errno, ENOMEM);
	} else {
		EXPECT_EQ(in_place(ptr + PAGES(1), 3, variant->flags), 0);
	}
	EXPECT_TRUE(snapshot_same(&self->snap));
	write_text(path, saved);
	EXPECT_TRUE(healthy(arena, ptr, 5, 3));
}

/* Another thread has the range migrated all the time. */
TEST_F_TIMEOUT(in_place, while_it_migrates, 120)
{
	struct arena *arena = &self->arena;
	char *ptr = arena_at(arena, 10);
	struct migrator mig;
	int i, j;

	if (nr_nodes() < 2)
		SKIP(return, "no second node to migrate to");
	arena_map(arena, 10, 40);
	migrator_start(&mig, ptr, ptr, 40);
	for (i = 0; i < 50; i++) {
		for (j = 0; j < 4; j++)
			map_moved(arena, 10 + 10 * j, 10, i + j);
		wait_for_migration(&mig);
		ASSERT_EQ(in_place(ptr, 40, variant->flags), 0);
		ASSERT_TRUE(is_one_vma(arena, ptr, 40));
		wait_for_migration(&mig);
		for (j = 0; j < 4; j++)
			ASSERT_TRUE(intact(ptr + PAGES(10 * j), 10, i + j));
	}
	EXPECT_NE(migrator_stop(&mig), 0);
	for (j = 0; j < 4; j++)
		EXPECT_TRUE(healthy(arena, ptr + PAGES(10 * j), 10, 49 + j));
}

/* Large folios of every kind: [AAAA][BBBB], moved by other than their size. */
FIXTURE(large_in_place)
{
	struct arena arena;
	struct thp_settings saved;
	size_t nr;		/* Pages of a folio. */
	char *ptr;
};

FIXTURE_VARIANT(large_in_place)
{
	int order;
	bool aligned;
};

FIXTURE_VARIANT_ADD(large_in_place, mthp)
{
	.order = 4,
};

FIXTURE_VARIANT_ADD(large_in_place, pmd)
{
	.order = 9,
	.aligned = true,
};

FIXTURE_VARIANT_ADD(large_in_place, pmd_mapped_by_ptes)
{
	.order = 9,
};

FIXTURE_SETUP(large_in_place)
{
	const size_t nr = 1ul << variant->order;
	struct arena *arena = &self->arena;
	const size_t shift = variant->aligned ? 0 : 1;
	char *from, *to;
	size_t i;

	arena_init(arena, 12 * nr, PAGES(nr));
	self->nr = nr;
	if (arena->kpageflags < 0)
		SKIP(return, "cannot read /proc/kpageflags");
	if (!thp_set_order(variant->order, &self->saved))
		SKIP(return, "no folios of this size");

	/* Two moves, and both their folios are to have another place. */
	self->ptr = arena_at(arena, shift);
	for (i = 0; i < 2; i++) {
		from = arena_map(arena, 8 * nr, 2 * nr);
		fill(from, 2 * nr, i + 1);
		if (folio_pages(arena, from) != nr) {
			thp_write_settings(&self->saved);
			SKIP(return, "got no folios of this size");
		}
		to = self->ptr + PAGES(2 * nr * i);
		ASSERT_EQ(relocate(from, 2 * nr, 0, to), to);
	}
	ASSERT_EQ(nr_vmas(arena, self->ptr, 4 * nr), 2);
}

FIXTURE_TEARDOWN(large_in_place)
{
	thp_write_settings(&self->saved);
	arena_exit(&self->arena);
}

TEST_F(large_in_place, whole)
{
	const size_t nr = self->nr;

	ASSERT_EQ(in_place(self->ptr, 4 * nr, MUST_RELOCATE_ANON), 0);
	EXPECT_TRUE(is_one_vma(&self->arena, self->ptr, 4 * nr));
	EXPECT_EQ(folio_pages(&self->arena, self->ptr), nr);
	EXPECT_EQ(folio_pages(&self->arena, self->ptr + PAGES(3 * nr)), nr);
	EXPECT_TRUE(healthy(&self->arena, self->ptr, 2 * nr, 1));
	EXPECT_TRUE(healthy(&self->arena, self->ptr + PAGES(2 * nr), 2 * nr, 2));
}

/* The range ends in the midst of one: it is split, and no page is lost. */
TEST_F(large_in_place, cut)
{
	const size_t nr = self->nr, cut = nr / 2;

	ASSERT_EQ(in_place(self->ptr + PAGES(cut), 3 * nr, MUST_RELOCATE_ANON), 0);
	EXPECT_TRUE(is_one_vma(&self->arena, self->ptr + PAGES(cut), 3 * nr));
	EXPECT_EQ(folio_pages(&self->arena, self->ptr + PAGES(nr)), nr);
	EXPECT_TRUE(healthy(&self->arena, self->ptr, 2 * nr, 1));
	EXPECT_TRUE(healthy(&self->arena, self->ptr + PAGES(2 * nr), 2 * nr, 2));
}

/* Some of its pages have been given back. */
TEST_F(large_in_place, partly_mapped)
{
	const size_t nr = self->nr;

	ASSERT_EQ(madvise(self->ptr, PAGES(3), MADV_DONTNEED), 0);
	ASSERT_EQ(madvise(self->ptr + PAGES(3 * nr + 1), PAGES(1), MADV_DONTNEED), 0);
	ASSERT_EQ(in_place(self->ptr, 4 * nr, MUST_RELOCATE_ANON), 0);
	EXPECT_TRUE(is_one_vma(&self->arena, self->ptr, 4 * nr));
	EXPECT_TRUE(healthy_from(&self->arena, self->ptr + PAGES(3), nr, 1, 3));
	EXPECT_TRUE(healthy(&self->arena, self->ptr + PAGES(2 * nr), nr, 2));
}

TEST_HARNESS_MAIN
