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
	bool has_flag;
	long page;
	void *ptr;

#include "man-1.c"

	munmap(ptr, page);
	return has_flag;
}

int main(void)
{
	char *from, *to;
	pid_t child;

	check(ask(), "the question finds the flag");

	to = reserve(2 * SZ);
	check(!move_block(block(NULL, 'a'), SZ, to) &&
	      !move_block(block(NULL, 'b'), SZ, to + SZ),
	      "move_block() copies nothing");
	check(holds(to, 'a') && holds(to + SZ, 'b') &&
	      mappings(to, 2 * SZ) == 1, "... and there is one mapping");

	old_kernel = true;
	check(!ask(), "the question does not find what is not there");
	to = reserve(SZ);
	from = block(NULL, 'a');
	check(move_block(from, SZ, to) == -1 && errno == EINVAL &&
	      holds(from, 'a'), "move_block() fails on a kernel without it");
	old_kernel = false;

	to = reserve(SZ);
	from = block(NULL, 'a');
	child = share();
	check(move_block(from, SZ, to) == SZ && holds(to, 'a') &&
	      !mappings(from, SZ), "move_block() copies what is shared");
	unshare_from(child);
	return nr_failed;
}
