// SPDX-License-Identifier: GPL-2.0
/*
 * Compare the picture with the kernel, from outside of the process under test,
 * so that looking changes nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "fuzz.h"

#define PM_PFN		((1ull << 55) - 1)
#define PM_SWAP_TYPE	31ull
#define PM_SOFT_DIRTY	(1ull << 55)
#define PM_UFFD_WP	(1ull << 57)
#define PM_FILE		(1ull << 61)
#define PM_SWAP		(1ull << 62)
#define PM_PRESENT	(1ull << 63)
#define PM_SAME		(PM_PFN | PM_FILE | PM_SWAP | PM_PRESENT)

#define KPF_HEAD	(1ull << 15)
#define KPF_TAIL	(1ull << 16)
#define KPF_ZERO	(1ull << 24)

struct before before __attribute__((aligned(4096)));

static uint64_t now[NR_PAGES];
static bool mapped_now[NR_PAGES], mapped_read;
static int kpageflags = -1, kmsg = -1, meminfo = -1;
static uint64_t zero_pfn;
static bool has_soft_dirty;

const char *fail(const char *fmt, ...)
{
	static char text[2][4096];
	static int turn;
	va_list args;

	turn ^= 1;
	va_start(args, fmt);
	vsnprintf(text[turn], sizeof(text[0]), fmt, args);
	va_end(args);
	return text[turn];
}

static void read_pagemap(pid_t pid, uint64_t *entries)
{
	char path[64];
	int fd;

	sprintf(path, "/proc/%d/pagemap", pid);
	fd = open(path, O_RDONLY);
	memset(entries, 0, NR_PAGES * sizeof(*entries));
	if (fd < 0 || pread(fd, entries, NR_PAGES * sizeof(*entries),
			    arena_base() / PAGE * sizeof(*entries)) < 0)
		perror(path);
	close(fd);
}

static uint64_t page_flags(uint64_t entry)
{
	uint64_t flags = 0;

	if (kpageflags < 0 || !(entry & PM_PRESENT) || !(entry & PM_PFN))
		return 0;
	if (pread(kpageflags, &flags, sizeof(flags), (entry & PM_PFN) * 8) < 0)
		return 0;
	return flags & (KPF_HEAD | KPF_TAIL | KPF_ZERO);
}

void check_init(void)
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
	kmsg = open("/dev/kmsg", O_RDWR | O_NONBLOCK);
	if (kmsg >= 0)
		lseek(kmsg, 0, SEEK_END);
}

static bool is_page(uint64_t entry)
{
	/* Markers, of guard regions for example, are no swap entries. */
	if (entry & PM_SWAP)
		return (entry & PM_SWAP_TYPE) < 16;
	return (entry & PM_PRESENT) && (entry & PM_PFN) != zero_pfn;
}

void take_before(struct op *op)
{
	int who, i;

	before.taken = op->type == OP_MREMAP;
	mapped_read = false;
	if (!before.taken)
		return;
	before.page = op->page < 0 ? 0 : op->page;
	before.nr = op->nr;
	if (before.page + before.nr > NR_PAGES)
		before.nr = before.page < NR_PAGES ? NR_PAGES - before.page : 0;
	for (who = 0; who < NR_PROCS; who++) {
		if (!m.proc[who].alive)
			continue;
		if (who != op->who && !(op->flags & (RELOCATE | MUST)))
			continue;
		read_pagemap(m.proc[who].pid, before.pm[who]);
		if (!thp_mode || !(op->flags & (RELOCATE | MUST)))
			continue;
		for (i = before.page; i < before.page + before.nr; i++)
			before.kf[who][i] = page_flags(before.pm[who][i]);
	}
}

/*
 * Does another process show the same page or swap entry? Of a page that came
 * with a large folio, and which nobody wrote, it is not always known.
 */
enum sharing observed(struct proc *p, int start, int end)
{
	const int me = p - m.proc;
	enum sharing ret = SOLE;
	bool others = false;
	int who, i, k;

	for (who = 0; who < NR_PROCS; who++)
		others |= who != me && m.proc[who].alive;
	if (!others)
		return SOLE;
	if (opt.disturb)
		return UNSURE;
	for (i = start; i < end; i++) {
		uint64_t entry = before.pm[me][i];

		if (!is_page(entry))
			continue;
		if (thp_mode && (before.kf[me][i] & KPF_ZERO))
			continue;
		if (!(entry & PM_SWAP) && !(entry & PM_PFN))
			continue;
		for (who = 0; who < NR_PROCS; who++) {
			if (who == me || !m.proc[who].alive)
				continue;
			for (k = 0; k < NR_PAGES; k++) {
				if (((before.pm[who][k] ^ entry) &
				     (PM_PFN | PM_SWAP | PM_PRESENT)) == 0)
					return SHARED_PAGE;
			}
		}
		if (thp_mode && !p->p[i].inst)
			ret = UNSURE;
	}
	return ret;
}

/*
 * Is some large folio not mapped in [start, end) as a whole? Then it has to be
 * split, and that may fail.
 */
bool is_cut(struct proc *p, int start, int end)
{
	const int me = p - m.proc;
	uint64_t *pm = before.pm[me], *kf = before.kf[me];
	int i;

	if (!thp_mode || opt.disturb)
		return thp_mode;
	for (i = start; i < end; i++) {
		/* Of what size its folio was, or is, we do not see. */
		if (pm[i] & PM_SWAP)
			return true;
		if (!(kf[i] & (KPF_HEAD | KPF_TAIL)) || (kf[i] & KPF_ZERO))
			continue;
		if ((kf[i] & KPF_TAIL) &&
		    (i == start || (pm[i - 1] & PM_PFN) + 1 != (pm[i] & PM_PFN)))
			return true;
		if (i + 1 < end && (pm[i + 1] & PM_PFN) == (pm[i] & PM_PFN) + 1)
			continue;
		if (page_flags(pm[i] + 1) & KPF_TAIL)
			return true;
	}
	return false;
}

unsigned long nr_pages, nr_swapped, nr_large;

/* What has been relocated, for the last line. */
void count_entries(struct proc *p, int start, int nr)
{
	uint64_t *pm = before.pm[p - m.proc], *kf = before.kf[p - m.proc];
	int i;

	for (i = start; i < start + nr; i++) {
		if (!is_page(pm[i]))
			continue;
		nr_pages++;
		nr_swapped += !!(pm[i] & PM_SWAP);
		nr_large += thp_mode && (kf[i] & (KPF_HEAD | KPF_TAIL));
	}
}

void read_now(int who)
{
	read_pagemap(m.proc[who].pid, now);
}

bool is_present(int who, int page)
{
	return now[page] & PM_PRESENT;
}

static const char *check_other_folios(int me)
{
	static uint64_t pm[NR_PAGES];
	int who, i;

	if (!thp_mode)
		return NULL;
	for (who = 0; who < NR_PROCS; who++) {
		if (who == me || !m.proc[who].alive)
			continue;
		read_pagemap(m.proc[who].pid, pm);
		for (i = before.page; i < before.page + before.nr; i++) {
			uint64_t flags = page_flags(pm[i]);

			if ((pm[i] & PM_SAME) == (before.pm[who][i] & PM_SAME) &&
			    flags != before.kf[who][i])
				return fail("process %d, page %d: its folio was split for nothing",
					    who, i);
		}
	}
	return NULL;
}

/* Has each page table entry come to its new place, with its bits? */
const char *check_moved(struct proc *p, int from, int to, int nr, bool wp_lost,
			bool folios)
{
	const int me = p - m.proc;
	int i;

	if (opt.disturb)
		return NULL;
	for (i = 0; i < nr; i++) {
		uint64_t was = before.pm[me][from + i], is = now[to + i];

		if (wp_lost && !(was & (PM_SWAP | PM_PRESENT)))
			continue;
		/* The split of a cut folio does so. */
		if (thp_mode && is_page(was) && !is_page(is) &&
		    (is & PM_PRESENT) && !p->p[to + i].stamp)
			continue;
		if ((was ^ is) & PM_SAME)
			return fail("page %d moved to %d: entry %#llx became %#llx",
				    from + i, to + i, (unsigned long long)was,
				    (unsigned long long)is);
		if ((was & PM_SOFT_DIRTY) && !(is & PM_SOFT_DIRTY))
			return fail("page %d moved to %d: soft-dirty is lost",
				    from + i, to + i);
		/* A page table may move as it is. */
		if (has_soft_dirty && (from - to) % BLOCK && is_page(was) &&
		    !(is & PM_SOFT_DIRTY))
			return fail("page %d moved to %d: not soft-dirty", from + i,
				    to + i);
		if (!wp_lost && ((was ^ is) & PM_UFFD_WP))
			return fail("page %d moved to %d: write protection is lost",
				    from + i, to + i);
		if (wp_lost && (is & PM_UFFD_WP))
			return fail("page %d moved to %d: still write-protected",
				    from + i, to + i);
		if (folios && thp_mode && page_flags(is) != before.kf[me][from + i])
			return fail("page %d moved to %d: its folio was split, though it is shared",
				    from + i, to + i);
	}
	return folios ? check_other_folios(me) : NULL;
}

/*
 * A call has failed, or was to relocate in place: is everything where it was? In
 * place, a large folio can be split that an end of the range cuts, and a page is
 * soft-dirty if its VMA has merged with one that is.
 */
const char *check_unchanged(struct proc *p, int from, int nr, bool in_place)
{
	const uint64_t same = PM_SAME | PM_UFFD_WP | PM_SOFT_DIRTY;
	const int me = p - m.proc;
	uint64_t is;
	int i;

	if (opt.disturb)
		return NULL;
	for (i = from; i < from + nr && i < NR_PAGES; i++) {
		is = now[i];
		if (in_place && !(before.pm[me][i] & PM_SOFT_DIRTY))
			is &= ~PM_SOFT_DIRTY;
		if ((before.pm[me][i] ^ is) & same)
			return fail("page %d: nothing was to change, but entry %#llx is %#llx",
				    i, (unsigned long long)before.pm[me][i],
				    (unsigned long long)now[i]);
		if (!in_place && thp_mode && page_flags(now[i]) != before.kf[me][i])
			return fail("page %d: the call failed, but split the folio", i);
	}
	return check_other_folios(me);
}

/* The VMAs of the arena. */
struct seen {
	int start, end, prot, name;
	bool shared;
};

static struct seen seen[MAX_VMAS];
static int nr_seen;

static const char *read_file(pid_t pid, const char *name)
{
	static char text[1 << 19];
	char path[64];
	int fd, len = 0, ret;

	sprintf(path, "/proc/%d/%s", pid, name);
	fd = open(path, O_RDONLY);
	while (fd >= 0 && (ret = read(fd, text + len, sizeof(text) - 1 - len)) > 0)
		len += ret;
	text[len] = 0;
	close(fd);
	return text;
}

static bool parse(const char *line, struct seen *s)
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

static void read_maps(struct proc *p)
{
	const char *line = read_file(p->pid, "maps"), *next;

	nr_seen = 0;
	for (; *line; line = next + 1) {
		next = strchr(line, '\n');
		if (!next)
			break;
		if (parse(line, &seen[nr_seen]))
			nr_seen++;
	}
}

bool is_mapped_now(int who, int page)
{
	int i, k;

	if (!mapped_read) {
		read_maps(&m.proc[who]);
		memset(mapped_now, 0, sizeof(mapped_now));
		for (i = 0; i < nr_seen; i++) {
			for (k = seen[i].start; k < seen[i].end; k++)
				mapped_now[k] = true;
		}
		mapped_read = true;
	}
	return mapped_now[page];
}

static const char *show_both(struct proc *p, const char *what, int page)
{
	static char text[3000];
	int i, len = 0;

	len += sprintf(text + len, "%s at page %d\n  kernel:", what, page);
	for (i = 0; i < nr_seen && len < 1300; i++)
		len += sprintf(text + len, " %d-%d:%d%s", seen[i].start, seen[i].end,
			       seen[i].prot, seen[i].shared ? "s" : "");
	len += sprintf(text + len, "\n  model: ");
	for (i = 0; i < p->nr && len < 2800; i++)
		len += sprintf(text + len, " %d-%d:%d%s(%ld,%u%s)", p->v[i].start,
			       p->v[i].end, p->v[i].a.prot,
			       p->v[i].fuzzy ? "?" : "", p->v[i].pgoff,
			       p->v[i].anon, p->v[i].child ? "c" : "");
	return fail("%s", text);
}

/* Are the VMAs those of the picture? Where it leaves a choice, follow. */
const char *check_layout(struct proc *p)
{
	static struct vma new[MAX_VMAS + 8];
	int i = 0, k, nr = 0, end = 0;

	read_maps(p);
	for (k = 0; k < nr_seen; k++) {
		struct seen *s = &seen[k];
		struct vma *v = &p->v[i], *out = &new[nr++];
		int start = s->start;

		if (i == p->nr || v->end <= s->start || v->start > s->start)
			return show_both(p, "unexpected mapping", s->start);
		*out = *v;
		out->maybe = false;
		out->start = start;
		out->pgoff += start - v->start;
		out->end = s->end;
		if (start > v->start) {
			if (start != end)
				return show_both(p, "no mapping", end);
			if (!v->fuzzy)
				return show_both(p, "not merged", start);
		}
		for (;;) {
			if (v->a.prot != s->prot || v->a.name != s->name ||
			    s->shared != (v->a.kind == SHARED))
				return show_both(p, "wrong attributes", start);
			if (v->end >= s->end)
				break;
			/* The kernel has merged it with the next one. */
			if (i + 1 == p->nr || v[1].start != v->end)
				return show_both(p, "unexpected mapping", v->end);
			if (!same_attr(v, v + 1))
				return show_both(p, "merged unlike mappings", v->end);
			if (!(v->fuzzy || v->maybe || v[1].fuzzy || v[1].maybe))
				return show_both(p, "merged", v->end);
			out->fuzzy = true;
			if (out->a.acct == ACCT_UNKNOWN)
				out->a.acct = v[1].a.acct;
			v++;
			i++;
		}
		end = s->end;
		if (v->end == s->end)
			i++;
		else if (!v->fuzzy)
			return show_both(p, k + 1 < nr_seen && seen[k + 1].start == end ?
					 "not merged" : "no mapping", end);
		else if (k + 1 == nr_seen || seen[k + 1].start != end)
			return show_both(p, "no mapping", end);
	}
	if (i < p->nr)
		return show_both(p, "no mapping", p->v[i].start);
	memcpy(p->v, new, nr * sizeof(new[0]));
	p->nr = nr;
	return NULL;
}

static long figure(const char *text, const char *name)
{
	const char *line = strstr(text, name);

	return line ? atol(line + strlen(name)) : -1;
}

static long base_size;

void books_start(struct proc *p)
{
	base_size = figure(read_file(p->pid, "status"), "VmSize:");
}

/* What the kernel counts of the process. */
const char *check_books(struct proc *p)
{
	const char *text;
	long size, locked, want_size, want_locked;

	if (p->books_off)
		return NULL;
	text = read_file(p->pid, "status");
	size = figure(text, "VmSize:") - base_size;
	locked = figure(text, "VmLck:");
	want_size = nr_mapped(p, false) * 4l;
	want_locked = nr_mapped(p, true) * 4l;
	if (size != want_size)
		return fail("VmSize is %ld kB of the arena instead of %ld", size,
			    want_size);
	if (locked != want_locked)
		return fail("VmLck is %ld kB instead of %ld", locked, want_locked);
	return NULL;
}

static bool flag(const char *line, const char *flag)
{
	const char *eol = strchr(line, '\n');

	return memmem(line, eol - line, flag, 4);
}

/* The flags of each VMA, in smaps. */
const char *check_flags(struct proc *p)
{
	const char *line = read_file(p->pid, "smaps"), *next;
	struct seen s = {};
	struct vma *v = NULL;
	int i;

	for (; *line && (next = strchr(line, '\n')); line = next + 1) {
		if (line[0] >= 'A' && line[0] <= 'Z') {
			if (!v || strncmp(line, "VmFlags:", 8))
				continue;
			if (flag(line, " lo ") != !!v->a.locked)
				return fail("VMA at %d: locked is wrong", v->start);
			if (flag(line, " hg ") != (v->a.thp == 1) ||
			    flag(line, " nh ") != (v->a.thp == 2))
				return fail("VMA at %d: THP advice is wrong", v->start);
			if (flag(line, " uw ") != !!v->a.uffd)
				return fail("VMA at %d: userfaultfd is wrong", v->start);
			if (!v->fuzzy && v->a.acct != ACCT_UNKNOWN &&
			    flag(line, " ac ") != v->a.acct && v->a.kind == ANON)
				return fail("VMA at %d: accounting is wrong", v->start);
			v = NULL;
			continue;
		}
		v = NULL;
		if (!parse(line, &s))
			continue;
		i = vma_at(p, s.start);
		if (i >= 0)
			v = &p->v[i];
	}
	return NULL;
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
