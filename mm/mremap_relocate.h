/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Relocation of anonymous folios by mremap(). mm/mremap.c calls mremap_relocate(),
 * mremap_relocate_in_place() and mremap_relocate_unasked(); the rest are their
 * steps, and what they report back.
 */
#ifndef __MM_MREMAP_RELOCATE_H
#define __MM_MREMAP_RELOCATE_H

#include "internal.h"
#include "rehome.h"

/**
 * struct mremap_relocation - what mremap_relocate_alloc() took for a move
 * @spare: Page tables that no one has seen yet; spare_inline, allocated or NULL.
 * @spare_inline: Room for as many as are needed if page tables can be moved.
 * @nr_spare: How many are left.
 * @emptied: PMDs of the source whose page tables have been emptied PTE by PTE
 *	     and can be used again.
 * @emptied_addr: The addresses in the source that they are at, in bytes.
 * @nr_emptied: How many there are.
 * @folios: Room for the folios of one page table, or NULL.
 * @rehomed: What has been re-homed, up to now.
 */
struct mremap_relocation {
	pgtable_t *spare;
	pgtable_t spare_inline[2];
	unsigned long nr_spare;
	pmd_t *emptied[2];
	unsigned long emptied_addr[2];
	unsigned int nr_emptied;
	struct folio **folios;
	struct rehome_count rehomed;
};

/* Where in the destination does @addr of the source go? */
static inline unsigned long mremap_new_addr(struct pagetable_move_control *pmc,
					    unsigned long addr)
{
	return addr - pmc->old_addr + pmc->new_addr;
}

/* Is all that is below the PMD at @addr in [start, end)? */
static inline bool pmd_is_within(unsigned long addr, unsigned long start,
				 unsigned long end)
{
	return (addr & PMD_MASK) >= start && (addr | ~PMD_MASK) < end;
}

/* Is there a page table below a PMD that others can change? If so, it stays. */
static inline bool pmd_has_table(pmd_t *pmdp)
{
	const pmd_t pmd = pmdp_get_lockless(pmdp);

	return pmd_present(pmd) && !pmd_leaf(pmd);
}

/**
 * struct mremap_report - what has become of a call that was to relocate memory
 * @vmas: How many VMAs have been relocated.
 * @rehomed: What has been re-homed.
 * @reason: Why not all of the range was: the first reason, and a refusal rather
 *	    than that there was nothing to gain.
 */
struct mremap_report {
	unsigned long vmas;
	struct rehome_count rehomed;
	enum rehome_reason reason;
};

/* mm/mremap.c */
void mremap_report_refused(struct mremap_report *report, unsigned long start,
			   unsigned long end, int err,
			   struct rehome_refusal *refusal);
void mremap_report_rehomed(struct mremap_report *report,
			   const struct rehome_count *rehomed);

/* mm/mremap_relocate_tables.c */
unsigned long mremap_relocate_extent(struct pagetable_move_control *pmc,
				     unsigned long addr, unsigned long end,
				     pmd_t **old_pmdp);
int mremap_relocate_alloc(struct pagetable_move_control *pmc,
			  struct mremap_relocation *rel);
void mremap_relocate_finish(struct mm_struct *mm,
			    struct mremap_relocation *rel);
void mremap_relocate_free(struct pagetable_move_control *pmc,
			  struct mremap_relocation *rel);
void mremap_relocate_table(struct pagetable_move_control *pmc,
			   unsigned long addr, pmd_t *old_pmd, pmd_t *new_pmd);
void mremap_relocate_use_spare(struct pagetable_move_control *pmc,
			       struct mremap_relocation *rel, pmd_t *new_pmd);
void mremap_relocate_emptied(struct mremap_relocation *rel, unsigned long addr,
			     pmd_t *old_pmd);

/* mm/mremap_relocate.c */
void mremap_relocate_move(struct pagetable_move_control *pmc,
			  struct mremap_relocation *rel);
int mremap_relocate(struct pagetable_move_control *pmc, unsigned long new_len,
		    struct rehome_count *rehomed);

/* mm/mremap_relocate_inplace.c */
void mremap_rehome_to_copy(struct vm_area_struct *copy,
			   struct rehome_count *rehomed);
int mremap_relocate_in_place(struct mm_struct *mm, unsigned long start,
			     unsigned long end, bool must,
			     struct mremap_report *report);

/* mm/mremap_relocate_mode.c */
extern int sysctl_mremap_relocate;
bool mremap_relocate_unasked(struct vm_area_struct *vma, unsigned long start,
			     unsigned long len, unsigned long distance,
			     unsigned long flags);

#endif /* __MM_MREMAP_RELOCATE_H */
