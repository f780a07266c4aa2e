// SPDX-License-Identifier: GPL-2.0-or-later

/*
 * Which VMAs mm/vma.c has relocated, to which anon_vma, and what comes of it. See
 * MREMAP_RELOCATE_ANON.
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
#define RELOCATE_DST	0x20000UL
#define RELOCATE_LEN	0x4000UL
#define IN_PLACE_MAX	8
#define IN_PLACE_NEW	(-1)

/* What is at a place, and has it ever been faulted? */
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

static int relocate_unmap_all(struct mm_struct *mm)
{
	VMA_ITERATOR(vmi, mm, 0);

	return cleanup_mm(mm, &vmi);
}

static bool relocate_is_at_home(struct vm_area_struct *vma, unsigned long start,
				unsigned long end)
{
	ASSERT_EQ(vma->vm_start, start);
	ASSERT_EQ(vma->vm_end, end);
	ASSERT_EQ(vma_start_pgoff(vma), start >> PAGE_SHIFT);
	ASSERT_EQ(vma_start_anon_pgoff(vma), start >> PAGE_SHIFT);
	return true;
}

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
	struct anon_vma fresh[IN_PLACE_MAX];
	struct anon_vma_chain avcs[IN_PLACE_MAX];
	int nr, nr_fresh, nr_avcs;
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

/* Have @vma adopt what its alias is to have, as anon_vma_adopt() does. */
static void in_place_adopt(struct in_place_layout *l, struct vma_run *run,
			   struct vm_area_struct *vma)
{
	struct vm_area_struct alias;

	vma_alias_init(&alias, vma);
	vma_set_pgoff(vma, vma_start_pgoff(&alias));
	vma_set_anon_pgoff(vma, vma_start_anon_pgoff(&alias));
	if (!run->anon_vma)
		run->anon_vma = &l->fresh[l->nr_fresh++];
	INIT_LIST_HEAD(&vma->anon_vma_chain);
	vma->anon_vma = run->anon_vma;
	l->avcs[l->nr_avcs].anon_vma = run->anon_vma;
	list_add(&l->avcs[l->nr_avcs++].same_vma, &vma->anon_vma_chain);
}

static bool __test_in_place(const struct in_place_case *c)
{
	struct vm_area_struct *vma;
	struct in_place_layout l;
	struct vma_run run = {};
	struct anon_vma *src;
	unsigned long addr;
	int nr = 0;

	in_place_map(&l, c->layout);
	src = c->src == IN_PLACE_NEW ? NULL : &l.slots[c->src].anon_vma;
	vma = vma_lookup(&l.mm, l.start);
	vma_find_run(vma, l.start, l.end, &run);
	ASSERT_EQ(run.start, l.start);
	ASSERT_EQ(run.end, in_place_addr(c->end));
	ASSERT_EQ(run.anon_vma, src);

	run.end = l.start;
	for (addr = l.start; addr < l.end; addr += RELOCATE_LEN) {
		vma = vma_lookup(&l.mm, addr);
		if (!vma)
			continue;
		if (addr >= run.end)
			vma_find_run(vma, addr, l.end, &run);
		if (!vma_run_needs(&run, vma))
			continue;
		in_place_adopt(&l, &run, vma);
		vma_merge_relocated(vma);
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
	ASSERT_EQ(run.anon_vma, &l.slots[0].anon_vma);
	ASSERT_FALSE(vma_run_needs(&run, l.slots[0].vma));
	ASSERT_TRUE(vma_run_needs(&run, l.slots[1].vma));

	vma_find_run(l.slots[0].vma, in_place_addr(0), in_place_addr(1) + half, &run);
	ASSERT_EQ(run.end, in_place_addr(1) + half);
	ASSERT_EQ(run.anon_vma, &l.slots[1].anon_vma);
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
	ASSERT_EQ(run.anon_vma, &l.slots[1].anon_vma);
	ASSERT_TRUE(vma_run_needs(&run, l.slots[0].vma));
	ASSERT_FALSE(vma_run_needs(&run, l.slots[1].vma));
	relocate_unmap_all(&l.mm);
	return true;
}

/* Without memory for the merge nothing has changed. */
static bool test_in_place_nomem(void)
{
	struct in_place_layout l;
	struct vm_area_struct *vma;
	struct vma_run run;

	in_place_map(&l, "HM");
	vma = l.slots[1].vma;
	vma_find_run(l.slots[0].vma, l.start, l.end, &run);
	in_place_adopt(&l, &run, vma);
	fail_prealloc = true;
	ASSERT_EQ(vma_merge_relocated(vma), vma);
	fail_prealloc = false;
	ASSERT_TRUE(relocate_is_at_home(vma, in_place_addr(1), in_place_addr(2)));
	ASSERT_EQ(l.mm.map_count, 2);
	ASSERT_EQ(vma_merge_relocated(vma), l.slots[0].vma);
	ASSERT_EQ(l.mm.map_count, 1);
	relocate_unmap_all(&l.mm);
	return true;
}

/* What only mprotect() keeps apart can be asked for its anon_vma. */
static bool test_in_place_mprotect(void)
{
	struct in_place_layout l;
	struct vm_area_struct alias;

	in_place_map(&l, "oMo");
	vma_alias_init(&alias, l.slots[1].vma);
	ASSERT_TRUE(relocate_is_at_home(&alias, in_place_addr(1), in_place_addr(2)));
	ASSERT_EQ(find_mergeable_anon_vma(&alias), &l.slots[2].anon_vma);
	ASSERT_EQ(l.mm.map_count, 3);
	relocate_unmap_all(&l.mm);

	in_place_map(&l, "oM.");
	vma_alias_init(&alias, l.slots[1].vma);
	ASSERT_EQ(find_mergeable_anon_vma(&alias), &l.slots[0].anon_vma);
	relocate_unmap_all(&l.mm);
	return true;
}

static void run_relocate_tests(int *num_tests, int *num_fail)
{
	TEST(in_place_layouts);
	TEST(in_place_cut);
	TEST(in_place_nomem);
	TEST(in_place_mprotect);
}
