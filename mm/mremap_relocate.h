/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Relocation of anonymous folios by mremap(): what mm/mremap.c needs of
 * mm/mremap_relocate.c, and the reverse.
 */
#ifndef __MM_MREMAP_RELOCATE_H
#define __MM_MREMAP_RELOCATE_H

#include <linux/mm.h>

struct pagetable_move_control;

/**
 * struct relocate_tables - page tables that a relocation may turn out to need
 * @spare: one page table for each PMD leaf of the source that can stay one
 * @nr_spare: how many are left
 *
 * Reclaim and migration may split such a leaf at any time until its folio is
 * locked, and by then there is no way back.
 */
struct relocate_tables {
	pgtable_t *spare;
	unsigned long nr_spare;
};

/* mm/mremap_relocate.c */
bool vma_can_relocate(const struct vm_area_struct *vma);
int relocate_check(struct vm_area_struct *vma, unsigned long start,
		   unsigned long end);
int relocate_alloc_tables(struct pagetable_move_control *pmc,
			  struct relocate_tables *tables);
void relocate_free_tables(struct pagetable_move_control *pmc,
			  struct relocate_tables *tables);
void relocate_page_tables(struct pagetable_move_control *pmc,
			  struct relocate_tables *tables);

/* mm/mremap.c */
pmd_t *alloc_new_pmd(struct mm_struct *mm, unsigned long addr);
int move_pte_batch(struct vm_area_struct *vma, bool clear_uffd_wp,
		   unsigned long old_addr, pte_t *old_ptep,
		   unsigned long new_addr, pte_t *new_ptep,
		   int max_nr_ptes, bool *force_flush);

#endif /* __MM_MREMAP_RELOCATE_H */
