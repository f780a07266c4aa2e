// SPDX-License-Identifier: GPL-2.0
/*
 * What the kernel shows of the processes under test, from outside of them, so
 * that looking changes nothing. It knows nothing of the picture.
 */
#include <fcntl.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "fuzz.h"

struct before before __attribute__((aligned(4096)));
uint64_t now[NR_PAGES];
struct mapping seen[MAX_VMAS];
int nr_seen;
bool has_soft_dirty;
unsigned long nr_pages, nr_swapped, nr_large;

static bool mapped_now[NR_PAGES], mapped_read;
static int kpageflags = -1, kmsg = -1, meminfo = -1, vmstat = -1, trace_pipe = -1;
static uint64_t zero_pfn;

#define TRACING	"/sys/kernel/tracing/"

/* Without tracefs, or on a kernel without the event, go without it. */
static void trace_start(void)
{
	int fd = open(TRACING "events/mremap/mremap_relocate/enable", O_WRONLY);

	if (fd < 0)
		return;
	if (write(fd, "1", 1) == 1)
		trace_pipe = open(TRACING "trace_pipe", O_RDONLY | O_NONBLOCK);
	close(fd);
}

void observe_init(void)
{
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	uint64_t entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	/* The zero page, and not a part of a huge one. */
	if (page == MAP_FAILED || madvise(page, PAGE, MADV_NOHUGEPAGE)) {
		perror("a page of zeroes");
		exit(1);
	}
	(void)*(volatile char *)page;
	if (pread(fd, &entry, sizeof(entry), (unsigned long)page / PAGE * 8) > 0)
		zero_pfn = entry & PM_PFN;
	*(volatile char *)page = 1;
	if (pread(fd, &entry, sizeof(entry), (unsigned long)page / PAGE * 8) > 0)
		has_soft_dirty = entry & PM_SOFT_DIRTY;
	munmap(page, PAGE);
	close(fd);
	kpageflags = open("/proc/kpageflags", O_RDONLY);
	meminfo = open("/proc/meminfo", O_RDONLY);
	vmstat = open("/proc/vmstat", O_RDONLY);
	kmsg = open("/dev/kmsg", O_RDWR | O_NONBLOCK);
	if (kmsg >= 0)
		lseek(kmsg, 0, SEEK_END);
	trace_start();
}

static bool is_alive(int who)
{
	return control->pids[who];
}

/* The page table entries of the arena. */
void read_pagemap(int who, uint64_t *entries)
{
	char path[64];
	int fd;

	sprintf(path, "/proc/%d/pagemap", control->pids[who]);
	fd = open(path, O_RDONLY);
	memset(entries, 0, NR_PAGES * sizeof(*entries));
	if (fd < 0 || pread(fd, entries, NR_PAGES * sizeof(*entries),
			    arena_base() / PAGE * sizeof(*entries)) < 0)
		perror(path);
	close(fd);
}

void read_now(int who)
{
	read_pagemap(who, now);
}

bool is_present(int page)
{
	return now[page] & PM_PRESENT;
}

/* Of the page that an entry stands for. */
uint64_t page_flags(uint64_t entry)
{
	uint64_t flags = 0;

	if (kpageflags < 0 || !(entry & PM_PRESENT) || !(entry & PM_PFN))
		return 0;
	if (pread(kpageflags, &flags, sizeof(flags), (entry & PM_PFN) * 8) < 0)
		return 0;
	return flags & (KPF_HEAD | KPF_TAIL | KPF_ZERO);
}

bool is_page(uint64_t entry)
{
	/* Markers, of guard regions for example, are no swap entries. */
	if (entry & PM_SWAP)
		return (entry & PM_SWAP_TYPE) < 16;
	return (entry & PM_PRESENT) && (entry & PM_PFN) != zero_pfn;
}

static void take_flags(int who, int start, int end)
{
	for (start = max_int(start, 0); start < min_int(end, NR_PAGES); start++)
		before.kf[who][start] = page_flags(before.pm[who][start]);
}

/* Look at what a call of mremap() will find. */
void take_before(struct op *op)
{
	const bool relocates = op->flags & (RELOCATE | MUST);
	int who, i;

	before.taken = op->type == OP_MREMAP;
	mapped_read = false;
	if (!before.taken)
		return;
	before.page = op->page < 0 ? 0 : op->page;
	before.nr = op->nr;
	if (before.page + before.nr > NR_PAGES)
		before.nr = before.page < NR_PAGES ? NR_PAGES - before.page : 0;
	for (i = 0; i < NR_PAGES; i++)
		before.place[i] = i;
	for (who = 0; who < NR_PROCS; who++) {
		if (!is_alive(who) || (who != op->who && !relocates))
			continue;
		read_pagemap(who, before.pm[who]);
		if (!thp_mode || !relocates)
			continue;
		take_flags(who, before.page, before.page + before.nr);
		if (op->flags & FIXED)
			take_flags(who, op->to, op->to + op->new_nr);
	}
	read_counters(&before.counters);
	read_event();
}

/* Pages have moved; behind them, there was nothing in the new place. */
void before_moved(int from, int nr, int to, int new_nr)
{
	int i;

	for (i = 0; i < new_nr; i++)
		before.place[to + i] = i < nr ? from + i : -1;
}

/* What was in the page table entry that is now that of the page? */
static uint64_t entry_before(int who, int page)
{
	return before.place[page] < 0 ? 0 : before.pm[who][before.place[page]];
}

static uint64_t flags_before(int who, int page)
{
	return before.place[page] < 0 ? 0 : before.kf[who][before.place[page]];
}

bool others_alive(int me)
{
	int who;

	for (who = 0; who < NR_PROCS; who++) {
		if (who != me && is_alive(who))
			return true;
	}
	return false;
}

/* Was there a page or a swap entry, of which we can say who else has it? */
bool had_page(int who, int page)
{
	uint64_t entry = entry_before(who, page);

	if (!is_page(entry))
		return false;
	if (thp_mode && (flags_before(who, page) & KPF_ZERO))
		return false;
	return entry & (PM_SWAP | PM_PFN);
}

bool had_zero_page(int who, int page)
{
	uint64_t entry = entry_before(who, page);

	return (entry & PM_PRESENT) && (entry & PM_PFN) == zero_pfn;
}

/* Did another process show the same page or swap entry? */
bool had_other_owner(int me, int page)
{
	const uint64_t same = PM_PFN | PM_SWAP | PM_PRESENT;
	int who, i;

	for (who = 0; who < NR_PROCS; who++) {
		if (who == me || !is_alive(who))
			continue;
		for (i = 0; i < NR_PAGES; i++) {
			if (!((before.pm[who][i] ^ entry_before(me, page)) & same))
				return true;
		}
	}
	return false;
}

/*
 * Was some large folio not mapped in [start, end) as a whole? Then it has to be
 * split, and that may fail.
 */
bool was_cut(int who, int start, int end)
{
	int i;

	if (!thp_mode || opt.disturb)
		return thp_mode;
	for (i = start; i < end; i++) {
		const uint64_t entry = entry_before(who, i);
		const uint64_t flags = flags_before(who, i), pfn = entry & PM_PFN;

		/* Of what size its folio was, or is, we do not see. */
		if (entry & PM_SWAP)
			return true;
		if (!(flags & (KPF_HEAD | KPF_TAIL)) || (flags & KPF_ZERO))
			continue;
		if ((flags & KPF_TAIL) &&
		    (i == start || (entry_before(who, i - 1) & PM_PFN) + 1 != pfn))
			return true;
		if (i + 1 < end && (entry_before(who, i + 1) & PM_PFN) == pfn + 1)
			continue;
		if (page_flags(entry + 1) & KPF_TAIL)
			return true;
	}
	return false;
}

/* What has been relocated, for the last line. */
void count_entries(int who, int start, int end, struct rehomed *sum)
{
	for (; start < end; start++) {
		const uint64_t entry = entry_before(who, start);

		if (!is_page(entry))
			continue;
		nr_pages++;
		if (entry & PM_SWAP) {
			nr_swapped++;
			sum->swapped++;
		} else {
			sum->present++;
		}
		nr_large += thp_mode &&
			    (flags_before(who, start) & (KPF_HEAD | KPF_TAIL));
	}
}

/* A file in /proc. */
const char *read_file(int who, const char *name)
{
	static char text[1 << 19];
	char path[64];
	int fd, len = 0, ret;

	sprintf(path, "/proc/%d/%s", control->pids[who], name);
	fd = open(path, O_RDONLY);
	while (fd >= 0 && (ret = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += ret;
	text[len] = 0;
	close(fd);
	return text;
}

/* A line of maps or smaps. Is it the head of a mapping in the arena? */
bool parse_mapping(const char *line, struct mapping *s)
{
	const unsigned long base = arena_base();
	unsigned long start, end;
	char prot[5], *dash;
	const char *eol = strchr(line, '\n');
	const char *name;

	/* No sscanf(), which looks for the end of all the text. */
	start = strtoul(line, &dash, 16);
	if (*dash != '-')
		return false;
	end = strtoul(dash + 1, &dash, 16);
	if (start < base || end > base + NR_PAGES * PAGE || *dash != ' ')
		return false;
	memcpy(prot, dash + 1, 4);
	s->start = (start - base) / PAGE;
	s->end = (end - base) / PAGE;
	s->prot = (prot[0] == 'r' ? PROT_READ : 0) |
		  (prot[1] == 'w' ? PROT_WRITE : 0) |
		  (prot[2] == 'x' ? PROT_EXEC : 0);
	s->shared = prot[3] == 's';
	s->name = 0;
	name = memmem(line, eol - line, "[anon", 5);
	if (name && memmem(name, eol - name, ":red]", 5))
		s->name = 1;
	if (name && memmem(name, eol - name, ":blue]", 6))
		s->name = 2;
	return true;
}

void read_maps(int who)
{
	const char *line = read_file(who, "maps"), *next;

	nr_seen = 0;
	for (; *line; line = next + 1) {
		next = strchr(line, '\n');
		if (!next)
			break;
		if (parse_mapping(line, &seen[nr_seen]))
			nr_seen++;
	}
}

bool is_mapped_now(int who, int page)
{
	int i, k;

	if (!mapped_read) {
		read_maps(who);
		memset(mapped_now, 0, sizeof(mapped_now));
		for (i = 0; i < nr_seen; i++) {
			for (k = seen[i].start; k < seen[i].end; k++)
				mapped_now[k] = true;
		}
		mapped_read = true;
	}
	return mapped_now[page];
}

long figure(const char *text, const char *name)
{
	const char *line = strstr(text, name);

	return line ? atol(line + strlen(name)) : -1;
}

/* The events that the kernel has counted, -1 where it has no such counter. */
void read_counters(struct counters *c)
{
	static char text[1 << 16];
	int len = 0, ret;

	lseek(vmstat, 0, SEEK_SET);
	while ((ret = read(vmstat, text + len, sizeof(text) - 1 - len)) > 0)
		len += ret;
	text[len] = 0;
	c->vmas = figure(text, "\nmremap_relocate ");
	c->pages = figure(text, "\nmremap_relocate_pages ");
	c->refused = figure(text, "\nmremap_relocate_refused ");
}

/* What the trace event says, or NULL; good until the next call. */
const char *read_event(void)
{
	static char text[1 << 14];
	char *event = NULL, *eol;
	int len;

	if (trace_pipe < 0)
		return NULL;
	while ((len = read(trace_pipe, text, sizeof(text) - 1)) > 0) {
		text[len] = 0;
		event = strstr(text, "mremap_relocate: ");
	}
	if (!event)
		return NULL;
	event += strlen("mremap_relocate: ");
	eol = strchr(event, '\n');
	if (eol)
		*eol = 0;
	return event;
}

bool has_events(void)
{
	return trace_pipe >= 0;
}

long committed(void)
{
	static char text[8192];
	int len;

	len = pread(meminfo, text, sizeof(text) - 1, 0);
	text[len < 0 ? 0 : len] = 0;
	return figure(text, "Committed_AS:");
}

/* Does the kernel's log have a report? */
const char *kernel_says(void)
{
	static const char * const bad[] = {
		"WARNING:", "BUG:", "BUG at", "KASAN", "KCSAN", "UBSAN",
		"possible circular", "possible recursive", "suspicious RCU",
		"Bad page", "Bad rss", "bad pmd", "list_del corruption",
		"list_add corruption", "kmemleak: ",
	};
	char line[2048];
	const char *ret = NULL;
	unsigned int i;
	int len;

	while (kmsg >= 0) {
		len = read(kmsg, line, sizeof(line) - 1);
		if (len < 0 && errno == EPIPE)
			continue;
		if (len <= 0)
			break;
		line[len] = 0;
		for (i = 0; !ret && i < ARRAY_SIZE(bad); i++) {
			if (strstr(line, bad[i]))
				ret = fail("the kernel reports: %s",
					   strchr(line, ';') ? strchr(line, ';') + 1 :
					   line);
		}
	}
	return ret;
}
