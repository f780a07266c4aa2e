// SPDX-License-Identifier: GPL-2.0
/*
 * What mremap() does to the picture, with all its flags, and what it must not.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "fuzz.h"

/* What the rules say of a move, before it is made. */
struct verdict {
	bool must_fail, may_fail;
	enum { PLAIN, RELOCATED, EITHER } layout;
};

/* The call that is looked at. */
static struct {
	struct op *op;
	struct result *res;
	struct proc *p;
	int flags;
	bool shared;		/* Some page is known to be shared. */
} call;

static int min_int(int a, int b)
{
	return a < b ? a : b;
}

static int max_int(int a, int b)
{
	return a > b ? a : b;
}

static bool can_rehome(const struct vma *v)
{
	return v->a.kind == ANON;
}

/* Does any other process have one of the pages of [start, end) as well? */
static enum sharing sharing(int start, int end)
{
	struct proc *p = call.p;
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
		if (!inst_unsure[inst] && (!thp_mode || p->p[page].stamp)) {
			call.shared = true;
			return SHARED_PAGE;
		}
		ret = UNSURE;
	}
	seen = observed(p, start, end);
	if (seen == SHARED_PAGE) {
		call.shared = true;
		return seen;
	}
	if (seen == UNSURE || is_cut(p, start, end))
		ret = UNSURE;
	return ret;
}

/* Would the copy of a plain move merge? See vma_copy_merges(). */
static enum answer copy_merges(struct vma *v, int from, int to, int nr)
{
	struct proc *p = call.p;
	long pgoff = v->pgoff + from - v->start;
	int side, i;
	enum answer ret = NO;

	if (v->a.uffd)
		return NO;
	for (side = 0; side < 2; side++) {
		int page = side ? to + nr : to - 1;
		struct vma *n;
		bool ok;

		i = page >= 0 && page < NR_PAGES ? vma_at(p, page) : -1;
		if (i < 0 || !same_attr(&p->v[i], v))
			continue;
		n = &p->v[i];
		if (n->fuzzy || v->fuzzy || n->a.acct == ACCT_UNKNOWN ||
		    v->a.acct == ACCT_UNKNOWN) {
			ret = MAYBE;
			continue;
		}
		page = side ? to + nr : to;
		if (n->pgoff + page - n->start != (side ? pgoff + nr : pgoff))
			continue;
		if (!n->anon && v->anon)
			ok = !v->child;
		else if (n->anon && !v->anon)
			ok = !n->child;
		else
			ok = n->anon == v->anon;
		if (ok)
			return YES;
	}
	return ret;
}

/* @to is -1 if the kernel does not ask for it, or we do not know it. */
static struct verdict decide(int from, int nr, int to, int new_nr, bool checked)
{
	struct vma *v = &call.p->v[vma_at(call.p, from)];
	struct verdict ret = { .layout = PLAIN };
	enum answer merges = NO;
	enum sharing s;

	if (!(call.flags & (RELOCATE | MUST)))
		return ret;
	if (!can_rehome(v)) {
		ret.must_fail = call.flags & MUST;
		return ret;
	}
	if (to >= 0)
		merges = copy_merges(v, from, to, new_nr);
	if (merges == YES || (!v->fuzzy && !v->anon))
		return ret;
	s = checked ? SOLE : sharing(from, from + nr);
	switch (s) {
	case SHARED_PAGE:
		if (merges == MAYBE)
			ret.may_fail = call.flags & MUST;
		else
			ret.must_fail = call.flags & MUST;
		return ret;
	case UNSURE:
		ret.may_fail = call.flags & MUST;
		ret.layout = call.flags & MUST ? RELOCATED : EITHER;
		break;
	case SOLE:
		ret.layout = RELOCATED;
	}
	if (merges == MAYBE || v->fuzzy)
		ret.layout = EITHER;
	return ret;
}

/* Insert the VMA that copy_vma_relocated() makes. */
static void copy_relocated(struct vma *c, int source)
{
	struct proc *p = call.p;
	struct vma probe = *c;
	enum answer left = NO, right = NO;
	struct vma *prev, *next;
	bool unsure = false;
	int i = vma_next(p, c->start);

	c->pgoff = probe.pgoff = c->start;
	c->child = probe.child = false;
	c->fuzzy = probe.fuzzy = false;
	probe.anon = 0;
	probe.a.uffd = 0;
	prev = i > 0 ? &p->v[i - 1] : NULL;
	next = i < p->nr ? &p->v[i] : NULL;
	if (prev)
		left = can_merge(prev, &probe, true, false);
	if (next)
		right = can_merge(&probe, next, false, false);
	if (left == YES && !prev->anon)
		left = NO;
	if (right == YES && !next->anon)
		right = NO;
	if (left == MAYBE || right == MAYBE)
		unsure = true;
	else if (right && !(left && next->start == source))
		c->anon = next->anon;
	else if (left)
		c->anon = prev->anon;
	else
		c->anon = reusable_anon(p, c, &unsure);
	if (unsure)
		c->fuzzy = true;
	else if (!c->anon)
		c->anon = m.next_anon++;
	c->a.uffd = 0;
	vma_insert(p, c);
}

/* Move pages and VMA; the destination is free. */
static const char *perform(int from, int nr, int to, int new_nr, struct verdict d)
{
	const bool keep = call.flags & DONTUNMAP;
	struct proc *p = call.p;
	struct vma v, c, *left;
	int i, source;
	const char *why;

	if (!is_free(p, to, new_nr))
		return fail("moved to %d, which is not free", to);

	v = p->v[vma_at(p, from)];
	if (keep && v.a.locked) {
		vma_split(p, from);
		vma_split(p, from + nr);
		v = p->v[vma_at(p, from)];
	}
	source = v.start;
	c = v;
	c.start = to;
	c.end = to + new_nr;
	c.maybe = false;
	c.pgoff += from - v.start;
	if (!v.anon && v.a.kind == ANON)
		c.pgoff = to;
	if (d.layout == RELOCATED) {
		copy_relocated(&c, source);
		nr_relocated++;
		count_entries(p, from, nr);
	} else {
		if (d.layout == EITHER)
			c.fuzzy = true;
		c.a.uffd = 0;
		if (v.a.uffd)
			vma_insert(p, &c);
		else
			merge_new(p, &c, v.child,
				  (keep && (!v.anon || d.layout == EITHER)) ?
				  source : -1, -1);
		if (v.a.uffd && d.layout == EITHER) {
			/* The relocated one would merge. */
			i = vma_at(p, to);
			p->v[i].maybe = true;
			if (i > 0)
				p->v[i - 1].maybe = true;
			if (i + 1 < p->nr)
				p->v[i + 1].maybe = true;
		}
		nr_plain++;
	}

	for (i = 0; i < nr; i++) {
		p->p[to + i] = p->p[from + i];
		if (v.a.uffd)
			p->p[to + i].wp = false;
		memset(&p->p[from + i], 0, sizeof(p->p[0]));
	}

	if (keep) {
		left = &p->v[vma_at(p, from)];
		left->a.locked = 0;
		if (left->start == from && left->end == from + nr) {
			left->anon = 0;
			left->child = false;
			left->fuzzy = left->a.kind != ANON;
			if (left->a.kind == ANON)
				left->pgoff = from;
		}
	} else {
		unmap_vmas(p, from, from + nr);
	}
	if (d.layout == RELOCATED) {
		i = vma_at(p, to);
		c = p->v[i];
		source = keep ? p->v[vma_at(p, from)].start : -1;
		modify(p, c.start, c.end, &c.a, source);
	}

	read_now(p - m.proc);
	why = check_moved(p, from, to, nr, v.a.uffd,
			  call.shared && d.layout == PLAIN);
	if (why)
		return why;
	for (i = to + nr; i < to + new_nr && v.a.locked && v.a.prot; i++) {
		if (touch(p, i, (v.a.prot & PROT_WRITE) && v.a.kind != SHARED, SKIP))
			break;
	}
	return NULL;
}

static const char *want_error(int err)
{
	long ret = call.res->ret;

	if (ret == -err)
		return NULL;
	if (call.res->injected && ret == -ENOMEM)
		return NULL;
	return fail("mremap returned %ld instead of %d", ret, -err);
}

/* EFAULT for MREMAP_MUST_RELOCATE_ANON: nothing must have changed. */
static const char *refused(int from, int nr)
{
	const char *why = want_error(EFAULT);

	if (why)
		return why;
	nr_refused++;
	read_now(call.op->who);
	return check_unchanged(call.p, from, nr, false);
}

/* The kernel had no memory: where the VMAs begin and end is its own affair. */
static void nothing_certain(int start, int nr)
{
	struct proc *p = call.p;
	int i;

	for (i = 0; i < p->nr; i++) {
		if (p->v[i].end < start || p->v[i].start > start + nr)
			continue;
		p->v[i].fuzzy = true;
		p->v[i].a.acct = ACCT_UNKNOWN;
	}
}

static bool gone(int start, int nr)
{
	int i;

	for (i = start; i < start + nr; i++) {
		if (is_mapped_now(call.op->who, i))
			return false;
	}
	return true;
}

/* ENOMEM: of a destination, or a tail, that may be gone, see whether it is. */
static void out_of_memory(int from, int nr, int to, int new_nr)
{
	nothing_certain(from, nr);
	if (!(call.flags & FIXED))
		return;
	nothing_certain(to, new_nr);
	if (gone(to, new_nr))
		unmap_range(call.p, to, to + new_nr);
	if (new_nr < nr && gone(from + new_nr, nr - new_nr))
		unmap_range(call.p, from + new_nr, from + nr);
}

/* A move for which an allocation failed may have done without. */
static const char *after_failed_allocation(const char *why, struct vma *v,
					   int from, int nr, int to, int new_nr)
{
	struct vma kept = *v;

	if (why || !call.res->injected)
		return why;
	nothing_certain(to, new_nr);
	nothing_certain(from, nr);
	if (!(call.flags & DONTUNMAP) && !gone(from, nr)) {
		/* Not unmapped for want of memory, as without the flags. */
		kept.pgoff += from - kept.start;
		kept.start = from;
		kept.end = from + nr;
		kept.fuzzy = true;
		kept.a.acct = ACCT_UNKNOWN;
		vma_insert(call.p, &kept);
		call.p->books_off = true;
		m.books_off = true;
	}
	return NULL;
}

static const char *grow_in_place(int at, int nr, int new_nr)
{
	struct proc *p = call.p;
	int i = vma_at(p, at), page;
	struct vma *v = &p->v[i], *next;
	enum answer right;

	if (call.res->injected && call.res->ret == -ENOMEM)
		return NULL;
	if (call.res->ret != at)
		return fail("growth in place returned %ld instead of %d",
			    call.res->ret, at);
	v->end += new_nr - nr;
	if (i + 1 < p->nr) {
		next = v + 1;
		right = can_merge(v, next, false, false);
		if (right == MAYBE) {
			v->maybe = true;
			next->maybe = true;
		} else if (right == YES) {
			v->end = next->end;
			if (!v->anon && next->anon) {
				v->anon = next->anon;
				v->child = next->child;
			}
			vma_remove(p, i + 1);
		}
	}
	v = &p->v[i];
	for (page = at + nr; page < at + new_nr && v->a.locked && v->a.prot; page++) {
		if (touch(p, page, (v->a.prot & PROT_WRITE) && v->a.kind != SHARED,
			  SKIP))
			break;
	}
	return NULL;
}

/* VMAs which only their history keeps apart, see vma_find_run() in mm/vma.c. */
struct run {
	int start, end;
	uint32_t anon;		/* The anon_vma that they are to share, 0: a new one. */
	bool can_merge;
	bool sure;		/* Is all that is known, and can they be relocated? */
};

/* The VMA that has the page, if it is like @v. */
static struct vma *like(const struct vma *v, int page)
{
	int i = page >= 0 && page < NR_PAGES ? vma_at(call.p, page) : -1;

	return i >= 0 && same_attr(&call.p->v[i], v) ? &call.p->v[i] : NULL;
}

static bool at_home(const struct vma *v)
{
	return v->pgoff == v->start;
}

/* See copy_continues(). */
static bool merges_at_home(const struct vma *v)
{
	return v && at_home(v) && !(v->anon && v->child);
}

/* Can the part of a VMA in [start, end) be relocated? */
static enum sharing part_sharing(const struct vma *v, int start, int end)
{
	if (!can_rehome(v) || (!v->anon && !v->fuzzy))
		return SOLE;
	return sharing(max_int(v->start, start), min_int(v->end, end));
}

/*
 * The run that begins at @start. With MREMAP_MUST_RELOCATE_ANON, what had to be
 * relocated could be: the call has not failed.
 */
static struct run find_run(int start, int end)
{
	const bool must = call.flags & MUST;
	struct run run = { .start = start, .sure = !call.res->injected };
	struct vma *v, *next = &call.p->v[vma_at(call.p, start)];
	struct vma *prev = like(next, start - 1);
	int first_end = min_int(next->end, end);

	do {
		v = next;
		run.end = min_int(v->end, end);
		if (unknown(v) || (!must && part_sharing(v, start, end) != SOLE))
			run.sure = false;
		if (!run.anon && v->anon && at_home(v) && !v->child)
			run.anon = v->anon;
		next = like(v, run.end);
	} while (next && run.end < end);

	if ((prev && unknown(prev)) || (next && unknown(next)))
		run.sure = false;
	if (merges_at_home(prev) && prev->anon)
		run.anon = prev->anon;
	else if (merges_at_home(next) && next->anon)
		run.anon = next->anon;
	run.can_merge = run.end != first_end || merges_at_home(prev) ||
			merges_at_home(next);
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

/* What becomes of [start, end) of a VMA in a run that is known. */
static void part_in_place(struct run *run, int start, int end)
{
	struct proc *p = call.p;
	struct vma v = p->v[vma_at(p, start)];

	if (needs_relocation(run, &v)) {
		vma_split(p, start);
		vma_split(p, end);
		v = p->v[vma_at(p, start)];
		if (!run->anon)
			run->anon = m.next_anon++;
		v.pgoff = v.start;
		v.anon = run->anon;
		v.child = false;
		p->v[vma_at(p, start)] = v;
		nr_relocated++;
	} else if (!run->can_merge || !v.anon) {
		return;
	}
	modify(p, v.start, v.end, &v.a, -1);
}

/* Not all of a run is known, so it can have become many things: follow the kernel. */
static void follow_run(int start, int end)
{
	struct proc *p = call.p;
	int i;

	for (i = vma_next(p, start); i < p->nr && p->v[i].start < end; i++) {
		struct vma *v = &p->v[i];
		bool alone = !like(v, v->start - 1) && !like(v, v->end);

		if (alone && !v->fuzzy && (!v->anon || at_home(v)))
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
		if (i > 0)
			v[-1].fuzzy = true;
		if (i + 1 < p->nr)
			v[1].fuzzy = true;
	}
}

/* The VMAs of [start, end) have been relocated where they are, if they can be. */
static void relocated_in_place(int start, int end)
{
	struct run run = { .end = start };
	struct proc *p = call.p;
	int i, next;

	for (; start < end; start = next) {
		i = vma_next(p, start);
		if (i == p->nr || p->v[i].start >= end)
			break;
		start = max_int(p->v[i].start, start);
		next = min_int(p->v[i].end, end);
		if (!can_rehome(&p->v[i]))
			continue;
		if (start >= run.end) {
			run = find_run(start, end);
			if (!run.sure)
				follow_run(run.start, run.end);
		}
		if (run.sure)
			part_in_place(&run, start, next);
	}
}

/*
 * The same size and no new place: nothing happens to the pages. With a flag, VMAs
 * are relocated where they are.
 */
static const char *in_place(int at, int nr)
{
	const int end = min_int(at + nr, NR_PAGES);
	const bool must = call.flags & MUST;
	struct proc *p = call.p;
	bool sole = true;
	int i;

	if (!(call.flags & (RELOCATE | MUST)))
		return call.res->ret == at ? NULL :
		       fail("mremap in place returned %ld instead of %d",
			    call.res->ret, at);

	for (i = vma_next(p, at); i < p->nr && p->v[i].start < end; i++) {
		if (part_sharing(&p->v[i], at, end) != SOLE)
			sole = false;
	}
	if (call.res->ret == -EFAULT && must && !sole)
		return refused(at, end - at);
	if (call.res->ret != at &&
	    !(call.res->ret == -ENOMEM && must && call.res->injected))
		return fail("mremap in place returned %ld instead of %d",
			    call.res->ret, at);

	relocated_in_place(at, end);
	read_now(p - m.proc);
	return check_unchanged(p, at, end - at, true);
}

static const char *move(int from, int nr, int new_nr)
{
	const bool fixed = call.flags & FIXED;
	struct proc *p = call.p;
	int to = fixed ? call.op->to : call.res->ret;
	struct vma v = p->v[vma_at(p, from)];
	struct verdict d;
	const char *why;

	/* Where the kernel chooses, a failure does not tell us the place. */
	d = decide(from, min_int(nr, new_nr),
		   fixed || (to >= 0 && !(call.flags & DONTUNMAP)) ? to : -1,
		   new_nr, false);
	if (d.must_fail && !fixed && to < 0 && !(call.flags & DONTUNMAP)) {
		d.must_fail = false;
		d.may_fail = true;
	}
	if (d.must_fail || (d.may_fail && call.res->ret == -EFAULT))
		return refused(from, nr);
	if (call.res->injected && call.res->ret == -ENOMEM) {
		out_of_memory(from, nr, to, new_nr);
		return NULL;
	}
	if (call.res->ret < 0 || (fixed && call.res->ret != to))
		return fail("mremap returned %ld%s", call.res->ret,
			    d.may_fail ? "" : ", and had to work");
	if (!fixed && (call.flags & DONTUNMAP) && is_free(p, call.op->to, new_nr) &&
	    to != call.op->to)
		return fail("mremap moved to %d instead of the free %d", to,
			    call.op->to);
	if (fixed)
		unmap_range(p, to, to + new_nr);
	if (new_nr < nr) {
		unmap_range(p, from + new_nr, from + nr);
		nr = new_nr;
	}
	if (call.res->injected)
		d.layout = EITHER;
	why = perform(from, nr, to, new_nr, d);
	return after_failed_allocation(why, &v, from, nr, to, new_nr);
}

/* One VMA, or an address of one. */
static const char *single(int from, int nr, int new_nr)
{
	const bool implies = call.flags & (FIXED | DONTUNMAP);
	struct proc *p = call.p;
	int i = from >= 0 && from < NR_PAGES ? vma_at(p, from) : -1;
	struct vma *v = &p->v[i];

	if (i < 0)
		return want_error(EFAULT);
	if (new_nr > nr || implies) {
		if (!nr)
			return want_error(EINVAL);
		if (min_int(nr, new_nr) > v->end - from)
			return want_error(EFAULT);
	}
	if (implies)
		return move(from, nr, new_nr);
	if (nr == new_nr)
		return in_place(from, nr);
	if (new_nr < nr) {
		if (call.res->injected && call.res->ret == -ENOMEM) {
			nothing_certain(from, nr);
			return NULL;
		}
		unmap_range(p, from + new_nr, from + nr);
		return call.res->ret == from ? NULL :
		       fail("shrinking returned %ld", call.res->ret);
	}
	if (v->end - from == nr && is_free(p, v->end, new_nr - nr))
		return grow_in_place(from, nr, new_nr);
	if (!(call.flags & MAYMOVE))
		return want_error(ENOMEM);
	return move(from, nr, new_nr);
}

/* Of several VMAs, none may be registered, or have an address of its choice. */
static bool multi_allowed(const struct vma *v)
{
	return !v->a.uffd && v->a.kind != ZERO;
}

/* What MUST looks at before the first of several VMAs moves. */
static struct verdict decide_several(int from, int nr, bool *checked)
{
	struct verdict ret = {};
	struct proc *p = call.p;
	int i;

	for (i = vma_next(p, from); i < p->nr && p->v[i].start < from + nr; i++) {
		struct vma *v = &p->v[i];
		enum sharing s;

		if (v->start <= from && v->end >= from + nr)
			return ret;
		if (!multi_allowed(v) || !can_rehome(v)) {
			ret.must_fail = true;
			return ret;
		}
		if (!v->fuzzy && !v->anon)
			continue;
		s = sharing(max_int(v->start, from), min_int(v->end, from + nr));
		if (s == SHARED_PAGE)
			ret.must_fail = true;
		else if (s == UNSURE)
			ret.may_fail = true;
	}
	*checked = true;
	if (ret.must_fail)
		ret.may_fail = false;
	return ret;
}

/* A range of several VMAs, with FIXED and equal sizes. */
static const char *several(int from, int nr, int to)
{
	struct proc *p = call.p;
	int pos = from, target = to, last_end = 0, err = EFAULT;
	bool checked = false, seen = false;
	struct verdict d;
	const char *why;
	int i = vma_at(p, from);

	if (i < 0)
		return want_error(EFAULT);
	if (p->v[i].start <= from && p->v[i].end >= from + nr)
		return single(from, nr, nr);
	if (call.flags & MUST) {
		d = decide_several(from, nr, &checked);
		if (d.must_fail || (d.may_fail && call.res->ret == -EFAULT))
			return refused(from, nr);
	}
	while ((i = vma_next(p, pos)) < p->nr && p->v[i].start < from + nr) {
		struct vma v = p->v[i];
		int addr = max_int(v.start, from);
		int len = min_int(v.end, from + nr) - addr;
		int dest = target + (seen ? v.start - last_end : 0);

		if (!multi_allowed(&v))
			return want_error(EFAULT);
		if (call.res->injected && call.res->ret == -ENOMEM &&
		    !gone(addr, len)) {
			out_of_memory(addr, len, dest, len);
			return NULL;
		}
		d = decide(addr, len, dest, len, checked);
		if (call.res->injected)
			d.layout = EITHER;
		if (d.must_fail)
			return fail("cannot be: MUST and one of several");
		unmap_range(p, dest, dest + len);
		why = perform(addr, len, dest, len, d);
		why = after_failed_allocation(why, &v, addr, len, dest, len);
		if (why)
			return why;
		last_end = v.end;
		pos = last_end;
		target = dest + len;
		seen = true;
		err = 0;
	}
	if (err)
		return want_error(err);
	return call.res->ret == to ? NULL :
	       fail("mremap of several VMAs returned %ld instead of %d",
		    call.res->ret, to);
}

const char *apply_mremap(struct op *op, struct result *res)
{
	const int flags = op->flags, implies = flags & (FIXED | DONTUNMAP);

	call.op = op;
	call.res = res;
	call.p = &m.proc[op->who];
	call.flags = flags;
	call.shared = false;
	if (res->injected)
		nr_injected++;

	if (flags & ~31)
		return want_error(EINVAL);
	if ((flags & (RELOCATE | MUST)) && !(flags & MAYMOVE))
		return want_error(EINVAL);
	if ((op->off & 1) || !op->new_nr)
		return want_error(EINVAL);
	if (implies) {
		if ((op->off & 2) || !(flags & MAYMOVE))
			return want_error(EINVAL);
		if ((flags & DONTUNMAP) && op->nr != op->new_nr)
			return want_error(EINVAL);
		if (op->page + op->nr > op->to && op->to + op->new_nr > op->page)
			return want_error(EINVAL);
	}
	if ((flags & FIXED) && op->nr == op->new_nr)
		return several(op->page, op->nr, op->to);
	return single(op->page, op->nr, op->new_nr);
}
