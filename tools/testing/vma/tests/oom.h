/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Allocations that fail when they are told to, and anon_vmas that are counted.
 *
 * To be included after the functions that are overridden here, and before
 * mm/vma.c: everything in mm/vma.c that allocates is led through
 * oom_should_fail(), and other uses of objects with a lifetime are kept
 * count of. Other tests see the stubs as they are, since nothing of this is in
 * effect unless oom.active is set.
 */
#ifndef _TESTS_OOM_H
#define _TESTS_OOM_H

enum oom_alloc {
	OOM_ALLOC_NODES,	/* vma_iter_prealloc() */
	OOM_ALLOC_AVC,		/* A link of an anon_vma that is cloned. */
	OOM_ALLOC_VMA,
	OOM_ALLOC_POLICY,
	OOM_ALLOC_STORE,	/* A store into a tree that allocates itself. */
	OOM_NR_ALLOCS,
};

static struct {
	bool active;
	bool warned;		/* There was a VM_WARN_ON(). */
	bool bad_free;		/* A VMA was freed with anon_vmas linked. */
	bool rest;		/* Fail all allocations from the n-th on. */
	unsigned int nth;	/* Fail this allocation, 0 for none. */
	unsigned int allocs;	/* Allocations seen. */
	unsigned int failed;	/* Allocations failed. */
	enum oom_alloc first;	/* The first one that failed. */

	int nr_vmas;
	int nr_policies;
	int nr_files;
	int nr_open;		/* Calls of open() minus calls of close(). */
	long nr_charged;	/* Pages of the commit charge. */
} oom;

/* The counts of an anon_vma, and of its interval tree. */
struct oom_anon_vma {
	struct anon_vma anon_vma;
	int nr_links;
	int nr_active;
};

static inline struct oom_anon_vma *oom_anon_vma(struct anon_vma *anon_vma)
{
	return (struct oom_anon_vma *)anon_vma;
}

static inline bool oom_should_fail(enum oom_alloc what)
{
	unsigned int n;

	if (!oom.active)
		return false;

	n = ++oom.allocs;
	if (!oom.nth || n < oom.nth || (n > oom.nth && !oom.rest))
		return false;

	if (!oom.failed++)
		oom.first = what;
	return true;
}

/* Leaves the iterator as mas_preallocate() does when it fails. */
static inline int oom_iter_prealloc(struct vma_iterator *vmi,
				    struct vm_area_struct *vma)
{
	if (oom_should_fail(OOM_ALLOC_NODES)) {
		mas_destroy(&vmi->mas);
		mas_reset(&vmi->mas);
		return -ENOMEM;
	}

	return vma_iter_prealloc(vmi, vma);
}

static inline int oom_fail_store(struct ma_state *mas)
{
	mas->node = MA_ERROR(-ENOMEM);
	mas->status = ma_error;
	return -ENOMEM;
}

static inline int oom_iter_store_gfp(struct vma_iterator *vmi,
				     struct vm_area_struct *vma, gfp_t gfp)
{
	if (oom_should_fail(OOM_ALLOC_STORE))
		return oom_fail_store(&vmi->mas);

	return vma_iter_store_gfp(vmi, vma, gfp);
}

static inline int oom_iter_clear_gfp(struct vma_iterator *vmi,
				     unsigned long start, unsigned long end,
				     gfp_t gfp)
{
	if (oom_should_fail(OOM_ALLOC_STORE))
		return oom_fail_store(&vmi->mas);

	return vma_iter_clear_gfp(vmi, start, end, gfp);
}

static inline int oom_mas_store_gfp(struct ma_state *mas, void *entry, gfp_t gfp)
{
	if (!(gfp & __GFP_NOFAIL) && oom_should_fail(OOM_ALLOC_STORE))
		return oom_fail_store(mas);

	return mas_store_gfp(mas, entry, gfp);
}

static inline struct vm_area_struct *oom_vm_area_alloc(struct mm_struct *mm)
{
	struct vm_area_struct *vma;

	if (oom_should_fail(OOM_ALLOC_VMA))
		return NULL;

	vma = vm_area_alloc(mm);
	if (vma && oom.active)
		oom.nr_vmas++;
	return vma;
}

static inline struct vm_area_struct *oom_vm_area_dup(struct vm_area_struct *orig)
{
	struct vm_area_struct *vma;

	if (oom_should_fail(OOM_ALLOC_VMA))
		return NULL;

	vma = vm_area_dup(orig);
	if (vma && oom.active)
		oom.nr_vmas++;
	return vma;
}

static inline void oom_vm_area_free(struct vm_area_struct *vma)
{
	if (oom.active) {
		oom.bad_free |= !list_empty(&vma->anon_vma_chain);
		oom.nr_vmas--;
	}
	vm_area_free(vma);
}

static inline int oom_vma_dup_policy(struct vm_area_struct *src,
				     struct vm_area_struct *dst)
{
	if (oom_should_fail(OOM_ALLOC_POLICY))
		return -ENOMEM;

	if (oom.active && src->vm_policy)
		oom.nr_policies++;
	return vma_dup_policy(src, dst);
}

static inline void oom_mpol_put(struct mempolicy *policy)
{
	if (oom.active && policy)
		oom.nr_policies--;
	mpol_put(policy);
}

static inline struct file *oom_get_file(struct file *file)
{
	if (oom.active)
		oom.nr_files++;
	return get_file(file);
}

static inline void oom_fput(struct file *file)
{
	if (oom.active)
		oom.nr_files--;
	fput(file);
}

static inline void oom_vma_close(struct vm_area_struct *vma)
{
	if (oom.active && vma->vm_ops && vma->vm_ops->close)
		vma->vm_ops->close(vma);
	else
		vma_close(vma);
}

static inline bool oom_link_anon_vma(struct vm_area_struct *vma,
				     struct anon_vma *anon_vma)
{
	struct anon_vma_chain *avc = calloc(1, sizeof(*avc));

	if (!avc)
		return false;

	avc->anon_vma = anon_vma;
	list_add_tail(&avc->same_vma, &vma->anon_vma_chain);
	oom_anon_vma(anon_vma)->nr_links++;
	return true;
}

static inline void oom_unlink_chain(struct vm_area_struct *vma)
{
	struct anon_vma_chain *avc, *next;

	list_for_each_entry_safe(avc, next, &vma->anon_vma_chain, same_vma) {
		oom_anon_vma(avc->anon_vma)->nr_links--;
		list_del(&avc->same_vma);
		free(avc);
	}
}

static inline void oom_unlink_anon_vmas(struct vm_area_struct *vma)
{
	if (!oom.active) {
		unlink_anon_vmas(vma);
		return;
	}

	oom_unlink_chain(vma);
	if (vma->anon_vma)
		oom_anon_vma(vma->anon_vma)->nr_active--;
	vma->anon_vma = NULL;
}

static inline int oom_anon_vma_clone(struct vm_area_struct *dst,
				     struct vm_area_struct *src,
				     enum vma_operation operation)
{
	struct anon_vma_chain *avc;

	if (!oom.active)
		return anon_vma_clone(dst, src, operation);

	if (!src->anon_vma)
		return 0;

	list_for_each_entry(avc, &src->anon_vma_chain, same_vma) {
		if (!oom_should_fail(OOM_ALLOC_AVC) &&
		    oom_link_anon_vma(dst, avc->anon_vma))
			continue;

		oom_unlink_chain(dst);
		dst->anon_vma = NULL;
		return -ENOMEM;
	}

	oom_anon_vma(dst->anon_vma)->nr_active++;
	return 0;
}

/* The stubs know no policy, name or userfaultfd, they all are the same there. */
static inline bool oom_mpol_equal(struct mempolicy *a, struct mempolicy *b)
{
	return a == b;
}

static inline bool oom_name_eq(struct anon_vma_name *a, struct anon_vma_name *b)
{
	return a == b;
}

static inline bool oom_mergeable_ctx(struct vm_area_struct *vma,
				     struct vm_userfaultfd_ctx ctx)
{
	return vma->vm_userfaultfd_ctx.ctx == ctx.ctx;
}

static inline int oom_enough_memory(struct mm_struct *mm, long pages)
{
	oom.nr_charged += pages;
	return security_vm_enough_memory_mm(mm, pages);
}

static inline void oom_unacct_memory(long pages)
{
	oom.nr_charged -= pages;
	vm_unacct_memory(pages);
}

static inline unsigned long oom_move_page_tables(struct pagetable_move_control *pmc)
{
	return oom.active ? pmc->len_in : move_page_tables(pmc);
}

#undef vma_policy
#define vma_policy(vma) ((vma)->vm_policy)
#define mpol_equal oom_mpol_equal
#define anon_vma_name(vma) ((vma)->anon_name)
#define anon_vma_name_eq oom_name_eq
#define is_mergeable_vm_userfaultfd_ctx oom_mergeable_ctx
#define security_vm_enough_memory_mm oom_enough_memory
#define vm_unacct_memory oom_unacct_memory
#define move_page_tables oom_move_page_tables
#undef vma_iter_prealloc
#define vma_iter_prealloc oom_iter_prealloc
#define vma_iter_store_gfp oom_iter_store_gfp
#define vma_iter_clear_gfp oom_iter_clear_gfp
#define mas_store_gfp oom_mas_store_gfp
#define vm_area_alloc oom_vm_area_alloc
#define vm_area_dup oom_vm_area_dup
#define vm_area_free oom_vm_area_free
#define vma_dup_policy oom_vma_dup_policy
#define mpol_put oom_mpol_put
#define get_file oom_get_file
#define fput oom_fput
#define vma_close oom_vma_close
#define anon_vma_clone oom_anon_vma_clone
#define unlink_anon_vmas oom_unlink_anon_vmas

/* A warning that a test asks for is not one that it prints. */
#define OOM_WARN_ON(_expr)						\
	do {								\
		bool __warn = !!(_expr);				\
									\
		if (oom.active)						\
			oom.warned |= __warn;				\
		else							\
			WARN_ON(__warn);				\
	} while (0)

#undef VM_WARN_ON
#define VM_WARN_ON(_expr) OOM_WARN_ON(_expr)
#undef VM_WARN_ON_VMG
#define VM_WARN_ON_VMG(_expr, _vmg)					\
	do {								\
		(void)(_vmg);						\
		OOM_WARN_ON(_expr);					\
	} while (0)

#endif	/* _TESTS_OOM_H */
