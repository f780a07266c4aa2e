// SPDX-License-Identifier: GPL-2.0
/*
 * compact_heap - what moving memory costs, and what MREMAP_RELOCATE_ANON saves
 *
 * A small compacting heap. Several thousand blocks are mapped and faulted in
 * at scattered places, in no order:
 *
 *	|  [7]    [2]  [0]      [5]    [1]  [6]       [3]   [4]  |
 *
 * Compaction moves them next to each other with mremap(), so that no byte has
 * to be copied:
 *
 *	|[0][1][2][3][4][5][6][7]                                |
 *
 * To the program the result is one array. To the kernel it is not: anonymous
 * memory remembers the place where it was first faulted in, so no two of these
 * blocks can share one memory area (VMA), and each keeps a vm_area_struct, an
 * anon_vma and an anon_vma_chain of its own. MREMAP_RELOCATE_ANON has the
 * kernel re-home the pages as they move, and the areas merge.
 *
 * Act one does this twice, in two processes that otherwise do the same, with
 * plain mremap() and with the flag, and prints the results side by side. Act
 * two goes on moving blocks until a call fails, or until more blocks have been
 * moved than vm.max_map_count allows a process to have areas.
 *
 * In act three nothing moves. The blocks of a heap are committed one by one, in
 * no order, where they will stay, and are written to at once. The heap ends in
 * pieces all the same, until one call relocates it in place.
 *
 * At the end it makes a move that is refused, and has the kernel's trace events
 * say why.
 *
 * Build:	make -C demo		(into build/demo)
 * Run:		compact_heap		(as root, to see the kernel's memory)
 *
 * The exit status says whether the claims held:
 *
 *	0  the flagged run ended in one VMA, and every byte was where it belongs
 *	1  it did not
 *	2  bad usage, or something unrelated went wrong
 *	3  this kernel does not know MREMAP_RELOCATE_ANON
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MREMAP_RELOCATE_ANON
#define MREMAP_RELOCATE_ANON	8
#endif

#ifndef MREMAP_MUST_RELOCATE_ANON
#define MREMAP_MUST_RELOCATE_ANON	16
#endif

#define TRACING			"/sys/kernel/tracing/instances/compact_heap"

#define MAX_MAP_COUNT		"/proc/sys/vm/max_map_count"

/* The most blocks that act two moves before it declares the limit too far. */
#define MAX_LIMIT		200000

#define DEFAULT_LIMIT		65530

enum { EXIT_HELD, EXIT_BROKEN, EXIT_TROUBLE, EXIT_NO_FLAG };

enum slab { SLAB_VMA, SLAB_ANON_VMA, SLAB_AVC, NR_SLABS };

static const char * const slab_names[NR_SLABS] = {
	[SLAB_VMA]	= "vm_area_struct",
	[SLAB_ANON_VMA]	= "anon_vma",
	[SLAB_AVC]	= "anon_vma_chain",
};

struct slab_usage {
	long objects;		/* -1: unknown */
	long bytes;
};

/* In /proc/vmstat */
enum counter { RELOCATED, PAGES, REFUSED, NR_COUNTERS };

static const char * const counter_names[NR_COUNTERS] = {
	[RELOCATED]	= "mremap_relocate",
	[PAGES]		= "mremap_relocate_pages",
	[REFUSED]	= "mremap_relocate_refused",
};

/* What one run reports. Lives in memory that parent and child share. */
struct result {
	bool done;
	int err;			/* errno of the call that failed */
	const char *what;		/* the call that failed */
	long moved;			/* blocks moved */
	long vmas_before;		/* VMAs that hold blocks */
	long vmas_after;
	bool one_range;			/* ... is it exactly the heap? */
	unsigned long long verified;	/* bytes that read back right */
	unsigned long long lost;	/* bytes that did not */
	double seconds;
	struct slab_usage slabs[NR_SLABS];
	long counters[NR_COUNTERS];	/* what it has added */
};

static size_t page_size;
static size_t nr_blocks = 4096;
static size_t block_pages = 2;
static bool tty;

static void __attribute__((noreturn, format(printf, 1, 2)))
trouble(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "compact_heap: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	_exit(EXIT_TROUBLE);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static void *do_mremap(void *from, size_t len, int flags, void *to)
{
	return (void *)syscall(SYS_mremap, (unsigned long)from, len, len,
			       MREMAP_MAYMOVE | MREMAP_FIXED | flags,
			       (unsigned long)to);
}

/*
 * Asking for nothing (the same size, in place) with the flag is answered with
 * success by a kernel that knows the flag, and with EINVAL by one that does
 * not.
 */
static bool kernel_has_flag(void)
{
	void *ptr, *res;

	ptr = mmap(NULL, page_size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (ptr == MAP_FAILED)
		trouble("mmap: %s", strerror(errno));

	res = (void *)syscall(SYS_mremap, (unsigned long)ptr, page_size,
			      page_size, MREMAP_MAYMOVE | MREMAP_RELOCATE_ANON,
			      0UL);
	if (res == MAP_FAILED && errno != EINVAL)
		trouble("mremap: %s", strerror(errno));
	munmap(ptr, page_size);
	return res != MAP_FAILED;
}

/* How many VMAs overlap [start, end)? Is one of them exactly this range? */
static long count_vmas(const char *start, const char *end, bool *exact)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	unsigned long lo, hi;
	char *line = NULL;
	size_t size = 0;
	long count = 0;

	if (!maps)
		trouble("/proc/self/maps: %s", strerror(errno));
	if (exact)
		*exact = false;

	while (getline(&line, &size, maps) > 0) {
		if (sscanf(line, "%lx-%lx", &lo, &hi) != 2)
			continue;
		if (hi <= (unsigned long)start || lo >= (unsigned long)end)
			continue;
		count++;
		if (exact && lo == (unsigned long)start &&
		    hi == (unsigned long)end)
			*exact = true;
	}
	free(line);
	fclose(maps);
	return count;
}

/*
 * Have the allocator give back what it merely keeps at hand, so that objects
 * which are counted below are objects which are used.
 */
static void shrink_slab(const char *name)
{
	char path[128];
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", name);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return;
	/* If this fails, the figures are a little higher. */
	(void)!write(fd, "1\n", 2);
	close(fd);
}

static void read_slabs(struct slab_usage *slabs)
{
	char *line = NULL;
	size_t size = 0;
	FILE *info;
	int i;

	for (i = 0; i < NR_SLABS; i++) {
		slabs[i].objects = -1;
		shrink_slab(slab_names[i]);
	}

	info = fopen("/proc/slabinfo", "r");
	if (!info)
		return;
	while (getline(&line, &size, info) > 0) {
		unsigned long active, total, objsize;
		char name[64];

		if (sscanf(line, "%63s %lu %lu %lu", name, &active, &total,
			   &objsize) != 4)
			continue;
		for (i = 0; i < NR_SLABS; i++) {
			if (strcmp(name, slab_names[i]))
				continue;
			slabs[i].objects = active;
			slabs[i].bytes = active * objsize;
		}
	}
	free(line);
	fclose(info);
}

static void read_counters(long *counters)
{
	FILE *vmstat = fopen("/proc/vmstat", "r");
	char name[64];
	long value;
	int i;

	memset(counters, 0, NR_COUNTERS * sizeof(*counters));
	if (!vmstat)
		return;
	while (fscanf(vmstat, "%63s %ld", name, &value) == 2) {
		for (i = 0; i < NR_COUNTERS; i++) {
			if (!strcmp(name, counter_names[i]))
				counters[i] = value;
		}
	}
	fclose(vmstat);
}

/* A small generator of our own, so that every run does the same. */
static uint64_t next_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* Every word of every block has a value that no other word has. */
static uint64_t word_value(size_t block, size_t word)
{
	return ((uint64_t)block << 32 | word) * 0x9e3779b97f4a7c15ull;
}

static void fill_block(char *ptr, size_t block, size_t len)
{
	uint64_t *words = (uint64_t *)ptr;
	size_t i;

	for (i = 0; i < len / sizeof(*words); i++)
		words[i] = word_value(block, i);
}

static void verify_block(struct result *res, const char *ptr, size_t block,
			 size_t len)
{
	const uint64_t *words = (const uint64_t *)ptr;
	size_t i;

	for (i = 0; i < len / sizeof(*words); i++) {
		if (words[i] == word_value(block, i))
			res->verified += sizeof(*words);
		else
			res->lost += sizeof(*words);
	}
}

static bool failed(struct result *res, const char *what)
{
	res->err = errno;
	res->what = what;
	return false;
}

static char *map_block(char *at, size_t len)
{
	char *ptr = mmap(at, len, PROT_READ | PROT_WRITE, MAP_PRIVATE |
			 MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);

	return ptr == MAP_FAILED ? NULL : ptr;
}

/* Find free address space, and leave it free. */
static char *find_space(size_t len)
{
	char *ptr = mmap(NULL, len, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (ptr == MAP_FAILED)
		trouble("mmap of %zu bytes: %s", len, strerror(errno));
	munmap(ptr, len);
	return ptr;
}

/* Act one. The heap has four slots for every block, and a hole at the end. */
static bool compact(struct result *res, int flag)
{
	const size_t len = block_pages * page_size;
	const size_t nr_slots = 4 * nr_blocks;
	struct slab_usage before[NR_SLABS];
	uint64_t seed = 88172645463325252ull;
	char *space, *heap, *heap_end;
	char **blocks, *used;
	double start;
	size_t i;

	blocks = calloc(nr_blocks, sizeof(*blocks));
	used = calloc(nr_slots, 1);
	if (!blocks || !used)
		trouble("out of memory");

	read_slabs(before);

	space = find_space((nr_slots + nr_blocks + 2) * len);
	heap = space + (nr_slots + 1) * len;
	heap_end = heap + nr_blocks * len;

	/* Scatter: only even slots, so no two blocks ever touch. */
	for (i = 0; i < nr_blocks; i++) {
		size_t slot;

		do {
			slot = next_random(&seed) % (nr_slots / 2) * 2;
		} while (used[slot]);
		used[slot] = 1;
		blocks[i] = map_block(space + slot * len, len);
		if (!blocks[i])
			return failed(res, "mmap");
		fill_block(blocks[i], i, len);
	}
	res->vmas_before = count_vmas(space, heap, NULL);

	/* Compact. */
	start = now();
	for (i = 0; i < nr_blocks; i++) {
		char *to = heap + i * len;

		if (do_mremap(blocks[i], len, flag, to) != to)
			return failed(res, "mremap");
		blocks[i] = to;
		res->moved++;
	}
	res->seconds = now() - start;

	res->vmas_after = count_vmas(heap, heap_end, &res->one_range);
	read_slabs(res->slabs);
	for (i = 0; i < NR_SLABS; i++) {
		if (before[i].objects < 0)
			res->slabs[i].objects = -1;
		if (res->slabs[i].objects < 0)
			continue;
		res->slabs[i].objects -= before[i].objects;
		res->slabs[i].bytes -= before[i].bytes;
	}

	for (i = 0; i < nr_blocks; i++)
		verify_block(res, heap + i * len, i, len);
	return true;
}

/*
 * Act two: one page per block, mapped and moved to the end of a growing array,
 * until a call fails or the limit has been passed.
 */
static bool pass_limit(struct result *res, int flag, size_t limit)
{
	const size_t nr = limit + limit / 16 + 16;
	char *space = find_space((nr + 4) * page_size);
	char *array = space + 3 * page_size;
	char *scratch = space + page_size;
	double start = now();
	bool ok = true;
	size_t i;

	for (i = 0; i < nr; i++) {
		char *to = array + i * page_size;

		if (!map_block(scratch, page_size)) {
			ok = failed(res, "mmap");
			break;
		}
		fill_block(scratch, i, page_size);
		if (do_mremap(scratch, page_size, flag, to) != to) {
			ok = failed(res, "mremap");
			break;
		}
		res->moved++;
	}
	res->seconds = now() - start;

	for (i = 0; i < (size_t)res->moved; i++)
		verify_block(res, array + i * page_size, i, page_size);

	/* Reading /proc needs a buffer, and that can need a VMA. */
	if (!ok)
		munmap(scratch, page_size);
	res->vmas_after = count_vmas(array, array + res->moved * page_size,
				     &res->one_range);
	return ok;
}

/*
 * Act three: commit the blocks of a heap where they stay, in no order, and then
 * ask once for what nobody has to move for.
 */
static bool commit(struct result *res, int flag)
{
	const size_t len = block_pages * page_size;
	const size_t heap_len = nr_blocks * len;
	uint64_t seed = 88172645463325252ull;
	char *heap = find_space(heap_len + 2 * page_size) + page_size;
	char *used = calloc(nr_blocks, 1);
	double start;
	size_t i, block;
	void *ret;

	if (!used)
		trouble("out of memory");
	for (i = 0; i < nr_blocks; i++) {
		do {
			block = next_random(&seed) % nr_blocks;
		} while (used[block]);
		used[block] = 1;
		if (!map_block(heap + block * len, len))
			return failed(res, "mmap");
		fill_block(heap + block * len, block, len);
	}
	res->vmas_before = count_vmas(heap, heap + heap_len, NULL);

	start = now();
	ret = (void *)syscall(SYS_mremap, heap, heap_len, heap_len,
			      MREMAP_MAYMOVE | flag, NULL);
	res->seconds = now() - start;
	if (ret != heap)
		return failed(res, "mremap");
	res->vmas_after = count_vmas(heap, heap + heap_len, &res->one_range);
	for (i = 0; i < nr_blocks; i++)
		verify_block(res, heap + i * len, i, len);
	return true;
}

/* Run one process that does its part and reports in shared memory. */
static struct result *run(int act, int flag, size_t limit, const char *name)
{
	long before[NR_COUNTERS];
	struct result *res;
	int status, i;
	pid_t pid;

	res = mmap(NULL, sizeof(*res), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (res == MAP_FAILED)
		trouble("mmap: %s", strerror(errno));

	if (tty) {
		printf("... %s\r", name);
		fflush(stdout);
	}

	read_counters(before);
	pid = fork();
	if (pid < 0)
		trouble("fork: %s", strerror(errno));
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (act == 1)
			res->done = compact(res, flag);
		else if (act == 2)
			res->done = pass_limit(res, flag, limit);
		else
			res->done = commit(res, flag);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		trouble("waitpid: %s", strerror(errno));
	if (WIFSIGNALED(status)) {
		printf("%s: killed by signal %d (%s)\n", name,
		       WTERMSIG(status), strsignal(WTERMSIG(status)));
		res->done = false;
		res->what = "the process";
		res->err = EFAULT;
		res->lost++;
	} else if (WEXITSTATUS(status)) {
		exit(WEXITSTATUS(status));
	}
	read_counters(res->counters);
	for (i = 0; i < NR_COUNTERS; i++)
		res->counters[i] -= before[i];
	return res;
}

static void row(const char *name, const char *fmt, ...)
{
	va_list ap;

	printf("  %-34s", name);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	printf("\n");
}

static void slab_cell(char *buf, size_t size, const struct slab_usage *usage)
{
	if (usage->objects < 0)
		snprintf(buf, size, "n/a");
	else
		snprintf(buf, size, "%ld (%ld kB)", usage->objects,
			 (usage->bytes + 512) / 1024);
}

static void outcome_cell(char *buf, size_t size, const struct result *res)
{
	if (res->done)
		snprintf(buf, size, "no limit met");
	else if (res->err == ENOMEM)
		snprintf(buf, size, "%s: ENOMEM", res->what);
	else
		snprintf(buf, size, "%s: %s", res->what, strerror(res->err));
}

static void head(const char *title)
{
	printf("%s\n\n", title);
	row("", "%18s  %18s", "plain mremap", "RELOCATE_ANON");
}

static bool act_one(struct result **plain, struct result **flagged)
{
	const unsigned long long want =
		(unsigned long long)nr_blocks * block_pages * page_size;
	struct result *p, *f;
	bool root_only = false;
	char title[160];
	int i;

	p = run(1, 0, 0, "scattering and compacting with plain mremap");
	f = run(1, MREMAP_RELOCATE_ANON, 0,
		"scattering and compacting with MREMAP_RELOCATE_ANON");
	*plain = p;
	*flagged = f;

	snprintf(title, sizeof(title),
		 "Act one: %zu scattered blocks of %zu kB, moved next to each other",
		 nr_blocks, block_pages * page_size / 1024);
	head(title);
	row("blocks moved", "%18ld  %18ld", p->moved, f->moved);
	row("VMAs before", "%18ld  %18ld", p->vmas_before, f->vmas_before);
	row("VMAs after", "%18ld  %18ld", p->vmas_after, f->vmas_after);
	for (i = 0; i < NR_SLABS; i++) {
		char name[64], a[64], b[64];

		snprintf(name, sizeof(name), "  %s held for it", slab_names[i]);
		slab_cell(a, sizeof(a), &p->slabs[i]);
		slab_cell(b, sizeof(b), &f->slabs[i]);
		row(name, "%18s  %18s", a, b);
		if (p->slabs[i].objects < 0)
			root_only = true;
	}
	row("microseconds per move", "%18.1f  %18.1f",
	    p->moved ? p->seconds * 1e6 / p->moved : 0.0,
	    f->moved ? f->seconds * 1e6 / f->moved : 0.0);
	row("bytes verified", "%18llu  %18llu", p->verified, f->verified);
	row("bytes lost", "%18llu  %18llu", p->lost, f->lost);
	for (i = 0; i < NR_COUNTERS; i++)
		row(counter_names[i], "%18ld  %18ld", p->counters[i],
		    f->counters[i]);
	if (root_only)
		printf("\n  n/a: /proc/slabinfo needs root, and shows a cache only if it was\n"
		       "  not merged with another one.\n");
	if (!p->done)
		printf("\n  plain run stopped: %s: %s\n", p->what, strerror(p->err));
	if (!f->done)
		printf("\n  flagged run stopped: %s: %s\n", f->what, strerror(f->err));
	printf("\n");

	return f->done && f->vmas_after == 1 && f->one_range && !f->lost &&
	       f->verified == want && !p->lost && (!p->done || p->verified == want);
}

static long read_limit(void)
{
	FILE *file = fopen(MAX_MAP_COUNT, "r");
	long limit = -1;

	if (file) {
		if (fscanf(file, "%ld", &limit) != 1)
			limit = -1;
		fclose(file);
	}
	return limit;
}

static bool write_limit(long limit)
{
	FILE *file = fopen(MAX_MAP_COUNT, "w");

	if (!file)
		return false;
	fprintf(file, "%ld\n", limit);
	return !fclose(file);
}

static long saved_limit = -1;

static void restore_limit(void)
{
	if (saved_limit > 0)
		write_limit(saved_limit);
	saved_limit = -1;
}

static void on_signal(int sig)
{
	char buf[24];
	int len, fd;

	/* Only calls that a signal handler may make. */
	if (saved_limit > 0) {
		len = snprintf(buf, sizeof(buf), "%ld\n", saved_limit);
		fd = open(MAX_MAP_COUNT, O_WRONLY);
		if (fd >= 0 && write(fd, buf, len) == len)
			close(fd);
	}
	signal(sig, SIG_DFL);
	raise(sig);
}

/* Returns false only if the flagged run broke a promise. */
static bool act_two(long want_limit, struct result **plain,
		    struct result **flagged, long *used_limit)
{
	long limit = read_limit();
	struct result *p, *f;
	char title[160], a[64], b[64];
	bool lowered = false;

	*plain = NULL;
	*flagged = NULL;
	if (limit <= 0) {
		/* Built without sysctl: then it is what it always was. */
		limit = DEFAULT_LIMIT;
		want_limit = 0;
	}

	if (want_limit > 0 && want_limit < limit) {
		saved_limit = limit;
		atexit(restore_limit);
		signal(SIGINT, on_signal);
		signal(SIGTERM, on_signal);
		signal(SIGHUP, on_signal);
		if (!write_limit(want_limit)) {
			saved_limit = -1;
			trouble("cannot lower %s (are you root?)", MAX_MAP_COUNT);
		}
		limit = want_limit;
		lowered = true;
	}
	*used_limit = limit;
	if (limit > MAX_LIMIT) {
		printf("Act two is left out: vm.max_map_count is %ld here, and reaching it would\n"
		       "take long. As root, --limit 65530 lowers it for the time of the run.\n\n",
		       limit);
		return true;
	}

	p = run(2, 0, limit, "moving blocks with plain mremap until it fails");
	f = run(2, MREMAP_RELOCATE_ANON, limit,
		"moving as many with MREMAP_RELOCATE_ANON");
	restore_limit();
	*plain = p;
	*flagged = f;

	snprintf(title, sizeof(title),
		 "Act two: more blocks than vm.max_map_count, which is %ld%s",
		 limit, lowered ? " (lowered for this run)" : "");
	head(title);
	outcome_cell(a, sizeof(a), p);
	outcome_cell(b, sizeof(b), f);
	row("blocks moved", "%18ld  %18ld", p->moved, f->moved);
	row("then", "%18s  %18s", a, b);
	row("VMAs at the end", "%18ld  %18ld", p->vmas_after, f->vmas_after);
	row("bytes verified", "%18llu  %18llu", p->verified, f->verified);
	row("bytes lost", "%18llu  %18llu", p->lost, f->lost);
	printf("\n");

	return f->done && f->vmas_after == 1 && f->one_range && !f->lost &&
	       !p->lost && f->verified == (unsigned long long)f->moved * page_size;
}

static bool act_three(struct result **flagged)
{
	const unsigned long long want =
		(unsigned long long)nr_blocks * block_pages * page_size;
	struct result *p, *f;
	char title[160];
	int i;

	p = run(3, 0, 0, "committing a heap in pieces");
	f = run(3, MREMAP_RELOCATE_ANON, 0, "the same, and relocating it in place");
	*flagged = f;

	snprintf(title, sizeof(title),
		 "Act three: %zu blocks, committed in no order, and none of them moves",
		 nr_blocks);
	head(title);
	row("VMAs before the call", "%18ld  %18ld", p->vmas_before, f->vmas_before);
	row("VMAs after the call", "%18ld  %18ld", p->vmas_after, f->vmas_after);
	row("microseconds for the call", "%18.1f  %18.1f", p->seconds * 1e6,
	    f->seconds * 1e6);
	row("bytes verified", "%18llu  %18llu", p->verified, f->verified);
	row("bytes lost", "%18llu  %18llu", p->lost, f->lost);
	for (i = 0; i < NR_COUNTERS; i++)
		row(counter_names[i], "%18ld  %18ld", p->counters[i],
		    f->counters[i]);
	if (!f->done)
		printf("\n  flagged run stopped: %s: %s\n", f->what, strerror(f->err));
	printf("\n");

	return f->done && f->vmas_before > 1 && f->vmas_after == 1 &&
	       f->one_range && !f->lost && f->verified == want && !p->lost;
}

static bool write_file(const char *path, const char *text)
{
	FILE *file = fopen(path, "w");
	bool ok;

	if (!file)
		return false;
	ok = fputs(text, file) >= 0;
	return !fclose(file) && ok;
}

/* The event and its fields, without the time and the process. */
static void print_events(void)
{
	FILE *trace = fopen(TRACING "/trace", "r");
	char *line = NULL, *event;
	size_t size = 0;

	while (trace && getline(&line, &size, trace) > 0) {
		event = strstr(line, "mremap_relocate");
		if (event)
			printf("  %s", event);
	}
	free(line);
	if (trace)
		fclose(trace);
}

/* A move that is refused, of a page that a child shares. */
static void refused_move(void)
{
	char *from = find_space(4 * page_size);
	void *res;
	pid_t pid;
	int err;

	if (!map_block(from, page_size))
		trouble("mmap: %s", strerror(errno));
	fill_block(from, 0, page_size);
	pid = fork();
	if (pid < 0)
		trouble("fork: %s", strerror(errno));
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	res = do_mremap(from, page_size, MREMAP_MUST_RELOCATE_ANON,
			from + 2 * page_size);
	err = errno;
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	printf("mremap() with MREMAP_MUST_RELOCATE_ANON: %s\n",
	       res == MAP_FAILED ? strerror(err) : "moved");
}

static void why_not(void)
{
	printf("Why not: a page that a child process shares cannot be relocated\n\n  ");
	if ((mkdir(TRACING, 0700) && errno != EEXIST) ||
	    !write_file(TRACING "/events/mremap/enable", "1")) {
		refused_move();
		printf("  Trace events would say why; they need root, and tracefs in\n"
		       "  /sys/kernel/tracing.\n\n");
		rmdir(TRACING);
		return;
	}
	write_file(TRACING "/trace", "");
	refused_move();
	print_events();
	printf("\n");
	rmdir(TRACING);
}

static void usage(FILE *to)
{
	fprintf(to,
		"usage: compact_heap [--blocks N] [--pages N] [--limit N | --no-limit]\n"
		"\n"
		"Compacts a heap of scattered blocks with plain mremap() and with\n"
		"MREMAP_RELOCATE_ANON, and prints side by side what the kernel is left with.\n"
		"\n"
		"  --blocks N   scattered blocks in act one (default 4096)\n"
		"  --pages N    pages in each of them (default 2)\n"
		"  --limit N    lower vm.max_map_count to N during act two (needs root; it is\n"
		"               a limit of the whole system, and put back afterwards)\n"
		"  --no-limit   leave act two out\n"
		"\n"
		"exit status: 0 the flagged run ended in one VMA with every byte in place,\n"
		"1 it did not, 2 trouble, 3 the kernel lacks MREMAP_RELOCATE_ANON\n");
}

static size_t number(const char *arg, size_t min, size_t max)
{
	unsigned long val;
	char *end;

	errno = 0;
	val = strtoul(arg, &end, 10);
	if (errno || end == arg || *end || *arg == '-' || val < min || val > max) {
		fprintf(stderr, "compact_heap: '%s' is not a number from %zu to %zu\n",
			arg, min, max);
		exit(EXIT_TROUBLE);
	}
	return val;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "blocks",	required_argument,	NULL, 'b' },
		{ "pages",	required_argument,	NULL, 'p' },
		{ "limit",	required_argument,	NULL, 'l' },
		{ "no-limit",	no_argument,		NULL, 'n' },
		{ "help",	no_argument,		NULL, 'h' },
		{ }
	};
	struct result *p1, *f1, *p2 = NULL, *f2 = NULL, *f3;
	bool held, with_limit = true;
	long limit = 0;
	int opt;

	page_size = sysconf(_SC_PAGESIZE);
	tty = isatty(STDOUT_FILENO);
	setvbuf(stdout, NULL, _IOLBF, 0);

	while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (opt) {
		case 'b':
			nr_blocks = number(optarg, 2, 1 << 20);
			break;
		case 'p':
			block_pages = number(optarg, 1, 1 << 10);
			break;
		case 'l':
			limit = number(optarg, 1, MAX_LIMIT);
			break;
		case 'n':
			with_limit = false;
			break;
		case 'h':
			usage(stdout);
			return 0;
		default:
			usage(stderr);
			return EXIT_TROUBLE;
		}
	}
	if (optind != argc) {
		usage(stderr);
		return EXIT_TROUBLE;
	}
	/* Below this a process could not even start under the limit. */
	if (limit && limit < 256) {
		fprintf(stderr, "compact_heap: a limit below 256 leaves no room to run\n");
		return EXIT_TROUBLE;
	}

	if (!kernel_has_flag()) {
		printf("This kernel does not know MREMAP_RELOCATE_ANON: mremap() with it fails with\n"
		       "EINVAL. There is nothing to compare; boot a kernel that has the series.\n");
		return EXIT_NO_FLAG;
	}

	held = act_one(&p1, &f1);
	if (with_limit)
		held &= act_two(limit, &p2, &f2, &limit);
	held &= act_three(&f3);

	why_not();

	if (!held) {
		printf("FAILED: the flagged run should have ended in one VMA with every byte in place.\n");
		return EXIT_BROKEN;
	}

	printf("What you saw: the same %ld moves left %ld VMAs without the flag and one with it",
	       f1->moved, p1->vmas_after);
	if (p2 && !p2->done && p2->err == ENOMEM)
		printf("; without it %s() failed for good after %ld blocks, with it nothing grew",
		       p2->what, p2->moved);
	printf("; a heap in %ld pieces became one where it was; no byte was lost.\n",
	       f3->vmas_before);
	return EXIT_HELD;
}
