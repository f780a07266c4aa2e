// SPDX-License-Identifier: GPL-2.0
/*
 * Relocation of anonymous folios by mremap(), see MREMAP_RELOCATE_ANON in
 * Documentation/mm/mremap_relocate.rst: move page tables and PTEs, and re-home
 * each folio on the way.
 *
 * rehome_check() has agreed to every folio before, and mremap_relocate_alloc()
 * takes all the memory that is needed, so mremap_relocate_move() has no way to
 * fail, and there is nothing to undo. For the locks see mm/rehome.c.
 */

#include <kunit/static_stub.h>
#include <linux/cacheflush.h>
#include <linux/hugetlb.h>
#include <linux/mmu_notifier.h>
#include <linux/pagemap.h>
#include <linux/pgalloc.h>
#include <linux/swap.h>
#include <linux/userfaultfd_k.h>

#include <asm/tlb.h>

#include "internal.h"
#include "mremap_relocate.h"

/* The PTEs of a range in one source and one destination page table, locked. */
struct pte_pair {
	pte_t *old_ptep, *new_ptep;
	spinlock_t *old_ptl, *new_ptl;
	unsigned long start, end;	/* In the source. */
	int nr;				/* PTEs in all. */
	pgoff_t index;			/* Of start, in the destination. */
	bool clear_uffd;		/* Does the destination leave userfaultfd? */
	bool flush;			/* A present PTE was moved: flush the TLB. */
	unsigned int nr_small;		/* PTEs of small folios that were moved. */
	struct rehome_count rehomed;	/* Without those. */
	struct mmu_notifier_range range;
};

static void count_rehomed(struct rehome_count *rehomed, unsigned long folios,
			  unsigned long pages)
{
	rehomed->folios += folios;
	rehomed->pages += pages;
}

/* A part of the source is about to move. May sleep. */
static void start_move(struct pagetable_move_control *pmc,
		       struct mmu_notifier_range *range, unsigned long addr,
		       unsigned long end)
{
	mmu_notifier_range_init(range, MMU_NOTIFY_UNMAP, 0, pmc->old->vm_mm,
				addr, end);
	mmu_notifier_invalidate_range_start(range);
	flush_cache_range(pmc->old, addr, end);
}

/*
 * Lock the page tables of [addr, end), which is within one on either side.
 * Returns false if there are none.
 */
static bool lock_ptes(struct pagetable_move_control *pmc, struct pte_pair *pair,
		      unsigned long addr, unsigned long end)
{
	const unsigned long new_addr = mremap_new_addr(pmc, addr);
	const unsigned long nr = (end - addr) >> PAGE_SHIFT;
	struct mm_struct *mm = pmc->old->vm_mm;
	pmd_t *old_pmd = mm_find_pmd(mm, addr);
	pmd_t *new_pmd = mm_find_pmd(mm, new_addr);
	pmd_t dummy;

	if (!old_pmd || !new_pmd)
		return false;

	start_move(pmc, &pair->range, addr, end);
	pair->old_ptep = pte_offset_map_lock(mm, old_pmd, addr, &pair->old_ptl);
	if (!pair->old_ptep)
		goto out_notify;
	pair->new_ptep = pte_offset_map_rw_nolock(mm, new_pmd, new_addr, &dummy,
						  &pair->new_ptl);
	if (!pair->new_ptep)
		goto out_unlock;
	/* In the order of move_ptes(); other calls of mremap() are shut out. */
	if (pair->new_ptl != pair->old_ptl)
		spin_lock_nested(pair->new_ptl, SINGLE_DEPTH_NESTING);
	flush_tlb_batched_pending(mm);
	lazy_mmu_mode_enable();

	pair->start = addr;
	pair->end = end;
	pair->nr = nr;
	pair->index = linear_anon_page_index(pmc->new, new_addr);
	pair->clear_uffd = vma_has_uffd_without_event_remap(pmc->old);
	pair->flush = false;
	pair->nr_small = 0;
	pair->rehomed = (struct rehome_count) {};
	return true;

out_unlock:
	pte_unmap_unlock(pair->old_ptep, pair->old_ptl);
out_notify:
	mmu_notifier_invalidate_range_end(&pair->range);
	return false;
}

/*
 * Unlock the page tables. If a present PTE was moved, flush the TLB first: with
 * the old lock dropped its page may be cleaned or freed.
 */
static void unlock_ptes(struct pagetable_move_control *pmc,
			struct pte_pair *pair)
{
	lazy_mmu_mode_disable();
	if (pair->flush || pair->nr_small)
		flush_tlb_range(pmc->old, pair->start, pair->end);
	if (pair->new_ptl != pair->old_ptl)
		spin_unlock(pair->new_ptl);
	pte_unmap(pair->new_ptep);
	pte_unmap_unlock(pair->old_ptep, pair->old_ptl);
	mmu_notifier_invalidate_range_end(&pair->range);
}

/*
 * Take a PTE out of userfaultfd, as move_ptes() does. That is left as it is:
 * the compiler makes other code of it if it shares this.
 */
static pte_t clear_moved_pte_uffd(struct vm_area_struct *vma, pte_t pte)
{
	if (!pte_present(pte))
		return pte_swp_clear_uffd(pte);
	/* RWP PTEs become accessible, see __copy_present_ptes(). */
	if (userfaultfd_rwp(vma) && pte_uffd(pte))
		pte = pte_modify(pte, vma->vm_page_prot);
	return pte_clear_uffd(pte);
}

/* What a present PTE becomes in its new place. */
static __always_inline pte_t moved_pte(struct vm_area_struct *vma, pte_t pte,
				       unsigned long old_addr,
				       unsigned long new_addr, bool clear_uffd)
{
	pte = move_pte(pte, old_addr, new_addr);
	if (pgtable_supports_soft_dirty())
		pte = pte_mksoft_dirty(pte);
	if (unlikely(clear_uffd))
		pte = clear_moved_pte_uffd(vma, pte);
	return pte;
}

/*
 * Move @nr present PTEs of one folio, from number @i of the pair on. Those that
 * the architecture wants to be moved together are.
 */
static void move_present_ptes(struct pagetable_move_control *pmc,
			      struct pte_pair *pair, int i, int nr)
{
	unsigned long old_addr = pair->start + i * PAGE_SIZE;
	unsigned long new_addr = mremap_new_addr(pmc, old_addr);
	const bool clear_uffd = pair->clear_uffd;
	struct vm_area_struct *vma = pmc->old;
	pte_t *old_ptep = pair->old_ptep + i;
	pte_t *new_ptep = pair->new_ptep + i;
	struct mm_struct *mm = vma->vm_mm;
	int batch;
	pte_t pte;

	VM_WARN_ON_ONCE(i + nr > pair->nr);
	pair->flush = true;
	for (; nr > 0; nr -= batch) {
		VM_WARN_ON_ONCE(!pte_none(ptep_get(new_ptep)));
		batch = pte_batch_hint(old_ptep, ptep_get(old_ptep));
		/* Mostly constant 1, which lets the compiler do without loops. */
		if (batch > 1)
			batch = min(batch, nr);
		pte = get_and_clear_ptes(mm, old_addr, old_ptep, batch);
		pte = moved_pte(vma, pte, old_addr, new_addr, clear_uffd);
		set_ptes(mm, new_addr, new_ptep, pte, batch);
		old_ptep += batch;
		new_ptep += batch;
		old_addr += batch * PAGE_SIZE;
		new_addr += batch * PAGE_SIZE;
	}
}

/* Move a PTE that is neither none nor present, number @i of the pair. */
static void move_entry(struct pagetable_move_control *pmc, struct pte_pair *pair,
		       int i)
{
	const unsigned long old_addr = pair->start + i * PAGE_SIZE;
	const unsigned long new_addr = mremap_new_addr(pmc, old_addr);
	struct mm_struct *mm = pmc->old->vm_mm;
	pte_t pte;

	VM_WARN_ON_ONCE(i >= pair->nr);
	VM_WARN_ON_ONCE(!pte_none(ptep_get(pair->new_ptep + i)));

	pte = ptep_get_and_clear(mm, old_addr, pair->old_ptep + i);
	pte = move_soft_dirty_pte(move_pte(pte, old_addr, new_addr));
	if (pair->clear_uffd) {
		if (pte_is_uffd_wp_marker(pte))
			return;
		pte = clear_moved_pte_uffd(pmc->old, pte);
	}
	set_pte_at(mm, new_addr, pair->new_ptep + i, pte);
}

/*
 * Move all that the pair has of a locked folio, from its page number @idx on,
 * which belongs at number @i of the pair, up to @nr PTEs. What else is among it
 * is left alone.
 *
 * Returns the number of PTEs at the start which were all of the folio.
 */
static int move_folio_ptes(struct pagetable_move_control *pmc,
			   struct pte_pair *pair, struct folio *folio, long idx,
			   int i, int nr)
{
	const int first = i, end = i + nr;
	int gap = -1;
	pte_t pte;

	for (; i < end; i++, idx++) {
		pte = ptep_get(pair->old_ptep + i);
		if (pte_none(pte) || folio_pte_idx(folio, pte) != idx) {
			if (gap < 0)
				gap = i;
		} else if (pte_present(pte)) {
			move_present_ptes(pmc, pair, i, 1);
		} else {
			move_entry(pmc, pair, i);
		}
	}
	return (gap < 0 ? end : gap) - first;
}

/*
 * Re-home the large folio that the PTE number @i of the pair maps a page of,
 * which is number @idx of the folio, and move all its PTEs, if all are in the
 * pair.
 *
 * Returns the number of PTEs from number @i on that are done, or 0 if a part of
 * the folio is outside of the pair, or it is locked.
 */
static int relocate_large(struct pagetable_move_control *pmc,
			  struct pte_pair *pair, struct folio *folio, long idx,
			  int i)
{
	const long nr = folio_nr_pages(folio);
	int moved;

	if (idx > i || nr - idx > pair->nr - i || !folio_trylock(folio))
		return 0;
	rehome_folio(folio, pmc->new, pair->index + i - idx);
	count_rehomed(&pair->rehomed, 1, nr);
	/* What is before number @i has moved, or is not of this folio. */
	moved = move_folio_ptes(pmc, pair, folio, idx, i, nr - idx);
	folio_unlock(folio);
	return moved;
}

/*
 * Re-home the folio in the swap cache that the swap entry @pte, number @i of
 * the pair, stands for, and move the entry. A folio that is not anonymous was
 * just read in, and gets its place from the fault that maps it. That needs all
 * its entries to be in one mm, so the fault is ours, or there is none.
 *
 * Returns false if the folio, which is then referenced, has to be waited for.
 */
static bool relocate_swap_cached(struct pagetable_move_control *pmc,
				 struct pte_pair *pair, pte_t pte, int i,
				 struct folio **foliop)
{
	struct folio *folio = swap_cache_get_folio(softleaf_from_pte(pte));

	*foliop = folio;
	if (folio && folio_test_anon(folio)) {
		if (folio_test_large(folio) || !folio_trylock(folio))
			return false;
		if (folio_pte_idx(folio, pte) < 0) {
			folio_unlock(folio);
			return false;
		}
		rehome_folio(folio, pmc->new, pair->index + i);
		count_rehomed(&pair->rehomed, 1, 1);
		move_entry(pmc, pair, i);
		folio_unlock(folio);
	} else {
		move_entry(pmc, pair, i);
	}
	if (folio)
		folio_put(folio);
	return true;
}

/*
 * Re-home small folios and move their PTEs, from number @i of the pair on, as
 * long as there is nothing else but PTEs that are none.
 *
 * Returns the number of the first PTE that is something else, or whose folio is
 * locked.
 */
static int relocate_small(struct pagetable_move_control *pmc,
			  struct pte_pair *pair, int i)
{
	const unsigned long distance = pmc->new_addr - pmc->old_addr;
	pte_t *ptep = pair->old_ptep + i, *end = pair->old_ptep + pair->nr;
	struct vm_area_struct *vma = pmc->old, *new = pmc->new;
	const bool clear_uffd = pair->clear_uffd;
	struct mm_struct *mm = vma->vm_mm;
	struct folio *folio;
	unsigned long addr;
	pte_t pte;

	for (; ptep < end; ptep++) {
		pte = ptep_get(ptep);
		if (pte_none(pte))
			continue;
		if (!pte_small_folio(pte, &folio) || !folio_trylock(folio))
			break;

		i = ptep - pair->old_ptep;
		rehome_folio(folio, new, pair->index + i);
		VM_WARN_ON_ONCE(!pte_none(ptep_get(pair->new_ptep + i)));
		addr = pair->start + i * PAGE_SIZE;
		/* In place of a store to pair->flush: the count costs nothing. */
		pair->nr_small++;
		pte = ptep_get_and_clear(mm, addr, ptep);
		pte = moved_pte(vma, pte, addr, addr + distance, clear_uffd);
		set_pte_at(mm, addr + distance, pair->new_ptep + i, pte);
		folio_unlock(folio);
	}
	return ptep - pair->old_ptep;
}

/*
 * Re-home large folios that are mapped as a whole and move their PTEs, from
 * number @i of the pair on, as long as there is nothing else.
 *
 * Returns the number of the first PTE that is something else, or whose folio is
 * locked.
 */
static int relocate_whole(struct pagetable_move_control *pmc,
			  struct pte_pair *pair, int i)
{
	struct folio *folio;
	int nr;

	for (; i < pair->nr; i += nr) {
		if (!pte_large_folio_start(ptep_get(pair->old_ptep + i), &folio))
			break;
		nr = folio_large_nr_pages(folio);
		if (i + nr > pair->nr || folio_large_mapcount(folio) != nr ||
		    !folio_trylock(folio))
			break;
		rehome_folio(folio, pmc->new, pair->index + i);
		count_rehomed(&pair->rehomed, 1, nr);
		move_present_ptes(pmc, pair, i, nr);
		folio_unlock(folio);
	}
	return i;
}

/*
 * Move the present PTE @pte, number @i of the pair, which neither relocate_small()
 * nor relocate_whole() has moved, and those of the same folio.
 *
 * Returns the number of PTEs from number @i on that are done, or 0 if the
 * folio, which is then referenced, has to be waited for.
 */
static int relocate_present(struct pagetable_move_control *pmc,
			    struct pte_pair *pair, pte_t pte, int i,
			    struct folio **foliop)
{
	struct page *page = pte_page(pte);
	struct folio *folio;
	int nr;

	if (pte_maps_zero_page(pte)) {
		move_present_ptes(pmc, pair, i, 1);
		return 1;
	}
	folio = page_folio(page);
	if (folio_test_large(folio)) {
		nr = relocate_large(pmc, pair, folio,
				    folio_page_idx(folio, page), i);
		if (nr)
			return nr;
	}
	folio_get(folio);
	*foliop = folio;
	return 0;
}

/*
 * Move the PTEs of the pair in their order until there is something to wait
 * for: the folio that @foliop is set to, with a reference, or migration if
 * NULL.
 *
 * Returns the address from which to go on.
 */
static unsigned long relocate_locked_ptes(struct pagetable_move_control *pmc,
					  struct pte_pair *pair,
					  struct folio **foliop)
{
	int i, nr;
	pte_t pte;

	for (i = 0; i < pair->nr; i += nr) {
		i = relocate_small(pmc, pair, i);
		i = relocate_whole(pmc, pair, i);
		if (i == pair->nr)
			break;
		pte = ptep_get(pair->old_ptep + i);
		nr = 1;
		if (pte_none(pte))
			continue;
		if (pte_present(pte)) {
			nr = relocate_present(pmc, pair, pte, i, foliop);
			if (!nr)
				break;
			continue;
		}

		switch (rehome_kind(pte)) {
		case REHOME_MIGRATION:
			*foliop = NULL;
			goto out;
		case REHOME_SWAP:
			if (!relocate_swap_cached(pmc, pair, pte, i, foliop))
				goto out;
			break;
		case REHOME_REFUSE:
			/* rehome_check() did, and nothing makes one. */
			VM_WARN_ON_ONCE(1);
			fallthrough;
		case REHOME_IGNORE:
			move_entry(pmc, pair, i);
			break;
		}
	}
out:
	return pair->start + i * PAGE_SIZE;
}

/* Move a PTE that is not none, with nothing re-homed. */
static void move_alone(struct pagetable_move_control *pmc, unsigned long addr)
{
	struct pte_pair pair;

	if (!lock_ptes(pmc, &pair, addr, addr + PAGE_SIZE))
		return;
	if (pte_present(ptep_get(pair.old_ptep)))
		move_present_ptes(pmc, &pair, 0, 1);
	else
		move_entry(pmc, &pair, 0);
	unlock_ptes(pmc, &pair);
}

/*
 * Make sure that what is mapped in [addr, end) has page tables to go to. There
 * are none yet where a PMD further on might still be moved whole, or one that has
 * been emptied is to be used again.
 */
static void install_tables(struct pagetable_move_control *pmc,
			   struct mremap_relocation *rel, unsigned long addr,
			   unsigned long end)
{
	unsigned long extent;
	pmd_t *old_pmd, *new_pmd;

	for (; addr < end; addr += extent) {
		extent = mremap_relocate_extent(pmc, addr, end, &old_pmd);
		/* A leaf does not map a part of a folio. */
		if (!old_pmd || !pmd_has_table(old_pmd))
			continue;
		/* Part of a PMD has its table, or else held nothing of ours. */
		if (!pmd_is_within(addr, pmc->old_addr, pmc->old_end))
			continue;
		new_pmd = mm_find_pmd(pmc->old->vm_mm,
				      mremap_new_addr(pmc, addr));
		if (new_pmd && pmd_none(*new_pmd))
			mremap_relocate_use_spare(pmc, rel, new_pmd);
	}
}

/*
 * Wait for the folio that the PTE at @addr holds, if it still does, and re-home
 * it, with all of it that is in the range, in whatever page tables.
 */
static void relocate_folio(struct pagetable_move_control *pmc,
			   struct mremap_relocation *rel, struct folio *folio,
			   unsigned long addr)
{
	struct mm_struct *mm = pmc->old->vm_mm;
	unsigned long base, end, extent;
	struct pte_pair pair;
	spinlock_t *ptl;
	long idx = -1;
	pte_t *ptep;
	pmd_t *pmd;

	folio_lock(folio);
	ptep = pte_offset_map_lock(mm, mm_find_pmd(mm, addr), addr, &ptl);
	if (ptep) {
		idx = folio_pte_idx(folio, ptep_get(ptep));
		pte_unmap_unlock(ptep, ptl);
	}
	/* One that is not anonymous: see relocate_swap_cached(). */
	if (idx < 0 || !folio_test_anon(folio))
		goto out;

	base = addr - idx * PAGE_SIZE;
	end = base + folio_size(folio);
	if (base < pmc->old_addr || end > pmc->old_end) {
		/* rehome_check() does not agree to such a one. */
		VM_WARN_ON_ONCE_FOLIO(1, folio);
		move_alone(pmc, addr);
		goto out;
	}

	install_tables(pmc, rel, base, end);
	rehome_folio(folio, pmc->new,
		     linear_anon_page_index(pmc->new,
					    mremap_new_addr(pmc, base)));
	count_rehomed(&rel->rehomed, 1, folio_nr_pages(folio));
	for (addr = base; addr < end; addr += extent) {
		extent = mremap_relocate_extent(pmc, addr, end, &pmd);
		if (!pmd)
			continue;
		if (!lock_ptes(pmc, &pair, addr, addr + extent)) {
			VM_WARN_ON_ONCE_FOLIO(folio_all_mapped(folio), folio);
			continue;
		}
		if (folio_all_mapped(folio))
			move_present_ptes(pmc, &pair, 0, pair.nr);
		else
			move_folio_ptes(pmc, &pair, folio,
					(addr - base) >> PAGE_SHIFT, 0, pair.nr);
		unlock_ptes(pmc, &pair);
	}
out:
	folio_unlock(folio);
}

/*
 * Move the PTEs from @addr on, within one page table on either side, until @end
 * or until something has been waited for. Returns the address from which to go
 * on.
 */
static unsigned long relocate_ptes(struct pagetable_move_control *pmc,
				   struct mremap_relocation *rel,
				   unsigned long addr, unsigned long end)
{
	struct mm_struct *mm = pmc->old->vm_mm;
	struct folio *folio;
	struct pte_pair pair;
	pmd_t *new_pmd;

	new_pmd = mm_find_pmd(mm, mremap_new_addr(pmc, addr));
	/*
	 * The destination has a page table, except where the source had nothing
	 * in mremap_relocate_alloc(). If it has now, a neighbour that shares the
	 * page table has made it for itself.
	 */
	if (!new_pmd || pmd_none(*new_pmd))
		return end;
	/* The page table of the source is gone, or not there yet. */
	if (!lock_ptes(pmc, &pair, addr, end))
		return addr;
	addr = relocate_locked_ptes(pmc, &pair, &folio);
	unlock_ptes(pmc, &pair);
	count_rehomed(&rel->rehomed, pair.rehomed.folios + pair.nr_small,
		      pair.rehomed.pages + pair.nr_small);
	if (addr == end)
		return end;

	if (folio) {
		relocate_folio(pmc, rel, folio, addr);
		folio_put(folio);
	} else {
		migration_entry_wait(mm, mm_find_pmd(mm, addr), addr);
	}
	return addr;
}

/*
 * Can a PTE that is not present move with its page table, with nothing locked
 * for it? A swap entry can, if no folio has to be re-homed for it: one that is
 * only read in now will not be anonymous.
 */
static bool entry_moves_with_table(pte_t pte)
{
	const enum rehome_kind kind = rehome_kind(pte);
	struct folio *folio;
	bool moves;

	if (kind != REHOME_SWAP)
		return kind == REHOME_IGNORE;
	folio = swap_cache_get_folio(softleaf_from_pte(pte));
	if (!folio)
		return true;
	moves = !folio_test_anon(folio);
	folio_put(folio);
	return moves;
}

/*
 * Try to lock small folios, from @ptep on, as long as there is nothing else but
 * PTEs that are none. Adds them to @folios, which has @nrp. Returns the PTE from
 * which to go on.
 */
static pte_t *lock_small_folios(pte_t *ptep, pte_t *end, struct folio **folios,
				int *nrp)
{
	struct folio *folio;
	int nr = *nrp;
	pte_t pte;

	for (; ptep < end; ptep++) {
		pte = ptep_get(ptep);
		if (pte_none(pte))
			continue;
		if (!pte_small_folio(pte, &folio) || !folio_trylock(folio))
			break;
		folios[nr++] = folio;
	}
	*nrp = nr;
	return ptep;
}

/*
 * Try to lock all the folios that the page table at @addr maps. What else it
 * holds must be able to move with it. Returns their number, and in @nr_pagesp
 * that of their pages, or -1 with none locked.
 */
static int lock_table_folios(struct pagetable_move_control *pmc,
			     struct folio **folios, unsigned long addr,
			     pmd_t *old_pmd, int *nr_pagesp)
{
	struct folio *folio, *last = NULL;
	pte_t *start, *end, *ptep, pte;
	spinlock_t *ptl;
	int nr = 0, nr_tails = 0;
	long idx;

	start = pte_offset_map_lock(pmc->old->vm_mm, old_pmd, addr, &ptl);
	if (!start)
		return -1;
	end = start + PTRS_PER_PTE;
	for (ptep = start;; ptep++) {
		ptep = lock_small_folios(ptep, end, folios, &nr);
		if (ptep == end)
			break;
		pte = ptep_get(ptep);
		if (!pte_present(pte)) {
			if (!entry_moves_with_table(pte))
				break;
			continue;
		}
		if (pte_maps_zero_page(pte))
			continue;
		folio = page_folio(pte_page(pte));
		if (folio == last)
			continue;
		/* A small one is locked by somebody else. */
		if (!folio_test_large(folio))
			break;
		idx = folio_page_idx(folio, pte_page(pte));
		if (idx > ptep - start ||
		    folio_nr_pages(folio) - idx > end - ptep ||
		    !folio_trylock(folio))
			break;
		nr_tails += folio_nr_pages(folio) - 1;
		last = folio;
		folios[nr++] = folio;
		/* Then the next PTEs map the rest of it. */
		if (folio_all_mapped(folio))
			ptep += folio_nr_pages(folio) - 1;
	}
	pte_unmap_unlock(start, ptl);
	*nr_pagesp = nr + nr_tails;
	if (ptep == end)
		return nr;
	while (nr)
		folio_unlock(folios[--nr]);
	return -1;
}

/* Re-home the folios of the page table at @addr, and move it, if possible. */
static bool relocate_table(struct pagetable_move_control *pmc,
			   struct mremap_relocation *rel, unsigned long addr,
			   pmd_t *old_pmd, pmd_t *new_pmd)
{
	const pgoff_t distance =
		linear_anon_page_index(pmc->new, mremap_new_addr(pmc, addr)) -
		linear_anon_page_index(pmc->old, addr);
	struct mmu_notifier_range range;
	int i, nr, nr_pages;

	if (!rel->folios)
		return false;
	start_move(pmc, &range, addr, addr + PMD_SIZE);
	nr = lock_table_folios(pmc, rel->folios, addr, old_pmd, &nr_pages);
	if (nr >= 0) {
		/*
		 * Now no PTE in it can come or go: whoever unmaps or migrates a
		 * folio locks it first, and zap, fork and faults are shut out.
		 */
		for (i = 0; i < nr; i++)
			rehome_folio(rel->folios[i], pmc->new,
				     rel->folios[i]->index + distance);
		count_rehomed(&rel->rehomed, nr, nr_pages);
		mremap_relocate_table(pmc, addr, old_pmd, new_pmd);
		for (i = 0; i < nr; i++)
			folio_unlock(rel->folios[i]);
	}
	mmu_notifier_invalidate_range_end(&range);
	return nr >= 0;
}

/* Move a PMD leaf, whose folio, if it is not the zero one, is locked. */
static void move_leaf(struct pagetable_move_control *pmc, unsigned long addr,
		      pmd_t *old_pmd, pmd_t *new_pmd)
{
	struct mmu_notifier_range range;

	start_move(pmc, &range, addr, addr + PMD_SIZE);
	move_huge_pmd(pmc->old, addr, mremap_new_addr(pmc, addr), old_pmd, new_pmd);
	mmu_notifier_invalidate_range_end(&range);
}

/*
 * Re-home and move a folio that is mapped by a PMD, whole. Returns false if
 * there is none, or no longer.
 */
static bool relocate_leaf(struct pagetable_move_control *pmc,
			  struct mremap_relocation *rel, unsigned long addr,
			  pmd_t *old_pmd, pmd_t *new_pmd)
{
	struct folio *folio;

	if (!rehome_lock_leaf(pmc->old, old_pmd, &folio))
		return false;
	if (folio) {
		rehome_folio(folio, pmc->new,
			     linear_anon_page_index(pmc->new,
						    mremap_new_addr(pmc, addr)));
		count_rehomed(&rel->rehomed, 1, folio_nr_pages(folio));
	}
	move_leaf(pmc, addr, old_pmd, new_pmd);
	if (folio) {
		folio_unlock(folio);
		folio_put(folio);
	}
	return true;
}

#ifdef CONFIG_DEBUG_VM
/* All that a source PTE still holds is lost, or turns up in the wrong place. */
static void warn_on_leftovers(struct pagetable_move_control *pmc,
			      unsigned long addr, unsigned long end)
{
	struct mm_struct *mm = pmc->old->vm_mm;
	unsigned long next, extent;
	pte_t *start_ptep, *ptep;
	spinlock_t *ptl;
	pmd_t *pmd;

	for (; addr < end; addr = next) {
		cond_resched();
		extent = mremap_relocate_extent(pmc, addr, end, &pmd);
		next = addr + extent;
		if (!pmd)
			continue;
		start_ptep = pte_offset_map_lock(mm, pmd, addr, &ptl);
		if (WARN_ON_ONCE(!start_ptep))
			continue;
		for (ptep = start_ptep; addr < next; ptep++, addr += PAGE_SIZE)
			WARN_ON_ONCE(!pte_none(ptep_get(ptep)));
		pte_unmap_unlock(start_ptep, ptl);
	}
}
#else
static void warn_on_leftovers(struct pagetable_move_control *pmc,
			      unsigned long addr, unsigned long end)
{
}
#endif

/* Relocate what is in @extent bytes, below one PMD on either side. */
static void relocate_pmd(struct pagetable_move_control *pmc,
			 struct mremap_relocation *rel, unsigned long addr,
			 unsigned long extent, pmd_t *old_pmd)
{
	struct mm_struct *mm = pmc->old->vm_mm;
	pmd_t *new_pmd = mm_find_pmd(mm, mremap_new_addr(pmc, addr));
	const bool whole = pmd_is_within(addr, pmc->old_addr, pmc->old_end);
	const unsigned long end = addr + extent;
	unsigned long next;

	/* If a folio lies across its start, the destination has a table already. */
	if (whole && pmd_none(*new_pmd)) {
		if (extent == PMD_SIZE &&
		    (relocate_leaf(pmc, rel, addr, old_pmd, new_pmd) ||
		     pmd_is_empty(mm, old_pmd) ||
		     relocate_table(pmc, rel, addr, old_pmd, new_pmd)))
			return;
		mremap_relocate_use_spare(pmc, rel, new_pmd);
	}
	for (next = addr; next < end && !pmd_is_empty(mm, old_pmd);) {
		cond_resched();
		split_huge_pmd(pmc->old, old_pmd, addr);
		next = relocate_ptes(pmc, rel, next, end);
	}
	if (whole && next == end && IS_ALIGNED(end, PMD_SIZE)) {
		addr = end - PMD_SIZE;
		warn_on_leftovers(pmc, addr, end);
		mremap_relocate_emptied(rel, addr, old_pmd);
	}
}

/**
 * mremap_relocate_move() - The step of mremap_relocate() that cannot fail.
 * @pmc: The move. pmc->new is what copy_vma_relocated() made.
 * @rel: What mremap_relocate_alloc() took; used up or freed.
 *
 * Moves the range, and re-homes all the folios in it. Sleeps: waits for locked
 * folios and for migration. For the locks see mremap_relocate().
 */
void mremap_relocate_move(struct pagetable_move_control *pmc,
			  struct mremap_relocation *rel)
{
	unsigned long addr, extent;
	pmd_t *old_pmd;

	KUNIT_STATIC_STUB_REDIRECT(mremap_relocate_move, pmc, rel);

	for (addr = pmc->old_addr; addr < pmc->old_end; addr += extent) {
		cond_resched();
		extent = mremap_relocate_extent(pmc, addr, pmc->old_end, &old_pmd);
		if (old_pmd)
			relocate_pmd(pmc, rel, addr, extent, old_pmd);
	}
	warn_on_leftovers(pmc, pmc->old_addr, pmc->old_end);
	mremap_relocate_finish(pmc->old->vm_mm, rel);
}

/**
 * mremap_relocate() - Copy a VMA, move a range there, and re-home its folios.
 * @pmc: The move. Its pmc->new is filled in.
 * @new_len: Length of the copy, in bytes.
 * @rehomed: Added to, if not NULL: what has been re-homed.
 *
 * The mmap write lock must be held and the source VMA be write-locked;
 * rehome_check(), and rehome_prepare() if need be, have agreed since. The
 * destination must be unmapped.
 *
 * Returns: 0. On error, everything is as before: -ENOMEM, or -EINTR if a fatal
 * signal is pending.
 */
int mremap_relocate(struct pagetable_move_control *pmc, unsigned long new_len,
		    struct rehome_count *rehomed)
{
	struct mremap_relocation rel;
	int err;

	err = mremap_relocate_alloc(pmc, &rel);
	if (err)
		return err;

	pmc->new = copy_vma_relocated(pmc->old, pmc->new_addr, new_len);
	if (!pmc->new) {
		mremap_relocate_free(pmc, &rel);
		return -ENOMEM;
	}
	mremap_relocate_move(pmc, &rel);
	if (rehomed)
		count_rehomed(rehomed, rel.rehomed.folios, rel.rehomed.pages);
	return 0;
}
