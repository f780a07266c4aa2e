/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The model fuzzer of mremap() and its relocation flags.
 */
#ifndef FUZZ_H
#define FUZZ_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/types.h>

/* Not in the headers of an older C library. replay.h stands alone. */
#ifndef MADV_COLD
#define MADV_COLD		20
#define MADV_PAGEOUT		21
#endif
#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ	22
#define MADV_POPULATE_WRITE	23
#endif
#ifndef MADV_COLLAPSE
#define MADV_COLLAPSE		25
#endif
#ifndef MADV_GUARD_INSTALL
#define MADV_GUARD_INSTALL	102
#define MADV_GUARD_REMOVE	103
#endif

#ifndef NR_PAGES
#define PAGE		4096ul
#define NR_PAGES	2048
#define NR_PROCS	3
#define BLOCK		512
#endif
#define MAX_VMAS	1024
#define MAX_OPS		400
#define MAX_INST	(1 << 20)
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/* mremap() */
#define MAYMOVE		1
#define FIXED		2
#define DONTUNMAP	4
#define RELOCATE	8
#define MUST		16

enum op_type {
	OP_MMAP, OP_MUNMAP, OP_MREMAP, OP_MPROTECT, OP_MADVISE, OP_MLOCK,
	OP_MUNLOCK, OP_NAME, OP_WRITE, OP_READ, OP_FORK, OP_EXIT,
	OP_UFFD_REGISTER, OP_UFFD_UNREGISTER, OP_UFFD_WP, OP_MIGRATE,
	OP_CLEAR_REFS, OP_COMPARE,
};

enum kind { ANON, SHARED, ZERO };

struct op {
	int type, who;
	int page, nr;
	int to, new_nr;
	int flags;		/* Of mremap(), protection or advice. */
	int mmap_flags;
	int kind;
	uint32_t arg;		/* Stamp, name, node, process, on or off. */
	int off, nth;
};

struct result {
	long ret;		/* A value, or a negative errno. */
	int sig;
	bool injected;
	uint64_t word;		/* The first wrong one. */
	int index;
};

/* All that has to be the same for two VMAs to merge. */
#define ACCT_UNKNOWN	2

struct attr {
	uint8_t prot, kind, locked, thp, name, uffd, acct, noreserve;
	uint16_t file;
};

struct vma {
	int start, end;
	struct attr a;
	long pgoff;
	uint32_t anon;		/* Its anon_vma, 0 if none. */
	bool child;		/* Inherited by fork() with an anon_vma. */
	bool fuzzy;		/* The last three are not known. */
	bool maybe;		/* The last call may have merged it. */
};

struct page {
	uint32_t stamp;		/* Of its contents, 0 for zeroes. */
	uint32_t inst;		/* The page itself; who has it, is counted. */
	bool guard, wp;
};

struct proc {
	bool alive, grandchild;
	bool books_off;		/* The kernel has lost count, see mremap.c. */
	int nr;
	struct vma v[MAX_VMAS + 8];
	struct page p[NR_PAGES];
};

/* A shared mapping. */
struct object {
	int size;
	uint32_t stamp[NR_PAGES];
};

struct model {
	struct proc proc[NR_PROCS];
	uint32_t next_inst, next_anon;
	uint16_t next_file;
	bool books_off;
	struct object object[64];
};

/*
 * A file may call those above it here, and none of those below: the Makefile
 * looks.
 */

static inline int min_int(int a, int b)
{
	return a < b ? a : b;
}

static inline int max_int(int a, int b)
{
	return a > b ? a : b;
}

/* common.c */
struct options {
	bool unpatched;		/* Leave the flags out. */
	bool verbose;
	bool no_nth;
	bool disturb;
	bool no_shrink;
	bool same;		/* Only what gives the same bytes without the flags. */
	bool alone;		/* Nobody else commits memory meanwhile. */
	int nr_ops;
};

extern struct options opt;
extern int thp_mode;		/* Of this sequence: 0, 1, 2 or 3. */
const char *fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* worker.c */
struct control {
	struct op op;
	struct result res;
	uint32_t want[NR_PAGES];
	volatile pid_t pids[NR_PROCS];	/* 0: is not alive. */
	/* For the disturber. */
	volatile int hot, nr_hot;
	volatile bool hold, held;
};

#define SKIP	0xffffffffu

extern struct control *control;
extern int command_pipe[NR_PROCS][2], answer_pipe[2];
extern bool has_names;		/* CONFIG_ANON_VMA_NAME */
void worker(int me);
unsigned long arena_base(void);
void worker_setup(void);

/* disturb.c */
void disturb_start(void);
void disturb(bool on);

/* observe.c: pagemap and kpageflags */
#define PM_PFN		((1ull << 55) - 1)
#define PM_SWAP_TYPE	31ull
#define PM_SOFT_DIRTY	(1ull << 55)
#define PM_UFFD_WP	(1ull << 57)
#define PM_FILE		(1ull << 61)
#define PM_SWAP		(1ull << 62)
#define PM_PRESENT	(1ull << 63)
#define PM_SAME		(PM_PFN | PM_FILE | PM_SWAP | PM_PRESENT)

#define KPF_HEAD	(1ull << 15)
#define KPF_TAIL	(1ull << 16)
#define KPF_ZERO	(1ull << 24)

/* In /proc/vmstat: mremap_relocate and those that begin with it. */
struct counters {
	long vmas, pages, refused;
};

/* What was in the page tables, and was counted, before a call of mremap(). */
struct before {
	uint64_t pm[NR_PROCS][NR_PAGES];
	uint64_t kf[NR_PROCS][NR_PAGES];
	int place[NR_PAGES];	/* Where each page was, -1 if there was none. */
	struct counters counters;
	bool taken;
	int page, nr;
};

/* Pages that are re-homed. Those in swap may have a folio, or not. */
struct rehomed {
	long present, swapped;
};

extern struct before before;
extern uint64_t now[NR_PAGES];	/* Of the last read_now(). */
extern bool has_soft_dirty;
extern unsigned long nr_pages, nr_swapped, nr_large;
void observe_init(void);
void take_before(struct op *op);
void before_moved(int from, int nr, int to, int new_nr);
bool others_alive(int me);
bool had_page(int who, int page);
bool had_zero_page(int who, int page);
bool had_other_owner(int me, int page);
bool was_cut(int who, int start, int end);
void count_entries(int who, int start, int end, struct rehomed *sum);
void read_pagemap(int who, uint64_t *entries);
void read_now(int who);
bool is_present(int page);
bool is_page(uint64_t entry);
uint64_t page_flags(uint64_t entry);

/* Other files of /proc, and the log */
struct mapping {
	int start, end, prot, name;
	bool shared;
};

extern struct mapping seen[MAX_VMAS];	/* Of the last read_maps(). */
extern int nr_seen;
void read_maps(int who);
bool is_mapped_now(int who, int page);
bool parse_mapping(const char *line, struct mapping *s);
const char *read_file(int who, const char *name);
long figure(const char *text, const char *name);
void read_counters(struct counters *c);
const char *read_event(void);
bool has_events(void);
long committed(void);
const char *kernel_says(void);

/* model.c */
extern struct model m;
extern uint8_t inst_refs[MAX_INST], inst_unsure[MAX_INST];
enum answer { NO, YES, MAYBE };
void model_reset(void);
int vma_at(struct proc *p, int page);
int vma_next(struct proc *p, int page);
void vma_insert(struct proc *p, const struct vma *v);
void vma_remove(struct proc *p, int i);
void vma_split(struct proc *p, int page);
void drop_page(struct page *pg);
void unmap_vmas(struct proc *p, int start, int end);
void unmap_range(struct proc *p, int start, int end);
bool is_free(struct proc *p, int start, int nr);
bool has_gap(struct proc *p, int nr);
int nr_mapped(struct proc *p, bool locked);
bool unknown(const struct vma *v);
bool same_attr(const struct vma *a, const struct vma *b);
enum answer can_merge(struct vma *a, struct vma *b, bool a_is_old, bool src_child);
void merge_new(struct proc *p, struct vma *c, bool src_child, int not1, int not2);
void modify(struct proc *p, int start, int end, const struct attr *a, int keep);
uint32_t reusable_anon(struct proc *p, const struct vma *v, bool *unsure);
void fault_anon(struct proc *p, int i);
struct object *object_of(const struct vma *v);
int touch(struct proc *p, int page, bool write, uint32_t stamp);
uint32_t stamp_at(struct proc *p, int page);

/* relocate.c */
/* Why not all was relocated, the refusals last. The names are those in relocate.c. */
enum reason {
	NONE, UNMOVED, UNFAULTED, MERGES, A_FILE, SHARED_MAPPING, SHARED_PAGE, CANNOT,
};

/* What the kernel has to report of a call; check.c looks. */
struct expected {
	bool event;		/* Is there to be a trace event? */
	bool unsure, unsure_reason;
	int nr_vmas;		/* How many there were before. */
	long vmas, refused;
	struct rehomed pages;
	enum reason reason;
};

#define SOMEWHERE	(2 * NR_PAGES)	/* A distance that is not known. */

extern struct expected expected;
extern const char * const reason_names[];
extern unsigned long nr_relocated;
void relocate_start(void);
void refuse(enum reason reason);
enum answer can_relocate(int who, int start, int end, int distance);
void relocate(int who, int start, int end, bool moved, bool must, bool had_memory);
bool maybe_rehomed(int start, int nr);

/* mremap.c */
struct entries {		/* What they were to become; check.c looks. */
	enum { MOVED, IN_PLACE, REFUSED } what;
	int from, to, nr;
	bool wp_lost, folios_whole;
};

extern struct entries entries[MAX_VMAS];
extern int nr_entries;
extern unsigned long nr_plain, nr_refused, nr_injected;
const char *apply_mremap(struct op *op, struct result *res);

/* apply.c */
const char *apply(struct op *op, struct result *res);

/* check.c */
const char *check_entries(int who);
extern unsigned long nr_reports, nr_unsure;
const char *check_report(int who, const struct result *res);
const char *check_layout(int who);
const char *check_books(int who);
const char *check_flags(int who);
void books_start(int who);

/* valid.c */
bool is_valid(struct op *op);

/* gen.c */
void gen_start(uint64_t seed);
void generate(struct op *op, int step);

/* print.c */
void print_op(const struct op *op, const struct result *res);
void print_program(const struct op *ops, const struct result *res, int nr,
		   const char *why, uint64_t seed);

/* run.c */
extern struct result results[MAX_OPS];
extern uint64_t digest;
extern bool hangs;		/* A process is in a call that does not end. */
extern unsigned long nr_done;
extern int failed_at;
const char *run_sequence(struct op *ops, int *nr, uint64_t seed, bool generate);

/* shrink.c */
void warn_again(void);
int shrink(struct op *ops, int nr, uint64_t seed, const char **why);

#endif
