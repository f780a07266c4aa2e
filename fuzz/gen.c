// SPDX-License-Identifier: GPL-2.0
/* Random calls, most of them where something is. */
#include <string.h>
#include <sys/mman.h>
#include "fuzz.h"

static uint64_t state;
static uint32_t next_stamp;
static struct op queue[16];
static int queued, taken;

static unsigned int rnd(unsigned int n)
{
	state += 0x9e3779b97f4a7c15ull;
	uint64_t z = state;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
	return (z ^ (z >> 31)) % n;
}

void gen_start(uint64_t seed)
{
	state = seed * 0xd1342543de82ef95ull;
	next_stamp = 1;
	queued = 0;
	taken = 0;
}

static bool percent(unsigned int n)
{
	return rnd(100) < n;
}

static int length(void)
{
	switch (rnd(10)) {
	case 0 ... 4:	return 1 + rnd(12);
	case 5 ... 7:	return 16 * (1 + rnd(4));
	case 8:		return 1 + rnd(130);
	default:	return thp_mode == 3 ? BLOCK : 64;
	}
}

/* Most of it happens where page tables begin. */
static int place(int nr)
{
	int page;

	switch (rnd(4)) {
	case 0:
		page = BLOCK * rnd(4) - 48 + rnd(96);
		break;
	case 1:
		page = thp_mode == 3 ? BLOCK * rnd(4) : 16 * rnd(NR_PAGES / 16);
		break;
	case 2:
		page = BLOCK + 16 * rnd(20);
		break;
	default:
		page = rnd(NR_PAGES);
	}
	if (page < 0)
		page = 0;
	if (page + nr > NR_PAGES)
		page = NR_PAGES - nr;
	return page < 0 ? 0 : page;
}

/*
 * A VMA. To get the same sequence whatever has merged, it is all that is like it
 * and around it.
 */
static bool random_vma(struct proc *p, int *start, int *end)
{
	int from[MAX_VMAS], to[MAX_VMAS], nr = 0, i;

	for (i = 0; i < p->nr; i++) {
		struct vma *v = &p->v[i];

		if (opt.same && nr && to[nr - 1] == v->start &&
		    v->a.prot == v[-1].a.prot && v->a.kind == v[-1].a.kind &&
		    v->a.locked == v[-1].a.locked && v->a.thp == v[-1].a.thp &&
		    v->a.name == v[-1].a.name && v->a.file == v[-1].a.file) {
			to[nr - 1] = v->end;
			continue;
		}
		from[nr] = v->start;
		to[nr++] = v->end;
	}
	if (!nr)
		return false;
	i = rnd(nr);
	*start = from[i];
	*end = to[i];
	return true;
}

/* A range: a VMA, a part of it, more than it, or anything. */
static void pick(struct op *op)
{
	struct proc *p = &m.proc[op->who];
	int start, end, len, cut;

	if (!random_vma(p, &start, &end) || percent(7)) {
		op->nr = length();
		op->page = place(op->nr);
		return;
	}
	len = end - start;
	op->page = start;
	op->nr = len;
	switch (rnd(10)) {
	case 0 ... 3:
		break;
	case 4:
		op->nr = 1 + rnd(len);
		break;
	case 5:
		op->page += rnd(len);
		op->nr = end - op->page;
		break;
	case 6 ... 7:
		/* Where large folios begin, or do not. */
		cut = percent(60) ? 16 : 8;
		op->page += rnd(len) / cut * cut;
		op->nr = cut;
		break;
	case 8:
		op->page += rnd(len);
		op->nr = 1 + rnd(end - op->page);
		break;
	default:
		op->nr += rnd(48);
	}
	if (op->page + op->nr > NR_PAGES)
		op->nr = NR_PAGES - op->page;
}

static int who(void)
{
	int w = percent(60) ? 0 : rnd(NR_PROCS);

	return m.proc[w].alive ? w : 0;
}

static int prot(void)
{
	static const int prots[] = {
		PROT_NONE, PROT_READ, PROT_READ, PROT_READ | PROT_EXEC,
	};

	return percent(75) ? PROT_READ | PROT_WRITE : prots[rnd(4)];
}

static void gen_mmap(struct op *op)
{
	int start, end;

	op->nr = length();
	op->page = place(op->nr);
	op->flags = prot();
	op->mmap_flags = MAP_PRIVATE | MAP_ANONYMOUS;
	if (percent(8) && m.next_file < 50) {
		op->kind = SHARED;
		op->mmap_flags = MAP_SHARED | MAP_ANONYMOUS;
	} else if (percent(5)) {
		op->kind = ZERO;
		op->mmap_flags = MAP_PRIVATE;
	} else if (percent(4)) {
		op->mmap_flags |= MAP_NORESERVE;
	}
	switch (rnd(10)) {
	case 0 ... 6:
		op->mmap_flags |= MAP_FIXED;
		break;
	case 7:
		op->mmap_flags |= MAP_FIXED_NOREPLACE;
		break;
	case 8:
		op->page = -1;
	}
	/* Next to another one, often. */
	if (op->page >= 0 && percent(40) &&
	    random_vma(&m.proc[op->who], &start, &end))
		op->page = percent(60) ? end : start - op->nr;
}

static void aim(struct op *op)
{
	int start, end;

	op->to = place(op->new_nr);
	switch (rnd(10)) {
	case 0 ... 2:
		if (random_vma(&m.proc[op->who], &start, &end))
			op->to = end;
		break;
	case 3 ... 4:
		if (random_vma(&m.proc[op->who], &start, &end))
			op->to = start - op->new_nr;
		break;
	case 5:
		/* Folios straddle page tables in the same way. */
		op->to = (op->to & -BLOCK) + op->page % BLOCK;
		break;
	case 6:
		op->to = (op->to & -16) + op->page % 16;
		break;
	case 7:
		op->to = op->page + (percent(50) ? op->nr : -op->new_nr);
	}
}

static int relocate_flags(void)
{
	switch (rnd(10)) {
	case 0 ... 2:	return 0;
	case 3 ... 5:	return RELOCATE;
	case 6 ... 8:	return MUST;
	default:	return RELOCATE | MUST;
	}
}

/* What a plain move has left, if there is such a thing, or a part of it. */
static void pick_away(struct op *op)
{
	struct proc *p = &m.proc[op->who];
	int i, first = rnd(p->nr + 1);

	for (i = 0; i < p->nr; i++) {
		struct vma *v = &p->v[(first + i) % p->nr];

		if (!v->anon || v->pgoff == v->start)
			continue;
		op->page = v->start;
		op->nr = v->end - v->start;
		if (percent(25)) {
			op->page += rnd(op->nr);
			op->nr = 1 + rnd(v->end - op->page);
		}
		return;
	}
}

static void gen_mremap(struct op *op)
{
	pick(op);
	op->new_nr = op->nr;
	op->flags = MAYMOVE | relocate_flags();
	switch (rnd(24)) {
	case 0 ... 10:
		op->flags |= FIXED;
		break;
	case 11 ... 12:
		op->flags |= FIXED | DONTUNMAP;
		break;
	case 13:
		op->flags |= DONTUNMAP;
		break;
	case 14 ... 15:
		op->flags |= FIXED;
		op->new_nr += 1 + rnd(20);
		break;
	case 16:
		op->flags |= FIXED;
		op->new_nr = 1 + rnd(op->nr + 1);
		break;
	case 17:
		op->new_nr += 1 + rnd(20);
		break;
	case 18:
		op->new_nr = 1 + rnd(op->nr + 1);
		break;
	case 19 ... 22:
		/* In place. What is where must not matter for --same. */
		if (!opt.same)
			pick_away(op);
		op->new_nr = op->nr;
		break;
	default:
		if (percent(50))
			op->flags = rnd(64);
		if (percent(30))
			op->off = 1 << rnd(3);
		if (percent(10))
			op->nr = 0;
		if (percent(10))
			op->new_nr = 0;
	}
	if (percent(6))
		op->off = 4;
	if (!op->nr || !op->new_nr)
		op->off &= 3;
	aim(op);
	if (!opt.no_nth && !opt.same && percent(8))
		op->nth = 1 + rnd(12);
}

static void gen_madvise(struct op *op)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_PAGEOUT, MADV_PAGEOUT, MADV_PAGEOUT,
		MADV_COLD, MADV_POPULATE_WRITE, MADV_POPULATE_WRITE,
		MADV_POPULATE_READ, MADV_HUGEPAGE, MADV_NOHUGEPAGE,
		MADV_COLLAPSE, MADV_GUARD_INSTALL, MADV_GUARD_REMOVE,
	};

	pick(op);
	op->flags = advice[rnd(ARRAY_SIZE(advice))];
	if ((op->flags == MADV_HUGEPAGE || op->flags == MADV_NOHUGEPAGE) &&
	    percent(50))
		op->flags = MADV_PAGEOUT;
	if (op->flags == MADV_COLLAPSE && thp_mode != 3)
		op->flags = MADV_PAGEOUT;
}

static struct op *later(int type, int who, int page, int nr)
{
	struct op *op = &queue[queued++];

	memset(op, 0, sizeof(*op));
	op->type = type;
	op->who = who;
	op->page = page;
	op->nr = nr;
	return op;
}

static void later_write(int who, int page, int nr)
{
	later(OP_WRITE, who, page, nr)->arg = next_stamp;
	next_stamp += nr;
}

static void later_mmap(int page, int nr)
{
	struct op *op = later(OP_MMAP, 0, page, nr);

	op->flags = PROT_READ | PROT_WRITE;
	op->mmap_flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
}

static struct op *later_move(int who, int page, int nr, int to)
{
	struct op *op = later(OP_MREMAP, who, page, nr);

	op->new_nr = nr;
	op->to = to;
	op->flags = MAYMOVE | FIXED | (percent(50) ? MUST : RELOCATE);
	return op;
}

/* A block, or the head of one, slides next to another: down or up by its length. */
static void slide(void)
{
	int nr = 1 + rnd(16), more = percent(50) ? 1 + rnd(8) : 0;
	int page = place(4 * nr + more);

	if (page + 4 * nr + more > NR_PAGES)
		return;
	later_mmap(page, nr);
	later_write(0, page, nr);
	if (percent(70)) {
		later_mmap(page + 2 * nr, nr + more);
		later_write(0, page + 2 * nr, nr + more);
		later_move(0, page + 2 * nr, nr, page + nr);
	} else {
		later_mmap(page + 3 * nr, nr);
		later_write(0, page + 3 * nr, nr);
		later_move(0, page, nr, page + nr);
	}
}

/*
 * Large folios are swapped out, shared by fork(), and read or written again by
 * one of the two; then a part of them moves.
 */
static void share_swapped(void)
{
	int child = 1 + rnd(NR_PROCS - 1), nr = 16 * (1 + rnd(3)), by, part;
	int page = place(nr) & -16;

	if (page + nr > NR_PAGES)
		return;
	later_mmap(page, nr);
	later_write(0, page, nr);
	later(OP_MADVISE, 0, page, nr)->flags = MADV_PAGEOUT;
	later(OP_FORK, 0, 0, 0)->arg = child;
	by = percent(50) ? 0 : child;
	if (percent(70))
		later(OP_READ, by, page, nr);
	else
		later_write(by, page, nr / 2);
	part = percent(70) ? 8 : nr;
	later_move(percent(50) ? 0 : child, page, part, place(nr));
	if (percent(30))
		later(OP_EXIT, child, 0, 0);
}

/* Several mappings, of which one can be relocated and the other cannot. */
static void two_kinds(void)
{
	int nr = 1 + rnd(16), page = place(2 * nr);
	bool forked = percent(50);

	if (page + 2 * nr > NR_PAGES)
		return;
	later_mmap(page, nr);
	later_write(0, page, nr);
	later_mmap(page + nr, nr);
	if (!forked) {
		queue[queued - 1].kind = SHARED;
		queue[queued - 1].mmap_flags = MAP_SHARED | MAP_ANONYMOUS | MAP_FIXED;
	}
	later_write(0, page + nr, nr);
	later(OP_MPROTECT, 0, page + nr, nr)->flags = PROT_READ;
	if (forked) {
		later(OP_FORK, 0, 0, 0)->arg = 1 + rnd(NR_PROCS - 1);
		later_write(0, page, nr);
	}
	later_move(0, page, 2 * nr, place(2 * nr));
}

/* Written memory in which nothing is left, or zero pages or guards, moves to another. */
static void move_empty(void)
{
	int nr = 1 + rnd(16), page = place(2 * nr), from = place(nr);
	struct op *op;

	if (page + 2 * nr > NR_PAGES || from + nr > NR_PAGES)
		return;
	later_mmap(from, nr);
	later_write(0, from, nr);
	later_mmap(page, nr);
	if (percent(70))
		later_write(0, page, nr);
	op = later(OP_MADVISE, 0, from, percent(80) ? nr : 1 + (int)rnd(nr));
	op->flags = percent(60) ? MADV_DONTNEED : MADV_GUARD_INSTALL;
	if (percent(30))
		later(OP_READ, 0, from, 1 + rnd(nr));
	later_move(0, from, nr, page + nr);
}

/* Memory comes to lie beside other memory that only mprotect() can make like it. */
static void unlike_for_now(void)
{
	int nr = 1 + rnd(16), page = place(3 * nr), at, from = place(nr);

	if (page + 3 * nr > NR_PAGES || from + nr > NR_PAGES)
		return;
	at = page + nr;
	later_mmap(from, nr);
	later_write(0, from, nr);
	later_mmap(at, nr);
	later_write(0, at, nr);
	later(OP_MPROTECT, 0, at, nr)->flags = PROT_READ;
	later_move(0, from, nr, percent(50) ? page : page + 2 * nr);
	later(OP_MPROTECT, 0, at, nr)->flags = PROT_READ | PROT_WRITE;
}

/*
 * Two mappings with a gap move to where something stands in the gap: it came there
 * by a move, and perhaps is shared.
 */
static void around_another(void)
{
	int nr = 1 + rnd(8), from = place(3 * nr), to = place(3 * nr), page = place(nr);
	struct op *op;

	if (from + 3 * nr > NR_PAGES || to + 3 * nr > NR_PAGES || page + nr > NR_PAGES)
		return;
	later_mmap(page, nr);
	later_write(0, page, nr);
	later_move(0, page, nr, to + nr)->flags = MAYMOVE | FIXED;
	if (percent(50)) {
		op = later(OP_FORK, 0, 0, 0);
		op->arg = 1 + rnd(NR_PROCS - 1);
	}
	later_mmap(from, 3 * nr);
	later_write(0, from, 3 * nr);
	later(OP_MUNMAP, 0, from + nr, nr);
	later_move(0, from, 3 * nr, to);
}

/*
 * One of two who share memory writes to the first part of it, and moves it: what is
 * re-homed before the first shared page has to go back.
 */
static void partly_shared(void)
{
	int child = 1 + rnd(NR_PROCS - 1), nr = 2 + rnd(24), page = place(nr);
	int by = percent(50) ? 0 : child;

	if (page + nr > NR_PAGES)
		return;
	later_mmap(page, nr);
	later_write(0, page, nr);
	later(OP_EXIT, child, 0, 0);
	later(OP_FORK, 0, 0, 0)->arg = child;
	later_write(by, page, 1 + rnd(nr - 1));
	if (percent(25))
		later(OP_MADVISE, by, page, nr)->flags = MADV_PAGEOUT;
	later_move(by, page, nr, place(nr))->flags = MAYMOVE | FIXED | RELOCATE;
	later(OP_MIGRATE, percent(50) ? 0 : by, 0, NR_PAGES)->arg = -1;
}

/* Memory leaves a userfaultfd, which has write-protected some of it. */
static void leave_uffd(void)
{
	int nr = 1 + rnd(32), page = place(nr);

	if (page + nr > NR_PAGES)
		return;
	later_mmap(page, nr);
	later_write(0, page, nr);
	later(OP_UFFD_REGISTER, 0, page, nr);
	later(OP_UFFD_WP, 0, page, 1 + rnd(nr))->arg = 1;
	if (percent(30))
		later(OP_MADVISE, 0, page, nr)->flags = MADV_PAGEOUT;
	later_move(0, page, nr, place(nr));
}

/*
 * Some states need several steps, which chance alone seldom takes in their
 * order: memory that is written, partly unmapped, swapped out, shared and then
 * read or written by one, and moved as a whole or in part.
 */
static void story(void)
{
	int child = 1 + rnd(NR_PROCS - 1), nr = 16 * (1 + rnd(3)), page;
	int by = 0, steps = rnd(4), i;
	struct op *op;

	if (thp_mode == 3 && percent(50))
		nr = BLOCK;
	page = place(nr) & -16;
	if (nr == BLOCK)
		page &= -BLOCK;
	later_mmap(page, nr);
	later_write(0, page, nr);
	if (percent(25))
		later(OP_MADVISE, 0, page + rnd(nr), 1 + rnd(8))->flags = MADV_DONTNEED;
	for (i = 0; i < steps; i++) {
		int at = page, n = nr;

		if (percent(40)) {
			n = nr / 2;
			at += percent(50) ? n : 0;
		}
		switch (rnd(6)) {
		case 0 ... 1:
			later(OP_MADVISE, by, page, nr)->flags = MADV_PAGEOUT;
			break;
		case 2:
			op = later(OP_FORK, 0, 0, 0);
			op->arg = child;
			if (percent(40))
				by = child;
			break;
		case 3:
			later(OP_READ, percent(50) ? 0 : by, at, n);
			break;
		case 4:
			later_write(percent(50) ? 0 : by, at, n);
			break;
		case 5:
			op = later(percent(50) ? OP_MUNMAP : OP_MADVISE,
				   percent(50) ? 0 : by, at, n);
			op->flags = MADV_DONTNEED;
		}
	}
	/* At once, so that some of it is still on its way. */
	if (percent(30))
		later(OP_MADVISE, by, page, nr)->flags = MADV_PAGEOUT;
	if (percent(40)) {
		nr /= 2;
		page += percent(50) ? nr : 0;
	}
	op = later_move(by, page, nr, place(nr));
	if (percent(50))
		op->to = (op->to & -16) + op->page % 16;
}

static void gen_any(struct op *op)
{
	memset(op, 0, sizeof(*op));
	op->who = who();
	switch (rnd(100)) {
	case 0 ... 9:
		op->type = OP_MMAP;
		gen_mmap(op);
		break;
	case 10 ... 12:
		op->type = OP_MUNMAP;
		pick(op);
		break;
	case 13 ... 52:
		op->type = OP_MREMAP;
		gen_mremap(op);
		break;
	case 53 ... 57:
		op->type = OP_MPROTECT;
		pick(op);
		op->flags = prot();
		break;
	case 58 ... 67:
		op->type = OP_MADVISE;
		gen_madvise(op);
		break;
	case 68 ... 69:
		op->type = OP_MLOCK;
		pick(op);
		break;
	case 70 ... 71:
		op->type = OP_MUNLOCK;
		pick(op);
		break;
	case 72:
		op->type = OP_NAME;
		pick(op);
		op->arg = rnd(3);
		break;
	case 73 ... 84:
		op->type = OP_WRITE;
		pick(op);
		op->arg = next_stamp;
		break;
	case 85 ... 87:
		op->type = OP_READ;
		pick(op);
		break;
	case 88 ... 90:
		op->type = OP_FORK;
		op->arg = 1 + rnd(NR_PROCS - 1);
		break;
	case 91 ... 92:
		op->type = OP_EXIT;
		break;
	case 93 ... 95:
		op->type = OP_MIGRATE;
		pick(op);
		op->arg = rnd(2);
		break;
	case 96 ... 97:
		op->type = percent(70) ? OP_UFFD_REGISTER : OP_UFFD_UNREGISTER;
		pick(op);
		break;
	case 98:
		op->type = OP_UFFD_WP;
		pick(op);
		op->arg = percent(70);
		break;
	default:
		op->type = OP_CLEAR_REFS;
	}
}

void generate(struct op *op, int step)
{
	int tries;

	if (queued == taken && percent(step ? 9 : 40)) {
		queued = 0;
		taken = 0;
		switch (rnd(10)) {
		case 0:
			slide();
			break;
		case 1:
			share_swapped();
			break;
		case 2:
			two_kinds();
			break;
		case 3:
			leave_uffd();
			break;
		case 4:
			move_empty();
			break;
		case 5:
			unlike_for_now();
			break;
		case 6:
			around_another();
			break;
		case 7:
			partly_shared();
			break;
		default:
			story();
		}
	}
	if (taken < queued) {
		*op = queue[taken++];
	} else {
		for (tries = 0; tries < 20; tries++) {
			gen_any(op);
			if (is_valid(op))
				break;
		}
		if (op->type == OP_WRITE)
			next_stamp += op->nr;
	}
	if (opt.unpatched && op->type == OP_MREMAP)
		op->flags &= ~(RELOCATE | MUST);
}
