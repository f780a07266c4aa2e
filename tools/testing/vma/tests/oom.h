/* SPDX-License-Identifier: GPL-2.0-or-later */

/*
 * Allocations that fail when they are told to, and anon_vmas that are counted.
 *
 * To be included after what is overridden here has been declared and before
 * mm/vma.c: everything in mm/vma.c that allocates is led through
 * oom_should_fail(), and what else it does to objects with a lifetime is kept
 * count of. Other tests see the stubs as they are, since nothing of this is in
 * effect unless oom.active is set.
 */
#ifndef _TESTS_OOM_H
#define _TESTS_OOM_H

static struct {
	bool active;
	bool warned;		/* There was a VM_WARN_ON(). */
	bool bad_free;		/* A VMA was freed with anon_vmas linked. */
	bool rest;		/* Fail all allocations from the n-th on. */
	unsigned int nth;	/* Fail this allocation, 0 for none. */
	unsigned int allocs;	/* Allocations seen. */
	unsigned int failed;	/* Allocations failed. */

	int nr_vmas;
	int nr_policies;
	int nr_files;
	int nr_open;		/* Calls of open() minus calls of close(). */
} oom;

/* What the kernel counts in an anon_vma, and in its interval tree. */
struct oom_anon_vma {
	struct anon_vma anon_vma;
	int nr_links;
	int nr_active;
};

static inline struct oom_anon_vma *oom_anon_vma(struct anon_vma *anon_vma)
{
	return (struct oom_anon_vma *)anon_vma;
}

static inline bool oom_should_fail(void)
{
	unsigned int n;

	if (!oom.active)
		return false;

	n = ++oom.allocs;
	if (!oom.nth || n < oom.nth || (n > oom.nth && !oom.rest))
		return false;

	oom.failed++;
	return true;
}

/* Leaves the iterator as mas_preallocate() does when it fails. */
static inline int oom_iter_prealloc(struct vma_iterator *vmi,
				    struct vm_area_struct *vma)
{
	if (oom_should_fail()) {
		mas_destroy(&vmi->mas);
		mas_reset(&vmi->mas);
		return -ENOMEM;
	}

	return vma_iter_prealloc(vmi, vma);
}

static inline struct vm_area_struct *oom_vm_area_dup(struct vm_area_struct *orig)
{
	struct vm_area_struct *vma;

	if (oom_should_fail())
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
	if (oom_should_fail())
		return -ENOMEM;

	if (oom.active)
		oom.nr_policies++;
	return vma_dup_policy(src, dst);
}

static inline void oom_mpol_put(struct mempolicy *policy)
{
	if (oom.active)
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
		if (!oom_should_fail() && oom_link_anon_vma(dst, avc->anon_vma))
			continue;

		oom_unlink_chain(dst);
		dst->anon_vma = NULL;
		return -ENOMEM;
	}

	oom_anon_vma(dst->anon_vma)->nr_active++;
	return 0;
}

#undef vma_iter_prealloc
#define vma_iter_prealloc oom_iter_prealloc
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
