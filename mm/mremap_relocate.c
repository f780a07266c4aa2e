// SPDX-License-Identifier: GPL-2.0
/*
 * Relocation of anonymous memory by mremap(), in place or after a move, see
 * MREMAP_RELOCATE_ANON in Documentation/mm/mremap_relocate.rst: which VMAs of a
 * range have to change, and what their folios are re-homed to.
 */

#include <linux/hugetlb.h>
#include <linux/mm.h>
#include <linux/rmap.h>

#include "internal.h"
#include "mremap_relocate.h"

#define CREATE_TRACE_POINTS
#include <trace/events/mremap.h>

/**
 * mremap_report_reason() - Remember why memory of a VMA is not relocated.
 * @report: The report on the call.
 * @reason: The reason. The first one is kept, but a refusal prevails over nothing
 *	    to gain.
 */
void mremap_report_reason(struct mremap_report *report, enum rehome_reason reason)
{
	if (!report->reason || (report->reason < NOT_REHOMED_FIRST_REFUSAL &&
				reason >= NOT_REHOMED_FIRST_REFUSAL))
		report->reason = reason;
}

/* [start, end) cannot be relocated; @refusal says why if @err is -EFAULT. */
static int report_refused(struct mremap_relocation *rel, unsigned long start,
			  unsigned long end, int err,
			  struct rehome_refusal *refusal)
{
	if (err != -EFAULT) {
		refusal->reason = err == -ENOMEM ? NOT_REHOMED_NO_MEMORY :
				  err == -EPERM ? NOT_REHOMED_SEALED :
						  NOT_REHOMED_SIGNAL;
		refusal->addr = start;
	}
	count_vm_event(MREMAP_RELOCATE_REFUSED);
	trace_mremap_relocate_refused(start, end, refusal->addr, refusal->reason);
	mremap_report_reason(rel->report, refusal->reason);
	return err;
}

static void report_relocated(struct mremap_relocation *rel,
			     const struct rehome_count *count)
{
	count_vm_event(MREMAP_RELOCATE);
	count_vm_events(MREMAP_RELOCATE_PAGES, count->pages);
	rel->report->vmas++;
	rel->report->rehomed.folios += count->folios;
	rel->report->rehomed.pages += count->pages;
}

/*
 * Make [start, end) of @vma a VMA of its own. If that fails it may be split in two.
 */
static int isolate_part(struct vm_area_struct *vma, unsigned long start,
			unsigned long end)
{
	VMA_ITERATOR(vmi, vma->vm_mm, start);
	int err = 0;

	if (vma->vm_start < start)
		err = split_vma(&vmi, vma, start, /* new_below= */1);
	if (!err && vma->vm_end > end)
		err = split_vma(&vmi, vma, end, /* new_below= */0);
	return err;
}

/*
 * Re-home the folios of a VMA to where it is, and to @anon_vma, or if that is NULL
 * to a new one. Returns as rehome_vma() does, or -ENOMEM.
 */
static int relocate_to(struct mremap_relocation *rel, struct vm_area_struct *vma,
		       struct vm_area_struct *alias, struct anon_vma *anon_vma,
		       struct rehome_count *count,
		       struct rehome_refusal *refusal)
{
	int err;

	err = anon_vma_attach(alias, anon_vma, GFP_KERNEL);
	if (err)
		return err;
	err = rehome_vma(vma, alias, rel->asked ? REHOME_SPLIT : 0, count, refusal);
	if (!err) {
		anon_vma_adopt(vma, alias);
		return 0;
	}
	unlink_anon_vmas(alias);
	if (err == REHOME_EMPTY) {
		vma_unfault(vma);
		return 0;
	}
	return err;
}

/*
 * Would an alias of a VMA, with @anon_vma, be so near that a walk of the rmap
 * cannot tell them apart? If both are in the interval tree of one anon_vma, a walk
 * for a folio visits both. In the wrong one it looks for the folio as far from its
 * place as the page offsets differ. If that is still within a large folio,
 * page_vma_mapped_walk() finds it there, at a wrong address.
 */
static bool alias_is_near(struct vm_area_struct *vma, struct anon_vma *anon_vma)
{
	const pgoff_t distance = abs_diff(vma_start_pgoff(vma),
					  (pgoff_t)(vma->vm_start >> PAGE_SHIFT));
	struct anon_vma_chain *avc;

	/* With the same page offset both places are the right one. */
	if (!distance || distance >= PMD_SIZE >> PAGE_SHIFT)
		return false;
	list_for_each_entry(avc, &vma->anon_vma_chain, same_vma) {
		if (avc->anon_vma == anon_vma)
			return true;
	}
	return false;
}

/* Relocate a VMA, all of it. Returns 0 or an error. */
static int relocate_vma(struct mremap_relocation *rel, struct vm_area_struct *vma,
			struct rehome_count *count, struct rehome_refusal *refusal)
{
	struct anon_vma *anon_vma = rel->run.anon_vma;
	struct rehome_count again = {};
	struct vm_area_struct alias;
	int err;

	vma_alias_init(&alias, vma);
	if (!anon_vma)
		anon_vma = find_mergeable_anon_vma(&alias);
	if (!alias_is_near(vma, anon_vma))
		return relocate_to(rel, vma, &alias, anon_vma, count, refusal);

	/*
	 * By way of an anon_vma of its own, and from there with the same page
	 * offset. If the second step fails it is at home all the same.
	 */
	err = relocate_to(rel, vma, &alias, NULL, count, refusal);
	if (!err && vma->anon_vma)
		relocate_to(rel, vma, &alias, anon_vma, &again, refusal);
	return err;
}

static int relocate_part(struct mremap_relocation *rel, struct vm_area_struct *vma,
			 unsigned long start, unsigned long end)
{
	const bool is_part = vma->vm_start < start || vma->vm_end > end;
	struct rehome_refusal refusal = {
		.reason = vma_rehome_reason(vma), .addr = start,
	};
	struct rehome_count count = {};
	int err = 0;

	if (refusal.reason) {
		if (rel->asked)
			report_refused(rel, start, end, -EFAULT, &refusal);
		return 0;
	}
	/* The move has merged it. */
	if (rel->distance && is_part) {
		mremap_report_reason(rel->report, NOT_REHOMED_MERGES);
		return 0;
	}
	if (start >= rel->run.end)
		vma_find_run(vma, start, rel->end, &rel->run);
	if (!vma_run_needs(&rel->run, vma)) {
		if (rel->distance)
			mremap_report_reason(rel->report, vma->anon_vma ?
					     NOT_REHOMED_MERGES :
					     NOT_REHOMED_UNFAULTED);
		/* It may not have merged before: no memory, or DONTUNMAP. */
		if (rel->run.can_merge && vma->anon_vma)
			vma_merge_relocated(vma);
		return 0;
	}

	if (vma_is_sealed(vma))
		err = -EPERM;
	/* Do not take apart what would have to be joined again. */
	if (!err && is_part)
		err = min(0, rehome_check(vma, start, end, 0, &refusal));
	if (!err && is_part)
		err = isolate_part(vma, start, end);
	if (!err) {
		err = relocate_vma(rel, vma, &count, &refusal);
		if (!err)
			report_relocated(rel, &count);
		if (!err && !rel->run.anon_vma)
			rel->run.anon_vma = vma->anon_vma;
		if (!err || is_part)
			vma_merge_relocated(vma);
	}
	if (err)
		report_refused(rel, start, end, err, &refusal);
	return err == -EINTR ? err : 0;
}

/**
 * mremap_relocate() - Relocate a range to where it is.
 * @rel: What is to be relocated, in place or after a move.
 *
 * As if the range had been mapped here, and faulted as one: those of its VMAs
 * that have another page offset, or whose anon_vma alone keeps them from merging
 * with a neighbour, are relocated and merge. The range can have gaps. In place, a
 * VMA that is only in part in the range is split if its page offset has to change.
 * After a move it has merged, and is left alone. If nothing is to be gained,
 * nothing is touched.
 *
 * The mmap write lock must be held. Sleeps.
 *
 * Returns: 0, or -EINTR if a fatal signal is pending.
 */
int mremap_relocate(struct mremap_relocation *rel)
{
	struct vm_area_struct *vma;
	unsigned long addr, next;
	int err;

	rel->run.end = 0;
	for (addr = rel->start; addr < rel->end; addr = next) {
		cond_resched();
		vma = find_vma(rel->mm, addr);
		if (!vma || vma->vm_start >= rel->end)
			break;
		addr = max(addr, vma->vm_start);
		next = min(vma->vm_end, rel->end);
		err = relocate_part(rel, vma, addr, next);
		if (err)
			return err;
	}
	return 0;
}
