/* SPDX-License-Identifier: GPL-2.0 */
/* Relocation of anonymous memory: what mm/mremap.c does with mm/rehome.c. */
#ifndef __MM_MREMAP_RELOCATE_H
#define __MM_MREMAP_RELOCATE_H

#include "rehome.h"

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

/**
 * struct mremap_relocation - what is to be relocated
 * @mm: The mm of the current process.
 * @start: Start of the range, in bytes.
 * @end: End of the range, in bytes, exclusive.
 * @distance: How far it has moved, in bytes: new minus old address; 0 in place.
 * @asked: Has the program asked for it?
 * @run: The VMAs that are going to merge, as far as the range has been walked.
 * @report: Added to: what has been relocated, and why not all.
 */
struct mremap_relocation {
	struct mm_struct *mm;
	unsigned long start;
	unsigned long end;
	unsigned long distance;
	bool asked;
	struct vma_run run;
	struct mremap_report *report;
};

/* mm/mremap_relocate.c */
void mremap_report_reason(struct mremap_report *report, enum rehome_reason reason);
int mremap_relocate(struct mremap_relocation *rel);

#endif /* __MM_MREMAP_RELOCATE_H */
