// SPDX-License-Identifier: GPL-2.0
/*
 * What mremap() does to the picture, with all its flags, and what it must not. One
 * that relocates is a plain one, followed by a look at the whole destination.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "fuzz.h"

/* The call that is looked at. */
static struct {
	struct op *op;
	struct result *res;
	struct proc *p;
	int flags;
} call;

struct entries entries[MAX_VMAS];
int nr_entries;
unsigned long nr_plain, nr_refused, nr_injected;

/* What MREMAP_DONTUNMAP leaves of the VMA that had all of the range. */
static void leave_source(int from, int nr)
{
	struct proc *p = call.p;
	struct vma *left = &p->v[vma_at(p, from)];

	left->a.locked = 0;
	if (left->start != from || left->end != from + nr)
		return;
	left->anon = 0;
	left->child = false;
	left->fuzzy = left->a.kind != ANON;
	if (left->a.kind == ANON)
		left->pgoff = from;
}

static void move_pages(int from, int nr, int to, int new_nr, bool drop_wp)
{
	struct page *pages = call.p->p;
	int i;

	for (i = 0; i < nr; i++) {
		pages[to + i] = pages[from + i];
		if (drop_wp)
			pages[to + i].wp = false;
		memset(&pages[from + i], 0, sizeof(pages[0]));
	}
	before_moved(from, nr, to, new_nr);
	entries[nr_entries++] = (struct entries) {
		.what = MOVED, .from = from, .to = to, .nr = nr, .wp_lost = drop_wp,
	};
}

/* Move pages and VMA; the destination is free. */
static const char *perform(int from, int nr, int to, int new_nr)
{
	const bool keep = call.flags & DONTUNMAP;
	struct proc *p = call.p;
	struct vma v, c;

	if (!is_free(p, to, new_nr))
		return fail("moved to %d, which is not free", to);

	v = p->v[vma_at(p, from)];
	if (keep && v.a.locked) {
		vma_split(p, from);
		vma_split(p, from + nr);
		v = p->v[vma_at(p, from)];
	}
	c = v;
	c.start = to;
	c.end = to + new_nr;
	c.maybe = false;
	c.pgoff += from - v.start;
	if (!v.anon && v.a.kind == ANON)
		c.pgoff = to;
	c.a.uffd = 0;
	if (v.a.uffd)
		vma_insert(p, &c);
	else
		merge_new(p, &c, v.child, keep && !v.anon ? v.start : -1, -1);

	move_pages(from, nr, to, new_nr, v.a.uffd);
	if (keep)
		leave_source(from, nr);
	else
		unmap_vmas(p, from, from + nr);
	return NULL;
}

/*
 * After the move, which has done what a plain one does: with a flag, look at the
 * whole destination. Nothing is split for VMAs that are not relocated; with
 * MREMAP_MUST_RELOCATE_ANON that has been done before.
 */
static void relocate_moved(int to, int nr)
{
	int i;

	if (!(call.flags & (RELOCATE | MUST))) {
		nr_plain++;
		return;
	}
	if (call.res->injected)
		return;
	relocate(call.op->who, to, to + nr, true, call.flags & MUST, true);
	for (i = 0; i < nr_entries; i++)
		entries[i].folios_whole = !(call.flags & MUST) &&
			!maybe_rehomed(entries[i].to, entries[i].nr);
	nr_plain += !expected.vmas && !expected.unsure;
}

/* Locked memory that has grown is populated at the very end. */
static void populate_grown(int start, int end)
{
	struct proc *p = call.p;
	struct vma *v;

	for (; start < end; start++) {
		v = &p->v[vma_at(p, start)];
		if (!v->a.locked || !v->a.prot)
			break;
		if (touch(p, start, (v->a.prot & PROT_WRITE) && v->a.kind != SHARED,
			  SKIP))
			break;
	}
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

/*
 * What MREMAP_MUST_RELOCATE_ANON looks at before anything moves or is relocated, by
 * @distance. Is that a reason for the call to fail?
 */
static bool is_refused(int from, int nr, int distance)
{
	enum answer can = YES;

	if (call.flags & MUST)
		can = can_relocate(call.op->who, from, from + nr, distance);
	if (can == MAYBE && call.res->ret == -EFAULT) {
		refuse(CANNOT);
		return true;
	}
	return can == NO;
}

/* EFAULT for MREMAP_MUST_RELOCATE_ANON: nothing must have changed. */
static const char *refused(int from, int nr)
{
	const char *why = want_error(EFAULT);

	if (why)
		return why;
	nr_refused++;
	entries[nr_entries++] = (struct entries) {
		.what = REFUSED, .from = from, .nr = nr,
	};
	return NULL;
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
static const char *after_failed_allocation(struct vma *v, int from, int nr, int to,
					   int new_nr)
{
	struct vma kept = *v;

	if (!call.res->injected)
		return NULL;
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
	int i = vma_at(p, at);
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
	populate_grown(at + nr, at + new_nr);
	return NULL;
}

/*
 * The same size and no new place: nothing happens to the pages. With a flag, VMAs
 * are relocated where they are.
 */
static const char *in_place(int at, int nr)
{
	const int end = min_int(at + nr, NR_PAGES);
	const bool must = call.flags & MUST;

	if (!(call.flags & (RELOCATE | MUST)))
		return call.res->ret == at ? NULL :
		       fail("mremap in place returned %ld instead of %d",
			    call.res->ret, at);
	if (is_refused(at, end - at, 0))
		return refused(at, end - at);
	if (call.res->ret != at &&
	    !(call.res->ret == -ENOMEM && must && call.res->injected))
		return fail("mremap in place returned %ld instead of %d",
			    call.res->ret, at);

	relocate(call.op->who, at, end, false, must, !call.res->injected);
	entries[nr_entries++] = (struct entries) {
		.what = IN_PLACE, .from = at, .nr = end - at,
	};
	return NULL;
}

static const char *move(int from, int nr, int new_nr)
{
	const bool fixed = call.flags & FIXED;
	struct proc *p = call.p;
	int to = fixed ? call.op->to : call.res->ret;
	struct vma v = p->v[vma_at(p, from)];
	const char *why;

	/* Where the kernel chooses, the place is not known when it looks. */
	if (is_refused(from, min_int(nr, new_nr), fixed ? to - from : SOMEWHERE))
		return refused(from, nr);
	if (call.res->injected && call.res->ret == -ENOMEM) {
		out_of_memory(from, nr, to, new_nr);
		return NULL;
	}
	if (call.res->ret < 0 || (fixed && call.res->ret != to))
		return fail("mremap returned %ld, and had to work", call.res->ret);
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
	why = perform(from, nr, to, new_nr);
	if (why)
		return why;
	relocate_moved(to, new_nr);
	populate_grown(to + nr, to + new_nr);
	return after_failed_allocation(&v, from, nr, to, new_nr);
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

/* Of several VMAs, MREMAP_MUST_RELOCATE_ANON looks for these first. */
static bool has_uffd(int from, int nr)
{
	struct proc *p = call.p;
	int i;

	for (i = vma_next(p, from); i < p->nr && p->v[i].start < from + nr; i++) {
		if (p->v[i].a.uffd)
			return true;
	}
	return false;
}

/* Move each of several VMAs. */
static const char *move_each(int from, int nr, int to)
{
	struct proc *p = call.p;
	int pos = from, target = to, last_end = from, i;
	const char *why;

	while ((i = vma_next(p, pos)) < p->nr && p->v[i].start < from + nr) {
		struct vma v = p->v[i];
		int addr = max_int(v.start, from);
		int len = min_int(v.end, from + nr) - addr;
		int dest = target + addr - last_end;

		if (!multi_allowed(&v))
			return want_error(EFAULT);
		if (call.res->injected && call.res->ret == -ENOMEM &&
		    !gone(addr, len)) {
			out_of_memory(addr, len, dest, len);
			return NULL;
		}
		unmap_range(p, dest, dest + len);
		why = perform(addr, len, dest, len) ?:
		      after_failed_allocation(&v, addr, len, dest, len);
		if (why)
			return why;
		last_end = pos = v.end;
		target = dest + len;
	}
	if (call.res->ret != to)
		return fail("mremap of several VMAs returned %ld instead of %d",
			    call.res->ret, to);
	relocate_moved(to, nr);
	return NULL;
}

/* A range of several VMAs, with FIXED and equal sizes. */
static const char *several(int from, int nr, int to)
{
	struct proc *p = call.p;
	int i = vma_at(p, from);

	if (i < 0)
		return want_error(EFAULT);
	if (p->v[i].start <= from && p->v[i].end >= from + nr)
		return single(from, nr, nr);
	if (call.flags & MUST) {
		if (has_uffd(from, nr) || is_refused(from, nr, to - from))
			return refused(from, nr);
	}
	return move_each(from, nr, to);
}

const char *apply_mremap(struct op *op, struct result *res)
{
	const int flags = op->flags, implies = flags & (FIXED | DONTUNMAP);

	call.op = op;
	call.res = res;
	call.p = &m.proc[op->who];
	call.flags = flags;
	nr_entries = 0;
	relocate_start();
	expected.unsure = res->injected;
	expected.nr_vmas = call.p->nr;
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
	expected.event = flags & (RELOCATE | MUST);
	if ((flags & FIXED) && op->nr == op->new_nr)
		return several(op->page, op->nr, op->to);
	return single(op->page, op->nr, op->new_nr);
}
