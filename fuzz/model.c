// SPDX-License-Identifier: GPL-2.0
/*
 * A simple picture of address spaces: VMAs, pages and their contents, and what
 * each call but mremap() does to them.
 *
 * Where VMAs merge depends on anon_vmas, which are numbers here. If it is not
 * known which one the kernel chose, a VMA is "fuzzy": then the kernel says
 * whether it has merged, and the picture follows.
 */
#include <errno.h>
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

static struct object *object_of(const struct vma *v)
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

static const char *apply_mmap(struct op *op, struct result *res)
{
	struct proc *p = &m.proc[op->who];
	long page = res->ret;
	struct vma v = {
		.start = page, .end = page + op->nr, .pgoff = page,
		.a.prot = op->flags, .a.kind = op->kind,
		.a.noreserve = !!(op->mmap_flags & MAP_NORESERVE),
	};

	if ((op->mmap_flags & MAP_FIXED_NOREPLACE) == MAP_FIXED_NOREPLACE &&
	    !is_free(p, op->page, op->nr))
		return page == -EEXIST ? NULL : fail("mmap: %ld instead of EEXIST", page);
	if (page < 0)
		return fail("mmap failed with %ld", page);
	if (op->mmap_flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) {
		if (page != op->page)
			return fail("mmap at %ld instead of %d", page, op->page);
		unmap_range(p, page, page + op->nr);
	} else if (!is_free(p, page, op->nr)) {
		return fail("mmap chose %ld, which is not free", page);
	} else if (op->page >= 0 && is_free(p, op->page, op->nr) && page != op->page) {
		return fail("mmap at %ld instead of the free %d", page, op->page);
	}
	v.a.acct = op->kind != SHARED && !v.a.noreserve && (op->flags & PROT_WRITE);
	/* Offset 0 of its file, which is an object of its own if shared. */
	if (op->kind != ANON) {
		v.a.file = 1;
		v.fuzzy = true;
		v.pgoff = 0;
	}
	if (op->kind == SHARED) {
		v.a.file = ++m.next_file;
		memset(object_of(&v), 0, sizeof(struct object));
		object_of(&v)->size = op->nr;
	}
	merge_new(p, &v, false, -1, -1);
	return NULL;
}

/*
 * For each part of a VMA in the range. @change returns an error to stop with.
 */
static int walk(struct proc *p, int start, int nr, bool go_on, int arg,
		int (*change)(struct proc *p, int i, int start, int end, int arg))
{
	int end = start + nr, i, err, gap = 0;

	while (start < end) {
		i = vma_next(p, start);
		if (i == p->nr || p->v[i].start >= end)
			return -ENOMEM;
		if (p->v[i].start > start) {
			if (!go_on)
				return -ENOMEM;
			gap = -ENOMEM;
			start = p->v[i].start;
		}
		nr = p->v[i].end < end ? p->v[i].end : end;
		err = change(p, i, start, nr, arg);
		if (err)
			return err;
		start = nr;
	}
	return gap;
}

static int change_prot(struct proc *p, int i, int start, int end, int prot)
{
	struct vma *v = &p->v[i];
	struct attr a = v->a;
	bool locked = a.locked && a.kind != SHARED && !(a.prot & PROT_WRITE) &&
		      (prot & PROT_WRITE);

	if (a.prot == prot)
		return 0;
	a.prot = prot;
	if (prot & PROT_WRITE) {
		if (!(v->a.prot & PROT_WRITE) && !a.noreserve && a.kind != SHARED)
			a.acct = 1;
	} else if (a.acct && a.kind == ANON && !v->anon) {
		a.acct = v->fuzzy ? ACCT_UNKNOWN : 0;
	}
	modify(p, start, end, &a, -1);
	for (; locked && start < end; start++) {
		if (touch(p, start, true, SKIP))
			break;
	}
	return 0;
}

static int change_locked(struct proc *p, int i, int start, int end, int locked)
{
	struct attr a = p->v[i].a;

	if (a.locked == locked)
		return 0;
	a.locked = locked;
	modify(p, start, end, &a, -1);
	return 0;
}

static int change_thp(struct proc *p, int i, int start, int end, int thp)
{
	struct attr a = p->v[i].a;

	if (a.thp == thp)
		return 0;
	a.thp = thp;
	modify(p, start, end, &a, -1);
	return 0;
}

static int change_name(struct proc *p, int i, int start, int end, int name)
{
	struct attr a = p->v[i].a;

	if (a.kind == ZERO)
		return -EBADF;
	if (a.name == name)
		return 0;
	a.name = name;
	modify(p, start, end, &a, -1);
	return 0;
}

static int change_uffd(struct proc *p, int i, int start, int end, int on)
{
	struct attr a = p->v[i].a;

	if (!on) {
		int page;

		for (page = start; page < end && a.uffd; page++)
			p->p[page].wp = false;
	}
	if (a.uffd == on)
		return 0;
	a.uffd = on;
	modify(p, start, end, &a, -1);
	return 0;
}

static int dontneed(struct proc *p, int i, int start, int end, int arg)
{
	if (p->v[i].a.locked)
		return -EINVAL;
	for (; start < end; start++) {
		bool guard = p->p[start].guard;

		drop_page(&p->p[start]);
		p->p[start].guard = guard;
	}
	return 0;
}

static int unlocked_only(struct proc *p, int i, int start, int end, int arg)
{
	return p->v[i].a.locked ? -EINVAL : 0;
}

static int guard(struct proc *p, int i, int start, int end, int arg)
{
	if (p->v[i].a.locked)
		return -EINVAL;
	fault_anon(p, i);
	for (; start < end; start++) {
		drop_page(&p->p[start]);
		p->p[start].guard = true;
	}
	return 0;
}

static int unguard(struct proc *p, int i, int start, int end, int arg)
{
	for (; start < end; start++)
		p->p[start].guard = false;
	return 0;
}

static int collapse(struct proc *p, int i, int start, int end, int arg)
{
	/* It may or may not have copied pages that are shared. */
	for (start &= ~(BLOCK - 1); start < end; start++) {
		if (start < NR_PAGES && p->p[start].inst)
			inst_unsure[p->p[start].inst] = 1;
	}
	return 0;
}

static int populate(struct proc *p, int start, int nr, bool write)
{
	int i, end = start + nr;

	for (; start < end; start++) {
		i = start < NR_PAGES ? vma_at(p, start) : -1;
		if (i < 0)
			return -ENOMEM;
		if (!(p->v[i].a.prot & (write ? PROT_WRITE : PROT_READ)))
			return -EINVAL;
		if (touch(p, start, write, SKIP))
			return -EFAULT;
	}
	return 0;
}

static int lock_populate(struct proc *p, int start, int nr)
{
	int i, end = start + nr;

	for (; start < end; start++) {
		i = vma_at(p, start);
		if (i < 0)
			continue;
		if (!p->v[i].a.prot)
			return -ENOMEM;
		if (touch(p, start, (p->v[i].a.prot & PROT_WRITE) &&
			  p->v[i].a.kind != SHARED, SKIP))
			return -ENOMEM;
	}
	return 0;
}

static const char *expect(const char *what, long is, long want)
{
	return is == want ? NULL : fail("%s returned %ld instead of %ld", what, is, want);
}

static const char *apply_madvise(struct op *op, struct result *res)
{
	struct proc *p = &m.proc[op->who];
	long want;

	switch (op->flags) {
	case MADV_DONTNEED:
		want = walk(p, op->page, op->nr, true, 0, dontneed);
		break;
	case MADV_COLD:
	case MADV_PAGEOUT:
		want = walk(p, op->page, op->nr, true, 0, unlocked_only);
		break;
	case MADV_HUGEPAGE:
	case MADV_NOHUGEPAGE:
		want = walk(p, op->page, op->nr, true,
			    op->flags == MADV_HUGEPAGE ? 1 : 2, change_thp);
		break;
	case MADV_POPULATE_READ:
	case MADV_POPULATE_WRITE:
		want = populate(p, op->page, op->nr,
				op->flags == MADV_POPULATE_WRITE);
		break;
	case MADV_GUARD_INSTALL:
		want = walk(p, op->page, op->nr, true, 0, guard);
		break;
	case MADV_GUARD_REMOVE:
		want = walk(p, op->page, op->nr, true, 0, unguard);
		break;
	case MADV_COLLAPSE:
		walk(p, op->page, op->nr, true, 0, collapse);
		return NULL;
	default:
		want = -EINVAL;
	}
	return expect("madvise", res->ret, want);
}

static const char *apply_touch(struct op *op, struct result *res)
{
	struct proc *p = &m.proc[op->who];
	int i, sig = 0;

	for (i = 0; i < op->nr; i++) {
		sig = touch(p, op->page + i, op->type == OP_WRITE, op->arg + i);
		if (sig)
			break;
	}
	if (res->ret != i || res->sig != sig)
		return fail("%s of page %d to %d: %ld pages and signal %d, instead of %d and %d",
			    op->type == OP_WRITE ? "write" : "read", op->page,
			    op->page + op->nr, res->ret, res->sig, i, sig);
	return NULL;
}

static void apply_fork(struct op *op)
{
	struct proc *p = &m.proc[op->who], *c = &m.proc[op->arg];
	pid_t pid = c->pid;
	int i;

	*c = *p;
	c->pid = pid;
	c->alive = true;
	c->grandchild = op->who;
	for (i = 0; i < NR_PAGES; i++) {
		c->p[i].wp = false;
		if (c->p[i].inst)
			inst_refs[c->p[i].inst]++;
	}
	for (i = 0; i < c->nr; i++) {
		c->v[i].a.locked = 0;
		c->v[i].a.uffd = 0;
		if (!c->v[i].anon)
			continue;
		c->v[i].anon = m.next_anon++;
		c->v[i].child = true;
		/* The anon_vma of somebody who has gone may be used again. */
		if (op->who)
			c->v[i].fuzzy = true;
	}
}

static void apply_exit(struct op *op)
{
	struct proc *p = &m.proc[op->who];

	unmap_range(p, 0, NR_PAGES);
	p->alive = false;
}

/* What a call has done to the picture. Returns why it cannot be, or NULL. */
const char *apply(struct op *op, struct result *res)
{
	struct proc *p = &m.proc[op->who];
	long want;
	int i;

	switch (op->type) {
	case OP_MMAP:
		return apply_mmap(op, res);
	case OP_MUNMAP:
		want = op->nr ? 0 : -EINVAL;
		if (op->nr)
			unmap_range(p, op->page, op->page + op->nr);
		return expect("munmap", res->ret, want);
	case OP_MREMAP:
		return apply_mremap(op, res);
	case OP_MPROTECT:
		want = walk(p, op->page, op->nr, false, op->flags, change_prot);
		return expect("mprotect", res->ret, want);
	case OP_MADVISE:
		return apply_madvise(op, res);
	case OP_MLOCK:
		want = walk(p, op->page, op->nr, false, 1, change_locked);
		if (!want)
			want = lock_populate(p, op->page, op->nr);
		return expect("mlock", res->ret, want);
	case OP_MUNLOCK:
		want = walk(p, op->page, op->nr, false, 0, change_locked);
		return expect("munlock", res->ret, want);
	case OP_NAME:
		want = walk(p, op->page, op->nr, true, op->arg, change_name);
		return expect("prctl", res->ret, want);
	case OP_WRITE:
	case OP_READ:
		return apply_touch(op, res);
	case OP_FORK:
		if (res->ret < 0)
			return fail("fork failed with %ld", res->ret);
		apply_fork(op);
		return NULL;
	case OP_EXIT:
		apply_exit(op);
		return NULL;
	case OP_UFFD_REGISTER:
	case OP_UFFD_UNREGISTER:
		walk(p, op->page, op->nr, true, op->type == OP_UFFD_REGISTER,
		     change_uffd);
		return expect("userfaultfd", res->ret, 0);
	case OP_UFFD_WP:
		for (i = op->page; i < op->page + op->nr; i++)
			p->p[i].wp = op->arg && !p->p[i].guard;
		return expect("write protection", res->ret, 0);
	case OP_MIGRATE:
		if (res->ret >= 0 && (!opt.disturb || control->held))
			return fail("page %ld cannot be migrated: the kernel does not find it",
				    res->ret);
		return NULL;
	case OP_COMPARE:
		if (res->ret < 0)
			return NULL;
		i = res->ret;
		if (res->sig)
			return fail("page %d: signal %d instead of stamp %u", i,
				    res->sig, control->want[i]);
		return fail("page %d has wrong contents: word %d is %#llx, of stamp %u",
			    i, res->index, (unsigned long long)res->word,
			    control->want[i]);
	}
	return NULL;
}
