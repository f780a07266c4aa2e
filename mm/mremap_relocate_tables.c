// SPDX-License-Identifier: GPL-2.0
/*
 * Relocation of anonymous folios by mremap(): the page tables of the
 * destination.
 *
 * All memory that a relocation needs is taken here, before anything has moved,
 * but for page tables of the source that become empty on the way.
 */

#include <linux/hugetlb.h>
#include <linux/pgalloc.h>
#include <linux/slab.h>
#include <linux/userfaultfd_k.h>

#include <asm/tlb.h>

#include "internal.h"
#include "mremap_relocate.h"

/**
 * mremap_relocate_extent() - How far does one page table on either side reach?
 * @pmc: The move.
 * @addr: Where to begin in the source, in bytes.
 * @end: Where to end, in bytes, exclusive.
 * @old_pmdp: Filled in with the PMD of the source, or NULL if there is nothing
 *	      below it, or no PMD.
 *
 * The mmap write lock must be held and the source VMA be write-locked.
 *
 * Returns: The distance from @addr, in bytes, up to @end at most.
 */
unsigned long mremap_relocate_extent(struct pagetable_move_control *pmc,
				     unsigned long addr, unsigned long end,
				     pmd_t **old_pmdp)
{
	struct mm_struct *mm = pmc->old->vm_mm;
	pmd_t *pmd = mm_find_pmd(mm, addr);

	*old_pmdp = NULL;
	if (!pmd)
		return pud_addr_end(addr, end) - addr;
	if (!pmd_is_empty(mm, pmd))
		*old_pmdp = pmd;
	return min(pmd_addr_end(addr, end) - addr,
		   PMD_SIZE - (mremap_new_addr(pmc, addr) & ~PMD_MASK));
}

/*
 * Page tables of the source that will be empty in time for the destination to
 * have them, where a PMD does not move to all of another.
 */
struct table_forecast {
	unsigned int ready;	/* Empty before what is looked at now moves. */
	bool last;		/* The one before will be empty as well. */
	pmd_t *promised;	/* The last one that is to have such a table. */
};

/*
 * Can the place where the PMD at @addr goes get a page table that is empty by
 * then? Not if a neighbour shares the page table of the source: it can make one
 * where none was, and then a destination without one says that there was
 * nothing. Nor if one shares that of the destination, and can make that.
 */
static bool reuse_table(struct pagetable_move_control *pmc, unsigned long addr,
			pmd_t *new_pmd, struct table_forecast *forecast)
{
	if (!pmd_is_within(addr, pmc->old_addr, pmc->old_end))
		return false;
	/* The PMD before goes there too. */
	if (new_pmd == forecast->promised)
		return true;
	if (!forecast->ready ||
	    !pmd_is_within(mremap_new_addr(pmc, addr), pmc->new_addr,
			   mremap_new_addr(pmc, pmc->old_end)))
		return false;
	forecast->ready--;
	forecast->promised = new_pmd;
	return true;
}

/*
 * All below @old_pmd, the one at @addr, will have moved before what is behind
 * the PMD after it: a large folio lies across two at most. A page table that is
 * there stays. A leaf has none before it is split: do not count on it.
 */
static void forecast_table(struct pagetable_move_control *pmc,
			   unsigned long addr, pmd_t *old_pmd,
			   struct table_forecast *forecast)
{
	forecast->ready += forecast->last;
	forecast->last = mremap_can_move_tables() && pmd_has_table(old_pmd) &&
			 pmd_is_within(addr, pmc->old_addr, pmc->old_end);
}

/**
 * mremap_relocate_alloc() - Take all the memory that a relocation can need.
 * @pmc: The move; its VMAs need not be set but for pmc->old.
 * @rel: Filled in with what mremap_relocate_move() is to be given.
 *
 * Where all of a PMD moves to all of another, the destination gets no page
 * table: a PMD leaf and most page tables are moved whole. If one cannot be, as
 * the leaf has just been split or a folio is locked by someone else, its PTEs
 * are moved to a spare page table, and the table that they leave behind is a
 * spare one from then on. A large folio can lie across two page tables, unless
 * a leaf maps it, so at most two are in use at a time. If the architecture does
 * not let page tables move, there is a spare one for each PMD.
 *
 * Where a PMD moves to parts of two others, the destination gets page tables of
 * the source that have been emptied, and new ones where reuse_table() finds none:
 * without gaps and leaves, six at most.
 *
 * The mmap write lock must be held and the source VMA be write-locked. The
 * destination must be unmapped.
 *
 * Returns: 0. On error, nothing is allocated: -ENOMEM, or -EINTR if a fatal signal
 * is pending.
 */
int mremap_relocate_alloc(struct pagetable_move_control *pmc,
			  struct mremap_relocation *rel)
{
	struct mm_struct *mm = pmc->old->vm_mm;
	struct table_forecast forecast = {};
	unsigned long addr, extent, nr = 0;
	bool leaves_only = true;
	pmd_t *old_pmd, *new_pmd;
	int err = -ENOMEM;

	*rel = (struct mremap_relocation) {};

	for (addr = pmc->old_addr; addr < pmc->old_end; addr += extent) {
		cond_resched();
		if (fatal_signal_pending(current)) {
			err = -EINTR;
			goto out_free;
		}
		extent = mremap_relocate_extent(pmc, addr, pmc->old_end, &old_pmd);
		if (!old_pmd)
			continue;
		new_pmd = mremap_alloc_pmd(mm, mremap_new_addr(pmc, addr));
		if (!new_pmd)
			goto out_free;
		if (extent == PMD_SIZE) {
			nr++;
			leaves_only &= pmd_is_huge(*old_pmd);
			continue;
		}
		if (pmd_none(*new_pmd) &&
		    !reuse_table(pmc, addr, new_pmd, &forecast) &&
		    pte_alloc(mm, new_pmd))
			goto out_free;
		if (IS_ALIGNED(addr + extent, PMD_SIZE))
			forecast_table(pmc, addr, old_pmd, &forecast);
	}
	if (!nr)
		return 0;

	rel->spare = rel->spare_inline;
	if (mremap_can_move_tables())
		nr = min(nr, leaves_only ? 1 : ARRAY_SIZE(rel->spare_inline));
	else
		rel->spare = kvmalloc_array(nr, sizeof(*rel->spare),
					    GFP_KERNEL_ACCOUNT);
	if (!rel->spare)
		goto out_free;
	while (rel->nr_spare < nr) {
		cond_resched();
		if (fatal_signal_pending(current)) {
			err = -EINTR;
			goto out_free;
		}
		rel->spare[rel->nr_spare] = pte_alloc_one(mm);
		if (!rel->spare[rel->nr_spare])
			goto out_free;
		rel->nr_spare++;
	}
	/*
	 * Without it tables are moved PTE by PTE, as they have to be to clear
	 * userfaultfd state from each PTE.
	 */
	if (!leaves_only && mremap_can_move_tables() &&
	    !vma_has_uffd_without_event_remap(pmc->old))
		rel->folios = kmalloc_array(PTRS_PER_PTE, sizeof(*rel->folios),
					    GFP_KERNEL | __GFP_NORETRY |
					    __GFP_NOWARN);
	return 0;

out_free:
	mremap_relocate_free(pmc, rel);
	return err;
}

/**
 * mremap_relocate_finish() - Free what a relocation has not used.
 * @mm: The mm.
 * @rel: What mremap_relocate_alloc() took for it.
 */
void mremap_relocate_finish(struct mm_struct *mm, struct mremap_relocation *rel)
{
	while (rel->nr_spare)
		pte_free(mm, rel->spare[--rel->nr_spare]);
	if (rel->spare != rel->spare_inline)
		kvfree(rel->spare);
	kfree(rel->folios);
}

/**
 * mremap_relocate_free() - Give back what mremap_relocate_alloc() took.
 * @pmc: The move that is not going to happen.
 * @rel: What it was given.
 *
 * The mmap write lock must be held, the destination still be unmapped. A plain
 * move wants to find its destination without page tables.
 */
void mremap_relocate_free(struct pagetable_move_control *pmc,
			  struct mremap_relocation *rel)
{
	struct mm_struct *mm = pmc->old->vm_mm;
	struct vm_area_struct *prev, *next;
	struct mmu_gather tlb;

	mremap_relocate_finish(mm, rel);

	next = find_vma_prev(mm, pmc->new_addr, &prev);
	tlb_gather_mmu(&tlb, mm);
	free_pgd_range(&tlb, pmc->new_addr, pmc->new_addr + pmc->len_in,
		       prev ? prev->vm_end : FIRST_USER_ADDRESS,
		       next ? next->vm_start : USER_PGTABLES_CEILING);
	tlb_finish_mmu(&tlb);
}

/**
 * mremap_relocate_table() - Move a page table, as move_normal_pmd() does.
 * @pmc: The move.
 * @addr: The address in the source that the page table begins at, in bytes.
 * @old_pmd: The PMD there. All below it is a part of the range.
 * @new_pmd: A PMD of the destination, none.
 *
 * The page table must be empty, and so as good as a new one, or all the folios
 * that it maps must be locked. A lockless walker that has found it below
 * @old_pmd looks at that again once it has the lock.
 */
void mremap_relocate_table(struct pagetable_move_control *pmc,
			   unsigned long addr, pmd_t *old_pmd, pmd_t *new_pmd)
{
	struct mm_struct *mm = pmc->old->vm_mm;
	spinlock_t *old_ptl, *new_ptl;
	pmd_t pmd;

	old_ptl = pmd_lock(mm, old_pmd);
	new_ptl = pmd_lockptr(mm, new_pmd);
	if (new_ptl != old_ptl)
		spin_lock_nested(new_ptl, SINGLE_DEPTH_NESTING);
	pmd = *old_pmd;
	VM_WARN_ON_ONCE(!pmd_present(pmd) || pmd_leaf(pmd));
	VM_WARN_ON_ONCE(!pmd_none(*new_pmd));
	pmd_clear(old_pmd);
	pmd_populate(mm, new_pmd, pmd_pgtable(pmd));
	flush_tlb_range(pmc->old, addr, addr + PMD_SIZE);
	if (new_ptl != old_ptl)
		spin_unlock(new_ptl);
	spin_unlock(old_ptl);
}

/**
 * mremap_relocate_use_spare() - Give the destination a spare page table.
 * @pmc: The move.
 * @rel: What mremap_relocate_alloc() took for it.
 * @new_pmd: A PMD of the destination, none.
 *
 * It is one that mremap_relocate_alloc() took, or else one of the source that has
 * been emptied.
 */
void mremap_relocate_use_spare(struct pagetable_move_control *pmc,
			       struct mremap_relocation *rel, pmd_t *new_pmd)
{
	if (rel->nr_spare) {
		pmd_install(pmc->old->vm_mm, new_pmd,
			    &rel->spare[--rel->nr_spare]);
		return;
	}
	/* Should that be wrong, do not lose what moves as well. */
	if (WARN_ON_ONCE(!rel->nr_emptied)) {
		WARN_ON_ONCE(pte_alloc(pmc->old->vm_mm, new_pmd));
		return;
	}
	rel->nr_emptied--;
	mremap_relocate_table(pmc, rel->emptied_addr[rel->nr_emptied],
			      rel->emptied[rel->nr_emptied], new_pmd);
}

/**
 * mremap_relocate_emptied() - Remember a page table for its next use.
 * @rel: What mremap_relocate_alloc() took.
 * @addr: The address in the source that the page table begins at, in bytes.
 * @old_pmd: The PMD there. All below it was a part of the range, and has moved.
 *
 * Two are enough: each PMD yields one at most, and what is promised of it is used
 * by the second PMD from there.
 */
void mremap_relocate_emptied(struct mremap_relocation *rel, unsigned long addr,
			     pmd_t *old_pmd)
{
	if (!mremap_can_move_tables() ||
	    rel->nr_emptied == ARRAY_SIZE(rel->emptied))
		return;
	rel->emptied[rel->nr_emptied] = old_pmd;
	rel->emptied_addr[rel->nr_emptied++] = addr;
}
