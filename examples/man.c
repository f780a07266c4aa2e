// SPDX-License-Identifier: GPL-2.0
/*
 * The examples of man/mremap_relocate_anon.2: man-1.c, man-2.c are its code
 * blocks.
 */
#define _GNU_SOURCE
#include "examples.h"
#include "man-2.c"

#ifndef MREMAP_RELOCATE_ANON
#define MREMAP_RELOCATE_ANON 8
#endif

static bool ask(void)
{
	void *ptr, *now;
	bool has_flag;
	long page;

#include "man-1.c"

	return has_flag;
}

/* A place in a heap: mapped, and written to */
static char *place(void)
{
	char *heap = reserve(2 * SZ);

	block(heap, 'x');
	block(heap + SZ, 'x');
	return heap;
}

int main(void)
{
	char *from, *to = place();
	pid_t child;

	check(ask(), "the question finds the flag");
	always_moves = true;
	check(ask(), "... where every call moves, too");
	always_moves = false;

	check(!move_block(block(NULL, 'a'), SZ, to) &&
	      !move_block(block(NULL, 'b'), SZ, to + SZ),
	      "move_block() copies nothing");
	check(holds(to, 'a') && holds(to + SZ, 'b') &&
	      mappings(to, 2 * SZ) == 1, "... and there is one mapping");

	old_kernel = true;
	check(!ask(), "the question does not find what is not there");
	to = place();
	from = block(NULL, 'a');
	check(move_block(from, SZ, to) == -1 && errno == EINVAL &&
	      holds(from, 'a'), "move_block() fails on a kernel without it");
	old_kernel = false;

	to = place();
	from = block(NULL, 'a');
	child = share();
	check(move_block(from, SZ, to) == SZ && holds(to, 'a') &&
	      holds(to + SZ, 'x') && !mappings(from, SZ),
	      "move_block() copies what is shared");
	unshare_from(child);
	return nr_failed;
}
