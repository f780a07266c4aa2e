// SPDX-License-Identifier: GPL-2.0
/*
 * Which memory can be relocated, and what becomes of the VMAs of a range, in place
 * or after a move. This is where the pages are when relocation looks at them; what
 * observe.c saw of them was before the call, and it knows where.
 */
#include <string.h>
#include <sys/mman.h>
#include "fuzz.h"

struct expected expected;
unsigned long nr_relocated;

const char * const reason_names[] = {
	[NONE] = "none", [UNMOVED] = "unmoved", [UNFAULTED] = "unfaulted",
	[MERGES] = "merges", [A_FILE] = "file", [SHARED_MAPPING] = "shared_mapping",
	[SHARED_PAGE] = "shared_page", [CANNOT] = "another refusal",
};

enum sharing { SOLE, OTHERS, UNSURE };	/* Who has the pages? */

/* The call of relocate() that is looked at. */
static struct {
	int who;
	bool moved, must, had_memory;
} how;

/* Pages that may have been re-homed, and their folios split for it. */
static bool rehomed[NR_PAGES];

/* Before each call of mremap(). */
void relocate_start(void)
{
	memset(&expected, 0, sizeof(expected));
	memset(rehomed, 0, sizeof(rehomed));
}

bool maybe_rehomed(int start, int nr)
{
	return memchr(rehomed + start, true, nr);
}

/* See mremap_report_reason(). */
static void give_reason(enum reason reason)
{
	if (!expected.reason || (expected.reason < A_FILE && reason >= A_FILE))
		expected.reason = reason;
}

void refuse(enum reason reason)
{
	expected.refused++;
	give_reason(reason);
}

/* What kind of memory is it that cannot be relocated? NONE if it can. */
static enum reason wrong_kind(const struct vma *v)
{
	return v->a.kind == SHARED ? SHARED_MAPPING : v->a.kind == ZERO ? A_FILE : NONE;
}

/*
 * Did the kernel show a page of [start, end) in another process as well? Of a
 * page that came with a large folio, and which nobody wrote, it is not always
 * known.
 */
static enum sharing observed(int who, int start, int end)
{
	enum sharing ret = SOLE;
	int page;

	if (!others_alive(who))
		return SOLE;
	if (opt.disturb)
		return UNSURE;
	for (page = start; page < end; page++) {
		if (!had_page(who, page))
			continue;
		if (had_other_owner(who, page))
			return OTHERS;
		if (thp_mode && !m.proc[who].p[page].inst)
			ret = UNSURE;
	}
	return ret;
}

/* Does any other process have one of the pages of [start, end) as well? */
static enum sharing sharing(int who, int start, int end)
{
	struct proc *p = &m.proc[who];
	enum sharing ret = SOLE, seen;
	int page;

	for (page = start; page < end; page++) {
		uint32_t inst = p->p[page].inst;

		if (!inst || inst_refs[inst] == 1)
			continue;
		/*
		 * Of zeroes, a split of their folio makes zero pages, which
		 * nobody owns.
		 */
		if (!inst_unsure[inst] && (!thp_mode || p->p[page].stamp))
			return OTHERS;
		ret = UNSURE;
	}
	seen = observed(who, start, end);
	if (seen == OTHERS)
		return seen;
	if (seen == UNSURE || was_cut(who, start, end))
		ret = UNSURE;
	return ret;
}

/*
 * Is there more in a VMA than holes, zero pages and markers? If not, it ends as if
 * it had never been written to. Where a large folio of zeroes is split, zero pages
 * can take its place.
 */
static enum answer is_filled(int who, const struct vma *v, int start, int end)
{
	struct page *pages = m.proc[who].p;
	bool zero = false, page = false;
	int i;

	for (i = start; i < end; i++) {
		if (pages[i].inst && (pages[i].stamp || !thp_mode))
			return YES;
		zero |= had_zero_page(who, i);
		page |= had_page(who, i);
	}
	if (zero && v->a.uffd)
		return YES;
	if (opt.disturb)
		return thp_mode ? MAYBE : NO;
	if (!page)
		return NO;
	return was_cut(who, start, end) ? MAYBE : YES;
}

/* VMAs which only their history keeps apart, see vma_find_run() in mm/vma.c. */
struct run {
	int start, end;
	uint32_t anon;		/* The anon_vma that they are to share, 0: a new one. */
	bool can_merge;
	bool known;		/* Is all known that decides which VMAs need it? */
	bool sure;		/* And which of them can be relocated? */
};

static bool unsettled(const struct vma *v)
{
	return unknown(v) || v->maybe;
}

/* The VMA that has the page, if it is like @v. */
static struct vma *like(struct proc *p, const struct vma *v, int page)
{
	int i = page >= 0 && page < NR_PAGES ? vma_at(p, page) : -1;

	return i >= 0 && same_attr(&p->v[i], v) ? &p->v[i] : NULL;
}

static bool at_home(const struct vma *v)
{
	return v->pgoff == v->start;
}

/* See run_continues(). */
static bool merges_at_home(const struct vma *v)
{
	return v && at_home(v) && !(v->anon && v->child);
}

/*
 * Has MREMAP_MUST_RELOCATE_ANON found all of [start, end) of a VMA fit? Before a
 * move it looks at what is about to move, and will not be at home then.
 */
static bool was_checked(const struct vma *v, int start, int end)
{
	if (!how.must || !how.moved)
		return how.must;
	for (; start < end; start++) {
		if (before.place[start] == start)
			return false;
	}
	return !at_home(v);
}

/* Who has the pages of [start, end) of a VMA, as far as it matters? */
static enum sharing part_sharing(const struct vma *v, int start, int end)
{
	return was_checked(v, start, end) ? SOLE : sharing(how.who, start, end);
}

/* If [start, end) of a VMA is relocated, is it known how that ends? */
static bool can_foresee(const struct vma *v, int start, int end)
{
	switch (v->anon ? part_sharing(v, start, end) : OTHERS) {
	case OTHERS:
		return true;
	case SOLE:
		return is_filled(how.who, v, start, end) != MAYBE;
	default:
		return false;
	}
}

/* The run that begins at @start. */
static struct run find_run(int start, int end)
{
	struct run run = { .start = start, .known = true, .sure = how.had_memory };
	struct proc *p = &m.proc[how.who];
	struct vma *v, *next = &p->v[vma_at(p, start)];
	struct vma *prev = like(p, next, start - 1);
	int first_end = min_int(next->end, end);

	do {
		v = next;
		run.end = min_int(v->end, end);
		if (unsettled(v))
			run.known = false;
		else if (!can_foresee(v, max_int(v->start, start), run.end))
			run.sure = false;
		if (!run.anon && v->anon && at_home(v) && !v->child)
			run.anon = v->anon;
		next = like(p, v, run.end);
	} while (next && run.end < end);

	if ((prev && unsettled(prev)) || (next && unsettled(next)))
		run.known = false;
	if (merges_at_home(prev) && prev->anon)
		run.anon = prev->anon;
	else if (merges_at_home(next) && next->anon)
		run.anon = next->anon;
	run.can_merge = run.end != first_end || merges_at_home(prev) ||
			merges_at_home(next);
	run.sure &= run.known;
	return run;
}

/* See vma_run_needs(). */
static bool needs_relocation(const struct run *run, const struct vma *v)
{
	if (!v->anon)
		return false;
	if (!at_home(v))
		return true;
	if (v->start < run->start || v->end > run->end)
		return false;
	return run->anon ? v->anon != run->anon : run->can_merge;
}

/* Must [start, end) of a VMA be fit for MREMAP_MUST_RELOCATE_ANON? */
static enum answer is_wanted(struct run *run, const struct vma *v, int start, int end,
			     int distance)
{
	if (distance) {
		if (v->fuzzy)
			return MAYBE;
		return v->anon && (distance == SOMEWHERE ||
				   v->pgoff != v->start + distance);
	}
	if (start >= run->end)
		*run = find_run(start, end);
	return run->known ? needs_relocation(run, v) : MAYBE;
}

/*
 * What MREMAP_MUST_RELOCATE_ANON finds: can all of [start, end) be relocated that
 * has to be, after a move by @distance, or in place?
 */
enum answer can_relocate(int who, int start, int end, int distance)
{
	struct run run = { .end = start };
	struct proc *p = &m.proc[who];
	enum answer ret = YES, wanted;
	enum sharing s;
	struct vma *v;
	int i;

	how.who = who;
	how.must = how.had_memory = false;
	for (i = vma_next(p, start); i < p->nr && p->v[i].start < end; i++) {
		v = &p->v[i];
		start = max_int(start, v->start);
		if (wrong_kind(v)) {
			expected.unsure_reason |= ret == MAYBE;
			refuse(wrong_kind(v));
			return NO;
		}
		wanted = is_wanted(&run, v, start, end, distance);
		s = wanted ? sharing(who, start, min_int(v->end, end)) : SOLE;
		if (wanted == YES && s == OTHERS) {
			expected.unsure_reason |= ret == MAYBE;
			refuse(SHARED_PAGE);
			return NO;
		}
		if (s != SOLE)
			ret = MAYBE;
		start = v->end;
	}
	return ret;
}

/* Not all of a run is known, so it can have become many things: follow the kernel. */
static void follow_run(struct proc *p, int start, int end)
{
	struct vma *v, *n;
	int i;

	expected.unsure = true;
	memset(rehomed + start, true, end - start);
	for (i = vma_next(p, start); i < p->nr && p->v[i].start < end; i++) {
		v = &p->v[i];
		if (!like(p, v, v->start - 1) && !like(p, v, v->end) && !v->fuzzy &&
		    (!v->anon || at_home(v)))
			continue;
		if (v->start < start) {
			vma_split(p, start);
			v = &p->v[++i];
		}
		if (v->end > end) {
			vma_split(p, end);
			v = &p->v[i];
		}
		v->fuzzy = true;
		n = like(p, v, v->start - 1);
		if (n)
			n->fuzzy = true;
		n = like(p, v, v->end);
		if (n)
			n->fuzzy = true;
	}
}

/* Relocate a VMA, which has its new place. */
static void relocate_vma(struct proc *p, struct run *run, struct vma *v)
{
	bool unsure = false;

	nr_relocated++;
	expected.vmas++;
	memset(rehomed + v->start, true, v->end - v->start);
	count_entries(how.who, v->start, v->end, &expected.pages);
	v->pgoff = v->start;
	v->child = false;
	if (is_filled(how.who, v, v->start, v->end) == NO) {
		v->anon = 0;
		return;
	}
	v->anon = run->anon ?: reusable_anon(p, v, &unsure);
	if (unsure) {
		v->fuzzy = true;
		run->sure = false;
	} else if (!v->anon) {
		v->anon = m.next_anon++;
	}
	run->anon = v->anon;
}

/* What becomes of [start, end) of a VMA in a run that is known. */
static void relocate_part(struct proc *p, struct run *run, int start, int end)
{
	struct vma v = p->v[vma_at(p, start)];

	if (needs_relocation(run, &v)) {
		if (part_sharing(&v, start, end) == OTHERS) {
			refuse(SHARED_PAGE);
			return;
		}
		vma_split(p, start);
		vma_split(p, end);
		v = p->v[vma_at(p, start)];
		relocate_vma(p, run, &v);
		p->v[vma_at(p, start)] = v;
		if (!run->sure) {
			follow_run(p, start, run->end);
			return;
		}
	} else {
		if (how.moved)
			give_reason(v.anon ? MERGES : UNFAULTED);
		if (!run->can_merge || !v.anon)
			return;
	}
	modify(p, v.start, v.end, &v.a, -1);
}

/*
 * Relocate the VMAs of [start, end) where they are, if they can be. After a move,
 * those that reach out of it have merged, and are left alone. @must: all that
 * MREMAP_MUST_RELOCATE_ANON looks at can be. @had_memory: no allocation failed.
 */
void relocate(int who, int start, int end, bool moved, bool must, bool had_memory)
{
	struct run run = { .end = start };
	struct proc *p = &m.proc[who];
	bool is_part;
	struct vma *v;
	int i, next;

	how.who = who;
	how.moved = moved;
	how.must = must;
	how.had_memory = had_memory;
	for (; start < end; start = next) {
		i = vma_next(p, start);
		if (i == p->nr || p->v[i].start >= end)
			break;
		v = &p->v[i];
		start = max_int(v->start, start);
		next = min_int(v->end, end);
		is_part = v->start < start || v->end > next;
		if (wrong_kind(v)) {
			refuse(wrong_kind(v));
			continue;
		}
		if (start >= run.end && !(moved && is_part && !unsettled(v))) {
			run = find_run(start, end);
			if (!run.sure)
				follow_run(p, run.start, run.end);
		}
		if (start < run.end && !run.sure)
			continue;
		if (moved && is_part)
			give_reason(MERGES);
		else
			relocate_part(p, &run, start, next);
	}
}
