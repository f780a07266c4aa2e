// SPDX-License-Identifier: GPL-2.0
/* What each call does to the picture, and what it has to return. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include "fuzz.h"

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
	int i;

	*c = *p;
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
