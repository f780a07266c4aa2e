/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the drivers of the documentation's examples share: a kernel that does
 * not know the flags, or user emulation that always moves, if wanted, memory to
 * move, and checks.
 */
#ifndef EXAMPLES_H
#define EXAMPLES_H

#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <signal.h>
#include <unistd.h>

#define SZ 0x10000UL	/* of one block */

static bool old_kernel;	/* has the example's system calls fail as there */
static bool always_moves;	/* has them move what may move, as QEMU user emulation does */
static int nr_failed;

static inline void check(bool good, const char *what)
{
	printf("%s - %s\n", good ? "ok" : "not ok", what);
	fflush(stdout);
	nr_failed += !good;
}

/* Address space for several blocks, with nothing next to it */
static inline char *reserve(size_t len)
{
	char *ptr = mmap(NULL, len + 2 * SZ, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (ptr == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return ptr + SZ;
}

static inline long example_syscall(long nr, void *from, size_t old_len,
				   size_t new_len, int flags, void *to)
{
	if (nr == SYS_mremap && old_kernel && (flags & (8 | 16))) {
		errno = EINVAL;
		return -1;
	}
	if (nr == SYS_mremap && always_moves && (flags & MREMAP_MAYMOVE) &&
	    !(flags & MREMAP_FIXED)) {
		flags |= MREMAP_FIXED;
		to = reserve(new_len);
	}
	return syscall(nr, from, old_len, new_len, flags, to);
}

#define syscall example_syscall

/* A block whose every byte is written, at @to or somewhere on its own */
static inline char *block(void *to, int byte)
{
	char *ptr = to ? to : reserve(SZ);

	ptr = mmap(ptr, SZ, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	if (ptr == MAP_FAILED) {
		perror("mmap");
		exit(1);
	}
	return memset(ptr, byte, SZ);
}

static inline bool holds(const char *ptr, int byte)
{
	for (size_t i = 0; i < SZ; i++)
		if (ptr[i] != byte)
			return false;
	return true;
}

/* How many mappings that can be written to there are in a range */
static inline int mappings(const void *ptr, size_t len)
{
	unsigned long addr = (unsigned long)ptr, start, end;
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[512], write;
	int nr = 0;

	while (maps && fgets(line, sizeof(line), maps))
		if (sscanf(line, "%lx-%lx r%c", &start, &end, &write) == 3 &&
		    write == 'w' && start < addr + len && end > addr)
			nr++;
	if (maps)
		fclose(maps);
	return nr;
}

/* A child that shares all memory until it is killed */
static inline pid_t share(void)
{
	pid_t pid = fork();

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	if (pid < 0) {
		perror("fork");
		exit(1);
	}
	return pid;
}

static inline void unshare_from(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

#endif
