/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM mremap

#if !defined(_TRACE_MREMAP_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_MREMAP_H

#include <linux/mman.h>
#include <linux/tracepoint.h>

/*
 * enum rehome_reason of mm/rehome.h, which is to be included before this. The
 * names are explained in Documentation/admin-guide/mm/mremap_relocate.rst.
 */
TRACE_DEFINE_ENUM(REHOME_OK);
TRACE_DEFINE_ENUM(NOT_REHOMED_UNMOVED);
TRACE_DEFINE_ENUM(NOT_REHOMED_UNFAULTED);
TRACE_DEFINE_ENUM(NOT_REHOMED_MERGES);
TRACE_DEFINE_ENUM(NOT_REHOMED_FILE);
TRACE_DEFINE_ENUM(NOT_REHOMED_SHARED_MAPPING);
TRACE_DEFINE_ENUM(NOT_REHOMED_HUGETLB);
TRACE_DEFINE_ENUM(NOT_REHOMED_SPECIAL);
TRACE_DEFINE_ENUM(NOT_REHOMED_SEALED);
TRACE_DEFINE_ENUM(NOT_REHOMED_SHARED_PAGE);
TRACE_DEFINE_ENUM(NOT_REHOMED_KSM);
TRACE_DEFINE_ENUM(NOT_REHOMED_DEVICE);
TRACE_DEFINE_ENUM(NOT_REHOMED_CUT_SHARED);
TRACE_DEFINE_ENUM(NOT_REHOMED_CUT_PINNED);
TRACE_DEFINE_ENUM(NOT_REHOMED_CUT_BUSY);
TRACE_DEFINE_ENUM(NOT_REHOMED_UNASKED);
TRACE_DEFINE_ENUM(NOT_REHOMED_NO_MEMORY);
TRACE_DEFINE_ENUM(NOT_REHOMED_SIGNAL);

#define show_rehome_reason(reason)					\
	__print_symbolic(reason,					\
		{ REHOME_OK,			"none" },		\
		{ NOT_REHOMED_UNMOVED,		"unmoved" },		\
		{ NOT_REHOMED_UNFAULTED,	"unfaulted" },		\
		{ NOT_REHOMED_MERGES,		"merges" },		\
		{ NOT_REHOMED_FILE,		"file" },		\
		{ NOT_REHOMED_SHARED_MAPPING,	"shared_mapping" },	\
		{ NOT_REHOMED_HUGETLB,		"hugetlb" },		\
		{ NOT_REHOMED_SPECIAL,		"special" },		\
		{ NOT_REHOMED_SEALED,		"sealed" },		\
		{ NOT_REHOMED_SHARED_PAGE,	"shared_page" },	\
		{ NOT_REHOMED_KSM,		"ksm" },		\
		{ NOT_REHOMED_DEVICE,		"device" },		\
		{ NOT_REHOMED_CUT_SHARED,	"cut_shared" },		\
		{ NOT_REHOMED_CUT_PINNED,	"cut_pinned" },		\
		{ NOT_REHOMED_CUT_BUSY,		"cut_busy" },		\
		{ NOT_REHOMED_UNASKED,		"unasked" },		\
		{ NOT_REHOMED_NO_MEMORY,	"no_memory" },		\
		{ NOT_REHOMED_SIGNAL,		"signal" })

#define show_mremap_flags(flags)					\
	__print_flags(flags, "|",					\
		{ MREMAP_MAYMOVE,		"MAYMOVE" },		\
		{ MREMAP_FIXED,			"FIXED" },		\
		{ MREMAP_DONTUNMAP,		"DONTUNMAP" },		\
		{ MREMAP_RELOCATE_ANON,		"RELOCATE_ANON" })

/**
 * mremap_relocate - called at the end of a call of mremap() that was to relocate
 *		     memory, by its flags or by vm.mremap_relocate
 * @old_addr: start of the range, in bytes
 * @old_len: its length, in bytes
 * @new_addr: where it is now, or if the call failed was to go, in bytes
 * @new_len: its new length, in bytes
 * @flags: the flags of the call
 * @result: 0, or the error that the call returns
 * @vmas_before: number of VMAs that the mm had before the call
 * @vmas_after: number of VMAs that it has now
 * @folios: number of folios that were re-homed
 * @pages: number of pages that they have
 * @reason: why not all of the range was; the first one, if there are several,
 *	    and a refusal rather than that there was nothing to gain
 */
TRACE_EVENT(mremap_relocate,

	TP_PROTO(unsigned long old_addr, unsigned long old_len,
		 unsigned long new_addr, unsigned long new_len,
		 unsigned long flags, int result, int vmas_before,
		 int vmas_after, unsigned long folios, unsigned long pages,
		 int reason),

	TP_ARGS(old_addr, old_len, new_addr, new_len, flags, result,
		vmas_before, vmas_after, folios, pages, reason),

	TP_STRUCT__entry(
		__field(unsigned long, old_addr)
		__field(unsigned long, old_len)
		__field(unsigned long, new_addr)
		__field(unsigned long, new_len)
		__field(unsigned long, flags)
		__field(unsigned long, folios)
		__field(unsigned long, pages)
		__field(int, result)
		__field(int, vmas_before)
		__field(int, vmas_after)
		__field(int, reason)
	),

	TP_fast_assign(
		__entry->old_addr = old_addr;
		__entry->old_len = old_len;
		__entry->new_addr = new_addr;
		__entry->new_len = new_len;
		__entry->flags = flags;
		__entry->folios = folios;
		__entry->pages = pages;
		__entry->result = result;
		__entry->vmas_before = vmas_before;
		__entry->vmas_after = vmas_after;
		__entry->reason = reason;
	),

	TP_printk("old_addr=0x%lx old_len=%lu new_addr=0x%lx new_len=%lu flags=%s result=%d vmas_before=%d vmas_after=%d folios=%lu pages=%lu reason=%s",
		  __entry->old_addr, __entry->old_len, __entry->new_addr,
		  __entry->new_len,
		  show_mremap_flags(__entry->flags),
		  __entry->result, __entry->vmas_before, __entry->vmas_after,
		  __entry->folios, __entry->pages,
		  show_rehome_reason(__entry->reason))
);

/**
 * mremap_relocate_refused - called for each VMA that cannot be relocated
 * @start: start of what is to move of it, in bytes
 * @end: end of that, in bytes, exclusive
 * @addr: the first page that is in the way, or @start
 * @reason: the reason
 */
TRACE_EVENT(mremap_relocate_refused,

	TP_PROTO(unsigned long start, unsigned long end,
		 unsigned long addr, int reason),

	TP_ARGS(start, end, addr, reason),

	TP_STRUCT__entry(
		__field(unsigned long, start)
		__field(unsigned long, end)
		__field(unsigned long, addr)
		__field(int, reason)
	),

	TP_fast_assign(
		__entry->start = start;
		__entry->end = end;
		__entry->addr = addr;
		__entry->reason = reason;
	),

	TP_printk("start=0x%lx end=0x%lx addr=0x%lx reason=%s",
		  __entry->start, __entry->end, __entry->addr,
		  show_rehome_reason(__entry->reason))
);

#endif /* _TRACE_MREMAP_H */

/* This part must be outside protection */
#include <trace/define_trace.h>
