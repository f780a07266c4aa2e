/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What a process under test can do. The workers of the fuzzer run this, and it
 * is the head of each program that the fuzzer prints, so the two cannot differ.
 *
 * All addresses are page numbers in an arena, the only place where the kernel
 * finds room for more than a few pages. A call returns what it returned, with
 * an address as a page number, or a negative error.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define PAGE		4096ul
#define NR_PAGES	2048
#define NR_PROCS	3
#define BLOCK		512	/* pages of a PMD */

#ifndef MREMAP_DONTUNMAP
#define MREMAP_DONTUNMAP	4
#endif
#ifndef MREMAP_RELOCATE_ANON
#define MREMAP_RELOCATE_ANON	8
#define MREMAP_MUST_RELOCATE_ANON 16
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#define MADV_GUARD_REMOVE	103
#endif
#ifndef PR_SET_VMA
#define PR_SET_VMA		0x53564d41
#define PR_SET_VMA_ANON_NAME	0
#endif
#ifndef UFFD_FEATURE_WP_UNPOPULATED
#define UFFD_FEATURE_WP_UNPOPULATED (1 << 13)
#endif

static char *base;
static int uffd = -1, fail_nth = -1, dev_zero = -1;

static char *at(long page)
{
	return base + page * (long)PAGE;
}

static long page_of(void *addr)
{
	return addr == MAP_FAILED ? -errno : ((char *)addr - base) / (long)PAGE;
}

static inline void arena_setup(void)
{
	const unsigned long around = 2 * BLOCK * PAGE, len = NR_PAGES * PAGE;
	char *ptr, *end;

	ptr = mmap(NULL, len + 2 * around, PROT_NONE,
		   MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	dev_zero = open("/dev/zero", O_RDWR);
	if (ptr == MAP_FAILED || dev_zero < 0) {
		perror("arena");
		exit(1);
	}
	end = ptr + len + 2 * around;
	base = (char *)(((unsigned long)end - len - BLOCK * PAGE) &
			-(BLOCK * PAGE));
	munmap(base, len);
}

static uint64_t word_of(uint32_t stamp, int i)
{
	return stamp ? (stamp + ((uint64_t)i << 32)) * 0x9e3779b97f4a7c15ull : 0;
}

static sigjmp_buf on_fault;
static volatile int fault_signal;

static void caught(int sig)
{
	fault_signal = sig;
	siglongjmp(on_fault, 1);
}

static inline void catch_faults(void)
{
	struct sigaction act = { .sa_handler = caught, .sa_flags = SA_NODEFER };

	sigaction(SIGSEGV, &act, NULL);
	sigaction(SIGBUS, &act, NULL);
}

/* Each page gets the next stamp. Returns how many pages there are before a fault. */
static long do_write(long page, long nr, uint32_t stamp)
{
	static volatile long done;
	int i;

	fault_signal = 0;
	done = 0;
	if (sigsetjmp(on_fault, 0))
		return done;
	for (; done < nr; done++) {
		volatile uint64_t *word = (uint64_t *)at(page + done);

		for (i = 0; i < 512; i++)
			word[i] = word_of(stamp + done, i);
	}
	return done;
}

static long do_read(long page, long nr)
{
	static volatile long done;

	fault_signal = 0;
	done = 0;
	if (sigsetjmp(on_fault, 0))
		return done;
	for (; done < nr; done++)
		(void)*(volatile uint64_t *)at(page + done);
	return done;
}

/* Has a page the bytes of this stamp? 1 if so, 0 if not, -1 if it faults. */
static uint64_t wrong_word;
static int wrong_index;

static int do_compare(long page, uint32_t stamp)
{
	const volatile uint64_t *word = (uint64_t *)at(page);
	int i;

	fault_signal = 0;
	if (sigsetjmp(on_fault, 0))
		return -1;
	for (i = 0; i < 512; i++) {
		uint64_t is = word[i];

		if (is == word_of(stamp, i))
			continue;
		wrong_word = is;
		wrong_index = i;
		return 0;
	}
	return 1;
}

static long do_mmap(long page, long nr, int prot, int flags)
{
	void *hint = page < 0 ? NULL : at(page);
	bool zero = !(flags & MAP_ANONYMOUS);

	return page_of(mmap(hint, nr * PAGE, prot, flags, zero ? dev_zero : -1, 0));
}

static long do_munmap(long page, long nr)
{
	return munmap(at(page), nr * PAGE) ? -errno : 0;
}

static long do_mprotect(long page, long nr, int prot)
{
	return mprotect(at(page), nr * PAGE, prot) ? -errno : 0;
}

static long do_madvise(long page, long nr, int advice)
{
	return madvise(at(page), nr * PAGE, advice) ? -errno : 0;
}

static long do_mlock(long page, long nr)
{
	return mlock(at(page), nr * PAGE) ? -errno : 0;
}

static long do_munlock(long page, long nr)
{
	return munlock(at(page), nr * PAGE) ? -errno : 0;
}

static long do_name(long page, long nr, int name)
{
	static const char * const names[] = { NULL, "red", "blue" };

	return prctl(PR_SET_VMA, PR_SET_VMA_ANON_NAME, at(page), nr * PAGE,
		     names[name]) ? -errno : 0;
}

/*
 * With 'nth', that allocation of the call fails; 'injected' tells if there were
 * so many.
 */
static bool injected;

static long do_mremap(long page, long nr, long new_nr, int flags, long to,
		      int off, int nth)
{
	char buf[16] = "";
	void *res;
	int len;

	injected = false;
	if (nth && fail_nth < 0)
		fail_nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (nth && fail_nth >= 0) {
		len = sprintf(buf, "%d", nth);
		nth = write(fail_nth, buf, len) == len ? nth : 0;
	}
	/* 'off' makes an address (1, 2) or a length (4) odd. */
	res = (void *)syscall(SYS_mremap, at(page) + (off & 1),
			      nr * PAGE - (off & 4), new_nr * PAGE - (off & 4),
			      flags, at(to) + (off & 2));
	len = errno;
	if (nth && fail_nth >= 0) {
		memset(buf, 0, sizeof(buf));
		if (pread(fail_nth, buf, sizeof(buf) - 1, 0) > 0)
			injected = !atoi(buf);
		if (write(fail_nth, "0", 1) != 1)
			exit(3);
	}
	errno = len;
	return page_of(res);
}

/* A userfaultfd that only knows SIGBUS and write protection. */
static int get_uffd(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_SIGBUS | UFFD_FEATURE_WP_UNPOPULATED,
	};

	if (uffd >= 0)
		return uffd;
	uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd >= 0 && ioctl(uffd, UFFDIO_API, &api)) {
		close(uffd);
		uffd = -1;
	}
	return uffd;
}

static long do_uffd_register(long page, long nr)
{
	struct uffdio_register reg = {
		.range = { (unsigned long)at(page), nr * PAGE },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(get_uffd(), UFFDIO_REGISTER, &reg) ? -errno : 0;
}

static long do_uffd_unregister(long page, long nr)
{
	struct uffdio_range range = { (unsigned long)at(page), nr * PAGE };

	return ioctl(get_uffd(), UFFDIO_UNREGISTER, &range) ? -errno : 0;
}

static long do_uffd_wp(long page, long nr, int on)
{
	struct uffdio_writeprotect wp = {
		.range = { (unsigned long)at(page), nr * PAGE },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(get_uffd(), UFFDIO_WRITEPROTECT, &wp) ? -errno : 0;
}

/*
 * Have the kernel find each page from its folio: migrate all that is present to
 * this node, or with -1 each to the other node. Returns the page number of one
 * that cannot be migrated, or -1.
 */
static long do_migrate(long page, long nr, int node)
{
	static void *pages[NR_PAGES];
	static int to[NR_PAGES], status[NR_PAGES];
	const int all = 4;	/* MPOL_MF_MOVE_ALL */
	long i, n = 0, bad = -1;
	int try;

	for (i = 0; i < nr; i++)
		pages[i] = at(page + i);
	if (syscall(SYS_move_pages, 0, nr, pages, NULL, status, all) < 0)
		return -1;
	for (i = 0; i < nr; i++) {
		if (status[i] < 0 || status[i] == node)
			continue;
		pages[n] = pages[i];
		to[n++] = node < 0 ? !status[i] : node;
	}
	for (try = 0; n && try < 30; try++) {
		if (syscall(SYS_move_pages, 0, n, pages, to, status, all) < 0)
			return -1;
		if (syscall(SYS_move_pages, 0, n, pages, NULL, status, all) < 0)
			return -1;
		bad = -1;
		for (i = 0; i < n && bad < 0; i++) {
			if (status[i] >= 0 && status[i] != to[i])
				bad = page_of(pages[i]);
		}
		if (bad < 0)
			break;
		usleep(100 << (try / 3));
	}
	return bad;
}

static long do_clear_refs(void)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY);
	bool ok = fd >= 0 && write(fd, "4", 1) == 1;

	close(fd);
	return ok ? 0 : -1;
}

/* After fork(): descriptors that mean the parent. */
static void forget_parent(void)
{
	if (fail_nth >= 0)
		close(fail_nth);
	if (uffd >= 0)
		close(uffd);
	fail_nth = -1;
	uffd = -1;
}
