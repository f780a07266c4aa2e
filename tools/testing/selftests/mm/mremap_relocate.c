// SPDX-License-Identifier: GPL-2.0-only
/*
 * MREMAP_RELOCATE_ANON and MREMAP_MUST_RELOCATE_ANON: what the two flags
 * promise, and what merges.
 *
 * mremap_relocate_pages.c tests all that page tables can hold,
 * mremap_relocate_share.c memory that others use as well, and
 * mremap_relocate_acct.c the accounts.
 *
 * In the pictures '.' is a page of the arena that is reserved and not usable,
 * a letter is a page that belongs to a mapping, faulted in if it is a capital,
 * and brackets enclose one VMA.
 */
#include "kselftest_harness.h"
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>
#include "mremap_relocate_util.h"

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif
#ifndef MFD_HUGETLB
#define MFD_HUGETLB		0x0004U
#endif

#define ARENA_PAGES		100

static char *map_filled(struct arena *arena, size_t page, size_t nr,
			unsigned long seed)
{
	char *ptr = arena_map(arena, page, nr);

	fill(ptr, nr, seed);
	return ptr;
}

/* Each flag alone, and both together, promise the same where nothing fails. */
FIXTURE(contract)
{
	struct arena arena;
	struct snapshot snap;
};

FIXTURE_VARIANT(contract)
{
	int flags;
};

FIXTURE_VARIANT_ADD(contract, relocate)
{
	.flags = RELOCATE_ANON,
};

FIXTURE_VARIANT_ADD(contract, must)
{
	.flags = MUST_RELOCATE_ANON,
};

FIXTURE_VARIANT_ADD(contract, both)
{
	.flags = RELOCATE_ANON | MUST_RELOCATE_ANON,
};

FIXTURE_SETUP(contract)
{
	arena_init(&self->arena, ARENA_PAGES, 0);
}

FIXTURE_TEARDOWN(contract)
{
	arena_exit(&self->arena);
}

TEST_F(contract, needs_maymove)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);

	snapshot_take(&self->snap, arena, ptr, 5);

	/* Neither where nothing would move, nor where something would. */
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(5), variant->flags, NULL),
		  MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(6), variant->flags, NULL),
		  MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(4), variant->flags, NULL),
		  MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(5),
			     variant->flags | MREMAP_FIXED, arena_at(arena, 50)),
		  MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(5),
			     variant->flags | MREMAP_DONTUNMAP, arena_at(arena, 50)),
		  MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);

	EXPECT_TRUE(snapshot_same(&self->snap));
	EXPECT_TRUE(intact(ptr, 5, 1));

	/* What was missing is MREMAP_MAYMOVE. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, arena_at(arena, 50)),
		  arena_at(arena, 50));
	EXPECT_TRUE(healthy(arena, arena_at(arena, 50), 5, 1));
}

TEST_F(contract, bad_arguments)
{
	const int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
	struct arena *arena = &self->arena;
	char *ptr = arena_map(arena, 10, 5);
	char *to = arena_at(arena, 50);
	size_t i;

	struct {
		const char *what;
		char *from;
		size_t old_len, new_len;
		int flags;
		char *to;
		int error;
	} calls[] = {
		{ "unknown flag", ptr, PAGES(5), PAGES(5), fixed | 32, to, EINVAL },
		{ "far flag", ptr, PAGES(5), PAGES(5), fixed | 1 << 30, to, EINVAL },
		{ "odd source", ptr + 1, PAGES(5), PAGES(5), fixed, to, EINVAL },
		{ "odd destination", ptr, PAGES(5), PAGES(5), fixed, to + 1, EINVAL },
		{ "no new length", ptr, PAGES(5), 0, fixed, to, EINVAL },
		{ "no old length", ptr, 0, PAGES(5), fixed, to, EINVAL },
		{ "overlap above", ptr, PAGES(5), PAGES(5), fixed, ptr + PAGES(4), EINVAL },
		{ "overlap below", ptr, PAGES(5), PAGES(5), fixed, ptr - PAGES(4), EINVAL },
		{ "no place", ptr, PAGES(5), PAGES(5), fixed, (char *)-PAGES(2), EINVAL },
		{ "resize and keep", ptr, PAGES(5), PAGES(6),
		  fixed | MREMAP_DONTUNMAP, to, EINVAL },
		{ "not one VMA, growing", ptr, PAGES(6), PAGES(7), fixed, to, EFAULT },
	};

	fill(ptr, 5, 1);
	snapshot_take(&self->snap, arena, ptr, 5);

	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		EXPECT_EQ(sys_mremap(calls[i].from, calls[i].old_len,
				     calls[i].new_len,
				     calls[i].flags | variant->flags,
				     calls[i].to), MAP_FAILED) {
			TH_LOG("%s", calls[i].what);
		}
		EXPECT_EQ(errno, calls[i].error) {
			TH_LOG("%s", calls[i].what);
		}
	}

	EXPECT_TRUE(snapshot_same(&self->snap));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));

	/* And the flag was none of the reasons. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, to), to);
}

TEST_F(contract, unmapped_source)
{
	struct arena *arena = &self->arena;
	char *ptr = arena_at(arena, 10);

	ASSERT_EQ(munmap(ptr, PAGES(5)), 0);
	ASSERT_EQ(relocate(ptr, 5, variant->flags, arena_at(arena, 50)),
		  MAP_FAILED);
	EXPECT_EQ(errno, EFAULT);
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(5),
			     MREMAP_MAYMOVE | variant->flags, NULL), MAP_FAILED);
	EXPECT_EQ(errno, EFAULT);
}

/* The way for a program to find out whether the kernel knows the flag. */
TEST_F(contract, nothing_moves)
{
	struct arena *arena = &self->arena;
	char *ptr = arena_map(arena, 10, 5);

	/* ..[aaaaa].. */
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(5),
			     MREMAP_MAYMOVE | variant->flags, NULL), ptr);

	/* ..[AAAAA].. */
	fill(ptr, 5, 1);
	snapshot_take(&self->snap, arena, ptr, 5);
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(5),
			     MREMAP_MAYMOVE | variant->flags, NULL), ptr);
	EXPECT_TRUE(snapshot_same(&self->snap));
	EXPECT_TRUE(nothing_gained("unmoved"));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
}

TEST_F(contract, grows_in_place)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	__u64 entries[5];

	read_entries(arena, ptr, 5, entries);

	/* ..[AAAAA]_____..   ->   ..[AAAAAaaaaa].. */
	ASSERT_EQ(munmap(ptr + PAGES(5), PAGES(5)), 0);
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(10),
			     MREMAP_MAYMOVE | variant->flags, NULL), ptr);
	EXPECT_TRUE(nothing_gained("unmoved"));
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));
	EXPECT_TRUE(same_entries(arena, ptr, 5, entries));
	EXPECT_TRUE(all_zero(ptr + PAGES(5), 5));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
}

TEST_F(contract, shrinks_in_place)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 10, 1);
	__u64 entries[4];

	read_entries(arena, ptr, 4, entries);

	/* ..[AAAAAAAAAA]..   ->   ..[AAAA]______.. */
	ASSERT_EQ(sys_mremap(ptr, PAGES(10), PAGES(4),
			     MREMAP_MAYMOVE | variant->flags, NULL), ptr);
	EXPECT_TRUE(nothing_gained("unmoved"));
	EXPECT_TRUE(is_one_vma(arena, ptr, 4));
	EXPECT_TRUE(same_entries(arena, ptr, 4, entries));
	EXPECT_TRUE(healthy(arena, ptr, 4, 1));
}

TEST_F(contract, never_faulted)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 1);
	char *ptr = arena_map(arena, 10, 5);

	/*
	 *           left   destination
	 * ..[aaaaa]..[BBBBB]_____..   ->   .._____..[BBBBBaaaaa]..
	 */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, left + PAGES(5)),
		  left + PAGES(5));
	EXPECT_TRUE(nothing_gained("merges"));
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	EXPECT_EQ(nr_present(arena, left + PAGES(5), 5), 0);
	EXPECT_TRUE(all_zero(left + PAGES(5), 5));
	EXPECT_TRUE(healthy(arena, left, 5, 1));
}

/* It is the pages that are moved, and not their contents. */
TEST_F(contract, moves_pages)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 20, 1);
	char *to = arena_at(arena, 50);
	__u64 entries[20];

	read_entries(arena, ptr, 20, entries);
	ASSERT_EQ(nr_present(arena, ptr, 20), 20);

	ASSERT_EQ(relocate(ptr, 20, variant->flags, to), to);
	EXPECT_TRUE(relocated_as(20, 20));
	EXPECT_TRUE(same_entries(arena, to, 20, entries));
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, ptr));
	EXPECT_TRUE(faults(ptr));
	EXPECT_TRUE(is_one_vma(arena, to, 20));
	EXPECT_TRUE(healthy(arena, to, 20, 1));

	/* And they can be written, and more be faulted in beside them. */
	fill(to, 20, 2);
	EXPECT_TRUE(healthy(arena, to, 20, 2));
}

/* Being mergeable is a promise about the future, too. */
TEST_F(contract, later_neighbours)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 55);

	/* ..[AAAAA].............   ->   .............[AAAAA].. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, to), to);
	ASSERT_TRUE(is_one_vma(arena, to, 5));

	/* ..[bbbbbAAAAA].. */
	arena_map(arena, 50, 5);
	EXPECT_TRUE(is_one_vma(arena, arena_at(arena, 50), 10));

	/* ..[bbbbbAAAAAccccc].. */
	arena_map(arena, 60, 5);
	EXPECT_TRUE(is_one_vma(arena, arena_at(arena, 50), 15));

	fill(arena_at(arena, 50), 5, 2);
	fill(arena_at(arena, 60), 5, 3);
	EXPECT_TRUE(is_one_vma(arena, arena_at(arena, 50), 15));
	EXPECT_TRUE(healthy(arena, arena_at(arena, 50), 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(healthy(arena, arena_at(arena, 60), 5, 3));
}

/* A neighbour that differs in its protection can be made to fit later. */
TEST_F(contract, later_mprotect)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *right = arena_map(arena, 60, 5);
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 55);

	ASSERT_EQ(mprotect(left, PAGES(5), PROT_READ), 0);
	ASSERT_EQ(mprotect(right, PAGES(5), PROT_READ), 0);

	/*
	 *             r--    ---    r--               r--    rw-    r--
	 * ..[AAAAA]..[BBBBB].....[ccccc]..   ->   ..[BBBBB][AAAAA][ccccc]..
	 */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 5));
	EXPECT_TRUE(is_one_vma(arena, to, 5));
	EXPECT_TRUE(is_one_vma(arena, right, 5));

	/* ..[BBBBB][AAAAAccccc].. */
	ASSERT_EQ(mprotect(right, PAGES(5), PROT_READ | PROT_WRITE), 0);
	EXPECT_TRUE(is_one_vma(arena, to, 10));

	/* ..[BBBBBAAAAAccccc].. */
	ASSERT_EQ(mprotect(left, PAGES(5), PROT_READ | PROT_WRITE), 0);
	EXPECT_TRUE(is_one_vma(arena, left, 15));

	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(all_zero(right, 5));
}

/* The same for the moved mapping: it is its protection that changes. */
TEST_F(contract, later_mprotect_of_moved)
{
	struct arena *arena = &self->arena;
	char *left = arena_map(arena, 50, 5);
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 55);

	ASSERT_EQ(mprotect(ptr, PAGES(5), PROT_READ), 0);

	/* ..[AAAAA]..[bbbbb].....   ->   ..[bbbbb][AAAAA].. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, to), to);
	ASSERT_TRUE(is_one_vma(arena, to, 5));
	ASSERT_TRUE(is_one_vma(arena, left, 5));

	/* ..[bbbbbAAAAA].. */
	ASSERT_EQ(mprotect(to, PAGES(5), PROT_READ | PROT_WRITE), 0);
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	fill(left, 5, 2);
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
}

TEST_F(contract, read_only)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 55);

	ASSERT_EQ(mprotect(ptr, PAGES(5), PROT_READ), 0);
	ASSERT_EQ(mprotect(left, PAGES(5), PROT_READ), 0);

	/* ..[AAAAA]..[BBBBB].....   ->   .._____..[BBBBBAAAAA].. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
}

TEST_F(contract, grows_while_moving)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 55);

	/* ..[AAAAA]..[BBBBB]..........   ->   ..[BBBBBAAAAAaaaaa].. */
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(10), MREMAP_MAYMOVE |
			     MREMAP_FIXED | variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 15));
	EXPECT_TRUE(all_zero(to + PAGES(5), 5));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));

	fill(to + PAGES(5), 5, 3);
	EXPECT_TRUE(healthy(arena, to + PAGES(5), 5, 3));
	EXPECT_TRUE(intact(to, 5, 1));
}

/*
 * Growth as hardened allocators do it: into a mapping that they have just made,
 * between guard areas of its own. Their source is guarded as well.
 */
TEST_F(contract, grows_between_guards)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_map(arena, 50, 12);

	/* ..[AAAAA]..[cccccccccccc]..   ->   .._____..[AAAAAaaaaaaa].. */
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(12), MREMAP_MAYMOVE |
			     MREMAP_FIXED | variant->flags, to), to);
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, ptr));
	EXPECT_TRUE(is_one_vma(arena, to, 12));
	EXPECT_TRUE(all_zero(to + PAGES(5), 7));
	EXPECT_TRUE(healthy(arena, to, 5, 1));

	/* The guards are still there, and it can merge if they are given up. */
	EXPECT_TRUE(faults(to - 1));
	EXPECT_TRUE(faults(to + PAGES(12)));
	map_filled(arena, 45, 5, 2);
	map_filled(arena, 62, 5, 3);
	EXPECT_TRUE(is_one_vma(arena, arena_at(arena, 45), 22));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
}

/* The same over what is written to, and one mapping with its neighbour. */
TEST_F(contract, grows_behind_its_neighbour)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 45, 17, 2);
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 50);

	/* ..[AAAAA]..[BBBBBBBBBBBBBBBBB]..   ->   .._____..[BBBBBAAAAAaaaaaaa].. */
	ASSERT_EQ(sys_mremap(ptr, PAGES(5), PAGES(12), MREMAP_MAYMOVE |
			     MREMAP_FIXED | variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 17));
	EXPECT_TRUE(all_zero(to + PAGES(5), 7));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
}

/* Again and again, each time behind where it was, so that it lines up. */
TEST_F(contract, grows_again_and_again)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 0, 1, 1);
	size_t nr, more, page = 1;
	char *to;

	for (nr = 1; nr < 32; nr = more, ptr = to, page += nr) {
		more = 2 * nr;
		to = arena_map(arena, page, more);
		ASSERT_EQ(sys_mremap(ptr, PAGES(nr), PAGES(more), MREMAP_MAYMOVE |
				     MREMAP_FIXED | variant->flags, to), to);
		EXPECT_TRUE(is_one_vma(arena, to, more));
		EXPECT_TRUE(intact(to, nr, 1));
		fill(to, more, 1);
	}
	EXPECT_TRUE(healthy(arena, ptr, 32, 1));
	EXPECT_TRUE(fits_in_again(arena, ptr, 32));
}

/* realloc() of a big block: grows, has no room, and goes where there is. */
TEST_F(contract, grows_without_a_place)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to;

	to = sys_mremap(ptr, PAGES(5), PAGES(200),
			MREMAP_MAYMOVE | variant->flags, NULL);
	ASSERT_NE(to, MAP_FAILED);
	ASSERT_NE(to, ptr);
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, ptr));
	EXPECT_TRUE(all_zero(to + PAGES(5), 195));
	EXPECT_TRUE(healthy(arena, to, 5, 1));

	/* Whatever the kernel chose for a neighbour is of no interest here. */
	EXPECT_TRUE(fits_in_again(arena, to, 200));
	EXPECT_EQ(munmap(to, PAGES(200)), 0);
}

TEST_F(contract, shrinks_while_moving)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *ptr = map_filled(arena, 10, 10, 1);
	char *to = arena_at(arena, 55);

	/* ..[AAAAAAAAAA]..[BBBBB].....   ->   ..[BBBBBAAAAA].. */
	ASSERT_EQ(sys_mremap(ptr, PAGES(10), PAGES(5), MREMAP_MAYMOVE |
			     MREMAP_FIXED | variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, ptr + PAGES(5)));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
}

TEST_F(contract, replaces_what_is_there)
{
	struct arena *arena = &self->arena;
	char *there = map_filled(arena, 50, 15, 2);
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 55);

	/* ..[AAAAA]..[BBBBBBBBBBBBBBB]..   ->   ..[BBBBBAAAAABBBBB].. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, there, 15));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(healthy_from(arena, there, 5, 2, 0));
	EXPECT_TRUE(healthy_from(arena, there + PAGES(10), 5, 2, 10));
}

/*
 * The neighbour at the destination may be what is left of the source. It must
 * not lose its ground while the other half comes to its side.
 */
TEST_F(contract, beside_its_other_half)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 20, 20, 1);

	/* ..........[AAAAABBBBB]..........   ->   .....[BBBBBAAAAA]_____..... */
	ASSERT_EQ(relocate(ptr + PAGES(10), 10, variant->flags, arena_at(arena, 10)),
		  arena_at(arena, 10));
	EXPECT_TRUE(is_one_vma(arena, arena_at(arena, 10), 20));
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, arena_at(arena, 30)));
	EXPECT_TRUE(healthy_from(arena, arena_at(arena, 10), 10, 1, 10));
	EXPECT_TRUE(healthy_from(arena, arena_at(arena, 20), 10, 1, 0));

	/* And the other way round: back to where the upper half was. */
	ASSERT_EQ(relocate(arena_at(arena, 10), 10, variant->flags, arena_at(arena, 30)),
		  arena_at(arena, 30));
	EXPECT_TRUE(is_one_vma(arena, ptr, 20));
	EXPECT_TRUE(healthy(arena, ptr, 20, 1));
}

TEST_F(contract, out_of_the_middle)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *ptr = map_filled(arena, 10, 15, 1);
	char *to = arena_at(arena, 55);

	/* [AAAAABBBBBCCCCC]..[DDDDD].....   ->   [AAAAA]_____[CCCCC]..[DDDDDBBBBB] */
	ASSERT_EQ(relocate(ptr + PAGES(5), 5, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	EXPECT_TRUE(is_one_vma(arena, ptr, 5));
	EXPECT_TRUE(is_one_vma(arena, ptr + PAGES(10), 5));
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, ptr + PAGES(5)));
	EXPECT_TRUE(healthy_from(arena, to, 5, 1, 5));
	EXPECT_TRUE(healthy_from(arena, ptr, 5, 1, 0));
	EXPECT_TRUE(healthy_from(arena, ptr + PAGES(10), 5, 1, 10));

	/* Back into the hole, and all is one again. */
	ASSERT_EQ(relocate(to, 5, variant->flags, ptr + PAGES(5)), ptr + PAGES(5));
	EXPECT_TRUE(is_one_vma(arena, ptr, 15));
	EXPECT_TRUE(healthy(arena, ptr, 15, 1));
}

/* The flag on the way back of a plain move, which would merge without it. */
TEST_F(contract, plain_move_merges_already)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 15, 1);
	char *away = arena_at(arena, 50);
	__u64 entries[15];

	read_entries(arena, ptr, 15, entries);

	/* [AAAAABBBBBCCCCC]..   ->   [AAAAA]_____[CCCCC]..[BBBBB]   ->   the first */
	ASSERT_EQ(relocate(ptr + PAGES(5), 5, 0, away), away);
	ASSERT_EQ(relocate(away, 5, variant->flags, ptr + PAGES(5)),
		  ptr + PAGES(5));
	EXPECT_TRUE(nothing_gained("merges"));
	EXPECT_TRUE(is_one_vma(arena, ptr, 15));
	EXPECT_TRUE(same_entries(arena, ptr, 15, entries));
	EXPECT_TRUE(healthy(arena, ptr, 15, 1));
}

/* A mapping that was moved plainly, and shows it, is put right by the flag. */
TEST_F(contract, after_a_plain_move)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 55);

	/* [AAAAA]...[BBBBB]   ->   ..[AAAAA].[BBBBB]   ->   ..........[BBBBBAAAAA] */
	ASSERT_EQ(relocate(ptr, 5, 0, arena_at(arena, 30)), arena_at(arena, 30));
	ASSERT_EQ(relocate(arena_at(arena, 30), 5, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
}

/* And a plain move after one with the flag is as plain as ever. */
TEST_F(contract, before_a_plain_move)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 55);

	/* [AAAAA]...[BBBBB]   ->   ..[AAAAA].[BBBBB]   ->   ........[BBBBB][AAAAA] */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, arena_at(arena, 30)),
		  arena_at(arena, 30));
	ASSERT_EQ(relocate(arena_at(arena, 30), 5, 0, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 5));
	EXPECT_TRUE(is_one_vma(arena, to, 5));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
}

TEST_F(contract, many_moves)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 0, 7, 1);
	char *end = map_filled(arena, 90, 5, 2);
	int i;

	for (i = 1; i <= 8; i++) {
		char *to = arena_at(arena, i * 10);

		ASSERT_EQ(relocate(ptr, 7, variant->flags, to), to);
		ASSERT_TRUE(is_one_vma(arena, to, 7));
		ASSERT_TRUE(intact(to, 7, 1));
		ptr = to;
	}
	ASSERT_EQ(relocate(ptr, 7, variant->flags, arena_at(arena, 83)),
		  MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);
	ASSERT_EQ(relocate(ptr, 7, variant->flags, arena_at(arena, 70)),
		  arena_at(arena, 70));
	ASSERT_EQ(relocate(arena_at(arena, 70), 7, variant->flags, arena_at(arena, 83)),
		  arena_at(arena, 83));
	EXPECT_TRUE(is_one_vma(arena, arena_at(arena, 83), 12));
	EXPECT_TRUE(healthy(arena, arena_at(arena, 83), 7, 1));
	EXPECT_TRUE(healthy(arena, end, 5, 2));
}

/* A heap is compacted: every second page, moved together. */
TEST_F(contract, compacts)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 0, 40, 1);
	char *to = arena_at(arena, 50);
	int i;

	/* [AAAA...AAAA]..   ->   [A]_[A]_[A]_...[AAAA...AAAA].. */
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(relocate(ptr + PAGES(2 * i), 1, variant->flags,
				   to + PAGES(i)), to + PAGES(i));
		ASSERT_TRUE(is_one_vma(arena, to, i + 1));
	}
	for (i = 0; i < 20; i++) {
		EXPECT_TRUE(healthy_from(arena, to + PAGES(i), 1, 1, 2 * i));
		EXPECT_TRUE(healthy_from(arena, ptr + PAGES(2 * i + 1), 1, 1,
					 2 * i + 1));
	}
}

/* The same from the end, so that what comes is always the left neighbour. */
TEST_F(contract, compacts_downwards)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 0, 40, 1);
	char *to = arena_at(arena, 70);
	int i;

	for (i = 0; i < 20; i++) {
		to -= PAGES(1);
		ASSERT_EQ(relocate(ptr + PAGES(2 * i), 1, variant->flags, to), to);
		ASSERT_TRUE(is_one_vma(arena, to, i + 1));
	}
	for (i = 0; i < 20; i++)
		EXPECT_TRUE(healthy_from(arena, to + PAGES(19 - i), 1, 1, 2 * i));
}

/* What earlier plain moves left: [AAAAA][BBBBB][CCCCC].. from a page on. */
static void map_fragments(struct __test_metadata *_metadata,
			  struct arena *arena, size_t page, int nr)
{
	int i;

	for (i = 0; i < nr; i++) {
		char *ptr = map_filled(arena, 40, 5, i + 1);

		ASSERT_EQ(relocate(ptr, 5, 0, arena_at(arena, page + 5 * i)),
			  arena_at(arena, page + 5 * i));
	}
}

/* Defragmentation in one call: several VMAs in, one out. */
TEST_F(contract, several_vmas)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 50);
	int i;

	/* [AAAAA][BBBBB][CCCCC][DDDDD]..   ->   ..[AAAAABBBBBCCCCCDDDDD] */
	map_fragments(_metadata, arena, 10, 4);
	ASSERT_EQ(nr_vmas(arena, arena_at(arena, 10), 20), 4);
	ASSERT_EQ(relocate(arena_at(arena, 10), 20, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, to, 20));
	EXPECT_EQ(nr_vmas(arena, arena_at(arena, 10), 20), 0);
	for (i = 0; i < 4; i++)
		EXPECT_TRUE(healthy(arena, to + PAGES(5 * i), 5, i + 1));
}

/* How many VMAs have we? The one of vsyscall is not ours. */
static int count_all_vmas(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512];
	int count = 0;

	if (!maps)
		ksft_exit_fail_perror("/proc/self/maps");
	while (fgets(line, sizeof(line), maps))
		count += !strstr(line, "[vsyscall]");
	fclose(maps);
	return count;
}

/* What the trace event and /proc/vmstat tell of such a call. */
TEST_F(contract, several_vmas_traced)
{
	struct arena *arena = &self->arena;
	char *ptr = arena_at(arena, 10), *to = arena_at(arena, 50);
	int before, after;
	struct relocation rel;

	if (!can_trace())
		SKIP(return, "no mremap events in tracefs");
	map_fragments(_metadata, arena, 10, 4);
	ASSERT_EQ(madvise(ptr, PAGES(1), MADV_DONTNEED), 0);
	/* What the call is counted with must not need a VMA of its own. */
	count_all_vmas();
	before = count_all_vmas();
	ASSERT_EQ(relocate(ptr, 20, variant->flags, to), to);
	after = count_all_vmas();
	ASSERT_TRUE(trace_look(&rel));

	EXPECT_EQ(rel.old_addr, (unsigned long)ptr);
	EXPECT_EQ(rel.old_len, PAGES(20));
	EXPECT_EQ(rel.new_addr, (unsigned long)to);
	EXPECT_EQ(rel.new_len, PAGES(20));
	EXPECT_EQ(rel.result, 0);
	EXPECT_EQ(rel.vmas_before, before);
	EXPECT_EQ(rel.vmas_after, after);
	EXPECT_LT(after, before);
	EXPECT_EQ(rel.folios, 19);
	EXPECT_EQ(rel.pages, 19);
	EXPECT_STREQ(rel.reason, "none");
	EXPECT_EQ(rel.nr_refused, 0);
	EXPECT_STREQ(rel.flags, variant->flags == RELOCATE_ANON ?
		     "MAYMOVE|FIXED|RELOCATE_ANON" :
		     variant->flags == MUST_RELOCATE_ANON ?
		     "MAYMOVE|FIXED|MUST_RELOCATE_ANON" :
		     "MAYMOVE|FIXED|RELOCATE_ANON|MUST_RELOCATE_ANON");

	/* A new length, a plain call in between, and a wrong address. */
	ASSERT_EQ(relocate(to, 20, 0, ptr), ptr);
	EXPECT_FALSE(trace_look(&rel));
	ASSERT_EQ(sys_mremap(ptr, PAGES(20), PAGES(22), MREMAP_MAYMOVE |
			     MREMAP_FIXED | variant->flags, to), to);
	ASSERT_TRUE(trace_look(&rel));
	EXPECT_EQ(rel.old_len, PAGES(20));
	EXPECT_EQ(rel.new_len, PAGES(22));
	ASSERT_EQ(relocate(ptr, 5, variant->flags, to), MAP_FAILED);
	ASSERT_TRUE(trace_look(&rel));
	EXPECT_EQ(rel.result, -EFAULT);
	EXPECT_EQ(rel.new_addr, (unsigned long)to);
	EXPECT_STREQ(rel.reason, "none");
	EXPECT_EQ(rel.nr_refused, 0);
}

TEST_F(contract, several_vmas_counted)
{
	long relocated = vm_event("mremap_relocate");
	long pages = vm_event("mremap_relocate_pages");
	long refused = vm_event("mremap_relocate_refused");
	struct arena *arena = &self->arena;
	char *ptr = arena_at(arena, 10), *to = arena_at(arena, 50);
	struct step step;
	pid_t pid;

	if (relocated < 0)
		SKIP(return, "no counters of events in /proc/vmstat");
	map_fragments(_metadata, arena, 10, 4);
	ASSERT_EQ(relocate(ptr, 20, variant->flags, to), to);
	/* Only what the flags relocate counts. */
	ASSERT_EQ(relocate(to, 20, 0, ptr), ptr);
	EXPECT_EQ(vm_event("mremap_relocate"), relocated + 4);
	EXPECT_EQ(vm_event("mremap_relocate_pages"), pages + 20);
	EXPECT_EQ(vm_event("mremap_relocate_refused"), refused);

	/* Refused is refused, whether it fails or moves plainly. */
	pid = share_with_child(arena, ptr, 20, 10, 1, &step);
	EXPECT_EQ(relocate(ptr, 20, variant->flags, to + PAGES(1)) == MAP_FAILED,
		  !!(variant->flags & MUST_RELOCATE_ANON));
	EXPECT_EQ(vm_event("mremap_relocate"), relocated + 4);
	EXPECT_EQ(vm_event("mremap_relocate_pages"), pages + 20);
	EXPECT_EQ(vm_event("mremap_relocate_refused"), refused + 1);
	EXPECT_TRUE(kill_child(pid));
}

/* Whatever is beside the destination, or was mapped at it, they come out as one. */
TEST_F(contract, several_vmas_among_written)
{
	struct arena *arena = &self->arena;
	char *ptr = arena_at(arena, 10), *to = arena_at(arena, 50);
	char *left, *right;

	/* [A][B][C][D]..[LLLLL]xxxx[RRRRR]   ->   ..[LLLLLABCD][RRRRR] */
	map_fragments(_metadata, arena, 10, 4);
	right = map_filled(arena, 70, 5, 6);
	left = map_filled(arena, 45, 5, 5);
	map_filled(arena, 50, 20, 7);
	ASSERT_EQ(relocate(ptr, 20, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 25));
	EXPECT_TRUE(is_one_vma(arena, right, 5));
	EXPECT_TRUE(healthy(arena, left, 5, 5));
	EXPECT_TRUE(healthy(arena, right, 5, 6));
}

/* What is in a gap of the destination stays there, and is in nobody's way. */
TEST_F(contract, several_vmas_around_shared)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 50);
	char *right;

	/* [AAAAA]     [BBBBB]..     [SSSSS]     [RRRRR] -> ..[AAAAA][SSSSS][BBBBBRRRRR] */
	map_filled(arena, 20, 5, 2);
	right = map_filled(arena, 65, 5, 3);
	ASSERT_EQ(munmap(ptr + PAGES(5), PAGES(5)), 0);
	ASSERT_NE(mmap(to + PAGES(5), PAGES(5), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED, -1, 0), MAP_FAILED);
	ASSERT_EQ(relocate(ptr, 15, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, to, 5));
	EXPECT_TRUE(is_one_vma(arena, to + PAGES(10), 10));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(healthy(arena, to + PAGES(10), 5, 2));
	EXPECT_TRUE(healthy(arena, right, 5, 3));
}

/* Two halves of what was written to and dropped, marked one after the other. */
TEST_F(contract, emptied_halves)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 10, 1);
	char *to = arena_at(arena, 50);
	int i;

	ASSERT_EQ(madvise(ptr, PAGES(10), MADV_DONTNEED), 0);
	for (i = 0; i < 10; i += 5) {
		ASSERT_EQ(relocate(ptr + PAGES(i), 5, variant->flags, to + PAGES(i)),
			  to + PAGES(i));
		ASSERT_EQ(madvise(to + PAGES(i), PAGES(5), MADV_DONTDUMP), 0);
	}
	EXPECT_TRUE(is_one_vma(arena, to, 10));
	fill(to, 10, 2);
	EXPECT_TRUE(healthy(arena, to, 10, 2));
}

/* Part of the first VMA and part of the last one, beside a neighbour. */
TEST_F(contract, several_vmas_in_part)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 9);
	char *to = arena_at(arena, 55);

	map_fragments(_metadata, arena, 10, 3);

	/* [AAAAA][BBBBB][CCCCC]..[DDDDD]   ->   [AA]___________[CC]..[DDDDDAAABBBBBCCC] */
	ASSERT_EQ(relocate(arena_at(arena, 12), 11, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 16));
	EXPECT_TRUE(is_one_vma(arena, arena_at(arena, 10), 2));
	EXPECT_TRUE(is_one_vma(arena, arena_at(arena, 23), 2));
	EXPECT_TRUE(healthy_from(arena, to, 3, 1, 2));
	EXPECT_TRUE(healthy_from(arena, to + PAGES(3), 5, 2, 0));
	EXPECT_TRUE(healthy_from(arena, to + PAGES(8), 3, 3, 0));
	EXPECT_TRUE(healthy_from(arena, arena_at(arena, 10), 2, 1, 0));
	EXPECT_TRUE(healthy_from(arena, arena_at(arena, 23), 2, 3, 3));
	EXPECT_TRUE(healthy(arena, left, 5, 9));
}

/* Gaps between the VMAs stay gaps. */
TEST_F(contract, several_vmas_with_gaps)
{
	struct arena *arena = &self->arena;
	char *to = arena_at(arena, 50);
	char *ptr = map_filled(arena, 10, 5, 1);

	ASSERT_EQ(munmap(arena_at(arena, 15), PAGES(5)), 0);
	map_filled(arena, 40, 5, 2);
	ASSERT_EQ(relocate(arena_at(arena, 40), 5, 0, arena_at(arena, 20)),
		  arena_at(arena, 20));
	map_filled(arena, 40, 5, 3);
	ASSERT_EQ(relocate(arena_at(arena, 40), 5, 0, arena_at(arena, 25)),
		  arena_at(arena, 25));
	ASSERT_EQ(munmap(to, PAGES(20)), 0);

	/* [AAAAA]_____[BBBBB][CCCCC]   ->   [AAAAA]_____[BBBBBCCCCC] */
	ASSERT_EQ(relocate(ptr, 20, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, to, 5));
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, to + PAGES(5)));
	EXPECT_TRUE(is_one_vma(arena, to + PAGES(10), 10));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(healthy(arena, to + PAGES(10), 5, 2));
	EXPECT_TRUE(healthy(arena, to + PAGES(15), 5, 3));
}

/*
 * A child has its pages too, so it cannot be re-homed, but it goes back to
 * where it came from, and there a plain move merges it.
 */
TEST_F(contract, shared_but_merges_plainly)
{
	struct arena *arena = &self->arena;
	char *home = map_filled(arena, 15, 10, 1);
	char *away = arena_at(arena, 55);
	struct step step;
	pid_t pid;

	/* ..[AAAAABBBBB]..   ->   .._____[BBBBB]..[AAAAA]..   ->   the first */
	ASSERT_EQ(relocate(home, 5, 0, away), away);
	pid = share_with_child(arena, away, 5, 0, 1, &step);
	ASSERT_EQ(relocate(away, 5, variant->flags, home), home);
	EXPECT_TRUE(is_one_vma(arena, home, 10));
	tell_child(&step);
	EXPECT_TRUE(reap(pid));
	EXPECT_TRUE(healthy(arena, home, 10, 1));
}

/* The same as one of several. What comes home needs nothing. */
TEST_F(contract, several_vmas_one_merges_plainly)
{
	struct arena *arena = &self->arena;
	char *home = map_filled(arena, 15, 10, 1);
	char *ptr = map_filled(arena, 50, 5, 2);
	char *to = arena_at(arena, 10);
	struct step step;
	pid_t pid;

	ASSERT_EQ(relocate(home, 5, 0, arena_at(arena, 55)), arena_at(arena, 55));
	ASSERT_EQ(madvise(ptr, PAGES(5), MADV_DONTFORK), 0);
	pid = share_with_child(arena, arena_at(arena, 55), 5, 0, 1, &step);
	ASSERT_EQ(madvise(ptr, PAGES(5), MADV_DOFORK), 0);
	ASSERT_EQ(nr_vmas(arena, ptr, 10), 2);

	/* .........._____[BBBBB]..[CCCCC][AAAAA]   ->   .....[CCCCCAAAAABBBBB].. */
	ASSERT_EQ(relocate(ptr, 10, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, to, 15));
	EXPECT_EQ(nr_vmas(arena, ptr, 10), 0);
	tell_child(&step);
	EXPECT_TRUE(reap(pid));
	EXPECT_TRUE(healthy(arena, home, 10, 1));
	EXPECT_TRUE(healthy(arena, to, 5, 2));
}

TEST_F(contract, dontunmap)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 55);
	__u64 entries[5];

	/* ..[AAAAA]..[BBBBB].....   ->   ..[aaaaa]..[BBBBBAAAAA].. */
	read_entries(arena, ptr, 5, entries);
	ASSERT_EQ(relocate(ptr, 5, variant->flags | MREMAP_DONTUNMAP, to), to);
	EXPECT_TRUE(same_entries(arena, to, 5, entries));
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	EXPECT_TRUE(is_one_vma(arena, ptr, 5));
	EXPECT_EQ(nr_present(arena, ptr, 5), 0);
	EXPECT_TRUE(all_zero(ptr, 5));

	/* Both can be used, and do not get in each other's way. */
	fill(ptr, 5, 3);
	EXPECT_TRUE(healthy(arena, ptr, 5, 3));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	ASSERT_EQ(munmap(ptr, PAGES(5)), 0);
	EXPECT_TRUE(healthy(arena, to, 5, 1));
}

TEST_F(contract, dontunmap_of_a_part)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *ptr = map_filled(arena, 10, 15, 1);
	char *to = arena_at(arena, 55);

	/* [AAAAABBBBBCCCCC]..[DDDDD].....   ->   [AAAAAbbbbbCCCCC]..[DDDDDBBBBB] */
	ASSERT_EQ(relocate(ptr + PAGES(5), 5, variant->flags | MREMAP_DONTUNMAP,
			   to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	EXPECT_EQ(nr_present(arena, ptr, 15), 10);
	EXPECT_TRUE(all_zero(ptr + PAGES(5), 5));

	fill(ptr + PAGES(5), 5, 3);
	EXPECT_TRUE(healthy_from(arena, ptr, 5, 1, 0));
	EXPECT_TRUE(healthy(arena, ptr + PAGES(5), 5, 3));
	EXPECT_TRUE(healthy_from(arena, ptr + PAGES(10), 5, 1, 10));
	EXPECT_TRUE(healthy_from(arena, to, 5, 1, 5));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
}

/* The neighbour is the source. It stays mapped, and is one like any other. */
TEST_F(contract, dontunmap_beside_the_source)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 50, 5, 1);
	char *above = ptr + PAGES(5), *below = ptr - PAGES(5);

	/* ..[AAAAA].....   ->   ..[aaaaaAAAAA].. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags | MREMAP_DONTUNMAP, above),
		  above);
	EXPECT_TRUE(is_one_vma(arena, ptr, 10));
	EXPECT_EQ(nr_present(arena, ptr, 5), 0);
	EXPECT_TRUE(all_zero(ptr, 5));
	fill(ptr, 5, 2);
	EXPECT_TRUE(healthy(arena, ptr, 5, 2));
	EXPECT_TRUE(healthy(arena, above, 5, 1));

	/* .....[BBBBBAAAAA]   ->   [BBBBBbbbbbAAAAA] */
	ASSERT_EQ(relocate(ptr, 5, variant->flags | MREMAP_DONTUNMAP, below),
		  below);
	EXPECT_TRUE(is_one_vma(arena, below, 15));
	EXPECT_TRUE(all_zero(ptr, 5));
	EXPECT_TRUE(healthy(arena, below, 5, 2));
	EXPECT_TRUE(healthy(arena, above, 5, 1));
}

/*
 * The source stays, right above the destination. The neighbour below comes first:
 * if some of the source has been written to, the source cannot be joined as well.
 */
static void test_dontunmap_below(struct __test_metadata *_metadata,
				 struct arena *arena, size_t source_nr, int flags)
{
	char *left = map_filled(arena, 40, 5, 2);
	char *ptr = map_filled(arena, 50, source_nr, 1);
	char *to = arena_at(arena, 45);

	ASSERT_EQ(relocate(ptr, 5, flags | MREMAP_DONTUNMAP, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, source_nr == 5 ? 15 : 10));
	EXPECT_EQ(nr_present(arena, ptr, source_nr), source_nr - 5);
	EXPECT_TRUE(all_zero(ptr, 5));

	fill(ptr, 5, 3);
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(healthy(arena, ptr, 5, 3));
	if (source_nr > 5)
		EXPECT_TRUE(healthy_from(arena, ptr + PAGES(5), source_nr - 5,
					 1, 5));
}

TEST_F(contract, dontunmap_right_below_the_source)
{
	/* ..[BBBBB].....[AAAAA]..   ->   ..[BBBBBAAAAAaaaaa].. */
	test_dontunmap_below(_metadata, &self->arena, 5, variant->flags);
}

/* The same for a part, whose rest stays faulted. */
TEST_F(contract, dontunmap_of_a_part_right_below_the_source)
{
	/* ..[BBBBB].....[AAAAACCCCC]..   ->   ..[BBBBBAAAAA][aaaaaCCCCC].. */
	test_dontunmap_below(_metadata, &self->arena, 10, variant->flags);
}

/* Down by its own length: what lies above the destination is on its way out. */
TEST_F(contract, slides_down_by_its_length)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 40, 5, 2);
	char *ptr = map_filled(arena, 50, 5, 1);
	char *to = arena_at(arena, 45);

	/* ..[BBBBB].....[AAAAA]..   ->   ..[BBBBBAAAAA]_____.. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, ptr));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
}

TEST_F(contract, part_slides_down_by_its_length)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 40, 5, 2);
	char *ptr = map_filled(arena, 50, 10, 1);
	char *to = arena_at(arena, 45);

	/* ..[BBBBB].....[AAAAACCCCC]..   ->   ..[BBBBBAAAAA]_____[CCCCC].. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, ptr));
	EXPECT_TRUE(is_one_vma(arena, ptr + PAGES(5), 5));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(healthy_from(arena, ptr + PAGES(5), 5, 1, 5));
}

/* And up, where the neighbour is on the right. */
TEST_F(contract, slides_up_by_its_length)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 40, 5, 1);
	char *right = map_filled(arena, 50, 5, 2);
	char *to = arena_at(arena, 45);

	/* ..[AAAAA].....[BBBBB]..   ->   .._____[AAAAABBBBB].. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, to, 10));
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, ptr));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(healthy(arena, right, 5, 2));
}

/* One of several is shared. To insist on all of them must move none of them. */
TEST_F(contract, several_vmas_one_shared)
{
	struct arena *arena = &self->arena;
	char *ptr = arena_at(arena, 10), *to = arena_at(arena, 60);
	struct step step;
	pid_t pid;
	int i;

	/* ..[AAAAA][BBBBB][CCCCC].., and the child has C only. */
	for (i = 0; i < 3; i++) {
		fill(arena_map(arena, 40, 5), 5, i + 1);
		ASSERT_EQ(relocate(arena_at(arena, 40), 5, 0, ptr + PAGES(5 * i)),
			  ptr + PAGES(5 * i));
	}
	ASSERT_EQ(madvise(ptr, PAGES(10), MADV_DONTFORK), 0);
	pid = share_with_child(arena, ptr + PAGES(10), 5, 0, 3, &step);
	ASSERT_EQ(madvise(ptr, PAGES(10), MADV_DOFORK), 0);
	ASSERT_EQ(nr_vmas(arena, ptr, 15), 3);

	if (variant->flags & MUST_RELOCATE_ANON) {
		snapshot_take(&self->snap, arena, ptr, 15);
		EXPECT_TRUE(is_refused(&self->snap, ptr, 15, variant->flags, to));
		EXPECT_TRUE(refused_as("shared_page", ptr + PAGES(10)));
	}

	/* Best effort is made for each: ..[AAAAABBBBB][CCCCC].. */
	ASSERT_EQ(relocate(ptr, 15, RELOCATE_ANON, to), to);
	EXPECT_TRUE(refused_as("shared_page", to + PAGES(10)));
	EXPECT_TRUE(is_one_vma(arena, to, 10));
	EXPECT_TRUE(is_one_vma(arena, to + PAGES(10), 5));
	tell_child(&step);
	EXPECT_TRUE(reap(pid));
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(healthy(arena, to + PAGES(5 * i), 5, i + 1));
}

/* What is cut off does not move, so it is no matter that it is shared. */
TEST_F(contract, shrinks_by_what_is_shared)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *ptr = map_filled(arena, 10, 10, 1);
	char *to = arena_at(arena, 55);
	struct step step;
	pid_t pid;

	pid = share_with_child(arena, ptr, 10, 5, 1, &step);
	ASSERT_TRUE(is_one_vma(arena, ptr, 10));

	/* ..[AAAAAaaaaa]..[BBBBB].....   ->   ..[BBBBBAAAAA].. */
	ASSERT_EQ(sys_mremap(ptr, PAGES(10), PAGES(5), MREMAP_MAYMOVE |
			     MREMAP_FIXED | variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	tell_child(&step);
	EXPECT_TRUE(reap(pid));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
}

/*
 * Without MREMAP_FIXED the address is a hint, and here it is taken. That a
 * plain move would merge there says nothing about the place that is found.
 */
TEST_F(contract, dontunmap_elsewhere_than_asked)
{
	struct arena *arena = &self->arena;
	char *home = map_filled(arena, 10, 15, 1);
	char *ptr = arena_at(arena, 50);
	char *to;

	/* [AAAAABBBBBCCCCC]..   ->   [AAAAA].....[CCCCC]..[BBBBB] */
	ASSERT_EQ(relocate(home + PAGES(5), 5, 0, ptr), ptr);
	arena_unmap(arena, 15, 5);

	to = sys_mremap(ptr, PAGES(5), PAGES(5), MREMAP_MAYMOVE |
			MREMAP_DONTUNMAP | variant->flags, home + PAGES(5));
	ASSERT_NE(to, MAP_FAILED);
	ASSERT_NE(to, home + PAGES(5));
	EXPECT_TRUE(healthy_from(arena, to, 5, 1, 5));

	EXPECT_TRUE(fits_in_again(arena, to, 5));
	EXPECT_EQ(munmap(to, PAGES(5)), 0);
}

/* Only one of two neighbours can be joined: the one in front. */
TEST_F(contract, between_two_that_differ)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *right = map_filled(arena, 60, 5, 3);
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 55);

	/* ..[AAAAA]..[BBBBB].....[CCCCC]..   ->   ..[BBBBBAAAAA][CCCCC].. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	EXPECT_TRUE(is_one_vma(arena, right, 5));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(healthy(arena, right, 5, 3));
}

/* Both sides: the source is as if it had never been written to. */
TEST_F(contract, dontunmap_right_above_the_source)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 50, 5, 1);
	char *right = map_filled(arena, 60, 5, 2);
	char *to = arena_at(arena, 55);

	/* ..[AAAAA].....[BBBBB]..   ->   ..[aaaaaAAAAABBBBB].. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags | MREMAP_DONTUNMAP, to), to);
	EXPECT_TRUE(is_one_vma(arena, ptr, 15));
	EXPECT_TRUE(all_zero(ptr, 5));

	fill(ptr, 5, 3);
	EXPECT_TRUE(healthy(arena, ptr, 5, 3));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(healthy(arena, right, 5, 2));
}

/* Better to merge with the previous one now than with the next one some day. */
TEST_F(contract, beside_one_that_could_fit_later)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *right = map_filled(arena, 60, 5, 3);
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 55);

	/*
	 *             rw-           r--               rw-       r--
	 * ..[AAAAA]..[BBBBB].....[CCCCC]..   ->   ..[BBBBBAAAAA][CCCCC]..
	 */
	ASSERT_EQ(mprotect(right, PAGES(5), PROT_READ), 0);
	ASSERT_EQ(relocate(ptr, 5, variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 10));
	EXPECT_TRUE(is_one_vma(arena, right, 5));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(healthy(arena, right, 5, 3));
}

/* The same below it, with nobody else to merge with. */
TEST_F(contract, dontunmap_right_below_the_source_alone)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 50, 5, 1);
	char *to = arena_at(arena, 45);

	/* .......[AAAAA]..   ->   ..[AAAAAaaaaa].. */
	ASSERT_EQ(relocate(ptr, 5, variant->flags | MREMAP_DONTUNMAP, to), to);
	EXPECT_TRUE(is_one_vma(arena, to, 10));
	EXPECT_TRUE(all_zero(ptr, 5));

	fill(ptr, 5, 3);
	EXPECT_TRUE(healthy(arena, ptr, 5, 3));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
}

/* Without the flags nothing is as it is above: the tests above test something. */
TEST(plain_moves_do_not_merge)
{
	struct arena arena;
	char *left, *ptr, *to;
	__u64 entries[5];

	arena_init(&arena, ARENA_PAGES, 0);
	left = arena_map(&arena, 50, 5);
	ptr = arena_map(&arena, 10, 5);
	to = left + PAGES(5);

	fill(left, 5, 2);
	fill(ptr, 5, 1);
	read_entries(&arena, ptr, 5, entries);
	ASSERT_EQ(relocate(ptr, 5, 0, to), to);
	EXPECT_TRUE(same_entries(&arena, to, 5, entries));
	EXPECT_TRUE(is_one_vma(&arena, left, 5));
	EXPECT_TRUE(is_one_vma(&arena, to, 5));
	EXPECT_TRUE(healthy(&arena, left, 5, 2));
	EXPECT_TRUE(healthy(&arena, to, 5, 1));

	arena_map(&arena, 60, 5);
	EXPECT_TRUE(is_one_vma(&arena, to, 5));
	arena_exit(&arena);
}

/*
 * Which neighbours admit the moved mapping?
 *
 *	.....[AAAAA].....[left ]     [right].....
 *	.....            [left  AAAAA right].....
 */
enum neighbour {
	NONE,
	FRESH,		/* mapped, never faulted */
	FAULTED,
	OTHER_FLAGS,	/* mapped in a way that cannot merge */
};

enum history {
	UNFORKED,
	FORKED_BEFORE,	/* the source had been shared with a child, now gone */
	FORKED_BESIDE,	/* so had the neighbours */
	FORKED_ALL,	/* source and neighbours */
	CHILD,		/* we are the child, and all was mapped by us */
};

struct shape {
	enum neighbour left, right;
	bool one_anon_vma;	/* of both neighbours, if both are faulted */
	size_t vmas;		/* over all three at the end */
};

FIXTURE(shapes)
{
	struct arena arena;
};

FIXTURE_VARIANT(shapes)
{
	struct shape shape;
};

FIXTURE_VARIANT_ADD(shapes, alone)
{
	.shape = { .left = NONE, .right = NONE, .vmas = 3 },
};

FIXTURE_VARIANT_ADD(shapes, left_fresh)
{
	.shape = { .left = FRESH, .right = NONE, .vmas = 2 },
};

FIXTURE_VARIANT_ADD(shapes, left_faulted)
{
	.shape = { .left = FAULTED, .right = NONE, .vmas = 2 },
};

FIXTURE_VARIANT_ADD(shapes, right_fresh)
{
	.shape = { .left = NONE, .right = FRESH, .vmas = 2 },
};

FIXTURE_VARIANT_ADD(shapes, right_faulted)
{
	.shape = { .left = NONE, .right = FAULTED, .vmas = 2 },
};

FIXTURE_VARIANT_ADD(shapes, both_fresh)
{
	.shape = { .left = FRESH, .right = FRESH, .vmas = 1 },
};

FIXTURE_VARIANT_ADD(shapes, left_faulted_right_fresh)
{
	.shape = { .left = FAULTED, .right = FRESH, .vmas = 1 },
};

FIXTURE_VARIANT_ADD(shapes, left_fresh_right_faulted)
{
	.shape = { .left = FRESH, .right = FAULTED, .vmas = 1 },
};

FIXTURE_VARIANT_ADD(shapes, both_faulted_as_one)
{
	.shape = { .left = FAULTED, .right = FAULTED, .one_anon_vma = true, .vmas = 1 },
};

/* Each has an anon_vma of its own: only one of the two can be joined. */
FIXTURE_VARIANT_ADD(shapes, both_faulted_apart)
{
	.shape = { .left = FAULTED, .right = FAULTED, .vmas = 2 },
};

FIXTURE_VARIANT_ADD(shapes, left_other_right_faulted)
{
	.shape = { .left = OTHER_FLAGS, .right = FAULTED, .vmas = 2 },
};

FIXTURE_VARIANT_ADD(shapes, left_faulted_right_other)
{
	.shape = { .left = FAULTED, .right = OTHER_FLAGS, .vmas = 2 },
};

FIXTURE_SETUP(shapes)
{
	arena_init(&self->arena, ARENA_PAGES, 0);
}

FIXTURE_TEARDOWN(shapes)
{
	arena_exit(&self->arena);
}

static void map_neighbour(struct arena *arena, size_t page, enum neighbour kind,
			  unsigned long seed)
{
	char *ptr;

	if (kind == NONE)
		return;
	ptr = arena_map(arena, page, 5);
	if (kind == OTHER_FLAGS && madvise(ptr, PAGES(5), MADV_DONTFORK))
		ksft_exit_fail_perror("MADV_DONTFORK");
	if (kind != FRESH)
		fill(ptr, 5, seed);
}

/* A child that has everything for a moment. */
static bool fork_once(void)
{
	pid_t pid = fork();

	if (pid < 0)
		ksft_exit_fail_perror("fork");
	if (!pid)
		_exit(0);
	return reap(pid);
}

static void test_shape(struct __test_metadata *_metadata, struct arena *arena,
		       const struct shape *variant,
		       enum history history, int flags)
{
	char *ptr, *left = arena_at(arena, 50), *to = arena_at(arena, 55);
	char *right = arena_at(arena, 60);

	if (history == FORKED_BEFORE) {
		map_filled(arena, 10, 5, 1);
		ASSERT_TRUE(fork_once());
	}

	if (variant->one_anon_vma) {
		/* Fault in left, middle and right, and take out the middle. */
		arena_map(arena, 50, 15);
		fill(left, 5, 2);
		fill(to, 5, 4);
		fill(right, 5, 3);
		arena_unmap(arena, 55, 5);
	} else {
		map_neighbour(arena, 50, variant->left, 2);
		map_neighbour(arena, 60, variant->right, 3);
	}
	if (history == FORKED_BESIDE)
		ASSERT_TRUE(fork_once());

	if (history != FORKED_BEFORE)
		map_filled(arena, 10, 5, 1);
	if (history == FORKED_ALL)
		ASSERT_TRUE(fork_once());
	ptr = arena_at(arena, 10);

	ASSERT_EQ(relocate(ptr, 5, flags, to), to);
	EXPECT_EQ(nr_vmas(arena, left, 15), variant->vmas);

	if (variant->left == NONE && variant->right == NONE)
		EXPECT_TRUE(is_one_vma(arena, to, 5));
	if (variant->vmas == 1)
		EXPECT_TRUE(is_one_vma(arena, left, 15));

	EXPECT_TRUE(healthy(arena, to, 5, 1));
	if (variant->left == FRESH) {
		EXPECT_TRUE(all_zero(left, 5));
		fill(left, 5, 2);
	}
	if (variant->left != NONE)
		EXPECT_TRUE(healthy(arena, left, 5, 2));
	if (variant->right == FRESH) {
		EXPECT_TRUE(all_zero(right, 5));
		fill(right, 5, 3);
	}
	if (variant->right != NONE)
		EXPECT_TRUE(healthy(arena, right, 5, 3));

	/* What was faulted in now does not change what is one VMA. */
	EXPECT_EQ(nr_vmas(arena, left, 15), variant->vmas);
	EXPECT_TRUE(intact(to, 5, 1));
}

TEST_F(shapes, unforked)
{
	test_shape(_metadata, &self->arena, &variant->shape, UNFORKED,
		   RELOCATE_ANON);
}

TEST_F(shapes, unforked_must)
{
	test_shape(_metadata, &self->arena, &variant->shape, UNFORKED,
		   MUST_RELOCATE_ANON);
}

TEST_F(shapes, source_was_forked)
{
	test_shape(_metadata, &self->arena, &variant->shape, FORKED_BEFORE,
		   MUST_RELOCATE_ANON);
}

TEST_F(shapes, neighbours_were_forked)
{
	test_shape(_metadata, &self->arena, &variant->shape, FORKED_BESIDE,
		   MUST_RELOCATE_ANON);
}

TEST_F(shapes, all_was_forked)
{
	test_shape(_metadata, &self->arena, &variant->shape, FORKED_ALL,
		   MUST_RELOCATE_ANON);
}

TEST_F(shapes, mapped_in_child)
{
	pid_t pid = fork_child(&self->arena);

	if (!pid) {
		test_shape(_metadata, &self->arena, &variant->shape, CHILD,
			   MUST_RELOCATE_ANON);
		_exit(_metadata->exit_code);
	}
	EXPECT_TRUE(reap(pid));
}

/*
 * Neighbours that a child inherited are special: the kernel does not let them
 * grow, so that an anon_vma is not kept by ever more generations. The rule for
 * a moved mapping is the same as for one that is mapped there in the first
 * place, so let such a mapping tell what to expect.
 */
TEST_F(shapes, as_if_mapped_there)
{
	const int first[2] = { 20, 60 };
	char *to = arena_at(&self->arena, first[1] + 5);
	struct arena *arena = &self->arena;
	size_t vmas[2];
	pid_t pid;
	int i;

	for (i = 0; i < 2; i++) {
		map_neighbour(arena, first[i], variant->shape.left, 2);
		map_neighbour(arena, first[i] + 10, variant->shape.right, 3);
	}

	pid = fork_child(arena);
	if (!pid) {
		map_filled(arena, first[0] + 5, 5, 1);
		map_filled(arena, 5, 5, 1);
		ASSERT_EQ(relocate(arena_at(arena, 5), 5, MUST_RELOCATE_ANON, to),
			  to);
		/* MADV_DONTFORK left a hole. */
		for (i = 0; i < 2; i++)
			vmas[i] = nr_vmas(arena, arena_at(arena, first[i]), 15);
		EXPECT_EQ(vmas[0], vmas[1]);
		EXPECT_TRUE(healthy(arena, to, 5, 1));
		_exit(_metadata->exit_code);
	}
	EXPECT_TRUE(reap(pid));
}

/*
 * Mappings that cannot be re-homed: MREMAP_RELOCATE_ANON moves them as mremap()
 * always did, MREMAP_MUST_RELOCATE_ANON says EFAULT and touches nothing.
 */
enum kind {
	DEV_ZERO_PRIVATE,
	DEV_ZERO_SHARED,
	ANON_SHARED,
	MEMFD_SHARED,
	MEMFD_PRIVATE,
	FILE_PRIVATE,
	HUGETLB_ANON,
	HUGETLB_FILE,
};

FIXTURE(refused)
{
	struct arena arena;
	struct snapshot snap;
	char *ptr, *to;
	size_t nr;
	bool restore;
};

FIXTURE_VARIANT(refused)
{
	enum kind kind;
	bool shared;
	const char *reason;
};

FIXTURE_VARIANT_ADD(refused, dev_zero_private)
{
	.kind = DEV_ZERO_PRIVATE, .reason = "file",
};

FIXTURE_VARIANT_ADD(refused, dev_zero_shared)
{
	.kind = DEV_ZERO_SHARED, .shared = true, .reason = "shared_mapping",
};

FIXTURE_VARIANT_ADD(refused, anon_shared)
{
	.kind = ANON_SHARED, .shared = true, .reason = "shared_mapping",
};

FIXTURE_VARIANT_ADD(refused, memfd_shared)
{
	.kind = MEMFD_SHARED, .shared = true, .reason = "shared_mapping",
};

FIXTURE_VARIANT_ADD(refused, memfd_private)
{
	.kind = MEMFD_PRIVATE, .reason = "file",
};

FIXTURE_VARIANT_ADD(refused, file_private)
{
	.kind = FILE_PRIVATE, .reason = "file",
};

FIXTURE_VARIANT_ADD(refused, hugetlb)
{
	.kind = HUGETLB_ANON, .reason = "hugetlb",
};

FIXTURE_VARIANT_ADD(refused, hugetlb_file)
{
	.kind = HUGETLB_FILE, .reason = "hugetlb",
};

FIXTURE_SETUP(refused)
{
	int flags = MAP_FIXED, fd = -1;
	struct arena *arena = &self->arena;
	size_t huge = 0;

	if (variant->kind == HUGETLB_ANON || variant->kind == HUGETLB_FILE) {
		huge = default_huge_page_size();
		if (huge && hugetlb_free_default_pages() < 1) {
			hugetlb_save_settings();
			self->restore = true;
			hugetlb_set_nr_default_pages(hugetlb_nr_default_pages() + 1);
		}
		if (!huge || hugetlb_free_default_pages() < 1)
			SKIP(return, "no free huge page");
	}

	self->nr = huge ? huge / psize() : 5;
	arena_init(arena, 8 * self->nr, huge);
	self->ptr = arena_at(arena, self->nr);
	self->to = arena_at(arena, 4 * self->nr);

	flags |= variant->shared ? MAP_SHARED : MAP_PRIVATE;
	switch (variant->kind) {
	case DEV_ZERO_SHARED:
	case DEV_ZERO_PRIVATE:
		fd = open("/dev/zero", O_RDWR);
		ASSERT_GE(fd, 0);
		break;
	case ANON_SHARED:
		flags |= MAP_ANONYMOUS;
		break;
	case MEMFD_SHARED:
	case MEMFD_PRIVATE:
		fd = memfd_create("relocate", 0);
		ASSERT_GE(fd, 0);
		ASSERT_EQ(ftruncate(fd, PAGES(self->nr)), 0);
		break;
	case FILE_PRIVATE:
		fd = open("/proc/self/exe", O_RDONLY);
		ASSERT_GE(fd, 0);
		break;
	case HUGETLB_ANON:
		flags |= MAP_ANONYMOUS | MAP_HUGETLB;
		break;
	case HUGETLB_FILE:
		fd = memfd_create("relocate", MFD_HUGETLB);
		ASSERT_GE(fd, 0);
		ASSERT_EQ(ftruncate(fd, huge), 0);
		break;
	}

	ASSERT_EQ(mmap(self->ptr, PAGES(self->nr), PROT_READ | PROT_WRITE,
		       flags, fd, 0), self->ptr);
	if (fd >= 0)
		close(fd);
	fill(self->ptr, self->nr, 1);
}

FIXTURE_TEARDOWN(refused)
{
	arena_exit(&self->arena);
	if (self->restore)
		hugetlb_restore_settings();
}

TEST_F(refused, relocate_moves)
{
	struct arena *arena = &self->arena;
	__u64 *entries = calloc(self->nr, sizeof(*entries));

	ASSERT_NE(entries, NULL);
	read_entries(arena, self->ptr, self->nr, entries);
	ASSERT_EQ(relocate(self->ptr, self->nr, RELOCATE_ANON, self->to), self->to);
	EXPECT_TRUE(refused_as(variant->reason, self->to));
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, self->ptr));
	EXPECT_TRUE(is_one_vma(arena, self->to, self->nr));
	/* Shared pages need not be mapped yet where they were moved to. */
	EXPECT_TRUE(intact(self->to, self->nr, 1));
	EXPECT_TRUE(same_entries(arena, self->to, self->nr, entries));
	free(entries);
}

TEST_F(refused, must_fails)
{
	const int flags[] = { MUST_RELOCATE_ANON, RELOCATE_ANON | MUST_RELOCATE_ANON };
	struct arena *arena = &self->arena;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		snapshot_take(&self->snap, arena, self->ptr, self->nr);
		EXPECT_TRUE(is_refused(&self->snap, self->ptr, self->nr,
				       flags[i], self->to));
		EXPECT_TRUE(refused_as(variant->reason, self->ptr));
		EXPECT_TRUE(intact(self->ptr, self->nr, 1));
	}

	/* The source is so much as before that it can still be moved. */
	ASSERT_EQ(relocate(self->ptr, self->nr, 0, self->to), self->to);
	EXPECT_TRUE(intact(self->to, self->nr, 1));
}

/* Where is the vDSO? */
static bool find_vdso(char **start, size_t *nr)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long from, to;
	char line[512];
	bool found = false;

	if (!maps)
		return false;
	while (!found && fgets(line, sizeof(line), maps)) {
		if (strstr(line, "[vdso]") &&
		    sscanf(line, "%lx-%lx", &from, &to) == 2)
			found = true;
	}
	fclose(maps);
	if (found) {
		*start = (char *)from;
		*nr = (to - from) / psize();
	}
	return found;
}

/* A special mapping. libc must not call into it any more: leave by _exit(). */
TEST(refused_vdso)
{
	struct relocation rel;
	struct arena arena;
	char *vdso, *to;
	size_t nr;
	pid_t pid;

	/* On i386, every system call of libc goes by the vDSO. */
	if (sizeof(long) == 4)
		SKIP(return, "not on 32 bits");
	if (!find_vdso(&vdso, &nr))
		SKIP(return, "there is no vDSO");
	arena_init(&arena, 64, 0);
	to = arena_at(&arena, 10);

	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid) {
		char first[64];

		memcpy(first, vdso, sizeof(first));
		if (relocate(vdso, nr, MUST_RELOCATE_ANON, to) != MAP_FAILED)
			_exit(10);
		if (errno != EFAULT)
			_exit(11);
		if (memcmp(first, vdso, sizeof(first)))
			_exit(12);
		if (relocate(vdso, nr, RELOCATE_ANON, to) != to)
			_exit(13);
		if (memcmp(first, to, sizeof(first)))
			_exit(14);
		_exit(0);
	}
	EXPECT_TRUE(reap(pid));
	EXPECT_TRUE(!can_trace() || trace_look_at(&rel, pid));
	if (can_trace()) {
		EXPECT_STREQ(rel.reason, "special");
		EXPECT_EQ(rel.addr, (unsigned long)to);
		EXPECT_EQ(rel.result, 0);
	}
	arena_exit(&arena);
}

#ifdef __x86_64__
/*
 * A 32-bit program on a 64-bit kernel comes in by an entry of its own. With
 * int $0x80 so can this program, for memory in the lowest 4 GB.
 */
#define I386_GETPID		20
#define I386_MREMAP		163

static long int80(long nr, unsigned long a, unsigned long b, unsigned long c,
		  unsigned long d, unsigned long e)
{
	long ret;

	asm volatile ("int $0x80" : "=a" (ret) :
		      "a" (nr), "b" (a), "c" (b), "d" (c), "S" (d), "D" (e) :
		      "r8", "r9", "r10", "r11", "memory", "cc");
	return ret;
}

static void *mremap_i386(void *from, size_t old_nr, size_t new_nr, int flags,
			 void *to)
{
	long ret = int80(I386_MREMAP, (unsigned long)from, PAGES(old_nr),
			 PAGES(new_nr), flags, (unsigned long)to);

	if (ret < 0 && ret >= -4095) {
		errno = -ret;
		return MAP_FAILED;
	}
	return (void *)ret;
}

static bool below_4gb(char *ptr, size_t nr)
{
	return (unsigned long)ptr && (unsigned long)ptr + PAGES(nr) <= 1ul << 32;
}

FIXTURE(i386)
{
	struct arena arena;
	struct snapshot snap;
};

FIXTURE_VARIANT(i386)
{
	int flags;
};

FIXTURE_VARIANT_ADD(i386, relocate)
{
	.flags = RELOCATE_ANON,
};

FIXTURE_VARIANT_ADD(i386, must)
{
	.flags = MUST_RELOCATE_ANON,
};

FIXTURE_SETUP(i386)
{
	struct arena *arena = &self->arena;
	char *low;
	pid_t pid;

	pid = fork();
	ASSERT_GE(pid, 0);
	if (!pid)
		_exit(int80(I386_GETPID, 0, 0, 0, 0, 0) != getpid());
	if (!reap(pid))
		SKIP(return, "no 32-bit system calls");

	arena_init(arena, ARENA_PAGES, 0);
	low = mmap(NULL, PAGES(ARENA_PAGES), PROT_NONE, MAP_PRIVATE |
		   MAP_ANONYMOUS | MAP_NORESERVE | MAP_32BIT, -1, 0);
	ASSERT_NE(low, MAP_FAILED);
	ASSERT_EQ(munmap(arena->base, PAGES(ARENA_PAGES)), 0);
	arena->base = low;
	ASSERT_TRUE(below_4gb(low, ARENA_PAGES));
}

FIXTURE_TEARDOWN(i386)
{
	arena_exit(&self->arena);
}

TEST_F(i386, to_a_place)
{
	struct arena *arena = &self->arena;
	char *left = map_filled(arena, 50, 5, 2);
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 55);

	/* ..[AAAAA]..[BBBBB]..........   ->   .._____..[BBBBBAAAAAaaaaa].. */
	ASSERT_EQ(mremap_i386(ptr, 5, 10, MREMAP_MAYMOVE | MREMAP_FIXED |
			      variant->flags, to), to);
	EXPECT_TRUE(is_one_vma(arena, left, 15));
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, ptr));
	EXPECT_TRUE(healthy(arena, left, 5, 2));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(all_zero(to + PAGES(5), 5));
}

/* The kernel chooses the place, which must be one that can be returned. */
TEST_F(i386, grows_without_a_place)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to;

	to = mremap_i386(ptr, 5, 200, MREMAP_MAYMOVE | variant->flags, NULL);
	ASSERT_NE(to, MAP_FAILED);
	ASSERT_NE(to, ptr);
	EXPECT_TRUE(below_4gb(to, 200));
	EXPECT_FALSE(find_vma_procmap(&arena->procmap, ptr));
	EXPECT_TRUE(all_zero(to + PAGES(5), 195));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(fits_in_again(arena, to, 200));
	EXPECT_EQ(munmap(to, PAGES(200)), 0);
}

TEST_F(i386, dontunmap_without_a_place)
{
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to;

	to = mremap_i386(ptr, 5, 5, MREMAP_MAYMOVE | MREMAP_DONTUNMAP |
			 variant->flags, NULL);
	ASSERT_NE(to, MAP_FAILED);
	ASSERT_NE(to, ptr);
	EXPECT_TRUE(below_4gb(to, 5));
	EXPECT_EQ(nr_present(arena, ptr, 5), 0);
	EXPECT_TRUE(all_zero(ptr, 5));
	EXPECT_TRUE(healthy(arena, to, 5, 1));
	EXPECT_TRUE(fits_in_again(arena, to, 5));
	EXPECT_EQ(munmap(to, PAGES(5)), 0);
}

TEST_F(i386, bad_arguments)
{
	const int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
	struct arena *arena = &self->arena;
	char *ptr = map_filled(arena, 10, 5, 1);
	char *to = arena_at(arena, 50);

	snapshot_take(&self->snap, arena, ptr, 5);
	ASSERT_EQ(mremap_i386(ptr, 5, 5, variant->flags, NULL), MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);
	ASSERT_EQ(mremap_i386(ptr, 5, 5, variant->flags | MREMAP_FIXED, to),
		  MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);
	ASSERT_EQ(mremap_i386(ptr, 5, 5, variant->flags | fixed | 1 << 30, to),
		  MAP_FAILED);
	EXPECT_EQ(errno, EINVAL);
	EXPECT_TRUE(snapshot_same(&self->snap));
	EXPECT_TRUE(healthy(arena, ptr, 5, 1));
}

TEST_F(i386, shared)
{
	const int fixed = MREMAP_MAYMOVE | MREMAP_FIXED;
	struct arena *arena = &self->arena;
	char *ptr = arena_at(arena, 10), *to = arena_at(arena, 50);

	ASSERT_EQ(mmap(ptr, PAGES(5), PROT_READ | PROT_WRITE, MAP_SHARED |
		       MAP_ANONYMOUS | MAP_FIXED, -1, 0), ptr);
	fill(ptr, 5, 1);
	snapshot_take(&self->snap, arena, ptr, 5);
	ASSERT_EQ(mremap_i386(ptr, 5, 5, fixed | MUST_RELOCATE_ANON | variant->flags, to),
		  MAP_FAILED);
	EXPECT_EQ(errno, EFAULT);
	EXPECT_TRUE(snapshot_same(&self->snap));
	EXPECT_TRUE(intact(ptr, 5, 1));

	ASSERT_EQ(mremap_i386(ptr, 5, 5, fixed | RELOCATE_ANON, to), to);
	EXPECT_TRUE(is_one_vma(arena, to, 5));
	EXPECT_TRUE(intact(to, 5, 1));
}
#endif /* __x86_64__ */

TEST_HARNESS_MAIN
