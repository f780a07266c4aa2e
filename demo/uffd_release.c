// SPDX-License-Identifier: GPL-2.0
/*
 * uffd_release - memory leaves a userfaultfd while there is no memory
 *
 * An area of many chunks is one memory area (VMA) to the kernel, until every
 * other chunk of it is registered with a userfaultfd:
 *
 *	|  -  | uffd |  -  | uffd |  -  | uffd |  -  |
 *
 * When the chunks leave the userfaultfd again the VMAs could merge. That takes
 * memory, and here there is none: the kernel's fault injection fails the first
 * allocation that the call makes, in the next round the second one, and so on.
 * The rules for each way to leave:
 *
 * - the last close() cannot report an error. It must release all chunks. If they
 *   cannot merge then they stay apart: give_up_on_oom;
 * - UFFDIO_UNREGISTER of whole chunks is the same, and must work;
 * - UFFDIO_UNREGISTER of half a chunk may fail with ENOMEM, for it takes a split
 *   or a merge with the next chunk. It must not change the other half;
 * - mprotect() of half a chunk follows the same rule. Here the chunks are set
 *   apart by their protection.
 *
 * The exit status:
 *
 *	0  every call kept the rules
 *	1  a call changed more than it was asked to, or failed where it must not
 *	2  something unrelated went wrong
 *	3  this kernel has no fault injection, or we are not root
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#define NR_CHUNKS	33
#define CHUNK_PAGES	4
#define NR_PAGES	(NR_CHUNKS * CHUNK_PAGES)

#define MAX_NTH		200

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

enum { EXIT_HELD, EXIT_BROKEN, EXIT_TROUBLE, EXIT_NO_INJECTION };

static unsigned long page_size;
static char *area;
static int uffd, nth_fd;

/* The chunk of which half is to be changed: one that is set apart. */
static int half_chunk;

static void trouble(const char *what)
{
	fprintf(stderr, "uffd_release: %s: %s\n", what, strerror(errno));
	exit(EXIT_TROUBLE);
}

static char mark(int page)
{
	return page % 100 + 1;
}

static bool set_failslab(const char *name, const char *value)
{
	char path[100];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/debug/failslab/%s", name);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return false;
	len = write(fd, value, strlen(value));
	close(fd);
	return len > 0;
}

static void fail_nth(unsigned int nth)
{
	char buf[16];
	int len = snprintf(buf, sizeof(buf), "%u", nth);

	if (pwrite(nth_fd, buf, len, 0) != len)
		trouble("fail-nth");
}

/* Back to normal; has an allocation been failed? */
static bool has_failed(void)
{
	char buf[16] = "";

	if (pread(nth_fd, buf, sizeof(buf) - 1, 0) < 0)
		trouble("fail-nth");
	fail_nth(0);
	return atoi(buf) == 0;
}

/*
 * Which pages are set apart, by a userfaultfd or by their protection? Returns
 * the number of VMAs.
 */
static int look(bool *apart)
{
	const unsigned long first = (unsigned long)area;
	unsigned long start = 0, end = 0, from, to, addr;
	FILE *f = fopen("/proc/self/smaps", "r");
	char line[4096], perm[5] = "";
	bool inside = false;
	int nr = 0;

	if (!f)
		trouble("/proc/self/smaps");
	memset(apart, 0, NR_PAGES * sizeof(*apart));

	while (fgets(line, sizeof(line), f)) {
		char seen[5];

		/* Not into start and end: other lines begin with A, too. */
		if (sscanf(line, "%lx-%lx %4s ", &from, &to, seen) == 3) {
			start = from;
			end = to;
			memcpy(perm, seen, sizeof(perm));
			inside = start < first + NR_PAGES * page_size &&
				 end > first;
			nr += inside;
			continue;
		}
		if (!inside || strncmp(line, "VmFlags:", 8))
			continue;
		if (perm[1] == 'w' && !strstr(line, " um"))
			continue;
		for (addr = start; addr < end; addr += page_size)
			apart[(addr - first) / page_size] = true;
	}
	fclose(f);
	return nr;
}

static int do_register(int page, int nr)
{
	struct uffdio_register reg = {
		.range.start = (unsigned long)area + page * page_size,
		.range.len = nr * page_size,
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg);
}

static int do_unregister(int page, int nr)
{
	struct uffdio_range range = {
		.start = (unsigned long)area + page * page_size,
		.len = nr * page_size,
	};

	return ioctl(uffd, UFFDIO_UNREGISTER, &range);
}

static int do_protect(int page, int nr, int prot)
{
	return mprotect(area + page * page_size, nr * page_size, prot);
}

static void make_area(bool protect)
{
	struct uffdio_api api = { .api = UFFD_API };
	int i, ret;

	if (mmap(area, NR_PAGES * page_size, PROT_READ | PROT_WRITE,
		 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
		trouble("mmap");
	madvise(area, NR_PAGES * page_size, MADV_NOHUGEPAGE);
	for (i = 0; i < NR_PAGES; i++)
		area[i * page_size] = mark(i);

	uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	if (uffd < 0 || ioctl(uffd, UFFDIO_API, &api))
		trouble("userfaultfd");
	for (i = CHUNK_PAGES; i < NR_PAGES; i += 2 * CHUNK_PAGES) {
		ret = protect ? do_protect(i, CHUNK_PAGES, PROT_READ) :
				do_register(i, CHUNK_PAGES);
		if (ret)
			trouble("cannot set a chunk apart");
	}
}

/* The ways to leave, and the range that each is for. */

static int by_close(void)
{
	int ret = close(uffd);

	uffd = -1;
	return ret;
}

static int by_unregister(void)
{
	return do_unregister(0, NR_PAGES);
}

static int half_unregister(void)
{
	return do_unregister(half_chunk * CHUNK_PAGES + CHUNK_PAGES / 2,
			     CHUNK_PAGES / 2);
}

static int half_mprotect(void)
{
	return do_protect(half_chunk * CHUNK_PAGES + CHUNK_PAGES / 2,
			  CHUNK_PAGES / 2, PROT_READ | PROT_WRITE);
}

static bool in_half(int page)
{
	return page / CHUNK_PAGES == half_chunk &&
	       page % CHUNK_PAGES >= CHUNK_PAGES / 2;
}

static struct way {
	const char *name;
	int (*leave)(void);
	bool may_fail, half, protect;
	/* Results */
	int tried, worked, refused, wrong, vmas;
} ways[] = {
	{ .name = "last close()", .leave = by_close },
	{ .name = "UFFDIO_UNREGISTER, all", .leave = by_unregister },
	{ .name = "UFFDIO_UNREGISTER, half a VMA", .leave = half_unregister,
	  .may_fail = true, .half = true },
	{ .name = "mprotect(), half a VMA", .leave = half_mprotect,
	  .may_fail = true, .half = true, .protect = true },
};

/* Did the call do what it was asked to do, or nothing if it reports an error? */
static bool is_right(const struct way *w, bool worked, const bool *apart)
{
	int i;

	for (i = 0; i < NR_PAGES; i++) {
		bool want = i / CHUNK_PAGES % 2;

		if (worked)
			want = want && w->half && !in_half(i);
		if (apart[i] != want || area[i * page_size] != mark(i))
			return false;
	}
	return true;
}

static void try_all_nth(struct way *w)
{
	bool apart[NR_PAGES];
	unsigned int nth;
	bool failed = true;
	int ret, vmas;

	for (nth = 1; failed && nth <= MAX_NTH; nth++) {
		make_area(w->protect);

		fail_nth(nth);
		ret = w->leave();
		failed = has_failed();

		vmas = look(apart);
		if (failed) {
			w->tried++;
			if (!is_right(w, !ret, apart))
				w->wrong++;
			else if (ret)
				w->refused++;
			else
				w->worked++;
			if (vmas > w->vmas)
				w->vmas = vmas;
		} else if (ret || !is_right(w, true, apart)) {
			errno = EINVAL;
			trouble("it does not work with memory at hand");
		}
		if (uffd >= 0)
			close(uffd);
	}
}

/*
 * A VMA that grows by half of the one before it often takes no memory. It does if
 * the two are in different nodes of the tree, so look for these.
 */
static void try(struct way *w)
{
	if (!w->half) {
		try_all_nth(w);
		return;
	}
	for (half_chunk = 1; half_chunk < NR_CHUNKS - 1; half_chunk += 2)
		try_all_nth(w);
}

static void setup(void)
{
	page_size = sysconf(_SC_PAGESIZE);
	setvbuf(stdout, NULL, _IOLBF, 0);

	nth_fd = open("/proc/thread-self/fail-nth", O_RDWR);
	if (nth_fd < 0 || !set_failslab("ignore-gfp-wait", "N") ||
	    !set_failslab("verbose", "0")) {
		printf("There is no fault injection here (CONFIG_FAILSLAB, root, debugfs); no\n"
		       "allocation can be failed.\n");
		exit(EXIT_NO_INJECTION);
	}

	/* A page that is never accessible before and after the area. */
	area = mmap(NULL, (NR_PAGES + 2) * page_size, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (area == MAP_FAILED)
		trouble("mmap");
	area += page_size;
}

int main(void)
{
	int wrong = 0, refused = 0;
	struct utsname uts;
	unsigned int i;

	setup();
	uname(&uts);
	printf("Linux %s: %d chunks, every other one in a userfaultfd (or read-only, for\n"
	       "mprotect()); for each way out, one allocation after the other is failed:\n\n",
	       uts.release, NR_CHUNKS);
	printf("%-32s %6s %7s %8s %6s %10s\n", "", "failed", "worked", "ENOMEM",
	       "WRONG", "VMAs left");

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		struct way *w = &ways[i];

		try(w);
		printf("%-32s %6d %7d %8d %6d %10d\n", w->name, w->tried,
		       w->worked, w->refused, w->wrong, w->vmas);
		wrong += w->wrong;
		if (!w->may_fail)
			refused += w->refused;
	}

	set_failslab("ignore-gfp-wait", "Y");
	printf("\n");
	if (wrong || refused) {
		printf("What you saw: %d calls changed memory that they were not asked to change, and\n"
		       "%d failed that cannot report an error.\n", wrong, refused);
		return EXIT_BROKEN;
	}
	printf("What you saw: whichever allocation failed, the release went through, unmerged if\n"
	       "need be, and no call changed more than it was asked to.\n");
	return EXIT_HELD;
}
