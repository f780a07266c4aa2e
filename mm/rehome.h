/* SPDX-License-Identifier: GPL-2.0 */
/* Re-homing of anonymous folios: giving them a new index and anon_vma. */
#ifndef __MM_REHOME_H
#define __MM_REHOME_H

#include <linux/mm_types.h>

/* What the functions below return besides 0 and errors. */
#define REHOME_PREPARE	1	/* Fine, but some folios have to be split. */
#define REHOME_EMPTY	2	/* There is no folio, and no swap entry. */

/* What the functions below may do, or rely on. */
#define REHOME_SPLIT	BIT(0)	/* Folios that are cut may be split. */
#define REHOME_UNSHARED	BIT(1)	/* KSM pages are about to be un-shared. */

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
	NOT_REHOMED_SEALED,

	/* A page. */
	NOT_REHOMED_SHARED_PAGE,
	NOT_REHOMED_KSM,
	NOT_REHOMED_DEVICE,

	/* A large folio that has to be split, and cannot be. */
	NOT_REHOMED_CUT_SHARED,
	NOT_REHOMED_CUT_PINNED,
	NOT_REHOMED_CUT_BUSY,

	/* A folio has to be split, and the program has not asked for it. */
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
		 unsigned long end, unsigned int flags,
		 struct rehome_refusal *refusal);
int rehome_vma(struct vm_area_struct *vma, struct vm_area_struct *alias,
	       unsigned int flags, struct rehome_count *count,
	       struct rehome_refusal *refusal);

#endif /* __MM_REHOME_H */
