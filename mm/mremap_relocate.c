// SPDX-License-Identifier: GPL-2.0
/*
 * Relocation of anonymous folios by mremap(), see MREMAP_RELOCATE_ANON in
 * Documentation/mm/mremap_relocate.rst.
 *
 * A folio is found from its index and anon_vma, which name the place where it
 * was first faulted. A plain move leaves both alone and makes the moved VMA
 * remember the old place. Relocation rewrites them instead ("re-homes" the
 * folio), so the moved VMA is what it would be had it been mapped, and faulted,
 * in its new place. There are three steps:
 *
 * 1. relocate_check() looks at each slot of the source and locks each folio it
 *    meets. A folio may be re-homed if all its mappings and swap entries are in
 *    the range. That cannot change later: a new mapping or swap entry is only
 *    ever made out of an existing one, by fork, fault or userfaultfd in the mm
 *    that has it, and the mmap and VMA write locks shut these out. (KSM maps
 *    its folios into any mm: they are refused.) It is also the only step that
 *    is able to refuse, and it has moved nothing yet.
 * 2. relocate_alloc_tables() takes all the memory that step 3 can need.
 * 3. relocate_page_tables() moves the slots. It has no way to fail, hence there
 *    is nothing to undo.
 *
 * Steps 1 and 3 contend with whoever needs no lock of the mm: reclaim,
 * migration, memory failure, the deferred split, GUP-fast. All but the last
 * lock the folio first, for rmap_walk() insists on it. So with the folio locked
 * its slots, mapping and index can be changed together. GUP-fast does not look
 * at either, and takes its reference back if the PTE has changed: pinned folios
 * need no care.
 *
 * The locks, in order: mmap_lock and VMA lock for writing, folio lock, page
 * table locks. No more than one folio lock is ever waited for, and none with
 * another folio or a page table locked. No anon_vma lock is needed.
 */

#include <linux/mm.h>
#include <linux/mm_inline.h>
#include <linux/hugetlb.h>
#include <linux/ksm.h>
#include <linux/leafops.h>
#include <linux/mman.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/pgalloc.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/userfaultfd_k.h>

#include <asm/tlb.h>

#include "internal.h"
#include "memcontrol-v1.h"
#include "mremap_relocate.h"
#include "swap.h"

/* What a slot, that is a PTE of the source, holds. */
enum slot_kind {
	SLOT_PLAIN,	/* Nothing that depends on where it is mapped. */
	SLOT_FOLIO,	/* A page of an anonymous folio, perhaps swap cached. */
	SLOT_SWAP,	/* A swap entry with nothing in the swap cache. */
	SLOT_MIGRATION,	/* A page under migration. */
	SLOT_OTHER,	/* What we cannot re-home: device memory, KSM. */
};

/* The range that is to move, and what relocate_check() makes of it. */
struct source {
	struct vm_area_struct *vma;
	unsigned long start;
	unsigned long end;
	bool may_split;		/* Split what has to be, or only take note? */
	bool needs_split;	/* Was there a large folio to split? */
};

/* The slots of one source and one destination page table, both locked. */
struct slot_pair {
	pte_t *old_ptep, *new_ptep;
	spinlock_t *old_ptl, *new_ptl;
};

/**
 * vma_can_relocate() - Does a VMA hold the kind of memory we can re-home?
 * @vma: The VMA that is to move.
 *
 * Returns: true for private anonymous memory. A private mapping of /dev/zero
 * counts as a file: its page offset is not that of its folios.
 */
bool vma_can_relocate(const struct vm_area_struct *vma)
{
	return vma_is_anonymous(vma) && !vma->vm_file &&
	       !(vma->vm_flags & (VM_SPECIAL | VM_HUGETLB | VM_SHARED));
}

/*
 * What does a slot hold? The page table is locked. For SLOT_FOLIO, and only
 * then, the caller gets a reference to the folio.
 */
static enum slot_kind slot_look(struct vm_area_struct *vma, unsigned long addr,
				pte_t pte, struct folio **foliop)
{
	struct folio *folio;
	softleaf_t entry;

	if (pte_present(pte)) {
		folio = vm_normal_folio(vma, addr, pte);
		if (!folio)
			return SLOT_PLAIN;
		if (WARN_ON_ONCE(!folio_test_anon(folio)))
			return SLOT_OTHER;
		/* Swapped in again after MADV_UNMERGEABLE, as it was in cache. */
		if (folio_test_ksm(folio))
			return SLOT_OTHER;
		folio_get(folio);
		*foliop = folio;
		return SLOT_FOLIO;
	}

	entry = softleaf_from_pte(pte);
	if (softleaf_is_migration(entry))
		return SLOT_MIGRATION;
	if (softleaf_is_device_private(entry) ||
	    softleaf_is_device_exclusive(entry))
		return SLOT_OTHER;
	if (!softleaf_is_swap(entry))
		return SLOT_PLAIN;

	*foliop = swap_cache_get_folio(entry);
	return *foliop ? SLOT_FOLIO : SLOT_SWAP;
}

/*
 * Which page of a locked folio does a slot hold, either mapped or as the swap
 * entry of the folio in the swap cache? Returns -1 if none.
 */
static long slot_page(struct folio *folio, pte_t pte)
{
	unsigned long page;
	softleaf_t entry;

	if (pte_present(pte)) {
		page = pte_pfn(pte) - folio_pfn(folio);
		return page < folio_nr_pages(folio) ? page : -1;
	}

	entry = softleaf_from_pte(pte);
	if (!softleaf_is_swap(entry) || !folio_matches_swap_entry(folio, entry))
		return -1;
	return swp_offset(entry) - swp_offset(folio->swap);
}

/* Count the swap entries of a page of a locked folio in the swap cache. */
static int page_swapcount(struct folio *folio, long page)
{
	return swp_swapcount(swp_entry(swp_type(folio->swap),
				       swp_offset(folio->swap) + page));
}

/*
 * Count all the mappings and swap entries of a locked folio, whoever has them.
 * One turns into the other only under the folio lock, so none is missed.
 */
static unsigned int folio_nr_users(struct folio *folio)
{
	unsigned int users = folio_mapcount(folio);
	long page;

	if (!folio_test_swapcache(folio))
		return users;
	for (page = 0; page < folio_nr_pages(folio); page++)
		users += page_swapcount(folio, page);
	return users;
}

/*
 * Count the mappings and swap entries that a locked folio has in [addr, end),
 * which is within one page table. @base is where its first page belongs.
 */
static unsigned int table_nr_users(struct vm_area_struct *vma,
				   struct folio *folio, unsigned long base,
				   unsigned long addr, unsigned long end)
{
	pmd_t *pmd = mm_find_pmd(vma->vm_mm, addr);
	pte_t *start_ptep, *ptep;
	unsigned int users;
	spinlock_t *ptl;

	if (!pmd)
		return 0;

	ptl = pmd_trans_huge_lock(pmd, vma);
	if (ptl) {
		users = pmd_present(*pmd) && pmd_folio(*pmd) == folio;
		spin_unlock(ptl);
		return users;
	}

	start_ptep = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (!start_ptep)
		return 0;
	users = 0;
	for (ptep = start_ptep; addr < end; ptep++, addr += PAGE_SIZE)
		users += slot_page(folio, ptep_get(ptep)) ==
			 (addr - base) >> PAGE_SHIFT;
	pte_unmap_unlock(start_ptep, ptl);
	return users;
}

/*
 * Take a locked folio that is not mapped out of the swap cache, if the swap
 * device has all of it and nobody else a reference. With memory+swap accounting
 * the charge for the swap space is the folio's, and would go with it.
 */
static bool drop_swap_cached(struct folio *folio)
{
	if (folio_mapped(folio) || !folio_test_swapcache(folio) ||
	    folio_ref_count(folio) != folio_nr_pages(folio) + 1 ||
	    do_memsw_account())
		return false;
	/* It is made dirty before the reference goes, see __remove_mapping(). */
	smp_rmb();
	if (folio_test_dirty(folio))
		return false;
	swap_cache_del_folio(folio);
	return true;
}

/*
 * Split a locked folio, or drop it, which does as well: an anonymous folio that
 * is not mapped cannot be split.
 */
static int split_cut_folio(struct folio *folio)
{
	if (folio_wait_writeback_killable(folio))
		return -EINTR;
	return drop_swap_cached(folio) ? 0 : split_folio(folio);
}

/*
 * May a folio be re-homed, if need be after a split? It is locked and
 * referenced, and the slot at @addr held its page number @page when we last
 * looked.
 *
 * Returns 0 if so, -EFAULT if not, -EAGAIN to look at the slot again.
 */
static int check_folio(struct source *src, struct folio *folio,
		       unsigned long addr, long page)
{
	const long nr_before = (addr - src->start) >> PAGE_SHIFT;
	const long nr_from = (src->end - addr) >> PAGE_SHIFT;
	const long nr = folio_nr_pages(folio);
	const unsigned long base = addr - (page << PAGE_SHIFT);
	const unsigned long end = addr + (min(nr - page, nr_from) << PAGE_SHIFT);
	unsigned int users = 0;
	unsigned long next;
	int err;

	/* relocate_check() does not un-share what has been swapped out. */
	if (folio_test_ksm(folio))
		return -EFAULT;

	for (addr -= min(page, nr_before) << PAGE_SHIFT; addr < end; addr = next) {
		next = pmd_addr_end(addr, end);
		users += table_nr_users(src->vma, folio, base, addr, next);
	}
	if (!users)
		return -EAGAIN;
	if (page <= nr_before && nr - page <= nr_from &&
	    users == folio_nr_users(folio))
		return 0;

	/*
	 * Cut by an end of the range, or left behind in part by an older move
	 * within this mm: each part can be judged for itself after a split. If
	 * another mm may have a part of it, the cost is not ours to impose.
	 */
	if (nr == 1 || folio_maybe_mapped_shared(folio) ||
	    (folio_test_swapcache(folio) && page_swapcount(folio, page) > 1))
		return -EFAULT;
	src->needs_split = true;
	if (!src->may_split)
		return 0;
	err = split_cut_folio(folio);
	if (err)
		return err == -EINTR ? err : -EFAULT;
	return -EAGAIN;
}

/* As check_folio(), for the PTEs of [addr, end) in one page table. */
static int check_ptes(struct source *src, pmd_t *pmd, unsigned long addr,
		      unsigned long end)
{
	struct mm_struct *mm = src->vma->vm_mm;
	struct folio *folio, *checked = NULL;
	pte_t *start_ptep, *ptep, pte;
	spinlock_t *ptl;
	bool alone;
	long page;
	int err;

again:
	err = -EAGAIN;
	start_ptep = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!start_ptep)
		goto out;

	for (ptep = start_ptep; addr < end; ptep++, addr += PAGE_SIZE) {
		pte = ptep_get(ptep);
		if (checked && slot_page(checked, pte) >= 0)
			continue;

		switch (slot_look(src->vma, addr, pte, &folio)) {
		case SLOT_PLAIN:
			continue;
		case SLOT_SWAP:
			if (pte_swp_exclusive(pte) ||
			    swap_entry_sole_user(softleaf_from_pte(pte)))
				continue;
			/* With one user, it has just been read in. */
			err = swp_swapcount(softleaf_from_pte(pte)) > 1 ?
				-EFAULT : -EAGAIN;
			goto unlock;
		case SLOT_OTHER:
			err = -EFAULT;
			goto unlock;
		case SLOT_MIGRATION:
			pte_unmap_unlock(start_ptep, ptl);
			if (checked) {
				folio_unlock(checked);
				folio_put(checked);
				checked = NULL;
			}
			migration_entry_wait(mm, pmd, addr);
			goto again;
		case SLOT_FOLIO:
			break;
		}

		/* The quick way for what most slots hold. */
		if (!folio_test_large(folio) && folio_trylock(folio)) {
			alone = !folio_test_ksm(folio) &&
				!slot_page(folio, pte) &&
				folio_nr_users(folio) == 1;
			folio_unlock(folio);
			if (alone) {
				folio_put(folio);
				continue;
			}
		}

		pte_unmap_unlock(start_ptep, ptl);
		if (checked) {
			folio_unlock(checked);
			folio_put(checked);
		}
		checked = folio;
		if (folio_lock_killable(checked)) {
			folio_put(checked);
			return -EINTR;
		}
		page = slot_page(checked, pte);
		err = page < 0 ? -EAGAIN : check_folio(src, checked, addr, page);
		if (err)
			goto out;
		goto again;
	}
	err = 0;
unlock:
	pte_unmap_unlock(start_ptep, ptl);
out:
	if (checked) {
		folio_unlock(checked);
		folio_put(checked);
	}
	return err;
}

/*
 * Is there nothing below a PMD? It can look so for a moment, while it is being
 * changed under its lock. With the VMA write-locked, only the neighbour that it
 * shares a page table with can fill it again.
 */
static bool pmd_is_empty(struct mm_struct *mm, pmd_t *pmd)
{
	spinlock_t *ptl;
	bool none;

	if (!pmd_none(*pmd))
		return false;
	ptl = pmd_lock(mm, pmd);
	none = pmd_none(*pmd);
	spin_unlock(ptl);
	return none;
}

/* As check_folio(), for [addr, end) below one PMD. */
static int check_pmd(struct source *src, pmd_t *pmd, unsigned long addr,
		     unsigned long end)
{
	struct folio *folio;
	spinlock_t *ptl;
	int err = 0;

	if (pmd_is_empty(src->vma->vm_mm, pmd))
		return 0;
	ptl = pmd_trans_huge_lock(pmd, src->vma);
	if (!ptl)
		return check_ptes(src, pmd, addr, end);

	if (pmd_is_migration_entry(*pmd)) {
		spin_unlock(ptl);
		pmd_migration_entry_wait(src->vma->vm_mm, pmd);
		return -EAGAIN;
	}
	if (!pmd_present(*pmd))
		err = -EFAULT;
	if (err || is_huge_zero_pmd(*pmd)) {
		spin_unlock(ptl);
		return err;
	}
	folio = pmd_folio(*pmd);
	folio_get(folio);
	spin_unlock(ptl);

	if (folio_lock_killable(folio)) {
		folio_put(folio);
		return -EINTR;
	}
	err = check_folio(src, folio, addr, (addr & ~PMD_MASK) >> PAGE_SHIFT);
	folio_unlock(folio);
	folio_put(folio);
	return err;
}

/* As check_folio(), for the whole range. */
static int check_range(struct source *src)
{
	unsigned long addr, next;
	pmd_t *pmd;
	int err;

	for (addr = src->start; addr < src->end; addr = next) {
		pmd = mm_find_pmd(src->vma->vm_mm, addr);
		if (!pmd) {
			next = pud_addr_end(addr, src->end);
			continue;
		}
		next = pmd_addr_end(addr, src->end);
		do {
			cond_resched();
			if (fatal_signal_pending(current))
				return -EINTR;
			err = check_pmd(src, pmd, addr, next);
		} while (err == -EAGAIN);
		if (err)
			return err;
	}
	return 0;
}

/**
 * relocate_check() - Can all the folios of a range be re-homed?
 * @vma: The VMA that is to move, for which vma_can_relocate() holds.
 * @start: Start of the range to move, in bytes, within @vma.
 * @end: End of the range, in bytes, exclusive, within @vma.
 *
 * The mmap write lock must be held; @vma is write-locked here, and the answer
 * stands for as long as both are. Sleeps: waits for locked folios and for
 * migration, un-shares KSM pages, and splits the large folios that are only
 * partly in the range, after everything else has been found to be fine, when
 * it also waits for their writeback. A split that fails, as the folio is
 * pinned, is a refusal too.
 *
 * Returns: 0 if they can, -EFAULT if some cannot, -EINTR if a fatal signal is
 * pending, or an error of KSM.
 */
int relocate_check(struct vm_area_struct *vma, unsigned long start,
		   unsigned long end)
{
	struct source src = { .vma = vma, .start = start, .end = end };
	vm_flags_t dummy = vma->vm_flags;
	int err;

	/* A KSM page is never ours alone. A plain move un-shares them too. */
	err = ksm_madvise(vma, start, end, MADV_UNMERGEABLE, &dummy);
	if (err)
		return err;

	vma_start_write(vma);
	err = check_range(&src);
	if (err || !src.needs_split)
		return err;
	src.may_split = true;
	return check_range(&src);
}

/* Where in the destination does @addr of the source go? */
static unsigned long new_place(struct pagetable_move_control *pmc,
			       unsigned long addr)
{
	return addr - pmc->old_addr + pmc->new_addr;
}

/*
 * How far does one source and one destination page table take us? Fills in the
 * PMD of the source, or NULL if there is nothing so far.
 */
static unsigned long relocate_extent(struct pagetable_move_control *pmc,
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
		   PMD_SIZE - (new_place(pmc, addr) & ~PMD_MASK));
}

/* Can a PMD leaf of the source stay one? The destination is still empty. */
static bool keeps_leaf(pmd_t *old_pmd, unsigned long extent)
{
	return extent == PMD_SIZE && pmd_is_huge(*old_pmd);
}

/* How many of them? A leaf that is just being changed may be missed. */
static unsigned long count_kept_leaves(struct pagetable_move_control *pmc)
{
	unsigned long addr, extent, nr = 0;
	pmd_t *old_pmd;

	for (addr = pmc->old_addr; addr < pmc->old_end; addr += extent) {
		cond_resched();
		extent = relocate_extent(pmc, addr, pmc->old_end, &old_pmd);
		nr += old_pmd && keeps_leaf(old_pmd, extent);
	}
	return nr;
}

/**
 * relocate_alloc_tables() - Take all the memory that a relocation can need.
 * @pmc: The move; its VMAs need not be set but for pmc->old.
 * @tables: Filled in with what relocate_page_tables() is to be given.
 *
 * The mmap write lock must be held and the source VMA be write-locked. The
 * destination must be unmapped.
 *
 * Returns: 0, or -ENOMEM with nothing allocated.
 */
int relocate_alloc_tables(struct pagetable_move_control *pmc,
			  struct relocate_tables *tables)
{
	const unsigned long max_spare = count_kept_leaves(pmc);
	struct mm_struct *mm = pmc->old->vm_mm;
	pmd_t *old_pmd, *new_pmd;
	unsigned long addr, extent;
	pgtable_t table;

	tables->spare = NULL;
	tables->nr_spare = 0;
	if (max_spare) {
		tables->spare = kvmalloc_array(max_spare, sizeof(pgtable_t),
					       GFP_KERNEL_ACCOUNT);
		if (!tables->spare)
			return -ENOMEM;
	}

	for (addr = pmc->old_addr; addr < pmc->old_end; addr += extent) {
		cond_resched();
		extent = relocate_extent(pmc, addr, pmc->old_end, &old_pmd);
		if (!old_pmd)
			continue;
		new_pmd = alloc_new_pmd(mm, new_place(pmc, addr));
		if (!new_pmd)
			goto nomem;
		/* One that was missed is split and moved by its PTEs. */
		if (!keeps_leaf(old_pmd, extent) ||
		    tables->nr_spare == max_spare) {
			if (pte_alloc(mm, new_pmd))
				goto nomem;
			continue;
		}
		table = pte_alloc_one(mm);
		if (!table)
			goto nomem;
		tables->spare[tables->nr_spare++] = table;
	}
	return 0;

nomem:
	relocate_free_tables(pmc, tables);
	return -ENOMEM;
}

static void free_spare_tables(struct mm_struct *mm,
			      struct relocate_tables *tables)
{
	while (tables->nr_spare)
		pte_free(mm, tables->spare[--tables->nr_spare]);
	kvfree(tables->spare);
}

/**
 * relocate_free_tables() - Give back what relocate_alloc_tables() took.
 * @pmc: The move that is not going to happen.
 * @tables: The tables that it was given.
 *
 * The mmap write lock must be held, the destination still be unmapped. A plain
 * move wants to find its destination without page tables.
 */
void relocate_free_tables(struct pagetable_move_control *pmc,
			  struct relocate_tables *tables)
{
	struct mm_struct *mm = pmc->old->vm_mm;
	struct vm_area_struct *prev, *next;
	struct mmu_gather tlb;

	free_spare_tables(mm, tables);

	next = find_vma_prev(mm, pmc->new_addr, &prev);
	tlb_gather_mmu(&tlb, mm);
	free_pgd_range(&tlb, pmc->new_addr, pmc->new_addr + pmc->len_in,
		       prev ? prev->vm_end : FIRST_USER_ADDRESS,
		       next ? next->vm_start : USER_PGTABLES_CEILING);
	tlb_finish_mmu(&tlb);
}

/*
 * Make @base of the source's new place that of the first page of a folio, which
 * is locked and stays so until its last slot has moved.
 */
static void rehome_folio(struct pagetable_move_control *pmc,
			 struct folio *folio, unsigned long base)
{
	VM_WARN_ON_ONCE_FOLIO(!folio_test_locked(folio), folio);
	VM_WARN_ON_ONCE_FOLIO(folio_test_ksm(folio), folio);
	/* Just read ahead into the swap cache: a fault will give it its place. */
	if (!folio_test_anon(folio))
		return;
	folio_move_anon_rmap(folio, pmc->new);
	folio->index = linear_anon_page_index(pmc->new, new_place(pmc, base));
}

/* Lock the page tables from @addr on. Returns false if there are none. */
static bool lock_slots(struct pagetable_move_control *pmc, unsigned long addr,
		       struct slot_pair *slots)
{
	const unsigned long new_addr = new_place(pmc, addr);
	struct mm_struct *mm = pmc->old->vm_mm;
	pmd_t *old_pmd = mm_find_pmd(mm, addr);
	pmd_t *new_pmd = mm_find_pmd(mm, new_addr);
	pmd_t dummy;

	if (!old_pmd || !new_pmd)
		return false;
	slots->old_ptep = pte_offset_map_lock(mm, old_pmd, addr,
					      &slots->old_ptl);
	if (!slots->old_ptep)
		return false;
	slots->new_ptep = pte_offset_map_rw_nolock(mm, new_pmd, new_addr,
						   &dummy, &slots->new_ptl);
	if (!slots->new_ptep) {
		pte_unmap_unlock(slots->old_ptep, slots->old_ptl);
		return false;
	}
	/* In the order of move_ptes(); other calls of mremap() are shut out. */
	if (slots->new_ptl != slots->old_ptl)
		spin_lock_nested(slots->new_ptl, SINGLE_DEPTH_NESTING);
	flush_tlb_batched_pending(mm);
	lazy_mmu_mode_enable();
	return true;
}

/*
 * Unlock the page tables. If a present PTE was moved, flush [start, end) of the
 * source first: with the old lock dropped its page may be cleaned or freed.
 */
static void unlock_slots(struct pagetable_move_control *pmc,
			 struct slot_pair *slots, unsigned long start,
			 unsigned long end, bool flush)
{
	lazy_mmu_mode_disable();
	if (flush)
		flush_tlb_range(pmc->old, start, end);
	if (slots->new_ptl != slots->old_ptl)
		spin_unlock(slots->new_ptl);
	pte_unmap(slots->new_ptep);
	pte_unmap_unlock(slots->old_ptep, slots->old_ptl);
}

/* Move slot number @nr and, of the same folio, up to @max slots in all. */
static int move_slots(struct pagetable_move_control *pmc,
		      struct slot_pair *slots, unsigned long addr, int nr,
		      int max, bool *flush)
{
	return move_pte_batch(pmc->old,
			      vma_has_uffd_without_event_remap(pmc->old),
			      addr, slots->old_ptep + nr,
			      new_place(pmc, addr), slots->new_ptep + nr,
			      max, flush);
}

/*
 * Move the slots of a locked folio that are in [addr, end), within one source
 * and one destination page table. Other slots among them are left alone.
 */
static void move_folio_slots(struct pagetable_move_control *pmc,
			     struct folio *folio, unsigned long addr,
			     unsigned long end)
{
	const unsigned long start = addr;
	struct slot_pair slots;
	bool flush = false;
	int i, nr, max;

	if (!lock_slots(pmc, addr, &slots))
		return;
	for (i = 0; addr < end; i += nr, addr += nr * PAGE_SIZE) {
		nr = 1;
		max = (end - addr) >> PAGE_SHIFT;
		if (slot_page(folio, ptep_get(slots.old_ptep + i)) >= 0)
			nr = move_slots(pmc, &slots, addr, i, max, &flush);
	}
	unlock_slots(pmc, &slots, start, end, flush);
}

/* Re-home the folio that the slot at @addr holds, if it still does. */
static void relocate_folio(struct pagetable_move_control *pmc,
			   struct folio *folio, unsigned long addr)
{
	unsigned long end, extent;
	struct slot_pair slots;
	long page = -1;
	pmd_t *pmd;

	folio_lock(folio);
	if (lock_slots(pmc, addr, &slots)) {
		page = slot_page(folio, ptep_get(slots.old_ptep));
		unlock_slots(pmc, &slots, addr, addr, false);
	}
	if (page < 0)
		goto out;

	/* relocate_check() has seen to it that all of it is in the range. */
	addr -= page << PAGE_SHIFT;
	rehome_folio(pmc, folio, addr);
	for (end = addr + folio_size(folio); addr < end; addr += extent) {
		extent = relocate_extent(pmc, addr, end, &pmd);
		if (pmd)
			move_folio_slots(pmc, folio, addr, addr + extent);
	}
out:
	folio_unlock(folio);
}

/*
 * Move the slots from @addr on, within one source and one destination page
 * table, until @end or until there is something to wait for. The slots of a
 * large folio go together, wherever in the range they are.
 *
 * Returns the address from which to go on.
 */
static unsigned long relocate_ptes(struct pagetable_move_control *pmc,
				   unsigned long addr, unsigned long end)
{
	const unsigned long start = addr;
	enum slot_kind kind = SLOT_PLAIN;
	struct folio *folio = NULL;
	struct slot_pair slots;
	bool flush = false;
	pte_t pte;
	int i;

	/*
	 * relocate_alloc_tables() has seen to the destination, but for what had
	 * no page table then. If it has one now, that is a neighbour's doing.
	 */
	if (!lock_slots(pmc, addr, &slots))
		return end;

	for (i = 0; addr < end; i++, addr += PAGE_SIZE) {
		pte = ptep_get(slots.old_ptep + i);
		if (pte_none(pte))
			continue;
		kind = slot_look(pmc->old, addr, pte, &folio);
		if (kind == SLOT_MIGRATION)
			break;
		if (kind != SLOT_FOLIO) {
			/* relocate_check() refuses it, and nothing makes it. */
			VM_WARN_ON_ONCE(kind == SLOT_OTHER);
			move_slots(pmc, &slots, addr, i, 1, &flush);
			continue;
		}
		if (folio_test_large(folio) || !folio_trylock(folio))
			break;
		if (slot_page(folio, pte) < 0) {
			folio_unlock(folio);
			break;
		}
		rehome_folio(pmc, folio, addr);
		move_slots(pmc, &slots, addr, i, 1, &flush);
		folio_unlock(folio);
		folio_put(folio);
	}
	unlock_slots(pmc, &slots, start, addr, flush);
	if (addr == end)
		return end;

	if (kind == SLOT_MIGRATION) {
		migration_entry_wait(pmc->old->vm_mm,
				     mm_find_pmd(pmc->old->vm_mm, addr), addr);
	} else {
		relocate_folio(pmc, folio, addr);
		folio_put(folio);
	}
	return addr;
}

/*
 * Re-home and move a folio that is mapped by a PMD, whole. Returns false if
 * there is none, or no longer.
 */
static bool relocate_huge_pmd(struct pagetable_move_control *pmc,
			      unsigned long addr, pmd_t *old_pmd,
			      pmd_t *new_pmd)
{
	const unsigned long new_addr = new_place(pmc, addr);
	struct vm_area_struct *vma = pmc->old;
	struct folio *folio;
	spinlock_t *ptl;
	bool same;

again:
	ptl = pmd_trans_huge_lock(old_pmd, vma);
	if (!ptl)
		return false;
	if (pmd_is_migration_entry(*old_pmd)) {
		spin_unlock(ptl);
		pmd_migration_entry_wait(vma->vm_mm, old_pmd);
		goto again;
	}
	if (is_huge_zero_pmd(*old_pmd)) {
		spin_unlock(ptl);
		return move_huge_pmd(vma, addr, new_addr, old_pmd, new_pmd);
	}
	folio = pmd_folio(*old_pmd);
	folio_get(folio);
	spin_unlock(ptl);

	folio_lock(folio);
	ptl = pmd_trans_huge_lock(old_pmd, vma);
	same = ptl && pmd_present(*old_pmd) && pmd_folio(*old_pmd) == folio;
	if (ptl)
		spin_unlock(ptl);
	/* With the folio locked, nobody can split, unmap or migrate the PMD. */
	if (same) {
		rehome_folio(pmc, folio, addr);
		move_huge_pmd(vma, addr, new_addr, old_pmd, new_pmd);
	}
	folio_unlock(folio);
	folio_put(folio);
	if (!same)
		goto again;
	return true;
}

/* Relocate what is in @extent bytes, below one PMD on either side. */
static void relocate_pmd(struct pagetable_move_control *pmc,
			 struct relocate_tables *tables, unsigned long addr,
			 unsigned long extent, pmd_t *old_pmd)
{
	struct mm_struct *mm = pmc->old->vm_mm;
	pmd_t *new_pmd = mm_find_pmd(mm, new_place(pmc, addr));
	const unsigned long end = addr + extent;

	if (extent == PMD_SIZE && pmd_none(*new_pmd)) {
		if (relocate_huge_pmd(pmc, addr, old_pmd, new_pmd))
			return;
		/* It was a leaf, and has been split or reclaimed since. */
		if (pmd_is_empty(mm, old_pmd))
			return;
		pmd_install(mm, new_pmd, &tables->spare[--tables->nr_spare]);
	}
	split_huge_pmd(pmc->old, old_pmd, addr);
	while (addr < end && !pmd_is_empty(mm, old_pmd)) {
		cond_resched();
		addr = relocate_ptes(pmc, addr, end);
	}
}

/**
 * relocate_page_tables() - Move a range, and re-home all the folios in it.
 * @pmc: The move. pmc->new is what copy_vma_relocated() made.
 * @tables: What relocate_alloc_tables() took; used up or freed.
 *
 * The mmap write lock must be held, both VMAs be write-locked, and
 * relocate_check() have agreed since. Sleeps: waits for locked folios and for
 * migration. Cannot fail.
 */
void relocate_page_tables(struct pagetable_move_control *pmc,
			  struct relocate_tables *tables)
{
	struct mm_struct *mm = pmc->old->vm_mm;
	struct mmu_notifier_range range;
	unsigned long addr, extent;
	pmd_t *old_pmd;

	flush_cache_range(pmc->old, pmc->old_addr, pmc->old_end);
	mmu_notifier_range_init(&range, MMU_NOTIFY_UNMAP, 0, mm,
				pmc->old_addr, pmc->old_end);
	mmu_notifier_invalidate_range_start(&range);

	for (addr = pmc->old_addr; addr < pmc->old_end; addr += extent) {
		cond_resched();
		extent = relocate_extent(pmc, addr, pmc->old_end, &old_pmd);
		if (old_pmd)
			relocate_pmd(pmc, tables, addr, extent, old_pmd);
	}

	mmu_notifier_invalidate_range_end(&range);
	free_spare_tables(mm, tables);
}
