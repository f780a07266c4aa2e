// SPDX-License-Identifier: GPL-2.0-or-later

/*
 * What is left behind by a VMA operation that runs out of memory?
 *
 * Each operation is tried on every layout of VMAs that it can meet, called a
 * shape here: once as it should be, then with its first allocation failing, with
 * its second one failing, and so on, until it gets through without a failure.
 * All of this is done once with only the n-th allocation failing, and once with
 * all those after it failing too.
 *
 * A failed merge must have changed nothing, and an operation that fails after it
 * has split a VMA must have changed nothing but that. Afterwards the operation
 * is repeated, with memory, and has to arrive where it would have arrived had
 * nothing failed.
 */

#define OOM_MAX_VMAS	64
#define OOM_MAX_CHAIN	4

/* In pages. The range in question is always the same. */
#define OOM_PREV	10
#define OOM_START	14
#define OOM_END		18
#define OOM_NEXT_END	22
#define OOM_SOURCE	40
#define OOM_LEN		(OOM_END - OOM_START)

#define OOM_ADDR(page)	((unsigned long)(page) << PAGE_SHIFT)

#define OOM_FLAGS	(VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE)
#define OOM_OLD_FLAGS	(VM_READ | VM_MAYREAD | VM_MAYWRITE)
#define OOM_OTHER_FLAGS	(VM_READ | VM_EXEC | VM_MAYREAD | VM_MAYWRITE)

enum oom_op {
	OOM_MODIFY,		/* vma_modify() */
	OOM_MERGE_EXISTING,	/* vma_merge_existing_range() */
	OOM_MERGE_NEW,		/* vma_merge_new_range() */
	OOM_JUST_EXPAND,	/* the same, without looking to the right */
	OOM_EXPAND,		/* vma_expand() */
	OOM_EXTEND,		/* vma_merge_extend() */
	OOM_COPY,		/* copy_vma() */
	OOM_NR_OPS,
};

static const char * const oom_op_names[] = {
	"modify", "merge existing", "merge new", "just expand", "expand",
	"merge extend", "copy",
};

/* What there is before and after the range. */
enum oom_neighbour { OOM_HOLE, OOM_OTHER, OOM_SAME, };

/* The anon_vma of a VMA: none, one of two, or one that came with a fork. */
enum oom_anon { OOM_NONE, OOM_A, OOM_B, OOM_FORKED, };

/* Which part of the existing VMA is concerned? */
enum oom_part { OOM_WHOLE, OOM_LEFT, OOM_RIGHT, OOM_MIDDLE, };

enum oom_kind {
	OOM_PLAIN,
	OOM_FILE,		/* All VMAs map a file, private. */
	OOM_CLOSE,		/* The VMA in question has a close() hook. */
	OOM_NEXT_CLOSE,		/* The next VMA has one. */
	OOM_NR_KINDS,
};

/* Where does the existing VMA, or the source of the copy, stand? */
enum oom_place { OOM_APART, OOM_IS_PREV, OOM_IS_NEXT, };

/* What is vma_expand() to cover? */
enum oom_cover { OOM_UP, OOM_DOWN, OOM_OVER_NEXT, };

struct oom_shape {
	enum oom_op op;
	enum oom_neighbour prev, next;
	enum oom_anon prev_anon, next_anon, anon;
	enum oom_part part;
	enum oom_kind kind;
	enum oom_place place;
	enum oom_cover cover;
	bool give_up;
	bool walked;		/* The iterator has been used before. */
	int fill;		/* Unrelated VMAs on either side. */
};

struct oom_mm {
	struct mm_struct mm;
	struct vma_iterator vmi;
	struct vma_merge_struct vmg;
	struct oom_anon_vma anon[4];
	struct file file;
	struct address_space mapping;
	struct vm_area_struct *prev, *vma, *next;
	bool repeat;		/* The merge state is ready for another try. */
};

struct oom_vma_state {
	const struct vm_area_struct *vma;
	unsigned long start, end, pgoff, anon_pgoff;
	vm_flags_t flags;
	bool file;
	const void *ops;
	int anon, chain[OOM_MAX_CHAIN], nr_chain;
};

/* An address space, in full. */
struct oom_state {
	int nr;
	struct oom_vma_state vmas[OOM_MAX_VMAS];
	int nr_links[4], nr_active[4];
};

/* What an iterator answers. */
struct oom_position {
	unsigned long addr;
	const void *here, *next, *prev, *next_of_here, *prev_of_here;
};

struct oom_result {
	struct vm_area_struct *vma;
	int err;
	struct oom_position before, after;
};

static unsigned long oom_nr_shapes, oom_nr_pairs;

static void oom_open(struct vm_area_struct *vma)
{
	oom.nr_open++;
}

static void oom_close(struct vm_area_struct *vma)
{
	oom.nr_open--;
}

static const struct vm_operations_struct oom_vm_ops = {
	.open = oom_open,
	.close = oom_close,
};

/* Helpers that know how a VMA and the state of a merge are made up. */

static void oom_init_vma(struct vm_area_struct *vma, unsigned long start,
			 unsigned long end, unsigned long pgoff,
			 vm_flags_t flags)
{
	vma_set_range(vma, start, end, pgoff, pgoff);
	vm_flags_init(vma, flags);
}

static void oom_set_flags(struct vm_area_struct *vma, vm_flags_t flags)
{
	vm_flags_reset(vma, flags);
}

static unsigned long oom_anon_pgoff(const struct vm_area_struct *vma)
{
	return vma_start_anon_pgoff(vma);
}

static struct vm_area_struct *
oom_modify(struct vma_iterator *vmi, struct vm_area_struct *prev,
	   struct vm_area_struct *vma, unsigned long start, unsigned long end,
	   bool give_up)
{
	vma_flags_t flags = legacy_to_vma_flags(OOM_FLAGS);
	struct vm_userfaultfd_ctx ctx = {};

	return vma_modify_flags_uffd(vmi, prev, vma, start, end, &flags, ctx,
				     give_up);
}

static void oom_init_vmg(struct oom_mm *m, unsigned long start,
			 unsigned long end, unsigned long pgoff)
{
	VMG_STATE(vmg, &m->mm, &m->vmi, start, end,
		  legacy_to_vma_flags(OOM_FLAGS), pgoff, pgoff);

	m->vmg = vmg;
}

static void oom_vmg_set_existing(struct vma_merge_struct *vmg,
				 struct vm_area_struct *vma)
{
	vmg->middle = vma;
}

static void oom_vmg_set_target(struct vma_merge_struct *vmg,
			       struct vm_area_struct *vma)
{
	vmg->target = vma;
}

static void oom_vmg_set_just_expand(struct vma_merge_struct *vmg)
{
	vmg->just_expand = true;
}

static bool oom_same_request(const struct vma_merge_struct *a,
			     const struct vma_merge_struct *b)
{
	return a->start == b->start && a->end == b->end &&
	       a->pgoff == b->pgoff && a->anon_pgoff == b->anon_pgoff &&
	       a->prev == b->prev && a->middle == b->middle &&
	       a->next == b->next && a->target == b->target;
}

static struct vm_area_struct *oom_copy(struct vm_area_struct *vma,
				       unsigned long addr, unsigned long len)
{
	bool need_rmap_locks;

	return copy_vma(&vma, addr, len, vma->vm_pgoff, oom_anon_pgoff(vma),
			&need_rmap_locks, /* keep_source= */false);
}

/* Making and unmaking of address spaces. */

static struct vm_area_struct *oom_add(struct oom_mm *m, unsigned long page,
				      unsigned long end_page,
				      unsigned long pgoff, vm_flags_t flags,
				      enum oom_anon anon,
				      enum oom_kind kind)
{
	struct vm_area_struct *vma = vm_area_alloc(&m->mm);

	if (!vma)
		return NULL;

	oom_init_vma(vma, OOM_ADDR(page), OOM_ADDR(end_page), pgoff, flags);
	vma->vm_ops = kind == OOM_CLOSE ? &oom_vm_ops : NULL;
	if (kind == OOM_FILE) {
		vma->vm_file = &m->file;
		oom.nr_files++;
	}
	if (anon != OOM_NONE) {
		vma->anon_vma = &m->anon[anon].anon_vma;
		m->anon[anon].nr_active++;
		oom_link_anon_vma(vma, vma->anon_vma);
	}
	/* The child's anon_vma is followed by the one of the parent. */
	if (anon == OOM_FORKED)
		oom_link_anon_vma(vma, &m->anon[OOM_NONE].anon_vma);

	if (vma_link(&m->mm, vma)) {
		oom_unlink_chain(vma);
		vm_area_free(vma);
		return NULL;
	}

	oom.nr_vmas++;
	oom.nr_policies++;
	return vma;
}

static void oom_remove(struct oom_mm *m, struct vm_area_struct *vma)
{
	vma_iter_set(&m->vmi, vma->vm_start);
	vma_iter_load(&m->vmi);
	vma_iter_clear_gfp(&m->vmi, vma->vm_start, vma->vm_end, GFP_KERNEL);
	vma_mark_detached(vma);
	m->mm.map_count--;

	oom.active = true;
	if (vma->vm_ops && vma->vm_ops == &oom_vm_ops)
		vma_close(vma);
	if (vma->vm_file)
		fput(vma->vm_file);
	mpol_put(vma_policy(vma));
	unlink_anon_vmas(vma);
	vm_area_free(vma);
	oom.active = false;
}

static void oom_teardown(struct oom_mm *m)
{
	struct vm_area_struct *vma;

	vma_iter_set(&m->vmi, 0);
	for_each_vma(m->vmi, vma) {
		oom_unlink_chain(vma);
		vma_mark_detached(vma);
		vm_area_free(vma);
	}
	mtree_destroy(&m->mm.mm_mt);
}

static bool oom_has_existing(const struct oom_shape *s)
{
	return s->op == OOM_MODIFY || s->op == OOM_MERGE_EXISTING;
}

static bool oom_setup(struct oom_mm *m, const struct oom_shape *s)
{
	enum oom_kind kind = s->kind == OOM_FILE ? OOM_FILE : OOM_PLAIN;
	enum oom_kind next_kind = s->kind == OOM_NEXT_CLOSE ? OOM_CLOSE : kind;
	enum oom_kind vma_kind = s->kind == OOM_CLOSE ? OOM_CLOSE : kind;
	int i;

	memset(m, 0, sizeof(*m));
	memset(&oom, 0, sizeof(oom));
	fail_prealloc = false;
	mt_init_flags(&m->mm.mm_mt, MT_FLAGS_ALLOC_RANGE);
	vma_iter_init(&m->vmi, &m->mm, 0);
	m->file.f_mapping = &m->mapping;

	for (i = 0; i < s->fill; i++) {
		/* Holes between them, and flags that nobody else has. */
		if (!oom_add(m, 100 + 2 * i, 101 + 2 * i, 100 + 2 * i, VM_READ,
			     OOM_NONE, OOM_PLAIN))
			return false;
		if (i < 4 && !oom_add(m, 2 * i, 1 + 2 * i, 2 * i, VM_READ,
				      OOM_NONE, OOM_PLAIN))
			return false;
	}

	if (s->prev != OOM_HOLE) {
		m->prev = oom_add(m, OOM_PREV, OOM_START, OOM_PREV,
				  s->prev == OOM_SAME ? OOM_FLAGS :
							OOM_OTHER_FLAGS,
				  s->prev_anon, kind);
		if (!m->prev)
			return false;
	}

	if (s->next != OOM_HOLE) {
		m->next = oom_add(m, OOM_END, OOM_NEXT_END, OOM_END,
				  s->next == OOM_SAME ? OOM_FLAGS :
							OOM_OTHER_FLAGS,
				  s->next_anon, next_kind);
		if (!m->next)
			return false;
	}

	if (oom_has_existing(s)) {
		m->vma = oom_add(m, OOM_START, OOM_END, OOM_START,
				 OOM_OLD_FLAGS, s->anon, vma_kind);
		if (!m->vma)
			return false;
	} else if (s->op == OOM_COPY) {
		if (s->place == OOM_IS_PREV)
			m->vma = m->prev;
		else if (s->place == OOM_IS_NEXT)
			m->vma = m->next;
		else	/* It once was where it is to be copied to. */
			m->vma = oom_add(m, OOM_SOURCE, OOM_SOURCE + OOM_LEN,
					 OOM_START, OOM_FLAGS, s->anon,
					 vma_kind);
		if (!m->vma)
			return false;
	}

	return true;
}

static int oom_anon_id(const struct oom_mm *m, const struct anon_vma *anon_vma)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(m->anon); i++)
		if (anon_vma == &m->anon[i].anon_vma)
			return i;

	return -1;
}

/* Take down all there is to say, and see whether it makes sense. */
static bool oom_look(struct oom_mm *m, struct oom_state *state)
{
	int i, links[4] = {}, active[4] = {}, files = 0, open = 0;
	const struct anon_vma_chain *avc;
	struct vm_area_struct *vma;

	VMA_ITERATOR(vmi, &m->mm, 0);

	memset(state, 0, sizeof(*state));

	for_each_vma(vmi, vma) {
		struct oom_vma_state *v = &state->vmas[state->nr++];

		ASSERT_TRUE(state->nr < OOM_MAX_VMAS);
		ASSERT_EQ(vma->vm_start, vma_iter_addr(&vmi));
		ASSERT_EQ(vma->vm_end, vma_iter_end(&vmi));

		v->vma = vma;
		v->start = vma->vm_start;
		v->end = vma->vm_end;
		v->pgoff = vma->vm_pgoff;
		v->anon_pgoff = oom_anon_pgoff(vma);
		v->flags = vma->vm_flags;
		v->file = !!vma->vm_file;
		v->ops = vma->vm_ops;
		v->anon = oom_anon_id(m, vma->anon_vma);

		list_for_each_entry(avc, &vma->anon_vma_chain, same_vma) {
			int id = oom_anon_id(m, avc->anon_vma);

			ASSERT_TRUE(v->nr_chain < OOM_MAX_CHAIN);
			ASSERT_TRUE(id >= 0);
			v->chain[v->nr_chain++] = id;
			links[id]++;
		}

		ASSERT_EQ(!v->nr_chain, !vma->anon_vma);
		if (vma->anon_vma) {
			ASSERT_EQ(v->chain[0], v->anon);
			active[v->anon]++;
		}
		files += !!vma->vm_file;
		open += vma->vm_ops == &oom_vm_ops;
	}

	for (i = 0; i < ARRAY_SIZE(m->anon); i++) {
		state->nr_links[i] = m->anon[i].nr_links;
		state->nr_active[i] = m->anon[i].nr_active;
		ASSERT_EQ(links[i], state->nr_links[i]);
		ASSERT_EQ(active[i], state->nr_active[i]);
	}

	ASSERT_EQ(state->nr, m->mm.map_count);
	ASSERT_EQ(state->nr, oom.nr_vmas);
	ASSERT_EQ(state->nr, oom.nr_policies);
	ASSERT_EQ(files, oom.nr_files);
	ASSERT_FALSE(oom.bad_free);
	ASSERT_FALSE(oom.warned);
	return true;
}

static bool oom_same_vma(const struct oom_vma_state *a,
			 const struct oom_vma_state *b)
{
	return a->start == b->start && a->end == b->end &&
	       a->pgoff == b->pgoff && a->anon_pgoff == b->anon_pgoff &&
	       a->flags == b->flags && a->file == b->file &&
	       a->ops == b->ops && a->anon == b->anon &&
	       a->nr_chain == b->nr_chain &&
	       !memcmp(a->chain, b->chain, sizeof(a->chain));
}

/*
 * Are these the same? If it is one address space at two times then the VMAs are
 * the same objects, too.
 */
static bool oom_same(const struct oom_state *a, const struct oom_state *b,
		     bool objects)
{
	int i;

	if (a->nr != b->nr ||
	    memcmp(a->nr_links, b->nr_links, sizeof(a->nr_links)) ||
	    memcmp(a->nr_active, b->nr_active, sizeof(a->nr_active)))
		return false;

	for (i = 0; i < a->nr; i++) {
		if (!oom_same_vma(&a->vmas[i], &b->vmas[i]))
			return false;
		if (objects && a->vmas[i].vma != b->vmas[i].vma)
			return false;
	}

	return true;
}

/* Put together again what has been split at an end of the part in question. */
static void oom_undo_split(struct oom_state *state, unsigned long addr)
{
	int i;

	for (i = 1; i < state->nr; i++) {
		struct oom_vma_state *a = &state->vmas[i - 1];
		struct oom_vma_state *b = &state->vmas[i];
		struct oom_vma_state joint = *a;
		int j;

		if (b->start != addr || a->end != addr)
			continue;

		joint.end = b->end;
		joint.start = b->start;
		joint.pgoff += (a->end - a->start) >> PAGE_SHIFT;
		joint.anon_pgoff += (a->end - a->start) >> PAGE_SHIFT;
		if (!oom_same_vma(&joint, b))
			continue;

		a->end = b->end;
		for (j = 0; j < b->nr_chain; j++)
			state->nr_links[b->chain[j]]--;
		if (b->nr_chain)
			state->nr_active[b->anon]--;
		memmove(b, b + 1, (state->nr - i - 1) * sizeof(*b));
		state->nr--;
		return;
	}
}

static void oom_get_position(const struct vma_iterator *vmi,
			     struct oom_position *pos)
{
	struct vma_iterator it;

	pos->addr = vma_iter_addr((struct vma_iterator *)vmi);

	it = *vmi;
	pos->next = vma_next(&it);
	it = *vmi;
	pos->prev = vma_prev(&it);

	it = *vmi;
	pos->here = vma_iter_load(&it);
	pos->next_of_here = vma_next(&it);
	it = *vmi;
	vma_iter_load(&it);
	pos->prev_of_here = vma_prev(&it);
}

static bool oom_same_position(const struct oom_shape *s,
			      const struct oom_position *a,
			      const struct oom_position *b)
{
	if (a->here != b->here || a->next_of_here != b->next_of_here ||
	    a->prev_of_here != b->prev_of_here)
		return false;

	/* An iterator that was just set is on its way to where it points. */
	if (!s->walked)
		return true;

	return a->next == b->next && a->prev == b->prev && a->addr == b->addr;
}

static void oom_part(const struct oom_shape *s, unsigned long *start,
		     unsigned long *end)
{
	*start = OOM_START;
	*end = OOM_END;

	if (s->part == OOM_RIGHT || s->part == OOM_MIDDLE)
		(*start)++;
	if (s->part == OOM_LEFT || s->part == OOM_MIDDLE)
		(*end)--;

	*start = OOM_ADDR(*start);
	*end = OOM_ADDR(*end);
}

/* Point the iterator at the existing VMA, or at the hole, as callers do. */
static void oom_position(struct oom_mm *m, const struct oom_shape *s,
			 struct vm_area_struct **prev,
			 struct vm_area_struct **vma)
{
	unsigned long start, end;

	oom_part(s, &start, &end);
	vma_iter_init(&m->vmi, &m->mm, start);

	if (!oom_has_existing(s)) {
		*vma = vma_iter_next_rewind(&m->vmi, prev);
		return;
	}

	*vma = vma_find(&m->vmi, end);
	*prev = vma_prev(&m->vmi);
	if (start > (*vma)->vm_start)
		*prev = *vma;

	if (s->walked)
		vma_find(&m->vmi, end);
	else
		vma_iter_set(&m->vmi, start);
}

static void oom_prepare(struct oom_mm *m, const struct oom_shape *s)
{
	struct vma_merge_struct *vmg = &m->vmg;
	struct vm_area_struct *prev, *vma;
	unsigned long start, end;

	oom_part(s, &start, &end);
	oom_position(m, s, &prev, &vma);

	if (s->op == OOM_EXPAND && s->cover != OOM_DOWN)
		start = prev->vm_start;

	oom_init_vmg(m, start, end, start >> PAGE_SHIFT);
	vmg->give_up_on_oom = s->give_up;
	if (s->kind == OOM_FILE)
		vmg->file = &m->file;
	vmg->prev = prev;

	switch (s->op) {
	case OOM_MERGE_EXISTING:
		oom_vmg_set_existing(vmg, vma);
		vmg->anon_vma = vma->anon_vma;
		break;
	case OOM_MERGE_NEW:
		vmg->next = vma;
		break;
	case OOM_JUST_EXPAND:
		oom_vmg_set_just_expand(vmg);
		vma_iter_set(&m->vmi, prev->vm_start);
		vma_iter_load(&m->vmi);
		break;
	case OOM_EXPAND:
		vmg->next = vma;
		if (s->cover == OOM_DOWN) {
			oom_vmg_set_target(vmg, m->next);
			vmg->end = m->next->vm_end;
			break;
		}
		oom_vmg_set_target(vmg, prev);
		if (s->cover == OOM_OVER_NEXT)
			vmg->end = vma->vm_end;
		vma_iter_set(&m->vmi, start);
		vma_iter_load(&m->vmi);
		break;
	default:
		break;
	}
}

/*
 * Let the operation run. This is all that its caller would do, so it can be
 * repeated: find the place and, if it has worked, set the flags.
 */
static void oom_act(struct oom_mm *m, const struct oom_shape *s,
		    unsigned int nth, bool rest, struct oom_result *r)
{
	struct vm_area_struct *prev, *vma;
	struct vma_merge_struct *vmg = &m->vmg;
	unsigned long start, end;

	memset(r, 0, sizeof(*r));
	oom_part(s, &start, &end);

	/* After a failure, the merge has to be ready for another try. */
	if (!m->repeat)
		oom_prepare(m, s);

	oom_get_position(&m->vmi, &r->before);
	oom.allocs = 0;
	oom.failed = 0;
	oom.nth = nth;
	oom.rest = rest;
	oom.active = true;

	switch (s->op) {
	case OOM_MODIFY:
		oom.active = false;
		oom_position(m, s, &prev, &vma);
		oom_get_position(&m->vmi, &r->before);
		oom.active = true;
		r->vma = oom_modify(&m->vmi, prev, vma, start, end, s->give_up);
		break;
	case OOM_MERGE_EXISTING:
		r->vma = vma_merge_existing_range(vmg);
		break;
	case OOM_MERGE_NEW:
	case OOM_JUST_EXPAND:
		r->vma = vma_merge_new_range(vmg);
		break;
	case OOM_EXPAND:
		r->err = vma_expand(vmg);
		break;
	case OOM_EXTEND:
		r->vma = vma_merge_extend(&m->vmi, m->prev, end - start);
		break;
	case OOM_COPY:
		r->vma = oom_copy(m->vma, start, end - start);
		break;
	default:
		break;
	}

	oom.active = false;
	oom_get_position(&m->vmi, &r->after);

	if (IS_ERR(r->vma)) {
		r->err = PTR_ERR(r->vma);
		r->vma = NULL;
	}
	if (r->vma && oom_has_existing(s))
		oom_set_flags(r->vma, OOM_FLAGS);
}

/* A merge that failed, or that was given up, in vma_modify() or on its own. */
static bool oom_check_merge(struct oom_mm *m, const struct oom_shape *s,
			    const struct oom_state *before,
			    const struct oom_state *after,
			    const struct vma_merge_struct *request,
			    const struct oom_result *r)
{
	ASSERT_TRUE(oom_same(before, after, true));
	ASSERT_TRUE(oom_same_position(s, &r->before, &r->after));

	if (s->op == OOM_MODIFY)
		return true;

	ASSERT_EQ(vmg_nomem(&m->vmg), !s->give_up);
	ASSERT_TRUE(oom_same_request(request, &m->vmg));
	m->repeat = true;
	return true;
}

static bool oom_check_modify(struct oom_mm *m, const struct oom_shape *s,
			     const struct oom_state *before,
			     struct oom_state *after,
			     const struct oom_state *want,
			     const struct oom_result *r)
{
	unsigned long start, end;
	int i;

	if (s->give_up) {
		/* The flags are set, the VMA is the one that was there. */
		ASSERT_EQ(r->err, 0);
		ASSERT_EQ(r->vma, m->vma);
		for (i = 0; i < after->nr; i++)
			if (after->vmas[i].vma == m->vma)
				after->vmas[i].flags = OOM_OLD_FLAGS;
		return oom_check_merge(m, s, before, after, NULL, r);
	}

	ASSERT_EQ(r->err, -ENOMEM);

	/* If it should have split then it may have started to. */
	if (want->nr > before->nr) {
		oom_part(s, &start, &end);
		oom_undo_split(after, start);
		oom_undo_split(after, end);
		ASSERT_TRUE(oom_same(before, after, false));
		return true;
	}

	return oom_check_merge(m, s, before, after, NULL, r);
}

static bool oom_check_copy(struct oom_mm *m, const struct oom_shape *s,
			   const struct oom_state *before,
			   struct oom_state *after, const struct oom_result *r)
{
	if (r->vma) {
		/* It goes without the merge. Take the copy away again. */
		ASSERT_EQ(r->vma->vm_start, OOM_ADDR(OOM_START));
		ASSERT_EQ(r->vma->vm_end, OOM_ADDR(OOM_END));
		ASSERT_EQ(after->nr, before->nr + 1);
		oom_remove(m, r->vma);
		ASSERT_TRUE(oom_look(m, after));
	}

	ASSERT_TRUE(oom_same(before, after, true));
	ASSERT_EQ(oom.nr_open, 0);
	return true;
}

/* One shape with the n-th allocation failing. Was there one? */
static bool oom_fail_nth(struct oom_mm *m, const struct oom_shape *s,
			 const struct oom_state *want, unsigned int nth,
			 bool rest, bool *failed)
{
	static struct oom_state before, after;
	struct vma_merge_struct request;
	struct oom_result r;

	ASSERT_TRUE(oom_setup(m, s));
	ASSERT_TRUE(oom_look(m, &before));

	oom_prepare(m, s);
	request = m->vmg;

	oom_act(m, s, nth, rest, &r);
	*failed = oom.failed;
	ASSERT_TRUE(oom_look(m, &after));

	if (!*failed) {
		ASSERT_TRUE(oom_same(want, &after, false));
		oom_teardown(m);
		return true;
	}

	oom_nr_pairs++;
	switch (s->op) {
	case OOM_MODIFY:
		ASSERT_TRUE(oom_check_modify(m, s, &before, &after, want, &r));
		break;
	case OOM_EXTEND:
		ASSERT_EQ(r.vma, NULL);
		ASSERT_TRUE(oom_same(&before, &after, true));
		break;
	case OOM_COPY:
		ASSERT_TRUE(oom_check_copy(m, s, &before, &after, &r));
		break;
	case OOM_EXPAND:
		ASSERT_EQ(r.err, -ENOMEM);
		ASSERT_TRUE(oom_check_merge(m, s, &before, &after, &request, &r));
		break;
	default:
		ASSERT_EQ(r.vma, NULL);
		ASSERT_TRUE(oom_check_merge(m, s, &before, &after, &request, &r));
		break;
	}

	/* There is memory again, so it has to work as it always did. */
	oom_act(m, s, 0, false, &r);
	ASSERT_EQ(r.err, 0);
	ASSERT_TRUE(oom_look(m, &after));
	ASSERT_TRUE(oom_same(want, &after, false));

	oom_teardown(m);
	return true;
}

static bool oom_try_shape(struct oom_mm *m, const struct oom_shape *s)
{
	static struct oom_state before, want;
	bool merged, failed = true, rest;
	struct oom_result r;
	unsigned int n;

	oom_nr_shapes++;

	ASSERT_TRUE(oom_setup(m, s));
	ASSERT_TRUE(oom_look(m, &before));
	oom_act(m, s, 0, false, &r);
	ASSERT_TRUE(oom_look(m, &want));
	ASSERT_EQ(r.err, 0);

	/* If nothing could be merged then the iterator did not move, either. */
	merged = r.vma && r.vma != m->vma;
	if (oom_has_existing(s) && !merged && want.nr == before.nr)
		ASSERT_TRUE(oom_same_position(s, &r.before, &r.after));
	oom_teardown(m);

	for (rest = false; ; rest = true) {
		for (n = 1, failed = true; failed; n++)
			ASSERT_TRUE(oom_fail_nth(m, s, &want, n, rest, &failed));
		if (rest)
			return true;
	}
}

static bool oom_try(const struct oom_shape *s)
{
	static struct oom_mm m;

	if (oom_try_shape(&m, s))
		return true;

	fprintf(stderr,
		"  %s: prev %d/%d vma %d next %d/%d part %d kind %d place %d cover %d give_up %d walked %d fill %d\n",
		oom_op_names[s->op], s->prev, s->prev_anon, s->anon, s->next,
		s->next_anon, s->part, s->kind, s->place, s->cover, s->give_up,
		s->walked, s->fill);
	oom_teardown(&m);
	return false;
}

/* Which of all the combinations do exist? */
static bool oom_exists(const struct oom_shape *s)
{
	const bool existing = oom_has_existing(s);

	/* Who cannot merge anyway needs no variants. */
	if (s->prev != OOM_SAME && s->prev_anon != OOM_NONE)
		return false;
	if (s->next != OOM_SAME && s->next_anon != OOM_NONE)
		return false;
	if (s->kind == OOM_NEXT_CLOSE && s->next != OOM_SAME)
		return false;

	if (!existing && (s->part != OOM_WHOLE || !s->walked))
		return false;
	if (!existing && s->op != OOM_COPY &&
	    (s->anon != OOM_NONE || s->kind == OOM_CLOSE))
		return false;
	if (s->op != OOM_COPY && s->place != OOM_APART)
		return false;
	if (s->op != OOM_EXPAND && s->cover != OOM_UP)
		return false;

	switch (s->op) {
	case OOM_MODIFY:
		return !s->give_up || s->part == OOM_WHOLE;
	case OOM_JUST_EXPAND:
		return s->prev == OOM_SAME;
	case OOM_EXPAND:
		/* vma_expand() is told what to do, it has to be possible. */
		if (s->cover != OOM_UP && s->next != OOM_SAME)
			return false;
		if (s->cover != OOM_DOWN && s->prev != OOM_SAME)
			return false;
		if (s->cover == OOM_OVER_NEXT)
			return s->kind != OOM_NEXT_CLOSE &&
			       (s->prev_anon == s->next_anon ||
				s->prev_anon == OOM_NONE ||
				s->next_anon == OOM_NONE);
		return true;
	case OOM_EXTEND:
		return s->prev == OOM_SAME && !s->give_up;
	case OOM_COPY:
		if (s->give_up)
			return false;
		if (s->place == OOM_IS_PREV)
			return s->prev == OOM_SAME && s->anon == OOM_NONE &&
			       s->kind != OOM_CLOSE;
		if (s->place == OOM_IS_NEXT)
			return s->next == OOM_SAME && s->anon == OOM_NONE &&
			       s->kind != OOM_CLOSE;
		return true;
	default:
		return true;
	}
}

/* All shapes of an operation. A shape is a number in mixed radix. */
static bool oom_try_all(enum oom_op op)
{
	static const int fills[] = { 0, 12 };
	static const int radix[] = { 3, 3, 4, 4, 4, 4, OOM_NR_KINDS, 3, 3, 2, 2,
				     ARRAY_SIZE(fills) };
	int digit[ARRAY_SIZE(radix)] = {};
	int i;

	do {
		const struct oom_shape s = {
			.op = op,
			.prev = digit[0],
			.next = digit[1],
			.prev_anon = digit[2],
			.next_anon = digit[3],
			.anon = digit[4],
			.part = digit[5],
			.kind = digit[6],
			.place = digit[7],
			.cover = digit[8],
			.give_up = digit[9],
			.walked = digit[10],
			.fill = fills[digit[11]],
		};

		if (oom_exists(&s) && !oom_try(&s))
			return false;

		for (i = 0; i < ARRAY_SIZE(radix); i++) {
			if (++digit[i] < radix[i])
				break;
			digit[i] = 0;
		}
	} while (i < ARRAY_SIZE(radix));

	return true;
}

static bool test_oom_modify(void)
{
	return oom_try_all(OOM_MODIFY);
}

static bool test_oom_merge_existing(void)
{
	return oom_try_all(OOM_MERGE_EXISTING);
}

static bool test_oom_merge_new(void)
{
	return oom_try_all(OOM_MERGE_NEW);
}

static bool test_oom_just_expand(void)
{
	return oom_try_all(OOM_JUST_EXPAND);
}

static bool test_oom_expand(void)
{
	return oom_try_all(OOM_EXPAND);
}

static bool test_oom_extend(void)
{
	return oom_try_all(OOM_EXTEND);
}

static bool test_oom_copy(void)
{
	return oom_try_all(OOM_COPY);
}

/* Giving up is for whole VMAs. With part of one, there has to be a warning. */
static bool test_oom_give_up_split(void)
{
	struct oom_shape s = {
		.op = OOM_MODIFY,
		.prev = OOM_OTHER,
		.next = OOM_OTHER,
		.walked = true,
		.give_up = true,
	};
	enum oom_part part;

	for (part = OOM_WHOLE; part <= OOM_MIDDLE; part++) {
		struct oom_result r;
		struct oom_mm m;

		s.part = part;
		ASSERT_TRUE(oom_setup(&m, &s));
		oom_act(&m, &s, 0, false, &r);
		oom_teardown(&m);
		ASSERT_EQ(oom.warned, part != OOM_WHOLE);
	}

	return true;
}

static void run_oom_tests(int *num_tests, int *num_fail)
{
	TEST(oom_modify);
	TEST(oom_merge_existing);
	TEST(oom_merge_new);
	TEST(oom_just_expand);
	TEST(oom_expand);
	TEST(oom_extend);
	TEST(oom_copy);
	TEST(oom_give_up_split);

	printf("oom: %lu shapes, %lu pairs of a shape and a failing allocation tried.\n",
	       oom_nr_shapes, oom_nr_pairs);
}
