// SPDX-License-Identifier: GPL-2.0
/*
 * The examples of README.md: README-1.c and so on are its code blocks.
 */
#define _GNU_SOURCE
#include "examples.h"
#include "README-1.c"

static void *join_in_place(void *heap, size_t len, int flag)
{
#include "README-2.c"
	return heap;
}

static void two_blocks(int flag, int nr_mappings, const char *what)
{
	char *to = reserve(2 * SZ);
	bool moved = move_block(block(NULL, 'a'), SZ, to, flag) == to &&
		     move_block(block(NULL, 'b'), SZ, to + SZ, flag) == to + SZ;

	check(moved && holds(to, 'a') && holds(to + SZ, 'b') &&
	      mappings(to, 2 * SZ) == nr_mappings, what);
}

int main(void)
{
	char *from, *to;
	pid_t child;

	check(relocate_flag() == MREMAP_RELOCATE_ANON,
	      "relocate_flag() finds the flag");
	two_blocks(relocate_flag(), 1, "move_block() with it: one mapping");
	two_blocks(0, 2, "move_block() without it: two");

	old_kernel = true;
	check(!relocate_flag(), "relocate_flag() is 0 on a kernel without it");
	two_blocks(relocate_flag(), 2, "move_block() moves all the same");
	old_kernel = false;

	two_blocks(MREMAP_MUST_RELOCATE_ANON, 1, "the other flag: one mapping");

	to = reserve(2 * SZ);
	move_block(block(NULL, 'a'), SZ, to, 0);
	move_block(block(NULL, 'b'), SZ, to + SZ, 0);
	check(mappings(to, 2 * SZ) == 2, "two that have been moved plainly");
	to = join_in_place(to, 2 * SZ, relocate_flag());
	check(holds(to, 'a') && holds(to + SZ, 'b') &&
	      mappings(to, 2 * SZ) == 1, "... become one where they are");

	always_moves = true;
	check(relocate_flag() == MREMAP_RELOCATE_ANON,
	      "relocate_flag() where every call moves");
	from = join_in_place(to, 2 * SZ, relocate_flag());
	check(from != to && holds(from, 'a') && holds(from + SZ, 'b'),
	      "... and the call returns where the memory is");
	always_moves = false;

	to = reserve(SZ);
	from = block(NULL, 'a');
	child = share();
	errno = 0;
	check(move_block(from, SZ, to, MREMAP_MUST_RELOCATE_ANON) == MAP_FAILED &&
	      errno == EFAULT && holds(from, 'a'),
	      "the other flag fails with EFAULT for what is shared");
	check(move_block(from, SZ, to, relocate_flag()) == to && holds(to, 'a') &&
	      !mappings(from, SZ), "... which the flag moves all the same");
	unshare_from(child);
	return nr_failed;
}
