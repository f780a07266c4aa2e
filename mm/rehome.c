// SPDX-License-Identifier: GPL-2.0
/*
 * Re-homing of anonymous folios: whose is a folio?
 *
 * A folio is found from its index and anon_vma, which name the place where it
 * was first faulted. To re-home it is to rewrite both, so that its VMA need not
 * remember that place any longer. See Documentation/mm/mremap_relocate.rst.
 *
 * A folio may be re-homed if all its mappings and swap entries are in the range
 * that is re-homed. That cannot change later: a new mapping or swap entry is
 * only ever made out of an existing one, by fork, fault or userfaultfd in the
 * mm that has it, and the mmap and VMA write locks shut these out. (KSM maps
 * its folios into any mm: they are refused.)
 *
 * What goes on all the same needs no lock of the mm: reclaim, migration, memory
 * failure, the deferred split, GUP-fast. All but the last lock the folio first,
 * for rmap_walk() insists on it. So with the folio locked its PTEs, mapping and
 * index can be changed together. GUP-fast does not look at mapping and index,
 * and drops its reference again if the PTE has changed: pinned folios need no
 * care, unless they have to be split.
 *
 * The locks, in order: mmap_lock and VMA lock for writing, folio lock, page
 * table locks. A folio lock is waited for with no other folio and no page table
 * locked; otherwise it is only tried. No anon_vma lock is needed.
 */

#include <linux/hugetlb.h>
#include <linux/ksm.h>
#include <linux/mman.h>
#include <linux/pagemap.h>
#include <linux/swap.h>
#include <linux/unroll.h>

#include "internal.h"
#include "memcontrol-v1.h"
#include "rehome.h"

/* The range that is to be re-homed, and what is found out about it. */
struct rehome_range {
	struct vm_area_struct *vma;
	unsigned long start;
	unsigned long end;
	bool prepare;		/* Split folios, or only look? */
	bool unprepared;	/* Does it have to be prepared? */
	struct folio *checked;	/* The last large folio found fine, referenced. */
	struct rehome_refusal *refusal;	/* To be filled in, or NULL. */
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
	if (range->refusal) {
		range->refusal->reason = reason;
		range->refusal->addr = addr;
	}
	return -EFAULT;
}

/**
 * rehome_kind() - What to do about a PTE that is not present.
 * @pte: The PTE, not none.
 *
 * Returns: One of enum rehome_kind.
 */
enum rehome_kind rehome_kind(pte_t pte)
{
	const softleaf_t entry = softleaf_from_pte(pte);

	if (softleaf_is_swap(entry))
		return REHOME_SWAP;
	if (softleaf_is_migration(entry))
		return REHOME_MIGRATION;
	if (softleaf_is_device_private(entry) ||
	    softleaf_is_device_exclusive(entry))
		return REHOME_REFUSE;
	return REHOME_IGNORE;
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
 * Is a small folio, which a locked page table maps, ours alone? If someone else
 * has it locked, we cannot tell, and say no.
 */
static bool small_is_ours(struct folio *folio)
{
	bool ours;

	if (!folio_trylock(folio))
		return false;
	ours = !folio_test_ksm(folio) && folio_nr_users(folio) == 1;
	folio_unlock(folio);
	return ours;
}

/*
 * Do @nr PTEs map the pages from @pfn on, in a row? Out of line, so that the loop
 * over equal steps, which mostly answers this, keeps its values in registers.
 */
static noinline bool pfns_in_a_row(pte_t *ptep, long nr, unsigned long pfn)
{
	pte_t *end = ptep + nr;
	pte_t pte;

	for (; ptep < end; ptep++, pfn++) {
		pte = ptep_get(ptep);
		if (!pte_present(pte) || pte_pfn(pte) != pfn)
			return false;
	}
	return true;
}

/*
 * Do @nr PTEs from @ptep on map consecutive pages? The first one is present, and
 * its folio has so many pages from there on.
 *
 * The PFN can be in two parts of a PTE (arm64). A folio is aligned, so within it
 * no carry leaves the lower part, and each PTE is the one before plus the same
 * step. Most of the check of a large folio is spent here: four at a time.
 */
static __always_inline bool ptes_in_a_row(pte_t *ptep, long nr)
{
	const pte_t first = ptep_get(ptep);
	const u64 step = pte_val(pte_advance_pfn(first, 1)) - (u64)pte_val(first);
	u64 expected = pte_val(first);
	unsigned long left;
	int i;

	for (left = nr; left >= 4; left -= 4, ptep += 4) {
		unrolled_full
		for (i = 0; i < 4; i++, expected += step)
			if (pte_val(ptep_get(ptep + i)) != expected)
				goto slow;
	}
	if (!left)
		return true;
slow:
	/* Fewer than four are left, or one differs, perhaps only in its dirty bit. */
	return pfns_in_a_row(ptep, left, pte_pfn(first) + nr - left);
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
			for (; addr < end; addr += PAGE_SIZE)
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
	if (!folio_test_swapcache(folio) && pte_present(pte) &&
	    folio_pte_idx(folio, pte) == (addr - base) >> PAGE_SHIFT &&
	    ptes_in_a_row(start_ptep, nr)) {
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
			   unsigned long addr, const struct folio_ptes *found)
{
	if (!folio_test_large(folio) || found->shared ||
	    (folio_mapcount(folio) != found->mapped &&
	     (!found->mapped || folio_maybe_mapped_shared(folio))))
		return refuse(range, addr, found->cut ? NOT_REHOMED_CUT_SHARED :
							NOT_REHOMED_SHARED_PAGE);
	if (range->prepare)
		return split_cut_folio(range, folio, addr);
	range->unprepared = true;
	return can_split_cut_folio(folio) ? 0 :
	       refuse_to_split(range, folio, addr);
}

/*
 * May a folio be re-homed, if need be after a split? It is locked and
 * referenced, and the PTE at @addr holds its page number @idx, or did so when
 * we last looked.
 *
 * Returns 0 if so, -EFAULT if not, -EAGAIN to look at the PTE again, or -EINTR.
 */
static int check_folio(struct rehome_range *range, struct folio *folio,
		       unsigned long addr, long idx)
{
	const long nr_before = (addr - range->start) >> PAGE_SHIFT;
	const long nr_from = (range->end - addr) >> PAGE_SHIFT;
	const long nr = folio_nr_pages(folio);
	const unsigned long base = addr - (idx << PAGE_SHIFT);
	const unsigned long end = addr + (min(nr - idx, nr_from) << PAGE_SHIFT);
	struct folio_ptes found = { .cut = idx > nr_before || nr - idx > nr_from };
	unsigned long pos, next;

	pos = addr - (min(idx, nr_before) << PAGE_SHIFT);
	for (; pos < end; pos = next) {
		next = pmd_addr_end(pos, end);
		find_folio_in_table(range->vma, folio, base, pos, next, &found);
	}
	if (!found.mapped && !found.swapped)
		return -EAGAIN;
	if (!found.cut && found.mapped + found.swapped == folio_nr_users(folio))
		return 0;
	return check_cut_folio(range, folio, addr, &found);
}

/*
 * Page @idx of a folio that has been checked is fine. How many PTEs are, from its
 * own on? The folio or the page table is locked.
 */
static long nr_checked(struct rehome_range *range, struct folio *folio, long idx)
{
	/* Once something has to be prepared, this may be it: look at each PTE. */
	if (range->unprepared || !folio_all_mapped(folio))
		return 1;
	/* The next PTEs hold the rest of it. */
	return folio_nr_pages(folio) - idx;
}

/*
 * As check_folio(), for what the PTE at @addr held when its page table was
 * still locked: a page of @folio, or its swap entry. Sleeps.
 *
 * Returns the number of PTEs from @addr on that are fine, -EAGAIN to look at the
 * PTE again, -EFAULT, or -EINTR.
 */
static long check_folio_slow(struct rehome_range *range, struct folio *folio,
			     unsigned long addr, pte_t pte)
{
	long idx, nr = 1;
	int err;

	if (folio_lock_killable(folio))
		return -EINTR;
	idx = folio_pte_idx(folio, pte);
	if (idx < 0) {
		err = -EAGAIN;
	} else if (folio_test_ksm(folio)) {
		/* What has been swapped in again cannot be un-shared. */
		range->unprepared = true;
		err = !range->prepare && pte_present(pte) &&
		      (range->vma->vm_flags & VM_MERGEABLE) ? 0 :
		      refuse(range, addr, NOT_REHOMED_KSM);
	} else if (!folio_test_anon(folio)) {
		/*
		 * Just read into the swap cache, perhaps with pages of others.
		 * They cannot map it: of a folio that is not anonymous yet,
		 * do_swap_page() maps all pages or none. unuse_pte() expects
		 * no large one.
		 */
		err = page_swapcount(folio, idx) == 1 ? 0 :
		      refuse(range, addr, NOT_REHOMED_SHARED_PAGE);
	} else {
		err = check_folio(range, folio, addr, idx);
		if (!err && folio_test_large(folio)) {
			if (range->checked)
				folio_put(range->checked);
			folio_get(folio);
			range->checked = folio;
			nr = nr_checked(range, folio, idx);
		}
	}
	folio_unlock(folio);
	return err ?: nr;
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

/*
 * Look at the PTE at @ptep, and, if it maps a large folio that has been checked,
 * skip those behind it, before @end. Their page table is locked.
 *
 * Returns the number of PTEs that are fine, -EFAULT, or 0 if there is something
 * to wait for: @foliop is then the folio, referenced, or NULL for migration.
 */
static __always_inline int check_pte(struct rehome_range *range, pte_t *ptep,
				     pte_t *end, struct folio **foliop)
{
	pte_t pte = ptep_get(ptep);
	struct folio *folio;
	struct page *page;
	int ret;

	if (pte_none(pte))
		return 1;
	if (pte_present(pte)) {
		if (pte_maps_zero_page(pte))
			return 1;
		page = pte_page(pte);
		/* The folio cannot be split while it is mapped here. */
		folio = page_folio(page);
		if (!folio_test_large(folio)) {
			if (small_is_ours(folio))
				return 1;
		} else if (folio == range->checked) {
			return min_t(long, end - ptep,
				     nr_checked(range, folio,
						folio_page_idx(folio, page)));
		}
		folio_get(folio);
		*foliop = folio;
		return 0;
	}

	switch (rehome_kind(pte)) {
	case REHOME_IGNORE:
		return 1;
	case REHOME_REFUSE:
		return -EFAULT;
	case REHOME_MIGRATION:
		*foliop = NULL;
		return 0;
	case REHOME_SWAP:
		break;
	}
	ret = check_swap_entry(pte, foliop);
	if (ret || *foliop != range->checked)
		return ret;
	folio_put(*foliop);
	return 1;
}

/*
 * Skip the PTEs in [@ptep, @end) that are none, or map a small page of which
 * one look tells that it is ours alone. Their page table is locked.
 */
static pte_t *skip_exclusive_ptes(pte_t *ptep, pte_t *end)
{
	const unsigned long exclusive = BIT(PG_anon_exclusive);
	const unsigned long mask = BIT(PG_head) | exclusive;
	struct page *page;
	pte_t pte;

	for (; ptep < end; ptep++) {
		pte = ptep_get(ptep);
		if (pte_none(pte))
			continue;
		if (!pte_present(pte))
			break;
		if (pte_maps_zero_page(pte))
			continue;
		page = pte_page(pte);
		/*
		 * The bit is only ever set for a page with a single user. It is
		 * no page of hugetlb, which PageAnonExclusive() would ask for.
		 */
		if ((READ_ONCE(page->flags.f) & mask) != exclusive || PageTail(page))
			break;
	}
	return ptep;
}

/*
 * Skip the PTEs in [@ptep, @end) that map all of a large folio in a row, of which
 * one look tells that it is ours alone. Their page table is locked.
 */
static pte_t *skip_large_folios(pte_t *ptep, pte_t *end)
{
	struct folio *folio;
	bool ours;
	long nr;

	for (; ptep < end; ptep += nr) {
		if (!pte_large_folio_start(ptep_get(ptep), &folio))
			break;
		nr = folio_large_nr_pages(folio);
		if (ptep + nr > end || !folio_trylock(folio))
			break;
		ours = folio_large_mapcount(folio) == nr &&
		       !folio_test_swapcache(folio) && ptes_in_a_row(ptep, nr);
		folio_unlock(folio);
		if (!ours)
			break;
	}
	return ptep;
}

/* As check_folio(), for the PTEs of [addr, end) in one page table. */
static int check_ptes(struct rehome_range *range, pmd_t *pmd, unsigned long addr,
		      unsigned long end)
{
	struct mm_struct *mm = range->vma->vm_mm;
	pte_t *start_ptep, *end_ptep, *ptep, pte;
	struct folio *folio;
	spinlock_t *ptl;
	int ret = 0;
	long nr;

again:
	start_ptep = pte_offset_map_lock(mm, pmd, addr, &ptl);
	if (!start_ptep)
		return -EAGAIN;
	ptep = start_ptep;
	end_ptep = start_ptep + ((end - addr) >> PAGE_SHIFT);
	while (ptep < end_ptep) {
		ptep = skip_exclusive_ptes(ptep, end_ptep);
		ptep = skip_large_folios(ptep, end_ptep);
		if (ptep == end_ptep)
			break;
		ret = check_pte(range, ptep, end_ptep, &folio);
		if (ret <= 0)
			break;
		ptep += ret;
	}
	addr += (ptep - start_ptep) * PAGE_SIZE;
	if (addr < end)
		pte = ptep_get(ptep);
	pte_unmap_unlock(start_ptep, ptl);
	if (addr == end)
		return 0;
	/* Only entries that are not present are refused without a closer look. */
	if (ret)
		return refuse(range, addr, rehome_kind(pte) == REHOME_SWAP ?
			      NOT_REHOMED_SHARED_PAGE : NOT_REHOMED_DEVICE);

	if (!folio) {
		migration_entry_wait(mm, pmd, addr);
		goto again;
	}
	nr = check_folio_slow(range, folio, addr, pte);
	folio_put(folio);
	if (nr < 0)
		return nr;
	addr += nr * PAGE_SIZE;
	if (addr < end)
		goto again;
	return 0;
}

/**
 * pmd_is_empty() - Is there nothing below a PMD of a write-locked VMA?
 * @mm: The mm.
 * @pmd: The PMD.
 *
 * It can look so for a moment, while it is being changed under its lock. With
 * the VMA write-locked, only the neighbour that it shares a page table with can
 * fill it again.
 *
 * Returns: true if there is nothing.
 */
bool pmd_is_empty(struct mm_struct *mm, pmd_t *pmd)
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

/**
 * rehome_lock_leaf() - Lock the folio that a PMD maps, whole.
 * @vma: The VMA, write-locked.
 * @pmd: The PMD.
 * @foliop: Set to the folio, locked and referenced, or NULL if it is the zero
 *	    one.
 *
 * Sleeps: waits for the folio and for migration. With the folio locked, nobody
 * can split, unmap or migrate the PMD.
 *
 * Returns: false if the PMD maps no folio, or no longer.
 */
bool rehome_lock_leaf(struct vm_area_struct *vma, pmd_t *pmd,
		      struct folio **foliop)
{
	struct folio *folio;
	spinlock_t *ptl;
	bool same;

	while ((ptl = pmd_trans_huge_lock(pmd, vma))) {
		if (pmd_is_migration_entry(*pmd)) {
			spin_unlock(ptl);
			pmd_migration_entry_wait(vma->vm_mm, pmd);
			continue;
		}
		if (is_huge_zero_pmd(*pmd)) {
			spin_unlock(ptl);
			*foliop = NULL;
			return true;
		}
		folio = pmd_folio(*pmd);
		folio_get(folio);
		same = folio_trylock(folio);
		spin_unlock(ptl);
		if (!same) {
			folio_lock(folio);
			ptl = pmd_trans_huge_lock(pmd, vma);
			same = ptl && pmd_present(*pmd) &&
			       pmd_folio(*pmd) == folio;
			if (ptl)
				spin_unlock(ptl);
		}
		if (same) {
			*foliop = folio;
			return true;
		}
		folio_unlock(folio);
		folio_put(folio);
	}
	return false;
}

/* As check_folio(), for [addr, end) below one PMD. */
static int check_pmd(struct rehome_range *range, pmd_t *pmd, unsigned long addr,
		     unsigned long end)
{
	struct mm_struct *mm = range->vma->vm_mm;
	struct folio *folio;
	spinlock_t *ptl;
	int err = 0;

	if (pmd_is_empty(mm, pmd))
		return 0;
	ptl = pmd_trans_huge_lock(pmd, range->vma);
	if (!ptl)
		return check_ptes(range, pmd, addr, end);

	if (pmd_is_migration_entry(*pmd)) {
		spin_unlock(ptl);
		pmd_migration_entry_wait(mm, pmd);
		return -EAGAIN;
	}
	if (!pmd_present(*pmd)) {
		spin_unlock(ptl);
		return refuse(range, addr, NOT_REHOMED_DEVICE);
	}
	if (is_huge_zero_pmd(*pmd)) {
		spin_unlock(ptl);
		return 0;
	}
	folio = pmd_folio(*pmd);
	/* As for a small page: the first page of a PMD mapping has the bit. */
	if (end - addr == PMD_SIZE && PageAnonExclusive(&folio->page)) {
		spin_unlock(ptl);
		return 0;
	}
	folio_get(folio);
	spin_unlock(ptl);

	if (folio_lock_killable(folio)) {
		folio_put(folio);
		return -EINTR;
	}
	err = check_folio(range, folio, addr, (addr & ~PMD_MASK) >> PAGE_SHIFT);
	folio_unlock(folio);
	folio_put(folio);
	return err;
}

/* As check_folio(), for the whole range. */
static int check_range(struct rehome_range *range)
{
	unsigned long addr, next;
	pmd_t *pmd;
	int err = 0;

	vma_start_write(range->vma);
	for (addr = range->start; addr < range->end && !err; addr = next) {
		pmd = mm_find_pmd(range->vma->vm_mm, addr);
		if (!pmd) {
			next = pud_addr_end(addr, range->end);
			continue;
		}
		next = pmd_addr_end(addr, range->end);
		do {
			cond_resched();
			err = fatal_signal_pending(current) ? -EINTR :
			      check_pmd(range, pmd, addr, next);
		} while (err == -EAGAIN);
	}
	if (range->checked)
		folio_put(range->checked);
	return err;
}

/**
 * rehome_check() - Can all the folios of a range be re-homed?
 * @vma: A VMA for which vma_can_rehome() holds.
 * @start: Start of the range, in bytes, within @vma.
 * @end: End of the range, in bytes, exclusive, within @vma.
 * @refusal: Filled in with the reason for -EFAULT, if not NULL.
 *
 * The mmap write lock must be held; @vma is write-locked here, and the answer
 * stands for as long as both are. Changes nothing. Sleeps: waits for locked
 * folios and for migration.
 *
 * Returns: 0 if they can, REHOME_PREPARE if they can unless rehome_prepare()
 * fails, -EFAULT if some cannot, -EINTR if a fatal signal is pending.
 */
int rehome_check(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end, struct rehome_refusal *refusal)
{
	struct rehome_range range = {
		.vma = vma, .start = start, .end = end, .refusal = refusal,
	};

	return check_range(&range) ?: range.unprepared ? REHOME_PREPARE : 0;
}

/**
 * rehome_prepare() - Make sure that the folios of a range can be re-homed.
 * @vma: A VMA for which vma_can_rehome() holds.
 * @start: Start of the range, in bytes, within @vma.
 * @end: End of the range, in bytes, exclusive, within @vma.
 * @refusal: Filled in with the reason for -EFAULT, if not NULL.
 *
 * To be called where rehome_check() says so. Un-shares KSM pages, and splits
 * large folios of which a part is elsewhere, or drops them from the swap cache if
 * they are not mapped. Waits for their writeback. One that is pinned cannot be
 * split.
 *
 * The mmap write lock must be held.
 *
 * Returns: 0 if they can be re-homed now, -EFAULT if some cannot, -EINTR if a
 * fatal signal is pending; if KSM pages have to be un-shared, also -ENOMEM, or
 * -ERESTARTSYS if any signal is pending.
 */
int rehome_prepare(struct vm_area_struct *vma, unsigned long start,
		   unsigned long end, struct rehome_refusal *refusal)
{
	struct rehome_range range = {
		.vma = vma, .start = start, .end = end, .prepare = true,
		.refusal = refusal,
	};
	vm_flags_t dummy = vma->vm_flags;

	/* A KSM page is never ours alone. A plain move un-shares them too. */
	return ksm_madvise(vma, start, end, MADV_UNMERGEABLE, &dummy) ?:
	       check_range(&range);
}
