// SPDX-License-Identifier: GPL-2.0
/*
 * The examples of Documentation/admin-guide/mm/mremap_relocate.rst:
 * admin-guide-1.c and so on are its code blocks.
 */
#define _GNU_SOURCE
#include "examples.h"
#include "admin-guide-1.c"

#ifndef PR_SET_MREMAP_RELOCATE
#define PR_SET_MREMAP_RELOCATE 82
#define PR_GET_MREMAP_RELOCATE 83
#define PR_MREMAP_RELOCATE_CHEAP 1
#define PR_MREMAP_RELOCATE_SYSCTL 3
#endif
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

static char *join_in_place(char *heap, size_t size)
{
	char *ptr;

#define mremap(from, old_len, new_len, flags) \
	(void *)syscall(SYS_mremap, from, old_len, new_len, flags, NULL)
#include "admin-guide-3.c"
#undef mremap
	return heap;
}

static void relocate_what_is_cheap(void)
{
#include "admin-guide-4.c"
}

static void make_private(char *ptr, size_t len)
{
#include "admin-guide-5.c"
}

/* Plain moves merge, in this process and in its children. */
static void with_the_switch(void)
{
	char *to = reserve(2 * SZ + 4096) + 4096;
	int status = 1;
	pid_t pid;

	relocate_what_is_cheap();
	check(prctl(PR_GET_MREMAP_RELOCATE, 0, 0, 0, 0) ==
	      PR_MREMAP_RELOCATE_CHEAP, "prctl() has turned the switch");
	pid = fork();
	if (!pid) {
		for (int i = 0; i < 2; i++)
			sys_mremap(block(NULL, 'a' + i), SZ,
				   MREMAP_MAYMOVE | MREMAP_FIXED, to + i * SZ);
		_exit(mappings(to, 2 * SZ) != 1 || !holds(to, 'a') ||
		      !holds(to + SZ, 'b'));
	}
	check(waitpid(pid, &status, 0) == pid && !status,
	      "... and plain moves of a child merge");
	prctl(PR_SET_MREMAP_RELOCATE, PR_MREMAP_RELOCATE_SYSCTL, 0, 0, 0);
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

/* Three pieces at @heap. Returns where they are, as one mapping. */
static char *pieces_become_one(char *heap)
{
	for (int i = 0; i < 3; i++)
		sys_mremap(block(NULL, 'd' + i), SZ,
			   MREMAP_MAYMOVE | MREMAP_FIXED, heap + i * SZ);
	check(mappings(heap, 3 * SZ) == 3, "three mappings that do not merge");
	heap = join_in_place(heap, 3 * SZ);
	check(mappings(heap, 3 * SZ) == 1 && holds(heap, 'd') &&
	      holds(heap + SZ, 'e') && holds(heap + 2 * SZ, 'f'),
	      "... become one where they are");
	return heap;
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

	check(pieces_become_one(old) == old, "pieces stay where they are");
	always_moves = true;
	check(has_relocate(), "has_relocate() finds the flag where every call moves");
	check(pieces_become_one(reserve(3 * SZ)), "... and pieces are found again");
	always_moves = false;
	with_the_switch();

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
