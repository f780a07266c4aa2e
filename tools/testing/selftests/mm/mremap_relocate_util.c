// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the tests of MREMAP_RELOCATE_ANON and MREMAP_MUST_RELOCATE_ANON share.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#include "mremap_relocate_util.h"

#ifndef MADV_COLD
#define MADV_COLD		20
#endif
#ifndef MADV_PAGEOUT
#define MADV_PAGEOUT		21
#endif
#ifndef MPOL_MF_MOVE
#define MPOL_MF_MOVE		2
#endif
#ifndef MPOL_MF_MOVE_ALL
#define MPOL_MF_MOVE_ALL	4
#endif

#define MAX_NODES		16
#define PATIENCE		100

/* What a test moves without a flag moves plainly, whatever the sysctl says. */
static void __attribute__((constructor)) ignore_sysctl(void)
{
	if (prctl(PR_GET_MREMAP_RELOCATE, 0, 0, 0, 0) == PR_MREMAP_RELOCATE_SYSCTL)
		prctl(PR_SET_MREMAP_RELOCATE, PR_MREMAP_RELOCATE_OFF, 0, 0, 0);
}

static void open_files(struct arena *arena)
{
	if (open_self_procmap(&arena->procmap))
		ksft_exit_fail_msg("cannot open /proc/self/maps\n");
	arena->pagemap = open("/proc/self/pagemap", O_RDONLY);
	if (arena->pagemap < 0)
		ksft_exit_fail_msg("cannot open /proc/self/pagemap\n");
}

/* Reserve nr pages at a multiple of align bytes (0: no matter where). */
void arena_init(struct arena *arena, size_t nr, size_t align)
{
	size_t len = PAGES(nr) + align;
	char *ptr, *base;
	cpu_set_t set;

	/*
	 * Stay on one CPU: a page that was just faulted in may still wait in
	 * this CPU's batch for the LRU lists. MADV_PAGEOUT drains the batch of
	 * the CPU that it runs on, and cannot reclaim what waits elsewhere.
	 */
	CPU_ZERO(&set);
	CPU_SET(sched_getcpu(), &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		ksft_exit_fail_perror("sched_setaffinity");

	ptr = mmap(NULL, len, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ptr == MAP_FAILED)
		ksft_exit_fail_perror("mmap of the arena");

	base = ptr;
	if (align) {
		base = (char *)(((unsigned long)ptr + align - 1) & ~(align - 1));
		if (base > ptr)
			munmap(ptr, base - ptr);
		if (base < ptr + align)
			munmap(base + PAGES(nr), ptr + align - base);
	}

	arena->base = base;
	arena->nr = nr;
	arena->kpageflags = open("/proc/kpageflags", O_RDONLY);
	open_files(arena);
}

void arena_exit(struct arena *arena)
{
	munmap(arena->base, PAGES(arena->nr));
	close_procmap(&arena->procmap);
	close(arena->pagemap);
	if (arena->kpageflags >= 0)
		close(arena->kpageflags);
}

/* In a child: what /proc/self meant when it was opened was the parent. */
void arena_reopen(struct arena *arena)
{
	close_procmap(&arena->procmap);
	close(arena->pagemap);
	open_files(arena);
}

/* Map readable and writable anonymous memory. */
char *arena_map(struct arena *arena, size_t page, size_t nr)
{
	char *ptr = mmap(arena_at(arena, page), PAGES(nr), PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

	if (ptr == MAP_FAILED)
		ksft_exit_fail_perror("mmap in the arena");
	return ptr;
}

/* Make it a reserved part of the arena again. */
void arena_unmap(struct arena *arena, size_t page, size_t nr)
{
	if (mmap(arena_at(arena, page), PAGES(nr), PROT_NONE, MAP_PRIVATE |
		 MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED, -1, 0) == MAP_FAILED)
		ksft_exit_fail_perror("mmap in the arena");
}

void *relocate(void *from, size_t nr, int flags, void *to)
{
	return sys_mremap(from, PAGES(nr), PAGES(nr),
			  MREMAP_MAYMOVE | MREMAP_FIXED | flags, to);
}

static unsigned long word_at(unsigned long seed, unsigned long index)
{
	return (seed * 1000003ul + index + 1) * 0x9e3779b97f4a7c15ul;
}

void fill_from(char *ptr, size_t nr, unsigned long seed, size_t first)
{
	const size_t words = psize() / sizeof(unsigned long);
	unsigned long *word = (unsigned long *)ptr;
	size_t i;

	for (i = 0; i < nr * words; i++)
		word[i] = word_at(seed, first * words + i);
}

bool intact_from(const char *ptr, size_t nr, unsigned long seed, size_t first)
{
	const size_t words = psize() / sizeof(unsigned long);
	const unsigned long *word = (const unsigned long *)ptr;
	size_t i;

	for (i = 0; i < nr * words; i++) {
		unsigned long want = word_at(seed, first * words + i);

		if (word[i] == want)
			continue;
		ksft_print_msg("page %zu of %zu, byte %zu: %lx instead of %lx\n",
			       i / words, nr, i % words * sizeof(*word),
			       word[i], want);
		return false;
	}
	return true;
}

bool all_zero(const char *ptr, size_t nr)
{
	const unsigned long *word = (const unsigned long *)ptr;
	size_t i;

	for (i = 0; i < PAGES(nr) / sizeof(*word); i++) {
		if (word[i]) {
			ksft_print_msg("page %zu of %zu is not zero\n",
				       i * sizeof(*word) / psize(), nr);
			return false;
		}
	}
	return true;
}

/* How many VMAs have a part in the range? */
size_t nr_vmas(struct arena *arena, void *start, size_t nr)
{
	struct procmap_query *query = &arena->procmap.query;
	unsigned long addr = (unsigned long)start;
	unsigned long end = addr + PAGES(nr);
	size_t count = 0;
	int err;

	while (addr < end) {
		query->query_flags = PROCMAP_QUERY_COVERING_OR_NEXT_VMA;
		query->query_addr = addr;
		err = query_procmap(&arena->procmap);
		if (err == -ENOENT)
			break;
		if (err)
			ksft_exit_fail_msg("PROCMAP_QUERY: %s\n", strerror(-err));
		if (query->vma_start >= end)
			break;
		addr = query->vma_end;
		count++;
	}
	return count;
}

/* Is the range, no less and no more, one VMA? */
bool is_one_vma(struct arena *arena, void *start, size_t nr)
{
	struct procmap_query *query = &arena->procmap.query;
	unsigned long addr = (unsigned long)start;

	if (!find_vma_procmap(&arena->procmap, start)) {
		ksft_print_msg("no VMA at page %zu\n",
			       ((char *)start - arena->base) / psize());
		return false;
	}
	if (query->vma_start == addr && query->vma_end == addr + PAGES(nr))
		return true;

	ksft_print_msg("VMA at pages %ld to %ld instead of %ld to %ld\n",
		       (long)(query->vma_start - (unsigned long)arena->base) / (long)psize(),
		       (long)(query->vma_end - (unsigned long)arena->base) / (long)psize(),
		       ((char *)start - arena->base) / (long)psize(),
		       ((char *)start - arena->base) / (long)psize() + (long)nr);
	return false;
}

bool fits_in_again(struct arena *arena, char *ptr, size_t nr)
{
	char *middle = ptr + PAGES(nr / 2);

	return !munmap(middle, PAGES(1)) &&
	       mmap(middle, PAGES(1), PROT_READ | PROT_WRITE, MAP_PRIVATE |
		    MAP_ANONYMOUS | MAP_FIXED, -1, 0) == middle &&
	       nr_vmas(arena, ptr, nr) == 1;
}

bool faults(const char *ptr)
{
	int fds[2];
	bool ret;

	if (pipe(fds))
		ksft_exit_fail_perror("pipe");
	ret = write(fds[1], ptr, 1) < 0 && errno == EFAULT;
	close(fds[0]);
	close(fds[1]);
	return ret;
}

void read_entries(struct arena *arena, void *ptr, size_t nr, __u64 *entries)
{
	ssize_t len = nr * sizeof(*entries);

	if (pread(arena->pagemap, entries, len,
		  (unsigned long)ptr / psize() * sizeof(*entries)) != len)
		ksft_exit_fail_perror("/proc/self/pagemap");
}

/* Are there the same pages, swap entries and markers as in the array? */
bool same_entries(struct arena *arena, void *ptr, size_t nr, const __u64 *entries)
{
	__u64 now;
	size_t i;

	for (i = 0; i < nr; i++) {
		read_entries(arena, (char *)ptr + PAGES(i), 1, &now);
		if ((now & ENTRY_MASK) == (entries[i] & ENTRY_MASK))
			continue;
		ksft_print_msg("entry %zu of %zu is %llx instead of %llx\n", i, nr,
			       (unsigned long long)now,
			       (unsigned long long)entries[i]);
		return false;
	}
	return true;
}

size_t count_entries(struct arena *arena, void *ptr, size_t nr, __u64 mask,
		     __u64 value)
{
	size_t i, count = 0;
	__u64 entry;

	for (i = 0; i < nr; i++) {
		read_entries(arena, (char *)ptr + PAGES(i), 1, &entry);
		count += (entry & mask) == value;
	}
	return count;
}

/*
 * For a page that is not present mincore() looks into the swap cache, and only
 * there.
 */
size_t nr_swap_cached(struct arena *arena, void *ptr, size_t nr)
{
	unsigned char in_core;
	size_t i, count = 0;

	for (i = 0; i < nr; i++) {
		char *page = (char *)ptr + PAGES(i);

		if (!nr_swapped(arena, page, 1))
			continue;
		if (mincore(page, psize(), &in_core))
			ksft_exit_fail_perror("mincore");
		count += in_core & 1;
	}
	return count;
}

/* Copy the lines of a file of /proc that pass the filter. No malloc() here. */
static void copy_lines(const char *path, char *buf, size_t size,
		       bool (*filter)(const char *line, void *arg), void *arg)
{
	static char text[1 << 16];
	size_t len = 0, used = 0;
	char *line, *next;
	ssize_t ret;
	int fd;

	fd = open(path, O_RDONLY);
	if (fd < 0)
		ksft_exit_fail_msg("cannot open %s\n", path);
	while ((ret = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += ret;
	close(fd);
	text[len] = '\0';

	for (line = text; *line; line = next) {
		next = strchr(line, '\n');
		next = next ? next + 1 : line + strlen(line);
		if (!filter(line, arg))
			continue;
		if (used + (next - line) >= size)
			ksft_exit_fail_msg("%s is too long\n", path);
		memcpy(buf + used, line, next - line);
		used += next - line;
	}
	buf[used] = '\0';
}

static bool in_arena(const char *line, void *arg)
{
	struct arena *arena = arg;
	unsigned long start, end;

	return sscanf(line, "%lx-%lx", &start, &end) == 2 &&
	       end > (unsigned long)arena->base &&
	       start < (unsigned long)arena->base + PAGES(arena->nr);
}

static bool is_counter(const char *line, void *arg)
{
	static const char * const names[] = {
		"VmSize:", "VmLck:", "VmPin:", "RssAnon:", "VmData:",
		"VmStk:", "VmSwap:",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		if (!strncmp(line, names[i], strlen(names[i])))
			return true;
	}
	return false;
}

static char snapshot_now[16384];

void snapshot_take(struct snapshot *snap, struct arena *arena, void *ptr,
		   size_t nr)
{
	snap->arena = arena;
	snap->ptr = ptr;
	snap->nr = nr;
	snap->entries = malloc(nr * sizeof(*snap->entries));
	if (!snap->entries)
		ksft_exit_fail_msg("out of memory\n");
	/* The buffers must not be faulted in between two snapshots. */
	memset(snap->maps, 0, sizeof(snap->maps));
	memset(snap->counters, 0, sizeof(snap->counters));
	memset(snapshot_now, 0, sizeof(snapshot_now));
	copy_lines("/proc/self/maps", snap->maps, sizeof(snap->maps), in_arena,
		   arena);
	read_entries(arena, ptr, nr, snap->entries);
	copy_lines("/proc/self/status", snap->counters, sizeof(snap->counters),
		   is_counter, NULL);
}

/* Is everything as the snapshot has it? Ends the life of the snapshot. */
bool snapshot_same(struct snapshot *snap)
{
	char *now = snapshot_now;
	bool ret = true;

	copy_lines("/proc/self/status", now, sizeof(snapshot_now), is_counter, NULL);
	if (strcmp(now, snap->counters)) {
		ksft_print_msg("counters were:\n%s", snap->counters);
		ksft_print_msg("counters are:\n%s", now);
		ret = false;
	}
	copy_lines("/proc/self/maps", now, sizeof(snapshot_now), in_arena, snap->arena);
	if (strcmp(now, snap->maps)) {
		ksft_print_msg("mappings were:\n%s", snap->maps);
		ksft_print_msg("mappings are:\n%s", now);
		ret = false;
	}
	if (!same_entries(snap->arena, snap->ptr, snap->nr, snap->entries))
		ret = false;
	free(snap->entries);
	snap->entries = NULL;
	return ret;
}

/*
 * The trace events of the kernel, in an instance of our own. What is read from
 * trace_pipe is gone, so each look finds what is new. A test that was killed may
 * have left the instance to us.
 */
#define TRACING		"/sys/kernel/tracing/instances/mremap_relocate"

static int trace_pipe = -1;
static pid_t trace_owner;

/* What the last look has found. */
static struct relocation traced;

static void trace_stop(void)
{
	if (trace_pipe < 0 || getpid() != trace_owner)
		return;
	close(trace_pipe);
	trace_pipe = -1;
	rmdir(TRACING);
}

static void trace_start(void)
{
	if (mkdir(TRACING, 0700) && errno != EEXIST)
		return;
	if (write_text(TRACING "/events/mremap/enable", "1"))
		trace_pipe = open(TRACING "/trace_pipe",
				  O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	if (trace_pipe < 0) {
		rmdir(TRACING);
		return;
	}
	trace_owner = getpid();
	atexit(trace_stop);
}

bool can_trace(void)
{
	return trace_pipe >= 0;
}

/* "   program-123   [000] ..... 4.567890: event: field=value field=value" */
static bool is_line_of(const char *line, pid_t pid)
{
	const char *end = strstr(line, " [");

	if (!end)
		return false;
	while (end > line && end[-1] == ' ')
		end--;
	while (end > line && end[-1] >= '0' && end[-1] <= '9')
		end--;
	return end > line && end[-1] == '-' && atoi(end) == pid;
}

static bool parse_relocation(const char *line, struct relocation *rel)
{
	int len;

	return sscanf(line,
		      "old_addr=%lx old_len=%lu new_addr=%lx new_len=%lu flags=%79s %n",
		      &rel->old_addr, &rel->old_len, &rel->new_addr,
		      &rel->new_len, rel->flags, &len) == 5 &&
	       sscanf(line + len,
		      "result=%d vmas_before=%d vmas_after=%d folios=%lu pages=%lu reason=%31s",
		      &rel->result, &rel->vmas_before, &rel->vmas_after,
		      &rel->folios, &rel->pages, rel->reason) == 6;
}

static bool parse_refusal(const char *line, struct relocation *rel)
{
	return sscanf(line, "start=%lx end=%lx addr=%lx reason=%31s", &rel->start,
		      &rel->end, &rel->addr, rel->refusal) == 4;
}

/* The refusals of a call come before the event of the call itself. */
static void trace_line(const char *line, pid_t pid, struct relocation *rel,
		       bool *ended)
{
	static const char relocate[] = ": mremap_relocate: ";
	static const char refused[] = ": mremap_relocate_refused: ";
	const char *at;

	if (!is_line_of(line, pid))
		return;
	if (*ended) {
		memset(rel, 0, sizeof(*rel));
		*ended = false;
	}
	at = strstr(line, refused);
	if (at) {
		if (!parse_refusal(at + strlen(refused), rel))
			ksft_exit_fail_msg("odd trace event: %s\n", line);
		rel->nr_refused++;
	}
	at = strstr(line, relocate);
	if (at) {
		if (!parse_relocation(at + strlen(relocate), rel))
			ksft_exit_fail_msg("odd trace event: %s\n", line);
		*ended = true;
	}
}

bool trace_look_at(struct relocation *rel, pid_t pid)
{
	static char text[1 << 14];
	bool ended = false;
	char *line, *next;
	size_t len = 0;
	ssize_t ret;

	memset(rel, 0, sizeof(*rel));
	if (!can_trace())
		return false;
	while ((ret = read(trace_pipe, text + len, sizeof(text) - 1 - len)) > 0) {
		len += ret;
		text[len] = '\0';
		for (line = text; (next = strchr(line, '\n')); line = next + 1) {
			*next = '\0';
			trace_line(line, pid, rel, &ended);
		}
		len -= line - text;
		memmove(text, line, len);
	}
	return ended;
}

bool trace_look(struct relocation *rel)
{
	if (!trace_look_at(rel, getpid()))
		return false;
	traced = *rel;
	return true;
}

static bool trace_says(bool right)
{
	if (right)
		return true;
	ksft_print_msg("traced: result %d, VMAs %d to %d, %lu folios, %lu pages\n",
		       traced.result, traced.vmas_before, traced.vmas_after,
		       traced.folios, traced.pages);
	ksft_print_msg("traced: reason \"%s\", %d refused, the last at %lx for \"%s\"\n",
		       traced.reason, traced.nr_refused, traced.addr,
		       traced.refusal);
	return false;
}

bool relocated_as(unsigned long folios, unsigned long pages)
{
	struct relocation rel;

	if (!can_trace())
		return true;
	return trace_says(trace_look(&rel) && !rel.result && !rel.nr_refused &&
			  !strcmp(rel.reason, "none") && rel.folios == folios &&
			  rel.pages == pages);
}

bool nothing_gained(const char *reason)
{
	struct relocation rel;

	if (!can_trace())
		return true;
	return trace_says(trace_look(&rel) && !rel.result && !rel.nr_refused &&
			  !strcmp(rel.reason, reason) && !rel.folios &&
			  !rel.pages);
}

bool refused_as(const char *reason, const char *addr)
{
	struct relocation rel;

	if (!can_trace())
		return true;
	/* If it was is_refused(), there is nothing new. */
	trace_look(&rel);
	if (!trace_says(traced.nr_refused && !strcmp(traced.refusal, reason) &&
			!strcmp(traced.reason, reason)))
		return false;
	if (traced.addr == (unsigned long)addr)
		return true;
	ksft_print_msg("refused at %lx instead of %lx\n", traced.addr,
		       (unsigned long)addr);
	return false;
}

/* With the right range, and nothing changed. */
static bool traced_as_refused(const char *from, size_t nr)
{
	struct relocation rel;

	if (!can_trace())
		return true;
	return trace_says(trace_look(&rel) && rel.result == -EFAULT &&
			  rel.vmas_before == rel.vmas_after && !rel.pages &&
			  rel.old_addr == (unsigned long)from &&
			  rel.old_len == PAGES(nr) &&
			  rel.nr_refused == (strcmp(rel.reason, "none") != 0) &&
			  (!rel.nr_refused ||
			   (rel.addr >= rel.old_addr && rel.addr >= rel.start &&
			    rel.addr < rel.end &&
			    rel.end <= rel.old_addr + rel.old_len)));
}

bool is_refused(struct snapshot *snap, void *from, size_t nr, int flags,
		void *to)
{
	void *res = relocate(from, nr, flags, to);
	int error = errno;

	if (res != MAP_FAILED)
		ksft_print_msg("it was moved\n");
	else if (error != EFAULT)
		ksft_print_msg("error %d instead of EFAULT\n", error);
	return snapshot_same(snap) && res == MAP_FAILED && error == EFAULT &&
	       traced_as_refused(from, nr);
}

struct figure {
	const char *name;
	long kb;
};

static bool is_figure(const char *line, void *arg)
{
	struct figure *figure = arg;
	size_t len = strlen(figure->name);

	if (!strncmp(line, figure->name, len) && line[len] == ':')
		figure->kb = atol(line + len + 1);
	return false;
}

static long read_figure(const char *path, const char *name)
{
	struct figure figure = { .name = name, .kb = -1 };
	char unused[1];

	copy_lines(path, unused, sizeof(unused), is_figure, &figure);
	return figure.kb;
}

long status_kb(const char *name)
{
	return read_figure("/proc/self/status", name);
}

long meminfo_kb(const char *name)
{
	return read_figure("/proc/meminfo", name);
}

long vm_event(const char *name)
{
	FILE *file = fopen("/proc/vmstat", "r");
	long value = -1, num;
	char line[128], key[64];

	if (!file)
		return -1;
	while (value < 0 && fgets(line, sizeof(line), file)) {
		if (sscanf(line, "%63s %ld", key, &num) == 2 &&
		    !strcmp(key, name))
			value = num;
	}
	fclose(file);
	return value;
}

bool write_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);
	bool ret;

	if (fd < 0)
		return false;
	ret = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	close(fd);
	return ret;
}

bool thp_set_order(int order, struct thp_settings *saved)
{
	struct thp_settings settings;
	int i;

	if (!thp_available() || !(thp_supported_orders() & (1 << order)))
		return false;

	thp_read_settings(saved);
	settings = *saved;
	settings.thp_enabled = THP_ALWAYS;
	settings.thp_defrag = THP_DEFRAG_ALWAYS;
	settings.use_zero_page = true;
	for (i = 0; i < NR_ORDERS; i++)
		settings.hugepages[i].enabled = THP_NEVER;
	settings.hugepages[order].enabled = THP_ALWAYS;
	thp_write_settings(&settings);
	return true;
}

static bool pfn_flags(struct arena *arena, unsigned long pfn, __u64 *flags)
{
	return arena->kpageflags >= 0 &&
	       pread(arena->kpageflags, flags, sizeof(*flags),
		     pfn * sizeof(*flags)) == sizeof(*flags);
}

/* The flags of the page at ptr, 0 if there is none or if they are secret. */
__u64 page_flags(struct arena *arena, void *ptr)
{
	unsigned long pfn = pagemap_get_pfn(arena->pagemap, ptr);
	__u64 flags;

	if (pfn == -1ul || !pfn || !pfn_flags(arena, pfn, &flags))
		return 0;
	return flags;
}

/* The first page of the folio that the page at ptr belongs to, 0 if unknown. */
static unsigned long head_pfn(struct arena *arena, void *ptr)
{
	unsigned long pfn = pagemap_get_pfn(arena->pagemap, ptr);
	__u64 flags;

	if (pfn == -1ul || !pfn || !pfn_flags(arena, pfn, &flags))
		return 0;
	while (flags & KPF_COMPOUND_TAIL) {
		if (!pfn_flags(arena, --pfn, &flags))
			return 0;
	}
	return pfn;
}

/*
 * How large is the folio that the page at ptr belongs to? Counts from the head
 * page on, whatever of the folio is mapped here.
 */
size_t folio_pages(struct arena *arena, void *ptr)
{
	unsigned long pfn = head_pfn(arena, ptr);
	__u64 flags;
	size_t nr;

	if (!pfn)
		return 0;
	for (nr = 1; pfn_flags(arena, pfn + nr, &flags); nr++) {
		if (!(flags & KPF_COMPOUND_TAIL))
			break;
	}
	return nr;
}

bool can_swap(void)
{
	return meminfo_kb("SwapFree") >= 64 * 1024;
}

static long sys_move_pages(unsigned long nr, void **pages, const int *to,
			   int *status, int flags)
{
	return syscall(__NR_move_pages, 0, nr, pages, to, status, flags);
}

/* The nodes that have memory. */
static int nodes[MAX_NODES], nr_known_nodes;

/* Without move_pages(), there is nothing to be done with a second node. */
int nr_nodes(void)
{
	int first, last, len = 0, node;
	char buf[256], *ptr = buf;

	if (nr_known_nodes)
		return nr_known_nodes;

	nr_known_nodes = 1;
	if (sys_move_pages(0, NULL, NULL, NULL, MPOL_MF_MOVE))
		return nr_known_nodes;
	if (!read_file("/sys/devices/system/node/has_memory", buf, sizeof(buf)))
		return nr_known_nodes;

	nr_known_nodes = 0;
	while (sscanf(ptr, "%d%n", &first, &len) == 1) {
		ptr += len;
		last = first;
		if (sscanf(ptr, "-%d%n", &last, &len) == 1)
			ptr += len;
		for (node = first; node <= last; node++) {
			if (nr_known_nodes < MAX_NODES)
				nodes[nr_known_nodes++] = node;
		}
		if (*ptr == ',')
			ptr++;
	}
	return nr_known_nodes;
}

/* The index, among the nodes that have memory, of the page's node. */
int node_of(void *ptr)
{
	int status, i;

	if (sys_move_pages(1, &ptr, NULL, &status, MPOL_MF_MOVE))
		return -1;
	for (i = 0; i < nr_nodes(); i++) {
		if (nodes[i] == status)
			return i;
	}
	return -1;
}

/*
 * Migrate the pages that are present to a node, given by its index. Returns
 * how many pages are there now.
 */
static size_t do_migrate(void *ptr, size_t nr, int node_index, int flags)
{
	size_t i, there = 0, busy;
	int *to, *status, try;
	void **pages;

	pages = calloc(nr, sizeof(*pages));
	to = calloc(nr, sizeof(*to));
	status = calloc(nr, sizeof(*status));
	if (!pages || !to || !status)
		ksft_exit_fail_msg("out of memory\n");

	for (i = 0; i < nr; i++) {
		pages[i] = (char *)ptr + PAGES(i);
		to[i] = nodes[node_index];
	}
	for (try = 0; try < PATIENCE; try++) {
		there = 0;
		busy = 0;
		if (sys_move_pages(nr, pages, to, status, flags) < 0)
			break;
		/* What it says of a page that did not move may be old. */
		if (sys_move_pages(nr, pages, NULL, status, flags) < 0)
			break;
		for (i = 0; i < nr; i++) {
			if (status[i] == nodes[node_index])
				there++;
			else if (status[i] >= 0 || status[i] == -EBUSY)
				busy++;
		}
		if (!busy)
			break;
	}
	free(pages);
	free(to);
	free(status);
	return there;
}

size_t migrate(void *ptr, size_t nr, int node_index)
{
	return do_migrate(ptr, nr, node_index, MPOL_MF_MOVE);
}

/* The same, even if other processes map them too. Needs CAP_SYS_NICE. */
size_t migrate_shared(void *ptr, size_t nr, int node_index)
{
	return do_migrate(ptr, nr, node_index, MPOL_MF_MOVE_ALL);
}

/*
 * Reclaim until 'want' pages are swapped out. Returns how many are. What was
 * swapped in a moment ago may still be on its way out, to a disk that is slow.
 */
size_t pageout(struct arena *arena, void *ptr, size_t nr, size_t want)
{
	size_t swapped = 0;
	int try;

	for (try = 0; try < 10 * PATIENCE; try++) {
		if (madvise(ptr, PAGES(nr), MADV_PAGEOUT))
			ksft_exit_fail_perror("MADV_PAGEOUT");
		swapped = nr_swapped(arena, ptr, nr);
		if (swapped >= want)
			break;
		usleep(5000);
	}
	return swapped;
}

/* What keeps a page that should have been reclaimed? */
static void print_present(struct arena *arena, char *ptr, size_t nr)
{
	size_t i;

	for (i = 0; i < nr; i++) {
		if (!nr_present(arena, ptr + PAGES(i), 1))
			continue;
		ksft_print_msg("page %zu of %zu has flags %llx, folio of %zu\n",
			       i, nr,
			       (unsigned long long)page_flags(arena, ptr + PAGES(i)),
			       folio_pages(arena, ptr + PAGES(i)));
		return;
	}
}

/* Bit n of /sys/kernel/mm/page_idle/bitmap is for the folio at pfn n. */
static int idle_bitmap = -1;

static bool can_idle(void)
{
	return idle_bitmap >= 0;
}

static void mark_idle(unsigned long pfn)
{
	__u64 word = BIT_ULL(pfn % 64);

	if (pwrite(idle_bitmap, &word, sizeof(word), pfn / 64 * sizeof(word)) !=
	    sizeof(word))
		ksft_exit_fail_perror("write to page_idle/bitmap");
}

static bool is_idle(unsigned long pfn)
{
	__u64 word;

	if (pread(idle_bitmap, &word, sizeof(word), pfn / 64 * sizeof(word)) !=
	    sizeof(word))
		ksft_exit_fail_perror("page_idle/bitmap");
	return word & BIT_ULL(pfn % 64);
}

/*
 * Have the processor forget where pages are mapped: for so many, the kernel
 * does not name one after the other. On the way, MADV_COLD empties this CPU's
 * batch of folios that wait for the LRU lists.
 */
static void forget_translations(void)
{
	const size_t len = PAGES(1024);
	char *ptr = mmap(NULL, len, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (ptr == MAP_FAILED || madvise(ptr, len, MADV_NOHUGEPAGE))
		ksft_exit_fail_perror("mmap");
	force_read_pages(ptr, 1024, psize());
	if (madvise(ptr, len, MADV_COLD) || munmap(ptr, len))
		ksft_exit_fail_perror("MADV_COLD");
}

/*
 * Mark each folio as idle, use it, and ask whether it is idle: for the answer,
 * the kernel looks from the page for the page table entries, and for a sign of
 * use in them. Returns how many pages are found, up to the first that is not.
 */
static size_t nr_found_used(struct arena *arena, char *ptr, size_t nr)
{
	unsigned long *pfns = calloc(nr, sizeof(*pfns));
	size_t i;

	if (!pfns)
		ksft_exit_fail_msg("out of memory\n");
	forget_translations();
	for (i = 0; i < nr; i++) {
		pfns[i] = head_pfn(arena, ptr + PAGES(i));
		if (!pfns[i])
			goto out;
		mark_idle(pfns[i]);
		if (!is_idle(pfns[i]))
			goto out;
	}
	forget_translations();
	force_read_pages(ptr, nr, psize());
	for (i = 0; i < nr; i++) {
		if (is_idle(pfns[i]))
			break;
	}
out:
	free(pfns);
	return i;
}

/* Say it once for all tests, before the first of them. */
static void __attribute__((constructor)) say_how_to_find(void)
{
	bool by_node = nr_nodes() > 1, by_swap = can_swap();

	if (!by_node && !by_swap)
		idle_bitmap = open("/sys/kernel/mm/page_idle/bitmap",
				   O_RDWR | O_CLOEXEC);
	trace_start();
	ksft_print_msg("What was relocated is told by: mappings%s\n",
		       can_trace() ? ", trace events" : " (no tracefs)");
	ksft_print_msg("The reverse mapping is tested by:%s%s%s\n",
		       by_node ? " migration" : "", by_swap ? " reclaim" : "",
		       can_idle() ? " page_idle" :
		       by_node || by_swap ? "" :
		       " nothing, only bytes are compared (no second node, no swap, no page_idle)");
}

bool healthy_from(struct arena *arena, char *ptr, size_t nr,
		  unsigned long seed, size_t first)
{
	size_t done;

	if (!intact_from(ptr, nr, seed, first))
		return false;

	if (nr_nodes() > 1) {
		int node;

		/* Whatever the node they are on, one of the two is a change. */
		for (node = 0; node < 2; node++) {
			done = migrate(ptr, nr, node);
			if (done != nr) {
				ksft_print_msg("migrated only %zu of %zu pages\n",
					       done, nr);
				return false;
			}
		}
		if (!intact_from(ptr, nr, seed, first)) {
			ksft_print_msg("... after migration\n");
			return false;
		}
	}

	if (can_swap()) {
		done = pageout(arena, ptr, nr, nr);
		if (done != nr) {
			ksft_print_msg("reclaimed only %zu of %zu pages\n",
				       done, nr);
			print_present(arena, ptr, nr);
			return false;
		}
		if (!intact_from(ptr, nr, seed, first)) {
			ksft_print_msg("... after reclaim\n");
			return false;
		}
	}

	if (can_idle()) {
		done = nr_found_used(arena, ptr, nr);
		if (done != nr) {
			ksft_print_msg("page %zu of %zu is not found to be in use\n",
				       done, nr);
			return false;
		}
	}
	return true;
}

/* Returns -1 if there is no userfaultfd with these features. */
int open_uffd(__u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return -1;
	if (ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		return -1;
	}
	return fd;
}

void step_init(struct step *step)
{
	if (pipe(step->fds[0]) || pipe(step->fds[1]))
		ksft_exit_fail_perror("pipe");
}

void step_tell(struct step *step, bool child)
{
	if (write(step->fds[child][1], "x", 1) != 1)
		ksft_exit_fail_perror("write to the pipe");
}

/* If the other side failed, it will never tell. */
void step_wait(struct step *step, bool child)
{
	struct pollfd pollfd = { .fd = step->fds[!child][0], .events = POLLIN };
	char byte;

	if (poll(&pollfd, 1, 20000) != 1)
		ksft_exit_fail_msg("the other process does not answer\n");
	if (read(step->fds[!child][0], &byte, 1) != 1)
		ksft_exit_fail_perror("read from the pipe");
}

pid_t fork_child(struct arena *arena)
{
	pid_t pid = fork();

	if (pid < 0)
		ksft_exit_fail_perror("fork");
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		arena_reopen(arena);
	}
	return pid;
}

pid_t share_with_child(struct arena *arena, char *ptr, size_t nr, size_t first,
		       unsigned long seed, struct step *step)
{
	pid_t pid;

	if (madvise(ptr, PAGES(first), MADV_DONTFORK))
		ksft_exit_fail_perror("MADV_DONTFORK");
	step_init(step);
	pid = fork_child(arena);
	if (!pid) {
		wait_for_parent(step);
		_exit(!intact_from(ptr + PAGES(first), nr - first, seed, first));
	}
	if (madvise(ptr, PAGES(first), MADV_DOFORK))
		ksft_exit_fail_perror("MADV_DOFORK");
	return pid;
}

bool reap(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		ksft_exit_fail_perror("waitpid");
	if (WIFSIGNALED(status))
		ksft_print_msg("child killed by signal %d\n", WTERMSIG(status));
	else if (WEXITSTATUS(status))
		ksft_print_msg("child exited with %d\n", WEXITSTATUS(status));
	return WIFEXITED(status) && !WEXITSTATUS(status);
}

bool kill_child(pid_t pid)
{
	int status, try;

	kill(pid, SIGKILL);
	for (try = 0; try < 10000; try++) {
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
		usleep(1000);
	}
	return false;
}

static void *migrator(void *arg)
{
	struct migrator *mig = arg;
	void *pages[64];
	int to[64], status[64];
	int round, node = 0;
	cpu_set_t set;
	size_t i;

	/* Run elsewhere than the thread that moves the range. */
	memset(&set, 0xff, sizeof(set));
	sched_setaffinity(0, sizeof(set), &set);

	for (round = 0; !__atomic_load_n(&mig->stop, __ATOMIC_ACQUIRE); round++) {
		char *ptr = mig->ptr[round & 1];

		if (!(round & 1))
			node ^= 1;
		for (i = 0; i < mig->nr; i++) {
			pages[i] = ptr + PAGES(i);
			to[i] = nodes[node];
			status[i] = -1;
		}
		if (sys_move_pages(mig->nr, pages, to, status, MPOL_MF_MOVE) < 0)
			continue;
		for (i = 0; i < mig->nr; i++) {
			if (status[i] == nodes[node])
				__atomic_fetch_add(&mig->migrated, 1, __ATOMIC_RELEASE);
		}
	}
	return NULL;
}

void migrator_start(struct migrator *mig, char *one, char *other, size_t nr)
{
	memset(mig, 0, sizeof(*mig));
	mig->ptr[0] = one;
	mig->ptr[1] = other;
	mig->nr = nr > 64 ? 64 : nr;
	if (pthread_create(&mig->thread, NULL, migrator, mig))
		ksft_exit_fail_msg("cannot create a thread\n");
}

/* Wait until so many pages have been migrated. */
void migrator_wait(struct migrator *mig, unsigned long migrated)
{
	while (__atomic_load_n(&mig->migrated, __ATOMIC_ACQUIRE) < migrated)
		sched_yield();
}

unsigned long migrator_stop(struct migrator *mig)
{
	__atomic_store_n(&mig->stop, true, __ATOMIC_RELEASE);
	pthread_join(mig->thread, NULL);
	return mig->migrated;
}
