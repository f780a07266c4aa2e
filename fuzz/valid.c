// SPDX-License-Identifier: GPL-2.0
/* Of which calls the picture knows what they do. */
#include <sys/mman.h>
#include "fuzz.h"

static bool range_is(struct proc *p, struct op *op, int kind, bool uffd)
{
	int i, page = op->page;

	while (page < op->page + op->nr) {
		i = page >= 0 && page < NR_PAGES ? vma_at(p, page) : -1;
		if (i < 0 || p->v[i].a.kind != kind ||
		    (uffd && !p->v[i].a.uffd))
			return false;
		page = p->v[i].end;
	}
	return true;
}

static bool range_has(struct proc *p, struct op *op, bool (*has)(struct vma *))
{
	int i;

	for (i = vma_next(p, op->page < 0 ? 0 : op->page);
	     i < p->nr && p->v[i].start < op->page + op->nr; i++) {
		if (has(&p->v[i]))
			return true;
	}
	return false;
}

static bool not_anon(struct vma *v)
{
	return v->a.kind != ANON;
}

static bool has_uffd(struct vma *v)
{
	return v->a.uffd;
}

/* To align huge pages, the kernel wants more, and looks for it elsewhere too. */
static bool finds_gap(struct proc *p, int nr)
{
	return has_gap(p, nr % BLOCK ? nr : nr + BLOCK);
}

/* Does it work, and do the same, wherever the VMAs in its range begin and end? */
static bool depends_on_bytes_only(struct op *op)
{
	if (op->nth || op->off & 3)
		return false;
	/* Without MAYMOVE, the relocation flags are an error by themselves. */
	if (!(op->flags & MAYMOVE) || op->flags & ~31)
		return false;
	if (op->nr == op->new_nr)
		return (op->flags & FIXED) || !(op->flags & DONTUNMAP);
	return op->nr > op->new_nr && !(op->flags & (FIXED | DONTUNMAP));
}

/* Do we know what such a call does, here and now? */
bool is_valid(struct op *op)
{
	struct proc *p = &m.proc[op->who];
	struct op first = { .nr = 1 };

	if (!p->alive)
		return false;
	if (op->page + op->nr > NR_PAGES || op->page < -1 || op->nr < 0)
		return false;
	switch (op->type) {
	case OP_MMAP:
		if (opt.same && op->kind == ZERO)
			return false;
		if (op->mmap_flags & (MAP_FIXED | MAP_FIXED_NOREPLACE))
			return op->page >= 0;
		return finds_gap(p, op->nr);
	case OP_MREMAP:
		if (op->page < 0)
			return false;
		if ((op->flags & (FIXED | DONTUNMAP)) &&
		    (op->to < 0 || op->to + op->new_nr > NR_PAGES))
			return false;
		first.page = op->page;
		if (!op->nr && range_has(p, &first, not_anon))
			return false;
		if (op->nth && (op->flags & DONTUNMAP))
			return false;
		if (opt.same && !depends_on_bytes_only(op))
			return false;
		if (!(op->flags & FIXED) && !finds_gap(p, op->new_nr))
			return false;
		/* Growth at the end of the arena ends at something else. */
		return op->new_nr <= NR_PAGES;
	case OP_MADVISE:
		if (op->flags == MADV_GUARD_INSTALL || op->flags == MADV_GUARD_REMOVE)
			return !range_has(p, op, not_anon) &&
			       !range_has(p, op, has_uffd);
		if (op->flags == MADV_COLLAPSE)
			return !range_has(p, op, not_anon) &&
			       !range_has(p, op, has_uffd);
		return op->page >= 0;
	case OP_FORK:
		return !m.proc[op->arg].alive && op->arg != (uint32_t)op->who;
	case OP_EXIT:
		return op->who;
	case OP_UFFD_REGISTER:
	case OP_UFFD_UNREGISTER:
		return !opt.same && range_is(p, op, ANON, false);
	case OP_UFFD_WP:
		return range_is(p, op, ANON, true);
	case OP_NAME:
		return op->page >= 0 && op->nr && has_names;
	default:
		return op->page >= 0;
	}
}
