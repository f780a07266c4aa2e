// SPDX-License-Identifier: GPL-2.0
/*
 * Relocation of anonymous folios in place, by mremap() to the same address, see
 * MREMAP_RELOCATE_ANON in Documentation/mm/mremap_relocate.rst. No PTE changes.
 *
 * A second VMA with the same addresses, and with the page offset and anon_vma
 * that a mapping made here would have, takes the place of the first. Before it
 * does so, it is in the interval tree of its anon_vma, where rmap_walk() finds
 * it, and not in the maple tree. Each folio is re-homed from the first VMA to
 * the second under its lock. An rmap walk holds that lock, so it finds the PTEs
 * through the one or through the other.
 *
 * If both VMAs have the same anon_vma, a walk visits the wrong one as well, and
 * must not find the folio there: see copy_is_near().
 *
 * rehome_check() has agreed to every folio before, and the second VMA is all the
 * memory that is needed, so nothing can fail then. For the locks see mm/rehome.c.
 */

#include <kunit/static_stub.h>
#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/swap.h>

#include "internal.h"
#include "mremap_relocate.h"
#include "rehome.h"

/*
 * Re-home a folio, which is locked, unless that has been done: an earlier PTE may
 * have held another page of it. @index is where its first page belongs.
 */
static void rehome_once(struct vm_area_struct *copy, struct folio *folio,
			pgoff_t index, struct rehome_count *rehomed)
{
	if (folio->index == index && folio_anon_vma(folio) == copy->anon_vma)
		return;
	rehome_folio(folio, copy, index);
	rehomed->folios++;
	rehomed->pages += folio_nr_pages(folio);
}

/*
 * Re-home small folios, from @ptep on, until @end or a PTE that is something
 * else, or whose folio is locked. @index is that of @ptep in @copy. The page
 * table is locked. Returns the PTE from which to go on.
 */
static pte_t *rehome_small(struct vm_area_struct *copy, pte_t *ptep, pte_t *end,
			   pgoff_t index, struct rehome_count *rehomed)
{
	unsigned long nr = 0;
	struct folio *folio;
	pte_t pte;

	for (; ptep < end; ptep++, index++) {
		pte = ptep_get(ptep);
		if (pte_none(pte))
			continue;
		if (!pte_small_folio(pte, &folio) || !folio_trylock(folio))
			break;
		rehome_folio(folio, copy, index);
		folio_unlock(folio);
		nr++;
	}
	rehomed->folios += nr;
	rehomed->pages += nr;
	return ptep;
}

/*
 * The same for large folios that are mapped as a whole. A PTE that is none ends
 * it, too.
 */
static pte_t *rehome_large(struct vm_area_struct *copy, pte_t *ptep, pte_t *end,
			   pgoff_t index, struct rehome_count *rehomed)
{
	struct folio *folio;
	long nr;

	for (; ptep < end; ptep += nr, index += nr) {
		if (!pte_large_folio_start(ptep_get(ptep), &folio))
			break;
		nr = folio_large_nr_pages(folio);
		if (ptep + nr > end || folio_large_mapcount(folio) != nr ||
		    !folio_trylock(folio))
			break;
		rehome_folio(folio, copy, index);
		folio_unlock(folio);
		rehomed->folios++;
		rehomed->pages += nr;
	}
	return ptep;
}

/*
 * Re-home the folio that is in the swap cache for the swap entry @pte, if it is
 * anonymous. Its place is @index in @copy.
 *
 * Returns false if the folio, which is then referenced, has to be waited for.
 */
static bool rehome_swap_cached(struct vm_area_struct *copy, pte_t pte,
			       pgoff_t index, struct folio **foliop,
			       struct rehome_count *rehomed)
{
	struct folio *folio = swap_cache_get_folio(softleaf_from_pte(pte));
	long idx;

	if (!folio)
		return true;
	if (folio_test_anon(folio)) {
		*foliop = folio;
		if (!folio_trylock(folio))
			return false;
		idx = folio_pte_idx(folio, pte);
		if (idx >= 0)
			rehome_once(copy, folio, index - idx, rehomed);
		folio_unlock(folio);
		if (idx < 0)
			return false;
	}
	folio_put(folio);
	return true;
}

/*
 * Re-home the folio that @ptep holds, whose place is @index in @copy. The page
 * table is locked up to @end.
 *
 * Returns the number of PTEs that are done, or 0 if there is something to wait
 * for: @foliop is then the folio, referenced, or NULL for migration.
 */
static int rehome_pte(struct vm_area_struct *copy, pte_t *ptep, pte_t *end,
		      pgoff_t index, struct folio **foliop,
		      struct rehome_count *rehomed)
{
	pte_t pte = ptep_get(ptep);
	struct folio *folio;
	long idx;
	int nr = 1;

	if (pte_none(pte))
		return 1;
	if (!pte_present(pte)) {
		switch (rehome_kind(pte)) {
		case REHOME_MIGRATION:
			*foliop = NULL;
			return 0;
		case REHOME_SWAP:
			return rehome_swap_cached(copy, pte, index, foliop,
						  rehomed);
		case REHOME_REFUSE:
			/* rehome_check() did, and nothing makes one. */
			VM_WARN_ON_ONCE(1);
			fallthrough;
		case REHOME_IGNORE:
			return 1;
		}
	}
	if (pte_maps_zero_page(pte))
		return 1;

	folio = page_folio(pte_page(pte));
	if (!folio_trylock(folio)) {
		folio_get(folio);
		*foliop = folio;
		return 0;
	}
	idx = folio_page_idx(folio, pte_page(pte));
	rehome_once(copy, folio, index - idx, rehomed);
	/* Then the next PTEs map the rest of it. */
	if (folio_all_mapped(folio))
		nr = min_t(long, folio_nr_pages(folio) - idx, end - ptep);
	folio_unlock(folio);
	return nr;
}

/*
 * Wait for a folio, and re-home it if the PTE at @addr still holds it. Returns
 * false if it does not.
 */
static bool rehome_folio_slow(struct vm_area_struct *copy, struct folio *folio,
			      pmd_t *pmd, unsigned long addr,
			      struct rehome_count *rehomed)
{
	spinlock_t *ptl;
	long idx = -1;
	pte_t *ptep;

	folio_lock(folio);
	ptep = pte_offset_map_lock(copy->vm_mm, pmd, addr, &ptl);
	if (ptep) {
		idx = folio_pte_idx(folio, ptep_get(ptep));
		if (idx >= 0 && folio_test_anon(folio))
			rehome_once(copy, folio,
				    linear_anon_page_index(copy, addr) - idx,
				    rehomed);
		pte_unmap_unlock(ptep, ptl);
	}
	folio_unlock(folio);
	return idx >= 0;
}

/*
 * Re-home the folios that the PTEs of [addr, end), in one page table, hold, until
 * one has been waited for. Returns the address from which to go on.
 */
static unsigned long rehome_ptes(struct vm_area_struct *copy, pmd_t *pmd,
				 unsigned long addr, unsigned long end,
				 struct rehome_count *rehomed)
{
	pgoff_t index = linear_anon_page_index(copy, addr);
	pte_t *start_ptep, *end_ptep, *ptep;
	struct mm_struct *mm = copy->vm_mm;
	struct folio *folio;
	spinlock_t *ptl;
	int nr;

	start_ptep = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!start_ptep)
		return addr;
	end_ptep = start_ptep + ((end - addr) >> PAGE_SHIFT);
	for (ptep = start_ptep;; ptep += nr) {
		ptep = rehome_small(copy, ptep, end_ptep,
				    index + (ptep - start_ptep), rehomed);
		ptep = rehome_large(copy, ptep, end_ptep,
				    index + (ptep - start_ptep), rehomed);
		if (ptep == end_ptep)
			break;
		nr = rehome_pte(copy, ptep, end_ptep,
				index + (ptep - start_ptep), &folio, rehomed);
		if (!nr)
			break;
	}
	addr += (ptep - start_ptep) * PAGE_SIZE;
	pte_unmap_unlock(start_ptep, ptl);
	if (addr == end)
		return end;

	if (folio) {
		if (rehome_folio_slow(copy, folio, pmd, addr, rehomed))
			addr += PAGE_SIZE;
		folio_put(folio);
	} else {
		migration_entry_wait(mm, pmd, addr);
	}
	return addr;
}

/* Re-home the folio that a PMD maps, whole. Returns false if there is none. */
static bool rehome_leaf(struct vm_area_struct *copy, pmd_t *pmd,
			unsigned long addr, struct rehome_count *rehomed)
{
	struct folio *folio;

	if (!rehome_lock_leaf(copy, pmd, &folio))
		return false;
	if (folio) {
		rehome_once(copy, folio,
			    linear_anon_page_index(copy, addr & PMD_MASK),
			    rehomed);
		folio_unlock(folio);
		folio_put(folio);
	}
	return true;
}

/**
 * mremap_rehome_to_copy() - Re-home the folios of a VMA to its copy.
 * @copy: What copy_vma_in_place() made.
 * @rehomed: Added to: what has been re-homed.
 *
 * The VMA must be write-locked, and rehome_check() have agreed to all of it.
 * Sleeps: waits for locked folios and for migration.
 */
void mremap_rehome_to_copy(struct vm_area_struct *copy,
			   struct rehome_count *rehomed)
{
	unsigned long addr, next;
	pmd_t *pmd;

	KUNIT_STATIC_STUB_REDIRECT(mremap_rehome_to_copy, copy, rehomed);

	for (addr = copy->vm_start; addr < copy->vm_end; addr = next) {
		cond_resched();
		pmd = mm_find_pmd(copy->vm_mm, addr);
		if (!pmd) {
			next = pud_addr_end(addr, copy->vm_end);
			continue;
		}
		next = pmd_addr_end(addr, copy->vm_end);
		while (addr < next && !pmd_is_empty(copy->vm_mm, pmd) &&
		       !rehome_leaf(copy, pmd, addr, rehomed))
			addr = rehome_ptes(copy, pmd, addr, next, rehomed);
	}
}

/* Merge a VMA with its neighbours. One of these can be run->anon_src, and go. */
static void merge_in_run(struct vma_run *run, struct vm_area_struct *vma)
{
	struct anon_vma *anon_vma = run->anon_src ? run->anon_src->anon_vma : NULL;
	struct vm_area_struct *merged = vma_merge_relocated(vma, NULL);

	if (anon_vma && merged->anon_vma == anon_vma)
		run->anon_src = merged;
}

/*
 * Make [start, end) of @vma a VMA of its own. If that fails it stays whole, unless
 * there is no memory for that either.
 */
static int isolate_part(struct vma_run *run, struct vm_area_struct *vma,
			unsigned long start, unsigned long end)
{
	VMA_ITERATOR(vmi, vma->vm_mm, start);
	int err = 0;

	if (vma->vm_start < start)
		err = split_vma(&vmi, vma, start, /* new_below= */1);
	if (!err && vma->vm_end > end)
		err = split_vma(&vmi, vma, end, /* new_below= */0);
	/* Joins what the first one has split. */
	if (err && vma->vm_start == start)
		merge_in_run(run, vma);
	return err;
}

/* A step for [start, end) of a VMA in a run. Returns as rehome_check() does. */
typedef int (*part_fn)(struct vma_run *run, struct vm_area_struct *vma,
		       unsigned long start, unsigned long end,
		       struct mremap_report *report);

static int check_part(struct vma_run *run, struct vm_area_struct *vma,
		      unsigned long start, unsigned long end,
		      struct mremap_report *report)
{
	struct rehome_refusal refusal;
	int err;

	if (!vma_run_needs(run, vma))
		return 0;
	if (vma_is_sealed(vma))
		return -EPERM;
	err = rehome_check(vma, start, end, &refusal);
	if (err < 0)
		mremap_report_refused(report, start, end, err, &refusal);
	return err;
}

static int prepare_part(struct vma_run *run, struct vm_area_struct *vma,
			unsigned long start, unsigned long end,
			struct mremap_report *report)
{
	struct rehome_refusal refusal;
	int err;

	if (!vma_run_needs(run, vma))
		return 0;
	err = rehome_prepare(vma, start, end, &refusal);
	if (err)
		mremap_report_refused(report, start, end, err, &refusal);
	return err;
}

/*
 * Is a VMA so near to a copy with the anon_vma of @anon_src that a walk of the
 * reverse map cannot tell them apart? If that is the anon_vma of @vma, a walk for
 * a folio visits both. In the wrong one it looks for the folio as far from its
 * place as the page offsets differ. If that is still within a large folio,
 * page_vma_mapped_walk() finds it there, at a wrong address.
 *
 * If so, the VMA has to be relocated to an anon_vma of its own first, and from
 * there once more: with the same page offset both places are the right one.
 */
static bool copy_is_near(struct vm_area_struct *vma,
			 struct vm_area_struct *anon_src)
{
	const pgoff_t index = linear_anon_page_index(vma, vma->vm_start);
	const pgoff_t home = vma->vm_start >> PAGE_SHIFT;

	/* No anonymous folio is larger than what a PMD maps. */
	return anon_src && anon_src->anon_vma == vma->anon_vma &&
	       index != home && abs_diff(index, home) < PMD_SIZE >> PAGE_SHIFT;
}

/* Relocate a VMA, all of it. Returns what has taken its place, or NULL. */
static struct vm_area_struct *relocate_vma(struct vm_area_struct *vma,
					   struct vm_area_struct *anon_src,
					   struct rehome_count *rehomed)
{
	VMA_ITERATOR(vmi, vma->vm_mm, vma->vm_start);
	struct vm_area_struct *copy;

	copy = copy_vma_in_place(&vmi, vma, anon_src);
	if (!copy)
		return NULL;
	mremap_rehome_to_copy(copy, rehomed);
	vma_replace(&vmi, vma, copy);
	return copy;
}

/* The same with what copy_is_near() asks for, and merge it. */
static int relocate_and_merge(struct vma_run *run, struct vm_area_struct *vma,
			      struct rehome_count *rehomed)
{
	struct rehome_count detour = {};
	struct vm_area_struct *new;

	if (copy_is_near(vma, run->anon_src)) {
		new = relocate_vma(vma, NULL, &detour);
		if (!new)
			goto nomem;
		vma = new;
	}
	new = relocate_vma(vma, run->anon_src, rehomed);
	if (!new)
		goto nomem;
	/* It has the anon_vma that the others are to have. */
	run->anon_src = vma_merge_relocated(new, NULL);
	return 0;

nomem:
	/* Joins what was split, if it still fits. */
	merge_in_run(run, vma);
	return -ENOMEM;
}

static int relocate_part(struct vma_run *run, struct vm_area_struct *vma,
			 unsigned long start, unsigned long end,
			 struct mremap_report *report)
{
	struct rehome_count rehomed = {};
	struct rehome_refusal refusal;
	int err;

	if (!vma_run_needs(run, vma)) {
		/* It may not have merged before: no memory, or DONTUNMAP. */
		if (run->can_merge && vma->anon_vma)
			merge_in_run(run, vma);
		return 0;
	}
	err = isolate_part(run, vma, start, end);
	if (!err)
		err = relocate_and_merge(run, vma, &rehomed);
	if (err)
		mremap_report_refused(report, start, end, err, &refusal);
	else
		mremap_report_rehomed(report, &rehomed);
	return err;
}

/* All of these, if possible. */
static int try_part(struct vma_run *run, struct vm_area_struct *vma,
		    unsigned long start, unsigned long end,
		    struct mremap_report *report)
{
	int err = check_part(run, vma, start, end, report);

	if (err == REHOME_PREPARE)
		err = prepare_part(run, vma, start, end, report);
	if (!err)
		err = relocate_part(run, vma, start, end, report);
	return err == -EINTR || err == -ERESTARTSYS ? err : 0;
}

static int walk_parts(struct mm_struct *mm, unsigned long start,
		      unsigned long end, part_fn fn,
		      struct mremap_report *report)
{
	struct vma_run run = { .end = start };
	struct vm_area_struct *vma;
	unsigned long addr, next;
	bool prepare = false;
	int err;

	for (addr = start; addr < end; addr = next) {
		cond_resched();
		vma = find_vma(mm, addr);
		if (!vma || vma->vm_start >= end)
			break;
		addr = max(addr, vma->vm_start);
		next = min(vma->vm_end, end);
		/* Memory of another kind has nothing to gain. */
		if (!vma_can_rehome(vma))
			continue;
		if (addr >= run.end)
			vma_find_run(vma, addr, end, &run);
		err = fn(&run, vma, addr, next, report);
		if (err < 0)
			return err;
		prepare |= err == REHOME_PREPARE;
	}
	return prepare ? REHOME_PREPARE : 0;
}

/**
 * mremap_relocate_in_place() - Re-home the folios of a range where they are.
 * @mm: The mm of the current process.
 * @start: Start of the range, in bytes.
 * @end: End of the range, in bytes, exclusive.
 * @must: Is it an error if some of it cannot be relocated?
 * @report: Added to: what has been relocated, and why not all.
 *
 * As if the range had been mapped here, and faulted as one: those of its VMAs
 * that have another page offset, or whose anon_vma alone keeps them from merging
 * with a neighbour, are relocated and merge. The range can have gaps. A VMA that
 * is only in part in the range is split if its page offset has to change. If
 * nothing is to be gained, nothing is touched.
 *
 * The mmap write lock must be held. Sleeps.
 *
 * Returns: 0, -EINTR if a fatal signal is pending, or -ERESTARTSYS if a signal is
 * pending while KSM pages are un-shared; with @must also -ENOMEM. Some VMAs may
 * have been relocated then, and need no more when the call is repeated. With @must
 * and nothing relocated: -EFAULT if some folio cannot be re-homed, or -EPERM if a
 * VMA is sealed.
 */
int mremap_relocate_in_place(struct mm_struct *mm, unsigned long start,
			     unsigned long end, bool must,
			     struct mremap_report *report)
{
	int err;

	if (!must)
		return walk_parts(mm, start, end, try_part, report);
	err = walk_parts(mm, start, end, check_part, report);
	if (err == REHOME_PREPARE)
		err = walk_parts(mm, start, end, prepare_part, report);
	return err ? err : walk_parts(mm, start, end, relocate_part, report);
}
