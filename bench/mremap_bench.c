// SPDX-License-Identifier: GPL-2.0
/*
 * mremap_bench - what it costs to move memory, and what it costs afterwards
 *
 * Each figure comes from a process of its own, which sets up its memory, looks
 * whether the kernel gave it the folios that were asked for, and takes the time
 * around the system call and nothing else. Run it where one instruction takes
 * one nanosecond (./run vm --icount), and the figures are instructions.
 *
 * Lines that begin with # are comments; all others are a table, whose first
 * line names the columns. A dash stands where the kernel lacks the feature.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <sched.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#ifndef MREMAP_RELOCATE_ANON
#define MREMAP_RELOCATE_ANON		8
#define MREMAP_MUST_RELOCATE_ANON	16
#endif

/* Not in the headers of an older C library. */
#ifndef UFFDIO_MOVE
struct uffdio_move {
	__u64 dst;
	__u64 src;
	__u64 len;
	__u64 mode;
	__s64 move;
};
#define UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES	(1ULL << 1)
#define UFFDIO_MOVE	_IOWR(UFFDIO, 0x05, struct uffdio_move)
#define UFFD_FEATURE_MOVE	(1 << 16)
#endif

#define PAGE		4096UL
#define PMD		(512 * PAGE)
#define MIB		(1UL << 20)
#define THP_DIR		"/sys/kernel/mm/transparent_hugepage/"

#define PM_SWAP		(1ULL << 62)
#define PM_PRESENT	(1ULL << 63)
#define PM_PFN		((1ULL << 55) - 1)
#define KPF_ANON	(1ULL << 12)
#define KPF_HEAD	(1ULL << 15)
#define KPF_TAIL	(1ULL << 16)

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* The memory that is moved. */
struct shape {
	const char *name;
	unsigned int order;	/* of its folios */
	unsigned int every;	/* One page of so many is populated; 0: none. */
	size_t len;		/* In bytes; 0: what --size says. */
	unsigned int swapped;	/* One populated page of so many is swapped out. */
	bool forked;		/* There was a child once. */
	bool per_call;		/* The figure is for a call, not for a page. */
	enum { NONE, FIRST, LAST } shared;	/* A child has that page, too. */
};

enum method { PLAIN, UFFD, RELOCATE, MUST, NR_METHODS };

static const struct {
	const char *name;
	int flags;
} methods[NR_METHODS] = {
	[PLAIN]		= { "plain" },
	[UFFD]		= { "uffd" },
	[RELOCATE]	= { "relocate", MREMAP_RELOCATE_ANON },
	[MUST]		= { "must", MREMAP_MUST_RELOCATE_ANON },
};

/* One run: a function for a process of its own, and what it gets. */
struct run {
	void (*fn)(const struct run *run);
	const char *name;
	enum method method;
	struct shape shape;
	size_t off;		/* Of the destination, behind a PMD boundary */
	long nr;		/* Blocks, or calls */
	bool flag;
};

/* What it hands back: its figures, and when it ended. */
#define NR_FIGURES	12
#define MAX_ROUNDS	32
static struct result {
	bool done;
	double figure[NR_FIGURES];
	unsigned long long exited;
} *result;

static size_t default_len = 64 * MIB;
static int nr_rounds = 1;
static bool has_relocate;

static void __attribute__((noreturn, format(printf, 1, 2)))
die(const char *fmt, ...)
{
	va_list ap;

	fflush(stdout);
	fprintf(stderr, "mremap_bench: ");
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\n");
	exit(1);
}

static unsigned long long now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static void write_file(const char *path, const char *value)
{
	int fd = open(path, O_WRONLY);

	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		die("cannot write %s to %s: %s; run it as root", value, path,
		    strerror(errno));
	close(fd);
}

/* Let page faults bring folios of one order. */
static void set_order(unsigned int order)
{
	const unsigned long want = order ? PAGE >> 10 << order : 0;
	char path[300];
	struct dirent *d;
	unsigned long kb;
	bool found = !order;
	DIR *dir;

	dir = opendir(THP_DIR);
	if (!dir)
		die("there is no %s: the kernel needs CONFIG_TRANSPARENT_HUGEPAGE",
		    THP_DIR);
	while ((d = readdir(dir))) {
		if (sscanf(d->d_name, "hugepages-%lukB", &kb) != 1)
			continue;
		snprintf(path, sizeof(path), THP_DIR "%s/enabled", d->d_name);
		/* Some sizes are for shared memory only. */
		if (access(path, W_OK))
			continue;
		write_file(path, kb == want ? "always" : "never");
		found |= kb == want;
	}
	closedir(dir);
	if (!found)
		die("there are no folios of %lu kB here", want);
}

static void *sys_mremap(void *from, size_t len, int flags, void *to)
{
	return (void *)syscall(SYS_mremap, from, len, len,
			       MREMAP_MAYMOVE | MREMAP_FIXED | flags, to);
}

/* Room for @len bytes, @off bytes behind a PMD boundary, and nothing beside it. */
static char *reserve(size_t len, size_t off)
{
	size_t room = len + off + 4 * PMD;
	char *p;

	p = mmap(NULL, room, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	p = (char *)(((uintptr_t)p + 2 * PMD) & -PMD) + off;
	if (munmap(p, len))
		die("munmap: %s", strerror(errno));
	return p;
}

static void map_at(char *p, size_t len)
{
	if (mmap(p, len, PROT_READ | PROT_WRITE,
		 MAP_FIXED | MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
		die("mmap: %s", strerror(errno));
}

static uint64_t token(size_t page)
{
	return page * 0x9e3779b97f4a7c15ULL + 1;
}

/* Write to the pages, except to page number @but. */
static void populate(char *p, const struct shape *s, size_t but)
{
	size_t i;

	for (i = 0; s->every && i < s->len / PAGE; i += s->every)
		if (i != but)
			*(volatile uint64_t *)(p + i * PAGE) = token(i);
}

static void check_data(char *p, const struct shape *s, const char *who)
{
	size_t i;

	for (i = 0; s->every && i < s->len / PAGE; i += s->every) {
		if (*(volatile uint64_t *)(p + i * PAGE) != token(i))
			die("%s, %s: page %zu has lost its data", s->name, who, i);
	}
}

static unsigned long smaps_sum(char *p, size_t len, const char *field)
{
	unsigned long from = 0, to = 0, a, b, kb, sum = 0;
	FILE *f = fopen("/proc/self/smaps", "r");
	size_t n = strlen(field);
	char line[512];

	if (!f)
		die("there is no /proc/self/smaps");
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%lx-%lx ", &a, &b) == 2) {
			from = a;
			to = b;
		} else if (from < (unsigned long)p + len && to > (unsigned long)p &&
			   !strncmp(line, field, n) &&
			   sscanf(line + n, ": %lu kB", &kb) == 1) {
			sum += kb << 10;
		}
	}
	fclose(f);
	return sum;
}

static uint64_t page_flags(int fd, uint64_t pfn)
{
	uint64_t flags;

	if (pread(fd, &flags, 8, pfn * 8) != 8)
		die("cannot read /proc/kpageflags");
	return flags;
}

/* Is the memory what the figure will say it is? */
static void check_shape(char *p, const struct shape *s)
{
	const size_t nr = s->len / PAGE, in_folio = 1UL << s->order;
	int pm = open("/proc/self/pagemap", O_RDONLY);
	int kpf = open("/proc/kpageflags", O_RDONLY);
	uint64_t *map = malloc(nr * 8), flags, pfn;
	size_t i, n, populated;

	if (pm < 0 || kpf < 0)
		die("/proc/self/pagemap and /proc/kpageflags cannot be read; run it as root");
	if (pread(pm, map, nr * 8, (uintptr_t)p / PAGE * 8) != (ssize_t)(nr * 8))
		die("cannot read /proc/self/pagemap");

	for (i = n = populated = 0; i < nr; i++) {
		const bool want = s->every && i % s->every == 0;
		const bool out = want && s->swapped && n++ % s->swapped == 0;

		if (!!(map[i] & PM_SWAP) != out ||
		    !!(map[i] & PM_PRESENT) != (want && !out))
			die("%s: page %zu should be %s and is not", s->name, i,
			    out ? "swapped out" : want ? "present" : "absent");
		if (!want || out)
			continue;
		pfn = map[i] & PM_PFN;
		flags = page_flags(kpf, pfn);
		if (!(flags & KPF_ANON))
			die("%s: page %zu is not anonymous", s->name, i);
		if (!s->order) {
			if (flags & (KPF_HEAD | KPF_TAIL))
				die("%s: page %zu is part of a large folio",
				    s->name, i);
		} else if (i % in_folio) {
			if (!(flags & KPF_TAIL) || pfn != (map[i - 1] & PM_PFN) + 1)
				die("%s: page %zu does not go on with a folio",
				    s->name, i);
		} else {
			if (!(flags & KPF_HEAD) ||
			    page_flags(kpf, pfn + in_folio) & KPF_TAIL)
				die("%s: page %zu does not begin a folio of %zu kB; is memory fragmented?",
				    s->name, i, in_folio * 4);
		}
	}
	if (s->order == 9 && smaps_sum(p, s->len, "AnonHugePages") != s->len)
		die("%s: not all of it is mapped by PMDs", s->name);
	free(map);
	close(pm);
	close(kpf);
}

/* A child that has what we have now, until we end. */
static void fork_and_keep(void)
{
	int fd[2];
	char c;

	if (pipe(fd))
		die("pipe: %s", strerror(errno));
	switch (fork()) {
	case -1:
		die("fork: %s", strerror(errno));
	case 0:
		close(fd[1]);
		_exit(read(fd[0], &c, 1) != 0);
	}
	close(fd[0]);
}

static void fork_once(void)
{
	pid_t pid = fork();

	if (!pid)
		_exit(0);
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		die("fork: %s", strerror(errno));
}

static unsigned long meminfo(const char *field)
{
	FILE *f = fopen("/proc/meminfo", "r");
	size_t n = strlen(field);
	unsigned long kb = 0;
	char line[200];

	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, field, n) && line[n] == ':')
			kb = strtoul(line + n + 1, NULL, 10);
	}
	if (f)
		fclose(f);
	return kb;
}

/* Swap out, until the swap cache has forgotten it. */
static void swap_out(char *p, const struct shape *s)
{
	size_t i, n = 0;
	char buf[30];
	int tries;

	for (i = 0; i < s->len / PAGE; i += s->every) {
		if (n++ % s->swapped)
			continue;
		if (madvise(p + i * PAGE, PAGE, MADV_PAGEOUT))
			die("MADV_PAGEOUT: %s", strerror(errno));
	}
	for (tries = 0; tries < 100 && meminfo("SwapCached") > 64; tries++) {
		int fd = open("/sys/fs/cgroup/memory.reclaim", O_WRONLY);

		snprintf(buf, sizeof(buf), "%luK", meminfo("SwapCached"));
		if (fd < 0)
			die("there is no /sys/fs/cgroup/memory.reclaim");
		/* It may find less than that. */
		if (write(fd, buf, strlen(buf)) < 0 && errno != EAGAIN)
			die("memory.reclaim: %s", strerror(errno));
		close(fd);
		usleep(10000);
	}
}

static int uffd_over(char *to, size_t len)
{
	struct uffdio_api api = { .api = UFFD_API, .features = UFFD_FEATURE_MOVE };
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)to, .len = len },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);

	if (fd < 0 || ioctl(fd, UFFDIO_API, &api))
		die("no userfaultfd with UFFDIO_MOVE: %s", strerror(errno));
	map_at(to, len);
	if (ioctl(fd, UFFDIO_REGISTER, &reg))
		die("UFFDIO_REGISTER: %s", strerror(errno));
	return fd;
}

/* Returns 0 if it is refused, as it is for memory that was shared once. */
static unsigned long long uffd_move(int fd, char *from, char *to, size_t len,
				    bool holes)
{
	struct uffdio_move move;
	unsigned long long start = now();
	size_t done = 0;
	int err;

	while (done < len) {
		move = (struct uffdio_move){
			.src = (uintptr_t)from + done,
			.dst = (uintptr_t)to + done,
			.len = len - done,
			.mode = holes ? UFFDIO_MOVE_MODE_ALLOW_SRC_HOLES : 0,
		};
		err = ioctl(fd, UFFDIO_MOVE, &move) ? errno : 0;
		if (err == EBUSY && !done && move.move <= 0)
			return 0;
		if (err && err != EAGAIN)
			die("UFFDIO_MOVE after %zu of %zu bytes: %s", done, len,
			    strerror(err));
		if (move.move > 0)
			done += move.move;
	}
	return now() - start;
}

static unsigned long long timed_mremap(char *from, size_t len, int flags,
				       char *to)
{
	unsigned long long start = now();
	void *p = sys_mremap(from, len, flags, to);

	start = now() - start;
	if (p != to)
		die("mremap() of %zu bytes with flags %d: %s", len, flags,
		    strerror(errno));
	return start;
}

/* How many mappings has the kernel relocated, since it was booted? */
static unsigned long nr_relocated(void)
{
	FILE *f = fopen("/proc/vmstat", "r");
	char line[128];
	unsigned long nr = 0;

	while (f && fgets(line, sizeof(line), f) &&
	       sscanf(line, "mremap_relocate %lu", &nr) != 1)
		;
	if (f)
		fclose(f);
	return nr;
}

/* Set up the memory and move it once; the time of the call. */
static void run_move(const struct run *run)
{
	const struct shape *s = &run->shape;
	char *from = reserve(s->len, 0), *to = reserve(s->len, run->off);
	size_t shared = s->shared == LAST ? s->len / PAGE - 1 : 0;
	unsigned long relocated;
	unsigned long long ns;

	map_at(from, s->len);
	if (s->shared) {
		*(volatile uint64_t *)(from + shared * PAGE) = token(shared);
		fork_and_keep();
	}
	populate(from, s, s->shared ? shared : -1UL);
	if (s->forked)
		fork_once();
	if (s->swapped)
		swap_out(from, s);
	check_shape(from, s);
	if (run->method == UFFD) {
		ns = uffd_move(uffd_over(to, s->len), from, to, s->len,
			       s->every != 1);
		if (!ns && s->forked)
			return;
		if (!ns)
			die("%s: UFFDIO_MOVE: %s", run->name, strerror(EBUSY));
	} else {
		relocated = nr_relocated();
		ns = timed_mremap(from, s->len, methods[run->method].flags, to);
		if (run->method != PLAIN && !s->shared &&
		    nr_relocated() == relocated)
			die("%s: nothing was relocated", run->name);
	}
	check_data(to, s, run->name);
	result->figure[0] = (double)ns / (s->per_call ? 1 : s->len / PAGE);
}

static unsigned long long timed_in_place(char *p, size_t len, int flags)
{
	unsigned long long start = now();
	void *q = (void *)syscall(SYS_mremap, p, len, len,
				  MREMAP_MAYMOVE | flags, NULL);

	start = now() - start;
	if (q != p)
		die("mremap() of %zu bytes in place with flags %d: %s", len,
		    flags, strerror(errno));
	return start;
}

/* Move it plainly, and relocate it where it is then; once more, for nothing. */
static void run_in_place(const struct run *run)
{
	const struct shape *s = &run->shape;
	char *from = reserve(s->len, 0), *to = reserve(s->len, run->off);
	const size_t nr = s->per_call ? 1 : s->len / PAGE;
	unsigned long relocated;

	map_at(from, s->len);
	populate(from, s, -1);
	check_shape(from, s);
	timed_mremap(from, s->len, 0, to);
	relocated = nr_relocated();
	result->figure[0] = (double)timed_in_place(to, s->len,
						   MREMAP_RELOCATE_ANON) / nr;
	if (nr_relocated() == relocated)
		die("%s: nothing was relocated", run->name);
	result->figure[1] = timed_in_place(to, s->len, MREMAP_RELOCATE_ANON);
	check_data(to, s, run->name);
}

/* A row of VMAs that differ, and are at home: there is nothing to gain. */
static void run_nothing(const struct run *run)
{
	const size_t len = run->nr * PAGE;
	char *p = reserve(len, 0);
	long i;

	map_at(p, len);
	memset(p, 1, len);
	for (i = 1; i < run->nr; i += 2) {
		if (mprotect(p + i * PAGE, PAGE, PROT_READ))
			die("mprotect: %s", strerror(errno));
	}
	result->figure[0] = timed_in_place(p, len, MREMAP_RELOCATE_ANON);
	result->figure[1] = timed_in_place(p, len, MREMAP_MUST_RELOCATE_ANON);
	for (i = 0; i < 2; i++)
		result->figure[i] /= run->nr;
}

static int compare(const void *a, const void *b)
{
	const double x = *(const double *)a, y = *(const double *)b;

	return x < y ? -1 : x > y;
}

/*
 * Do it in a child, so that no run finds the traces of another; as often as
 * there are rounds. In @figure are the medians, in @spread the difference
 * between the highest and the lowest of the first figure, in percent.
 */
static void run(const struct run *given, double *figure, double *spread)
{
	static double seen[NR_FIGURES][MAX_ROUNDS];
	struct run r = *given;
	int round, status, i;
	pid_t pid;

	if (!r.shape.len)
		r.shape.len = default_len;
	if (!r.name)
		r.name = r.shape.name;
	set_order(r.shape.order);
	for (round = 0; round < nr_rounds; round++) {
		memset(result, 0, sizeof(*result));
		fflush(stdout);
		pid = fork();
		if (!pid) {
			r.fn(&r);
			result->done = true;
			result->exited = now();
			_exit(0);
		}
		if (pid < 0 || waitpid(pid, &status, 0) != pid)
			die("fork: %s", strerror(errno));
		if (!result->done)
			die("%s, %s: the process ended with status %#x", r.name,
			    methods[r.method].name, status);
		result->figure[NR_FIGURES - 1] = now() - result->exited;
		for (i = 0; i < NR_FIGURES; i++)
			seen[i][round] = result->figure[i];
	}
	for (i = 0; i < NR_FIGURES; i++) {
		qsort(seen[i], nr_rounds, sizeof(double), compare);
		figure[i] = seen[i][nr_rounds / 2];
	}
	if (spread)
		*spread = figure[0] ? 100 * (seen[0][nr_rounds - 1] - seen[0][0]) /
				      figure[0] : 0;
}

/* A table begins with its name, which scripts/bench goes by. */
static void table(const char *name, const char *comment)
{
	printf("# table %s\n%s", name, comment);
}

static void cell(double x)
{
	if (x)
		printf(" %16.*f", x < 1000 ? 2 : 0, x);
	else
		printf(" %16s", "EBUSY");
	fflush(stdout);
}

static void no_cell(void)
{
	printf(" %16s", "-");
}

/* Rows: shapes. Columns: ways to move, first with tables whole, then not. */
static void move_table(const char *first, const struct shape *shapes, size_t nr)
{
	double figure[NR_FIGURES];
	struct run r;
	size_t off, i;
	int m;

	printf("%-16s", first);
	for (off = 0; off <= PAGE; off += PAGE)
		for (m = 0; m <= MUST; m++)
			printf(" %9s-%s", methods[m].name, off ? "pages " : "tables");
	printf("\n");

	for (i = 0; i < nr; i++) {
		printf("%-16s", shapes[i].name);
		for (off = 0; off <= PAGE; off += PAGE) {
			for (m = 0; m <= MUST; m++) {
				if (m >= RELOCATE && !has_relocate) {
					no_cell();
					continue;
				}
				r = (struct run){ .fn = run_move, .method = m,
						  .shape = shapes[i], .off = off };
				run(&r, figure, NULL);
				cell(figure[0]);
			}
		}
		printf("\n");
	}
}

static const struct shape shapes[] = {
	{ "4k", .every = 1 },
	{ "4k-10%", .every = 10 },
	{ "4k-1%", .every = 100 },
	{ "16k", .order = 2, .every = 1 },
	{ "64k", .order = 4, .every = 1 },
	{ "256k", .order = 6, .every = 1 },
	{ "1M", .order = 8, .every = 1 },
	{ "THP", .order = 9, .every = 1 },
	{ "16-pages-call", .every = 1, .len = 16 * PAGE, .per_call = true },
};

/* Move one kind of memory in one way: MEMORY METHOD pages|tables|in-place */
static void move_one(char **arg)
{
	struct run r = { .fn = run_move };
	double figure[NR_FIGURES];
	size_t i;
	int m;

	for (i = 0; i < ARRAY_SIZE(shapes); i++)
		if (arg[0] && !strcmp(arg[0], shapes[i].name))
			r.shape = shapes[i];
	for (m = 0; m < NR_METHODS; m++)
		if (arg[0] && arg[1] && !strcmp(arg[1], methods[m].name))
			r.method = m;
	if (!r.shape.name || !arg[1] || !arg[2])
		die("once needs MEMORY METHOD pages|tables|in-place");
	r.off = strcmp(arg[2], "tables") ? PAGE : 0;
	if (!strcmp(arg[2], "in-place"))
		r.fn = run_in_place;
	run(&r, figure, NULL);
	printf("%s %s %s %.2f\n", arg[0], arg[1], arg[2], figure[0]);
}

static void cmd_move(void)
{
	table("move",
	      "# ns per 4 kB page of the range, or per call where the name says so.\n"
	      "# tables: source and destination begin at a PMD; pages: the destination is\n"
	      "# off by one page, so that no page table moves whole.\n");
	move_table("memory", shapes, ARRAY_SIZE(shapes));
}

static void table_of_nothing(void)
{
	static const struct run rows[] = {
		{ .name = "1", .fn = run_nothing, .nr = 1 },
		{ .name = "10", .fn = run_nothing, .nr = 10 },
		{ .name = "1000", .fn = run_nothing, .nr = 1000 },
		{ .name = "10000", .fn = run_nothing, .nr = 10000 },
	};
	double figure[NR_FIGURES];
	size_t i;

	table("nothing",
	      "# A call in place that finds nothing to gain: ns for each VMA of the range.\n");
	printf("%-16s %16s %16s\n", "VMAs", "best-effort", "must");
	for (i = 0; i < ARRAY_SIZE(rows); i++) {
		printf("%-16s", rows[i].name);
		if (has_relocate) {
			run(&rows[i], figure, NULL);
			cell(figure[0]);
			cell(figure[1]);
		} else {
			no_cell();
			no_cell();
		}
		printf("\n");
	}
}

static void cmd_inplace(void)
{
	double figure[NR_FIGURES];
	struct run r;
	size_t i, off;

	table("inplace",
	      "# Memory that a plain move has left is relocated where it is: ns per 4 kB page\n"
	      "# of the range, or per call where the name says so; and ns of a call that then\n"
	      "# finds nothing to gain. tables: page tables were moved whole, so that huge pages\n"
	      "# are still mapped by PMDs; pages: they were not.\n");
	printf("%-16s %16s %16s %16s\n", "memory", "tables", "pages", "nothing-ns");
	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		printf("%-16s", shapes[i].name);
		for (off = 0; off <= PAGE; off += PAGE) {
			if (!has_relocate) {
				no_cell();
				continue;
			}
			r = (struct run){ .fn = run_in_place,
					  .shape = shapes[i], .off = off };
			run(&r, figure, NULL);
			cell(figure[0]);
		}
		if (has_relocate)
			cell(figure[1]);
		else
			no_cell();
		printf("\n");
	}
	table_of_nothing();
}

static void cmd_axes(void)
{
	static const struct shape sizes[] = {
		{ "1", .every = 1, .len = PAGE },
		{ "16", .every = 1, .len = 16 * PAGE },
		{ "256", .every = 1, .len = 256 * PAGE },
		{ "4096", .every = 1, .len = 16 * MIB },
		{ "32768", .every = 1, .len = 128 * MIB },
		{ "262144", .every = 1, .len = 1024 * MIB },
	};
	static const struct shape population[] = {
		{ "0", .every = 0 },
		{ "0.1", .every = 1000 },
		{ "1", .every = 100 },
		{ "10", .every = 10 },
		{ "25", .every = 4 },
		{ "50", .every = 2 },
		{ "100", .every = 1 },
	};
	static const struct shape swapped[] = {
		{ "0", .every = 1 },
		{ "10", .every = 1, .swapped = 10 },
		{ "25", .every = 1, .swapped = 4 },
		{ "50", .every = 1, .swapped = 2 },
		{ "100", .every = 1, .swapped = 1 },
	};
	static const struct shape forked[] = {
		{ "4k-never", .every = 1 },
		{ "4k-once", .every = 1, .forked = true },
		{ "64k-never", .order = 4, .every = 1 },
		{ "64k-once", .order = 4, .every = 1, .forked = true },
		{ "THP-never", .order = 9, .every = 1 },
		{ "THP-once", .order = 9, .every = 1, .forked = true },
	};

	table("size", "# ns per page, by the number of pages moved, all of them 4 kB.\n");
	move_table("pages", sizes, ARRAY_SIZE(sizes));
	table("population",
	      "# ns per page of the range, by the percentage of it that was written to.\n");
	move_table("percent", population, ARRAY_SIZE(population));
	table("swapped", "# ns per page, by the percentage that is swapped out.\n");
	move_table("percent", swapped, ARRAY_SIZE(swapped));
	table("forked",
	      "# ns per page, by whether there ever was a child; it has ended.\n");
	move_table("memory", forked, ARRAY_SIZE(forked));
}

static void cmd_refused(void)
{
	static const struct shape shapes[] = {
		{ "first-page", .every = 1, .shared = FIRST },
		{ "last-page", .every = 1, .shared = LAST },
		{ "first-page-10%", .every = 10, .shared = FIRST },
		{ "16-pages-call", .every = 1, .len = 16 * PAGE,
		  .per_call = true, .shared = LAST },
	};
	static const enum method columns[] = { PLAIN, RELOCATE };
	double figure[NR_FIGURES];
	size_t i, off, c;

	table("refused",
	      "# A plain move, and one with MREMAP_RELOCATE_ANON that finds the first or the\n"
	      "# last page shared with a child and is then done as a plain one. ns per 4 kB\n"
	      "# page of the range, or per call.\n");
	printf("%-16s %16s %16s %16s %16s\n", "refused-by", "plain-tables",
	       "flag-tables", "plain-pages", "flag-pages");
	for (i = 0; i < ARRAY_SIZE(shapes); i++) {
		printf("%-16s", shapes[i].name);
		for (off = 0; off <= PAGE; off += PAGE) {
			for (c = 0; c < ARRAY_SIZE(columns); c++) {
				struct run r = { .fn = run_move, .off = off,
						 .method = columns[c],
						 .shape = shapes[i] };

				if (columns[c] == RELOCATE && !has_relocate) {
					no_cell();
					continue;
				}
				run(&r, figure, NULL);
				cell(figure[0]);
			}
		}
		printf("\n");
	}
}

/* What has nothing to do with relocation, and may not cost more for it. */

static char *populated(const struct shape *s)
{
	char *p = reserve(s->len, 0);

	map_at(p, s->len);
	populate(p, s, -1);
	return p;
}

static void run_fault(const struct run *run)
{
	const struct shape *s = &run->shape;
	char *p = reserve(s->len, 0);
	unsigned long long start;

	map_at(p, s->len);
	start = now();
	populate(p, s, -1);
	result->figure[0] = (double)(now() - start) / (s->len / PAGE);
}

static void run_fork(const struct run *run)
{
	unsigned long long start;
	pid_t pid;

	populated(&run->shape);
	start = now();
	pid = fork();
	if (!pid)
		_exit(0);
	result->figure[0] = (double)(now() - start) / (run->shape.len / PAGE);
	waitpid(pid, NULL, 0);
}

static void run_munmap(const struct run *run)
{
	char *p = populated(&run->shape);
	unsigned long long start = now();

	munmap(p, run->shape.len);
	result->figure[0] = (double)(now() - start) / (run->shape.len / PAGE);
}

static void run_reclaim(const struct run *run)
{
	char *p = populated(&run->shape);
	unsigned long long start = now();

	if (madvise(p, run->shape.len, MADV_PAGEOUT))
		die("MADV_PAGEOUT: %s", strerror(errno));
	result->figure[0] = (double)(now() - start) / (run->shape.len / PAGE);
	check_shape(p, &run->shape);
}

/* One page there and back again; the first round is not counted. */
static void run_small(const struct run *run)
{
	char *from = reserve(run->shape.len, 0), *to = reserve(run->shape.len, PAGE);
	char *swap;
	unsigned long long ns = 0, t;
	long i;

	map_at(from, run->shape.len);
	populate(from, &run->shape, -1);
	for (i = 0; i <= run->nr; i++) {
		t = timed_mremap(from, run->shape.len, methods[run->method].flags, to);
		if (i)
			ns += t;
		swap = from;
		from = to;
		to = swap;
	}
	result->figure[0] = (double)ns / run->nr;
}

/* A block that is enlarged again and again, and written to: stress-ng bigheap */
static void run_realloc(const struct run *run)
{
	const size_t step = 64 << 10;
	unsigned long long start, ns = 0;
	size_t len = step, i;
	char *p, *q;
	long n;

	p = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
		 -1, 0);
	for (n = 0; p != MAP_FAILED && n < run->nr; n++, len += step) {
		for (i = len - step; i < len; i += PAGE)
			*(volatile uint64_t *)(p + i) = token(i);
		start = now();
		q = (char *)syscall(SYS_mremap, p, len, len + step,
				    MREMAP_MAYMOVE | methods[run->method].flags,
				    NULL);
		ns += now() - start;
		if (q == MAP_FAILED)
			die("mremap: %s", strerror(errno));
		/* In its way next time, as other memory would be. */
		if (n % 8 == 0)
			mmap(q + len + step, PAGE, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE,
			     -1, 0);
		p = q;
	}
	for (i = 0; i < len - step; i += PAGE)
		if (*(volatile uint64_t *)(p + i) != token(i))
			die("%s: data lost at %zu", run->name, i);
	result->figure[0] = (double)ns / run->nr;
}

static void cmd_noflag(void)
{
	static const struct run runs[] = {
		{ .fn = run_move, .name = "move-pages", .shape.every = 1,
		  .off = PAGE },
		{ .fn = run_move, .name = "move-tables", .shape.every = 1 },
		{ .fn = run_move, .name = "move-10%-pages", .shape.every = 10,
		  .off = PAGE },
		{ .fn = run_move, .name = "move-THP-pages", .shape.every = 1,
		  .shape.order = 9, .off = PAGE },
		{ .fn = run_small, .name = "move-1-page", .shape.every = 1,
		  .shape.len = PAGE, .nr = 1000 },
		{ .fn = run_small, .name = "move-16-pages", .shape.every = 1,
		  .shape.len = 16 * PAGE, .nr = 1000 },
		{ .fn = run_realloc, .name = "realloc", .nr = 512 },
		{ .fn = run_fault, .name = "fault", .shape.every = 1 },
		{ .fn = run_fork, .name = "fork", .shape.every = 1 },
		{ .fn = run_munmap, .name = "munmap", .shape.every = 1 },
		{ .fn = run_reclaim, .name = "reclaim", .shape.every = 1,
		  .shape.swapped = 1 },
		{ .fn = run_small, .name = "flag-1-page", .method = RELOCATE,
		  .shape.every = 1, .shape.len = PAGE, .nr = 1000 },
		{ .fn = run_small, .name = "flag-16-pages", .method = RELOCATE,
		  .shape.every = 1, .shape.len = 16 * PAGE, .nr = 1000 },
		{ .fn = run_realloc, .name = "flag-realloc", .method = RELOCATE,
		  .nr = 512 },
	};
	double figure[NR_FIGURES], spread;
	size_t i;

	table("noflag",
	      "# What must not cost more than on a kernel without the series; with the flag,\n"
	      "# what begins with `flag'. ns per 4 kB page; per call for *-N-page(s) and realloc.\n"
	      "# spread: of all rounds, in percent.\n");
	printf("%-16s %16s %16s\n", "operation", "ns", "spread");
	for (i = 0; i < ARRAY_SIZE(runs); i++) {
		printf("%-16s", runs[i].name);
		if (runs[i].method == RELOCATE && !has_relocate) {
			no_cell();
			no_cell();
		} else {
			run(&runs[i], figure, &spread);
			cell(figure[0]);
			printf(" %16.2f", spread);
		}
		printf("\n");
	}
}

/* What it buys: a heap whose blocks were moved together. */

enum heap_figure {
	HEAP_REFUSED,	/* After so many blocks mremap() met ENOMEM. */
	HEAP_VMAS,
	HEAP_SLAB,	/* 3 of them, in kB */
	HEAP_MOVE = HEAP_SLAB + 3,
	HEAP_FAULT,
	HEAP_MAPS,
	HEAP_FORK,
	HEAP_MUNMAP,
	HEAP_EXIT = NR_FIGURES - 1,
};

static void read_slabs(double *kb)
{
	static const char * const names[] = {
		"vm_area_struct ", "anon_vma ", "anon_vma_chain ",
	};
	unsigned long per_slab, pages, slabs;
	FILE *f = fopen("/proc/slabinfo", "r");
	char line[512], *p;
	size_t i;

	if (!f)
		die("there is no /proc/slabinfo: the kernel needs CONFIG_SLUB_DEBUG");
	for (i = 0; i < ARRAY_SIZE(names); i++)
		kb[i] = -1;
	while (fgets(line, sizeof(line), f)) {
		for (i = 0; i < ARRAY_SIZE(names); i++) {
			if (strncmp(line, names[i], strlen(names[i])))
				continue;
			p = strstr(line, "slabdata");
			if (sscanf(line, "%*s %*u %*u %*u %lu %lu", &per_slab,
				   &pages) != 2 ||
			    !p || sscanf(p, "slabdata %*u %lu", &slabs) != 1)
				die("/proc/slabinfo is not as it was");
			kb[i] = slabs * pages * (PAGE >> 10);
		}
	}
	fclose(f);
	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (kb[i] < 0)
			die("/proc/slabinfo has no %s: boot with slab_nomerge",
			    names[i]);
}

/* Read /proc/self/maps; the number of lines. */
static long read_maps(void)
{
	int fd = open("/proc/self/maps", O_RDONLY);
	static char buf[1 << 16];
	long lines = 0;
	ssize_t n, i;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		for (i = 0; i < n; i++)
			lines += buf[i] == '\n';
	close(fd);
	return lines;
}

/* How long does it only take? */
static unsigned long long time_maps(void)
{
	static char buf[1 << 16];
	unsigned long long start = now();
	int fd = open("/proc/self/maps", O_RDONLY);

	while (read(fd, buf, sizeof(buf)) > 0)
		;
	close(fd);
	return now() - start;
}

static void max_map_count(const char *value)
{
	write_file("/proc/sys/vm/max_map_count", value);
}

/*
 * Fault blocks of two pages in at scattered places, one after the other, and
 * move each next to the one before, in one long range.
 */
static void run_heap(const struct run *run)
{
	const size_t block = 2 * PAGE;
	char *heap = reserve(run->nr * block, 0);
	char *place = reserve(run->nr * 2 * block, 0), *from, *p;
	unsigned long long ns = 0, start;
	double *figure = result->figure, before[3], after[3];
	struct shape s = { .name = "heap", .every = 1, .len = run->nr * block };
	const long step = 7919;		/* A prime, and so it comes everywhere. */
	long i, vmas = read_maps();
	pid_t pid;

	max_map_count("65530");
	read_slabs(before);
	for (i = 0; i < run->nr; i++) {
		from = place + i * step % run->nr * 2 * block;
		map_at(from, block);
		*(volatile uint64_t *)from = token(2 * i);
		*(volatile uint64_t *)(from + PAGE) = token(2 * i + 1);
		start = now();
		p = sys_mremap(from, block, methods[run->method].flags,
			       heap + i * block);
		ns += now() - start;
		if (p == MAP_FAILED && errno == ENOMEM && !figure[HEAP_REFUSED]) {
			figure[HEAP_REFUSED] = i;
			/* Go on, to see what more of it would cost. */
			max_map_count("1000000");
			i--;
			continue;
		}
		if (p == MAP_FAILED)
			die("mremap() of block %ld: %s", i, strerror(errno));
	}
	max_map_count("1000000");
	read_slabs(after);
	figure[HEAP_MOVE] = (double)ns / run->nr;
	figure[HEAP_VMAS] = read_maps() - vmas;
	for (i = 0; i < 3; i++)
		figure[HEAP_SLAB + i] = after[i] - before[i];
	check_data(heap, &s, methods[run->method].name);

	figure[HEAP_MAPS] = time_maps();
	start = now();
	pid = fork();
	if (!pid)
		_exit(0);
	figure[HEAP_FORK] = now() - start;
	if (pid < 0)
		die("fork: %s", strerror(errno));
	waitpid(pid, NULL, 0);

	/* A fault in each of a thousand blocks, here and there. */
	for (ns = i = 0; i < 1000; i++) {
		p = heap + i * step % run->nr * block;
		madvise(p, PAGE, MADV_DONTNEED);
		start = now();
		*(volatile char *)p = 1;
		ns += now() - start;
	}
	figure[HEAP_FAULT] = ns / 1000.0;
	if (run->flag) {
		start = now();
		munmap(heap, run->nr * block);
		figure[HEAP_MUNMAP] = now() - start;
	}
	/* Else the exit has to do it. */
}

static void cmd_heap(void)
{
	static const long sizes[] = { 1000, 10000, 100000 };
	static const enum method columns[] = { PLAIN, RELOCATE };
	static const char * const names[] = {
		"blocks", "method", "ENOMEM-at", "VMAs", "kB-vma", "kB-anon_vma",
		"kB-avc", "move-ns", "fault-ns", "maps-us", "fork-us",
		"munmap-us", "exit-us",
	};
	double figure[NR_FIGURES], unmapped[NR_FIGURES];
	size_t i, c;
	int k;

	table("heap",
	      "# A heap of so many blocks of two pages, faulted in here and there and then moved\n"
	      "# together: after how many blocks mremap() fails (vm.max_map_count is 65530, and\n"
	      "# then raised), VMAs and slab memory it adds; time of the move of one block, a\n"
	      "# page fault, reading /proc/self/maps, fork(), munmap() of the heap, exit.\n");
	for (i = 0; i < ARRAY_SIZE(names); i++)
		printf("%s%12s", i ? " " : "", names[i]);
	printf("\n");
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		for (c = 0; c < ARRAY_SIZE(columns); c++) {
			struct run r = { .fn = run_heap, .name = "heap",
					 .method = columns[c], .nr = sizes[i],
					 .shape = { .len = PAGE } };

			if (columns[c] == RELOCATE && !has_relocate)
				continue;
			run(&r, figure, NULL);
			r.flag = true;
			run(&r, unmapped, NULL);
			printf("%12ld %12s", sizes[i], methods[columns[c]].name);
			if (figure[HEAP_REFUSED])
				printf(" %12.0f", figure[HEAP_REFUSED]);
			else
				printf(" %12s", "-");
			for (k = HEAP_VMAS; k <= HEAP_FAULT; k++)
				printf(" %12.0f", figure[k]);
			printf(" %12.1f %12.1f %12.1f %12.1f\n",
			       figure[HEAP_MAPS] / 1000, figure[HEAP_FORK] / 1000,
			       unmapped[HEAP_MUNMAP] / 1000,
			       figure[HEAP_EXIT] / 1000);
			fflush(stdout);
		}
	}
}

/*
 * A collector with regions: it takes them in any order out of one space, and
 * fills the other from its start; then the other way round.
 */
static void run_regions(const struct run *run)
{
	const long nr = 64, step = 37;
	char *from = reserve(nr * PMD, 0), *to = reserve(nr * PMD, run->off), *swap;
	const struct shape s = { .name = run->name, .every = 1,
				 .order = run->shape.order, .len = nr * PMD };
	long i, round, at, vmas = read_maps();
	unsigned long long ns = 0;

	map_at(from, s.len);
	populate(from, &s, -1);
	check_shape(from, &s);
	for (round = 0; round < run->nr / nr; round++) {
		for (i = 0; i < nr; i++)
			ns += timed_mremap(from + i * step % nr * PMD, PMD,
					   methods[run->method].flags, to + i * PMD);
		swap = from;
		from = to;
		to = swap;
	}
	result->figure[0] = (double)ns / run->nr;
	result->figure[1] = read_maps() - vmas;

	/* Which one lies first now? */
	for (i = 0; i < nr; i++) {
		for (at = i, round = 0; round < run->nr / nr; round++)
			at = at * step % nr;
		if (*(volatile uint64_t *)(from + i * PMD) != token(at * 512))
			die("%s: block %ld is not where it belongs", run->name, i);
	}
}

static void cmd_regions(void)
{
	static const struct run runs[] = {
		{ .fn = run_regions, .name = "4k-tables", .nr = 960 },
		{ .fn = run_regions, .name = "4k-pages", .nr = 960, .off = PAGE },
		{ .fn = run_regions, .name = "THP-tables", .nr = 960,
		  .shape.order = 9 },
	};
	static const enum method columns[] = { PLAIN, RELOCATE };
	double figure[NR_FIGURES];
	size_t i, c;

	table("regions",
	      "# 960 moves of 2 MB between two spaces of 128 MB, taken in no order: ns for a\n"
	      "# move, and VMAs at the end.\n");
	printf("%-16s %16s %16s %16s %16s\n", "memory", "plain", "plain-VMAs",
	       "relocate", "relocate-VMAs");
	for (i = 0; i < ARRAY_SIZE(runs); i++) {
		printf("%-16s", runs[i].name);
		for (c = 0; c < ARRAY_SIZE(columns); c++) {
			struct run r = runs[i];

			if (columns[c] == RELOCATE && !has_relocate) {
				no_cell();
				no_cell();
				continue;
			}
			r.method = columns[c];
			run(&r, figure, NULL);
			cell(figure[0]);
			printf(" %16.0f", figure[1]);
		}
		printf("\n");
	}
}

/* Whom it keeps waiting: another thread, on another processor. */

static struct {
	const char *name;
	char *p;
	size_t len;
	bool moved;
	volatile bool ready, stop;
	unsigned long long longest;
} watch;

static void on_cpu(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		die("this needs two processors: ./run vm --cpus 2");
}

/*
 * Touch one page after the other, and note the longest time that it took. In
 * memory of its own each is a page fault; in the memory that moves it is one
 * where the page has gone.
 */
static void *watcher(void *arg)
{
	size_t i = 0, step = watch.moved ? 61 * PAGE : PAGE;
	unsigned long long start, t;

	(void)arg;
	on_cpu(1);
	while (!watch.stop) {
		start = now();
		if (watch.moved)
			*(volatile char *)(watch.p + i % watch.len);
		else
			*(volatile char *)(watch.p + i) = 1;
		t = now() - start;
		if (watch.ready && t > watch.longest)
			watch.longest = t;
		watch.ready = true;
		i += step;
		if (!watch.moved && i >= watch.len)
			die("%s: there was no memory left to fault in", watch.name);
		/* Not so often that the memory does not last. */
		while (now() - start < 50000)
			;
	}
	return NULL;
}

static void run_wait(const struct run *run)
{
	const struct shape *s = &run->shape;
	const size_t step = run->nr ? (size_t)run->nr : s->len;
	unsigned long long start, t, longest = 0;
	char *from = reserve(s->len, 0), *to;
	pthread_t thread;
	size_t done;
	int fd = -1;

	on_cpu(0);
	map_at(from, s->len);
	populate(from, s, -1);
	check_shape(from, s);
	watch.name = run->name;
	watch.moved = run->flag;
	watch.p = from;
	watch.len = s->len;
	if (!watch.moved) {
		watch.len = 1024 * MIB;
		watch.p = reserve(watch.len, 0);
		map_at(watch.p, watch.len);
		madvise(watch.p, watch.len, MADV_NOHUGEPAGE);
	}
	if (pthread_create(&thread, NULL, watcher, NULL))
		die("pthread_create: %s", strerror(errno));
	while (!watch.ready)
		;
	/* Not before, or the stack of the thread would be there. */
	to = reserve(s->len, run->off);
	if (run->method == UFFD)
		fd = uffd_over(to, s->len);
	start = now();
	for (done = 0; done < s->len; done += step) {
		if (run->method == UFFD)
			t = uffd_move(fd, from + done, to + done, step, true);
		else	/* The source stays mapped for the watcher. */
			t = timed_mremap(from + done, step, MREMAP_DONTUNMAP |
					 methods[run->method].flags, to + done);
		if (t > longest)
			longest = t;
	}
	result->figure[0] = now() - start;
	result->figure[1] = longest;
	watch.stop = true;
	pthread_join(thread, NULL);
	result->figure[2] = watch.longest;
}

static void cmd_wait(void)
{
	static const struct run runs[] = {
		{ .name = "4k-plain", .off = PAGE },
		{ .name = "4k-plain-tables" },
		{ .name = "4k-uffd-2M", .method = UFFD, .off = PAGE, .nr = PMD },
		{ .name = "4k-relocate", .method = RELOCATE, .off = PAGE },
		{ .name = "4k-relocate-64M", .method = RELOCATE, .off = PAGE,
		  .nr = 64 * MIB },
		{ .name = "4k-relocate-16M", .method = RELOCATE, .off = PAGE,
		  .nr = 16 * MIB },
		{ .name = "4k-relocate-2M", .method = RELOCATE, .off = PAGE,
		  .nr = PMD },
		{ .name = "THP-plain", .shape.order = 9 },
		{ .name = "THP-uffd-2M", .shape.order = 9, .method = UFFD,
		  .nr = PMD },
		{ .name = "THP-relocate", .shape.order = 9, .method = RELOCATE },
	};
	double figure[NR_FIGURES], moved[NR_FIGURES];
	size_t i;

	table("wait",
	      "# While one thread moves 1 GiB at once or in steps, in ms: all of it, the longest\n"
	      "# call, the longest page fault of another thread in other memory, and in the\n"
	      "# memory that moves.\n");
	printf("%-16s %16s %16s %16s %16s\n", "move", "all-ms", "longest-call",
	       "other-memory", "moved-memory");
	for (i = 0; i < ARRAY_SIZE(runs); i++) {
		struct run r = runs[i];

		if (r.method == RELOCATE && !has_relocate)
			continue;
		r.fn = run_wait;
		r.shape.every = 1;
		r.shape.len = 1024 * MIB;
		run(&r, figure, NULL);
		r.flag = true;
		run(&r, moved, NULL);
		printf("%-16s %16.3f %16.3f %16.3f %16.3f\n", r.name,
		       figure[0] / 1e6, figure[1] / 1e6, figure[2] / 1e6,
		       moved[2] / 1e6);
		fflush(stdout);
	}
}

/*
 * How long locks are held, see /proc/lock_stat. It names a lock after the
 * expression that initialises it, and has lines like
 *
 *	&mm->mmap_lock-W:  CONTENDED...  ACQUIRED HOLD-MIN HOLD-MAX HOLD-TOTAL ...
 *
 * whose times are in microseconds.
 */
#define LOCK_STAT	"/proc/lock_stat"
enum { HOLD_MAX = 10, HOLD_TOTAL };	/* The fields, from the name on. */

static void watch_locks(bool on)
{
	if (on)
		write_file(LOCK_STAT, "0");
	write_file("/proc/sys/kernel/lock_stat", on ? "1" : "0");
}

/* The highest value that a lock has whose name begins with @name, in ns. */
static double lock_stat(const char *name, int nr)
{
	char line[1024], *field;
	double highest = 0;
	FILE *f;
	int i;

	f = fopen(LOCK_STAT, "r");
	if (!f)
		die(LOCK_STAT ": %s (profile lockstat has it)", strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		field = line + strspn(line, " ");
		if (strncmp(field, name, strlen(name)))
			continue;
		field = strtok(field, ":");
		for (i = 0; i < nr && field; i++)
			field = strtok(NULL, " \n");
		if (field && atof(field) * 1000 > highest)
			highest = atof(field) * 1000;
	}
	fclose(f);
	return highest;
}

static void run_locks(const struct run *run)
{
	const struct shape *s = &run->shape;
	const size_t step = run->nr ? (size_t)run->nr : s->len;
	char *from = reserve(s->len, 0), *to = reserve(s->len, run->off);
	size_t done;
	int fd = -1;

	map_at(from, s->len);
	populate(from, s, -1);
	check_shape(from, s);
	if (run->method == UFFD)
		fd = uffd_over(to, s->len);
	watch_locks(true);
	for (done = 0; done < s->len; done += step) {
		if (run->method == UFFD)
			uffd_move(fd, from + done, to + done, step, false);
		else
			timed_mremap(from + done, step,
				     methods[run->method].flags, to + done);
	}
	watch_locks(false);
	check_data(to, s, run->name);
	result->figure[0] = lock_stat("&mm->mmap_lock-W", HOLD_MAX);
	result->figure[1] = lock_stat("&mm->mmap_lock-W", HOLD_TOTAL) /
			    (s->len / step);
	result->figure[2] = lock_stat("ptlock_ptr(", HOLD_MAX);
}

static void cmd_locks(void)
{
	static const struct run runs[] = {
		{ .name = "4k-plain", .off = PAGE },
		{ .name = "4k-plain-tables" },
		{ .name = "4k-uffd-2M", .method = UFFD, .off = PAGE, .nr = PMD },
		{ .name = "4k-relocate", .method = RELOCATE, .off = PAGE },
		{ .name = "4k-relocate-tables", .method = RELOCATE },
		{ .name = "4k-relocate-16M", .method = RELOCATE, .off = PAGE,
		  .nr = 16 * MIB },
		{ .name = "4k-relocate-2M", .method = RELOCATE, .off = PAGE,
		  .nr = PMD },
		{ .name = "64k-plain", .shape.order = 4, .off = PAGE },
		{ .name = "64k-relocate", .shape.order = 4, .method = RELOCATE,
		  .off = PAGE },
		{ .name = "THP-plain", .shape.order = 9 },
		{ .name = "THP-uffd-2M", .shape.order = 9, .method = UFFD,
		  .nr = PMD },
		{ .name = "THP-relocate", .shape.order = 9, .method = RELOCATE },
	};
	double figure[NR_FIGURES];
	size_t i;

	table("locks",
	      "# The longest hold of the mmap lock, for writing, and of a page table lock,\n"
	      "# while 1 GiB moves at once or in steps, and how long the mmap lock is held for\n"
	      "# each step: in us, with interrupts, and with what it costs to measure them.\n");
	printf("%-18s %16s %16s %16s\n", "move", "mmap-lock-us", "each-step-us",
	       "page-table-us");
	for (i = 0; i < ARRAY_SIZE(runs); i++) {
		struct run r = runs[i];

		if (r.method == RELOCATE && !has_relocate)
			continue;
		r.fn = run_locks;
		r.shape.every = 1;
		r.shape.len = 1024 * MIB;
		run(&r, figure, NULL);
		printf("%-18s %16.1f %16.1f %16.2f\n", r.name, figure[0] / 1e3,
		       figure[1] / 1e3, figure[2] / 1e3);
		fflush(stdout);
	}
}

static const struct command {
	const char *name;
	void (*run)(void);
	const char *help;
} commands[] = {
	{ "move", cmd_move, "a move, by kind of memory and way to move it" },
	{ "inplace", cmd_inplace, "memory that is relocated where it is" },
	{ "noflag", cmd_noflag, "what must cost the same as ever" },
	{ "refused", cmd_refused, "a flag for nothing: some page cannot be relocated" },
	{ "axes", cmd_axes, "a move, by size, population, swap and fork" },
	{ "heap", cmd_heap, "what many blocks that were moved cost afterwards" },
	{ "regions", cmd_regions, "blocks of 2 MB by the thousand" },
	{ "wait", cmd_wait, "how long another thread waits (two processors)" },
	{ "locks", cmd_locks, "how long locks are held (a kernel with LOCK_STAT)" },
};

static void usage(FILE *to)
{
	size_t i;

	fprintf(to, "usage: mremap_bench [--size MIB] [--rounds N] COMMAND...\n\n"
		"  --size MIB   memory to move (default 64)\n"
		"  --rounds N   take the median of so many runs (default 1, at most 32)\n\n"
		"commands:\n");
	for (i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(to, "  %-12s %s\n", commands[i].name, commands[i].help);
	fprintf(to, "  once MEMORY METHOD pages|tables|in-place   one figure\n");
}

static unsigned long number(const char *what, const char *arg, unsigned long max)
{
	unsigned long val;
	char *end;

	val = arg ? strtoul(arg, &end, 10) : 0;
	if (!val || *end || val > max) {
		fprintf(stderr, "mremap_bench: %s needs a number from 1 to %lu\n",
			what, max);
		exit(2);
	}
	return val;
}

static void prepare(void)
{
	char clock[40] = "?";
	struct utsname uts;
	char *p, *q;
	FILE *f;

	if (sysconf(_SC_PAGESIZE) != PAGE)
		die("this is for pages of 4 kB");
	result = mmap(NULL, sizeof(*result), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (result == MAP_FAILED)
		die("mmap: %s", strerror(errno));
	/* It must not join what was meant to stay small. */
	write_file(THP_DIR "khugepaged/scan_sleep_millisecs", "100000000");

	/* A page that moves to where it is: a kernel without the flag refuses. */
	p = mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	q = (char *)syscall(SYS_mremap, p, PAGE, PAGE,
			    MREMAP_MAYMOVE | MREMAP_RELOCATE_ANON, NULL);
	has_relocate = q == p;
	munmap(p, PAGE);

	f = fopen("/sys/devices/system/clocksource/clocksource0/current_clocksource",
		  "r");
	if (f) {
		if (fscanf(f, "%39s", clock) != 1)
			strcpy(clock, "?");
		fclose(f);
	}
	uname(&uts);
	printf("# Linux %s, %s, clock %s, %zu MiB, %d round%s\n", uts.release,
	       has_relocate ? "with MREMAP_RELOCATE_ANON" :
			      "without MREMAP_RELOCATE_ANON",
	       clock, default_len / MIB, nr_rounds, nr_rounds > 1 ? "s" : "");
}

int main(int argc, char **argv)
{
	bool ready = false;
	size_t c;
	int i;

	for (i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--help")) {
			usage(stdout);
			return 0;
		}
		if (!strcmp(argv[i], "--size")) {
			default_len = number("--size", argv[++i], 4096) * MIB;
			continue;
		}
		if (!strcmp(argv[i], "--rounds")) {
			nr_rounds = number("--rounds", argv[++i], MAX_ROUNDS);
			continue;
		}
		if (!strcmp(argv[i], "once")) {
			prepare();
			move_one(argv + i + 1);
			return 0;
		}
		for (c = 0; c < ARRAY_SIZE(commands); c++)
			if (!strcmp(argv[i], commands[c].name))
				break;
		if (c == ARRAY_SIZE(commands)) {
			usage(stderr);
			return 2;
		}
		if (!ready)
			prepare();
		ready = true;
		commands[c].run();
	}
	if (!ready) {
		usage(stderr);
		return 2;
	}
	return 0;
}
