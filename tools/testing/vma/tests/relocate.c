// SPDX-License-Identifier: GPL-2.0-or-later

/*
 * What mm/vma.c decides for the copy of a VMA whose folios are relocated by
 * mremap(), see MREMAP_RELOCATE_ANON. All pictures show the same place:
 *
 *   |SSSS|          |PPPP|    |NNNN|
 *   SRC           PREV   DST  NEXT
 */
#define RELOCATE_SRC	0x1000UL
#define RELOCATE_PREV	0x1c000UL
#define RELOCATE_DST	0x20000UL
#define RELOCATE_NEXT	0x24000UL
#define RELOCATE_LEN	0x4000UL

/* What is there to the left or right, and has it ever been faulted? */
enum relocate_kind {
	RELOCATE_ABSENT,
	RELOCATE_UNFAULTED,
	RELOCATE_FAULTED,	/* With an anon_vma of its own. */
	RELOCATE_FORKED,	/* The same, and its parent's. */
};

/* A VMA of a test, with room for what it is linked to. */
struct relocate_vma {
	struct vm_area_struct *vma;
	struct anon_vma anon_vma;
	struct anon_vma parent;
	struct anon_vma_chain avc[2];
};

static vma_flags_t relocate_flags(void)
{
	return mk_vma_flags(VMA_READ_BIT, VMA_WRITE_BIT, VMA_MAYREAD_BIT,
			    VMA_MAYWRITE_BIT);
}

static vma_flags_t relocate_flags_readonly(void)
{
	return mk_vma_flags(VMA_READ_BIT, VMA_MAYREAD_BIT, VMA_MAYWRITE_BIT);
}

/* Map @slot at @addr, faulted there, or where @pgoff is if it was moved. */
static struct vm_area_struct *
relocate_map(struct mm_struct *mm, struct relocate_vma *slot,
	     unsigned long addr, pgoff_t pgoff, enum relocate_kind kind,
	     vma_flags_t flags)
{
	struct vm_area_struct *vma;

	memset(slot, 0, sizeof(*slot));
	if (kind == RELOCATE_ABSENT)
		return NULL;

	vma = alloc_and_link_vma(mm, addr, addr + RELOCATE_LEN, pgoff, flags);
	if (!vma)
		return NULL;

	vma_set_anon_pgoff(vma, pgoff);
	vma_set_anonymous(vma);
	slot->vma = vma;
	if (kind != RELOCATE_UNFAULTED)
		__vma_set_dummy_anon_vma(vma, &slot->avc[0], &slot->anon_vma);
	if (kind == RELOCATE_FORKED) {
		slot->avc[1].anon_vma = &slot->parent;
		list_add(&slot->avc[1].same_vma, &vma->anon_vma_chain);
	}
	return vma;
}

/* The same, at home and writable. */
static struct vm_area_struct *
relocate_map_home(struct mm_struct *mm, struct relocate_vma *slot,
		  unsigned long addr, enum relocate_kind kind)
{
	return relocate_map(mm, slot, addr, addr >> PAGE_SHIFT, kind,
			    relocate_flags());
}

static int relocate_unmap_all(struct mm_struct *mm)
{
	VMA_ITERATOR(vmi, mm, 0);

	return cleanup_mm(mm, &vmi);
}

static bool relocate_is_at(struct vm_area_struct *vma, unsigned long start,
			   unsigned long end)
{
	ASSERT_EQ(vma->vm_start, start);
	ASSERT_EQ(vma->vm_end, end);
	ASSERT_EQ(vma_start_pgoff(vma), start >> PAGE_SHIFT);
	ASSERT_EQ(vma_start_anon_pgoff(vma), start >> PAGE_SHIFT);
	vma_assert_attached(vma);
	return true;
}

/*
 * Every pair of neighbours. Of two with folios the next one wins, since a VMA
 * has one anon_vma; one that was forked shares none.
 */
static const struct relocate_case {
	enum relocate_kind prev, next;
	enum { RELOCATE_OWN, RELOCATE_OF_PREV, RELOCATE_OF_NEXT } anon_vma;
	bool merge_left, merge_right;
} relocate_cases[] = {
	{ RELOCATE_ABSENT, RELOCATE_ABSENT, RELOCATE_OWN, false, false },
	{ RELOCATE_ABSENT, RELOCATE_UNFAULTED, RELOCATE_OWN, false, true },
	{ RELOCATE_ABSENT, RELOCATE_FAULTED, RELOCATE_OF_NEXT, false, true },
	{ RELOCATE_ABSENT, RELOCATE_FORKED, RELOCATE_OWN, false, false },

	{ RELOCATE_UNFAULTED, RELOCATE_ABSENT, RELOCATE_OWN, true, false },
	{ RELOCATE_UNFAULTED, RELOCATE_UNFAULTED, RELOCATE_OWN, true, true },
	{ RELOCATE_UNFAULTED, RELOCATE_FAULTED, RELOCATE_OF_NEXT, true, true },
	{ RELOCATE_UNFAULTED, RELOCATE_FORKED, RELOCATE_OWN, true, false },

	{ RELOCATE_FAULTED, RELOCATE_ABSENT, RELOCATE_OF_PREV, true, false },
	{ RELOCATE_FAULTED, RELOCATE_UNFAULTED, RELOCATE_OF_PREV, true, true },
	{ RELOCATE_FAULTED, RELOCATE_FAULTED, RELOCATE_OF_NEXT, false, true },
	{ RELOCATE_FAULTED, RELOCATE_FORKED, RELOCATE_OF_PREV, true, false },

	{ RELOCATE_FORKED, RELOCATE_ABSENT, RELOCATE_OWN, false, false },
	{ RELOCATE_FORKED, RELOCATE_UNFAULTED, RELOCATE_OWN, false, true },
	{ RELOCATE_FORKED, RELOCATE_FAULTED, RELOCATE_OF_NEXT, false, true },
	{ RELOCATE_FORKED, RELOCATE_FORKED, RELOCATE_OWN, false, false },
};

static bool __test_relocate_neighbours(const struct relocate_case *c,
				       enum relocate_kind src_kind)
{
	const unsigned long end = RELOCATE_DST + RELOCATE_LEN;
	struct vm_area_struct *vma, *copy, *merged;
	struct relocate_vma src, prev, next;
	struct mm_struct mm = {};
	struct anon_vma *anon_vma;
	int count = 1;

	vma = relocate_map_home(&mm, &src, RELOCATE_SRC, src_kind);
	relocate_map_home(&mm, &prev, RELOCATE_PREV, c->prev);
	relocate_map_home(&mm, &next, RELOCATE_NEXT, c->next);
	count += !!prev.vma + !!next.vma;

	/* The copy is one of its own at first, next to whatever there is. */
	copy = copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN);
	ASSERT_NE(copy, NULL);
	ASSERT_TRUE(relocate_is_at(copy, RELOCATE_DST, end));
	ASSERT_EQ(mm.map_count, count + 1);
	ASSERT_FLAGS_SAME_MASK(&copy->flags, vma->flags);

	anon_vma = copy->anon_vma;
	ASSERT_NE(anon_vma, NULL);
	ASSERT_NE(anon_vma, &src.anon_vma);
	ASSERT_EQ(anon_vma == &prev.anon_vma, c->anon_vma == RELOCATE_OF_PREV);
	ASSERT_EQ(anon_vma == &next.anon_vma, c->anon_vma == RELOCATE_OF_NEXT);
	ASSERT_TRUE(list_is_singular(&copy->anon_vma_chain));

	/* The source is left to the caller. */
	ASSERT_TRUE(relocate_is_at(vma, RELOCATE_SRC,
				   RELOCATE_SRC + RELOCATE_LEN));
	ASSERT_EQ(vma->anon_vma, &src.anon_vma);

	merged = vma_merge_relocated(copy, NULL);
	ASSERT_TRUE(relocate_is_at(merged,
				   c->merge_left ? RELOCATE_PREV : RELOCATE_DST,
				   c->merge_right ? end + RELOCATE_LEN : end));
	ASSERT_EQ(merged->anon_vma, anon_vma);
	ASSERT_EQ(mm.map_count, count + 1 - c->merge_left - c->merge_right);
	if (c->prev != RELOCATE_ABSENT && !c->merge_left)
		ASSERT_TRUE(relocate_is_at(prev.vma, RELOCATE_PREV,
					   RELOCATE_DST));
	if (c->next != RELOCATE_ABSENT && !c->merge_right)
		ASSERT_TRUE(relocate_is_at(next.vma, end, end + RELOCATE_LEN));

	ASSERT_EQ(relocate_unmap_all(&mm),
		  count + 1 - c->merge_left - c->merge_right);
	return true;
}

static bool test_relocate_neighbours(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(relocate_cases); i++) {
		const struct relocate_case *c = &relocate_cases[i];

		if (__test_relocate_neighbours(c, RELOCATE_FAULTED) &&
		    __test_relocate_neighbours(c, RELOCATE_FORKED))
			continue;
		fprintf(stderr, "prev %d, next %d\n", c->prev, c->next);
		return false;
	}
	return true;
}

/* A hole in what was one VMA is filled without a trace. */
static bool test_relocate_same_anon_vma(void)
{
	struct vm_area_struct *vma, *copy, *merged;
	struct relocate_vma src, prev, next;
	struct mm_struct mm = {};

	vma = relocate_map_home(&mm, &src, RELOCATE_SRC, RELOCATE_FAULTED);
	relocate_map_home(&mm, &prev, RELOCATE_PREV, RELOCATE_FAULTED);
	relocate_map_home(&mm, &next, RELOCATE_NEXT, RELOCATE_UNFAULTED);
	__vma_set_dummy_anon_vma(next.vma, &next.avc[0], &prev.anon_vma);

	copy = copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN);
	ASSERT_NE(copy, NULL);
	ASSERT_EQ(copy->anon_vma, &prev.anon_vma);

	merged = vma_merge_relocated(copy, NULL);
	ASSERT_TRUE(relocate_is_at(merged, RELOCATE_PREV,
				   RELOCATE_NEXT + RELOCATE_LEN));
	ASSERT_EQ(mm.map_count, 2);

	relocate_unmap_all(&mm);
	return true;
}

/* mremap() may move a part of a VMA, and make it longer meanwhile. */
static bool test_relocate_part_grown(void)
{
	struct vm_area_struct *vma, *copy;
	struct relocate_vma src, next;
	struct mm_struct mm = {};

	/* The source has been moved before, without the flag. */
	vma = relocate_map(&mm, &src, RELOCATE_SRC, 0x1234, RELOCATE_FAULTED,
			   relocate_flags());
	relocate_map_home(&mm, &next, RELOCATE_NEXT, RELOCATE_FAULTED);

	copy = copy_vma_relocated(vma, RELOCATE_DST - RELOCATE_LEN,
				  2 * RELOCATE_LEN);
	ASSERT_NE(copy, NULL);
	ASSERT_TRUE(relocate_is_at(copy, RELOCATE_DST - RELOCATE_LEN,
				   RELOCATE_DST + RELOCATE_LEN));
	copy = vma_merge_relocated(copy, NULL);
	ASSERT_TRUE(relocate_is_at(copy, RELOCATE_DST - RELOCATE_LEN,
				   RELOCATE_NEXT + RELOCATE_LEN));
	ASSERT_EQ(vma_start_pgoff(vma), 0x1234);

	relocate_unmap_all(&mm);
	return true;
}

/*
 * With different access there is nothing to merge now, but the anon_vma is
 * chosen such that mprotect() can merge later:
 *
 *   |rrrr|   |wwww|    |   ->   |wwww|rrrr|   ->   |wwwwwwww|
 */
static bool __test_relocate_mprotect(bool left)
{
	vma_flags_t flags = relocate_flags();
	struct vm_area_struct *vma, *copy, *merged;
	struct relocate_vma src, near;
	struct mm_struct mm = {};

	VMA_ITERATOR(vmi, &mm, RELOCATE_DST);

	vma = relocate_map(&mm, &src, RELOCATE_SRC, RELOCATE_SRC >> PAGE_SHIFT,
			   RELOCATE_FAULTED, relocate_flags_readonly());
	relocate_map_home(&mm, &near, left ? RELOCATE_PREV : RELOCATE_NEXT,
			  RELOCATE_FAULTED);

	copy = copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN);
	ASSERT_NE(copy, NULL);
	ASSERT_EQ(copy->anon_vma, &near.anon_vma);
	ASSERT_EQ(vma_merge_relocated(copy, NULL), copy);
	ASSERT_EQ(mm.map_count, 3);

	merged = vma_modify_flags(&vmi, left ? near.vma : NULL, copy,
				  RELOCATE_DST, RELOCATE_NEXT,
				  &flags, /* give_up_on_oom = */false);
	ASSERT_EQ(merged, near.vma);
	ASSERT_TRUE(relocate_is_at(merged, left ? RELOCATE_PREV : RELOCATE_DST,
				   left ? RELOCATE_NEXT :
					  RELOCATE_NEXT + RELOCATE_LEN));
	ASSERT_EQ(mm.map_count, 2);

	relocate_unmap_all(&mm);
	return true;
}

static bool test_relocate_mprotect(void)
{
	ASSERT_TRUE(__test_relocate_mprotect(/* left = */ true));
	ASSERT_TRUE(__test_relocate_mprotect(/* left = */ false));
	return true;
}

/* What no mprotect() can make equal has an anon_vma of its own. */
static bool test_relocate_other_flags(void)
{
	struct vm_area_struct *vma, *copy;
	struct relocate_vma src, prev, next;
	struct mm_struct mm = {};

	vma = relocate_map_home(&mm, &src, RELOCATE_SRC, RELOCATE_FAULTED);
	vma_set_flags(vma, VMA_NOHUGEPAGE_BIT);
	relocate_map_home(&mm, &prev, RELOCATE_PREV, RELOCATE_FAULTED);
	relocate_map_home(&mm, &next, RELOCATE_NEXT, RELOCATE_FAULTED);

	copy = copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN);
	ASSERT_NE(copy, NULL);
	ASSERT_NE(copy->anon_vma, &prev.anon_vma);
	ASSERT_NE(copy->anon_vma, &next.anon_vma);
	ASSERT_NE(copy->anon_vma, &src.anon_vma);
	ASSERT_EQ(vma_merge_relocated(copy, NULL), copy);
	ASSERT_EQ(mm.map_count, 4);

	relocate_unmap_all(&mm);
	return true;
}

/* Neighbours at home elsewhere do not count, whatever their anon_vma is. */
static bool test_relocate_strangers(void)
{
	struct vm_area_struct *vma, *copy;
	struct relocate_vma src, prev, next;
	struct mm_struct mm = {};

	vma = relocate_map_home(&mm, &src, RELOCATE_SRC, RELOCATE_FAULTED);
	relocate_map(&mm, &prev, RELOCATE_PREV, 0x4321, RELOCATE_FAULTED,
		     relocate_flags());
	relocate_map(&mm, &next, RELOCATE_NEXT, 0x5321, RELOCATE_FAULTED,
		     relocate_flags());

	copy = copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN);
	ASSERT_NE(copy, NULL);
	ASSERT_NE(copy->anon_vma, &prev.anon_vma);
	ASSERT_NE(copy->anon_vma, &next.anon_vma);
	ASSERT_EQ(vma_merge_relocated(copy, NULL), copy);

	relocate_unmap_all(&mm);
	return true;
}

/*
 * MREMAP_DONTUNMAP leaves a source that is as good as unfaulted. It would merge
 * with the copy, but the user wants both:
 *
 *   |SSSS|    |NNNN|   ->   |SSSS|CCCC|NNNN|   ->   |SSSS|CCCCCCCC|
 */
static bool test_relocate_keep_source(void)
{
	struct vm_area_struct *vma, *copy, *merged;
	struct relocate_vma src, next;
	struct mm_struct mm = {};

	/* On the left. */
	vma = relocate_map_home(&mm, &src, RELOCATE_PREV, RELOCATE_UNFAULTED);
	copy = copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN);
	ASSERT_NE(copy, NULL);
	ASSERT_EQ(vma_merge_relocated(copy, vma), copy);
	ASSERT_TRUE(relocate_is_at(vma, RELOCATE_PREV, RELOCATE_DST));
	ASSERT_TRUE(relocate_is_at(copy, RELOCATE_DST, RELOCATE_NEXT));
	ASSERT_EQ(vma->anon_vma, NULL);
	ASSERT_EQ(mm.map_count, 2);

	/* It is the only reason why they do not merge. */
	ASSERT_EQ(vma_merge_relocated(copy, NULL), vma);
	ASSERT_TRUE(relocate_is_at(vma, RELOCATE_PREV, RELOCATE_NEXT));
	relocate_unmap_all(&mm);

	/* On the left, with another VMA on the right that does merge. */
	vma = relocate_map_home(&mm, &src, RELOCATE_PREV, RELOCATE_UNFAULTED);
	relocate_map_home(&mm, &next, RELOCATE_NEXT, RELOCATE_FAULTED);
	copy = copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN);
	ASSERT_NE(copy, NULL);
	merged = vma_merge_relocated(copy, vma);
	ASSERT_EQ(merged, next.vma);
	ASSERT_TRUE(relocate_is_at(merged, RELOCATE_DST,
				   RELOCATE_NEXT + RELOCATE_LEN));
	ASSERT_TRUE(relocate_is_at(vma, RELOCATE_PREV, RELOCATE_DST));
	ASSERT_EQ(mm.map_count, 2);
	relocate_unmap_all(&mm);

	/* On the right. */
	vma = relocate_map_home(&mm, &src, RELOCATE_NEXT, RELOCATE_UNFAULTED);
	copy = copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN);
	ASSERT_NE(copy, NULL);
	ASSERT_EQ(vma_merge_relocated(copy, vma), copy);
	ASSERT_TRUE(relocate_is_at(vma, RELOCATE_NEXT,
				   RELOCATE_NEXT + RELOCATE_LEN));
	ASSERT_TRUE(relocate_is_at(copy, RELOCATE_DST, RELOCATE_NEXT));
	ASSERT_EQ(vma->anon_vma, NULL);
	ASSERT_EQ(mm.map_count, 2);

	ASSERT_EQ(vma_merge_relocated(copy, NULL), vma);
	ASSERT_TRUE(relocate_is_at(vma, RELOCATE_DST,
				   RELOCATE_NEXT + RELOCATE_LEN));
	relocate_unmap_all(&mm);
	return true;
}

/*
 * The source may be the next VMA, and about to go, or to be kept by
 * MREMAP_DONTUNMAP. It must not stand between the copy and its previous VMA:
 *
 *   |PPPP|    |SSSS|   ->   |PPPP|CCCC|SSSS|   ->   |PPPPCCCC|SSSS|
 */
static bool test_relocate_source_is_next(void)
{
	struct vm_area_struct *vma, *copy;
	struct relocate_vma src, prev;
	struct mm_struct mm = {};

	vma = relocate_map_home(&mm, &src, RELOCATE_NEXT, RELOCATE_FAULTED);
	relocate_map_home(&mm, &prev, RELOCATE_PREV, RELOCATE_FAULTED);
	copy = copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN);
	ASSERT_NE(copy, NULL);
	ASSERT_EQ(copy->anon_vma, &prev.anon_vma);
	ASSERT_EQ(vma_merge_relocated(copy, vma), prev.vma);
	ASSERT_TRUE(relocate_is_at(prev.vma, RELOCATE_PREV, RELOCATE_NEXT));
	ASSERT_TRUE(relocate_is_at(vma, RELOCATE_NEXT,
				   RELOCATE_NEXT + RELOCATE_LEN));
	ASSERT_EQ(mm.map_count, 2);
	relocate_unmap_all(&mm);

	/* For want of another, it is a neighbour: a part of it may stay. */
	vma = relocate_map_home(&mm, &src, RELOCATE_NEXT, RELOCATE_FAULTED);
	copy = copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN);
	ASSERT_NE(copy, NULL);
	ASSERT_EQ(copy->anon_vma, &src.anon_vma);
	relocate_unmap_all(&mm);
	return true;
}

/* Out of memory for the copy: there is none. For the merge: it can wait. */
static bool test_relocate_nomem(void)
{
	struct vm_area_struct *vma, *copy;
	struct relocate_vma src, prev, next;
	struct mm_struct mm = {};

	vma = relocate_map_home(&mm, &src, RELOCATE_SRC, RELOCATE_FAULTED);
	relocate_map_home(&mm, &prev, RELOCATE_PREV, RELOCATE_FAULTED);
	relocate_map_home(&mm, &next, RELOCATE_NEXT, RELOCATE_UNFAULTED);
	__vma_set_dummy_anon_vma(next.vma, &next.avc[0], &prev.anon_vma);

	fail_prealloc = true;
	ASSERT_EQ(copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN), NULL);
	ASSERT_TRUE(prev.anon_vma.was_unlinked);
	ASSERT_EQ(mm.map_count, 3);
	ASSERT_EQ(find_vma_intersection(&mm, RELOCATE_DST, RELOCATE_NEXT), NULL);

	fail_prealloc = false;
	copy = copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN);
	ASSERT_NE(copy, NULL);

	fail_prealloc = true;
	ASSERT_EQ(vma_merge_relocated(copy, NULL), copy);
	ASSERT_TRUE(relocate_is_at(prev.vma, RELOCATE_PREV, RELOCATE_DST));
	ASSERT_TRUE(relocate_is_at(copy, RELOCATE_DST, RELOCATE_NEXT));
	ASSERT_TRUE(relocate_is_at(next.vma, RELOCATE_NEXT,
				   RELOCATE_NEXT + RELOCATE_LEN));
	ASSERT_EQ(prev.vma->anon_vma, &prev.anon_vma);
	ASSERT_EQ(copy->anon_vma, &prev.anon_vma);
	ASSERT_EQ(next.vma->anon_vma, &prev.anon_vma);
	ASSERT_EQ(mm.map_count, 4);

	/* And it can still be done. */
	fail_prealloc = false;
	ASSERT_TRUE(relocate_is_at(vma_merge_relocated(copy, NULL),
				   RELOCATE_PREV, RELOCATE_NEXT + RELOCATE_LEN));
	ASSERT_EQ(mm.map_count, 2);

	relocate_unmap_all(&mm);
	return true;
}

/* userfaultfd does not follow a move that it has not asked to be told of. */
static bool __test_relocate_uffd(bool left)
{
	struct vm_area_struct *vma, *copy;
	struct relocate_vma src, near;
	struct mm_struct mm = {};

	vma = relocate_map_home(&mm, &src, RELOCATE_SRC, RELOCATE_FAULTED);
	vma_set_flags(vma, VMA_UFFD_MISSING_BIT, VMA_UFFD_WP_BIT);
	relocate_map_home(&mm, &near, left ? RELOCATE_PREV : RELOCATE_NEXT,
			  RELOCATE_FAULTED);

	copy = copy_vma_relocated(vma, RELOCATE_DST, RELOCATE_LEN);
	ASSERT_NE(copy, NULL);
	ASSERT_EQ(copy->anon_vma, &near.anon_vma);
	/* As mremap_userfaultfd_prep() does. */
	vma_clear_flags_mask(copy, __VMA_UFFD_FLAGS);
	ASSERT_EQ(vma_merge_relocated(copy, NULL), near.vma);
	ASSERT_EQ(mm.map_count, 2);

	relocate_unmap_all(&mm);
	return true;
}

static bool test_relocate_uffd(void)
{
	ASSERT_TRUE(__test_relocate_uffd(/* left = */ true));
	ASSERT_TRUE(__test_relocate_uffd(/* left = */ false));
	return true;
}

/*
 * Would the move that has always been merge? Here the source, or its second
 * half, was faulted at DST, as its neighbours were where they are:
 *
 *   |..ss|   |PPPP|    |   or   |ssss|   |    |NNNN|
 */
static bool __test_copy_merges(enum relocate_kind prev_kind,
			       enum relocate_kind next_kind,
			       bool same_anon_vma, bool expected)
{
	const unsigned long half = RELOCATE_LEN / 2;
	const unsigned long start = next_kind == RELOCATE_ABSENT ?
					RELOCATE_DST : RELOCATE_NEXT - half;
	const pgoff_t pgoff = (start - half) >> PAGE_SHIFT;
	struct relocate_vma src, prev, next;
	struct vm_area_struct *vma;
	struct mm_struct mm = {};

	vma = relocate_map(&mm, &src, RELOCATE_SRC, pgoff, RELOCATE_FAULTED,
			   relocate_flags());
	relocate_map_home(&mm, &prev, RELOCATE_PREV, prev_kind);
	relocate_map_home(&mm, &next, RELOCATE_NEXT, next_kind);
	if (prev.vma && prev.vma->anon_vma && same_anon_vma)
		prev.vma->anon_vma = vma->anon_vma;
	if (next.vma && next.vma->anon_vma && same_anon_vma)
		next.vma->anon_vma = vma->anon_vma;

	/* The second half of the source continues the neighbour. */
	ASSERT_EQ(vma_copy_merges(vma, RELOCATE_SRC + half, start, half),
		  expected);
	/* The first half would not, and neither would it elsewhere. */
	ASSERT_FALSE(vma_copy_merges(vma, RELOCATE_SRC, start, half));
	ASSERT_FALSE(vma_copy_merges(vma, RELOCATE_SRC + half,
				     RELOCATE_NEXT + 4 * RELOCATE_LEN, half));
	/* With userfaultfd it would, but for what the copy is about to lose. */
	vma_set_flags(vma, VMA_UFFD_WP_BIT);
	if (prev.vma)
		vma_set_flags(prev.vma, VMA_UFFD_WP_BIT);
	if (next.vma)
		vma_set_flags(next.vma, VMA_UFFD_WP_BIT);
	ASSERT_FALSE(vma_copy_merges(vma, RELOCATE_SRC + half, start, half));

	/* It was but a question. */
	ASSERT_EQ(mm.map_count, 1 + !!prev.vma + !!next.vma);
	ASSERT_EQ(vma->vm_start, RELOCATE_SRC);
	ASSERT_EQ(vma_start_pgoff(vma), pgoff);
	relocate_unmap_all(&mm);
	return true;
}

static bool test_relocate_copy_merges(void)
{
	/* Left. */
	ASSERT_TRUE(__test_copy_merges(RELOCATE_FAULTED, RELOCATE_ABSENT,
				       true, true));
	ASSERT_TRUE(__test_copy_merges(RELOCATE_FAULTED, RELOCATE_ABSENT,
				       false, false));
	ASSERT_TRUE(__test_copy_merges(RELOCATE_UNFAULTED, RELOCATE_ABSENT,
				       false, true));
	/* Right. */
	ASSERT_TRUE(__test_copy_merges(RELOCATE_ABSENT, RELOCATE_FAULTED,
				       true, true));
	ASSERT_TRUE(__test_copy_merges(RELOCATE_ABSENT, RELOCATE_FAULTED,
				       false, false));
	ASSERT_TRUE(__test_copy_merges(RELOCATE_ABSENT, RELOCATE_UNFAULTED,
				       false, true));
	/* Nothing there. */
	ASSERT_TRUE(__test_copy_merges(RELOCATE_ABSENT, RELOCATE_ABSENT,
				       false, false));
	return true;
}

/*
 * Back into the middle of a VMA, whose middle will be unmapped first:
 *
 *	     SRC                 PREV
 *	|--A--|--B--|  -->  |-----|<-A->|<-B->|-----|
 */
static bool test_relocate_copy_merges_into(void)
{
	const unsigned long addr = RELOCATE_PREV + PAGE_SIZE;
	struct relocate_vma src, prev;
	struct vm_area_struct *vma;
	struct mm_struct mm = {};

	vma = relocate_map(&mm, &src, RELOCATE_SRC, addr >> PAGE_SHIFT,
			   RELOCATE_FAULTED, relocate_flags());
	relocate_map_home(&mm, &prev, RELOCATE_PREV, RELOCATE_FAULTED);
	ASSERT_FALSE(vma_copy_merges(vma, RELOCATE_SRC, addr, 2 * PAGE_SIZE));

	prev.vma->anon_vma = vma->anon_vma;
	ASSERT_TRUE(vma_copy_merges(vma, RELOCATE_SRC, addr, 2 * PAGE_SIZE));
	ASSERT_FALSE(vma_copy_merges(vma, RELOCATE_SRC + PAGE_SIZE, addr,
				     2 * PAGE_SIZE));

	relocate_unmap_all(&mm);
	return true;
}

static void run_relocate_tests(int *num_tests, int *num_fail)
{
	TEST(relocate_neighbours);
	TEST(relocate_same_anon_vma);
	TEST(relocate_part_grown);
	TEST(relocate_mprotect);
	TEST(relocate_other_flags);
	TEST(relocate_strangers);
	TEST(relocate_keep_source);
	TEST(relocate_source_is_next);
	TEST(relocate_nomem);
	TEST(relocate_uffd);
	TEST(relocate_copy_merges);
	TEST(relocate_copy_merges_into);
}
