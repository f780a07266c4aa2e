// SPDX-License-Identifier: GPL-2.0
/*
 * Relocate random parts of a range, over and over, while its pages are migrated
 * between nodes, reclaimed, compacted and split, and now and then the process
 * forks. Every page holds a number that tells where it was written, kept in a
 * shadow of the layout, so that a page lost, swapped or stale is noticed. The
 * work is bounded by counts, not by time.
 *
 *	arena, all of it mapped; what has moved away is mapped anew, empty
 *	|---AAAA----------BB------CCCCCCC--------D---|
 *	     |______________^  mremap(RELOCATE) of any part
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "kselftest.h"
#include "mremap_relocate_util.h"

#define ARENA_PAGES	(16 * 512)
#ifndef MPOL_MF_MOVE
#define MPOL_MF_MOVE	2
#endif

static unsigned long page_size;
static char *arena;
/* What the first word of each page of the arena must be; 0 if unmapped. */
static unsigned long shadow[ARENA_PAGES];
static atomic_int stop;
static atomic_ulong migrated, advised;
static unsigned int seed = 1;

static unsigned int rnd(unsigned int n)
{
	return rand_r(&seed) % n;
}

static char *page_at(unsigned long i)
{
	return arena + i * page_size;
}

static void *migrator(void *arg)
{
	enum { NR = 256 };
	static void *pages[NR];
	static int nodes[NR], status[NR];
	unsigned int s = 7, node = 0;

	while (!atomic_load(&stop)) {
		unsigned long from = rand_r(&s) % (ARENA_PAGES - NR);

		node ^= 1;
		for (int i = 0; i < NR; i++) {
			pages[i] = page_at(from + i);
			nodes[i] = node;
		}
		if (!syscall(SYS_move_pages, 0, NR, pages, nodes, status,
			     MPOL_MF_MOVE))
			for (int i = 0; i < NR; i++)
				if (status[i] == (int)node)
					atomic_fetch_add(&migrated, 1);
	}
	return NULL;
}

static void *reclaimer(void *arg)
{
	unsigned int s = 11;

	while (!atomic_load(&stop)) {
		unsigned long from = rand_r(&s) % (ARENA_PAGES - 512);

		if (!madvise(page_at(from), 512 * page_size, MADV_PAGEOUT))
			atomic_fetch_add(&advised, 1);
	}
	return NULL;
}

static void write_once(const char *path, const char *what)
{
	int fd = open(path, O_WRONLY);

	/* What this kernel does not offer, the other threads make up for. */
	if (fd < 0 || write(fd, what, strlen(what)) < 0)
		sched_yield();
	if (fd >= 0)
		close(fd);
}

static void *splitter(void *arg)
{
	while (!atomic_load(&stop)) {
		write_once("/sys/kernel/debug/split_huge_pages", "1");
		write_once("/proc/sys/vm/compact_memory", "1");
	}
	return NULL;
}

static void check_part(unsigned long from, unsigned long to, const char *when)
{
	for (unsigned long i = from; i < to; i++) {
		unsigned long *p = (unsigned long *)page_at(i);

		if (shadow[i] && (p[0] != shadow[i] ||
				  p[page_size / 8 - 1] != ~shadow[i]))
			ksft_exit_fail_msg("%s: page %lu holds %lx, not %lx\n",
					   when, i, p[0], shadow[i]);
	}
}

static void write_part(unsigned long from, unsigned long nr)
{
	static unsigned long serial;

	for (unsigned long i = from; i < from + nr; i++) {
		unsigned long *p = (unsigned long *)page_at(i);

		/* Leave some never faulted. */
		if (!rnd(8))
			continue;
		shadow[i] = ++serial;
		p[0] = shadow[i];
		p[page_size / 8 - 1] = ~shadow[i];
	}
}

/* Map [from, from + nr) anew, empty. */
static void map_part(unsigned long from, unsigned long nr, int prot)
{
	if (mmap(page_at(from), nr * page_size, prot,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));
	memset(shadow + from, 0, nr * sizeof(*shadow));
}

int main(int argc, char **argv)
{
	unsigned long moves = argc > 1 ? strtoul(argv[1], NULL, 0) : 60;
	unsigned long done = 0, refused = 0, forks = 0;
	pthread_t threads[3];
	pid_t child = 0;

	page_size = sysconf(_SC_PAGESIZE);
	ksft_print_header();
	ksft_set_plan(1);
	arena = mmap(NULL, (ARENA_PAGES + 512) * page_size, PROT_NONE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (arena == MAP_FAILED)
		ksft_exit_fail_msg("mmap: %s\n", strerror(errno));
	arena = (char *)(((unsigned long)arena + 512 * page_size - 1) &
			 -(512 * page_size));
	map_part(0, ARENA_PAGES, PROT_READ | PROT_WRITE);
	if (sys_mremap(arena, page_size, page_size,
		       MREMAP_MAYMOVE | MREMAP_RELOCATE_ANON, NULL) == MAP_FAILED)
		ksft_exit_skip("this kernel has no MREMAP_RELOCATE_ANON: %s\n", strerror(errno));
	madvise(arena, ARENA_PAGES * page_size, MADV_HUGEPAGE);
	write_part(0, ARENA_PAGES);

	pthread_create(&threads[0], NULL, migrator, NULL);
	pthread_create(&threads[1], NULL, reclaimer, NULL);
	pthread_create(&threads[2], NULL, splitter, NULL);

	for (unsigned long n = 0; n < moves; n++) {
		unsigned long nr = 1 + rnd(rnd(4) ? 64 : 1500);
		unsigned long from = rnd(ARENA_PAGES - nr);
		unsigned long to = rnd(ARENA_PAGES - nr);
		int flags = MREMAP_MAYMOVE | MREMAP_FIXED;
		void *res;

		if (!rnd(4)) {		/* Keep some on PMD boundaries. */
			nr = 512;
			from = rnd(ARENA_PAGES / 512) * 512;
			to = rnd(ARENA_PAGES / 512) * 512;
		}
		if (from < to + nr && to < from + nr)
			continue;
		flags |= rnd(2) ? MREMAP_MUST_RELOCATE_ANON :
			 rnd(8) ? MREMAP_RELOCATE_ANON : 0;

		if (!child && !rnd(64)) {
			child = fork();
			if (!child) {
				/* See the same bytes for some time. */
				check_part(0, ARENA_PAGES, "in the child");
				_exit(0);
			}
			forks++;
		} else if (child && !rnd(32)) {
			int status;

			waitpid(child, &status, 0);
			if (!WIFEXITED(status) || WEXITSTATUS(status))
				ksft_exit_fail_msg("child: %x\n", status);
			child = 0;
		}

		res = sys_mremap(page_at(from), nr * page_size, nr * page_size,
				 flags, page_at(to));
		if (res == MAP_FAILED) {
			if (errno == EFAULT && (flags & MREMAP_MUST_RELOCATE_ANON)) {
				refused++;
				check_part(from, from + nr, "after a refusal");
				/* The destination is gone all the same. */
				map_part(to, nr, PROT_READ | PROT_WRITE);
				continue;
			}
			ksft_exit_fail_msg("mremap: %s\n", strerror(errno));
		}
		memcpy(shadow + to, shadow + from, nr * sizeof(*shadow));
		map_part(from, nr, PROT_READ | PROT_WRITE);
		madvise(page_at(from), nr * page_size, MADV_HUGEPAGE);
		done++;
		if (rnd(2))
			check_part(to, to + nr, "after a move");
		if (rnd(4))
			write_part(from, nr);
	}
	check_part(0, ARENA_PAGES, "at the end");
	atomic_store(&stop, 1);
	for (int i = 0; i < 3; i++)
		pthread_join(threads[i], NULL);
	check_part(0, ARENA_PAGES, "after the end");
	ksft_print_msg("%lu moves, %lu refused, %lu forks, %lu pages migrated, %lu reclaims\n",
		       done, refused, forks, atomic_load(&migrated),
		       atomic_load(&advised));
	ksft_test_result(done > 0, "no byte lost\n");
	ksft_finished();
}
