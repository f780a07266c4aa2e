// SPDX-License-Identifier: GPL-2.0
/*
 * The examples of Documentation/admin-guide/mm/mremap_relocate.rst:
 * admin-guide-1.c and so on are its code blocks.
 */
#define _GNU_SOURCE
#include "examples.h"
#include "admin-guide-1.c"

#ifndef MREMAP_MUST_RELOCATE_ANON
#define MREMAP_MUST_RELOCATE_ANON 16
#endif

static void defragment(void *old, void *new)
{
	/* The text says before that the C library's may refuse the flag. */
#define mremap(from, old_len, new_len, flags, to) \
	syscall(SYS_mremap, from, old_len, new_len, flags, to)
#include "admin-guide-2.c"
#undef mremap
}

static void make_private(char *ptr, size_t len)
{
#include "admin-guide-3.c"
}

static void *must_move(char *from, char *to)
{
	return sys_mremap(from, SZ, MREMAP_MAYMOVE | MREMAP_FIXED |
			  MREMAP_MUST_RELOCATE_ANON, to);
}

/* move_block() asks once, so each kernel gets a process. */
static void move_blocks(int nr_mappings, const char *what)
{
	int status = 1;
	pid_t pid = fork();

	if (!pid) {
		char *to = reserve(2 * SZ);

		_exit(move_block(block(NULL, 'a'), SZ, to) != to ||
		      move_block(block(NULL, 'b'), SZ, to + SZ) != to + SZ ||
		      !holds(to, 'a') || !holds(to + SZ, 'b') ||
		      mappings(to, 2 * SZ) != nr_mappings);
	}
	check(waitpid(pid, &status, 0) == pid && !status, what);
}

int main(void)
{
	char *from, *to, *old = reserve(3 * SZ), *new = reserve(3 * SZ);
	pid_t child;

	check(has_relocate(), "has_relocate() finds the flag");
	move_blocks(1, "move_block(): one mapping");
	old_kernel = true;
	check(!has_relocate(), "has_relocate() does not find what is not there");
	move_blocks(2, "move_block() moves all the same");
	old_kernel = false;

	for (int i = 0; i < 3; i++)
		sys_mremap(block(NULL, 'a' + i), SZ,
			   MREMAP_MAYMOVE | MREMAP_FIXED, old + i * SZ);
	check(mappings(old, 3 * SZ) == 3, "three mappings that do not merge");
	defragment(old, new);
	check(mappings(new, 3 * SZ) == 1 && holds(new, 'a') &&
	      holds(new + SZ, 'b') && holds(new + 2 * SZ, 'c'),
	      "... become one by one call");

	to = reserve(SZ);
	from = block(NULL, 'a');
	child = share();
	errno = 0;
	check(must_move(from, to) == MAP_FAILED && errno == EFAULT,
	      "what is shared cannot be relocated");
	make_private(from, SZ);
	check(must_move(from, to) == to && holds(to, 'a'),
	      "... until it is the caller's own");
	unshare_from(child);
	return nr_failed;
}
