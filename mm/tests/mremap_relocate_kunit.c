// SPDX-License-Identifier: GPL-2.0
/*
 * White box tests of relocation by mremap() (mm/rehome.c, mm/mremap_relocate*.c),
 * on an mm of our own.
 *
 * What the system call promises is tested from userland, in
 * tools/testing/selftests/mm. Here we look at what no program can see: where
 * the index and the anon_vma of each folio lead after a relocation, and that
 * one which is refused has changed nothing.
 *
 * All ranges are mapped at fixed places, from ARENA on, which is where a page
 * table begins.
 */

#include <kunit/static_stub.h>
#include <kunit/test.h>
#include <linux/kthread.h>
#include <linux/leafops.h>
#include <linux/mm.h>
#include <linux/mman.h>
#include <linux/pagewalk.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/swap.h>
#include <linux/uaccess.h>
#include <linux/uprobes.h>

#include "../internal.h"
#include "../mremap_relocate.h"
#include "../rehome.h"
#include "../swap.h"

#define ARENA		(16 * PMD_SIZE)
#define PAGES(nr)	((unsigned long)(nr) << PAGE_SHIFT)

/* What one page of a range, and its slot, look like. */
struct page_state {
	unsigned long pte;
	struct page *page;
	unsigned long index;
	void *anon_vma;
	unsigned long mapcount;
};

#define STATE_PAGES	32

/* All that a refused relocation must leave alone. */
struct state {
	unsigned long start;
	unsigned long end;
	unsigned long flags;
	unsigned long pgoff;
	void *anon_vma;
	unsigned long map_count;
	unsigned long total_vm;
	unsigned long pgtables;
	unsigned long anon_rss;
	struct page_state pages[STATE_PAGES];
};

static void map_pages(struct kunit *test, unsigned long addr, unsigned long nr)
{
	const unsigned long flags = MAP_PRIVATE | MAP_ANONYMOUS |
				    MAP_FIXED_NOREPLACE | MAP_NORESERVE;

	KUNIT_ASSERT_EQ(test, addr,
			vm_mmap(NULL, addr, PAGES(nr), PROT_READ | PROT_WRITE,
				flags, 0));
}

/* Fault in @nr pages, each with contents of its own. */
static void fill_pages(struct kunit *test, unsigned long addr, unsigned long nr,
		       u32 seed)
{
	for (; nr; nr--, addr += PAGE_SIZE)
		KUNIT_ASSERT_EQ(test, 0, put_user(seed++, (u32 __user *)addr));
}

static void expect_pages(struct kunit *test, unsigned long addr,
			 unsigned long nr, u32 seed)
{
	u32 val;

	for (; nr; nr--, addr += PAGE_SIZE) {
		KUNIT_EXPECT_EQ(test, 0, get_user(val, (u32 __user *)addr));
		KUNIT_EXPECT_EQ(test, val, seed++);
	}
}

static unsigned long anon_rss(void)
{
	return get_mm_counter_sum(current->mm, MM_ANONPAGES);
}

/*
 * The folio that is mapped at @addr of @vma, with a reference to it, or NULL;
 * with its page and slot, if @state is not NULL.
 */
static struct folio *folio_at(struct vm_area_struct *vma, unsigned long addr,
			      struct page_state *state)
{
	struct folio_walk fw;
	struct folio *folio;

	folio = folio_walk_start(&fw, vma, addr, 0);
	if (!folio)
		return NULL;
	folio_get(folio);
	if (state) {
		state->page = fw.page;
		state->pte = fw.level == FW_LEVEL_PTE ? pte_val(fw.pte) :
							pmd_val(fw.pmd);
		state->index = folio->index + folio_page_idx(folio, fw.page);
		state->anon_vma = folio_anon_vma(folio);
		state->mapcount = folio_mapcount(folio);
	}
	folio_walk_end(&fw, vma);
	return folio;
}

static struct state *get_state(struct kunit *test, unsigned long addr,
			       unsigned long nr)
{
	struct state *state = kunit_kzalloc(test, sizeof(*state), GFP_KERNEL);
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	struct folio *folio;
	unsigned long i;

	KUNIT_ASSERT_NOT_NULL(test, state);
	KUNIT_ASSERT_LE(test, nr, STATE_PAGES);

	mmap_read_lock(mm);
	vma = vma_lookup(mm, addr);
	if (vma) {
		state->start = vma->vm_start;
		state->end = vma->vm_end;
		state->flags = vma->vm_flags;
		state->pgoff = vma->vm_pgoff;
		state->anon_vma = vma->anon_vma;
		for (i = 0; i < nr; i++) {
			folio = folio_at(vma, addr + PAGES(i), &state->pages[i]);
			if (folio)
				folio_put(folio);
		}
	}
	state->map_count = mm->map_count;
	state->total_vm = mm->total_vm;
	state->pgtables = mm_pgtables_bytes(mm);
	mmap_read_unlock(mm);
	state->anon_rss = anon_rss();
	return state;
}

/* What happens between the check and the re-homing. */
typedef void (*late_fn)(struct vm_area_struct *vma, unsigned long addr);

static late_fn late_action;

/* What the last relocation was told. */
static struct rehome_refusal refusal;
static struct rehome_count rehomed;

static void expect_all_found(struct kunit *test, struct vm_area_struct *vma,
			     struct vm_area_struct *by);

/* Someone else who has a folio locked for a while. */
static struct {
	struct delayed_work work;
	struct folio *folio;
	void *mapping;
	bool migrates;
} holder;

/* There are two VMAs for one range, before and after the folios change hands. */
static int rehome_between_looks(struct vm_area_struct *vma,
				struct vm_area_struct *alias, unsigned int flags,
				struct rehome_count *count,
				struct rehome_refusal *refusal)
{
	struct kunit *test = kunit_get_current_test();
	int err;

	kunit_deactivate_static_stub(test, rehome_vma);
	expect_all_found(test, vma, vma);
	if (late_action)
		late_action(vma, vma->vm_start);
	err = rehome_vma(vma, alias, flags, count, refusal);
	/* Migration may not have ended before, now it has. */
	flush_delayed_work(&holder.work);
	expect_all_found(test, vma, err ? vma : alias);
	kunit_activate_static_stub(test, rehome_vma, rehome_between_looks);
	return err;
}

/* Relocate what is at @addr to there, which has moved by @distance. */
static int rehome_now(unsigned long addr, unsigned long nr_pages,
		      unsigned long distance, bool must)
{
	struct mremap_report report = {};
	struct mremap_relocation rel = {
		.mm = current->mm, .start = addr, .end = addr + PAGES(nr_pages),
		.distance = distance, .asked = true, .must = must,
		.report = &report,
	};
	int err = mremap_relocate(&rel);

	rehomed = report.rehomed;
	return err;
}

/* The same, with a look at each folio before and after, and @late in between. */
static int rehome_late(struct kunit *test, unsigned long addr,
		       unsigned long nr_pages, unsigned long distance,
		       late_fn late)
{
	int err;

	late_action = late;
	kunit_activate_static_stub(test, rehome_vma, rehome_between_looks);
	err = rehome_now(addr, nr_pages, distance, true);
	kunit_deactivate_static_stub(test, rehome_vma);
	return err;
}

/* In place, as mremap() with MREMAP_MUST_RELOCATE_ANON. */
static int in_place(struct kunit *test, unsigned long addr,
		    unsigned long nr_pages)
{
	struct mm_struct *mm = current->mm;
	const unsigned long rss = anon_rss();
	int err;

	mmap_write_lock(mm);
	err = rehome_late(test, addr, nr_pages, 0, NULL);
	mmap_write_unlock(mm);
	KUNIT_EXPECT_EQ(test, anon_rss(), rss);
	return err;
}

/* Move a range as mremap() does without a flag. */
static struct vm_area_struct *
plain_move_locked(struct kunit *test, unsigned long old_addr,
		  unsigned long new_addr, unsigned long nr, bool keep)
{
	PAGETABLE_MOVE(pmc, NULL, NULL, old_addr, new_addr, PAGES(nr));
	struct mm_struct *mm = current->mm;
	pgoff_t pgoff;

	pmc.old = vma_lookup(mm, old_addr);
	vma_start_write(pmc.old);
	pgoff = linear_page_index(pmc.old, old_addr);
	pmc.new = copy_vma(&pmc.old, new_addr, PAGES(nr), pgoff, pgoff,
			   &pmc.need_rmap_locks, false);
	if (!pmc.new)
		return NULL;
	KUNIT_EXPECT_EQ(test, move_page_tables(&pmc), PAGES(nr));
	vm_stat_account(mm, pmc.old->vm_flags, nr);
	if (!keep)
		KUNIT_EXPECT_EQ(test, 0, do_munmap(mm, old_addr, PAGES(nr), NULL));
	return pmc.new;
}

static void __plain_move(struct kunit *test, unsigned long old_addr,
			 unsigned long new_addr, unsigned long nr, bool keep)
{
	struct vm_area_struct *vma;

	mmap_write_lock(current->mm);
	vma = plain_move_locked(test, old_addr, new_addr, nr, keep);
	mmap_write_unlock(current->mm);
	KUNIT_ASSERT_NOT_NULL(test, vma);
}

static void plain_move(struct kunit *test, unsigned long old_addr,
		       unsigned long new_addr, unsigned long nr)
{
	__plain_move(test, old_addr, new_addr, nr, false);
}

/*
 * Move a range as mremap() does with MREMAP_MUST_RELOCATE_ANON. @late, if not
 * NULL, does what reclaim or migration could do after it has been checked.
 */
static int relocate_late(struct kunit *test, unsigned long old_addr,
			 unsigned long new_addr, unsigned long nr_pages,
			 late_fn late)
{
	const unsigned long old_end = old_addr + PAGES(nr_pages);
	const unsigned long rss = anon_rss();
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	int err;

	refusal = (struct rehome_refusal) {};
	rehomed = (struct rehome_count) {};
	mmap_write_lock(mm);
	vma = vma_lookup(mm, old_addr);
	err = rehome_check(vma, old_addr, old_end, 0, &refusal);
	if (err == REHOME_PREPARE)
		err = rehome_check(vma, old_addr, old_end, REHOME_SPLIT, &refusal);
	if (!err && !plain_move_locked(test, old_addr, new_addr, nr_pages, false))
		err = -ENOMEM;
	if (!err)
		err = rehome_late(test, new_addr, nr_pages, new_addr - old_addr,
				  late);
	mmap_write_unlock(mm);
	KUNIT_EXPECT_EQ(test, anon_rss(), rss);
	return err;
}

static int must_move(struct kunit *test, unsigned long old_addr,
		     unsigned long new_addr, unsigned long nr_pages)
{
	return relocate_late(test, old_addr, new_addr, nr_pages, NULL);
}

/* What did the last relocation re-home? */
static void expect_rehomed(struct kunit *test, unsigned long folios,
			   unsigned long pages)
{
	KUNIT_EXPECT_EQ(test, rehomed.folios, folios);
	KUNIT_EXPECT_EQ(test, rehomed.pages, pages);
}

/* Why, and from which page on, was the last relocation refused? */
static void expect_refusal(struct kunit *test, enum rehome_reason reason,
			   unsigned long addr)
{
	KUNIT_EXPECT_EQ(test, refusal.reason, reason);
	KUNIT_EXPECT_EQ(test, refusal.addr, addr);
}

struct probe {
	unsigned long start;
	unsigned long end;
	int nr_inside;
	int nr_outside;
};

static bool probe_one(struct folio *folio, struct vm_area_struct *vma,
		      unsigned long addr, void *arg)
{
	DEFINE_FOLIO_VMA_WALK(pvmw, folio, vma, addr, 0);
	struct probe *probe = arg;

	while (page_vma_mapped_walk(&pvmw)) {
		if (vma->vm_mm == current->mm && pvmw.address >= probe->start &&
		    pvmw.address < probe->end)
			probe->nr_inside++;
		else
			probe->nr_outside++;
	}
	return true;
}

/* Does a walk of the reverse map find each mapping of a folio in the range? */
static void expect_found(struct kunit *test, struct folio *folio,
			 unsigned long start, unsigned long end)
{
	struct probe probe = { .start = start, .end = end };
	struct rmap_walk_control rwc = { .rmap_one = probe_one, .arg = &probe };

	folio_lock(folio);
	rmap_walk(folio, &rwc);
	KUNIT_EXPECT_EQ(test, probe.nr_inside, folio_mapcount(folio));
	KUNIT_EXPECT_EQ(test, probe.nr_outside, 0);
	folio_unlock(folio);
}

/*
 * Expect @nr pages to be mapped in [addr, addr + PAGES(nr_max)), all of them at
 * home there: the VMA, each folio's index and anon_vma, and a walk of the
 * reverse map agree on where they are.
 */
static void expect_home(struct kunit *test, unsigned long addr,
			unsigned long nr_max, unsigned long nr)
{
	const unsigned long start = addr, end = addr + PAGES(nr_max);
	struct mm_struct *mm = current->mm;
	struct page_state state;
	struct vm_area_struct *vma;
	struct folio *folio;

	mmap_read_lock(mm);
	for (; addr < end; addr += PAGE_SIZE) {
		vma = vma_lookup(mm, addr);
		if (!vma) {
			KUNIT_FAIL(test, "nothing is mapped at %#lx", addr);
			break;
		}
		KUNIT_EXPECT_EQ(test, linear_anon_page_index(vma, addr),
				addr >> PAGE_SHIFT);
		folio = folio_at(vma, addr, &state);
		if (!folio)
			continue;
		nr--;
		KUNIT_EXPECT_EQ(test, state.index, addr >> PAGE_SHIFT);
		KUNIT_EXPECT_PTR_EQ(test, state.anon_vma, (void *)vma->anon_vma);
		expect_found(test, folio, start, end);
		folio_put(folio);
	}
	mmap_read_unlock(mm);
	KUNIT_EXPECT_EQ(test, nr, 0);
}

static struct anon_vma *anon_vma_at(unsigned long addr)
{
	struct mm_struct *mm = current->mm;
	struct anon_vma *anon_vma = NULL;
	struct vm_area_struct *vma;

	mmap_read_lock(mm);
	vma = vma_lookup(mm, addr);
	if (vma)
		anon_vma = vma->anon_vma;
	mmap_read_unlock(mm);
	return anon_vma;
}

/*
 * A child as fork() makes it, but for the task. There must be no KUNIT_ASSERT
 * until child_exit(), or it stays for ever.
 */
static struct mm_struct *child_fork(struct kunit *test)
{
	struct mm_struct *child = mm_alloc();
	int err;

	KUNIT_ASSERT_NOT_NULL(test, child);
	child->task_size = current->mm->task_size;
	uprobe_start_dup_mmap();
	err = dup_mmap(child, current->mm);
	uprobe_end_dup_mmap();
	if (err)
		mmput(child);
	KUNIT_ASSERT_EQ(test, err, 0);
	return child;
}

static void child_exit(struct mm_struct *child)
{
	mmput(child);
}

static void switch_mm_to(struct mm_struct *mm)
{
	kthread_unuse_mm(current->mm);
	kthread_use_mm(mm);
}

/*
 * Small folios, a hole and a zero page, moved to where a page table ends:
 *
 *   |0123..z.|     ->          |0123|..z.|
 *   ARENA                 ARENA + PMD_SIZE
 */
static void relocate_small(struct kunit *test)
{
	const unsigned long dst = ARENA + PMD_SIZE - PAGES(4);
	struct anon_vma *old_anon_vma;
	u32 val;

	map_pages(test, ARENA, 8);
	fill_pages(test, ARENA, 4, 1);
	KUNIT_ASSERT_EQ(test, 0, get_user(val, (u32 __user *)(ARENA + PAGES(6))));
	KUNIT_EXPECT_EQ(test, 0, val);
	expect_home(test, ARENA, 8, 4);
	old_anon_vma = anon_vma_at(ARENA);

	KUNIT_ASSERT_EQ(test, must_move(test, ARENA, dst, 8), 0);
	expect_rehomed(test, 4, 4);
	expect_home(test, dst, 8, 4);
	expect_pages(test, dst, 4, 1);
	KUNIT_EXPECT_PTR_NE(test, anon_vma_at(dst), old_anon_vma);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
	KUNIT_EXPECT_EQ(test, current->mm->total_vm, 8);

	/* And back. */
	KUNIT_ASSERT_EQ(test, must_move(test, dst, ARENA, 8), 0);
	expect_home(test, ARENA, 8, 4);
	expect_pages(test, ARENA, 4, 1);
}

/* The other tests mean something only if a plain move leaves folios abroad. */
static void relocate_after_plain_move(struct kunit *test)
{
	const unsigned long mid = ARENA + PAGES(64);
	const unsigned long dst = ARENA + PAGES(128);
	struct state *state;

	map_pages(test, ARENA, 8);
	fill_pages(test, ARENA, 8, 1);
	plain_move(test, ARENA, mid, 8);
	state = get_state(test, mid, 8);
	KUNIT_ASSERT_EQ(test, state->pages[0].index, ARENA >> PAGE_SHIFT);
	KUNIT_ASSERT_EQ(test, state->pgoff, ARENA >> PAGE_SHIFT);

	KUNIT_ASSERT_EQ(test, must_move(test, mid, dst, 8), 0);
	expect_home(test, dst, 8, 8);
	expect_pages(test, dst, 8, 1);
}

/*
 * Moved out of the middle of a VMA and back again, where both neighbours have
 * the anon_vma that it had at first:
 *
 *   |....MMMM....|  ->  |....|    |....|  |MMMM|  ->  |....MMMM....|
 */
static void relocate_there_and_back(struct kunit *test)
{
	const unsigned long mid = ARENA + PAGES(4);
	const unsigned long dst = ARENA + PAGES(64);
	struct anon_vma *anon_vma;

	map_pages(test, ARENA, 12);
	fill_pages(test, ARENA, 12, 1);
	anon_vma = anon_vma_at(ARENA);

	KUNIT_ASSERT_EQ(test, must_move(test, mid, dst, 4), 0);
	expect_home(test, dst, 4, 4);
	expect_home(test, ARENA, 4, 4);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 3);

	KUNIT_ASSERT_EQ(test, must_move(test, dst, mid, 4), 0);
	expect_home(test, ARENA, 12, 12);
	expect_pages(test, ARENA, 12, 1);
	KUNIT_EXPECT_PTR_EQ(test, anon_vma_at(mid), anon_vma);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
	KUNIT_EXPECT_EQ(test, current->mm->total_vm, 12);
}

/* One half of a VMA moved next to the other half, which is what it joins. */
static void relocate_next_to_itself(struct kunit *test)
{
	map_pages(test, ARENA, 8);
	fill_pages(test, ARENA, 8, 1);

	/* |AAAABBBB|  ->  |    BBBBAAAA| */
	KUNIT_ASSERT_EQ(test, must_move(test, ARENA, ARENA + PAGES(8), 4), 0);
	expect_home(test, ARENA + PAGES(4), 8, 8);
	expect_pages(test, ARENA + PAGES(4), 4, 5);
	expect_pages(test, ARENA + PAGES(8), 4, 1);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
}

/* What four plain moves scattered, five relocations bring together again. */
static void relocate_defragments(struct kunit *test)
{
	const unsigned long dst = ARENA + PAGES(128);
	int i;

	map_pages(test, ARENA, 16);
	fill_pages(test, ARENA, 16, 1);
	for (i = 0; i < 4; i++)
		plain_move(test, ARENA + PAGES(4 * i), ARENA + PAGES(32 + 8 * i),
			   4);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 4);

	for (i = 0; i < 4; i++)
		KUNIT_ASSERT_EQ(test, 0,
				must_move(test, ARENA + PAGES(32 + 8 * i),
					  dst + PAGES(4 * i), 4));
	expect_home(test, dst, 16, 16);
	expect_pages(test, dst, 16, 1);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
}

struct neighbours {
	const char *name;
	bool prev, next;			/* Is there one, faulted? */
	enum { OWN, PREV, NEXT } anon_vma;	/* Whose does the copy get? */
};

/*
 * What merges is tested from userland, with neighbours of all kinds. Whose
 * anon_vma the folios got cannot be seen from there.
 */
static const struct neighbours neighbours[] = {
	{ "none", false, false, OWN },
	{ "prev", true, false, PREV },
	{ "next", false, true, NEXT },
	{ "both", true, true, PREV },
};

KUNIT_ARRAY_PARAM_DESC(neighbours, neighbours, name);

/*
 * Which anon_vma do the folios find their VMA by?
 *
 *   |SSSS|   |pppp|    |nnnn|   ->   |pppp|SSSS|nnnn|
 *   ARENA           dst
 */
static void relocate_neighbours(struct kunit *test)
{
	const struct neighbours *param = test->param_value;
	const unsigned long dst = ARENA + PAGES(64);
	const unsigned long prev = dst - PAGES(4);
	const unsigned long next = dst + PAGES(4);
	struct anon_vma *anon_vma, *old_anon_vma;

	map_pages(test, ARENA, 4);
	fill_pages(test, ARENA, 4, 1);
	old_anon_vma = anon_vma_at(ARENA);
	if (param->prev) {
		map_pages(test, prev, 4);
		fill_pages(test, prev, 4, 11);
	}
	if (param->next) {
		map_pages(test, next, 4);
		fill_pages(test, next, 4, 21);
	}
	anon_vma = anon_vma_at(param->anon_vma == PREV ? prev : next);

	KUNIT_ASSERT_EQ(test, must_move(test, ARENA, dst, 4), 0);
	expect_home(test, dst, 4, 4);
	expect_pages(test, dst, 4, 1);
	if (param->prev)
		expect_home(test, prev, 4, 4);
	if (param->next)
		expect_home(test, next, 4, 4);

	if (param->anon_vma == OWN)
		KUNIT_EXPECT_PTR_NE(test, anon_vma_at(dst), old_anon_vma);
	else
		KUNIT_EXPECT_PTR_EQ(test, anon_vma_at(dst), anon_vma);
	KUNIT_EXPECT_EQ(test, current->mm->map_count,
			param->prev && param->next ? 2 : 1);
}

/* Shared with a living child: refused, and nothing at all has changed. */
static void relocate_shared(struct kunit *test)
{
	const unsigned long dst = ARENA + PAGES(64);
	struct state *before, *after;
	struct mm_struct *child;

	map_pages(test, ARENA, 8);
	fill_pages(test, ARENA, 8, 1);
	child = child_fork(test);

	/* Writing to some of the pages is not enough. */
	put_user(1, (u32 __user *)ARENA);
	put_user(2, (u32 __user *)(ARENA + PAGES(1)));
	before = get_state(test, ARENA, 8);
	KUNIT_EXPECT_EQ(test, must_move(test, ARENA, dst, 8), -EFAULT);
	expect_refusal(test, NOT_REHOMED_SHARED_PAGE, ARENA + PAGES(2));
	expect_rehomed(test, 0, 0);
	after = get_state(test, ARENA, 8);
	KUNIT_EXPECT_MEMEQ(test, before, after, sizeof(*before));
	KUNIT_EXPECT_EQ(test, before->pages[0].mapcount, 1);
	KUNIT_EXPECT_EQ(test, before->pages[7].mapcount, 2);

	/* Those that are the parent's alone may go. */
	KUNIT_EXPECT_EQ(test, must_move(test, ARENA, dst, 2), 0);
	expect_home(test, dst, 2, 2);
	expect_pages(test, dst, 2, 1);
	child_exit(child);
}

/* Once forked, but alone again: the child has gone. */
static void relocate_child_gone(struct kunit *test)
{
	const unsigned long dst = ARENA + PAGES(64);

	map_pages(test, ARENA, 8);
	fill_pages(test, ARENA, 8, 1);
	child_exit(child_fork(test));

	KUNIT_ASSERT_EQ(test, must_move(test, ARENA, dst, 8), 0);
	expect_home(test, dst, 8, 8);
	expect_pages(test, dst, 8, 1);
}

/* The child of a parent that no longer has the pages: they are at home here. */
static void relocate_in_child(struct kunit *test)
{
	const unsigned long dst = ARENA + PAGES(64);
	struct mm_struct *parent = current->mm;
	struct mm_struct *child;

	map_pages(test, ARENA, 8);
	fill_pages(test, ARENA, 8, 1);
	child = child_fork(test);
	KUNIT_EXPECT_EQ(test, vm_munmap(ARENA, PAGES(8)), 0);

	switch_mm_to(child);
	KUNIT_EXPECT_EQ(test, must_move(test, ARENA, dst, 8), 0);
	expect_home(test, dst, 8, 8);
	expect_pages(test, dst, 8, 1);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
	switch_mm_to(parent);
	child_exit(child);
}

/* A pin is on the page, wherever it is mapped. */
static void relocate_pinned(struct kunit *test)
{
	const unsigned long dst = ARENA + PAGES(64);
	struct state *state;
	struct page *page;

	map_pages(test, ARENA, 8);
	fill_pages(test, ARENA, 8, 1);
	KUNIT_ASSERT_EQ(test, 1,
			pin_user_pages_fast(ARENA, 1, FOLL_WRITE, &page));

	KUNIT_EXPECT_EQ(test, must_move(test, ARENA, dst, 8), 0);
	expect_home(test, dst, 8, 8);
	expect_pages(test, dst, 8, 1);
	state = get_state(test, dst, 8);
	KUNIT_EXPECT_PTR_EQ(test, state->pages[0].page, page);
	unpin_user_page(page);
}

static void release_late(struct work_struct *work)
{
	if (holder.migrates)
		remove_migration_ptes(holder.folio, holder.folio, 0);
	if (holder.mapping)
		WRITE_ONCE(holder.folio->mapping, holder.mapping);
	folio_unlock(holder.folio);
	folio_put(holder.folio);
}

static int relocate_test_init(struct kunit *test)
{
	INIT_DELAYED_WORK(&holder.work, release_late);
	holder.folio = NULL;
	holder.mapping = NULL;
	return kunit_attach_mm();
}

static void hold_folio(struct vm_area_struct *vma, unsigned long addr,
		       bool migrates)
{
	holder.folio = folio_at(vma, addr, NULL);
	if (!holder.folio)
		return;
	holder.migrates = migrates;
	folio_lock(holder.folio);
	if (migrates)
		try_to_migrate(holder.folio, 0);
	schedule_delayed_work(&holder.work, HZ / 20);
}

static void lock_late(struct vm_area_struct *vma, unsigned long addr)
{
	hold_folio(vma, addr, false);
}

static void migrate_late(struct vm_area_struct *vma, unsigned long addr)
{
	hold_folio(vma, addr, true);
}

/* As migrate_late() or lock_late(), before there is a relocation at all. */
static void hold_now(struct kunit *test, unsigned long addr, late_fn late)
{
	struct mm_struct *mm = current->mm;

	mmap_write_lock(mm);
	late(vma_lookup(mm, addr), addr);
	mmap_write_unlock(mm);
	KUNIT_ASSERT_NOT_NULL(test, holder.folio);
}

struct wait {
	const char *name;
	late_fn now, late;
};

static const struct wait waits[] = {
	{ "locked before", lock_late, NULL },
	{ "locked meanwhile", NULL, lock_late },
	{ "under migration before", migrate_late, NULL },
	{ "under migration meanwhile", NULL, migrate_late },
};

KUNIT_ARRAY_PARAM_DESC(waits, waits, name);

/* A folio that is locked or under migration is waited for, not left abroad. */
static void relocate_waits(struct kunit *test)
{
	const struct wait *param = test->param_value;
	const unsigned long dst = ARENA + PAGES(64);
	int err;

	map_pages(test, ARENA, 8);
	fill_pages(test, ARENA, 8, 1);
	if (param->now)
		hold_now(test, ARENA, param->now);
	err = relocate_late(test, ARENA, dst, 8, param->late);
	flush_delayed_work(&holder.work);
	KUNIT_ASSERT_EQ(test, err, 0);
	KUNIT_EXPECT_NOT_NULL(test, holder.folio);
	expect_home(test, dst, 8, 8);
	expect_pages(test, dst, 8, 1);
}

/*
 * Each folio of @vma is found, by the page offset of @by: @vma or its copy. In
 * a child the anon_vma by which @vma has it can be the parent's.
 */
static void expect_all_found(struct kunit *test, struct vm_area_struct *vma,
			     struct vm_area_struct *by)
{
	struct page_state state;
	struct folio *folio;
	unsigned long addr;

	for (addr = vma->vm_start; addr < vma->vm_end; addr += PAGE_SIZE) {
		folio = folio_at(vma, addr, &state);
		if (!folio)
			continue;
		KUNIT_EXPECT_EQ(test, state.index,
				linear_anon_page_index(by, addr));
		if (by != vma)
			KUNIT_EXPECT_PTR_EQ(test, state.anon_vma,
					    (void *)by->anon_vma);
		expect_found(test, folio, vma->vm_start, vma->vm_end);
		folio_put(folio);
	}
}

/* Small folios, a hole and a zero page, which a plain move has left. */
static void in_place_small(struct kunit *test)
{
	const unsigned long dst = ARENA + PMD_SIZE - PAGES(4);
	struct anon_vma *anon_vma;
	struct state *before;
	u32 val;

	map_pages(test, ARENA, 8);
	fill_pages(test, ARENA, 4, 1);
	KUNIT_ASSERT_EQ(test, 0, get_user(val, (u32 __user *)(ARENA + PAGES(6))));
	KUNIT_EXPECT_EQ(test, 0, val);
	plain_move(test, ARENA, dst, 8);
	anon_vma = anon_vma_at(dst);
	before = get_state(test, dst, 8);

	KUNIT_ASSERT_EQ(test, in_place(test, dst, 8), 0);
	expect_home(test, dst, 8, 4);
	expect_pages(test, dst, 4, 1);
	KUNIT_EXPECT_PTR_NE(test, anon_vma_at(dst), anon_vma);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
	KUNIT_EXPECT_EQ(test, current->mm->total_vm, 8);
	KUNIT_EXPECT_EQ(test, mm_pgtables_bytes(current->mm), before->pgtables);
	KUNIT_EXPECT_EQ(test, get_state(test, dst, 8)->pages[3].pte,
			before->pages[3].pte);

	/* There is nothing to gain the second time. */
	anon_vma = anon_vma_at(dst);
	KUNIT_ASSERT_EQ(test, in_place(test, dst, 8), 0);
	KUNIT_EXPECT_PTR_EQ(test, anon_vma_at(dst), anon_vma);
}

/* |AAAA|BBBB|CCCC|, of which the first is at home: all get its anon_vma. */
static void in_place_joins(struct kunit *test)
{
	struct anon_vma *anon_vma;
	int i;

	map_pages(test, ARENA, 4);
	fill_pages(test, ARENA, 4, 1);
	for (i = 1; i < 3; i++) {
		map_pages(test, ARENA + PAGES(64), 4);
		fill_pages(test, ARENA + PAGES(64), 4, 1 + 4 * i);
		plain_move(test, ARENA + PAGES(64), ARENA + PAGES(4 * i), 4);
	}
	KUNIT_ASSERT_EQ(test, current->mm->map_count, 3);
	anon_vma = anon_vma_at(ARENA);

	KUNIT_ASSERT_EQ(test, in_place(test, ARENA, 12), 0);
	expect_home(test, ARENA, 12, 12);
	expect_pages(test, ARENA, 12, 1);
	KUNIT_EXPECT_PTR_EQ(test, anon_vma_at(ARENA), anon_vma);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
	KUNIT_EXPECT_EQ(test, current->mm->total_vm, 12);
}

/* |AAAAaaaa|BBBB|: only the anon_vmas differ. Which one is it to be? */
static void in_place_apart(struct kunit *test)
{
	struct anon_vma *anon_vma;

	map_pages(test, ARENA, 4);
	fill_pages(test, ARENA, 4, 1);
	map_pages(test, ARENA + PAGES(8), 4);
	fill_pages(test, ARENA + PAGES(8), 4, 9);
	map_pages(test, ARENA + PAGES(4), 4);
	KUNIT_ASSERT_EQ(test, current->mm->map_count, 2);

	/* That of the neighbour which is not in the range. */
	anon_vma = anon_vma_at(ARENA + PAGES(8));
	KUNIT_ASSERT_PTR_NE(test, anon_vma_at(ARENA), anon_vma);
	KUNIT_ASSERT_EQ(test, in_place(test, ARENA, 8), 0);
	expect_home(test, ARENA, 12, 8);
	expect_pages(test, ARENA, 4, 1);
	expect_pages(test, ARENA + PAGES(8), 4, 9);
	KUNIT_EXPECT_PTR_EQ(test, anon_vma_at(ARENA), anon_vma);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
}

/*
 * It goes home by less than its length, to the anon_vma that it has: walks for
 * one folio come by the place of another one.
 *
 *   |AAAA....|CCCCCCCC|, where C was first faulted four pages before
 */
static void in_place_same_anon_vma(struct kunit *test)
{
	const unsigned long src = ARENA + PAGES(8);
	struct anon_vma *anon_vma;

	map_pages(test, ARENA, 12);
	fill_pages(test, ARENA, 12, 1);
	plain_move(test, ARENA + PAGES(4), ARENA + PAGES(64), 8);
	plain_move(test, ARENA + PAGES(64), src, 8);
	map_pages(test, ARENA + PAGES(4), 4);
	anon_vma = anon_vma_at(ARENA);
	KUNIT_ASSERT_PTR_EQ(test, anon_vma_at(src), anon_vma);
	KUNIT_ASSERT_EQ(test, current->mm->map_count, 2);

	KUNIT_ASSERT_EQ(test, in_place(test, src, 8), 0);
	expect_home(test, ARENA, 16, 12);
	expect_pages(test, ARENA, 4, 1);
	expect_pages(test, src, 8, 5);
	KUNIT_EXPECT_PTR_EQ(test, anon_vma_at(src), anon_vma);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
}

/* Part of what was moved comes home, the rest stays as it is. */
static void in_place_part(struct kunit *test)
{
	const unsigned long src = ARENA + PAGES(64);
	struct anon_vma *anon_vma;

	map_pages(test, ARENA, 12);
	fill_pages(test, ARENA, 12, 1);
	plain_move(test, ARENA, src, 12);
	anon_vma = anon_vma_at(src);

	KUNIT_ASSERT_EQ(test, in_place(test, src + PAGES(4), 4), 0);
	expect_home(test, src + PAGES(4), 4, 4);
	expect_pages(test, src, 12, 1);
	KUNIT_EXPECT_PTR_EQ(test, anon_vma_at(src), anon_vma);
	KUNIT_EXPECT_PTR_EQ(test, anon_vma_at(src + PAGES(8)), anon_vma);
	KUNIT_EXPECT_PTR_NE(test, anon_vma_at(src + PAGES(4)), anon_vma);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 3);
	KUNIT_EXPECT_EQ(test, get_state(test, src, 4)->pages[3].index,
			(ARENA >> PAGE_SHIFT) + 3);
}

/* The first could be relocated, a page of the second is a child's as well. */
static void in_place_shared(struct kunit *test)
{
	struct state *before[2], *after[2];
	struct mm_struct *child;
	int i;

	for (i = 0; i < 2; i++) {
		map_pages(test, ARENA + PAGES(64), 8);
		fill_pages(test, ARENA + PAGES(64), 8, 1 + 8 * i);
		plain_move(test, ARENA + PAGES(64), ARENA + PAGES(8 * i), 8);
	}
	child = child_fork(test);
	for (i = 0; i < 15; i++)
		put_user(i + 1, (u32 __user *)(ARENA + PAGES(i)));
	for (i = 0; i < 2; i++)
		before[i] = get_state(test, ARENA + PAGES(8 * i), 8);
	KUNIT_EXPECT_EQ(test, in_place(test, ARENA, 16), -EFAULT);
	for (i = 0; i < 2; i++) {
		after[i] = get_state(test, ARENA + PAGES(8 * i), 8);
		KUNIT_EXPECT_MEMEQ(test, before[i], after[i], sizeof(*after[i]));
	}
	child_exit(child);

	KUNIT_ASSERT_EQ(test, in_place(test, ARENA, 16), 0);
	expect_home(test, ARENA, 16, 16);
	expect_pages(test, ARENA, 16, 1);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
}

/* In a child, a VMA has its parent's anon_vma as well, until it is relocated. */
static void in_place_in_child(struct kunit *test)
{
	struct mm_struct *parent = current->mm;
	struct mm_struct *child;

	map_pages(test, ARENA, 4);
	fill_pages(test, ARENA, 4, 1);
	map_pages(test, ARENA + PAGES(8), 4);
	fill_pages(test, ARENA + PAGES(8), 4, 9);
	map_pages(test, ARENA + PAGES(4), 4);
	child = child_fork(test);
	KUNIT_EXPECT_EQ(test, vm_munmap(ARENA, PAGES(12)), 0);

	switch_mm_to(child);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 2);
	KUNIT_EXPECT_EQ(test, in_place(test, ARENA, 12), 0);
	expect_home(test, ARENA, 12, 8);
	expect_pages(test, ARENA, 4, 1);
	expect_pages(test, ARENA + PAGES(8), 4, 9);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
	switch_mm_to(parent);
	child_exit(child);
}

/*
 * The last page is a child's as well. All before it have been re-homed by the time
 * that is found, and go back.
 */
static void undo_small(struct kunit *test)
{
	const unsigned long dst = ARENA + PAGES(64);
	struct state *before, *after;
	struct mm_struct *child;
	int i;

	map_pages(test, ARENA, 8);
	fill_pages(test, ARENA, 8, 1);
	plain_move(test, ARENA, dst, 8);
	child = child_fork(test);
	for (i = 0; i < 7; i++)
		put_user(i + 1, (u32 __user *)(dst + PAGES(i)));
	before = get_state(test, dst, 8);

	mmap_write_lock(current->mm);
	KUNIT_EXPECT_EQ(test, 0, rehome_now(dst, 8, dst - ARENA, false));
	mmap_write_unlock(current->mm);
	expect_rehomed(test, 0, 0);
	after = get_state(test, dst, 8);
	KUNIT_EXPECT_MEMEQ(test, before, after, sizeof(*before));
	expect_pages(test, dst, 8, 1);
	child_exit(child);
}

/* Written to, but nothing of it is left: as if it never had been. */
static void relocate_emptied(struct kunit *test)
{
	const unsigned long dst = ARENA + PAGES(64);
	u32 val;

	map_pages(test, ARENA, 8);
	fill_pages(test, ARENA, 8, 1);
	KUNIT_ASSERT_EQ(test, 0, do_madvise(current->mm, ARENA, PAGES(8),
					    MADV_DONTNEED));
	KUNIT_ASSERT_EQ(test, 0, get_user(val, (u32 __user *)ARENA));
	KUNIT_EXPECT_EQ(test, val, 0);
	KUNIT_EXPECT_EQ(test, must_move(test, ARENA, dst, 8), 0);
	expect_rehomed(test, 0, 0);
	KUNIT_EXPECT_NULL(test, anon_vma_at(dst));
	expect_home(test, dst, 8, 0);
	fill_pages(test, dst, 8, 1);
	expect_home(test, dst, 8, 8);
}

/* What is not private anonymous memory is not looked at. */
static void relocate_which_vmas(struct kunit *test)
{
	const unsigned long flags = MAP_ANONYMOUS | MAP_FIXED_NOREPLACE;
	struct mm_struct *mm = current->mm;

	map_pages(test, ARENA, 1);
	KUNIT_ASSERT_EQ(test, ARENA + PAGES(1),
			vm_mmap(NULL, ARENA + PAGES(1), PAGE_SIZE, PROT_READ,
				flags | MAP_SHARED, 0));

	mmap_write_lock(mm);
	KUNIT_EXPECT_EQ(test, REHOME_OK,
			vma_rehome_reason(vma_lookup(mm, ARENA)));
	KUNIT_EXPECT_EQ(test, NOT_REHOMED_SHARED_MAPPING,
			vma_rehome_reason(vma_lookup(mm, ARENA + PAGES(1))));
	vm_flags_set(vma_lookup(mm, ARENA), VM_PFNMAP);
	KUNIT_EXPECT_EQ(test, NOT_REHOMED_SPECIAL,
			vma_rehome_reason(vma_lookup(mm, ARENA)));
	vm_flags_clear(vma_lookup(mm, ARENA), VM_PFNMAP);
	mmap_write_unlock(mm);
}

static struct kunit_case relocate_test_cases[] = {
	KUNIT_CASE(relocate_small),
	KUNIT_CASE(relocate_after_plain_move),
	KUNIT_CASE(relocate_there_and_back),
	KUNIT_CASE(relocate_next_to_itself),
	KUNIT_CASE(relocate_defragments),
	KUNIT_CASE_PARAM(relocate_neighbours, neighbours_gen_params),
	KUNIT_CASE(relocate_shared),
	KUNIT_CASE(relocate_child_gone),
	KUNIT_CASE(relocate_in_child),
	KUNIT_CASE(relocate_pinned),
	KUNIT_CASE_PARAM(relocate_waits, waits_gen_params),
	KUNIT_CASE(undo_small),
	KUNIT_CASE(relocate_emptied),
	KUNIT_CASE(relocate_which_vmas),
	KUNIT_CASE(in_place_small),
	KUNIT_CASE(in_place_joins),
	KUNIT_CASE(in_place_apart),
	KUNIT_CASE(in_place_same_anon_vma),
	KUNIT_CASE(in_place_part),
	KUNIT_CASE(in_place_shared),
	KUNIT_CASE(in_place_in_child),
	{}
};

static struct kunit_suite relocate_test_suite = {
	.name = "mremap_relocate",
	.init = relocate_test_init,
	.test_cases = relocate_test_cases,
};

#ifdef CONFIG_TRANSPARENT_HUGEPAGE
/* As folio_at(), for the current mm, without a reference. */
static struct folio *peek_folio(unsigned long addr)
{
	struct mm_struct *mm = current->mm;
	struct vm_area_struct *vma;
	struct folio *folio = NULL;

	mmap_read_lock(mm);
	vma = vma_lookup(mm, addr);
	if (vma)
		folio = folio_at(vma, addr, NULL);
	mmap_read_unlock(mm);
	if (folio)
		folio_put(folio);
	return folio;
}

/* The order of the folio at @addr, or -1 if there is none. */
static int order_at(unsigned long addr)
{
	struct folio *folio = peek_folio(addr);

	return folio ? folio_order(folio) : -1;
}

static bool is_pmd_mapped(unsigned long addr)
{
	struct mm_struct *mm = current->mm;
	pmd_t *pmd;
	bool ret;

	mmap_read_lock(mm);
	pmd = mm_find_pmd(mm, addr);
	ret = pmd && pmd_trans_huge(*pmd);
	mmap_read_unlock(mm);
	return ret;
}

/* How many slots of [addr, addr + len) are in use? */
static unsigned long nr_slots(struct mm_struct *mm, unsigned long addr,
			      unsigned long len)
{
	const unsigned long end = addr + len;
	unsigned long nr = 0;
	pte_t *ptep;
	pmd_t *pmd;

	for (; addr < end; addr += PAGE_SIZE) {
		pmd = mm_find_pmd(mm, addr);
		if (!pmd || pmd_none(*pmd))
			continue;
		ptep = pte_offset_map(pmd, addr);
		if (!ptep) {
			nr++;
			continue;
		}
		nr += !pte_none(ptep_get(ptep));
		pte_unmap(ptep);
	}
	return nr;
}

/* The same, as with MREMAP_DONTUNMAP. */
static void plain_move_and_keep(struct kunit *test, unsigned long old_addr,
				unsigned long new_addr, unsigned long nr)
{
	__plain_move(test, old_addr, new_addr, nr, true);
}

static void split_late(struct vm_area_struct *vma, unsigned long addr)
{
	holder.folio = folio_at(vma, addr, NULL);
	if (holder.folio)
		folio_put(holder.folio);
	split_huge_pmd(vma, mm_find_pmd(vma->vm_mm, addr), addr);
}

/* The settings in /sys/kernel/mm/transparent_hugepage, to be put back. */
static unsigned long orders_always, orders_madvise, orders_inherit;

static int relocate_thp_suite_init(struct kunit_suite *suite)
{
	orders_always = huge_anon_orders_always;
	orders_madvise = huge_anon_orders_madvise;
	orders_inherit = huge_anon_orders_inherit;
	return 0;
}

static void relocate_thp_suite_exit(struct kunit_suite *suite)
{
	WRITE_ONCE(huge_anon_orders_always, orders_always);
	WRITE_ONCE(huge_anon_orders_madvise, orders_madvise);
	WRITE_ONCE(huge_anon_orders_inherit, orders_inherit);
}

/* Map and fault in pages at @addr, aligned, as folios of @order. */
static void map_folios(struct kunit *test, unsigned long addr,
		       unsigned long nr, int order, u32 seed)
{
	unsigned long i;

	WRITE_ONCE(huge_anon_orders_always, 0);
	WRITE_ONCE(huge_anon_orders_inherit, 0);
	WRITE_ONCE(huge_anon_orders_madvise, BIT(order));
	map_pages(test, addr, nr);
	KUNIT_ASSERT_EQ(test, 0, do_madvise(current->mm, addr, PAGES(nr),
					    MADV_HUGEPAGE));
	fill_pages(test, addr, nr, seed);

	for (i = 0; i < nr; i += 1 << order) {
		if (order_at(addr + PAGES(i)) != order)
			kunit_skip(test, "no memory for a folio of order %d",
				   order);
	}
}

static void expect_folio(struct kunit *test, unsigned long addr,
			 struct folio *folio, int order)
{
	KUNIT_EXPECT_PTR_EQ(test, peek_folio(addr), folio);
	KUNIT_EXPECT_EQ(test, order_at(addr), order);
}

#define LARGE_ORDER	4
#define LARGE_NR	BIT(LARGE_ORDER)

struct large {
	const char *name;
	long src, dst;			/* In pages, from a PMD boundary. */
	unsigned long holes;		/* Pages of the folio to be dropped. */
};

static const struct large larges[] = {
	{ "aligned", 0, 2 * LARGE_NR, 0 },
	{ "unaligned", 0, 3, 0 },
	{ "astride in the destination", 0, -5, 0 },
	{ "astride in the source", -5, 16, 0 },
	{ "astride in both", -5, -7, 0 },
	{ "first page missing", 0, 3, BIT(0) },
	{ "holes, astride in both", -5, -7, BIT(0) | BIT(4) | BIT(5) | BIT(9) },
	{ "last page missing, astride", 0, -15, BIT(15) },
};

KUNIT_ARRAY_PARAM_DESC(larges, larges, name);

/*
 * A large folio in the middle of the range is re-homed as one, and stays large,
 * whatever page tables it is in:
 *
 *   |....LLLLLLLLLLLLLLLL....|   ->   |....LLLLL|LLLLLLLLLLL....|
 */
static void relocate_large(struct kunit *test)
{
	const struct large *param = test->param_value;
	const unsigned long nr_holes = hweight_long(param->holes);
	const unsigned long nr = 3 * LARGE_NR;
	const unsigned long dst = ARENA + 8 * PMD_SIZE + PAGES(param->dst);
	const unsigned long src = ARENA + 4 * PMD_SIZE + PAGES(param->src);
	unsigned long i, addr = ARENA;
	struct folio *folio = NULL;

	map_folios(test, addr, nr, LARGE_ORDER, 1);
	/* A fault makes them aligned, an earlier relocation need not. */
	if (param->src) {
		KUNIT_ASSERT_EQ(test, 0,
				must_move(test, addr, src - PAGES(LARGE_NR), nr));
		addr = src - PAGES(LARGE_NR);
	}
	addr += PAGES(LARGE_NR);

	for (i = 0; i < LARGE_NR; i++) {
		if (param->holes & BIT(i))
			KUNIT_ASSERT_EQ(test, 0,
					do_madvise(current->mm, addr + PAGES(i),
						   PAGE_SIZE, MADV_DONTNEED));
		else
			folio = peek_folio(addr + PAGES(i));
	}

	addr -= PAGES(LARGE_NR);
	KUNIT_ASSERT_EQ(test, 0,
			must_move(test, addr, dst - PAGES(LARGE_NR), nr));
	expect_rehomed(test, 3, nr);
	expect_home(test, dst - PAGES(LARGE_NR), nr, nr - nr_holes);
	for (i = 0; i < LARGE_NR; i++) {
		if (param->holes & BIT(i))
			continue;
		expect_folio(test, dst + PAGES(i), folio, LARGE_ORDER);
		expect_pages(test, dst + PAGES(i), 1, 1 + LARGE_NR + i);
	}
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
}

/* Only folios that the ends of the range cut through are split. */
static void relocate_cut_large(struct kunit *test)
{
	const unsigned long dst = ARENA + 4 * PMD_SIZE;
	const unsigned long nr = 2 * LARGE_NR;
	struct folio *whole;

	/* |LLLLllll|LLLLllll|LLLLllll|, of which |llll|LLLLllll|LLLL| moves */
	map_folios(test, ARENA, 3 * LARGE_NR, LARGE_ORDER, 1);
	whole = peek_folio(ARENA + PAGES(LARGE_NR));

	KUNIT_ASSERT_EQ(test, 0,
			must_move(test, ARENA + PAGES(LARGE_NR / 2), dst, nr));
	expect_home(test, dst, nr, nr);
	expect_pages(test, dst, nr, 1 + LARGE_NR / 2);
	expect_folio(test, dst + PAGES(LARGE_NR / 2), whole, LARGE_ORDER);
	KUNIT_EXPECT_EQ(test, order_at(dst), 0);
	KUNIT_EXPECT_EQ(test, order_at(dst + PAGES(nr - 1)), 0);

	expect_home(test, ARENA, LARGE_NR / 2, LARGE_NR / 2);
	expect_pages(test, ARENA, LARGE_NR / 2, 1);
	expect_home(test, ARENA + PAGES(5 * LARGE_NR / 2), LARGE_NR / 2,
		    LARGE_NR / 2);
}

/* Half of a folio was moved away before, with its old index. */
static void relocate_torn_large(struct kunit *test)
{
	const unsigned long away = ARENA + PMD_SIZE;
	const unsigned long dst = ARENA + 4 * PMD_SIZE;
	const unsigned long half = LARGE_NR / 2;

	map_folios(test, ARENA, LARGE_NR, LARGE_ORDER, 1);
	plain_move(test, ARENA + PAGES(half), away, half);

	KUNIT_ASSERT_EQ(test, must_move(test, ARENA, dst, half), 0);
	expect_home(test, dst, half, half);
	expect_pages(test, dst, half, 1);
	expect_pages(test, away, half, 1 + half);

	/* And together again. */
	KUNIT_ASSERT_EQ(test, 0, must_move(test, away, dst + PAGES(half), half));
	expect_home(test, dst, LARGE_NR, LARGE_NR);
	expect_pages(test, dst, LARGE_NR, 1);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
}

/* Where a folio of LARGE_NR pages lies, in pages from a PMD boundary. */
static const struct torn {
	const char *name;
	long src;
} torns[] = {
	{ "in one table", 0 },
	{ "astride", -5 },
};

KUNIT_ARRAY_PARAM_DESC(torns, torns, name);

/*
 * One page of a folio was moved away with MREMAP_DONTUNMAP, and another one faulted
 * in its place: as many mappings as pages, but not all of them are here.
 *
 *   |LLLLLLLLsLLLLLLL|   |L|
 */
static void relocate_torn_page(struct kunit *test)
{
	const struct torn *param = test->param_value;
	unsigned long src, dst, away, addr;
	struct folio *folio;
	int i, err;

	for (i = 0; i < 2 * LARGE_NR; i++) {
		const int idx = i / 2;

		addr = ARENA + 16 * i * PMD_SIZE;
		src = addr + 4 * PMD_SIZE + PAGES(param->src);
		away = addr + 8 * PMD_SIZE;
		dst = addr + 12 * PMD_SIZE;

		map_folios(test, addr, LARGE_NR, LARGE_ORDER, 1);
		plain_move(test, addr, src, LARGE_NR);
		plain_move_and_keep(test, src + PAGES(idx), away, 1);
		WRITE_ONCE(huge_anon_orders_madvise, 0);
		fill_pages(test, src + PAGES(idx), 1, 1 + idx);
		folio = peek_folio(away);
		KUNIT_ASSERT_EQ(test, folio_mapcount(folio), LARGE_NR);

		err = i & 1 ? in_place(test, src, LARGE_NR) :
			      must_move(test, src, dst, LARGE_NR);
		KUNIT_EXPECT_EQ(test, err, 0);
		addr = i & 1 ? src : dst;
		expect_home(test, addr, LARGE_NR, LARGE_NR);
		expect_pages(test, addr, LARGE_NR, 1);
		expect_pages(test, away, 1, 1 + idx);
		expect_found(test, peek_folio(away), away, away + PAGE_SIZE);
	}
}

/*
 * The same, with other pages in place of the half, which a child has as well. They
 * are not overlooked for the folio, and so it is not split for nothing.
 */
static void relocate_torn_beside_shared(struct kunit *test)
{
	const unsigned long away = ARENA + PMD_SIZE;
	const unsigned long half = LARGE_NR / 2;
	struct mm_struct *parent = current->mm;
	struct mm_struct *child;

	map_folios(test, ARENA, LARGE_NR, LARGE_ORDER, 1);
	plain_move(test, ARENA + PAGES(half), away, half);
	map_pages(test, ARENA + PAGES(half), half);
	KUNIT_ASSERT_EQ(test, 0, do_madvise(parent, ARENA + PAGES(half),
					    PAGES(half), MADV_HUGEPAGE));
	fill_pages(test, ARENA + PAGES(half), half, 101);
	KUNIT_ASSERT_EQ(test, order_at(ARENA + PAGES(half)), 0);

	child = child_fork(test);
	switch_mm_to(child);
	KUNIT_EXPECT_EQ(test, 0, do_madvise(child, ARENA, PAGES(half),
					    MADV_DONTNEED));
	KUNIT_EXPECT_EQ(test, 0, do_madvise(child, away, PAGES(half),
					    MADV_DONTNEED));
	switch_mm_to(parent);
	KUNIT_EXPECT_EQ(test, -EFAULT, must_move(test, ARENA, ARENA + 4 * PMD_SIZE,
						 LARGE_NR));
	KUNIT_EXPECT_EQ(test, order_at(ARENA), LARGE_ORDER);
	child_exit(child);
}

/* A large folio that would have to be split and cannot be, for it is pinned. */
static void relocate_pinned_large(struct kunit *test)
{
	const unsigned long dst = ARENA + 4 * PMD_SIZE;
	struct state *before, *after;
	struct folio *folio;
	struct page *page;

	map_folios(test, ARENA, LARGE_NR, LARGE_ORDER, 1);
	folio = peek_folio(ARENA);
	KUNIT_ASSERT_EQ(test, 1,
			pin_user_pages_fast(ARENA, 1, FOLL_WRITE, &page));

	before = get_state(test, ARENA, LARGE_NR);
	KUNIT_EXPECT_EQ(test, must_move(test, ARENA, dst, LARGE_NR - 1), -EFAULT);
	expect_refusal(test, NOT_REHOMED_CUT_PINNED, ARENA);
	after = get_state(test, ARENA, LARGE_NR);
	KUNIT_EXPECT_MEMEQ(test, before, after, sizeof(*before));

	/* There is no need to, where it moves as a whole. */
	KUNIT_EXPECT_EQ(test, must_move(test, ARENA, dst + PAGES(1), LARGE_NR), 0);
	expect_home(test, dst + PAGES(1), LARGE_NR, LARGE_NR);
	expect_folio(test, dst + PAGES(1), folio, LARGE_ORDER);
	unpin_user_page(page);
}

/* A child has it too: refused, and not split for that. */
static void relocate_shared_large(struct kunit *test)
{
	const unsigned long dst = ARENA + 4 * PMD_SIZE;
	struct state *before, *after;
	struct mm_struct *child;
	struct folio *folio;

	map_folios(test, ARENA, LARGE_NR, LARGE_ORDER, 1);
	folio = peek_folio(ARENA);
	child = child_fork(test);

	before = get_state(test, ARENA, LARGE_NR);
	KUNIT_EXPECT_EQ(test, must_move(test, ARENA, dst, LARGE_NR), -EFAULT);
	expect_refusal(test, NOT_REHOMED_SHARED_PAGE, ARENA);
	KUNIT_EXPECT_EQ(test, must_move(test, ARENA, dst, LARGE_NR / 2), -EFAULT);
	expect_refusal(test, NOT_REHOMED_CUT_SHARED, ARENA);
	after = get_state(test, ARENA, LARGE_NR);
	KUNIT_EXPECT_MEMEQ(test, before, after, sizeof(*before));
	expect_folio(test, ARENA, folio, LARGE_ORDER);

	child_exit(child);
	KUNIT_EXPECT_EQ(test, must_move(test, ARENA, dst, LARGE_NR), 0);
	expect_home(test, dst, LARGE_NR, LARGE_NR);
	expect_folio(test, dst, folio, LARGE_ORDER);
}

/* The swap entry at @addr, or none. */
static softleaf_t entry_at(struct mm_struct *mm, unsigned long addr)
{
	softleaf_t entry = softleaf_mk_none();
	pmd_t *pmd = mm_find_pmd(mm, addr);
	pte_t *ptep = pmd ? pte_offset_map(pmd, addr) : NULL;

	if (ptep) {
		entry = softleaf_from_pte(ptep_get(ptep));
		pte_unmap(ptep);
	}
	return entry;
}

/*
 * Have the folio at @addr swapped out in one piece, to entries that one folio
 * could hold again, with nothing of it left in the swap cache.
 */
static void swap_out_large(struct kunit *test, unsigned long addr)
{
	struct mm_struct *mm = current->mm;
	struct folio *folio;
	softleaf_t first;
	unsigned long i;

	if (get_nr_swap_pages() < LARGE_NR)
		kunit_skip(test, "no swap space");
	KUNIT_ASSERT_EQ(test, 0, do_madvise(mm, addr, PAGES(LARGE_NR),
					    MADV_PAGEOUT));
	first = entry_at(mm, addr);
	for (i = 0; i < LARGE_NR; i++) {
		softleaf_t entry = entry_at(mm, addr + PAGES(i));

		if (!softleaf_is_swap(entry) || entry.val != first.val + i ||
		    !IS_ALIGNED(swp_offset(first), LARGE_NR))
			kunit_skip(test, "not swapped out in one piece");
	}

	folio = swap_cache_get_folio(first);
	if (!folio)
		return;
	folio_lock(folio);
	folio_wait_writeback(folio);
	if (folio_matches_swap_entry(folio, first))
		swap_cache_del_folio(folio);
	folio_unlock(folio);
	folio_put(folio);
}

/* What a fault in another mm does, if it is to share the entries. */
static void read_late(struct vm_area_struct *vma, unsigned long addr)
{
	struct vm_fault vmf = { .vma = vma, .address = addr };
	struct folio *folio;

	folio = swapin_sync(entry_at(vma->vm_mm, addr), GFP_HIGHUSER_MOVABLE,
			    BIT(LARGE_ORDER), &vmf, NULL, 0);
	if (IS_ERR_OR_NULL(folio))
		return;
	folio_wait_locked(folio);
	if (folio_test_large(folio) && !folio_test_anon(folio))
		holder.folio = folio;
	folio_put(folio);
}

static const struct wait reads[] = {
	{ "before", read_late, NULL },
	{ "meanwhile", NULL, read_late },
};

KUNIT_ARRAY_PARAM_DESC(reads, reads, name);

/*
 * Half of what was swapped out in one piece, when all of it is read in again,
 * by a fault of somebody who holds none of our locks: another mm has all the
 * entries, or had them when it began. The folio is nobody's yet, so there is
 * nothing to be re-homed, and nothing that makes the halves move together.
 *
 *   |eeeeeeeeEEEEEEEE|   ->   |eeeeeeee|   |EEEEEEEE|
 *   ARENA                     ARENA        dst
 */
static void relocate_read_in(struct kunit *test)
{
	const struct wait *param = test->param_value;
	const unsigned long half = LARGE_NR / 2;
	const unsigned long src = ARENA + PAGES(half);
	const unsigned long dst = ARENA + 4 * PMD_SIZE + PAGES(LARGE_NR);
	struct mm_struct *mm = current->mm;

	map_folios(test, ARENA, LARGE_NR, LARGE_ORDER, 1);
	swap_out_large(test, ARENA);
	if (param->now)
		hold_now(test, src, param->now);
	KUNIT_EXPECT_EQ(test, relocate_late(test, src, dst, half, param->late),
			0);
	KUNIT_EXPECT_NOT_NULL(test, holder.folio);
	expect_rehomed(test, 0, 0);

	/* All of what is outside stayed there, and came nowhere else. */
	KUNIT_ASSERT_EQ(test, nr_slots(mm, ARENA, PAGES(half)), half);
	KUNIT_ASSERT_EQ(test, nr_slots(mm, dst - PAGES(half), PAGES(half)), 0);
	expect_pages(test, ARENA, half, 1);
	expect_pages(test, dst, half, 1 + half);
	expect_home(test, ARENA, half, half);
	expect_home(test, dst, half, half);
}

struct huge {
	const char *name;
	unsigned long dst;		/* In pages, from a PMD boundary. */
	late_fn now, late;
	bool pmd;			/* Still mapped by a PMD afterwards? */
};

static const struct huge huges[] = {
	{ "aligned", 0, NULL, NULL, true },
	{ "unaligned", 3, NULL, NULL, false },
	{ "aligned, PMD split before", 0, split_late, NULL, false },
	{ "aligned, PMD split meanwhile", 0, NULL, split_late, false },
	{ "aligned, locked meanwhile", 0, NULL, lock_late, true },
	{ "aligned, under migration before", 0, migrate_late, NULL, true },
	{ "aligned, under migration meanwhile", 0, NULL, migrate_late, true },
	{ "unaligned, under migration before", 3, migrate_late, NULL, false },
	{ "unaligned, under migration meanwhile", 3, NULL, migrate_late, false },
};

KUNIT_ARRAY_PARAM_DESC(huges, huges, name);

/* A folio that a PMD maps stays in one piece, and mapped so if it can be. */
static void relocate_huge(struct kunit *test)
{
	const unsigned long dst = ARENA + 4 * PMD_SIZE;
	const struct huge *param = test->param_value;
	struct folio *folio;
	unsigned long addr;
	int err;

	if (!thp_migration_supported() &&
	    (param->now == migrate_late || param->late == migrate_late))
		kunit_skip(test, "no migration of what a PMD maps");
	map_folios(test, ARENA, HPAGE_PMD_NR, HPAGE_PMD_ORDER, 1);
	KUNIT_ASSERT_TRUE(test, is_pmd_mapped(ARENA));
	folio = peek_folio(ARENA);

	addr = dst + PAGES(param->dst);
	if (param->now)
		hold_now(test, ARENA, param->now);
	err = relocate_late(test, ARENA, addr, HPAGE_PMD_NR, param->late);
	flush_delayed_work(&holder.work);
	KUNIT_ASSERT_EQ(test, err, 0);
	if (param->now || param->late)
		KUNIT_EXPECT_PTR_EQ(test, holder.folio, folio);

	expect_rehomed(test, 1, HPAGE_PMD_NR);
	expect_home(test, addr, HPAGE_PMD_NR, HPAGE_PMD_NR);
	expect_pages(test, addr, HPAGE_PMD_NR, 1);
	expect_folio(test, addr, folio, HPAGE_PMD_ORDER);
	KUNIT_EXPECT_EQ(test, is_pmd_mapped(addr), param->pmd);
}

/*
 * As in_place_same_anon_vma(), but it goes home by less than the length of its
 * folios. With both VMAs under one anon_vma, a walk would find a folio in the
 * wrong one as well.
 *
 *   |A...A....|CCCC|, where C are folios that were faulted a bit before
 */
static void in_place_near(struct kunit *test)
{
	const unsigned long src = ARENA + PAGES(LARGE_NR + 4);
	struct anon_vma *anon_vma;

	map_folios(test, ARENA, 3 * LARGE_NR, LARGE_ORDER, 1);
	plain_move(test, ARENA + PAGES(LARGE_NR), ARENA + PMD_SIZE, 2 * LARGE_NR);
	plain_move(test, ARENA + PMD_SIZE, src, 2 * LARGE_NR);
	map_pages(test, ARENA + PAGES(LARGE_NR), 4);
	KUNIT_ASSERT_EQ(test, 0, do_madvise(current->mm, ARENA + PAGES(LARGE_NR),
					    PAGES(4), MADV_HUGEPAGE));
	anon_vma = anon_vma_at(ARENA);
	KUNIT_ASSERT_PTR_EQ(test, anon_vma_at(src), anon_vma);
	KUNIT_ASSERT_EQ(test, current->mm->map_count, 2);

	KUNIT_ASSERT_EQ(test, in_place(test, src, 2 * LARGE_NR), 0);
	expect_home(test, ARENA, 3 * LARGE_NR + 4, 3 * LARGE_NR);
	expect_pages(test, ARENA, LARGE_NR, 1);
	expect_pages(test, src, 2 * LARGE_NR, 1 + LARGE_NR);
	KUNIT_EXPECT_EQ(test, order_at(src), LARGE_ORDER);
	KUNIT_EXPECT_PTR_EQ(test, anon_vma_at(src), anon_vma);
	KUNIT_EXPECT_EQ(test, current->mm->map_count, 1);
}

static struct kunit_case relocate_thp_test_cases[] = {
	KUNIT_CASE_PARAM(relocate_large, larges_gen_params),
	KUNIT_CASE(relocate_cut_large),
	KUNIT_CASE(relocate_torn_large),
	KUNIT_CASE_PARAM(relocate_torn_page, torns_gen_params),
	KUNIT_CASE(relocate_torn_beside_shared),
	KUNIT_CASE(relocate_pinned_large),
	KUNIT_CASE(relocate_shared_large),
	KUNIT_CASE_PARAM(relocate_read_in, reads_gen_params),
	KUNIT_CASE_PARAM(relocate_huge, huges_gen_params),
	KUNIT_CASE(in_place_near),
	{}
};

static struct kunit_suite relocate_thp_test_suite = {
	.name = "mremap_relocate_thp",
	.suite_init = relocate_thp_suite_init,
	.suite_exit = relocate_thp_suite_exit,
	.init = relocate_test_init,
	.test_cases = relocate_thp_test_cases,
};

kunit_test_suites(&relocate_test_suite, &relocate_thp_test_suite);
#else
kunit_test_suite(relocate_test_suite);
#endif /* CONFIG_TRANSPARENT_HUGEPAGE */

MODULE_DESCRIPTION("Tests of the relocation of anonymous folios by mremap()");
MODULE_LICENSE("GPL");
