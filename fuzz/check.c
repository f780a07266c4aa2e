// SPDX-License-Identifier: GPL-2.0
/* Compare the picture with what the kernel shows. */
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include "fuzz.h"

/* The other processes share folios with this one, and keep them whole. */
static const char *check_other_folios(int me)
{
	static uint64_t pm[NR_PAGES];
	int who, i;

	if (!thp_mode)
		return NULL;
	for (who = 0; who < NR_PROCS; who++) {
		if (who == me || !m.proc[who].alive)
			continue;
		read_pagemap(who, pm);
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
static const char *check_moved(int who, const struct entries *e)
{
	int i;

	for (i = 0; i < e->nr; i++) {
		const int from = e->from + i, to = e->to + i;
		const uint64_t was = before.pm[who][from], is = now[to];

		if (e->wp_lost && !(was & (PM_SWAP | PM_PRESENT)))
			continue;
		/* The split of a cut folio does so. */
		if (thp_mode && is_page(was) && !is_page(is) &&
		    (is & PM_PRESENT) && !m.proc[who].p[to].stamp)
			continue;
		if ((was ^ is) & PM_SAME)
			return fail("page %d moved to %d: entry %#llx became %#llx",
				    from, to, (unsigned long long)was,
				    (unsigned long long)is);
		if ((was & PM_SOFT_DIRTY) && !(is & PM_SOFT_DIRTY))
			return fail("page %d moved to %d: soft-dirty is lost", from, to);
		/* A page table may move as it is. */
		if (has_soft_dirty && (from - to) % BLOCK && is_page(was) &&
		    !(is & PM_SOFT_DIRTY))
			return fail("page %d moved to %d: not soft-dirty", from, to);
		if (!e->wp_lost && ((was ^ is) & PM_UFFD_WP))
			return fail("page %d moved to %d: write protection is lost",
				    from, to);
		if (e->wp_lost && (is & PM_UFFD_WP))
			return fail("page %d moved to %d: still write-protected",
				    from, to);
		if (e->folios_whole && thp_mode &&
		    page_flags(is) != before.kf[who][from])
			return fail("page %d moved to %d: its folio was split for nothing",
				    from, to);
	}
	return e->folios_whole ? check_other_folios(who) : NULL;
}

/*
 * A call has failed, or was to relocate in place: is everything where it was? In
 * place, a large folio can be split that an end of the range cuts, and a page is
 * soft-dirty if its VMA has merged with one that is.
 */
static const char *check_unchanged(int who, const struct entries *e)
{
	const uint64_t same = PM_SAME | PM_UFFD_WP | PM_SOFT_DIRTY;
	const bool in_place = e->what == IN_PLACE;
	int i;

	for (i = e->from; i < e->from + e->nr && i < NR_PAGES; i++) {
		const uint64_t was = before.pm[who][i];
		uint64_t is = now[i];

		if (in_place && !(was & PM_SOFT_DIRTY))
			is &= ~PM_SOFT_DIRTY;
		if ((was ^ is) & same)
			return fail("page %d: nothing was to change, but entry %#llx is %#llx",
				    i, (unsigned long long)was,
				    (unsigned long long)now[i]);
		if (thp_mode && !(in_place && maybe_rehomed(i, 1)) &&
		    page_flags(now[i]) != before.kf[who][i])
			return fail("page %d: its folio was split for nothing", i);
	}
	return check_other_folios(who);
}

/* Has mremap() done to the page table entries what it was to do? */
const char *check_entries(int who)
{
	const char *why = NULL;
	int i;

	if (opt.disturb || !nr_entries)
		return NULL;
	read_now(who);
	for (i = 0; i < nr_entries && !why; i++) {
		if (entries[i].what == MOVED)
			why = check_moved(who, &entries[i]);
		else
			why = check_unchanged(who, &entries[i]);
	}
	return why;
}

static bool is_refusal(const char *name)
{
	int reason;

	for (reason = NONE; reason < A_FILE; reason++) {
		if (!strcmp(name, reason_names[reason]))
			return false;
	}
	return true;
}

/* Of a large folio, other reasons can come first. */
static bool is_reason(const char *name)
{
	if (expected.reason == CANNOT || (expected.reason == SHARED_PAGE && thp_mode))
		return is_refusal(name);
	return !strcmp(name, reason_names[expected.reason]);
}

static const char *check_event(int who, const struct result *res)
{
	const char *event = read_event(), *name;
	const int more = m.proc[who].nr - expected.nr_vmas;
	long result = res->ret < 0 ? res->ret : 0;

	if (!has_events())
		return NULL;
	if (!event != !expected.event)
		return fail(event ? "there is a trace event: %s" : "no trace event",
			    event);
	if (!event)
		return NULL;
	if (figure(event, "result=") != result)
		return fail("result is not %ld: %s", result, event);
	if (figure(event, "vmas_after=") - figure(event, "vmas_before=") != more)
		return fail("there are %d VMAs more: %s", more, event);
	if (expected.unsure || expected.unsure_reason)
		return NULL;
	if (!result && !expected.vmas)
		expected.reason = expected.reason ?: UNMOVED;
	name = strstr(event, "reason=");
	if (!name || !is_reason(name + strlen("reason=")))
		return fail("the reason is not %s: %s", reason_names[expected.reason],
			    event);
	return NULL;
}

/*
 * What the kernel counts: pages in swap if they still have a folio, and those of a
 * large folio that are not mapped as well.
 */
static const char *check_counters(void)
{
	const struct counters *was = &before.counters;
	struct counters is;

	read_counters(&is);
	if (is.vmas < 0 || expected.unsure)
		return NULL;
	is.vmas -= was->vmas;
	is.pages -= was->pages;
	is.refused -= was->refused;
	if (is.vmas != expected.vmas)
		return fail("%ld VMAs counted as relocated instead of %ld", is.vmas,
			    expected.vmas);
	if (is.refused != expected.refused)
		return fail("%ld VMAs counted as refused instead of %ld", is.refused,
			    expected.refused);
	if (thp_mode || opt.disturb)
		return NULL;
	if (is.pages < expected.pages.present ||
	    is.pages > expected.pages.present + expected.pages.swapped)
		return fail("%ld pages counted as relocated, with %ld present and %ld in swap",
			    is.pages, expected.pages.present, expected.pages.swapped);
	return NULL;
}

unsigned long nr_reports, nr_unsure;

/*
 * Has the kernel reported what a call of mremap() has relocated, and why not more?
 * After check_layout(), when the picture has as many VMAs as the kernel.
 */
const char *check_report(int who, const struct result *res)
{
	nr_reports += expected.event;
	nr_unsure += expected.event && expected.unsure;
	return check_event(who, res) ?: check_counters();
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
const char *check_layout(int who)
{
	static struct vma new[MAX_VMAS + 8];
	struct proc *p = &m.proc[who];
	int i = 0, k, nr = 0, end = 0;

	read_maps(who);
	for (k = 0; k < nr_seen; k++) {
		struct mapping *s = &seen[k];
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

static long base_size;

void books_start(int who)
{
	base_size = figure(read_file(who, "status"), "VmSize:");
}

/* What the kernel counts of the process. */
const char *check_books(int who)
{
	struct proc *p = &m.proc[who];
	const char *text;
	long size, locked, want_size, want_locked;

	if (p->books_off)
		return NULL;
	text = read_file(who, "status");
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
const char *check_flags(int who)
{
	const char *line = read_file(who, "smaps"), *next;
	struct proc *p = &m.proc[who];
	struct mapping s = {};
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
		if (!parse_mapping(line, &s))
			continue;
		i = vma_at(p, s.start);
		if (i >= 0)
			v = &p->v[i];
	}
	return NULL;
}
