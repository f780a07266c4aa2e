// SPDX-License-Identifier: GPL-2.0
/*
 * Re-homing of anonymous folios, see Documentation/mm/mremap_relocate.rst.
 *
 * The rmap finds a folio by its index and anon_vma, which name the place where it
 * was first faulted. To re-home it is to rewrite both, so that its VMA need not
 * remember that place any longer.
 *
 * An alias of the VMA has its addresses, and the page offset and anon_vma that
 * the VMA is to have. The rmap finds both. Each folio goes from the VMA to the
 * alias under its lock, on which rmap_walk() insists. No PTE changes.
 *
 * A folio may be re-homed if all its mappings and swap entries are in the VMA.
 * That cannot change later: a new one is only ever made out of an existing one, by
 * fork, fault or userfaultfd in the mm that has it, and the mmap and VMA write
 * locks shut these out. (KSM maps its folios into any mm: they are refused.)
 *
 * What goes on all the same needs no lock of the mm: reclaim, migration, memory
 * failure, the deferred split, GUP-fast. All but the last lock the folio first.
 * GUP-fast does not look at mapping and index.
 *
 * The locks, in order: mmap_lock and VMA lock for writing, folio lock, page
 * table locks. A folio lock is waited for with no other folio and no page table
 * locked; otherwise it is only tried. No anon_vma lock is needed.
 *
 * The folios of a VMA are re-homed as they are found fit. If one is not, those
 * before it go back. That allocates nothing and waits for folio locks at most.
 */

#include <linux/hugetlb.h>
#include <linux/ksm.h>
#include <linux/leafops.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/rmap.h>
#include <linux/swap.h>
#include <linux/unroll.h>
#include <linux/userfaultfd_k.h>

#include "internal.h"
#include "memcontrol-v1.h"
#include "rehome.h"
#include "swap.h"

/* What a walk does with each folio. */
enum rehome_step {
	STEP_CHECK,		/* Find out whether it can be re-homed. */
	STEP_REHOME,		/* And re-home it if so. */
	STEP_UNDO,		/* Have it as it was. */
};

/* A walk with STEP_REHOME stops, because a folio has to be split first. */
#define STOP_CUT	(-EXDEV)

/* The range that is walked, and what is found out about it. */
struct rehome_range {
	struct vm_area_struct *vma;	/* Has the page tables. */
	struct vm_area_struct *from;	/* Where the folios belong until now, */
	struct vm_area_struct *to;	/* and then. */
	unsigned long addr;		/* How far the walk has come. */
	unsigned long start;
	unsigned long end;
	unsigned int flags;
	bool split;			/* Split what is cut, or only look? */
	bool cut;			/* Is something cut? */
	bool filled;			/* Is there more than zero pages and guards? */
	bool zeropage;
	struct folio *done;		/* The last large folio, referenced. */
	struct rehome_count count;
	struct rehome_refusal *refusal;
};

/* The PTEs of a range that hold pages of one locked folio. */
struct folio_ptes {
	unsigned int mapped;	/* A PMD that maps all of it counts as one. */
	unsigned int swapped;
	bool shared;		/* Does a page have another swap entry? */
	bool cut;		/* Does the folio reach out of the range? */
};

/**
 * vma_rehome_reason() - Why can the kind of memory in a VMA not be re-homed?
 * @vma: The VMA.
 *
 * Returns: REHOME_OK if it can: it is private anonymous memory. A private
 * mapping of /dev/zero counts as a file: its page offset is not that of its
 * folios.
 */
enum rehome_reason vma_rehome_reason(const struct vm_area_struct *vma)
{
	if (vma->vm_flags & VM_HUGETLB)
		return NOT_REHOMED_HUGETLB;
	if (vma->vm_flags & VM_SPECIAL)
		return NOT_REHOMED_SPECIAL;
	if (vma->vm_flags & (VM_SHARED | VM_MAYSHARE))
		return NOT_REHOMED_SHARED_MAPPING;
	if (!vma_is_anonymous(vma) || vma->vm_file)
		return NOT_REHOMED_FILE;
	return REHOME_OK;
}

/* The page at @addr is in the way. Always returns -EFAULT. */
static int refuse(struct rehome_range *range, unsigned long addr,
		  enum rehome_reason reason)
{
	range->refusal->reason = reason;
	range->refusal->addr = addr;
	return -EFAULT;
}

/*
 * Does a present PTE map the zero page? If not, pte_page() is its page: a VMA
 * without VM_PFNMAP and VM_MIXEDMAP maps nothing else. See vm_normal_page().
 */
static bool pte_maps_zero_page(pte_t pte)
{
	if (IS_ENABLED(CONFIG_ARCH_HAS_PTE_SPECIAL))
		return pte_special(pte);
	return is_zero_pfn(pte_pfn(pte));
}

/*
 * Which page of a locked folio does a PTE hold? It can map the page or, if the
 * folio is in the swap cache, be its swap entry. Returns -1 if it does neither.
 */
static long folio_pte_idx(struct folio *folio, pte_t pte)
{
	unsigned long idx;
	softleaf_t entry;

	if (pte_present(pte)) {
		idx = pte_pfn(pte) - folio_pfn(folio);
		return idx < folio_nr_pages(folio) ? idx : -1;
	}

	entry = softleaf_from_pte(pte);
	if (!softleaf_is_swap(entry) || !folio_matches_swap_entry(folio, entry))
		return -1;
	return swp_offset(entry) - swp_offset(folio->swap);
}

/* Count the swap entries of a page of a locked folio, whoever has them. */
static int page_swapcount(struct folio *folio, long idx)
{
	if (!folio_test_swapcache(folio))
		return 0;
	return swp_swapcount(swp_entry(swp_type(folio->swap),
				       swp_offset(folio->swap) + idx));
}

/*
 * Count all the mappings and swap entries of a locked folio, whoever has them.
 * One turns into the other only under the folio lock, so none is missed.
 */
static unsigned int folio_nr_users(struct folio *folio)
{
	unsigned int users = folio_mapcount(folio);
	long idx;

	if (!folio_test_swapcache(folio))
		return users;
	for (idx = 0; idx < folio_nr_pages(folio); idx++)
		users += page_swapcount(folio, idx);
	return users;
}

/*
 * Do @nr PTEs map consecutive pages of a folio? As folio_pte_batch(), which costs
 * three times as much: mostly each PTE is the one before plus the same step.
 */
static __always_inline bool ptes_in_a_row(struct folio *folio, pte_t *ptep, long nr)
{
	const pte_t pte = ptep_get(ptep);
	const u64 step = pte_val(pte_advance_pfn(pte, 1)) - (u64)pte_val(pte);
	u64 expected = pte_val(pte);
	pte_t *end = ptep + nr;
	pte_t *pos;

	unrolled_count(4)
	for (pos = ptep; pos < end; pos++, expected += step)
		if (pte_val(ptep_get(pos)) != expected)
			return folio_pte_batch(folio, ptep, pte, nr) == nr;
	return true;
}

/*
 * Look at the PTEs of [addr, end), which is within one page table, for pages of
 * a locked folio. @base is where its first page belongs.
 */
static void find_folio_in_table(struct vm_area_struct *vma, struct folio *folio,
				unsigned long base, unsigned long addr,
				unsigned long end, struct folio_ptes *found)
{
	pmd_t *pmd = mm_find_pmd(vma->vm_mm, addr);
	pte_t *start_ptep, *ptep, pte;
	spinlock_t *ptl;
	long idx, nr;

	if (!pmd)
		return;

	ptl = pmd_trans_huge_lock(pmd, vma);
	if (ptl) {
		if (pmd_present(*pmd) && pmd_folio(*pmd) == folio) {
			found->mapped++;
			for (; folio_test_swapcache(folio) && addr < end;
			     addr += PAGE_SIZE)
				found->shared |= page_swapcount(folio,
						(addr - base) >> PAGE_SHIFT);
		}
		spin_unlock(ptl);
		return;
	}

	start_ptep = pte_offset_map_lock(vma->vm_mm, pmd, addr, &ptl);
	if (!start_ptep)
		return;
	nr = (end - addr) >> PAGE_SHIFT;
	pte = ptep_get(start_ptep);
	/* Mostly all of it is mapped, and this is the cheaper look. */
	if (folio_test_large(folio) && !folio_test_swapcache(folio) &&
	    pte_present(pte) &&
	    folio_pte_idx(folio, pte) == (addr - base) >> PAGE_SHIFT &&
	    ptes_in_a_row(folio, start_ptep, nr)) {
		found->mapped += nr;
		goto out;
	}
	for (ptep = start_ptep; addr < end; ptep++, addr += PAGE_SIZE) {
		pte = ptep_get(ptep);
		idx = (addr - base) >> PAGE_SHIFT;
		if (pte_none(pte) || folio_pte_idx(folio, pte) != idx)
			continue;
		if (pte_present(pte)) {
			found->mapped++;
			found->shared |= page_swapcount(folio, idx) > 0;
		} else {
			found->swapped++;
			found->shared |= page_swapcount(folio, idx) > 1;
		}
	}
out:
	pte_unmap_unlock(start_ptep, ptl);
}

/* Look at the PTEs of the range for a locked folio, page @idx of which is at @addr. */
static void find_folio(struct rehome_range *range, struct folio *folio,
		       unsigned long addr, long idx, struct folio_ptes *found)
{
	const long nr_before = (addr - range->start) >> PAGE_SHIFT;
	const long nr_from = (range->end - addr) >> PAGE_SHIFT;
	const long nr = folio_nr_pages(folio);
	const unsigned long base = addr - (idx << PAGE_SHIFT);
	const unsigned long end = addr + (min(nr - idx, nr_from) << PAGE_SHIFT);
	unsigned long pos, next;

	found->cut = idx > nr_before || nr - idx > nr_from;
	pos = addr - (min(idx, nr_before) << PAGE_SHIFT);
	for (; pos < end; pos = next) {
		next = pmd_addr_end(pos, end);
		find_folio_in_table(range->vma, folio, base, pos, next, found);
	}
}

/* A locked folio, which has a page at @addr, cannot be split. */
static int refuse_to_split(struct rehome_range *range, struct folio *folio,
			   unsigned long addr)
{
	return refuse(range, addr, folio_maybe_dma_pinned(folio) ?
				   NOT_REHOMED_CUT_PINNED : NOT_REHOMED_CUT_BUSY);
}

/*
 * Split a locked folio. If it is not mapped, that is not possible: then drop it
 * from the swap cache, and each page can be read in as a folio of its own.
 */
static int split_cut_folio(struct rehome_range *range, struct folio *folio,
			   unsigned long addr)
{
	if (folio_wait_writeback_killable(folio))
		return -EINTR;
	if (swap_cache_drop_clean(folio) || !split_folio(folio))
		return -EAGAIN;
	return refuse_to_split(range, folio, addr);
}

/*
 * Could split_cut_folio() succeed? The caller has a reference, and is to have
 * the only one that is neither a mapping nor the swap cache.
 */
static bool can_split_cut_folio(struct folio *folio)
{
	if (!folio_mapped(folio))
		return !folio_test_dirty(folio) && !do_memsw_account();
	return folio_expected_ref_count(folio) == folio_ref_count(folio) - 1;
}

/*
 * A locked folio is cut by an end of the range, or an older move within this mm
 * has left a part of it elsewhere. After a split each page can be judged alone.
 * Do not split it if that is of no use, or if it is another mm that maps it:
 * the cost is not ours to impose.
 *
 * An mm has a page of a large folio only once. So if no other mm maps it, only
 * a swap entry elsewhere can keep a page in the range from being ours alone.
 */
static int check_cut_folio(struct rehome_range *range, struct folio *folio,
			   unsigned long addr, const struct folio_ptes *found,
			   enum rehome_step step)
{
	if (!folio_test_large(folio) || found->shared ||
	    (folio_mapcount(folio) != found->mapped &&
	     (!found->mapped || folio_maybe_mapped_shared(folio))))
		return refuse(range, addr, found->cut ? NOT_REHOMED_CUT_SHARED :
							NOT_REHOMED_SHARED_PAGE);
	if (range->split)
		return split_cut_folio(range, folio, addr);
	/* Nothing is split before all of the range has been looked at. */
	if (step == STEP_REHOME)
		return range->flags & REHOME_SPLIT ? STOP_CUT :
		       refuse(range, addr, NOT_REHOMED_UNASKED);
	range->cut = true;
	return can_split_cut_folio(folio) ? 0 :
	       refuse_to_split(range, folio, addr);
}

/* Is a folio, which is locked, where @vma has it, with @index? */
static bool folio_is_at(struct folio *folio, struct vm_area_struct *vma,
			pgoff_t index)
{
	return folio->index == index && folio_anon_vma(folio) == vma->anon_vma;
}

/* Has a locked folio been re-homed, whose place to go back to is @index? */
static bool is_rehomed(struct rehome_range *range, struct folio *folio,
		       pgoff_t index)
{
	return folio_is_at(folio, range->from, index - vma_start_anon_pgoff(range->to) +
			   vma_start_anon_pgoff(range->from));
}

/* Give a folio, which is locked, a new home. */
static __always_inline void rehome_folio(struct folio *folio,
					 struct vm_area_struct *to,
					 struct anon_vma *anon_vma, pgoff_t index)
{
	VM_WARN_ON_ONCE_FOLIO(!folio_test_locked(folio), folio);
	VM_WARN_ON_ONCE_FOLIO(!folio_test_anon(folio), folio);
	VM_WARN_ON_ONCE_FOLIO(folio_test_ksm(folio), folio);
	/* All of it is in the range. */
	VM_WARN_ON_ONCE_FOLIO(index < vma_start_anon_pgoff(to) ||
			      index + folio_nr_pages(folio) >
			      vma_start_anon_pgoff(to) + vma_pages(to), folio);

	/* folio_move_anon_rmap(), inline: this is the hot path. */
	WRITE_ONCE(folio->mapping, (void *)anon_vma + FOLIO_MAPPING_ANON);
	folio->index = index;
}

/*
 * Re-home a locked folio that is ours alone, or undo it. @index is where its
 * first page goes. One that has been re-homed already is not counted again, and
 * one that has not been is not undone: it may not be fit.
 */
static void step_folio(struct rehome_range *range, struct folio *folio,
		       pgoff_t index, enum rehome_step step)
{
	if (step == STEP_UNDO ? !is_rehomed(range, folio, index) :
				folio_is_at(folio, range->to, index))
		return;
	rehome_folio(folio, range->to, range->to->anon_vma, index);
	range->count.folios++;
	range->count.pages += folio_nr_pages(folio);
}

/*
 * Take the step for a folio, if need be after a split. It is locked and
 * referenced, and the PTE or PMD at @addr holds its page number @idx, or did so
 * when we last looked.
 *
 * Returns 0, -EFAULT if it cannot be re-homed, -EAGAIN to look at the PTE again,
 * -EINTR, or STOP_CUT.
 */
static int check_folio(struct rehome_range *range, struct folio *folio,
		       unsigned long addr, long idx, enum rehome_step step)
{
	struct folio_ptes found = {};

	find_folio(range, folio, addr, idx, &found);
	if (!found.mapped && !found.swapped)
		return -EAGAIN;
	if (step != STEP_UNDO &&
	    (found.cut || found.mapped + found.swapped != folio_nr_users(folio)))
		return check_cut_folio(range, folio, addr, &found, step);
	if (step != STEP_CHECK)
		step_folio(range, folio,
			   __linear_anon_page_index(range->to, addr) - idx, step);
	return 0;
}

/* Wait for a folio. An undo cannot be interrupted. */
static int lock_folio(struct folio *folio, enum rehome_step step)
{
	if (step != STEP_UNDO)
		return folio_lock_killable(folio) ? -EINTR : 0;
	folio_lock(folio);
	return 0;
}

/* Remember a large folio that the step was taken for, or forget it. */
static void set_done(struct rehome_range *range, struct folio *folio)
{
	if (range->done)
		folio_put(range->done);
	if (folio)
		folio_get(folio);
	range->done = folio;
}

/*
 * As check_folio(), for what the PTE at @addr held when its page table was
 * still locked: a page of @folio, or its swap entry. Sleeps.
 *
 * Returns 1 to go on with the next PTE, or an error as check_folio() does.
 */
static int check_folio_slow(struct rehome_range *range, struct folio *folio,
			    unsigned long addr, pte_t pte, enum rehome_step step)
{
	int err = lock_folio(folio, step);
	long idx;

	if (err)
		return err;
	idx = folio_pte_idx(folio, pte);
	if (idx < 0) {
		err = -EAGAIN;
	} else if (folio_test_ksm(folio)) {
		/* What has been swapped in again cannot be un-shared. */
		err = step == STEP_UNDO ||
		      (range->flags & REHOME_UNSHARED && pte_present(pte) &&
		       range->vma->vm_flags & VM_MERGEABLE) ? 0 :
		      refuse(range, addr, NOT_REHOMED_KSM);
	} else if (!folio_test_anon(folio)) {
		/*
		 * Just read into the swap cache, perhaps with pages of others.
		 * They cannot map it: of a folio that is not anonymous yet,
		 * do_swap_page() maps all pages or none. unuse_pte() expects
		 * no large one.
		 *
		 * Only the lock lets us believe that it is not anonymous. One
		 * that is migrated is in the swap cache before its mapping is
		 * seen by others, see __folio_migrate_mapping().
		 */
		err = step == STEP_UNDO || page_swapcount(folio, idx) == 1 ? 0 :
		      refuse(range, addr, NOT_REHOMED_SHARED_PAGE);
	} else {
		err = check_folio(range, folio, addr, idx, step);
		if (!err && folio_test_large(folio))
			set_done(range, folio);
	}
	folio_unlock(folio);
	return err ?: 1;
}

/*
 * Is a swap entry with nothing in the swap cache ours alone? The page table
 * that has it is locked. Returns 1 if so, -EFAULT if not, or 0 with @foliop set
 * to the folio in the swap cache, referenced.
 */
static int check_swap_entry(pte_t pte, struct folio **foliop)
{
	const softleaf_t entry = softleaf_from_pte(pte);

	do {
		*foliop = swap_cache_get_folio(entry);
		if (*foliop)
			return 0;
		if (pte_swp_exclusive(pte) || swap_entry_sole_user(entry))
			return 1;
		/* With one user, it has just been read in. */
	} while (swp_swapcount(entry) == 1);
	return -EFAULT;
}

/* As check_pte(), for a PTE that is neither none nor present. */
static int check_entry(struct rehome_range *range, pte_t pte, unsigned long addr,
		       struct folio **foliop, enum rehome_step step)
{
	const softleaf_t entry = softleaf_from_pte(pte);
	int ret;

	if (softleaf_is_migration(entry)) {
		*foliop = NULL;
		return 0;
	}
	if (softleaf_is_device_private(entry) ||
	    softleaf_is_device_exclusive(entry))
		return step == STEP_UNDO ? 1 :
		       refuse(range, addr, NOT_REHOMED_DEVICE);
	/* fork() copies these two by the flags of the VMA, anon_vma or not. */
	if (!softleaf_is_guard_marker(entry) && !softleaf_is_uffd_wp_marker(entry))
		range->filled = true;
	if (!softleaf_is_swap(entry))
		return 1;

	ret = check_swap_entry(pte, foliop);
	if (ret < 0)
		return step == STEP_UNDO ? 1 :
		       refuse(range, addr, NOT_REHOMED_SHARED_PAGE);
	if (!ret && *foliop == range->done) {
		folio_put(*foliop);
		return 1;
	}
	return ret;
}

/*
 * Look at a PTE. If it maps a large folio that the step was taken for, skip those
 * behind it that do, of the @nr_left in the page table, which is locked.
 *
 * Returns the number of PTEs that are done, -EFAULT, or 0 if there is something
 * to wait for: @foliop is then the folio, referenced, or NULL for migration.
 */
static int check_pte(struct rehome_range *range, pte_t pte, long nr_left,
		     unsigned long addr, struct folio **foliop,
		     enum rehome_step step)
{
	struct folio *folio;

	/* The large folio in front of it has been dealt with. */
	if (pte_none(pte))
		return 1;
	if (!pte_present(pte))
		return check_entry(range, pte, addr, foliop, step);
	if (pte_maps_zero_page(pte)) {
		range->zeropage = true;
		return 1;
	}

	range->filled = true;
	/* The folio cannot be split while it is mapped here. */
	folio = page_folio(pte_page(pte));
	if (folio == range->done) {
		/*
		 * All its users are in the range. If it is mapped as often as it
		 * has pages, the next PTEs hold the rest of it. If something is
		 * cut, this may be it: look at each PTE.
		 */
		if (range->cut || folio_mapcount(folio) != folio_nr_pages(folio))
			return 1;
		return min_t(long, nr_left, folio_nr_pages(folio) -
			     folio_page_idx(folio, pte_page(pte)));
	}
	folio_get(folio);
	*foliop = folio;
	return 0;
}

/* Is a small folio, which is locked and mapped by a locked page table, ours alone? */
static bool small_is_ours(struct folio *folio)
{
	return !folio_test_ksm(folio) && folio_nr_users(folio) == 1;
}

/*
 * Take the step for small folios, from @ptep on, until @end or a PTE that is
 * something else, or whose folio is locked or not ours alone. @addr is that of
 * @ptep. The page table is locked. Returns the PTE from which to go on.
 */
static __always_inline pte_t *
step_small(struct rehome_range *range, pte_t *ptep, pte_t *end,
	   unsigned long addr, enum rehome_step step)
{
	struct vm_area_struct *to = range->to;
	struct anon_vma *anon_vma = to ? to->anon_vma : NULL;
	pgoff_t index = to ? __linear_anon_page_index(to, addr) : 0;
	unsigned long nr = 0, flags;
	struct folio *folio;
	struct page *page;
	pte_t pte;

	for (; ptep < end; ptep++, index++) {
		pte = ptep_get(ptep);
		if (pte_none(pte))
			continue;
		if (!pte_present(pte) || pte_maps_zero_page(pte))
			break;
		page = pte_page(pte);
		flags = READ_ONCE(page->flags.f);
		if (flags & BIT(PG_head) || PageTail(page))
			break;
		/*
		 * PageAnonExclusive(), but it is no page of hugetlb. The bit is
		 * only ever set for a page with a single user.
		 */
		flags &= BIT(PG_anon_exclusive);
		if (step == STEP_CHECK && flags)
			continue;
		/* page_folio() would look for a head page once more. */
		folio = (struct folio *)page;
		if (!folio_trylock(folio))
			break;
		if (step == STEP_UNDO) {
			if (is_rehomed(range, folio, index))
				rehome_folio(folio, to, anon_vma, index);
		} else if (!flags && !small_is_ours(folio)) {
			folio_unlock(folio);
			break;
		} else if (step == STEP_REHOME) {
			rehome_folio(folio, to, anon_vma, index);
			nr++;
		}
		folio_unlock(folio);
	}
	range->count.folios += nr;
	range->count.pages += nr;
	return ptep;
}

/*
 * The same for large folios that are mapped as a whole, in a row. A PTE that is
 * none ends it, too.
 */
static __always_inline pte_t *
step_large(struct rehome_range *range, pte_t *ptep, pte_t *end,
	   unsigned long addr, enum rehome_step step)
{
	struct vm_area_struct *to = range->to;
	pgoff_t index = to ? __linear_anon_page_index(to, addr) : 0;
	struct folio *folio;
	struct page *page;
	bool fine;
	pte_t pte;
	long nr;

	for (; ptep < end; ptep += nr, index += nr) {
		pte = ptep_get(ptep);
		if (!pte_present(pte) || pte_maps_zero_page(pte))
			break;
		page = pte_page(pte);
		if (!PageHead(page))
			break;
		folio = (struct folio *)page;
		nr = folio_large_nr_pages(folio);
		if (ptep + nr > end || !folio_trylock(folio))
			break;
		fine = folio_large_mapcount(folio) == nr &&
		       !folio_test_swapcache(folio) &&
		       ptes_in_a_row(folio, ptep, nr);
		if (fine && step == STEP_REHOME) {
			rehome_folio(folio, to, to->anon_vma, index);
			range->count.folios++;
			range->count.pages += nr;
		} else if (fine && step == STEP_UNDO) {
			step_folio(range, folio, index, step);
		}
		folio_unlock(folio);
		if (!fine)
			break;
	}
	return ptep;
}

/*
 * Take the step for the PTEs from range->addr on, in one page table, until @end.
 * Returns as check_folio() does.
 */
static __always_inline int step_ptes(struct rehome_range *range, pmd_t *pmd,
				     unsigned long end, enum rehome_step step)
{
	struct mm_struct *mm = range->vma->vm_mm;
	unsigned long addr = range->addr;
	pte_t *start_ptep, *end_ptep, *ptep, pte;
	struct folio *folio;
	spinlock_t *ptl;
	int nr;

	start_ptep = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!start_ptep)
		return -EAGAIN;
	end_ptep = start_ptep + ((end - addr) >> PAGE_SHIFT);
	for (ptep = start_ptep;; ptep += nr, addr += nr * PAGE_SIZE) {
		pte_t *from = ptep;

		ptep = step_small(range, ptep, end_ptep, addr, step);
		addr += (ptep - from) * PAGE_SIZE;
		from = ptep;
		ptep = step_large(range, ptep, end_ptep, addr, step);
		addr += (ptep - from) * PAGE_SIZE;
		if (ptep == end_ptep)
			break;
		pte = ptep_get(ptep);
		nr = check_pte(range, pte, end_ptep - ptep, addr, &folio, step);
		if (nr <= 0)
			break;
	}
	pte_unmap_unlock(start_ptep, ptl);
	range->addr = addr;
	if (addr == end || nr < 0)
		return addr == end ? 0 : nr;

	if (!folio) {
		migration_entry_wait(mm, pmd, addr);
		return -EAGAIN;
	}
	nr = check_folio_slow(range, folio, addr, pte, step);
	folio_put(folio);
	if (nr < 0)
		return nr;
	range->addr += PAGE_SIZE;
	return range->addr == end ? 0 : -EAGAIN;
}

/*
 * Take the step for the folio that a PMD maps, whole. Its lock is held by the
 * caller, and dropped. Returns as check_folio() does.
 */
static int step_leaf(struct rehome_range *range, pmd_t *pmd, unsigned long end,
		     spinlock_t *ptl, enum rehome_step step)
{
	const unsigned long addr = range->addr;
	struct folio *folio = NULL;
	int err = 0;

	if (pmd_is_migration_entry(*pmd)) {
		spin_unlock(ptl);
		pmd_migration_entry_wait(range->vma->vm_mm, pmd);
		return -EAGAIN;
	}
	if (!pmd_present(*pmd)) {
		if (step != STEP_UNDO)
			err = refuse(range, addr, NOT_REHOMED_DEVICE);
	} else if (is_huge_zero_pmd(*pmd)) {
		/* do_huge_zero_wp_pmd() counts on an anon_vma. */
		range->filled = true;
	} else {
		range->filled = true;
		folio = pmd_folio(*pmd);
		folio_get(folio);
	}
	spin_unlock(ptl);
	if (folio) {
		err = lock_folio(folio, step);
		if (!err) {
			err = check_folio(range, folio, addr,
					  (addr & ~PMD_MASK) >> PAGE_SHIFT, step);
			folio_unlock(folio);
		}
		folio_put(folio);
	}
	if (!err)
		range->addr = end;
	return err;
}

/* Take the step for all below one PMD, until @end. Returns as check_folio() does. */
static __always_inline int step_pmd(struct rehome_range *range, pmd_t *pmd,
				    unsigned long end, enum rehome_step step)
{
	/* While it is changed under this lock it can look as if it were none. */
	spinlock_t *ptl = pmd_lock(range->vma->vm_mm, pmd);
	const bool none = pmd_none(*pmd);

	if (pmd_is_huge(*pmd))
		return step_leaf(range, pmd, end, ptl, step);
	spin_unlock(ptl);
	if (!none)
		return step_ptes(range, pmd, end, step);
	range->addr = end;
	return 0;
}

/* Take the step from range->addr to range->end. Returns as check_folio() does. */
static __always_inline int walk_range(struct rehome_range *range,
				      enum rehome_step step)
{
	unsigned long next;
	pmd_t *pmd;
	int err;

	while (range->addr < range->end) {
		pmd = mm_find_pmd(range->vma->vm_mm, range->addr);
		if (!pmd) {
			range->addr = pud_addr_end(range->addr, range->end);
			continue;
		}
		next = pmd_addr_end(range->addr, range->end);
		do {
			cond_resched();
			err = step != STEP_UNDO && fatal_signal_pending(current) ?
			      -EINTR : step_pmd(range, pmd, next, step);
		} while (err == -EAGAIN);
		if (err)
			break;
	}
	set_done(range, NULL);
	return range->addr < range->end ? err : 0;
}

/* One walk each, so that the loops know the step. */
static noinline int check_range(struct rehome_range *range)
{
	return walk_range(range, STEP_CHECK);
}

static noinline int rehome_range(struct rehome_range *range)
{
	return walk_range(range, STEP_REHOME);
}

/* Have the folios of a range, up to where the walk has come, as they were. */
static noinline void undo_range(struct rehome_range *range)
{
	/*
	 * A large folio that begins before range->addr may not be mapped there
	 * any longer: reclaim can drop a part of it that is MADV_FREE.
	 */
	if (range->count.folios != range->count.pages)
		range->addr += PMD_SIZE;
	range->end = min(range->addr, range->end);
	range->addr = range->start;
	swap(range->from, range->to);
	walk_range(range, STEP_UNDO);
}

/**
 * rehome_check() - Can all the folios of a range be re-homed?
 * @vma: A VMA whose vma_rehome_reason() is REHOME_OK.
 * @start: Start of the range, in bytes, within @vma.
 * @end: End of the range, in bytes, exclusive, within @vma.
 * @flags: REHOME_SPLIT to split large folios of which a part is elsewhere, or drop
 *	   them from the swap cache if they are not mapped; waits for their
 *	   writeback. Without it, nothing is changed. REHOME_UNSHARED if KSM pages
 *	   will be un-shared before the folios are re-homed.
 * @refusal: Filled in with the reason for -EFAULT.
 *
 * The mmap write lock must be held; @vma is write-locked here, and the answer
 * stands for as long as both are. Sleeps: waits for locked folios and for
 * migration.
 *
 * Returns: 0 if they can, REHOME_PREPARE if they can unless a split fails, -EFAULT
 * if some cannot, -EINTR if a fatal signal is pending.
 */
int rehome_check(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end, unsigned int flags,
		 struct rehome_refusal *refusal)
{
	struct rehome_range range = {
		.vma = vma, .start = start, .addr = start, .end = end,
		.flags = flags, .split = flags & REHOME_SPLIT,
		.refusal = refusal,
	};

	vma_start_write(vma);
	return check_range(&range) ?: range.cut ? REHOME_PREPARE : 0;
}

/**
 * rehome_vma() - Re-home the folios of a VMA to its alias, all or none.
 * @vma: A VMA whose vma_rehome_reason() is REHOME_OK.
 * @alias: A VMA with the same addresses, which the rmap finds as well, and with the
 *	   page offset and the anon_vma that @vma is to have. It must not be near,
 *	   see alias_is_near() in mm/mremap_relocate.c.
 * @flags: REHOME_SPLIT if large folios of which a part is elsewhere may be split.
 * @count: Added to: what has been re-homed.
 * @refusal: Filled in with the reason for -EFAULT.
 *
 * The mmap write lock must be held; @vma is write-locked here. Sleeps: waits for
 * locked folios and for migration.
 *
 * Returns: 0 if no folio leads to @vma any longer: anon_vma_adopt() has to follow.
 * Else none leads to @alias: REHOME_EMPTY if @vma needs no anon_vma at all,
 * -EFAULT if some folio cannot be re-homed, -EINTR if a fatal signal is pending.
 */
int rehome_vma(struct vm_area_struct *vma, struct vm_area_struct *alias,
	       unsigned int flags, struct rehome_count *count,
	       struct rehome_refusal *refusal)
{
	struct rehome_range range = {
		.vma = vma, .from = vma, .to = alias, .flags = flags,
		.start = vma->vm_start, .addr = vma->vm_start, .end = vma->vm_end,
		.refusal = refusal,
	};
	int err;

	vma_start_write(vma);
	err = rehome_range(&range);
	if (err == STOP_CUT) {
		err = rehome_check(vma, range.start, range.end, 0, refusal);
		range.split = true;
		if (err >= 0)
			err = rehome_range(&range);
	}
	if (err) {
		undo_range(&range);
		return err;
	}
	/* fork() of a userfaultfd user is to find zero pages that it put there. */
	if (!range.filled && !range.count.folios &&
	    !(range.zeropage && userfaultfd_armed(vma)))
		return REHOME_EMPTY;
	count->folios += range.count.folios;
	count->pages += range.count.pages;
	return 0;
}
