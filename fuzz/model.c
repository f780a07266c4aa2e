// SPDX-License-Identifier: GPL-2.0
/*
 * A simple picture of address spaces: VMAs, pages and their contents, and the
 * steps that calls are made of: mapping, merging, changing, faulting, unmapping.
 *
 * Where VMAs merge depends on anon_vmas, which are numbers here. If it is not
 * known which one the kernel chose, a VMA is "fuzzy": then the kernel says
 * whether it has merged, and the picture follows.
 */
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include "fuzz.h"

struct model m __attribute__((aligned(4096)));
uint8_t inst_refs[MAX_INST] __attribute__((aligned(4096)));
uint8_t inst_unsure[MAX_INST] __attribute__((aligned(4096)));

void model_reset(void)
{
	memset(inst_refs, 0, m.next_inst + 1);
	memset(inst_unsure, 0, m.next_inst + 1);
	memset(&m, 0, sizeof(m));
	m.next_inst = 1;
	m.next_anon = 1;
	m.next_file = 1;
}

/* The VMA that has the page, or -1. */
int vma_at(struct proc *p, int page)
{
	int i = vma_next(p, page);

	return i < p->nr && p->v[i].start <= page ? i : -1;
}

/* The first VMA that ends behind the page, or p->nr. */
int vma_next(struct proc *p, int page)
{
	int low = 0, high = p->nr;

	while (low < high) {
		int mid = (low + high) / 2;

		if (p->v[mid].end > page)
			high = mid;
		else
			low = mid + 1;
	}
	return low;
}

void vma_insert(struct proc *p, const struct vma *v)
{
	struct vma new = *v;
	int i = vma_next(p, v->start);

	memmove(&p->v[i + 1], &p->v[i], (p->nr - i) * sizeof(*v));
	p->v[i] = new;
	p->nr++;
}

void vma_remove(struct proc *p, int i)
{
	p->nr--;
	memmove(&p->v[i], &p->v[i + 1], (p->nr - i) * sizeof(p->v[0]));
}

void vma_split(struct proc *p, int page)
{
	int i = vma_at(p, page);
	struct vma new;

	if (i < 0 || p->v[i].start == page)
		return;
	new = p->v[i];
	new.pgoff += page - new.start;
	new.start = page;
	p->v[i].end = page;
	vma_insert(p, &new);
}

void drop_page(struct page *pg)
{
	if (pg->inst)
		inst_refs[pg->inst]--;
	memset(pg, 0, sizeof(*pg));
}

void unmap_vmas(struct proc *p, int start, int end)
{
	int i;

	vma_split(p, start);
	vma_split(p, end);
	while ((i = vma_next(p, start)) < p->nr && p->v[i].start < end)
		vma_remove(p, i);
}

void unmap_range(struct proc *p, int start, int end)
{
	if (end > NR_PAGES)
		end = NR_PAGES;
	if (start >= end)
		return;
	unmap_vmas(p, start, end);
	for (; start < end; start++)
		drop_page(&p->p[start]);
}

bool is_free(struct proc *p, int start, int nr)
{
	int i;

	if (start < 0 || start + nr > NR_PAGES)
		return false;
	i = vma_next(p, start);
	return i == p->nr || p->v[i].start >= start + nr;
}

/* Will the kernel find room in the arena? */
bool has_gap(struct proc *p, int nr)
{
	int i, last = 0;

	for (i = 0; i <= p->nr; i++) {
		int next = i < p->nr ? p->v[i].start : NR_PAGES;

		if (next - last >= nr)
			return true;
		if (i < p->nr)
			last = p->v[i].end;
	}
	return false;
}

int nr_mapped(struct proc *p, bool locked)
{
	int i, nr = 0;

	for (i = 0; i < p->nr; i++) {
		if (!locked || p->v[i].a.locked)
			nr += p->v[i].end - p->v[i].start;
	}
	return nr;
}

bool unknown(const struct vma *v)
{
	return v->fuzzy || v->a.acct == ACCT_UNKNOWN;
}

/* Could be the same, that is. */
bool same_attr(const struct vma *a, const struct vma *b)
{
	struct attr x = a->a, y = b->a;

	if (unknown(a) || unknown(b))
		x.acct = y.acct = 0;
	return !memcmp(&x, &y, sizeof(x));
}

/*
 * May @a and @b, which is behind it, merge? One of them is there, and the other
 * one is new, or changes. @src_child: has that one inherited its anon_vma?
 */
enum answer can_merge(struct vma *a, struct vma *b, bool a_is_old, bool src_child)
{
	struct vma *old = a_is_old ? a : b, *new = a_is_old ? b : a;

	if (a->end != b->start || !same_attr(a, b))
		return NO;
	if (unknown(a) || unknown(b))
		return MAYBE;
	if (a->pgoff + a->end - a->start != b->pgoff)
		return NO;
	if (!old->anon && new->anon)
		return src_child ? NO : YES;
	if (old->anon && !new->anon)
		return old->child ? NO : YES;
	return old->anon == new->anon ? YES : NO;
}

static void inherit(struct vma *to, const struct vma *from)
{
	if (!to->anon && from->anon) {
		to->anon = from->anon;
		to->child = from->child;
	}
}

/*
 * Map @c, which is free, and merge it with what is there, except for VMAs that
 * begin at @not1 or @not2.
 */
void merge_new(struct proc *p, struct vma *c, bool src_child, int not1, int not2)
{
	enum answer left = NO, right = NO;
	int i = vma_next(p, c->start);
	struct vma *prev = i > 0 ? &p->v[i - 1] : NULL;
	struct vma *next = i < p->nr ? &p->v[i] : NULL;

	if (prev && (prev->start == not1 || prev->start == not2))
		prev = NULL;
	if (next && (next->start == not1 || next->start == not2))
		next = NULL;
	if (prev)
		left = can_merge(prev, c, true, src_child);
	if (next)
		right = can_merge(c, next, false, src_child);
	if (left == MAYBE || right == MAYBE) {
		c->maybe = true;
		if (left != NO)
			prev->maybe = true;
		if (right != NO)
			next->maybe = true;
		vma_insert(p, c);
		return;
	}
	if (left && right && prev->anon && next->anon && prev->anon != next->anon)
		right = NO;
	if (left) {
		prev->end = c->end;
		if (right) {
			prev->end = next->end;
			inherit(prev, next);
		}
		inherit(prev, c);
		if (right)
			vma_remove(p, i);
	} else if (right) {
		next->start = c->start;
		next->pgoff = c->pgoff;
		inherit(next, c);
	} else {
		vma_insert(p, c);
	}
}

/*
 * Change the attributes of [start, end), which is in one VMA, and merge it,
 * except with the VMA that begins at @keep.
 */
void modify(struct proc *p, int start, int end, const struct attr *a, int keep)
{
	int i = vma_at(p, start);
	struct vma *mid = &p->v[i], *prev = NULL, *next = NULL, c = *mid;
	enum answer left = NO, right = NO;

	c.pgoff += start - c.start;
	c.start = start;
	c.end = end;
	c.a = *a;
	if (start == mid->start && i > 0 && p->v[i - 1].start != keep)
		prev = mid - 1;
	if (end == mid->end && i + 1 < p->nr && p->v[i + 1].start != keep)
		next = mid + 1;
	if (prev)
		left = can_merge(prev, &c, true, mid->child);
	if (next)
		right = can_merge(&c, next, false, mid->child);
	if (left == MAYBE || right == MAYBE) {
		if (left != NO)
			prev->maybe = true;
		if (right != NO)
			next->maybe = true;
		left = NO;
		right = NO;
		c.maybe = true;
	}
	if (left && right && prev->anon && next->anon && prev->anon != next->anon)
		right = NO;

	/* What is left of the VMA. */
	vma_split(p, start);
	vma_split(p, end);
	i = vma_at(p, start);
	mid = &p->v[i];
	prev = mid - 1;
	next = mid + 1;
	if (left && right) {
		prev->end = next->end;
		if (next->anon)
			inherit(prev, next);
		else
			inherit(prev, &c);
		vma_remove(p, i + 1);
		vma_remove(p, i);
	} else if (left) {
		prev->end = end;
		inherit(prev, &c);
		vma_remove(p, i);
	} else if (right) {
		next->start = start;
		next->pgoff = c.pgoff;
		inherit(next, &c);
		vma_remove(p, i);
	} else {
		*mid = c;
	}
}

/*
 * The anon_vma that a fault would take from a neighbour, 0 if none. @v need not
 * be there yet.
 */
uint32_t reusable_anon(struct proc *p, const struct vma *v, bool *unsure)
{
	struct vma a = *v, n;
	int i;

	*unsure = false;
	i = vma_at(p, v->end);
	if (i >= 0 && p->v[i].start == v->end) {
		n = p->v[i];
		a.a.prot = n.a.prot;
		a.a.name = n.a.name;
		if (same_attr(&a, &n)) {
			if (unknown(&n) || unknown(&a)) {
				*unsure = true;
				return 0;
			}
			if (v->pgoff + v->end - v->start == n.pgoff && n.anon &&
			    !n.child)
				return n.anon;
		}
	}
	i = v->start ? vma_at(p, v->start - 1) : -1;
	if (i >= 0 && p->v[i].end == v->start) {
		n = p->v[i];
		a.a.prot = n.a.prot;
		a.a.name = n.a.name;
		if (same_attr(&a, &n)) {
			if (unknown(&n) || unknown(&a)) {
				*unsure = true;
				return 0;
			}
			if (n.pgoff + n.end - n.start == v->pgoff && n.anon &&
			    !n.child)
				return n.anon;
		}
	}
	return 0;
}

/* A write fault gives the VMA an anon_vma. */
void fault_anon(struct proc *p, int i)
{
	struct vma *v = &p->v[i];
	bool unsure;

	if (v->fuzzy || v->anon || v->a.kind != ANON)
		return;
	v->anon = reusable_anon(p, v, &unsure);
	if (unsure)
		v->fuzzy = true;
	else if (!v->anon)
		v->anon = m.next_anon++;
}

/* Might a read give the VMA an anon_vma as well? */
static void maybe_fault_anon(struct vma *v)
{
	if (!v->anon && v->a.kind == ANON)
		v->fuzzy = true;
}

static void new_inst(struct page *pg)
{
	if (pg->inst && inst_refs[pg->inst] == 1)
		return;
	if (pg->inst)
		inst_refs[pg->inst]--;
	if (m.next_inst == MAX_INST - 1)
		m.next_inst = 1;
	pg->inst = m.next_inst++;
	inst_refs[pg->inst] = 1;
	inst_unsure[pg->inst] = 0;
}

struct object *object_of(const struct vma *v)
{
	return &m.object[v->a.file % 64];
}

/*
 * Access a page. Returns 0 or the signal. @stamp is what is written, or SKIP if
 * the contents stay.
 */
int touch(struct proc *p, int page, bool write, uint32_t stamp)
{
	int i = page >= 0 && page < NR_PAGES ? vma_at(p, page) : -1;
	struct page *pg = &p->p[page];
	struct vma *v;

	if (i < 0)
		return SIGSEGV;
	v = &p->v[i];
	if (!(v->a.prot & (write ? PROT_WRITE : PROT_READ)))
		return SIGSEGV;
	if (pg->guard)
		return SIGSEGV;
	if (v->a.kind == SHARED) {
		long idx = v->pgoff + page - v->start;

		if (idx >= object_of(v)->size)
			return SIGBUS;
		if (write && stamp != SKIP)
			object_of(v)->stamp[idx] = stamp;
		return 0;
	}
	if (!write) {
		if (thp_mode == 3)
			maybe_fault_anon(v);
		return 0;
	}
	if (pg->wp) {
		maybe_fault_anon(v);
		return SIGBUS;
	}
	fault_anon(p, i);
	new_inst(pg);
	if (stamp != SKIP)
		pg->stamp = stamp;
	return 0;
}

uint32_t stamp_at(struct proc *p, int page)
{
	struct vma *v = &p->v[vma_at(p, page)];
	long idx = v->pgoff + page - v->start;

	if (v->a.kind == SHARED)
		return idx < object_of(v)->size ? object_of(v)->stamp[idx] : SKIP;
	return p->p[page].stamp;
}
