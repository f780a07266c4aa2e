// SPDX-License-Identifier: GPL-2.0-or-later

/*
 * Which VMAs mm/vma.c has relocated in place, to which anon_vma, and what comes
 * of it.
 *
 * A layout is a string with one VMA for each letter, RELOCATE_LEN long, at
 * RELOCATE_DST and behind. Capitals are in the range that is relocated.
 *
 *   h  at home: faulted where it is
 *   m  moved here after it was faulted
 *   u  unfaulted
 *   f  at home, and its folios may be those of a parent
 *   o  at home, with other flags
 *   .  a gap
 */
#define IN_PLACE_MAX	8
#define IN_PLACE_NEW	(-1)

static const struct in_place_case {
	const char *layout;
	int src;		/* Whose anon_vma it is to be, or IN_PLACE_NEW. */
	int end;		/* Where the first run ends. */
	int nr_relocated;	/* In all runs. */
	int nr_after;		/* VMAs that are left. */
} in_place_cases[] = {
	/* There is nothing to gain. */
	{ "U",		IN_PLACE_NEW,	1, 0, 1 },
	{ "H",		0,		1, 0, 1 },
	{ "F",		IN_PLACE_NEW,	1, 0, 1 },
	{ "H.H",	0,		1, 0, 2 },
	{ "HO",		0,		1, 0, 2 },
	{ "oHo",	1,		2, 0, 3 },
	{ "fH",		1,		2, 0, 2 },
	/* The page offset has to change. */
	{ "M",		IN_PLACE_NEW,	1, 1, 1 },
	{ "M.M",	IN_PLACE_NEW,	1, 2, 2 },
	{ "MM",		IN_PLACE_NEW,	2, 2, 1 },
	{ "MMMM",	IN_PLACE_NEW,	4, 4, 1 },
	{ "mM",		IN_PLACE_NEW,	2, 1, 2 },
	{ "oM",		IN_PLACE_NEW,	2, 1, 2 },
	{ "fM",		IN_PLACE_NEW,	2, 1, 2 },
	{ "uM",		IN_PLACE_NEW,	2, 1, 1 },
	{ "Mu",		IN_PLACE_NEW,	1, 1, 1 },
	{ "HM",		0,		2, 1, 1 },
	{ "MH",		1,		2, 1, 1 },
	{ "MHM",	1,		3, 2, 1 },
	{ "MFM",	IN_PLACE_NEW,	3, 3, 1 },
	{ "MOM",	IN_PLACE_NEW,	1, 2, 3 },
	/* The anon_vma has to change. */
	{ "HH",		0,		2, 1, 1 },
	{ "HHHH",	0,		4, 3, 1 },
	{ "FF",		IN_PLACE_NEW,	2, 2, 1 },
	{ "uF",		IN_PLACE_NEW,	2, 1, 1 },
	{ "Fu",		IN_PLACE_NEW,	1, 1, 1 },
	{ "FU",		IN_PLACE_NEW,	2, 1, 1 },
	{ "FH",		1,		2, 1, 1 },
	{ "HF",		0,		2, 1, 1 },
	/* Neighbours that are not in the range win, the first one first. */
	{ "hM",		0,		2, 1, 1 },
	{ "Mh",		1,		1, 1, 1 },
	{ "hH",		0,		2, 1, 1 },
	{ "Hh",		1,		1, 1, 1 },
	{ "hMh",	0,		2, 1, 2 },
	{ "HHHh",	3,		3, 3, 1 },
	{ "hHHh",	0,		3, 2, 2 },
	{ "oHMh",	3,		3, 2, 2 },
	{ "fHm",	1,		2, 0, 3 },
};

struct in_place_layout {
	struct mm_struct mm;
	struct relocate_vma slots[IN_PLACE_MAX];
	int nr;
	unsigned long start, end;	/* Of the range. */
};

static unsigned long in_place_addr(int i)
{
	return RELOCATE_DST + i * RELOCATE_LEN;
}

static void in_place_map(struct in_place_layout *l, const char *layout)
{
	int i;

	memset(l, 0, sizeof(*l));
	for (i = 0; layout[i]; i++) {
		const char c = layout[i] | 0x20;
		enum relocate_kind kind = RELOCATE_FAULTED;
		pgoff_t pgoff = in_place_addr(i) >> PAGE_SHIFT;
		vma_flags_t flags = relocate_flags();

		if (layout[i] != '.' && layout[i] != c) {
			if (!l->end)
				l->start = in_place_addr(i);
			l->end = in_place_addr(i + 1);
		}
		if (c == 'u')
			kind = RELOCATE_UNFAULTED;
		if (c == 'f')
			kind = RELOCATE_FORKED;
		if (layout[i] == '.')
			kind = RELOCATE_ABSENT;
		if (c == 'm')
			pgoff += 0x1000 * (i + 1);
		if (c == 'o')
			flags = relocate_flags_readonly();
		relocate_map(&l->mm, &l->slots[i], in_place_addr(i), pgoff, kind,
			     flags);
		l->nr += kind != RELOCATE_ABSENT;
	}
}

/* Relocate @vma, and return what it has become. */
static struct vm_area_struct *in_place_relocate(struct vma_run *run,
						struct vm_area_struct *vma)
{
	const unsigned long start = vma->vm_start, end = vma->vm_end;
	struct mm_struct *mm = vma->vm_mm;
	const int count = mm->map_count;
	struct vm_area_struct *copy;

	VMA_ITERATOR(vmi, mm, start);

	copy = copy_vma_in_place(&vmi, vma, run->anon_src);
	if (!copy)
		return NULL;
	/* Nothing finds it, but for the reverse mapping. */
	if (vma_lookup(mm, start) != vma || vma_is_attached(copy) ||
	    mm->map_count != count)
		return NULL;
	if (run->anon_src && copy->anon_vma != run->anon_src->anon_vma)
		return NULL;

	vma_replace(&vmi, vma, copy);
	if (vma_lookup(mm, start) != copy || mm->map_count != count ||
	    !relocate_is_at(copy, start, end))
		return NULL;
	run->anon_src = vma_merge_relocated(copy, NULL);
	return run->anon_src;
}

static bool __test_in_place(const struct in_place_case *c)
{
	struct vm_area_struct *vma, *src;
	struct in_place_layout l;
	struct vma_run run = {};
	unsigned long addr;
	int nr = 0;

	in_place_map(&l, c->layout);
	src = c->src == IN_PLACE_NEW ? NULL : l.slots[c->src].vma;
	vma = vma_lookup(&l.mm, l.start);
	vma_find_run(vma, l.start, l.end, &run);
	ASSERT_EQ(run.start, l.start);
	ASSERT_EQ(run.end, in_place_addr(c->end));
	ASSERT_EQ(run.anon_src, src);

	run.end = l.start;
	for (addr = l.start; addr < l.end; addr += RELOCATE_LEN) {
		vma = vma_lookup(&l.mm, addr);
		if (!vma)
			continue;
		if (addr >= run.end)
			vma_find_run(vma, addr, l.end, &run);
		if (!vma_run_needs(&run, vma))
			continue;
		ASSERT_NE(in_place_relocate(&run, vma), NULL);
		nr++;
	}
	ASSERT_EQ(nr, c->nr_relocated);
	ASSERT_EQ(l.mm.map_count, c->nr_after);

	/* It stays so: there is nothing to gain the second time. */
	for (addr = l.start; addr < l.end; addr += RELOCATE_LEN) {
		vma = vma_lookup(&l.mm, addr);
		if (!vma)
			continue;
		vma_find_run(vma, addr, l.end, &run);
		ASSERT_FALSE(vma_run_needs(&run, vma));
	}
	relocate_unmap_all(&l.mm);
	return true;
}

static bool test_in_place_layouts(void)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(in_place_cases); i++) {
		if (__test_in_place(&in_place_cases[i]))
			continue;
		fprintf(stderr, "layout %s\n", in_place_cases[i].layout);
		return false;
	}
	return true;
}

/* The range begins or ends in the midst of a VMA. */
static bool test_in_place_cut(void)
{
	const unsigned long half = RELOCATE_LEN / 2;
	struct in_place_layout l;
	struct vma_run run;

	/* At home it is not split, and others are relocated to it. */
	in_place_map(&l, "hh");
	vma_find_run(l.slots[0].vma, in_place_addr(0) + half, in_place_addr(2), &run);
	ASSERT_EQ(run.start, in_place_addr(0) + half);
	ASSERT_EQ(run.end, in_place_addr(2));
	ASSERT_EQ(run.anon_src, l.slots[0].vma);
	ASSERT_FALSE(vma_run_needs(&run, l.slots[0].vma));
	ASSERT_TRUE(vma_run_needs(&run, l.slots[1].vma));

	vma_find_run(l.slots[0].vma, in_place_addr(0), in_place_addr(1) + half, &run);
	ASSERT_EQ(run.end, in_place_addr(1) + half);
	ASSERT_EQ(run.anon_src, l.slots[1].vma);
	ASSERT_TRUE(vma_run_needs(&run, l.slots[0].vma));
	ASSERT_FALSE(vma_run_needs(&run, l.slots[1].vma));

	/* Both are cut: only the border could move. */
	vma_find_run(l.slots[0].vma, in_place_addr(0) + half,
		     in_place_addr(1) + half, &run);
	ASSERT_FALSE(vma_run_needs(&run, l.slots[0].vma));
	ASSERT_FALSE(vma_run_needs(&run, l.slots[1].vma));
	relocate_unmap_all(&l.mm);

	/* What is not at home is none's to be relocated to, and has to be split. */
	in_place_map(&l, "mh");
	vma_find_run(l.slots[0].vma, in_place_addr(0) + half, in_place_addr(2), &run);
	ASSERT_EQ(run.anon_src, l.slots[1].vma);
	ASSERT_TRUE(vma_run_needs(&run, l.slots[0].vma));
	ASSERT_FALSE(vma_run_needs(&run, l.slots[1].vma));
	relocate_unmap_all(&l.mm);
	return true;
}

/* Without memory for the copy, or for its place in the tree, all is as it was. */
static bool test_in_place_nomem(void)
{
	struct vm_area_struct *vma, *copy;
	struct in_place_layout l;
	struct vma_run run;

	in_place_map(&l, "HM");
	vma = l.slots[1].vma;

	VMA_ITERATOR(vmi, &l.mm, vma->vm_start);

	vma_find_run(l.slots[0].vma, l.start, l.end, &run);
	fail_prealloc = true;
	ASSERT_EQ(copy_vma_in_place(&vmi, vma, run.anon_src), NULL);
	fail_prealloc = false;
	ASSERT_TRUE(l.slots[0].anon_vma.was_unlinked);
	ASSERT_EQ(vma_lookup(&l.mm, vma->vm_start), vma);
	ASSERT_EQ(vma->anon_vma, &l.slots[1].anon_vma);
	ASSERT_EQ(vma_start_pgoff(vma), (in_place_addr(1) >> PAGE_SHIFT) + 0x2000);
	ASSERT_EQ(l.mm.map_count, 2);
	vma_assert_attached(vma);

	/* Without memory for the merge it is done all the same. */
	copy = copy_vma_in_place(&vmi, vma, run.anon_src);
	ASSERT_NE(copy, NULL);
	vma_replace(&vmi, vma, copy);
	fail_prealloc = true;
	ASSERT_EQ(vma_merge_relocated(copy, NULL), copy);
	fail_prealloc = false;
	ASSERT_TRUE(relocate_is_at(copy, in_place_addr(1), in_place_addr(2)));
	ASSERT_EQ(l.mm.map_count, 2);
	ASSERT_EQ(vma_merge_relocated(copy, NULL), l.slots[0].vma);
	ASSERT_EQ(l.mm.map_count, 1);
	relocate_unmap_all(&l.mm);
	return true;
}

static void run_relocate_in_place_tests(int *num_tests, int *num_fail)
{
	TEST(in_place_layouts);
	TEST(in_place_cut);
	TEST(in_place_nomem);
}
