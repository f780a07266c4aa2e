// SPDX-License-Identifier: GPL-2.0-or-later

/*
 * The state after a VMA operation that runs out of memory.
 *
 * Each operation is tried on every layout of VMAs that it can meet, called a
 * shape here: once as it should be, then with its first allocation failing, with
 * its second one failing, and so on, until it gets through without a failure.
 * All of this is done once with only the n-th allocation failing, and once with
 * all those after it failing as well.
 *
 * A failed merge must have changed nothing, and an operation that fails after it
 * has split a VMA must have changed nothing but that. Afterwards the operation
 * is repeated, with memory, and has to arrive where it would have arrived had
 * nothing failed. Each kind of allocation that an operation makes must have
 * failed, or the test fails.
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
#define OOM_NR_PAGES	(OOM_SOURCE + OOM_LEN)

/* How far relocate_vma_down() goes: less than the length of the VMA, or more. */
#define OOM_SHIFT	2
#define OOM_SHIFT_MORE	6

#define OOM_ADDR(page)	((unsigned long)(page) << PAGE_SHIFT)

#define OOM_FLAGS	(VM_READ | VM_WRITE | VM_MAYREAD | VM_MAYWRITE)
#define OOM_OLD_FLAGS	(VM_READ | VM_MAYREAD | VM_MAYWRITE)
#define OOM_OTHER_FLAGS	(VM_READ | VM_EXEC | VM_MAYREAD | VM_MAYWRITE)

/* A flag that the merged VMA has if one of its parts had it. */
#define OOM_STICKY_FLAG	VM_MAYBE_GUARD

enum oom_op {
	OOM_MODIFY_FLAGS,	/* vma_modify_flags() */
	OOM_MODIFY_UFFD,	/* vma_modify_flags_uffd() */
	OOM_MODIFY_NAME,	/* vma_modify_name() */
	OOM_MODIFY_POLICY,	/* vma_modify_policy() */
	OOM_MERGE_EXISTING,	/* vma_merge_existing_range() */
	OOM_MERGE_NEW,		/* vma_merge_new_range() */
	OOM_JUST_EXPAND,	/* the same, without looking to the right */
	OOM_EXPAND,		/* vma_expand() */
	OOM_EXTEND,		/* vma_merge_extend() */
	OOM_COPY,		/* copy_vma() */
	OOM_MUNMAP,		/* do_vmi_munmap() */
	OOM_BRK,		/* do_brk_flags() */
	OOM_MMAP,		/* __mmap_region(), in a hole */
	OOM_MMAP_OVER,		/* the same, over (a part of) a VMA */
	OOM_RELOCATE_DOWN,	/* relocate_vma_down() */
	OOM_NR_OPS,
};

#define OOM_BIT(what)	(1U << OOM_ALLOC_##what)

/* The kinds of allocation that each operation makes. */
static const struct {
	const char *name;
	unsigned int allocs;
} oom_ops[] = {
	[OOM_MODIFY_FLAGS]	= { "modify flags", OOM_BIT(NODES) |
				    OOM_BIT(AVC) | OOM_BIT(VMA) |
				    OOM_BIT(POLICY) },
	[OOM_MODIFY_UFFD]	= { "modify userfaultfd", OOM_BIT(NODES) |
				    OOM_BIT(AVC) | OOM_BIT(VMA) |
				    OOM_BIT(POLICY) },
	[OOM_MODIFY_NAME]	= { "modify name", OOM_BIT(NODES) |
				    OOM_BIT(AVC) | OOM_BIT(VMA) |
				    OOM_BIT(POLICY) },
	[OOM_MODIFY_POLICY]	= { "modify policy", OOM_BIT(NODES) |
				    OOM_BIT(AVC) | OOM_BIT(VMA) |
				    OOM_BIT(POLICY) },
	[OOM_MERGE_EXISTING]	= { "merge existing", OOM_BIT(NODES) |
				    OOM_BIT(AVC) },
	[OOM_MERGE_NEW]		= { "merge new", OOM_BIT(NODES) | OOM_BIT(AVC) },
	[OOM_JUST_EXPAND]	= { "just expand", OOM_BIT(NODES) },
	[OOM_EXPAND]		= { "expand", OOM_BIT(NODES) | OOM_BIT(AVC) },
	[OOM_EXTEND]		= { "merge extend", OOM_BIT(NODES) |
				    OOM_BIT(AVC) },
	[OOM_COPY]		= { "copy", OOM_BIT(NODES) | OOM_BIT(AVC) |
				    OOM_BIT(VMA) | OOM_BIT(POLICY) },
	[OOM_MUNMAP]		= { "munmap", OOM_BIT(NODES) | OOM_BIT(VMA) |
				    OOM_BIT(POLICY) | OOM_BIT(STORE) },
	[OOM_BRK]		= { "brk", OOM_BIT(NODES) | OOM_BIT(VMA) |
				    OOM_BIT(STORE) },
	[OOM_MMAP]		= { "mmap", OOM_BIT(NODES) | OOM_BIT(AVC) |
				    OOM_BIT(VMA) },
	[OOM_MMAP_OVER]		= { "mmap over", OOM_BIT(NODES) | OOM_BIT(AVC) |
				    OOM_BIT(VMA) | OOM_BIT(POLICY) |
				    OOM_BIT(STORE) },
	[OOM_RELOCATE_DOWN]	= { "relocate down", OOM_BIT(NODES) },
};

/* The VMA right before or after the range. */
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
	OOM_STICKY,		/* The VMA in question has a sticky flag. */
	OOM_NR_KINDS,
};

/* Where does the existing VMA, or the source of the copy, stand? */
enum oom_place { OOM_APART, OOM_IS_PREV, OOM_IS_NEXT, };

/* The range that vma_expand() is to cover. */
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

/* The attributes that must match. Nobody follows the pointers. */
struct oom_attr {
	vm_flags_t flags;
	const void *policy, *name, *ctx;
};

/* Those that the range is to have, those it has, and others. */
enum oom_which { OOM_NEW, OOM_OLD, OOM_ELSE, OOM_NR_WHICH, };

static char oom_things[OOM_NR_WHICH];

struct oom_mm {
	struct mm_struct mm;
	struct vma_iterator vmi;
	struct vma_merge_struct vmg;
	struct oom_anon_vma anon[4];
	struct file file;
	struct address_space mapping;
	struct vm_area_struct *prev, *vma, *next;
};

struct oom_vma_state {
	const struct vm_area_struct *vma;
	unsigned long start, end, pgoff, anon_pgoff;
	struct oom_attr attr;
	bool file;
	const void *ops;
	int anon, chain[OOM_MAX_CHAIN], nr_chain;
};

/* An address space, in full. */
struct oom_state {
	int nr;
	struct oom_vma_state vmas[OOM_MAX_VMAS];
	int nr_links[4], nr_active[4];
	unsigned long total_vm, data_vm;
	long nr_charged;
};

/* The answers of an iterator. */
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
static unsigned int oom_allocs_failed;

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

/* Modify the VMA, and set the new attribute, as callers do. */
static struct vm_area_struct *
oom_modify(enum oom_op op, struct vma_iterator *vmi, struct vm_area_struct *prev,
	   struct vm_area_struct *vma, unsigned long start, unsigned long end,
	   const struct oom_attr *attr, bool give_up)
{
	vma_flags_t flags = legacy_to_vma_flags(attr->flags);
	struct vm_userfaultfd_ctx ctx = { .ctx = (void *)attr->ctx };

	switch (op) {
	case OOM_MODIFY_FLAGS:
		vma = vma_modify_flags(vmi, prev, vma, start, end, &flags,
				       give_up);
		if (!IS_ERR(vma))
			vma->flags = flags;
		break;
	case OOM_MODIFY_UFFD:
		vma = vma_modify_flags_uffd(vmi, prev, vma, start, end, &flags,
					    ctx, give_up);
		if (!IS_ERR(vma))
			vma->vm_userfaultfd_ctx = ctx;
		break;
	case OOM_MODIFY_NAME:
		vma = vma_modify_name(vmi, prev, vma, start, end,
				      (void *)attr->name);
		if (!IS_ERR(vma))
			vma->anon_name = (void *)attr->name;
		break;
	default:
		vma = vma_modify_policy(vmi, prev, vma, start, end,
					(void *)attr->policy);
		if (!IS_ERR(vma))
			vma->vm_policy = (void *)attr->policy;
		break;
	}
	return vma;
}

static void oom_init_vmg(struct oom_mm *m, unsigned long start,
			 unsigned long end, unsigned long pgoff,
			 const struct oom_attr *attr)
{
	VMG_STATE(vmg, &m->mm, &m->vmi, start, end,
		  legacy_to_vma_flags(attr->flags), pgoff, pgoff);

	vmg.policy = (void *)attr->policy;
	vmg.anon_name = (void *)attr->name;
	vmg.uffd_ctx.ctx = (void *)attr->ctx;
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

static struct vm_area_struct *oom_copy(struct vm_area_struct *vma,
				       unsigned long addr, unsigned long len)
{
	bool need_rmap_locks;

	return copy_vma(&vma, addr, len, vma->vm_pgoff, oom_anon_pgoff(vma),
			&need_rmap_locks, /* keep_source= */false);
}

static vm_flags_t oom_brk_flags(void)
{
	return vma_flags_to_legacy(VMA_DATA_DEFAULT_FLAGS) | VM_ACCOUNT;
}

static int oom_brk(struct vma_iterator *vmi, struct vm_area_struct *prev,
		   unsigned long addr, unsigned long len)
{
	vma_iter_set(vmi, addr);
	if (prev)
		vma_prev(vmi);

	return do_brk_flags(vmi, prev, addr, len, EMPTY_VMA_FLAGS);
}

static int oom_mmap(unsigned long addr, unsigned long len)
{
	unsigned long ret = __mmap_region(NULL, addr, len,
					  legacy_to_vma_flags(OOM_FLAGS),
					  addr >> PAGE_SHIFT, NULL);

	return ret == addr ? 0 : (int)ret;
}

/* Making and unmaking of address spaces. */

static bool oom_is_modify(const struct oom_shape *s)
{
	return s->op <= OOM_MODIFY_POLICY;
}

/* The operations whose iterator a loop goes on with. */
static bool oom_is_merge_existing(const struct oom_shape *s)
{
	return oom_is_modify(s) || s->op == OOM_MERGE_EXISTING;
}

static bool oom_has_existing(const struct oom_shape *s)
{
	return oom_is_merge_existing(s) ||
	       s->op == OOM_MUNMAP || s->op == OOM_MMAP_OVER ||
	       s->op == OOM_RELOCATE_DOWN;
}

/*
 * All VMAs have the same attributes but for one: the one that is modified, else
 * the flags. The neighbour that can merge has the new ones.
 */
static struct oom_attr oom_attr(const struct oom_shape *s, enum oom_which which)
{
	static const vm_flags_t flags[] = {
		OOM_FLAGS, OOM_OLD_FLAGS, OOM_OTHER_FLAGS,
	};
	struct oom_attr attr = {
		.flags = OOM_FLAGS,
		.policy = &oom_things[OOM_NEW],
		.name = &oom_things[OOM_NEW],
		.ctx = &oom_things[OOM_NEW],
	};

	switch (s->op) {
	case OOM_MODIFY_UFFD:
		attr.ctx = &oom_things[which];
		break;
	case OOM_MODIFY_NAME:
		attr.name = &oom_things[which];
		break;
	case OOM_MODIFY_POLICY:
		attr.policy = &oom_things[which];
		break;
	case OOM_BRK:
	case OOM_MMAP:
	case OOM_MMAP_OVER:
		/* These make VMAs that have flags and nothing else. */
		attr.policy = NULL;
		attr.name = NULL;
		attr.ctx = NULL;
		fallthrough;
	default:
		attr.flags = flags[which];
		break;
	}

	if (s->op == OOM_BRK && which == OOM_NEW)
		attr.flags = oom_brk_flags();
	if ((s->op == OOM_MMAP || s->op == OOM_MMAP_OVER) && which == OOM_NEW)
		attr.flags |= VM_ACCOUNT;
	if (s->op == OOM_MMAP_OVER && which == OOM_OLD)
		attr.policy = &oom_things[OOM_OLD];
	return attr;
}

/* The same for the range itself. */
static struct oom_attr oom_vma_attr(const struct oom_shape *s,
				    enum oom_which which)
{
	struct oom_attr attr = oom_attr(s, which);

	if (s->kind == OOM_STICKY)
		attr.flags |= OOM_STICKY_FLAG;
	return attr;
}

static struct vm_area_struct *oom_add(struct oom_mm *m, unsigned long page,
				      unsigned long end_page,
				      unsigned long pgoff,
				      const struct oom_attr *attr,
				      enum oom_anon anon,
				      enum oom_kind kind)
{
	struct vm_area_struct *vma = vm_area_alloc(&m->mm);

	if (!vma)
		return NULL;

	oom_init_vma(vma, OOM_ADDR(page), OOM_ADDR(end_page), pgoff,
		     attr->flags);
	vma->vm_policy = (void *)attr->policy;
	vma->anon_name = (void *)attr->name;
	vma->vm_userfaultfd_ctx.ctx = (void *)attr->ctx;
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
	oom.nr_policies += !!attr->policy;
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

static bool oom_setup(struct oom_mm *m, const struct oom_shape *s)
{
	enum oom_kind kind = s->kind == OOM_FILE ? OOM_FILE : OOM_PLAIN;
	enum oom_kind next_kind = s->kind == OOM_NEXT_CLOSE ? OOM_CLOSE : kind;
	enum oom_kind vma_kind = s->kind == OOM_CLOSE ? OOM_CLOSE : kind;
	const struct oom_attr same = oom_attr(s, OOM_NEW);
	const struct oom_attr other = oom_attr(s, OOM_ELSE);
	const struct oom_attr old = oom_vma_attr(s, OOM_OLD);
	const struct oom_attr source = oom_vma_attr(s, OOM_NEW);
	const struct oom_attr filler = { .flags = VM_READ };
	int i;

	memset(m, 0, sizeof(*m));
	memset(&oom, 0, sizeof(oom));
	fail_prealloc = false;
	mt_init_flags(&m->mm.mm_mt, MT_FLAGS_ALLOC_RANGE | MT_FLAGS_LOCK_EXTERN);
	vma_iter_init(&m->vmi, &m->mm, 0);
	m->file.f_mapping = &m->mapping;
	current->mm = &m->mm;

	for (i = 0; i < s->fill; i++) {
		/* Holes between them, and flags that nobody else has. */
		if (!oom_add(m, 100 + 2 * i, 101 + 2 * i, 100 + 2 * i, &filler,
			     OOM_NONE, OOM_PLAIN))
			return false;
		if (i < 4 && !oom_add(m, 2 * i, 1 + 2 * i, 2 * i, &filler,
				      OOM_NONE, OOM_PLAIN))
			return false;
	}

	if (s->prev != OOM_HOLE) {
		m->prev = oom_add(m, OOM_PREV, OOM_START, OOM_PREV,
				  s->prev == OOM_SAME ? &same : &other,
				  s->prev_anon, kind);
		if (!m->prev)
			return false;
	}

	if (s->next != OOM_HOLE) {
		m->next = oom_add(m, OOM_END, OOM_NEXT_END, OOM_END,
				  s->next == OOM_SAME ? &same : &other,
				  s->next_anon, next_kind);
		if (!m->next)
			return false;
	}

	if (oom_has_existing(s)) {
		m->vma = oom_add(m, OOM_START, OOM_END, OOM_START,
				 &old, s->anon, vma_kind);
		if (!m->vma)
			return false;
	} else if (s->op == OOM_COPY) {
		if (s->place == OOM_IS_PREV)
			m->vma = m->prev;
		else if (s->place == OOM_IS_NEXT)
			m->vma = m->next;
		else	/* It once was where it is to be copied to. */
			m->vma = oom_add(m, OOM_SOURCE, OOM_SOURCE + OOM_LEN,
					 OOM_START, &source, s->anon,
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
	int i, links[4] = {}, active[4] = {}, files = 0, policies = 0;
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
		v->attr.flags = vma->vm_flags;
		v->attr.policy = vma->vm_policy;
		v->attr.name = vma->anon_name;
		v->attr.ctx = vma->vm_userfaultfd_ctx.ctx;
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
		policies += !!vma->vm_policy;
	}

	for (i = 0; i < ARRAY_SIZE(m->anon); i++) {
		state->nr_links[i] = m->anon[i].nr_links;
		state->nr_active[i] = m->anon[i].nr_active;
		ASSERT_EQ(links[i], state->nr_links[i]);
		ASSERT_EQ(active[i], state->nr_active[i]);
	}

	ASSERT_EQ(state->nr, m->mm.map_count);
	ASSERT_EQ(state->nr, oom.nr_vmas);
	ASSERT_EQ(policies, oom.nr_policies);
	ASSERT_EQ(files, oom.nr_files);
	ASSERT_FALSE(oom.bad_free);
	ASSERT_FALSE(oom.warned);

	state->total_vm = m->mm.total_vm;
	state->data_vm = m->mm.data_vm;
	state->nr_charged = oom.nr_charged;
	return true;
}

static bool oom_same_attr(const struct oom_attr *a, const struct oom_attr *b)
{
	return a->flags == b->flags && a->policy == b->policy &&
	       a->name == b->name && a->ctx == b->ctx;
}

static bool oom_same_vma(const struct oom_vma_state *a,
			 const struct oom_vma_state *b)
{
	return a->start == b->start && a->end == b->end &&
	       a->pgoff == b->pgoff && a->anon_pgoff == b->anon_pgoff &&
	       oom_same_attr(&a->attr, &b->attr) && a->file == b->file &&
	       a->ops == b->ops && a->anon == b->anon &&
	       a->nr_chain == b->nr_chain &&
	       !memcmp(a->chain, b->chain, sizeof(a->chain));
}

/*
 * Are these the same? If it is one address space at two times then the VMAs are
 * also the same objects.
 */
static bool oom_same(const struct oom_state *a, const struct oom_state *b,
		     bool objects)
{
	int i;

	if (a->nr != b->nr || a->total_vm != b->total_vm ||
	    a->data_vm != b->data_vm || a->nr_charged != b->nr_charged ||
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

static const struct oom_vma_state *
oom_vma_at(const struct oom_state *state, unsigned long page)
{
	int i;

	for (i = 0; i < state->nr; i++)
		if (state->vmas[i].start <= OOM_ADDR(page) &&
		    state->vmas[i].end > OOM_ADDR(page))
			return &state->vmas[i];

	return NULL;
}

/* Is the same mapped in this range, however many VMAs it may be? */
static bool oom_same_pages(const struct oom_state *a, const struct oom_state *b,
			   unsigned long page, unsigned long end_page)
{
	for (; page < end_page; page++) {
		const struct oom_vma_state *x = oom_vma_at(a, page);
		const struct oom_vma_state *y = oom_vma_at(b, page);

		if (!x != !y || (x && (!oom_same_attr(&x->attr, &y->attr) ||
				       x->file != y->file)))
			return false;
	}

	return true;
}

static bool oom_is_hole(const struct oom_state *state, unsigned long page,
			unsigned long end_page)
{
	for (; page < end_page; page++)
		if (oom_vma_at(state, page))
			return false;

	return true;
}

/* Undo a split at an end of the part in question. */
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

static unsigned long oom_shift(const struct oom_shape *s)
{
	return s->part == OOM_WHOLE ? OOM_SHIFT : OOM_SHIFT_MORE;
}

static void oom_prepare(struct oom_mm *m, const struct oom_shape *s)
{
	struct vma_merge_struct *vmg = &m->vmg;
	struct vm_area_struct *prev, *vma;
	unsigned long start, end;
	struct oom_attr attr;

	oom_part(s, &start, &end);
	oom_position(m, s, &prev, &vma);

	if (s->op == OOM_EXPAND && s->cover != OOM_DOWN)
		start = prev->vm_start;

	attr = oom_vma_attr(s, OOM_NEW);
	oom_init_vmg(m, start, end, start >> PAGE_SHIFT, &attr);
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
 * repeated: find the place and, if it has worked, set the new attributes.
 */
static void oom_act(struct oom_mm *m, const struct oom_shape *s,
		    unsigned int nth, bool rest, struct oom_result *r)
{
	const struct oom_attr attr = oom_vma_attr(s, OOM_NEW);
	struct vma_merge_struct *vmg = &m->vmg;
	struct vm_area_struct *prev, *vma;
	unsigned long start, end;

	memset(r, 0, sizeof(*r));
	oom_part(s, &start, &end);

	/* Nobody may rely on the state of a merge after it. */
	oom_prepare(m, s);
	if (oom_is_modify(s) || s->op == OOM_BRK)
		oom_position(m, s, &prev, &vma);
	else if (s->op == OOM_MUNMAP)
		vma_iter_init(&m->vmi, &m->mm, start);

	if (oom_is_merge_existing(s))
		oom_get_position(&m->vmi, &r->before);
	oom.allocs = 0;
	oom.failed = 0;
	oom.nth = nth;
	oom.rest = rest;
	oom.active = true;

	switch (s->op) {
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
	case OOM_MUNMAP:
		r->err = do_vmi_munmap(&m->vmi, &m->mm, start, end - start, NULL,
				       false);
		break;
	case OOM_BRK:
		r->err = oom_brk(&m->vmi, prev, start, end - start);
		break;
	case OOM_MMAP:
	case OOM_MMAP_OVER:
		r->err = oom_mmap(start, end - start);
		break;
	case OOM_RELOCATE_DOWN:
		r->err = relocate_vma_down(m->vma, OOM_ADDR(oom_shift(s)));
		break;
	default:
		r->vma = oom_modify(s->op, &m->vmi, prev, vma, start, end, &attr,
				    s->give_up);
		break;
	}

	oom.active = false;
	if (oom.failed)
		oom_allocs_failed |= 1U << oom.first;
	if (oom_is_merge_existing(s))
		oom_get_position(&m->vmi, &r->after);

	if (IS_ERR(r->vma)) {
		r->err = PTR_ERR(r->vma);
		r->vma = NULL;
	}
	if (r->vma && s->op == OOM_MERGE_EXISTING)
		oom_set_flags(r->vma, r->vma->vm_flags | attr.flags);
}

/*
 * A merge that failed, or that was given up, on its own or in vma_modify(). It
 * need not restore its state, nor the iterator if it was about a new range.
 */
static bool oom_check_merge(struct oom_mm *m, const struct oom_shape *s,
			    const struct oom_state *before,
			    const struct oom_state *after,
			    const struct oom_result *r)
{
	ASSERT_TRUE(oom_same(before, after, true));
	if (oom_is_merge_existing(s))
		ASSERT_TRUE(oom_same_position(s, &r->before, &r->after));
	if (oom_is_modify(s))
		return true;

	/*
	 * By convention, nobody is told that the anon_vma of a new range could
	 * not be cloned.
	 */
	if (s->op == OOM_MERGE_EXISTING || oom.first == OOM_ALLOC_NODES)
		ASSERT_EQ(vmg_nomem(&m->vmg), !s->give_up);
	else
		ASSERT_FALSE(vmg_nomem(&m->vmg));
	return true;
}

static bool oom_check_modify(struct oom_mm *m, const struct oom_shape *s,
			     const struct oom_state *before,
			     struct oom_state *after,
			     const struct oom_state *want,
			     const struct oom_result *r)
{
	const struct oom_attr attr = oom_vma_attr(s, OOM_NEW);
	unsigned long start, end;
	int i;

	if (s->give_up) {
		/* It is changed, and the VMA is the one that was there. */
		ASSERT_EQ(r->err, 0);
		ASSERT_EQ(r->vma, m->vma);
		for (i = 0; i < after->nr; i++) {
			if (after->vmas[i].vma != m->vma)
				continue;
			ASSERT_TRUE(oom_same_attr(&after->vmas[i].attr, &attr));
			after->vmas[i].attr = oom_vma_attr(s, OOM_OLD);
		}
		return oom_check_merge(m, s, before, after, r);
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

	return oom_check_merge(m, s, before, after, r);
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

/* Nothing is unmapped, but a VMA may have been split at an end of the range. */
static bool oom_check_munmap(const struct oom_shape *s,
			     const struct oom_state *before,
			     struct oom_state *after, const struct oom_result *r)
{
	unsigned long start, end;

	ASSERT_EQ(r->err, -ENOMEM);
	oom_part(s, &start, &end);
	oom_undo_split(after, start);
	oom_undo_split(after, end);
	ASSERT_TRUE(oom_same(before, after, false));
	return true;
}

/*
 * A merge that fails is forgone. If there is an error, then the range is as it
 * was, or a hole if its VMAs have already been unmapped.
 */
static bool oom_check_mmap(const struct oom_shape *s,
			   const struct oom_state *before,
			   const struct oom_state *after,
			   const struct oom_state *want,
			   const struct oom_result *r)
{
	unsigned long start, end;

	oom_part(s, &start, &end);
	start >>= PAGE_SHIFT;
	end >>= PAGE_SHIFT;

	if (!r->err) {
		/* Without the merge, it is one VMA more, or two. */
		ASSERT_TRUE(after->nr > want->nr);
		ASSERT_TRUE(oom_same_pages(want, after, 0, OOM_NR_PAGES));
		ASSERT_EQ(after->total_vm, want->total_vm);
		ASSERT_EQ(after->nr_charged, want->nr_charged);
		return true;
	}

	ASSERT_EQ(r->err, -ENOMEM);
	ASSERT_EQ(after->nr_charged, before->nr_charged);
	if (s->op == OOM_MMAP) {
		ASSERT_TRUE(oom_same(before, after, true));
		return true;
	}

	ASSERT_TRUE(oom_same_pages(before, after, 0, start));
	ASSERT_TRUE(oom_same_pages(before, after, end, OOM_NR_PAGES));
	ASSERT_TRUE(oom_same_pages(before, after, start, end) ||
		    oom_is_hole(after, start, end));
	return true;
}

/* It fails before it does anything, or in the last step: exec ends then. */
static bool oom_check_down(struct oom_mm *m, const struct oom_shape *s,
			   const struct oom_state *before,
			   const struct oom_state *after,
			   const struct oom_result *r)
{
	ASSERT_EQ(r->err, -ENOMEM);
	if (m->vma->vm_start == OOM_ADDR(OOM_START)) {
		ASSERT_TRUE(oom_same(before, after, true));
		return true;
	}

	ASSERT_EQ(m->vma->vm_start, OOM_ADDR(OOM_START - oom_shift(s)));
	ASSERT_EQ(m->vma->vm_end, OOM_ADDR(OOM_END));
	ASSERT_EQ(before->nr, after->nr);
	return true;
}

/* One shape with the n-th allocation failing. Was there one? */
static bool oom_fail_nth(struct oom_mm *m, const struct oom_shape *s,
			 const struct oom_state *want, unsigned int nth,
			 bool rest, bool *failed)
{
	static struct oom_state before, after;
	bool again = true;
	struct oom_result r;

	ASSERT_TRUE(oom_setup(m, s));
	ASSERT_TRUE(oom_look(m, &before));

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
	case OOM_MERGE_EXISTING:
	case OOM_MERGE_NEW:
	case OOM_JUST_EXPAND:
		ASSERT_EQ(r.vma, NULL);
		ASSERT_TRUE(oom_check_merge(m, s, &before, &after, &r));
		break;
	case OOM_EXPAND:
		ASSERT_EQ(r.err, -ENOMEM);
		ASSERT_TRUE(oom_check_merge(m, s, &before, &after, &r));
		break;
	case OOM_EXTEND:
		ASSERT_EQ(r.vma, NULL);
		ASSERT_TRUE(oom_same(&before, &after, true));
		break;
	case OOM_COPY:
		ASSERT_TRUE(oom_check_copy(m, s, &before, &after, &r));
		break;
	case OOM_MUNMAP:
		ASSERT_TRUE(oom_check_munmap(s, &before, &after, &r));
		break;
	case OOM_BRK:
		ASSERT_EQ(r.err, -ENOMEM);
		ASSERT_TRUE(oom_same(&before, &after, true));
		break;
	case OOM_MMAP:
	case OOM_MMAP_OVER:
		ASSERT_TRUE(oom_check_mmap(s, &before, &after, want, &r));
		/* If it has got so far that the range is unmapped, it ends. */
		again = s->op == OOM_MMAP && r.err;
		break;
	case OOM_RELOCATE_DOWN:
		ASSERT_TRUE(oom_check_down(m, s, &before, &after, &r));
		again = m->vma->vm_start == OOM_ADDR(OOM_START);
		break;
	default:
		ASSERT_TRUE(oom_check_modify(m, s, &before, &after, want, &r));
		break;
	}

	if (!again) {
		oom_teardown(m);
		return true;
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
	if (oom_is_merge_existing(s) && !merged && want.nr == before.nr)
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
		oom_ops[s->op].name, s->prev, s->prev_anon, s->anon, s->next,
		s->next_anon, s->part, s->kind, s->place, s->cover, s->give_up,
		s->walked, s->fill);
	oom_teardown(&m);
	return false;
}

/* Which of all the combinations do exist? */
static bool oom_exists(const struct oom_shape *s)
{
	const bool existing = oom_has_existing(s);

	/* A neighbour that cannot merge anyway needs no variants. */
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

	if (!oom_is_merge_existing(s) && !s->walked)
		return false;
	/* From vma_modify() on, all is the same, however it differs. */
	if (oom_is_modify(s) && s->op != OOM_MODIFY_FLAGS &&
	    (s->kind != OOM_PLAIN || !s->walked || !s->fill))
		return false;

	switch (s->op) {
	case OOM_MODIFY_FLAGS:
	case OOM_MODIFY_UFFD:
		return !s->give_up || s->part == OOM_WHOLE;
	case OOM_MODIFY_NAME:
	case OOM_MODIFY_POLICY:
		return !s->give_up;
	case OOM_MUNMAP:
	case OOM_MMAP_OVER:
		/* The stubs do not unlink the anon_vmas of unmapped VMAs. */
		return !s->give_up && s->anon == OOM_NONE &&
		       (s->kind == OOM_PLAIN || s->kind == OOM_CLOSE);
	case OOM_BRK:
	case OOM_MMAP:
		return !s->give_up && s->kind == OOM_PLAIN;
	case OOM_RELOCATE_DOWN:
		/* A stack, which has been faulted. */
		return !s->give_up && s->prev == OOM_HOLE &&
		       s->anon == OOM_A && s->kind == OOM_PLAIN &&
		       (s->part == OOM_WHOLE || s->part == OOM_LEFT);
	case OOM_JUST_EXPAND:
		return s->prev == OOM_SAME;
	case OOM_EXPAND:
		/* The caller of vma_expand() has seen that it is possible. */
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
			       s->kind != OOM_CLOSE && s->kind != OOM_STICKY;
		if (s->place == OOM_IS_NEXT)
			return s->next == OOM_SAME && s->anon == OOM_NONE &&
			       s->kind != OOM_CLOSE && s->kind != OOM_STICKY;
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
	unsigned long pairs = oom_nr_pairs;
	int i;

	oom_allocs_failed = 0;
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

	/* A test that has failed nothing has tested nothing. */
	ASSERT_TRUE(oom_nr_pairs > pairs);
	ASSERT_EQ(oom_allocs_failed, oom_ops[op].allocs);
	printf("oom: %s: %lu failing allocations\n", oom_ops[op].name,
	       oom_nr_pairs - pairs);
	fflush(stdout);
	return true;
}

static bool test_oom_modify(void)
{
	return oom_try_all(OOM_MODIFY_FLAGS) && oom_try_all(OOM_MODIFY_UFFD) &&
	       oom_try_all(OOM_MODIFY_NAME) && oom_try_all(OOM_MODIFY_POLICY);
}

static bool test_oom_merge_existing(void)
{
	return oom_try_all(OOM_MERGE_EXISTING);
}

static bool test_oom_merge_new(void)
{
	return oom_try_all(OOM_MERGE_NEW) && oom_try_all(OOM_JUST_EXPAND);
}

static bool test_oom_expand(void)
{
	return oom_try_all(OOM_EXPAND) && oom_try_all(OOM_EXTEND);
}

static bool test_oom_copy(void)
{
	return oom_try_all(OOM_COPY);
}

static bool test_oom_munmap(void)
{
	return oom_try_all(OOM_MUNMAP);
}

static bool test_oom_brk(void)
{
	return oom_try_all(OOM_BRK);
}

static bool test_oom_mmap(void)
{
	return oom_try_all(OOM_MMAP) && oom_try_all(OOM_MMAP_OVER);
}

static bool test_oom_relocate_down(void)
{
	return oom_try_all(OOM_RELOCATE_DOWN);
}

/* Giving up is for whole VMAs. With part of one, there has to be a warning. */
static bool test_oom_give_up_split(void)
{
	struct oom_shape s = {
		.op = OOM_MODIFY_UFFD,
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
	TEST(oom_expand);
	TEST(oom_copy);
	TEST(oom_munmap);
	TEST(oom_brk);
	TEST(oom_mmap);
	TEST(oom_relocate_down);
	TEST(oom_give_up_split);

	printf("oom: %lu shapes, %lu pairs of a shape and a failing allocation tried.\n",
	       oom_nr_shapes, oom_nr_pairs);
}
