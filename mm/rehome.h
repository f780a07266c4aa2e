/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Re-homing of anonymous folios: may a folio be given a new index and anon_vma,
 * and doing so.
 */
#ifndef __MM_REHOME_H
#define __MM_REHOME_H

#include <linux/leafops.h>
#include <linux/mm.h>
#include <linux/pagemap.h>
#include <linux/pgtable.h>
#include <linux/rmap.h>

#include "swap.h"

/* What rehome_check() returns if rehome_prepare() has to be called. */
#define REHOME_PREPARE	1

/* What to do about a PTE that is neither none nor present. */
enum rehome_kind {
	REHOME_IGNORE,		/* Nothing that depends on where it is. */
	REHOME_SWAP,		/* A swap entry; its folio may be cached. */
	REHOME_MIGRATION,	/* Wait, and look again. */
	REHOME_REFUSE,		/* Device memory. */
};

/*
 * Why a range is not re-homed. Documentation/admin-guide/mm/mremap_relocate.rst
 * explains them to users, who see the names in include/trace/events/mremap.h.
 */
enum rehome_reason {
	REHOME_OK,

	/* There is nothing to gain. */
	NOT_REHOMED_UNMOVED,
	NOT_REHOMED_UNFAULTED,
	NOT_REHOMED_MERGES,

	/* A refusal, from here on. First the kind of mapping. */
	NOT_REHOMED_FILE,
	NOT_REHOMED_SHARED_MAPPING,
	NOT_REHOMED_HUGETLB,
	NOT_REHOMED_SPECIAL,

	/* A page. */
	NOT_REHOMED_SHARED_PAGE,
	NOT_REHOMED_KSM,
	NOT_REHOMED_DEVICE,

	/* A large folio that has to be split, and cannot be. */
	NOT_REHOMED_CUT_SHARED,
	NOT_REHOMED_CUT_PINNED,
	NOT_REHOMED_CUT_BUSY,

	/* Something has to be prepared, and the program has not asked for it. */
	NOT_REHOMED_UNASKED,

	/* An error other than -EFAULT. */
	NOT_REHOMED_NO_MEMORY,
	NOT_REHOMED_SIGNAL,
};

#define NOT_REHOMED_FIRST_REFUSAL	NOT_REHOMED_FILE

/**
 * struct rehome_refusal - why the folios of a range cannot be re-homed
 * @reason: The reason.
 * @addr: The address of the first page that is in the way, in bytes.
 */
struct rehome_refusal {
	enum rehome_reason reason;
	unsigned long addr;
};

/**
 * struct rehome_count - what has been re-homed
 * @folios: The number of folios.
 * @pages: The number of pages that they have, mapped or not.
 */
struct rehome_count {
	unsigned long folios;
	unsigned long pages;
};

enum rehome_reason vma_rehome_reason(const struct vm_area_struct *vma);
int rehome_check(struct vm_area_struct *vma, unsigned long start,
		 unsigned long end, struct rehome_refusal *refusal);
int rehome_prepare(struct vm_area_struct *vma, unsigned long start,
		   unsigned long end, struct rehome_refusal *refusal);
enum rehome_kind rehome_kind(pte_t pte);
bool pmd_is_empty(struct mm_struct *mm, pmd_t *pmd);
bool rehome_lock_leaf(struct vm_area_struct *vma, pmd_t *pmd,
		      struct folio **foliop);

/**
 * vma_can_rehome() - Does a VMA hold the kind of memory that can be re-homed?
 * @vma: The VMA.
 *
 * Returns: true for private anonymous memory.
 */
static inline bool vma_can_rehome(const struct vm_area_struct *vma)
{
	return vma_rehome_reason(vma) == REHOME_OK;
}

/**
 * pte_maps_zero_page() - Is it the zero page that a PTE maps?
 * @pte: A present PTE of a VMA for which vma_can_rehome() holds.
 *
 * If not, pte_page() is the page: a VMA without VM_PFNMAP and VM_MIXEDMAP maps
 * nothing else. Compare vm_normal_page().
 *
 * Returns: true if so.
 */
static inline bool pte_maps_zero_page(pte_t pte)
{
	if (IS_ENABLED(CONFIG_ARCH_HAS_PTE_SPECIAL))
		return pte_special(pte);
	return is_zero_pfn(pte_pfn(pte));
}

/**
 * pte_small_folio() - Does a PTE map a folio of one page?
 * @pte: A PTE of a VMA for which vma_can_rehome() holds; its page table is
 *	 locked, so that the page stays.
 * @foliop: Set to the folio if so.
 *
 * Returns: true if so.
 */
static inline bool pte_small_folio(pte_t pte, struct folio **foliop)
{
	struct page *page;

	if (!pte_present(pte) || pte_maps_zero_page(pte))
		return false;
	page = pte_page(pte);
	if (PageCompound(page))
		return false;
	/* page_folio() would look for a head page once more. */
	*foliop = (struct folio *)page;
	return true;
}

/**
 * pte_large_folio_start() - Does a PTE map the first page of a large folio?
 * @pte: A PTE of a VMA for which vma_can_rehome() holds; its page table is
 *	 locked, so that the folio cannot be split.
 * @foliop: Set to the folio if so.
 *
 * Returns: true if so.
 */
static inline bool pte_large_folio_start(pte_t pte, struct folio **foliop)
{
	struct page *page;

	if (!pte_present(pte) || pte_maps_zero_page(pte))
		return false;
	page = pte_page(pte);
	if (!PageHead(page))
		return false;
	*foliop = (struct folio *)page;
	return true;
}

/**
 * folio_all_mapped() - Is each page of a folio mapped?
 * @folio: A folio that rehome_check() has found to have all its users in the
 *	   range, in their places. It or one of its page tables is locked.
 *
 * If it is mapped as often as it has pages, then yes: no place in the range can
 * map more than one page.
 *
 * Returns: true if a PTE maps each page.
 */
static inline bool folio_all_mapped(struct folio *folio)
{
	return folio_mapcount(folio) == folio_nr_pages(folio);
}

/**
 * folio_pte_idx() - Which page of a folio does a PTE hold?
 * @folio: A folio, locked.
 * @pte: A PTE, not none; its page table is locked, or was when it was read.
 *
 * The PTE can map the page or, if the folio is in the swap cache, be its swap
 * entry.
 *
 * Returns: The number of the page in @folio, or -1.
 */
static inline long folio_pte_idx(struct folio *folio, pte_t pte)
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

/**
 * rehome_folio() - Give a folio a new home.
 * @folio: An anonymous folio, locked, that rehome_check() has agreed to.
 * @vma: The VMA that is going to map it.
 * @index: The anonymous page offset in @vma of its first page, mapped or not.
 *
 * The lock must not be dropped before the last PTE that maps @folio has moved:
 * an rmap walk holds it, and must find what index and anon_vma promise.
 */
static inline void rehome_folio(struct folio *folio, struct vm_area_struct *vma,
				pgoff_t index)
{
	VM_WARN_ON_ONCE_FOLIO(!folio_test_locked(folio), folio);
	VM_WARN_ON_ONCE_FOLIO(!folio_test_anon(folio), folio);
	VM_WARN_ON_ONCE_FOLIO(folio_test_ksm(folio), folio);
	/* All of it was in the range. */
	VM_WARN_ON_ONCE_FOLIO(index < vma_start_anon_pgoff(vma) ||
			      index + folio_nr_pages(folio) >
			      vma_start_anon_pgoff(vma) + vma_pages(vma), folio);

	/* folio_move_anon_rmap(), inline: this is the hot path. */
	WRITE_ONCE(folio->mapping, (void *)vma->anon_vma + FOLIO_MAPPING_ANON);
	folio->index = index;
}

#endif /* __MM_REHOME_H */
